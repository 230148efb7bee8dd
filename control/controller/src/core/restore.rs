//! What a Controller does that was restored from a backup, before it serves anybody.

use ringfort_token::{Effect, Entry, EntryScope};
use ringfort_types::UnixSeconds;

use super::gateway::certificate_digest;
use super::refused::Refused;
use super::store::{self, Consequence};
use super::{Core, Event};

/// What users read of the tokens that they had.
const REASON: &str = "the Controller was restored from a backup";

impl Core {
    /// Begins a new epoch: numbers go on above those that were given since the backup and are forgotten now, every token is
    /// dead, and whoever has one logs in again. What was decided since the backup is lost, revocations of keys among it.
    ///
    /// # Errors
    /// `internal`.
    pub async fn begin_epoch(&self, now: UnixSeconds) -> Result<(), Refused> {
        let mut tx = self.inner.store.begin().await?;
        let epoch = now.0.max(self.serial().epoch + 1);
        let users = store::begin_epoch(&mut tx, epoch, &certificate_digest(self.authority().signer())).await?;
        let keep_until = Self::tokens_end(now);
        let mut n = store::newest_revocation(&mut tx).await?;
        for (user, generation) in users {
            n += 1;
            let scope = EntryScope::User { user, below: store::uint(generation) };
            let entry = Entry { scope, effect: Effect::Revoke, reason: REASON.into(), keep_until };
            store::insert_revocation(&mut tx, n, &entry, now).await?;
        }
        let (detail, target) = (epoch.to_string(), self.organisation());
        let event = Event { actor: "controller", action: "restore", target, outcome: "ok", detail: &detail };
        store::insert_event(&mut tx, &event.recorded(now)).await?;
        store::insert_news(&mut tx, &[Consequence::Revocations, Consequence::Authorities], now).await?;
        tx.commit().await?;
        self.hear(now).await
    }
}
