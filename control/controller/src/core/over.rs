//! Removing what is over, so that the database does not grow with the organisation's age.
//!
//! Any Controller may do it at any time: each round is one transaction, and one that finds nothing changes nothing. What is
//! removed is over by the clock of a Controller, so nothing goes before it has been over for [`KEPT`]: a clock that is ahead by less
//! takes nothing back that still counts.
//!
//! What it deliberately does not remove: audit events, which no statement removes; devices and inner addresses, which are bounded
//! by users and pools, and keys that are denied for as long as the root lasts.

use std::time::Duration;

use ringfort_types::UnixSeconds;

use super::Core;
use super::refused::Refused;
use super::store::{self, REMOVED_MAX};

/// How long something stays after it is over: 30 days, longer than any login (7) lasts.
const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// What was removed, in rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Invitations that were used up or had expired.
    pub invitations: u64,
    /// Logins of which every token had ended.
    pub logins: u64,
    /// Sequence numbers of sessions without a login.
    pub sequences: u64,
    /// Revocations of which nothing was left.
    pub revocations: u64,
}

impl Removed {
    const fn each(&self) -> [u64; 4] {
        [self.invitations, self.logins, self.sequences, self.revocations]
    }

    fn add(&mut self, other: Self) {
        self.invitations += other.invitations;
        self.logins += other.logins;
        self.sequences += other.sequences;
        self.revocations += other.revocations;
    }
}

impl Core {
    /// Removes what has been over for 30 days; says what.
    ///
    /// # Errors
    /// `internal`; what was removed until then stays so, and the rest goes the next time.
    pub async fn remove_what_is_over(&self, now: UnixSeconds) -> Result<Removed, Refused> {
        let before = UnixSeconds(now.0.saturating_sub(KEPT.as_secs()));
        let mut removed = Removed::default();
        loop {
            // Others take their turns between the rounds.
            let mut tx = self.inner.store.begin().await?;
            let round = Removed {
                invitations: store::remove_invitations(&mut tx, before).await?,
                // Before the sequences, which outlive the logins.
                logins: store::remove_logins(&mut tx, before).await?,
                sequences: store::remove_sequences(&mut tx, before).await?,
                revocations: store::remove_revocations(&mut tx, before).await?,
            };
            tx.commit().await?;
            removed.add(round);
            if round.each().iter().all(|rows| *rows < REMOVED_MAX) {
                return Ok(removed);
            }
        }
    }
}
