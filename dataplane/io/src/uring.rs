//! The io_uring backend: one `io_uring_enter` per turn carries the TUN writes, the UDP sends and the receives.
//!
//! Three multishot polls stay armed and say, by edges, that the socket or the queue became readable or that the
//! waker was called. Everything else is non-blocking (`MSG_DONTWAIT`, `RWF_NOWAIT`) and therefore completes while
//! it is submitted, with `EAGAIN` if need be; the completions are collected before the turn goes on. So no
//! operation with a buffer outlives [`UringIo::run`]. If one ever does not complete at once it is cancelled and
//! waited for; if that is impossible because the ring fails, the process aborts, since the kernel could go on
//! writing to memory that its owner takes back.
//!
//! How many receives a turn submits adapts: twice as many after all were filled, else one more than were filled.

// UNSAFETY: submits operations that hold pointers into the caller's departures and arrivals.
#![expect(unsafe_code, reason = "submission entries hold pointers to buffers")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fixed, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, cqueue, opcode, squeue};

use crate::arrivals::Arrivals;
use crate::counters::Counters;
use crate::departures::Departures;
use crate::incoming::{Incoming, Outcome, RECEIVES_MAX, take_frame};
use crate::outgoing::{Cursor, FRAMES_MAX, Outgoing, SENDS_MAX};
use crate::tun::TunQueue;
use crate::udp::UdpSocket;
use crate::waker::Waker;
use crate::{Backend, PacketIo, Wait};

/// Reads from the TUN queue submitted at once.
const READS_MAX: usize = 96;

/// Submission entries. One round never needs more, so a submission never finds the queue full.
const SUBMISSIONS: u32 = 512;
const _: () = assert!(FRAMES_MAX + SENDS_MAX + RECEIVES_MAX + READS_MAX + POLLS < SUBMISSIONS as usize);

/// Completion entries: far above what one round and the polls can leave before they are collected.
const COMPLETIONS: u32 = 4096;

/// Attempts to enter the kernel while it is short of memory or wants completions collected first. Giving up means
/// aborting, and a kernel that refuses this often in a row will not recover.
const ENTER_ATTEMPTS_MAX: u32 = 1000;

/// Longest wait the kernel is asked for, in seconds (about 30 years); keeps its arithmetic from overflowing.
const WAIT_SECONDS_MAX: u64 = 1_000_000_000;

/// Indices of the registered files, and of the polls on them.
const UDP: usize = 0;
const TUN: usize = 1;
const WAKER: usize = 2;
const POLLS: usize = 3;

/// What a completion belongs to: the upper half of its user data. The lower half is an index.
const KIND_WRITE: u64 = 1;
const KIND_SEND: u64 = 2;
const KIND_RECEIVE: u64 = 3;
const KIND_READ: u64 = 4;
const KIND_POLL: u64 = 5;
const KIND_CANCEL: u64 = 6;

/// A ring that was found fit: the operations are there and the files registered.
pub(crate) struct Ring(IoUring);

impl Ring {
    /// Makes and probes a ring for these descriptors. The error says what is missing and what helps.
    pub(crate) fn create(udp: &UdpSocket, tun: &TunQueue, waker: &Waker) -> Result<Self, String> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)
            .map_err(|error| explain(&error))?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(|error| explain(&error))?;
        let needed = [
            ("WRITEV", opcode::Writev::CODE),
            ("SENDMSG", opcode::SendMsg::CODE),
            ("RECVMSG", opcode::RecvMsg::CODE),
            ("READ", opcode::Read::CODE),
            ("POLL_ADD", opcode::PollAdd::CODE),
            ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
        ];
        if let Some((name, _)) = needed.iter().find(|(_, code)| !probe.is_supported(*code)) {
            return Err(format!("the kernel does not offer IORING_OP_{name}; Linux 6.1 or newer does"));
        }
        let mut files = [0; POLLS];
        files[UDP] = udp.as_fd().as_raw_fd();
        files[TUN] = tun.as_fd().as_raw_fd();
        files[WAKER] = waker.as_fd().as_raw_fd();
        ring.submitter().register_files(&files).map_err(|error| explain(&error))?;
        Ok(Self(ring))
    }
}

