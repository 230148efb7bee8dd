//! Wakes a worker that sleeps in the kernel, and costs no system call while it is awake.
//!
//! One word says what the worker does. A sender leaves `PENDING`; the worker goes to sleep only by replacing
//! `AWAKE` with `ASLEEP`, so a message left before keeps it awake, and it returns to `AWAKE` at the end of each
//! turn, before it looks into its mailboxes. All exchanges are read-modify-writes of the one word, so whoever
//! comes second sees what the first left, and the message behind it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::sys;

const AWAKE: u8 = 0;
const PENDING: u8 = 1;
const ASLEEP: u8 = 2;

/// Ends the wait of one worker's turn. Clones wake the same worker.
///
/// The worker must look into its mailboxes after every turn, and a sender must fill the mailbox before it wakes.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: AtomicU8,
    event: File,
}

impl Waker {
    /// A waker for one worker; give it to [`open`](crate::open).
    ///
    /// # Errors
    /// The event descriptor could not be made: the process has too many files open.
    pub fn new() -> io::Result<Self> {
        let event = File::from(sys::event_fd()?);
        Ok(Self(Arc::new(Inner { state: AtomicU8::new(AWAKE), event })))
    }

    /// Lets the worker's current or next turn return without waiting. A system call only if the worker sleeps and
    /// nobody else has woken it.
    pub fn wake(&self) {
        if self.0.state.swap(PENDING, Ordering::AcqRel) == ASLEEP {
            // It can only fail when 2⁶⁴ − 1 wake-ups are unread, and then the descriptor is readable anyway. The
            // worker does not read it: the polls on it report edges, and each write is one.
            let _ = (&self.0.event).write(&1u64.to_ne_bytes());
        }
    }

    /// Announces that the worker will block; `false` if it must not, because it was woken.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.0.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Forgets the wake-ups so far. The caller looks into its mailboxes afterwards.
    pub(crate) fn rise(&self) {
        self.0.state.swap(AWAKE, Ordering::AcqRel);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
