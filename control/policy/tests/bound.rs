//! Bounds: what is left of a policy within them, against a reference that asks each packet.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use ringfort_packet::flow::{FlowKey, protocol};
use ringfort_policy::{Bound, Catalogue, Network, PolicyError, Reach, RuleSpec, ServiceSpec, compile_within, restrict};
use ringfort_rules::{Action, CompileError, Decision, Direction, RULES_MAX, Rule, RuleSet, Service};
use ringfort_types::RuleId;

fn reach(to: &[&str], services: &[&str]) -> Reach {
    let networks: Vec<Network> = to.iter().map(|text| text.parse().unwrap()).collect();
    let services: Vec<ServiceSpec> = services.iter().map(|text| text.parse().unwrap()).collect();
    Reach::new(&networks, &services).unwrap()
}

fn rule(name: &str, to: &[&str], services: &[&str]) -> RuleSpec {
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let services = services.iter().map(|text| text.parse().unwrap()).collect();
    RuleSpec::new(name.parse().unwrap(), Action::Allow, Direction::ToSite, parse(to), services).unwrap()
}

fn allows(set: &RuleSet, to: IpAddr, protocol: u8, port: u16) -> bool {
    let from: IpAddr = if to.is_ipv4() { Ipv4Addr::new(100, 64, 0, 2).into() } else { Ipv6Addr::LOCALHOST.into() };
    let flow = FlowKey::new(from, to, protocol, 40_000, port).unwrap();
    matches!(set.judge(Direction::ToSite, &flow), Decision::Allow(_))
}

fn allows_text(set: &RuleSet, to: &str, protocol: u8, port: u16) -> bool {
    allows(set, to.parse().unwrap(), protocol, port)
}

// Covers: R9 allow
// Covers: R9 refuse
#[test]
fn what_lies_beyond_a_bound_is_cut_off() {
    let rules = [rule("wiki", &["10.98.0.0/24"], &["tcp/80-443"]), rule("elsewhere", &["10.99.0.0/24"], &["any"])];
    let ceiling = Bound::new(vec![reach(&["10.98.0.0/16"], &["tcp"])]);
    let site = Bound::new(vec![reach(&["10.98.0.10", "10.98.0.11"], &["tcp/443", "udp/53"])]);
    let mut catalogue = Catalogue::default();
    let set = compile_within(&rules, &[ceiling, site], &mut catalogue, &[]).unwrap();
    assert!(allows_text(&set, "10.98.0.10", protocol::TCP, 443));
    assert!(allows_text(&set, "10.98.0.11", protocol::TCP, 443));
    assert!(!allows_text(&set, "10.98.0.10", protocol::TCP, 80), "beyond the site's services");
    assert!(!allows_text(&set, "10.98.0.12", protocol::TCP, 443), "beyond the site's networks");
    assert!(!allows_text(&set, "10.98.0.10", protocol::UDP, 53), "the grant is not widened");
    assert!(!allows_text(&set, "10.99.0.10", protocol::TCP, 443), "cut entirely");
    let nothing = compile_within(&rules, &[Bound::default()], &mut catalogue, &[]).unwrap();
    assert!(!allows_text(&nothing, "10.98.0.10", protocol::TCP, 443), "an empty bound allows nothing");
}

#[test]
fn a_bound_makes_no_rule_name_a_guarded_address() {
    let guarded: [IpNet; 1] = ["10.98.0.1/32".parse().unwrap()];
    let bound = [Bound::new(vec![reach(&["10.98.0.1", "10.98.0.2"], &["any"])])];
    let mut catalogue = Catalogue::default();
    let covers = [rule("covers", &["10.98.0.0/24"], &["any"])];
    let covers = compile_within(&covers, &bound, &mut catalogue, &guarded).unwrap();
    assert!(!allows_text(&covers, "10.98.0.1", protocol::TCP, 22));
    assert!(allows_text(&covers, "10.98.0.2", protocol::TCP, 22));
    let names = [rule("names", &["10.98.0.1"], &["any"])];
    let names = compile_within(&names, &bound, &mut catalogue, &guarded).unwrap();
    assert!(allows_text(&names, "10.98.0.1", protocol::TCP, 22));
}

#[test]
fn denying_rules_are_left_whole() {
    let network: IpNet = "10.98.0.0/24".parse().unwrap();
    let deny = Rule {
        id: RuleId(0),
        action: Action::Deny,
        direction: Direction::ToSite,
        networks: vec![network],
        services: vec![Service::Any],
    };
    assert_eq!(restrict(deny.clone(), &[Bound::default()], &[]), [deny]);
}

