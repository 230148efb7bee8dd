//! Finding the peer again after a long loss.
//!
//! A record of DTLS 1.3 carries 16 bits of its number. When more than 32,768 records are lost in a row (13 ms at 2.5 million
//! a second) the completed number is wrong by a multiple of 65,536, the record does not authenticate, the window does not
//! move, and nothing would ever be opened again. RFC 9147 §4.2.2 leaves the means of completing to the receiver.
//!
//! So after some failures in a row a record is tried under further numbers. What a forger can make of that is bounded:
//!
//! - A search is [`STEPS`] further AEAD operations on one record, and takes one credit.
//! - There are [`CREDITS_MAX`] credits at most. One comes back with each record that opens and one with each
//!   [`FAILURES_PER_CREDIT`] that fail. Without a credit a record is tried once, as ever.
//!
//! So n forged and m authentic records cost at most `STEPS · (CREDITS_MAX + m + n / FAILURES_PER_CREDIT)` further operations,
//! and each record that comes while a search is wanted costs a buffer of 16 KiB and a copy. A flood without any authentic
//! record so costs 6 % more than it did anyway. Replays neither give credits nor end a search. Draining the credits delays
//! finding the peer again and does nothing else. Each search without success looks further ahead, up to [`ROUNDS`] times; after
//! that it begins anew.

/// Numbers tried in one search, beside the nearest.
pub(super) const STEPS: u64 = 4;
/// Failures in a row before a search. One forged record at a time then never causes any.
const FAILURES_BEFORE: u32 = 2;
/// Enough for one pass over all rounds without any authentic record.
const CREDITS_MAX: u8 = 16;
/// Under a flood that hides the peer's records a search must still come by now and then.
const FAILURES_PER_CREDIT: u8 = 64;
/// `ROUNDS · STEPS` periods of 65,536 numbers are 4.2 million records: 1.7 s at 2.5 million a second.
const ROUNDS: u8 = 16;

/// When to search, and where.
#[derive(Debug)]
pub(super) struct Resync {
    /// Records that failed since the last one that opened.
    failures: u32,
    credits: u8,
    /// Failures since one of them gave a credit.
    uncredited: u8,
    round: u8,
}

impl Resync {
    pub(super) const fn new() -> Self {
        Self { failures: 0, credits: CREDITS_MAX, uncredited: 0, round: 0 }
    }

    /// Whether the next record deserves a search.
    pub(super) const fn wanted(&self) -> bool {
        self.failures >= FAILURES_BEFORE && self.credits > 0
    }

    /// Takes a credit; says at how many periods ahead the search begins.
    pub(super) fn begin(&mut self) -> u64 {
        let first = 1 + u64::from(self.round) * STEPS;
        self.credits = self.credits.saturating_sub(1);
        self.round = (self.round + 1) % ROUNDS;
        first
    }

    pub(super) fn opened(&mut self) {
        self.failures = 0;
        self.round = 0;
        self.credits = (self.credits + 1).min(CREDITS_MAX);
    }

    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.uncredited += 1;
        if self.uncredited == FAILURES_PER_CREDIT {
            self.uncredited = 0;
            self.credits = (self.credits + 1).min(CREDITS_MAX);
        }
    }
}
