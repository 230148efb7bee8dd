//! The flow table: which flows are open, under which rule, and for how long still.

use std::time::Duration;

use ringfort_packet::flow::FlowKey;
use ringfort_packet::parse::Transport;
use ringfort_types::{BootInstant, RuleEpoch, RuleId, SessionId};

use crate::drops::DropReason;
use crate::rule::Direction;
use crate::table::{BoundedTable, Hashed, Position, Seed};
use crate::tally::SessionTally;

/// Flows of one worker, unless its maker says otherwise. A flow takes 128 bytes and two slots of 8: 9.4 MB when the
/// table is full. The count of each session's flows takes another 80 bytes per session that has any. Memory of
/// entries that were never used is never touched. At the limit a new flow is dropped and counted; open ones go on.
pub const FLOWS_MAX: usize = 65_536;

/// Flows of one session, an eighth of the table: one client, however broken, leaves room for others. At the limit
/// that session's new flow is dropped and counted.
pub const FLOWS_PER_SESSION_MAX: u32 = 8_192;

/// Entries that a packet may sweep when its new flow finds the table full. Bounds that packet's cost.
const SWEPT_WHEN_FULL: usize = 32;

/// Packets and bytes of one direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets that passed.
    pub packets: u64,
    /// Their bytes, as the caller counted them.
    pub bytes: u64,
}

/// How far a flow has come, as far as its idle time-out needs it. Sequence numbers are not followed.
///
/// ```text
/// TCP        opening  --answered, then opener's ACK-->  established
///            any      --RST, or FIN both ways-------->  closing
///            closing  --opener's SYN----------------->  opening
/// UDP        one-way  --answered--------------------->  two-way
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// TCP before the opener's first packet after an answer.
    TcpOpening,
    /// TCP with packets both ways.
    TcpEstablished,
    /// TCP after an RST, or a FIN from both sides. A flow that stays busy stays open, as a forged RST that the
    /// peer ignores must not cut it.
    TcpClosing,
    /// UDP without an answer so far.
    UdpOneWay,
    /// UDP with packets both ways.
    UdpTwoWay,
    /// ICMP or ICMPv6 echo.
    Echo,
    /// Another IP protocol.
    Other,
}

impl FlowState {
    /// How long a flow in this state stays open without a packet.
    #[must_use]
    pub const fn idle_timeout(self) -> Duration {
        Duration::from_secs(match self {
            // A SYN is sent again after 1, 3, 7 and 15 s; an unanswered one is given up soon after.
            Self::TcpOpening => 30,
            // Keep-alives come every two hours by default (RFC 9293 §3.8.4).
            Self::TcpEstablished => 2 * 60 * 60,
            // Enough for the last ACKs and their repeats.
            Self::TcpClosing => 10,
            Self::UdpOneWay => 30,
            // RFC 4787 REQ-5 asks for 120 s or more.
            Self::UdpTwoWay => 180,
            Self::Echo => 30,
            Self::Other => 60,
        })
    }

    fn first(transport: &Transport) -> Self {
        match transport {
            Transport::Tcp { .. } => Self::TcpOpening,
            Transport::Udp { .. } => Self::UdpOneWay,
            Transport::IcmpEcho { .. } => Self::Echo,
            _ => Self::Other,
        }
    }
}

/// TCP flag bits that the state follows.
pub(crate) mod flag {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const ACK: u8 = 0x10;
}

/// One open flow of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    key: FlowKey,
    session: SessionId,
    epoch: RuleEpoch,
    rule: RuleId,
    last_seen: BootInstant,
    to_site: Traffic,
    to_client: Traffic,
    opener: Direction,
    state: FlowState,
    answered: bool,
    fin_from_opener: bool,
    fin_from_answerer: bool,
}

impl Flow {
    /// The flow's key as its packets travel from the client to the site.
    #[must_use]
    pub const fn key(&self) -> FlowKey {
        self.key
    }

    /// The rule that allowed it when its packets were last judged.
    #[must_use]
    pub const fn rule(&self) -> RuleId {
        self.rule
    }

    /// The direction of the packet that opened it.
    #[must_use]
    pub const fn opener(&self) -> Direction {
        self.opener
    }

    /// How far it has come.
    #[must_use]
    pub const fn state(&self) -> FlowState {
        self.state
    }

    /// What passed in `direction`.
    #[must_use]
    pub const fn traffic(&self, direction: Direction) -> Traffic {
        match direction {
            Direction::ToSite => self.to_site,
            Direction::ToClient => self.to_client,
        }
    }

    /// The key as the opener's packets carry it: the one that rules judge.
    pub(crate) fn opener_key(&self) -> FlowKey {
        match self.opener {
            Direction::ToSite => self.key,
            Direction::ToClient => self.key.reversed(),
        }
    }

    pub(crate) const fn epoch(&self) -> RuleEpoch {
        self.epoch
    }

    pub(crate) fn allow(&mut self, epoch: RuleEpoch, rule: RuleId) {
        self.epoch = epoch;
        self.rule = rule;
    }

    pub(crate) fn is_idle(&self, now: BootInstant) -> bool {
        now >= self.last_seen + self.state.idle_timeout()
    }

    /// Counts a packet of the flow and moves its state on. `transport` is `None` for later fragments.
    #[inline]
    pub(crate) fn pass(&mut self, direction: Direction, transport: Option<&Transport>, bytes: u32, now: BootInstant) {
        let traffic = match direction {
            Direction::ToSite => &mut self.to_site,
            Direction::ToClient => &mut self.to_client,
        };
        traffic.packets += 1;
        traffic.bytes += u64::from(bytes);
        self.last_seen = now;
        match transport {
            Some(Transport::Tcp { flags, .. }) => self.advance_tcp(direction, *flags),
            Some(Transport::Udp { .. }) if direction != self.opener => self.state = FlowState::UdpTwoWay,
            _ => {}
        }
    }

