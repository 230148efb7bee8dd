//! The verdict on one packet.
//!
//! The steps, in this order; the first that refuses ends it:
//!
//! ```text
//! deadline of the rules            -> Expired
//! address inside the tunnel        -> SpoofedSource, ForeignDestination
//! later fragment                   -> as its first, else FragmentWithoutFirst
//! ICMP error                       -> as the flow it is about, else UnrelatedIcmpError
//! open flow, either direction      -> as its opener was judged under the rules in force
//! otherwise, to the site           -> rules: pass and open a flow, or deny
//! otherwise, to the client         -> rules: pass and open a flow, or NoFlow
//! ```
//!
//! A packet that asks to open (a SYN without an ACK, an echo request) never passes as an answer in another's flow.
//! Towards the site TCP may be taken up in mid-stream, as rules judge every packet there anyway (a failover from
//! another Gateway needs it, X1); towards the client only a SYN opens TCP.

use ringfort_packet::flow::{FlowKey, protocol};
use ringfort_packet::parse::{Fragment, Parsed, Transport};
use ringfort_types::{BootInstant, RuleId, SessionId};

use crate::drops::{DropCounters, DropReason};
use crate::flow::{FLOWS_MAX, Flow, FlowTable, NewFlow, asks_to_open_tcp};
use crate::fragment::{FragmentKey, FragmentTable};
use crate::rule::{Decision, Direction};
use crate::session::SessionRules;
use crate::table::{Hashed, Position};

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It passes.
    Pass {
        /// The rule that allows it.
        rule: RuleId,
    },
    /// Policy refuses it: the caller answers with RST or ICMP and reports the rule.
    Deny {
        /// The rule that denies it; `None` is the default deny.
        rule: Option<RuleId>,
    },
    /// It vanishes; the reason has been counted.
    Drop(DropReason),
}

/// Judges the packets of one worker's sessions.
#[derive(Clone, Debug)]
pub struct Firewall {
    flows: FlowTable,
    fragments: FragmentTable,
    drops: DropCounters,
}

