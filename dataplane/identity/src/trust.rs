//! The certificates under which peers must stand, and the check.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use ringfort_types::UnixSeconds;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage, aws_lc_rs as algorithms};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::credentials::ConfigError;
use crate::hostname::Hostname;
use crate::key::{KeyError, KeyThumbprint};
use crate::name::{Role, RoleUri, SessionDn};
use crate::peer::{Facts, PeerIdentity};

/// Signature algorithms of the CA.
const SIGNATURES: &[&dyn SignatureVerificationAlgorithm] =
    &[algorithms::ECDSA_P256_SHA256, algorithms::ECDSA_P256_SHA384, algorithms::ECDSA_P384_SHA384];
/// id-kp-serverAuth (RFC 5280 §4.2.1.12).
const EKU_SERVER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
/// id-kp-clientAuth (RFC 5280 §4.2.1.12).
const EKU_CLIENT: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
/// id-kp-jwt (RFC 9509 §4): the key signs tokens.
const EKU_JWT: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 0x25];
/// Intermediates that one organisation may have.
pub const INTERMEDIATES_MAX: usize = 8;

/// On which side of a connection a certificate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// By a server (serverAuth).
    Server,
    /// By a client (clientAuth).
    Client,
    /// By nobody: the key signs tokens (id-kp-jwt, RFC 9509).
    Signer,
}

/// The root under which peers must stand, and the intermediates between them and it.
///
/// Those are told beforehand, and what a peer sends along counts for nothing: an intermediate whose holder was removed from
/// the organisation has the root's signature still.
#[derive(Clone)]
pub struct Trust {
    anchor: rustls_pki_types::TrustAnchor<'static>,
    intermediates: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("intermediates", &self.intermediates.len()).finish_non_exhaustive()
    }
}

impl Trust {
    /// Trusts `root` (DER), with `intermediates` (DER) below it.
    ///
    /// # Errors
    /// [`ConfigError::Certificate`] when the root cannot be read; [`ConfigError::Intermediates`] for more than 8.
    pub fn new(
        root: &CertificateDer<'_>,
        intermediates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, ConfigError> {
        let anchor = webpki::anchor_from_trusted_cert(root).map_err(ConfigError::Certificate)?.to_owned();
        let intermediates: Vec<_> = intermediates.into_iter().take(INTERMEDIATES_MAX + 1).collect();
        if intermediates.len() > INTERMEDIATES_MAX {
            return Err(ConfigError::Intermediates { max: INTERMEDIATES_MAX });
        }
        Ok(Self { anchor, intermediates })
    }

    /// Checks `leaf` as the certificate of a peer on `side` in `role` at `now`.
    ///
    /// The caller has seen a signature by the leaf's key over this very handshake; without it a certificate says nothing.
    ///
    /// # Errors
    /// [`VerifyError`] says what was expected.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        side: Side,
        role: Role,
        now: UnixSeconds,
    ) -> Result<PeerIdentity, VerifyError> {
        let peer = self.verify_any_role(leaf, side, now)?;
        if peer.role() != role {
            return Err(VerifyError::Role { expected: role });
        }
        Ok(peer)
    }

    /// As [`Trust::verify`], for a listener that serves several roles and asks for the role at each of its doors.
    ///
    /// # Errors
    /// [`VerifyError`] says what was expected.
    pub fn verify_any_role(
        &self,
        leaf: &CertificateDer<'_>,
        side: Side,
        now: UnixSeconds,
    ) -> Result<PeerIdentity, VerifyError> {
        let certificate = EndEntityCert::try_from(leaf).map_err(VerifyError::Certificate)?;
        // webpki asks this of every certificate of the chain. An intermediate that names no usage passes on all of them; a
        // leaf that names none has none, which is seen to below.
        let usage = KeyUsage::required_if_present(match side {
            Side::Server => EKU_SERVER,
            Side::Client => EKU_CLIENT,
            Side::Signer => EKU_JWT,
        });
        let time = UnixTime::since_unix_epoch(now.since_epoch());
        let anchors = std::slice::from_ref(&self.anchor);
        certificate
            .verify_for_usage(SIGNATURES, anchors, &self.intermediates, time, usage, None, None)
            .map_err(VerifyError::Certificate)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| VerifyError::Form)?;
        if !parsed.extended_key_usage().is_ok_and(|usage| usage.is_some()) {
            return Err(VerifyError::Usage { expected: side });
        }
        let uri = only_uri(&parsed)?;
        let session = match uri.role() {
            Role::Device => session_of(&parsed, &uri)?,
            Role::Host => {
                named_by_hostname(&parsed, &uri)?;
                None
            }
            _ => None,
        };
        let mut certificate_digest = [0; 32];
        certificate_digest.copy_from_slice(digest::digest(&digest::SHA256, leaf).as_ref());
        Ok(PeerIdentity(Arc::new(Facts {
            uri,
            session,
            certificate_digest,
            key: KeyThumbprint::of_spki(parsed.public_key().raw)?,
            serial: serial_of(&parsed),
            not_after: UnixSeconds(u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default()),
        })))
    }
}

