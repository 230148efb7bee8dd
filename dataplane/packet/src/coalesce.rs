//! Tunnel → TUN: joins decrypted packets into the super-frames that a TUN queue takes, without moving payload.
//!
//! One write of a super-frame costs the kernel about what one write of a packet does, so bulk gains several times
//! over. A super-frame is a header made here and a list of [`Piece`]s, which say where in the caller's receive
//! buffers the payload lies; the caller hands both to one vectored write.
//!
//! Order of calls: [`Coalescer::push`] for every packet of a batch, [`Coalescer::frames`] once, writes,
//! [`Coalescer::clear`]. Headers stay where they are from `frames` until `clear`, however long the writes take.
//!
//! Packets merge as in the kernel's GRO (`tcp_gro_receive`, `udp_gro_receive`), that is, only where cutting the
//! super-frame again gives the same packets back. Both need:
//!
//! - the same flow, in IPv4 the same TOS and TTL and "don't fragment", in IPv6 the same traffic class, flow label
//!   and hop limit; no IPv4 options, IPv6 extension headers or fragments;
//! - correct checksums, of the IPv4 header too: a super-frame gets new ones, and a wrong one must reach the receiver
//!   as wrong as it came;
//! - payloads of one size but the last, which may be shorter;
//!
//! TCP further the next sequence number, the same acknowledgement, window, urgent pointer and options, and no flag
//! but ACK; PSH is allowed and closes the frame. UDP merges only where the device was told to take it
//! ([`Offloads::uso`]), and never with a checksum of 0.
//!
//! The packets of one flow stay in their order: one that cannot merge closes the flow's frame. Between flows a
//! packet may overtake. Two things are not kept: the identification of merged IPv4 packets, which counts up from the
//! first one's (with "don't fragment" it has no meaning, RFC 6864 §4.1), and which of the two zeros of one's
//! complement a checksum was. Fragments of a flow, all but the first of which name no flow, keep their order among
//! themselves.

use std::num::NonZeroU16;

use crate::checksum::Sum;
use crate::flow::{FlowKey, protocol};
use crate::parse::{Parsed, Transport, tcp_flags};
use crate::vnet::{self, Checksum, Segmentation, SegmentationKind, VnetHeader};
use crate::wire::{ipv4, ipv6, put_u16, set_ipv4_checksum, tcp, u16_at, u32_at, udp};

/// Frames that take packets at the same time, each of another flow. A flow more closes one of them, in turn. A
/// receive batch seldom holds more flows with anything to merge, and their tags fill one cache line.
pub const OPEN_FRAMES_MAX: usize = 16;

/// Segments of a TCP super-frame; with one more the next frame begins. 64 KiB hold 46 segments of 1,400 bytes; the
/// bound keeps a peer's tiny segments below the 1,024 pieces that one vectored write takes.
pub const TCP_SEGMENTS_MAX: usize = 128;

/// Segments of a UDP super-frame; with one more the next frame begins. The kernel's `UDP_MAX_SEGMENTS` was 64 until
/// Linux 6.9.
pub const UDP_SEGMENTS_MAX: usize = 64;

/// Longest header of a frame: vnet, IPv6 without extension headers, TCP with all its options.
const HEADER_BYTES_MAX: usize = vnet::HEADER_BYTES + ipv6::HEADER_BYTES + 60;

/// Bytes in one of the caller's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which buffer, by the caller's own numbering.
    pub slot: u16,
    /// Where the bytes begin in it.
    pub start: u32,
    /// How many they are.
    pub len: u32,
}

/// What the TUN device was set to take (`TUNSETOFFLOAD`). TCP segmentation is always on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// UDP segmentation, `TUN_F_USO4` and `TUN_F_USO6`.
    pub uso: bool,
}

/// What one write to the TUN queue carries: the header, then the pieces.
#[derive(Clone, Copy, Debug)]
pub struct SuperFrame<'a> {
    header: &'a [u8],
    pieces: &'a [Piece],
}

