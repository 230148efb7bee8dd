//! What the firewall needs to know of one inner IP packet.
//!
//! [`parse`] accepts a packet only when every length in it is consistent, its transport header is all there, and
//! it uses none of the tricks by which a packet reaches another place than its destination address says or says
//! other things in pieces than as a whole: source routes (RFC 5095, RFC 7126 §4.3), tiny and overlapping fragments
//! (RFC 1858, RFC 3128, RFC 7112), fragments beyond the end of a packet, IPv4-mapped IPv6 addresses.
//!
//! Decisions that a reader may look for:
//!
//! - Bytes after the total length are ignored; the packet is [`Parsed::total_bytes`] long and the caller truncates.
//! - No checksum is verified. The record layer has authenticated every byte since the peer's kernel made the packet,
//!   the kernel behind the TUN verifies the IPv4 header before it forwards, and the receiver the transport. The
//!   coalescer, which would repair a wrong checksum by writing a new one, verifies for itself.
//! - Whether addresses are plausible (unicast, assigned to the session) is for the firewall.
//! - An IPv6 "atomic" fragment (offset 0, no more, RFC 6946) is a whole packet: `fragment` is `None`.
//! - Options other than IPv4 source routes are not looked at.
//! - ICMP in IPv6 and ICMPv6 in IPv4 are [`Transport::Other`]. So are AH in IPv4, ESP and "no next header".
//! - An echo with a code other than 0 is [`Transport::IcmpOther`]; so are source quench and redirect, which name a
//!   flow but ask for something that no gateway should pass on.

mod extensions;
mod icmp;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use self::extensions::Chain;
use crate::flow::{FlowKey, protocol};
use crate::wire::{ipv4, ipv6, tcp, u16_at, udp};

/// The bits of the TCP flag byte, RFC 9293 §3.1.
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push the data to the application.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// Congestion was experienced on the way (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// The congestion window was reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
}

/// One IP packet, checked: every length in it lies within the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Source address of the IP header.
    pub source: IpAddr,
    /// Destination address of the IP header.
    pub destination: IpAddr,
    /// Bytes from the start of the packet to the transport header (IPv6 extension headers included).
    pub network_header_bytes: u16,
    /// Length of the whole packet as its IP header says; the bytes given are at least that many.
    pub total_bytes: u16,
    /// Set when the packet is a fragment.
    pub fragment: Option<Fragment>,
    /// What the packet carries.
    pub transport: Transport,
}

/// The fragment fields of a packet (RFC 791 §3.1, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification, 16 bits in IPv4 and 32 in IPv6.
    pub identification: u32,
    /// Offset of this fragment's payload, in bytes (a multiple of 8).
    pub offset_bytes: u16,
    /// More fragments follow.
    pub more: bool,
    /// Protocol number that the fragment header (or the IPv4 header) names.
    pub protocol: u8,
}

/// The transport part of a packet, as far as verdicts need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with at least its 20-byte header present and its data offset within the packet.
    Tcp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
        /// The flag byte (FIN 0x01, SYN 0x02, RST 0x04, PSH 0x08, ACK 0x10, URG 0x20, ECE 0x40, CWR 0x80).
        flags: u8,
    },
    /// UDP with its 8-byte header present and its length field within the packet.
    Udp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
    },
    /// ICMP or ICMPv6 echo.
    IcmpEcho {
        /// Identifier, which takes the place of both ports.
        identifier: u16,
        /// A request (else a reply).
        request: bool,
    },
    /// An ICMP or ICMPv6 error with enough of the packet that caused it to name its flow.
    IcmpError {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
        /// The flow of the quoted packet, in the direction in which that packet travelled. For a quoted echo
        /// both ports hold the identifier. A quoted fragment that is not the first has ports 0.
        quoted: FlowKey,
    },
    /// Any other ICMP or ICMPv6 message.
    IcmpOther {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
    },
    /// Another IP protocol.
    Other {
        /// IP protocol number.
        protocol: u8,
    },
    /// A fragment that is not the first: it carries no transport header.
    LaterFragment,
}

impl Parsed {
    /// The flow of the packet in the direction in which it travels.
    ///
    /// `None` for what has none: a fragment that is not the first, and ICMP other than echo. (The flow that an ICMP
    /// error speaks about is [`Transport::IcmpError::quoted`].)
    #[must_use]
    #[inline]
    pub fn flow_key(&self) -> Option<FlowKey> {
        let (protocol, source_port, destination_port) = match self.transport {
            Transport::Tcp { source_port, destination_port, .. } => (protocol::TCP, source_port, destination_port),
            Transport::Udp { source_port, destination_port } => (protocol::UDP, source_port, destination_port),
            Transport::IcmpEcho { identifier, .. } => match self.source {
                IpAddr::V4(_) => (protocol::ICMP, identifier, identifier),
                IpAddr::V6(_) => (protocol::ICMPV6, identifier, identifier),
            },
            Transport::Other { protocol } => (protocol, 0, 0),
            Transport::IcmpError { .. } | Transport::IcmpOther { .. } | Transport::LaterFragment => return None,
        };
        FlowKey::new(self.source, self.destination, protocol, source_port, destination_port)
    }
}

