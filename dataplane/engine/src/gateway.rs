//! The Gateway's side of one worker: many sessions, each with the rules of its user.
//!
//! ```text
//!            ClientHello                 Established                    Install
//!  (nothing) ───────────▶ Handshaking ───────────────▶ Unbound ────────────────────▶ Bound
//!                              │ 10 s, refused            │ 10 s without rules          │ closed, idle, replaced, removed
//!                              ▼                          ▼                             ▼
//!                                                       ended
//! ```
//!
//! Only a bound session carries packets. A session's receive state belongs to the worker that shook hands with it; the
//! others know only where it is ([`Command::Install`] goes to all of them) and hand its packets over.

mod demux;
mod handshakes;
mod path;
mod sessions;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ringfort_dtls::cid::{ConnectionId, ConnectionIdCodec, Location, OWN_CONNECTION_ID_BYTES as CONNECTION_ID_BYTES};
use ringfort_dtls::{
    Association, Event as DtlsEvent, ExporterSecret, Front, Opening, ProtocolVersion, RECORD_OVERHEAD_BYTES_13,
    Randomness, Received, Reply, Screened, ServerConfig,
};
use ringfort_identity::PeerIdentity;
use ringfort_packet::coalesce::{Coalescer, Offloads, Piece};
use ringfort_packet::flow::FlowKey;
use ringfort_packet::parse;
use ringfort_packet::split::Splitter;
use ringfort_packet::vnet;
use ringfort_rules::{Direction, Firewall, InnerAddresses, RuleSet, SessionRules, Verdict};
use ringfort_types::{BootInstant, RuleEpoch, RuleId, SessionId, WorkerIndex};

use crate::budget::Budget;
use crate::counters::Counters;
use crate::machine::{Machine, Now, Output};
use crate::message::Message;
use crate::outbox::Outbox;
use crate::timers::Timers;
use demux::Start;
pub use handshakes::Errand;
use path::Due;
use sessions::{Home, Phase, Sessions};

/// Sessions of one worker, all phases together. Beyond it a ClientHello is dropped and counted.
const SESSIONS_MAX: usize = 16_384;
/// Handshakes under way at once on one worker, each of a peer that receives at its address. Each holds at most 48 KiB of messages
/// under way and the Gateway's own flight. Beyond it the oldest one is given up and counted: a flood of them then locks nobody
/// out whose handshake takes less time than 1,024 of them.
const HANDSHAKES_MAX: usize = 1_024;
/// An authenticated session without rules is ended after this time (docs/TUNNEL.md).
const UNBOUND_MAX: Duration = Duration::from_secs(10);
/// How often the firewall's tables are swept, and how many entries each time.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
const SWEEP_ENTRIES: usize = 1_024;
/// Denials per second that are answered and reported, and how many at once; those beyond are counted only.
const DENIALS_PER_SECOND: u32 = 1_000;
const DENIALS_BURST: u32 = 200;
/// Failed handshakes per second that are reported, and how many at once: anybody can make them.
const FAILURES_PER_SECOND: u32 = 50;
const FAILURES_BURST: u32 = 50;
/// Events waiting for the control side. When full, denials are dropped and counted; the life of sessions is always told.
const EVENTS_MAX: usize = 4_096;

/// What a Gateway's worker starts with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which worker this is.
    pub worker: WorkerIndex,
    /// How many there are.
    pub workers: u8,
    /// Credentials and trust anchor, shared by all workers.
    pub dtls: Arc<ServerConfig>,
    /// Random, so that nobody outside can choose keys that collide in the tables.
    pub seed: u64,
    /// Random bytes of which cookies are made, the same for all workers: a datagram may come to another one.
    pub cookie_seed: [u8; 32],
    /// Random bytes of which this worker's handshakes and connection ids are made.
    pub random: [u8; 32],
    /// What the TUN queue takes.
    pub offloads: Offloads,
    /// The Gateway's own inner addresses, from which it answers denied packets.
    pub own: InnerAddresses,
}

