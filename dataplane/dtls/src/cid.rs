//! Connection ids (RFC 9146, RFC 9147 §9): what a record carries so that its association is found whatever address it came
//! from.
//!
//! Ours are eight bytes. The first is the worker, in the clear, so that a packet filter can steer by it. The other seven
//! are a keyed permutation of slot, generation and nonce: whoever watches sees neither which slots are in use nor that two
//! ids are of one session. An id is an index and proves nothing; the record's AEAD does.

use std::fmt;

use aws_lc_rs::aead::quic::{self, HeaderProtectionKey};

/// The longest connection id that an association takes or gives, in bytes. RFC 9146 §3 allows 255; none of the stacks we
/// know uses more than 20, and each association stores two.
pub const CONNECTION_ID_BYTES_MAX: usize = 20;

/// A connection id; empty for none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    length: u8,
    bytes: [u8; CONNECTION_ID_BYTES_MAX],
}

impl ConnectionId {
    /// No connection id.
    pub const NONE: Self = Self { length: 0, bytes: [0; CONNECTION_ID_BYTES_MAX] };

    /// A copy of `id`, unless it is longer than [`CONNECTION_ID_BYTES_MAX`].
    #[must_use]
    pub fn new(id: &[u8]) -> Option<Self> {
        let mut copy = Self::NONE;
        copy.bytes.get_mut(..id.len())?.copy_from_slice(id);
        copy.length = u8::try_from(id.len()).ok()?;
        Some(copy)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len()).unwrap_or_default()
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Length of the connection ids that we give out, in bytes.
pub const OWN_CONNECTION_ID_BYTES: usize = 8;

/// The largest slot: 24 bits.
pub const SLOT_MAX: u32 = (1 << 24) - 1;

/// Rounds of the permutation. With halves of 28 bits four rounds can be told from a random permutation by some 2^14 chosen
/// ids, six by nothing short of all 2^56 (Patarin, "Generic attacks on Feistel schemes").
const ROUNDS: u8 = 6;
/// Half of what is permuted.
const HALF_BITS: u32 = 28;
const HALF_MASK: u32 = (1 << HALF_BITS) - 1;

/// Where a session lives: what a connection id of ours says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The worker that owns it. It stands in the id in the clear.
    pub worker: u8,
    /// Its place in the worker's table, at most [`SLOT_MAX`]; higher bits are cut off.
    pub slot: u32,
    /// Which of the sessions that have had this place.
    pub generation: u16,
}

/// Makes and reads our connection ids. All workers of a Gateway share one key; another key makes other ids of the same
/// locations.
pub struct ConnectionIdCodec {
    /// AES with the key, of which a block's first 40 bits are to be had.
    key: HeaderProtectionKey,
}

impl fmt::Debug for ConnectionIdCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionIdCodec")
    }
}

impl ConnectionIdCodec {
    /// From 16 random bytes, which the caller wipes.
    ///
    /// # Panics
    /// Never: AES-128 takes every key of 16 bytes.
    #[must_use]
    pub fn new(key: &[u8; 16]) -> Self {
        #[expect(clippy::expect_used, reason = "the only key that is refused is one of another length")]
        Self { key: HeaderProtectionKey::new(&quic::AES_128, key).expect("16 bytes") }
    }

    /// The connection id of `location`. Another `nonce`, which should be random, gives another id of the same location, and
    /// nobody without the key can tell.
    #[must_use]
    pub fn encode(&self, location: Location, nonce: u16) -> [u8; OWN_CONNECTION_ID_BYTES] {
        let content =
            u64::from(location.slot & SLOT_MAX) << 32 | u64::from(location.generation) << 16 | u64::from(nonce);
        let (mut left, mut right) = halves(content);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.round(location.worker, round, right));
        }
        join(location.worker, left, right)
    }

    /// What a connection id says: its location and its nonce. Every eight bytes are an id, so a foreign one gives an
    /// arbitrary slot and generation.
    ///
    /// Six blocks of AES one after the other: 24 ns on the machine of docs/BENCHMARKS.md. Records of one datagram, and mostly of
    /// one receive, have one id: compare before decoding.
    #[must_use]
    pub fn decode(&self, id: &[u8; OWN_CONNECTION_ID_BYTES]) -> (Location, u16) {
        let worker = id[0];
        let (mut left, mut right) = halves(u64::from_be_bytes(*id));
        for round in (0..ROUNDS).rev() {
            (left, right) = (right ^ self.round(worker, round, left), left);
        }
        let content = u64::from(left) << HALF_BITS | u64::from(right);
        let location = Location { worker, slot: (content >> 32) as u32, generation: (content >> 16) as u16 };
        (location, content as u16)
    }

    /// The round function: a block that says what it is for, of which 28 bits are taken.
    #[inline]
    fn round(&self, worker: u8, round: u8, half: u32) -> u32 {
        let [b0, b1, b2, b3] = (half | u32::from(round) << HALF_BITS).to_be_bytes();
        let mut block = [0; 16];
        block[..11].copy_from_slice(b"ringfort id");
        block[11..].copy_from_slice(&[worker, b0, b1, b2, b3]);
        // The length is right, which is all that can be refused.
        let [m0, m1, m2, m3, _] = self.key.new_mask(&block).unwrap_or_default();
        u32::from_be_bytes([m0, m1, m2, m3]) & HALF_MASK
    }
}

