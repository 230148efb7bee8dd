//! The Gateway's process: its configuration, its start, and what it does with what its workers tell.
//!
//! [`run`] is a Gateway that a Controller manages; [`run_static`] one that has its users, certificates and rules from a file,
//! which is the mode for development and benchmarks. Packets never pass through this crate: workers carry them, and hear
//! from here which session has which rules.
//!
//! It deliberately changes nothing of the system beyond its own TUN interface: forwarding between interfaces and address
//! translation are the operator's (or the package's) to switch on.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod config;
mod enrolled;
mod fixed;
mod plane;
mod started;
mod status;

pub use enrolled::{SetLog, run};
pub use fixed::run_static;
