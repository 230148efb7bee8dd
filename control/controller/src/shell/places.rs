//! Places of which each key has only so many: connections of one certificate, open requests of one address.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

/// Places that are taken, by key.
pub(crate) struct Places<K> {
    taken: Mutex<BTreeMap<K, usize>>,
    of_one_max: usize,
}

impl<K: Ord + Copy> Places<K> {
    /// Places of which one key has `of_one_max`.
    pub(crate) fn new(of_one_max: usize) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), of_one_max })
    }

    /// One more for `key`, until it is dropped; `None` when it has all that it may have.
    pub(crate) fn place(self: &Arc<Self>, key: K) -> Option<Place<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(key).or_default();
        if *count >= self.of_one_max {
            return None;
        }
        *count += 1;
        Some(Place { places: Arc::clone(self), key })
    }
}

/// A place that is taken.
pub(crate) struct Place<K: Ord + Copy> {
    places: Arc<Places<K>>,
    key: K,
}

impl<K: Ord + Copy> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = taken.entry(self.key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_and_gets_back_what_it_gives_up() {
        let places = Places::new(2);
        let one = places.place(1).unwrap();
        let _other = places.place(1).unwrap();
        assert!(places.place(1).is_none());
        assert!(places.place(2).is_some(), "another key is not in the way");
        drop(one);
        assert!(places.place(1).is_some());
        assert_eq!(places.taken.lock().unwrap().len(), 1, "keys without a place are forgotten");
    }
}
