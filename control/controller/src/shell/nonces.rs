//! The nonces that proofs of possession must carry (RFC 9449 §8): each good once, and not for long.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::limits::{NONCE_LIFE, NONCES_MAX};

/// Bytes of one: as hard to guess as a key.
const NONCE_BYTES: usize = 16;

type Nonce = [u8; NONCE_BYTES];

/// Those that are out. When as many are out as there may be, the oldest go.
#[derive(Debug, Default)]
pub(crate) struct Nonces(Mutex<Given>);

#[derive(Debug, Default)]
struct Given {
    unused: HashMap<Nonce, Instant>,
    /// In the order in which they were given; used ones stay until their time is over.
    order: VecDeque<(Instant, Nonce)>,
}

impl Nonces {
    /// Gives one at `now`; `None` when there is no randomness.
    pub(crate) fn give(&self, now: Instant) -> Option<String> {
        let mut nonce = [0; NONCE_BYTES];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((at, oldest)) = given.order.front().copied() {
            if given.order.len() < NONCES_MAX && now.saturating_duration_since(at) < NONCE_LIFE {
                break;
            }
            given.order.pop_front();
            given.unused.remove(&oldest);
        }
        given.order.push_back((now, nonce));
        given.unused.insert(nonce, now);
        Some(URL_SAFE_NO_PAD.encode(nonce))
    }

    /// Takes one back: whether it was ours, unused, and young enough.
    pub(crate) fn spend(&self, text: &str, now: Instant) -> bool {
        let mut nonce = [0; NONCE_BYTES];
        if !matches!(URL_SAFE_NO_PAD.decode_slice(text, &mut nonce), Ok(NONCE_BYTES)) {
            return false;
        }
        let given = self.0.lock().unwrap_or_else(PoisonError::into_inner).unused.remove(&nonce);
        given.is_some_and(|at| now.saturating_duration_since(at) < NONCE_LIFE)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_nonce_is_good_once_and_for_two_minutes() {
        let nonces = Nonces::default();
        let start = Instant::now();
        let nonce = nonces.give(start).unwrap();
        assert!(nonces.spend(&nonce, start + Duration::from_secs(119)));
        assert!(!nonces.spend(&nonce, start + Duration::from_secs(119)), "once");
        let nonce = nonces.give(start).unwrap();
        assert!(!nonces.spend(&nonce, start + NONCE_LIFE), "too old");
        for other in ["", "x", &"A".repeat(22), &"A".repeat(10_000)] {
            assert!(!nonces.spend(other, start), "{other}");
        }
    }

    #[test]
    fn when_too_many_are_out_the_oldest_go() {
        let nonces = Nonces::default();
        let start = Instant::now();
        let given: Vec<String> = (0..=NONCES_MAX).map(|_| nonces.give(start).unwrap()).collect();
        assert!(!nonces.spend(&given[0], start), "the oldest is gone");
        assert!(nonces.spend(&given[1], start));
        assert!(nonces.spend(&given[NONCES_MAX], start));
        nonces.give(start + NONCE_LIFE).unwrap();
        let left = nonces.0.lock().unwrap();
        assert_eq!((left.unused.len(), left.order.len()), (1, 1), "what is over takes no room");
    }
}
