//! One administrator's decision: a transaction, and what follows from it.
//!
//! Decisions are taken one at a time. The tokens that follow are signed before the commit, so that a decision whose tokens
//! would be too long is none; they are sent, and the deny list is changed, after it. What reaches [`Core::changes`] is
//! therefore in the order of the database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use ringfort_proto::api;
use ringfort_token::{Entry, Grant};
use ringfort_types::UnixSeconds;
use serde_json::Value;
use sqlx::{Sqlite, Transaction};
use tokio::sync::OwnedMutexGuard;

use super::audit::Changed;
use super::issue::Subject;
use super::receipts::serial_text;
use super::refused::Refused;
use super::store::{self, Occasion, Site, User};
use super::{Administrator, Change, Core, Event};

/// Bytes of the grants of one user at one site, as JSON: 240 of the 256 KiB of an entitlement token, which is base64.
const GRANTS_BYTES_MAX: usize = 180 << 10;

/// A decision that is being taken; dropped, it is none.
pub(crate) struct Decision {
    core: Core,
    actor: String,
    now: UnixSeconds,
    pub(crate) tx: Transaction<'static, Sqlite>,
    changes: Vec<Change>,
    entries: Vec<Entry>,
    changed: Changed,
    _turn: OwnedMutexGuard<()>,
}

impl Decision {
    pub(crate) async fn begin<A>(
        core: &Core,
        administrator: &Administrator<A>,
        now: UnixSeconds,
    ) -> Result<Self, Refused> {
        let turn = Arc::clone(&core.inner.deciding).lock_owned().await;
        let tx = core.inner.store.begin().await?;
        let (core, actor) = (core.clone(), administrator.name().to_owned());
        Ok(Self {
            core,
            actor,
            now,
            tx,
            changes: Vec::new(),
            entries: Vec::new(),
            changed: Changed::default(),
            _turn: turn,
        })
    }

    /// # Errors
    /// `not_found`.
    pub(crate) async fn user(&mut self, name: &str) -> Result<User, Refused> {
        store::user_by_name(&mut self.tx, name).await?.ok_or_else(|| Refused::not_found("user", name))
    }

    /// # Errors
    /// `not_found`.
    pub(crate) async fn site(&mut self, name: &str) -> Result<Site, Refused> {
        store::site_by_name(&mut self.tx, name).await?.ok_or_else(|| Refused::not_found("site", name))
    }

    /// The id of a group.
    ///
    /// # Errors
    /// `not_found`.
    pub(crate) async fn group(&mut self, name: &str) -> Result<String, Refused> {
        store::group_id(&mut self.tx, name).await?.ok_or_else(|| Refused::not_found("group", name))
    }

    /// Signs anew what the live logins of `users` may do at `sites`, to be pushed.
    ///
    /// # Errors
    /// `request_malformed` when somebody's token would be too long, whether they are logged in or not.
    pub(crate) async fn push(&mut self, users: &BTreeSet<String>, sites: &BTreeSet<String>) -> Result<(), Refused> {
        let known = store::sites(&mut self.tx).await?;
        for user in users {
            let grants = store::grants_of(&mut self.tx, user).await?;
            checked_length(&grants)?;
            for login in store::live_logins_of(&mut self.tx, user, self.now).await? {
                let subject = Subject::of_login(&login)?;
                if !self.core.is_good(&subject, self.now) {
                    continue;
                }
                for site in sites.iter().filter_map(|site| known.get(site)) {
                    let grants = grants.get(&site.id).cloned().unwrap_or_default();
                    let (dn, tx) = (subject.dn(), &mut self.tx);
                    let seq = store::next_sequence(tx, dn, &site.id, Occasion::Pushed).await?;
                    match self.core.entitlement(tx, &subject, site, grants, seq, self.now).await {
                        Ok(token) => {
                            self.changes
                                .push(Change::Entitlement { site: site.id.clone(), token: token.as_str().into() });
                        }
                        // It has no address there, so it has no token there that a Gateway could hold.
                        Err(refused) if refused.code == "pool_exhausted" => {
                            tracing::warn!(
                                site = site.id,
                                "no address is left at a site; nothing was pushed for a session"
                            );
                        }
                        Err(refused) => return Err(refused),
                    }
                }
            }
        }
        Ok(())
    }

    /// The Gateways of a site need their configuration anew.
    pub(crate) fn reconfigure(&mut self, site: &str) {
        self.changes.push(Change::Configuration { site: site.to_owned() });
    }

    /// Takes something back, before the logins are ended from which it is taken.
    pub(crate) async fn revoke(&mut self, entry: Entry) -> Result<(), Refused> {
        let n = self.core.serial().n + self.entries.len() as u64 + 1;
        store::insert_revocation(&mut self.tx, n, &entry, self.now).await?;
        store::set_revocation_end(&mut self.tx, n, &entry.scope).await?;
        self.entries.push(entry);
        Ok(())
    }

    /// What the audit event is to say of what was there before and is there after; `Null` for nothing.
    pub(crate) fn record(&mut self, before: Value, after: Value) {
        self.changed = Changed::new(before, after);
    }

    /// Writes the audit event, commits, and sends what follows.
    pub(crate) async fn close(mut self, action: &str, target: &str, detail: &str) -> Result<api::Pushed, Refused> {
        let event = Event { actor: &self.actor, action, target, outcome: "ok", detail };
        let mut recorded = event.recorded(self.now);
        (recorded.before, recorded.after) = self.changed.columns();
        store::insert_event(&mut self.tx, &recorded).await?;
        let after = self.core.serial().n;
        let lists = self.core.sign_revocations(after, &self.entries, self.now)?;
        let entitlements = self.changes.iter().filter(|change| matches!(change, Change::Entitlement { .. })).count();
        self.tx.commit().await?;

        let serial = {
            let mut deny = self.core.inner.deny.write().unwrap_or_else(PoisonError::into_inner);
            for (n, entry) in (after + 1..).zip(self.entries) {
                deny.insert(n, entry);
            }
            deny.forget(self.now);
            deny.serial()
        };
        let lists = lists.into_iter().map(|(token, serial)| (Arc::from(token.as_str()), serial));
        let revocations: Vec<_> = lists.map(|(token, serial)| Change::Revocations { token, serial }).collect();
        let serial = match revocations.is_empty() {
            true => String::new(),
            false => serial_text(serial),
        };
        let sites = self.changes.iter().filter_map(|change| match change {
            Change::Entitlement { site, .. } | Change::Configuration { site } => Some(site.as_str()),
            Change::Revocations { .. } => None,
        });
        let sites = revocations.is_empty().then(|| sites.collect());
        let gateways = self.core.inner.reach.get().map_or(0, |reach| reach(sites.as_ref()));
        // What is taken back goes out before what is given.
        for change in revocations.into_iter().chain(self.changes) {
            // Nobody listens while no Gateway is connected.
            let _ = self.core.inner.changes.send(change);
        }
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(api::Pushed { entitlements: number(entitlements), serial, gateways: number(gateways) })
    }
}

/// Whether the grants of a user at each site fit into a token.
fn checked_length(grants: &BTreeMap<String, Vec<Grant>>) -> Result<(), Refused> {
    for grants in grants.values() {
        if serde_json::to_vec(grants).map_err(Refused::internal)?.len() > GRANTS_BYTES_MAX {
            return Err(Refused::malformed(format!(
                "expected a user's Resources at one site to take at most {GRANTS_BYTES_MAX} bytes: name networks instead of addresses"
            )));
        }
    }
    Ok(())
}
