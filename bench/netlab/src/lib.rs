//! The namespace laboratory that demo, tests and benches share: clients, an internet, one or several sites with a
//! gateway each, and on request a controller, each in a network namespace of its own, joined by virtual Ethernet pairs.
//!
//! ```text
//!  alice ── wan0                                        .10        10.98.0.0/24, fd98::/64
//!               \                   ┌─ to-gateway ════ wan0 ── gateway ── lan0 ═ lan0 ── site    .10 .20 .30
//!                to-alice           │
//!                    internet ──────┤                   .11        10.99.0.0/24, fd99::/64
//!                to-bob             ├─ to-gateway-1 ══ wan0 ── gateway-1 ─ lan0 ═ lan0 ── site-1  .10 .20 .30
//!               /                   │                   .40
//!  bob ──── wan0                    └─ to-controller ═ wan0 ── controller
//!     198.51.100.0/30, …                  203.0.113.0/24
//!     2001:db8:1:0::/64, …                2001:db8:2::/64
//! ```
//!
//! | namespace | interface | IPv4 | IPv6 | routes |
//! |-----------|-----------|------|------|--------|
//! | client n (0, 1, …) | `wan0` | 198.51.100.(4n+2)/30 | 2001:db8:1:n::2/64 | default by internet |
//! | internet | `to-NAME` per client | 198.51.100.(4n+1)/30 | 2001:db8:1:n::1/64 | no default, none to a site |
//! | internet | `to-NAME` per gateway, and to the controller | 203.0.113.1/32 | 2001:db8:2::1/128 | to the one address behind it |
//! | internet, as some host | `lo` | 203.0.113.80/32 | 2001:db8:2::80/128 | |
//! | gateway of site k (0, 1, …) | `wan0` | 203.0.113.(10+k)/32 | 2001:db8:2::10/128, ::11, … | default by internet |
//! | gateway of site k | `lan0` | 10.(98+k).0.1/24 | fd98::1/64, fd99::1, fd9a::1, … | |
//! | site k | `lan0` | 10.(98+k).0.10, .20, .30/24 | fd98::10, ::20, ::30/64, … | default, and its pool, by its gateway |
//! | controller | `wan0` | 203.0.113.40/32 | 2001:db8:2::40/128 | default by internet |
//!
//! Namespaces of the first site, number 0, are called `gateway` and `site`, those of the others `gateway-1`, `site-1` and
//! so on. The pool of a site is what its gateway gives to clients as inner addresses: 10.97.0.0/16 and fd97::/64 at the
//! first, 10.(120+k).0.0/16 and fdc1::/64, fdc2::/64, … at the others. It exists nowhere until a gateway hands it out.
//!
//! The outer networks are those for documentation (RFC 5737, RFC 3849). A client reaches the internet host, the outer
//! address of every gateway, and the controller; gateways and controller reach each other and the clients. None of them
//! reaches a site but that site's gateway, and no site reaches another: the internet has no route to any. Addresses are in
//! [`address`].
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
pub mod pace;
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
pub use lab::{CLIENTS_MAX, Lab, SITES_MAX, Spec, Steering};
pub use namespace::Namespace;
pub use role::Role;
