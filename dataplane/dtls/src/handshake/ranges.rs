//! Which bytes of a message have come, or have been acknowledged.

use std::ops::Range;

/// Pieces that lie apart at most. A peer that sends single bytes in a bad order sends some of them again.
const PIECES_MAX: usize = 1_024;

/// A set of byte positions, as ranges that are in order and lie apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<Range<usize>>);

impl Ranges {
    /// Adds `new`; `false` if there are too many pieces for it.
    pub(super) fn add(&mut self, new: Range<usize>) -> bool {
        self.add_within(new, usize::MAX)
    }

    /// The same, within `left` more bytes of memory.
    pub(super) fn add_within(&mut self, new: Range<usize>, left: usize) -> bool {
        if new.is_empty() {
            return true;
        }
        // Those that the new one touches become one with it.
        let first = self.0.partition_point(|range| range.end < new.start);
        let behind = self.0.partition_point(|range| range.start <= new.end);
        if first == behind && (self.0.len() >= PIECES_MAX || left < size_of::<Range<usize>>()) {
            return false;
        }
        let touched = &self.0[first..behind];
        let start = touched.first().map_or(new.start, |range| range.start.min(new.start));
        let end = touched.last().map_or(new.end, |range| range.end.max(new.end));
        self.0.splice(first..behind, std::iter::once(start..end));
        true
    }

    /// Whether every position below `length` is in it.
    pub(super) fn covers(&self, length: usize) -> bool {
        self.contains(&(0..length))
    }

    /// Whether all of `range` is in it.
    pub(super) fn contains(&self, range: &Range<usize>) -> bool {
        range.is_empty() || self.0.iter().any(|known| known.start <= range.start && range.end <= known.end)
    }

    /// The positions below `length` that are not in it.
    pub(super) fn missing(&self, length: usize) -> impl Iterator<Item = Range<usize>> {
        let starts = std::iter::once(0).chain(self.0.iter().map(|range| range.end));
        let ends = self.0.iter().map(|range| range.start).chain(std::iter::once(length));
        starts.zip(ends).map(move |(start, end)| start..end.min(length)).filter(|range| !range.is_empty())
    }

    /// The memory that its pieces take.
    pub(super) fn memory_bytes(&self) -> usize {
        self.0.len() * size_of::<Range<usize>>()
    }

    /// How many positions are in it.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.0.iter().map(ExactSizeIterator::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_a_set_of_numbers(pieces in proptest::collection::vec((0usize..60, 0usize..12), 0..40)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (start, length) in pieces {
                prop_assert!(ranges.add(start..start + length));
                model.extend(start..start + length);
                prop_assert_eq!(ranges.count(), model.len());
                prop_assert_eq!(ranges.covers(40), (0..40).all(|at| model.contains(&at)));
                prop_assert_eq!(ranges.contains(&(10..20)), (10..20).all(|at| model.contains(&at)));
                let missing: Vec<usize> = ranges.missing(50).flatten().collect();
                let expected: Vec<usize> = (0..50).filter(|at| !model.contains(at)).collect();
                prop_assert_eq!(missing, expected);
            }
        }
    }

    #[test]
    fn pieces_are_bounded() {
        let mut ranges = Ranges::default();
        for piece in 0..PIECES_MAX {
            assert!(ranges.add(2 * piece..2 * piece + 1));
        }
        assert!(!ranges.add(2 * PIECES_MAX + 1..2 * PIECES_MAX + 2));
        assert!(ranges.add(1..2), "what joins two is welcome");
    }
}
