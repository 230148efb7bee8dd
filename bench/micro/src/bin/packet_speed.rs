//! Prints what the stages of the packet path cost: nanoseconds per packet and, for the checksum, GB/s.
//!
//! `cargo run --release -p ringfort-micro --bin packet_speed`. The best of several rounds is printed, because
//! on a shared machine everything above the best is other people's work.

use std::hint::black_box;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use ringfort_packet::build::{self, Tcp};
use ringfort_packet::checksum::Sum;
use ringfort_packet::coalesce::{Coalescer, Offloads, Piece};
use ringfort_packet::parse::{Parsed, parse, tcp_flags};
use ringfort_packet::split::Splitter;
use ringfort_packet::vnet::{Segmentation, SegmentationKind, VnetHeader};

/// Packets of one batch, as many as one receive of GRO'd datagrams brings.
const BATCH_PACKETS: usize = 46;
const ROUNDS: usize = 150;
/// Short enough to fall between two time slices of other processes.
const ROUND: Duration = Duration::from_millis(2);

fn main() {
    println!("checksum");
    for bytes in [20, 64, 576, 1_400, 9_000, 65_000] {
        let data = vec![0x5a; bytes];
        let nanos = measure(1, || {
            black_box(Sum::of(black_box(&data)));
        });
        println!("  {bytes:>6} B  {nanos:>8.1} ns  {:>6.1} GB/s", bytes as f64 / nanos);
    }

    println!("parse");
    for (name, packet) in samples() {
        let nanos = measure(1, || {
            black_box(&parse(black_box(&packet)));
        });
        println!("  {name:<28} {nanos:>6.1} ns");
        let nanos = measure(1, || {
            black_box(parse(black_box(&packet)).ok().and_then(|parsed| parsed.flow_key()));
        });
        println!("  {:<28} {nanos:>6.1} ns", "  with flow key");
    }

    println!("coalesce, push of {BATCH_PACKETS} parsed packets, frames and clear, per packet");
    for (name, packets) in batches() {
        let parsed: Vec<Parsed> = packets.iter().filter_map(|packet| parse(packet).ok()).collect();
        let mut coalescer = Coalescer::new(Offloads { uso: true });
        let mut frames = 0;
        let nanos = measure(packets.len(), || {
            for (slot, (packet, parsed)) in packets.iter().zip(&parsed).enumerate() {
                coalescer.push(
                    black_box(packet),
                    parsed,
                    Piece { slot: slot as u16, start: 0, len: packet.len() as u32 },
                );
            }
            coalescer.finish();
            frames = coalescer.frames().map(|frame| black_box(frame.pieces().len().min(1))).sum();
            coalescer.clear();
        });
        let sums = measure(packets.len(), || {
            for packet in &packets {
                black_box(Sum::of(black_box(packet)));
            }
        });
        println!("  {name:<28} {nanos:>6.1} ns, of which checksum {sums:>6.1} ns; {frames} frames");
    }

    println!("split, per packet");
    for (kind, segment_bytes) in
        [(SegmentationKind::TcpV4, 1_348), (SegmentationKind::TcpV6, 1_348), (SegmentationKind::Udp, 64)]
    {
        let Some(segment_bytes) = NonZeroU16::new(segment_bytes) else { continue };
        let payload = vec![0x5a; usize::from(segment_bytes.get()) * BATCH_PACKETS];
        let packet = match kind {
            SegmentationKind::TcpV4 => tcp(false, 0, &payload),
            SegmentationKind::TcpV6 => tcp(true, 0, &payload),
            SegmentationKind::Udp => udp(&payload),
        };
        let header =
            VnetHeader { segmentation: Some(Segmentation { kind, segment_bytes, ecn: false }), ..VnetHeader::PLAIN };
        let template = [&header.to_bytes()[..], &packet].concat();
        let mut frame = template.clone();
        let nanos = measure(BATCH_PACKETS, || {
            // Cutting writes over all headers but the first, and over payload that was lent before.
            frame[..100].copy_from_slice(&template[..100]);
            if let Ok(mut splitter) = Splitter::new(&mut frame) {
                while let Some(packet) = splitter.next_packet() {
                    black_box(packet);
                }
            }
        });
        let one = vec![0x5a; usize::from(segment_bytes.get()) + 32];
        let sum = measure(1, || {
            black_box(Sum::of(black_box(&one)));
        });
        println!("  {:<28} {nanos:>6.1} ns, of which checksum {sum:>6.1} ns", format!("{kind:?} {segment_bytes} B"));
    }
}

/// The best nanoseconds per item of a function that handles `items`.
fn measure(items: usize, mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut runs = 0;
        while start.elapsed() < ROUND {
            // The clock costs as much as several packets.
            for _ in 0..64 {
                run();
            }
            runs += 64;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / (runs * items) as f64);
    }
    best
}

fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
    let address = |v6: bool, last| {
        if v6 { [0xfd00, 0, 0, 0, 0, 0, 0, last].into() } else { [10, 0, 0, last as u8].into() }
    };
    (SocketAddr::new(address(v6, 1), 40_000), SocketAddr::new(address(v6, 2), 443))
}

fn tcp(v6: bool, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = ends(v6);
    let options = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
    let header = Tcp { sequence, acknowledgement: 1, flags: tcp_flags::ACK, window: 501, options: &options };
    build::tcp(source, destination, &header, payload)
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let (source, destination) = ends(false);
    build::udp(source, destination, payload)
}

fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let (source, destination) = ends(true);
    let udp_v6 = build::udp(source, destination, &[0; 64]);
    let error = build::icmp(destination.ip(), source.ip(), 3, 0, [0; 4], &udp_v6);
    vec![
        ("IPv4 TCP", tcp(false, 0, &[0; 1_348])),
        ("IPv6 TCP", tcp(true, 0, &[0; 1_348])),
        ("IPv4 UDP", udp(&[0; 64])),
        ("IPv6 UDP, one extension", build::with_extension(&udp_v6, 60, &[0, 1, 4, 0, 0, 0, 0])),
        ("IPv6 ICMP error", error),
    ]
}

fn batches() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let stream = |v6, flows: usize, payload_bytes: usize| {
        (0..BATCH_PACKETS)
            .map(|index| {
                let mut packet = tcp(v6, (index / flows * payload_bytes) as u32, &vec![0x5a; payload_bytes]);
                packet[if v6 { 41 } else { 21 }] = (index % flows) as u8;
                build::set_checksums(&mut packet);
                packet
            })
            .collect()
    };
    vec![
        ("IPv4 TCP 1400 B, 1 flow", stream(false, 1, 1_348)),
        ("IPv6 TCP 1400 B, 1 flow", stream(true, 1, 1_328)),
        ("IPv4 TCP 1400 B, 8 flows", stream(false, 8, 1_348)),
        ("IPv4 TCP 1400 B, 46 flows", stream(false, 46, 1_348)),
        ("IPv4 TCP 60 B, 1 flow", stream(false, 1, 8)),
        ("IPv4 UDP 64 B, 1 flow", vec![udp(&[0; 36]); BATCH_PACKETS]),
        ("IPv4 TCP ACKs, 1 flow", stream(false, 1, 0)),
    ]
}
