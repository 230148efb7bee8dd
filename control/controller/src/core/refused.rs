//! The one form of a refusal on its way to whoever asked.

use std::fmt;

use ringfort_directory::Failed;
use ringfort_identity::{KeyError, NameError, VerifyError};
use ringfort_proto::api::{AdministratorRole, OtpKind};
use ringfort_token::proof::ProofRefused;
use ringfort_token::{KeyRefused, Refusal};

/// A request that was refused: a stable code, the HTTP status it travels with, and what was expected, what came and what to
/// do. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Refused {
    /// Stable: in errors to clients, in audit events, and of the counter `refused_<code>`.
    pub code: &'static str,
    /// HTTP status (RFC 9110 §15).
    pub status: u16,
    /// For people.
    pub message: String,
    /// Seconds after which it is worth trying again, where that is known (RFC 9110 §10.2.3).
    pub retry_after: Option<u64>,
}

/// Of a name that somebody sent, in a message about it, in bytes.
const FOUND_BYTES_MAX: usize = 64;

impl Refused {
    /// Every code of the Controller's own, for counters that are there before their first count. Those of tokens and proofs
    /// are [`Refusal::CODES`] and [`ProofRefused::CODES`].
    pub const CODES: [&'static str; 51] = [
        "administrator_refused",
        "already_exists",
        "authentication_not_fresh",
        "certificate_mismatch",
        "certificate_required",
        "certificate_revoked",
        "email_domain_refused",
        "email_unverified",
        "gateway_busy",
        "gateway_unreachable",
        "handshake_refused",
        "host_mismatch",
        "host_unknown",
        "id_token_refused",
        "internal",
        "invitation_expired",
        "invitation_unknown",
        "invitation_used",
        "key_mismatch",
        "login_busy",
        "login_limited",
        "login_refused",
        "login_unknown",
        "method_not_allowed",
        "method_unknown",
        "nonce_unknown",
        "not_administrator",
        "not_found",
        "operation_failed",
        "operation_late",
        "otp_locked",
        "otp_refused",
        "otp_required",
        "otp_unanswered",
        "otp_unavailable",
        "policy_changed",
        "pool_exhausted",
        "provider_answer",
        "provider_refused",
        "provider_unreachable",
        "rate_limited",
        "request_malformed",
        "requests_limited",
        "role_insufficient",
        "root_key_absent",
        "service_unknown",
        "subject_refused",
        "ticket_mismatch",
        "user_inactive",
        "user_unknown",
        "wrong_role",
    ];

    fn new(code: &'static str, status: u16, message: impl Into<String>) -> Self {
        Self { code, status, message: message.into(), retry_after: None }
    }

    fn after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// A policy that was planned from what is not in force any more: 409.
    #[must_use]
    pub fn policy_changed(expected: &str, found: &str) -> Self {
        let message = format!(
            "expected the policy {expected} to be in force, from which the plan was made, found {found}: look at the difference anew"
        );
        Self::new("policy_changed", 409, message)
    }

