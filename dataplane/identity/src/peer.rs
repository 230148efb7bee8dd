//! A peer that was authenticated.

use std::sync::Arc;

use ringfort_types::UnixSeconds;

use crate::key::KeyThumbprint;
use crate::name::{Role, RoleUri, SessionDn};
use crate::trust::VerifyError;

/// A peer that proved, in a finished handshake, to hold the key of a certificate that passed every check.
///
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity(pub(crate) Arc<Facts>);

/// What the leaf says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) uri: RoleUri,
    pub(crate) session: Option<SessionDn>,
    pub(crate) certificate_digest: [u8; 32],
    pub(crate) key: KeyThumbprint,
    pub(crate) serial: Box<str>,
    pub(crate) not_after: UnixSeconds,
}

impl PeerIdentity {
    /// The role the CA gave.
    #[must_use]
    pub fn role(&self) -> Role {
        self.0.uri.role()
    }

    /// Organisation part of the certificate's URI.
    #[must_use]
    pub fn organisation(&self) -> &str {
        self.0.uri.organisation()
    }

    /// Id part of the certificate's URI: which device, which Gateway.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.uri.id()
    }

    /// The session that the certificate's subject names (A9); only devices have one.
    #[must_use]
    pub fn session(&self) -> Option<&SessionDn> {
        self.0.session.as_ref()
    }

    /// SHA-256 of the leaf certificate's DER.
    #[must_use]
    pub fn certificate_digest(&self) -> &[u8; 32] {
        &self.0.certificate_digest
    }

    /// Whether the certificate is one of those that were named beforehand by their SHA-256 digests (C12); none named means any.
    ///
    /// # Errors
    /// [`VerifyError::Pin`].
    pub fn pinned(&self, digests: &[[u8; 32]]) -> Result<(), VerifyError> {
        if digests.is_empty() || digests.contains(self.certificate_digest()) { Ok(()) } else { Err(VerifyError::Pin) }
    }

    /// Thumbprint of the leaf's public key.
    #[must_use]
    pub fn key(&self) -> &KeyThumbprint {
        &self.0.key
    }

    /// Serial number of the leaf in lower-case hexadecimal: whole bytes, the first of them not zero.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.0.serial
    }

    /// When the leaf expires.
    #[must_use]
    pub fn not_after(&self) -> UnixSeconds {
        self.0.not_after
    }
}
