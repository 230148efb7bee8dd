//! What a Gateway says of itself when asked.

use ringfort_admission::fixed::Admission;
use ringfort_admission::{Denial, destination};
use ringfort_policy::Catalogue;
use ringfort_types::RuleId;
use ringfort_worker::Snapshot;
use serde_json::{Map, Value, json};

/// The whole state: sessions, denials, and each worker's counters with their sums.
pub(crate) fn document(
    admission: &Admission,
    catalogue: &Catalogue,
    workers: &[Value],
    snapshots: &[Snapshot],
) -> Value {
    let sessions: Vec<Value> = admission
        .live()
        .map(|(id, live)| {
            json!({
                "session": id.to_string(),
                "user": &*live.user.name,
                "device": &*live.device,
                "outer": live.outer.to_string(),
                "inner": live.user.inner.iter().map(|address| address.to_string()).collect::<Vec<_>>(),
            })
        })
        .collect();
    let denials: Vec<Value> =
        admission.denials().map(|found| denial(found, rule_name(found.rule, catalogue))).collect();
    json!({
        "role": "gateway",
        "workers": workers,
        "sessions": sessions,
        "denials": denials,
        "counters": snapshots.iter().map(counters).collect::<Vec<_>>(),
        "totals": totals(snapshots),
    })
}

/// A denial by the rule of this name.
pub(crate) fn denial(denial: &Denial, rule: &str) -> Value {
    json!({ "user": &*denial.user, "destination": destination(&denial.flow), "rule": rule, "count": denial.count })
}

/// The name people gave the rule.
pub(crate) fn rule_name(rule: Option<RuleId>, catalogue: &Catalogue) -> &str {
    catalogue.denied_by(rule).unwrap_or("a rule of an earlier policy")
}

/// One worker's counters.
pub(crate) fn counters(snapshot: &Snapshot) -> Value {
    let entries = snapshot.counters.iter().map(|(name, count)| ((*name).to_owned(), Value::from(*count)));
    Value::Object(entries.collect())
}

/// The sums over all workers.
pub(crate) fn totals(snapshots: &[Snapshot]) -> Value {
    let mut totals = Map::new();
    for (name, count) in snapshots.iter().flat_map(|snapshot| &snapshot.counters) {
        let before = totals.get(*name).and_then(Value::as_u64).unwrap_or_default();
        totals.insert((*name).to_owned(), Value::from(before.saturating_add(*count)));
    }
    Value::Object(totals)
}

#[cfg(test)]
mod tests {
    use ringfort_types::WorkerIndex;

    use super::*;

    #[test]
    fn totals_add_up_over_workers() {
        let snapshot = |worker, count| Snapshot { worker: WorkerIndex(worker), counters: vec![("a", count), ("b", 1)] };
        assert_eq!(totals(&[snapshot(0, 2), snapshot(1, 3)]), json!({ "a": 5, "b": 2 }));
    }
}
