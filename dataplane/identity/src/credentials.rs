//! Our own certificate and key.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use webpki::EndEntityCert;

/// Our certificate and its private key.
///
/// The key is PKCS#8 and stays inside; it is neither printed nor compared.
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    private_key: PrivatePkcs8KeyDer<'static>,
}

impl Credentials {
    /// Takes a certificate chain (DER, the leaf first, the root not in it) and the leaf's ECDSA P-256 key (PKCS#8 DER).
    ///
    /// # Errors
    /// [`ConfigError`] when there is no leaf or it cannot be read, the key is no P-256 key, or the two do not belong
    /// together.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        private_key: PrivatePkcs8KeyDer<'static>,
    ) -> Result<Self, ConfigError> {
        let leaf = EndEntityCert::try_from(chain.first().ok_or(ConfigError::NoLeaf)?);
        let leaf = leaf.map_err(ConfigError::Certificate)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, private_key.secret_pkcs8_der())
            .map_err(|_| ConfigError::PrivateKey)?;
        // A SubjectPublicKeyInfo ends with the uncompressed point, which is what the key pair calls its public key.
        if !leaf.subject_public_key_info().ends_with(pair.public_key().as_ref()) {
            return Err(ConfigError::KeyMismatch);
        }
        Ok(Self { chain, private_key })
    }

    /// The chain, the leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The leaf.
    #[must_use]
    pub fn leaf(&self) -> &CertificateDer<'static> {
        // `new` has seen a leaf.
        &self.chain[0]
    }

    /// The leaf's key.
    #[must_use]
    pub const fn private_key(&self) -> &PrivatePkcs8KeyDer<'static> {
        &self.private_key
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Why credentials or a trust anchor were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The certificate could not be read.
    #[error("expected an X.509 version 3 certificate: {0}")]
    Certificate(#[source] webpki::Error),
    /// An empty chain.
    #[error("expected a certificate chain that begins with our own certificate, found none")]
    NoLeaf,
    /// The private key is not a P-256 key in PKCS#8 form.
    #[error(
        "expected an ECDSA P-256 private key in PKCS#8 form; make one with `openssl ecparam -name prime256v1 -genkey` and `openssl pkcs8 -topk8 -nocrypt`"
    )]
    PrivateKey,
    /// Certificate and key are of different pairs.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// More intermediates than any organisation needs.
    #[error("expected at most {max} intermediate certificates")]
    Intermediates {
        /// How many there may be.
        max: usize,
    },
    /// The DTLS parameters were refused.
    #[error("DTLS parameters refused: {0}")]
    Parameters(String),
}
