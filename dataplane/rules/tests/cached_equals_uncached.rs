//! The firewall with its flow cache gives the verdicts of one without: a reference that reads the rules at every
//! packet and keeps the opened flows in a plain list, without epochs, hashes or sweeps.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use common::linear;
use ipnet::IpNet;
use proptest::prelude::*;
use ringfort_packet::flow::FlowKey;
use ringfort_packet::parse::{Fragment, Parsed, Transport};
use ringfort_rules::{
    Action, Decision, Direction, DropReason, Firewall, InnerAddresses, Rule, RuleSet, SessionRules, Verdict,
};
use ringfort_types::{BootInstant, RuleId, SessionId, WorkerIndex};

const SESSIONS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Packet { session: usize, direction: Direction, packet: PacketKind, address: Addressing },
    Install { session: usize, rules: Vec<Rule>, seconds: Option<u64> },
    Revoke { session: usize },
    Replace { session: usize },
    Wait { seconds: u64 },
    Sweep { entries: usize },
}

#[derive(Clone, Copy, Debug)]
struct Addressing {
    ipv6: bool,
    host: u8,
    client_port: u16,
    site_port: u16,
    /// The client's address is that of another session.
    foreign: bool,
}

#[derive(Clone, Copy, Debug)]
enum PacketKind {
    Tcp(u8),
    Udp,
    Echo(bool),
    Other(u8),
    IcmpOther,
    /// An error about a packet of this protocol, sent to the wrong place or not.
    Error {
        protocol: u8,
        astray: bool,
    },
    First {
        identification: u32,
    },
    Later {
        identification: u32,
        more: bool,
    },
    Atomic,
}

fn step() -> impl Strategy<Value = Step> {
    let session = || 0..SESSIONS;
    let direction = || prop_oneof![Just(Direction::ToSite), Just(Direction::ToClient)];
    let flags = prop_oneof![Just(0x02_u8), Just(0x12), Just(0x10), Just(0x11), Just(0x14), Just(0x18)];
    let kind = prop_oneof![
        6 => flags.prop_map(PacketKind::Tcp),
        4 => Just(PacketKind::Udp),
        2 => any::<bool>().prop_map(PacketKind::Echo),
        1 => prop_oneof![Just(47_u8), Just(50)].prop_map(PacketKind::Other),
        1 => Just(PacketKind::IcmpOther),
        2 => (prop_oneof![Just(6_u8), Just(17), Just(1)], any::<bool>())
            .prop_map(|(protocol, astray)| PacketKind::Error { protocol, astray }),
        1 => (0..2_u32).prop_map(|identification| PacketKind::First { identification }),
        2 => (0..2_u32, any::<bool>()).prop_map(|(identification, more)| PacketKind::Later { identification, more }),
        1 => Just(PacketKind::Atomic),
    ];
    let address =
        (any::<bool>(), 0..2_u8, prop_oneof![Just(1_u16), Just(81)], 79..=80_u16, prop::bool::weighted(0.03)).prop_map(
            |(ipv6, host, client_port, site_port, foreign)| Addressing { ipv6, host, client_port, site_port, foreign },
        );
    let seconds = prop_oneof![Just(1_u64), Just(9), Just(10), Just(20), Just(30), Just(60), Just(180), Just(7_200)];
    prop_oneof![
        40 => (session(), direction(), kind, address)
            .prop_map(|(session, direction, packet, address)| Step::Packet { session, direction, packet, address }),
        3 => (session(), rules(), prop_oneof![Just(None), (1..100_u64).prop_map(Some)])
            .prop_map(|(session, rules, seconds)| Step::Install { session, rules, seconds }),
        1 => session().prop_map(|session| Step::Revoke { session }),
        1 => session().prop_map(|session| Step::Replace { session }),
        4 => seconds.prop_map(|seconds| Step::Wait { seconds }),
        2 => (0..6_usize).prop_map(|entries| Step::Sweep { entries }),
    ]
}

/// Rules about the two hosts of each family, mostly allowing, so that flows come about.
fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let networks = prop_oneof![
        3 => Just(vec!["0.0.0.0/0", "::/0"]),
        1 => Just(vec!["10.98.0.0/32", "2001:db8::/128"]),
        1 => Just(vec!["10.98.0.1/32"]),
        1 => Just(vec!["2001:db8::1/128"]),
    ];
    let services = prop::collection::vec(common::service(), 1..4);
    let action = prop_oneof![4 => Just(Action::Allow), 1 => Just(Action::Deny)];
    let rule = (networks, services, action, common::direction()).prop_map(|(networks, services, action, direction)| {
        let networks = networks.iter().map(|network| network.parse::<IpNet>().unwrap()).collect();
        Rule { id: RuleId(0), action, direction, networks, services }
    });
    prop::collection::vec(rule, 0..5).prop_map(|mut rules| {
        for (index, rule) in rules.iter_mut().enumerate() {
            rule.id = RuleId(index as u32);
        }
        rules
    })
}

