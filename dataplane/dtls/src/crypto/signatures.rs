//! Signatures over the handshake: CertificateVerify (RFC 8446 §4.4.3, RFC 5246 §7.4.8) and ServerKeyExchange (RFC 5246
//! §7.4.3).

use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::sign::{Signer, SigningKey};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use webpki::{EndEntityCert, aws_lc_rs as algorithms};

use super::Hash;
use crate::alert::{Alert, Fatal, fail};
use crate::wire::U16List;

/// The signatures that we take in DTLS 1.3, in the order in which we prefer them: P-256 and Ed25519 are the cheapest to check
/// and to make.
pub(crate) const SCHEMES_13: [u16; 6] = [0x0403, 0x0807, 0x0503, 0x0804, 0x0805, 0x0806];

/// The same for DTLS 1.2, where RSA keys may sign as PKCS #1 has it, since many peers know nothing else, and any hash goes
/// with any curve (RFC 8422 §5.10). SHA-1 is refused (RFC 9155).
pub(crate) const SCHEMES_12: [u16; 9] = [0x0403, 0x0807, 0x0503, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601];

/// Whose signature it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signed {
    ByServer,
    ByClient,
}

/// What is signed in DTLS 1.3: 64 spaces, who signs, a zero, and the transcript so far.
fn signed_content(by: Signed, transcript: &Hash) -> Vec<u8> {
    let who: &[u8] = match by {
        Signed::ByServer => b"TLS 1.3, server CertificateVerify\0",
        Signed::ByClient => b"TLS 1.3, client CertificateVerify\0",
    };
    [&[b' '; 64], who, transcript.as_bytes()].concat()
}

/// How `key` signs for a peer that takes `offered`, by one of `ours`.
pub(crate) fn choose_signer(
    key: &Arc<dyn SigningKey>,
    ours: &[u16],
    offered: U16List<'_>,
) -> Result<Box<dyn Signer>, Fatal> {
    let offered: Vec<SignatureScheme> =
        offered.iter().filter(|scheme| ours.contains(scheme)).map(SignatureScheme::from).collect();
    key.choose_scheme(&offered).ok_or_else(|| {
        Fatal::new(Alert::HANDSHAKE_FAILURE, "the peer takes no signature that our certificate's key can make")
    })
}

/// Signs the transcript; gives scheme and signature.
pub(crate) fn sign(signer: &dyn Signer, by: Signed, transcript: &Hash) -> Result<(u16, Vec<u8>), Fatal> {
    sign_12(signer, &signed_content(by, transcript))
}

/// Signs `content` as it is, as DTLS 1.2 does; gives scheme and signature.
pub(crate) fn sign_12(signer: &dyn Signer, content: &[u8]) -> Result<(u16, Vec<u8>), Fatal> {
    let signature = signer.sign(content).map_err(super::refused)?;
    Ok((signer.scheme().into(), signature))
}

/// Checks a signature over the transcript by the key of `leaf`.
///
/// # Errors
/// `illegal_parameter` for a scheme that we did not offer or the key is not for; `bad_certificate` for a leaf that cannot be
/// read; `decrypt_error` for a signature that does not fit.
pub(crate) fn verify(
    leaf: &CertificateDer<'_>,
    by: Signed,
    transcript: &Hash,
    (scheme, signature): (u16, &[u8]),
) -> Result<(), Fatal> {
    verify_by(algorithms_13(scheme), leaf, &signed_content(by, transcript), (scheme, signature))
}

/// Checks a signature over `content` by the key of `leaf`, as DTLS 1.2 makes it.
///
/// # Errors
/// As [`verify`].
pub(crate) fn verify_12(leaf: &CertificateDer<'_>, content: &[u8], signature: (u16, &[u8])) -> Result<(), Fatal> {
    verify_by(algorithms_12(signature.0), leaf, content, signature)
}

