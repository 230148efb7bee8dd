//! The client's side: one association with one Gateway, kept up.
//!
//! ```text
//!              start, or pause over               Established              first answer
//!   Paused ──────────────────────────▶ Connecting ───────────▶ Up, unadmitted ────────────▶ Up
//!     ▲                                    │ failed             │ silent                     │ closed, silent
//!     └────────────────────────────────────┴────────────────────┴────────────────────────────┘
//! ```
//!
//! The client's side of a handshake ends before the Gateway has judged the client's certificate, and long before it has
//! rules. So the tunnel counts as up only when something has come through it; a Gateway speaks first when the rules are in
//! force.
//!
//! Packets that the system routes into the TUN queue are sealed, those that the Gateway sends are passed to the system.
//! While there is no association they are dropped and counted: nothing that was routed here ever leaves another way.
//!
//! Where sessions are admitted by tokens, a finished handshake is not enough either: packets wait until the session channel has
//! shown that both ends of this tunnel are those of the channel (C15), which the control side says with
//! [`Command::Release`]. Until then nothing goes out and nothing is passed in.
//!
//! A Gateway that restarted knows nothing of the association and answers nothing. So what was sent and not answered is
//! followed by keep-alive requests, and when these are not answered either, by a new handshake.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::{Association, ClientConfig, Ended, Event as DtlsEvent, ExporterSecret, Randomness, Received};
use ringfort_identity::PeerIdentity;
use ringfort_packet::coalesce::{Coalescer, Offloads, Piece};
use ringfort_packet::parse::{self, Parsed, Transport};
use ringfort_packet::split::Splitter;
use ringfort_packet::vnet;
use ringfort_rules::InnerAddresses;
use ringfort_types::{BootInstant, WorkerIndex};

use crate::counters::Counters;
use crate::machine::{Machine, NoErrand, Now, Output};
use crate::message::Message;
use crate::outbox::Outbox;
use crate::prefixes::Prefixes;

/// Something was sent and nothing heard for so long: ask whether the Gateway is there.
const PROBE_AFTER: Duration = Duration::from_millis(1_500);
/// Connection ids asked for beside the one in use, for when our address changes.
const SPARE_CONNECTION_IDS: u8 = 2;
/// Time between such questions, and how many go unanswered before the association is given up.
const PROBE_EVERY: Duration = Duration::from_millis(500);
const PROBES_MAX: u32 = 3;
/// A keep-alive when nothing else was sent for so long: address translators forget UDP flows after 30 s (RFC 4787 asks
/// for 2 min, many give less).
const KEEPALIVE_AFTER: Duration = Duration::from_secs(20);
/// Pause before a new attempt; doubles with each failure up to the second value.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a tunnel waits for its release: as long as a Gateway keeps a tunnel that nobody binds (docs/CONTROL.md).
const UNRELEASED_MAX: Duration = Duration::from_secs(10);

/// When packets may pass a tunnel whose handshake is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// At once: the certificates say all there is to say.
    AtOnce,
    /// On [`Command::Release`], once a session channel is bound to the tunnel (C15).
    ByCommand,
}

/// Which of a client's tunnels is meant: they are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelNumber(pub u64);

/// What a client starts with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Credentials and trust anchor.
    pub dtls: Arc<ClientConfig>,
    /// Id that the Gateway's certificate must carry; `None` takes any Gateway of the CA.
    pub gateway_id: Option<Box<str>>,
    /// What the TUN queue takes.
    pub offloads: Offloads,
    /// Our addresses inside.
    pub inner: InnerAddresses,
    /// What lies behind the Gateway: only from there may packets come.
    pub routes: Prefixes,
    /// When packets may pass.
    pub release: Release,
    /// Random bytes, of which those of the handshakes are made.
    pub random: [u8; 32],
}

/// What the control side learns.
#[derive(Debug)]
pub enum Event {
    /// The handshake is finished. The Gateway carries nothing yet: it waits for rules, and where sessions are admitted by
    /// tokens, for the session channel to be bound to this tunnel (C15).
    Established {
        /// Which tunnel this is.
        tunnel: TunnelNumber,
        /// The Gateway.
        gateway: PeerIdentity,
        /// What binds the session channel to the tunnel.
        exporter: ExporterSecret,
    },
    /// The tunnel is up: the Gateway has admitted us, and our rules are in force.
    Up(PeerIdentity),
    /// The tunnel is down; another attempt follows by itself.
    Down(DownReason),
}

