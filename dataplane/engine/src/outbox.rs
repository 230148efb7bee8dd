//! Sealed datagrams on their way to the socket, gathered so that one system call sends many.

use std::net::SocketAddr;

/// Datagrams in one send. The kernel takes 64 at least (`UDP_MAX_SEGMENTS` was 64 before Linux 6.9, 128 since).
const SEGMENTS_MAX: usize = 64;
/// Bytes in one send: what one IPv4 UDP datagram may hold, which is the kernel's limit for a batch too.
const BATCH_BYTES: usize = 65_507;
/// Batches in one turn. A full TUN frame grows by its records' overhead past one batch and takes two; a worker takes in at
/// most 64 frames in a turn, and the rest is for answers. Beyond it packets are dropped and counted.
const BATCHES_MAX: usize = 160;
/// How far back a batch for the same peer is looked for: packets for one peer come in runs.
const SEARCH: usize = 8;

/// The batches of one turn. Their memory is kept from turn to turn.
#[derive(Debug, Default)]
pub struct Outbox {
    batches: Vec<Batch>,
    used: usize,
}

#[derive(Debug)]
struct Batch {
    bytes: Box<[u8]>,
    filled: usize,
    segment_bytes: usize,
    segments: usize,
    to: Option<SocketAddr>,
    /// Takes no more: its last datagram is shorter than the others.
    closed: bool,
}

/// One send: datagrams of `segment_bytes` each, the last maybe shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// The datagrams one behind the other.
    pub bytes: &'a [u8],
    /// Length of each datagram but the last.
    pub segment_bytes: usize,
    /// Where to; `None` on a connected socket.
    pub to: Option<SocketAddr>,
}

impl Outbox {
    /// Number of sends.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.used
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Whether there is no room for another send.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.used == BATCHES_MAX
    }

    /// The send at `index`, which is below [`Outbox::len`].
    #[must_use]
    pub fn transmit(&self, index: usize) -> Option<Transmit<'_>> {
        let batch = self.batches[..self.used].get(index)?;
        let bytes = &batch.bytes[..batch.filled];
        Some(Transmit { bytes, segment_bytes: batch.segment_bytes, to: batch.to })
    }

    /// Forgets all sends and keeps their memory.
    pub const fn clear(&mut self) {
        self.used = 0;
    }

    /// Adds one datagram of at most `length_max` bytes for `to`: `write` puts it at the start of the space it is given and
    /// says how long it became, or `None` if there is nothing to send after all. Says whether a datagram was added; it is
    /// not when the turn's batches are full, or when it might become longer than any datagram can be.
    pub fn append(
        &mut self,
        to: Option<SocketAddr>,
        length_max: usize,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        if length_max > BATCH_BYTES {
            return false;
        }
        let Some(index) = self.batch_for(to, length_max) else { return false };
        let batch = &mut self.batches[index];
        let start = batch.filled;
        let Some(length) = write(&mut batch.bytes[start..start + length_max]) else {
            if start == 0 && index + 1 == self.used {
                self.used -= 1;
            }
            return false;
        };
        debug_assert!(length <= length_max, "a datagram of {length} bytes in space for {length_max}");
        if start == 0 {
            batch.segment_bytes = length;
        }
        if length <= batch.segment_bytes {
            batch.filled += length;
            batch.segments += 1;
            batch.closed = length < batch.segment_bytes;
            return true;
        }
        // Longer than the others: it begins a send of its own.
        batch.closed = true;
        let Some(next) = self.open(to) else { return false };
        let (before, after) = self.batches.split_at_mut(next);
        let (from, into) = (&before[index], &mut after[0]);
        into.bytes[..length].copy_from_slice(&from.bytes[start..start + length]);
        (into.filled, into.segments, into.segment_bytes) = (length, 1, length);
        true
    }

    /// Adds a datagram that is ready, under the same conditions.
    pub fn push(&mut self, to: Option<SocketAddr>, datagram: &[u8]) -> bool {
        self.append(to, datagram.len(), |space| {
            space.get_mut(..datagram.len())?.copy_from_slice(datagram);
            Some(datagram.len())
        })
    }

    fn batch_for(&mut self, to: Option<SocketAddr>, length_max: usize) -> Option<usize> {
        let recent = self.batches[..self.used].iter().enumerate().rev().take(SEARCH);
        let found =
            recent.filter(|(_, batch)| batch.to == to).map(|(index, batch)| (index, batch.fits(length_max))).next();
        match found {
            Some((index, true)) => Some(index),
            _ => self.open(to),
        }
    }

    fn open(&mut self, to: Option<SocketAddr>) -> Option<usize> {
        let index = self.used;
        if index == BATCHES_MAX {
            return None;
        }
        if index == self.batches.len() {
            self.batches.push(Batch::new());
        }
        let batch = &mut self.batches[index];
        (batch.filled, batch.segments, batch.segment_bytes) = (0, 0, 0);
        (batch.to, batch.closed) = (to, false);
        self.used += 1;
        Some(index)
    }
}

