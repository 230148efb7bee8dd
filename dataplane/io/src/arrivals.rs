//! What a turn receives into: fixed slots, allocated once, used again from the first one after each
//! [`Arrivals::clear`], so that a lightly loaded worker keeps few buffers hot in its cache.
//!
//! A worker that writes slices of what it received (departures borrow from the arrivals) takes two `Arrivals` in
//! turn: one is being written from while the other one is received into.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;

use crate::SLOT_BYTES;
use crate::sys;

/// One receive from the UDP socket: the datagrams of one GRO batch.
#[derive(Debug)]
pub struct Datagrams<'a> {
    /// The datagrams one after the other; empty for one empty datagram.
    pub bytes: &'a mut [u8],
    /// Bytes of each datagram, at least 1; the last one may be shorter.
    pub segment_bytes: usize,
    /// Who sent them; a mapped IPv4 address is given as plain IPv4.
    pub from: SocketAddr,
}

/// The slots of one worker: outside (from the UDP socket) and inside (from the TUN queue).
///
/// Slots are numbered from 0 in the order of arrival, separately for outside and inside.
#[derive(Debug)]
pub struct Arrivals {
    outside: Slots,
    /// Per filled outside slot.
    sources: Box<[Source]>,
    inside: Slots,
}

#[derive(Clone, Copy, Debug)]
struct Source {
    segment_bytes: usize,
    from: SocketAddr,
}

impl Arrivals {
    /// Allocates the slots, each of [`SLOT_BYTES`]. The counts are lowered to at most 65,535 (slots are numbered by
    /// `u16`). Where there is no inside slot, nothing is read from the queue.
    #[must_use]
    pub fn new(outside_slots: usize, inside_slots: usize) -> Self {
        Self::with_slot_bytes(outside_slots, inside_slots, SLOT_BYTES)
    }

    pub(crate) fn with_slot_bytes(outside_slots: usize, inside_slots: usize, slot_bytes: usize) -> Self {
        let nobody = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        let outside = Slots::new(outside_slots, slot_bytes);
        let source = Source { segment_bytes: 1, from: nobody };
        Self {
            sources: vec![source; outside.filled.len()].into(),
            outside,
            inside: Slots::new(inside_slots, slot_bytes),
        }
    }

    /// Filled outside slots.
    #[must_use]
    pub fn outside_len(&self) -> usize {
        self.outside.used
    }

    /// The filled outside slots in order.
    pub fn outside(&mut self) -> impl Iterator<Item = (u16, Datagrams<'_>)> {
        let sources = self.sources.iter();
        self.outside.iter_mut().zip(sources).map(|((slot, bytes), source)| {
            (slot, Datagrams { bytes, segment_bytes: source.segment_bytes, from: source.from })
        })
    }

