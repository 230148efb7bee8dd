//! The key schedule of DTLS 1.3 (RFC 8446 §7.1, with the labels of RFC 9147 §5.9).
//!
//! ```text
//! 0 ─extract(0)─▶ early ─"derived"─extract(ECDHE)─▶ handshake ─"derived"─extract(0)─▶ master
//!                                                    ├ "c hs traffic", "s hs traffic"    ├ "c ap traffic", "s ap traffic"
//!                                                    └─▶ epoch 2, Finished               └ "exp master" ─▶ epoch 3, exporter
//! ```

use aws_lc_rs::{constant_time, hmac};

use super::{Hash, Transcript, hmac_of, refused};
use crate::alert::{Alert, Fatal, fail};
use crate::record::{Secret, Suite, derive_secret, expand_label};

/// One stage of the schedule.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    suite: Suite,
    secret: Secret,
}

impl Schedule {
    /// The handshake stage, from the secret of the key exchange. There is no pre-shared key.
    pub(crate) fn handshake(suite: Suite, shared: &[u8]) -> Result<Self, Fatal> {
        let zeros = [0; 48];
        let zeros = &zeros[..suite.hash_bytes()];
        let early = Self { suite, secret: extract(suite, zeros, zeros)? };
        early.next(shared)
    }

    /// The master stage.
    pub(crate) fn into_master(self) -> Result<Self, Fatal> {
        let zeros = [0; 48];
        self.next(&zeros[..self.suite.hash_bytes()])
    }

    fn next(&self, input: &[u8]) -> Result<Self, Fatal> {
        let salt = self.derive("derived", &Transcript::empty_hash(self.suite))?;
        Ok(Self { suite: self.suite, secret: extract(self.suite, salt.as_bytes(), input)? })
    }

    /// The secret of this stage for `label` at this point of the transcript.
    pub(crate) fn derive(&self, label: &str, transcript: &Hash) -> Result<Secret, Fatal> {
        derive_secret(self.suite, &self.secret, label, transcript.as_bytes()).map_err(refused)
    }
}

/// HKDF-Extract is HMAC with the salt as its key (RFC 5869 §2.2).
fn extract(suite: Suite, salt: &[u8], input: &[u8]) -> Result<Secret, Fatal> {
    let mac = hmac::sign(&hmac::Key::new(hmac_of(suite), salt), input);
    Secret::new(mac.as_ref()).ok_or_else(|| refused(()))
}

/// The content of a Finished by whoever has `traffic_secret`, or what it must be (RFC 8446 §4.4.4).
pub(crate) fn finished_mac(suite: Suite, traffic_secret: &Secret, transcript: &Hash) -> Result<hmac::Tag, Fatal> {
    let key = derive_finished_key(suite, traffic_secret)?;
    Ok(hmac::sign(&hmac::Key::new(hmac_of(suite), key.as_bytes()), transcript.as_bytes()))
}

fn derive_finished_key(suite: Suite, traffic_secret: &Secret) -> Result<Secret, Fatal> {
    derive_secret(suite, traffic_secret, "finished", &[]).map_err(refused)
}

/// Checks the content of the peer's Finished.
pub(crate) fn check_finished(
    suite: Suite,
    traffic_secret: &Secret,
    transcript: &Hash,
    body: &[u8],
) -> Result<(), Fatal> {
    if body.len() != suite.hash_bytes() {
        return fail(Alert::DECODE_ERROR, "a Finished of another length than the hash");
    }
    let expected = finished_mac(suite, traffic_secret, transcript)?;
    if constant_time::verify_slices_are_equal(expected.as_ref(), body).is_err() {
        return fail(Alert::DECRYPT_ERROR, "a Finished that does not fit the handshake");
    }
    Ok(())
}

/// A value of the exporter (RFC 8446 §7.5).
pub(super) fn export(
    suite: Suite,
    exporter_secret: &Secret,
    label: &str,
    context: &[u8],
    out: &mut [u8],
) -> Result<(), aws_lc_rs::error::Unspecified> {
    let secret = derive_secret(suite, exporter_secret, label, Transcript::empty_hash(suite).as_bytes())?;
    let context = aws_lc_rs::digest::digest(suite.digest(), context);
    expand_label(suite, &secret, "exporter", context.as_ref(), out)
}
