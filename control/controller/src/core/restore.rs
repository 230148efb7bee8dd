//! What a Controller does that was restored from a backup, before it serves anybody.
//!
//! A restore is alone at the database. It marks the state folder first and takes the mark away last: a Controller does not start in
//! a folder that has it, so one that breaks off anywhere leaves what it was before, and is repeated. In the database the new
//! epoch is one transaction.

use std::path::Path;

use anyhow::Context;
use ringfort_token::{Effect, Entry, EntryScope};
use ringfort_types::UnixSeconds;

use super::folder::Folder;
use super::gateway::certificate_digest;
use super::last_seen::LastSeen;
use super::refused::Refused;
use super::store::{self, Consequence, Held, Presence};
use super::{Core, Event, Settings, ca, place};

/// What users read of the tokens that they had.
const REASON: &str = "the Controller was restored from a backup";

/// The mark of a restore that has begun.
pub(crate) const RESTORING: &str = "restoring";
/// What stands in the mark where the folder is filled from a backup: nothing else is in it.
pub(crate) const FROM_BACKUP: &[u8] = b"from a backup\n";
/// What stands in it where the folder was there before.
const IN_PLACE: &[u8] = b"in place\n";

impl Core {
    /// Begins a new epoch in the state folder `folder`, whose database was restored from a backup: every token that was issued is
    /// dead, every invitation used up, and the key that signs tokens is another one.
    ///
    /// # Errors
    /// When a Controller uses the database, or folder or database cannot be opened. The folder stays marked once anything in it
    /// has changed.
    pub async fn restore(folder: &Path, settings: &Settings, now: UnixSeconds) -> anyhow::Result<()> {
        let folder = Folder::open(folder)?;
        let alone = Held::take(&place(&folder, settings), Presence::Alone).await?;
        if !folder.path(RESTORING).exists() {
            folder.write(RESTORING, IN_PLACE)?;
        }
        ca::forget_signer(&folder)?;
        // One that broke off has forgotten it; then the clock has to do.
        let seen = LastSeen::epoch_kept(&folder);
        LastSeen::forget(&folder)?;
        let core = Self::open_as(folder.clone(), settings, None, Presence::Alone, now).await?;
        core.begin_epoch(seen + 1, now).await.context("begin a new epoch")?.keep(&folder)?;
        folder.remove(RESTORING)?;
        alone.release().await;
        Ok(())
    }

    /// Begins a new epoch: numbers go on above those that were given since the backup and are forgotten now, every token is
    /// dead, and whoever has one logs in again. What was decided since the backup is lost, revocations of keys among it. Gives how
    /// far the database is then. The epoch is `least` or more: an earlier clock may have been ahead of this one.
    ///
    /// # Errors
    /// `internal`.
    async fn begin_epoch(&self, least: u64, now: UnixSeconds) -> Result<LastSeen, Refused> {
        let mut tx = self.inner.store.begin().await?;
        let epoch = now.0.max(self.serial().epoch + 1).max(least);
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
        let seen = LastSeen::of(&mut tx, epoch).await?;
        tx.commit().await?;
        Ok(seen)
    }
}