/// What the control side asks of a worker.
#[derive(Clone, Debug)]
pub enum Command {
    /// Gives a session its inner addresses and rules, or replaces its rules. Goes to every worker: the owner installs, the
    /// others learn where the session is.
    Install {
        /// Which session.
        session: SessionId,
        /// Where its datagrams come from.
        outer: SocketAddr,
        /// Its addresses inside.
        inner: InnerAddresses,
        /// Its rules, shared between sessions with the same policy.
        rules: Arc<RuleSet>,
        /// From when on nothing passes any more.
        not_after: BootInstant,
    },
    /// Ends a session. Goes to every worker.
    Remove {
        /// Which session.
        session: SessionId,
    },
    /// Shakes hands with these credentials from the next ClientHello on. Associations that stand are untouched.
    Credentials(Arc<ServerConfig>),
}

/// What the control side learns from a worker.
#[derive(Debug)]
pub enum Event {
    /// A peer finished its handshake and waits for rules.
    Authenticated {
        /// The new session.
        session: SessionId,
        /// Who it is.
        peer: PeerIdentity,
        /// Where it is.
        outer: SocketAddr,
        /// What binds other channels to its tunnel (C15).
        exporter: ExporterSecret,
    },
    /// A session goes on from another address, and has shown that it receives there (X10).
    Moved {
        /// Which session.
        session: SessionId,
        /// Where it is.
        outer: SocketAddr,
    },
    /// The rules of an `Install` decide from the next packet on.
    RulesApplied {
        /// Whose rules.
        session: SessionId,
        /// Their epoch.
        epoch: RuleEpoch,
    },
    /// A packet was denied.
    Denied {
        /// Whose packet.
        session: SessionId,
        /// Its flow.
        flow: FlowKey,
        /// The rule that said so; `None` is the default.
        rule: Option<RuleId>,
    },
    /// A session is over. Comes once for each `Authenticated`.
    Ended {
        /// Which session.
        session: SessionId,
        /// Why.
        reason: EndReason,
    },
    /// A handshake came to nothing.
    HandshakeFailed {
        /// Where it came from.
        outer: SocketAddr,
        /// Why.
        reason: ringfort_dtls::Ended,
    },
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The association ended.
    Dtls(ringfort_dtls::Ended),
    /// The handshake took too long.
    HandshakeTime,
    /// Too many newer handshakes were under way.
    Evicted,
    /// No rules came in time.
    Unbound,
    /// The peer was silent for too long.
    Idle,
    /// The same address shook hands anew.
    Replaced,
    /// The control side wanted it.
    Removed,
    /// The worker stops.
    Stopped,
}

/// A received buffer: datagrams of one sender.
struct Batch<'a> {
    /// Names the buffer in the output.
    slot: u16,
    from: SocketAddr,
    buffer: &'a mut [u8],
    /// Length of each datagram but the last.
    segment_bytes: usize,
}

/// One worker's sessions; see the module's documentation.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    sessions: Sessions,
    firewall: Firewall,
    output: Output,
    counters: Counters,
    events: VecDeque<Event>,
    timers: Timers<(usize, SessionId)>,
    /// Handshakes with datagrams that wait for a thread, the longest first.
    setting_out: VecDeque<(usize, SessionId)>,
    next_sweep: BootInstant,
    denials: Budget,
    failures: Budget,
    /// Plaintexts of the buffer in hand: start and length in it.
    opened: Vec<(usize, usize)>,
    front: Front,
    cids: ConnectionIdCodec,
    randomness: Randomness,
}

impl Gateway {
    /// A worker without sessions.
    #[must_use]
    pub fn new(config: Config, now: Now) -> Self {
        let mut randomness = Randomness::new(&config.random);
        let mut cid_key = [0; 16];
        cid_key.copy_from_slice(&randomness.draw()[..16]);
        Self {
            front: Front::new(&config.cookie_seed),
            cids: ConnectionIdCodec::new(&cid_key),
            randomness,
            sessions: Sessions::new(config.seed),
            firewall: Firewall::new(config.seed),
            output: Output { outside: Outbox::default(), inside: Coalescer::new(config.offloads) },
            counters: Counters::default(),
            events: VecDeque::new(),
            timers: Timers::default(),
            setting_out: VecDeque::new(),
            next_sweep: now.boot + SWEEP_EVERY,
            denials: Budget::new(DENIALS_PER_SECOND, DENIALS_BURST, now.boot),
            failures: Budget::new(FAILURES_PER_SECOND, FAILURES_BURST, now.boot),
            opened: Vec::new(),
            config,
        }
    }

