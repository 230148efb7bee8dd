//! The highest sequence numbers seen, and the tokens that were pushed ahead of their sessions.

use std::collections::BTreeMap;
use std::time::Duration;

use ringfort_types::UnixSeconds;

use crate::interface::{Sequence, Sequences};
use crate::refused::Refused;

/// Session names remembered. When there are more whose tokens may still be good, new ones are refused: to forget a number
/// would let an older token with more rights come back.
pub(crate) const NAMES_MAX: usize = 65_536;
/// Texts of pushed tokens kept, in bytes together. Beyond it only the number is kept, and a client with an older token is
/// sent to get the newer one.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// Longest life of a token from its issue (docs/CONTROL.md, Tokens): a number is remembered until the tokens from before it
/// are dead.
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(12 * 60 * 60);

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Of the configuration.
    pub(crate) configuration: u64,
    names: BTreeMap<String, Record>,
    kept_bytes: usize,
    /// Nothing can be forgotten before.
    forget_at: UnixSeconds,
}

struct Record {
    sequence: Sequence,
    /// The token of that number, if it was pushed and there was room.
    pushed: Option<Box<str>>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.sequence)
    }
}

impl Seen {
    pub(crate) fn restore(sequences: Sequences) -> Self {
        let Sequences { configuration, entitlements } = sequences;
        let record = |(dn, sequence)| (dn, Record { sequence, pushed: None });
        let names = entitlements.into_iter().take(NAMES_MAX).map(record).collect();
        Self { configuration, names, ..Self::default() }
    }

    pub(crate) fn sequences(&self) -> Sequences {
        let entitlements = self.names.iter().map(|(dn, record)| (dn.clone(), record.sequence)).collect();
        Sequences { configuration: self.configuration, entitlements }
    }

    /// The highest number seen for `dn`.
    pub(crate) fn newest(&self, dn: &str) -> Option<u64> {
        self.names.get(dn).map(|record| record.sequence.seq)
    }

    /// The token of that number, if it was pushed and kept.
    pub(crate) fn pushed(&self, dn: &str) -> Option<&str> {
        self.names.get(dn)?.pushed.as_deref()
    }

    /// Notes a believed token; numbers only grow. Tells whether anything changed that is kept over a restart.
    pub(crate) fn record(
        &mut self,
        dn: &str,
        seq: u64,
        expires_at: UnixSeconds,
        pushed: Option<&str>,
        now: UnixSeconds,
    ) -> Result<bool, Refused> {
        if !self.names.contains_key(dn) {
            self.make_room(now)?;
        }
        let keep_until = expires_at.max(now + TOKEN_LIFE_MAX).0;
        let first = Sequence { seq: 0, keep_until: 0 };
        let record = self.names.entry(dn.into()).or_insert(Record { sequence: first, pushed: None });
        let before = record.sequence;
        if seq > before.seq || before == first {
            self.kept_bytes -= record.pushed.take().map_or(0, |text| text.len());
            record.pushed = pushed.filter(|text| self.kept_bytes + text.len() <= KEPT_BYTES_MAX).map(Into::into);
            self.kept_bytes += record.pushed.as_ref().map_or(0, |text| text.len());
        }
        record.sequence = Sequence { seq: seq.max(before.seq), keep_until: keep_until.max(before.keep_until) };
        Ok(record.sequence.seq != before.seq || before == first)
    }

    fn make_room(&mut self, now: UnixSeconds) -> Result<(), Refused> {
        if self.names.len() >= NAMES_MAX && now >= self.forget_at {
            self.names.retain(|_, record| record.sequence.keep_until > now.0);
            self.kept_bytes =
                self.names.values().filter_map(|record| record.pushed.as_ref()).map(|text| text.len()).sum();
            let next = self.names.values().map(|record| record.sequence.keep_until).min();
            self.forget_at = UnixSeconds(next.unwrap_or_default());
        }
        if self.names.len() >= NAMES_MAX {
            return Err(Refused::TooMany { what: "sessions whose tokens are good", max: NAMES_MAX });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_000_000);

    #[test]
    fn numbers_only_grow_and_the_newest_pushed_token_is_kept() {
        let mut seen = Seen::default();
        assert_eq!(seen.record("a", 0, NOW, Some("zero"), NOW), Ok(true));
        assert_eq!((seen.newest("a"), seen.pushed("a")), (Some(0), Some("zero")));
        assert_eq!(seen.record("a", 5, NOW, Some("five"), NOW), Ok(true));
        assert_eq!(seen.record("a", 3, NOW, Some("three"), NOW), Ok(false));
        assert_eq!((seen.newest("a"), seen.pushed("a")), (Some(5), Some("five")));
        assert_eq!(seen.record("a", 6, NOW, None, NOW), Ok(true));
        assert_eq!((seen.newest("a"), seen.pushed("a")), (Some(6), None));
        assert_eq!((seen.newest("b"), seen.pushed("b")), (None, None));
        let again = Seen::restore(seen.sequences());
        assert_eq!(again.newest("a"), Some(6));
    }

    #[test]
    fn what_is_full_forgets_the_dead_and_refuses_the_rest() {
        let mut seen = Seen::default();
        for at in 0..NAMES_MAX {
            seen.record(&at.to_string(), 1, NOW, Some("t"), NOW).unwrap();
        }
        assert_eq!(seen.record("0", 2, NOW, None, NOW), Ok(true), "known names go on");
        assert!(matches!(seen.record("new", 1, NOW, None, NOW), Err(Refused::TooMany { .. })));
        let later = NOW + TOKEN_LIFE_MAX;
        assert_eq!(seen.record("new", 1, NOW, None, later), Ok(true));
        assert_eq!((seen.names.len(), seen.kept_bytes), (1, 0));
    }

    #[test]
    fn texts_have_a_limit_together() {
        let mut seen = Seen::default();
        let long = "t".repeat(KEPT_BYTES_MAX / 2);
        for (dn, kept) in [("a", true), ("b", true), ("c", false)] {
            seen.record(dn, 1, NOW, Some(&long), NOW).unwrap();
            assert_eq!((seen.newest(dn), seen.pushed(dn).is_some()), (Some(1), kept));
        }
        seen.record("a", 2, NOW, None, NOW).unwrap();
        seen.record("c", 2, NOW, Some(&long), NOW).unwrap();
        assert!(seen.pushed("c").is_some(), "room that was given back");
    }
}