/// The two halves of the lower 56 bits.
fn halves(content: u64) -> (u32, u32) {
    ((content >> HALF_BITS) as u32 & HALF_MASK, content as u32 & HALF_MASK)
}

/// The id of these halves.
fn join(worker: u8, left: u32, right: u32) -> [u8; OWN_CONNECTION_ID_BYTES] {
    (u64::from(worker) << 56 | u64::from(left) << HALF_BITS | u64::from(right)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn codec() -> ConnectionIdCodec {
        ConnectionIdCodec::new(&std::array::from_fn(|at| at as u8))
    }

    /// Computed by Python's `cryptography`, AES-ECB, from the description of the rounds above.
    #[test]
    fn known_ids() {
        let location = |worker, slot, generation| Location { worker, slot, generation };
        for (location, nonce, expected) in [
            (location(0, 0, 0), 0, 0x00c1_61d6_1ebd_ca4a_u64),
            (location(1, 77, 3), 9, 0x0110_3f98_270b_dc08),
            (location(255, SLOT_MAX, u16::MAX), u16::MAX, 0xff63_d0f0_a616_df67),
        ] {
            assert_eq!(codec().encode(location, nonce), expected.to_be_bytes(), "{location:?}");
            assert_eq!(codec().decode(&expected.to_be_bytes()), (location, nonce));
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(worker: u8, slot in 0..=SLOT_MAX, generation: u16, nonce: u16, key: [u8; 16]) {
            let codec = ConnectionIdCodec::new(&key);
            let location = Location { worker, slot, generation };
            let id = codec.encode(location, nonce);
            prop_assert_eq!(id[0], worker);
            prop_assert_eq!(codec.decode(&id), (location, nonce));
        }

        /// Every eight bytes are the id of exactly one location and nonce.
        #[test]
        fn what_is_decoded_is_encoded(id: [u8; 8]) {
            let (location, nonce) = codec().decode(&id);
            prop_assert_eq!(codec().encode(location, nonce), id);
        }
    }

    /// Of ids of one location, and of neighbouring ones, each bit is set about as often as not, and no two are alike.
    #[test]
    fn ids_of_one_session_show_no_likeness() {
        let codec = codec();
        let mut seen = BTreeSet::new();
        let mut set = [0_u32; 56];
        let mut differing = 0;
        let mut before = 0;
        for count in 0..4_096_u16 {
            let location = Location { worker: 1, slot: 5 + u32::from(count % 2), generation: 1 };
            let id = u64::from_be_bytes(codec.encode(location, count / 2));
            assert!(seen.insert(id));
            for (bit, set) in set.iter_mut().enumerate() {
                *set += (id >> bit & 1) as u32;
            }
            differing += (id ^ before).count_ones();
            before = id;
        }
        // Standard deviation is 32 for each bit and 240 for the sum.
        assert!(set.iter().all(|set| (2_048 - 200..2_048 + 200).contains(set)), "{set:?}");
        assert!((4_096 * 28 - 1_500..4_096 * 28 + 1_500).contains(&differing), "{differing}");
    }

    #[test]
    fn ids_have_their_limits() {
        assert!(ConnectionId::new(&[0; CONNECTION_ID_BYTES_MAX]).is_some());
        assert!(ConnectionId::new(&[0; CONNECTION_ID_BYTES_MAX + 1]).is_none());
        assert!(ConnectionId::new(&[0; 300]).is_none());
        assert!(ConnectionId::NONE.is_empty());
        assert_eq!(format!("{:?}", ConnectionId::new(&[1, 0xab]).unwrap()), "01ab");
    }
}
