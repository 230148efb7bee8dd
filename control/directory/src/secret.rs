//! Randomness, and comparing without telling how far.

use aws_lc_rs::{constant_time, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// Bytes of a random text: as hard to guess as a key.
const BYTES: usize = 32;

/// 32 random bytes as base64url: a state, a nonce, a PKCE verifier, a handle. `None` when there is no randomness.
#[must_use]
pub fn random_text() -> Option<String> {
    let mut bytes = Zeroizing::new([0; BYTES]);
    rand::fill(&mut bytes[..]).ok()?;
    Some(URL_SAFE_NO_PAD.encode(&bytes[..]))
}

/// Whether two texts are the same, in a time that depends on their lengths only.
pub(crate) fn same(one: &str, other: &str) -> bool {
    constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}
