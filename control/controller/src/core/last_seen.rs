//! What a Controller saw of its database last, kept beside it, so that one that was restored from a backup is noticed.
//!
//! | the database now has | so |
//! |--|--|
//! | the same epoch, and no fewer events | it is the same one |
//! | a later epoch | it was restored, by this or another Controller: the key that signed tokens before signs none any more |
//! | an earlier epoch, or fewer events | it was put back and not restored: what was revoked since may be good again, so nobody starts on it |

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::store::{self, Connection};

/// Name of the file.
const FILE: &str = "seen.json";

/// How far the database was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LastSeen {
    epoch: u64,
    /// Number of the newest audit event: no event is ever removed.
    event: u64,
    /// The database was found older than it was; it stays so, however many events it gets, until it is restored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    put_back: bool,
}

/// How a database stands to what was seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// It has gone on.
    GoneOn,
    /// It was restored.
    Restored,
}

impl LastSeen {
    /// The database as it is, in the epoch `epoch`.
    pub(super) async fn of(c: &mut Connection, epoch: u64) -> Result<Self, sqlx::Error> {
        Ok(Self { epoch, event: store::newest_event(c).await?, put_back: false })
    }

    /// How the database stands to what was kept in `folder`; one that nobody has seen yet has gone on.
    ///
    /// # Errors
    /// When it is older than that, or the file cannot be read.
    pub(super) fn since(&self, folder: &Folder) -> anyhow::Result<Since> {
        let Some(kept) = Self::kept(folder)? else { return Ok(Since::GoneOn) };
        let is_older = (self.epoch, self.event) < (kept.epoch, kept.event);
        if is_older || (kept.put_back && self.epoch == kept.epoch) {
            bail!(
                "expected a database with event {} of epoch {} or a later one, found {} of {}: it was put back from a backup. \
                 Stop every Controller and run `ringfort restore` without --from, or what was revoked since counts again",
                kept.event,
                kept.epoch,
                self.event,
                self.epoch
            );
        }
        Ok(if self.epoch > kept.epoch { Since::Restored } else { Since::GoneOn })
    }

    /// What was kept in `folder`.
    fn kept(folder: &Folder) -> anyhow::Result<Option<Self>> {
        let Some(kept) = folder.read(FILE)? else { return Ok(None) };
        let kept = serde_json::from_slice(&kept).with_context(|| {
            format!("{}: expected what this Controller has written, or no such file", folder.path(FILE).display())
        })?;
        Ok(Some(kept))
    }

    /// The epoch that was kept in `folder`; 0 where nothing was, or nothing that can be read.
    pub(super) fn epoch_kept(folder: &Folder) -> u64 {
        Self::kept(folder).ok().flatten().map_or(0, |kept| kept.epoch)
    }

    /// Keeps that the database, in the epoch `epoch`, is older than it was.
    pub(super) fn refuse(folder: &Folder, epoch: u64) -> anyhow::Result<()> {
        let event = Self::kept(folder)?.map_or(0, |kept| kept.event);
        Self { epoch, event, put_back: true }.keep(folder)
    }

    /// Keeps it.
    pub(super) fn keep(&self, folder: &Folder) -> anyhow::Result<()> {
        folder.write(FILE, &serde_json::to_vec(self)?)
    }

    /// Forgets what was kept.
    pub(super) fn forget(folder: &Folder) -> anyhow::Result<()> {
        folder.remove(FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_database_is_refused_and_a_restored_one_known() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("state")).unwrap();
        let at = |epoch, event| LastSeen { epoch, event, put_back: false };
        assert_eq!(at(1, 1).since(&folder).unwrap(), Since::GoneOn, "nobody has seen it");
        at(5, 9).keep(&folder).unwrap();
        for (found, since) in [
            (at(5, 9), Some(Since::GoneOn)),
            (at(5, 10), Some(Since::GoneOn)),
            (at(6, 2), Some(Since::Restored)),
            (at(5, 8), None),
            (at(4, 99), None),
        ] {
            let stands = found.since(&folder);
            assert_eq!(stands.as_ref().ok(), since.as_ref(), "{found:?}");
            let Err(error) = stands else { continue };
            assert!(error.to_string().contains("ringfort restore"), "{error}");
        }
        // Once it was found older it is no other for what comes after.
        LastSeen::refuse(&folder, 5).unwrap();
        assert_eq!(LastSeen::epoch_kept(&folder), 5);
        assert!(at(5, 1_000).since(&folder).is_err());
        assert_eq!(at(6, 1).since(&folder).unwrap(), Since::Restored);
        folder.write(FILE, b"{").unwrap();
        assert_eq!(LastSeen::epoch_kept(&folder), 0);
        assert!(format!("{:#}", at(5, 9).since(&folder).unwrap_err()).contains(FILE));
        LastSeen::forget(&folder).unwrap();
        assert_eq!(at(5, 8).since(&folder).unwrap(), Since::GoneOn);
    }
}
