//! Proofs of possession (RFC 9449): which are taken, and everything else.

#![expect(clippy::disallowed_methods, reason = "most algorithms sign with randomness of their own")]

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256,
};
use aws_lc_rs::{digest, hmac, rsa};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use ringfort_identity::KeyThumbprint;
use ringfort_token::proof::{self, PROOF_BYTES_MAX, ProofKey, ProofRefused, Request};
use ringfort_types::UnixSeconds;

use crate::json::{Json, spoiled};
use crate::world::{NOW, all, b64, next_last, raw_key};

const REQUEST: Request<'static> =
    Request { method: "POST", path: "/api/v1/login", nonce: "nonce-1", token: Some("a.b.c") };

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A client's key of some kind.
struct Client {
    alg: &'static str,
    jwk: Json,
    spki: Vec<u8>,
    sign: Sign,
}

fn p256() -> Client {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    ecdsa("ES256", "P-256", key)
}

fn p384() -> Client {
    let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    ecdsa("ES384", "P-384", key)
}

fn ecdsa(alg: &'static str, curve: &str, key: EcdsaKeyPair) -> Client {
    let point = &key.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    Client {
        alg,
        jwk: Json::parse(&format!(r#"{{"kty":"EC","crv":"{curve}","x":"{}","y":"{}"}}"#, b64(x), b64(y))),
        spki: AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key()).unwrap().as_ref().to_vec(),
        sign: Box::new(move |message| key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()),
    }
}

fn ed25519() -> Client {
    let key = raw_key(77);
    Client {
        alg: "EdDSA",
        jwk: Json::parse(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, b64(key.public_key()))),
        spki: crate::world::signing_key(77).public_key().to_vec(),
        sign: Box::new(move |message| key.sign(message).as_ref().to_vec()),
    }
}

fn rsa(size: rsa::KeySize) -> Client {
    let key = rsa::KeyPair::generate(size).unwrap();
    // RSAPublicKey (RFC 8017 A.1.1): a header of four bytes, then the modulus behind another four and a zero.
    let modulus = &key.public_key().as_ref()[9..9 + size.len()];
    Client {
        alg: "RS256",
        jwk: Json::parse(&format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, b64(modulus))),
        spki: AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key()).unwrap().as_ref().to_vec(),
        sign: Box::new(move |message| {
            let mut signature = vec![0; key.public_modulus_len()];
            key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
            signature
        }),
    }
}

impl Client {
    fn header(&self) -> Json {
        self.header_with(self.alg, &self.jwk)
    }

