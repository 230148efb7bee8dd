//! The compiled form of a policy.
//!
//! Per direction and family: sorted starts of disjoint address intervals, each leading to a class; a class holds
//! per protocol the sorted starts of port intervals, each leading to a decision. Intervals under the same
//! rules share one class. A verdict is two binary searches, whatever the number of rules.

use std::net::IpAddr;

use ipnet::IpNet;
use ringfort_packet::flow::{FlowKey, protocol};

use crate::compile::{self, CompileError};
use crate::rule::{Decision, Direction, Rule};

/// An ordered policy, compiled. Immutable; sessions with the same policy share one behind an `Arc`.
#[derive(Clone, Debug)]
pub struct RuleSet {
    to_site: FamilyPair,
    to_client: FamilyPair,
}

impl RuleSet {
    /// The set without rules: everything is denied.
    #[must_use]
    pub fn deny_all() -> Self {
        Self { to_site: FamilyPair::deny_all(), to_client: FamilyPair::deny_all() }
    }

    /// Compiles `rules`, of which the first match decides.
    ///
    /// `guarded` are the networks that are never reached by a rule that merely covers them: loopback, link-local,
    /// multicast and metadata addresses, the Gateway's own, the client pool. An allowing rule reaches an address
    /// in one of them only if it names that address as a host prefix (/32 or /128). Denying rules are not
    /// restricted.
    ///
    /// # Errors
    /// When a limit of this crate is passed; the error names the limit and the count.
    pub fn compile(rules: &[Rule], guarded: &[IpNet]) -> Result<Self, CompileError> {
        compile::compile(rules, guarded).map(|[to_site, to_client]| Self { to_site, to_client })
    }

    /// What the rules for packets that open a flow in `direction` say of `key`, which is written as the packet
    /// travels. Flows that are already open are not this function's matter.
    #[must_use]
    pub fn judge(&self, direction: Direction, key: &FlowKey) -> Decision {
        let (families, site) = match direction {
            Direction::ToSite => (&self.to_site, key.destination()),
            Direction::ToClient => (&self.to_client, key.source()),
        };
        match site {
            IpAddr::V4(address) => families.ipv4.judge(u32::from(address).into(), protocol::ICMP, key),
            IpAddr::V6(address) => families.ipv6.judge(address.into(), protocol::ICMPV6, key),
        }
    }
}

/// The tables of one direction.
#[derive(Clone, Debug)]
pub(crate) struct FamilyPair {
    pub(crate) ipv4: AddressTable,
    pub(crate) ipv6: AddressTable,
}

impl FamilyPair {
    fn deny_all() -> Self {
        Self { ipv4: AddressTable::default(), ipv6: AddressTable::default() }
    }
}

/// From a site address to the class of its interval. An interval reaches to the next start; what lies below the
/// first start is denied.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressTable {
    /// Ascending.
    pub(crate) starts: Vec<u128>,
    /// Index into `classes`, one per start.
    pub(crate) class_of: Vec<u32>,
    pub(crate) classes: Vec<Class>,
}

impl AddressTable {
    fn judge(&self, site: u128, echo_protocol: u8, key: &FlowKey) -> Decision {
        let after = self.starts.partition_point(|start| *start <= site);
        let class = after
            .checked_sub(1)
            .and_then(|interval| self.class_of.get(interval))
            .and_then(|class| self.classes.get(*class as usize));
        let Some(class) = class else { return Decision::Deny(None) };
        match key.protocol() {
            protocol::TCP => class.tcp.judge(key.destination_port()),
            protocol::UDP => class.udp.judge(key.destination_port()),
            number if number == echo_protocol => class.echo,
            number => class.named.iter().find(|(named, _)| *named == number).map_or(class.other, |(_, d)| *d),
        }
    }
}

/// What the rules say of all addresses that the same rules match.
#[derive(Clone, Debug)]
pub(crate) struct Class {
    pub(crate) tcp: PortTable,
    pub(crate) udp: PortTable,
    pub(crate) echo: Decision,
    /// Protocols that a rule names by number, other than TCP, UDP and the family's ICMP. At most 253, as each
    /// number stands here once.
    pub(crate) named: Vec<(u8, Decision)>,
    /// Every other protocol.
    pub(crate) other: Decision,
}

/// From a port to a decision. An interval reaches to the next start; ports below the first start are denied.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortTable {
    /// Ascending.
    pub(crate) starts: Vec<u16>,
    /// One per start.
    pub(crate) decisions: Vec<Decision>,
}

impl PortTable {
    fn judge(&self, port: u16) -> Decision {
        let after = self.starts.partition_point(|start| *start <= port);
        let decision = after.checked_sub(1).and_then(|interval| self.decisions.get(interval));
        decision.copied().unwrap_or(Decision::Deny(None))
    }
}
