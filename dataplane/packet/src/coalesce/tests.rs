//! Each merge beside its refusals. `tests/segments.rs` shows that cutting undoes the joining.

use super::*;
use crate::build::{self, Tcp};
use crate::parse::parse;
use std::net::SocketAddr;

const PAYLOAD_BYTES: usize = 100;

fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
    if v6 {
        ("[fd00::1]:1000".parse().unwrap(), "[fd00::2]:80".parse().unwrap())
    } else {
        ("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:80".parse().unwrap())
    }
}

/// The `index`-th segment of a stream of full segments.
fn segment(v6: bool, index: u32) -> Vec<u8> {
    segment_of(v6, index, tcp_flags::ACK, PAYLOAD_BYTES)
}

fn segment_of(v6: bool, index: u32, flags: u8, payload_bytes: usize) -> Vec<u8> {
    let (source, destination) = ends(v6);
    let sequence = (u32::MAX - 150).wrapping_add(index * PAYLOAD_BYTES as u32);
    let header =
        Tcp { sequence, acknowledgement: 9, flags, window: 501, options: &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8] };
    build::tcp(source, destination, &header, &vec![index as u8; payload_bytes])
}

fn datagram(v6: bool, payload_bytes: usize) -> Vec<u8> {
    let (source, destination) = ends(v6);
    build::udp(source, destination, &vec![7; payload_bytes])
}

/// How many packets each frame holds.
fn grouped(packets: &[Vec<u8>]) -> Vec<usize> {
    let mut coalescer = Coalescer::new(Offloads { uso: true });
    push_all(&mut coalescer, packets);
    finished(&mut coalescer).map(|frame| frame.packets()).collect()
}

/// The frames of all that was pushed.
fn finished(coalescer: &mut Coalescer) -> impl ExactSizeIterator<Item = SuperFrame<'_>> {
    coalescer.finish();
    coalescer.frames()
}

fn push_all(coalescer: &mut Coalescer, packets: &[Vec<u8>]) {
    for (slot, packet) in packets.iter().enumerate() {
        let at = Piece { slot: slot as u16, start: 1_000, len: packet.len() as u32 };
        coalescer.push(packet, &parse(packet).unwrap(), at);
    }
}

/// Changes a byte and sets the checksums right again.
fn with(mut packet: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    packet[at] = value;
    build::set_checksums(&mut packet);
    packet
}

#[test]
fn full_segments_merge_into_one_frame() {
    for v6 in [false, true] {
        let network_bytes = if v6 { 40 } else { 20 };
        let packets: Vec<_> = (0..5).map(|index| segment(v6, index)).collect();
        let mut coalescer = Coalescer::new(Offloads::default());
        push_all(&mut coalescer, &packets);
        let frames: Vec<_> = finished(&mut coalescer).collect();
        let [frame] = frames[..] else { panic!("{frames:?}") };
        let headers_bytes = network_bytes + 32;
        for (slot, piece) in frame.pieces().iter().enumerate() {
            assert_eq!(*piece, Piece { slot: slot as u16, start: 1_000 + headers_bytes as u32, len: 100 });
        }
        let (vnet, headers) = frame.header().split_first_chunk::<10>().unwrap();
        let kind = if v6 { SegmentationKind::TcpV6 } else { SegmentationKind::TcpV4 };
        let segment_bytes = NonZeroU16::new(100).unwrap();
        assert_eq!(
            VnetHeader::read(vnet),
            Ok(VnetHeader {
                checksum: Checksum::Partial { start: network_bytes as u16, offset: 16 },
                segmentation: Some(Segmentation { kind, segment_bytes, ecn: false }),
                headers_bytes: headers_bytes as u16,
            })
        );
        // The headers are those of one long packet, but for the sum that the kernel finishes.
        let whole = segment_of(v6, 0, tcp_flags::ACK, 500);
        let mut expected = whole[..headers_bytes].to_vec();
        let addresses = if v6 { &whole[8..40] } else { &whole[12..20] };
        let partial = Sum::pseudo_header(addresses, protocol::TCP, 532).partial();
        put_u16(&mut expected, network_bytes + tcp::CHECKSUM, partial);
        assert_eq!(headers, expected);
    }
}

