//! What was taken back: entries numbered by the Controller, and the list they make.

use std::collections::BTreeMap;
use std::ops::Bound;

use ringfort_identity::KeyThumbprint;
use ringfort_types::UnixSeconds;
use serde::{Deserialize, Serialize};

use crate::kinds::{RevocationList, seconds, thumbprint};
use crate::verify::Verified;

/// Where a list stands: the database's epoch, and the number of its newest entry in it. Later epochs are newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serial {
    /// The database's epoch.
    pub epoch: u64,
    /// The newest entry.
    pub n: u64,
}

/// One thing that was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is about.
    pub scope: EntryScope,
    /// What follows.
    pub effect: Effect,
    /// What the administrator said; shown to the user.
    pub reason: String,
    /// From when on nothing is left that the entry could be about, so that it may be forgotten.
    #[serde(with = "seconds")]
    pub keep_until: UnixSeconds,
}

/// What an entry is about. Never the hash of a signed text: such a text has many forms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum EntryScope {
    /// One token, by its `jti`.
    Token(String),
    /// One certificate, by its serial number as [`ringfort_identity::PeerIdentity::serial`] writes it.
    Certificate(String),
    /// One key, and with it whatever is bound to it: a device.
    Key(#[serde(with = "thumbprint")] KeyThumbprint),
    /// All tokens of a user from before a generation.
    User {
        /// The user's id.
        user: String,
        /// The first generation that is not meant.
        below: u64,
    },
}

/// What follows from an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Effect {
    /// Dead, from the next packet on.
    Revoke,
    /// Good until then, and to be renewed before.
    RenewBy(#[serde(with = "seconds")] UnixSeconds),
}

/// What somebody shows, as far as entries can be about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown<'a> {
    /// `jti` of a token.
    pub token: Option<&'a str>,
    /// Serial number of a certificate.
    pub certificate: Option<&'a str>,
    /// A key.
    pub key: Option<&'a KeyThumbprint>,
    /// A user and the generation of their token.
    pub generation: Option<(&'a str, u64)>,
}

/// How something stands with the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Nothing is said about it.
    Good,
    /// Good until `by`.
    RenewBy {
        /// When it is dead.
        by: UnixSeconds,
        /// Number of the entry.
        serial: u64,
        /// What the administrator said.
        reason: &'a str,
    },
    /// Dead.
    Revoked {
        /// Number of the entry.
        serial: u64,
        /// What the administrator said.
        reason: &'a str,
    },
}

impl Standing<'_> {
    /// The worse of two: dead before renewal, the earlier renewal before the later.
    fn worse(self, other: Self) -> Self {
        match (self, other) {
            (Self::Good, worse) | (worse, Self::Good) => worse,
            (revoked @ Self::Revoked { .. }, _) | (_, revoked @ Self::Revoked { .. }) => revoked,
            (Self::RenewBy { by, .. }, Self::RenewBy { by: other_by, .. }) => {
                if by <= other_by {
                    self
                } else {
                    other
                }
            }
        }
    }
}

/// A list that does not fit ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// Older than what we have.
    #[error("expected revocations of epoch {}, found the older epoch {found}", ours.epoch)]
    OlderEpoch {
        /// Where we stand.
        ours: Serial,
        /// What came.
        found: u64,
    },
    /// Entries between ours and these are missing.
    #[error("expected revocations that follow {}/{} at the latest, found such that follow {after}: ask for those between", ours.epoch, ours.n)]
    Gap {
        /// Where we stand.
        ours: Serial,
        /// What these follow.
        after: u64,
    },
    /// The entries' numbers are none that a list has.
    #[error("expected a number for each entry, growing, and the first above {after}")]
    Numbers {
        /// What they should follow.
        after: u64,
    },
}

/// Everything that was taken back, as far as it still matters.
///
/// It is kept over restarts as its entries ([`DenyList::entries`]), so that a Gateway that starts without its Controller
/// refuses what it refused before.
#[derive(Clone, Debug, Default)]
pub struct DenyList {
    serial: Serial,
    entries: BTreeMap<u64, Entry>,
    /// By what they are about: all entries about it, since a later one takes nothing of an earlier one back.
    tokens: BTreeMap<String, Vec<u64>>,
    certificates: BTreeMap<String, Vec<u64>>,
    keys: BTreeMap<KeyThumbprint, Vec<u64>>,
    /// By user, then by the first generation not meant.
    users: BTreeMap<String, BTreeMap<u64, Vec<u64>>>,
}