impl<'a> SuperFrame<'a> {
    /// The bytes that go first: the vnet header and, unless the first piece is a whole packet, the packet's headers.
    #[must_use]
    pub const fn header(&self) -> &'a [u8] {
        self.header
    }

    /// What follows the header, in this order. There is one piece per packet.
    #[must_use]
    pub const fn pieces(&self) -> &'a [Piece] {
        self.pieces
    }

    /// How many packets the frame stands for.
    #[must_use]
    pub const fn packets(&self) -> usize {
        self.pieces.len()
    }
}

/// Builds super-frames. It keeps its memory, that of the largest batch so far, from batch to batch.
#[derive(Debug)]
pub struct Coalescer {
    offloads: Offloads,
    /// The frames of this batch are the first `used`; those behind wait with their memory for another batch.
    frames: Vec<Frame>,
    used: usize,
    open: OpenFrames,
}

impl Coalescer {
    /// A coalescer for a device with these offloads.
    #[must_use]
    pub fn new(offloads: Offloads) -> Self {
        Self { offloads, frames: Vec::new(), used: 0, open: OpenFrames::default() }
    }

    /// Takes the next packet. `parsed` is what [`crate::parse::parse`] says of `packet`, and `at` is where its first
    /// byte lies in the caller's buffers. Bytes after the packet's total length are cut off.
    #[inline]
    pub fn push(&mut self, packet: &[u8], parsed: &Parsed, at: Piece) {
        let at = Piece { len: at.len.min(u32::from(parsed.total_bytes)), ..at };
        let packet = packet.get(..usize::from(parsed.total_bytes)).unwrap_or(packet);
        let (Transport::Tcp { .. } | Transport::Udp { .. }, Some(key)) = (parsed.transport, parsed.flow_key()) else {
            return self.push_alone(at);
        };
        let tag = tag(&key);
        let slot = self.open.find(tag, |frame| self.frames.get(frame).is_some_and(|frame| frame.key == Some(key)));
        let candidate = Segment::of(packet, parsed, self.offloads)
            // A frame that would be closed at once needs no proof of its checksum.
            .filter(|segment| (slot.is_some() || !segment.push) && segment.has_valid_checksums());
        match (candidate, slot) {
            (Some(segment), Some(slot)) => {
                let frame = self.open.frames.get(slot).and_then(|&frame| self.frames.get_mut(frame as usize));
                match frame.filter(|frame| frame.accepts(&segment)) {
                    Some(frame) => {
                        frame.append(&segment, at);
                        if frame.is_full_after(&segment) {
                            self.close(slot);
                        }
                    }
                    None => {
                        self.close(slot);
                        self.push_segment(key, tag, &segment, at);
                    }
                }
            }
            (Some(segment), None) => self.push_segment(key, tag, &segment, at),
            (None, Some(slot)) => {
                self.close(slot);
                self.push_alone(at);
            }
            (None, None) => self.push_alone(at),
        }
    }

    /// Finishes the frames of the packets pushed since the last [`Coalescer::clear`] and lends them, in the order in
    /// which their first packets came.
    pub fn frames(&mut self) -> impl ExactSizeIterator<Item = SuperFrame<'_>> {
        for slot in 0..OPEN_FRAMES_MAX {
            self.close(slot);
        }
        self.frames.get(..self.used).unwrap_or_default().iter().map(Frame::lend)
    }

    /// Forgets all frames and keeps their memory.
    pub fn clear(&mut self) {
        self.used = 0;
        self.open = OpenFrames::default();
    }

    /// A frame of one packet that takes no other.
    fn push_alone(&mut self, at: Piece) {
        self.next_frame().1.start_alone(at);
    }

    /// A frame that begins with `segment`, and takes others unless the segment pushes.
    fn push_segment(&mut self, key: FlowKey, tag: u32, segment: &Segment<'_>, at: Piece) {
        if segment.push {
            return self.push_alone(at);
        }
        let (index, frame) = self.next_frame();
        frame.start(key, segment, at);
        if let Some(evicted) = self.open.insert(tag, index as u32)
            && let Some(frame) = self.frames.get_mut(evicted as usize)
        {
            frame.finish();
        }
    }

    fn next_frame(&mut self) -> (usize, &mut Frame) {
        let index = self.used;
        if index == self.frames.len() {
            self.frames.push(Frame::new());
        }
        self.used += 1;
        (index, &mut self.frames[index])
    }

    fn close(&mut self, slot: usize) {
        if let Some(index) = self.open.remove(slot)
            && let Some(frame) = self.frames.get_mut(index as usize)
        {
            frame.finish();
        }
    }
}

