//! Coalescing and splitting undo each other. Goal: whatever the peers send, the packets that reach the kernel are
//! those that came out of the tunnel, byte for byte and in order within each flow. Method: random mixes of flows,
//! sizes, flags, fields and faults go through a `Coalescer`; every frame is put together as a vectored write would,
//! checked as the kernel would check it, and cut by a `Splitter`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use ringfort_packet::build::{self, Tcp};
use ringfort_packet::coalesce::{Coalescer, OPEN_FRAMES_MAX, Offloads, Piece, TCP_SEGMENTS_MAX, UDP_SEGMENTS_MAX};
use ringfort_packet::parse::{Transport, parse, tcp_flags};
use ringfort_packet::split::Splitter;
use ringfort_packet::vnet::{self, Checksum, Segmentation, SegmentationKind, VnetHeader};

/// One packet of a stream, as a difference from the packet expected next.
#[derive(Clone, Debug)]
struct Step {
    flow: usize,
    payload_bytes: usize,
    change: Change,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Nothing,
    Flags(u8),
    SkipSequence,
    Acknowledge,
    Window,
    TrafficClass,
    HopLimit,
    LongerOptions,
    MayFragment,
    /// Flips a bit somewhere and leaves the checksums.
    Damage(usize),
    NoUdpChecksum,
    Fragment,
}

/// The sending side of one flow.
struct Sender {
    ends: (SocketAddr, SocketAddr),
    udp: bool,
    sequence: u32,
    acknowledgement: u32,
    identification: u16,
}

impl Sender {
    fn new(flow: usize) -> Self {
        let port = 1_000 + flow as u16 / 4;
        let (source, destination) = if flow.is_multiple_of(2) {
            (SocketAddr::new("10.0.0.1".parse().unwrap(), port), "10.0.0.2:80".parse().unwrap())
        } else {
            (SocketAddr::new("fd00::1".parse().unwrap(), port), "[fd00::2]:80".parse().unwrap())
        };
        // The sequence number of some flows wraps, and the identification of all.
        let sequence = 0u32.wrapping_sub(1_000 * flow as u32);
        Self { ends: (source, destination), udp: flow % 4 >= 2, sequence, acknowledgement: 1, identification: 0xfff8 }
    }

    fn send(&mut self, step: &Step) -> Vec<Vec<u8>> {
        let payload: Vec<u8> = (0..step.payload_bytes).map(|at| (self.sequence as usize + at * 3) as u8).collect();
        let (source, destination) = self.ends;
        let mut packet = if self.udp {
            self.sequence = self.sequence.wrapping_add(1);
            build::udp(source, destination, &payload)
        } else {
            let flags = if let Change::Flags(flags) = step.change { flags } else { tcp_flags::ACK };
            match step.change {
                Change::SkipSequence => self.sequence = self.sequence.wrapping_add(1),
                Change::Acknowledge => self.acknowledgement += 1,
                _ => {}
            }
            let window = if matches!(step.change, Change::Window) { 500 } else { 501 };
            let options: &[u8] = if matches!(step.change, Change::LongerOptions) { &[1; 12] } else { &[1; 8] };
            let (sequence, acknowledgement) = (self.sequence, self.acknowledgement);
            self.sequence = sequence.wrapping_add(step.payload_bytes as u32);
            let header = Tcp { sequence, acknowledgement, flags, window, options };
            build::tcp(source, destination, &header, &payload)
        };
        let v4 = source.is_ipv4();
        if v4 {
            self.identification = self.identification.wrapping_add(1);
            packet[4..6].copy_from_slice(&self.identification.to_be_bytes());
            match step.change {
                Change::TrafficClass => packet[1] = 0x10,
                Change::HopLimit => packet[8] = 63,
                Change::MayFragment => packet[6] = 0,
                _ => {}
            }
        } else {
            match step.change {
                Change::TrafficClass => packet[1] = 0x10,
                Change::HopLimit => packet[7] = 63,
                _ => {}
            }
        }
        build::set_checksums(&mut packet);
        match step.change {
            Change::Damage(at) => {
                // In the options or the payload (of a short UDP datagram the checksum), so that the packet parses.
                let from = if v4 { 40 } else { 60 };
                let at = (from + at % packet.len().saturating_sub(from).max(1)).min(packet.len() - 1);
                packet[at] ^= 0x20;
            }
            Change::NoUdpChecksum if v4 && self.udp => packet[26..28].fill(0),
            Change::Fragment if step.payload_bytes > 64 => return build::fragments(&packet, 64, self.identification),
            _ => {}
        }
        vec![packet]
    }
}

