//! The client's process on a user's machine: one tunnel to one Gateway, and routes to what lies behind it.
//!
//! Only the destinations in its file are routed into the tunnel; everything else goes its way as if the client did not run
//! (C6). The routes stay while the tunnel is down, so that what belongs into it never leaves in the clear.
//!
//! Today it runs from a file ([`up_static`]), which stays as the mode for development and benchmarks.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod config;
mod run;

pub use run::up_static;
