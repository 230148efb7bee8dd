//! How often those who are known may ask: a bucket of tokens for each device, host and user (X12).
//!
//! A device has one of its own by its key, and one with all of its user's devices. The user's fills faster than one device can empty
//! it, so that a stolen device does not keep its user's others out. A bucket is the time at which it will be full (a virtual scheduling
//! algorithm, as in ITU-T I.371). Time is passed in; each Controller counts for itself.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringfort_identity::KeyThumbprint;

use super::limits::{DEVICE_RATE, LIMITED_WRITTEN_EVERY, RATES_MAX, USER_RATE};

/// What one may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Requests at once.
    pub(crate) burst: u32,
    /// How long each takes to be allowed again.
    pub(crate) every: Duration,
}

/// One who asks too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TooOften {
    /// Seconds until the next request is answered.
    pub(crate) retry_after: u64,
    /// Whether it has just been written down that they do.
    pub(crate) is_repeat: bool,
}

/// The buckets of all who have asked of late.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    devices: Mutex<Buckets<KeyThumbprint>>,
    users: Mutex<Buckets<String>>,
}

impl Rates {
    /// Takes one request of a device or host with this key, and of its user.
    ///
    /// # Errors
    /// [`TooOften`].
    pub(crate) fn take(&self, key: &KeyThumbprint, user: Option<&str>, now: Instant) -> Result<(), TooOften> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner).take(*key, DEVICE_RATE, now)?;
        let Some(user) = user else { return Ok(()) };
        self.users.lock().unwrap_or_else(PoisonError::into_inner).take(user.to_owned(), USER_RATE, now)
    }
}

#[derive(Debug)]
struct Buckets<K>(BTreeMap<K, Bucket>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    full_at: Instant,
    /// When a refusal was last written down.
    written_at: Option<Instant>,
}

impl<K: Ord + Clone> Buckets<K> {
    fn take(&mut self, key: K, rate: Rate, now: Instant) -> Result<(), TooOften> {
        if self.0.len() >= RATES_MAX && !self.0.contains_key(&key) {
            self.make_room(now);
        }
        let bucket = self.0.entry(key).or_insert(Bucket { full_at: now, written_at: None });
        let full_at = bucket.full_at.max(now) + rate.every;
        let wait = full_at.saturating_duration_since(now + rate.every * rate.burst);
        if wait.is_zero() {
            bucket.full_at = full_at;
            return Ok(());
        }
        let written = bucket.written_at.map(|at| now.saturating_duration_since(at));
        let is_repeat = written.is_some_and(|since| since < LIMITED_WRITTEN_EVERY);
        if !is_repeat {
            bucket.written_at = Some(now);
        }
        // Rounded up: too early would be refused again.
        Err(TooOften { retry_after: wait.as_secs() + u64::from(wait.subsec_nanos() > 0), is_repeat })
    }

    /// Forgets the full ones, which are as if they had never been there, or else the fullest.
    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, bucket| bucket.full_at > now);
        if self.0.len() >= RATES_MAX {
            let fullest = self.0.iter().min_by_key(|(_, bucket)| bucket.full_at).map(|(key, _)| key.clone());
            fullest.and_then(|fullest| self.0.remove(&fullest));
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const RATE: Rate = Rate { burst: 3, every: Duration::from_secs(2) };

    // Covers: X12 allow
    // Covers: X12 refuse
    #[test]
    fn a_burst_is_answered_and_then_one_at_a_time() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        let mut take = |after_ms: u64| buckets.take("alice", RATE, start + Duration::from_millis(after_ms));
        for _ in 0..3 {
            take(0).unwrap();
        }
        assert_eq!(take(0), Err(TooOften { retry_after: 2, is_repeat: false }));
        assert_eq!(take(500), Err(TooOften { retry_after: 2, is_repeat: true }));
        assert_eq!(take(1_500), Err(TooOften { retry_after: 1, is_repeat: true }));
        // Refusals cost nothing: when it was said it is answered.
        take(2_000).unwrap();
        assert!(take(2_000).is_err());
        take(4_000).unwrap();
        for _ in 0..3 {
            take(60_000).unwrap();
        }
        assert!(take(60_000).is_err(), "no more than the burst is saved");
    }

    #[test]
    fn a_refusal_is_written_once_in_a_while() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        let rate = Rate { burst: 1, every: Duration::from_secs(1_000) };
        buckets.take("alice", rate, start).unwrap();
        let mut is_repeat = |at: Duration| buckets.take("alice", rate, start + at).unwrap_err().is_repeat;
        let all: Vec<_> = (0..1_000).map(|n| is_repeat(Duration::from_millis(n))).collect();
        assert_eq!(all.iter().filter(|is_repeat| !**is_repeat).count(), 1);
        assert!(!is_repeat(LIMITED_WRITTEN_EVERY) && is_repeat(LIMITED_WRITTEN_EVERY + Duration::from_secs(1)));
    }

    #[test]
    fn one_device_does_not_take_its_users_whole_share() {
        let (rates, start) = (Rates::default(), Instant::now());
        let key = |n: u8| -> KeyThumbprint { URL_SAFE_NO_PAD.encode([n; 32]).parse().unwrap() };
        let (stolen, other) = (key(1), key(2));
        for n in 0..600_000_u64 {
            // A thousand a second for ten minutes.
            drop(rates.take(&stolen, Some("alice"), start + Duration::from_millis(n)));
        }
        let now = start + Duration::from_millis(599_999);
        assert!(rates.take(&stolen, Some("alice"), now).is_err());
        rates.take(&other, Some("alice"), now).unwrap();
        // All of a user's devices together have an end, and that is no other user's.
        let answered = (10..18_u8).flat_map(|n| (0..DEVICE_RATE.burst).map(move |_| n));
        let answered = answered.filter(|n| rates.take(&key(*n), Some("bob"), now).is_ok()).count();
        assert_eq!(answered, USER_RATE.burst as usize);
        rates.take(&other, Some("carol"), now).unwrap();
    }

    #[test]
    fn what_is_remembered_is_bounded_and_who_asks_most_is_not_forgotten() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        for _ in 0..3 {
            buckets.take(0_u32, RATE, start).unwrap();
        }
        for n in 1..2 * u32::try_from(RATES_MAX).unwrap() {
            buckets.take(n, RATE, start).unwrap();
        }
        assert_eq!(buckets.0.len(), RATES_MAX);
        assert!(buckets.take(0, RATE, start).is_err());
        buckets.take(u32::MAX, RATE, start + Duration::from_secs(60)).unwrap();
        assert_eq!(buckets.0.len(), 1, "what is full takes no room");
    }
}
