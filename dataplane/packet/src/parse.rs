//! What the firewall needs to know of one inner IP packet.

use std::net::IpAddr;

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
        quoted: crate::flow::FlowKey,
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
