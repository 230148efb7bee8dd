//! The id_token (OpenID Connect Core 1.0 §3.1.3.7): what it must say, and by whose key.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use ringfort_types::UnixSeconds;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::{Map, Value};

use crate::secret::same;

/// Longest id_token, in bytes: one with some hundred groups has 10 KB.
const BYTES_MAX: usize = 64 << 10;
/// Keys of one provider that are looked at.
const KEYS_MAX: usize = 64;
/// Seconds by which the provider's clock and ours may differ.
pub(crate) const LEEWAY_SECONDS: u64 = 30;

/// Why an id_token is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenRefused {
    /// Not a signed JWT with the claims that every id_token has.
    #[error("expected a signed JWT with iss, sub, aud, exp and iat")]
    Form,
    /// Not signed, by a shared secret, or in a way that the key is not for.
    #[error("expected a signature by RS, PS, ES or EdDSA as the key is for, found another algorithm")]
    Algorithm,
    /// By no key of the provider's.
    #[error("expected a key that the provider publishes, found another key id")]
    Key,
    /// Changed on the way.
    #[error("the signature does not belong to it")]
    Signature,
    /// Of another provider.
    #[error("expected issuer {0}, found another")]
    Issuer(String),
    /// For another client of the provider.
    #[error("expected our client id as audience and authorized party, found another")]
    Audience,
    /// Of another login than the one that was begun.
    #[error("expected the nonce of this login, found another")]
    Nonce,
    /// Past its end.
    #[error("it has expired at {at}, and it is {now}: check the clocks")]
    Expired {
        /// Its end.
        at: UnixSeconds,
        /// Now.
        now: UnixSeconds,
    },
    /// Of the future.
    #[error("it was issued at {at}, and it is {now}: check the clocks")]
    Future {
        /// When it says.
        at: UnixSeconds,
        /// Now.
        now: UnixSeconds,
    },
    /// Without the time of the authentication, which was asked for.
    #[error(
        "expected auth_time, since max_age was asked for, found none: set the provider up to say when somebody authenticated"
    )]
    AuthTimeMissing,
    /// The authentication is older than was asked for (R2).
    #[error(
        "expected an authentication since {expected}, found one at {found}: the provider did not ask anew, or clocks differ"
    )]
    NotFresh {
        /// The earliest that counts.
        expected: UnixSeconds,
        /// When it was.
        found: UnixSeconds,
    },
    /// About somebody else.
    #[error("expected the same subject as before, found another")]
    Subject,
    /// With an address that the provider does not vouch for, of a session that began with one.
    #[error("expected an e-mail address that was verified, as when the session began")]
    Email,
}

/// What an id_token must fit.
pub(crate) struct Expected<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) client_id: &'a str,
    /// That of the login; none for one that a refresh brings (§12.2).
    pub(crate) nonce: Option<&'a str>,
    /// The earliest authentication that counts, exactly; none for one that a refresh brings.
    pub(crate) authenticated_after: Option<UnixSeconds>,
    pub(crate) now: UnixSeconds,
}

/// What an id_token says.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    pub(crate) sub: String,
    #[serde(deserialize_with = "one_or_many")]
    aud: Vec<String>,
    #[serde(default)]
    azp: Option<String>,
    #[serde(deserialize_with = "seconds")]
    pub(crate) exp: UnixSeconds,
    #[serde(deserialize_with = "seconds")]
    iat: UnixSeconds,
    #[serde(default)]
    nonce: Option<String>,
    #[serde(default, deserialize_with = "maybe_seconds")]
    pub(crate) auth_time: Option<UnixSeconds>,
    #[serde(flatten)]
    pub(crate) about: Map<String, Value>,
}

/// The claims of an id_token that passed every check.
pub(crate) fn verify(text: &str, keys: &Keys, expected: &Expected<'_>) -> Result<Claims, TokenRefused> {
    if text.len() > BYTES_MAX {
        return Err(TokenRefused::Form);
    }
    let (message, signature) = text.rsplit_once('.').ok_or(TokenRefused::Form)?;
    let payload = message.split('.').nth(1).ok_or(TokenRefused::Form)?;
    let header = header(message)?;
    let algorithm = algorithm(&header.alg).ok_or(TokenRefused::Algorithm)?;
    let mut fitting = keys.of(header.kid.as_deref()).filter(|key| key.is_for(algorithm)).peekable();
    if fitting.peek().is_none() {
        let known = keys.of(header.kid.as_deref()).next().is_some();
        return Err(if known { TokenRefused::Algorithm } else { TokenRefused::Key });
    }
    let verifies = |key: &Key| {
        matches!(jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.key, algorithm), Ok(true))
    };
    if !fitting.any(verifies) {
        return Err(TokenRefused::Signature);
    }
    let claims: Claims = decode(payload)?;
    judge(&claims, expected)?;
    Ok(claims)
}

