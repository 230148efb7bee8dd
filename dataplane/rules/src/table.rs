//! A bounded hash table that never allocates after it was made, for keys that an attacker may choose.
//!
//! Entries lie densely in one vector; a separate index of 8-byte slots leads to them by open addressing with
//! linear probing, at most half full. The hash is seeded, a look-up visits at most [`PROBES_MAX`] slots, and a
//! removal closes the gap behind it, so that no tombstones gather. The dense vector is what makes a sweep of
//! `n` entries cost `n` steps however empty the table is.

use std::hash::{Hash, Hasher};

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;

/// Slots that one look-up visits. At half load the longest run in 2¹⁷ slots is near 60; a run that long under a
/// seed that nobody outside knows does not happen by choice.
const PROBES_MAX: usize = 128;

/// Hash function of one table.
#[derive(Clone, Debug)]
pub(crate) struct Seed {
    start: u64,
    shared: SharedSeed,
}

impl Seed {
    /// Both seeds of the hasher come from `seed`: with the constants of its "fixed" state, keys could be chosen
    /// that collide under every start value.
    pub(crate) fn new(seed: u64) -> Self {
        Self { start: seed.rotate_left(32), shared: SharedSeed::from_u64(seed) }
    }

    pub(crate) fn hash(&self, key: &impl Hash) -> Hashed {
        let mut hasher = FoldHasher::with_seed(self.start, &self.shared);
        key.hash(&mut hasher);
        let hash = hasher.finish();
        Hashed((hash ^ (hash >> 32)) as u32)
    }
}

/// The hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hashed(u32);

/// Where an entry lies. Valid until the next removal or sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position(u32);

/// The table had no room for one more entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: Hashed,
    /// [`Slot::EMPTY`] or the index of the entry.
    entry: u32,
}

impl Slot {
    const EMPTY: u32 = u32::MAX;
    const NONE: Self = Self { hash: Hashed(0), entry: Self::EMPTY };
}

/// An entry begins at a cache line, so that a hit touches no more lines than it must.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Entry<T> {
    value: T,
    hash: Hashed,
}

#[derive(Clone, Debug)]
pub(crate) struct BoundedTable<T> {
    /// A power of two of them, at least twice the capacity: an index masked with `slots.len() - 1` lies within.
    slots: Box<[Slot]>,
    entries: Vec<Entry<T>>,
    entries_max: usize,
    /// Where the next sweep goes on.
    cursor: usize,
}

impl<T> BoundedTable<T> {
    /// What one entry takes, its slots aside.
    #[cfg(test)]
    pub(crate) const ENTRY_BYTES: usize = size_of::<Entry<T>>();

