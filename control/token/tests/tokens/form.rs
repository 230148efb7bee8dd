//! What the text of a token may look like, and who may have signed it.

#![expect(clippy::disallowed_methods, reason = "other algorithms sign with randomness of their own")]

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256};
use proptest::prelude::*;
use ringfort_token::KeyRefused;

use crate::json::Json;
use crate::world::{ALPHABET, Kind, SEED, all, b64, next_last, public_forms, sign, sign_parts, signing_key};

/// A token of `kind` whose signature has `-` and `_` in it, so that both can be replaced.
fn with_both_signs(kind: &Kind) -> String {
    let texts = (0..).map(|n| kind.signed(&kind.claims.clone().with("jti", Json::leaf(&format!(r#""{n}""#)))));
    texts
        .into_iter()
        .find(|text| text.rsplit('.').next().is_some_and(|part| part.contains('-') && part.contains('_')))
        .unwrap()
}

// Covers: R12 refuse
#[test]
fn a_flipped_bit_anywhere_is_refused() {
    for kind in all() {
        let text = kind.text();
        for at in 0..text.len() {
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let changed = String::from_utf8(bytes).unwrap();
                assert!(kind.judge(&changed).is_err(), "{} bit {bit} of character {at}", kind.typ);
            }
        }
    }
}

#[test]
fn other_texts_of_the_same_bytes_are_refused() {
    for kind in all() {
        let text = with_both_signs(&kind);
        assert!(kind.judge(&text).is_ok());
        let (message, signature) = text.rsplit_once('.').unwrap();
        let (header, payload) = message.split_once('.').unwrap();
        // 64 bytes are 85 characters and a third: the last one has four bits that must be zero.
        let (rest, last) = signature.split_at(signature.len() - 1);
        for other in ALPHABET.chars().filter(|other| last != other.to_string()) {
            assert_eq!(kind.judge(&format!("{message}.{rest}{other}")), Err("token_bad_signature"), "{other}");
        }
        for bad in [
            signature.replace('-', "+"),
            signature.replace('_', "/"),
            format!("{signature}=="),
            format!("{signature}="),
            format!("{signature}A"),
            format!("{signature}AA"),
        ] {
            assert_eq!(kind.judge(&format!("{message}.{bad}")), Err("token_bad_signature"), "{bad}");
        }
        for (header, payload, expected) in [
            (format!("{header}="), payload.into(), "token_malformed"),
            (format!("{header}=="), payload.into(), "token_malformed"),
            (header.into(), format!("{payload}="), "token_claims"),
            (header.into(), format!("{payload}=="), "token_claims"),
            (String::new(), payload.into(), "token_malformed"),
            (header.into(), String::new(), "token_claims"),
        ] {
            assert_eq!(kind.judge(&sign_parts(&header, &payload)), Err(expected));
        }
        for part in [header, payload] {
            // Only where the last character has bits to spare.
            if part.len() % 4 != 0 {
                let changed = next_last(part);
                let (token, expected) = if part == header {
                    (sign_parts(&changed, payload), "token_malformed")
                } else {
                    (sign_parts(header, &changed), "token_claims")
                };
                assert_eq!(kind.judge(&token), Err(expected));
            }
        }
    }
}

#[test]
fn cut_and_lengthened_texts_are_refused() {
    for kind in all() {
        let text = kind.text();
        for at in 0..text.len() {
            assert!(kind.judge(&text[..at]).is_err(), "the first {at}");
            assert!(at == 0 || kind.judge(&text[at..]).is_err(), "all but the first {at}");
            assert!(kind.judge(&format!("{}.{}", &text[..at], &text[at..])).is_err(), "a dot at {at}");
        }
        for bad in ["\n", "\r\n", " ", "\t", "\0", "=", ".", "..", "\u{a0}", "\u{feff}", "é"] {
            assert!(kind.judge(&format!("{text}{bad}")).is_err(), "{bad:?} behind");
            assert!(kind.judge(&format!("{bad}{text}")).is_err(), "{bad:?} before");
            assert!(kind.judge(&text.replacen('.', &format!(".{bad}"), 1)).is_err(), "{bad:?} within");
        }
        for bad in ["", ".", "..", "...", "a.b.c", "Bearer"] {
            assert_eq!(kind.judge(bad), Err("token_malformed"), "{bad:?}");
        }
        assert_eq!(kind.judge(&text.replace('.', "")), Err("token_malformed"));
        assert_eq!(kind.judge(&format!("{text}.{text}")), Err("token_malformed"));
    }
}

/// Parts of two good tokens make no third.
#[test]
fn parts_of_several_tokens_make_none() {
    for kind in all() {
        let one = kind.text();
        let two = kind.signed(&kind.claims.clone().with("jti", Json::leaf(r#""token-2""#)));
        let parts = |text: &str| text.split('.').map(String::from).collect::<Vec<_>>();
        let (one, two) = (parts(&one), parts(&two));
        assert_eq!(kind.judge(&[&*one[0], &*one[1], &*two[2]].join(".")), Err("token_bad_signature"));
        assert_eq!(kind.judge(&[&*two[0], &*two[1], &*one[2]].join(".")), Err("token_bad_signature"));
    }
}

/// RFC 8725 §3.1: the key decides the algorithm. Each is signed for real.
// Covers: R12 refuse
#[test]
fn no_other_algorithm_is_taken_whatever_the_header_says() {
    let random = SystemRandom::new();
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let rsa = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    for kind in all() {
        let message = |alg: &str| {
            let header = kind.header().with("alg", Json::leaf(&format!("{alg:?}")));
            format!("{}.{}", b64(header.to_string()), b64(kind.claims.to_string()))
        };
        let mut forged: Vec<(&str, Vec<u8>)> = Vec::new();
        for alg in ["HS256", "EdDSA"] {
            for secret in public_forms() {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
                forged.push((alg, hmac::sign(&key, message(alg).as_bytes()).as_ref().to_vec()));
            }
        }
        for alg in ["ES256", "EdDSA"] {
            forged.push((alg, p256.sign(&random, message(alg).as_bytes()).unwrap().as_ref().to_vec()));
        }
        for alg in ["RS256", "EdDSA"] {
            let mut signature = vec![0; 256];
            rsa.sign(&RSA_PKCS1_SHA256, &random, message(alg).as_bytes(), &mut signature).unwrap();
            forged.push((alg, signature));
        }
        for alg in ["none", "None", "NONE", "nOnE", "", "EdDSA"] {
            forged.push((alg, Vec::new()));
        }
        forged.push(("EdDSA", vec![0; 64]));
        for (alg, signature) in forged {
            let expected = if alg == "EdDSA" { "token_bad_signature" } else { "token_wrong_algorithm" };
            assert_eq!(kind.judge(&format!("{}.{}", message(alg), b64(signature))), Err(expected), "{alg}");
        }
        // The right signature does not help a header that names another algorithm for it.
        for alg in ["none", "HS256", "ES256", "RS256", "PS256", "Ed25519", "eddsa", "EDDSA", "EdDSA "] {
            let header = kind.header().with("alg", Json::leaf(&format!("{alg:?}")));
            assert_eq!(kind.judge(&sign(&header, &kind.claims)), Err("token_wrong_algorithm"), "{alg}");
        }
    }
}

// Covers: C14 refuse
#[test]
fn a_foreign_controllers_token_is_refused() {
    for kind in all() {
        // Rightly signed by a Controller that is none of ours, in our organisation's name.
        let foreign = (kind.sign)(&signing_key(2), &kind.claims.to_string()).unwrap();
        assert_eq!(kind.judge(&foreign), Err("token_unknown_key"), "{}", kind.typ);
        // The same under the id of our key.
        let (message, _) = kind.text().rsplit_once('.').map(|(a, b)| (a.to_string(), b.to_string())).unwrap();
        let signature = crate::world::raw_key(2).sign(message.as_bytes());
        assert_eq!(kind.judge(&format!("{message}.{}", b64(signature))), Err("token_bad_signature"), "{}", kind.typ);
        for kid in ["", "other", "../key", &signing_key(SEED).id()[1..], &format!("{} ", signing_key(SEED).id())] {
            let header = kind.header().with("kid", Json::leaf(&format!("{kid:?}")));
            assert_eq!(kind.judge(&sign(&header, &kind.claims)), Err("token_unknown_key"), "{kid}");
        }
    }
}

#[test]
fn a_token_may_be_as_long_as_its_kind_and_no_longer() {
    for kind in all() {
        let long = |bytes: usize| kind.claims.clone().with("jti", Json::leaf(&format!("\"{}\"", "x".repeat(bytes))));
        let base = kind.signed(&long(0)).len();
        // Three characters of claims are four of text.
        let fits = (kind.bytes_max - base) / 4 * 3;
        let bytes = (fits..fits + 4).rev().find(|bytes| kind.signed(&long(*bytes)).len() <= kind.bytes_max).unwrap();
        let longest = kind.signed(&long(bytes));
        assert!(longest.len() + 2 >= kind.bytes_max, "{} {}", longest.len(), kind.bytes_max);
        assert!(kind.judge(&longest).is_ok(), "{}", kind.typ);
        assert_eq!((kind.sign)(&signing_key(SEED), &long(bytes).to_string()).unwrap(), longest);
        let longer = kind.signed(&long(bytes + 2));
        assert!(longer.len() > kind.bytes_max);
        assert_eq!(kind.judge(&longer), Err("too_long"), "{}", kind.typ);
        let refused = (kind.sign)(&signing_key(SEED), &long(bytes + 2).to_string()).unwrap_err();
        let why = format!("{} bytes, more than {} of this kind", longer.len(), kind.bytes_max);
        assert_eq!(refused, KeyRefused::Signing(why).to_string());
        assert_eq!(kind.judge(&"x".repeat(kind.bytes_max)), Err("token_malformed"));
        assert_eq!(kind.judge(&"x".repeat(kind.bytes_max + 1)), Err("too_long"));
    }
}

/// Depth that would exhaust the stack of a recursive reader.
#[test]
fn deeply_nested_json_is_refused() {
    for kind in all() {
        for (open, close) in [("[", "]"), (r#"{"aud":"#, "}")] {
            let depth = kind.bytes_max / 16;
            let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let header = b64(kind.header().to_string());
            assert!(kind.judge(&sign_parts(&header, &b64(&deep))).is_err());
            assert!(kind.judge(&sign_parts(&b64(&deep), &b64("{}"))).is_err());
        }
    }
}

fn believed_by_any(text: &str) -> bool {
    all().iter().any(|kind| kind.judge(text).is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn arbitrary_text_is_never_believed(text in any::<String>()) {
        prop_assert!(!believed_by_any(&text));
    }

    #[test]
    fn arbitrary_parts_are_never_believed(text in "[A-Za-z0-9_-]{0,80}(\\.[A-Za-z0-9_=+/-]{0,120}){1,3}") {
        prop_assert!(!believed_by_any(&text));
    }

    #[test]
    fn arbitrary_json_is_never_believed_unsigned(
        kind in 0..6_usize, payload in any::<String>(), signature in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let kind = &all()[kind];
        let header = kind.header().to_string();
        for payload in [payload, kind.claims.to_string()] {
            let text = format!("{}.{}.{}", b64(&header), b64(&payload), b64(&signature));
            prop_assert_eq!(kind.judge(&text), Err("token_bad_signature"));
        }
    }

    #[test]
    fn arbitrary_claims_are_never_believed_even_signed(kind in 0..6_usize, payload in "[{\\[\"]?\\PC{0,60}[}\\]\"]?") {
        let kind = &all()[kind];
        let text = sign_parts(&b64(kind.header().to_string()), &b64(payload));
        prop_assert_eq!(kind.judge(&text), Err("token_claims"));
    }

    #[test]
    fn a_spliced_token_is_never_believed(kind in 0..6_usize, at in any::<prop::sample::Index>(), cut in 0..12_usize, put in "\\PC{0,12}") {
        let kind = &all()[kind];
        let text = kind.text();
        let at = at.index(text.len());
        let end = (at + cut).min(text.len());
        let spliced = format!("{}{put}{}", &text[..at], &text[end..]);
        prop_assume!(spliced != text);
        prop_assert!(kind.judge(&spliced).is_err());
    }
}