    fn header_with(&self, alg: &str, jwk: &Json) -> Json {
        Json::parse(&format!(r#"{{"typ":"dpop+jwt","alg":"{alg}","jwk":{jwk}}}"#))
    }

    fn proof(&self, header: &Json, claims: &Json) -> String {
        let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature = b64((self.sign)(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn good(&self) -> String {
        self.proof(&self.header(), &claims())
    }
}

fn claims() -> Json {
    let ath = b64(digest::digest(&digest::SHA256, b"a.b.c"));
    Json::parse(&format!(
        r#"{{"jti":"proof-1","htm":"POST","htu":"/api/v1/login","iat":{NOW},"nonce":"nonce-1","ath":"{ath}"}}"#
    ))
}

fn without_token(claims: Json) -> Json {
    let Json::Object(mut members) = claims else { panic!() };
    assert_eq!(members.pop().unwrap().0, "ath");
    Json::Object(members)
}

fn judge_for(proof: &str, request: &Request<'_>, now: u64) -> Result<KeyThumbprint, ProofRefused> {
    let found = proof::verify(proof, request, UnixSeconds(now));
    if let Err(refused) = &found {
        assert!(ProofRefused::CODES.contains(&refused.code()), "{refused}");
    }
    found
}

fn judge(proof: &str) -> Result<KeyThumbprint, &'static str> {
    judge_for(proof, &REQUEST, NOW).map_err(|refused| refused.code())
}

fn text(value: &str) -> Json {
    Json::leaf(&format!("{value:?}"))
}

/// The thumbprint is that of the same key in a certificate, so that token, proof and certificate meet.
#[test]
fn every_accepted_kind_of_key_proves_its_thumbprint() {
    let clients = [p256(), p384(), ed25519(), rsa(rsa::KeySize::Rsa2048), rsa(rsa::KeySize::Rsa4096)];
    for client in clients {
        let thumbprint = KeyThumbprint::of_spki(&client.spki).unwrap();
        assert_eq!(judge(&client.good()), Ok(thumbprint), "{}", client.alg);
        let none = Request { token: None, ..REQUEST };
        let proof = client.proof(&client.header(), &without_token(claims()));
        assert_eq!(judge_for(&proof, &none, NOW), Ok(thumbprint), "{}", client.alg);
        // Other programs write their members in another order, and with spaces.
        let Json::Object(mut members) = client.header() else { panic!() };
        members.reverse();
        let message = format!("{}.{}", b64(Json::Object(members).to_string()), b64(format!(" {}\n", claims())));
        let proof = format!("{message}.{}", b64((client.sign)(message.as_bytes())));
        assert_eq!(judge(&proof), Ok(thumbprint), "{}", client.alg);
    }
}

#[test]
fn our_own_clients_make_proofs_that_are_taken() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let pkcs8 = pair.to_pkcs8v1().unwrap();
    let point = pair.public_key().as_ref();
    let key = ProofKey::p256(pkcs8.as_ref(), point).unwrap();
    assert_eq!(format!("{key:?}"), "ProofKey");
    let spki: Vec<u8> = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap().as_ref().to_vec();
    for request in [REQUEST, Request { token: None, ..REQUEST }] {
        let proof = key.prove(&request, "id", UnixSeconds(NOW)).unwrap();
        assert_eq!(judge_for(&proof, &request, NOW), Ok(KeyThumbprint::of_spki(&spki).unwrap()));
    }
    for bad in [&point[1..], &point[..64], &[point, &[0]].concat(), &[&[2], &point[1..]].concat(), &[]] {
        assert_eq!(ProofKey::p256(pkcs8.as_ref(), bad).unwrap_err(), ProofRefused::Key);
    }
    let not_a_key = ProofKey::p256(b"nothing", point).unwrap();
    assert_eq!(not_a_key.prove(&REQUEST, "id", UnixSeconds(NOW)), Err(ProofRefused::Key));
    // Somebody else's public half does not become ours by our signature.
    let other = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let mixed = ProofKey::p256(pkcs8.as_ref(), other.public_key().as_ref()).unwrap();
    assert_eq!(judge(&mixed.prove(&REQUEST, "id", UnixSeconds(NOW)).unwrap()), Err("proof_bad_signature"));
}

#[test]
fn a_proof_is_for_one_request() {
    let client = p256();
    let hash = |token: &str| b64(digest::digest(&digest::SHA256, token.as_bytes()));
    for (member, value, what) in [
        ("htm", "GET", "the method"),
        ("htm", "post", "the method"),
        ("htm", "", "the method"),
        ("htu", "/api/v1/logi", "the path"),
        ("htu", "/api/v1/login/", "the path"),
        ("htu", "/api/v1/login?x=1", "the path"),
        ("htu", "https://controller.example/api/v1/login", "the path"),
        ("nonce", "nonce-2", "the nonce"),
        ("nonce", "", "the nonce"),
        ("ath", "", "the token"),
        ("ath", "a.b.c", "the token"),
        ("ath", &hash("a.b.d"), "the token"),
        ("ath", &format!("{}=", hash("a.b.c")), "the token"),
    ] {
        let proof = client.proof(&client.header(), &claims().with(member, text(value)));
        assert_eq!(judge_for(&proof, &REQUEST, NOW), Err(ProofRefused::OtherRequest { what }), "{member} {value}");
    }
    let other = |what| Err(ProofRefused::OtherRequest { what });
    for (request, what) in [
        (Request { method: "GET", ..REQUEST }, "the method"),
        (Request { path: "/api/v1/renew", ..REQUEST }, "the path"),
        (Request { nonce: "nonce-2", ..REQUEST }, "the nonce"),
        (Request { token: Some("a.b.d"), ..REQUEST }, "the token"),
        (Request { token: None, ..REQUEST }, "the token"),
    ] {
        assert_eq!(judge_for(&client.good(), &request, NOW), other(what), "{request:?}");
    }
    let bare = client.proof(&client.header(), &without_token(claims()));
    assert_eq!(judge_for(&bare, &REQUEST, NOW), other("the token"));
}

#[test]
fn a_proof_is_for_one_minute() {
    let client = p256();
    let made = |at: u64| client.proof(&client.header(), &claims().with("iat", Json::leaf(&at.to_string())));
    for (at, good) in [
        (NOW, true),
        (NOW + 5, true),
        (NOW + 6, false),
        (u64::MAX, false),
        (NOW - 60, true),
        (NOW - 61, false),
        (0, false),
    ] {
        let found = judge(&made(at));
        assert_eq!(found.map(|_| ()), if good { Ok(()) } else { Err("proof_time") }, "{at}");
    }
    for now in [0, NOW + 61, u64::MAX] {
        let time = ProofRefused::Time { made: UnixSeconds(NOW), now: UnixSeconds(now) };
        assert_eq!(judge_for(&made(NOW), &REQUEST, now), Err(time));
    }
}

#[test]
fn members_of_a_proof_are_read_strictly() {
    for client in [p256(), p384(), ed25519(), rsa(rsa::KeySize::Rsa2048)] {
        for (what, header) in spoiled(&client.header()) {
            let found = judge(&client.proof(&header, &claims()));
            // Without a member that its kind needs, a key is none.
            let is_key = what.starts_with("jwk: without") && !what.ends_with("kty");
            let expected = if is_key { "proof_key" } else { "proof_malformed" };
            assert_eq!(found, Err(expected), "{} {what}", client.alg);
        }
        for (what, changed) in spoiled(&claims()) {
            let found = judge(&client.proof(&client.header(), &changed));
            let expected = if what.ends_with("without ath") { "proof_other_request" } else { "proof_malformed" };
            assert_eq!(found, Err(expected), "{} {what}", client.alg);
        }
    }
    // Members that other keys have, and those that only private keys have.
    let client = p256();
    let Json::Object(members) = &client.jwk else { panic!() };
    for (name, value, expected) in [
        ("d", r#""AQ""#, "proof_malformed"),
        ("k", r#""AQ""#, "proof_malformed"),
        ("p", r#""AQ""#, "proof_malformed"),
        ("kid", r#""1""#, "proof_malformed"),
        ("use", r#""sig""#, "proof_malformed"),
        ("n", "null", "proof_malformed"),
        ("e", "null", "proof_malformed"),
        ("n", r#""AQ""#, "proof_key"),
        ("e", r#""AQAB""#, "proof_key"),
    ] {
        let jwk = Json::Object(members.iter().cloned().chain([(name.into(), Json::leaf(value))]).collect());
        let proof = client.proof(&client.header_with("ES256", &jwk), &claims());
        assert_eq!(judge(&proof), Err(expected), "{name} {value}");
    }
    let null = Json::Object(match without_token(claims()) {
        Json::Object(members) => members.into_iter().chain([("ath".into(), Json::leaf("null"))]).collect(),
        _ => panic!(),
    });
    let request = Request { token: None, ..REQUEST };
    assert_eq!(judge_for(&client.proof(&client.header(), &null), &request, NOW), Err(ProofRefused::Malformed));
}

/// All clients with all algorithms but their own, and with each other's curve.
#[test]
fn a_key_is_used_with_its_own_algorithm() {
    let clients = [p256(), p384(), ed25519(), rsa(rsa::KeySize::Rsa2048)];
    for client in &clients {
        for alg in ["ES256", "ES384", "EdDSA", "RS256", "ES512", "PS256", "RS384", "HS256", "none", "None", "", "es256"]
        {
            if alg != client.alg {
                let proof = client.proof(&client.header_with(alg, &client.jwk), &claims());
                assert_eq!(judge(&proof), Err("proof_key"), "{} as {alg}", client.alg);
            }
        }
        for other in clients.iter().filter(|other| other.alg != client.alg) {
            // Shown with another's key, signed by one's own.
            let proof = client.proof(&client.header_with(other.alg, &other.jwk), &claims());
            assert_eq!(judge(&proof), Err("proof_bad_signature"), "{} as {}", client.alg, other.alg);
            let proof = client.proof(&client.header_with(client.alg, &other.jwk), &claims());
            assert_eq!(judge(&proof), Err("proof_key"), "{} with a key of {}", client.alg, other.alg);
        }
        for typ in ["EC", "OKP", "RSA", "oct", "", "ec"] {
            let jwk = client.jwk.clone().with("kty", text(typ));
            if jwk.to_string() != client.jwk.to_string() {
                assert_eq!(judge(&client.proof(&client.header_with(client.alg, &jwk), &claims())), Err("proof_key"));
            }
        }
        if client.alg != "RS256" {
            for curve in ["P-256", "P-384", "P-521", "secp256k1", "Ed25519", "Ed448", "X25519", "", "p-256"] {
                let jwk = client.jwk.clone().with("crv", text(curve));
                if jwk.to_string() != client.jwk.to_string() {
                    let proof = client.proof(&client.header_with(client.alg, &jwk), &claims());
                    assert_eq!(judge(&proof), Err("proof_key"), "{} on {curve}", client.alg);
                }
            }
        }
    }
    // The public key as the secret of a keyed hash.
    let header = clients[0].header_with("HS256", &clients[0].jwk);
    let message = format!("{}.{}", b64(header.to_string()), b64(claims().to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, &clients[0].spki);
    assert_eq!(judge(&format!("{message}.{}", b64(hmac::sign(&key, message.as_bytes())))), Err("proof_key"));
    // None at all.
    for alg in ["none", "ES256"] {
        let header = clients[0].header_with(alg, &clients[0].jwk);
        let unsigned = format!("{}.{}.", b64(header.to_string()), b64(claims().to_string()));
        assert!(matches!(judge(&unsigned), Err("proof_key" | "proof_bad_signature")), "{alg}");
    }
    for zero in [vec![0; 64], [vec![0; 31], vec![1], vec![0; 31], vec![1]].concat()] {
        let message = format!("{}.{}", b64(clients[0].header().to_string()), b64(claims().to_string()));
        assert_eq!(judge(&format!("{message}.{}", b64(zero))), Err("proof_bad_signature"));
    }
}

/// A key that could be written in two ways would have two thumbprints.
#[test]
fn a_key_is_written_in_one_way() {
    for client in [p256(), p384(), ed25519(), rsa(rsa::KeySize::Rsa2048)] {
        let Json::Object(members) = &client.jwk else { panic!() };
        for (member, value) in members.iter().filter(|(name, _)| ["x", "y", "n", "e"].contains(&name.as_str())) {
            let good = value.to_string().replace('"', "");
            let bytes = URL_SAFE_NO_PAD.decode(&good).unwrap();
            let mut spellings = vec![
                String::new(),
                format!("{good}="),
                format!("{good}=="),
                format!("{good}A"),
                format!(" {good}"),
                format!("{good}\\n"),
                format!("{good}!"),
                STANDARD.encode(&bytes),
                b64([&[0], bytes.as_slice()].concat()),
                b64([bytes.as_slice(), &[0]].concat()),
                b64(&bytes[1..]),
                b64(&bytes[..bytes.len() - 1]),
            ];
            // The last character has bits to spare where the bytes do not come out even.
            spellings.extend((!good.len().is_multiple_of(4)).then(|| next_last(&good)));
            for text in spellings.iter().filter(|text| **text != good) {
                let jwk = client.jwk.clone().with(member, Json::leaf(&format!("\"{text}\"")));
                let found = judge(&client.proof(&client.header_with(client.alg, &jwk), &claims()));
                // With a byte less or more it may be another RSA key, which has not signed.
                let allowed: &[&str] =
                    if client.alg == "RS256" { &["proof_key", "proof_bad_signature"] } else { &["proof_key"] };
                assert!(found.is_err_and(|code| allowed.contains(&code)), "{} {member} {text}", client.alg);
            }
        }
    }
}

#[test]
fn a_point_off_the_curve_is_no_key() {
    for client in [p256(), p384()] {
        let Json::Object(members) = &client.jwk else { panic!() };
        let size = if client.alg == "ES256" { 32 } else { 48 };
        let point = |name: &str| members.iter().find(|(known, _)| known == name).unwrap().1.clone();
        let (x, y) = (point("x"), point("y"));
        let zero = text(&b64(vec![0; size]));
        let ones = text(&b64(vec![0xff; size]));
        for (x, y) in [
            (y.clone(), x.clone()),
            (x.clone(), x.clone()),
            (zero.clone(), zero.clone()),
            (ones.clone(), ones),
            (x, zero),
        ] {
            let jwk = client.jwk.clone().with("x", x).with("y", y);
            let found = judge(&client.proof(&client.header_with(client.alg, &jwk), &claims()));
            assert!(matches!(found, Err("proof_key" | "proof_bad_signature")), "{jwk}");
        }
    }
}

/// A8: 2,048 to 4,096 bits. The first two are rightly signed (by openssl), so nothing but the size speaks against them.
#[test]
fn rsa_keys_of_other_sizes_are_none() {
    let request = Request { token: None, ..REQUEST };
    let claims = without_token(claims());
    for (modulus, signature) in [(RSA_1024, SIGNATURE_1024), (RSA_2047, SIGNATURE_2047)] {
        let header = format!(r#"{{"typ":"dpop+jwt","alg":"RS256","jwk":{{"kty":"RSA","n":"{modulus}","e":"AQAB"}}}}"#);
        let proof = format!("{}.{}.{signature}", b64(header), b64(claims.to_string()));
        assert_eq!(judge_for(&proof, &request, NOW), Err(ProofRefused::Key));
    }
    let client = rsa(rsa::KeySize::Rsa2048);
    let with = |modulus: &[u8], exponent: &str| {
        let jwk = Json::parse(&format!(r#"{{"kty":"RSA","n":"{}","e":"{exponent}"}}"#, b64(modulus)));
        judge(&client.proof(&client.header_with("RS256", &jwk), &self::claims()))
    };
    for modulus in [vec![0x7f; 256], vec![1; 513], vec![0xff; 513], vec![0xff; 1024], vec![], vec![0], vec![0; 256]] {
        assert_eq!(with(&modulus, "AQAB"), Err("proof_key"), "{} bytes", modulus.len());
    }
    // As large as may be, and of no use: this must not panic, nor take for ever.
    for exponent in ["AQ", "Ag", "Aw", &b64(vec![0xff; 512])] {
        assert!(with(&[0xff; 512], exponent).is_err());
        assert!(with(&[0xff; 256], exponent).is_err());
    }
}

#[test]
fn a_token_is_no_proof_and_a_proof_no_token() {
    let client = ed25519();
    for kind in all() {
        assert_eq!(judge(&kind.text()), Err("proof_malformed"), "{}", kind.typ);
        assert!(matches!(kind.judge(&client.good()), Err("token_malformed")), "{}", kind.typ);
        let header = client.header().with("typ", text(kind.typ));
        assert_eq!(judge(&client.proof(&header, &claims())), Err("proof_malformed"), "{}", kind.typ);
        assert_eq!(kind.judge(&client.proof(&header, &kind.claims)), Err("token_malformed"), "{}", kind.typ);
        assert_eq!(judge(&client.proof(&client.header(), &kind.claims)), Err("proof_malformed"), "{}", kind.typ);
    }
    for typ in ["JWT", "dpop", "DPOP+JWT", "dpop+jwt ", "application/dpop+jwt", ""] {
        let header = client.header().with("typ", text(typ));
        assert_eq!(judge(&client.proof(&header, &claims())), Err("proof_malformed"), "{typ}");
    }
}

#[test]
fn a_changed_proof_proves_nothing() {
    for client in [p256(), ed25519()] {
        let text = client.good();
        let thumbprint = judge(&text).unwrap();
        for at in 0..text.len() {
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let changed = String::from_utf8(bytes).unwrap();
                // In the header it may become another key, which has not signed.
                assert!(judge(&changed).is_err(), "{} bit {bit} of character {at}", client.alg);
            }
            assert!(judge(&text[..at]).is_err(), "the first {at}");
            assert!(judge(&format!("{}.{}", &text[..at], &text[at..])).is_err(), "a dot at {at}");
        }
        for bad in ["\n", " ", "=", ".", "é", "A"] {
            assert!(judge(&format!("{text}{bad}")).is_err(), "{bad:?} behind");
            assert!(judge(&format!("{bad}{text}")).is_err(), "{bad:?} before");
        }
        assert_eq!(judge(&text), Ok(thumbprint));
    }
}

#[test]
fn a_proof_has_at_most_4_kib() {
    let client = ed25519();
    let long = |bytes: usize| client.proof(&client.header(), &claims().with("jti", text(&"x".repeat(bytes))));
    let fits = (0..PROOF_BYTES_MAX).rev().find(|bytes| long(*bytes).len() <= PROOF_BYTES_MAX).unwrap();
    assert!(long(fits).len() + 2 >= PROOF_BYTES_MAX);
    assert!(judge(&long(fits)).is_ok());
    assert_eq!(judge(&long(fits + 1)), Err("proof_malformed"));
    assert_eq!(judge(&"x".repeat(PROOF_BYTES_MAX)), Err("proof_malformed"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn arbitrary_text_proves_nothing(text in any::<String>(), parts in "[A-Za-z0-9_-]{0,80}(\\.[A-Za-z0-9_=+/-]{0,120}){1,3}") {
        prop_assert!(judge(&text).is_err());
        prop_assert!(judge(&parts).is_err());
    }

    #[test]
    fn arbitrary_keys_prove_nothing(
        x in prop::collection::vec(any::<u8>(), 0..50), y in prop::collection::vec(any::<u8>(), 0..50),
        n in prop::collection::vec(any::<u8>(), 250..520), e in prop::collection::vec(any::<u8>(), 0..10),
        signature in prop::collection::vec(any::<u8>(), 0..520),
    ) {
        for (alg, jwk) in [
            ("ES256", format!(r#"{{"kty":"EC","crv":"P-256","x":"{}","y":"{}"}}"#, b64(&x), b64(&y))),
            ("ES384", format!(r#"{{"kty":"EC","crv":"P-384","x":"{}","y":"{}"}}"#, b64(&x), b64(&y))),
            ("EdDSA", format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, b64(&x))),
            ("RS256", format!(r#"{{"kty":"RSA","n":"{}","e":"{}"}}"#, b64(&n), b64(&e))),
        ] {
            let header = format!(r#"{{"typ":"dpop+jwt","alg":"{alg}","jwk":{jwk}}}"#);
            let proof = format!("{}.{}.{}", b64(header), b64(claims().to_string()), b64(&signature));
            prop_assert!(judge(&proof).is_err());
        }
    }
}

const RSA_1024: &str = "2dsGhg1Qt136qtsw6SUeUhSqcZWhJ83d3W8-OitZf-XvnLy5myUApMVEaVJ7H3is8G_z4MmVBUjDdifjldnZVr1V5LmTewy9O7GKEr8TZqM7YtM_rUifGKjcdjuTAYx_GxdKlpfX1nFCKw9g8RRlwPHTE4iLhDoM-NEKM-fC-r8";
const SIGNATURE_1024: &str = "ykgcSTUGAD9DQqXPocXtZnKwHM-rndT6mF0jFYjlp_nMeb624zMKY6p782yQDj_WmBR_b68ZyIs3iz_ESblBixxlQulK4uMnqralOzhpAGugHMpOubCCccNgZj9eLm-7SVe69QSGAWx1OIQ5txo73krBNld4uFfJH1_CQdJ6H54";
const RSA_2047: &str = "VeWHf-n5Hiy24-p5hjzAY1L6J_NSrmeeqkqXETQTdcOaUOAMbf9Sw7p_3tALCv-FTNoSTGh4qip1eNL_wu7b_aCY_HEQiAZiYIfNE_KKBOmzcYlht4fYLv2wythvsVkAiFtF0simsTT2jKI6JWz2nw5mLnt70E0u-TscXc-nAXBccs1Bs_dlr82OBzCQNU_klxpmue7giCVmdrqBGxg_cHzqDEF8Jls5HNbjQ8uJFFHGiFKRt_XGSe3DDTEewD9jlxMneDNH-YM_82ZeSs3CoT2YRxQ0jXurUP2AEPxAfSwfkUeTpJrsN5LixV4BnzUdD_HnAQSS9XyWlsjeX-NhjQ";
const SIGNATURE_2047: &str = "BtX96x83p6akaZ5E0K2bB6Ucopvxt3E-SqUd6ExV-LBmFJFdiMebo-N5y1XSkgySpLag0EBCJ6zfKuNXU_mX5FIM62Gaj5UNDxlwDG3Seq3tK5CLpA7E5oNojDS2j7vkyy-IYCfu6JJ8JC_K5t8eB0MnqPlVl_SiqBRQNFXiSuOxyqBGK5mrJ4O4vUP_Tqy6vNYI5r4NIYadGrqf3ROm0FtpDhhONwWDNguugdekVY5NEzZrppa-n155UKNZvlw_6tG3MQ5qWcQHK0m8xh74wkAfzCOdie4ZKn36IvWECv7-gUIlNmgl-Q7Vg-KO8pVg24A3e0T8ZE-fSvHZiYNzjQ";
