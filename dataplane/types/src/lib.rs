//! Identifiers, counters and times that the data plane's crates share.
//!
//! Every id, index and counter is a type of its own, so that one cannot stand for another. This crate
//! holds no behaviour beyond arithmetic that must not go wrong twice, reads no clock and does no I/O.

#![forbid(unsafe_code)]

mod time;

pub use time::{BootInstant, UnixSeconds};

use std::fmt;

/// Position of a worker among the workers of one process, from 0. A worker is one pinned thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerIndex(pub u8);

impl fmt::Display for WorkerIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}", self.0)
    }
}

/// Names one tunnel session for the life of the process: the worker that made it and a count there.
///
/// Never reused within a process, so a command for a session that is gone can hit no other session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

impl SessionId {
    const COUNT_BITS: u32 = 56;

    /// The `count`-th session made by `worker`. `count` stays below 2⁵⁶, which one worker cannot reach.
    #[must_use]
    pub const fn new(worker: WorkerIndex, count: u64) -> Self {
        Self((worker.0 as u64) << Self::COUNT_BITS | (count & ((1 << Self::COUNT_BITS) - 1)))
    }

    /// The worker that owns the session's receive state.
    #[must_use]
    pub const fn worker(self) -> WorkerIndex {
        WorkerIndex((self.0 >> Self::COUNT_BITS) as u8)
    }

    /// The id as one number, for tables.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.worker(), self.0 & ((1 << Self::COUNT_BITS) - 1))
    }
}

/// Names one rule within the rule sets of a Gateway; what it means to people is kept by the control side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u32);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// Generation of a session's rules. Every change of rules takes the next one; a verdict cached under
/// another epoch counts as absent (this is how a revocation reaches the very next packet).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RuleEpoch(pub u32);

impl RuleEpoch {
    /// The epoch after this one. Wraps after 2³² changes of one session's rules.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_id_carries_its_worker() {
        let id = SessionId::new(WorkerIndex(3), 42);
        assert_eq!(id.worker(), WorkerIndex(3));
        assert_eq!(id.to_string(), "w3.42");
        assert_ne!(id, SessionId::new(WorkerIndex(2), 42));
    }

    #[test]
    fn epochs_differ_after_a_change() {
        assert_ne!(RuleEpoch(u32::MAX).next(), RuleEpoch(u32::MAX));
    }
}