    /// One outside slot; `None` if it is not filled.
    pub fn outside_slot(&mut self, slot: u16) -> Option<Datagrams<'_>> {
        let source = *self.sources.get(usize::from(slot))?;
        let bytes = self.outside.get_mut(usize::from(slot))?;
        Some(Datagrams { bytes, segment_bytes: source.segment_bytes, from: source.from })
    }

    /// The bytes of one outside slot; empty if it is not filled.
    #[must_use]
    pub fn outside_bytes(&self, slot: u16) -> &[u8] {
        self.outside.get(usize::from(slot)).unwrap_or_default()
    }

    /// Filled inside slots.
    #[must_use]
    pub fn inside_len(&self) -> usize {
        self.inside.used
    }

    /// The filled inside slots in order: frames, each a vnet header and a packet.
    pub fn inside(&mut self) -> impl Iterator<Item = (u16, &mut [u8])> {
        self.inside.iter_mut()
    }

    /// One frame; `None` if the slot is not filled.
    pub fn inside_slot(&mut self, slot: u16) -> Option<&mut [u8]> {
        self.inside.get_mut(usize::from(slot))
    }

    /// The bytes of one frame; empty if the slot is not filled.
    #[must_use]
    pub fn inside_bytes(&self, slot: u16) -> &[u8] {
        self.inside.get(usize::from(slot)).unwrap_or_default()
    }

    /// Nothing has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outside.used == 0 && self.inside.used == 0
    }

    /// Copies datagrams handed over by another worker into the next outside slot. `false`, and nothing is taken,
    /// when all slots are filled or `bytes` does not fit one. A `segment_bytes` of 0 means one datagram.
    #[must_use]
    pub fn push_outside(&mut self, bytes: &[u8], segment_bytes: usize, from: SocketAddr) -> bool {
        let Some(slot) = self.outside.push(bytes) else { return false };
        let segment_bytes = if segment_bytes == 0 { bytes.len() } else { segment_bytes };
        self.set_source(slot, segment_bytes, from);
        true
    }

    /// Copies a frame handed over by another worker into the next inside slot. `false`, and nothing is taken, when
    /// all slots are filled or the frame does not fit one.
    #[must_use]
    pub fn push_inside(&mut self, frame: &[u8]) -> bool {
        self.inside.push(frame).is_some()
    }

    /// Empties all slots.
    pub fn clear(&mut self) {
        self.outside.clear();
        self.inside.clear();
    }

    pub(crate) fn outside_slots(&mut self) -> &mut Slots {
        &mut self.outside
    }

    pub(crate) fn inside_slots(&mut self) -> &mut Slots {
        &mut self.inside
    }

    /// Takes `length` bytes that the kernel left in an outside buffer.
    pub(crate) fn accept_outside(&mut self, buffer: usize, length: usize, segment_bytes: usize, from: SocketAddr) {
        if let Some(slot) = self.outside.accept(buffer, length) {
            self.set_source(slot, segment_bytes, from);
        }
    }

    fn set_source(&mut self, slot: usize, segment_bytes: usize, from: SocketAddr) {
        if let Some(source) = self.sources.get_mut(slot) {
            *source = Source { segment_bytes: segment_bytes.max(1), from };
        }
    }
}

/// Buffers of equal size in one allocation, filled from the first one on.
///
/// Several receives run into consecutive buffers at once and one in their midst may come back empty; its buffer
/// is then skipped until `clear`. So `buffers`, which maps slots to buffers, always rises.
#[derive(Debug)]
pub(crate) struct Slots {
    bytes: Box<[u8]>,
    slot_bytes: usize,
    /// Per slot: which buffer, and how many bytes of it are filled.
    filled: Box<[(u16, usize)]>,
    used: usize,
    /// The first buffer after the last filled one.
    next_buffer: usize,
}

impl Slots {
    fn new(count: usize, slot_bytes: usize) -> Self {
        let count = count.min(usize::from(u16::MAX));
        let mut bytes = vec![0; count * slot_bytes].into_boxed_slice();
        sys::advise_huge_pages(&mut bytes);
        Self { bytes, slot_bytes, filled: vec![(0, 0); count].into(), used: 0, next_buffer: 0 }
    }

    /// The first buffer to receive into.
    pub(crate) fn next_buffer(&self) -> usize {
        self.next_buffer
    }

    /// Buffers to receive into, from [`Slots::next_buffer`] on.
    pub(crate) fn free(&self) -> usize {
        self.filled.len() - self.next_buffer
    }