    /// Opens the datagrams in `range` of a received buffer by the session in `index` and passes on what the rules allow. The
    /// output refers to packets by their place in the whole buffer, so it is the whole buffer that is handed in.
    fn established_datagrams(&mut self, index: usize, batch: &mut Batch<'_>, range: Range<usize>, now: Now) {
        let Batch { slot, from, segment_bytes, .. } = *batch;
        let buffer = &mut *batch.buffer;
        let Some(session) = self.sessions.slots[index].as_mut() else { return };
        let Some(association) = &mut session.association else { return };
        let opened = &mut self.opened;
        opened.clear();
        for start in range.clone().step_by(segment_bytes) {
            let datagram = &mut buffer[start..(start + segment_bytes).min(range.end)];
            association.handle_datagram(datagram, now.boot, |received| match received {
                Received::Packet { at, bytes } => opened.push((start + at, bytes.len())),
                Received::Discarded(_) => self.counters.records_discarded += 1,
            });
        }
        let has_news = association.take_news();
        if !opened.is_empty() {
            session.heard = now.boot;
        }
        if has_news && session.outer != from {
            self.counters.sessions_moved += 1;
            let [token @ .., _] = self.randomness.draw().first_chunk().copied().unwrap_or([0; 8]);
            session.path.moved(from, token, now.boot);
            self.sessions.move_to(index, from);
        }
        let Some(session) = self.sessions.slots[index].as_mut() else { return };
        if session.outer == from && !session.path.is_proven() {
            session.path.heard(self.opened.iter().map(|(_, length)| length + RECORD_OVERHEAD_BYTES_13).sum());
        }
        let opened = &mut self.opened;
        for &(start, length) in opened.iter() {
            let plaintext = &buffer[start..start + length];
            if Message::is_message(plaintext) {
                match Message::decode(plaintext) {
                    // Silence until there are rules: an answer means that the client is admitted.
                    Some(Message::Request) if matches!(session.phase, Phase::Bound(_)) => {
                        session.send(&Message::Reply.encode(), &mut self.output.outside);
                    }
                    Some(Message::Response(token)) if session.outer == from && session.path.answered(token, from) => {
                        self.counters.paths_proven += 1;
                        self.events.push_back(Event::Moved { session: session.id, outer: from });
                    }
                    _ => {}
                }
                continue;
            }
            let Ok(parsed) = parse::parse(plaintext) else {
                self.counters.packets_malformed += 1;
                continue;
            };
            let Phase::Bound(rules) = &session.phase else {
                self.counters.packets_unbound += 1;
                continue;
            };
            let packet = &plaintext[..usize::from(parsed.total_bytes)];
            match self.firewall.judge(rules, Direction::ToSite, &parsed, packet.len() as u32, now.boot) {
                Verdict::Pass { .. } => {
                    self.counters.packets_to_inside += 1;
                    self.counters.bytes_to_inside += packet.len() as u64;
                    let piece = Piece { slot, start: start as u32, len: packet.len() as u32 };
                    self.output.inside.push(packet, &parsed, piece);
                }
                Verdict::Deny { rule } => {
                    self.counters.packets_denied += 1;
                    if !self.denials.take(now.boot) {
                        self.counters.denials_unanswered += 1;
                        continue;
                    }
                    session.refuse(packet, &parsed, self.config.own, &mut self.output.outside);
                    if let Some(flow) = parsed.flow_key() {
                        if self.events.len() < EVENTS_MAX {
                            self.events.push_back(Event::Denied { session: session.id, flow, rule });
                        } else {
                            self.counters.events_dropped += 1;
                        }
                    }
                }
                Verdict::Drop(_) => {}
            }
        }
        self.after_association(index, now);
    }

    /// Asks at a new address, or leaves one that proved nothing.
    fn see_to_path(&mut self, index: usize, now: Now) {
        let Some(session) = self.sessions.slots[index].as_mut() else { return };
        match session.path.poll(now.boot) {
            Some(Due::Ask(token)) => {
                session.send(&Message::Challenge(token).encode(), &mut self.output.outside);
            }
            Some(Due::GoBack(to)) => {
                self.counters.paths_unproven += 1;
                self.sessions.move_to(index, to);
            }
            None => {}
        }
    }