fn step() -> impl Strategy<Value = Step> {
    let change = prop_oneof![
        24 => Just(Change::Nothing),
        2 => Just(Change::Flags(tcp_flags::ACK | tcp_flags::PSH)),
        1 => any::<u8>().prop_map(Change::Flags),
        1 => Just(Change::SkipSequence),
        1 => Just(Change::Acknowledge),
        1 => Just(Change::Window),
        1 => Just(Change::TrafficClass),
        1 => Just(Change::HopLimit),
        1 => Just(Change::LongerOptions),
        1 => Just(Change::MayFragment),
        2 => any::<usize>().prop_map(|at| Change::Damage(at % 4_096)),
        1 => Just(Change::NoUdpChecksum),
        1 => Just(Change::Fragment),
    ];
    let payload_bytes = select(vec![0usize, 1, 50, 99, 100, 100, 100, 100, 100, 100, 101, 1_400]);
    // Mostly few flows, so that packets find others to merge with; at times more than may be open.
    let flow = prop_oneof![4 => 0usize..4, 1 => 0usize..OPEN_FRAMES_MAX + 8];
    (flow, payload_bytes, change).prop_map(|(flow, payload_bytes, change)| Step { flow, payload_bytes, change })
}

/// The caller's side: packets at odd places in receive buffers, of which the coalescer sees each packet once.
struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    const PREFIX: usize = 13;

    fn new(packets: &[Vec<u8>]) -> Self {
        Self(packets.iter().map(|packet| [&[0xee; Self::PREFIX], &packet[..], &[0xee; 16]].concat()).collect())
    }

    fn push_to(&self, coalescer: &mut Coalescer) {
        for (slot, buffer) in self.0.iter().enumerate() {
            let packet = &buffer[Self::PREFIX..buffer.len() - 16];
            let parsed = parse(packet).unwrap();
            let at = Piece { slot: slot as u16, start: Self::PREFIX as u32, len: packet.len() as u32 };
            coalescer.push(packet, &parsed, at);
        }
    }

    /// What the vectored write of each frame carries, and for how many packets.
    fn write(&self, coalescer: &mut Coalescer) -> Vec<(Vec<u8>, usize)> {
        coalescer.finish();
        let written = coalescer.frames().map(|frame| {
            let mut bytes = frame.header().to_vec();
            for piece in frame.pieces() {
                let start = piece.start as usize;
                bytes.extend_from_slice(&self.0[usize::from(piece.slot)][start..start + piece.len as usize]);
            }
            (bytes, frame.packets())
        });
        written.collect()
    }
}

fn split(frame: &[u8]) -> Vec<Vec<u8>> {
    let mut frame = frame.to_vec();
    let mut splitter = Splitter::new(&mut frame).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = splitter.next_packet() {
        packets.push(packet.to_vec());
    }
    packets
}

/// What the kernel demands of a frame: lengths that agree, and one packet that is correct as soon as its checksum is
/// finished.
fn check_as_the_kernel_does(frame: &[u8], packets: usize) -> Result<(), TestCaseError> {
    let (header, packet) = frame.split_first_chunk::<{ vnet::HEADER_BYTES }>().unwrap();
    let header = VnetHeader::read(header).unwrap();
    prop_assert_eq!(header.segmentation.is_some(), packets > 1);
    let Some(segmentation) = header.segmentation else {
        prop_assert_eq!(header, VnetHeader::PLAIN);
        return Ok(());
    };
    let parsed = parse(packet).unwrap();
    prop_assert_eq!(usize::from(parsed.total_bytes), packet.len());
    let (transport_header_bytes, segments_max) = match (segmentation.kind, parsed.transport) {
        (SegmentationKind::Udp, Transport::Udp { .. }) => (8, UDP_SEGMENTS_MAX),
        (SegmentationKind::TcpV4 | SegmentationKind::TcpV6, Transport::Tcp { .. }) => {
            (usize::from(packet[usize::from(parsed.network_header_bytes) + 12] >> 4) * 4, TCP_SEGMENTS_MAX)
        }
        _ => return Err(TestCaseError::fail("another protocol than that of the segmentation")),
    };
    prop_assert!(packets <= segments_max);
    let payload_bytes = packet.len() - usize::from(header.headers_bytes);
    prop_assert_eq!(
        usize::from(header.headers_bytes),
        usize::from(parsed.network_header_bytes) + transport_header_bytes
    );
    prop_assert_eq!(payload_bytes.div_ceil(usize::from(segmentation.segment_bytes.get())), packets);
    // Finished as one long packet, it is what the builder finds right, but for TCP's other zero.
    let unsegmented = VnetHeader { segmentation: None, ..header };
    let mut finished = split(&[&unsegmented.to_bytes()[..], packet].concat()).remove(0);
    let mut expected = finished.clone();
    build::set_checksums(&mut expected);
    let tcp_checksum = usize::from(parsed.network_header_bytes) + 16;
    if segmentation.kind != SegmentationKind::Udp && finished[tcp_checksum..tcp_checksum + 2] == [0xff, 0xff] {
        finished[tcp_checksum..tcp_checksum + 2].fill(0);
    }
    prop_assert_eq!(finished, expected);
    Ok(())
}