    pub(crate) fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Where buffer 0 begins; the others follow every [`Slots::slot_bytes`]. All are derived from this one
    /// pointer, so that no borrow of one invalidates another's.
    pub(crate) fn base(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    /// Makes the first `length` bytes of a free buffer the next slot. `None` if the buffer is not free or `length`
    /// exceeds it.
    pub(crate) fn accept(&mut self, buffer: usize, length: usize) -> Option<usize> {
        if buffer < self.next_buffer || buffer >= self.filled.len() || length > self.slot_bytes {
            return None;
        }
        let slot = self.used;
        *self.filled.get_mut(slot)? = (u16::try_from(buffer).ok()?, length);
        self.used += 1;
        self.next_buffer = buffer + 1;
        Some(slot)
    }

    fn push(&mut self, bytes: &[u8]) -> Option<usize> {
        let slot = self.accept(self.next_buffer, bytes.len())?;
        self.get_mut(slot)?.copy_from_slice(bytes);
        Some(slot)
    }

    fn clear(&mut self) {
        self.used = 0;
        self.next_buffer = 0;
    }

    fn range(&self, slot: usize) -> Option<Range<usize>> {
        let &(buffer, length) = self.filled[..self.used].get(slot)?;
        let start = usize::from(buffer) * self.slot_bytes;
        Some(start..start + length)
    }

    fn get(&self, slot: usize) -> Option<&[u8]> {
        self.bytes.get(self.range(slot)?)
    }

    fn get_mut(&mut self, slot: usize) -> Option<&mut [u8]> {
        let range = self.range(slot)?;
        self.bytes.get_mut(range)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = (u16, &mut [u8])> {
        let mut buffers = self.bytes.chunks_exact_mut(self.slot_bytes);
        let mut passed = 0;
        (0..).zip(&self.filled[..self.used]).filter_map(move |(slot, &(buffer, length))| {
            let bytes = buffers.nth(usize::from(buffer) - passed)?;
            passed = usize::from(buffer) + 1;
            Some((slot, bytes.get_mut(..length)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn somebody() -> SocketAddr {
        "192.0.2.7:4433".parse().unwrap()
    }

    #[test]
    fn what_was_handed_over_is_found_in_order() {
        let mut arrivals = Arrivals::new(2, 2);
        assert!(arrivals.is_empty());
        assert!(arrivals.push_outside(b"abc", 2, somebody()));
        assert!(arrivals.push_outside(b"", 0, somebody()));
        assert!(!arrivals.push_outside(b"x", 1, somebody()), "two slots only");
        assert!(arrivals.push_inside(b"frame"));
        assert_eq!((arrivals.outside_len(), arrivals.inside_len()), (2, 1));
        let seen: Vec<_> = arrivals.outside().map(|(slot, d)| (slot, d.bytes.to_vec(), d.segment_bytes)).collect();
        assert_eq!(seen, [(0, b"abc".to_vec(), 2), (1, vec![], 1)]);
        arrivals.outside_slot(0).unwrap().bytes[0] = b'z';
        assert_eq!(arrivals.outside_bytes(0), b"zbc");
        assert_eq!(arrivals.inside_bytes(0), b"frame");
        assert_eq!(arrivals.inside().next().unwrap().1, b"frame");

        arrivals.clear();
        assert!(arrivals.is_empty());
        assert!(arrivals.outside_slot(0).is_none());
        assert!(arrivals.inside_slot(0).is_none());
        assert_eq!(arrivals.outside_bytes(0), b"");
        assert!(arrivals.push_outside(b"x", 1, somebody()));
    }

    #[test]
    fn what_does_not_fit_a_slot_is_refused() {
        let mut arrivals = Arrivals::new(1, 1);
        assert!(!arrivals.push_inside(&vec![0; SLOT_BYTES + 1]));
        assert!(arrivals.push_inside(&vec![7; SLOT_BYTES]));
        assert_eq!(arrivals.inside_bytes(0).len(), SLOT_BYTES);
    }

    #[test]
    fn an_empty_buffer_in_the_midst_is_skipped_and_used_again_after_clear() {
        let mut slots = Slots::new(4, 8);
        slots.bytes.copy_from_slice(b"aaaaaaaabbbbbbbbccccccccdddddddd");
        assert_eq!(slots.accept(0, 2), Some(0));
        assert_eq!(slots.accept(2, 3), Some(1));
        assert_eq!(slots.accept(1, 3), None, "passed");
        assert_eq!(slots.accept(3, 9), None, "longer than a slot");
        assert_eq!(slots.free(), 1);
        assert_eq!(slots.get(1), Some(&b"ccc"[..]));
        let seen: Vec<_> = slots.iter_mut().map(|(slot, bytes)| (slot, bytes.to_vec())).collect();
        assert_eq!(seen, [(0, b"aa".to_vec()), (1, b"ccc".to_vec())]);
        slots.clear();
        assert_eq!((slots.free(), slots.get(0)), (4, None));
    }
}
