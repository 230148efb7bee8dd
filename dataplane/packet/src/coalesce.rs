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

#[cfg(test)]
mod tests;

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

    /// Finishes the frames of the packets pushed since the last [`Coalescer::clear`]. To be called before they are lent.
    pub fn finish(&mut self) {
        for slot in 0..OPEN_FRAMES_MAX {
            self.close(slot);
        }
    }

    /// The finished frames in the order in which their first packets came.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = SuperFrame<'_>> {
        self.frames.get(..self.used).unwrap_or_default().iter().map(Frame::lend)
    }

    /// Number of frames.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.used
    }

    /// Whether there are no frames.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The finished frame at `index`, which is below [`Coalescer::len`].
    #[must_use]
    pub fn frame(&self, index: usize) -> Option<SuperFrame<'_>> {
        self.frames.get(..self.used)?.get(index).map(Frame::lend)
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
