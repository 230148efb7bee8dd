//! The one way to believe a token.

use std::ops::Deref;

use ringfort_identity::KeyThumbprint;
use ringfort_types::UnixSeconds;

use crate::deny::{DenyList, Shown, Standing};
use crate::jws::{self, Header, Parts, Signed};
use crate::keys::KeySet;
use crate::kinds::{Registered, Token};

/// Seconds by which the clocks of issuer and verifier may differ.
pub const LEEWAY_SECONDS: u64 = 5;

/// What a verifier knows of where a token comes from.
#[derive(Clone, Debug)]
pub struct Verifier {
    issuer: Box<str>,
    keys: KeySet,
}

/// Who stands behind the token.
#[derive(Clone, Copy, Debug)]
pub enum Holder<'a> {
    /// Whoever proved to hold the key with this thumbprint: by mutual TLS or by [`crate::proof`].
    Key(&'a KeyThumbprint),
    /// The Controller's stream brought it, unasked; it takes effect only on a session whose key is the token's.
    Pushed,
    /// The kind belongs to nobody's key.
    Nobody,
}

/// What a token must fit.
#[derive(Clone, Copy, Debug)]
pub struct Expectation<'a> {
    /// Who we are, from [`crate::audience`].
    pub audience: &'a str,
    /// Who shows it.
    pub holder: Holder<'a>,
    /// The time.
    pub now: UnixSeconds,
    /// What was taken back.
    pub deny: &'a DenyList,
}

/// A token that passed every check. Nothing but [`Verifier::verify`] makes one.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    token: T,
    dies_at: UnixSeconds,
}

impl<T> Verified<T> {
    /// When it is dead: at `exp`, or earlier where a renewal is demanded.
    #[must_use]
    pub const fn dies_at(&self) -> UnixSeconds {
        self.dies_at
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.token
    }
}

/// Why a token is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Not three parts of base64url with a header of `alg`, `typ` and `kid`.
    #[error("expected a token of three base64url parts whose header is exactly alg, typ and kid")]
    Malformed,
    /// A token of another kind.
    #[error("expected a token of type {expected}, found {found:?}")]
    WrongType {
        /// `typ` of the kind.
        expected: &'static str,
        /// `typ` of the token.
        found: String,
    },
    /// Signed by a key that is none of our Controllers'.
    #[error(
        "expected a token signed by a Controller of this organisation, found an unknown key id; log in at the right Controller"
    )]
    UnknownKey,
    /// `alg` is not that of the key.
    #[error("expected algorithm {expected}, found another: the key alone decides it")]
    WrongAlgorithm {
        /// That of the key.
        expected: &'static str,
    },
    /// The signature is not of this text.
    #[error("the signature does not belong to the token: it was changed on the way, or is none")]
    BadSignature,
    /// A claim is missing, doubled, unknown or of the wrong form.
    #[error("expected exactly the claims of {kind}, each once")]
    Claims {
        /// `typ` of the kind.
        kind: &'static str,
    },
    /// Of another organisation.
    #[error("expected issuer {expected}, found another")]
    WrongIssuer {
        /// Our organisation's id.
        expected: String,
    },
    /// Not for us.
    #[error("expected audience {expected}, found another: it was issued for somebody else")]
    WrongAudience {
        /// Who we are.
        expected: String,
    },
    /// Issued or beginning in the future.
    #[error("the token counts from {from} on, and it is {now}: check the clocks, or wait")]
    NotYetValid {
        /// Its beginning.
        from: UnixSeconds,
        /// Now.
        now: UnixSeconds,
    },
    /// Past its end.
    #[error("the token has expired at {at}, and it is {now}: get a new one")]
    Expired {
        /// Its end.
        at: UnixSeconds,
        /// Now.
        now: UnixSeconds,
    },
    /// Shown by somebody who does not hold its key.
    #[error("the token belongs to another key than the one that was proved: it was issued to another device")]
    WrongHolder,
    /// Taken back.
    #[error("the token was revoked (serial {serial}): {reason}")]
    Revoked {
        /// Number of the entry that says so.
        serial: u64,
        /// What the administrator said.
        reason: String,
    },
}

impl Refusal {
    /// Every code, for counters that are there before their first count.
    pub const CODES: [&'static str; 12] = [
        "token_malformed",
        "token_wrong_type",
        "token_unknown_key",
        "token_wrong_algorithm",
        "token_bad_signature",
        "token_claims",
        "token_wrong_issuer",
        "token_wrong_audience",
        "token_not_yet_valid",
        "token_expired",
        "token_wrong_holder",
        "token_revoked",
    ];