/// What became of the ring's attempt to start, with the remedy.
fn explain(error: &io::Error) -> String {
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "it is disabled here: `sysctl kernel.io_uring_disabled=0`, and in a container a seccomp profile that \
             allows io_uring_setup, io_uring_enter and io_uring_register"
        }
        Some(libc::ENOSYS) => {
            "the kernel was built without it (CONFIG_IO_URING), or a container's seccomp profile hides \
             io_uring_setup, io_uring_enter and io_uring_register: allow them"
        }
        Some(libc::EINVAL) => "the kernel is too old: Linux 6.1 or newer is needed",
        Some(libc::ENOMEM) => "memory for the ring was refused: raise RLIMIT_MEMLOCK (`ulimit -l`)",
        Some(libc::EMFILE | libc::ENFILE) => "too many open files: raise RLIMIT_NOFILE (`ulimit -n`)",
        _ => "no remedy is known",
    };
    format!("{error}; {remedy}")
}

pub(crate) struct UringIo {
    ring: IoUring,
    enter_flags: EnterFlags,
    udp: UdpSocket,
    outside: Source,
    inside: Source,
    waker: Waker,
    armed: [bool; POLLS],
    outgoing: Outgoing,
    incoming: Incoming,
    received: [i32; RECEIVES_MAX],
    read: [i32; READS_MAX],
    /// Flags of TUN reads and writes: RWF_NOWAIT, or 0 where the driver does not know it (before Linux 6.4), and
    /// then the queue's O_NONBLOCK has the same effect.
    tun_flags: i32,
    /// Operations with buffers that were queued and whose completions were not collected.
    outstanding: usize,
    /// What a poll failed with.
    poll_error: Option<i32>,
    counters: Counters,
    /// Held for the registered file; last, so that it is closed after the ring let go of it.
    _tun: TunQueue,
}

/// What is known of one descriptor.
struct Source {
    /// The last receive found nothing, and no edge was reported since.
    drained: bool,
    /// An edge was reported since the last receives were queued. It may be older or newer than their `EAGAIN`.
    edge: bool,
    /// Receives to submit next time.
    width: usize,
}

/// What entering the kernel waits for, at most for the time given.
#[derive(Clone, Copy)]
enum Until {
    /// Nothing.
    Submitted,
    /// Every operation with a buffer has completed.
    Completed(Option<Duration>),
    /// And a poll has something to report.
    Event(Option<Duration>),
}

// SAFETY: the raw pointers in `outgoing` and `incoming` are followed only during the turn that stored them. The ring
// itself refuses to serve another thread.
unsafe impl Send for UringIo {}

impl UringIo {
    pub(crate) fn new(ring: Ring, udp: UdpSocket, tun: TunQueue, waker: &Waker) -> Self {
        let Ring(ring) = ring;
        // Without this an idle worker counts as a processor waiting for a disk.
        let enter_flags =
            if ring.params().is_feature_no_iowait() { EnterFlags::NO_IOWAIT } else { EnterFlags::empty() };
        Self {
            ring,
            enter_flags,
            outgoing: Outgoing::new(udp.family()),
            udp,
            outside: Source::NEW,
            inside: Source::NEW,
            waker: waker.clone(),
            armed: [false; POLLS],
            incoming: Incoming::new(),
            received: [0; RECEIVES_MAX],
            read: [0; READS_MAX],
            tun_flags: libc::RWF_NOWAIT,
            outstanding: 0,
            poll_error: None,
            counters: Counters::default(),
            _tun: tun,
        }
    }

    fn exchange(&mut self, departures: &dyn Departures, arrivals: &mut Arrivals, wait: Wait) -> io::Result<()> {
        self.queue_polls();
        let mut cursor = Cursor::new(departures);
        while !self.outgoing.stage(departures, &mut cursor, &mut self.counters) {
            self.queue_departures();
            self.run(Until::Submitted, departures)?;
        }
        // The last round of departures shares its system call with the receives, or with the wait.
        self.queue_departures();

        let may_block = arrivals.is_empty() && wait != Wait::Poll;
        if !may_block || !self.idle() {
            self.receive(departures, arrivals)?;
            if !may_block || !arrivals.is_empty() || !self.idle() {
                return Ok(());
            }
        }
        let until = match wait {
            _ if !self.waker.fall_asleep() => Until::Submitted,
            Wait::Poll => Until::Submitted,
            Wait::For(duration) => Until::Event(Some(duration)),
            Wait::Forever => Until::Event(None),
        };
        self.run(until, departures)?;
        if !self.idle() {
            self.receive(departures, arrivals)?;
        }
        Ok(())
    }

    /// Nothing is known to be readable, and no poll has anything to report.
    fn idle(&mut self) -> bool {
        self.outside.drained && self.inside.drained && !self.ring.submission().taskrun()
    }

