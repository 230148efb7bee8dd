//! One test per rule, with the refusal beside what is allowed. `tests/parse_reference.rs` compares whole parsers.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::*;
use crate::build::{self, Echo, Tcp};

fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
    let address = |v4: &str, v6_text: &str| if v6 { v6_text } else { v4 }.parse().unwrap();
    (address("10.0.0.1:1000", "[fd00::1]:1000"), address("10.0.0.2:80", "[fd00::2]:80"))
}

fn tcp_packet(v6: bool) -> Vec<u8> {
    let (source, destination) = ends(v6);
    build::tcp(source, destination, &Tcp { flags: tcp_flags::ACK, ..Tcp::default() }, b"payload")
}

fn udp_packet(v6: bool) -> Vec<u8> {
    let (source, destination) = ends(v6);
    build::udp(source, destination, &[7; 64])
}

/// Changes bytes of a packet without setting the checksums right, which `parse` must not care for.
fn with(mut packet: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}

/// An IPv4 packet with the given option bytes, padded to words.
fn with_options(options: &[u8]) -> Vec<u8> {
    let packet = udp_packet(false);
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let longer = [&packet[..20], &options, &packet[20..]].concat();
    let total_bytes = longer.len() as u16;
    let longer = with(longer, 0, &[0x45 + (options.len() / 4) as u8]);
    with(longer, 2, &total_bytes.to_be_bytes())
}

#[test]
fn names_are_stable_and_distinct() {
    let names: HashSet<_> = Malformed::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), Malformed::ALL.len());
    for (index, reason) in Malformed::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index);
        assert!(reason.name().bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit()));
        assert_eq!(reason.to_string(), reason.name());
    }
}

#[test]
fn lengths_of_the_ip_header() {
    assert_eq!(parse(&[]), Err(Malformed::Empty));
    assert_eq!(parse(&[0x50; 60]), Err(Malformed::NotIp));
    for v6 in [false, true] {
        let packet = tcp_packet(v6);
        assert!(parse(&packet).is_ok());
        let truncated = if v6 { Malformed::Ipv6HeaderTruncated } else { Malformed::Ipv4HeaderTruncated };
        assert_eq!(parse(&packet[..if v6 { 39 } else { 19 }]), Err(truncated));
        assert_eq!(parse(&packet[..packet.len() - 1]), Err(Malformed::TotalLength));
        // What follows the packet is none of its business.
        let parsed = parse(&[&packet[..], b"trailer"].concat()).unwrap();
        assert_eq!(usize::from(parsed.total_bytes), packet.len());
    }
    assert_eq!(parse(&with(tcp_packet(false), 0, &[0x44])), Err(Malformed::Ipv4HeaderLength));
    assert_eq!(parse(&with(tcp_packet(false), 2, &[0, 19])), Err(Malformed::TotalLength));
    // An IPv6 payload that makes the packet longer than 65,535 bytes is none that a TUN device takes.
    let mut longest = with(udp_packet(true), 4, &[0xff, 0xff]);
    longest.resize(40 + 65_535, 0);
    assert_eq!(parse(&longest), Err(Malformed::TotalLength));
}

#[test]
fn source_routes_are_refused_and_other_options_skipped() {
    // No operation, record route, router alert.
    for options in [&[1, 1, 1, 1][..], &[7, 7, 4, 0, 0, 0, 0], &[148, 4, 0, 0]] {
        let parsed = parse(&with_options(options)).unwrap();
        assert!(matches!(parsed.transport, Transport::Udp { source_port: 1000, destination_port: 80 }));
    }
    assert_eq!(parse(&with_options(&[131, 7, 4, 10, 0, 0, 9])), Err(Malformed::SourceRoute));
    assert_eq!(parse(&with_options(&[1, 137, 7, 4, 10, 0, 0, 9])), Err(Malformed::SourceRoute));
    assert_eq!(parse(&with_options(&[7, 1, 0, 0])), Err(Malformed::Ipv4Option));
    assert_eq!(parse(&with_options(&[7, 9, 0, 0])), Err(Malformed::Ipv4Option));
    // Behind the end of the options nothing counts.
    assert!(parse(&with_options(&[0, 131, 0, 0])).is_ok());
}

