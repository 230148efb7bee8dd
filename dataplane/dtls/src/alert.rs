//! Alerts (RFC 8446 §6, RFC 5246 §7.2) and the failures that cause them.

use std::borrow::Cow;
use std::fmt;

/// What an alert says; the number is what stands on the wire (RFC 8446 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alert(pub u8);

macro_rules! alerts {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl Alert {
            $(#[doc = concat!("`", $text, "`")] pub const $name: Self = Self($number);)*

            /// The name in the RFC, or `unknown`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => $text,)*
                    _ => "unknown",
                }
            }
        }
    };
}

alerts! {
    CLOSE_NOTIFY = 0, "close_notify";
    UNEXPECTED_MESSAGE = 10, "unexpected_message";
    BAD_RECORD_MAC = 20, "bad_record_mac";
    RECORD_OVERFLOW = 22, "record_overflow";
    HANDSHAKE_FAILURE = 40, "handshake_failure";
    BAD_CERTIFICATE = 42, "bad_certificate";
    UNSUPPORTED_CERTIFICATE = 43, "unsupported_certificate";
    CERTIFICATE_REVOKED = 44, "certificate_revoked";
    CERTIFICATE_EXPIRED = 45, "certificate_expired";
    CERTIFICATE_UNKNOWN = 46, "certificate_unknown";
    ILLEGAL_PARAMETER = 47, "illegal_parameter";
    UNKNOWN_CA = 48, "unknown_ca";
    ACCESS_DENIED = 49, "access_denied";
    DECODE_ERROR = 50, "decode_error";
    DECRYPT_ERROR = 51, "decrypt_error";
    TOO_MANY_CIDS_REQUESTED = 52, "too_many_cids_requested";
    PROTOCOL_VERSION = 70, "protocol_version";
    INSUFFICIENT_SECURITY = 71, "insufficient_security";
    INTERNAL_ERROR = 80, "internal_error";
    INAPPROPRIATE_FALLBACK = 86, "inappropriate_fallback";
    USER_CANCELED = 90, "user_canceled";
    NO_RENEGOTIATION = 100, "no_renegotiation";
    MISSING_EXTENSION = 109, "missing_extension";
    UNSUPPORTED_EXTENSION = 110, "unsupported_extension";
    CERTIFICATE_REQUIRED = 116, "certificate_required";
    NO_APPLICATION_PROTOCOL = 120, "no_application_protocol";
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

/// Bytes of an alert: level and description.
pub(crate) const ALERT_BYTES: usize = 2;

impl Alert {
    /// The alert as a record's content. All but the farewells are fatal (RFC 8446 §6.2).
    pub(crate) const fn encode(self) -> [u8; ALERT_BYTES] {
        let level =
            if matches!(self, Self::CLOSE_NOTIFY | Self::USER_CANCELED | Self::NO_RENEGOTIATION) { 1 } else { 2 };
        [level, self.0]
    }

    /// Reads a record's content; `None` unless it is exactly one alert. The level says nothing that the description does
    /// not (RFC 8446 §6) and is given for DTLS 1.2, where warnings exist.
    pub(crate) fn decode(content: &[u8]) -> Option<(u8, Self)> {
        match *content {
            [level @ 1..=2, description] => Some((level, Self(description))),
            _ => None,
        }
    }
}

/// Why a handshake or an association cannot go on, and what the peer is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{alert}: {reason}")]
pub struct Fatal {
    /// What the peer is told.
    pub alert: Alert,
    /// What was expected and what came, for our side's log.
    pub reason: Cow<'static, str>,
}

impl Fatal {
    pub(crate) fn new(alert: Alert, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { alert, reason: reason.into() }
    }
}

/// Shorthand for a result that fails with `alert`.
pub(crate) fn fail<T>(alert: Alert, reason: impl Into<Cow<'static, str>>) -> Result<T, Fatal> {
    Err(Fatal::new(alert, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_two_bytes() {
        assert_eq!(Alert::HANDSHAKE_FAILURE.encode(), [2, 40]);
        assert_eq!(Alert::CLOSE_NOTIFY.encode(), [1, 0]);
        assert_eq!(Alert::decode(&[2, 40]), Some((2, Alert::HANDSHAKE_FAILURE)));
        for not_one in [&[][..], &[2], &[2, 40, 0], &[0, 40], &[3, 40]] {
            assert_eq!(Alert::decode(not_one), None);
        }
        assert_eq!(Alert(200).to_string(), "unknown (200)");
    }
}