/// Why a packet was refused before any rule saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Malformed {
    /// No bytes at all.
    Empty,
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// Fewer bytes than an IPv4 header has.
    Ipv4HeaderTruncated,
    /// The IPv4 header claims fewer than 20 bytes.
    Ipv4HeaderLength,
    /// An IPv4 option reaches beyond the header.
    Ipv4Option,
    /// A loose or strict source route option (RFC 791 §3.1).
    SourceRoute,
    /// Fewer bytes than an IPv6 header has.
    Ipv6HeaderTruncated,
    /// An IPv6 address that stands for an IPv4 address (`::ffff:0:0/96`, RFC 4291 §2.5.5.2) does not belong on a
    /// wire and would evade rules written for the latter.
    Ipv6MappedAddress,
    /// The length in the IP header is shorter than that header, or longer than the bytes given or than 65,535.
    TotalLength,
    /// An IPv6 extension header reaches beyond the packet (in a first fragment: beyond that fragment, RFC 7112).
    ExtensionTruncated,
    /// A hop-by-hop header that is not the first, or a second fragment header (RFC 8200 §4.1).
    ExtensionOrder,
    /// More than [`EXTENSION_HEADERS_MAX`] extension headers.
    ExtensionCount,
    /// A routing header of type 0, or one with segments left: the packet would go elsewhere than its destination
    /// address says (RFC 5095).
    RoutingHeader,
    /// A fragment without payload, or one that is not the last and whose payload is no multiple of 8 bytes.
    FragmentLength,
    /// A fragment that reaches beyond the largest IP packet.
    FragmentEnd,
    /// A first fragment without the whole transport header (RFC 1858 §3, RFC 7112).
    FragmentTiny,
    /// A TCP fragment at offset 8, which would overwrite the flags of the first (RFC 1858 §3, RFC 3128).
    FragmentOverlap,
    /// Fewer bytes than the transport header has.
    TransportTruncated,
    /// The TCP data offset is less than 5 words, or points beyond the packet.
    TcpDataOffset,
    /// The UDP length is less than 8, or beyond the packet.
    UdpLength,
    /// An ICMP error whose quoted packet does not name a flow.
    QuotedPacket,
}

impl Malformed {
    /// Every reason, in the order of the variants: `ALL[reason as usize] == reason`.
    pub const ALL: [Self; 21] = [
        Self::Empty,
        Self::NotIp,
        Self::Ipv4HeaderTruncated,
        Self::Ipv4HeaderLength,
        Self::Ipv4Option,
        Self::SourceRoute,
        Self::Ipv6HeaderTruncated,
        Self::Ipv6MappedAddress,
        Self::TotalLength,
        Self::ExtensionTruncated,
        Self::ExtensionOrder,
        Self::ExtensionCount,
        Self::RoutingHeader,
        Self::FragmentLength,
        Self::FragmentEnd,
        Self::FragmentTiny,
        Self::FragmentOverlap,
        Self::TransportTruncated,
        Self::TcpDataOffset,
        Self::UdpLength,
        Self::QuotedPacket,
    ];

