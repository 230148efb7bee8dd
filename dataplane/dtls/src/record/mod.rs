//! The record layer of DTLS 1.3 (RFC 9147 §4) and DTLS 1.2 (RFC 6347 §4.1, RFC 9146), without I/O and without clocks.
//!
//! A [`RecordLayer`] is one association's record state: its write and read keys by epoch, its sequence numbers, its replay
//! windows and its connection ids. The handshake installs keys into it and sends and reads its flights through it; once
//! established, the worker that owns the session seals and opens data with the same value. Call order:
//!
//! - A. [`RecordLayer::new`]; [`RecordLayer::set_local_cid`] and [`RecordLayer::set_peer_cid`] once they are agreed on.
//! - B. [`RecordLayer::install_rx`] and [`RecordLayer::install_tx`] as the key schedule proceeds (`…12` for DTLS 1.2).
//! - C. [`RecordLayer::seal`] for each record, [`RecordLayer::open`] until [`Open::End`] for each datagram.
//! - D. [`RecordLayer::wants_key_update`] after a batch; [`RecordLayer::update_tx`], [`RecordLayer::update_rx`] when the
//!   handshake has agreed on it.
//!
//! Sealing and opening allocate nothing, take no lock and log nothing; they work in the caller's buffers. What arrives and
//! cannot be authenticated is [`Dropped`], which is no error: the association goes on.
//!
//! What this module deliberately does not do: choose suites, derive the handshake's secrets, answer alerts, decide which
//! address a peer has, or know when a key update has been acknowledged.
//!
//! From the outside in: `layer` finds the epoch, `header` reads what is in the clear, `protect13` and `protect12` are one
//! direction of one epoch, `seal` is what both encrypt alike, `sequence`, `window` and `resync` are an epoch's numbers, `suite`
//! and `hkdf` its keys.

mod header;
mod hkdf;
mod layer;
mod protect12;
mod protect13;
mod resync;
mod seal;
mod sequence;
mod suite;
#[cfg(test)]
mod vectors;
mod window;

pub use header::{Header, Plain, Unified, Version, write_plaintext};
pub use hkdf::Secret;
pub use layer::{Batch, Open, PlaintextRecord, RecordLayer};
pub use protect12::{Keys12, Opener12, Sealer12};
pub use protect13::{Opener13, Sealer13};
pub use sequence::reconstruct;
pub use suite::Suite;
pub use window::ReplayWindow;

pub(crate) use header::PLAIN_HEADER_BYTES;
pub(crate) use hkdf::{derive_secret, expand_label};

use std::ops::Range;

/// The most content one record carries (RFC 8446 §5.1, RFC 6347 §4.1), in bytes.
pub const CONTENT_BYTES_MAX: usize = 1 << 14;

/// The tag of each of our AEADs (RFC 5116 §5, RFC 8439 §2.8), in bytes.
pub const TAG_BYTES: usize = 16;

/// What a record carries (RFC 9147 §14, RFC 9146 §10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ContentType {
    /// Means something in DTLS 1.2 only.
    ChangeCipherSpec = 20,
    /// A warning or the end.
    Alert = 21,
    /// A handshake message or a fragment of one.
    Handshake = 22,
    /// An inner packet.
    ApplicationData = 23,
    /// On the outside of a DTLS 1.2 record with a connection id; what it carries is sealed.
    Tls12Cid = 25,
    /// Which records of a flight have arrived; DTLS 1.3 only.
    Ack = 26,
}

impl ContentType {
    /// The type with this number on the wire, unless we know none.
    #[must_use]
    pub const fn from_wire(byte: u8) -> Option<Self> {
        Some(match byte {
            20 => Self::ChangeCipherSpec,
            21 => Self::Alert,
            22 => Self::Handshake,
            23 => Self::ApplicationData,
            25 => Self::Tls12Cid,
            26 => Self::Ack,
            _ => return None,
        })
    }
}

