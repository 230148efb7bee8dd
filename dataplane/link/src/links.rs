//! Interfaces, addresses and routes of the network namespace in which [`Links::open`] was called.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use rtnetlink::{
    AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressMessage},
        link::{InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope},
    },
};

use crate::{
    LinkError,
    transaction::{Channel, Failure},
};

/// A network and the length of its prefix in bits, for example `(10.98.0.0, 24)`; `(0.0.0.0, 0)` is the default route
/// of IPv4. Bits behind the prefix must be zero, or the kernel refuses.
pub type Prefix = (IpAddr, u8);

/// Longest interface name in bytes: `IFNAMSIZ` less the final zero (linux/if.h).
const NAME_BYTES_MAX: usize = 15;

/// The kernel's number of an interface; unique within one network namespace and meaningless in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(u32);

impl LinkIndex {
    /// The number as the kernel writes it (`if_nametoindex`); never 0.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for LinkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An address of an interface, as listed by [`Links::addresses`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    /// The interface.
    pub index: LinkIndex,
    /// Its own address; not the peer's on a point-to-point interface.
    pub address: IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix_bits: u8,
}

/// How the kernel would send to an address, as answered by [`Links::route_to`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteAnswer {
    /// The interface the packet would leave by.
    pub output: LinkIndex,
    /// The source address the kernel would choose.
    pub source: Option<IpAddr>,
    /// The next hop; `None` if the destination is on the interface's own network.
    pub gateway: Option<IpAddr>,
}

/// Configures the network namespace in which it was opened.
///
/// It may be moved to any thread: the socket stays in its namespace and keeps the namespace alive.
#[derive(Debug)]
pub struct Links {
    channel: Channel,
}

impl Links {
    /// Opens a netlink socket in the calling thread's network namespace. Needs no privilege; most changes do.
    ///
    /// # Errors
    /// [`LinkError::Open`], for example when no file descriptor is left.
    pub fn open() -> Result<Self, LinkError> {
        Ok(Self { channel: Channel::open().map_err(LinkError::Open)? })
    }

    /// The index of the interface called `name`.
    ///
    /// # Errors
    /// [`LinkError::is_not_found`] if there is none.
    pub fn index_of(&mut self, name: &str) -> Result<LinkIndex, LinkError> {
        let attempt = format!("find interface {name}");
        check_name(&attempt, name)?;
        let message = LinkUnspec::new_with_name(name).build();
        self.link(&attempt, message).map(|link| LinkIndex(link.header.index))
    }

    /// The name of the interface.
    ///
    /// # Errors
    /// [`LinkError::is_not_found`] if there is none.
    pub fn name_of(&mut self, index: LinkIndex) -> Result<String, LinkError> {
        let attempt = format!("find interface {index}");
        let link = self.link(&attempt, LinkUnspec::new_with_index(index.0).build())?;
        let name = link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        name.ok_or_else(|| LinkError::Answer { attempt, what: "has no name".into() })
    }

    /// Whether the interface carries packets: up, with a carrier, its queues attached. Once both ends of a
    /// veth pair are set up the kernel needs a moment, and packets sent in that moment are lost.
    ///
    /// # Errors
    /// [`LinkError::is_not_found`] if there is no such interface.
    pub fn is_operational(&mut self, index: LinkIndex) -> Result<bool, LinkError> {
        let link = self.link(&format!("find interface {index}"), LinkUnspec::new_with_index(index.0).build())?;
        Ok(link.header.flags.contains(LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp))
    }

    /// Sets the interface up.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with the kernel's answer, as for every change below.
    pub fn set_up(&mut self, index: LinkIndex) -> Result<(), LinkError> {
        self.change_link(index, |name| format!("set {name} up"), LinkUnspec::new_with_index(index.0).up().build())
    }

    /// Sets the largest packet the interface takes, in bytes of IP.
    ///
    /// # Errors
    /// As [`Links::set_up`].
    pub fn set_mtu(&mut self, index: LinkIndex, mtu_bytes: u32) -> Result<(), LinkError> {
        let message = LinkUnspec::new_with_index(index.0).mtu(mtu_bytes).build();
        self.change_link(index, |name| format!("set the MTU of {name} to {mtu_bytes}"), message)
    }

