//! One administrator's decision: a transaction, and what follows from it.
//!
//! Decisions are taken one at a time, by all Controllers of one database together. The tokens that follow are signed before
//! the commit, so that a decision whose tokens would be too long is none. What follows is written beside the decision, and
//! passed on from there ([`Core::hear`]): in the order of the database, by each Controller.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringfort_proto::api;
use ringfort_token::{Effect, Entry, EntryScope, Grant, Serial};
use ringfort_types::UnixSeconds;
use serde_json::Value;
use sqlx::{Any, Transaction};

use super::audit::Changed;
use super::issue::Subject;
use super::receipts::serial_text;
use super::refused::Refused;
use super::store::{self, Consequence, Occasion, Site, User};
use super::{Action, Administrator, Core, Event};

/// Bytes of the grants of one user at one site, as JSON: 240 of the 256 KiB of an entitlement token, which is base64.
const GRANTS_BYTES_MAX: usize = 180 << 10;

/// How long a key stays denied, in seconds: ten years, the life of the root. Unlike a token a key has no end.
const KEY_SECONDS: u64 = 3_652 * 86_400;
/// Why the key of something that was removed is denied.
pub(crate) const REMOVED: &str = "removed";

/// A decision that is being taken; dropped, it is none.
pub(crate) struct Decision {
    pub(super) core: Core,
    actor: String,
    pub(super) now: UnixSeconds,
    pub(crate) tx: Transaction<'static, Any>,
    /// Sites at which users may do something else than before, by user.
    touched: BTreeMap<String, BTreeSet<String>>,
    consequences: Vec<Consequence>,
    /// Where the list of revocations stood before.
    after: u64,
    entries: Vec<(u64, Entry)>,
    changed: Changed,
}