fn verify_by(
    algorithms: Algorithms,
    leaf: &CertificateDer<'_>,
    content: &[u8],
    (scheme, signature): (u16, &[u8]),
) -> Result<(), Fatal> {
    if algorithms[0].is_none() {
        return fail(Alert::ILLEGAL_PARAMETER, format!("a signature of scheme {scheme:#06x}, which was not offered"));
    }
    let leaf = EndEntityCert::try_from(leaf)
        .map_err(|error| Fatal::new(Alert::BAD_CERTIFICATE, format!("the peer's certificate: {error}")))?;
    for algorithm in algorithms.into_iter().flatten() {
        match leaf.verify_signature(algorithm, content, signature) {
            Ok(()) => return Ok(()),
            // Another of the scheme's algorithms may be for this kind of key.
            Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
            Err(error) => {
                return fail(Alert::DECRYPT_ERROR, format!("the peer's signature over the handshake: {error}"));
            }
        }
    }
    fail(Alert::ILLEGAL_PARAMETER, format!("a signature of scheme {scheme:#06x} by another kind of key"))
}

/// What a scheme may mean: one algorithm, or one for each of two kinds of key.
type Algorithms = [Option<&'static dyn SignatureVerificationAlgorithm>; 2];

/// What a scheme may mean in DTLS 1.3, where it says the curve.
fn algorithms_13(scheme: u16) -> Algorithms {
    let algorithm = match scheme {
        0x0403 => algorithms::ECDSA_P256_SHA256,
        0x0503 => algorithms::ECDSA_P384_SHA384,
        0x0807 => algorithms::ED25519,
        0x0804 => algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        0x0805 => algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        0x0806 => algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        _ => return [None; 2],
    };
    [Some(algorithm), None]
}

/// What a scheme may mean in DTLS 1.2.
fn algorithms_12(scheme: u16) -> Algorithms {
    match scheme {
        0x0403 => [Some(algorithms::ECDSA_P256_SHA256), Some(algorithms::ECDSA_P384_SHA256)],
        0x0503 => [Some(algorithms::ECDSA_P384_SHA384), Some(algorithms::ECDSA_P256_SHA384)],
        0x0401 => [Some(algorithms::RSA_PKCS1_2048_8192_SHA256), None],
        0x0501 => [Some(algorithms::RSA_PKCS1_2048_8192_SHA384), None],
        0x0601 => [Some(algorithms::RSA_PKCS1_2048_8192_SHA512), None],
        scheme => algorithms_13(scheme),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_that_is_offered_can_be_checked() {
        for scheme in SCHEMES_13 {
            assert!(algorithms_13(scheme)[0].is_some());
        }
        for scheme in SCHEMES_12 {
            assert!(algorithms_12(scheme)[0].is_some());
        }
        // PKCS #1 is not for handshakes of 1.3, SHA-1 for none.
        for scheme in [0x0401, 0x0501, 0x0601, 0x0201, 0x0203] {
            assert!(algorithms_13(scheme)[0].is_none());
        }
        for scheme in [0x0201, 0x0203, 0x0301, 0x0303, 0x0101] {
            assert!(algorithms_12(scheme)[0].is_none());
        }
    }

    /// OpenSSL takes the first hash that is offered, whatever the curve. The signatures are its own.
    #[test]
    fn in_1_2_any_hash_goes_with_any_curve() {
        let signed = b"signed by another hash than the curve has";
        for (leaf, scheme, other, signature) in [
            (&include_bytes!("vectors/p256.der")[..], 0x0503, 0x0403, &include_bytes!("vectors/p256_sha384.sig")[..]),
            (include_bytes!("vectors/p384.der"), 0x0403, 0x0503, include_bytes!("vectors/p384_sha256.sig")),
        ] {
            let leaf = CertificateDer::from(leaf);
            verify_12(&leaf, signed, (scheme, signature)).unwrap();
            let alert =
                |content: &[u8], scheme, signature| verify_12(&leaf, content, (scheme, signature)).unwrap_err().alert;
            assert_eq!(alert(b"something else", scheme, signature), Alert::DECRYPT_ERROR);
            assert_eq!(alert(signed, other, signature), Alert::DECRYPT_ERROR, "the hash is another");
            assert_eq!(alert(signed, 0x0804, signature), Alert::ILLEGAL_PARAMETER, "the key is no RSA key");
            assert_eq!(alert(signed, 0x0203, signature), Alert::ILLEGAL_PARAMETER, "SHA-1");
        }
    }
}
