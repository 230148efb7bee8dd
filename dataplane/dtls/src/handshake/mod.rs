//! The handshake: messages in flights, and what each side makes of them.
//!
//! [`exchange`] carries messages over datagrams that get lost; [`server13`], [`server12`] and [`client13`] know which message
//! comes when and what it must say; [`server`] finds out which of the first two it is. They are fed whole messages in order, and
//! answer by adding messages to the exchange and keys to the record layer. [`server12`] sorts by itself what comes in the clear
//! behind the hello.

pub(crate) mod choice12;
pub(crate) mod client13;
mod client_flight;
pub(crate) mod exchange;
mod flight;
mod ranges;
pub(crate) mod reassembly;
pub(crate) mod server;
pub(crate) mod server12;
pub(crate) mod server13;

use ringfort_identity::{PeerIdentity, VerifyError};
use ringfort_types::UnixSeconds;

use crate::alert::{Alert, Fatal, fail};
use crate::cid::ConnectionId;
use crate::crypto::ExporterSecret;
use crate::record::{RecordLayer, Suite};
use crate::wire::messages::MessageType;
use exchange::Exchange;

/// The number of a suite of DTLS 1.3 (RFC 8446 §B.4).
pub(crate) const fn suite_number(suite: Suite) -> u16 {
    match suite {
        Suite::Aes128GcmSha256 => 0x1301,
        Suite::Aes256GcmSha384 => 0x1302,
        Suite::ChaCha20Poly1305Sha256 => 0x1303,
    }
}

/// The suite of DTLS 1.3 with this number, if it is one of ours.
pub(crate) fn suite_from_number(number: u16) -> Option<Suite> {
    Suite::ALL.into_iter().find(|suite| suite_number(*suite) == number)
}

/// What a handshake works on.
pub(crate) struct Context<'a> {
    pub(crate) records: &'a mut RecordLayer,
    pub(crate) exchange: &'a mut Exchange,
    /// The id that the peer is to send to us, if it agrees.
    pub(crate) local_cid: Option<ConnectionId>,
    pub(crate) unix_time: UnixSeconds,
}

/// How far a message has brought the handshake.
#[derive(Debug)]
pub(crate) enum Step {
    /// There is more to come.
    More,
    /// Something that came in the clear cannot be; what should have come in its place may still come.
    Refused(Fatal),
    /// Both sides have proved who they are.
    Done(Outcome),
}

/// What a handshake leaves behind, beside the keys.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) peer: Option<PeerIdentity>,
    pub(crate) exporter: ExporterSecret,
}

/// Why a handshake failed: the protocol, or the peer's certificate.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Fatal(Fatal),
    PeerRefused(VerifyError),
}

impl From<Fatal> for Failure {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

impl Failure {
    /// What the peer is told.
    pub(crate) fn alert(&self) -> Alert {
        match self {
            Self::Fatal(fatal) => fatal.alert,
            Self::PeerRefused(error) => certificate_alert(error),
        }
    }
}

/// A message where another is expected, or none.
fn unexpected<T>(kind: MessageType) -> Result<T, Fatal> {
    fail(Alert::UNEXPECTED_MESSAGE, format!("a message of type {} was not expected", kind.0))
}

/// The alert for a certificate that was refused (RFC 8446 §6.2).
fn certificate_alert(error: &VerifyError) -> Alert {
    match error {
        VerifyError::Certificate(error) => match error {
            webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => Alert::CERTIFICATE_EXPIRED,
            webpki::Error::CertRevoked => Alert::CERTIFICATE_REVOKED,
            webpki::Error::UnknownIssuer => Alert::UNKNOWN_CA,
            // A good certificate for something else, as other stacks say it.
            webpki::Error::RequiredEkuNotFoundContext(_) => Alert::UNSUPPORTED_CERTIFICATE,
            _ => Alert::BAD_CERTIFICATE,
        },
        VerifyError::Role { .. } => Alert::ACCESS_DENIED,
        VerifyError::Key(_) => Alert::UNSUPPORTED_CERTIFICATE,
        _ => Alert::BAD_CERTIFICATE,
    }
}
