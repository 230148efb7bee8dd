//! The one way to a worker from outside its thread.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use ringfort_engine::Machine;
use ringfort_io::Waker;

use crate::Snapshot;

/// Letters waiting at one worker.
const LETTERS_MAX: usize = 4_096;
/// Letters with packets among them: some turns' worth of buffers from another worker. One that finds no room is not taken,
/// its packets are lost as on a full link; the rest of the room is the control side's.
const PACKET_LETTERS_MAX: usize = 1_024;

/// A letter.
#[derive(Debug)]
pub(crate) enum Mail<C, E> {
    /// For the machine.
    Command(C),
    /// An errand of the machine's that has been run.
    Errand(E),
    /// Datagrams that another worker's socket received for a session of this one.
    Outside { from: SocketAddr, segment_bytes: usize, datagrams: Box<[u8]> },
    /// A frame that another worker's TUN queue delivered for a session of this one.
    Inside(Box<[u8]>),
    /// What did you count?
    Snapshot(SyncSender<Snapshot>),
}

/// Where a worker's letters wait.
#[derive(Debug)]
pub(crate) struct Mailbox<C, E> {
    letters: ArrayQueue<Mail<C, E>>,
    stop: AtomicBool,
    pub(crate) waker: Waker,
}

/// The mailbox of a worker with this machine.
pub(crate) type MailboxOf<M> = Mailbox<<M as Machine>::Command, <M as Machine>::Errand>;

impl<C, E> Mailbox<C, E> {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { letters: ArrayQueue::new(LETTERS_MAX), stop: AtomicBool::new(false), waker: Waker::new()? })
    }

    /// Puts a letter in and wakes the worker; `false` when there is no room.
    pub(crate) fn send(&self, mail: Mail<C, E>) -> bool {
        let packets = matches!(mail, Mail::Outside { .. } | Mail::Inside(_));
        if packets && self.letters.len() >= PACKET_LETTERS_MAX {
            return false;
        }
        let taken = self.letters.push(mail).is_ok();
        self.waker.wake();
        taken
    }

    /// Puts a letter in that must not be lost, and waits for room. A worker that is to end is not waited for.
    pub(crate) fn bring_back(&self, mut mail: Mail<C, E>) {
        while let Err(back) = self.letters.push(mail) {
            if self.is_stopped() {
                return;
            }
            mail = back;
            std::thread::sleep(Duration::from_millis(1));
        }
        self.waker.wake();
    }

    pub(crate) fn receive(&self) -> Option<Mail<C, E>> {
        self.letters.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Asks the worker to end. It needs no room.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_room_for_commands() {
        let mailbox = Mailbox::<u32, ()>::new().unwrap();
        let taken = (0..LETTERS_MAX).filter(|_| mailbox.send(Mail::Inside(Box::default()))).count();
        assert_eq!(taken, PACKET_LETTERS_MAX);
        assert!(mailbox.send(Mail::Command(1)));
        let taken = (0..LETTERS_MAX).filter(|_| mailbox.send(Mail::Command(2))).count();
        assert_eq!(taken, LETTERS_MAX - PACKET_LETTERS_MAX - 1);
        assert!(!mailbox.send(Mail::Command(3)));
        assert!(mailbox.receive().is_some() && mailbox.send(Mail::Command(4)));
    }
}
