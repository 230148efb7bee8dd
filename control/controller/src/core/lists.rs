//! What administrators look at.

use std::collections::BTreeMap;

use ringfort_proto::api;
use ringfort_types::UnixSeconds;

use super::issue::is_alive;
use super::refused::Refused;
use super::{Administrator, Core, action, serial_text, store};

/// Most events in one answer.
const EVENTS_MAX: u32 = 1_000;

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
            let store::Account { email, service, totp } = accounts.remove(&id).unwrap_or_default();
            rows.push(api::UserRow { id, name, role, active, groups, email, service, totp });
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
        let applied: BTreeMap<_, _> = store::applied(&mut tx).await?.into_iter().collect();
        let row = |gateway: store::Gateway| api::GatewayRow {
            alive: is_alive(&gateway, now),
            connected: false,
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

    /// The newest events, the newest first; at most 1,000.
    ///
    /// # Errors
    /// `internal`.
    pub async fn events(
        &self,
        _administrator: &Administrator<action::ListAudit>,
    ) -> Result<Vec<api::AuditRow>, Refused> {
        self.newest_events(EVENTS_MAX).await
    }

    /// The newest events, for the status on this machine.
    pub(crate) async fn newest_events(&self, count: u32) -> Result<Vec<api::AuditRow>, Refused> {
        let events = store::events(&mut *self.inner.store.read().await?, count).await?;
        let row = |event: store::Recorded| api::AuditRow {
            id: event.id,
            at: event.at.0,
            actor: event.actor,
            action: event.action,
            target: event.target,
            outcome: event.outcome,
            detail: event.detail,
        };
        Ok(events.into_iter().map(row).collect())
    }
}
