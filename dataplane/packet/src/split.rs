//! TUN → tunnel: cuts the frames of a TUN queue into complete IP packets, in place.
//!
//! A super-frame is one header and a long payload. [`Splitter`] keeps a copy of the header and writes it, with the
//! fields of the next segment, over the tail of the segment before, directly in front of that segment's payload:
//!
//! ```text
//! frame    | vnet | headers | payload 1 | payload 2 | payload 3 |
//! 1st      |      [ headers   payload 1 ]           |           |
//! 2nd      |      |         |  [ headers  payload 2 ]           |
//! 3rd      |      |         |           |  [ headers  payload 3 ]
//! ```
//!
//! So each packet is contiguous, payload never moves, and a packet is gone when the next is asked for. Segments are
//! those that the kernel's own segmentation makes: IPv4 identification and TCP sequence number count up, FIN and
//! PSH are on the last segment only, CWR on the first only (RFC 3168 §6.1.2).
//!
//! A frame comes from the kernel, which answers for its payload: checksums are written, not verified. Lengths are
//! not believed all the same. Packets are not parsed unless they must be cut; the caller parses what comes out.

use std::num::NonZeroU16;

use crate::checksum::Sum;
use crate::flow::protocol;
use crate::parse::{Malformed, Parsed, Transport, parse, tcp_flags};
use crate::vnet::{self, BadVnetHeader, Checksum, Segmentation, SegmentationKind, VnetHeader};
use crate::wire::{ipv4, ipv6, put_u16, put_u32, tcp, udp};

/// Longest header of a super-frame: IPv4 and TCP need 120 bytes with all their options, IPv6 and TCP 100 and leave
/// 60 for extension headers. A frame with more is [`BadFrame::HeaderTooLong`].
pub const HEADERS_BYTES_MAX: usize = 160;

/// Why a frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// Shorter than the vnet header and one byte.
    Truncated,
    /// The vnet header says something that is not negotiated.
    Vnet(BadVnetHeader),
    /// The checksum to be finished lies outside the packet.
    ChecksumRange,
    /// A super-frame whose packet is malformed.
    Packet(Malformed),
    /// A super-frame whose packet is a fragment or not of the protocol that the vnet header names.
    Protocol,
    /// A super-frame with more than [`HEADERS_BYTES_MAX`] bytes of headers.
    HeaderTooLong,
}

impl BadFrame {
    /// The name under which the reason is counted. It stays the same from release to release.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "frame_truncated",
            Self::Vnet(reason) => reason.name(),
            Self::ChecksumRange => "checksum_range",
            Self::Packet(reason) => reason.name(),
            Self::Protocol => "segmentation_protocol",
            Self::HeaderTooLong => "header_too_long",
        }
    }
}

/// One frame, being cut.
#[derive(Debug)]
pub struct Splitter<'a> {
    /// The packet of the frame, without the vnet header.
    packet: &'a mut [u8],
    rest: Rest,
}

impl<'a> Splitter<'a> {
    /// Takes a frame as the kernel gave it: vnet header and packet.
    ///
    /// # Errors
    /// The reason why the frame must be dropped.
    #[inline]
    pub fn new(frame: &'a mut [u8]) -> Result<Self, BadFrame> {
        let (header, packet) = frame.split_first_chunk_mut::<{ vnet::HEADER_BYTES }>().ok_or(BadFrame::Truncated)?;
        let header = VnetHeader::read(header).map_err(BadFrame::Vnet)?;
        if packet.is_empty() {
            return Err(BadFrame::Truncated);
        }
        let Some(segmentation) = header.segmentation else {
            if let Checksum::Partial { start, offset } = header.checksum {
                finish_checksum(packet, start, offset)?;
            }
            return Ok(Self { packet, rest: Rest::Whole });
        };
        let parsed = parse(packet).map_err(BadFrame::Packet)?;
        let packet = packet.get_mut(..usize::from(parsed.total_bytes)).ok_or(BadFrame::Truncated)?;
        let segments = Segments::new(packet, &parsed, segmentation)?;
        Ok(Self { packet, rest: Rest::Segments(segments) })
    }

