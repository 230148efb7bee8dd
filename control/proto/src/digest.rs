//! The state digest by which a Gateway and its Controller see whether they agree (`docs/CONTROL.md`, "State digest").

use std::collections::BTreeMap;
use std::fmt::Write;

use aws_lc_rs::digest;

use crate::v1::{LiveSession, Serial};

/// SHA-256 over the text lines `configuration <seq>`, `revocations <epoch>/<n>`, and `<dn> <seq>` of each live session,
/// sorted by name, each ended by a line feed. Of sessions named twice the last counts.
#[must_use]
pub fn state_digest<'a>(
    configuration_seq: u64,
    revocations: Serial,
    sessions: impl IntoIterator<Item = &'a LiveSession>,
) -> [u8; 32] {
    let sessions: BTreeMap<&str, u64> = sessions.into_iter().map(|live| (live.dn.as_str(), live.seq)).collect();
    let Serial { epoch, n } = revocations;
    let mut text = format!("configuration {configuration_seq}\nrevocations {epoch}/{n}\n");
    for (dn, seq) in sessions {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{dn} {seq}");
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(dn: &str, seq: u64) -> LiveSession {
        LiveSession { dn: dn.into(), seq }
    }

    #[test]
    fn the_digest_is_that_of_the_lines() {
        let lines = "configuration 7\nrevocations 2/5\nUID=a,CN=u,O=o 1\nUID=b,CN=u,O=o 3\n";
        let expected = digest::digest(&digest::SHA256, lines.as_bytes());
        let sessions = [live("UID=b,CN=u,O=o", 3), live("UID=a,CN=u,O=o", 1)];
        assert_eq!(state_digest(7, Serial { epoch: 2, n: 5 }, &sessions), expected.as_ref());
    }

    #[test]
    fn every_part_of_the_state_counts() {
        let serial = Serial { epoch: 2, n: 5 };
        let base = state_digest(7, serial, &[live("a", 1)]);
        assert_ne!(base, state_digest(8, serial, &[live("a", 1)]));
        assert_ne!(base, state_digest(7, Serial { epoch: 3, n: 5 }, &[live("a", 1)]));
        assert_ne!(base, state_digest(7, Serial { epoch: 2, n: 6 }, &[live("a", 1)]));
        assert_ne!(base, state_digest(7, serial, &[live("a", 2)]));
        assert_ne!(base, state_digest(7, serial, &[]));
    }
}