#[test]
fn datagrams_merge_into_one_frame() {
    for v6 in [false, true] {
        let network_bytes = if v6 { 40 } else { 20 };
        let mut coalescer = Coalescer::new(Offloads { uso: true });
        push_all(&mut coalescer, &[datagram(v6, 50), datagram(v6, 50), datagram(v6, 20)]);
        let frames: Vec<_> = finished(&mut coalescer).collect();
        let [frame] = frames[..] else { panic!("{frames:?}") };
        let (vnet, headers) = frame.header().split_first_chunk::<10>().unwrap();
        let segment_bytes = NonZeroU16::new(50).unwrap();
        assert_eq!(
            VnetHeader::read(vnet),
            Ok(VnetHeader {
                checksum: Checksum::Partial { start: network_bytes as u16, offset: 6 },
                segmentation: Some(Segmentation { kind: SegmentationKind::Udp, segment_bytes, ecn: false }),
                headers_bytes: network_bytes as u16 + 8,
            })
        );
        let whole = datagram(v6, 120);
        let mut expected = whole[..network_bytes + 8].to_vec();
        let addresses = if v6 { &whole[8..40] } else { &whole[12..20] };
        put_u16(&mut expected, network_bytes + 6, Sum::pseudo_header(addresses, protocol::UDP, 128).partial());
        assert_eq!(headers, expected);
    }
}

#[test]
fn a_packet_alone_is_unchanged() {
    for packet in [segment(false, 0), segment(true, 0), datagram(true, 9), segment_of(false, 0, tcp_flags::SYN, 0)] {
        let mut coalescer = Coalescer::new(Offloads { uso: true });
        let longer = [&packet[..], b"trailer"].concat();
        push_all(&mut coalescer, &[longer]);
        let frames: Vec<_> = finished(&mut coalescer).collect();
        let [frame] = frames[..] else { panic!("{frames:?}") };
        let (vnet, headers) = frame.header().split_first_chunk::<10>().unwrap();
        assert_eq!(VnetHeader::read(vnet), Ok(VnetHeader::PLAIN));
        let [piece] = frame.pieces() else { panic!("{frame:?}") };
        assert_eq!(*headers, packet[..headers.len()]);
        assert_eq!(piece.start as usize, 1_000 + headers.len());
        assert_eq!(piece.len as usize, packet.len() - headers.len());
    }
}

#[test]
fn a_shorter_segment_is_the_last() {
    let short = segment_of(false, 1, tcp_flags::ACK, 60);
    assert_eq!(grouped(&[segment(false, 0), short.clone()]), [2]);
    let (source, destination) = ends(false);
    let mut sequence = [0; 4];
    sequence.copy_from_slice(&short[24..28]);
    let next = Tcp {
        sequence: u32::from_be_bytes(sequence).wrapping_add(60),
        acknowledgement: 9,
        flags: tcp_flags::ACK,
        window: 501,
        options: &short[40..52],
    };
    let next = build::tcp(source, destination, &next, &[7; 60]);
    assert_eq!(grouped(&[segment(false, 0), short.clone(), next.clone()]), [2, 1]);
    // Without the longer one before they would be equals.
    assert_eq!(grouped(&[short, next]), [2]);
    assert_eq!(grouped(&[segment(false, 0), segment_of(false, 1, tcp_flags::ACK, 101)]), [1, 1]);
    assert_eq!(grouped(&[datagram(false, 50), datagram(false, 20), datagram(false, 20)]), [2, 1]);
    assert_eq!(grouped(&[datagram(false, 20), datagram(false, 50), datagram(false, 50)]), [1, 2]);
}

#[test]
fn push_closes_the_frame() {
    let pushed = segment_of(true, 1, tcp_flags::ACK | tcp_flags::PSH, PAYLOAD_BYTES);
    let packets = [segment(true, 0), pushed, segment(true, 2), segment(true, 3)];
    assert_eq!(grouped(&packets), [2, 2]);
    let mut coalescer = Coalescer::new(Offloads::default());
    push_all(&mut coalescer, &packets);
    let flags: Vec<_> = finished(&mut coalescer).map(|frame| frame.header()[10 + 40 + 13]).collect();
    assert_eq!(flags, [tcp_flags::ACK | tcp_flags::PSH, tcp_flags::ACK]);
    assert_eq!(grouped(&packets[1..]), [1, 2]);
}