    /// The next packet, complete and with correct checksums, or `None` after the last. Its bytes are lent until the
    /// next call and are the caller's to change.
    #[inline]
    pub fn next_packet(&mut self) -> Option<&mut [u8]> {
        match &mut self.rest {
            Rest::Nothing => None,
            Rest::Whole => {
                self.rest = Rest::Nothing;
                Some(self.packet)
            }
            Rest::Segments(segments) => segments.next(self.packet),
        }
    }
}

/// What has not been lent yet.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack for one frame; a box would be an allocation")]
enum Rest {
    Whole,
    Segments(Segments),
    Nothing,
}

/// Finishes a checksum whose field holds the sum over the pseudo-header. As the kernel does, 0 becomes 0xffff for
/// every protocol: UDP demands it, and to the others both are zero.
fn finish_checksum(packet: &mut [u8], start: u16, offset: u16) -> Result<(), BadFrame> {
    let covered = packet.get_mut(usize::from(start)..).ok_or(BadFrame::ChecksumRange)?;
    let checksum = Sum::of(covered).complement_udp();
    let field = covered.get_mut(usize::from(offset)..).and_then(<[u8]>::first_chunk_mut);
    *field.ok_or(BadFrame::ChecksumRange)? = checksum.to_be_bytes();
    Ok(())
}

/// The segments of a super-frame that have not been lent yet.
#[derive(Debug)]
struct Segments {
    /// The headers that all segments share, with zeros where they differ. Only the first `headers_bytes` count.
    headers: [u8; HEADERS_BYTES_MAX],
    headers_bytes: usize,
    network_bytes: usize,
    segment_bytes: usize,
    /// Where the next payload begins in the packet.
    payload_at: usize,
    /// Segments lent.
    count: u16,
    done: bool,
    /// The sum over the shared IPv4 header. To read a header that was just written, in words of another size than
    /// it was written in, takes longer than to add the fields that differ.
    network_sum: Sum,
    /// The sum over the shared transport header and pseudo-header.
    transport_sum: Sum,
    /// Of the first segment, in IPv4; `None` in IPv6.
    identification: Option<u16>,
    transport: TransportFields,
}

/// What differs in the transport headers of segments, beside lengths and checksums.
#[derive(Debug)]
enum TransportFields {
    Tcp {
        /// Sequence number of the next segment.
        sequence: u32,
        /// Data offset, reserved bits and flags of the super-frame.
        offset_and_flags: u16,
    },
    Udp,
}

