//! The epoll backend: works where io_uring is refused, and is the oracle io_uring is compared with.
//!
//! One system call per eight UDP receives, per 128 UDP sends, per TUN read and per TUN write.

// UNSAFETY: hands the kernel pointers into the caller's departures and arrivals by sendmmsg, recvmmsg, read, writev.
#![expect(unsafe_code, reason = "system calls on buffers given by pointer")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::arrivals::Arrivals;
use crate::counters::Counters;
use crate::departures::Departures;
use crate::incoming::{Incoming, Outcome, take_frame};
use crate::outgoing::{Cursor, Outgoing};
use crate::tun::TunQueue;
use crate::udp::UdpSocket;
use crate::waker::Waker;
use crate::{Backend, PacketIo, Wait, sys};

/// Messages of one `recvmmsg`. Beyond a few the call itself costs nothing beside the copying.
const RECEIVES_PER_CALL: usize = 8;

const TOKEN_UDP: u64 = 0;
const TOKEN_TUN: u64 = 1;
const TOKEN_WAKER: u64 = 2;

pub(crate) struct EpollIo {
    epoll: OwnedFd,
    udp: UdpSocket,
    tun: TunQueue,
    waker: Waker,
    outgoing: Outgoing,
    incoming: Incoming,
    /// The last receive found nothing, and no edge was reported since.
    udp_drained: bool,
    tun_drained: bool,
    counters: Counters,
}

// SAFETY: the raw pointers in `outgoing` and `incoming` are followed only during the turn that stored them.
unsafe impl Send for EpollIo {}

impl EpollIo {
    pub(crate) fn new(udp: UdpSocket, tun: TunQueue, waker: &Waker) -> io::Result<Self> {
        let epoll = sys::epoll_create()?;
        sys::epoll_add(epoll.as_fd(), udp.as_fd(), TOKEN_UDP)?;
        sys::epoll_add(epoll.as_fd(), tun.as_fd(), TOKEN_TUN)?;
        sys::epoll_add(epoll.as_fd(), waker.as_fd(), TOKEN_WAKER)?;
        Ok(Self {
            epoll,
            outgoing: Outgoing::new(udp.family()),
            incoming: Incoming::new(),
            udp,
            tun,
            waker: waker.clone(),
            udp_drained: false,
            tun_drained: false,
            counters: Counters::default(),
        })
    }

    fn depart(&mut self, departures: &dyn Departures) {
        let mut cursor = Cursor::new(departures);
        loop {
            let done = self.outgoing.stage(departures, &mut cursor, &mut self.counters);
            self.write_frames();
            self.send_messages();
            self.outgoing.resend_refused(departures, &self.udp, &mut self.counters);
            if done {
                return;
            }
        }
    }

    /// Only to be called while the departures that were staged are borrowed.
    fn write_frames(&mut self) {
        for index in 0..self.outgoing.frames() {
            self.counters.system_calls += 1;
            // SAFETY: the pieces are slices of departures, which the turn has borrowed.
            let written = unsafe { sys::writev(self.tun.as_fd(), self.outgoing.frame(index)) };
            Outgoing::written(written.map_or_else(|error| number(&error), |_| 0), &mut self.counters);
        }
    }

    /// Only to be called while the departures that were staged are borrowed.
    fn send_messages(&mut self) {
        let count = self.outgoing.messages().len();
        let mut next = 0;
        while next < count {
            self.counters.system_calls += 1;
            let messages = &mut self.outgoing.messages()[next..];
            // SAFETY: data is slices of departures, which the turn has borrowed; names and controls lie in
            // `outgoing`, which nobody touches during the call. All are only read.
            match unsafe { sys::sendmmsg(self.udp.as_fd(), messages) } {
                Ok(sent) => {
                    for index in next..next + sent {
                        self.outgoing.sent(index, 0, &mut self.counters);
                    }
                    next += sent;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // What the buffer has no room for now it will not have for the next message either.
                    for index in next..count {
                        self.outgoing.sent(index, number(&error), &mut self.counters);
                    }
                    return;
                }
                Err(error) => {
                    self.outgoing.sent(next, number(&error), &mut self.counters);
                    next += 1;
                }
            }
        }
    }

    fn arrive(&mut self, arrivals: &mut Arrivals, wait: Wait) -> io::Result<()> {
        let may_block = arrivals.is_empty() && wait != Wait::Poll;
        if !(may_block && self.udp_drained && self.tun_drained) {
            // Where a receive is due anyway, trying both costs less than asking epoll which one is ready.
            self.udp_drained = false;
            self.tun_drained = false;
            self.receive(arrivals)?;
        }
        if !may_block || !arrivals.is_empty() || !self.udp_drained || !self.tun_drained {
            return Ok(());
        }
        if self.waker.fall_asleep() {
            self.sleep(wait)?;
            self.receive(arrivals)?;
        }
        Ok(())
    }

