//! Network interfaces, addresses, routes and `net` sysctls of one Linux network namespace.
//!
//! The gateway daemon, the client and the namespace laboratory configure what they need through [`Links`] (rtnetlink)
//! and [`sysctl`]; none of them runs `ip` or `sysctl`. Everything happens in the network namespace of the thread that
//! calls: a [`Links`] stays with the namespace in which it was opened, wherever it is moved afterwards.
//!
//! Calls of [`Links`] block, yet never wait: the kernel handles a netlink request inside `send` and its answer is queued before
//! `send` returns. So there is no runtime, no thread and no timeout here, and a missing answer is an error.
//!
//! [`Changes`] alone waits: for a change of addresses or routes by anybody.
//!
//! What this crate deliberately does not do: it opens no TUN device (that is `ringfort-io`), says nothing of what has changed, knows
//! nothing of rules or sessions, and undoes nothing when dropped.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod changes;
mod error;
mod links;
mod sysctl;
mod transaction;

pub use changes::Changes;
pub use error::LinkError;
pub use links::{LinkAddress, LinkIndex, Links, Prefix, RouteAnswer};
pub use sysctl::{read_sysctl, sysctl};
