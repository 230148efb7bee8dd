//! Completing a shortened sequence number (RFC 9147 §4.2.2), and nonces (RFC 8446 §5.3).

use aws_lc_rs::aead::NONCE_LEN;

/// The number whose `bits` lowest bits are `low` and which is nearest to `expected`; of two equally near the higher. Never
/// negative, never above `u64::MAX`. DTLS 1.3 shortens to 8 or 16 bits.
#[must_use]
pub const fn reconstruct(low: u16, bits: u32, expected: u64) -> u64 {
    let period = 1_u64 << bits;
    let candidate = (expected & !(period - 1)) | (low as u64 & (period - 1));
    // The candidate is in the expected number's own period: the nearest is there or in a neighbour's.
    if candidate > expected {
        if candidate - expected > period / 2 && candidate >= period {
            return candidate - period;
        }
    } else if expected - candidate >= period / 2
        && let Some(above) = candidate.checked_add(period)
    {
        return above;
    }
    candidate
}

/// `iv` xor the number, aligned to the right. DTLS 1.3 gives the sequence number alone, DTLS 1.2 the epoch before it.
pub(super) fn nonce(iv: &[u8; NONCE_LEN], number: u64) -> [u8; NONCE_LEN] {
    let mut nonce = *iv;
    for (byte, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(number.to_be_bytes()) {
        *byte ^= number;
    }
    nonce
}
