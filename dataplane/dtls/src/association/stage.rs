//! How far an association has come, and what it needs there.

use std::time::Duration;

use ringfort_identity::PeerIdentity;
use ringfort_types::BootInstant;

use crate::alert::Alert;
use crate::cid::ConnectionId;
use crate::config::ProtocolVersion;
use crate::crypto::ExporterSecret;
use crate::handshake::client13::Client13;
use crate::handshake::exchange::Exchange;
use crate::handshake::reassembly::{Believed, Message, Reassembly};
use crate::handshake::server::Server;
use crate::handshake::server12::Server12;
use crate::handshake::{Context, Failure, Step};
use crate::post_handshake::PostHandshake;
use crate::post_handshake12::PostHandshake12;
use crate::wire::messages::Fragment;

/// The longest record that is kept until there are keys: one with a Finished has less than 100 bytes.
const EARLY_BYTES_MAX: usize = 128;

pub(super) enum Stage {
    Handshake(Box<Handshake>),
    Established(Established),
    Ended,
}

pub(super) struct Handshake {
    pub(super) machine: Machine,
    pub(super) local_cid: Option<ConnectionId>,
    pub(super) deadline: BootInstant,
    /// The deadline as long as nothing is wrong.
    pub(super) deadline_most: BootInstant,
    pub(super) time_max: Duration,
    /// When a client begins anew, if nothing sealed has come by then.
    pub(super) anew_at: Option<BootInstant>,
    /// The time it gives a hello of the server's to prove right; more with each attempt.
    pub(super) anew_after: Duration,
    /// What an alert in the clear said: not believed, but told if nothing else comes.
    pub(super) alerted: Option<Alert>,
    /// Why a message in the clear was refused; likewise.
    pub(super) refused: Option<Failure>,
    /// How long the right message may be late before the peer is told that another came: the time of one round trip.
    pub(super) grace: Duration,
    /// When the peer is told so, if it was not at once.
    pub(super) tell_at: Option<BootInstant>,
    pub(super) doubt: Option<Doubt>,
    /// A sealed record that came before what its keys come of, in DTLS 1.2: most likely the client's Finished.
    pub(super) early: Option<Box<[u8]>>,
    /// How often another hello may still be believed: each costs a key exchange.
    pub(super) changes_left: u8,
}

#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "it lives in one box per handshake")]
pub(super) enum Machine {
    Server(Server),
    Client(Client13),
}

/// A hello in the clear was believed, and nothing sealed has come yet that would prove it right. If another hello comes in its
/// place, that one is believed instead: otherwise one forged hello would keep the peer's out.
pub(super) struct Doubt {
    /// Where the handshake stood before the hello, and the number of our next message then.
    pub(super) machine: Machine,
    pub(super) next_out: u16,
    /// The hello that is believed.
    pub(super) hello: Message,
    /// Another one under way.
    pub(super) other: Reassembly,
}

pub(super) struct Established {
    pub(super) peer: Option<PeerIdentity>,
    pub(super) exporter: ExporterSecret,
    pub(super) post: Post,
}

/// What goes on beside packets.
pub(super) enum Post {
    V13(PostHandshake),
    V12(PostHandshake12),
}

impl Established {
    /// The first epoch that carries packets.
    pub(super) const fn first_epoch(&self) -> u64 {
        match self.post {
            Post::V13(_) => 3,
            Post::V12(_) => 1,
        }
    }

    pub(super) const fn version(&self) -> ProtocolVersion {
        match self.post {
            Post::V13(_) => ProtocolVersion::Dtls13,
            Post::V12(_) => ProtocolVersion::Dtls12,
        }
    }

    /// When it wants the time.
    pub(super) fn poll_timeout(&self, exchange: &Exchange) -> Option<BootInstant> {
        match &self.post {
            Post::V13(post) => post.poll_timeout(exchange),
            Post::V12(_) => None,
        }
    }
}

impl Stage {
    /// Whether the version is DTLS 1.2.
    pub(super) const fn is_12(&self) -> bool {
        match self {
            Self::Handshake(handshake) => matches!(handshake.machine, Machine::Server(Server::V12(_))),
            Self::Established(established) => matches!(established.post, Post::V12(_)),
            Self::Ended => false,
        }
    }
}

impl Machine {
    pub(super) fn handle_message(&mut self, message: &Message, cx: &mut Context<'_>) -> Result<Step, Failure> {
        match self {
            Self::Server(server) => server.handle_message(message, cx),
            Self::Client(client) => client.handle_message(message, cx),
        }
    }

    /// Whether this hello may take the place of another that was taken. A client lets it and begins anew if need be.
    pub(super) fn would_take(&self, hello: &Message) -> bool {
        match self {
            Self::Server(server) => server.would_take(hello),
            Self::Client(_) => true,
        }
    }
}

impl Handshake {
    /// Another hello than the one that is believed, once it is whole.
    pub(super) fn other_hello(&mut self, mut content: &[u8]) -> Option<Message> {
        let doubt = self.doubt.as_mut().filter(|_| self.changes_left > 0)?;
        while let Some((fragment, rest)) = Fragment::split_first(content) {
            content = rest;
            if fragment.sequence == doubt.hello.sequence && fragment.kind == doubt.hello.kind {
                doubt.other.handle_fragment(&fragment, Believed::Newest);
            }
        }
        let other = doubt.other.next_message()?;
        doubt.other = Reassembly::starting_at(other.sequence);
        Some(other).filter(|other| *other != doubt.hello && doubt.machine.would_take(other))
    }

    pub(super) const fn is_client(&self) -> bool {
        matches!(self.machine, Machine::Client(_))
    }

    pub(super) fn awaits_answer_to_cookie(&self) -> bool {
        matches!(&self.machine, Machine::Client(client) if client.awaits_answer_to_cookie())
    }

    /// The server of DTLS 1.2, which takes more in the clear than a hello.
    pub(super) const fn server12(&mut self) -> Option<&mut Server12> {
        match &mut self.machine {
            Machine::Server(Server::V12(server)) => Some(server),
            _ => None,
        }
    }

    /// Keeps a record for which there are no keys yet. The newest counts: anybody can send one.
    pub(super) fn keep_early(&mut self, record: &[u8]) {
        if self.server12().is_some() && record.len() <= EARLY_BYTES_MAX {
            self.early = Some(record.into());
        }
    }

    /// The epoch in which the next message is welcome.
    pub(super) const fn epoch(&self) -> u64 {
        match &self.machine {
            Machine::Server(server) => server.epoch(),
            Machine::Client(client) => client.epoch(),
        }
    }

    /// When it wants the time.
    pub(super) fn poll_timeout(&self) -> BootInstant {
        [self.anew_at, self.tell_at].into_iter().flatten().fold(self.deadline, Ord::min)
    }
}