    /// Takes what an association has to send and to say, and sees to its next wake-up.
    fn after_association(&mut self, index: usize, now: Now) {
        self.see_to_path(index, now);
        let Some(session) = self.sessions.slots[index].as_mut() else { return };
        session.transmit(&mut self.output.outside);
        loop {
            let association = self.sessions.slots[index].as_mut().and_then(|session| session.association.as_mut());
            let Some(event) = association.and_then(Association::poll_event) else { break };
            match event {
                DtlsEvent::Established(Some(peer)) => self.established(index, peer, now),
                // Our configuration lets nobody pass who has no name.
                DtlsEvent::Established(None) => self.end(index, EndReason::Removed, now),
                DtlsEvent::Ended(reason) => self.end(index, EndReason::Dtls(reason), now),
                DtlsEvent::ConnectionIdsWanted(count) => self.give_connection_ids(index, count, now),
            }
        }
        let Some(session) = self.sessions.slots[index].as_mut() else { return };
        let at = session.next_wake(now);
        if at < session.wake {
            session.wake = at;
            self.timers.schedule(at, (index, session.id));
        }
    }

    fn established(&mut self, index: usize, peer: PeerIdentity, now: Now) {
        let Some(session) = self.sessions.slots[index].as_mut() else { return };
        // An established association has one.
        let Some(exporter) = session.association.as_ref().and_then(Association::exporter).cloned() else { return };
        self.counters.handshakes_finished += 1;
        self.sessions.handshaking -= 1;
        let before = std::mem::replace(&mut session.phase, Phase::Unbound { deadline: now.boot + UNBOUND_MAX });
        session.heard = now.boot;
        let (id, outer) = (session.id, session.outer);
        let at = self.sessions.by_outer.entry(outer).or_default();
        at.handshaking = at.handshaking.filter(|other| *other != index);
        // One that has not shown that it receives here was perhaps only said to be here: it has an id, or a way back.
        if let Some(old) = at.established.replace(index)
            && self.sessions.is_at_home(old)
        {
            self.end(old, EndReason::Replaced, now);
        }
        if let Phase::Handshaking { waiting, .. } = before {
            self.take_waiting(index, waiting, now);
        }
        self.events.push_back(Event::Authenticated { session: id, peer, outer, exporter });
    }

    /// Ends a session and tells the control side, if it knew of it.
    fn end(&mut self, index: usize, reason: EndReason, now: Now) {
        let Some(mut session) = self.sessions.remove(index) else { return };
        if let Some(association) = &mut session.association {
            association.close();
        }
        session.transmit(&mut self.output.outside);
        self.firewall.close_session(session.id);
        match (&session.phase, reason) {
            (Phase::Handshaking { .. }, EndReason::Dtls(reason)) => {
                self.counters.handshakes_failed += 1;
                if self.events.len() < EVENTS_MAX && self.failures.take(now.boot) {
                    self.events.push_back(Event::HandshakeFailed { outer: session.outer, reason });
                } else {
                    self.counters.failures_unreported += 1;
                }
            }
            (Phase::Handshaking { .. }, _) => self.counters.handshakes_failed += 1,
            (_, reason) => self.events.push_back(Event::Ended { session: session.id, reason }),
        }
    }

    fn install(&mut self, index: usize, inner: InnerAddresses, rules: Arc<RuleSet>, not_after: BootInstant) {
        let Some(session) = self.sessions.slots[index].as_mut() else { return };
        let id = session.id;
        let (epoch, before) = match &mut session.phase {
            Phase::Handshaking { .. } => return,
            Phase::Bound(bound) => {
                let before = bound.inner();
                (bound.move_to(inner, rules, not_after), before)
            }
            Phase::Unbound { .. } => {
                let mut bound = SessionRules::new(id, inner);
                let epoch = bound.install(rules, not_after);
                session.phase = Phase::Bound(bound);
                // Nobody asked, but the client waits for a sign that it may begin.
                session.send(&Message::Reply.encode(), &mut self.output.outside);
                (epoch, inner)
            }
        };
        self.sessions.clear_home(before, Home::Here(index));
        self.sessions.set_home(inner, Home::Here(index));
        self.events.push_back(Event::RulesApplied { session: id, epoch });
    }