#[test]
fn mapped_addresses_are_refused() {
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];
    assert_eq!(parse(&with(udp_packet(true), 8, &mapped)), Err(Malformed::Ipv6MappedAddress));
    assert_eq!(parse(&with(udp_packet(true), 24, &mapped)), Err(Malformed::Ipv6MappedAddress));
}

#[test]
fn tcp_header_must_fit() {
    for (v6, transport) in [(false, 20), (true, 40)] {
        let packet = tcp_packet(v6);
        assert_eq!(parse(&with(packet.clone(), transport + 12, &[0x40])), Err(Malformed::TcpDataOffset));
        assert_eq!(parse(&with(packet.clone(), transport + 12, &[0x70])), Err(Malformed::TcpDataOffset));
        assert!(parse(&with(packet, transport + 12, &[0x60])).is_ok());
        let (source, destination) = ends(v6);
        let short = build::ip(source.ip(), destination.ip(), protocol::TCP, &[0x50; 19]);
        assert_eq!(parse(&short), Err(Malformed::TransportTruncated));
    }
}

#[test]
fn udp_length_must_fit() {
    for (v6, transport) in [(false, 20), (true, 40)] {
        let packet = udp_packet(v6);
        assert_eq!(parse(&with(packet.clone(), transport + 4, &[0, 7])), Err(Malformed::UdpLength));
        assert_eq!(parse(&with(packet.clone(), transport + 4, &[0, 73])), Err(Malformed::UdpLength));
        assert!(parse(&with(packet, transport + 4, &[0, 8])).is_ok());
        let (source, destination) = ends(v6);
        let short = build::ip(source.ip(), destination.ip(), protocol::UDP, &[0; 7]);
        assert_eq!(parse(&short), Err(Malformed::TransportTruncated));
    }
}