/// Why the tunnel is down, or did not come up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// The association ended or never came to be.
    #[error(transparent)]
    Dtls(#[from] Ended),
    /// Questions went unanswered.
    #[error("the gateway is silent")]
    Silent,
    /// The handshake went well, and then nothing came.
    #[error("the gateway does not admit this device: it has refused the certificate or has no rules for it")]
    NotAdmitted,
    /// The handshake went well, and then nobody released the tunnel.
    #[error("the session channel did not bind this tunnel within {UNRELEASED_MAX:?}")]
    NotReleased,
    /// A Gateway of the same CA, but not the one asked for.
    #[error("expected gateway {expected}, found {found}")]
    OtherGateway {
        /// Id asked for.
        expected: Box<str>,
        /// Id in the certificate.
        found: Box<str>,
    },
}

/// The client's machine; see the module's documentation.
#[derive(Debug)]
pub struct Client {
    config: Config,
    phase: Phase,
    pause: Duration,
    output: Output,
    counters: Counters,
    events: VecDeque<Event>,
    opened: Vec<(usize, usize)>,
    tunnels: u64,
    randomness: Randomness,
}

#[derive(Debug)]
enum Phase {
    Paused { until: BootInstant },
    Connecting(Association),
    Up(Up),
}

#[derive(Debug)]
struct Up {
    association: Association,
    number: TunnelNumber,
    /// Whether packets may pass; until then, when waiting for it ends.
    gate: Gate,
    /// The Gateway, until it has said something.
    unadmitted: Option<PeerIdentity>,
    sent: BootInstant,
    /// When the first packet went out to which nothing was heard since.
    unanswered_since: Option<BootInstant>,
    probes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Shut { until: BootInstant },
}

/// What the control side asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// This tunnel is bound to its session channel: packets may pass. A number of an earlier tunnel does nothing.
    Release(TunnelNumber),
    /// What lies behind the Gateway has changed, or where we are inside. The tunnel stays.
    Reach {
        /// Our addresses inside.
        inner: InnerAddresses,
        /// What lies behind the Gateway.
        routes: Prefixes,
    },
    /// From now on our datagrams leave from another address (X10). The tunnel stays, under a connection id that was not seen on
    /// the path before.
    PathChanged,
}

impl Client {
    /// A client that begins to connect at once.
    #[must_use]
    pub fn new(config: Config, now: Now) -> Self {
        Self {
            phase: Phase::Paused { until: now.boot },
            pause: PAUSE_FIRST,
            output: Output { outside: Outbox::default(), inside: Coalescer::new(config.offloads) },
            counters: Counters::default(),
            events: VecDeque::new(),
            opened: Vec::new(),
            tunnels: 0,
            randomness: Randomness::new(&config.random),
            config,
        }
    }

    fn close(&mut self) {
        if let Phase::Up(Up { association, .. }) | Phase::Connecting(association) = &mut self.phase {
            association.close();
            transmit(association, &mut self.output.outside);
        }
    }

    fn down(&mut self, reason: DownReason, now: Now) {
        self.close();
        self.phase = Phase::Paused { until: now.boot + self.pause };
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.events.push_back(Event::Down(reason));
    }

    /// Takes what the association has to send and to say.
    fn after_association(&mut self, now: Now) {
        loop {
            let (Phase::Connecting(association) | Phase::Up(Up { association, .. })) = &mut self.phase else { return };
            transmit(association, &mut self.output.outside);
            match association.poll_event() {
                Some(DtlsEvent::Established(Some(peer))) => self.established(peer, now),
                // Our configuration lets nobody pass who has no name.
                Some(DtlsEvent::Established(None)) => self.down(Ended::Closed.into(), now),
                Some(DtlsEvent::Ended(reason)) => self.down(reason.into(), now),
                // A Gateway has no use for them: it does not move.
                Some(DtlsEvent::ConnectionIdsWanted(_)) => association.give_connection_ids(&[], now.boot),
                None => return,
            }
        }
    }

