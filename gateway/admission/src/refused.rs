//! Why something was refused or ended, each under its code.

use ringfort_policy::{PolicyError, SpecError};
use ringfort_token::{ListError, Refusal, Serial, TooLong};
use ringfort_types::UnixSeconds;

use crate::interface::NotAdmitting;

/// The codes of this crate, beside those of tokens.
const OWN: [&str; 18] = [
    "binding_failed",
    "certificate_refused",
    "certificate_required",
    "certificate_revoked",
    "channel_lost",
    "expired",
    "message_malformed",
    "not_admitting",
    "policy_malformed",
    "replaced",
    "revocations_gap",
    "revoked",
    "sequence_old",
    "stopping",
    "subject_mismatch",
    "too_many_sessions",
    "tunnel_unknown",
    "wrong_role",
];

/// Every code that an audit event, a Goodbye or a counter `refused_<code>` can have.
pub fn codes() -> impl Iterator<Item = &'static str> {
    Refusal::CODES.into_iter().chain(OWN)
}

/// Why something was refused or ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{detail}")]
    Peer { code: &'static str, detail: String },
    #[error(transparent)]
    Token(#[from] Refusal),
    #[error(transparent)]
    TooLong(#[from] TooLong),
    #[error("the device's certificate or key was revoked (serial {serial}): {reason}")]
    CertificateRevoked { serial: u64, reason: String },
    #[error("expected {expected}, found another: all of it must be issued to one session")]
    SubjectMismatch { expected: &'static str },
    #[error("expected {what} of sequence number {newest} or later, found {found}: a newer one was seen, get it")]
    SequenceOld { what: &'static str, newest: u64, found: u64 },
    #[error("expected revocations of epoch {}, found the older epoch {found}", ours.epoch)]
    EpochOld { ours: Serial, found: u64 },
    #[error(
        "expected the tunnel's own exported value and the channel's key, found others: tunnel and channel end in different places"
    )]
    BindingFailed,
    #[error("expected a tunnel that is there and not yet bound elsewhere, found none within {seconds} s: connect anew")]
    TunnelUnknown { seconds: u64 },
    #[error(transparent)]
    NotAdmitting(#[from] NotAdmitting),
    #[error("the session was revoked (serial {serial}): {reason}")]
    Revoked { serial: u64, reason: String },
    #[error("the session ended at {at}: log in again, or renew earlier")]
    Expired { at: UnixSeconds },
    #[error("a newer connection of the same session took its place")]
    Replaced,
    #[error("the session's channel was lost and did not come back within {seconds} s")]
    ChannelLost { seconds: u64 },
    #[error("this gateway stops: connect to another one")]
    Stopping,
    #[error("{detail}")]
    Malformed { detail: String },
    #[error("expected at most {max} {what}, and that many there are: try again later or at another gateway")]
    TooMany { what: &'static str, max: usize },
    #[error("{0}")]
    Policy(String),
    #[error(
        "expected revocations that follow {}/{} at the latest, found such that follow {after}: the stream begins anew",
        ours.epoch, ours.n
    )]
    RevocationsGap { ours: Serial, after: u64 },
    #[error("expected revocations of a known form: {0}")]
    Revocations(ListError),
}

impl Refused {
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Peer { code, .. } => code,
            Self::Token(refusal) => refusal.code(),
            Self::TooLong(_) => "token_malformed",
            Self::CertificateRevoked { .. } => "certificate_revoked",
            Self::SubjectMismatch { .. } => "subject_mismatch",
            Self::SequenceOld { .. } | Self::EpochOld { .. } => "sequence_old",
            Self::BindingFailed => "binding_failed",
            Self::TunnelUnknown { .. } => "tunnel_unknown",
            Self::NotAdmitting(_) => "not_admitting",
            Self::Revoked { .. } => "revoked",
            Self::Expired { .. } => "expired",
            Self::Replaced => "replaced",
            Self::ChannelLost { .. } => "channel_lost",
            Self::Stopping => "stopping",
            Self::Malformed { .. } => "message_malformed",
            Self::TooMany { .. } => "too_many_sessions",
            Self::Policy(_) => "policy_malformed",
            Self::RevocationsGap { .. } | Self::Revocations(_) => "revocations_gap",
        }
    }
}

impl From<SpecError> for Refused {
    fn from(error: SpecError) -> Self {
        Self::Policy(error.to_string())
    }
}

impl From<PolicyError> for Refused {
    fn from(error: PolicyError) -> Self {
        Self::Policy(error.to_string())
    }
}

impl From<ListError> for Refused {
    fn from(error: ListError) -> Self {
        match error {
            ListError::OlderEpoch { ours, found } => Self::EpochOld { ours, found },
            ListError::Gap { ours, after } => Self::RevocationsGap { ours, after },
            other => Self::Revocations(other),
        }
    }
}
