//! A child process in a namespace.

use std::{
    fmt, io,
    mem::ManuallyDrop,
    os::fd::OwnedFd,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{PidfdFlags, pidfd_open},
};

/// A process started by [`crate::Lab::spawn`]. Dropping it kills the process.
///
/// Its standard input is a pipe whose other end lives here. That is the bound for the case in which this process is
/// killed and drops nothing: a role that was told (by a flag of its own) to end at the end of its standard input then
/// ends with the laboratory. (A parent-death signal would take code between `fork` and `exec`, which is unsafe.)
pub struct Role {
    child: Child,
    /// Readable once the process has ended.
    end: OwnedFd,
    stdin: Option<ChildStdin>,
    ended: Option<ExitStatus>,
}

impl Role {
    /// Starts `command` from the calling thread, whose namespace and cores it inherits.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command.env_remove(crate::enter::INSIDE_VARIABLE).stdin(Stdio::piped()).spawn()?;
        let (stdin, end) =
            (child.stdin.take(), pidfd_open(rustix::process::Pid::from_child(&child), PidfdFlags::empty()));
        match end {
            Ok(end) => Ok(Self { child, end, stdin, ended: None }),
            Err(error) => {
                child.kill().and_then(|()| child.wait())?;
                Err(error.into())
            }
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The reading end of the process's output, once, if the command asked for a pipe.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// As [`Role::take_stdout`].
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// The process's standard input, to write commands to. It stays open as long as the role lives.
    pub fn stdin(&mut self) -> Option<&mut ChildStdin> {
        self.stdin.as_mut()
    }

    /// Ends the process's standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// CPU time the process has used so far, in nanosecond steps, over all its threads including those that ended and
    /// the kernel's threads for its io_uring. It includes the network work the kernel did in its context.
    ///
    /// # Errors
    /// `ESRCH` if the process has been waited for.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        if self.ended.is_some() {
            return Err(io::Error::from_raw_os_error(nix::errno::Errno::ESRCH as i32));
        }
        let clock = clock_getcpuclockid(self.nix_pid())?;
        Ok(clock_gettime(clock)?.into())
    }

    /// Waits until the process has ended; `None` if it has not within `limit`.
    ///
    /// # Errors
    /// The operating system's answer to `waitpid`.
    pub fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let started = Instant::now();
        while self.ended.is_none() {
            self.ended = self.child.try_wait()?;
            let left = limit.saturating_sub(started.elapsed());
            if left.is_zero() {
                break;
            }
            if self.ended.is_none() {
                match poll(&mut [PollFd::new(&self.end, PollFlags::IN)], Some(&left.try_into().unwrap_or_default())) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(self.ended)
    }

    /// Asks the process to end (SIGTERM), waits for at most `grace`, then kills it. Answers how it ended; a process that
    /// had ended already is no error.
    ///
    /// # Errors
    /// The operating system's answer to `kill` or `waitpid`.
    pub fn stop(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        if let Some(status) = self.wait(Duration::ZERO)? {
            return Ok(status);
        }
        kill(self.nix_pid(), Signal::SIGTERM)?;
        match self.wait(grace)? {
            Some(status) => Ok(status),
            None => self.kill(),
        }
    }

    /// Kills the process (SIGKILL) and does not wait for its end: dropping it does.
    ///
    /// # Errors
    /// The operating system's answer to `kill`.
    pub fn kill_begin(&mut self) -> io::Result<()> {
        self.child.kill()
    }

    /// Kills the process (SIGKILL) and does not wait for its end at all: its parent's heir, such as init, will. For a process whose
    /// parent is about to end.
    ///
    /// # Errors
    /// The operating system's answer to `kill`.
    pub fn kill_unwaited(self) -> io::Result<()> {
        ManuallyDrop::new(self).child.kill()
    }

    /// Kills the process (SIGKILL) and waits for its end.
    ///
    /// # Errors
    /// The operating system's answer to `kill` or `waitpid`.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        self.child.kill()?;
        let status = self.child.wait()?;
        self.ended = Some(status);
        Ok(status)
    }

    /// Process ids of Linux end at 2²², so the conversion keeps the value.
    fn nix_pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // Nothing is left to tell anyone at this point; a process that ended already answers with an error.
        let _ = self.kill();
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Role").field("pid", &self.pid()).field("ended", &self.ended).finish_non_exhaustive()
    }
}
