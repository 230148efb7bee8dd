//! The keys that sign tokens, and the set of those that are believed.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use ringfort_identity::{KeyError, KeyThumbprint};

use crate::jws::{self, Header, Signed};
use crate::kinds::Token;

/// Keys in a set: one per Controller, each with a successor.
const KEYS_MAX: usize = 32;
/// A SubjectPublicKeyInfo with an Ed25519 key is this prefix and the 32 bytes of the key (RFC 8410 §4).
const ED25519_SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// A key that is none for tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyRefused {
    /// The private key cannot be read.
    #[error("expected an Ed25519 private key in PKCS#8 form")]
    Private,
    /// The public key is of another kind.
    #[error("expected an Ed25519 public key: {0}")]
    Public(#[from] KeyError),
    /// The set is full.
    #[error("expected at most {KEYS_MAX} token keys")]
    TooMany,
    /// The claims could not be written, or not signed.
    #[error("signing failed: {0}")]
    Signing(String),
}

/// The private half of a token key. Its id (`kid`) is the thumbprint of its public half, so it names nothing but the key.
pub struct SigningKey {
    key: EncodingKey,
    id: String,
    spki: Vec<u8>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Takes an Ed25519 key in PKCS#8 form (RFC 8410 §7; version 1 or 2).
    ///
    /// # Errors
    /// [`KeyRefused::Private`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyRefused> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyRefused::Private)?;
        let spki = [&ED25519_SPKI_PREFIX[..], pair.public_key().as_ref()].concat();
        let id = KeyThumbprint::of_spki(&spki)?.to_string();
        Ok(Self { key: EncodingKey::from_ed_der(der), id, spki })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its public half as a SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.spki
    }

    /// Signs `claims`.
    ///
    /// # Errors
    /// [`KeyRefused::Signing`], also when the token would be longer than its kind may be.
    pub fn sign<T: Token>(&self, claims: &T) -> Result<Signed<T>, KeyRefused> {
        let failed = |why: &dyn fmt::Display| KeyRefused::Signing(why.to_string());
        let header = Header { alg: "EdDSA".into(), typ: T::TYPE.into(), kid: self.id.clone() };
        let header = jws::encode(&header).map_err(|error| failed(&error))?;
        let payload = jws::encode(claims).map_err(|error| failed(&error))?;
        let message = format!("{header}.{payload}");
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, Algorithm::EdDSA)
            .map_err(|error| failed(&error))?;
        let text = format!("{message}.{signature}");
        if text.len() > T::BYTES_MAX {
            return Err(failed(&format!("{} bytes, more than {} of this kind", text.len(), T::BYTES_MAX)));
        }
        Ok(Signed::from_parts(text))
    }
}

/// The public keys whose signatures are believed. Whoever adds one has verified its certificate
/// ([`ringfort_identity::Trust::verify`] with the role `signer`).
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: BTreeMap<String, DecodingKey>,
}

impl KeySet {
    /// Adds the Ed25519 key in a SubjectPublicKeyInfo; its id follows from it.
    ///
    /// # Errors
    /// [`KeyRefused::Public`], [`KeyRefused::TooMany`].
    pub fn add(&mut self, spki: &[u8]) -> Result<(), KeyRefused> {
        let id = KeyThumbprint::of_spki(spki)?.to_string();
        let key = spki.strip_prefix(&ED25519_SPKI_PREFIX[..]).filter(|key| key.len() == 32);
        let key = key.ok_or_else(|| KeyError::Kind { found: "a key of another kind".into() })?;
        if self.keys.len() >= KEYS_MAX && !self.keys.contains_key(&id) {
            return Err(KeyRefused::TooMany);
        }
        self.keys.insert(id, DecodingKey::from_ed_der(key));
        Ok(())
    }

    /// The key called `id`, and the one algorithm it is used with.
    pub(crate) fn get(&self, id: &str) -> Option<(&DecodingKey, Algorithm, &'static str)> {
        self.keys.get(id).map(|key| (key, Algorithm::EdDSA, "EdDSA"))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none: nothing is believed then.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