/// The packets of each flow in order. Those without a flow are one flow.
fn by_flow(packets: impl IntoIterator<Item = Vec<u8>>) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut flows = BTreeMap::<_, Vec<_>>::new();
    for packet in packets {
        let key = parse(&packet).unwrap().flow_key();
        flows.entry(format!("{key:?}")).or_default().push(packet);
    }
    flows
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn coalesced_packets_split_into_themselves() {
    let merged = std::cell::Cell::new(0usize);
    let packets_seen = std::cell::Cell::new(0usize);
    // Memory from one batch must not leak into the next.
    let coalescer = std::cell::RefCell::new(Coalescer::new(Offloads { uso: true }));
    let mut runner = proptest::test_runner::TestRunner::new(config(3_000));
    let result = runner.run(&vec(step(), 1..80), |steps| {
        let mut senders: Vec<_> = (0..OPEN_FRAMES_MAX + 8).map(Sender::new).collect();
        let packets: Vec<_> = steps.iter().flat_map(|step| senders[step.flow].send(step)).collect();
        let buffers = Buffers::new(&packets);
        let mut coalescer = coalescer.borrow_mut();
        coalescer.clear();
        buffers.push_to(&mut coalescer);
        let frames = buffers.write(&mut coalescer);
        let mut out = Vec::new();
        for (frame, packets) in &frames {
            check_as_the_kernel_does(frame, *packets)?;
            let parts = split(frame);
            prop_assert_eq!(parts.len(), *packets);
            if parts.len() > 1 {
                merged.set(merged.get() + parts.len());
            }
            out.extend(parts);
        }
        packets_seen.set(packets_seen.get() + out.len());
        prop_assert_eq!(by_flow(out), by_flow(packets));
        Ok(())
    });
    assert!(result.is_ok(), "{}", result.unwrap_err());
    let (merged, seen) = (merged.get(), packets_seen.get());
    assert!(merged > seen / 10, "only {merged} of {seen} packets merged: the mix says little");
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn split_segments_coalesce_into_their_frame(
        v6 in any::<bool>(),
        udp in any::<bool>(),
        payload in vec(any::<u8>(), 2..6_000),
        segment_bytes in 50u16..1_500,
        push in any::<bool>(),
        sequence in any::<u32>(),
    ) {
        let (source, destination) = Sender::new(usize::from(v6)).ends;
        let flags = tcp_flags::ACK | if push { tcp_flags::PSH } else { 0 };
        let packet = if udp {
            build::udp(source, destination, &payload)
        } else {
            build::tcp(source, destination, &Tcp { sequence, flags, ..Tcp::default() }, &payload)
        };
        let kind = match (udp, v6) {
            (true, _) => SegmentationKind::Udp,
            (false, false) => SegmentationKind::TcpV4,
            (false, true) => SegmentationKind::TcpV6,
        };
        let segment_bytes = NonZeroU16::new(segment_bytes).unwrap();
        let header = VnetHeader {
            segmentation: Some(Segmentation { kind, segment_bytes, ecn: false }),
            ..VnetHeader::PLAIN
        };
        let packets = split(&[&header.to_bytes()[..], &packet].concat());
        let segments_max = if udp { UDP_SEGMENTS_MAX } else { TCP_SEGMENTS_MAX };
        prop_assert_eq!(packets.len(), payload.len().div_ceil(usize::from(segment_bytes.get())));

        let buffers = Buffers::new(&packets);
        let mut coalescer = Coalescer::new(Offloads { uso: true });
        buffers.push_to(&mut coalescer);
        let frames = buffers.write(&mut coalescer);
        prop_assert_eq!(frames.len(), packets.len().div_ceil(segments_max));
        let again: Vec<_> = frames.iter().flat_map(|(frame, _)| split(frame)).collect();
        prop_assert_eq!(&again, &packets);
        if let [(frame, 2..)] = &frames[..] {
            // Finished as one long packet it is the packet that was cut, but for the checksum that the kernel's
            // super-frame leaves open.
            let (header, long) = frame.split_first_chunk::<{ vnet::HEADER_BYTES }>().unwrap();
            let left_open = matches!(VnetHeader::read(header).unwrap().checksum, Checksum::Partial { .. });
            prop_assert!(left_open);
            let mut long = long.to_vec();
            build::set_checksums(&mut long);
            prop_assert_eq!(long, packet);
        }
    }
}
