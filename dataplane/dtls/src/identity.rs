//! Who we are and who the peer is: credentials, trust anchor, and the checks on a peer's certificate.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage, aws_lc_rs as algorithms};

/// Signature algorithms accepted in a peer's chain.
const SIGNATURES: &[&dyn SignatureVerificationAlgorithm] =
    &[algorithms::ECDSA_P256_SHA256, algorithms::ECDSA_P256_SHA384, algorithms::ECDSA_P384_SHA384];

/// What a certificate entitles its holder to be. The CA alone sets it, as `URI:ringfort://<organisation>/<role>/<id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Ends tunnels at a site.
    Gateway,
    /// A user's machine.
    Device,
}

impl Role {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Device => "device",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Our certificate and its private key.
///
/// The key is PKCS#8 and stays inside; it is neither printed nor compared.
pub struct Credentials {
    pub(crate) certificate: Vec<u8>,
    pub(crate) private_key: PrivatePkcs8KeyDer<'static>,
}

impl Credentials {
    /// Takes a leaf certificate (DER) and its ECDSA P-256 key (PKCS#8 DER).
    ///
    /// # Errors
    /// [`ConfigError`] when the certificate cannot be read, the key is no P-256 key, or the two do not belong together.
    pub fn new(
        certificate: &CertificateDer<'_>,
        private_key: PrivatePkcs8KeyDer<'static>,
    ) -> Result<Self, ConfigError> {
        let leaf = EndEntityCert::try_from(certificate).map_err(ConfigError::Certificate)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, private_key.secret_pkcs8_der())
            .map_err(|_| ConfigError::PrivateKey)?;
        // A SubjectPublicKeyInfo ends with the uncompressed point, which is what the key pair calls its public key.
        if !leaf.subject_public_key_info().ends_with(pair.public_key().as_ref()) {
            return Err(ConfigError::KeyMismatch);
        }
        Ok(Self { certificate: certificate.to_vec(), private_key })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("certificate_bytes", &self.certificate.len()).finish_non_exhaustive()
    }
}

/// The certificate authority under which peers must stand.
#[derive(Clone, Debug)]
pub struct TrustAnchor(rustls_pki_types::TrustAnchor<'static>);

impl TrustAnchor {
    /// Takes a CA certificate (DER).
    ///
    /// # Errors
    /// [`ConfigError::Certificate`] when it cannot be read.
    pub fn new(certificate: &CertificateDer<'_>) -> Result<Self, ConfigError> {
        let anchor = webpki::anchor_from_trusted_cert(certificate).map_err(ConfigError::Certificate)?;
        Ok(Self(anchor.to_owned()))
    }

    /// Checks `leaf` as the certificate of a peer in `role` at `unix_time` (time since 1970).
    ///
    /// The caller has seen a signature by the leaf's key over this very handshake; without it a certificate says nothing.
    pub(crate) fn verify(&self, leaf: &[u8], role: Role, unix_time: Duration) -> Result<PeerIdentity, VerifyError> {
        let der = CertificateDer::from(leaf);
        let certificate = EndEntityCert::try_from(&der).map_err(VerifyError::Certificate)?;
        let usage = match role {
            Role::Gateway => KeyUsage::server_auth(),
            Role::Device => KeyUsage::client_auth(),
        };
        let time = UnixTime::since_unix_epoch(unix_time);
        certificate
            .verify_for_usage(SIGNATURES, std::slice::from_ref(&self.0), &[], time, usage, None, None)
            .map_err(VerifyError::Certificate)?;
        let mut uris = certificate.valid_uri_names();
        let (Some(uri), None) = (uris.next(), uris.next()) else { return Err(VerifyError::NoSingleUri) };
        let (organisation, id) = parse_uri(uri, role).ok_or(VerifyError::Role { expected: role })?;
        let mut thumbprint = [0; 32];
        thumbprint.copy_from_slice(digest::digest(&digest::SHA256, leaf).as_ref());
        Ok(PeerIdentity { role, organisation: organisation.into(), id: id.into(), thumbprint })
    }
}

fn parse_uri(uri: &str, role: Role) -> Option<(&str, &str)> {
    let (organisation, rest) = uri.strip_prefix("ringfort://")?.split_once('/')?;
    let id = rest.strip_prefix(role.as_str())?.strip_prefix('/')?;
    let plain = |s: &str| !s.is_empty() && s.len() <= 128 && !s.contains('/');
    (plain(organisation) && plain(id)).then_some((organisation, id))
}

/// A peer that proved, in a finished handshake, to hold the key of a certificate that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    role: Role,
    organisation: Box<str>,
    id: Box<str>,
    thumbprint: [u8; 32],
}

impl PeerIdentity {
    /// The role the CA gave.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Organisation part of the certificate's URI.
    #[must_use]
    pub fn organisation(&self) -> &str {
        &self.organisation
    }

    /// Id part of the certificate's URI: which device, which Gateway.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// SHA-256 of the leaf certificate's DER.
    #[must_use]
    pub const fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }
}

/// Why credentials or a trust anchor were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The certificate could not be read.
    #[error("expected an X.509 version 3 certificate: {0}")]
    Certificate(#[source] webpki::Error),
    /// The private key is not a P-256 key in PKCS#8 form.
    #[error(
        "expected an ECDSA P-256 private key in PKCS#8 form; make one with `openssl ecparam -name prime256v1 -genkey` and `openssl pkcs8 -topk8 -nocrypt`"
    )]
    PrivateKey,
    /// Certificate and key are of different pairs.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The DTLS parameters were refused.
    #[error("DTLS parameters refused: {0}")]
    Parameters(String),
}

/// Why a peer's certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Form, chain, time, signature or extended key usage.
    #[error("certificate refused: {0}")]
    Certificate(webpki::Error),
    /// A certificate must carry exactly one URI name.
    #[error("expected exactly one URI name in the certificate")]
    NoSingleUri,
    /// The URI does not name the role that is expected on this side.
    #[error("expected a certificate for the role {expected}")]
    Role {
        /// The role that was expected.
        expected: Role,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uri_names_role_and_id() {
        assert_eq!(parse_uri("ringfort://example/device/alice-1", Role::Device), Some(("example", "alice-1")));
        for bad in [
            "ringfort://example/gateway/alice-1",
            "ringfort://example/devices/alice-1",
            "ringfort://example/device/",
            "ringfort://example/device/a/b",
            "ringfort:///device/a",
            "spiffe://example/device/a",
            "ringfort://example/device",
        ] {
            assert_eq!(parse_uri(bad, Role::Device), None, "{bad}");
        }
    }
}
