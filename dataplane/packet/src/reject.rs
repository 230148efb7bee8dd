//! Answers to denied packets, so that a user's program fails at once and says why instead of waiting.
//!
//! An answer goes back the way the packet came, as if its destination, or a router there, had written it. Both
//! functions write into the caller's buffer and return the length; `None` means that nothing may be sent, or that
//! the buffer is shorter than the answer ([`ANSWER_BYTES_MAX`] always suffices). Whether to answer at all and how
//! often (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)) is for the caller.

use std::net::{IpAddr, Ipv4Addr};

use crate::flow::protocol;
use crate::parse::{Parsed, Transport, tcp_flags};
use crate::wire::{icmp, ipv4, ipv6, put_u16, put_u32, tcp, u32_at};
use crate::wire::{ip_header_bytes, set_ipv4_checksum, set_transport_checksum, write_ip_header};

/// Longest answer, that of [`unreachable_prohibited`] in IPv6.
pub const ANSWER_BYTES_MAX: usize = ICMPV6_BYTES_MAX;

/// RFC 1812 §4.3.2.3: as much of the packet as fits a datagram of 576 bytes, which every host takes.
const ICMPV4_BYTES_MAX: usize = 576;

/// RFC 4443 §2.4 (c): as much of the packet as fits the minimum IPv6 MTU.
const ICMPV6_BYTES_MAX: usize = 1280;

/// The reset that a closed port sends (RFC 9293 §3.10.7.1).
///
/// `original` is the denied packet and `parsed` what [`crate::parse::parse`] says of it. `None` for everything but
/// TCP, for a reset, for a fragment (its segment length is unknown) and between addresses that are no hosts'.
#[must_use]
pub fn tcp_reset(original: &[u8], parsed: &Parsed, out: &mut [u8]) -> Option<usize> {
    let Transport::Tcp { source_port, destination_port, flags } = parsed.transport else { return None };
    if flags & tcp_flags::RST != 0 || parsed.fragment.is_some() || !may_answer(parsed) {
        return None;
    }
    let segment = original.get(usize::from(parsed.network_header_bytes)..usize::from(parsed.total_bytes))?;
    let header = segment.first_chunk::<{ tcp::HEADER_BYTES }>()?;
    let payload_bytes = segment.len().checked_sub(usize::from(header[tcp::DATA_OFFSET] >> 4) * 4)?;
    let (sequence, acknowledgement, answer_flags) = if flags & tcp_flags::ACK != 0 {
        (u32_at(header, tcp::ACKNOWLEDGEMENT), 0, tcp_flags::RST)
    } else {
        let control = u32::from(flags & tcp_flags::SYN != 0) + u32::from(flags & tcp_flags::FIN != 0);
        let segment_length = payload_bytes as u32 + control;
        let acknowledgement = u32_at(header, tcp::SEQUENCE).wrapping_add(segment_length);
        (0, acknowledgement, tcp_flags::RST | tcp_flags::ACK)
    };

    write_answer(parsed.destination, parsed.source, protocol::TCP, tcp::HEADER_BYTES, out, |answer| {
        put_u16(answer, 0, destination_port);
        put_u16(answer, 2, source_port);
        put_u32(answer, tcp::SEQUENCE, sequence);
        put_u32(answer, tcp::ACKNOWLEDGEMENT, acknowledgement);
        put_u16(answer, tcp::DATA_OFFSET, (tcp::HEADER_BYTES as u16 / 4) << 12 | u16::from(answer_flags));
    })
}

/// "Communication administratively prohibited": ICMP type 3 code 13 (RFC 1812 §5.2.7.1), ICMPv6 type 1 code 1
/// (RFC 4443 §3.1), sent by `from`, an address of the gateway.
///
/// `original` is the denied packet and `parsed` what [`crate::parse::parse`] says of it. `None` in answer to an ICMP
/// error or redirect, to a fragment other than the first, to a packet whose destination is multicast or broadcast or
/// whose source names no single host (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)), and when `from` is of the other family.
/// The broadcast addresses of subnets cannot be told here.
#[must_use]
pub fn unreachable_prohibited(original: &[u8], parsed: &Parsed, from: IpAddr, out: &mut [u8]) -> Option<usize> {
    let later_fragment = parsed.fragment.is_some_and(|fragment| fragment.offset_bytes != 0);
    if later_fragment || is_icmp_error(parsed) || !may_answer(parsed) || from.is_ipv4() != parsed.source.is_ipv4() {
        return None;
    }
    let (kind, code, protocol, bytes_max) = match from {
        IpAddr::V4(_) => (3, 13, protocol::ICMP, ICMPV4_BYTES_MAX),
        IpAddr::V6(_) => (1, 1, protocol::ICMPV6, ICMPV6_BYTES_MAX),
    };
    let original = original.get(..usize::from(parsed.total_bytes))?;
    let quoted_bytes = original.len().min(bytes_max - icmp::HEADER_BYTES - ip_header_bytes(from));
    let quoted = original.get(..quoted_bytes)?;
    write_answer(from, parsed.source, protocol, icmp::HEADER_BYTES + quoted_bytes, out, |answer| {
        if let Some((header, body)) = answer.split_first_chunk_mut::<{ icmp::HEADER_BYTES }>() {
            header[0] = kind;
            header[1] = code;
            body.copy_from_slice(quoted);
        }
    })
}

