//! Which record numbers of an epoch have been seen (RFC 9147 §4.5.1).

/// Words of the ring. One more than the window needs, since the word that is being filled holds up to 63 numbers that have
/// not come yet.
const WORDS: u64 = 17;

/// How far below the highest number one may be and still be judged. RFC 9147 leaves it to the data rate: at 1 million
/// records a second it is 1 ms of reordering, several times what one receive queue brings about.
const WINDOW: u64 = (WORDS - 1) * u64::BITS as u64;

/// A replay window of [`ReplayWindow::NUMBERS`] record numbers: 144 bytes.
///
/// A ring of words indexed by the number itself, so that nothing is ever shifted: moving on by n clears the words between,
/// at most all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayWindow {
    /// One more than the highest number committed.
    next: u64,
    seen: [u64; WORDS as usize],
}

impl ReplayWindow {
    /// How many numbers, the highest one included, are told apart; anything older counts as seen.
    pub const NUMBERS: u64 = WINDOW;

    /// A window that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: 0, seen: [0; WORDS as usize] }
    }

    /// Whether `sequence` is new. Never mutates: a number that has not been authenticated must not move the window, or a
    /// forger could lock the peer out. `u64::MAX` is never new, as no number may follow it.
    #[must_use]
    pub fn check(&self, sequence: u64) -> bool {
        if sequence >= self.next {
            return sequence != u64::MAX;
        }
        let (word, bit) = place(sequence);
        self.next - sequence <= WINDOW && self.seen[word] & bit == 0
    }

    /// Marks `sequence` as seen. Only for a number that [`ReplayWindow::check`] found new and whose record has been
    /// authenticated since; any other is ignored.
    pub fn commit(&mut self, sequence: u64) {
        if !self.check(sequence) {
            return;
        }
        if sequence >= self.next {
            // Words after the one of the highest number so far hold what left the window a turn of the ring ago.
            let first = self.next.div_ceil(u64::BITS.into());
            let last = sequence / u64::from(u64::BITS);
            for word in first..=last.min(first.saturating_add(WORDS - 1)) {
                self.seen[(word % WORDS) as usize] = 0;
            }
            self.next = sequence + 1;
        }
        let (word, bit) = place(sequence);
        self.seen[word] |= bit;
    }

    /// The highest number committed, if there is one.
    #[must_use]
    pub const fn highest(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    /// The number that comes next if nothing is lost: what a shortened number is completed by (RFC 9147 §4.2.2).
    #[must_use]
    pub const fn expected(&self) -> u64 {
        self.next
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

/// The word and the bit in it that stand for `sequence`.
fn place(sequence: u64) -> (usize, u64) {
    ((sequence / u64::from(u64::BITS) % WORDS) as usize, 1 << (sequence % u64::from(u64::BITS)))
}