impl Firewall {
    /// A firewall of [`FLOWS_MAX`] flows. `seed` comes from a source that clients cannot guess: they choose the
    /// keys of its tables.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_flows_max(FLOWS_MAX, seed)
    }

    /// A firewall of `flows_max` flows, at least 1.
    #[must_use]
    pub fn with_flows_max(flows_max: usize, seed: u64) -> Self {
        Self {
            flows: FlowTable::new(flows_max, seed),
            fragments: FragmentTable::new(seed),
            drops: DropCounters::default(),
        }
    }

    /// The verdict on `packet`, which travels in `direction` and belongs to the session of `session`.
    ///
    /// `packet_bytes` is what the flow's counters grow by if it passes.
    #[inline]
    pub fn judge(
        &mut self,
        session: &SessionRules,
        direction: Direction,
        packet: &Parsed,
        packet_bytes: u32,
        now: BootInstant,
    ) -> Verdict {
        match self.decide(session, direction, packet, packet_bytes, now) {
            Ok(Decision::Allow(rule)) => Verdict::Pass { rule },
            Ok(Decision::Deny(rule)) => Verdict::Deny { rule },
            Err(reason) => {
                self.drops.count(reason);
                Verdict::Drop(reason)
            }
        }
    }

    /// Visits at most `entries` flows and as many fragmented packets, and forgets those that are idle or whose
    /// session has ended. To be called once per turn of the worker.
    pub fn sweep(&mut self, now: BootInstant, entries: usize) {
        self.flows.sweep(now, entries);
        self.fragments.sweep(now, entries);
    }

    /// Lets sweeps remove what is left of a session that has ended. Costs two look-ups, whatever the session holds.
    pub fn close_session(&mut self, session: SessionId) {
        self.flows.close_session(session);
        self.fragments.close_session(session);
    }

    /// Packets dropped since the start.
    #[must_use]
    pub const fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// Flows in the table, idle ones that no sweep has met included.
    #[must_use]
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// The session's flow with this key, written as packets travel from the client to the site.
    #[must_use]
    pub fn flow(&self, session: SessionId, key: &FlowKey) -> Option<&Flow> {
        let position = self.flows.find(self.flows.hash(session, key), session, key)?;
        self.flows.get(position)
    }

    #[inline]
    fn decide(
        &mut self,
        session: &SessionRules,
        direction: Direction,
        packet: &Parsed,
        bytes: u32,
        now: BootInstant,
    ) -> Result<Decision, DropReason> {
        if now >= session.not_after() {
            return Err(DropReason::Expired);
        }
        match direction {
            Direction::ToSite if !session.inner().contains(packet.source) => return Err(DropReason::SpoofedSource),
            Direction::ToClient if !session.inner().contains(packet.destination) => {
                return Err(DropReason::ForeignDestination);
            }
            _ => {}
        }
        match packet.fragment {
            None => self.decide_whole(session, direction, packet, bytes, now),
            // An "atomic" fragment is a whole packet (RFC 6946).
            Some(Fragment { offset_bytes: 0, more: false, .. }) => {
                self.decide_whole(session, direction, packet, bytes, now)
            }
            Some(fragment) => self.decide_fragment(session, direction, packet, fragment, bytes, now),
        }
    }

    /// A packet with its transport header: one that is not fragmented, or a first fragment.
    #[inline]
    fn decide_whole(
        &mut self,
        session: &SessionRules,
        direction: Direction,
        packet: &Parsed,
        bytes: u32,
        now: BootInstant,
    ) -> Result<Decision, DropReason> {
        let key = match packet.transport {
            Transport::IcmpError { quoted, .. } => {
                return self.decide_icmp_error(session, direction, packet, quoted, now);
            }
            Transport::IcmpOther { .. } => return Err(DropReason::UnsupportedIcmp),
            Transport::LaterFragment => return Err(DropReason::FragmentWithoutFirst),
            _ => flow_key(packet).ok_or(DropReason::AddressFamilyMismatch)?,
        };
        let site_key = in_site_direction(direction, key);
        let hash = self.flows.hash(session.session(), &site_key);
        let open = self.live_flow(hash, session, &site_key, now);
        if let Some(flow) = open.and_then(|position| self.flows.get_mut(position))
            && (flow.opener() == direction || !asks_to_open(&packet.transport))
        {
            flow.pass(direction, Some(&packet.transport), bytes, now);
            return Ok(Decision::Allow(flow.rule()));
        }

        may_open(direction, &packet.transport)?;
        let rule = match (session.rules().judge(direction, &key), direction) {
            (Decision::Allow(rule), _) => rule,
            (deny @ Decision::Deny(_), Direction::ToSite) => return Ok(deny),
            (Decision::Deny(_), Direction::ToClient) => return Err(DropReason::NoFlow),
        };
        // A flow that the other side opened with the same addresses and ports: this packet begins it anew.
        if let Some(position) = open {
            self.flows.remove(position);
        }
        let new = NewFlow {
            session: session.session(),
            epoch: session.epoch(),
            rule,
            key: site_key,
            opener: direction,
            transport: &packet.transport,
        };
        let position = self.flows.insert(hash, &new, now)?;
        if let Some(flow) = self.flows.get_mut(position) {
            flow.pass(direction, Some(&packet.transport), bytes, now);
        }
        Ok(Decision::Allow(rule))
    }

    fn decide_fragment(
        &mut self,
        session: &SessionRules,
        direction: Direction,
        packet: &Parsed,
        fragment: Fragment,
        bytes: u32,
        now: BootInstant,
    ) -> Result<Decision, DropReason> {
        let fragments_of = FragmentKey::new(session.session(), direction, packet, fragment);
        let payload_bytes = u32::from(packet.total_bytes.saturating_sub(packet.network_header_bytes));
        if fragment.offset_bytes != 0 {
            let later = self.fragments.later(&fragments_of, fragment, session.epoch(), payload_bytes, now);
            let (rule, site_key) = later.ok_or(DropReason::FragmentWithoutFirst)?;
            let hash = self.flows.hash(session.session(), &site_key);
            let flow = self.live_flow(hash, session, &site_key, now);
            if let Some(flow) = flow.and_then(|position| self.flows.get_mut(position)) {
                flow.pass(direction, None, bytes, now);
            }
            return Ok(Decision::Allow(rule));
        }

        let key = flow_key(packet);
        if key.is_some_and(|key| key.protocol() != fragment.protocol) {
            return Err(DropReason::FragmentHidesTransport);
        }
        if self.fragments.awaits(&fragments_of, session.epoch(), now) {
            return Err(DropReason::DuplicateFirstFragment);
        }
        let decision = self.decide_whole(session, direction, packet, bytes, now)?;
        if let (Decision::Allow(rule), Some(key)) = (decision, key) {
            let site_key = in_site_direction(direction, key);
            self.fragments.first(fragments_of, session.epoch(), rule, site_key, payload_bytes, now)?;
        }
        Ok(decision)
    }

    /// An ICMP error passes as part of the flow whose packet it quotes. It neither counts there nor keeps the flow
    /// open.
    fn decide_icmp_error(
        &mut self,
        session: &SessionRules,
        direction: Direction,
        packet: &Parsed,
        quoted: FlowKey,
        now: BootInstant,
    ) -> Result<Decision, DropReason> {
        if quoted.source() != packet.destination {
            return Err(DropReason::UnrelatedIcmpError);
        }
        let site_key = in_site_direction(direction.reversed(), quoted);
        let hash = self.flows.hash(session.session(), &site_key);
        let flow = self.live_flow(hash, session, &site_key, now).and_then(|position| self.flows.get(position));
        flow.map(|flow| Decision::Allow(flow.rule())).ok_or(DropReason::UnrelatedIcmpError)
    }

    /// The session's flow, if it is neither idle nor refused by the rules in force; such a one is removed.
    ///
    /// A flow judged under another epoch is judged again, as the packet that opened it was.
    #[inline]
    fn live_flow(
        &mut self,
        hash: Hashed,
        session: &SessionRules,
        site_key: &FlowKey,
        now: BootInstant,
    ) -> Option<Position> {
        let position = self.flows.find(hash, session.session(), site_key)?;
        let flow = self.flows.get_mut(position)?;
        if flow.is_idle(now) {
            self.flows.remove(position);
            return None;
        }
        if flow.epoch() != session.epoch() {
            match session.rules().judge(flow.opener(), &flow.opener_key()) {
                Decision::Allow(rule) => flow.allow(session.epoch(), rule),
                Decision::Deny(_) => {
                    self.flows.remove(position);
                    return None;
                }
            }
        }
        Some(position)
    }
}

