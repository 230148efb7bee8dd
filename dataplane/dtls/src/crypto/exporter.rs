//! Values that both ends of one association can derive and nobody else (C15; RFC 5705, RFC 8446 §7.5).

use std::fmt;

use super::schedule;
use crate::record::{Secret, Suite};

/// Length of an exported value.
pub const EXPORTED_BYTES: usize = 32;

/// The secret of one association from which values for other channels are derived. It is wiped when it is dropped; it is
/// neither printed nor compared.
#[derive(Clone)]
pub struct ExporterSecret {
    suite: Suite,
    secret: Secret,
}

impl ExporterSecret {
    pub(crate) const fn new(suite: Suite, secret: Secret) -> Self {
        Self { suite, secret }
    }

    /// The value for `label` and `context`. Different labels and contexts give independent values.
    ///
    /// # Panics
    /// For a label of more than 249 bytes, which the derivation cannot carry. Labels are constants.
    #[must_use]
    #[expect(clippy::expect_used, reason = "only lengths can be refused, and those are constants")]
    pub fn export(&self, label: &'static str, context: &[u8]) -> [u8; EXPORTED_BYTES] {
        let mut value = [0; EXPORTED_BYTES];
        schedule::export(self.suite, &self.secret, label, context, &mut value).expect("a label of at most 249 bytes");
        value
    }
}

impl fmt::Debug for ExporterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExporterSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_contexts_separate_values() {
        for suite in Suite::ALL {
            let secret = |byte| ExporterSecret::new(suite, Secret::new(&[byte; 48][..suite.hash_bytes()]).unwrap());
            let value = secret(7).export("ab", b"c");
            assert_eq!(value, secret(7).export("ab", b"c"));
            for (label, context) in [("a", &b"bc"[..]), ("abc", b""), ("ab", b"d")] {
                assert_ne!(value, secret(7).export(label, context));
            }
            assert_ne!(value, secret(8).export("ab", b"c"));
            assert_eq!(format!("{:?}", secret(7)), "ExporterSecret");
        }
    }
}