    /// A request that is none: 400.
    #[must_use]
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new("request_malformed", 400, message)
    }

    /// A TLS handshake that came to nothing; whoever tried was told by an alert, if at all.
    #[must_use]
    pub fn handshake(why: String) -> Self {
        Self::new("handshake_refused", 400, why)
    }

    /// Something named that does not exist: 404.
    #[must_use]
    pub fn not_found(what: &str, name: &str) -> Self {
        let message = format!("expected the name of a {what}, found {name:?}, which names none: look at what there is");
        Self::new("not_found", 404, message)
    }

    /// A request that is there by other methods: 405.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self::new("method_not_allowed", 405, "expected a method that the header allow of this answer names")
    }

    /// Something that exists and is not overwritten: 409.
    #[must_use]
    pub fn already_exists(message: impl Into<String>) -> Self {
        Self::new("already_exists", 409, message)
    }

    /// Unknown user, wrong password and inactive user, told apart to nobody: 401.
    #[must_use]
    pub fn login() -> Self {
        Self::new("login_refused", 401, "user name and password do not fit: try again, or ask an administrator")
    }

    /// A certificate that is no login: 403.
    #[must_use]
    pub fn no_service() -> Self {
        let message = "expected the certificate of an active service account: users log in with `ringfort login`";
        Self::new("service_unknown", 403, message)
    }

    /// More logins wait than are let wait: 503.
    #[must_use]
    pub fn login_busy() -> Self {
        Self::new("login_busy", 503, "many users log in at the moment: try again in a few seconds").after(5)
    }

    /// Too many failures: 429.
    #[must_use]
    pub fn login_limited() -> Self {
        Self::new(
            "login_limited",
            429,
            "too many failed logins of this user or from this address: try again in 5 minutes",
        )
        .after(300)
    }

    /// More devices than a user may have: 429.
    #[must_use]
    pub fn too_many_devices(max: i64) -> Self {
        Self::new(
            "login_limited",
            429,
            format!("expected at most {max} devices of one user: use one that is registered"),
        )
    }

    /// A method that is none here: 404.
    #[must_use]
    pub fn method_unknown(name: &str) -> Self {
        let message = format!("expected the name of a method that `GET login` lists, found {name:?}");
        Self::new("method_unknown", 404, message)
    }

    /// A login at a provider that was not begun, is over, or was finished before: 401.
    #[must_use]
    pub fn login_unknown() -> Self {
        Self::new("login_unknown", 401, "this login was not begun, was finished before, or took too long: begin again")
    }

    /// Somebody of whom the provider vouches for no e-mail address: 403 (R21).
    #[must_use]
    pub fn email_unverified() -> Self {
        let message = "the identity provider does not say that your e-mail address was verified: ask whoever keeps it";
        Self::new("email_unverified", 403, message)
    }

    /// Somebody whom the provider knows and we do not: 403 (R21).
    #[must_use]
    pub fn user_unknown(email: &str) -> Self {
        Self::new("user_unknown", 403, format!("nobody here has the e-mail address {email}: ask an administrator"))
    }

    /// Somebody who may not log in: 403 (R21).
    #[must_use]
    pub fn user_inactive() -> Self {
        Self::new("user_inactive", 403, "this account is not active: ask an administrator")
    }

    /// An address that this provider does not speak for: 403.
    #[must_use]
    pub fn email_domain(method: &str, email: &str) -> Self {
        let message = format!(
            "expected an e-mail address of a domain that {method} is for, found {email}: log in by another method, or ask an administrator for `email_domains` in controller.toml"
        );
        Self::new("email_domain_refused", 403, message)
    }

    /// An administrator at a provider that logs none in: 403.
    #[must_use]
    pub fn administrator(method: &str) -> Self {
        let message = format!(
            "{method} logs no administrators in: log in by another method, or have `administrators = true` said of it in controller.toml"
        );
        Self::new("administrator_refused", 403, message)
    }

    /// Somebody else at the provider than the user first was, or one who is another user here: 403.
    #[must_use]
    pub fn subject(method: &str, name: &str) -> Self {
        let message = format!(
            "expected the account of {method} with which {name} logged in first, found another: if it is the same person ask an administrator for `ringfort admin user email {name} ADDRESS`, which lets them begin anew"
        );
        Self::new("subject_refused", 403, message)
    }

    /// One who asks more often than anybody has to: 429.
    #[must_use]
    pub fn rate_limited(seconds: u64) -> Self {
        let message = format!("too many requests of this device or user: try again in {seconds} s");
        Self { retry_after: Some(seconds), ..Self::new("rate_limited", 429, message) }
    }

    /// A one-time password is missing: 401.
    #[must_use]
    pub fn otp_required(kind: OtpKind) -> Self {
        let message = match kind {
            OtpKind::Totp => "expected a one-time password of your authenticator app beside the password",
            OtpKind::External => "expected a one-time password of your organisation's own system beside the password",
        };
        Self::new("otp_required", 401, message)
    }

    /// A one-time password that is wrong, or was used: 401.
    #[must_use]
    pub fn otp_refused(kind: OtpKind) -> Self {
        let message = match kind {
            OtpKind::Totp => {
                "the one-time password is wrong, or was used before: wait for the next, and check the clocks"
            }
            OtpKind::External => "your organisation's own system refused the one-time password: try the next",
        };
        Self::new("otp_refused", 401, message)
    }

    /// The system that checks one-time passwords gave no answer that counts: 503. Nobody is let in by that, and nothing counts as wrong.
    #[must_use]
    pub fn otp_unavailable(why: impl fmt::Display) -> Self {
        let message = format!("the one-time password could not be checked: {why}: try again, or ask an administrator");
        Self::new("otp_unavailable", 503, message)
    }

    /// The system that checks one-time passwords was asked and did not answer: 503. It counts as a wrong one, or whoever knows a
    /// password could have a person asked without end.
    #[must_use]
    pub fn otp_unanswered(why: impl fmt::Display) -> Self {
        let message =
            format!("the one-time password was not confirmed in time: {why}: try again and answer what you are asked");
        Self::new("otp_unanswered", 503, message)
    }

    /// Too many wrong ones: 429.
    #[must_use]
    pub fn otp_locked(seconds: u64) -> Self {
        let message = format!("too many wrong one-time passwords: try again in {} minutes", seconds.div_ceil(60));
        Self::new("otp_locked", 429, message).after(seconds)
    }

    /// The login that a token belongs to has ended: 401.
    #[must_use]
    pub fn login_ended() -> Self {
        Self::new("token_revoked", 401, "the login that this token belongs to has ended: log in again")
    }

    /// A door that asks for a certificate: 401.
    #[must_use]
    pub fn certificate_required() -> Self {
        Self::new("certificate_required", 401, "expected a client certificate: log in, get one, and connect with it")
    }

    /// A certificate of another session than the token's: 403.
    #[must_use]
    pub fn certificate_mismatch() -> Self {
        let message = "expected a certificate of the session that the claims token names, found another's: connect with that of the same login";
        Self::new("certificate_mismatch", 403, message)
    }

    /// A certificate or key that was taken back: 403.
    #[must_use]
    pub fn certificate_revoked(serial: u64, reason: &str) -> Self {
        let message = format!(
            "expected a certificate that counts, found one that was revoked (serial {serial}: {reason}): ask an administrator; with a new folder and a new key one may log in, or join, again"
        );
        Self::new("certificate_revoked", 403, message)
    }

    /// A certificate of another role than the door is for: 403.
    #[must_use]
    pub fn wrong_role(expected: &str, found: &str) -> Self {
        let message =
            format!("expected a certificate for the role {expected}, found {found}: connect with another one");
        Self::new("wrong_role", 403, message)
    }

    /// A certificate whose common name is none of the authorised hosts, or one of another key (W6): 401.
    #[must_use]
    pub fn host_unknown(name: &str) -> Self {
        let message = format!(
            "expected a host that may register itself, found {name:?} with a key that is none's: ask an administrator for `ringfort admin invite host {name}`"
        );
        Self::new("host_unknown", 401, message)
    }

    /// A host that speaks for another (W7): 403.
    #[must_use]
    pub fn host_mismatch(name: &str, found: &str) -> Self {
        let found = &found[..found.floor_char_boundary(FOUND_BYTES_MAX)];
        let message = format!(
            "expected the name of this certificate, {name:?}, in the path, found {found:?}: a host registers itself only"
        );
        Self::new("host_mismatch", 403, message)
    }

    /// A user without a role: 403.
    #[must_use]
    pub fn not_administrator() -> Self {
        Self::new("not_administrator", 403, "expected an administrator: log in as one")
    }

    /// An administrator whose role is too small: 403.
    #[must_use]
    pub fn role_insufficient(action: &str, least: AdministratorRole, found: AdministratorRole) -> Self {
        let (least, found) = (least.as_str(), found.as_str());
        let message = format!("{action}: expected an administrator with the role {least}, found {found}: ask an owner");
        Self::new("role_insufficient", 403, message)
    }

    /// An authentication of long ago: 401.
    #[must_use]
    pub fn not_fresh(seconds: u64, max: u64) -> Self {
        let message =
            format!("expected an authentication of the last {max} s, found one of {seconds} s ago: log in again");
        Self::new("authentication_not_fresh", 401, message)
    }

    /// A nonce that we did not give, or that was used: 401.
    #[must_use]
    pub fn nonce_unknown() -> Self {
        Self::new(
            "nonce_unknown",
            401,
            "expected a proof with the nonce of the header dpop-nonce: use the one of this answer",
        )
    }

    /// Another key than the one that a token, a name or a Gateway is bound to: 403.
    #[must_use]
    pub fn key_mismatch() -> Self {
        let message = "expected the key that this identity is bound to, found another one: use the folder that has it, or have the identity removed and join anew";
        Self::new("key_mismatch", 403, message)
    }

    /// A Gateway whose stream is not open here: 503. It may be at another Controller.
    #[must_use]
    pub fn gateway_unreachable(name: &str) -> Self {
        let message = format!(
            "the Gateway {name:?} is not connected to this Controller, and nothing was asked of it: ask another Controller, or try again"
        );
        Self::new("gateway_unreachable", 503, message)
    }

    /// A Gateway of which more is asked than is let wait: 503.
    #[must_use]
    pub fn gateway_busy(name: &str) -> Self {
        let message = format!("too many operations wait for the Gateway {name:?}: try again in a moment");
        Self::new("gateway_busy", 503, message).after(1)
    }

    /// A Gateway that did not answer in time, or was lost meanwhile; whether it did what it was asked is not known: 504.
    #[must_use]
    pub fn operation_late(name: &str) -> Self {
        let message = format!("the Gateway {name:?} has not answered: look at its log, and ask again");
        Self::new("operation_late", 504, message)
    }

    /// A Gateway that says why it did not: 409.
    #[must_use]
    pub fn operation_failed(name: &str, code: &str, detail: &str) -> Self {
        Self::new("operation_failed", 409, format!("the Gateway {name:?} did not: {detail} ({code})"))
    }

    /// More open requests of one address than are let be open: 429.
    #[must_use]
    pub fn requests_limited() -> Self {
        let message = "too many health checks and reflections of this address are open: end some first";
        Self::new("requests_limited", 429, message)
    }

    /// A site whose pool has no address left: 503.
    #[must_use]
    pub fn pool_exhausted(site: &str) -> Self {
        Self::new(
            "pool_exhausted",
            503,
            format!("every client address of site {site} is in use: give it a larger pool"),
        )
    }

    /// A cookie that selects nothing: 403.
    #[must_use]
    pub fn invitation_unknown() -> Self {
        Self::new(
            "invitation_unknown",
            403,
            "this invitation does not exist: ask for a new one, and copy the whole URL",
        )
    }

    /// An invitation that somebody was faster with: 403.
    #[must_use]
    pub fn invitation_used() -> Self {
        let message = "this invitation was used before. If that was not you, tell an administrator; ask for a new one";
        Self::new("invitation_used", 403, message)
    }

    /// An invitation of long ago: 403.
    #[must_use]
    pub fn invitation_expired() -> Self {
        Self::new("invitation_expired", 403, "this invitation has expired: ask for a new one")
    }

    /// The root's key is kept elsewhere: 503.
    #[must_use]
    pub fn root_key_absent() -> Self {
        let message = "expected rootCA.key in the state folder of this Controller, which another Controller's certificates need: put it back";
        Self::new("root_key_absent", 503, message)
    }

    /// A ticket of another invitation than the cookie's: 403.
    #[must_use]
    pub fn ticket_mismatch() -> Self {
        let message = "expected the ticket of the same invitation. The invitation is used up now: ask for a new one";
        Self::new("ticket_mismatch", 403, message)
    }

    /// A fault of ours: 500. `detail` goes to the log and nowhere else.
    pub fn internal(detail: impl fmt::Display) -> Self {
        tracing::error!(detail = %detail, "request failed");
        Self::new("internal", 500, "the Controller failed: its log says why")
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), 401, refusal.to_string())
    }
}