    /// Sets the length of the interface's transmit queue, in packets; for a TUN device it bounds what waits to be read.
    ///
    /// # Errors
    /// As [`Links::set_up`].
    pub fn set_tx_queue_length(&mut self, index: LinkIndex, packets: u32) -> Result<(), LinkError> {
        let message = LinkUnspec::new_with_index(index.0).txqueuelen(packets).build();
        self.change_link(index, |name| format!("set the transmit queue of {name} to {packets} packets"), message)
    }

    /// Moves the interface into the network namespace behind `namespace`. It arrives there down and without addresses,
    /// and its index may change.
    ///
    /// # Errors
    /// As [`Links::set_up`].
    pub fn move_to_namespace(&mut self, index: LinkIndex, namespace: BorrowedFd<'_>) -> Result<(), LinkError> {
        let message = LinkUnspec::new_with_index(index.0).setns_by_fd(namespace.as_raw_fd()).build();
        self.change_link(index, |name| format!("move {name} to another network namespace"), message)
    }

    /// Makes a pair of virtual Ethernet interfaces: `name` here, `peer` here or, if given, in `peer_namespace`, where it
    /// is created directly. Both are down. Answers the index of `name`.
    ///
    /// # Errors
    /// As [`Links::set_up`]; [`LinkError::is_already_there`] if one of the names is taken.
    pub fn add_veth(
        &mut self,
        name: &str,
        peer: &str,
        peer_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<LinkIndex, LinkError> {
        let attempt = format!("make the veth pair {name} and {peer}");
        check_name(&attempt, name)?;
        check_name(&attempt, peer)?;
        let mut far_end = LinkMessageBuilder::<LinkUnspec>::default().name(peer);
        if let Some(namespace) = peer_namespace {
            far_end = far_end.setns_by_fd(namespace.as_raw_fd());
        }
        let pair = LinkVeth::new(name, peer).set_info_data(InfoData::Veth(InfoVeth::Peer(far_end.build()))).build();
        self.request(&attempt, RouteNetlinkMessage::NewLink(pair), NLM_F_CREATE | NLM_F_EXCL)?;
        self.index_of(name)
    }

    /// Adds `address` with a prefix of `prefix_bits` to the interface. An IPv6 address is usable at once: duplicate
    /// address detection (RFC 4862, section 5.4) is left out, since addresses given here are assigned and not guessed.
    ///
    /// # Errors
    /// As [`Links::set_up`]; [`LinkError::is_already_there`] if the interface has it.
    pub fn add_address(&mut self, index: LinkIndex, address: IpAddr, prefix_bits: u8) -> Result<(), LinkError> {
        let words = |name: &str| format!("add the address {address}/{prefix_bits} to {name}");
        if prefix_bits > width_bits(address) {
            return Err(prefix_too_long(words(&format!("interface {index}"))));
        }
        let message = address_message(index, address, prefix_bits);
        self.change(index, words, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Takes an address back that [`Links::add_address`] gave with the same arguments. With it go the routes that name it as source.
    ///
    /// # Errors
    /// As [`Links::set_up`]; [`LinkError::is_not_found`] if the interface has it not.
    pub fn delete_address(&mut self, index: LinkIndex, address: IpAddr, prefix_bits: u8) -> Result<(), LinkError> {
        let words = |name: &str| format!("delete the address {address}/{prefix_bits} from {name}");
        let message = address_message(index, address, prefix_bits);
        self.change(index, words, RouteNetlinkMessage::DelAddress(message), 0)
    }

    /// Adds a route to `destination` by the interface, through the next hop `via` or, without one, to neighbours. The
    /// lowest `metric` wins among routes to the same prefix; without one the kernel's default holds.
    ///
    /// # Errors
    /// As [`Links::set_up`]; [`LinkError::is_already_there`] if there is one of that prefix and metric.
    pub fn add_route(
        &mut self,
        destination: Prefix,
        via: Option<IpAddr>,
        index: LinkIndex,
        metric: Option<u32>,
    ) -> Result<(), LinkError> {
        self.change_route("add", destination, via, index, metric, |route| {
            (RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL)
        })
    }

    /// Adds a route as [`Links::add_route`], taking the place of one of the same prefix and metric.
    ///
    /// # Errors
    /// As [`Links::set_up`].
    pub fn replace_route(
        &mut self,
        destination: Prefix,
        via: Option<IpAddr>,
        index: LinkIndex,
        metric: Option<u32>,
    ) -> Result<(), LinkError> {
        self.change_route("replace", destination, via, index, metric, |route| {
            (RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_REPLACE)
        })
    }

    /// Removes the route that [`Links::add_route`] made with the same arguments.
    ///
    /// # Errors
    /// As [`Links::set_up`]; [`LinkError::is_not_found`] if there is none.
    pub fn delete_route(
        &mut self,
        destination: Prefix,
        via: Option<IpAddr>,
        index: LinkIndex,
        metric: Option<u32>,
    ) -> Result<(), LinkError> {
        self.change_route("delete", destination, via, index, metric, |mut route| {
            route.header.scope = RouteScope::NoWhere; // Of any scope, as `ip route delete` asks.
            (RouteNetlinkMessage::DelRoute(route), 0)
        })
    }

    /// The addresses of all interfaces, of both families.
    ///
    /// # Errors
    /// [`LinkError::Refused`] or [`LinkError::Answer`].
    pub fn addresses(&mut self) -> Result<Vec<LinkAddress>, LinkError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.request("list the addresses", request, NLM_F_DUMP)?;
        let listed = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => Some(message),
            _ => None,
        });
        Ok(listed.filter_map(|message| own_address(&message)).collect())
    }

