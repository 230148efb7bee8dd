//! Randomness from a seed, since a machine has none of its own.

use std::fmt;

use aws_lc_rs::hmac;

/// Numbers that nobody foretells who does not know the seed: HMAC-SHA-256 of a counter. For hello randoms and cookies; key pairs
/// and signatures take their randomness from the cryptography library.
#[derive(Clone)]
pub struct Randomness {
    key: hmac::Key,
    drawn: u64,
}

impl Randomness {
    /// Numbers from `seed`, which comes from the kernel, or in a simulation from the simulation's own seed.
    #[must_use]
    pub fn new(seed: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, seed), drawn: 0 }
    }

    /// The next 32 bytes.
    pub fn draw(&mut self) -> [u8; 32] {
        let mut drawn = [0; 32];
        drawn.copy_from_slice(hmac::sign(&self.key, &self.drawn.to_be_bytes()).as_ref());
        self.drawn += 1;
        drawn
    }
}

impl fmt::Debug for Randomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Randomness")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence() {
        let (mut one, mut same, mut other) =
            (Randomness::new(&[1; 32]), Randomness::new(&[1; 32]), Randomness::new(&[2; 32]));
        let first = one.draw();
        assert_eq!(first, same.draw());
        assert_ne!(first, other.draw());
        assert_ne!(first, one.draw());
    }
}
