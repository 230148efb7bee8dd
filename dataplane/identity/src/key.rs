//! Public keys and their thumbprints.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Smallest RSA key that counts as one (A8).
const RSA_BITS_MIN: usize = 2_048;
/// Largest: every signature by a larger one costs us more than it costs its owner.
const RSA_BITS_MAX: usize = 4_096;

/// The thumbprint of a public key (RFC 7638, SHA-256), as in `cnf.jkt` of a token (RFC 9449 §6.1). Written as base64url.
/// It is public: comparing two need not take constant time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyThumbprint([u8; 32]);

/// A public key that is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not a SubjectPublicKeyInfo.
    #[error("expected a public key as a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7)")]
    Form,
    /// A kind or size of key that is not accepted.
    #[error(
        "expected an ECDSA key on P-256 or P-384, an Ed25519 key, or an RSA key of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits, found {found}; make another key"
    )]
    Kind {
        /// What came.
        found: String,
    },
    /// Not a thumbprint in its written form.
    #[error("expected a key thumbprint of 43 base64url characters")]
    Thumbprint,
}

impl KeyThumbprint {
    /// The thumbprint of the key in a DER SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`KeyError::Form`], [`KeyError::Kind`].
    pub fn of_spki(spki: &[u8]) -> Result<Self, KeyError> {
        let (rest, info) = SubjectPublicKeyInfo::from_der(spki).map_err(|_| KeyError::Form)?;
        if !rest.is_empty() {
            return Err(KeyError::Form);
        }
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let algorithm = info.algorithm.algorithm.to_id_string();
        let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string());
        let unknown = || KeyError::Kind { found: format!("algorithm {algorithm}") };
        let (name, half) = match (algorithm.as_str(), curve.as_deref()) {
            ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7")) => ("P-256", 32),
            ("1.2.840.10045.2.1", Some("1.3.132.0.34")) => ("P-384", 48),
            ("1.3.101.112", _) => ("Ed25519", 32),
            ("1.2.840.113549.1.1.1", _) => ("RSA", 0),
            _ => return Err(unknown()),
        };
        let bits: &[u8] = &info.subject_public_key.data;
        // RFC 7638 §3.2: the required members in lexicographic order, without spaces.
        let text = match name {
            "RSA" => {
                let Ok(PublicKey::RSA(key)) = info.parsed() else { return Err(unknown()) };
                let modulus = key.modulus.iter().position(|byte| *byte != 0).map_or(&[][..], |at| &key.modulus[at..]);
                let exponent =
                    key.exponent.iter().position(|byte| *byte != 0).map_or(&[][..], |at| &key.exponent[at..]);
                let size = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
                if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&size) {
                    return Err(KeyError::Kind { found: format!("an RSA key of {size} bits") });
                }
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, b64(exponent), b64(modulus))
            }
            "Ed25519" if bits.len() == half => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, b64(bits)),
            "P-256" | "P-384" if bits.len() == 1 + 2 * half && bits[0] == 4 => {
                let (x, y) = bits[1..].split_at(half);
                format!(r#"{{"crv":"{name}","kty":"EC","x":"{}","y":"{}"}}"#, b64(x), b64(y))
            }
            _ => return Err(unknown()),
        };
        Ok(Self::of_canonical_jwk(&text))
    }

    /// The thumbprint of a key in the canonical form of RFC 7638 §3.
    #[must_use]
    pub fn of_canonical_jwk(text: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for KeyThumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for KeyThumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyThumbprint {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Thumbprint)?;
        Ok(Self(bytes.try_into().map_err(|_| KeyError::Thumbprint)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 7638 §3.1.
    #[test]
    fn the_thumbprint_of_the_standard() {
        let modulus = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let n = URL_SAFE_NO_PAD.decode(modulus).unwrap();
        let tlv = |tag: u8, content: &[u8]| {
            let mut out = vec![tag, 0x82];
            out.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
            out.extend(content);
            out
        };
        let mut integers = tlv(2, &[&[0], n.as_slice()].concat());
        integers.extend([2, 3, 1, 0, 1]);
        let key = tlv(0x30, &integers);
        let bits = tlv(3, &[&[0], key.as_slice()].concat());
        let algorithm = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
        let spki = tlv(0x30, &[&algorithm[..], &bits].concat());
        let thumbprint = KeyThumbprint::of_spki(&spki).unwrap();
        assert_eq!(thumbprint.to_string(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(thumbprint.to_string().parse(), Ok(thumbprint));
    }

    #[test]
    fn other_bytes_have_none() {
        assert_eq!(KeyThumbprint::of_spki(b"nothing"), Err(KeyError::Form));
        assert_eq!("abc".parse::<KeyThumbprint>(), Err(KeyError::Thumbprint));
    }
}
