//! Values that both ends of one association can derive and nobody else (C15; RFC 5705, RFC 8446 §7.5).

use std::fmt;

use aws_lc_rs::hmac;
use zeroize::Zeroize;

/// Length of an exported value.
pub const EXPORTED_BYTES: usize = 32;

/// The secret of one association from which values for other channels are derived. It leaves the association once and is
/// wiped when it is dropped; it is neither printed nor compared.
///
/// dimpl exports under one label only, that of RFC 5764, so the secret is what it gives there and the labels are applied to it
/// here. The engine of our own will export under each label directly (RFC 8446 §7.5); values change with it on both sides
/// alike.
#[derive(Clone)]
pub struct ExporterSecret(Box<[u8]>);

impl ExporterSecret {
    /// Takes what the DTLS stack exported.
    #[must_use]
    pub(crate) fn new(exported: &[u8]) -> Self {
        Self(exported.into())
    }

    /// The value for `label` and `context`. Different labels and contexts give independent values.
    #[must_use]
    pub fn export(&self, label: &str, context: &[u8]) -> [u8; EXPORTED_BYTES] {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        // Lengths before both, so that no label and context together read as another pair.
        for part in [label.as_bytes(), context] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let mut value = [0; EXPORTED_BYTES];
        value.copy_from_slice(mac.sign().as_ref());
        value
    }
}

impl Drop for ExporterSecret {
    fn drop(&mut self) {
        self.0.zeroize();
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
        let secret = ExporterSecret::new(&[7; 60]);
        let value = secret.export("ab", b"c");
        assert_eq!(value, secret.export("ab", b"c"));
        for other in [secret.export("a", b"bc"), secret.export("abc", b""), secret.export("ab", b"d")] {
            assert_ne!(value, other);
        }
        assert_ne!(value, ExporterSecret::new(&[8; 60]).export("ab", b"c"));
        assert_eq!(format!("{secret:?}"), "ExporterSecret");
    }
}