impl DenyList {
    /// Where it stands.
    #[must_use]
    pub const fn serial(&self) -> Serial {
        self.serial
    }

    /// Its entries with their numbers, in order.
    pub fn entries(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.iter().map(|(n, entry)| (*n, entry))
    }

    /// A list that was kept.
    pub fn restore(serial: Serial, entries: impl IntoIterator<Item = (u64, Entry)>) -> Self {
        let mut list = Self { serial, ..Self::default() };
        for (n, entry) in entries {
            list.insert(n, entry);
        }
        list
    }

    /// Takes a list from the Controller: the entries that are new to us, whose numbers come back. A new epoch starts
    /// afresh: its list has everything. Numbers that a list leaves out are over, and what is over stays so: an older list that comes
    /// again leaves out no more than a newer one.
    ///
    /// # Errors
    /// [`ListError`]; nothing is changed then.
    pub fn apply(&mut self, list: &Verified<RevocationList>) -> Result<Vec<u64>, ListError> {
        let ours = self.serial;
        if list.epoch < ours.epoch {
            return Err(ListError::OlderEpoch { ours, found: list.epoch });
        }
        let n = if list.epoch > ours.epoch { 0 } else { ours.n };
        if list.after > n {
            return Err(ListError::Gap { ours: Serial { epoch: list.epoch, n }, after: list.after });
        }
        let entries = list.numbered().ok_or(ListError::Numbers { after: list.after })?;
        if list.epoch > ours.epoch {
            *self = Self { serial: Serial { epoch: list.epoch, n: 0 }, ..Self::default() };
        }
        let mut news = Vec::new();
        for (number, entry) in entries {
            if number > self.serial.n {
                self.insert(number, entry.clone());
                self.serial.n = number;
                news.push(number);
            }
        }
        Ok(news)
    }

    /// Adds what the Controller itself has just decided. A number that is taken keeps its entry: replaced by another it would
    /// give free what the first was about.
    pub fn insert(&mut self, n: u64, entry: Entry) {
        if self.entries.contains_key(&n) {
            return;
        }
        let about = match &entry.scope {
            EntryScope::Token(id) => self.tokens.entry(id.clone()).or_default(),
            EntryScope::Certificate(serial) => self.certificates.entry(serial.clone()).or_default(),
            EntryScope::Key(key) => self.keys.entry(*key).or_default(),
            EntryScope::User { user, below } => self.users.entry(user.clone()).or_default().entry(*below).or_default(),
        };
        about.push(n);
        self.entries.insert(n, entry);
        self.serial.n = self.serial.n.max(n);
    }

    /// Forgets what can be about nothing any more.
    pub fn forget(&mut self, now: UnixSeconds) {
        if self.entries.values().any(|entry| entry.keep_until < now) {
            let kept = std::mem::take(&mut self.entries);
            let kept = kept.into_iter().filter(|(_, entry)| entry.keep_until >= now);
            *self = Self::restore(self.serial, kept);
        }
    }

    /// How what is shown stands: the worst that any entry says about any of it.
    #[must_use]
    pub fn standing(&self, shown: &Shown<'_>) -> Standing<'_> {
        let token = shown.token.and_then(|id| self.tokens.get(id));
        let certificate = shown.certificate.and_then(|serial| self.certificates.get(serial));
        let key = shown.key.and_then(|key| self.keys.get(key));
        let older = shown.generation.and_then(|(user, generation)| {
            let below = self.users.get(user)?;
            Some(below.range((Bound::Excluded(generation), Bound::Unbounded)).map(|(_, numbers)| numbers))
        });
        let numbers = [token, certificate, key].into_iter().flatten().chain(older.into_iter().flatten()).flatten();
        numbers.fold(Standing::Good, |worst, n| worst.worse(self.said(*n)))
    }

    fn said(&self, n: u64) -> Standing<'_> {
        match self.entries.get(&n) {
            None => Standing::Good,
            Some(Entry { effect: Effect::Revoke, reason, .. }) => Standing::Revoked { serial: n, reason },
            Some(Entry { effect: Effect::RenewBy(by), reason, .. }) => Standing::RenewBy { by: *by, serial: n, reason },
        }
    }
}
