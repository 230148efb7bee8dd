//! Whose certificates count: asked once the peer has proved that it holds the leaf's key.

use std::fmt;

use ringfort_identity::{PeerIdentity, Role, Side, Trust, VerifyError};
use ringfort_types::UnixSeconds;
use rustls_pki_types::CertificateDer;

/// Judges the chain that a peer has shown. When it is asked, the peer has signed the handshake with the key of the first
/// certificate; a refusal ends the handshake before any data is taken.
pub trait PeerPolicy: fmt::Debug + Send + Sync {
    /// Who the peer is at `now`. `None` lets a peer pass that has no name among us: no listener of the product does, test tools do.
    ///
    /// # Errors
    /// Why the peer is refused. It is told by an alert that is made from it.
    fn judge(&self, chain: &[CertificateDer<'_>], now: UnixSeconds) -> Result<Option<PeerIdentity>, VerifyError>;

    /// DER names of the authorities whose certificates are taken, as a hint for peers that have several
    /// (RFC 8446 §4.2.4). Empty says nothing.
    fn authorities(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

/// Takes holders of one role's certificates under our root (A2).
#[derive(Clone, Debug)]
pub struct Trusted {
    trust: Trust,
    side: Side,
    role: Role,
    pins: Vec<[u8; 32]>,
}

impl Trusted {
    /// Takes certificates for `role`, shown on `side`, under `trust`.
    #[must_use]
    pub const fn new(trust: Trust, side: Side, role: Role) -> Self {
        Self { trust, side, role, pins: Vec::new() }
    }

    /// Takes of these only certificates with one of these SHA-256 digests (C12); an empty list takes all.
    #[must_use]
    pub fn pinned(self, pins: Vec<[u8; 32]>) -> Self {
        Self { pins, ..self }
    }
}

impl PeerPolicy for Trusted {
    fn judge(&self, chain: &[CertificateDer<'_>], now: UnixSeconds) -> Result<Option<PeerIdentity>, VerifyError> {
        let leaf = chain.first().ok_or(VerifyError::Form)?;
        let peer = self.trust.verify(leaf, self.side, self.role, now)?;
        peer.pinned(&self.pins)?;
        Ok(Some(peer))
    }
}
