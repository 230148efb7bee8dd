//! Prepares receives into free slots and takes what the kernel left there.
//!
//! Like `outgoing` it stores pointers, here into the arrivals, and follows none.

use std::io;

use crate::address::Name;
use crate::arrivals::{Arrivals, Slots};
use crate::control::Control;
use crate::counters::Counters;
use crate::sys;

/// Receives from the UDP socket staged at once.
pub(crate) const RECEIVES_MAX: usize = 64;

/// What one receive or read came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Something was waiting, and was taken or dropped.
    Taken,
    /// Nothing was waiting.
    Drained,
    /// Nothing was taken, and it is not known whether something waits.
    Unclear,
    /// The descriptor is unusable.
    Broken(io::Error),
}

/// Receives staged at once, with room for names and control messages.
pub(crate) struct Incoming {
    messages: Vec<libc::mmsghdr>,
    data: Vec<libc::iovec>,
    names: Vec<Name>,
    controls: Vec<Control>,
    /// The buffer of message 0; the others follow.
    first_buffer: usize,
}

impl Incoming {
    pub(crate) fn new() -> Self {
        Self {
            messages: Vec::with_capacity(RECEIVES_MAX),
            data: Vec::with_capacity(RECEIVES_MAX),
            names: vec![Name::EMPTY; RECEIVES_MAX],
            controls: vec![Control::EMPTY; RECEIVES_MAX],
            first_buffer: 0,
        }
    }

    /// Prepares up to `count` receives into the first free buffers; how many are in [`Incoming::messages`].
    pub(crate) fn stage(&mut self, slots: &mut Slots, count: usize) {
        let count = count.min(RECEIVES_MAX).min(slots.free());
        self.first_buffer = slots.next_buffer();
        self.messages.clear();
        self.data.clear();
        let slot_bytes = slots.slot_bytes();
        let base = slots.base();
        for buffer in self.first_buffer..self.first_buffer + count {
            let iov_base = base.wrapping_add(buffer * slot_bytes).cast();
            self.data.push(libc::iovec { iov_base, iov_len: slot_bytes });
        }
        let data = self.data.as_mut_ptr();
        let names = self.names.as_mut_ptr();
        let controls = self.controls.as_mut_ptr();
        for index in 0..count {
            let mut message = sys::empty_message();
            let header = &mut message.msg_hdr;
            header.msg_iov = data.wrapping_add(index);
            header.msg_iovlen = 1;
            header.msg_name = names.wrapping_add(index).cast();
            header.msg_namelen = Name::CAPACITY;
            header.msg_control = controls.wrapping_add(index).cast();
            header.msg_controllen = Control::BYTES as _;
            self.messages.push(message);
        }
    }

    /// The staged message headers. Their pointers lead into `self` and into the arrivals.
    pub(crate) fn messages(&mut self) -> &mut [libc::mmsghdr] {
        &mut self.messages
    }

    /// Takes what message `index` received. `result` is what the kernel returned, negative for an error number.
    /// Messages are taken in order.
    pub(crate) fn take(&self, index: usize, result: i32, arrivals: &mut Arrivals, counters: &mut Counters) -> Outcome {
        let Ok(length) = usize::try_from(result) else { return receive_error(-result, counters) };
        let parts = (self.messages.get(index), self.names.get(index), self.controls.get(index));
        let (Some(message), Some(name), Some(control)) = parts else { return Outcome::Unclear };
        let header = &message.msg_hdr;
        let cut = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
        let Some(from) = name.decode(header.msg_namelen).filter(|_| !cut) else {
            counters.truncated += 1;
            return Outcome::Taken;
        };
        let segment_bytes = control.received_segment(header.msg_controllen).unwrap_or(length).max(1);
        counters.datagram_batches_in += 1;
        counters.datagrams_in += length.div_ceil(segment_bytes).max(1) as u64;
        arrivals.accept_outside(self.first_buffer + index, length, segment_bytes, from);
        Outcome::Taken
    }
}

/// Takes what a read from the TUN queue left in `buffer`. `result` as above.
pub(crate) fn take_frame(buffer: usize, result: i32, slots: &mut Slots, counters: &mut Counters) -> Outcome {
    let Ok(length) = usize::try_from(result) else { return read_error(-result) };
    // The kernel cuts a frame to the buffer without saying so; one that fills it may have been longer.
    if length >= slots.slot_bytes() {
        counters.truncated += 1;
    } else {
        counters.frames_in += 1;
        slots.accept(buffer, length);
    }
    Outcome::Taken
}

fn receive_error(error: i32, counters: &mut Counters) -> Outcome {
    match error {
        libc::EAGAIN => Outcome::Drained,
        libc::EINTR | libc::ECANCELED => Outcome::Unclear,
        libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EINVAL | libc::EOPNOTSUPP => {
            Outcome::Broken(io::Error::from_raw_os_error(error))
        }
        // An ICMP error about an earlier datagram; fetching it cleared it.
        _ => {
            counters.remote_errors += 1;
            Outcome::Unclear
        }
    }
}

fn read_error(error: i32) -> Outcome {
    match error {
        libc::EAGAIN => Outcome::Drained,
        libc::EINTR | libc::ECANCELED | libc::ENOMEM => Outcome::Unclear,
        _ => Outcome::Broken(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::{BackendChoice, NoDepartures, PortSharing, TunQueue, UdpSocket, Wait, Waker, open};

    #[test]
    fn what_does_not_fit_a_slot_is_dropped_and_counted() {
        for choice in [BackendChoice::Epoll, BackendChoice::Auto] {
            let udp = UdpSocket::bind(([127, 0, 0, 1], 0).into(), PortSharing::Exclusive, 1 << 20).unwrap();
            let address = udp.local_addr().unwrap();
            let (near, far) = UnixDatagram::pair().unwrap();
            let queue = TunQueue::from_fd(near.into()).unwrap();
            let (mut io, _) = open(choice, udp, queue, &Waker::new().unwrap()).unwrap();

            let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            for datagram in [&[1u8; 64][..], &[2; 65], &[3; 64]] {
                peer.send_to(datagram, address).unwrap();
            }
            for frame in [&[4u8; 63][..], &[5; 65], &[6; 63]] {
                far.send(frame).unwrap();
            }
            let mut arrivals = Arrivals::with_slot_bytes(8, 8, 64);
            for _ in 0..8 {
                io.turn(&NoDepartures, &mut arrivals, Wait::Poll).unwrap();
            }
            let firsts: Vec<_> = arrivals.outside().map(|(_, batch)| batch.bytes[0]).collect();
            assert_eq!(firsts, [1, 3]);
            let firsts: Vec<_> = arrivals.inside().map(|(_, frame)| frame[0]).collect();
            assert_eq!(firsts, [4, 6]);
            assert_eq!(io.counters().truncated, 2);
        }
    }
}