/// The frames that still take packets, found by a short tag of their flow.
#[derive(Debug, Default)]
struct OpenFrames {
    /// The tag of the flow, or 0 where the slot is free.
    tags: [u32; OPEN_FRAMES_MAX],
    /// The frame's index.
    frames: [u32; OPEN_FRAMES_MAX],
    /// The slot found last: packets come in runs of one flow.
    recent: usize,
    /// The slot that gives way next.
    victim: usize,
}

impl OpenFrames {
    #[inline]
    fn find(&mut self, tag: u32, is_it: impl Fn(usize) -> bool) -> Option<usize> {
        let matches = |slot: usize| {
            self.tags.get(slot) == Some(&tag) && self.frames.get(slot).is_some_and(|&frame| is_it(frame as usize))
        };
        if matches(self.recent) {
            return Some(self.recent);
        }
        let found = (0..OPEN_FRAMES_MAX).find(|&slot| matches(slot))?;
        self.recent = found;
        Some(found)
    }

    /// Puts a frame into a free slot, or into one in use, whose frame is returned.
    fn insert(&mut self, tag: u32, frame: u32) -> Option<u32> {
        let free = self.tags.iter().position(|&tag| tag == 0);
        let slot = free.unwrap_or(self.victim);
        let evicted = self.remove(slot);
        if evicted.is_some() {
            self.victim = (slot + 1) % OPEN_FRAMES_MAX;
        }
        if let (Some(tag_of), Some(frame_of)) = (self.tags.get_mut(slot), self.frames.get_mut(slot)) {
            (*tag_of, *frame_of) = (tag, frame);
        }
        self.recent = slot;
        evicted
    }

    fn remove(&mut self, slot: usize) -> Option<u32> {
        let tag = self.tags.get_mut(slot).filter(|tag| **tag != 0)?;
        *tag = 0;
        self.frames.get(slot).copied()
    }
}

/// A tag of a flow, never 0. It only saves comparisons: who makes tags collide gains 16 comparisons of keys.
#[inline]
fn tag(key: &FlowKey) -> u32 {
    key.mixed() | 1
}

/// A packet that may merge, taken apart.
struct Segment<'a> {
    packet: &'a [u8],
    network_bytes: usize,
    headers: &'a [u8],
    kind: SegmentationKind,
    payload_bytes: u16,
    /// TCP only; 0 for UDP.
    sequence: u32,
    /// TCP only.
    push: bool,
}