fn client_address(session: usize, ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, session as u16 + 1).into()
    } else {
        Ipv4Addr::new(100, 64, 0, session as u8 + 1).into()
    }
}

fn host_address(host: u8, ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()).into()
    } else {
        Ipv4Addr::new(10, 98, 0, host).into()
    }
}

fn build(session: usize, direction: Direction, kind: PacketKind, at: Addressing) -> Parsed {
    let session = if at.foreign { SESSIONS } else { session };
    let (client, site) = (client_address(session, at.ipv6), host_address(at.host, at.ipv6));
    let (source, destination, source_port, destination_port) = match direction {
        Direction::ToSite => (client, site, at.client_port, at.site_port),
        Direction::ToClient => (site, client, at.site_port, at.client_port),
    };
    let udp = Transport::Udp { source_port, destination_port };
    let fragment =
        |identification, offset_bytes, more| Some(Fragment { identification, offset_bytes, more, protocol: 17 });
    let (transport, fragment) = match kind {
        PacketKind::Tcp(flags) => (Transport::Tcp { source_port, destination_port, flags }, None),
        PacketKind::Udp => (udp, None),
        PacketKind::Echo(request) => (Transport::IcmpEcho { identifier: at.site_port, request }, None),
        PacketKind::Other(protocol) => (Transport::Other { protocol }, None),
        PacketKind::IcmpOther => (Transport::IcmpOther { kind: 13, code: 0 }, None),
        PacketKind::Error { protocol, astray } => {
            let sender = if astray { host_address(7, at.ipv6) } else { destination };
            let (protocol, source_port, destination_port) = match (protocol, at.ipv6) {
                (1, false) => (1, at.site_port, at.site_port),
                (1, true) => (58, at.site_port, at.site_port),
                _ => (protocol, source_port, destination_port),
            };
            let quoted = FlowKey::new(sender, source, protocol, destination_port, source_port).unwrap();
            (Transport::IcmpError { kind: 3, code: 1, quoted }, None)
        }
        PacketKind::First { identification } => (udp, fragment(identification, 0, true)),
        PacketKind::Later { identification, more } => {
            (Transport::LaterFragment, fragment(identification, if more { 96 } else { 192 }, more))
        }
        PacketKind::Atomic => (udp, fragment(9, 0, false)),
    };
    Parsed { fragment, ..common::packet(source, destination, transport) }
}

/// What the control side told of one session.
struct Told {
    id: SessionId,
    inner: InnerAddresses,
    rules: Vec<Rule>,
    not_after: BootInstant,
}

/// A flow as a list of what happened to it.
struct Opened {
    session: SessionId,
    site_key: FlowKey,
    opener: Direction,
    last_seen: BootInstant,
    /// Direction and transport of each packet; `None` for later fragments.
    packets: Vec<(Direction, Option<Transport>)>,
}

impl Opened {
    fn timeout(&self) -> Duration {
        let answered = self.packets.iter().any(|(direction, it)| *direction != self.opener && it.is_some());
        Duration::from_secs(match self.site_key.protocol() {
            6 => self.tcp_timeout(),
            17 if answered => 180,
            17 => 30,
            1 | 58 => 30,
            _ => 60,
        })
    }

    fn tcp_timeout(&self) -> u64 {
        let (mut answered, mut fins, mut timeout) = (false, [false; 2], 30);
        for (direction, transport) in &self.packets {
            let Some(Transport::Tcp { flags, .. }) = transport else { continue };
            let mine = *direction == self.opener;
            if timeout == 10 && mine && flags & 0x12 == 0x02 {
                (answered, fins, timeout) = (false, [false; 2], 30);
            }
            answered |= !mine;
            fins[usize::from(mine)] |= flags & 0x01 != 0;
            if flags & 0x04 != 0 || fins == [true; 2] {
                timeout = 10;
            } else if timeout == 30 && mine && answered && flags & 0x02 == 0 {
                timeout = 7_200;
            }
        }
        timeout
    }
}

struct Fragmented {
    session: SessionId,
    direction: Direction,
    ends: (IpAddr, IpAddr),
    fragment: Fragment,
    site_key: FlowKey,
    rule: RuleId,
    since: BootInstant,
    passed: u32,
    whole: Option<u32>,
}

#[derive(Default)]
struct Reference {
    flows: Vec<Opened>,
    fragmented: Vec<Fragmented>,
    drops: Vec<DropReason>,
}

impl Reference {
    fn judge(&mut self, told: &Told, direction: Direction, packet: &Parsed, now: BootInstant) -> Verdict {
        let verdict = self.decide(told, direction, packet, now).unwrap_or_else(Verdict::Drop);
        if let Verdict::Drop(reason) = verdict {
            self.drops.push(reason);
        }
        verdict
    }

