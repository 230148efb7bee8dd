//! Values that both ends of one association can derive and nobody else (C15; RFC 5705, RFC 8446 §7.5).

use std::fmt;

use super::{Master12, prf, schedule};
use crate::record::{Secret, Suite};

/// Length of an exported value.
pub const EXPORTED_BYTES: usize = 32;

/// The secret of one association from which values for other channels are derived. It is wiped when it is dropped; it is
/// neither printed nor compared.
#[derive(Clone)]
pub struct ExporterSecret(Source);

#[derive(Clone)]
enum Source {
    V13 {
        suite: Suite,
        secret: Secret,
    },
    /// It is an extended one, without which exported values would bind nothing (RFC 7627 §1).
    V12 {
        master: Master12,
        /// The client's, then the server's.
        randoms: [[u8; 32]; 2],
    },
}

impl ExporterSecret {
    pub(crate) const fn new(suite: Suite, secret: Secret) -> Self {
        Self(Source::V13 { suite, secret })
    }

    pub(crate) const fn new_12(master: Master12, randoms: [[u8; 32]; 2]) -> Self {
        Self(Source::V12 { master, randoms })
    }

    /// The value for `label` and `context`. Different labels and contexts give independent values. In DTLS 1.2 the context is
    /// always there, if empty (RFC 5705 §4).
    ///
    /// # Panics
    /// For a label of more than 249 bytes or a context of more than 65,535, which the derivation cannot carry. Labels are
    /// constants, contexts a few bytes.
    #[must_use]
    #[expect(clippy::expect_used, reason = "only lengths can be refused, and those are constants")]
    pub fn export(&self, label: &'static str, context: &[u8]) -> [u8; EXPORTED_BYTES] {
        let mut value = [0; EXPORTED_BYTES];
        match &self.0 {
            Source::V13 { suite, secret } => {
                schedule::export(*suite, secret, label, context, &mut value).expect("a label of at most 249 bytes");
            }
            Source::V12 { master, randoms: [client, server] } => {
                let length = u16::try_from(context.len()).expect("a context of at most 65,535 bytes").to_be_bytes();
                prf(master.suite(), master.secret().as_bytes(), label, &[client, server, &length, context], &mut value);
            }
        }
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
    use crate::crypto::Transcript12;

    #[test]
    fn labels_and_contexts_separate_values() {
        for suite in Suite::ALL {
            let secret_13 = |byte| ExporterSecret::new(suite, Secret::new(&[byte; 48][..suite.hash_bytes()]).unwrap());
            let secret_12 = |byte| {
                let master = Master12::new(suite, &[byte; 32], &Transcript12::default().hash(suite)).unwrap();
                ExporterSecret::new_12(master, [[1; 32], [2; 32]])
            };
            for secret in [&secret_13 as &dyn Fn(u8) -> ExporterSecret, &secret_12] {
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
}