    fn advance_tcp(&mut self, direction: Direction, flags: u8) {
        let from_opener = direction == self.opener;
        if self.state == FlowState::TcpClosing && from_opener && asks_to_open_tcp(flags) {
            self.state = FlowState::TcpOpening;
            (self.answered, self.fin_from_opener, self.fin_from_answerer) = (false, false, false);
        }
        if from_opener {
            self.fin_from_opener |= flags & flag::FIN != 0;
        } else {
            self.fin_from_answerer |= flags & flag::FIN != 0;
            self.answered = true;
        }
        if flags & flag::RST != 0 || (self.fin_from_opener && self.fin_from_answerer) {
            self.state = FlowState::TcpClosing;
        } else if self.state == FlowState::TcpOpening && from_opener && self.answered && flags & flag::SYN == 0 {
            self.state = FlowState::TcpEstablished;
        }
    }
}

/// A SYN without an ACK.
pub(crate) const fn asks_to_open_tcp(flags: u8) -> bool {
    flags & (flag::SYN | flag::ACK) == flag::SYN
}

/// What a new entry starts from.
pub(crate) struct NewFlow<'a> {
    pub(crate) session: SessionId,
    pub(crate) epoch: RuleEpoch,
    pub(crate) rule: RuleId,
    /// As packets travel from the client to the site.
    pub(crate) key: FlowKey,
    pub(crate) opener: Direction,
    pub(crate) transport: &'a Transport,
}

/// The open flows of one worker's sessions.
#[derive(Clone, Debug)]
pub(crate) struct FlowTable {
    seed: Seed,
    flows: BoundedTable<Flow>,
    sessions: SessionTally,
}

impl FlowTable {
    pub(crate) fn new(flows_max: usize, seed: u64) -> Self {
        Self {
            seed: Seed::new(seed),
            flows: BoundedTable::new(flows_max),
            sessions: SessionTally::new(flows_max, FLOWS_PER_SESSION_MAX, seed),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    #[inline]
    pub(crate) fn hash(&self, session: SessionId, key: &FlowKey) -> Hashed {
        self.seed.hash(&(key, session))
    }

    #[inline]
    pub(crate) fn find(&self, hash: Hashed, session: SessionId, key: &FlowKey) -> Option<Position> {
        self.flows.find(hash, |flow| flow.session == session && flow.key == *key)
    }

    pub(crate) fn get(&self, position: Position) -> Option<&Flow> {
        self.flows.get(position)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, position: Position) -> Option<&mut Flow> {
        self.flows.get_mut(position)
    }

    pub(crate) fn remove(&mut self, position: Position) {
        if let Some(flow) = self.flows.remove(position) {
            self.sessions.release(flow.session);
        }
    }

    /// Adds the flow, which is not in the table.
    pub(crate) fn insert(&mut self, hash: Hashed, new: &NewFlow<'_>, now: BootInstant) -> Result<Position, DropReason> {
        if self.flows.is_full() {
            self.sweep(now, SWEPT_WHEN_FULL);
        }
        if self.flows.is_full() {
            return Err(DropReason::FlowTableFull);
        }
        if !self.sessions.admit(new.session) {
            return Err(DropReason::SessionFlowLimit);
        }
        let flow = Flow {
            key: new.key,
            session: new.session,
            epoch: new.epoch,
            rule: new.rule,
            last_seen: now,
            to_site: Traffic::default(),
            to_client: Traffic::default(),
            opener: new.opener,
            state: FlowState::first(new.transport),
            answered: false,
            fin_from_opener: false,
            fin_from_answerer: false,
        };
        self.flows.insert(hash, flow).map_err(|_| {
            self.sessions.release(new.session);
            DropReason::FlowTableFull
        })
    }

    /// Flows of a session that has ended are removed by the sweeps that follow.
    pub(crate) fn close_session(&mut self, session: SessionId) {
        self.sessions.close(session);
    }

    /// Visits at most `entries` flows and removes those that are idle or whose session has ended.
    pub(crate) fn sweep(&mut self, now: BootInstant, entries: usize) {
        let Self { flows, sessions, .. } = self;
        flows.sweep(entries, |flow| {
            let dead = flow.is_idle(now) || sessions.is_closed(flow.session);
            if dead {
                sessions.release(flow.session);
            }
            dead
        });
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::WorkerIndex;

    use super::*;

    #[test]
    fn a_flow_takes_two_cache_lines() {
        assert_eq!(BoundedTable::<Flow>::ENTRY_BYTES, 128);
    }

    #[test]
    fn equal_hashes_do_not_make_a_flow_another_sessions() {
        let [mine, other] = [1, 2].map(|count| SessionId::new(WorkerIndex(0), count));
        let key = FlowKey::new([100, 64, 0, 2].into(), [10, 98, 0, 10].into(), 17, 4_000, 80).unwrap();
        let transport = Transport::Udp { source_port: 4_000, destination_port: 80 };
        let new = NewFlow {
            session: mine,
            epoch: RuleEpoch(1),
            rule: RuleId(1),
            key,
            opener: Direction::ToSite,
            transport: &transport,
        };
        let mut table = FlowTable::new(4, 0);
        let hash = table.hash(mine, &key);
        let position = table.insert(hash, &new, BootInstant::default()).unwrap();
        assert_eq!(table.find(hash, mine, &key), Some(position));
        assert_eq!(table.find(hash, other, &key), None);
        assert_eq!(table.find(hash, mine, &key.reversed()), None);
    }
}