impl Batch {
    fn new() -> Self {
        let bytes = vec![0; BATCH_BYTES].into_boxed_slice();
        Self { bytes, filled: 0, segment_bytes: 0, segments: 0, to: None, closed: false }
    }

    const fn fits(&self, length: usize) -> bool {
        !self.closed && self.segments < SEGMENTS_MAX && self.filled + length <= self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> Option<SocketAddr> {
        Some(SocketAddr::from(([192, 0, 2, 1], port)))
    }

    fn add(outbox: &mut Outbox, to: Option<SocketAddr>, datagram: &[u8]) -> bool {
        outbox.append(to, datagram.len() + 10, |space| {
            space[..datagram.len()].copy_from_slice(datagram);
            Some(datagram.len())
        })
    }

    fn datagrams(outbox: &Outbox) -> Vec<(Option<SocketAddr>, Vec<u8>)> {
        (0..outbox.len())
            .filter_map(|index| outbox.transmit(index))
            .flat_map(|send| send.bytes.chunks(send.segment_bytes).map(move |chunk| (send.to, chunk.to_vec())))
            .collect()
    }

    #[test]
    fn equal_datagrams_share_a_send_and_a_shorter_one_closes_it() {
        let mut outbox = Outbox::default();
        for datagram in [&[1u8; 100][..], &[2; 100], &[3; 60], &[4; 100]] {
            assert!(add(&mut outbox, peer(1), datagram));
        }
        assert_eq!(outbox.len(), 2);
        assert_eq!(outbox.transmit(0).map(|t| (t.bytes.len(), t.segment_bytes)), Some((260, 100)));
        assert_eq!(datagrams(&outbox).len(), 4);
    }

    #[test]
    fn a_longer_datagram_begins_its_own_send_in_order() {
        let mut outbox = Outbox::default();
        for datagram in [&[1u8; 60][..], &[2; 100], &[3; 100]] {
            assert!(add(&mut outbox, peer(1), datagram));
        }
        let all: Vec<_> = datagrams(&outbox).into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(all, [vec![1; 60], vec![2; 100], vec![3; 100]]);
    }

    #[test]
    fn peers_do_not_mix_and_order_holds_for_each() {
        let mut outbox = Outbox::default();
        let mut sent = Vec::new();
        for round in 0..40u8 {
            for port in 1..=5u16 {
                let datagram = vec![round; 50 + usize::from(round * port as u8) % 30];
                assert!(add(&mut outbox, peer(port), &datagram));
                sent.push((peer(port), datagram));
            }
            if outbox.len() > BATCHES_MAX - 6 {
                break;
            }
        }
        let got = datagrams(&outbox);
        for port in 1..=5 {
            let only = |all: &[(Option<SocketAddr>, Vec<u8>)]| -> Vec<Vec<u8>> {
                all.iter().filter(|(to, _)| *to == peer(port)).map(|(_, bytes)| bytes.clone()).collect()
            };
            assert_eq!(only(&got), only(&sent), "peer {port}");
        }
    }

    #[test]
    fn limits_hold() {
        let mut outbox = Outbox::default();
        for _ in 0..SEGMENTS_MAX + 1 {
            assert!(add(&mut outbox, peer(1), &[7; 20]));
        }
        assert_eq!(outbox.len(), 2);
        outbox.clear();
        assert!(outbox.is_empty());
        for port in 0..BATCHES_MAX as u16 {
            assert!(add(&mut outbox, peer(port), &[7; 20]));
        }
        assert!(!add(&mut outbox, peer(9_999), &[7; 20]), "the turn's batches are full");
        assert!(!outbox.append(peer(1), 20, |_| None));
        outbox.clear();
        assert!(!outbox.append(peer(1), BATCH_BYTES + 1, |_| panic!("no room was promised")));
        assert!(outbox.append(peer(1), BATCH_BYTES, |space| Some(space.len())));
    }

    #[test]
    fn a_send_that_came_to_nothing_leaves_nothing() {
        let mut outbox = Outbox::default();
        assert!(!outbox.append(peer(1), 20, |_| None));
        assert!(outbox.is_empty());
    }
}
