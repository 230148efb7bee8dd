//! The sessions of one worker and where to find them: by id, by outer and by inner address, here or at another worker.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use foldhash::fast::FixedState;
use ringfort_dtls::{Association, ProtocolVersion};
use ringfort_packet::parse::Parsed;
use ringfort_packet::reject;
use ringfort_rules::{InnerAddresses, SessionRules};
use ringfort_types::{BootInstant, SessionId, WorkerIndex};

use super::EndReason;
use super::path::Path;
use crate::machine::Now;
use crate::outbox::Outbox;

/// A handshake that takes longer is given up, and so is one whose association does not say so itself.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// A session is ended when its peer has been silent for so long. Clients send a keep-alive every 20 s.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// How often an established session is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) slots: Vec<Option<Session>>,
    pub(super) free: Vec<usize>,
    /// How often each slot has been given away, so that an old connection id names nobody.
    pub(super) generations: Vec<u16>,
    pub(super) by_id: HashMap<SessionId, usize, FixedState>,
    pub(super) by_outer: HashMap<SocketAddr, AtAddress, FixedState>,
    pub(super) by_inner: HashMap<IpAddr, Home, FixedState>,
    /// Sessions of other workers: where their datagrams come from and which addresses they have.
    pub(super) elsewhere: HashMap<SessionId, (SocketAddr, InnerAddresses), FixedState>,
    pub(super) elsewhere_by_outer: HashMap<SocketAddr, SessionId, FixedState>,
    pub(super) handshaking: usize,
    /// Handshakes in the order in which they began. Those that are over stay until they come first.
    pub(super) handshakes: VecDeque<(usize, SessionId)>,
    pub(super) made: u64,
}

/// The sessions at one outer address: one that is established, and one that is about to take its place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AtAddress {
    pub(super) established: Option<usize>,
    pub(super) handshaking: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    Here(usize),
    Elsewhere(SessionId),
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) outer: SocketAddr,
    pub(super) path: Path,
    /// `None` while a handshake is on another thread.
    pub(super) association: Option<Association>,
    /// The connection id by which it was last named; each that it has leads here.
    pub(super) cid: [u8; 8],
    /// Random of the ClientHello that began it.
    pub(super) random: [u8; 32],
    pub(super) phase: Phase,
    /// When the peer last sent something that opened.
    pub(super) heard: BootInstant,
    /// The wake-up that counts; earlier ones in the queue are void.
    pub(super) wake: BootInstant,
}

#[derive(Debug)]
pub(super) enum Phase {
    Handshaking {
        deadline: BootInstant,
        /// Datagrams that wait for a thread.
        waiting: VecDeque<Box<[u8]>>,
    },
    Unbound {
        deadline: BootInstant,
    },
    Bound(SessionRules),
}

impl Session {
    pub(super) fn send(&mut self, packet: &[u8], outbox: &mut Outbox) -> bool {
        let Some(association) = &mut self.association else { return false };
        let length = packet.len() + association.overhead();
        if !self.path.may_send(length) {
            return false;
        }
        outbox.append(Some(self.outer), length, |space| association.seal(packet, space))
    }

    /// Passes on what the association itself has to send.
    pub(super) fn transmit(&mut self, outbox: &mut Outbox) {
        while let Some(datagram) = self.association.as_mut().and_then(Association::poll_transmit) {
            if self.path.may_send(datagram.len()) {
                outbox.push(Some(self.outer), &datagram);
            }
        }
    }

    /// Answers a denied packet, so that the user's program learns it at once: a reset for TCP, ICMP for the rest.
    pub(super) fn refuse(&mut self, packet: &[u8], parsed: &Parsed, own: InnerAddresses, outbox: &mut Outbox) {
        let mut answer = [0; reject::ANSWER_BYTES_MAX];
        let from = match parsed.destination {
            IpAddr::V4(_) => own.ipv4.map(IpAddr::V4),
            IpAddr::V6(_) => own.ipv6.map(IpAddr::V6),
        };
        let length = reject::tcp_reset(packet, parsed, &mut answer)
            .or_else(|| reject::unreachable_prohibited(packet, parsed, from?, &mut answer));
        if let Some(length) = length {
            self.send(&answer[..length], outbox);
        }
    }

    pub(super) fn next_wake(&self, now: Now) -> BootInstant {
        let look = now.boot + LOOK_EVERY;
        let own = match self.phase {
            Phase::Handshaking { deadline, .. } | Phase::Unbound { deadline } => deadline,
            Phase::Bound(_) => look,
        };
        let association = self.association.as_ref().and_then(Association::poll_timeout);
        [association, self.path.next()].into_iter().flatten().fold(own.min(look), BootInstant::min)
    }

    pub(super) fn overdue(&self, now: BootInstant) -> Option<EndReason> {
        match self.phase {
            Phase::Handshaking { deadline, .. } if now >= deadline => Some(EndReason::HandshakeTime),
            Phase::Unbound { deadline } if now >= deadline => Some(EndReason::Unbound),
            Phase::Bound(_) if now.saturating_since(self.heard) >= IDLE_MAX => Some(EndReason::Idle),
            _ => None,
        }
    }
}