#[test]
fn segments_that_differ_do_not_merge() {
    let differing = |name: &str, v6: bool, at: usize, value: u8| {
        let second = with(segment(v6, 1), at, value);
        let third = with(segment(v6, 2), at, value);
        assert_eq!(grouped(&[segment(v6, 0), second.clone()]), [1, 1], "{name}");
        // The other stream merges with its like where it may merge at all.
        assert_ne!(grouped(&[segment(v6, 0), second, third]), [3], "{name}");
    };
    differing("TOS", false, 1, 4);
    differing("TTL", false, 8, 63);
    differing("may fragment", false, 6, 0);
    differing("reserved flag", false, 6, 0xc0);
    differing("source address", false, 15, 9);
    differing("traffic class", true, 1, 0x10);
    differing("flow label", true, 3, 1);
    differing("hop limit", true, 7, 63);
    differing("destination address", true, 39, 9);
    for (v6, tcp) in [(false, 20), (true, 40)] {
        differing("source port", v6, tcp + 1, 9);
        differing("destination port", v6, tcp + 3, 9);
        differing("sequence", v6, tcp + 5, 9);
        differing("acknowledgement", v6, tcp + 11, 10);
        differing("reserved bits", v6, tcp + 12, 0x81);
        differing("window", v6, tcp + 15, 1);
        differing("urgent pointer", v6, tcp + 19, 1);
        differing("options", v6, tcp + 31, 9);
        for flag in [tcp_flags::FIN, tcp_flags::SYN, tcp_flags::RST, tcp_flags::URG, tcp_flags::ECE, tcp_flags::CWR] {
            differing("flags", v6, tcp + 13, tcp_flags::ACK | flag);
        }
        differing("no acknowledgement", v6, tcp + 13, 0);
    }
    // Fewer options, with the same bytes so far.
    let fewer = with(segment_of(false, 1, tcp_flags::ACK, 92), 32, 0x70);
    assert_eq!(grouped(&[segment(false, 0), fewer]), [1, 1]);
    assert_eq!(grouped(&[segment(false, 0), segment(false, 2)]), [1, 1]);
    assert_eq!(grouped(&[segment(false, 0), segment(false, 0)]), [1, 1]);
}

#[test]
fn datagrams_that_differ_do_not_merge() {
    assert_eq!(grouped(&[datagram(false, 9), datagram(false, 9)]), [2]);
    for (at, value) in [(1, 4), (8, 63), (6, 0), (15, 9), (21, 9), (23, 9)] {
        assert_eq!(grouped(&[datagram(false, 9), with(datagram(false, 9), at, value)]), [1, 1], "byte {at}");
    }
    let mut coalescer = Coalescer::new(Offloads { uso: false });
    push_all(&mut coalescer, &[datagram(false, 9), datagram(false, 9)]);
    assert_eq!(finished(&mut coalescer).count(), 2);
    // Empty ones; one whose length says less than the packet holds; one without checksum.
    assert_eq!(grouped(&[datagram(false, 0), datagram(false, 0)]), [1, 1]);
    assert_eq!(grouped(&[datagram(false, 9), with(datagram(false, 9), 25, 16)]), [1, 1]);
    let mut without_checksum = datagram(false, 9);
    without_checksum[26..28].fill(0);
    assert_eq!(grouped(&[without_checksum.clone(), without_checksum.clone()]), [1, 1]);
    assert_eq!(grouped(&[datagram(false, 9), without_checksum]), [1, 1]);
}

#[test]
fn wrong_checksums_do_not_merge() {
    for (v6, wrong_bytes) in [(false, &[8, 10, 12, 30, 36, 60][..]), (true, &[12, 50, 56, 100])] {
        for &at in wrong_bytes {
            let wrong = |index| {
                let mut packet = segment(v6, index);
                packet[at] ^= 1;
                packet
            };
            assert_eq!(grouped(&[wrong(0), wrong(1)]), [1, 1], "byte {at}");
            assert_eq!(grouped(&[segment(v6, 0), wrong(1), segment(v6, 2), segment(v6, 3)]), [1, 1, 2]);
        }
    }
}

#[test]
fn options_extensions_and_fragments_pass_alone() {
    let extended = |index| build::with_extension(&segment(true, index), 60, &[0, 1, 4, 0, 0, 0, 0]);
    assert_eq!(grouped(&[extended(0), extended(1)]), [1, 1]);
    assert_eq!(grouped(&[segment(true, 0), extended(1), segment(true, 2)]), [1, 1, 1]);
    let optioned = |index| {
        let packet = segment(false, index);
        let mut longer = [&packet[..20], &[1, 1, 1, 0], &packet[20..]].concat();
        longer[0] = 0x46;
        longer[3] += 4;
        build::set_checksums(&mut longer);
        longer
    };
    assert_eq!(grouped(&[optioned(0), optioned(1)]), [1, 1]);
    let mut packets = vec![datagram(false, 48)];
    packets.extend(build::fragments(&datagram(false, 48), 32, 1));
    packets.push(datagram(false, 48));
    assert_eq!(grouped(&packets), [1, 1, 1, 1]);
}

