//! What the handshake computes, over the cryptography library: groups, signatures, transcripts, the key schedules of both
//! versions and exported values. No protocol state.

mod exporter;
mod groups;
mod master12;
mod prf;
mod random;
mod schedule;
mod signatures;
mod transcript;
mod transcript12;

pub use exporter::{EXPORTED_BYTES, ExporterSecret};
pub use groups::Group;
pub(crate) use groups::{KeyShare, answer_share};
pub(crate) use master12::Master12;
pub(crate) use prf::prf;
pub use random::Randomness;
pub(crate) use schedule::{Schedule, check_finished, finished_mac};
pub(crate) use signatures::{SCHEMES_12, SCHEMES_13, Signed, choose_signer, sign, sign_12, verify, verify_12};
pub(crate) use transcript::{Hash, Transcript};
pub(crate) use transcript12::Transcript12;

use aws_lc_rs::hmac;

use crate::alert::{Alert, Fatal};
use crate::record::Suite;

/// HMAC with the suite's hash.
const fn hmac_of(suite: Suite) -> hmac::Algorithm {
    match suite {
        Suite::Aes128GcmSha256 | Suite::ChaCha20Poly1305Sha256 => hmac::HMAC_SHA256,
        Suite::Aes256GcmSha384 => hmac::HMAC_SHA384,
    }
}

/// The library refuses lengths only, which are ours; were it otherwise, the handshake ends.
pub(crate) fn refused<E>(_: E) -> Fatal {
    Fatal::new(Alert::INTERNAL_ERROR, "the cryptography library refused")
}
