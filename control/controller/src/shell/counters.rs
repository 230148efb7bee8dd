//! What the Controller counts: the `totals` of its status.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};

/// Totals since the start. Every name is there before its first count.
#[derive(Debug)]
pub(crate) struct Counters(Mutex<BTreeMap<String, u64>>);

impl Counters {
    /// Counters of these names, and `refused_<code>` for each of these codes.
    pub(crate) fn new<'a>(names: &[&str], codes: impl IntoIterator<Item = &'a str>) -> Self {
        let names = names.iter().map(|name| (*name).to_owned());
        let refused = codes.into_iter().map(refused);
        Self(Mutex::new(names.chain(refused).map(|name| (name, 0)).collect()))
    }

    /// Counts one.
    pub(crate) fn count(&self, name: &str) {
        self.add(name, 1);
    }

    /// Counts several.
    pub(crate) fn add(&self, name: &str, number: u64) {
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match totals.get_mut(name) {
            Some(total) => *total += number,
            None => drop(totals.insert(name.to_owned(), number)),
        }
    }

    /// Counts a refusal.
    pub(crate) fn refused(&self, code: &str) {
        self.count(&refused(code));
    }

    /// All of them.
    pub(crate) fn totals(&self) -> Value {
        let totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Value::Object(totals.iter().map(|(name, total)| (name.clone(), Value::from(*total))).collect::<Map<_, _>>())
    }
}

fn refused(code: &str) -> String {
    format!("refused_{code}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_there_from_the_start() {
        let counters = Counters::new(&["pushes"], ["not_found"]);
        counters.refused("not_found");
        counters.add("pushes", 3);
        assert_eq!(counters.totals(), serde_json::json!({ "pushes": 3, "refused_not_found": 1 }));
    }
}
