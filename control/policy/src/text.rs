//! The textual forms of networks and services.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use ringfort_rules::{PortRange, Service};
use serde::Deserialize;

use crate::spec::NAME_BYTES_MAX;

/// Bytes that a network or a service may have; the longest sensible one is an IPv6 prefix of 43.
const TEXT_BYTES_MAX: usize = 64;

/// What is wrong with a rule, what was expected, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Not a name.
    #[error("expected a rule name of 1 to {max} letters, digits, '-', '_', '.', '/' or ':', found {found}: choose such a name", max = NAME_BYTES_MAX)]
    Name {
        /// What came.
        found: String,
    },
    /// The name by which the absence of a rule is reported.
    #[error("expected a rule name, found \"default-deny\", which means that no rule matched: choose another name")]
    ReservedName,
    /// Not a network.
    #[error(
        "expected an address or a network such as \"10.98.0.10\", \"10.98.0.0/24\" or \"2001:db8::/64\", found {found}: write one of these forms; host names are not resolved here"
    )]
    Network {
        /// What came.
        found: String,
    },
    /// A network with bits beyond its prefix.
    #[error(
        "expected a network without host bits, found {found}: write \"{network}\" for the network or \"{host}\" for the one address"
    )]
    HostBits {
        /// What came.
        found: String,
        /// The network it lies in.
        network: IpNet,
        /// The address it names.
        host: IpAddr,
    },
    /// An IPv4 address written as IPv6.
    #[error(
        "expected an IPv4 or IPv6 network, found {found}, which is an IPv4 address mapped into IPv6 and never in a packet: write the IPv4 form"
    )]
    MappedAddress {
        /// What came.
        found: String,
    },
    /// Not a service.
    #[error(
        "expected a service such as \"tcp/80\", \"udp/5000-5100\", \"tcp\", \"udp\", \"icmp-echo\", \"protocol/47\" or \"any\", found {found}: write one of these forms"
    )]
    Service {
        /// What came.
        found: String,
    },
    /// A port range from high to low.
    #[error("expected a port range from low to high, found {found}: swap its ends")]
    PortOrder {
        /// What came.
        found: String,
    },
    /// No entries where one is needed, or too many.
    #[error(
        "rule \"{rule}\": expected 1 to {max} entries in `{field}`, found {count}: name at least one, and split a longer list over several rules"
    )]
    Count {
        /// The rule.
        rule: String,
        /// The field.
        field: &'static str,
        /// Entries in it.
        count: usize,
        /// Entries that it may have.
        max: usize,
    },
    /// `from` in a rule to the site, or `to` in a rule to the client.
    #[error(
        "rule \"{rule}\": expected `to` in a rule whose client opens the flow, or `from` together with `direction = \"to-client\"` where the site does, found the other: rename the field or set the direction"
    )]
    WrongEnd {
        /// The rule.
        rule: String,
    },
}

/// A network at the site: `10.98.0.0/24`, `2001:db8::/64`, or one address, `10.98.0.10`, which is its /32 or /128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Network(IpNet);

impl Network {
    /// The network; its address has no host bits.
    #[must_use]
    pub const fn net(self) -> IpNet {
        self.0
    }
}

impl FromStr for Network {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let malformed = || SpecError::Network { found: quoted(text) };
        if text.len() > TEXT_BYTES_MAX {
            return Err(malformed());
        }
        let net = match text.contains('/') {
            true => text.parse::<IpNet>().map_err(|_| malformed())?,
            false => text.parse::<IpAddr>().map_err(|_| malformed())?.into(),
        };
        if net != net.trunc() {
            return Err(SpecError::HostBits { found: quoted(text), network: net.trunc(), host: net.addr() });
        }
        match net {
            IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() && v6.prefix_len() >= 96 => {
                Err(SpecError::MappedAddress { found: quoted(text) })
            }
            _ => Ok(Self(net)),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

/// A service: `tcp/80`, `udp/5000-5100`, `tcp` and `udp` (every port), `icmp-echo` (both families), `protocol/47`
/// (an IP protocol by number), `any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ServiceSpec(Service);

impl ServiceSpec {
    /// The service as the data plane knows it.
    #[must_use]
    pub const fn service(self) -> Service {
        self.0
    }
}

impl FromStr for ServiceSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let malformed = || SpecError::Service { found: quoted(text) };
        if text.len() > TEXT_BYTES_MAX {
            return Err(malformed());
        }
        let service = match text.split_once('/') {
            None => match text {
                "any" => Service::Any,
                "tcp" => Service::Tcp(PortRange::ALL),
                "udp" => Service::Udp(PortRange::ALL),
                "icmp-echo" => Service::Echo,
                _ => return Err(malformed()),
            },
            Some(("tcp", ports)) => Service::Tcp(port_range(text, ports)?),
            Some(("udp", ports)) => Service::Udp(port_range(text, ports)?),
            Some(("protocol", number)) => Service::Protocol(number_of(number).ok_or_else(malformed)?),
            Some(_) => return Err(malformed()),
        };
        Ok(Self(service))
    }
}

impl TryFrom<String> for ServiceSpec {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

/// `80` or `5000-5100`, of the service `text`.
fn port_range(text: &str, ports: &str) -> Result<PortRange, SpecError> {
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (Some(first), Some(last)) = (number_of(first), number_of(last)) else {
        return Err(SpecError::Service { found: quoted(text) });
    };
    PortRange::new(first, last).ok_or_else(|| SpecError::PortOrder { found: quoted(text) })
}

/// A decimal number without sign or spaces.
fn number_of<N: FromStr>(text: &str) -> Option<N> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// What came, in quotes, cut and escaped so that it can do no harm where errors are shown.
pub(crate) fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(TEXT_BYTES_MAX).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{more}")
}