impl<'a> Segment<'a> {
    /// `None` when nothing may merge with the packet, whatever came before or comes after.
    #[inline]
    fn of(packet: &'a [u8], parsed: &Parsed, offloads: Offloads) -> Option<Self> {
        let network_bytes = usize::from(parsed.network_header_bytes);
        let ipv4 = parsed.source.is_ipv4();
        if ipv4 {
            let header = packet.first_chunk::<{ ipv4::HEADER_BYTES }>()?;
            if network_bytes != ipv4::HEADER_BYTES || u16_at(header, ipv4::FRAGMENT) != ipv4::DONT_FRAGMENT {
                return None;
            }
        } else if network_bytes != ipv6::HEADER_BYTES {
            return None;
        }
        let transport = packet.get(network_bytes..)?;
        let (kind, transport_bytes, sequence, push) = match parsed.transport {
            Transport::Tcp { flags, .. } => {
                if flags & !tcp_flags::PSH != tcp_flags::ACK {
                    return None;
                }
                let header = transport.first_chunk::<{ tcp::HEADER_BYTES }>()?;
                let kind = if ipv4 { SegmentationKind::TcpV4 } else { SegmentationKind::TcpV6 };
                let transport_bytes = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
                (kind, transport_bytes, u32_at(header, tcp::SEQUENCE), flags & tcp_flags::PSH != 0)
            }
            Transport::Udp { .. } if offloads.uso => {
                let header = transport.first_chunk::<{ udp::HEADER_BYTES }>()?;
                if u16_at(header, udp::CHECKSUM) == 0 || usize::from(u16_at(header, udp::LENGTH)) != transport.len() {
                    return None;
                }
                (SegmentationKind::Udp, udp::HEADER_BYTES, 0, false)
            }
            _ => return None,
        };
        let headers = packet.get(..network_bytes + transport_bytes)?;
        let payload_bytes = (packet.len() - headers.len()) as u16;
        (payload_bytes > 0).then_some(Self { packet, network_bytes, headers, kind, payload_bytes, sequence, push })
    }

    #[inline]
    fn has_valid_checksums(&self) -> bool {
        let Some((network, transport)) = self.packet.split_at_checked(self.network_bytes) else { return false };
        let header_is_valid = network.len() != ipv4::HEADER_BYTES || Sum::of(network) == Sum::VALID;
        header_is_valid && Sum::of(transport).combine(pseudo_header(network, self.kind, transport.len())) == Sum::VALID
    }

    /// Where the payload lies, if the packet lies at `at`.
    fn payload_at(&self, at: Piece) -> Piece {
        Piece { start: at.start.saturating_add(self.headers.len() as u32), len: u32::from(self.payload_bytes), ..at }
    }
}

/// The sum over the pseudo-header that belongs to `network`, an IPv4 header without options or an IPv6 header.
#[inline]
fn pseudo_header(network: &[u8], kind: SegmentationKind, transport_bytes: usize) -> Sum {
    let source = if network.len() == ipv4::HEADER_BYTES { ipv4::SOURCE } else { ipv6::SOURCE };
    let protocol = match kind {
        SegmentationKind::TcpV4 | SegmentationKind::TcpV6 => protocol::TCP,
        SegmentationKind::Udp => protocol::UDP,
    };
    Sum::pseudo_header(network.get(source..).unwrap_or_default(), protocol, transport_bytes as u16)
}

/// A frame under construction.
#[derive(Debug)]
struct Frame {
    /// The vnet header, then the headers of the first packet, which [`Frame::finish`] turns into those of the whole.
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    pieces: Vec<Piece>,
    /// The flow; `None` for a frame that takes nothing more from its beginning.
    key: Option<FlowKey>,
    kind: SegmentationKind,
    network_bytes: usize,
    /// Payload bytes of the first packet.
    segment_bytes: u16,
    /// Bytes of the packet so far, all headers counted once.
    packet_bytes: usize,
    next_sequence: u32,
}

impl Frame {
    fn new() -> Self {
        Self {
            header: [0; HEADER_BYTES_MAX],
            header_bytes: vnet::HEADER_BYTES,
            pieces: Vec::new(),
            key: None,
            kind: SegmentationKind::TcpV4,
            network_bytes: 0,
            segment_bytes: 0,
            packet_bytes: 0,
            next_sequence: 0,
        }
    }

    fn start_alone(&mut self, at: Piece) {
        self.set_vnet(VnetHeader::PLAIN);
        self.header_bytes = vnet::HEADER_BYTES;
        self.key = None;
        self.pieces.clear();
        self.pieces.push(at);
    }

