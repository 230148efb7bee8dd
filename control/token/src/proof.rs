//! Proof that a request comes from the holder of a key: DPoP (RFC 9449).
//!
//! A client shows one with every request until it has a certificate: at login, where its key becomes `cnf.jkt` of the claims
//! token, and with each use of that token. From then on mutual TLS says the same.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use ringfort_identity::KeyThumbprint;
use ringfort_types::UnixSeconds;
use serde::{Deserialize, Serialize};

use crate::jws::{self, Parts};
use crate::verify::LEEWAY_SECONDS;

/// `typ` of a proof.
const TYPE: &str = "dpop+jwt";
/// Longest proof, in bytes: one with an RSA key of 4,096 bits has some 1,900.
pub const PROOF_BYTES_MAX: usize = 4 << 10;
/// How old a proof may be, in seconds.
const AGE_SECONDS_MAX: u64 = 60;
/// Bits of an RSA modulus (A8).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=4_096;

/// What a proof is about: the request, the server's nonce, and the token that is used with it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// Path of the request, such as `/api/v1/login`. The host is bound by the TLS connection and has many spellings, so it
    /// is left out (RFC 9449 §4.3 leaves the comparison of `htu` to the server).
    pub path: &'a str,
    /// The nonce that the server gave for this request.
    pub nonce: &'a str,
    /// The claims token that is used with it, if one is.
    pub token: Option<&'a str>,
}

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofRefused {
    /// Not a proof.
    #[error(
        "expected a DPoP proof (RFC 9449) of at most {PROOF_BYTES_MAX} bytes: a JWT with typ, alg and jwk in its header"
    )]
    Malformed,
    /// A key or algorithm that is not accepted.
    #[error("expected a proof by a key of ES256, ES384, EdDSA or RS256 with 2048 to 4096 bits")]
    Key,
    /// Signed by another key than it shows, or changed.
    #[error("the proof's signature does not belong to it")]
    BadSignature,
    /// For another request, nonce or token.
    #[error("the proof is for another request: {what} differs")]
    OtherRequest {
        /// What differs.
        what: &'static str,
    },
    /// Too old, or of the future.
    #[error("the proof was made at {made} and it is {now}: check the clocks")]
    Time {
        /// When it says it was made.
        made: UnixSeconds,
        /// Now.
        now: UnixSeconds,
    },
}

impl ProofRefused {
    /// Every code, for counters that are there before their first count.
    pub const CODES: [&'static str; 5] =
        ["proof_malformed", "proof_key", "proof_bad_signature", "proof_other_request", "proof_time"];

    /// A stable name, as [`crate::Refusal::code`].
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "proof_malformed",
            Self::Key => "proof_key",
            Self::BadSignature => "proof_bad_signature",
            Self::OtherRequest { .. } => "proof_other_request",
            Self::Time { .. } => "proof_time",
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    typ: String,
    alg: String,
    jwk: Jwk,
}

/// A public key as JWK (RFC 7517), with the members that RFC 7638 §3.2 hashes and no other.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwk {
    kty: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    jti: String,
    htm: String,
    htu: String,
    #[serde(with = "crate::kinds::seconds")]
    iat: UnixSeconds,
    nonce: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
}

/// A client's key, for making proofs: ECDSA P-256, as clients of ours have it.
pub struct ProofKey {
    key: EncodingKey,
    jwk: Jwk,
}

impl std::fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProofKey")
    }
}

impl ProofKey {
    /// Takes the key in PKCS#8 form, and its public half as an uncompressed point (65 bytes, the first 4).
    ///
    /// # Errors
    /// [`ProofRefused::Key`] when the point is none of P-256.
    pub fn p256(pkcs8: &[u8], point: &[u8]) -> Result<Self, ProofRefused> {
        let [4, xy @ ..] = point else { return Err(ProofRefused::Key) };
        if xy.len() != 64 {
            return Err(ProofRefused::Key);
        }
        let coordinate = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
        let (x, y) = xy.split_at(32);
        let (x, y) = (coordinate(x), coordinate(y));
        let jwk = Jwk { kty: "EC".into(), crv: Some("P-256".into()), x, y, n: None, e: None };
        Ok(Self { key: EncodingKey::from_ec_der(pkcs8), jwk })
    }

    /// A proof for `request`, made at `now`. `id` is random.
    ///
    /// # Errors
    /// [`ProofRefused::Key`] when the key cannot sign.
    pub fn prove(&self, request: &Request<'_>, id: &str, now: UnixSeconds) -> Result<String, ProofRefused> {
        let header = Header { typ: TYPE.into(), alg: "ES256".into(), jwk: self.jwk.clone() };
        let claims = Claims {
            jti: id.into(),
            htm: request.method.into(),
            htu: request.path.into(),
            iat: now,
            nonce: request.nonce.into(),
            ath: request.token.map(token_hash),
        };
        let unsigned = jws::encode(&header).and_then(|header| Ok(format!("{header}.{}", jws::encode(&claims)?)));
        let message = unsigned.map_err(|_| ProofRefused::Malformed)?;
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, Algorithm::ES256);
        Ok(format!("{message}.{}", signature.map_err(|_| ProofRefused::Key)?))
    }
}