#[test]
fn pieces_count_towards_the_limit() {
    // Each of 65 reaches has services of its own, so that no two pieces merge.
    let reaches = (1..=65).map(|port| reach(&["10.98.0.0/24"], &[&format!("tcp/{port}")])).collect();
    let rules: Vec<RuleSpec> =
        (0..64).map(|at| rule(&format!("r{at}"), &[&format!("10.98.0.{at}")], &["tcp"])).collect();
    let error = compile_within(&rules, &[Bound::new(reaches)], &mut Catalogue::default(), &[]).unwrap_err();
    let PolicyError::TooLarge(CompileError::TooManyRules { count }) = error else { panic!("{error}") };
    assert!(count > RULES_MAX);
}

#[test]
fn a_written_bound_is_read_strictly() {
    #[derive(Debug, serde::Deserialize)]
    struct File {
        never_beyond: Bound,
    }
    let read = |text: &str| toml::from_str::<File>(text).map(|file| file.never_beyond);
    let bound = read("never_beyond = [{ to = ['10.98.0.0/16'], services = ['tcp/80'] }]").unwrap();
    assert_eq!(bound, Bound::new(vec![reach(&["10.98.0.0/16"], &["tcp/80"])]));
    for bad in [
        "never_beyond = [{ to = ['10.98.0.1/16'], services = ['tcp/80'] }]",
        "never_beyond = [{ to = ['10.98.0.0/16'], services = [] }]",
        "never_beyond = [{ to = [], services = ['tcp/80'] }]",
        "never_beyond = [{ to = ['10.98.0.0/16'], services = ['tcp/80'], except = [] }]",
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

/// The small space: eight addresses of each family, protocols that mean different things in them, four ports.
const V4: u32 = 0x0a62_0000;
const V6: u128 = 0xfd98 << 112;
const PROTOCOLS: [u8; 5] = [protocol::TCP, protocol::UDP, protocol::ICMP, protocol::ICMPV6, 47];

fn network() -> impl Strategy<Value = IpNet> {
    (any::<bool>(), 0..8_u8, 0..=3_u8).prop_map(|(v4, low, bits)| match v4 {
        true => IpNet::from(Ipv4Net::new(Ipv4Addr::from(V4 + u32::from(low)), 32 - bits).unwrap()).trunc(),
        false => IpNet::from(Ipv6Net::new(Ipv6Addr::from(V6 + u128::from(low)), 128 - bits).unwrap()).trunc(),
    })
}

fn service() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "any",
        "tcp",
        "udp",
        "tcp/1",
        "tcp/0-2",
        "tcp/2-3",
        "udp/1-2",
        "icmp-echo",
        "protocol/1",
        "protocol/6",
        "protocol/17",
        "protocol/47",
        "protocol/58",
    ])
}

fn parts() -> impl Strategy<Value = (Vec<IpNet>, Vec<&'static str>)> {
    (prop::collection::vec(network(), 1..4), prop::collection::vec(service(), 1..4))
}

fn as_rule(networks: &[IpNet], services: &[&str]) -> Rule {
    Rule {
        id: RuleId(0),
        action: Action::Allow,
        direction: Direction::ToSite,
        networks: networks.to_vec(),
        services: services.iter().map(|text| text.parse::<ServiceSpec>().unwrap().service()).collect(),
    }
}

fn as_reach((networks, services): &(Vec<IpNet>, Vec<&'static str>)) -> Reach {
    let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
    reach(&networks.iter().map(String::as_str).collect::<Vec<_>>(), services)
}

proptest! {
    /// What is left allows a packet exactly if the rule does by itself and each bound has a reach that, as a rule without
    /// guarded networks, does too.
    #[test]
    fn what_is_left_is_the_intersection(
        (networks, services) in parts(),
        bounds in prop::collection::vec(prop::collection::vec(parts(), 0..4), 0..3),
        guarded in prop::collection::vec(network(), 0..3),
    ) {
        let rule = as_rule(&networks, &services);
        let alone = RuleSet::compile(std::slice::from_ref(&rule), &guarded).unwrap();
        let each: Vec<RuleSet> = bounds
            .iter()
            .map(|bound| {
                let rules: Vec<Rule> = bound.iter().map(|(networks, services)| as_rule(networks, services)).collect();
                RuleSet::compile(&rules, &[]).unwrap()
            })
            .collect();
        let given: Vec<Bound> =
            bounds.iter().map(|bound| Bound::new(bound.iter().map(as_reach).collect())).collect();
        let left = RuleSet::compile(&restrict(rule, &given, &guarded), &guarded).unwrap();
        for low in 0..8_u8 {
            let addresses: [IpAddr; 2] =
                [Ipv4Addr::from(V4 + u32::from(low)).into(), Ipv6Addr::from(V6 + u128::from(low)).into()];
            for address in addresses {
                for protocol in PROTOCOLS {
                    for port in 0..4 {
                        let expected = allows(&alone, address, protocol, port)
                            && each.iter().all(|bound| allows(bound, address, protocol, port));
                        prop_assert_eq!(
                            allows(&left, address, protocol, port), expected,
                            "{} protocol {} port {}", address, protocol, port
                        );
                    }
                }
            }
        }
    }
}