    fn established(&mut self, peer: PeerIdentity, now: Now) {
        self.counters.handshakes_finished += 1;
        if let Some(expected) = self.config.gateway_id.clone().filter(|expected| **expected != *peer.id()) {
            return self.down(DownReason::OtherGateway { expected, found: peer.id().into() }, now);
        }
        self.tunnels += 1;
        let number = TunnelNumber(self.tunnels);
        if let Phase::Connecting(association) = &self.phase
            && let Some(exporter) = association.exporter().cloned()
        {
            self.events.push_back(Event::Established { tunnel: number, gateway: peer.clone(), exporter });
        }
        let gate = match self.config.release {
            Release::AtOnce => Gate::Open,
            Release::ByCommand => Gate::Shut { until: now.boot + UNRELEASED_MAX },
        };
        let paused = Phase::Paused { until: now.boot };
        self.phase = match std::mem::replace(&mut self.phase, paused) {
            Phase::Connecting(mut association) => {
                association.request_connection_ids(SPARE_CONNECTION_IDS, now.boot);
                Phase::Up(Up {
                    association,
                    number,
                    gate,
                    unadmitted: Some(peer),
                    sent: now.boot,
                    unanswered_since: Some(now.boot),
                    probes: 0,
                })
            }
            other => other,
        };
    }
}

impl Config {
    /// Whether a packet is for us and comes from where our routes lead: a Gateway is no way around the user's own network.
    /// Errors come from any router on the way, about a packet that we sent there.
    fn is_expected(&self, packet: &Parsed) -> bool {
        let Self { inner, routes, .. } = self;
        let from_there = match packet.transport {
            Transport::IcmpError { quoted, .. } => {
                inner.contains(quoted.source()) && routes.contains(quoted.destination())
            }
            _ => routes.contains(packet.source),
        };
        inner.contains(packet.destination) && from_there
    }
}

impl Machine for Client {
    type Command = Command;
    type Event = Event;
    /// A client has one handshake, and nothing that could wait for it.
    type Errand = NoErrand;

    fn handle_outside(
        &mut self,
        slot: u16,
        _from: SocketAddr,
        datagrams: &mut [u8],
        segment_bytes: usize,
        now: Now,
    ) -> Option<WorkerIndex> {
        let (Phase::Connecting(association) | Phase::Up(Up { association, .. })) = &mut self.phase else {
            self.counters.datagrams_unknown += 1;
            return None;
        };
        let opened = &mut self.opened;
        opened.clear();
        let segment_bytes = segment_bytes.max(1);
        for (count, datagram) in datagrams.chunks_mut(segment_bytes).enumerate() {
            let base = count * segment_bytes;
            association.handle_datagram(datagram, now.boot, |received| match received {
                Received::Packet { at, bytes } => opened.push((base + at, bytes.len())),
                Received::Discarded(_) => self.counters.records_discarded += 1,
            });
        }
        self.after_association(now);
        let Phase::Up(up) = &mut self.phase else { return None };
        if !self.opened.is_empty() {
            (up.unanswered_since, up.probes) = (None, 0);
            if let Some(gateway) = up.unadmitted.take() {
                self.pause = PAUSE_FIRST;
                self.events.push_back(Event::Up(gateway));
            }
        }
        let is_open = up.gate == Gate::Open;
        for index in 0..self.opened.len() {
            let (start, length) = self.opened[index];
            let plaintext = &datagrams[start..start + length];
            if Message::is_message(plaintext) {
                if let Some(Message::Challenge(token)) = Message::decode(plaintext) {
                    up.answer(&Message::Response(token).encode(), &mut self.output.outside);
                }
                continue;
            }
            if !is_open {
                self.counters.packets_unexpected += 1;
                continue;
            }
            match parse::parse(plaintext) {
                Ok(parsed) if self.config.is_expected(&parsed) => {
                    let packet = &plaintext[..usize::from(parsed.total_bytes)];
                    self.counters.packets_to_inside += 1;
                    self.counters.bytes_to_inside += packet.len() as u64;
                    let piece = Piece { slot, start: start as u32, len: packet.len() as u32 };
                    self.output.inside.push(packet, &parsed, piece);
                }
                Ok(_) => self.counters.packets_unexpected += 1,
                Err(_) => self.counters.packets_malformed += 1,
            }
        }
        None
    }

    fn handle_inside(&mut self, frame: &mut [u8], now: Now) -> Option<WorkerIndex> {
        let Some(parsed) = frame.get(vnet::HEADER_BYTES..).and_then(|packet| parse::parse(packet).ok()) else {
            self.counters.frames_malformed += 1;
            return None;
        };
        // The system also sends what is not meant for the tunnel, such as router solicitations of the interface itself.
        if !self.config.inner.contains(parsed.source) {
            self.counters.packets_homeless += 1;
            return None;
        }
        let Phase::Up(up @ Up { gate: Gate::Open, .. }) = &mut self.phase else {
            self.counters.packets_unsent += 1;
            return None;
        };
        let Ok(mut splitter) = Splitter::new(frame) else {
            self.counters.frames_malformed += 1;
            return None;
        };
        while let Some(packet) = splitter.next_packet() {
            if up.send(packet, &mut self.output.outside, now.boot) {
                self.counters.packets_to_outside += 1;
                self.counters.bytes_to_outside += packet.len() as u64;
            } else {
                self.counters.packets_unsent += 1;
            }
        }
        if up.association.is_due() {
            up.association.handle_timeout(now.boot);
            self.after_association(now);
        }
        None
    }

