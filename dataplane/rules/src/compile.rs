//! From an ordered list of rules to sorted intervals.
//!
//! Both levels are one sweep over sorted edges: at the address level the rules that are active between two edges
//! make a class, at the port level the first active rule makes the decision.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use ringfort_packet::flow::protocol;

use crate::rule::{Action, Decision, Direction, PortRange, Rule, Service};
use crate::ruleset::{AddressTable, Class, FamilyPair, PortTable};

/// Rules in one set. A user's whole policy at one site; a thousand is already a large one.
pub const RULES_MAX: usize = 4_096;

/// Address ranges of one direction and family: the networks of all rules, those that contain guarded networks
/// cut into the pieces between them. At the limit the table holds 131,073 intervals (2.6 MB).
pub const ADDRESS_RANGES_MAX: usize = 65_536;

/// Rules that match, added up over all address intervals of one direction and family. Bounds the time of a
/// compilation (about 25 ns and 8 bytes each, in passing) where many rules overlap in many places.
pub const MATCHES_MAX: usize = 4_194_304;

/// Port ranges and protocol numbers, added up over all classes of one direction and family. Bounds what the
/// classes occupy (at most 20 bytes each) and the time to make them (0.3 µs each).
pub const PORT_RANGES_MAX: usize = 1_048_576;

/// Why a policy was not compiled. Nothing of it is in force then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// More than [`RULES_MAX`] rules.
    #[error("the policy has {count} rules, a rule set holds at most {max}: merge rules that differ only in their networks or services", max = RULES_MAX)]
    TooManyRules {
        /// Rules given.
        count: usize,
    },
    /// More than [`ADDRESS_RANGES_MAX`] address ranges.
    #[error("the networks of the policy make {count} address ranges or more, a rule set holds at most {max}: name fewer or larger networks", max = ADDRESS_RANGES_MAX)]
    TooManyAddressRanges {
        /// Ranges when the limit was passed.
        count: usize,
    },
    /// More than [`MATCHES_MAX`] matches of rules and address intervals.
    #[error("the rules of the policy overlap in {count} places or more, a rule set holds at most {max}: give many services of one network in one rule", max = MATCHES_MAX)]
    TooManyMatches {
        /// Matches when the limit was passed.
        count: usize,
    },
    /// More than [`PORT_RANGES_MAX`] port ranges.
    #[error("the services of the policy make {count} port ranges or more, a rule set holds at most {max}: name fewer or larger port ranges", max = PORT_RANGES_MAX)]
    TooManyPortRanges {
        /// Port ranges when the limit was passed.
        count: usize,
    },
}

/// The tables `[to site, to client]` of `rules`.
pub(crate) fn compile(rules: &[Rule], guarded: &[IpNet]) -> Result<[FamilyPair; 2], CompileError> {
    if rules.len() > RULES_MAX {
        return Err(CompileError::TooManyRules { count: rules.len() });
    }
    let pair = |direction| -> Result<FamilyPair, CompileError> {
        Ok(FamilyPair {
            ipv4: compile_addresses(rules, direction, Family::V4, guarded)?,
            ipv6: compile_addresses(rules, direction, Family::V6, guarded)?,
        })
    };
    Ok([pair(Direction::ToSite)?, pair(Direction::ToClient)?])
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn echo_protocol(self) -> u8 {
        match self {
            Self::V4 => protocol::ICMP,
            Self::V6 => protocol::ICMPV6,
        }
    }

    /// The range of `network` if it is of this family.
    fn range(self, network: &IpNet) -> Option<Range> {
        match (self, network) {
            (Self::V4, IpNet::V4(net)) => {
                Some(Range { first: u32::from(net.network()).into(), last: u32::from(net.broadcast()).into() })
            }
            (Self::V6, IpNet::V6(net)) => Some(Range { first: net.network().into(), last: net.broadcast().into() }),
            _ => None,
        }
    }
}

/// Both ends included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    first: u128,
    last: u128,
}

fn compile_addresses(
    rules: &[Rule],
    direction: Direction,
    family: Family,
    guarded: &[IpNet],
) -> Result<AddressTable, CompileError> {
    let guarded = disjoint(guarded.iter().filter_map(|network| family.range(network)).collect());
    let mut edges = Edges::default();
    for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.direction == direction) {
        for (network, range) in rule.networks.iter().filter_map(|network| Some((network, family.range(network)?))) {
            let names_a_host = network.prefix_len() == network.max_prefix_len();
            if rule.action == Action::Deny || names_a_host {
                edges.push(range, index);
            } else {
                without(range, &guarded, |piece| edges.push(piece, index));
            }
            if edges.ranges() > ADDRESS_RANGES_MAX {
                return Err(CompileError::TooManyAddressRanges { count: edges.ranges() });
            }
        }
    }

    let mut table = AddressTable::default();
    let mut class_of_rules: BTreeMap<Vec<usize>, u32> = BTreeMap::new();
    let mut matches = 0;
    let mut port_ranges = 0;
    edges.sweep(|start, active| {
        let matching = matching_rules(rules, active);
        matches += matching.len();
        if matches > MATCHES_MAX {
            return Err(CompileError::TooManyMatches { count: matches });
        }
        let class = match class_of_rules.get(&matching) {
            Some(class) => *class,
            None => {
                port_ranges += matching.iter().map(|index| rules[*index].services.len()).sum::<usize>();
                if port_ranges > PORT_RANGES_MAX {
                    return Err(CompileError::TooManyPortRanges { count: port_ranges });
                }
                let class = u32::try_from(table.classes.len()).unwrap_or(u32::MAX);
                table.classes.push(compile_class(rules, &matching, family));
                class_of_rules.insert(matching, class);
                class
            }
        };
        if table.class_of.last() != Some(&class) {
            table.starts.push(start);
            table.class_of.push(class);
        }
        Ok(())
    })?;
    Ok(table)
}

