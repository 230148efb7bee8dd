//! The Gateway's process: its configuration, its start, and what it does with what its workers tell.
//!
//! Today it runs from a file of users, certificates and rules ([`run_static`]), which stays as the mode for development and
//! benchmarks once a Controller manages Gateways. Packets never pass through this crate: workers carry them, and hear from
//! here which session has which rules.
//!
//! It deliberately changes nothing of the system beyond its own TUN interface: forwarding between interfaces and address
//! translation are the operator's (or the package's) to switch on.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod config;
mod plane;
mod fixed;
mod status;

pub use fixed::run_static;