impl From<ProofRefused> for Refused {
    fn from(refused: ProofRefused) -> Self {
        Self::new(refused.code(), 401, refused.to_string())
    }
}

impl From<VerifyError> for Refused {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Role { expected } => Self::wrong_role(expected.as_str(), "another"),
            other => Self::new("certificate_required", 401, other.to_string()),
        }
    }
}

impl From<Failed> for Refused {
    fn from(failed: Failed) -> Self {
        let (code, status) = match failed {
            Failed::Unreachable(_) | Failed::Silent(_) => ("provider_unreachable", 503),
            Failed::Refused(_) => ("provider_refused", 401),
            Failed::Token(_) => ("id_token_refused", 401),
            _ => ("provider_answer", 502),
        };
        Self::new(code, status, failed.to_string())
    }
}

impl From<KeyError> for Refused {
    fn from(error: KeyError) -> Self {
        Self::malformed(error.to_string())
    }
}

impl From<NameError> for Refused {
    fn from(error: NameError) -> Self {
        Self::malformed(error.to_string())
    }
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::internal(error)
    }
}

impl From<KeyRefused> for Refused {
    fn from(error: KeyRefused) -> Self {
        Self::internal(error)
    }
}

impl From<rcgen::Error> for Refused {
    fn from(error: rcgen::Error) -> Self {
        Self::internal(error)
    }
}
