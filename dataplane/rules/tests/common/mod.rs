//! What the tests of this crate share: a reading of rules so plain that it can be checked by eye, and random rules
//! that crowd around few edges.

#![allow(dead_code, reason = "each test program uses its part")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use ringfort_packet::flow::FlowKey;
use ringfort_packet::parse::{Parsed, Transport};
use ringfort_rules::{Action, Decision, Direction, PortRange, Rule, Service};
use ringfort_types::RuleId;

/// The first rule that matches decides, read rule by rule.
pub(crate) fn linear(rules: &[Rule], guarded: &[IpNet], direction: Direction, key: &FlowKey) -> Decision {
    let site = match direction {
        Direction::ToSite => key.destination(),
        Direction::ToClient => key.source(),
    };
    let is_guarded = guarded.iter().any(|network| network.contains(&site));
    let reaches = |rule: &Rule, network: &IpNet| {
        let names_the_host = network.prefix_len() == if site.is_ipv4() { 32 } else { 128 };
        network.contains(&site) && (rule.action == Action::Deny || !is_guarded || names_the_host)
    };
    for rule in rules {
        if rule.direction == direction
            && rule.networks.iter().any(|network| reaches(rule, network))
            && rule.services.iter().any(|service| speaks(*service, site, key))
        {
            return match rule.action {
                Action::Allow => Decision::Allow(rule.id),
                Action::Deny => Decision::Deny(Some(rule.id)),
            };
        }
    }
    Decision::Deny(None)
}

fn speaks(service: Service, site: IpAddr, key: &FlowKey) -> bool {
    let port = key.destination_port();
    match service {
        Service::Any => true,
        Service::Tcp(range) => key.protocol() == 6 && (range.first()..=range.last()).contains(&port),
        Service::Udp(range) => key.protocol() == 17 && (range.first()..=range.last()).contains(&port),
        Service::Echo => key.protocol() == if site.is_ipv4() { 1 } else { 58 },
        Service::Protocol(number) => key.protocol() == number,
    }
}

pub(crate) fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![3 => Just(Direction::ToSite), 1 => Just(Direction::ToClient)]
}

/// Networks that nest in, touch and cover one another.
pub(crate) fn network() -> impl Strategy<Value = IpNet> {
    let ipv4 = (prop_oneof![Just(0x0a62_0000_u32), Just(0x0a62_00f0), Just(0xffff_ff00), Just(0)], 0..16_u32, 0..33_u8)
        .prop_map(|(base, host, prefix)| (base + host, if prefix > 16 { prefix.max(26) } else { prefix / 2 }))
        .prop_filter_map("a prefix", |(bits, prefix)| Ipv4Net::new(Ipv4Addr::from(bits), prefix).ok())
        .prop_map(|net| IpNet::V4(net.trunc()));
    let ipv6 = (
        prop_oneof![Just(0x2001_0db8_u128 << 96), Just((0x2001_0db8_u128 << 96) + 0xf0), Just(u128::MAX - 15), Just(0)],
        0..16_u128,
        0..129_u8,
    )
        .prop_map(|(base, host, prefix)| (base + host, if prefix > 64 { prefix.max(122) } else { prefix / 4 }))
        .prop_filter_map("a prefix", |(bits, prefix)| Ipv6Net::new(Ipv6Addr::from(bits), prefix).ok())
        .prop_map(|net| IpNet::V6(net.trunc()));
    prop_oneof![ipv4, ipv6]
}

pub(crate) fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), Just(1), 79..=82_u16, 442..=444_u16, Just(u16::MAX - 1), Just(u16::MAX)]
}

pub(crate) fn service() -> impl Strategy<Value = Service> {
    let range = || (port(), port()).prop_filter_map("in order", |(first, last)| PortRange::new(first, last));
    prop_oneof![
        1 => Just(Service::Any),
        4 => range().prop_map(Service::Tcp),
        4 => range().prop_map(Service::Udp),
        2 => Just(Service::Echo),
        2 => prop_oneof![Just(1), Just(6), Just(17), Just(47), Just(50), Just(58)].prop_map(Service::Protocol),
    ]
}

/// Up to `rules_max` rules, each under the id of its place.
pub(crate) fn rules(rules_max: usize) -> impl Strategy<Value = Vec<Rule>> {
    let rule = (
        prop_oneof![2 => Just(Action::Allow), 1 => Just(Action::Deny)],
        direction(),
        prop::collection::vec(network(), 0..4),
        prop::collection::vec(service(), 0..4),
    )
        .prop_map(|(action, direction, networks, services)| Rule {
            id: RuleId(0),
            action,
            direction,
            networks,
            services,
        });
    prop::collection::vec(rule, 0..=rules_max).prop_map(|mut rules| {
        for (index, rule) in rules.iter_mut().enumerate() {
            rule.id = RuleId(index as u32);
        }
        rules
    })
}

/// A whole packet with this transport.
pub(crate) fn packet(source: IpAddr, destination: IpAddr, transport: Transport) -> Parsed {
    let network_header_bytes = if source.is_ipv4() { 20 } else { 40 };
    Parsed {
        source,
        destination,
        network_header_bytes,
        total_bytes: network_header_bytes + 100,
        fragment: None,
        transport,
    }
}