#[test]
fn empty_segments_close_the_frame() {
    let acknowledgement = segment_of(false, 1, tcp_flags::ACK, 0);
    let packets = [segment(false, 0), acknowledgement.clone(), segment(false, 1), segment(false, 2)];
    assert_eq!(grouped(&packets), [1, 1, 2]);
    assert_eq!(grouped(&[acknowledgement.clone(), acknowledgement]), [1, 1]);
}

#[test]
fn frames_have_at_most_so_many_segments_and_bytes() {
    let packets: Vec<_> = (0..TCP_SEGMENTS_MAX as u32 + 3).map(|index| segment(false, index)).collect();
    assert_eq!(grouped(&packets), [TCP_SEGMENTS_MAX, 3]);
    let packets = vec![datagram(true, 10); UDP_SEGMENTS_MAX + 1];
    assert_eq!(grouped(&packets), [UDP_SEGMENTS_MAX, 1]);
    // 28 and 46 × 1,424 make 65,532 bytes.
    let packets = vec![datagram(false, 1_424); 48];
    assert_eq!(grouped(&packets), [46, 2]);
}

#[test]
fn flows_merge_side_by_side() {
    let flow = |port: u16, index| {
        let mut packet = segment(false, index);
        packet[20..22].copy_from_slice(&port.to_be_bytes());
        build::set_checksums(&mut packet);
        packet
    };
    let interleaved = |flows: u16| -> Vec<Vec<u8>> {
        (0..4).flat_map(|index| (0..flows).map(move |port| flow(port, index))).collect()
    };
    assert_eq!(grouped(&interleaved(OPEN_FRAMES_MAX as u16)), [4; OPEN_FRAMES_MAX]);
    // With one flow too many, taking turns, each closes the next one's frame: slow, and nothing is lost.
    let groups = grouped(&interleaved(OPEN_FRAMES_MAX as u16 + 1));
    assert_eq!(groups.iter().sum::<usize>(), 4 * (OPEN_FRAMES_MAX + 1));
    assert_eq!(grouped(&[segment(false, 0), segment(true, 0), segment(false, 1), segment(true, 1)]), [2, 2]);
}

#[test]
fn clear_forgets_frames_and_flows() {
    let mut coalescer = Coalescer::new(Offloads::default());
    push_all(&mut coalescer, &[segment(false, 0), segment(false, 1)]);
    assert_eq!(finished(&mut coalescer).count(), 1);
    coalescer.clear();
    assert_eq!(finished(&mut coalescer).count(), 0);
    push_all(&mut coalescer, &[segment(false, 2)]);
    coalescer.clear();
    push_all(&mut coalescer, &[segment(false, 3)]);
    let frames: Vec<_> = finished(&mut coalescer).collect();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].packets(), 1);
}

#[test]
fn later_batches_reuse_the_memory_of_the_first() {
    let mut packets: Vec<_> = (0..40).map(|index| segment(false, index)).collect();
    packets.extend((0..40).map(|index| segment_of(true, index, tcp_flags::SYN, 0)));
    let mut coalescer = Coalescer::new(Offloads::default());
    push_all(&mut coalescer, &packets);
    let memory = |coalescer: &Coalescer| {
        let pieces: Vec<_> = coalescer.frames.iter().map(|frame| frame.pieces.as_ptr()).collect();
        (coalescer.frames.as_ptr(), pieces)
    };
    let before = memory(&coalescer);
    for _ in 0..3 {
        coalescer.clear();
        push_all(&mut coalescer, &packets);
    }
    assert_eq!(memory(&coalescer), before);
}

#[test]
fn a_foreign_parse_result_does_no_harm() {
    let (longer, shorter) = (segment(false, 0), segment_of(false, 0, tcp_flags::ACK, 3));
    let mut coalescer = Coalescer::new(Offloads { uso: true });
    let at = Piece { slot: 0, start: u32::MAX, len: u32::MAX };
    for parsed in [parse(&longer), parse(&shorter), parse(&segment(true, 0)), parse(&datagram(false, 9))] {
        for packet in [&longer[..], &shorter, &[]] {
            coalescer.push(packet, &parsed.unwrap(), at);
        }
    }
    assert_eq!(finished(&mut coalescer).map(|frame| frame.packets()).sum::<usize>(), 12);
}