    fn begin_handshake(&mut self, from: SocketAddr, opening: &Opening, now: Now) -> Option<usize> {
        if self.sessions.handshaking >= HANDSHAKES_MAX
            && let Some(oldest) = self.sessions.oldest_handshake()
        {
            self.counters.handshakes_evicted += 1;
            self.end(oldest, EndReason::Evicted, now);
        }
        if self.sessions.by_id.len() >= SESSIONS_MAX {
            self.counters.handshakes_refused += 1;
            return None;
        }
        self.counters.handshakes_begun += 1;
        let random = self.randomness.draw();
        let (slot, generation) = self.sessions.next_place();
        let cid = self.connection_id(slot, generation);
        let association =
            Association::server(&self.config.dtls, opening, ConnectionId::new(&cid), random, now.boot, now.unix);
        Some(self.sessions.add(self.config.worker, from, association, cid, *opening.random(), now))
    }

    /// Gives the session in `index` other connection ids, for other paths.
    fn give_connection_ids(&mut self, index: usize, count: u8, now: Now) {
        let generation = self.sessions.generation(index);
        let ids = (0..count).filter_map(|_| ConnectionId::new(&self.connection_id(index, generation)));
        let ids: Vec<ConnectionId> = ids.collect();
        let Some(session) = self.sessions.slots[index].as_mut() else { return };
        if let Some(association) = &mut session.association {
            association.give_connection_ids(&ids, now.boot);
        }
        session.transmit(&mut self.output.outside);
    }

    /// A connection id for a place and one of the sessions that have it in turn; each is another one.
    fn connection_id(&mut self, slot: usize, generation: u16) -> [u8; CONNECTION_ID_BYTES] {
        let location = Location { worker: self.config.worker.0, slot: slot as u32, generation };
        let [high, low, ..] = self.randomness.draw();
        self.cids.encode(location, u16::from_be_bytes([high, low]))
    }

    /// The session that a record's connection id names, if it is one of this worker's. Sessions at the address that they came
    /// from last, and the ids that they used last, are looked at first, which spares reading the id.
    fn named_by(&mut self, id: &[u8; CONNECTION_ID_BYTES], from: SocketAddr) -> Option<usize> {
        let at = self.sessions.by_outer.get(&from).copied().unwrap_or_default();
        let used_last = |index: &usize| {
            let session = self.sessions.slots.get(*index).and_then(Option::as_ref);
            session.is_some_and(|session| session.cid == *id)
        };
        if let Some(near) = [at.established, at.handshaking].into_iter().flatten().find(used_last) {
            return Some(near);
        }
        let (location, _) = self.cids.decode(id);
        let index = usize::try_from(location.slot).ok()?;
        let session = self.sessions.slots.get_mut(index).and_then(Option::as_mut)?;
        if self.sessions.generations[index] != location.generation {
            return None;
        }
        session.cid = *id;
        Some(index)
    }

    /// Takes the datagrams in `range`, which name their session by `id`.
    fn named_datagrams(
        &mut self,
        id: &[u8; CONNECTION_ID_BYTES],
        batch: &mut Batch<'_>,
        range: Range<usize>,
        now: Now,
    ) {
        match self.named_by(id, batch.from) {
            None => self.counters.datagrams_unknown += 1,
            Some(index) if self.sessions.is_established(index) => self.established_datagrams(index, batch, range, now),
            Some(index) => {
                for datagram in batch.buffer[range].chunks(batch.segment_bytes) {
                    self.handshake_datagram(index, datagram);
                }
            }
        }
    }

