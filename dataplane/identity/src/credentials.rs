//! Our own certificate and key.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::SigningKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use webpki::EndEntityCert;

/// Our certificate and its private key.
///
/// The key is PKCS#8 and stays inside; it is neither printed nor compared.
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    private_key: PrivatePkcs8KeyDer<'static>,
    signing_key: Arc<dyn SigningKey>,
}

impl Credentials {
    /// Takes a certificate chain (DER, the leaf first, the root not in it) and the leaf's key (PKCS#8 DER): ECDSA on P-256 or
    /// P-384, Ed25519, or RSA (A8).
    ///
    /// # Errors
    /// [`ConfigError`] when there is no leaf or it cannot be read, the key is of another kind, or the two do not belong
    /// together.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        private_key: PrivatePkcs8KeyDer<'static>,
    ) -> Result<Self, ConfigError> {
        let leaf = EndEntityCert::try_from(chain.first().ok_or(ConfigError::NoLeaf)?);
        let leaf = leaf.map_err(ConfigError::Certificate)?;
        let key = PrivateKeyDer::Pkcs8(private_key.clone_key());
        let signing_key = any_supported_type(&key).map_err(|_| ConfigError::PrivateKey)?;
        let public = signing_key.public_key().ok_or(ConfigError::PrivateKey)?;
        if leaf.subject_public_key_info() != public {
            return Err(ConfigError::KeyMismatch);
        }
        Ok(Self { chain, private_key, signing_key })
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

    /// The leaf's key, parsed: it is what signs handshakes.
    #[must_use]
    pub const fn signing_key(&self) -> &Arc<dyn SigningKey> {
        &self.signing_key
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
    /// The private key is of no accepted kind, or not in PKCS#8 form.
    #[error(
        "expected a private key in PKCS#8 form: ECDSA on P-256 or P-384, Ed25519, or RSA; make one with `openssl ecparam -name prime256v1 -genkey` and `openssl pkcs8 -topk8 -nocrypt`"
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