    /// A table of at most `entries_max` entries, 1 to 2³⁰ (values outside count as the nearest).
    pub(crate) fn new(entries_max: usize) -> Self {
        let entries_max = entries_max.clamp(1, 1 << 30);
        let slots = (entries_max * 2).next_power_of_two();
        Self {
            slots: vec![Slot::NONE; slots].into_boxed_slice(),
            entries: Vec::with_capacity(entries_max),
            entries_max,
            cursor: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= self.entries_max
    }

    #[inline]
    pub(crate) fn find(&self, hash: Hashed, is_it: impl Fn(&T) -> bool) -> Option<Position> {
        let mut at = self.home(hash);
        for _ in 0..PROBES_MAX {
            let slot = self.slots[at];
            if slot.entry == Slot::EMPTY {
                return None;
            }
            if slot.hash == hash && self.entries.get(slot.entry as usize).is_some_and(|entry| is_it(&entry.value)) {
                return Some(Position(slot.entry));
            }
            at = self.after(at);
        }
        None
    }

    #[inline]
    pub(crate) fn get(&self, position: Position) -> Option<&T> {
        self.entries.get(position.0 as usize).map(|entry| &entry.value)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, position: Position) -> Option<&mut T> {
        self.entries.get_mut(position.0 as usize).map(|entry| &mut entry.value)
    }

    /// Adds an entry whose key is not in the table.
    pub(crate) fn insert(&mut self, hash: Hashed, value: T) -> Result<Position, Full> {
        if self.is_full() {
            return Err(Full);
        }
        let mut at = self.home(hash);
        for _ in 0..PROBES_MAX {
            if self.slots[at].entry == Slot::EMPTY {
                let entry = self.entries.len() as u32;
                self.slots[at] = Slot { hash, entry };
                self.entries.push(Entry { value, hash });
                return Ok(Position(entry));
            }
            at = self.after(at);
        }
        Err(Full)
    }

    /// Takes the entry out; the last entry moves to its position.
    pub(crate) fn remove(&mut self, position: Position) -> Option<T> {
        let hash = self.entries.get(position.0 as usize)?.hash;
        let slot = self.slot_of(hash, position.0)?;
        self.clear_slot(slot);
        let last = self.entries.len() - 1;
        let removed = self.entries.swap_remove(position.0 as usize);
        if let Some(moved) = self.entries.get(position.0 as usize).map(|entry| entry.hash)
            && let Some(slot) = self.slot_of(moved, last as u32)
        {
            self.slots[slot].entry = position.0;
        }
        Some(removed.value)
    }

    /// Visits at most `entries` entries, going on where the last sweep ended, and removes those of which
    /// `is_dead` says so; it is asked once per visit.
    pub(crate) fn sweep(&mut self, entries: usize, mut is_dead: impl FnMut(&T) -> bool) {
        for _ in 0..entries.min(self.entries.len()) {
            if self.cursor >= self.entries.len() {
                self.cursor = 0;
            }
            if self.entries.get(self.cursor).is_some_and(|entry| is_dead(&entry.value)) {
                // The entry that moves here is visited next.
                self.remove(Position(self.cursor as u32));
            } else {
                self.cursor += 1;
            }
        }
    }

    /// The slot that leads to `entry`. Insertion and removal keep each within `PROBES_MAX` of its home.
    fn slot_of(&self, hash: Hashed, entry: u32) -> Option<usize> {
        let mut at = self.home(hash);
        for _ in 0..PROBES_MAX {
            if self.slots[at].entry == entry {
                return Some(at);
            }
            at = self.after(at);
        }
        None
    }

    /// Empties slot `gap` and moves back the slots behind it that would not be found across the gap.
    fn clear_slot(&mut self, mut gap: usize) {
        let mut at = gap;
        loop {
            at = self.after(at);
            let slot = self.slots[at];
            if slot.entry == Slot::EMPTY {
                break;
            }
            let mask = self.slots.len() - 1;
            let from_home = at.wrapping_sub(self.home(slot.hash)) & mask;
            let from_gap = at.wrapping_sub(gap) & mask;
            if from_home >= from_gap {
                self.slots[gap] = slot;
                gap = at;
            }
        }
        self.slots[gap] = Slot::NONE;
    }

    fn home(&self, hash: Hashed) -> usize {
        hash.0 as usize & (self.slots.len() - 1)
    }

    fn after(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert(u16),
        Remove(u16),
        Sweep(usize, u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Few keys and few hashes (below), so that runs, wrap-around at the end and collisions are frequent.
        prop_oneof![
            3 => (0..60_u16).prop_map(Step::Insert),
            2 => (0..60_u16).prop_map(Step::Remove),
            1 => (0..8_usize, 2..7_u16).prop_map(|(n, m)| Step::Sweep(n, m)),
        ]
    }

    fn hash(key: u16) -> Hashed {
        Hashed(u32::from(key % 11) * 7 + 50)
    }

    proptest! {
        #[test]
        fn equals_a_map(steps in prop::collection::vec(step(), 1..200)) {
            let mut table = BoundedTable::new(32);
            let mut model = BTreeMap::new();
            for (value, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(key) => {
                        if table.find(hash(key), |(k, _)| *k == key).is_none() {
                            let inserted = table.insert(hash(key), (key, value));
                            prop_assert_eq!(inserted.is_ok(), model.len() < 32);
                            if inserted.is_ok() {
                                model.insert(key, value);
                            }
                        }
                    }
                    Step::Remove(key) => {
                        let found = table.find(hash(key), |(k, _)| *k == key);
                        let removed = found.and_then(|position| table.remove(position)).map(|(_, v)| v);
                        prop_assert_eq!(removed, model.remove(&key));
                    }
                    Step::Sweep(entries, modulus) => {
                        let mut gone = Vec::new();
                        let mut visits = 0;
                        table.sweep(entries, |(key, _)| {
                            visits += 1;
                            if key % modulus == 0 {
                                gone.push(*key);
                            }
                            key % modulus == 0
                        });
                        prop_assert!(visits <= entries);
                        for key in gone {
                            prop_assert!(model.remove(&key).is_some());
                        }
                    }
                }
                prop_assert_eq!(table.len(), model.len());
                for key in 0..60_u16 {
                    let found = table.find(hash(key), |(k, _)| *k == key).and_then(|p| table.get(p)).map(|(_, v)| *v);
                    prop_assert_eq!(found, model.get(&key).copied());
                }
            }
        }
    }

    #[test]
    fn a_whole_sweep_visits_every_entry() {
        let seed = Seed::new(1);
        let mut table = BoundedTable::new(1_000);
        for key in 0..1_000_u32 {
            table.insert(seed.hash(&key), key).unwrap();
        }
        table.sweep(1_000, |key| key % 2 == 0);
        assert_eq!(table.len(), 500);
    }

    #[test]
    fn colliding_keys_are_refused_after_the_longest_probe() {
        let mut table = BoundedTable::new(1_000);
        let inserted = (0..1_000_u32).filter(|key| table.insert(Hashed(3), *key).is_ok()).count();
        assert_eq!(inserted, PROBES_MAX);
        assert_eq!(table.insert(Hashed(3 + PROBES_MAX as u32), 5_000).map(|_| ()), Ok(()));
    }

    #[test]
    fn a_table_can_be_filled_to_its_capacity() {
        let seed = Seed::new(7);
        let mut table = BoundedTable::new(65_536);
        for key in 0..65_536_u64 {
            table.insert(seed.hash(&key), key).unwrap();
        }
        assert_eq!(table.insert(seed.hash(&70_000_u64), 70_000), Err(Full));
    }
}