impl Sessions {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            generations: Vec::new(),
            by_id: HashMap::with_hasher(FixedState::with_seed(seed)),
            by_outer: HashMap::with_hasher(FixedState::with_seed(seed)),
            by_inner: HashMap::with_hasher(FixedState::with_seed(seed)),
            elsewhere: HashMap::with_hasher(FixedState::with_seed(seed)),
            elsewhere_by_outer: HashMap::with_hasher(FixedState::with_seed(seed)),
            handshaking: 0,
            handshakes: VecDeque::new(),
            made: 0,
        }
    }

    pub(super) fn add(
        &mut self,
        worker: WorkerIndex,
        outer: SocketAddr,
        association: Association,
        cid: [u8; 8],
        random: [u8; 32],
        now: Now,
    ) -> usize {
        self.made += 1;
        let id = SessionId::new(worker, self.made);
        let session = Session {
            id,
            outer,
            path: Path::proven(outer),
            association: Some(association),
            cid,
            random,
            phase: Phase::Handshaking { deadline: now.boot + HANDSHAKE_TIME_MAX, waiting: VecDeque::new() },
            heard: now.boot,
            wake: BootInstant::FAR_FUTURE,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index] = Some(session);
                index
            }
            None => {
                self.slots.push(Some(session));
                self.generations.push(0);
                self.slots.len() - 1
            }
        };
        self.by_id.insert(id, index);
        self.by_outer.entry(outer).or_default().handshaking = Some(index);
        self.handshaking += 1;
        while self.handshakes.front().is_some_and(|(index, id)| !self.is_handshaking(*index, *id)) {
            self.handshakes.pop_front();
        }
        self.handshakes.push_back((index, id));
        index
    }

    /// The slot of the session that is added next, and its generation.
    pub(super) fn next_place(&self) -> (usize, u16) {
        let slot = self.free.last().copied().unwrap_or(self.slots.len());
        (slot, self.generations.get(slot).copied().unwrap_or_default())
    }

    /// Which of the sessions in `index` this is.
    pub(super) fn generation(&self, index: usize) -> u16 {
        self.generations.get(index).copied().unwrap_or_default()
    }

    /// The version that the session in `index` has agreed on, once established.
    pub(super) fn version(&self, index: usize) -> Option<ProtocolVersion> {
        self.slots.get(index)?.as_ref()?.association.as_ref()?.version()
    }

    pub(super) fn is_established(&self, index: usize) -> bool {
        let session = self.slots.get(index).and_then(Option::as_ref);
        session.is_some_and(|session| !matches!(session.phase, Phase::Handshaking { .. }))
    }

    /// Whether the peer of the session in `index` has shown that it receives where the session is.
    pub(super) fn is_at_home(&self, index: usize) -> bool {
        self.slots.get(index).and_then(Option::as_ref).is_some_and(|session| session.path.is_proven())
    }

    /// The session in `index` goes on from `outer`. If another one stands there, new handshakes from there replace that one.
    pub(super) fn move_to(&mut self, index: usize, outer: SocketAddr) {
        let Some(session) = self.slots.get_mut(index).and_then(Option::as_mut) else { return };
        let before = std::mem::replace(&mut session.outer, outer);
        self.leave(before, index);
        self.by_outer.entry(outer).or_default().established.get_or_insert(index);
    }

    fn leave(&mut self, outer: SocketAddr, index: usize) {
        if let Some(at) = self.by_outer.get_mut(&outer) {
            for place in [&mut at.established, &mut at.handshaking] {
                if *place == Some(index) {
                    *place = None;
                }
            }
            if at.established.is_none() && at.handshaking.is_none() {
                self.by_outer.remove(&outer);
            }
        }
    }

    /// Whether a ClientHello with this random is no repetition of the one that began the session in `index`.
    pub(super) fn is_another_attempt(&self, index: usize, random: [u8; 32]) -> bool {
        self.slots.get(index).and_then(Option::as_ref).is_none_or(|session| session.random != random)
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<Session> {
        let session = self.slots.get_mut(index)?.take()?;
        self.free.push(index);
        if let Some(generation) = self.generations.get_mut(index) {
            *generation = generation.wrapping_add(1);
        }
        self.by_id.remove(&session.id);
        self.leave(session.outer, index);
        match &session.phase {
            Phase::Handshaking { .. } => self.handshaking -= 1,
            Phase::Unbound { .. } => {}
            Phase::Bound(rules) => self.clear_home(rules.inner(), Home::Here(index)),
        }
        Some(session)
    }

    /// Takes the handshake under way that began first off the list.
    pub(super) fn oldest_handshake(&mut self) -> Option<usize> {
        while let Some((index, id)) = self.handshakes.pop_front() {
            if self.is_handshaking(index, id) {
                return Some(index);
            }
        }
        None
    }

    pub(super) fn is_handshaking(&self, index: usize, id: SessionId) -> bool {
        let session = self.slots.get(index).and_then(Option::as_ref);
        session.is_some_and(|session| session.id == id && matches!(session.phase, Phase::Handshaking { .. }))
    }

    /// Notes where a session of another worker is.
    pub(super) fn learn(&mut self, session: SessionId, outer: SocketAddr, inner: InnerAddresses) {
        self.forget(session);
        self.elsewhere.insert(session, (outer, inner));
        self.elsewhere_by_outer.insert(outer, session);
        self.set_home(inner, Home::Elsewhere(session));
    }

    pub(super) fn forget(&mut self, session: SessionId) {
        if let Some((outer, inner)) = self.elsewhere.remove(&session) {
            if self.elsewhere_by_outer.get(&outer) == Some(&session) {
                self.elsewhere_by_outer.remove(&outer);
            }
            self.clear_home(inner, Home::Elsewhere(session));
        }
    }

    pub(super) fn set_home(&mut self, inner: InnerAddresses, home: Home) {
        for address in inner.iter() {
            self.by_inner.insert(address, home);
        }
    }

    /// Takes the addresses back, unless another session has them by now.
    pub(super) fn clear_home(&mut self, inner: InnerAddresses, home: Home) {
        for address in inner.iter() {
            if self.by_inner.get(&address) == Some(&home) {
                self.by_inner.remove(&address);
            }
        }
    }
}