    fn decide(
        &mut self,
        told: &Told,
        direction: Direction,
        packet: &Parsed,
        now: BootInstant,
    ) -> Result<Verdict, DropReason> {
        if now >= told.not_after {
            return Err(DropReason::Expired);
        }
        match direction {
            Direction::ToSite if !told.inner.contains(packet.source) => return Err(DropReason::SpoofedSource),
            Direction::ToClient if !told.inner.contains(packet.destination) => {
                return Err(DropReason::ForeignDestination);
            }
            _ => {}
        }
        self.forget(now);
        let bytes = u32::from(packet.total_bytes - packet.network_header_bytes);
        if let Some(fragment) = packet.fragment.filter(|it| it.offset_bytes > 0) {
            let at = self.fragments_of(told.id, direction, packet, fragment);
            let at = at.ok_or(DropReason::FragmentWithoutFirst)?;
            let known = &mut self.fragmented[at];
            known.passed += bytes;
            if !fragment.more {
                known.whole = Some(u32::from(fragment.offset_bytes) + bytes);
            }
            let (rule, key) = (known.rule, known.site_key);
            if known.whole.is_some_and(|whole| known.passed >= whole) {
                self.fragmented.remove(at);
            }
            if let Some(flow) = self.meet(told, key) {
                flow.packets.push((direction, None));
                flow.last_seen = now;
            }
            return Ok(Verdict::Pass { rule });
        }

        let key = match packet.transport {
            Transport::Tcp { source_port, destination_port, .. } => (6, source_port, destination_port),
            Transport::Udp { source_port, destination_port } => (17, source_port, destination_port),
            Transport::IcmpEcho { identifier, .. } => {
                (if packet.source.is_ipv4() { 1 } else { 58 }, identifier, identifier)
            }
            Transport::Other { protocol } => (protocol, 0, 0),
            Transport::IcmpError { quoted, .. } => {
                let site_key = if direction == Direction::ToClient { quoted } else { quoted.reversed() };
                if quoted.source() != packet.destination {
                    return Err(DropReason::UnrelatedIcmpError);
                }
                let rule = self.meet(told, site_key).and_then(|flow| allowed(told, flow));
                return rule.map(|rule| Verdict::Pass { rule }).ok_or(DropReason::UnrelatedIcmpError);
            }
            _ => return Err(DropReason::UnsupportedIcmp),
        };
        let key = FlowKey::new(packet.source, packet.destination, key.0, key.1, key.2).unwrap();
        let site_key = if direction == Direction::ToSite { key } else { key.reversed() };

        let first = packet.fragment.filter(|fragment| fragment.more);
        if let Some(fragment) = first
            && self.fragments_of(told.id, direction, packet, fragment).is_some()
        {
            return Err(DropReason::DuplicateFirstFragment);
        }
        let verdict = self.decide_keyed(told, direction, packet.transport, key, site_key, now)?;
        if let (Some(fragment), Verdict::Pass { rule }) = (first, verdict) {
            self.fragmented.push(Fragmented {
                session: told.id,
                direction,
                ends: (packet.source, packet.destination),
                fragment,
                site_key,
                rule,
                since: now,
                passed: bytes,
                whole: None,
            });
        }
        Ok(verdict)
    }

    fn decide_keyed(
        &mut self,
        told: &Told,
        direction: Direction,
        transport: Transport,
        key: FlowKey,
        site_key: FlowKey,
        now: BootInstant,
    ) -> Result<Verdict, DropReason> {
        let (opens, answers_only) = match transport {
            Transport::Tcp { flags, .. } => (flags & 0x12 == 0x02, flags & 0x12 != 0x02),
            Transport::IcmpEcho { request, .. } => (request, !request),
            _ => (false, false),
        };
        if let Some(flow) = self.meet(told, site_key)
            && (flow.opener == direction || !opens)
        {
            flow.packets.push((direction, Some(transport)));
            flow.last_seen = now;
            let rule = allowed(told, flow).expect("meet() removed the others");
            return Ok(Verdict::Pass { rule });
        }
        let is_echo = matches!(transport, Transport::IcmpEcho { .. });
        let rule = match (linear(&told.rules, &[], direction, &key), direction) {
            _ if answers_only && is_echo && direction == Direction::ToSite => {
                return Err(DropReason::UnsolicitedEchoReply);
            }
            _ if answers_only && direction == Direction::ToClient => return Err(DropReason::NoFlow),
            (Decision::Allow(rule), _) => rule,
            (Decision::Deny(rule), Direction::ToSite) => return Ok(Verdict::Deny { rule }),
            (Decision::Deny(_), Direction::ToClient) => return Err(DropReason::NoFlow),
        };
        self.flows.retain(|flow| flow.session != told.id || flow.site_key != site_key);
        self.flows.push(Opened {
            session: told.id,
            site_key,
            opener: direction,
            last_seen: now,
            packets: vec![(direction, Some(transport))],
        });
        Ok(Verdict::Pass { rule })
    }

