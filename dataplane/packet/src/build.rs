//! Makes packets: for tests of this and other crates and for the laboratory, which play the part of a peer's kernel.
//!
//! Packets come with correct lengths and checksums and plain header fields: IPv4 with "don't fragment" and
//! identification 0, TTL and hop limit 64. A caller who wants other fields writes them and calls
//! [`set_checksums`]. This module allocates and panics on arguments that make no packet; it is not meant for bytes
//! that come from outside.

use std::net::{IpAddr, SocketAddr};

use crate::flow::protocol;
use crate::wire::{ip_header_bytes, put_u16, put_u32, set_ipv4_checksum, set_transport_checksum, write_ip_header};
use crate::wire::{ipv4, ipv6, tcp, u16_at, udp};

/// The fields of a TCP header that a caller chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp<'a> {
    /// Sequence number of the first byte.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// The flag byte, see [`crate::parse::tcp_flags`].
    pub flags: u8,
    /// Window, not scaled.
    pub window: u16,
    /// Option bytes, a multiple of 4 and at most 40.
    pub options: &'a [u8],
}

/// Whether an echo asks or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// Type 8, or 128 in IPv6.
    Request,
    /// Type 0, or 129 in IPv6.
    Reply,
}

/// An IP packet around `payload`, whose checksum (if any) is the caller's affair.
///
/// # Panics
/// When the addresses are of different families, or the packet would be longer than 65,535 bytes.
#[must_use]
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ip_header_bytes(source) + payload.len()];
    let header_bytes = write_ip_header(&mut packet, source, destination, protocol);
    assert_eq!(header_bytes, Some(ip_header_bytes(source)), "no IP packet of {} bytes", packet.len());
    packet[ip_header_bytes(source)..].copy_from_slice(payload);
    packet
}

/// A TCP segment in an IP packet.
///
/// # Panics
/// As [`ip`], and when the options do not fit a header.
#[must_use]
pub fn tcp(source: SocketAddr, destination: SocketAddr, header: &Tcp<'_>, payload: &[u8]) -> Vec<u8> {
    let header_bytes = tcp::HEADER_BYTES + header.options.len();
    assert!(header.options.len() <= 40 && header.options.len().is_multiple_of(4), "no TCP header has such options");
    let mut segment = vec![0; header_bytes];
    put_u16(&mut segment, 0, source.port());
    put_u16(&mut segment, 2, destination.port());
    put_u32(&mut segment, tcp::SEQUENCE, header.sequence);
    put_u32(&mut segment, tcp::ACKNOWLEDGEMENT, header.acknowledgement);
    segment[tcp::DATA_OFFSET] = (header_bytes as u8 / 4) << 4;
    segment[tcp::FLAGS] = header.flags;
    put_u16(&mut segment, tcp::WINDOW, header.window);
    segment[tcp::HEADER_BYTES..].copy_from_slice(header.options);
    segment.extend_from_slice(payload);
    with_checksums(ip(source.ip(), destination.ip(), protocol::TCP, &segment))
}

/// A UDP datagram in an IP packet.
///
/// # Panics
/// As [`ip`].
#[must_use]
pub fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; udp::HEADER_BYTES];
    put_u16(&mut datagram, 0, source.port());
    put_u16(&mut datagram, 2, destination.port());
    datagram.extend_from_slice(payload);
    let length = datagram.len() as u16;
    put_u16(&mut datagram, udp::LENGTH, length);
    with_checksums(ip(source.ip(), destination.ip(), protocol::UDP, &datagram))
}

/// An ICMP or ICMPv6 message: `rest` is the second word of its header, `body` what follows (the packet that an
/// error quotes, for instance).
///
/// # Panics
/// As [`ip`].
#[must_use]
pub fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&rest);
    message.extend_from_slice(body);
    let protocol = if source.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
    with_checksums(ip(source, destination, protocol, &message))
}