fn judge(claims: &Claims, expected: &Expected<'_>) -> Result<(), TokenRefused> {
    let Expected { issuer, client_id, nonce, authenticated_after, now } = *expected;
    if claims.iss != issuer {
        return Err(TokenRefused::Issuer(issuer.into()));
    }
    let is_ours = claims.aud.iter().any(|one| one == client_id);
    let party = claims.azp.as_deref();
    if !is_ours || party.is_some_and(|party| party != client_id) || (claims.aud.len() > 1 && party.is_none()) {
        return Err(TokenRefused::Audience);
    }
    if claims.sub.is_empty() || claims.sub.len() > 255 || claims.sub.chars().any(char::is_control) {
        return Err(TokenRefused::Form);
    }
    // No leeway: what comes of it must not outlive it (R22).
    if claims.exp <= now {
        return Err(TokenRefused::Expired { at: claims.exp, now });
    }
    if claims.iat.0 > now.0.saturating_add(LEEWAY_SECONDS) {
        return Err(TokenRefused::Future { at: claims.iat, now });
    }
    if nonce.is_some_and(|nonce| !claims.nonce.as_deref().is_some_and(|found| same(found, nonce))) {
        return Err(TokenRefused::Nonce);
    }
    if let Some(after) = authenticated_after {
        let found = claims.auth_time.ok_or(TokenRefused::AuthTimeMissing)?;
        if found < after {
            return Err(TokenRefused::NotFresh { expected: after, found });
        }
        if found.0 > now.0.saturating_add(LEEWAY_SECONDS) {
            return Err(TokenRefused::Future { at: found, now });
        }
    }
    Ok(())
}

/// The keys of a provider (RFC 7517 §5).
#[derive(Clone, Default)]
pub(crate) struct Keys(Vec<Key>);

#[derive(Clone)]
struct Key {
    id: Option<String>,
    kind: Kind,
    /// The algorithm that it is for, if its owner says so.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Keys {
    /// Those of a set that can be used for signatures; what is of other kinds is passed over (RFC 7517 §5).
    pub(crate) fn of_set(set: Vec<Value>) -> Self {
        let jwks = set.into_iter().take(KEYS_MAX).filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        Self(jwks.filter_map(|jwk| Key::new(&jwk)).collect())
    }

    /// Whether there is a key that a token's header may mean.
    pub(crate) fn knows(&self, token: &str) -> bool {
        let head = token.rsplit_once('.').and_then(|(message, _)| header(message).ok());
        head.is_some_and(|head| self.of(head.kid.as_deref()).next().is_some())
    }

    /// Those of an id; without one all.
    fn of<'a>(&'a self, id: Option<&'a str>) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(move |key| id.is_none() || key.id.as_deref() == id)
    }
}

impl Key {
    fn new(jwk: &Jwk) -> Option<Self> {
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Kind::Rsa,
            AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
                EllipticCurve::P256 => Kind::P256,
                EllipticCurve::P384 => Kind::P384,
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Kind::Ed25519,
            _ => return None,
        };
        let said = jwk.common.key_algorithm.as_ref().map(ToString::to_string);
        let algorithm = match said {
            // For encryption, or of a kind that we do not know.
            Some(said) => Some(algorithm(&said)?),
            None => None,
        };
        let key = DecodingKey::from_jwk(jwk).ok()?;
        Some(Self { id: jwk.common.key_id.clone(), kind, algorithm, key })
    }

    fn is_for(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let kind = match algorithm {
            RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => Kind::Rsa,
            ES256 => Kind::P256,
            ES384 => Kind::P384,
            EdDSA => Kind::Ed25519,
            _ => return false,
        };
        self.kind == kind && self.algorithm.is_none_or(|own| own == algorithm)
    }
}