impl Decision {
    /// Waits for its turn, and looks whether whoever decides may still do so.
    ///
    /// # Errors
    /// `not_administrator`, `role_insufficient`, `token_revoked` when the login has ended meanwhile.
    pub(crate) async fn begin<A: Action>(
        core: &Core,
        administrator: &Administrator<A>,
        now: UnixSeconds,
    ) -> Result<Self, Refused> {
        let mut tx = core.inner.store.begin().await?;
        administrator.still(core, &mut tx, now).await?;
        let after = store::newest_revocation(&mut tx).await?;
        let (core, actor) = (core.clone(), administrator.name().to_owned());
        let (touched, consequences) = (BTreeMap::new(), Vec::new());
        let (entries, changed) = (Vec::new(), Changed::default());
        Ok(Self { core, actor, now, tx, touched, consequences, after, entries, changed })
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

    /// What a user may do at a site changes.
    pub(crate) fn touch(&mut self, user: String, site: &str) {
        self.touched.entry(user).or_default().insert(site.to_owned());
    }

    /// Signs anew what the live logins of users may do at the sites where that changed, to be pushed.
    ///
    /// # Errors
    /// `request_malformed` when somebody's token would be too long, whether they are logged in or not.
    async fn push(&mut self) -> Result<(), Refused> {
        let (touched, mut pushed) = (std::mem::take(&mut self.touched), Vec::new());
        let known = if touched.is_empty() { BTreeMap::new() } else { store::sites(&mut self.tx).await? };
        for (user, sites) in touched {
            let grants = store::grants_of(&mut self.tx, &user).await?;
            checked_length(&grants)?;
            for login in store::live_logins_of(&mut self.tx, &user, self.now).await? {
                let subject = Subject::of_login(&login)?;
                if !self.core.is_good(&subject, self.now) {
                    continue;
                }
                for site in sites.iter().filter_map(|site| known.get(site)) {
                    let grants = grants.get(&site.id).cloned().unwrap_or_default();
                    let (dn, tx) = (subject.dn(), &mut self.tx);
                    let seq = store::next_sequence(tx, dn, &site.id, Occasion::Pushed, self.now).await?;
                    match self.core.entitlement(tx, &subject, site, grants, seq, self.now).await {
                        Ok(token) => {
                            let (site, token) = (site.id.clone(), token.as_str().to_owned());
                            pushed.push(Consequence::Entitlement { site, token });
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
        // What users may do comes before what anybody may.
        self.consequences.splice(0..0, pushed);
        Ok(())
    }

    /// The Gateways of a site need their configuration anew.
    pub(crate) fn reconfigure(&mut self, site: &str) {
        self.consequences.push(Consequence::Configuration { site: site.to_owned() });
    }

    /// Everybody hears anew whom to believe.
    pub(crate) fn reintroduce(&mut self) {
        self.consequences.push(Consequence::Authorities);
    }

    /// Takes everything back from whoever has a key, for as long as there can be certificates for it.
    ///
    /// # Errors
    /// `internal`.
    pub(crate) async fn deny_key(&mut self, jkt: &str, reason: &str) -> Result<(), Refused> {
        let scope = EntryScope::Key(jkt.parse().map_err(Refused::internal)?);
        let keep_until = self.now + Duration::from_secs(KEY_SECONDS);
        self.revoke(Entry { scope, effect: Effect::Revoke, reason: reason.to_owned(), keep_until }).await
    }

    /// Takes something back, before the logins are ended from which it is taken.
    pub(crate) async fn revoke(&mut self, entry: Entry) -> Result<(), Refused> {
        let n = self.after + self.entries.len() as u64 + 1;
        store::insert_revocation(&mut self.tx, n, &entry, self.now).await?;
        store::set_revocation_end(&mut self.tx, n, &entry.scope).await?;
        self.entries.push((n, entry));
        Ok(())
    }

    /// What the audit event is to say of what was there before and is there after; `Null` for nothing.
    pub(crate) fn record(&mut self, before: Value, after: Value) {
        self.changed = Changed::new(before, after);
    }

    /// Writes what was done into the audit log, as one of several things in this decision.
    pub(crate) async fn note(&mut self, done: Done) -> Result<(), Refused> {
        let Done { action, target, detail, changed, .. } = done;
        let event = Event { actor: &self.actor, action, target: &target, outcome: "ok", detail: &detail };
        let mut recorded = event.recorded(self.now);
        (recorded.before, recorded.after) = changed.columns();
        Ok(store::insert_event(&mut self.tx, &recorded).await?)
    }

    /// As [`Decision::close`], of the one thing that was done.
    pub(crate) async fn finish(mut self, done: Done) -> Result<api::Pushed, Refused> {
        self.changed = done.changed;
        self.close(done.action, &done.target, &done.detail).await
    }

    /// Writes the audit event and what follows, commits, and passes it on.
    pub(crate) async fn close(mut self, action: &str, target: &str, detail: &str) -> Result<api::Pushed, Refused> {
        self.push().await?;
        let event = Event { actor: &self.actor, action, target, outcome: "ok", detail };
        let mut recorded = event.recorded(self.now);
        (recorded.before, recorded.after) = self.changed.columns();
        store::insert_event(&mut self.tx, &recorded).await?;
        // Signed again when they are sent: that they can be is a condition of the decision.
        self.core.sign_revocations(self.after, &self.entries, self.now)?;
        let entitlements =
            self.consequences.iter().filter(|one| matches!(one, Consequence::Entitlement { .. })).count();
        // Of what concerns one site hear its Gateways, of everything else all.
        let sites = self.consequences.iter().map(Consequence::site).collect::<Option<BTreeSet<&str>>>();
        let sites = sites.map(|sites| sites.into_iter().map(str::to_owned).collect::<BTreeSet<_>>());
        // What is taken back goes out before what is given.
        let has_entries = !self.entries.is_empty();
        let first = has_entries.then_some(Consequence::Revocations);
        let consequences: Vec<_> = first.into_iter().chain(self.consequences).collect();
        if !consequences.is_empty() {
            store::insert_news(&mut self.tx, &consequences, self.now).await?;
        }
        self.tx.commit().await?;

        let gateways = self.core.reach(sites.filter(|_| !has_entries).as_ref());
        if let Err(error) = self.core.hear(self.now).await {
            // It is decided, and passed on as soon as the database answers.
            tracing::error!(%error, "what was decided could not be passed on yet");
        }
        let serial = match has_entries {
            true => {
                let n = self.after + self.entries.len() as u64;
                serial_text(Serial { n, ..self.core.serial() })
            }
            false => String::new(),
        };
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(api::Pushed { entitlements: number(entitlements), serial, gateways: number(gateways) })
    }
}

/// Something that was done, as the audit log will have it.
pub(crate) struct Done {
    /// Of what was made or changed; empty where it has none.
    pub(crate) id: String,
    action: &'static str,
    target: String,
    detail: String,
    changed: Changed,
}

impl Done {
    pub(crate) fn new(action: &'static str, target: &str, detail: &str) -> Self {
        let (id, changed) = (String::new(), Changed::default());
        Self { id, action, target: target.into(), detail: detail.into(), changed }
    }

    /// The same, of the thing `id`.
    pub(crate) fn of(self, id: &str) -> Self {
        Self { id: id.into(), ..self }
    }

    /// The same, with what was there before and is there after; `Null` for nothing.
    pub(crate) fn changed(self, before: Value, after: Value) -> Self {
        Self { changed: Changed::new(before, after), ..self }
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