    /// The name under which the reason is counted. It stays the same from release to release.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotIp => "not_ip",
            Self::Ipv4HeaderTruncated => "ipv4_header_truncated",
            Self::Ipv4HeaderLength => "ipv4_header_length",
            Self::Ipv4Option => "ipv4_option",
            Self::SourceRoute => "source_route",
            Self::Ipv6HeaderTruncated => "ipv6_header_truncated",
            Self::Ipv6MappedAddress => "ipv6_mapped_address",
            Self::TotalLength => "total_length",
            Self::ExtensionTruncated => "extension_truncated",
            Self::ExtensionOrder => "extension_order",
            Self::ExtensionCount => "extension_count",
            Self::RoutingHeader => "routing_header",
            Self::FragmentLength => "fragment_length",
            Self::FragmentEnd => "fragment_end",
            Self::FragmentTiny => "fragment_tiny",
            Self::FragmentOverlap => "fragment_overlap",
            Self::TransportTruncated => "transport_truncated",
            Self::TcpDataOffset => "tcp_data_offset",
            Self::UdpLength => "udp_length",
            Self::QuotedPacket => "quoted_packet",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Extension headers walked in one IPv6 packet. RFC 8200 §4.1 names seven at most, one of them ESP; a longer chain
/// only costs its reader time and is [`Malformed::ExtensionCount`].
pub const EXTENSION_HEADERS_MAX: usize = 8;

/// Checks one IP packet and says what the firewall needs to know of it.
///
/// # Errors
/// The first fault found; the packet must be dropped.
#[inline]
pub fn parse(packet: &[u8]) -> Result<Parsed, Malformed> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => parse_ipv4(packet),
        Some(6) => parse_ipv6(packet),
        Some(_) => Err(Malformed::NotIp),
        None => Err(Malformed::Empty),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

fn parse_ipv4(packet: &[u8]) -> Result<Parsed, Malformed> {
    let header = packet.first_chunk::<{ ipv4::HEADER_BYTES }>().ok_or(Malformed::Ipv4HeaderTruncated)?;
    let header_bytes = ipv4_header_bytes(header).ok_or(Malformed::Ipv4HeaderLength)?;
    let total_bytes = u16_at(header, ipv4::TOTAL_LENGTH);
    let packet = packet.get(..usize::from(total_bytes)).ok_or(Malformed::TotalLength)?;
    let (whole_header, payload) = packet.split_at_checked(usize::from(header_bytes)).ok_or(Malformed::TotalLength)?;
    if let Some(options) = whole_header.get(ipv4::HEADER_BYTES..)
        && !options.is_empty()
    {
        check_ipv4_options(options)?;
    }

    let protocol = header[ipv4::PROTOCOL];
    let fragment = ipv4_fragment(header);
    if let Some(fragment) = &fragment {
        check_fragment(fragment, usize::from(header_bytes), payload.len())?;
    }
    Ok(Parsed {
        source: IpAddr::V4(ipv4_address(header, ipv4::SOURCE)),
        destination: IpAddr::V4(ipv4_address(header, ipv4::DESTINATION)),
        network_header_bytes: header_bytes,
        total_bytes,
        fragment,
        transport: transport(Family::V4, protocol, payload, fragment.as_ref())?,
    })
}

/// The length that the header claims, options included; `None` below 20.
fn ipv4_header_bytes(header: &[u8; ipv4::HEADER_BYTES]) -> Option<u16> {
    let bytes = u16::from(header[0] & 0x0f) * 4;
    (usize::from(bytes) >= ipv4::HEADER_BYTES).then_some(bytes)
}

#[inline]
fn ipv4_address(header: &[u8; ipv4::HEADER_BYTES], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3])
}

#[inline]
fn ipv4_fragment(header: &[u8; ipv4::HEADER_BYTES]) -> Option<Fragment> {
    let field = u16_at(header, ipv4::FRAGMENT);
    let offset_bytes = (field & ipv4::OFFSET_MASK) * 8;
    let more = field & ipv4::MORE_FRAGMENTS != 0;
    (more || offset_bytes != 0).then(|| Fragment {
        identification: u32::from(u16_at(header, ipv4::IDENTIFICATION)),
        offset_bytes,
        more,
        protocol: header[ipv4::PROTOCOL],
    })
}

fn check_ipv4_options(mut options: &[u8]) -> Result<(), Malformed> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    while let Some((&kind, rest)) = options.split_first() {
        options = match kind {
            END => return Ok(()),
            NO_OPERATION => rest,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(Malformed::SourceRoute),
            _ => {
                let length = rest.first().copied().filter(|&length| length >= 2).ok_or(Malformed::Ipv4Option)?;
                options.get(usize::from(length)..).ok_or(Malformed::Ipv4Option)?
            }
        };
    }
    Ok(())
}

fn parse_ipv6(packet: &[u8]) -> Result<Parsed, Malformed> {
    let header = packet.first_chunk::<{ ipv6::HEADER_BYTES }>().ok_or(Malformed::Ipv6HeaderTruncated)?;
    let total_bytes =
        u16_at(header, ipv6::PAYLOAD_LENGTH).checked_add(ipv6::HEADER_BYTES as u16).ok_or(Malformed::TotalLength)?;
    let packet = packet.get(..usize::from(total_bytes)).ok_or(Malformed::TotalLength)?;
    let chain = Chain::start(header);
    if chain.goes_on() { parse_extended_ipv6(header, packet) } else { parse_ipv6_behind(&chain, header, packet) }
}

/// Kept apart from the common case, which one `match` for both would slow down.
#[inline(never)]
fn parse_extended_ipv6(header: &[u8; ipv6::HEADER_BYTES], packet: &[u8]) -> Result<Parsed, Malformed> {
    parse_ipv6_behind(&extensions::walk(header, packet)?, header, packet)
}

