//! Threads beside the workers, for what takes longer than packets can wait.
//!
//! They are not pinned and yield to the workers (a niceness of 10): on a busy machine new handshakes take longer, and packets that
//! pass are not slowed down. The queue before them is bounded; what finds no room stays with its worker.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ringfort_engine::{Errand, Machine};
use ringfort_types::WorkerIndex;
use rustix::process::{Pid, setpriority_process};
use rustix::thread::gettid;

use crate::mail::{Mail, MailboxOf};
use crate::now;

/// Errands that wait, for each thread: some tens of milliseconds of handshakes. More would only make all of them late.
const WAITING_PER_THREAD: usize = 64;
/// How much later than others their threads get a core.
const NICENESS: i32 = 10;

/// Where a worker gives its errands.
pub(crate) struct ErrandQueue<M: Machine>(SyncSender<(WorkerIndex, M::Errand)>);

impl<M: Machine> Clone for ErrandQueue<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Machine> ErrandQueue<M> {
    /// Gives an errand away, or gives it back if there is no room.
    pub(crate) fn give(&self, from: WorkerIndex, errand: M::Errand) -> Result<(), M::Errand> {
        self.0.try_send((from, errand)).map_err(|error| match error {
            TrySendError::Full((_, errand)) | TrySendError::Disconnected((_, errand)) => errand,
        })
    }
}

/// Starts `count` threads, which end when all ways to the queue are gone.
pub(crate) fn start<M: Machine + 'static>(
    count: usize,
    mailboxes: &Arc<[MailboxOf<M>]>,
) -> io::Result<(ErrandQueue<M>, Vec<JoinHandle<()>>)> {
    let (give, errands) = sync_channel(count * WAITING_PER_THREAD);
    let errands = Arc::new(Mutex::new(errands));
    let threads = (0..count).map(|number| {
        let (errands, mailboxes) = (Arc::clone(&errands), Arc::clone(mailboxes));
        std::thread::Builder::new().name(format!("helper-{number}")).spawn(move || run::<M>(&errands, &mailboxes))
    });
    Ok((ErrandQueue(give), threads.collect::<io::Result<_>>()?))
}

fn run<M: Machine>(errands: &Mutex<Receiver<(WorkerIndex, M::Errand)>>, mailboxes: &[MailboxOf<M>]) {
    // Linux takes a thread's number for a process's here. If it does not let us, packets compete with handshakes.
    let _ = setpriority_process(Pid::from_raw(gettid().as_raw_nonzero().get()), NICENESS);
    loop {
        let next = errands.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((from, errand)) = next else { return };
        // One that panics, which has said so on standard error, is gone; its machine gives it up in time.
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let mut errand = errand;
            errand.run(now());
            errand
        }));
        if let Ok(errand) = ran
            && let Some(mailbox) = mailboxes.get(usize::from(from.0))
        {
            mailbox.bring_back(Mail::Errand(errand));
        }
    }
}