    /// A stable name: in errors to clients, in audit events, and of the counter that counts it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "token_malformed",
            Self::WrongType { .. } => "token_wrong_type",
            Self::UnknownKey => "token_unknown_key",
            Self::WrongAlgorithm { .. } => "token_wrong_algorithm",
            Self::BadSignature => "token_bad_signature",
            Self::Claims { .. } => "token_claims",
            Self::WrongIssuer { .. } => "token_wrong_issuer",
            Self::WrongAudience { .. } => "token_wrong_audience",
            Self::NotYetValid { .. } => "token_not_yet_valid",
            Self::Expired { .. } => "token_expired",
            Self::WrongHolder => "token_wrong_holder",
            Self::Revoked { .. } => "token_revoked",
        }
    }
}

impl Verifier {
    /// Believes tokens that `keys` signed in the name of the organisation `issuer`.
    #[must_use]
    pub fn new(issuer: &str, keys: KeySet) -> Self {
        Self { issuer: issuer.into(), keys }
    }

    /// The organisation.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Checks everything about `signed`: form, type, key, algorithm, signature, claims, issuer, audience, time, holder and
    /// deny list, in this order.
    ///
    /// # Errors
    /// [`Refusal`], the first of these that does not hold.
    pub fn verify<T: Token>(&self, signed: &Signed<T>, expectation: &Expectation<'_>) -> Result<Verified<T>, Refusal> {
        let token: T = self.authentic(signed)?;
        let dies_at = self.judge(&token.registered(), expectation)?;
        Ok(Verified { token, dies_at })
    }

    /// Form, type, key, algorithm, signature and claims.
    fn authentic<T: Token>(&self, signed: &Signed<T>) -> Result<T, Refusal> {
        let parts = Parts::split(signed.as_str()).ok_or(Refusal::Malformed)?;
        let header: Header = jws::decode_ours(parts.header).ok_or(Refusal::Malformed)?;
        if header.typ != T::TYPE {
            let found = header.typ.chars().take(64).collect();
            return Err(Refusal::WrongType { expected: T::TYPE, found });
        }
        let (key, algorithm, name) = self.keys.get(&header.kid).ok_or(Refusal::UnknownKey)?;
        if header.alg != name {
            return Err(Refusal::WrongAlgorithm { expected: name });
        }
        let verified = jsonwebtoken::crypto::verify(parts.signature, parts.message.as_bytes(), key, algorithm);
        if !matches!(verified, Ok(true)) {
            return Err(Refusal::BadSignature);
        }
        jws::decode_ours(parts.payload).ok_or(Refusal::Claims { kind: T::TYPE })
    }

    /// Issuer, audience, time, holder and deny list; gives the time at which the token is dead.
    fn judge(&self, claims: &Registered<'_>, expectation: &Expectation<'_>) -> Result<UnixSeconds, Refusal> {
        let Expectation { audience, holder, now, deny } = *expectation;
        if claims.issuer != &*self.issuer {
            return Err(Refusal::WrongIssuer { expected: self.issuer.to_string() });
        }
        if !claims.audiences.iter().any(|one| one == audience) {
            return Err(Refusal::WrongAudience { expected: audience.into() });
        }
        let from = claims.not_before.max(claims.issued_at);
        if from.0 > now.0.saturating_add(LEEWAY_SECONDS) {
            return Err(Refusal::NotYetValid { from, now });
        }
        if claims.expires_at.0.saturating_add(LEEWAY_SECONDS) <= now.0 || claims.expires_at <= from {
            return Err(Refusal::Expired { at: claims.expires_at, now });
        }
        let held = match (holder, &claims.holder) {
            (Holder::Key(shown), Some(bound)) => shown == bound,
            (Holder::Pushed, Some(_)) | (Holder::Nobody, None) => true,
            _ => false,
        };
        if !held {
            return Err(Refusal::WrongHolder);
        }
        let shown = Shown {
            token: Some(claims.id),
            certificate: None,
            key: claims.holder.as_ref(),
            generation: claims.generation,
        };
        match deny.standing(&shown) {
            Standing::Good => Ok(claims.expires_at),
            Standing::RenewBy { by, .. } if now < by => Ok(claims.expires_at.min(by)),
            Standing::RenewBy { serial, reason, .. } | Standing::Revoked { serial, reason } => {
                Err(Refusal::Revoked { serial, reason: reason.into() })
            }
        }
    }
}