    /// How the kernel would send to `destination`.
    ///
    /// # Errors
    /// [`LinkError::Refused`], with `ENETUNREACH` where there is no route.
    pub fn route_to(&mut self, destination: IpAddr) -> Result<RouteAnswer, LinkError> {
        let attempt = format!("find a route to {destination}");
        let message = route_message((destination, width_bits(destination)), None, None, None);
        let answers = self.request(&attempt, RouteNetlinkMessage::GetRoute(message), 0)?;
        let answer = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => route_answer(&route),
            _ => None,
        });
        answer.ok_or_else(|| LinkError::Answer { attempt, what: "names no output interface".into() })
    }

    fn change_route(
        &mut self,
        verb: &str,
        destination: Prefix,
        via: Option<IpAddr>,
        index: LinkIndex,
        metric: Option<u32>,
        request: impl FnOnce(RouteMessage) -> (RouteNetlinkMessage, u16),
    ) -> Result<(), LinkError> {
        let (network, bits) = destination;
        let words = |name: &str| match via {
            Some(via) => format!("{verb} the route to {network}/{bits} through {via} by {name}"),
            None => format!("{verb} the route to {network}/{bits} by {name}"),
        };
        if bits > width_bits(network) {
            return Err(prefix_too_long(words(&format!("interface {index}"))));
        }
        if via.is_some_and(|via| via.is_ipv4() != network.is_ipv4()) {
            let attempt = words(&format!("interface {index}"));
            return Err(LinkError::Argument { attempt, what: "the next hop is of the other family" });
        }
        let (message, flags) = request(route_message(destination, via, Some(index), metric));
        self.change(index, words, message, flags)
    }

    fn link(&mut self, attempt: &str, message: LinkMessage) -> Result<LinkMessage, LinkError> {
        let answers = self.request(attempt, RouteNetlinkMessage::GetLink(message), 0)?;
        let link = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) if link.header.index != 0 => Some(link),
            _ => None,
        });
        link.ok_or_else(|| LinkError::Answer { attempt: attempt.into(), what: "names no interface".into() })
    }

    fn change_link(
        &mut self,
        index: LinkIndex,
        words: impl Fn(&str) -> String,
        message: LinkMessage,
    ) -> Result<(), LinkError> {
        self.change(index, words, RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Carries out a change of the interface. Only a refusal asks for the interface's name, to put it into the error.
    fn change(
        &mut self,
        index: LinkIndex,
        words: impl Fn(&str) -> String,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), LinkError> {
        let Err(failure) = self.channel.transact(message, flags, drop) else { return Ok(()) };
        let interface = match self.name_of(index) {
            Ok(name) => format!("interface {name} ({index})"),
            Err(_) => format!("interface {index}"),
        };
        Err(error(&words(&interface), failure))
    }

    fn request(
        &mut self,
        attempt: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, LinkError> {
        let mut answers = Vec::new();
        self.channel
            .transact(message, flags, |answer| answers.push(answer))
            .map_err(|failure| error(attempt, failure))?;
        Ok(answers)
    }
}

fn error(attempt: &str, failure: Failure) -> LinkError {
    let attempt = attempt.to_owned();
    match failure {
        Failure::Refused(source, detail) => LinkError::Refused { attempt, source, detail },
        Failure::Malformed(what) => LinkError::Answer { attempt, what },
    }
}

fn prefix_too_long(attempt: String) -> LinkError {
    LinkError::Argument { attempt, what: "the prefix is longer than the address" }
}

fn check_name(attempt: &str, name: &str) -> Result<(), LinkError> {
    let letters_ok = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || matches!(name, "." | "..") || !letters_ok {
        let what = "an interface name has 1 to 15 printable characters without '/' and ':'";
        return Err(LinkError::Argument { attempt: attempt.into(), what });
    }
    Ok(())
}

fn width_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn address_message(index: LinkIndex, address: IpAddr, prefix_bits: u8) -> AddressMessage {
    match address {
        IpAddr::V4(v4) => AddressMessageBuilder::<Ipv4Addr>::new().index(index.0).address(v4, prefix_bits).build(),
        IpAddr::V6(v6) => {
            let builder = AddressMessageBuilder::<Ipv6Addr>::new().index(index.0);
            let mut message = builder.address(v6, prefix_bits).build();
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            message
        }
    }
}

fn own_address(message: &AddressMessage) -> Option<LinkAddress> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    // IPv6 leaves IFA_LOCAL out unless there is a peer.
    let listed = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let index = LinkIndex(message.header.index);
    Some(LinkAddress { index, address: local.or(listed)?, prefix_bits: message.header.prefix_len })
}

/// The prefix and the family of `via` have been checked, so the message is built for one family.
fn route_message(
    (network, bits): Prefix,
    via: Option<IpAddr>,
    index: Option<LinkIndex>,
    metric: Option<u32>,
) -> RouteMessage {
    let mut message = match network {
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, bits).build(),
        IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, bits).build(),
    };
    match via {
        Some(via) => message.attributes.push(RouteAttribute::Gateway(via.into())),
        // Only a route of link scope can resolve the next hop of another.
        None if network.is_ipv4() && index.is_some() => message.header.scope = RouteScope::Link,
        None => {}
    }
    message.attributes.extend(index.map(|index| RouteAttribute::Oif(index.0)));
    message.attributes.extend(metric.map(RouteAttribute::Priority));
    message
}

