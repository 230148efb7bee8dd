//! What the machine knows of each tunnel, channel and session.

use std::net::SocketAddr;
use std::sync::Arc;

use ringfort_dtls::ExporterSecret;
use ringfort_rules::{InnerAddresses, RuleSet};
use ringfort_types::{BootInstant, SessionId, UnixSeconds};

use crate::held::{Certificate, Deadline, Held};
use crate::interface::ChannelId;

/// A tunnel that a worker has told of. Whether it is bound says the session of its name.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) dn: Arc<str>,
    pub(super) device: Box<str>,
    pub(super) certificate: Certificate,
    pub(super) outer: SocketAddr,
    pub(super) exporter: ExporterSecret,
    pub(super) name: [u8; 16],
    /// Installations asked for, and those that the worker has confirmed.
    pub(super) installed: u64,
    pub(super) confirmed: u64,
}

/// An open session channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) dn: Arc<str>,
    pub(super) session_id: [u8; 16],
    pub(super) certificate: Certificate,
    /// Tokens that were believed, while there is no session that has them.
    pub(super) held: Option<Held>,
    /// A Bind whose other part has not come.
    pub(super) bind: Option<Bind>,
    /// It had a session, whose tunnel ended: another tunnel makes no new session.
    pub(super) had_session: bool,
    /// Without a session it ends then.
    pub(super) patience: BootInstant,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Bind {
    pub(super) tunnel: [u8; 16],
    pub(super) exported: [u8; 32],
    pub(super) deadline: BootInstant,
}

/// A live session: a name with a bound tunnel.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) channel: Option<ChannelId>,
    /// When its channel was lost, until another one comes.
    pub(super) lost_at: Option<BootInstant>,
    pub(super) tunnel: SessionId,
    pub(super) held: Held,
    pub(super) rules: Arc<RuleSet>,
    pub(super) deadline: Deadline,
    /// The tunnel before this one, while what the client has sent through it may still be on its way.
    pub(super) fading: Option<SessionId>,
    /// When its client is told that it ends.
    pub(super) notice: Option<Notice>,
}

/// A client is to be told that its session ends unless something is renewed (A24).
#[derive(Clone, Copy, Debug)]
pub(super) struct Notice {
    /// The end that it is told of: another one is another notice.
    pub(super) ends_at: UnixSeconds,
    pub(super) due: BootInstant,
    pub(super) is_given: bool,
}

impl Session {
    pub(super) fn inner(&self) -> InnerAddresses {
        let inner = self.held.entitlement.inner;
        InnerAddresses { ipv4: inner.ipv4, ipv6: inner.ipv6 }
    }
}
