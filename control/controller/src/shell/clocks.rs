//! How far Gateways' clocks are from ours, by their heartbeats.
//!
//! A Gateway judges tokens by our time and admits nobody new while its clock is far off; here it is said to whoever looks at the
//! Controller. Half of a report's way is in the figure.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Milliseconds from which on a clock is wrong (`docs/CONTROL.md`, "Time").
const WRONG_MS: u64 = 30_000;

/// The last difference of each Gateway, by id.
#[derive(Debug, Default)]
pub(crate) struct Clocks(Mutex<BTreeMap<String, i64>>);

impl Clocks {
    /// Takes what a Gateway's clock says while ours says `ours`, both in milliseconds since 1970. One that goes wrong, or right again,
    /// is logged.
    pub(crate) fn note(&self, gateway: &str, theirs: u64, ours: u64) {
        let ahead_ms = i64::try_from(i128::from(theirs) - i128::from(ours)).unwrap_or(i64::MAX);
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(gateway.into(), ahead_ms);
        let is_wrong = |ahead: i64| ahead.unsigned_abs() > WRONG_MS;
        match (before.is_some_and(is_wrong), is_wrong(ahead_ms)) {
            (false, true) => tracing::error!(
                gateway,
                ahead_ms,
                "expected a Gateway's clock within 30 s of ours, found another: set the clocks, it admits nobody new"
            ),
            (true, false) => tracing::info!(gateway, ahead_ms, "the Gateway's clock is right again"),
            (false, false) | (true, true) => {}
        }
    }

    /// How far ahead of ours a Gateway's clock was, in milliseconds.
    pub(crate) fn ahead_ms(&self, gateway: &str) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(gateway).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_may_be_behind_and_ahead_and_anything_at_all() {
        let clocks = Clocks::default();
        assert_eq!(clocks.ahead_ms("a"), None);
        for (theirs, ours, ahead) in [(5, 7, -2), (9, 7, 2), (0, u64::MAX, -i64::MAX - 1), (u64::MAX, 0, i64::MAX)] {
            clocks.note("a", theirs, ours);
            let found = clocks.ahead_ms("a").unwrap();
            assert!(found == ahead || found.unsigned_abs() >= 1 << 62, "{found}");
        }
    }
}
