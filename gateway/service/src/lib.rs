//! What every long-running role of the `ringfort` command does alike: read its file and credentials, wait for the wish to
//! stop, say that it is ready, and answer questions about its state on a local socket.
//!
//! It deliberately knows nothing of what a role does in between, and opens nothing to the network.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod credentials;
pub mod desk;
pub mod file;
mod seed;
pub mod settings;
pub mod status;
mod stop;

pub use seed::{random, seed};

/// Tells systemd and whoever reads standard output that the role does its work. The line is the word `ready`.
pub fn notify_ready() {
    use std::io::Write;
    // Neither systemd nor a reader need be there.
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "ready").and_then(|()| out.flush()));
}