fn route_answer(route: &RouteMessage) -> Option<RouteAnswer> {
    let mut output = None;
    let mut source = None;
    let mut gateway = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => output = Some(LinkIndex(*index)),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            _ => {}
        }
    }
    Some(RouteAnswer { output: output?, source, gateway })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

/// Only what needs no privilege; changes are tested in namespaces by `ringfort-netlab`.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_by_name_and_by_index() {
        let mut links = Links::open().unwrap();
        let index = links.index_of("lo").unwrap();
        assert_eq!(links.name_of(index).unwrap(), "lo");
    }

    #[test]
    fn a_missing_interface_is_not_found_and_named() {
        let error = Links::open().unwrap().index_of("nosuchlink").unwrap_err();
        assert!(error.is_not_found(), "{error:?}");
        assert!(error.to_string().contains("nosuchlink"), "{error}");
    }

    #[test]
    fn names_the_kernel_would_mangle_are_refused() {
        for name in ["", "a/b", "a b", "..", "sixteen-letters-"] {
            assert!(matches!(Links::open().unwrap().index_of(name), Err(LinkError::Argument { .. })), "{name:?}");
        }
    }

    #[test]
    fn a_mixed_or_too_long_route_is_refused_before_the_kernel_is_asked() {
        let mut links = Links::open().unwrap();
        let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
        for (prefix, via) in [((v4, 33), None), ((v6, 129), None), ((v4, 32), Some(v6))] {
            let answer = links.add_route(prefix, via, LinkIndex(1), None);
            assert!(matches!(answer, Err(LinkError::Argument { .. })), "{answer:?}");
        }
        assert!(matches!(links.add_address(LinkIndex(1), v4, 33), Err(LinkError::Argument { .. })));
    }
}
