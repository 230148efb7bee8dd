//! Signatures over the handshake: CertificateVerify (RFC 8446 §4.4.3).

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

/// How `key` signs for a peer that takes `offered`.
pub(crate) fn choose_signer(key: &Arc<dyn SigningKey>, offered: U16List<'_>) -> Result<Box<dyn Signer>, Fatal> {
    let offered: Vec<SignatureScheme> =
        offered.iter().filter(|scheme| SCHEMES_13.contains(scheme)).map(SignatureScheme::from).collect();
    key.choose_scheme(&offered).ok_or_else(|| {
        Fatal::new(Alert::HANDSHAKE_FAILURE, "the peer takes no signature that our certificate's key can make")
    })
}

/// Signs the transcript; gives scheme and signature.
pub(crate) fn sign(signer: &dyn Signer, by: Signed, transcript: &Hash) -> Result<(u16, Vec<u8>), Fatal> {
    let signature = signer.sign(&signed_content(by, transcript)).map_err(super::refused)?;
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
    let Some(algorithm) = algorithm_13(scheme) else {
        return fail(Alert::ILLEGAL_PARAMETER, format!("a signature of scheme {scheme:#06x}, which was not offered"));
    };
    let leaf = EndEntityCert::try_from(leaf)
        .map_err(|error| Fatal::new(Alert::BAD_CERTIFICATE, format!("the peer's certificate: {error}")))?;
    match leaf.verify_signature(algorithm, &signed_content(by, transcript), signature) {
        Ok(()) => Ok(()),
        Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {
            fail(Alert::ILLEGAL_PARAMETER, format!("a signature of scheme {scheme:#06x} by another kind of key"))
        }
        Err(error) => fail(Alert::DECRYPT_ERROR, format!("the peer's signature over the handshake: {error}")),
    }
}

fn algorithm_13(scheme: u16) -> Option<&'static dyn SignatureVerificationAlgorithm> {
    Some(match scheme {
        0x0403 => algorithms::ECDSA_P256_SHA256,
        0x0503 => algorithms::ECDSA_P384_SHA384,
        0x0807 => algorithms::ED25519,
        0x0804 => algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        0x0805 => algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        0x0806 => algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_that_is_offered_can_be_checked() {
        for scheme in SCHEMES_13 {
            assert!(algorithm_13(scheme).is_some());
        }
        // PKCS #1 and SHA-1 are not for handshakes of 1.3.
        for scheme in [0x0401, 0x0201, 0x0203] {
            assert!(algorithm_13(scheme).is_none());
        }
    }
}
