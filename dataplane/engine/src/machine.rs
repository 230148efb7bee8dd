//! What a worker's shell needs of the machine inside it.

use std::net::SocketAddr;
use std::time::Duration;

use ringfort_packet::coalesce::Coalescer;
use ringfort_types::{BootInstant, WorkerIndex};

use crate::outbox::Outbox;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// `CLOCK_BOOTTIME`, by which everything is timed.
    pub boot: BootInstant,
    /// Time since 1970, by which certificates are judged.
    pub unix: Duration,
}

/// What is to be written at the end of a turn.
#[derive(Debug)]
pub struct Output {
    /// Datagrams for the socket.
    pub outside: Outbox,
    /// Frames for the TUN queue, whose pieces lie in the received buffers.
    pub inside: Coalescer,
}

impl Output {
    /// Finishes what is to be written.
    pub(crate) fn finish(&mut self) -> &Self {
        self.inside.finish();
        self
    }

    /// Forgets what was written and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.outside.clear();
        self.inside.clear();
    }
}

/// Work that takes longer than packets can wait. A machine gives it out, a thread beside the workers does it, and the machine
/// that gave it out gets it back.
pub trait Errand: Send + 'static {
    /// Does it.
    fn run(&mut self, now: Now);
}

/// The errands of a machine that has none.
#[derive(Debug)]
pub enum NoErrand {}

impl Errand for NoErrand {
    fn run(&mut self, _: Now) {
        match *self {}
    }
}

/// One worker's state machine; the crate's documentation gives the order of calls.
pub trait Machine: Send {
    /// What the control side asks for.
    type Command: Send + 'static;
    /// What the control side learns.
    type Event: Send + 'static;
    /// What it gives out of hand.
    type Errand: Errand;

    /// Takes the datagrams of one received buffer: `segment_bytes` each, the last maybe shorter, all from `from`. `slot`
    /// names the buffer in [`Output::inside`]. Gives back the worker that owns the sender's session if it is another.
    fn handle_outside(
        &mut self,
        slot: u16,
        from: SocketAddr,
        datagrams: &mut [u8],
        segment_bytes: usize,
        now: Now,
    ) -> Option<WorkerIndex>;

    /// Takes one frame of the TUN queue, vnet header first. Gives back the worker that owns its session if it is another.
    fn handle_inside(&mut self, frame: &mut [u8], now: Now) -> Option<WorkerIndex>;

    /// Carries out one command.
    fn handle_command(&mut self, command: Self::Command, now: Now);

    /// The next errand; only asked when there is room for one.
    fn poll_errand(&mut self) -> Option<Self::Errand>;

    /// Takes an errand back that has been run.
    fn handle_errand(&mut self, errand: Self::Errand, now: Now);

    /// Does what is due at `now`.
    fn handle_timeout(&mut self, now: Now);

    /// Says goodbye to peers, as far as there is room in the output; `true` if it wants to be called again once that is
    /// written.
    fn handle_stop(&mut self, now: Now) -> bool;

    /// When [`Machine::handle_timeout`] wants to be called.
    fn poll_timeout(&self) -> Option<BootInstant>;

    /// The next thing the control side should know.
    fn poll_event(&mut self) -> Option<Self::Event>;

    /// What is to be written, finished.
    fn output(&mut self) -> &Output;

    /// To be called once the output is written.
    fn clear_output(&mut self);

    /// Every counter with its name.
    fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, u64));
}
