//! When a role is to end.

use std::io::{self, Read};

use nix::sys::signal::{SigSet, Signal};

/// Holds back SIGTERM and SIGINT, so that [`on_stop`] can wait for them. To be called before any thread is made: threads
/// inherit it.
///
/// # Errors
/// What the system said.
pub(crate) fn hold_signals() -> io::Result<()> {
    Ok(stop_signals().thread_block()?)
}

/// Calls `stop` from a thread of its own: once when SIGTERM or SIGINT comes and, if `with_stdin`, once when standard input
/// ends. A role started by the laboratory uses the latter: it ends with whoever holds the other end of the pipe, however
/// that one ends.
///
/// # Errors
/// When a thread cannot be made.
pub(crate) fn on_stop(with_stdin: bool, stop: impl Fn() + Send + Clone + 'static) -> io::Result<()> {
    let on_signal = stop.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Ok(signal) = stop_signals().wait() {
            tracing::info!(signal = signal.as_str(), "stop");
            on_signal();
        }
    })?;
    if with_stdin {
        std::thread::Builder::new().name("stdin".into()).spawn(move || {
            let mut buffer = [0; 64];
            while matches!(io::stdin().read(&mut buffer), Ok(1..)) {}
            stop();
        })?;
    }
    Ok(())
}

fn stop_signals() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set
}