    /// Takes a datagram that begins in the clear: one from a stranger, or of a handshake. Gives the session that stands at its
    /// address, if it may be that one's: a client of DTLS 1.2 that lacks the end of the handshake repeats its flight, which begins
    /// in the clear (RFC 6347 §4.2.4).
    fn clear_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Now) -> Option<usize> {
        let mut reply = [0; REPLY_BYTES_MAX];
        let room = reply.len().min(datagram.len());
        let screened = self.front.screen(&self.config.dtls, datagram, from, now.boot, &mut reply[..room]);
        let at = self.sessions.by_outer.get(&from).copied().unwrap_or_default();
        match screened {
            // A handshake goes on there that nobody shall end by a made-up cookie.
            Screened::Reply { reply: Reply::OtherCookie, .. } if at.handshaking.is_some() => {
                self.counters.hello_cookies_refused += 1;
            }
            Screened::Reply { bytes, reply: what } => {
                match what {
                    Reply::Cookie => self.counters.hellos_asked += 1,
                    Reply::OtherCookie => self.counters.hello_cookies_refused += 1,
                    Reply::Refusal(_) => self.counters.hellos_refused += 1,
                }
                self.output.outside.push(Some(from), &reply[..bytes]);
                return None;
            }
            Screened::Opening(opening)
                if at.handshaking.is_none_or(|index| self.sessions.is_another_attempt(index, *opening.random())) =>
            {
                // The attempt before it, if any, is one that the peer has given up without a word, or the peer's and this one is
                // somebody's who sees what is sent there: it goes on as long as its records name it, or is given up in time.
                if let Some(index) = self.begin_handshake(from, &opening, now) {
                    self.handshake_datagram(index, datagram);
                    self.after_association(index, now);
                }
                return None;
            }
            Screened::Opening(_) | Screened::Dropped(_) => {}
        }
        if let Some(index) = at.handshaking {
            self.handshake_datagram(index, datagram);
            return None;
        }
        let repeats = at.established.filter(|index| self.sessions.version(*index) == Some(ProtocolVersion::Dtls12));
        if repeats.is_none() {
            self.counters.datagrams_unknown += 1;
        }
        repeats
    }
}

impl Machine for Gateway {
    type Command = Command;
    type Event = Event;
    type Errand = Errand;

    fn handle_outside(
        &mut self,
        slot: u16,
        from: SocketAddr,
        datagrams: &mut [u8],
        segment_bytes: usize,
        now: Now,
    ) -> Option<WorkerIndex> {
        let segment_bytes = segment_bytes.max(1);
        if let Some(Start::Named(id)) = Start::of(datagrams) {
            if id[0] != self.config.worker.0 && id[0] < self.config.workers {
                self.counters.handed_over += 1;
                return Some(WorkerIndex(id[0]));
            }
            let range = 0..datagrams.len();
            self.named_datagrams(&id, &mut Batch { slot, from, buffer: datagrams, segment_bytes }, range, now);
            return None;
        }
        let at = self.sessions.by_outer.get(&from).copied();
        if at.is_none()
            && let Some(session) = self.sessions.elsewhere_by_outer.get(&from)
        {
            self.counters.handed_over += 1;
            return Some(session.worker());
        }
        // Of peers whose records name no session, and of strangers: each datagram is looked at by itself.
        for count in 0..datagrams.len().div_ceil(segment_bytes) {
            let start = count * segment_bytes;
            let end = (start + segment_bytes).min(datagrams.len());
            let at = self.sessions.by_outer.get(&from).copied().unwrap_or_default();
            let datagram = &datagrams[start..end];
            let established = match (Start::of(datagram), at.established, at.handshaking) {
                (Some(Start::Clear), ..) => self.clear_datagram(from, datagram, now),
                // Behind what began in the clear: the end of a handshake.
                (Some(Start::Named(id)), ..) => {
                    let mut batch = Batch { slot, from, buffer: datagrams, segment_bytes };
                    self.named_datagrams(&id, &mut batch, start..end, now);
                    continue;
                }
                (Some(Start::Unnamed { handshake }), Some(index), handshaking)
                    if handshaking.is_none() || !handshake =>
                {
                    Some(index)
                }
                (Some(Start::Unnamed { .. }), _, Some(index)) => {
                    self.handshake_datagram(index, datagram);
                    None
                }
                _ => {
                    self.counters.datagrams_unknown += 1;
                    None
                }
            };
            if let Some(index) = established {
                let mut batch = Batch { slot, from, buffer: datagrams, segment_bytes };
                self.established_datagrams(index, &mut batch, start..end, now);
            }
        }
        None
    }