/// The active rules in order, up to the first that leaves nothing to later ones.
fn matching_rules(rules: &[Rule], active: &BTreeSet<usize>) -> Vec<usize> {
    let mut matching = Vec::new();
    for index in active {
        matching.push(*index);
        if rules[*index].services.contains(&Service::Any) {
            break;
        }
    }
    matching
}

fn compile_class(rules: &[Rule], matching: &[usize], family: Family) -> Class {
    let mut tcp = Edges::default();
    let mut udp = Edges::default();
    let mut echo = None;
    let mut other = None;
    let mut named = Vec::<(u8, Decision)>::new();
    for index in matching {
        let decision = decision(&rules[*index]);
        for service in &rules[*index].services {
            let in_full = |number| matches!(service, Service::Any) || *service == Service::Protocol(number);
            match service {
                Service::Tcp(ports) => tcp.push_ports(*ports, *index),
                _ if in_full(protocol::TCP) => tcp.push_ports(PortRange::ALL, *index),
                _ => {}
            }
            match service {
                Service::Udp(ports) => udp.push_ports(*ports, *index),
                _ if in_full(protocol::UDP) => udp.push_ports(PortRange::ALL, *index),
                _ => {}
            }
            if *service == Service::Echo || in_full(family.echo_protocol()) {
                echo.get_or_insert(decision);
            }
            match service {
                Service::Any => {
                    other.get_or_insert(decision);
                }
                Service::Protocol(number) if !named.iter().any(|(known, _)| known == number) => {
                    named.push((*number, decision));
                }
                _ => {}
            }
        }
    }
    Class {
        tcp: compile_ports(rules, tcp),
        udp: compile_ports(rules, udp),
        echo: echo.unwrap_or(Decision::Deny(None)),
        named,
        other: other.unwrap_or(Decision::Deny(None)),
    }
}

fn compile_ports(rules: &[Rule], edges: Edges) -> PortTable {
    let mut table = PortTable::default();
    let swept: Result<(), std::convert::Infallible> = edges.sweep(|start, active| {
        let decision = active.first().map_or(Decision::Deny(None), |index| decision(&rules[*index]));
        // An edge behind the last port lies outside the table: nothing starts there.
        if let Ok(start) = u16::try_from(start)
            && table.decisions.last() != Some(&decision)
        {
            table.starts.push(start);
            table.decisions.push(decision);
        }
        Ok(())
    });
    let Ok(()) = swept;
    table
}

fn decision(rule: &Rule) -> Decision {
    match rule.action {
        Action::Allow => Decision::Allow(rule.id),
        Action::Deny => Decision::Deny(Some(rule.id)),
    }
}

/// Where rules begin and end to match, on the line of addresses or of ports.
#[derive(Default)]
struct Edges {
    /// Position, index of the rule, whether it begins there.
    edges: Vec<(u128, usize, bool)>,
    ranges: usize,
}

impl Edges {
    fn push(&mut self, range: Range, index: usize) {
        self.ranges += 1;
        self.edges.push((range.first, index, true));
        // A range that reaches the end of the line has no end edge.
        if let Some(behind) = range.last.checked_add(1) {
            self.edges.push((behind, index, false));
        }
    }

    fn push_ports(&mut self, ports: PortRange, index: usize) {
        self.push(Range { first: ports.first().into(), last: ports.last().into() }, index);
    }

    fn ranges(&self) -> usize {
        self.ranges
    }

    /// Calls `interval(start, active rules)` for each maximal interval between two edges, ascending.
    fn sweep<E>(mut self, mut interval: impl FnMut(u128, &BTreeSet<usize>) -> Result<(), E>) -> Result<(), E> {
        self.edges.sort_unstable();
        // A rule may cover a place more than once; it is active until its last range there ends.
        let mut depth: BTreeMap<usize, usize> = BTreeMap::new();
        let mut active = BTreeSet::new();
        for group in self.edges.chunk_by(|a, b| a.0 == b.0) {
            for (_, index, begins) in group {
                let depth = depth.entry(*index).or_default();
                *depth = if *begins { *depth + 1 } else { depth.saturating_sub(1) };
            }
            for (_, index, _) in group {
                if depth.get(index).is_some_and(|depth| *depth > 0) {
                    active.insert(*index);
                } else {
                    active.remove(index);
                }
            }
            interval(group[0].0, &active)?;
        }
        Ok(())
    }
}

/// The union of `ranges` as ascending ranges that do not touch.
fn disjoint(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut union: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match union.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
            _ => union.push(range),
        }
    }
    union
}

/// Gives `piece` what is left of `range` without the ascending, disjoint `holes`.
fn without(range: Range, holes: &[Range], mut piece: impl FnMut(Range)) {
    let mut first = range.first;
    let met = holes.partition_point(|hole| hole.last < range.first);
    for hole in holes.iter().skip(met).take_while(|hole| hole.first <= range.last) {
        if first < hole.first {
            piece(Range { first, last: hole.first - 1 });
        }
        match hole.last.checked_add(1) {
            Some(behind) => first = behind,
            None => return,
        }
    }
    if first <= range.last {
        piece(Range { first, last: range.last });
    }
}
