//! The private key of a role: made here, kept in its folder, shown to nobody.

use std::fmt;

use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use ringfort_identity::KeyThumbprint;
use ringfort_token::proof::{ProofKey, ProofRefused};
use rustls_pki_types::PrivatePkcs8KeyDer;
use zeroize::Zeroizing;

/// An ECDSA P-256 key.
pub struct PrivateKey(KeyPair);

/// The cryptography library refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an ECDSA P-256 private key in PKCS#8 form: {0}")]
pub struct KeyFailed(String);

impl From<rcgen::Error> for KeyFailed {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

impl PrivateKey {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyFailed`].
    pub fn generate() -> Result<Self, KeyFailed> {
        Ok(Self(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?))
    }

    /// A key that was kept (PEM, PKCS#8).
    ///
    /// # Errors
    /// [`KeyFailed`].
    pub fn from_pem(text: &str) -> Result<Self, KeyFailed> {
        Ok(Self(KeyPair::from_pkcs8_pem_and_sign_algo(text, &rcgen::PKCS_ECDSA_P256_SHA256)?))
    }

    /// For keeping: PEM, PKCS#8.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// As DTLS and TLS take it.
    #[must_use]
    pub fn to_pkcs8(&self) -> PrivatePkcs8KeyDer<'static> {
        self.0.serialize_der().into()
    }

    /// Its public half as a SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// Thumbprint of its public half.
    ///
    /// # Errors
    /// [`KeyFailed`]; a key of ours always has one.
    pub fn thumbprint(&self) -> Result<KeyThumbprint, KeyFailed> {
        KeyThumbprint::of_spki(&self.public_key()).map_err(|error| KeyFailed(error.to_string()))
    }

    /// A signing request (PKCS#10, DER). It says nothing but the key: the CA decides everything else.
    ///
    /// # Errors
    /// [`KeyFailed`].
    pub fn certificate_request(&self) -> Result<Vec<u8>, KeyFailed> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        Ok(params.serialize_request(&self.0)?.der().to_vec())
    }

    /// The key for proofs of possession (RFC 9449).
    ///
    /// # Errors
    /// [`ProofRefused`]; a key of ours always can.
    pub fn proof_key(&self) -> Result<ProofKey, ProofRefused> {
        ProofKey::p256(&Zeroizing::new(self.0.serialize_der()), self.0.der_bytes())
    }
}

#[cfg(test)]
mod tests {
    use ringfort_token::proof::{self, Request};
    use ringfort_types::UnixSeconds;

    use super::*;

    #[test]
    fn a_kept_key_is_the_same_key() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(key.thumbprint(), again.thumbprint());
        assert!(PrivateKey::from_pem("nothing").is_err());
        let request = Request { method: "POST", path: "/x", nonce: "n", token: Some("t") };
        let proof = again.proof_key().unwrap().prove(&request, "1", UnixSeconds(1_000)).unwrap();
        assert_eq!(proof::verify(&proof, &request, UnixSeconds(1_001)), Ok(key.thumbprint().unwrap()));
    }
}
