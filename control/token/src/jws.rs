//! The outer form of a token: JWS compact serialisation (RFC 7515 §3.1), read strictly.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kinds::Token;

/// A token as text, of which nothing is believed yet. It is at most [`Token::BYTES_MAX`] long.
///
/// A claims or entitlement token is of no use without its holder's key, and still nobody's business: it is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed<T> {
    text: Box<str>,
    kind: PhantomData<fn() -> T>,
}

/// A text longer than any token of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a token of at most {max} bytes, found {found}")]
pub struct TooLong {
    /// Bytes that there may be.
    pub max: usize,
    /// Bytes that there are.
    pub found: usize,
}

impl<T: Token> Signed<T> {
    /// Takes a text that may be a token.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn from_text(text: &str) -> Result<Self, TooLong> {
        if text.len() > T::BYTES_MAX {
            return Err(TooLong { max: T::BYTES_MAX, found: text.len() });
        }
        Ok(Self { text: text.into(), kind: PhantomData })
    }

    pub(crate) fn from_parts(text: String) -> Self {
        Self { text: text.into(), kind: PhantomData }
    }
}

impl<T> Signed<T> {
    /// The text, as it travels.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl<T: Token> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("type", &T::TYPE).field("bytes", &self.text.len()).finish()
    }
}

/// The header of our tokens: these three members and no other. `alg` is there because the standard asks for it; it is compared
/// with that of the key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    pub(crate) alg: String,
    pub(crate) typ: String,
    pub(crate) kid: String,
}

/// The three parts of a token in their texts.
pub(crate) struct Parts<'a> {
    pub(crate) header: &'a str,
    pub(crate) payload: &'a str,
    pub(crate) signature: &'a str,
    /// What the signature is over.
    pub(crate) message: &'a str,
}

impl<'a> Parts<'a> {
    pub(crate) fn split(text: &'a str) -> Option<Self> {
        let (message, signature) = text.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        (!payload.contains('.')).then_some(Self { header, payload, signature, message })
    }
}

/// One base64url part in exactly the form in which [`encode`] writes it.
///
/// serde also reads sequences as structures and nothing as null, and JSON has many texts for one value. Parts of tokens are
/// written here and nowhere else, so each has one text.
pub(crate) fn decode_ours<T: Serialize + DeserializeOwned>(part: &str) -> Option<T> {
    let value: T = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
    (encode(&value).ok()? == part).then_some(value)
}

/// One base64url part that others write: members in any order and with spaces, but those of `T`, of their types, and no other.
pub(crate) fn decode_theirs<T: Serialize + DeserializeOwned>(part: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    let value: T = serde_json::from_slice(&bytes).ok()?;
    let found: Value = serde_json::from_slice(&bytes).ok()?;
    (serde_json::to_value(&value).ok()? == found).then_some(value)
}

/// A value as one base64url part.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(value)?))
}
