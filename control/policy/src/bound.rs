//! Bounds on what a policy may allow, whoever wrote it.

use ipnet::IpNet;
use ringfort_packet::flow::protocol;
use ringfort_rules::{Action, PortRange, Rule, Service};
use serde::Deserialize;

use crate::spec::{NETWORKS_PER_RULE_MAX, SERVICES_PER_RULE_MAX};
use crate::text::{Network, ServiceSpec, SpecError};

/// Networks at the site together with what may be spoken there.
///
/// Deserialises from a table with `to` and `services`, written as in a rule. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Reach {
    networks: Vec<IpNet>,
    services: Vec<Service>,
}

impl Reach {
    /// These services in these networks.
    ///
    /// # Errors
    /// [`SpecError::Count`] when either is missing or exceeds what one rule may have.
    pub fn new(networks: &[Network], services: &[ServiceSpec]) -> Result<Self, SpecError> {
        let bounded = |field, count, max| {
            if count == 0 || count > max {
                return Err(SpecError::Count { rule: "a bound".into(), field, count, max });
            }
            Ok(())
        };
        bounded("to", networks.len(), NETWORKS_PER_RULE_MAX)?;
        bounded("services", services.len(), SERVICES_PER_RULE_MAX)?;
        Ok(Self {
            networks: networks.iter().map(|network| network.net()).collect(),
            services: services.iter().map(|service| service.service()).collect(),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    to: Vec<Network>,
    services: Vec<ServiceSpec>,
}

impl TryFrom<Written> for Reach {
    type Error = SpecError;

    fn try_from(written: Written) -> Result<Self, SpecError> {
        Self::new(&written.to, &written.services)
    }
}

/// The most that a policy can allow: what lies in none of its reaches is allowed by nothing. An empty bound allows nothing.
///
/// A site's allow-list is one (R9), the Gateway's own ceiling another (C19).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Bound {
    reaches: Vec<Reach>,
}

impl Bound {
    /// All of these reaches together.
    #[must_use]
    pub fn new(reaches: Vec<Reach>) -> Self {
        Self { reaches }
    }
}

/// What is left of `rule` within every one of `bounds`: rules with its id that together match what it matched and each of
/// the bounds matches as well. A denying rule is left whole, since it can allow nothing.
///
/// `guarded` networks stay reachable only by a rule that names the address itself: a host prefix which a bound made out of
/// a larger network opens none.
#[must_use]
pub fn restrict(rule: Rule, bounds: &[Bound], guarded: &[IpNet]) -> Vec<Rule> {
    if rule.action == Action::Deny {
        return vec![rule];
    }
    bounds.iter().fold(vec![rule], |rules, bound| {
        let mut pieces: Vec<Rule> = Vec::new();
        for rule in &rules {
            for reach in &bound.reaches {
                for family in [Family::V4, Family::V6] {
                    merge(&mut pieces, within(rule, reach, family, guarded));
                }
            }
        }
        pieces
    })
}

/// Adds `piece` to those that there are, into one with the same services if there is such a one.
fn merge(pieces: &mut Vec<Rule>, piece: Option<Rule>) {
    let Some(piece) = piece else { return };
    match pieces.iter_mut().find(|other| other.services == piece.services) {
        Some(other) => {
            other.networks.extend(piece.networks);
            other.networks.sort_unstable();
            other.networks.dedup();
        }
        None => pieces.push(piece),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn has(self, network: &IpNet) -> bool {
        matches!((self, network), (Self::V4, IpNet::V4(_)) | (Self::V6, IpNet::V6(_)))
    }

    const fn echo_protocol(self) -> u8 {
        match self {
            Self::V4 => protocol::ICMP,
            Self::V6 => protocol::ICMPV6,
        }
    }
}

/// What `rule` and `reach` have in common in one family: a protocol number may mean echo in one and not in the other.
fn within(rule: &Rule, reach: &Reach, family: Family, guarded: &[IpNet]) -> Option<Rule> {
    let mut networks = Vec::new();
    for ours in rule.networks.iter().filter(|network| family.has(network)) {
        for theirs in &reach.networks {
            let Some(common) = common_network(*ours, *theirs) else { continue };
            let made_a_host = is_host(common) && !is_host(*ours);
            if !(made_a_host && guarded.iter().any(|network| network.contains(&common))) {
                networks.push(common);
            }
        }
    }
    let mut services = Vec::new();
    for ours in &rule.services {
        for theirs in &reach.services {
            services.extend(common_service(*ours, *theirs, family).filter(|service| !services.contains(service)));
        }
    }
    networks.sort_unstable();
    networks.dedup();
    let any = !networks.is_empty() && !services.is_empty();
    any.then(|| Rule { networks, services, ..rule.clone() })
}

fn is_host(network: IpNet) -> bool {
    network.prefix_len() == network.max_prefix_len()
}

/// Of two networks one contains the other, or they have nothing in common.
fn common_network(a: IpNet, b: IpNet) -> Option<IpNet> {
    if a.contains(&b) {
        Some(b)
    } else if b.contains(&a) {
        Some(a)
    } else {
        None
    }
}

fn common_service(a: Service, b: Service, family: Family) -> Option<Service> {
    let both = |a: PortRange, b: PortRange| PortRange::new(a.first().max(b.first()), a.last().min(b.last()));
    match (plain(a, family), plain(b, family)) {
        (Service::Any, other) | (other, Service::Any) => Some(other),
        (Service::Tcp(a), Service::Tcp(b)) => both(a, b).map(Service::Tcp),
        (Service::Udp(a), Service::Udp(b)) => both(a, b).map(Service::Udp),
        (a, b) => (a == b).then_some(a),
    }
}

/// One form for services that mean the same in a family.
fn plain(service: Service, family: Family) -> Service {
    match service {
        Service::Protocol(protocol::TCP) => Service::Tcp(PortRange::ALL),
        Service::Protocol(protocol::UDP) => Service::Udp(PortRange::ALL),
        Service::Protocol(number) if number == family.echo_protocol() => Service::Echo,
        other => other,
    }
}