/// An ICMP or ICMPv6 echo.
///
/// # Panics
/// As [`ip`].
#[must_use]
pub fn echo(
    source: IpAddr,
    destination: IpAddr,
    echo: Echo,
    identifier: u16,
    sequence: u16,
    payload: &[u8],
) -> Vec<u8> {
    let kind = match (echo, source.is_ipv4()) {
        (Echo::Request, true) => 8,
        (Echo::Reply, true) => 0,
        (Echo::Request, false) => 128,
        (Echo::Reply, false) => 129,
    };
    let [[a, b], [c, d]] = [identifier.to_be_bytes(), sequence.to_be_bytes()];
    icmp(source, destination, kind, 0, [a, b, c, d], payload)
}

/// Puts an extension header of type `kind` directly behind the fixed header of an IPv6 packet. `body` is all of it
/// but the next-header byte, so that its first byte is the length field of most types.
///
/// # Panics
/// When `packet` is no IPv6 packet, or would become longer than 65,535 bytes.
#[must_use]
pub fn with_extension(packet: &[u8], kind: u8, body: &[u8]) -> Vec<u8> {
    assert!(packet.len() >= ipv6::HEADER_BYTES && packet[0] >> 4 == 6, "extension headers are for IPv6");
    let (header, rest) = packet.split_at(ipv6::HEADER_BYTES);
    let mut longer = header.to_vec();
    longer.push(header[ipv6::NEXT_HEADER]);
    longer.extend_from_slice(body);
    longer.extend_from_slice(rest);
    assert!(longer.len() <= usize::from(u16::MAX), "no IP packet of {} bytes", longer.len());
    longer[ipv6::NEXT_HEADER] = kind;
    let payload_bytes = (longer.len() - ipv6::HEADER_BYTES) as u16;
    put_u16(&mut longer, ipv6::PAYLOAD_LENGTH, payload_bytes);
    longer
}

/// Cuts a packet (IPv4 without options, IPv6 without extension headers) into fragments whose payloads have
/// `payload_bytes` but the last, which has the rest.
///
/// # Panics
/// When `payload_bytes` is 0 or no multiple of 8, or when `packet` is no IP packet.
#[must_use]
pub fn fragments(packet: &[u8], payload_bytes: u16, identification: u16) -> Vec<Vec<u8>> {
    assert!(payload_bytes > 0 && payload_bytes.is_multiple_of(8), "fragments carry multiples of 8 bytes");
    let ipv4 = packet[0] >> 4 == 4;
    let (header, payload) = packet.split_at(if ipv4 { ipv4::HEADER_BYTES } else { ipv6::HEADER_BYTES });
    let count = payload.len().div_ceil(usize::from(payload_bytes));
    let pieces = payload.chunks(usize::from(payload_bytes)).enumerate();
    pieces
        .map(|(index, piece)| {
            let more = index + 1 < count;
            let offset_bytes = index as u16 * payload_bytes;
            if ipv4 {
                let mut fragment = [header, piece].concat();
                let length = fragment.len() as u16;
                put_u16(&mut fragment, ipv4::TOTAL_LENGTH, length);
                put_u16(&mut fragment, ipv4::IDENTIFICATION, identification);
                let more = if more { ipv4::MORE_FRAGMENTS } else { 0 };
                put_u16(&mut fragment, ipv4::FRAGMENT, (offset_bytes / 8) | more);
                set_ipv4_checksum(&mut fragment);
                fragment
            } else {
                let [[a, b], [c, d]] = [(offset_bytes | u16::from(more)).to_be_bytes(), identification.to_be_bytes()];
                with_extension(&[header, piece].concat(), 44, &[0, a, b, 0, 0, c, d])
            }
        })
        .collect()
}

