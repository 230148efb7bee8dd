//! When the machine's own network changes: another Wi-Fi, a cable, an address that is taken back (X10).

use std::time::Duration;

use anyhow::{Context, Result};
use ringfort_link::Changes;

/// What changes in one go, address by address and route by route, is one change.
const SETTLES_IN: Duration = Duration::from_millis(250);

/// Calls `changed` on a thread of its own after each change of the machine's addresses or routes, once that has settled, until it
/// gives `false`.
///
/// # Errors
/// When nothing can be heard of changes.
pub(crate) fn watch(changed: impl Fn() -> bool + Send + 'static) -> Result<()> {
    let mut changes = Changes::open()?;
    let work = move || {
        loop {
            if let Err(error) = changes.wait() {
                return tracing::warn!(%error, "changes of this machine's address are no longer followed");
            }
            std::thread::sleep(SETTLES_IN);
            if !changed() {
                return;
            }
        }
    };
    let spawned = std::thread::Builder::new().name("network".into()).spawn(work);
    spawned.map(drop).context("no thread for changes of the network")
}