/// Writes an IP packet with `transport_bytes` of transport, which `fill` finds zeroed and to which a checksum is
/// added.
fn write_answer(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    transport_bytes: usize,
    out: &mut [u8],
    fill: impl FnOnce(&mut [u8]),
) -> Option<usize> {
    let total_bytes = ip_header_bytes(source) + transport_bytes;
    let packet = out.get_mut(..total_bytes)?;
    let header_bytes = write_ip_header(packet, source, destination, protocol)?;
    let (header, transport) = packet.split_at_mut_checked(header_bytes)?;
    if protocol == protocol::ICMP {
        // RFC 1812 §4.3.2.5: ICMP errors have the precedence of internetwork control.
        *header.get_mut(ipv4::TOS)? = 6 << 5;
        set_ipv4_checksum(header);
    }
    transport.fill(0);
    fill(transport);
    let addresses = match source {
        IpAddr::V4(_) => header.get(ipv4::SOURCE..)?,
        IpAddr::V6(_) => header.get(ipv6::SOURCE..)?,
    };
    set_transport_checksum(transport, addresses, protocol);
    Some(total_bytes)
}

/// Whether the packet's ends are such that an answer reaches one host and betrays no group.
fn may_answer(parsed: &Parsed) -> bool {
    is_host(parsed.source) && !is_group(parsed.destination)
}

/// Source addresses that an answer may be sent to.
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            // "This network", loopback, and from 224 on multicast, reserved and broadcast (RFC 6890).
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast(),
    }
}

fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether the packet is an ICMP error or a redirect, in answer to which no error may be sent.
fn is_icmp_error(parsed: &Parsed) -> bool {
    match (parsed.transport, parsed.source) {
        (Transport::IcmpError { .. }, _) => true,
        // Unreachable, source quench, redirect, time exceeded, parameter problem (RFC 1122 §3.2.2).
        (Transport::IcmpOther { kind, .. }, IpAddr::V4(_)) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        // Errors have types below 128 (RFC 4443 §2.1); 137 is a redirect.
        (Transport::IcmpOther { kind, .. }, IpAddr::V6(_)) => kind < 128 || kind == 137,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{self, Echo, Tcp};
    use crate::parse::parse;
    use std::net::SocketAddr;

    fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
        if v6 {
            ("[fd00::1]:1000".parse().unwrap(), "[fd00::2]:80".parse().unwrap())
        } else {
            ("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:80".parse().unwrap())
        }
    }

    fn gateway(v6: bool) -> IpAddr {
        if v6 { "fd00::ff" } else { "10.0.0.254" }.parse().unwrap()
    }

    /// The answer, if it has checksums that the builder finds right.
    fn checked(write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<Vec<u8>> {
        let mut out = [0xaa; ANSWER_BYTES_MAX];
        let bytes = write(&mut out)?;
        let answer = out[..bytes].to_vec();
        let mut again = answer.clone();
        build::set_checksums(&mut again);
        assert_eq!(answer, again);
        Some(answer)
    }

    fn reset(packet: &[u8]) -> Option<Vec<u8>> {
        checked(|out| tcp_reset(packet, &parse(packet).unwrap(), out))
    }

    fn unreachable(packet: &[u8]) -> Option<Vec<u8>> {
        let parsed = parse(packet).unwrap();
        checked(|out| unreachable_prohibited(packet, &parsed, gateway(parsed.source.is_ipv6()), out))
    }

    #[test]
    fn reset_takes_its_numbers_from_the_segment() {
        let (syn, fin, ack) = (tcp_flags::SYN, tcp_flags::FIN, tcp_flags::ACK);
        let no_ack = |acknowledgement| (0, acknowledgement, tcp_flags::RST | ack);
        for v6 in [false, true] {
            let (source, destination) = ends(v6);
            for (flags, payload, (sequence, acknowledgement, flags_back)) in [
                (syn, &b""[..], no_ack(0)),
                (syn | fin, b"data", no_ack(5)),
                (0, b"data", no_ack(3)),
                (syn | ack, b"", (7, 0, tcp_flags::RST)),
                (ack, b"data", (7, 0, tcp_flags::RST)),
            ] {
                let header = Tcp { sequence: u32::MAX, acknowledgement: 7, flags, window: 5, options: &[1; 8] };
                let packet = build::tcp(source, destination, &header, payload);
                let expected = Tcp { sequence, acknowledgement, flags: flags_back, ..Tcp::default() };
                let expected = build::tcp(destination, source, &expected, &[]);
                assert_eq!(reset(&packet), Some(expected.clone()));
                // Bytes behind the packet do not count as data.
                assert_eq!(reset(&[&packet[..], b"trailer"].concat()), Some(expected));
            }
        }
    }

    #[test]
    fn reset_is_not_for_everything() {
        for v6 in [false, true] {
            let (source, destination) = ends(v6);
            let segment = |flags, source, destination| {
                build::tcp(source, destination, &Tcp { flags, ..Tcp::default() }, &[0; 64])
            };
            assert!(reset(&segment(tcp_flags::SYN, source, destination)).is_some());
            assert_eq!(reset(&segment(tcp_flags::RST, source, destination)), None);
            assert_eq!(reset(&segment(tcp_flags::RST | tcp_flags::ACK, source, destination)), None);
            assert_eq!(reset(&build::udp(source, destination, b"")), None);
            for piece in build::fragments(&segment(tcp_flags::SYN, source, destination), 32, 1) {
                assert_eq!(reset(&piece), None);
            }
            for group in groups(v6) {
                assert_eq!(reset(&segment(tcp_flags::SYN, source, SocketAddr::new(group, 80))), None);
            }
            for stranger in strangers(v6) {
                assert_eq!(reset(&segment(tcp_flags::SYN, SocketAddr::new(stranger, 9), destination)), None);
            }
        }
    }

    fn groups(v6: bool) -> Vec<IpAddr> {
        let texts: &[&str] = if v6 { &["ff02::1"] } else { &["224.0.0.1", "255.255.255.255"] };
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn strangers(v6: bool) -> Vec<IpAddr> {
        let texts: &[&str] = if v6 {
            &["::", "::1", "ff02::1"]
        } else {
            &["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"]
        };
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn unreachable_quotes_what_the_rfcs_allow() {
        for (v6, bytes_max, kind, code) in [(false, 576, 3, 13), (true, 1280, 1, 1)] {
            let (source, destination) = ends(v6);
            for payload_bytes in [0, 10, 1_400] {
                let packet = build::udp(source, destination, &vec![7; payload_bytes]);
                let answer = unreachable(&[&packet[..], b"trailer"].concat()).unwrap();
                let parsed = parse(&answer).unwrap();
                let quoted = parse(&packet).unwrap().flow_key().unwrap();
                assert_eq!(parsed.transport, Transport::IcmpError { kind, code, quoted });
                assert_eq!((parsed.source, parsed.destination), (gateway(v6), source.ip()));
                let headers_bytes = usize::from(parsed.network_header_bytes) + 8;
                assert_eq!(answer.len(), (headers_bytes + packet.len()).min(bytes_max));
                assert_eq!(answer[headers_bytes..], packet[..answer.len() - headers_bytes]);
            }
            let echo = build::echo(source.ip(), destination.ip(), Echo::Request, 1, 1, b"");
            assert!(unreachable(&echo).is_some());
        }
    }

    #[test]
    fn unreachable_is_not_for_everything() {
        for v6 in [false, true] {
            let (source, destination) = ends(v6);
            let packet = build::udp(source, destination, &[7; 64]);
            let errors: &[u8] = if v6 { &[1, 2, 3, 4, 100, 137] } else { &[3, 4, 5, 11, 12] };
            for &kind in errors {
                let error = build::icmp(source.ip(), destination.ip(), kind, 0, [0; 4], &packet);
                assert_eq!(unreachable(&error), None, "type {kind}");
            }
            let pieces = build::fragments(&packet, 32, 1);
            assert!(unreachable(&pieces[0]).is_some());
            assert_eq!(unreachable(&pieces[1]), None);
            for group in groups(v6) {
                assert_eq!(unreachable(&build::udp(source, SocketAddr::new(group, 80), b"")), None);
            }
            for stranger in strangers(v6) {
                assert_eq!(unreachable(&build::udp(SocketAddr::new(stranger, 9), destination, b"")), None);
            }
            let parsed = parse(&packet).unwrap();
            assert_eq!(checked(|out| unreachable_prohibited(&packet, &parsed, gateway(!v6), out)), None);
        }
    }

    #[test]
    fn short_buffers_get_nothing() {
        for v6 in [false, true] {
            let (source, destination) = ends(v6);
            let packet = build::tcp(source, destination, &Tcp::default(), &[7; 100]);
            let parsed = parse(&packet).unwrap();
            let mut out = [0; ANSWER_BYTES_MAX];
            let written = tcp_reset(&packet, &parsed, &mut out).unwrap();
            assert_eq!(tcp_reset(&packet, &parsed, &mut out[..written - 1]), None);
            assert!(tcp_reset(&packet, &parsed, &mut out[..written]).is_some());
            let written = unreachable_prohibited(&packet, &parsed, gateway(v6), &mut out).unwrap();
            assert_eq!(unreachable_prohibited(&packet, &parsed, gateway(v6), &mut out[..written - 1]), None);
            // A caller whose `parsed` belongs to another packet.
            assert_eq!(tcp_reset(&packet[..30], &parsed, &mut out), None);
            assert_eq!(unreachable_prohibited(&packet[..30], &parsed, gateway(v6), &mut out), None);
        }
    }
}