#[test]
fn extension_headers_lead_to_the_transport() {
    let options = [0, 1, 4, 0, 0, 0, 0];
    let packet = build::with_extension(&udp_packet(true), 60, &options);
    let packet = build::with_extension(&packet, 51, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let packet = build::with_extension(&packet, 0, &options);
    let parsed = parse(&packet).unwrap();
    assert_eq!(parsed.network_header_bytes, 40 + 8 + 12 + 8);
    assert!(matches!(parsed.transport, Transport::Udp { source_port: 1000, destination_port: 80 }));
    assert_eq!(parsed.flow_key(), parse(&udp_packet(true)).unwrap().flow_key());

    // Hop-by-hop behind another header.
    let late = build::with_extension(&build::with_extension(&udp_packet(true), 0, &options), 60, &options);
    assert_eq!(parse(&late), Err(Malformed::ExtensionOrder));
    // A header that reaches beyond the packet, and one of which nothing is there.
    let long = build::with_extension(&udp_packet(true), 60, &[30, 1, 4, 0, 0, 0, 0]);
    assert_eq!(parse(&long), Err(Malformed::ExtensionTruncated));
    let (source, destination) = ends(true);
    assert_eq!(parse(&build::ip(source.ip(), destination.ip(), 60, &[])), Err(Malformed::ExtensionTruncated));
    // ESP and "no next header" end the walk.
    for protocol in [50, 59] {
        let parsed = parse(&build::ip(source.ip(), destination.ip(), protocol, &[])).unwrap();
        assert_eq!(parsed.transport, Transport::Other { protocol });
    }
}

#[test]
fn extension_headers_are_counted() {
    let chain = |count| {
        (0..count).fold(udp_packet(true), |packet, _| build::with_extension(&packet, 60, &[0, 1, 4, 0, 0, 0, 0]))
    };
    assert!(parse(&chain(EXTENSION_HEADERS_MAX)).is_ok());
    assert_eq!(parse(&chain(EXTENSION_HEADERS_MAX + 1)), Err(Malformed::ExtensionCount));
}

#[test]
fn routing_headers_that_route_are_refused() {
    let routed = |kind, segments_left| {
        parse(&build::with_extension(&udp_packet(true), 43, &[0, kind, segments_left, 0, 0, 0, 0]))
    };
    assert!(routed(4, 0).is_ok());
    assert_eq!(routed(4, 1), Err(Malformed::RoutingHeader));
    assert_eq!(routed(0, 0), Err(Malformed::RoutingHeader));
    assert_eq!(routed(0, 1), Err(Malformed::RoutingHeader));
}

#[test]
fn atomic_fragments_are_whole_packets() {
    let whole = parse(&udp_packet(true)).unwrap();
    let atomic = parse(&build::with_extension(&udp_packet(true), 44, &[0, 0, 0, 1, 2, 3, 4])).unwrap();
    assert_eq!(atomic.fragment, None);
    assert_eq!(atomic.transport, whole.transport);
    assert_eq!(atomic.network_header_bytes, 48);
    let twice = build::with_extension(&udp_packet(true), 44, &[0, 0, 0, 1, 2, 3, 4]);
    let twice = build::with_extension(&twice, 44, &[0, 0, 0, 1, 2, 3, 4]);
    assert_eq!(parse(&twice), Err(Malformed::ExtensionOrder));
}

#[test]
fn first_fragment_holds_the_whole_transport_header() {
    for v6 in [false, true] {
        let (source, destination) = ends(v6);
        let syn = Tcp { flags: tcp_flags::SYN, options: &[1; 12], ..Tcp::default() };
        let packet = build::tcp(source, destination, &syn, &[7; 100]);
        let enough = build::fragments(&packet, 32, 7);
        assert!(matches!(parse(&enough[0]).unwrap().transport, Transport::Tcp { destination_port: 80, .. }));
        assert_eq!(parse(&enough[1]).unwrap().transport, Transport::LaterFragment);
        assert_eq!(parse(&enough[1]).unwrap().flow_key(), None);
        // The header is there but not its options; nor the header.
        assert_eq!(parse(&build::fragments(&packet, 24, 7)[0]), Err(Malformed::TcpDataOffset));
        assert_eq!(parse(&build::fragments(&packet, 16, 7)[0]), Err(Malformed::FragmentTiny));
        // At offset 8 the flags of the first fragment would be overwritten.
        let tiny = build::fragments(&packet, 8, 7);
        assert_eq!(parse(&tiny[1]), Err(Malformed::FragmentOverlap));
        assert_eq!(parse(&tiny[2]).unwrap().transport, Transport::LaterFragment);
        // The length of a whole datagram stands in its first fragment.
        let pieces = build::fragments(&udp_packet(v6), 8, 7);
        assert!(matches!(parse(&pieces[0]).unwrap().transport, Transport::Udp { .. }));
        assert_eq!(parse(&pieces[1]).unwrap().transport, Transport::LaterFragment);
    }
}

#[test]
fn first_fragment_holds_the_whole_header_chain() {
    let packet = build::with_extension(&udp_packet(true), 60, &[1; 15]);
    // Destination options of 16 bytes, of which this fragment has 8.
    let first = build::with_extension(&packet[..48], 44, &[0, 0, 1, 0, 0, 0, 1]);
    assert_eq!(parse(&first), Err(Malformed::ExtensionTruncated));
}

#[test]
fn fragments_have_lengths_that_reassemble() {
    for v6 in [false, true] {
        let pieces = build::fragments(&udp_packet(v6), 24, 7);
        let header_bytes = if v6 { 48 } else { 20 };
        let total_field = if v6 { 4 } else { 2 };
        let cut = |piece: &[u8], payload_bytes: usize| {
            let shorter = piece[..header_bytes + payload_bytes].to_vec();
            let length = if v6 { shorter.len() - 40 } else { shorter.len() } as u16;
            with(shorter, total_field, &length.to_be_bytes())
        };
        assert_eq!(parse(&cut(&pieces[1], 23)), Err(Malformed::FragmentLength));
        assert!(parse(&cut(&pieces[1], 16)).is_ok());
        assert_eq!(parse(&cut(&pieces[1], 0)), Err(Malformed::FragmentLength));
        assert!(parse(&cut(pieces.last().unwrap(), 23)).is_ok());
    }
}

#[test]
fn fragments_do_not_reach_beyond_the_largest_packet() {
    let last_v4 = |payload_bytes: usize| {
        let packet = build::ip("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), 17, &vec![0; payload_bytes]);
        parse(&with(packet, 6, &0x1fff_u16.to_be_bytes()))
    };
    // Offset 65,528 behind a header of 20 bytes leaves nothing.
    assert_eq!(last_v4(1), Err(Malformed::FragmentEnd));
    let at = |offset_bytes: u16, payload_bytes: usize| {
        let packet = build::ip("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap(), 17, &vec![0; payload_bytes]);
        let [high, low] = offset_bytes.to_be_bytes();
        parse(&build::with_extension(&packet, 44, &[0, high, low, 0, 0, 0, 1]))
    };
    assert!(at(65_480, 15).is_ok());
    assert_eq!(at(65_480, 16), Err(Malformed::FragmentEnd));
}

#[test]
fn echo_is_a_flow_of_its_identifier() {
    for v6 in [false, true] {
        let (source, destination) = ends(v6);
        let (source, destination) = (source.ip(), destination.ip());
        let request = parse(&build::echo(source, destination, Echo::Request, 77, 1, b"ping")).unwrap();
        let reply = parse(&build::echo(destination, source, Echo::Reply, 77, 1, b"ping")).unwrap();
        assert_eq!(request.transport, Transport::IcmpEcho { identifier: 77, request: true });
        assert_eq!(request.flow_key().unwrap().reversed(), reply.flow_key().unwrap());
        let kind = if v6 { 128 } else { 8 };
        let coded = parse(&build::icmp(source, destination, kind, 1, [0; 4], &[])).unwrap();
        assert_eq!(coded.transport, Transport::IcmpOther { kind, code: 1 });
        assert_eq!(coded.flow_key(), None);
        // The other family's ICMP is a protocol like any other.
        let foreign = if v6 { protocol::ICMP } else { protocol::ICMPV6 };
        let parsed = parse(&build::ip(source, destination, foreign, &[0; 8])).unwrap();
        assert_eq!(parsed.transport, Transport::Other { protocol: foreign });
    }
}

#[test]
fn icmp_errors_name_the_flow_they_are_about() {
    for v6 in [false, true] {
        let (source, destination) = ends(v6);
        let router = if v6 { "fd00::ff" } else { "10.0.0.254" }.parse().unwrap();
        let header_bytes = if v6 { 40 } else { 20 };
        let kinds: &[u8] = if v6 { &[1, 2, 3, 4] } else { &[3, 11, 12] };
        let error = |kind, quoted: &[u8]| parse(&build::icmp(router, source.ip(), kind, 0, [0; 4], quoted));
        for &kind in kinds {
            for packet in [udp_packet(v6), tcp_packet(v6)] {
                let expected = parse(&packet).unwrap().flow_key().unwrap();
                let parsed = error(kind, &packet[..header_bytes + 8]).unwrap();
                assert_eq!(parsed.transport, Transport::IcmpError { kind, code: 0, quoted: expected });
                assert_eq!(parsed.flow_key(), None);
                assert_eq!(error(kind, &packet[..header_bytes + 7]), Err(Malformed::QuotedPacket));
                assert_eq!(error(kind, &packet[..header_bytes - 1]), Err(Malformed::QuotedPacket));
            }
        }
        let kind = kinds[0];
        let echo = build::echo(source.ip(), destination.ip(), Echo::Request, 77, 1, &[]);
        let Ok(Transport::IcmpError { quoted, .. }) = error(kind, &echo).map(|parsed| parsed.transport) else {
            panic!("no error");
        };
        assert_eq!(quoted, parse(&echo).unwrap().flow_key().unwrap());
        // An error about an error, a packet of the other family, nothing at all.
        let nested = build::icmp(router, source.ip(), kind, 0, [0; 4], &udp_packet(v6));
        assert_eq!(error(kind, &nested), Err(Malformed::QuotedPacket));
        assert_eq!(error(kind, &udp_packet(!v6)), Err(Malformed::QuotedPacket));
        assert_eq!(error(kind, &[]), Err(Malformed::QuotedPacket));
        let later = &build::fragments(&udp_packet(v6), 24, 7)[1];
        let Ok(Transport::IcmpError { quoted, .. }) = error(kind, later).map(|parsed| parsed.transport) else {
            panic!("no error");
        };
        assert_eq!((quoted.source_port(), quoted.destination_port(), quoted.protocol()), (0, 0, protocol::UDP));
    }
    // Source quench and redirect are not passed for errors about a flow.
    let (source, destination) = ends(false);
    for kind in [4, 5] {
        let parsed = parse(&build::icmp(destination.ip(), source.ip(), kind, 0, [0; 4], &udp_packet(false))).unwrap();
        assert_eq!(parsed.transport, Transport::IcmpOther { kind, code: 0 });
    }
}
