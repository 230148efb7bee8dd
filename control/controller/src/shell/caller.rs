//! Who is at the other end of a connection.

use std::net::SocketAddr;

use ringfort_identity::{KeyThumbprint, PeerIdentity, Role};
use ringfort_types::UnixSeconds;

use crate::core::{Core, Refused};

/// The peer of one connection: an extension of every request on it. Made from the finished handshake and from nothing else.
#[derive(Debug)]
pub(crate) struct Caller {
    address: SocketAddr,
    peer: Option<PeerIdentity>,
}

impl Caller {
    pub(crate) fn new(address: SocketAddr, peer: Option<PeerIdentity>) -> Self {
        Self { address, peer }
    }

    /// Where the connection comes from.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether a certificate was shown.
    pub(crate) const fn is_known(&self) -> bool {
        self.peer.is_some()
    }

    /// The key of the certificate, if one was shown.
    pub(crate) fn key(&self) -> Option<KeyThumbprint> {
        self.peer.as_ref().map(|peer| *peer.key())
    }

    /// For the audit log.
    pub(crate) fn actor(&self) -> String {
        match &self.peer {
            None => self.address.ip().to_string(),
            Some(peer) => match peer.session() {
                Some(session) => session.to_string(),
                None => format!("{} {}", peer.role(), peer.id()),
            },
        }
    }

    /// The certificate's identity, if one was shown that is still good: a connection may outlive it.
    ///
    /// # Errors
    /// `certificate_revoked`, `certificate_required` when it has expired meanwhile.
    pub(crate) fn peer(&self, core: &Core, now: UnixSeconds) -> Result<Option<&PeerIdentity>, Refused> {
        let peer = self.shown(now)?;
        peer.map_or(Ok(()), |peer| core.standing(peer, now))?;
        Ok(peer)
    }

    /// The certificate's identity, if one was shown that has not expired, for doors that ask themselves whether it was revoked.
    ///
    /// # Errors
    /// `certificate_required` when it has expired meanwhile.
    pub(crate) fn shown(&self, now: UnixSeconds) -> Result<Option<&PeerIdentity>, Refused> {
        let Some(peer) = &self.peer else { return Ok(None) };
        if peer.not_after() <= now {
            let message =
                format!("the certificate of this connection has expired at {}: connect anew", peer.not_after());
            return Err(Refused { message, ..Refused::certificate_required() });
        }
        Ok(Some(peer))
    }

    /// The certificate's identity in the role that a door is for.
    ///
    /// # Errors
    /// `certificate_required`, `certificate_revoked`, `wrong_role`.
    pub(crate) fn peer_as(&self, role: Role, core: &Core, now: UnixSeconds) -> Result<&PeerIdentity, Refused> {
        let peer = self.peer(core, now)?.ok_or_else(Refused::certificate_required)?;
        if peer.role() != role {
            return Err(Refused::wrong_role(role.as_str(), peer.role().as_str()));
        }
        Ok(peer)
    }
}