/// A record's number within its association, in one direction (RFC 9147 §4). It is what an ACK names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordNumber {
    /// Counts the changes of keys; 0 is plaintext.
    pub epoch: u64,
    /// Counts the records of the epoch from 0.
    pub sequence: u64,
}

/// A record that has been authenticated and opened in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What it carries.
    pub content_type: ContentType,
    /// Where in the datagram its content stands.
    pub content: Range<usize>,
    /// Its number.
    pub number: RecordNumber,
}

/// Why a record was not sealed. A record that was refused has left no trace: nothing may be sent of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The record with its header, padding and tag does not fit into the buffer.
    #[error("the buffer is too small for the record")]
    BufferTooSmall,
    /// More than [`CONTENT_BYTES_MAX`], padding included.
    #[error("the content is longer than a record may be")]
    ContentTooLong,
    /// No key for this epoch: none installed yet, or dropped.
    #[error("no key for this epoch")]
    NoSuchEpoch,
    /// The key has sealed as much as it may (RFC 9147 §4.5.3), or its sequence numbers are used up. Terminal for the epoch.
    #[error("the key has reached its limit")]
    KeyExhausted,
    /// The cryptography library refused. It does so for lengths only, which are checked before.
    #[error("the cryptography library refused to seal")]
    Refused,
}

/// Why keys were not installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The secret or key has not the length of the suite.
    #[error("a key has the wrong length for its suite")]
    WrongLength,
    /// The epoch is not above all that were installed before. Installing one twice would use its nonces twice.
    #[error("the epoch was installed before")]
    EpochUsed,
    /// The epoch has reached 2^48-1 (RFC 9147 §8); DTLS 1.2 has one protected epoch here, as there is no renegotiation.
    #[error("no further epoch in this association")]
    NoFurtherEpoch,
    /// There is no epoch to update.
    #[error("there is no epoch to update")]
    NothingInstalled,
}

/// Why a record was dropped. Except where [`Dropped::fatal_alert`] says otherwise anybody may have sent it, and the
/// association goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dropped {
    /// Not the form of a record, cut off, or of an impossible length. The rest of the datagram goes with it.
    Malformed,
    /// A connection id that is not ours, none where one is agreed on, or one where none is. The rest of the datagram goes
    /// with it (RFC 9147 §4).
    ConnectionId,
    /// We hold no key for its epoch.
    UnknownEpoch,
    /// Authentic, or claiming to be, and seen before or older than the window.
    Replayed,
    /// Not sealed by the peer.
    NotAuthentic,
    /// As many forgeries as the key bears (RFC 9147 §4.5.3). Terminal: the epoch opens nothing any more.
    ForgeryLimit,
    /// Sealed by the peer, but longer than a record may be.
    RecordOverflow,
    /// Sealed by the peer, but without a content type, or with an unknown one.
    NoContentType,
}

impl Dropped {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 8] = [
        Self::Malformed,
        Self::ConnectionId,
        Self::UnknownEpoch,
        Self::Replayed,
        Self::NotAuthentic,
        Self::ForgeryLimit,
        Self::RecordOverflow,
        Self::NoContentType,
    ];

    /// The reason's name in a counter.
    #[must_use]
    pub const fn counter(self) -> &'static str {
        match self {
            Self::Malformed => "record_malformed",
            Self::ConnectionId => "record_connection_id",
            Self::UnknownEpoch => "record_unknown_epoch",
            Self::Replayed => "record_replayed",
            Self::NotAuthentic => "record_not_authentic",
            Self::ForgeryLimit => "record_forgery_limit",
            Self::RecordOverflow => "record_overflow",
            Self::NoContentType => "record_no_content_type",
        }
    }

    /// The alert that ends the association, if the record was the peer's and against the protocol: record_overflow (22,
    /// RFC 8446 §5.4) or unexpected_message (10). `None` means silence.
    #[must_use]
    pub const fn fatal_alert(self) -> Option<u8> {
        match self {
            Self::RecordOverflow => Some(22),
            Self::NoContentType => Some(10),
            _ => None,
        }
    }
}