impl Segments {
    fn new(packet: &[u8], parsed: &Parsed, segmentation: Segmentation) -> Result<Self, BadFrame> {
        let network_bytes = usize::from(parsed.network_header_bytes);
        let ipv4 = parsed.source.is_ipv4();
        let (transport_bytes, protocol) = match (segmentation.kind, parsed.transport) {
            _ if parsed.fragment.is_some() => return Err(BadFrame::Protocol),
            (SegmentationKind::TcpV4, Transport::Tcp { .. }) if ipv4 => {
                (tcp_header_bytes(packet, network_bytes), protocol::TCP)
            }
            (SegmentationKind::TcpV6, Transport::Tcp { .. }) if !ipv4 => {
                (tcp_header_bytes(packet, network_bytes), protocol::TCP)
            }
            (SegmentationKind::Udp, Transport::Udp { .. }) => (udp::HEADER_BYTES, protocol::UDP),
            _ => return Err(BadFrame::Protocol),
        };
        // The kernel's own length of the headers is a hint that counts what it happens to hold in one piece.
        let headers_bytes = network_bytes + transport_bytes;
        let mut headers = [0; HEADERS_BYTES_MAX];
        headers
            .get_mut(..headers_bytes)
            .zip(packet.get(..headers_bytes))
            .map(|(to, from)| to.copy_from_slice(from))
            .ok_or(BadFrame::HeaderTooLong)?;

        let (network, rest) = headers.split_at_mut(network_bytes);
        let (transport, _) = rest.split_at_mut(transport_bytes);
        let addresses = if ipv4 { ipv4::SOURCE..ipv4::HEADER_BYTES } else { ipv6::SOURCE..ipv6::HEADER_BYTES };
        let pseudo_header = Sum::pseudo_header(network.get(addresses).unwrap_or_default(), protocol, 0);
        let identification = ipv4.then(|| take_u16(network, ipv4::IDENTIFICATION));
        if ipv4 {
            take_u16(network, ipv4::TOTAL_LENGTH);
            take_u16(network, ipv4::CHECKSUM);
        }
        let fields = if protocol == protocol::TCP {
            take_u16(transport, tcp::CHECKSUM);
            let [high, low] = [take_u16(transport, tcp::SEQUENCE), take_u16(transport, tcp::SEQUENCE + 2)];
            TransportFields::Tcp {
                sequence: u32::from(high) << 16 | u32::from(low),
                offset_and_flags: take_u16(transport, tcp::DATA_OFFSET),
            }
        } else {
            take_u16(transport, udp::LENGTH);
            take_u16(transport, udp::CHECKSUM);
            TransportFields::Udp
        };
        let network_sum = if ipv4 { Sum::of(network) } else { Sum::ZERO };
        let transport_sum = Sum::of(transport).combine(pseudo_header);
        Ok(Self {
            headers,
            headers_bytes,
            network_bytes,
            segment_bytes: usize::from(NonZeroU16::get(segmentation.segment_bytes)),
            payload_at: headers_bytes,
            count: 0,
            done: false,
            network_sum,
            transport_sum,
            identification,
            transport: fields,
        })
    }

    /// Writes the next segment's headers in front of its payload.
    #[inline]
    fn next<'p>(&mut self, packet: &'p mut [u8]) -> Option<&'p mut [u8]> {
        if self.done {
            return None;
        }
        let payload_at = self.payload_at;
        let payload_bytes = self.segment_bytes.min(packet.len().saturating_sub(payload_at));
        self.payload_at = payload_at + payload_bytes;
        self.done = self.payload_at >= packet.len();

        let segment = packet.get_mut(payload_at.checked_sub(self.headers_bytes)?..self.payload_at)?;
        // The whole frame's length fits 16 bits, so a segment's does.
        let total_bytes = segment.len() as u16;
        let (headers, payload) = segment.split_at_mut_checked(self.headers_bytes)?;
        headers.copy_from_slice(self.headers.get(..self.headers_bytes)?);
        let (network, transport) = headers.split_at_mut_checked(self.network_bytes)?;
        self.write_network(network, total_bytes);
        self.write_transport(transport, total_bytes - self.network_bytes as u16, payload);
        self.count = self.count.wrapping_add(1);
        Some(segment)
    }

    #[inline]
    fn write_network(&self, network: &mut [u8], total_bytes: u16) {
        if let Some(first) = self.identification {
            let identification = first.wrapping_add(self.count);
            put_u16(network, ipv4::TOTAL_LENGTH, total_bytes);
            put_u16(network, ipv4::IDENTIFICATION, identification);
            let checksum = self.network_sum.add(total_bytes).add(identification).complement();
            put_u16(network, ipv4::CHECKSUM, checksum);
        } else {
            put_u16(network, ipv6::PAYLOAD_LENGTH, total_bytes - ipv6::HEADER_BYTES as u16);
        }
    }

    #[inline]
    fn write_transport(&mut self, transport: &mut [u8], transport_bytes: u16, payload: &[u8]) {
        // The length belongs to the pseudo-header.
        let sum = Sum::of(payload).combine(self.transport_sum).add(transport_bytes);
        match &mut self.transport {
            TransportFields::Tcp { sequence, offset_and_flags } => {
                let mut word = *offset_and_flags;
                if !self.done {
                    word &= !u16::from(tcp_flags::FIN | tcp_flags::PSH);
                }
                if self.count > 0 {
                    word &= !u16::from(tcp_flags::CWR);
                }
                put_u32(transport, tcp::SEQUENCE, *sequence);
                put_u16(transport, tcp::DATA_OFFSET, word);
                let sum = sum.add((*sequence >> 16) as u16).add(*sequence as u16).add(word);
                put_u16(transport, tcp::CHECKSUM, sum.complement());
                *sequence = sequence.wrapping_add(payload.len() as u32);
            }
            TransportFields::Udp => {
                put_u16(transport, udp::LENGTH, transport_bytes);
                put_u16(transport, udp::CHECKSUM, sum.add(transport_bytes).complement_udp());
            }
        }
    }
}