    fn queue_polls(&mut self) {
        for file in [UDP, TUN, WAKER] {
            if self.armed[file] {
                continue;
            }
            self.armed[file] = true;
            let poll = opcode::PollAdd::new(Fixed(file as u32), libc::POLLIN as u32).multi(true).build();
            // SAFETY: a poll has no buffers.
            unsafe { self.push(poll, KIND_POLL, file) };
        }
    }

    /// Only to be called while the departures that were staged are borrowed, and to be followed by `run`.
    fn queue_departures(&mut self) {
        for index in 0..self.outgoing.frames() {
            let pieces = self.outgoing.frame(index);
            let write = opcode::Writev::new(Fixed(TUN as u32), pieces.as_ptr(), pieces.len() as u32)
                .rw_flags(self.tun_flags)
                .build();
            self.outstanding += 1;
            // SAFETY: the list of pieces lies in `outgoing` and is not touched before `run` has returned; the pieces
            // are slices of departures, which the turn has borrowed.
            unsafe { self.push(write, KIND_WRITE, index) };
        }
        let count = self.outgoing.messages().len();
        let messages = self.outgoing.messages().as_mut_ptr();
        for index in 0..count {
            let header = messages.wrapping_add(index).cast::<libc::msghdr>();
            let send = opcode::SendMsg::new(Fixed(UDP as u32), header).flags(libc::MSG_DONTWAIT as u32).build();
            self.outstanding += 1;
            // SAFETY: header, name and control lie in `outgoing` and are not touched before `run` has returned; the
            // data is a slice of departures, which the turn has borrowed.
            unsafe { self.push(send, KIND_SEND, index) };
        }
    }

    /// Submits what is queued together with receives into the free slots, and takes what they brought. A drained
    /// descriptor is left alone: had anything come since, its poll would have something to report.
    fn receive(&mut self, departures: &dyn Departures, arrivals: &mut Arrivals) -> io::Result<()> {
        let reported = self.ring.submission().taskrun();
        self.incoming.stage(arrivals.outside_slots(), self.outside.wanted(reported));
        let receives = self.incoming.messages().len();
        let messages = self.incoming.messages().as_mut_ptr();
        for index in 0..receives {
            let header = messages.wrapping_add(index).cast::<libc::msghdr>();
            let receive = opcode::RecvMsg::new(Fixed(UDP as u32), header).flags(libc::MSG_DONTWAIT as u32).build();
            self.outstanding += 1;
            // SAFETY: header, name and control lie in `incoming` and are not touched before `run` has returned; the
            // data is a free slot of the arrivals, which the turn has borrowed mutably.
            unsafe { self.push(receive, KIND_RECEIVE, index) };
        }
        let slots = arrivals.inside_slots();
        let reads = self.inside.wanted(reported).min(READS_MAX).min(slots.free());
        let (first_buffer, slot_bytes) = (slots.next_buffer(), slots.slot_bytes());
        let base = slots.base();
        for index in 0..reads {
            let start = base.wrapping_add((first_buffer + index) * slot_bytes);
            let read = opcode::Read::new(Fixed(TUN as u32), start, slot_bytes as u32).rw_flags(self.tun_flags).build();
            self.outstanding += 1;
            // SAFETY: a free slot of the arrivals, `slot_bytes` long, which the turn has borrowed mutably and nobody
            // touches before `run` has returned.
            unsafe { self.push(read, KIND_READ, index) };
        }
        self.outside.begin(receives);
        self.inside.begin(reads);
        self.run(Until::Submitted, departures)?;
        self.take_datagrams(receives, arrivals)?;
        self.take_frames(reads, first_buffer, arrivals)
    }

    fn take_datagrams(&mut self, count: usize, arrivals: &mut Arrivals) -> io::Result<()> {
        let mut taken = 0;
        for index in 0..count {
            match self.incoming.take(index, self.received[index], arrivals, &mut self.counters) {
                Outcome::Taken => taken += 1,
                Outcome::Drained => self.outside.drained = !self.outside.edge,
                Outcome::Unclear => {}
                Outcome::Broken(error) => return Err(error),
            }
        }
        self.outside.adapt(count, taken);
        Ok(())
    }

    fn take_frames(&mut self, count: usize, first_buffer: usize, arrivals: &mut Arrivals) -> io::Result<()> {
        let mut taken = 0;
        for index in 0..count {
            let result = self.read[index];
            if result == -libc::EOPNOTSUPP && self.tun_flags != 0 {
                self.tun_flags = 0;
                continue;
            }
            match take_frame(first_buffer + index, result, arrivals.inside_slots(), &mut self.counters) {
                Outcome::Taken => taken += 1,
                Outcome::Drained => self.inside.drained = !self.inside.edge,
                Outcome::Unclear => {}
                Outcome::Broken(error) => return Err(error),
            }
        }
        self.inside.adapt(count, taken);
        Ok(())
    }

