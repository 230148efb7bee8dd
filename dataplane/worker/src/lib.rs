//! Pinned threads, each a [`Machine`] joined to a UDP socket and a TUN queue.
//!
//! A worker works in turns: received datagrams, TUN frames, timers, mail, then one `PacketIo::turn` that writes all that
//! came of it and receives anew. Workers share nothing; a buffer that belongs to a session of another worker is copied
//! into that worker's mailbox, which is the one way between them.
//!
//! What takes longer than packets can wait, an [`Errand`](ringfort_engine::Errand), a worker gives to a helper thread and gets back
//! as a letter.
//!
//! [`spawn`] starts the workers of a process, [`Workers`] talks to them. What a worker has to tell goes to a sink given at
//! the start; a sink that is full gets the same report again on the next turn, so nothing is lost and no worker waits.
//!
//! This crate deliberately knows nothing of sessions, rules or packets, and makes no sockets: it is handed them.
//! Requirements: K2.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod helpers;
mod mail;
mod run;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringfort_engine::{Machine, Now};
use ringfort_io::{Backend, BackendChoice, OpenError, TunQueue, UdpSocket};
use ringfort_types::{BootInstant, WorkerIndex};
use rustix::thread::{CpuSet, sched_getaffinity};
use rustix::time::{ClockId, clock_gettime};

use mail::{Mail, Mailbox, MailboxOf};
use run::Shared;

/// How long [`Workers::snapshot`] waits for each worker.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(1);
/// How long [`Workers::broadcast`] waits for room in each mailbox.
const BROADCAST_WAIT: Duration = Duration::from_secs(1);

/// What one worker starts with.
#[derive(Debug)]
pub struct Worker<M> {
    /// Its machine.
    pub machine: M,
    /// Its socket.
    pub udp: UdpSocket,
    /// Its TUN queue.
    pub tun: TunQueue,
    /// The core it is pinned to; `None` leaves it to the scheduler.
    pub core: Option<usize>,
}

/// What a worker tells.
#[derive(Debug)]
pub enum Report<E> {
    /// It runs.
    Started {
        /// By which backend it reads and writes.
        backend: Backend,
        /// Why it is not io_uring, where the choice was left open.
        fallback: Option<String>,
        /// The core it is pinned to.
        core: Option<usize>,
    },
    /// Its machine has something to say.
    Event(E),
    /// It ended; an error if nobody asked it to.
    Ended(Result<(), WorkerError>),
}

/// Why a worker ended on its own. It cannot go on; the process should end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The thread could not be pinned.
    #[error("cannot pin a worker to core {core}: {source}; name cores that this process may use")]
    Pin {
        /// The core asked for.
        core: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// No backend could be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The machine panicked, and said so on standard error.
    #[error("the worker panicked")]
    Panicked,
    /// Reading or writing failed for good.
    #[error("packet I/O failed: {0}")]
    Io(#[from] io::Error),
}

/// A worker reads its letters no more.
#[derive(Debug, thiserror::Error)]
#[error("worker {0} reads its letters no more")]
pub struct Deaf(pub WorkerIndex);

/// Takes reports; gives one back when it has no room, and gets it again later. Called on the worker's thread.
pub type Sink<E> = Arc<dyn Fn(WorkerIndex, Report<E>) -> Result<(), Report<E>> + Send + Sync>;

/// The running workers of one process. Dropping it stops them.
pub struct Workers<M: Machine> {
    mailboxes: Arc<[MailboxOf<M>]>,
    /// The workers', then the helpers'.
    threads: Vec<JoinHandle<()>>,
}

impl<M: Machine> fmt::Debug for Workers<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("count", &self.count()).finish_non_exhaustive()
    }
}

/// What one worker counted.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Which worker.
    pub worker: WorkerIndex,
    /// The machine's counters, then those of its I/O, each with its name.
    pub counters: Vec<(&'static str, u64)>,
}

/// The cores that the calling thread may use, in order.
///
/// # Errors
/// What the kernel said.
pub fn usable_cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// This moment, as machines are given it.
#[must_use]
pub fn now() -> Now {
    let time = clock_gettime(ClockId::Boottime);
    let nanos = time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs();
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { boot: BootInstant::from_nanos(nanos), unix }
}

/// Starts one thread per worker, and `helpers` threads for their errands: none for machines that have none.
///
/// # Errors
/// When a thread or its mailbox could not be made. What goes wrong on a worker's thread comes as [`Report::Ended`].
pub fn spawn<M: Machine + 'static>(
    workers: Vec<Worker<M>>,
    choice: BackendChoice,
    helpers: usize,
    sink: &Sink<M::Event>,
) -> io::Result<Workers<M>> {
    let mailboxes: Arc<[_]> = workers.iter().map(|_| Mailbox::new()).collect::<io::Result<Vec<_>>>()?.into();
    let mut running =
        Workers { mailboxes: Arc::clone(&mailboxes), threads: Vec::with_capacity(workers.len() + helpers) };
    let (errands, helpers) = match helpers {
        0 => (None, Vec::new()),
        count => helpers::start::<M>(count, &mailboxes).map(|(errands, threads)| (Some(errands), threads))?,
    };
    for (index, worker) in (0..=u8::MAX).map(WorkerIndex).zip(workers) {
        let (mailboxes, sink, errands) = (Arc::clone(&mailboxes), Arc::clone(sink), errands.clone());
        let thread = std::thread::Builder::new()
            .name(format!("ringfort-{index}"))
            .spawn(move || run::run(index, worker, choice, Shared { mailboxes: &mailboxes, errands, sink: &sink }))?;
        running.threads.push(thread);
    }
    // They end when the last worker has, and with it the way to them.
    running.threads.extend(helpers);
    Ok(running)
}

impl<M: Machine> Workers<M> {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.mailboxes.len()
    }

    /// Sends a command to every worker, waiting up to a second for room where a mailbox is full.
    ///
    /// # Errors
    /// [`Deaf`] names a worker that read no letter in that time.
    pub fn broadcast(&self, command: &M::Command) -> Result<(), Deaf>
    where
        M::Command: Clone,
    {
        for (index, mailbox) in (0..=u8::MAX).map(WorkerIndex).zip(self.mailboxes.iter()) {
            let deadline = Instant::now() + BROADCAST_WAIT;
            while !mailbox.send(Mail::Command(command.clone())) {
                if Instant::now() >= deadline {
                    return Err(Deaf(index));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Asks every worker what it counted. One that does not answer within a second is left out.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Snapshot> {
        let (answer, answers) = mpsc::sync_channel(self.mailboxes.len());
        let asked = self.mailboxes.iter().filter(|mailbox| mailbox.send(Mail::Snapshot(answer.clone()))).count();
        let mut snapshots: Vec<Snapshot> = (0..asked).map_while(|_| answers.recv_timeout(SNAPSHOT_WAIT).ok()).collect();
        snapshots.sort_by_key(|snapshot| snapshot.worker);
        snapshots
    }

    /// Tells the workers to say goodbye to their peers and to end, and waits for that.
    pub fn stop(&mut self) {
        for mailbox in self.mailboxes.iter() {
            mailbox.stop();
        }
        for thread in self.threads.drain(..) {
            // A worker that panicked has reported so by the panic itself.
            drop(thread.join());
        }
    }
}

impl<M: Machine> Drop for Workers<M> {
    fn drop(&mut self) {
        self.stop();
    }
}
