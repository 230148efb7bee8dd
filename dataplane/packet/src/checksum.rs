//! The Internet checksum, RFC 1071.
//!
//! A [`Sum`] is the one's-complement sum before its inversion; what a header carries is [`Sum::complement`]. Data
//! whose checksum field is filled in sums up to [`Sum::VALID`]. There is no incremental update (RFC 1624): the
//! callers touch every byte of a segment anyway, and a sum made afresh repairs nothing by accident.

/// A one's-complement sum of big-endian 16-bit words, not inverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum(u16);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);
    /// The sum over data that includes its own correct checksum.
    pub const VALID: Self = Self(0xffff);

    /// The sum over `bytes`; an odd last byte counts as the upper half of a word (RFC 1071 §4.1).
    #[must_use]
    #[inline]
    pub fn of(bytes: &[u8]) -> Self {
        // Words are added in the machine's own byte order, which swaps the bytes of the result and nothing else
        // (RFC 1071 §2 (B)).
        Self(u16::from_be(fold(native_sum(bytes))))
    }

    /// The sum over the data of `self` followed by that of `other`. Where `self` was not the last part, its length
    /// was even.
    #[must_use]
    #[inline]
    pub const fn combine(self, other: Self) -> Self {
        let sum = self.0 as u32 + other.0 as u32;
        Self((sum as u16).wrapping_add((sum >> 16) as u16))
    }

    /// Adds one 16-bit word.
    #[must_use]
    #[inline]
    pub const fn add(self, word: u16) -> Self {
        self.combine(Self(word))
    }

    /// The sum over the pseudo-header of TCP, UDP or ICMPv6.
    ///
    /// `addresses` are source and destination as they stand in the IP header, 8 or 32 bytes. The IPv4 layout
    /// (RFC 9293 §3.1) and that of IPv6 (RFC 8200 §8.1) differ in where the other fields stand, not in their sum.
    /// `transport_bytes` is the length of the transport header and its payload; no IP packet that this crate
    /// accepts has more than 65,535.
    #[must_use]
    #[inline]
    pub fn pseudo_header(addresses: &[u8], protocol: u8, transport_bytes: u16) -> Self {
        Self::of(addresses).add(u16::from(protocol)).add(transport_bytes)
    }

    /// The folded sum itself, which a header carries while the rest is left to the kernel (`NEEDS_CSUM`).
    #[must_use]
    #[inline]
    pub const fn partial(self) -> u16 {
        self.0
    }

    /// The checksum: what makes the sum over everything [`Sum::VALID`].
    #[must_use]
    #[inline]
    pub const fn complement(self) -> u16 {
        !self.0
    }

    /// The checksum of a UDP datagram, where 0 means "none" and is sent as 0xffff (RFC 768).
    #[must_use]
    #[inline]
    pub const fn complement_udp(self) -> u16 {
        match self.complement() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

/// Bytes summed in one step of the wide loop.
const BLOCK_BYTES: usize = 64;

/// Adds the 32-bit words of `bytes`, in the machine's byte order. 2³² of them fit, more than any packet has.
#[inline]
fn native_sum(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
    // Headers, which are shorter than a block, skip the lanes and their adding up.
    let mut sum = if blocks.is_empty() { 0 } else { sum_of_blocks(blocks) };
    let (words, tail) = rest.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    sum + u64::from(u32::from_ne_bytes(match *tail {
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c] => [a, b, c, 0],
        _ => return sum,
    }))
}

/// Adds into lanes that do not depend on each other, which the compiler turns into vector additions at the baseline
/// of the target.
#[inline]
fn sum_of_blocks(blocks: &[[u8; BLOCK_BYTES]]) -> u64 {
    let mut lanes = [0u64; BLOCK_BYTES / 4];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    lanes.iter().sum()
}

/// Folds a sum of 16-bit words into 16 bits by adding the carries back. A sum other than 0 never folds to 0.
#[inline]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum as u16).wrapping_add((sum >> 16) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, word by word.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        sum as u16
    }

    #[test]
    fn rfc_1071_example() {
        assert_eq!(Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).partial(), 0xddf2);
    }

    #[test]
    fn longest_run_of_ones_does_not_overflow() {
        assert_eq!(Sum::of(&vec![0xff; 65_535]).partial(), naive(&vec![0xff; 65_535]));
        assert_eq!(fold(u64::MAX), 0xffff);
    }

    #[test]
    fn udp_never_carries_zero() {
        assert_eq!(Sum(0xffff).complement(), 0);
        assert_eq!(Sum(0xffff).complement_udp(), 0xffff);
        assert_eq!(Sum(0x1234).complement_udp(), !0x1234);
    }

    #[test]
    fn pseudo_header_is_that_of_the_rfcs() {
        let v4 = [10, 0, 0, 1, 10, 0, 0, 2];
        let by_hand = [10, 0, 0, 1, 10, 0, 0, 2, 0, 17, 0x12, 0x34];
        assert_eq!(Sum::pseudo_header(&v4, 17, 0x1234), Sum::of(&by_hand));
        let v6: Vec<u8> = (0..32).collect();
        let mut by_hand = v6.clone();
        by_hand.extend_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0, 6]);
        assert_eq!(Sum::pseudo_header(&v6, 6, 0xffff), Sum::of(&by_hand));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn equals_the_naive_sum(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(Sum::of(&bytes).partial(), naive(&bytes));
        }

        #[test]
        fn parts_combine(bytes in proptest::collection::vec(any::<u8>(), 0..600), cut in 0usize..300) {
            let (head, tail) = bytes.split_at((cut * 2).min(bytes.len() & !1));
            prop_assert_eq!(Sum::of(head).combine(Sum::of(tail)), Sum::of(&bytes));
        }

        #[test]
        fn complement_makes_the_sum_valid(mut bytes in proptest::collection::vec(any::<u8>(), 2..200)) {
            bytes[..2].fill(0);
            let checksum = Sum::of(&bytes).complement();
            bytes[..2].copy_from_slice(&checksum.to_be_bytes());
            prop_assert_eq!(Sum::of(&bytes), Sum::VALID);
        }
    }
}
