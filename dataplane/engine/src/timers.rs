//! When which session wants to be looked at.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ringfort_types::BootInstant;

/// A queue of wake-ups by time. An entry is not taken back: whoever is woken looks whether there is something to do.
#[derive(Debug)]
pub(crate) struct Timers<K: Ord> {
    heap: BinaryHeap<Reverse<(BootInstant, K)>>,
}

impl<K: Ord> Default for Timers<K> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new() }
    }
}

impl<K: Ord + Copy> Timers<K> {
    pub(crate) fn schedule(&mut self, at: BootInstant, key: K) {
        self.heap.push(Reverse((at, key)));
    }

    pub(crate) fn next(&self) -> Option<BootInstant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The next key that is due at `now`, with the time it was scheduled for.
    pub(crate) fn pop_due(&mut self, now: BootInstant) -> Option<(BootInstant, K)> {
        self.next().filter(|at| *at <= now)?;
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakes_in_order_of_time() {
        let at = BootInstant::from_nanos;
        let mut timers = Timers::default();
        for (nanos, key) in [(30, 3), (10, 1), (20, 2)] {
            timers.schedule(at(nanos), key);
        }
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.pop_due(at(20)), Some((at(10), 1)));
        assert_eq!(timers.pop_due(at(20)), Some((at(20), 2)));
        assert_eq!(timers.pop_due(at(20)), None);
        assert_eq!(timers.next(), Some(at(30)));
    }
}
