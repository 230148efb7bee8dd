//! The namespace laboratory that demo, tests and benches share: clients, an internet, the gateway and a site, each in
//! a network namespace of its own, joined by virtual Ethernet pairs.
//!
//! ```text
//!  alice ── wan0                                                     site
//!               \                                                  lan0 │ .10 .20 .30
//!                to-alice                                               │
//!                    internet ── to-gateway ═══ wan0 ── gateway ── lan0 ┘
//!                to-bob       203.0.113.0/24                10.98.0.0/24
//!               /             2001:db8:2::/64               fd98::/64
//!  bob ──── wan0
//!     198.51.100.0/30, 198.51.100.4/30, …
//!     2001:db8:1:0::/64, 2001:db8:1:1::/64, …
//! ```
//!
//! | namespace | interface | IPv4 | IPv6 | routes |
//! |-----------|-----------|------|------|--------|
//! | client k (0, 1, …) | `wan0` | 198.51.100.(4k+2)/30 | 2001:db8:1:k::2/64 | default by internet |
//! | internet | `to-NAME` per client | 198.51.100.(4k+1)/30 | 2001:db8:1:k::1/64 | no default, none to the site |
//! | internet | `to-gateway` | 203.0.113.1/24 | 2001:db8:2::1/64 | |
//! | internet, as some host | `to-gateway` | 203.0.113.80/24 | 2001:db8:2::80/64 | |
//! | gateway | `wan0` | 203.0.113.10/24 | 2001:db8:2::10/64 | default by internet |
//! | gateway | `lan0` | 10.98.0.1/24 | fd98::1/64 | |
//! | site | `lan0` | 10.98.0.10, .20, .30/24 | fd98::10, ::20, ::30/64 | default, and 10.97.0.0/16, fd97::/64, by gateway |
//!
//! The outer networks are those for documentation (RFC 5737, RFC 3849); 10.97.0.0/16 and fd97::/64 are for the inner
//! addresses of clients and exist nowhere until a gateway hands them out. A client reaches the internet host and the
//! gateway's outer address, and nothing of the site: the internet has no route there. Constants are in [`address`].
//!
//! Order of use:
//! 1. [`enter`] as the first statement of `main`, before any thread exists.
//! 2. [`Lab::build`].
//! 3. [`Lab::run_in`] for a closure in a namespace (sockets opened there stay there), [`Lab::spawn`] for a process.
//! 4. Drop the [`Role`]s, then the [`Lab`]. The kernel removes a namespace when nothing uses it any longer; no name is
//!    left in the file system since none was made.
//!
//! What this deliberately does not do: no TUN devices (the roles under test make them), no loss, delay or rate limits,
//! no offload settings: frames of up to 64 KiB cross the pairs whole, which flatters figures of throughput.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod address;
pub mod bulk;
pub mod http;
pub mod udp;

mod cores;
mod enter;
mod error;
mod lab;
mod namespace;
mod remedy;
mod role;

pub use cores::pin_thread;
pub use enter::{TIER_VARIABLE, Tier, enter};
pub use error::{LabError, Refusal, Step};
pub use lab::{CLIENTS_MAX, Lab, Spec, Steering};
pub use namespace::Namespace;
pub use role::Role;