    fn handle_inside(&mut self, frame: &mut [u8], now: Now) -> Option<WorkerIndex> {
        let Some(parsed) = frame.get(vnet::HEADER_BYTES..).and_then(|packet| parse::parse(packet).ok()) else {
            self.counters.frames_malformed += 1;
            return None;
        };
        let index = match self.sessions.by_inner.get(&parsed.destination) {
            Some(Home::Here(index)) => *index,
            Some(Home::Elsewhere(session)) => {
                self.counters.handed_over += 1;
                return Some(session.worker());
            }
            None => {
                self.counters.packets_homeless += 1;
                return None;
            }
        };
        let session = self.sessions.slots[index].as_mut()?;
        let Phase::Bound(rules) = &session.phase else { return None };
        let bytes = u32::from(parsed.total_bytes);
        // A super-frame is one flow's, so that one verdict is enough for all of its packets.
        if !matches!(self.firewall.judge(rules, Direction::ToClient, &parsed, bytes, now.boot), Verdict::Pass { .. }) {
            return None;
        }
        let Ok(mut splitter) = Splitter::new(frame) else {
            self.counters.frames_malformed += 1;
            return None;
        };
        while let Some(packet) = splitter.next_packet() {
            if session.send(packet, &mut self.output.outside) {
                self.counters.packets_to_outside += 1;
                self.counters.bytes_to_outside += packet.len() as u64;
            } else {
                self.counters.packets_unsent += 1;
            }
        }
        if let Some(association) = session.association.as_mut().filter(|association| association.is_due()) {
            association.handle_timeout(now.boot);
            self.after_association(index, now);
        }
        None
    }

    fn handle_command(&mut self, command: Command, now: Now) {
        match command {
            Command::Install { session, outer, inner, rules, not_after } => {
                if session.worker() == self.config.worker {
                    if let Some(index) = self.sessions.by_id.get(&session).copied() {
                        self.install(index, inner, rules, not_after);
                    }
                } else {
                    self.sessions.learn(session, outer, inner);
                }
            }
            Command::Credentials(dtls) => self.config.dtls = dtls,
            Command::Remove { session } => match self.sessions.by_id.get(&session).copied() {
                Some(index) => self.end(index, EndReason::Removed, now),
                None => self.sessions.forget(session),
            },
        }
    }

    fn poll_errand(&mut self) -> Option<Errand> {
        self.next_errand()
    }

    fn handle_errand(&mut self, errand: Errand, now: Now) {
        self.take_back(errand, now);
    }

    fn handle_timeout(&mut self, now: Now) {
        if now.boot >= self.next_sweep {
            self.firewall.sweep(now.boot, SWEEP_ENTRIES);
            self.next_sweep = now.boot + SWEEP_EVERY;
        }
        while let Some((at, (index, id))) = self.timers.pop_due(now.boot) {
            let Some(session) = self.sessions.slots.get_mut(index).and_then(Option::as_mut) else { continue };
            if session.id != id || session.wake != at {
                continue;
            }
            session.wake = BootInstant::FAR_FUTURE;
            match session.overdue(now.boot) {
                Some(reason) => self.end(index, reason, now),
                None => {
                    if let Some(association) = &mut session.association {
                        association.handle_timeout(now.boot);
                    }
                    self.after_association(index, now);
                }
            }
        }
    }

    fn handle_stop(&mut self, now: Now) -> bool {
        for index in 0..self.sessions.slots.len() {
            if self.output.outside.is_full() {
                return true;
            }
            self.end(index, EndReason::Stopped, now);
        }
        false
    }

    fn poll_timeout(&self) -> Option<BootInstant> {
        let sweep = (self.firewall.flow_count() > 0).then_some(self.next_sweep);
        [sweep, self.timers.next()].into_iter().flatten().min()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn output(&mut self) -> &Output {
        self.output.finish()
    }

    fn clear_output(&mut self) {
        self.output.clear();
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        self.counters.visit(visit);
        for (reason, count) in self.firewall.drops().iter() {
            visit(reason.name(), count);
        }
        visit("sessions", self.sessions.by_id.len() as u64);
        visit("flows", self.firewall.flow_count() as u64);
    }
}

/// The longest answer to a stranger: a HelloRetryRequest with a cookie has 152 bytes at most.
const REPLY_BYTES_MAX: usize = 256;
