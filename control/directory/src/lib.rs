//! Where people prove who they are, other than by a password that the Controller keeps: OpenID Connect, LDAP, and one-time
//! passwords, by time or by a system of the organisation's own.
//!
//! - [`oidc`]: the code flow with PKCE at an OpenID provider (R19, R20). The Controller is the client; the browser is the
//!   user's own.
//! - [`ldap`]: a search in a directory and a bind as the user (A3).
//! - [`totp`]: time-based one-time passwords (RFC 6238), pure.
//! - [`external_otp`]: one-time passwords that another system checks, asked over HTTPS.
//!
//! Both providers yield a [`Person`]: what they said, verified as far as it can be. Who that is here, and what they may, is for
//! the Controller to decide.
//!
//! What this crate deliberately does not do: know users, count failures, keep anything over a restart. Time is passed in.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod external_otp;
pub mod ldap;
pub mod oidc;
pub mod totp;

mod person;
mod reason;
mod secret;
mod settings;
mod trust;
mod web;

pub use person::{Email, EmailError, Person};
pub use reason::Reason;
pub use secret::random_text;
pub use settings::{
    ExternalOtpSettings, LdapSettings, OidcSettings, PASSWORD, ProviderPolicy, Settings, SettingsError,
};

/// Why a provider did not say who somebody is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failed {
    /// It could not be reached, or broke off.
    #[error("the identity provider cannot be reached: {0}")]
    Unreachable(Reason),
    /// It was asked, and did not answer in time.
    #[error("the identity provider does not answer: {0}")]
    Silent(Reason),
    /// Its answer is none: not of the protocol, too long, or of another provider.
    #[error("expected an answer of the identity provider, found something else: {0}")]
    Answer(Reason),
    /// It refused: a wrong password, a code that was used before.
    #[error("the identity provider refused: {0}")]
    Refused(Reason),
    /// It signed something about somebody, and that is not what was asked for.
    #[error("the identity provider's id_token is not accepted: {0}")]
    Token(#[from] oidc::TokenRefused),
}