    /// Waits for an edge and notes what it was.
    fn sleep(&mut self, wait: Wait) -> io::Result<()> {
        let timeout_ms = match wait {
            Wait::Poll => 0,
            Wait::For(duration) => milliseconds(duration),
            Wait::Forever => -1,
        };
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 3];
        self.counters.system_calls += 1;
        let count = match sys::epoll_wait(self.epoll.as_fd(), &mut events, timeout_ms) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            done => done?,
        };
        for event in events.iter().take(count) {
            match event.u64 {
                TOKEN_UDP => self.udp_drained = false,
                TOKEN_TUN => self.tun_drained = false,
                _ => {}
            }
        }
        Ok(())
    }

    fn receive(&mut self, arrivals: &mut Arrivals) -> io::Result<()> {
        if !self.udp_drained {
            self.receive_datagrams(arrivals)?;
        }
        if !self.tun_drained {
            self.read_frames(arrivals)?;
        }
        Ok(())
    }

    fn receive_datagrams(&mut self, arrivals: &mut Arrivals) -> io::Result<()> {
        loop {
            self.incoming.stage(arrivals.outside_slots(), RECEIVES_PER_CALL);
            let asked = self.incoming.messages().len();
            if asked == 0 {
                return Ok(());
            }
            self.counters.system_calls += 1;
            // SAFETY: data points to free slots of the arrivals, which the turn has borrowed mutably; names and
            // controls lie in `incoming`. Nobody touches either during the call.
            let received = match unsafe { sys::recvmmsg(self.udp.as_fd(), self.incoming.messages()) } {
                Ok(received) => received,
                Err(error) => {
                    match self.incoming.take(0, number(&error), arrivals, &mut self.counters) {
                        Outcome::Drained => self.udp_drained = true,
                        Outcome::Broken(error) => return Err(error),
                        Outcome::Taken | Outcome::Unclear => {}
                    }
                    return Ok(());
                }
            };
            for index in 0..received {
                let length = self.incoming.messages().get(index).map_or(0, |message| message.msg_len);
                let length = i32::try_from(length).unwrap_or(i32::MAX);
                self.incoming.take(index, length, arrivals, &mut self.counters);
            }
            if received < asked {
                // Most likely drained, but an error may stand before further datagrams: only EAGAIN proves it.
                return Ok(());
            }
        }
    }

    /// Reads until nothing is left or the free inside slots, the budget of a turn, are filled.
    fn read_frames(&mut self, arrivals: &mut Arrivals) -> io::Result<()> {
        let slots = arrivals.inside_slots();
        while slots.free() > 0 {
            let (buffer, slot_bytes) = (slots.next_buffer(), slots.slot_bytes());
            let start = slots.base().wrapping_add(buffer * slot_bytes);
            self.counters.system_calls += 1;
            // SAFETY: the slot is free and `slot_bytes` long; the turn has borrowed the arrivals mutably and
            // nobody touches them during the call.
            let read = unsafe { sys::read(self.tun.as_fd(), start, slot_bytes) };
            let result = read.map_or_else(|error| number(&error), |length| i32::try_from(length).unwrap_or(i32::MAX));
            match take_frame(buffer, result, slots, &mut self.counters) {
                Outcome::Taken => {}
                Outcome::Drained => {
                    self.tun_drained = true;
                    return Ok(());
                }
                Outcome::Unclear => return Ok(()),
                Outcome::Broken(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl PacketIo for EpollIo {
    fn turn(&mut self, departures: &dyn Departures, arrivals: &mut Arrivals, wait: Wait) -> io::Result<()> {
        self.counters.turns += 1;
        self.depart(departures);
        let done = self.arrive(arrivals, wait);
        self.waker.rise();
        done
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn backend(&self) -> Backend {
        Backend::Epoll
    }
}

/// Rounded up, so that a wait never ends before its time and a short one does not spin.
fn milliseconds(duration: Duration) -> libc::c_int {
    libc::c_int::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
}

/// An error as the negative number completions carry.
fn number(error: &io::Error) -> i32 {
    -error.raw_os_error().unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up_and_bounded() {
        assert_eq!(milliseconds(Duration::ZERO), 0);
        assert_eq!(milliseconds(Duration::from_nanos(1)), 1);
        assert_eq!(milliseconds(Duration::from_millis(20)), 20);
        assert_eq!(milliseconds(Duration::MAX), libc::c_int::MAX);
    }
}
