//! What administrators look at.

use std::collections::BTreeMap;

use ringfort_proto::api;
use ringfort_types::UnixSeconds;

use super::issue::is_alive;
use super::refused::Refused;
use super::{Administrator, Core, action, serial_text, store};

impl Core {
    /// All users.
    ///
    /// # Errors
    /// `internal`.
    pub async fn users(&self, _administrator: &Administrator<action::ListUsers>) -> Result<Vec<api::UserRow>, Refused> {
        let mut tx = self.inner.store.snapshot().await?;
        let mut accounts = store::accounts(&mut tx).await?;
        let mut rows = Vec::new();
        for store::User { id, name, role, active, .. } in store::users(&mut tx).await? {
            let groups = store::groups_of(&mut tx, &id).await?;
            let store::Account { email, service, otp } = accounts.remove(&id).unwrap_or_default();
            rows.push(api::UserRow { id, name, role, active, groups, email, service, otp });
        }
        Ok(rows)
    }

    /// All Gateways; whose stream is open is the shell's to say.
    ///
    /// # Errors
    /// `internal`.
    pub async fn gateways(
        &self,
        _administrator: &Administrator<action::ListGateways>,
        now: UnixSeconds,
    ) -> Result<Vec<api::GatewayRow>, Refused> {
        self.known_gateways(now).await
    }

    /// All Gateways, for the status on this machine.
    pub(crate) async fn known_gateways(&self, now: UnixSeconds) -> Result<Vec<api::GatewayRow>, Refused> {
        let mut tx = self.inner.store.snapshot().await?;
        let sites = store::sites(&mut tx).await?;
        let gateways = store::gateways(&mut tx).await?;
        let draining = store::draining(&mut tx).await?;
        let applied: BTreeMap<_, _> = store::applied(&mut tx).await?.into_iter().collect();
        let row = |gateway: store::Gateway| api::GatewayRow {
            alive: is_alive(&gateway, now),
            connected: false,
            duplicate_at: None,
            draining: draining.contains(&gateway.id),
            applied: applied.get(&gateway.id).copied().map(serial_text).unwrap_or_default(),
            site: sites.get(&gateway.site).map(|site| site.name.clone()).unwrap_or_default(),
            id: gateway.id,
            name: gateway.name,
            addresses: gateway.addresses,
            certificate_digest: gateway.digest,
            last_seen: gateway.last_seen.0,
        };
        Ok(gateways.into_iter().map(row).collect())
    }

    /// All logins that have not ended.
    ///
    /// # Errors
    /// `internal`.
    pub async fn sessions(
        &self,
        _administrator: &Administrator<action::ListSessions>,
        now: UnixSeconds,
    ) -> Result<Vec<api::SessionRow>, Refused> {
        let mut tx = self.inner.store.snapshot().await?;
        let names = store::users(&mut tx).await?.into_iter().map(|user| (user.id, user.name));
        let names: BTreeMap<String, String> = names.collect();
        let row = |login: store::Login| api::SessionRow {
            user: names.get(&login.user).cloned().unwrap_or_default(),
            dn: login.dn,
            client_id: login.client,
            claims: login.claims,
            auth_time: login.auth_time.0,
            expires_at: login.expires_at.0,
        };
        Ok(store::live_logins(&mut tx, now).await?.into_iter().map(row).collect())
    }
}