/// The nonce that `proof` names, for whoever must take it off their list before [`verify`]. Nothing else of it is checked.
///
/// # Errors
/// [`ProofRefused::Malformed`].
pub fn nonce(proof: &str) -> Result<String, ProofRefused> {
    if proof.len() > PROOF_BYTES_MAX {
        return Err(ProofRefused::Malformed);
    }
    let claims = Parts::split(proof).and_then(|parts| jws::decode_theirs::<Claims>(parts.payload));
    claims.map(|claims| claims.nonce).ok_or(ProofRefused::Malformed)
}

/// Checks `proof` against the request that it came with, and says whose key made it.
///
/// That the nonce is one of ours and was not used before is the caller's to see to.
///
/// # Errors
/// [`ProofRefused`].
pub fn verify(proof: &str, request: &Request<'_>, now: UnixSeconds) -> Result<KeyThumbprint, ProofRefused> {
    if proof.len() > PROOF_BYTES_MAX {
        return Err(ProofRefused::Malformed);
    }
    let parts = Parts::split(proof).ok_or(ProofRefused::Malformed)?;
    let header: Header = jws::decode_theirs(parts.header).ok_or(ProofRefused::Malformed)?;
    if header.typ != TYPE {
        return Err(ProofRefused::Malformed);
    }
    let (key, algorithm, thumbprint) = header.jwk.key(&header.alg).ok_or(ProofRefused::Key)?;
    let verified = jsonwebtoken::crypto::verify(parts.signature, parts.message.as_bytes(), &key, algorithm);
    if !matches!(verified, Ok(true)) {
        return Err(ProofRefused::BadSignature);
    }
    let claims: Claims = jws::decode_theirs(parts.payload).ok_or(ProofRefused::Malformed)?;
    let same = [
        ("the method", claims.htm == request.method),
        ("the path", claims.htu == request.path),
        ("the nonce", claims.nonce == request.nonce),
        ("the token", claims.ath == request.token.map(token_hash)),
    ];
    if let Some((what, _)) = same.into_iter().find(|(_, same)| !same) {
        return Err(ProofRefused::OtherRequest { what });
    }
    let made = claims.iat;
    if made.0 > now.0.saturating_add(LEEWAY_SECONDS) || now.0 > made.0.saturating_add(AGE_SECONDS_MAX) {
        return Err(ProofRefused::Time { made, now });
    }
    Ok(thumbprint)
}

/// `ath`: SHA-256 of the token's text.
fn token_hash(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()))
}

impl Jwk {
    /// The key, the algorithm that `alg` says if the key is of its kind, and the thumbprint.
    fn key(&self, alg: &str) -> Option<(DecodingKey, Algorithm, KeyThumbprint)> {
        let Self { kty, crv, x, y, n, e } = self;
        // Whoever writes a coordinate in two ways would have two thumbprints.
        let canonical = |text: &str, bytes: usize| {
            URL_SAFE_NO_PAD.decode(text).is_ok_and(|decoded| decoded.len() == bytes).then_some(())
        };
        let none = |members: &[&Option<String>]| members.iter().all(|member| member.is_none()).then_some(());
        let (key, algorithm, text) = match (kty.as_str(), crv.as_deref(), alg) {
            ("EC", Some(curve @ ("P-256" | "P-384")), "ES256" | "ES384") => {
                let (bytes, algorithm, fits) = match curve {
                    "P-256" => (32, Algorithm::ES256, alg == "ES256"),
                    _ => (48, Algorithm::ES384, alg == "ES384"),
                };
                let (x, y) = (x.as_deref()?, y.as_deref()?);
                fits.then_some(())?;
                none(&[n, e])?;
                canonical(x, bytes)?;
                canonical(y, bytes)?;
                let text = format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#);
                (DecodingKey::from_ec_components(x, y).ok()?, algorithm, text)
            }
            ("OKP", Some("Ed25519"), "EdDSA") => {
                let x = x.as_deref()?;
                none(&[y, n, e])?;
                canonical(x, 32)?;
                let text = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
                (DecodingKey::from_ed_components(x).ok()?, Algorithm::EdDSA, text)
            }
            ("RSA", None, "RS256") => {
                let (n, e) = (n.as_deref()?, e.as_deref()?);
                none(&[x, y])?;
                let modulus = URL_SAFE_NO_PAD.decode(n).ok()?;
                let exponent = URL_SAFE_NO_PAD.decode(e).ok()?;
                let minimal = |bytes: &[u8]| bytes.first().is_some_and(|byte| *byte != 0);
                let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
                (minimal(&modulus) && minimal(&exponent) && RSA_BITS.contains(&bits)).then_some(())?;
                let text = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
                (DecodingKey::from_rsa_components(n, e).ok()?, Algorithm::RS256, text)
            }
            _ => return None,
        };
        Some((key, algorithm, KeyThumbprint::of_canonical_jwk(&text)))
    }
}