/// Parses what stands behind the headers that `chain` has walked. `packet` ends where the packet does.
#[inline(always)]
fn parse_ipv6_behind(chain: &Chain, header: &[u8; ipv6::HEADER_BYTES], packet: &[u8]) -> Result<Parsed, Malformed> {
    let (source, destination) = ipv6_addresses(header).ok_or(Malformed::Ipv6MappedAddress)?;
    let payload = packet.get(chain.end..).ok_or(Malformed::ExtensionTruncated)?;
    if let Some((fragment, at)) = &chain.fragment {
        let fragment_payload_bytes = packet.len().saturating_sub(at + extensions::FRAGMENT_HEADER_BYTES);
        check_fragment(fragment, *at, fragment_payload_bytes)?;
    }
    let fragment = chain.fragment.map(|(fragment, _)| fragment);
    Ok(Parsed {
        source: IpAddr::V6(source),
        destination: IpAddr::V6(destination),
        network_header_bytes: chain.end as u16,
        total_bytes: packet.len() as u16,
        fragment,
        transport: transport(Family::V6, chain.protocol, payload, fragment.as_ref())?,
    })
}

/// Source and destination; `None` when one is an IPv4-mapped address.
#[inline]
fn ipv6_addresses(header: &[u8; ipv6::HEADER_BYTES]) -> Option<(Ipv6Addr, Ipv6Addr)> {
    const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let (_, addresses) = header.split_first_chunk::<{ ipv6::SOURCE }>()?;
    let (source, destination) = addresses.split_first_chunk::<16>()?;
    let destination = destination.first_chunk::<16>()?;
    let mapped = source.first_chunk() == Some(&MAPPED) || destination.first_chunk() == Some(&MAPPED);
    (!mapped).then(|| (Ipv6Addr::from(*source), Ipv6Addr::from(*destination)))
}

/// Fragments that reassemble into something no whole packet could be. `unfragmentable_bytes` is what stands before
/// the fragmented part in the whole packet.
fn check_fragment(fragment: &Fragment, unfragmentable_bytes: usize, payload_bytes: usize) -> Result<(), Malformed> {
    if payload_bytes == 0 || fragment.more && !payload_bytes.is_multiple_of(8) {
        return Err(Malformed::FragmentLength);
    }
    if unfragmentable_bytes + usize::from(fragment.offset_bytes) + payload_bytes > usize::from(u16::MAX) {
        return Err(Malformed::FragmentEnd);
    }
    if fragment.protocol == protocol::TCP && fragment.offset_bytes == 8 {
        return Err(Malformed::FragmentOverlap);
    }
    Ok(())
}

// Inlined with what it calls for TCP and UDP, or the result is copied three times on its way out.
#[inline(always)]
fn transport(
    family: Family,
    protocol: u8,
    payload: &[u8],
    fragment: Option<&Fragment>,
) -> Result<Transport, Malformed> {
    let result = match (protocol, family) {
        _ if fragment.is_some_and(|fragment| fragment.offset_bytes != 0) => return Ok(Transport::LaterFragment),
        (protocol::TCP, _) => tcp_transport(payload),
        (protocol::UDP, _) => udp_transport(payload, fragment.is_some()),
        (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6) => icmp::transport(family, payload),
        _ => return Ok(Transport::Other { protocol }),
    };
    match result {
        Err(Malformed::TransportTruncated) if fragment.is_some() => Err(Malformed::FragmentTiny),
        result => result,
    }
}

#[inline(always)]
fn tcp_transport(payload: &[u8]) -> Result<Transport, Malformed> {
    let header = payload.first_chunk::<{ tcp::HEADER_BYTES }>().ok_or(Malformed::TransportTruncated)?;
    let header_bytes = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
    if header_bytes < tcp::HEADER_BYTES || header_bytes > payload.len() {
        return Err(Malformed::TcpDataOffset);
    }
    Ok(Transport::Tcp {
        source_port: u16_at(header, 0),
        destination_port: u16_at(header, 2),
        flags: header[tcp::FLAGS],
    })
}

#[inline(always)]
fn udp_transport(payload: &[u8], first_fragment: bool) -> Result<Transport, Malformed> {
    let header = payload.first_chunk::<{ udp::HEADER_BYTES }>().ok_or(Malformed::TransportTruncated)?;
    let length = usize::from(u16_at(header, udp::LENGTH));
    // The length speaks of the whole datagram, of which a first fragment holds only the beginning.
    if length < udp::HEADER_BYTES || length > payload.len() && !first_fragment {
        return Err(Malformed::UdpLength);
    }
    Ok(Transport::Udp { source_port: u16_at(header, 0), destination_port: u16_at(header, 2) })
}