/// Whether a packet like this may open a flow at all, whatever the rules say.
fn may_open(direction: Direction, transport: &Transport) -> Result<(), DropReason> {
    match (direction, transport) {
        (Direction::ToSite, Transport::IcmpEcho { request: false, .. }) => Err(DropReason::UnsolicitedEchoReply),
        (Direction::ToClient, Transport::IcmpEcho { request: false, .. }) => Err(DropReason::NoFlow),
        (Direction::ToClient, Transport::Tcp { flags, .. }) if !asks_to_open_tcp(*flags) => Err(DropReason::NoFlow),
        _ => Ok(()),
    }
}

/// Whether the packet can only be the beginning of a flow.
fn asks_to_open(transport: &Transport) -> bool {
    match transport {
        Transport::Tcp { flags, .. } => asks_to_open_tcp(*flags),
        Transport::IcmpEcho { request, .. } => *request,
        _ => false,
    }
}

/// The key of a packet as it travels. `None` if its transport has no flow of its own.
#[inline]
fn flow_key(packet: &Parsed) -> Option<FlowKey> {
    let (number, source_port, destination_port) = match packet.transport {
        Transport::Tcp { source_port, destination_port, .. } => (protocol::TCP, source_port, destination_port),
        Transport::Udp { source_port, destination_port } => (protocol::UDP, source_port, destination_port),
        Transport::IcmpEcho { identifier, .. } if packet.source.is_ipv4() => (protocol::ICMP, identifier, identifier),
        Transport::IcmpEcho { identifier, .. } => (protocol::ICMPV6, identifier, identifier),
        Transport::Other { protocol } => (protocol, 0, 0),
        Transport::IcmpError { .. } | Transport::IcmpOther { .. } | Transport::LaterFragment => return None,
    };
    FlowKey::new(packet.source, packet.destination, number, source_port, destination_port)
}

/// `key`, of a packet that travels in `direction`, as packets travel from the client to the site.
#[inline]
const fn in_site_direction(direction: Direction, key: FlowKey) -> FlowKey {
    match direction {
        Direction::ToSite => key,
        Direction::ToClient => key.reversed(),
    }
}
