//! Logging in, and what a login is good for: tokens and certificates.

use serde::{Deserialize, Serialize};
use zeroize::ZeroizeOnDrop;

#[cfg(feature = "schema")]
use super::bounds::*;

/// Answer to `GET login`: how to log in here (R19).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LoginMethods {
    /// The organisation's id.
    pub organisation: String,
    /// Names of the methods: those of the identity providers, and `password`, which is the Controller's own.
    pub methods: Vec<String>,
    /// The identity providers among them, and the URI to go to.
    #[serde(default)]
    pub providers: Vec<LoginProvider>,
}

/// An identity provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LoginProvider {
    /// Name of the method.
    pub method: String,
    /// What it speaks.
    pub kind: ProviderKind,
    /// Where it is: an OpenID provider's issuer, a directory's URL.
    pub uri: String,
}

/// What an identity provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// OpenID Connect: `POST login/oidc/begin`.
    Oidc,
    /// LDAP: `POST login` with name and password.
    Ldap,
}

/// Path of the client's address to which the browser is sent after a login by `method`: each OpenID provider has its own, so that what one
/// answers cannot be taken for another's (RFC 9700 §4.4). `None` for a name that does not stand in a path as it is.
#[must_use]
pub fn callback_path(method: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    // Browsers leave out the segments "." and "..".
    let begins = method.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    (begins && method.bytes().all(plain)).then(|| format!("/callback/{method}"))
}

/// `POST login`, with a proof by the key that the tokens will belong to. It is wiped when it is dropped.
#[derive(Clone, Serialize, Deserialize, ZeroizeOnDrop)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// Login name.
    #[cfg_attr(feature = "schema", schemars(length(max = LOGIN_NAME_BYTES_MAX)))]
    pub user: String,
    /// Password.
    pub password: String,
    /// The client id that the client made (A4).
    #[cfg_attr(feature = "schema", schemars(regex(pattern = CLIENT_ID)))]
    pub client_id: String,
    /// A method that takes a password; `password` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A one-time password, for users who have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(regex(pattern = OTP)))]
    pub otp: Option<String>,
}

impl std::fmt::Debug for LoginRequest {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginRequest").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What everybody of the organisation has to know beforehand. It is the whole of it: what is no longer in it is no longer believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Known {
    /// Certificates of the keys that sign tokens, DER.
    pub signers: Vec<String>,
    /// Intermediates, DER.
    pub intermediates: Vec<String>,
    /// `host:port` of each Controller, the one that answers first.
    pub controllers: Vec<String>,
}

/// `POST login/oidc/begin`, with a proof by the key that the tokens will belong to (R20).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OidcBegin {
    /// The method.
    pub method: String,
    /// The client id that the client made (A4).
    #[cfg_attr(feature = "schema", schemars(regex(pattern = CLIENT_ID)))]
    pub client_id: String,
    /// Where the client listens for the browser: `http://127.0.0.1:PORT` (RFC 8252 §7.3) and [`callback_path`] of the method.
    pub redirect_uri: String,
    /// Whether the provider is to ask anew who it is (R2).
    #[serde(default)]
    pub fresh: bool,
}

/// Answer to `POST login/oidc/begin`.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OidcBegun {
    /// For the user's browser.
    pub url: String,
    /// Names this login in `POST login/oidc/finish`; good once.
    pub handle: String,
    /// What must come back with the browser.
    pub state: String,
    /// Until when it may be finished, in seconds since 1970.
    pub expires_at: u64,
}

impl std::fmt::Debug for OidcBegun {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OidcBegun").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// `POST login/oidc/finish`, with a proof by the same key. It is wiped when it is dropped.
#[derive(Clone, Serialize, Deserialize, ZeroizeOnDrop)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OidcFinish {
    /// From the answer to `POST login/oidc/begin`.
    pub handle: String,
    /// What the browser brought.
    pub code: String,
    /// Likewise.
    pub state: String,
    /// Likewise, if it is there (RFC 9207).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// A one-time password, for users who have them; the same request is sent again with one that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(regex(pattern = OTP)))]
    pub otp: Option<String>,
}

impl std::fmt::Debug for OidcFinish {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OidcFinish").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// Answer to `POST totp` and `POST admin/users/totp`: a secret for an authenticator app. Shown once.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TotpSecret {
    /// base32.
    pub secret: String,
    /// `otpauth://totp/…`, most often shown as a picture.
    pub url: String,
}

impl std::fmt::Debug for TotpSecret {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TotpSecret").finish_non_exhaustive()
    }
}

/// Answer to `POST login`, `POST login/oidc/finish`, `POST login/service` and `POST renew`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LoginResponse {
    /// rf-claims+jwt
    pub claims: String,
    /// The root, DER.
    pub root: String,
    /// What else is to be known.
    #[serde(flatten)]
    pub known: Known,
}

/// Answer to `POST entitlements`: one token per site (A7), and where the sites are (C1, C8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EntitlementsResponse {
    /// rf-entitlement+jwt, one per site where the user may do anything.
    pub entitlements: Vec<String>,
    /// rf-connect+jwt
    pub connect: String,
    /// What is to be known to believe these.
    #[serde(flatten)]
    pub known: Known,
}

/// `POST certificate`: a signing request (PKCS#10, DER) by the key of the claims token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// PKCS#10, DER. Only its public key is taken from it.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = BASE64URL)))]
    pub certificate_request: String,
}

/// Answer to `POST certificate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CertificateResponse {
    /// DER, the leaf first, the root not among them.
    pub chain: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_is_of_one_method() {
        assert_eq!(callback_path("sso").as_deref(), Some("/callback/sso"));
        assert_eq!(callback_path("id.example-2_x").as_deref(), Some("/callback/id.example-2_x"));
        for bad in ["", ".", "..", "a/b", "a b", "a%2e", "a?", "\u{e4}", "-a"] {
            assert_eq!(callback_path(bad), None, "{bad}");
        }
    }
}
