//! One running client per folder, and how another process ends it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

/// The file in the state folder that a running client holds locked; it has its process id.
const PID_FILE: &str = "client.pid";
/// How long a client may take to end.
const END_TIME_MAX: Duration = Duration::from_secs(10);
/// Pause between two looks at whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The right to run with a folder. It ends with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Running {
    _file: File,
}

impl Running {
    /// Takes the folder `state` for this process.
    pub(crate) fn take(state: &Path) -> Result<Self> {
        let path = state.join(PID_FILE);
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = open().with_context(|| path.display().to_string())?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("a client runs with {} already; end it with `ringfort down`", state.display());
        }
        file.set_len(0)?;
        write!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

/// Ends the client that runs with the folder `state`, and waits for that. Says whether one was running.
///
/// # Errors
/// When it may not be signalled, or does not end within 10 s.
pub fn down(state: &Path) -> Result<bool> {
    let path = state.join(PID_FILE);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let mut signalled = false;
    let deadline = Instant::now() + END_TIME_MAX;
    // Who holds the lock is alive, so the process id is not somebody else's by now.
    while flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
        if !signalled {
            let mut text = String::new();
            file.rewind()?;
            Read::by_ref(&mut file).take(16).read_to_string(&mut text)?;
            // Between taking the lock and writing its id a client has none.
            if let Some(pid) = text.parse().ok().and_then(Pid::from_raw) {
                kill_process(pid, Signal::TERM).with_context(|| format!("cannot signal process {text}"))?;
                signalled = true;
            }
        }
        ensure!(Instant::now() < deadline, "the client did not end within {END_TIME_MAX:?}");
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(signalled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_runs_one_client() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!down(folder.path()).unwrap(), "nobody has ever run");
        let running = Running::take(folder.path()).unwrap();
        let error = Running::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains("ringfort down"), "{error}");
        drop(running);
        assert!(!down(folder.path()).unwrap(), "a stale file signals nobody");
        Running::take(folder.path()).unwrap();
    }
}
