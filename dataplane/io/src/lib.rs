//! The data plane's system calls: one UDP socket and one TUN queue per worker, read and written in batches.
//!
//! [`PacketIo::turn`] is one round of a worker's loop: it writes everything the worker has to say and receives
//! what the kernel holds, by one of two backends behind the same trait: [`Backend::IoUring`], or its twin
//! [`Backend::Epoll`] where containers and hardened hosts refuse io_uring. The speed comes from four offloads that
//! both backends use alike (UDP GRO, `UDP_SEGMENT`, TUN TSO and USO through the vnet header); the ring only
//! carries the loop, and makes small frames cost far below one system call each.
//!
//! The call order of a worker's thread:
//! 1. [`UdpSocket::bind`], [`Tun::open`] and [`Waker::new`], on any thread;
//! 2. [`open`], on the thread that will call `turn`;
//! 3. for ever: `turn`, then look into the mailboxes whose senders call [`Waker::wake`], then work on what arrived.
//!
//! **The invariant that makes it sound.** Every operation that touches memory of the caller has completed when
//! `turn` returns, also when it returns an error: all of them are non-blocking, each one's completion is waited
//! for, and where the ring itself fails while an operation is outstanding the process aborts. So plain borrows
//! are enough, and only polls, which have no buffers, stay armed between turns.
//!
//! This crate knows bytes and file descriptors only: no packets, sessions, keys or rules. It never logs, never
//! allocates after start and does not retry what the kernel refused; it counts ([`Counters`]).
//!
//! It is the only crate of the project that may be unsafe. `sys` wraps system calls one by one; `uring` and
//! `epoll` hand pointers to the kernel. Everything else here is safe code.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod address;
mod arrivals;
mod control;
mod counters;
mod departures;
mod epoll;
mod incoming;
mod outgoing;
mod sys;
mod tap;
mod tun;
mod udp;
mod uring;
mod waker;

use std::fmt;
use std::io;
use std::time::Duration;

pub use arrivals::{Arrivals, Datagrams};
pub use counters::Counters;
pub use departures::{Departures, NoDepartures, SEGMENTS_MAX, SEND_BYTES_MAX, Send};
pub use tap::PacketTap;
pub use tun::{Offloads, Tun, TunError, TunQueue};
pub use udp::{PortSharing, UdpSocket};
pub use waker::Waker;

/// Bytes of one arrival slot: room for the largest GRO batch (65,535) or the largest TUN super-frame (65,536 with
/// its headers) after the vnet header. Rounded up to pages; not a power of two, so that the beginnings of slots,
/// where the headers are, do not all compete for the same cache sets.
pub const SLOT_BYTES: usize = 17 * 4096;

/// Bytes of the virtio-net header before each packet of a [`TunQueue`], in both directions. Its fields are in the
/// byte order of the host.
pub const VNET_HEADER_BYTES: usize = 10;

/// Which backend [`open`] shall use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendChoice {
    /// io_uring, or epoll where the kernel refuses it.
    Auto,
    /// io_uring or an error.
    IoUring,
    /// epoll.
    Epoll,
}

/// The backend in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// One `io_uring_enter` per turn carries all operations.
    IoUring,
    /// `epoll_wait`, `recvmmsg`, `sendmmsg`, `read` and `writev`.
    Epoll,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// How long a turn that found nothing to receive may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Poll,
    /// At most this long. The epoll backend rounds up to whole milliseconds.
    For(Duration),
    /// Until something arrives or the waker is called.
    Forever,
}

/// The worker's one door to the kernel.
///
/// It may be sent to another thread before its first turn only with the epoll backend: the kernel serves a ring
/// only to the thread that made it and a turn elsewhere aborts the process.
pub trait PacketIo: std::marker::Send {
    /// Writes all `departures`, TUN frames first, then appends what the kernel holds to `arrivals`, up to their
    /// free slots.
    ///
    /// Blocks as `wait` allows only if nothing was received, `arrivals` was empty, both descriptors were last seen
    /// drained and the [`Waker`] was not called. It may return early with nothing (a signal, a stale readiness);
    /// the caller does its rounds and calls again.
    ///
    /// What the kernel has no room for is dropped and counted, as a link would.
    ///
    /// # Errors
    /// A descriptor or the ring is unusable for good (the TUN device was deleted, say). Departures may be lost;
    /// `arrivals` holds what came in before.
    fn turn(&mut self, departures: &dyn Departures, arrivals: &mut Arrivals, wait: Wait) -> io::Result<()>;

    /// What happened since [`open`].
    fn counters(&self) -> &Counters;

    /// Which backend this is.
    fn backend(&self) -> Backend;
}

/// No backend could be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The kernel refuses io_uring or lacks a part of it; the text says which and names the remedy.
    #[error("io_uring cannot be used: {0}")]
    IoUring(String),
    /// The epoll instance could not be made.
    #[error("epoll cannot be used: {0}")]
    Epoll(#[source] io::Error),
}

/// Joins a socket, a TUN queue and a waker into a worker's [`PacketIo`]. Call it on the worker's own thread: a
/// ring serves only the thread that made it.
///
/// With [`BackendChoice::Auto`] the second value says why epoll was taken instead of io_uring, for the log.
///
/// # Errors
/// [`OpenError`]; with `Auto` only if epoll fails as well.
pub fn open(
    choice: BackendChoice,
    udp: UdpSocket,
    tun: TunQueue,
    waker: &Waker,
) -> Result<(Box<dyn PacketIo>, Option<String>), OpenError> {
    let refusal = match choice {
        BackendChoice::Epoll => None,
        BackendChoice::Auto | BackendChoice::IoUring => match uring::Ring::create(&udp, &tun, waker) {
            Ok(ring) => return Ok((Box::new(uring::UringIo::new(ring, udp, tun, waker)), None)),
            Err(refusal) if choice == BackendChoice::IoUring => return Err(OpenError::IoUring(refusal)),
            Err(refusal) => Some(refusal),
        },
    };
    let epoll = epoll::EpollIo::new(udp, tun, waker).map_err(OpenError::Epoll)?;
    Ok((Box::new(epoll), refusal))
}
