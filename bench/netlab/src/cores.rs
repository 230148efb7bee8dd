//! Pinning to cores.

use std::io;

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

/// Restricts the calling thread, and what it starts afterwards, to `cores` (numbers as in `/proc/cpuinfo`).
///
/// # Errors
/// `EINVAL` if `cores` is empty, or names none the process may use or one the kernel cannot have.
pub fn pin_thread(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