    /// What is idle or too old.
    fn forget(&mut self, now: BootInstant) {
        self.flows.retain(|flow| now.saturating_since(flow.last_seen) < flow.timeout());
        self.fragmented.retain(|it| now.saturating_since(it.since) < Duration::from_secs(30));
    }

    /// The flow that a packet meets; a flow that the rules of the moment refuse ends where a packet meets it.
    fn meet(&mut self, told: &Told, site_key: FlowKey) -> Option<&mut Opened> {
        let its = |flow: &Opened| flow.session == told.id && flow.site_key == site_key;
        self.flows.retain(|flow| !its(flow) || allowed(told, flow).is_some());
        self.flows.iter_mut().find(|flow| its(flow))
    }

    fn fragments_of(
        &self,
        session: SessionId,
        direction: Direction,
        packet: &Parsed,
        fragment: Fragment,
    ) -> Option<usize> {
        self.fragmented.iter().position(|it| {
            it.session == session
                && it.direction == direction
                && it.ends == (packet.source, packet.destination)
                && it.fragment.identification == fragment.identification
                && it.fragment.protocol == fragment.protocol
        })
    }
}

/// The rule that lets the flow's opener open it under the rules of the moment.
fn allowed(told: &Told, flow: &Opened) -> Option<RuleId> {
    let key = if flow.opener == Direction::ToSite { flow.site_key } else { flow.site_key.reversed() };
    match linear(&told.rules, &[], flow.opener, &key) {
        Decision::Allow(rule) => Some(rule),
        Decision::Deny(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    // Covers: K3 allow
    // Covers: K3 refuse
    #[test]
    fn cached_equals_uncached(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..120)) {
        let mut next_session = 0..;
        let mut session = |place: usize| {
            let id = SessionId::new(WorkerIndex(0), next_session.next().unwrap());
            let inner = InnerAddresses {
                ipv4: client_address(place, false).to_string().parse().ok(),
                ipv6: client_address(place, true).to_string().parse().ok(),
            };
            let told = Told { id, inner, rules: Vec::new(), not_after: BootInstant::FAR_FUTURE };
            (SessionRules::new(id, inner), told)
        };
        let mut sessions: Vec<_> = (0..SESSIONS).map(&mut session).collect();
        let mut firewall = Firewall::new(seed);
        let mut reference = Reference::default();
        let mut now = BootInstant::from_nanos(1);

        for step in steps {
            match step {
                Step::Packet { session, direction, packet, address } => {
                    let (rules, told) = &sessions[session];
                    let packet = build(session, direction, packet, address);
                    let bytes = packet.total_bytes.into();
                    prop_assert_eq!(
                        firewall.judge(rules, direction, &packet, bytes, now),
                        reference.judge(told, direction, &packet, now),
                        "{:?} {:?}", direction, packet
                    );
                }
                Step::Install { session, rules, seconds } => {
                    let (installed, told) = &mut sessions[session];
                    told.not_after =
                        seconds.map_or(BootInstant::FAR_FUTURE, |seconds| now + Duration::from_secs(seconds));
                    installed.install(Arc::new(RuleSet::compile(&rules, &[]).unwrap()), told.not_after);
                    told.rules = rules;
                    reference.fragmented.retain(|it| it.session != told.id);
                }
                Step::Revoke { session } => {
                    let (installed, told) = &mut sessions[session];
                    installed.revoke();
                    told.rules.clear();
                    told.not_after = BootInstant::FAR_FUTURE;
                    reference.fragmented.retain(|it| it.session != told.id);
                }
                Step::Replace { session: place } => {
                    firewall.close_session(sessions[place].1.id);
                    sessions[place] = session(place);
                }
                Step::Wait { seconds } => now = now + Duration::from_secs(seconds),
                Step::Sweep { entries } => firewall.sweep(now, entries),
            }
        }

        for reason in DropReason::ALL {
            let expected = reference.drops.iter().filter(|dropped| *dropped == reason).count();
            prop_assert_eq!(firewall.drops().get(*reason), expected as u64, "{}", reason.name());
        }
        reference.forget(now);
        for flow in reference.flows.iter().filter(|flow| sessions.iter().any(|(_, told)| told.id == flow.session)) {
            let counted = firewall.flow(flow.session, &flow.site_key).expect("a flow that is not idle is kept");
            for direction in [Direction::ToSite, Direction::ToClient] {
                let packets = flow.packets.iter().filter(|(it, _)| *it == direction).count();
                prop_assert_eq!(counted.traffic(direction).packets, packets as u64);
            }
        }
    }
}
