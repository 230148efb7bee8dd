//! What an enrolled Gateway keeps on disk beyond its identity, and the thread that writes it.
//!
//! Writing waits for the disk, and revocations do not wait for writing: the control thread hands over what changed, and of
//! what changes faster than the disk writes only the newest is written. That a revocation is in force is confirmed to the
//! Controller only once it would survive a restart.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use ringfort_admission::{Admission, Part, Persisted};
use ringfort_enrol::{Folder, Secrecy};
use ringfort_types::UnixSeconds;
use rustls_pki_types::CertificateDer;
use serde::de::DeserializeOwned;

/// The newest configuration (rf-gateway+jwt).
const CONFIGURATION: &str = "configuration.jwt";
/// What was taken back.
const REVOCATIONS: &str = "revocations.json";
/// The highest sequence numbers seen.
const SEQUENCES: &str = "sequences.json";
/// The last time that a Controller told, in seconds since 1970.
const TIME: &str = "time.json";
/// How long after a write that failed it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long the thread sleeps with nothing to do.
const IDLE: Duration = Duration::from_secs(3600);

/// Reads what an earlier process kept. What cannot be read is an error: to start without its revocations would let in whom
/// it refused before.
pub(super) fn load(folder: &Folder) -> Result<(Persisted, UnixSeconds)> {
    let configuration = folder.has(CONFIGURATION).then(|| folder.read_text(CONFIGURATION)).transpose()?;
    let persisted =
        Persisted { configuration, revocations: json(folder, REVOCATIONS)?, sequences: json(folder, SEQUENCES)? };
    Ok((persisted, UnixSeconds(json(folder, TIME)?)))
}

fn json<T: DeserializeOwned + Default>(folder: &Folder, name: &str) -> Result<T> {
    if !folder.has(name) {
        return Ok(T::default());
    }
    let path = folder.file(name).display().to_string();
    serde_json::from_slice(&folder.read(name)?)
        .with_context(|| format!("{path}: expected what this Gateway has written; restore it, or join anew"))
}

/// Writes files on a thread of its own. Dropping it writes what is left.
#[derive(Debug)]
pub(super) struct Writer {
    send: Option<Sender<(&'static str, Vec<u8>)>>,
    thread: Option<JoinHandle<()>>,
    /// Files handed over, and those of them that are on disk or were overtaken by newer ones.
    handed: Cell<u64>,
    done: Arc<AtomicU64>,
}

impl Writer {
    /// `written` is called on the writing thread after each time that something came to disk.
    pub(super) fn start(folder: Folder, written: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (send, files) = channel();
        let done = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&done);
        let work = move || write(&folder, &files, &told, &written);
        let thread = std::thread::Builder::new().name("journal".into()).spawn(work)?;
        Ok(Self { send: Some(send), thread: Some(thread), handed: Cell::new(0), done })
    }

    /// Whether everything that was handed over is on disk.
    pub(super) fn is_idle(&self) -> bool {
        self.done.load(Ordering::Acquire) == self.handed.get()
    }

    /// Writes a part of what survives a restart.
    pub(super) fn part(&self, part: Part, admission: &Admission) {
        let written = match part {
            Part::Configuration => {
                let text = admission.persisted_configuration().unwrap_or_default();
                Ok((CONFIGURATION, text.as_bytes().to_vec()))
            }
            Part::Revocations => {
                serde_json::to_vec(&admission.persisted_revocations()).map(|bytes| (REVOCATIONS, bytes))
            }
            Part::Sequences => serde_json::to_vec(&admission.persisted_sequences()).map(|bytes| (SEQUENCES, bytes)),
        };
        match written {
            Ok(file) => self.send(file),
            Err(error) => tracing::error!(?part, %error, "cannot write what must survive a restart"),
        }
    }

    /// Writes certificates (DER) as PEM.
    pub(super) fn certificates(&self, name: &'static str, certificates: &[CertificateDer<'_>]) {
        self.send((name, ringfort_enrol::to_pem(certificates).into_bytes()));
    }

    /// Writes the Controller's time.
    pub(super) fn time(&self, now: UnixSeconds) {
        self.send((TIME, now.to_string().into_bytes()));
    }

    fn send(&self, file: (&'static str, Vec<u8>)) {
        if let Some(send) = &self.send {
            self.handed.set(self.handed.get() + 1);
            // The thread ends only after us.
            drop(send.send(file));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.send = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn write(folder: &Folder, files: &Receiver<(&'static str, Vec<u8>)>, done: &AtomicU64, written: &impl Fn()) {
    // What the disk did not take stays here, until it does or something newer comes of the same name.
    let mut waiting = BTreeMap::new();
    let mut count = 0;
    loop {
        let first = match files.recv_timeout(if waiting.is_empty() { IDLE } else { AGAIN_AFTER }) {
            Ok(file) => Some(file),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        for (name, bytes) in first.into_iter().chain(files.try_iter()) {
            waiting.insert(name, bytes);
            count += 1;
        }
        waiting.retain(|name, bytes| match folder.write(name, bytes, Secrecy::Secret) {
            Ok(()) => false,
            Err(error) => {
                tracing::error!(%error, "cannot write what must survive a restart: make room or mend the disk");
                true
            }
        });
        if waiting.is_empty() && count > 0 {
            done.fetch_add(std::mem::take(&mut count), Ordering::AcqRel);
            written();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(&place.path().join("state")).unwrap();
        assert_eq!(load(&folder).unwrap(), (Persisted::default(), UnixSeconds(0)));
        let (told, written) = channel();
        let writer = Writer::start(folder.clone(), move || told.send(()).unwrap()).unwrap();
        assert!(writer.is_idle());
        for second in 1..=50 {
            writer.time(UnixSeconds(second));
        }
        let sequences = r#"{"configuration":3,"entitlements":{"UID=a,CN=b,O=c":{"seq":7,"keep_until":9}}}"#;
        writer.send((SEQUENCES, sequences.into()));
        while !writer.is_idle() {
            written.recv().unwrap();
        }
        drop(writer);
        let (persisted, time) = load(&folder).unwrap();
        assert_eq!((persisted.sequences.entitlements["UID=a,CN=b,O=c"].seq, time), (7, UnixSeconds(50)));
    }

    #[test]
    fn what_the_disk_does_not_take_is_not_called_written_and_is_tried_again() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(&place.path().join("state")).unwrap();
        // A folder in the file's place: not even root can write over it.
        std::fs::create_dir_all(folder.file(REVOCATIONS).join("in the way")).unwrap();
        let (told, written) = channel();
        let writer = Writer::start(folder.clone(), move || told.send(()).unwrap()).unwrap();
        writer.send((REVOCATIONS, b"{}".to_vec()));
        writer.time(UnixSeconds(1));
        assert!(written.recv_timeout(Duration::from_millis(300)).is_err());
        assert!(!writer.is_idle());
        std::fs::remove_dir_all(folder.file(REVOCATIONS)).unwrap();
        written.recv().unwrap();
        assert!(writer.is_idle());
        assert_eq!(folder.read(REVOCATIONS).unwrap(), b"{}");
    }

    #[test]
    fn a_damaged_file_keeps_the_gateway_from_starting() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(&place.path().join("state")).unwrap();
        folder.write(REVOCATIONS, b"{", Secrecy::Secret).unwrap();
        assert!(load(&folder).unwrap_err().to_string().contains(REVOCATIONS));
    }
}