    fn handle_command(&mut self, command: Command, now: Now) {
        match command {
            Command::Release(number) => {
                if let Phase::Up(up) = &mut self.phase
                    && up.number == number
                    && up.gate != Gate::Open
                {
                    up.gate = Gate::Open;
                    (up.unanswered_since, up.probes) = (Some(now.boot), 0);
                }
            }
            Command::Reach { inner, routes } => (self.config.inner, self.config.routes) = (inner, routes),
            Command::PathChanged => {
                let Phase::Up(up) = &mut self.phase else { return };
                up.association.change_connection_id(now.boot);
                // The Gateway learns by it where we are.
                up.send(&Message::Request.encode(), &mut self.output.outside, now.boot);
                self.after_association(now);
            }
        }
    }

    fn poll_errand(&mut self) -> Option<NoErrand> {
        None
    }

    fn handle_errand(&mut self, errand: NoErrand, _: Now) {
        match errand {}
    }

    fn handle_timeout(&mut self, now: Now) {
        match &mut self.phase {
            Phase::Paused { until } if now.boot >= *until => {
                self.counters.handshakes_begun += 1;
                // Our records carry the Gateway's connection id, so that it knows us wherever we come from (X10); its own need none.
                let (cid, random) = (Some(ConnectionId::NONE), self.randomness.draw());
                self.phase = Phase::Connecting(Association::client(&self.config.dtls, cid, random, now.boot, now.unix));
            }
            Phase::Paused { .. } => {}
            Phase::Connecting(association) => association.handle_timeout(now.boot),
            Phase::Up(up) => {
                if up.association.poll_timeout().is_some_and(|at| at <= now.boot) {
                    up.association.handle_timeout(now.boot);
                }
                if let Gate::Shut { until } = up.gate {
                    if now.boot >= until {
                        return self.down(DownReason::NotReleased, now);
                    }
                } else if up.next_probe().is_some_and(|at| at <= now.boot) {
                    if up.probes == PROBES_MAX {
                        let silent = if up.unadmitted.is_some() { DownReason::NotAdmitted } else { DownReason::Silent };
                        return self.down(silent, now);
                    }
                    up.probes += 1;
                    up.send(&Message::Request.encode(), &mut self.output.outside, now.boot);
                } else if now.boot >= up.sent + KEEPALIVE_AFTER {
                    up.send(&Message::Request.encode(), &mut self.output.outside, now.boot);
                }
            }
        }
        self.after_association(now);
    }

    fn handle_stop(&mut self, _now: Now) -> bool {
        self.close();
        false
    }

    fn poll_timeout(&self) -> Option<BootInstant> {
        match &self.phase {
            Phase::Paused { until } => Some(*until),
            Phase::Connecting(association) => association.poll_timeout(),
            Phase::Up(up) => {
                let own = match up.gate {
                    Gate::Shut { until } => Some(until),
                    Gate::Open => up.next_probe().into_iter().chain([up.sent + KEEPALIVE_AFTER]).min(),
                };
                [own, up.association.poll_timeout()].into_iter().flatten().min()
            }
        }
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
    }
}

impl Up {
    fn send(&mut self, packet: &[u8], outbox: &mut Outbox, now: BootInstant) -> bool {
        self.sent = now;
        self.unanswered_since.get_or_insert(now);
        self.answer(packet, outbox)
    }

    /// Sends what itself asks for no answer.
    fn answer(&mut self, packet: &[u8], outbox: &mut Outbox) -> bool {
        let association = &mut self.association;
        outbox.append(None, packet.len() + association.overhead(), |space| association.seal(packet, space))
    }

    /// When the next question is due, or the last one has waited long enough.
    fn next_probe(&self) -> Option<BootInstant> {
        let since = self.unanswered_since?;
        Some(since + PROBE_AFTER + PROBE_EVERY * self.probes)
    }
}

fn transmit(association: &mut Association, outbox: &mut Outbox) {
    while let Some(datagram) = association.poll_transmit() {
        outbox.push(None, &datagram);
    }
}
