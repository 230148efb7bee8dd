//! The compiled rule set says of every packet what reading the rules one by one says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::linear;
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::Index;
use ringfort_packet::flow::FlowKey;
use ringfort_rules::{
    ADDRESS_RANGES_MAX, Action, CompileError, Decision, Direction, PORT_RANGES_MAX, PortRange, RULES_MAX, Rule,
    RuleSet, Service,
};
use ringfort_types::RuleId;

/// Rule sets and packets for each: 2,000 × 64 cases.
const RULE_SETS: u32 = 2_000;
const PACKETS: usize = 64;

#[derive(Clone, Debug)]
struct Probe {
    direction: Direction,
    network: Index,
    at_end: bool,
    offset: i8,
    protocol: u8,
    port: u16,
}

fn probe() -> impl Strategy<Value = Probe> {
    (
        prop_oneof![Just(Direction::ToSite), Just(Direction::ToClient)],
        any::<Index>(),
        any::<bool>(),
        -1..=1_i8,
        prop_oneof![3 => Just(6_u8), 3 => Just(17), 1 => Just(1), 1 => Just(58), 1 => Just(47), 1 => Just(99)],
        common::port(),
    )
        .prop_map(|(direction, network, at_end, offset, protocol, port)| Probe {
            direction,
            network,
            at_end,
            offset,
            protocol,
            port,
        })
}

