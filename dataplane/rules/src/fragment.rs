//! Verdicts of first fragments, for the fragments behind them that carry no ports.
//!
//! Fragments are not reassembled and overlaps among later fragments are left to the receiver. The ports that were
//! judged cannot be overlaid: they lie in the first 8 bytes behind offset 0 (first fragments for which that is not
//! so never come here), and no later fragment begins below offset 8.

use std::net::IpAddr;
use std::time::Duration;

use ringfort_packet::flow::FlowKey;
use ringfort_packet::parse::{Fragment, Parsed};
use ringfort_types::{BootInstant, RuleEpoch, RuleId, SessionId};

use crate::drops::DropReason;
use crate::rule::Direction;
use crate::table::{BoundedTable, Hashed, Position, Seed};
use crate::tally::SessionTally;

/// Fragmented packets whose fragments one worker awaits at a time. One takes 192 bytes and two slots of 8 bytes:
/// about 1 MB when the table is full. An entry goes when all its bytes have passed, so that this many packets
/// must be *incomplete* to fill it. At the limit a new first fragment is dropped and counted.
pub const FRAGMENTED_PACKETS_MAX: usize = 4_096;

/// The same for one session, a sixteenth of the table. At the limit that session's new first fragment is dropped.
pub const FRAGMENTED_PACKETS_PER_SESSION_MAX: u32 = 256;

/// How long later fragments may follow the first: what Linux grants a reassembly (`ipfrag_time`), between the
/// 15 s of RFC 791 and the 60 s of RFC 8200 §4.5.
pub const FRAGMENT_LIFETIME: Duration = Duration::from_secs(30);

/// Entries that a packet may sweep when the table is full.
const SWEPT_WHEN_FULL: usize = 32;

/// What names one fragmented packet (RFC 791 §3.2, RFC 8200 §4.5), among the packets of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FragmentKey {
    session: SessionId,
    direction: Direction,
    source: IpAddr,
    destination: IpAddr,
    identification: u32,
    protocol: u8,
}

impl FragmentKey {
    pub(crate) const fn new(session: SessionId, direction: Direction, packet: &Parsed, fragment: Fragment) -> Self {
        Self {
            session,
            direction,
            source: packet.source,
            destination: packet.destination,
            identification: fragment.identification,
            protocol: fragment.protocol,
        }
    }
}

/// A packet whose first fragment passed.
#[derive(Clone, Debug)]
pub(crate) struct FragmentedPacket {
    key: FragmentKey,
    epoch: RuleEpoch,
    expires: BootInstant,
    /// The rule that passed the first fragment.
    pub(crate) rule: RuleId,
    /// Its flow, as packets travel from the client to the site.
    pub(crate) flow: FlowKey,
    /// Payload bytes that passed so far.
    passed_bytes: u32,
    /// Payload bytes of the whole packet, once its last fragment told.
    whole_bytes: Option<u32>,
}

#[derive(Clone, Debug)]
pub(crate) struct FragmentTable {
    seed: Seed,
    packets: BoundedTable<FragmentedPacket>,
    sessions: SessionTally,
}

impl FragmentTable {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed: Seed::new(seed),
            packets: BoundedTable::new(FRAGMENTED_PACKETS_MAX),
            sessions: SessionTally::new(FRAGMENTED_PACKETS_MAX, FRAGMENTED_PACKETS_PER_SESSION_MAX, seed),
        }
    }

    /// Whether the first fragment of this packet passed under `epoch` and fragments of it are still awaited.
    pub(crate) fn awaits(&self, key: &FragmentKey, epoch: RuleEpoch, now: BootInstant) -> bool {
        self.find(key).1.and_then(|position| self.packets.get(position)).is_some_and(|it| it.is_live(epoch, now))
    }

    /// Remembers that the first fragment passed, under `rule` and as a packet of `flow`.
    pub(crate) fn first(
        &mut self,
        key: FragmentKey,
        epoch: RuleEpoch,
        rule: RuleId,
        flow: FlowKey,
        payload_bytes: u32,
        now: BootInstant,
    ) -> Result<(), DropReason> {
        let (hash, stale) = self.find(&key);
        if let Some(position) = stale {
            self.remove(position);
        }
        if self.packets.is_full() {
            self.sweep(now, SWEPT_WHEN_FULL);
        }
        if self.packets.is_full() {
            return Err(DropReason::FragmentTableFull);
        }
        if !self.sessions.admit(key.session) {
            return Err(DropReason::SessionFragmentLimit);
        }
        let expires = now + FRAGMENT_LIFETIME;
        let packet =
            FragmentedPacket { key, epoch, expires, rule, flow, passed_bytes: payload_bytes, whole_bytes: None };
        self.packets.insert(hash, packet).map(|_| ()).map_err(|_| {
            self.sessions.release(key.session);
            DropReason::FragmentTableFull
        })
    }

    /// The rule and the flow under which a later fragment passes, if its first did. The entry goes with the
    /// fragment that completes the packet.
    pub(crate) fn later(
        &mut self,
        key: &FragmentKey,
        fragment: Fragment,
        epoch: RuleEpoch,
        payload_bytes: u32,
        now: BootInstant,
    ) -> Option<(RuleId, FlowKey)> {
        let position = self.find(key).1?;
        let packet = self.packets.get_mut(position)?;
        if !packet.is_live(epoch, now) {
            self.remove(position);
            return None;
        }
        let passed = (packet.rule, packet.flow);
        packet.passed_bytes = packet.passed_bytes.saturating_add(payload_bytes);
        if !fragment.more {
            packet.whole_bytes = Some(u32::from(fragment.offset_bytes) + payload_bytes);
        }
        if packet.whole_bytes.is_some_and(|whole| packet.passed_bytes >= whole) {
            self.remove(position);
        }
        Some(passed)
    }

    /// Fragments of a session that has ended are forgotten by the sweeps that follow.
    pub(crate) fn close_session(&mut self, session: SessionId) {
        self.sessions.close(session);
    }

    /// Visits at most `entries` entries and removes those that are too old or whose session has ended.
    pub(crate) fn sweep(&mut self, now: BootInstant, entries: usize) {
        let Self { packets, sessions, .. } = self;
        packets.sweep(entries, |packet| {
            let dead = now >= packet.expires || sessions.is_closed(packet.key.session);
            if dead {
                sessions.release(packet.key.session);
            }
            dead
        });
    }

    fn find(&self, key: &FragmentKey) -> (Hashed, Option<Position>) {
        let hash = self.seed.hash(key);
        (hash, self.packets.find(hash, |packet| packet.key == *key))
    }

    fn remove(&mut self, position: Position) {
        if let Some(packet) = self.packets.remove(position) {
            self.sessions.release(packet.key.session);
        }
    }
}

impl FragmentedPacket {
    fn is_live(&self, epoch: RuleEpoch, now: BootInstant) -> bool {
        self.epoch == epoch && now < self.expires
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragmented_packet_takes_three_cache_lines() {
        assert_eq!(BoundedTable::<FragmentedPacket>::ENTRY_BYTES, 192);
    }
}
