//! Secrets and what is derived from them: HKDF-Expand-Label with the prefix of DTLS 1.3 (RFC 8446 §7.1, RFC 9147 §5.9).

use std::fmt;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{KeyType, Prk};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Suite;

/// Length of the longest secret, SHA-384's, in bytes.
pub(crate) const SECRET_BYTES_MAX: usize = 48;

/// What stands before each label. "tls13 " has a space at its end; this has none, so that both are six bytes
/// (RFC 9147 §5.9).
const PREFIX: &[u8] = b"dtls13";

/// A secret of the key schedule. It is wiped when dropped; it is neither printed nor compared.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret {
    bytes: [u8; SECRET_BYTES_MAX],
    length: u8,
}

impl Secret {
    /// A copy of `secret`, unless it is longer than 48 bytes. The caller wipes its own.
    #[must_use]
    pub fn new(secret: &[u8]) -> Option<Self> {
        let mut copy = Self { bytes: [0; SECRET_BYTES_MAX], length: u8::try_from(secret.len()).ok()? };
        copy.bytes.get_mut(..secret.len())?.copy_from_slice(secret);
        Some(copy)
    }

    /// Its bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// HKDF-Expand-Label(`secret`, "dtls13" + `label`, `context`, length of `out`).
///
/// # Errors
/// When `label` or `context` is longer than the label structure carries, 249 and 255 bytes.
pub(crate) fn expand_label(
    suite: Suite,
    secret: &Secret,
    label: &str,
    context: &[u8],
    out: &mut [u8],
) -> Result<(), Unspecified> {
    let length = u16::try_from(out.len()).map_err(|_| Unspecified)?;
    let label_length = u8::try_from(PREFIX.len() + label.len()).map_err(|_| Unspecified)?;
    let context_length = u8::try_from(context.len()).map_err(|_| Unspecified)?;
    let info = [&length.to_be_bytes(), &[label_length][..], PREFIX, label.as_bytes(), &[context_length], context];
    Prk::new_less_safe(suite.hkdf(), secret.as_bytes()).expand(&info, Length(out.len()))?.fill(out)
}

/// Derive-Secret with the transcript's hash already made: HKDF-Expand-Label(`secret`, `label`, `transcript_hash`, length of
/// the hash).
///
/// # Errors
/// As [`expand_label`].
pub(crate) fn derive_secret(
    suite: Suite,
    secret: &Secret,
    label: &str,
    transcript_hash: &[u8],
) -> Result<Secret, Unspecified> {
    let mut derived = Secret { bytes: [0; SECRET_BYTES_MAX], length: 0 };
    let length = suite.hash_bytes();
    expand_label(suite, secret, label, transcript_hash, derived.bytes.get_mut(..length).ok_or(Unspecified)?)?;
    derived.length = u8::try_from(length).map_err(|_| Unspecified)?;
    Ok(derived)
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}