/// Takes a field out of a header, which keeps zeros there.
fn take_u16(header: &mut [u8], at: usize) -> u16 {
    let field = header.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
    field.map_or(0, |field| u16::from_be_bytes(std::mem::take(field)))
}

fn tcp_header_bytes(packet: &[u8], network_bytes: usize) -> usize {
    packet.get(network_bytes + tcp::DATA_OFFSET).map_or(0, |byte| usize::from(byte >> 4) * 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{self, Tcp};
    use crate::wire::u16_at;
    use proptest::prelude::*;
    use std::net::SocketAddr;

    fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
        if v6 {
            ("[fd00::1]:1000".parse().unwrap(), "[fd00::2]:80".parse().unwrap())
        } else {
            ("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:80".parse().unwrap())
        }
    }

    fn segmentation(kind: SegmentationKind, segment_bytes: u16) -> VnetHeader {
        let segment_bytes = NonZeroU16::new(segment_bytes).unwrap();
        VnetHeader { segmentation: Some(Segmentation { kind, segment_bytes, ecn: false }), ..VnetHeader::PLAIN }
    }

    fn tcp_kind(v6: bool) -> SegmentationKind {
        if v6 { SegmentationKind::TcpV6 } else { SegmentationKind::TcpV4 }
    }

    fn split(header: VnetHeader, packet: &[u8]) -> Result<Vec<Vec<u8>>, BadFrame> {
        let mut frame = [&header.to_bytes()[..], packet].concat();
        let mut splitter = Splitter::new(&mut frame)?;
        let mut packets = Vec::new();
        while let Some(packet) = splitter.next_packet() {
            packets.push(packet.to_vec());
        }
        Ok(packets)
    }

    /// A payload in which no two bytes near each other are equal.
    fn payload(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|index| (index * 7 + index / 251) as u8).collect()
    }

    #[test]
    fn plain_frames_pass_unchanged() {
        let (source, destination) = ends(false);
        let packet = build::udp(source, destination, b"payload");
        assert_eq!(split(VnetHeader::PLAIN, &packet), Ok(vec![packet.clone()]));
        // Not looked into: what is no packet is for the parser to refuse.
        assert_eq!(split(VnetHeader::PLAIN, b"x"), Ok(vec![b"x".to_vec()]));
    }

    #[test]
    fn partial_checksums_are_finished() {
        for v6 in [false, true] {
            let (source, destination) = ends(v6);
            let start = if v6 { 40 } else { 20 };
            let addresses = if v6 { 8..40 } else { 12..20 };
            for (complete, protocol, offset) in [
                (build::udp(source, destination, b"abc"), protocol::UDP, 6),
                (build::tcp(source, destination, &Tcp::default(), b"abc"), protocol::TCP, 16),
            ] {
                let transport_bytes = (complete.len() - start) as u16;
                let sum = Sum::pseudo_header(&complete[addresses.clone()], protocol, transport_bytes);
                let mut partial = complete.clone();
                put_u16(&mut partial, start + offset, sum.partial());
                let checksum = Checksum::Partial { start: start as u16, offset: offset as u16 };
                let header = VnetHeader { checksum, ..VnetHeader::PLAIN };
                assert_eq!(split(header, &partial), Ok(vec![complete]));
            }
        }
    }

    #[test]
    fn udp_checksum_zero_is_written_as_ones() {
        let (source, destination) = ends(false);
        // The last two bytes make the sum over everything 0xffff.
        let with_sum = build::udp(source, destination, &[0, 0]);
        let (sent, filler) = (with_sum.clone(), u16_at(with_sum[26..].first_chunk::<2>().unwrap(), 0));
        let complete = build::udp(source, destination, &filler.to_be_bytes());
        assert_eq!(&complete[26..28], &[0xff, 0xff], "{sent:02x?}");
        let mut partial = complete.clone();
        put_u16(&mut partial, 26, Sum::pseudo_header(&complete[12..20], protocol::UDP, 10).partial());
        let header = VnetHeader { checksum: Checksum::Partial { start: 20, offset: 6 }, ..VnetHeader::PLAIN };
        assert_eq!(split(header, &partial), Ok(vec![complete.clone()]));
        // The same datagram out of a super-frame.
        let longer = build::udp(source, destination, &[filler.to_be_bytes(), [1, 2]].concat());
        assert_eq!(split(segmentation(SegmentationKind::Udp, 2), &longer).unwrap()[0][26..28], [0xff, 0xff]);
    }

    #[test]
    fn checksum_outside_the_packet_is_refused() {
        let partial = |start, offset| {
            let checksum = Checksum::Partial { start, offset };
            split(VnetHeader { checksum, ..VnetHeader::PLAIN }, &[0x45; 40]).map(|packets| packets.len())
        };
        assert_eq!(partial(20, 18), Ok(1));
        assert_eq!(partial(20, 19), Err(BadFrame::ChecksumRange));
        assert_eq!(partial(41, 0), Err(BadFrame::ChecksumRange));
        assert_eq!(partial(u16::MAX, u16::MAX), Err(BadFrame::ChecksumRange));
    }

    #[test]
    fn tcp_segments_are_those_of_the_kernel() {
        let flags = tcp_flags::ACK | tcp_flags::PSH | tcp_flags::FIN | tcp_flags::CWR;
        let options = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
        let payload = payload(3_500);
        for v6 in [false, true] {
            let (source, destination) = ends(v6);
            // Segments shorter than the headers too: a header then covers more than the segment before.
            for segment_bytes in [1_000, 33] {
                let packet = |flags, sequence, payload: &[u8], identification: u16| {
                    let header = Tcp { sequence, acknowledgement: 9, flags, window: 501, options: &options };
                    let mut packet = build::tcp(source, destination, &header, payload);
                    if !v6 {
                        put_u16(&mut packet, ipv4::IDENTIFICATION, identification);
                        build::set_checksums(&mut packet);
                    }
                    packet
                };
                let sequence = u32::MAX - 1_500;
                let count = payload.len().div_ceil(segment_bytes);
                let expected: Vec<_> = (payload.chunks(segment_bytes).enumerate())
                    .map(|(index, chunk)| {
                        let kept = if index + 1 == count { flags } else { flags & !(tcp_flags::PSH | tcp_flags::FIN) };
                        let kept = if index == 0 { kept } else { kept & !tcp_flags::CWR };
                        let sequence = sequence.wrapping_add((index * segment_bytes) as u32);
                        packet(kept, sequence, chunk, 0xfffe_u16.wrapping_add(index as u16))
                    })
                    .collect();
                let whole = packet(flags, sequence, &payload, 0xfffe);
                // What the kernel says of the headers' length does not matter, nor what the checksum field holds.
                let header = VnetHeader { headers_bytes: 7, ..segmentation(tcp_kind(v6), segment_bytes as u16) };
                assert_eq!(split(header, &whole).unwrap(), expected);
            }
        }
    }

    #[test]
    fn udp_segments_are_datagrams() {
        let payload = payload(2_500);
        for v6 in [false, true] {
            let (source, destination) = ends(v6);
            let expected: Vec<_> = (payload.chunks(1_200).enumerate())
                .map(|(index, chunk)| {
                    let mut packet = build::udp(source, destination, chunk);
                    if !v6 {
                        put_u16(&mut packet, ipv4::IDENTIFICATION, index as u16);
                        build::set_checksums(&mut packet);
                    }
                    packet
                })
                .collect();
            let whole = build::udp(source, destination, &payload);
            assert_eq!(split(segmentation(SegmentationKind::Udp, 1_200), &whole).unwrap(), expected);
        }
    }

    #[test]
    fn short_super_frames_are_one_packet() {
        let (source, destination) = ends(false);
        for bytes in [0, 1, 999, 1_000] {
            let packet = build::tcp(source, destination, &Tcp::default(), &payload(bytes));
            assert_eq!(split(segmentation(SegmentationKind::TcpV4, 1_000), &packet), Ok(vec![packet.clone()]));
            // What follows the packet is no payload.
            let longer = [&packet[..], &[0; 3_000]].concat();
            assert_eq!(split(segmentation(SegmentationKind::TcpV4, 1_000), &longer), Ok(vec![packet]));
        }
    }

    #[test]
    fn frames_that_contradict_themselves_are_refused() {
        let (v4, v6) = (ends(false), ends(true));
        let tcp_v4 = build::tcp(v4.0, v4.1, &Tcp::default(), &payload(100));
        let tcp_v6 = build::tcp(v6.0, v6.1, &Tcp::default(), &payload(100));
        let udp_v4 = build::udp(v4.0, v4.1, &payload(100));
        for (kind, packet) in [
            (SegmentationKind::TcpV4, &tcp_v6),
            (SegmentationKind::TcpV6, &tcp_v4),
            (SegmentationKind::TcpV4, &udp_v4),
            (SegmentationKind::Udp, &tcp_v4),
            (SegmentationKind::Udp, &build::fragments(&udp_v4, 24, 1)[0]),
            (SegmentationKind::Udp, &build::fragments(&udp_v4, 24, 1)[1]),
        ] {
            assert_eq!(split(segmentation(kind, 10), packet), Err(BadFrame::Protocol));
        }
        let header = segmentation(SegmentationKind::TcpV4, 10);
        assert_eq!(split(header, &[]), Err(BadFrame::Truncated));
        assert_eq!(split(header, &tcp_v4[..50]), Err(BadFrame::Packet(Malformed::TotalLength)));
        let padded = build::with_extension(&tcp_v6, 60, &[[12].as_slice(), &[0; 102]].concat());
        assert_eq!(split(segmentation(SegmentationKind::TcpV6, 10), &padded), Err(BadFrame::HeaderTooLong));
        let padded = build::with_extension(&tcp_v6, 60, &[0, 1, 4, 0, 0, 0, 0]);
        assert_eq!(split(segmentation(SegmentationKind::TcpV6, 10), &padded).unwrap().len(), 10);
        assert_eq!(Splitter::new(&mut [0; 9]).err(), Some(BadFrame::Truncated));
        let mut unknown = [0; 60];
        unknown[1] = 3;
        let refused = Splitter::new(&mut unknown).err();
        assert_eq!(refused, Some(BadFrame::Vnet(BadVnetHeader::Segmentation)));
        assert_eq!(refused.unwrap().name(), "vnet_segmentation");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever comes out of a damaged super-frame is a packet that parses, and nothing panics.
        #[test]
        fn damaged_frames_never_panic(
            kind in 0u8..8,
            flags in 0u8..4,
            v6 in any::<bool>(),
            udp in any::<bool>(),
            segment_bytes in any::<u16>(),
            payload_bytes in 0usize..300,
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let (source, destination) = ends(v6);
            let packet = if udp {
                build::udp(source, destination, &payload(payload_bytes))
            } else {
                build::tcp(source, destination, &Tcp::default(), &payload(payload_bytes))
            };
            let [low, high] = (segment_bytes % 100).to_ne_bytes();
            let mut frame = [&[flags, kind, 0, 0, low, high, 20, 0, 6, 0], &packet[..]].concat();
            for (at, value) in damage {
                *at.get_mut(&mut frame) = value;
            }
            if cut.index(4) == 0 {
                frame.truncate(cut.index(frame.len() + 1));
            }
            let segmented = frame.get(1).is_some_and(|kind| *kind != 0);
            if let Ok(mut splitter) = Splitter::new(&mut frame) {
                while let Some(packet) = splitter.next_packet() {
                    prop_assert!(!segmented || parse(packet).is_ok());
                }
            }
        }
    }
}