    /// Queues one entry.
    ///
    /// # Safety
    /// What the entry points to stays valid and untouched until `run` has returned. Entries with buffers are
    /// counted in `outstanding` before.
    unsafe fn push(&mut self, entry: squeue::Entry, kind: u64, index: usize) {
        let entry = entry.user_data(kind << 32 | index as u64);
        let mut queue = self.ring.submission();
        // SAFETY: the caller vouches for the pointers.
        if unsafe { queue.push(&entry) }.is_err() {
            die("the submission queue is full, which its size rules out");
        }
    }

    /// Submits everything queued, waits for an event as told, and collects completions. When it returns, also with
    /// an error, no operation with a buffer is outstanding. Batches whose segmentation was refused are sent again.
    fn run(&mut self, until: Until, departures: &dyn Departures) -> io::Result<()> {
        let queue = self.ring.submission();
        let nothing_to_do = queue.is_empty() && !queue.taskrun() && matches!(until, Until::Submitted);
        drop(queue);
        let mut entered = if nothing_to_do { Ok(()) } else { self.enter(until) };
        self.collect();
        if self.outstanding > 0 {
            // Writes that failed are completed by deferred work. Asking for all of them runs all of it.
            entered = entered.and_then(|()| self.enter(Until::Completed(Some(Duration::ZERO))));
            self.collect();
        }
        if self.outstanding > 0 {
            self.cancel_outstanding();
        }
        self.outgoing.resend_refused(departures, &self.udp, &mut self.counters);
        match self.poll_error.take() {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => entered,
        }
    }

    /// Submits everything queued. When it returns nothing is left unsubmitted.
    fn enter(&mut self, until: Until) -> io::Result<()> {
        let mut attempts = 0;
        loop {
            let (submitter, queue, _) = self.ring.split();
            let queued = queue.len();
            let deferred = queue.taskrun() || queue.cq_overflow();
            drop(queue);
            let (wanted, timeout) = match until {
                Until::Submitted => (0, None),
                Until::Completed(timeout) => (self.outstanding, timeout),
                Until::Event(timeout) => (self.outstanding + 1, timeout),
            };
            let mut flags = self.enter_flags;
            if wanted > 0 || deferred {
                flags |= EnterFlags::GETEVENTS;
            }
            self.counters.system_calls += 1;
            let entered = if let Some(duration) = timeout {
                let seconds = duration.as_secs().min(WAIT_SECONDS_MAX);
                let time = Timespec::new().sec(seconds).nsec(duration.subsec_nanos());
                let arguments = SubmitArgs::new().timespec(&time);
                let flags = (flags | EnterFlags::EXT_ARG).bits();
                // SAFETY: `arguments` is the structure EXT_ARG announces, and lives until the call returns.
                unsafe { submitter.enter(queued as u32, wanted as u32, flags, Some(&arguments)) }
            } else {
                // SAFETY: no argument is passed.
                unsafe { submitter.enter::<libc::sigset_t>(queued as u32, wanted as u32, flags.bits(), None) }
            };
            let left = self.ring.submission().len();
            match entered.map_err(|error| (error.raw_os_error().unwrap_or(0), error)) {
                Ok(_) | Err((libc::EINTR | libc::ETIME, _)) if left == 0 => return Ok(()),
                Ok(_) => {}
                Err((libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY | libc::ENOMEM, _)) => self.collect(),
                Err((_, error)) if left == 0 && self.outstanding == 0 => return Err(error),
                Err((libc::EEXIST, _)) => die("a turn was called on another thread than the one that opened it"),
                Err((_, error)) => die(&error.to_string()),
            }
            attempts += 1;
            if attempts > ENTER_ATTEMPTS_MAX {
                die("the kernel keeps refusing submissions");
            }
        }
    }

    fn collect(&mut self) {
        for completion in self.ring.completion() {
            let (result, index) = (completion.result(), completion.user_data() as u32 as usize);
            match completion.user_data() >> 32 {
                KIND_WRITE => Outgoing::written(result, &mut self.counters),
                KIND_SEND => self.outgoing.sent(index, result, &mut self.counters),
                KIND_RECEIVE => self.received[index] = result,
                KIND_READ => self.read[index] = result,
                KIND_POLL => {
                    self.armed[index] &= cqueue::more(completion.flags());
                    match index {
                        UDP => self.outside.report_edge(),
                        TUN => self.inside.report_edge(),
                        _ => {}
                    }
                    if result < 0 && result != -libc::ECANCELED {
                        self.poll_error = Some(-result);
                    }
                    continue;
                }
                _ => continue,
            }
            self.outstanding -= 1;
        }
    }