    /// Begins with a packet that may be followed by others. The headers are copied, because only this frame has
    /// them when the next packet is compared; as long as none follows, they and the piece are the packet unchanged.
    fn start(&mut self, key: FlowKey, segment: &Segment<'_>, at: Piece) {
        self.set_vnet(VnetHeader::PLAIN);
        self.header_bytes = vnet::HEADER_BYTES + segment.headers.len();
        if let Some(headers) = self.header.get_mut(vnet::HEADER_BYTES..self.header_bytes) {
            headers.copy_from_slice(segment.headers);
        }
        self.key = Some(key);
        self.kind = segment.kind;
        self.network_bytes = segment.network_bytes;
        self.segment_bytes = segment.payload_bytes;
        self.packet_bytes = segment.packet.len();
        self.next_sequence = segment.sequence.wrapping_add(u32::from(segment.payload_bytes));
        self.pieces.clear();
        self.pieces.push(segment.payload_at(at));
    }

    /// Whether the segment, of this frame's flow, may follow.
    #[inline]
    fn accepts(&self, segment: &Segment<'_>) -> bool {
        let follows = match self.kind {
            SegmentationKind::TcpV4 | SegmentationKind::TcpV6 => segment.sequence == self.next_sequence,
            SegmentationKind::Udp => true,
        };
        follows
            && segment.payload_bytes <= self.segment_bytes
            && self.packet_bytes + usize::from(segment.payload_bytes) <= usize::from(u16::MAX)
            && self.has_same_fields(segment.headers)
    }

    /// Compares the header fields that are neither part of the flow key nor different in every packet.
    #[inline]
    fn has_same_fields(&self, headers: &[u8]) -> bool {
        let Some(own) = self.header.get(vnet::HEADER_BYTES..self.header_bytes) else { return false };
        let (Some((own_network, own)), Some((network, other))) =
            (own.split_at_checked(self.network_bytes), headers.split_at_checked(self.network_bytes))
        else {
            return false;
        };
        let network_agrees = if self.network_bytes == ipv4::HEADER_BYTES {
            own_network.get(ipv4::TOS) == network.get(ipv4::TOS) && own_network.get(ipv4::TTL) == network.get(ipv4::TTL)
        } else {
            // Version, traffic class and flow label.
            own_network.first_chunk::<4>() == network.first_chunk::<4>()
                && own_network.get(ipv6::HOP_LIMIT) == network.get(ipv6::HOP_LIMIT)
        };
        let transport_agrees = match self.kind {
            SegmentationKind::Udp => true,
            SegmentationKind::TcpV4 | SegmentationKind::TcpV6 => {
                own.get(tcp::ACKNOWLEDGEMENT..tcp::FLAGS) == other.get(tcp::ACKNOWLEDGEMENT..tcp::FLAGS)
                    && own.get(tcp::WINDOW..tcp::CHECKSUM) == other.get(tcp::WINDOW..tcp::CHECKSUM)
                    && own.get(tcp::URGENT..) == other.get(tcp::URGENT..)
            }
        };
        network_agrees && transport_agrees
    }

    #[inline]
    fn append(&mut self, segment: &Segment<'_>, at: Piece) {
        self.pieces.push(segment.payload_at(at));
        self.packet_bytes += usize::from(segment.payload_bytes);
        self.next_sequence = self.next_sequence.wrapping_add(u32::from(segment.payload_bytes));
        if segment.push
            && let Some(flags) = self.header.get_mut(vnet::HEADER_BYTES + self.network_bytes + tcp::FLAGS)
        {
            *flags |= tcp_flags::PSH;
        }
    }

