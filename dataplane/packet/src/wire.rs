//! Field positions, big-endian access and header writers that several modules share.
//!
//! The readers take arrays, so that an offset which does not fit is a constant fault found by the first test. The
//! writers take slices and write nothing where the field does not fit.

use std::net::IpAddr;

use crate::checksum::Sum;
use crate::flow::protocol;

/// IPv4 header without options, RFC 791 §3.1.
pub(crate) mod ipv4 {
    pub(crate) const HEADER_BYTES: usize = 20;
    pub(crate) const TOS: usize = 1;
    pub(crate) const TOTAL_LENGTH: usize = 2;
    pub(crate) const IDENTIFICATION: usize = 4;
    pub(crate) const FRAGMENT: usize = 6;
    pub(crate) const TTL: usize = 8;
    pub(crate) const PROTOCOL: usize = 9;
    pub(crate) const CHECKSUM: usize = 10;
    pub(crate) const SOURCE: usize = 12;
    pub(crate) const DESTINATION: usize = 16;
    /// "Don't fragment" in the field at [`FRAGMENT`].
    pub(crate) const DONT_FRAGMENT: u16 = 0x4000;
    /// "More fragments" in the field at [`FRAGMENT`].
    pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;
    /// The fragment offset, in units of 8 bytes, in the field at [`FRAGMENT`].
    pub(crate) const OFFSET_MASK: u16 = 0x1fff;
}

/// IPv6 header, RFC 8200 §3.
pub(crate) mod ipv6 {
    pub(crate) const HEADER_BYTES: usize = 40;
    pub(crate) const PAYLOAD_LENGTH: usize = 4;
    pub(crate) const NEXT_HEADER: usize = 6;
    pub(crate) const HOP_LIMIT: usize = 7;
    pub(crate) const SOURCE: usize = 8;
    pub(crate) const DESTINATION: usize = 24;
}

/// TCP header, RFC 9293 §3.1.
pub(crate) mod tcp {
    pub(crate) const HEADER_BYTES: usize = 20;
    pub(crate) const SEQUENCE: usize = 4;
    pub(crate) const ACKNOWLEDGEMENT: usize = 8;
    pub(crate) const DATA_OFFSET: usize = 12;
    pub(crate) const FLAGS: usize = 13;
    pub(crate) const WINDOW: usize = 14;
    pub(crate) const CHECKSUM: usize = 16;
    pub(crate) const URGENT: usize = 18;
}

/// UDP header, RFC 768.
pub(crate) mod udp {
    pub(crate) const HEADER_BYTES: usize = 8;
    pub(crate) const LENGTH: usize = 4;
    pub(crate) const CHECKSUM: usize = 6;
}

/// ICMP and ICMPv6 messages begin alike: type, code, checksum, four bytes by type (RFC 792, RFC 4443 §2.1).
pub(crate) mod icmp {
    pub(crate) const HEADER_BYTES: usize = 8;
    pub(crate) const CHECKSUM: usize = 2;
}

/// The 16 bits at `at`.
#[inline]
pub(crate) const fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The 32 bits at `at`.
#[inline]
pub(crate) const fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Writes `value` at `at`, or nothing where it does not fit.
#[inline]
pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = value.to_be_bytes();
    }
}

/// Writes `value` at `at`, or nothing where it does not fit.
#[inline]
pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = value.to_be_bytes();
    }
}

/// Length of the IP header that [`write_ip_header`] writes for this family.
pub(crate) const fn ip_header_bytes(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => ipv4::HEADER_BYTES,
        IpAddr::V6(_) => ipv6::HEADER_BYTES,
    }
}

/// Writes the IP header of a packet that fills `packet`, and returns its length. `None` when the families differ,
/// the packet is too long for its length field or too short for its header.
pub(crate) fn write_ip_header(packet: &mut [u8], source: IpAddr, destination: IpAddr, protocol: u8) -> Option<usize> {
    let total_bytes = u16::try_from(packet.len()).ok()?;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = packet.first_chunk_mut::<{ ipv4::HEADER_BYTES }>()?;
            *header = [0; ipv4::HEADER_BYTES];
            header[0] = 0x45;
            put_u16(header, ipv4::TOTAL_LENGTH, total_bytes);
            put_u16(header, ipv4::FRAGMENT, ipv4::DONT_FRAGMENT);
            header[ipv4::TTL] = HOP_LIMIT;
            header[ipv4::PROTOCOL] = protocol;
            header[ipv4::SOURCE..ipv4::DESTINATION].copy_from_slice(&source.octets());
            header[ipv4::DESTINATION..].copy_from_slice(&destination.octets());
            set_ipv4_checksum(header);
            Some(ipv4::HEADER_BYTES)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = packet.first_chunk_mut::<{ ipv6::HEADER_BYTES }>()?;
            *header = [0; ipv6::HEADER_BYTES];
            header[0] = 0x60;
            put_u16(header, ipv6::PAYLOAD_LENGTH, total_bytes - ipv6::HEADER_BYTES as u16);
            header[ipv6::NEXT_HEADER] = protocol;
            header[ipv6::HOP_LIMIT] = HOP_LIMIT;
            header[ipv6::SOURCE..ipv6::DESTINATION].copy_from_slice(&source.octets());
            header[ipv6::DESTINATION..].copy_from_slice(&destination.octets());
            Some(ipv6::HEADER_BYTES)
        }
        _ => None,
    }
}

/// TTL and hop limit of packets made here, the value that RFC 1700 recommends and common kernels use.
const HOP_LIMIT: u8 = 64;

/// Writes the checksum of the IPv4 header that `packet` begins with, options included.
pub(crate) fn set_ipv4_checksum(packet: &mut [u8]) {
    put_u16(packet, ipv4::CHECKSUM, 0);
    let header_bytes = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    if let Some(header) = packet.get_mut(..header_bytes) {
        let checksum = Sum::of(header).complement();
        put_u16(header, ipv4::CHECKSUM, checksum);
    }
}

/// Writes the checksum of a transport header and its payload. `addresses` as in [`Sum::pseudo_header`].
pub(crate) fn set_transport_checksum(transport: &mut [u8], addresses: &[u8], protocol: u8) {
    let at = match protocol {
        protocol::TCP => tcp::CHECKSUM,
        protocol::UDP => udp::CHECKSUM,
        protocol::ICMP | protocol::ICMPV6 => icmp::CHECKSUM,
        _ => return,
    };
    let pseudo_header = match protocol {
        protocol::ICMP => Sum::ZERO,
        _ => Sum::pseudo_header(addresses, protocol, transport.len() as u16),
    };
    put_u16(transport, at, 0);
    let sum = Sum::of(transport).combine(pseudo_header);
    let checksum = if protocol == protocol::UDP { sum.complement_udp() } else { sum.complement() };
    put_u16(transport, at, checksum);
}
