//! A `ringfort login` with the folder of a client that runs: noticed when it renames its claims token, which it writes last, into place.

use std::mem::MaybeUninit;

use anyhow::{Context, Result};
use ringfort_enrol::Folder;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::tokens;

/// Room for what happened in the folder since the last look; an event takes at most 16 bytes and a file's name.
const EVENTS_BYTES: usize = 4 << 10;

/// Calls `changed` on a thread of its own each time that another claims token is in `folder`, until it gives `false`. Ours among them.
///
/// # Errors
/// When the folder cannot be watched.
pub(crate) fn watch(folder: &Folder, changed: impl Fn() -> bool + Send + 'static) -> Result<()> {
    let path = folder.path();
    let events = inotify::init(CreateFlags::CLOEXEC).context("the system watches no more files (inotify)")?;
    inotify::add_watch(&events, path, WatchFlags::MOVED_TO)
        .with_context(|| format!("{}: the folder cannot be watched", path.display()))?;
    let work = move || {
        let mut room = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut events = inotify::Reader::new(events, &mut room);
        loop {
            let goes_on = match events.next() {
                Ok(event) => {
                    // Without a name, events were lost: it may have been among them.
                    let is_other =
                        event.file_name().is_some_and(|name| name.to_bytes() != tokens::file::CLAIMS.as_bytes());
                    is_other || changed()
                }
                Err(Errno::INTR) => true,
                Err(error) => {
                    tracing::warn!(%error, "a login with this folder is no longer noticed");
                    false
                }
            };
            if !goes_on {
                return;
            }
        }
    };
    let spawned = std::thread::Builder::new().name("logins".into()).spawn(work);
    spawned.map(drop).context("no thread for logins beside this process")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use ringfort_enrol::Secrecy;

    use super::*;

    #[test]
    fn a_claims_token_is_noticed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(&place.path().join("state")).unwrap();
        let (tell, told) = channel();
        let kept = folder.clone();
        watch(&folder, move || tell.send(kept.read_text(tokens::file::CLAIMS).unwrap()).is_ok()).unwrap();
        folder.write(tokens::file::CONNECT, b"other", Secrecy::Secret).unwrap();
        for text in ["first", "second"] {
            folder.write(tokens::file::CLAIMS, text.as_bytes(), Secrecy::Secret).unwrap();
            assert_eq!(told.recv().unwrap(), text);
        }
        let nowhere = Folder::create(&place.path().join("gone")).unwrap();
        std::fs::remove_dir(nowhere.path()).unwrap();
        assert!(watch(&nowhere, || true).unwrap_err().to_string().contains("gone"));
    }
}