/// The algorithms that are accepted: signatures by a key pair, and neither `none` nor a shared secret (RFC 8725 §3.1).
fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// What must be understood (RFC 7515 §4.1.11); we understand nothing that could stand there.
    #[serde(default)]
    crit: Option<Value>,
}

fn header(message: &str) -> Result<Header, TokenRefused> {
    let header: Header = decode(message.split('.').next().ok_or(TokenRefused::Form)?)?;
    if header.crit.is_some() { Err(TokenRefused::Form) } else { Ok(header) }
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, TokenRefused> {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenRefused::Form)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenRefused::Form)
}

/// `aud`: one text or several (RFC 7519 §4.1.3).
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

/// NumericDate (RFC 7519 §2), of which some providers give fractions.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnixSeconds, D::Error> {
    let number = f64::deserialize(deserializer)?;
    // Times beyond 2⁵³ are none.
    if !(0.0..9_007_199_254_740_992.0).contains(&number) {
        return Err(D::Error::custom("expected seconds since 1970"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
    Ok(UnixSeconds(number as u64))
}

fn maybe_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UnixSeconds>, D::Error> {
    seconds(deserializer).map(Some)
}

#[cfg(test)]
pub(super) mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::EncodingKey;
    use rcgen::{KeyPair, PublicKeyData};
    use serde_json::json;

    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    /// A provider's key of P-256.
    pub(crate) struct Signer {
        key: EncodingKey,
        pub(crate) jwk: Value,
    }

    impl Signer {
        pub(crate) fn new(id: &str) -> Self {
            let pair = KeyPair::generate().unwrap();
            let point = pair.der_bytes();
            let coordinate = |at: usize| URL_SAFE_NO_PAD.encode(&point[at..at + 32]);
            let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "alg": "ES256", "x": coordinate(1), "y": coordinate(33) });
            Self { key: EncodingKey::from_ec_der(pair.serialized_der()), jwk }
        }

        fn keys(&self) -> Keys {
            Keys::of_set(vec![json!({ "kty": "unknown" }), self.jwk.clone()])
        }

        pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
            let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
            let message = format!("{}.{}", encode(header), encode(claims));
            let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, Algorithm::ES256).unwrap();
            format!("{message}.{signature}")
        }
    }

    pub(crate) fn header() -> Value {
        json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" })
    }

    fn claims() -> Value {
        json!({
            "iss": "https://id.example", "sub": "s1", "aud": "ringfort", "exp": NOW.0 + 300, "iat": NOW.0,
            "nonce": "n1", "auth_time": NOW.0 - 10, "email": "alice@example.org", "email_verified": true,
        })
    }

    fn expected() -> Expected<'static> {
        Expected {
            issuer: "https://id.example",
            client_id: "ringfort",
            nonce: Some("n1"),
            authenticated_after: Some(UnixSeconds(NOW.0 - 10)),
            now: NOW,
        }
    }

    fn with(changes: &[(&str, Value)]) -> Value {
        let mut claims = claims();
        for (name, value) in changes {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(*name)),
                value => claims[*name] = value.clone(),
            }
        }
        claims
    }

    // Covers: R20 allow
    #[test]
    fn an_id_token_of_the_login_is_believed() {
        let signer = Signer::new("k1");
        for claims in [
            claims(),
            with(&[("aud", json!(["other", "ringfort"])), ("azp", json!("ringfort"))]),
            with(&[("exp", json!(NOW.0 as f64 + 300.5))]),
        ] {
            let verified = verify(&signer.sign(&header(), &claims), &signer.keys(), &expected()).unwrap();
            assert_eq!((verified.sub.as_str(), verified.exp), ("s1", UnixSeconds(NOW.0 + 300)));
            assert_eq!(verified.about["email"], "alice@example.org");
        }
        // A header without a key id means any key.
        let anonymous = signer.sign(&json!({ "alg": "ES256" }), &claims());
        verify(&anonymous, &signer.keys(), &expected()).unwrap();
    }

    // Covers: R20 refuse
    #[test]
    fn whatever_differs_from_the_login_is_refused() {
        let signer = Signer::new("k1");
        let refused = |changes: &[(&str, Value)]| {
            verify(&signer.sign(&header(), &with(changes)), &signer.keys(), &expected()).unwrap_err()
        };
        assert_eq!(refused(&[("nonce", json!("n2"))]), TokenRefused::Nonce);
        assert_eq!(refused(&[("nonce", Value::Null)]), TokenRefused::Nonce);
        assert_eq!(
            refused(&[("iss", json!("https://id.example/"))]),
            TokenRefused::Issuer("https://id.example".into())
        );
        for (audience, party) in [
            (json!("other"), Value::Null),
            (json!([]), Value::Null),
            (json!(["ringfort", "other"]), Value::Null),
            (json!(["ringfort", "other"]), json!("other")),
            (json!("ringfort"), json!("other")),
        ] {
            assert_eq!(refused(&[("aud", audience), ("azp", party)]), TokenRefused::Audience);
        }
        assert_eq!(refused(&[("exp", json!(NOW.0))]), TokenRefused::Expired { at: NOW, now: NOW });
        assert!(matches!(refused(&[("iat", json!(NOW.0 + 31))]), TokenRefused::Future { .. }));
        for name in ["iss", "sub", "aud", "exp", "iat"] {
            assert_eq!(refused(&[(name, Value::Null)]), TokenRefused::Form, "{name}");
        }
        for subject in ["", "s\n1", "\u{9b}2J", &"s".repeat(256)] {
            assert_eq!(refused(&[("sub", json!(subject))]), TokenRefused::Form, "{subject}");
        }
        assert_eq!(refused(&[("exp", json!("tomorrow"))]), TokenRefused::Form);
        assert_eq!(refused(&[("exp", json!(-1))]), TokenRefused::Form);
    }

    // Covers: R2 refuse
    #[test]
    fn an_old_authentication_is_not_fresh() {
        let signer = Signer::new("k1");
        let check = |auth_time: Value| {
            verify(&signer.sign(&header(), &with(&[("auth_time", auth_time)])), &signer.keys(), &expected())
        };
        check(json!(NOW.0 - 10)).unwrap();
        // Both are whole seconds: the one of the beginning is not over when it is named.
        check(json!(NOW.0 as f64 - 9.1)).unwrap();
        assert!(matches!(check(json!(NOW.0 - 11)), Err(TokenRefused::NotFresh { .. })));
        assert!(matches!(check(json!(NOW.0 as f64 - 10.1)), Err(TokenRefused::NotFresh { .. })));
        assert!(matches!(check(json!(NOW.0 + 31)), Err(TokenRefused::Future { .. })));
        assert_eq!(check(Value::Null).unwrap_err(), TokenRefused::AuthTimeMissing);
    }

    // Covers: R20 refuse
    #[test]
    fn other_keys_and_other_algorithms_are_refused() {
        let (signer, other) = (Signer::new("k1"), Signer::new("k1"));
        let keys = signer.keys();
        let check = |token: &str| verify(token, &keys, &expected()).unwrap_err();
        let good = signer.sign(&header(), &claims());
        assert_eq!(check(&other.sign(&header(), &claims())), TokenRefused::Signature);
        assert_eq!(check(&signer.sign(&json!({ "alg": "ES256", "kid": "k2" }), &claims())), TokenRefused::Key);
        for alg in ["none", "HS256", "RS256", "ES384", "es256"] {
            let token = signer.sign(&json!({ "alg": alg, "kid": "k1" }), &claims());
            assert_eq!(check(&token), TokenRefused::Algorithm, "{alg}");
        }
        assert_eq!(
            check(&signer.sign(&json!({ "alg": "ES256", "kid": "k1", "crit": ["x"] }), &claims())),
            TokenRefused::Form
        );
        let unsigned = format!("{}.", good.rsplit_once('.').unwrap().0);
        assert_eq!(check(&unsigned), TokenRefused::Signature);
        for bad in ["", "a.b", "a.b.c", &"x".repeat(BYTES_MAX + 1)] {
            assert_eq!(check(bad), TokenRefused::Form);
        }
        let mut changed = signer.jwk.clone();
        changed["use"] = json!("enc");
        assert_eq!(verify(&good, &Keys::of_set(vec![changed]), &expected()).unwrap_err(), TokenRefused::Key);
        assert!(keys.knows(&good) && !Signer::new("k2").keys().knows(&good));
    }
}
