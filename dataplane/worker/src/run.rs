//! The loop of one worker.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ringfort_engine::{Machine, Now, Output};
use ringfort_io::{Arrivals, BackendChoice, Departures, NoDepartures, PacketIo, Send, Wait};
use ringfort_types::{BootInstant, WorkerIndex};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::helpers::ErrandQueue;
use crate::mail::{Mail, MailboxOf};
use crate::{Report, Sink, Snapshot, Worker, WorkerError, now};

/// Receive buffers of one turn: GRO batches from the socket and frames from the TUN queue. More would only queue packets
/// here instead of in the kernel, and cool the cache.
const OUTSIDE_SLOTS: usize = 16;
const INSIDE_SLOTS: usize = 32;
/// Letters taken in one turn: with the frames of the turn, what the machine's output has room for.
const LETTERS_PER_TURN: usize = 32;
/// Receive buffers that letters may fill in one turn; the rest is for the socket.
const OUTSIDE_SLOTS_FOR_LETTERS: usize = 8;
/// A stopping worker's farewell takes at most so many turns; each has room for the goodbyes of 64 sessions.
const FAREWELL_TURNS_MAX: usize = 512;

/// What a worker shares with the others.
pub(crate) struct Shared<'a, M: Machine> {
    pub(crate) mailboxes: &'a [MailboxOf<M>],
    /// Where errands are given.
    pub(crate) errands: Option<ErrandQueue<M>>,
    pub(crate) sink: &'a Sink<M::Event>,
}

/// Runs a worker until it is stopped or fails; the last report says which.
pub(crate) fn run<M: Machine>(index: WorkerIndex, worker: Worker<M>, choice: BackendChoice, shared: Shared<'_, M>) {
    let Shared { mailboxes, sink, .. } = shared;
    let Some(mailbox) = mailboxes.get(usize::from(index.0)) else { return };
    // A panic must not go unnoticed where it unwinds: the other workers would serve half of the peers for ever.
    let work = || Loop::start(index, worker, choice, shared, mailbox).and_then(Loop::run);
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(WorkerError::Panicked));
    insist(index, Report::Ended(result), sink);
}

