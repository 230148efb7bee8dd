//! The Controller: decides and signs.
//!
//! [`core`] holds what is decided: people, sites, Resources, entitlements, logins, certificates, invitations and revocations,
//! each change in one transaction and what follows from it in one order. It opens no sockets and reads no clock: the shell
//! around it does.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod backup;
pub mod core;
mod run;
mod shell;

pub use backup::{backup, restore};
pub use run::run;
pub use shell::{Options, Server, openapi};
