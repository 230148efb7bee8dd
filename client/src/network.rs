//! When the machine's own network changes: another Wi-Fi, a cable, an address that is taken back (X10).

use std::time::Duration;

use ringfort_link::{Changes, LinkError};

/// What changes in one go, address by address and route by route, is one change.
const SETTLES_IN: Duration = Duration::from_millis(250);

/// Calls `changed` on a thread of its own after each change of the machine's addresses or routes, once that has settled, until it
/// gives `false`.
///
/// # Errors
/// When nothing can be heard of changes.
pub(crate) fn watch(changed: impl Fn() -> bool + Send + 'static) -> Result<(), LinkError> {
    let mut changes = Changes::open()?;
    let work = move || {
        while let Ok(()) = changes.wait() {
            std::thread::sleep(SETTLES_IN);
            if !changed() {
                return;
            }
        }
    };
    let spawned = std::thread::Builder::new().name("network".into()).spawn(work);
    spawned.map(drop).map_err(LinkError::Open)
}