/// The one URI of a certificate. A name that cannot be read counts too: it may be one.
fn only_uri(certificate: &X509Certificate<'_>) -> Result<RoleUri, VerifyError> {
    let names = certificate.subject_alternative_name().map_err(|_| VerifyError::Form)?;
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let mut uris = names.filter(|name| matches!(name, GeneralName::URI(_) | GeneralName::Invalid(..)));
    match (uris.next(), uris.next()) {
        (Some(GeneralName::URI(uri)), None) => uri.parse().map_err(|_| VerifyError::Uri),
        _ => Err(VerifyError::NoSingleUri),
    }
}

/// The serial number in hexadecimal, without the zero that DER puts before a number whose first bit is set: whoever issued
/// the certificate knows the number, and a deny list compares texts.
fn serial_of(certificate: &X509Certificate<'_>) -> Box<str> {
    let number = match certificate.raw_serial() {
        [0, number @ ..] if !number.is_empty() => number,
        number => number,
    };
    number.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// The session that a device's certificate names: its subject is then O, CN, UID, in this order and nothing else, the
/// organisation and the client id being those of the URI. A subject of another form names none.
fn session_of(certificate: &X509Certificate<'_>, uri: &RoleUri) -> Result<Option<SessionDn>, VerifyError> {
    const ORDER: [&str; 3] = ["2.5.4.10", "2.5.4.3", "0.9.2342.19200300.100.1.1"];
    let attributes: Vec<_> = certificate.subject().iter_attributes().collect();
    let types: Vec<String> = attributes.iter().map(|attribute| attribute.attr_type().to_id_string()).collect();
    if types != ORDER {
        return Ok(None);
    }
    let values: Vec<&str> = attributes.iter().filter_map(|attribute| attribute.as_str().ok()).collect();
    let [organisation, user, client] = values.as_slice() else { return Err(VerifyError::Subject) };
    let session = SessionDn::new(client, user, organisation).map_err(|_| VerifyError::Subject)?;
    if session.organisation() != uri.organisation() || session.client() != uri.id() {
        return Err(VerifyError::Subject);
    }
    Ok(Some(session))
}

/// A host's certificate has one common name, which is the hostname of its URI: whoever looks up either finds the same host (W6).
fn named_by_hostname(certificate: &X509Certificate<'_>, uri: &RoleUri) -> Result<(), VerifyError> {
    let mut names = certificate.subject().iter_common_name();
    match (names.next().map(|name| name.as_str()), names.next()) {
        (Some(Ok(name)), None) if name == uri.id() && name.parse::<Hostname>().is_ok() => Ok(()),
        _ => Err(VerifyError::CommonName),
    }
}

impl VerifyError {
    /// Whether it would have passed earlier.
    #[must_use]
    pub const fn is_expired(&self) -> bool {
        matches!(self, Self::Certificate(webpki::Error::CertExpired { .. }))
    }
}

/// What to do where the time is what differs: most often it is the clock of this machine that is wrong.
const fn clock_hint(error: &webpki::Error) -> &'static str {
    match error {
        webpki::Error::CertNotValidYet { .. } => ": it is of the future: check the clock of this machine",
        webpki::Error::CertExpired { .. } => {
            ": it has to be renewed, or the clock of this machine is ahead: check the clock"
        }
        _ => "",
    }
}

/// Why a peer's certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Form, chain, time, signature or extended key usage.
    #[error("certificate refused: {0}{hint}", hint = clock_hint(.0))]
    Certificate(webpki::Error),
    /// The certificate says of no usage that it is for it.
    #[error("expected a certificate with the extended key usage of side {expected:?}, found one without any")]
    Usage {
        /// The side it was shown on.
        expected: Side,
    },
    /// A field cannot be read.
    #[error("expected an X.509 version 3 certificate")]
    Form,
    /// A certificate must carry exactly one URI name.
    #[error("expected exactly one URI name in the certificate")]
    NoSingleUri,
    /// The URI is no role URI.
    #[error("expected a URI name ringfort://ORGANISATION/ROLE/ID in the certificate")]
    Uri,
    /// The URI does not name the role that is expected on this side.
    #[error("expected a certificate for the role {expected}")]
    Role {
        /// The role that was expected.
        expected: Role,
    },
    /// The certificate is another one than those that were named beforehand.
    #[error("expected a certificate whose digest the Controller has named, found another")]
    Pin,
    /// A device's subject does not name its session.
    #[error("expected a device certificate whose subject is O, CN and UID, matching its URI")]
    Subject,
    /// A host's common name is not its hostname.
    #[error("expected a host's certificate whose one common name is the hostname of its URI")]
    CommonName,
    /// The leaf's key is of no accepted kind.
    #[error(transparent)]
    Key(#[from] KeyError),
}
