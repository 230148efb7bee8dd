//! What the handshake computes, over the cryptography library: groups, signatures, transcripts, the key schedule and exported
//! values. No protocol state.

mod exporter;
mod groups;
mod random;
mod schedule;
mod signatures;
mod transcript;

pub use exporter::{EXPORTED_BYTES, ExporterSecret};
pub use groups::Group;
pub(crate) use groups::{KeyShare, answer_share};
pub use random::Randomness;
pub(crate) use schedule::{Schedule, check_finished, finished_mac};
pub(crate) use signatures::{SCHEMES_13, Signed, choose_signer, sign, verify};
pub(crate) use transcript::{Hash, Transcript};

use crate::alert::{Alert, Fatal};

/// The library refuses lengths only, which are ours; were it otherwise, the handshake ends.
pub(crate) fn refused<E>(_: E) -> Fatal {
    Fatal::new(Alert::INTERNAL_ERROR, "the cryptography library refused")
}
