//! What an association tells its owner: events, what a datagram brought, and why it is over.

use std::time::Duration;

use ringfort_identity::{PeerIdentity, VerifyError};

use crate::alert::{Alert, Fatal};
use crate::handshake::Failure;
use crate::record::Dropped;

/// What an association tells its owner.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The handshake is finished and the peer passed every check. Comes once, before any plaintext. `None` only where the
    /// configuration lets peers pass that have no name; the product's never does.
    Established(Option<PeerIdentity>),
    /// The association is over; it hands out and accepts nothing more.
    Ended(Ended),
}

/// Why an association is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// The peer said goodbye.
    #[error("the peer closed the association")]
    ClosedByPeer,
    /// We did.
    #[error("closed")]
    Closed,
    /// The peer's certificate did not pass.
    #[error("the peer's {0}")]
    PeerRefused(VerifyError),
    /// The peer broke the protocol, or offered nothing that we take.
    #[error("DTLS failed: {0}")]
    Failed(Fatal),
    /// The peer gave up.
    #[error("the peer ended the association: {0}")]
    Alerted(Alert),
    /// The handshake took too long.
    #[error("the handshake was not finished in {0:?}{said}", said = said(.1))]
    TimedOut(Duration, Option<Alert>),
    /// A key may not be used any further and the peer agreed on no new one (RFC 9147 §4.5.3), as in DTLS 1.2 it cannot.
    #[error("a key has reached its limit")]
    KeyLimit,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Fatal(fatal) => Self::Failed(fatal),
            Failure::PeerRefused(error) => Self::PeerRefused(error),
        }
    }
}

fn said(alert: &Option<Alert>) -> String {
    alert.map(|alert| format!("; somebody, perhaps the peer, said {alert}")).unwrap_or_default()
}

/// What a datagram brought.
#[derive(Debug)]
pub enum Received<'a> {
    /// A packet of the peer's.
    Packet {
        /// Where in the datagram it stands.
        at: usize,
        /// Its bytes there.
        bytes: &'a mut [u8],
    },
    /// A record of which nothing is to be had.
    Discarded(Discarded),
}

/// Why a record was discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discarded {
    /// The record layer dropped it.
    Record(Dropped),
    /// It says something in the clear that counts only when it is sealed.
    InTheClear,
}

impl Discarded {
    /// The reason's name in a counter.
    #[must_use]
    pub const fn counter(self) -> &'static str {
        match self {
            Self::Record(dropped) => dropped.counter(),
            Self::InTheClear => "record_in_the_clear",
        }
    }
}