/// Delivers a report that must not be lost and is not part of the loop: at the start and at the end.
fn insist<E>(index: WorkerIndex, mut report: Report<E>, sink: &Sink<E>) {
    for _ in 0..1_000 {
        match sink(index, report) {
            Ok(()) => return,
            Err(back) => report = back,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Loop<'a, M: Machine> {
    index: WorkerIndex,
    machine: M,
    io: Box<dyn PacketIo>,
    shared: Shared<'a, M>,
    mailbox: &'a MailboxOf<M>,
    /// A report for which the sink had no room.
    unsent: Option<Report<M::Event>>,
    /// An errand for which no thread had room.
    ungiven: Option<M::Errand>,
    /// How often that was so.
    errands_postponed: u64,
    /// Buffers for another worker that its mailbox had no room for.
    mail_refused: u64,
}

impl<'a, M: Machine> Loop<'a, M> {
    fn start(
        index: WorkerIndex,
        worker: Worker<M>,
        choice: BackendChoice,
        shared: Shared<'a, M>,
        mailbox: &'a MailboxOf<M>,
    ) -> Result<Self, WorkerError> {
        if let Some(core) = worker.core {
            pin(core).map_err(|source| WorkerError::Pin { core, source })?;
        }
        let (io, fallback) = ringfort_io::open(choice, worker.udp, worker.tun, &mailbox.waker)?;
        insist(index, Report::Started { backend: io.backend(), fallback, core: worker.core }, shared.sink);
        Ok(Self {
            index,
            machine: worker.machine,
            io,
            shared,
            mailbox,
            unsent: None,
            ungiven: None,
            errands_postponed: 0,
            mail_refused: 0,
        })
    }

    fn run(mut self) -> Result<(), WorkerError> {
        let mut arrived = Arrivals::new(OUTSIDE_SLOTS, INSIDE_SLOTS);
        let mut next = Arrivals::new(OUTSIDE_SLOTS, INSIDE_SLOTS);
        while !self.mailbox.is_stopped() {
            let now = now();
            self.take_arrived(&mut arrived, now);
            if self.machine.poll_timeout().is_some_and(|at| at <= now.boot) {
                self.machine.handle_timeout(now);
            }
            self.take_mail(&mut next, now);
            self.give_errands();
            self.tell();
            let wait = self.wait(now.boot);
            self.turn(&mut arrived, &mut next, wait)?;
            std::mem::swap(&mut arrived, &mut next);
        }
        self.farewell(&mut arrived)
    }

    /// Gives the machine what the last turn received.
    fn take_arrived(&mut self, arrived: &mut Arrivals, now: Now) {
        for slot in 0..arrived.outside_len() as u16 {
            let Some(batch) = arrived.outside_slot(slot) else { continue };
            let owner = self.machine.handle_outside(slot, batch.from, batch.bytes, batch.segment_bytes, now);
            if let Some(owner) = owner {
                let (from, segment_bytes) = (batch.from, batch.segment_bytes);
                let mail = Mail::Outside { from, segment_bytes, datagrams: (&*batch.bytes).into() };
                self.hand_over(owner, mail);
            }
        }
        for (_, frame) in arrived.inside() {
            if let Some(owner) = self.machine.handle_inside(frame, now) {
                let mail = Mail::Inside((&*frame).into());
                hand_over::<M>(self.shared.mailboxes, owner, mail, &mut self.mail_refused);
            }
        }
    }

    /// Writes what the machine put out, which refers to `arrived`, and receives into `next`.
    fn turn(&mut self, arrived: &mut Arrivals, next: &mut Arrivals, wait: Wait) -> io::Result<()> {
        let departures = TurnDepartures { output: self.machine.output(), arrived };
        self.io.turn(&departures, next, wait)?;
        self.machine.clear_output();
        arrived.clear();
        Ok(())
    }

    /// What the last turn brought is carried first. Then no frame is read any more: another worker may read on from the same queue.
    fn farewell(&mut self, arrived: &mut Arrivals) -> Result<(), WorkerError> {
        let mut rest = Arrivals::new(OUTSIDE_SLOTS, 0);
        self.take_arrived(arrived, now());
        self.turn(arrived, &mut rest, Wait::Poll)?;
        for _ in 0..FAREWELL_TURNS_MAX {
            rest.clear();
            let more = self.machine.handle_stop(now());
            self.turn(arrived, &mut rest, Wait::Poll)?;
            if !more {
                break;
            }
        }
        self.tell();
        Ok(())
    }

    /// Takes letters. Datagrams go into `next`, ahead of what the socket receives into it, so that a busy socket keeps none
    /// of them out; when their share is full, the rest of the mail waits for the next turn.
    fn take_mail(&mut self, next: &mut Arrivals, now: Now) {
        for _ in 0..LETTERS_PER_TURN {
            if next.outside_len() == OUTSIDE_SLOTS_FOR_LETTERS {
                return;
            }
            match self.mailbox.receive() {
                Some(Mail::Command(command)) => self.machine.handle_command(command, now),
                Some(Mail::Errand(errand)) => self.machine.handle_errand(errand, now),
                Some(Mail::Outside { from, segment_bytes, datagrams }) => {
                    if !next.push_outside(&datagrams, segment_bytes, from) {
                        self.mail_refused += 1;
                    }
                }
                Some(Mail::Inside(mut frame)) => {
                    // A frame that came by mail is not handed on again: two workers that each take the other for the
                    // owner, while a session moves, would play ball with it.
                    if self.machine.handle_inside(&mut frame, now).is_some() {
                        self.mail_refused += 1;
                    }
                }
                Some(Mail::Snapshot(answer)) => {
                    // The asker may have given up; then nobody wants it.
                    drop(answer.try_send(self.snapshot()));
                }
                None => break,
            }
        }
    }

    fn hand_over(&mut self, owner: WorkerIndex, mail: Mail<M::Command, M::Errand>) {
        hand_over::<M>(self.shared.mailboxes, owner, mail, &mut self.mail_refused);
    }

    /// Gives errands away, as far as there is room.
    fn give_errands(&mut self) {
        let Some(errands) = &self.shared.errands else { return };
        while let Some(errand) = self.ungiven.take().or_else(|| self.machine.poll_errand()) {
            if let Err(back) = errands.give(self.index, errand) {
                self.ungiven = Some(back);
                self.errands_postponed += 1;
                return;
            }
        }
    }

    /// Gives the sink what the machine has to say, as far as there is room.
    fn tell(&mut self) {
        loop {
            let Some(report) = self.unsent.take().or_else(|| self.machine.poll_event().map(Report::Event)) else {
                return;
            };
            if let Err(back) = (self.shared.sink)(self.index, report) {
                self.unsent = Some(back);
                return;
            }
        }
    }

    fn wait(&self, now: BootInstant) -> Wait {
        if !self.mailbox.is_empty() {
            return Wait::Poll;
        }
        // What waits for room is tried again soon.
        let waits_for_room = self.unsent.is_some() || self.ungiven.is_some();
        let retry = waits_for_room.then(|| now + Duration::from_millis(1));
        match [self.machine.poll_timeout(), retry].into_iter().flatten().min() {
            Some(at) if at <= now => Wait::Poll,
            Some(at) => Wait::For(at.saturating_since(now)),
            None => Wait::Forever,
        }
    }

    fn snapshot(&self) -> Snapshot {
        let mut counters = Vec::new();
        self.machine.visit_counters(&mut |name, count| counters.push((name, count)));
        counters.push(("mail_refused", self.mail_refused));
        counters.push(("errands_postponed", self.errands_postponed));
        self.io.counters().visit(&mut |name, count| counters.push((name, count)));
        Snapshot { worker: self.index, counters }
    }
}

fn hand_over<M: Machine>(
    mailboxes: &[MailboxOf<M>],
    owner: WorkerIndex,
    mail: Mail<M::Command, M::Errand>,
    refused: &mut u64,
) {
    if !mailboxes.get(usize::from(owner.0)).is_some_and(|mailbox| mailbox.send(mail)) {
        *refused += 1;
    }
}

/// The machine's output in the form that the I/O writes.
struct TurnDepartures<'a> {
    output: &'a Output,
    arrived: &'a Arrivals,
}

impl Departures for TurnDepartures<'_> {
    fn sends(&self) -> usize {
        self.output.outside.len()
    }

    fn send(&self, i: usize) -> Send<'_> {
        match self.output.outside.transmit(i) {
            Some(transmit) => Send { bytes: transmit.bytes, segment_bytes: transmit.segment_bytes, to: transmit.to },
            None => NoDepartures.send(i),
        }
    }

    fn writes(&self) -> usize {
        self.output.inside.len()
    }

    fn pieces(&self, write: usize) -> usize {
        self.output.inside.frame(write).map_or(0, |frame| 1 + frame.pieces().len())
    }

    fn piece(&self, write: usize, piece: usize) -> &[u8] {
        let Some(frame) = self.output.inside.frame(write) else { return &[] };
        let Some(piece) = piece.checked_sub(1) else { return frame.header() };
        let Some(piece) = frame.pieces().get(piece) else { return &[] };
        let start = piece.start as usize;
        self.arrived.outside_bytes(piece.slot).get(start..start + piece.len as usize).unwrap_or_default()
    }
}

fn pin(core: usize) -> io::Result<()> {
    if core >= CpuSet::MAX_CPU {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}