    /// Ends operations that did not complete while they were submitted. The polls are ended with them and armed
    /// again by the next turn.
    fn cancel_outstanding(&mut self) {
        self.counters.cancelled += self.outstanding as u64;
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        // SAFETY: a cancellation has no buffers.
        unsafe { self.push(cancel, KIND_CANCEL, 0) };
        while self.outstanding > 0 {
            if let Err(error) = self.enter(Until::Completed(None)) {
                die(&error.to_string());
            }
            self.collect();
        }
    }
}

impl Source {
    const NEW: Self = Self { drained: false, edge: false, width: 1 };

    /// Receives to queue. `reported`: some poll has something to report, perhaps this one.
    fn wanted(&self, reported: bool) -> usize {
        if self.drained && !reported { 0 } else { self.width }
    }

    /// So many receives are being queued.
    fn begin(&mut self, count: usize) {
        if count > 0 {
            self.drained = false;
            self.edge = false;
        }
    }

    fn report_edge(&mut self) {
        self.drained = false;
        self.edge = true;
    }

    fn adapt(&mut self, asked: usize, taken: usize) {
        if asked > 0 {
            self.width = if taken == asked { (asked * 2).min(READS_MAX) } else { taken + 1 };
        }
    }
}

impl PacketIo for UringIo {
    fn turn(&mut self, departures: &dyn Departures, arrivals: &mut Arrivals, wait: Wait) -> io::Result<()> {
        self.counters.turns += 1;
        let done = self.exchange(departures, arrivals, wait);
        self.waker.rise();
        done
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn backend(&self) -> Backend {
        Backend::IoUring
    }
}

impl Drop for UringIo {
    /// Lets go of the TUN queue at once. Otherwise the kernel does so some time after the ring is closed, and until
    /// then the interface is busy. Nothing with a buffer is outstanding; errors only mean "later".
    fn drop(&mut self) {
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        // SAFETY: a cancellation has no buffers.
        unsafe { self.push(cancel, KIND_CANCEL, 0) };
        let _ = self.ring.submit_and_wait(1);
        let _ = self.ring.submitter().unregister_files();
    }
}

/// Ends the process. Called where returning would let the kernel write to memory that is no longer the ring's.
fn die(reason: &str) -> ! {
    eprintln!("ringfort: io_uring failed with operations outstanding: {reason}");
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn each_refusal_names_its_remedy() {
        for (error, remedy) in [
            (libc::EPERM, "sysctl kernel.io_uring_disabled=0"),
            (libc::ENOSYS, "seccomp"),
            (libc::EINVAL, "Linux 6.1"),
            (libc::ENOMEM, "RLIMIT_MEMLOCK"),
        ] {
            assert!(explain(&io::Error::from_raw_os_error(error)).contains(remedy));
        }
    }

    /// A descriptor that supports waiting and is read without RWF_NOWAIT makes the ring wait for it although it is
    /// non-blocking. No turn does that; here it stands for a kernel that behaves unexpectedly.
    #[test]
    fn an_operation_that_waits_is_cancelled_before_the_turn_ends() {
        let udp = UdpSocket::bind(([127, 0, 0, 1], 0).into(), crate::PortSharing::Exclusive, 1 << 20).unwrap();
        let (near, far) = UnixDatagram::pair().unwrap();
        let queue = TunQueue::from_fd(near.into()).unwrap();
        let waker = Waker::new().unwrap();
        let ring = match Ring::create(&udp, &queue, &waker) {
            Ok(ring) => ring,
            Err(refusal) => {
                assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "io_uring is refused: {refusal}");
                println!("skipped: {refusal}");
                return;
            }
        };
        let mut io = UringIo::new(ring, udp, queue, &waker);
        io.tun_flags = 0;
        let mut arrivals = Arrivals::new(2, 4);
        io.turn(&crate::NoDepartures, &mut arrivals, Wait::Poll).unwrap();
        assert_eq!((io.counters.cancelled, io.outstanding), (1, 0));

        // The polls that were cancelled with it are armed again.
        for round in 1..=3 {
            far.send(b"frame").unwrap();
            while arrivals.inside_len() < round {
                io.turn(&crate::NoDepartures, &mut arrivals, Wait::For(Duration::from_secs(5))).unwrap();
            }
        }
        waker.wake();
        arrivals.clear();
        io.turn(&crate::NoDepartures, &mut arrivals, Wait::Forever).unwrap();
    }
}