    /// Whether nothing may follow `segment`, the last appended.
    #[inline]
    fn is_full_after(&self, segment: &Segment<'_>) -> bool {
        let segments_max = match self.kind {
            SegmentationKind::TcpV4 | SegmentationKind::TcpV6 => TCP_SEGMENTS_MAX,
            SegmentationKind::Udp => UDP_SEGMENTS_MAX,
        };
        segment.push || segment.payload_bytes < self.segment_bytes || self.pieces.len() >= segments_max
    }

    /// Makes the headers those of the whole frame. A frame of one packet has them already.
    fn finish(&mut self) {
        let (Some(segment_bytes), 2..) = (NonZeroU16::new(self.segment_bytes), self.pieces.len()) else { return };
        let checksum_offset = match self.kind {
            SegmentationKind::TcpV4 | SegmentationKind::TcpV6 => tcp::CHECKSUM,
            SegmentationKind::Udp => udp::CHECKSUM,
        };
        self.set_vnet(VnetHeader {
            checksum: Checksum::Partial { start: self.network_bytes as u16, offset: checksum_offset as u16 },
            segmentation: Some(Segmentation { kind: self.kind, segment_bytes, ecn: false }),
            headers_bytes: (self.header_bytes - vnet::HEADER_BYTES) as u16,
        });
        let total_bytes = self.packet_bytes as u16;
        let transport_bytes = self.packet_bytes - self.network_bytes;
        let headers = self.header.get_mut(vnet::HEADER_BYTES..).unwrap_or_default();
        let Some((network, transport)) = headers.split_at_mut_checked(self.network_bytes) else { return };
        if network.len() == ipv4::HEADER_BYTES {
            put_u16(network, ipv4::TOTAL_LENGTH, total_bytes);
            set_ipv4_checksum(network);
        } else {
            put_u16(network, ipv6::PAYLOAD_LENGTH, transport_bytes as u16);
        }
        if self.kind == SegmentationKind::Udp {
            put_u16(transport, udp::LENGTH, transport_bytes as u16);
        }
        put_u16(transport, checksum_offset, pseudo_header(network, self.kind, transport_bytes).partial());
    }

    fn set_vnet(&mut self, header: VnetHeader) {
        if let Some(bytes) = self.header.first_chunk_mut() {
            *bytes = header.to_bytes();
        }
    }

    fn lend(&self) -> SuperFrame<'_> {
        SuperFrame { header: self.header.get(..self.header_bytes).unwrap_or_default(), pieces: &self.pieces }
    }
}

#[cfg(test)]
mod tests {
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
        coalescer.frames().map(|frame| frame.packets()).collect()
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
            let frames: Vec<_> = coalescer.frames().collect();
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
            let frames: Vec<_> = coalescer.frames().collect();
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
        for packet in [segment(false, 0), segment(true, 0), datagram(true, 9), segment_of(false, 0, tcp_flags::SYN, 0)]
        {
            let mut coalescer = Coalescer::new(Offloads { uso: true });
            let longer = [&packet[..], b"trailer"].concat();
            push_all(&mut coalescer, &[longer]);
            let frames: Vec<_> = coalescer.frames().collect();
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
        let flags: Vec<_> = coalescer.frames().map(|frame| frame.header()[10 + 40 + 13]).collect();
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
            for flag in [tcp_flags::FIN, tcp_flags::SYN, tcp_flags::RST, tcp_flags::URG, tcp_flags::ECE, tcp_flags::CWR]
            {
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
        assert_eq!(coalescer.frames().count(), 2);
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
        assert_eq!(coalescer.frames().count(), 1);
        coalescer.clear();
        assert_eq!(coalescer.frames().count(), 0);
        push_all(&mut coalescer, &[segment(false, 2)]);
        coalescer.clear();
        push_all(&mut coalescer, &[segment(false, 3)]);
        let frames: Vec<_> = coalescer.frames().collect();
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
        assert_eq!(coalescer.frames().map(|frame| frame.packets()).sum::<usize>(), 12);
    }
}
