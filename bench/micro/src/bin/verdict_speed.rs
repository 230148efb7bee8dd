//! Nanoseconds per verdict: how much does a packet cost in the firewall, when its flow is known and when not?
//!
//! `cargo run --release -p ringfort-micro --bin verdict_speed`. Pin it to one core (`taskset -c 1`); each
//! figure is the best of many rounds of about a millisecond, as everything else on the machine can only add to it.
//! The hits of 100,000 flows read 11 MB of packets and 14 MB of flows in every round, more than a core's caches hold.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ringfort_packet::flow::{FlowKey, protocol};
use ringfort_packet::parse::{Parsed, Transport};
use ringfort_rules::{
    Action, Direction, FLOWS_PER_SESSION_MAX, Firewall, InnerAddresses, PortRange, Rule, RuleSet, Service,
    SessionRules, Verdict,
};
use ringfort_types::{BootInstant, RuleId, SessionId, WorkerIndex};

const ROUNDS: usize = 300;
const VERDICTS: usize = 50_000;
const RULES: u32 = 1_000;

fn main() {
    let rules = rules();
    let started = Instant::now();
    let compiled = match RuleSet::compile(&rules, &[]) {
        Ok(compiled) => Arc::new(compiled),
        Err(error) => {
            eprintln!("the rules were not compiled: {error}");
            std::process::exit(1);
        }
    };
    println!("compile {RULES} rules: {:.0} us", started.elapsed().as_secs_f64() * 1e6);

    for family in ["IPv4", "IPv6"] {
        let keys: Vec<FlowKey> = (0..65_536_u32).filter_map(|n| key_of(&packet(family, 0, n))).collect();
        report(&format!("{family} rule set, no cache (miss)"), keys.len(), |n| {
            black_box(compiled.judge(Direction::ToSite, black_box(&keys[n])));
        });
        for flows in [16, 1_000, 100_000] {
            hits(family, flows, &compiled);
        }
        open_and_refuse(family, &compiled);
    }
}

/// Packets of open flows, in an order that no prefetcher knows.
fn hits(family: &str, flows: u32, compiled: &Arc<RuleSet>) {
    let sessions = sessions(flows.div_ceil(FLOWS_PER_SESSION_MAX), compiled);
    let mut firewall = Firewall::with_flows_max(flows as usize, 0x5eed_5eed);
    let now = BootInstant::from_nanos(1);
    let packets: Vec<(usize, Parsed)> = shuffled(flows)
        .map(|n| ((n / FLOWS_PER_SESSION_MAX) as usize, packet(family, n / FLOWS_PER_SESSION_MAX, n)))
        .collect();
    for (session, packet) in &packets {
        let verdict = firewall.judge(&sessions[*session], Direction::ToSite, packet, 1_400, now);
        assert!(matches!(verdict, Verdict::Pass { .. }), "{verdict:?}");
    }
    report(&format!("{family} flow cache hit, {flows} flows"), packets.len(), |n| {
        let (session, packet) = &packets[n];
        black_box(firewall.judge(&sessions[*session], Direction::ToSite, black_box(packet), 1_400, now));
    });
    assert_eq!(firewall.flow_count(), flows as usize);
}

/// A packet that opens a flow (look-up, rules, insertion, and the removal of an idle one), and one that rules deny.
fn open_and_refuse(family: &str, compiled: &Arc<RuleSet>) {
    let sessions = sessions(1, compiled);
    let mut firewall = Firewall::new(0x5eed_5eed);
    let packets: Vec<Parsed> = shuffled(4_096).map(|n| packet(family, 0, n)).collect();
    let mut now = BootInstant::from_nanos(1);
    report(&format!("{family} idle flow opened anew"), packets.len(), |n| {
        if n == 0 {
            now = now + Duration::from_secs(60);
        }
        black_box(firewall.judge(&sessions[0], Direction::ToSite, black_box(&packets[n]), 1_400, now));
    });
    let refused: Vec<Parsed> = packets.iter().map(|packet| with_port(*packet, 7)).collect();
    report(&format!("{family} denied"), refused.len(), |n| {
        black_box(firewall.judge(&sessions[0], Direction::ToSite, black_box(&refused[n]), 1_400, now));
    });
}

fn report(what: &str, items: usize, mut verdict: impl FnMut(usize)) {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let mut done = 0;
        while done < VERDICTS {
            for n in 0..items {
                verdict(n);
            }
            done += items;
        }
        best = best.min(started.elapsed().as_secs_f64() * 1e9 / done as f64);
    }
    println!("{what}: {best:.1} ns");
}

/// One rule per service host, as an entitlement list reads: a /32 or /128 and a few ports each.
fn rules() -> Vec<Rule> {
    (0..RULES)
        .map(|n| Rule {
            id: RuleId(n),
            action: Action::Allow,
            direction: Direction::ToSite,
            networks: vec![IpNet::V4(Ipv4Net::from(site_ipv4(n))), IpNet::V6(Ipv6Net::from(site_ipv6(n)))],
            services: [22, 80, 443, 5_432].map(|port| Service::Udp(PortRange::single(port + (n % 7) as u16))).to_vec(),
        })
        .collect()
}

fn sessions(count: u32, rules: &Arc<RuleSet>) -> Vec<SessionRules> {
    (0..count)
        .map(|n| {
            let inner = InnerAddresses { ipv4: Some(inner_ipv4(n)), ipv6: Some(inner_ipv6(n)) };
            let mut session = SessionRules::new(SessionId::new(WorkerIndex(0), n.into()), inner);
            session.install(rules.clone(), BootInstant::FAR_FUTURE);
            session
        })
        .collect()
}

/// The `n`-th flow: spread over the rules' hosts by `n`, allowed by the rule of its host.
fn packet(family: &str, session: u32, n: u32) -> Parsed {
    let host = n.wrapping_mul(0x9e37_79b1) % RULES;
    let (source, destination): (IpAddr, IpAddr) = match family {
        "IPv4" => (inner_ipv4(session).into(), site_ipv4(host).into()),
        _ => (inner_ipv6(session).into(), site_ipv6(host).into()),
    };
    Parsed {
        source,
        destination,
        network_header_bytes: 40,
        total_bytes: 1_400,
        fragment: None,
        transport: Transport::Udp { source_port: n as u16, destination_port: 443 + (host % 7) as u16 },
    }
}

fn with_port(mut packet: Parsed, port: u16) -> Parsed {
    packet.transport = Transport::Udp { source_port: 1, destination_port: port };
    packet
}

fn key_of(packet: &Parsed) -> Option<FlowKey> {
    let Transport::Udp { source_port, destination_port } = packet.transport else { return None };
    FlowKey::new(packet.source, packet.destination, protocol::UDP, source_port, destination_port)
}

fn inner_ipv4(session: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x6440_0000 + session)
}

fn inner_ipv6(session: u32) -> Ipv6Addr {
    Ipv6Addr::from((0xfd00_u128 << 112) + u128::from(session))
}

fn site_ipv4(host: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + host * 3)
}

fn site_ipv6(host: u32) -> Ipv6Addr {
    Ipv6Addr::from((0x2001_0db8_u128 << 96) + u128::from(host * 3))
}

/// 0 to `count - 1` in a fixed disorder (a full-period generator modulo 2³², cut to the range).
fn shuffled(count: u32) -> impl Iterator<Item = u32> {
    let modulus = count.next_power_of_two();
    let mut state = 1_u32;
    (0..modulus)
        .map(move |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) & (modulus - 1);
            state
        })
        .filter(move |n| *n < count)
}
