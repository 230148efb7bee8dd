//! The one way to a worker from outside its thread.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use crossbeam::queue::ArrayQueue;
use ringfort_io::Waker;

use crate::Snapshot;

/// Letters waiting at one worker.
const LETTERS_MAX: usize = 4_096;
/// Letters with packets among them: some turns' worth of buffers from another worker. One that finds no room is not taken,
/// its packets are lost as on a full link; the rest of the room is the control side's.
const PACKET_LETTERS_MAX: usize = 1_024;

/// A letter.
#[derive(Debug)]
pub(crate) enum Mail<C> {
    /// For the machine.
    Command(C),
    /// Datagrams that another worker's socket received for a session of this one.
    Outside { from: SocketAddr, segment_bytes: usize, datagrams: Box<[u8]> },
    /// A frame that another worker's TUN queue delivered for a session of this one.
    Inside(Box<[u8]>),
    /// What did you count?
    Snapshot(SyncSender<Snapshot>),
}

/// Where a worker's letters wait.
#[derive(Debug)]
pub(crate) struct Mailbox<C> {
    letters: ArrayQueue<Mail<C>>,
    stop: AtomicBool,
    pub(crate) waker: Waker,
}

impl<C> Mailbox<C> {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { letters: ArrayQueue::new(LETTERS_MAX), stop: AtomicBool::new(false), waker: Waker::new()? })
    }

    /// Puts a letter in and wakes the worker; `false` when there is no room.
    pub(crate) fn send(&self, mail: Mail<C>) -> bool {
        let packets = matches!(mail, Mail::Outside { .. } | Mail::Inside(_));
        if packets && self.letters.len() >= PACKET_LETTERS_MAX {
            return false;
        }
        let taken = self.letters.push(mail).is_ok();
        self.waker.wake();
        taken
    }

    pub(crate) fn receive(&self) -> Option<Mail<C>> {
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
        let mailbox = Mailbox::<u32>::new().unwrap();
        let taken = (0..LETTERS_MAX).filter(|_| mailbox.send(Mail::Inside(Box::default()))).count();
        assert_eq!(taken, PACKET_LETTERS_MAX);
        assert!(mailbox.send(Mail::Command(1)));
        let taken = (0..LETTERS_MAX).filter(|_| mailbox.send(Mail::Command(2))).count();
        assert_eq!(taken, LETTERS_MAX - PACKET_LETTERS_MAX - 1);
        assert!(!mailbox.send(Mail::Command(3)));
        assert!(mailbox.receive().is_some() && mailbox.send(Mail::Command(4)));
    }
}