impl Probe {
    /// A packet at, or next to, an edge of one of the networks.
    fn key(&self, networks: &[IpNet]) -> FlowKey {
        let network = *self.network.get(networks);
        let edge = if self.at_end { network.broadcast() } else { network.network() };
        let site: IpAddr = match edge {
            IpAddr::V4(edge) => Ipv4Addr::from(u32::from(edge).wrapping_add_signed(self.offset.into())).into(),
            IpAddr::V6(edge) => Ipv6Addr::from(u128::from(edge).wrapping_add_signed(self.offset.into())).into(),
        };
        let client: IpAddr =
            if site.is_ipv4() { Ipv4Addr::new(100, 64, 0, 2).into() } else { Ipv6Addr::LOCALHOST.into() };
        let (source, destination) = match self.direction {
            Direction::ToSite => (client, site),
            Direction::ToClient => (site, client),
        };
        FlowKey::new(source, destination, self.protocol, 40_000, self.port).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(RULE_SETS))]

    #[test]
    fn compiled_equals_linear(
        rules in common::rules(12),
        guarded in prop::collection::vec(common::network(), 0..4),
        somewhere in common::network(),
        probes in prop::collection::vec(probe(), PACKETS),
    ) {
        let compiled = RuleSet::compile(&rules, &guarded).unwrap();
        let mut networks = vec![somewhere];
        networks.extend(rules.iter().flat_map(|rule| &rule.networks).chain(&guarded));
        for probe in probes {
            let key = probe.key(&networks);
            prop_assert_eq!(
                compiled.judge(probe.direction, &key),
                linear(&rules, &guarded, probe.direction, &key),
                "{:?} {:?}", probe.direction, key
            );
        }
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn allow(id: u32, networks: &[&str], services: &[Service]) -> Rule {
    Rule {
        id: RuleId(id),
        action: Action::Allow,
        direction: Direction::ToSite,
        networks: networks.iter().map(|network| net(network)).collect(),
        services: services.to_vec(),
    }
}

fn to_site(rules: &RuleSet, destination: &str, protocol: u8, port: u16) -> Decision {
    let destination: IpAddr = destination.parse().unwrap();
    let source: IpAddr = if destination.is_ipv4() { "100.64.0.2" } else { "fd00::2" }.parse().unwrap();
    rules.judge(Direction::ToSite, &FlowKey::new(source, destination, protocol, 40_000, port).unwrap())
}

// Covers: A13 refuse
#[test]
fn nothing_is_allowed_without_a_rule() {
    for rules in [RuleSet::deny_all(), RuleSet::compile(&[], &[]).unwrap()] {
        for protocol in [1, 6, 17, 47, 58] {
            assert_eq!(to_site(&rules, "10.98.0.10", protocol, 80), Decision::Deny(None));
            assert_eq!(to_site(&rules, "2001:db8::10", protocol, 80), Decision::Deny(None));
        }
    }
}

// Covers: A13 allow
// Covers: C5 allow
// Covers: C5 refuse
#[test]
fn a_rule_allows_its_ports_and_no_others() {
    let rules = [allow(7, &["10.98.0.0/24"], &[Service::Tcp(PortRange::new(8_000, 8_999).unwrap())])];
    let rules = RuleSet::compile(&rules, &[]).unwrap();
    assert_eq!(to_site(&rules, "10.98.0.10", 6, 7_999), Decision::Deny(None));
    assert_eq!(to_site(&rules, "10.98.0.10", 6, 8_000), Decision::Allow(RuleId(7)));
    assert_eq!(to_site(&rules, "10.98.0.255", 6, 8_999), Decision::Allow(RuleId(7)));
    assert_eq!(to_site(&rules, "10.98.0.10", 6, 9_000), Decision::Deny(None));
    assert_eq!(to_site(&rules, "10.98.0.10", 17, 8_000), Decision::Deny(None));
    assert_eq!(to_site(&rules, "10.98.1.0", 6, 8_000), Decision::Deny(None));
}

// Covers: C4 allow
// Covers: C4 refuse
#[test]
fn any_tcp_udp_and_echo_can_be_allowed_apart() {
    let hosts = ["10.98.0.1/32", "2001:db8::1/128"];
    let services = [Service::Tcp(PortRange::ALL), Service::Udp(PortRange::ALL), Service::Echo];
    let protocols = [[6, 6], [17, 17], [1, 58]];
    for (n, service) in services.iter().enumerate() {
        let rules = RuleSet::compile(&[allow(1, &hosts, &[*service])], &[]).unwrap();
        for (m, protocol) in protocols.iter().enumerate() {
            for port in [0, 1, 80, 65_535] {
                let expected = if n == m { Decision::Allow(RuleId(1)) } else { Decision::Deny(None) };
                assert_eq!(to_site(&rules, "10.98.0.1", protocol[0], port), expected);
                assert_eq!(to_site(&rules, "2001:db8::1", protocol[1], port), expected);
            }
        }
    }
}

#[test]
fn guarded_networks_are_reached_only_by_host_rules() {
    let guarded = [net("127.0.0.0/8"), net("169.254.0.0/16"), net("10.98.0.1/32"), net("fe80::/10")];
    let wide = allow(1, &["0.0.0.0/0", "::/0"], &[Service::Any]);
    let host = allow(2, &["169.254.169.254/32"], &[Service::Tcp(PortRange::single(80))]);
    let rules = RuleSet::compile(&[wide, host], &guarded).unwrap();
    assert_eq!(to_site(&rules, "127.0.0.1", 6, 80), Decision::Deny(None));
    assert_eq!(to_site(&rules, "10.98.0.1", 6, 443), Decision::Deny(None));
    assert_eq!(to_site(&rules, "fe80::1", 6, 80), Decision::Deny(None));
    assert_eq!(to_site(&rules, "169.254.169.254", 6, 80), Decision::Allow(RuleId(2)));
    assert_eq!(to_site(&rules, "169.254.169.254", 6, 81), Decision::Deny(None));
    assert_eq!(to_site(&rules, "169.254.169.253", 6, 80), Decision::Deny(None));
    assert_eq!(to_site(&rules, "10.98.0.2", 6, 443), Decision::Allow(RuleId(1)));
    assert_eq!(to_site(&rules, "2001:db8::1", 6, 443), Decision::Allow(RuleId(1)));
}

#[test]
fn the_first_rule_decides() {
    let mut deny = allow(1, &["10.98.0.0/28"], &[Service::Any]);
    deny.action = Action::Deny;
    let allow = allow(2, &["10.98.0.0/24"], &[Service::Any]);
    let rules = RuleSet::compile(&[deny.clone(), allow.clone()], &[]).unwrap();
    assert_eq!(to_site(&rules, "10.98.0.15", 6, 80), Decision::Deny(Some(RuleId(1))));
    assert_eq!(to_site(&rules, "10.98.0.16", 6, 80), Decision::Allow(RuleId(2)));
    let rules = RuleSet::compile(&[allow, deny], &[]).unwrap();
    assert_eq!(to_site(&rules, "10.98.0.15", 6, 80), Decision::Allow(RuleId(2)));
}

#[test]
fn a_rule_set_at_the_limit_compiles_and_one_above_does_not() {
    let rules: Vec<Rule> = (0..=RULES_MAX as u32)
        .map(|n| allow(n, &[&format!("10.{}.{}.0/24", n >> 8, n & 255)], &[Service::Tcp(PortRange::single(443))]))
        .collect();
    let compiled = RuleSet::compile(&rules[..RULES_MAX], &[]).unwrap();
    assert_eq!(to_site(&compiled, "10.15.255.9", 6, 443), Decision::Allow(RuleId(4_095)));
    let error = RuleSet::compile(&rules, &[]).unwrap_err();
    assert_eq!(error, CompileError::TooManyRules { count: 4_097 });
    assert!(error.to_string().contains("4097") && error.to_string().contains("4096"), "{error}");
}

#[test]
fn too_many_address_ranges_are_refused() {
    let mut rule = allow(1, &[], &[Service::Any]);
    rule.networks = (0..=ADDRESS_RANGES_MAX as u32).map(|n| IpAddr::from(Ipv4Addr::from(n * 2)).into()).collect();
    let error = RuleSet::compile(&[rule.clone()], &[]).unwrap_err();
    assert_eq!(error, CompileError::TooManyAddressRanges { count: ADDRESS_RANGES_MAX + 1 });
    rule.networks.pop();
    assert!(RuleSet::compile(&[rule], &[]).is_ok());
}

#[test]
fn too_many_overlapping_rules_are_refused() {
    let port = [Service::Tcp(PortRange::single(80))];
    let mut rules: Vec<Rule> = (0..RULES_MAX as u32 - 1).map(|n| allow(n, &["0.0.0.0/0"], &port)).collect();
    let mut spread = allow(9_999, &[], &port);
    spread.networks = (0..2_000_u32).map(|n| IpAddr::from(Ipv4Addr::from(n * 2)).into()).collect();
    rules.push(spread);
    let error = RuleSet::compile(&rules, &[]).unwrap_err();
    assert!(matches!(error, CompileError::TooManyMatches { .. }), "{error}");
}

#[test]
fn too_many_port_ranges_are_refused() {
    let mut rule = allow(1, &["10.0.0.0/8"], &[]);
    rule.services = vec![Service::Tcp(PortRange::single(80)); PORT_RANGES_MAX + 1];
    let error = RuleSet::compile(&[rule], &[]).unwrap_err();
    assert_eq!(error, CompileError::TooManyPortRanges { count: PORT_RANGES_MAX + 1 });
}
