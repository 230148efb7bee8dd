//! What a rule says, before it is compiled.

use ipnet::IpNet;
use ringfort_types::RuleId;

/// Which way a packet travels through the Gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the client to the site.
    ToSite,
    /// From the site to the client.
    ToClient,
}

impl Direction {
    /// The direction of the answers.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::ToSite => Self::ToClient,
            Self::ToClient => Self::ToSite,
        }
    }
}

/// What a rule does with the packets it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The packet may pass.
    Allow,
    /// The packet is refused, whatever later rules say.
    Deny,
}

/// An inclusive range of ports; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// The ports `first` to `last`, both included. `None` if `last` is below `first`.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// One port.
    #[must_use]
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// The lowest port of the range.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port of the range.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }
}

/// What a rule lets a peer speak (C4, C5). Ports are the destination ports of the packet that opens the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Every protocol and port.
    Any,
    /// TCP to these ports.
    Tcp(PortRange),
    /// UDP to these ports.
    Udp(PortRange),
    /// ICMP echo on IPv4, ICMPv6 echo on IPv6.
    Echo,
    /// An IP protocol by number, with all its ports if it has any. For ICMP this is echo, the only ICMP that
    /// rules decide on.
    Protocol(u8),
}

/// One line of a policy. The first rule of a set that matches a packet decides; if none does, it is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name under which verdicts report this rule.
    pub id: RuleId,
    /// What it does with what it matches.
    pub action: Action,
    /// Whose packets may open the flow: `ToSite` for the usual rule, `ToClient` for a "down" rule (X12).
    pub direction: Direction,
    /// Networks at the site: destinations of a `ToSite` rule, sources of a `ToClient` rule. No networks match
    /// nothing.
    pub networks: Vec<IpNet>,
    /// What may be spoken. No services match nothing.
    pub services: Vec<Service>,
}

/// What a rule set says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// This rule allows it.
    Allow(RuleId),
    /// This rule denies it, or no rule matched (`None`, the default).
    Deny(Option<RuleId>),
}