/// Writes correct checksums into the IPv4 header and into a TCP, UDP, ICMP or ICMPv6 header that follows the IP
/// header directly. Leaves alone what is none of these, and everything in fragments but the IPv4 header.
pub fn set_checksums(packet: &mut [u8]) {
    let Some(&first) = packet.first() else { return };
    let (header_bytes, addresses, protocol_at) = if first >> 4 == 4 {
        set_ipv4_checksum(packet);
        (usize::from(first & 0x0f) * 4, ipv4::SOURCE..ipv4::HEADER_BYTES, ipv4::PROTOCOL)
    } else {
        (ipv6::HEADER_BYTES, ipv6::SOURCE..ipv6::HEADER_BYTES, ipv6::NEXT_HEADER)
    };
    let Some((header, transport)) = packet.split_at_mut_checked(header_bytes) else { return };
    let (Some(addresses), Some(&protocol)) = (header.get(addresses), header.get(protocol_at)) else { return };
    let fragment = header.first_chunk::<8>().map_or(0, |bytes| u16_at(bytes, ipv4::FRAGMENT));
    if first >> 4 == 4 && fragment & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET_MASK) != 0 {
        return;
    }
    set_transport_checksum(transport, addresses, protocol);
}

fn with_checksums(mut packet: Vec<u8>) -> Vec<u8> {
    set_checksums(&mut packet);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Transport, parse, tcp_flags};

    fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
        if v6 {
            ("[fd00::1]:1000".parse().unwrap(), "[fd00::2]:2000".parse().unwrap())
        } else {
            ("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:2000".parse().unwrap())
        }
    }

    #[test]
    fn what_is_built_parses() {
        for v6 in [false, true] {
            let (a, b) = ends(v6);
            let fields = Tcp { flags: tcp_flags::SYN, options: &[1; 8], ..Tcp::default() };
            let packet = tcp(a, b, &fields, b"abc");
            let parsed = parse(&packet).unwrap();
            assert_eq!(usize::from(parsed.total_bytes), packet.len());
            assert_eq!(
                parsed.transport,
                Transport::Tcp { source_port: 1000, destination_port: 2000, flags: tcp_flags::SYN }
            );
            let parsed = parse(&udp(a, b, b"abc")).unwrap();
            assert_eq!(parsed.transport, Transport::Udp { source_port: 1000, destination_port: 2000 });
            let parsed = parse(&echo(a.ip(), b.ip(), Echo::Reply, 77, 1, b"abc")).unwrap();
            assert_eq!(parsed.transport, Transport::IcmpEcho { identifier: 77, request: false });
        }
    }

    /// The header that textbooks work through by hand, and a UDP checksum summed up word by word.
    #[test]
    fn checksums_are_those_of_known_packets() {
        let packet = udp("192.168.0.1:53".parse().unwrap(), "192.168.0.199:5353".parse().unwrap(), &[0; 87]);
        let header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 192, 168, 0, 1, 192, 168, 0, 199];
        assert_eq!(&packet[..20], &header);
        let sum: u32 = 0xc0a8 + 1 + 0xc0a8 + 199 + 17 + 95 + 53 + 5353 + 95;
        assert_eq!(u16::from_be_bytes([packet[26], packet[27]]), !((sum & 0xffff) as u16 + (sum >> 16) as u16));
    }

    #[test]
    fn fragments_parse_as_fragments() {
        for v6 in [false, true] {
            let (a, b) = ends(v6);
            let packet = udp(a, b, &[7; 100]);
            let pieces = fragments(&packet, 48, 0x1234);
            assert_eq!(pieces.len(), 3);
            let parsed: Vec<_> = pieces.iter().map(|piece| parse(piece).unwrap()).collect();
            assert!(parsed.iter().all(|parsed| parsed.fragment.unwrap().identification == 0x1234));
            assert!(matches!(parsed[0].transport, Transport::Udp { .. }));
            assert_eq!(parsed[2].transport, Transport::LaterFragment);
            assert_eq!(parsed[2].fragment.unwrap().offset_bytes, 96);
            assert!(!parsed[2].fragment.unwrap().more);
        }
    }
}
