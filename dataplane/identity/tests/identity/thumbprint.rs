//! Thumbprints of published keys, and what has none.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PublicKeyData};
use ringfort_identity::{KeyError, KeyThumbprint};

const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 3,
    0x42, 0,
];
const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn p256(point: &[u8]) -> Vec<u8> {
    [&P256[..], point].concat()
}

/// The key of RFC 9449 §4.1.
fn published_point() -> Vec<u8> {
    let x = decode("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs");
    let y = decode("9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA");
    [&[4], x.as_slice(), &y].concat()
}

/// RFC 8037 appendix A.3.
#[test]
fn the_published_thumbprint_of_an_ed25519_key() {
    let spki = [&ED25519[..], &decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")].concat();
    let thumbprint = KeyThumbprint::of_spki(&spki).unwrap();
    assert_eq!(thumbprint.to_string(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

/// RFC 9449 §6.1, where it is the `jkt` of the key of §4.1.
#[test]
fn the_published_thumbprint_of_a_p256_key() {
    let thumbprint = KeyThumbprint::of_spki(&p256(&published_point())).unwrap();
    assert_eq!(thumbprint.to_string(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
}

/// RFC 7638 §3.2: the hash of the required members in their order.
#[test]
fn the_thumbprint_is_the_hash_of_the_canonical_jwk() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let spki = key.subject_public_key_info();
    let (x, y) = spki[spki.len() - 96..].split_at(48);
    let [x, y] = [x, y].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
    let jwk = format!(r#"{{"crv":"P-384","kty":"EC","x":"{x}","y":"{y}"}}"#);
    assert_eq!(KeyThumbprint::of_spki(&spki).unwrap(), KeyThumbprint::of_canonical_jwk(&jwk));
}

#[test]
fn what_is_no_accepted_key_has_no_thumbprint() {
    let good = p256(&published_point());
    assert!(KeyThumbprint::of_spki(&good).is_ok());
    for at in 0..good.len() {
        assert_eq!(KeyThumbprint::of_spki(&good[..at]), Err(KeyError::Form), "the first {at} bytes");
    }
    assert_eq!(KeyThumbprint::of_spki(&[&good[..], &[0]].concat()), Err(KeyError::Form));
    // A compressed point, a hybrid one, the curve of another name, of another length.
    let changed = |at: usize, to: u8| {
        let mut spki = good.clone();
        spki[at] = to;
        KeyThumbprint::of_spki(&spki)
    };
    for first in [0, 2, 3, 5, 6, 7] {
        assert!(matches!(changed(P256.len(), first), Err(KeyError::Kind { .. })), "{first}");
    }
    assert!(matches!(changed(22, 6), Err(KeyError::Kind { .. })));
    let mut x25519 = [&ED25519[..], &[1; 32]].concat();
    x25519[8] = 0x6e;
    assert!(matches!(KeyThumbprint::of_spki(&x25519), Err(KeyError::Kind { .. })));
    let short = [&[0x30, 0x29, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x20, 0][..], &[1; 31]].concat();
    assert!(matches!(KeyThumbprint::of_spki(&short), Err(KeyError::Kind { .. })));
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    assert!(matches!(KeyThumbprint::of_spki(&p521.subject_public_key_info()), Err(KeyError::Kind { .. })));
}

#[test]
fn a_thumbprint_is_written_in_one_way() {
    let text = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    let thumbprint: KeyThumbprint = text.parse().unwrap();
    assert_eq!(thumbprint.to_string(), text);
    assert_eq!(format!("{thumbprint:?}"), text);
    assert_eq!(URL_SAFE_NO_PAD.encode(thumbprint.as_bytes()), text);
    for bad in [
        "",
        &text[1..],
        &text[..42],
        &format!("{text}="),
        &format!("{text}A"),
        &format!("{text}\n"),
        &format!(" {text}"),
        &text.replace('-', "+"),
        // The same bytes, with bits to spare that are not zero.
        &format!("{}J", &text[..42]),
    ] {
        assert_eq!(bad.parse::<KeyThumbprint>(), Err(KeyError::Thumbprint), "{bad:?}");
    }
}
