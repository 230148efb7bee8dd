//! From what an organisation writes to what the data plane judges by.
//!
//! A policy is an ordered list of [`RuleSpec`]s. As a file reads:
//!
//! ```toml
//! [[rules]]
//! name = "wiki"
//! action = "allow"
//! to = ["10.98.0.10", "2001:db8:98::/64"]
//! services = ["tcp/80", "tcp/8000-8999", "icmp-echo"]
//!
//! [[rules]]
//! name = "remote-help"
//! action = "allow"
//! direction = "to-client"
//! from = ["10.98.0.9"]
//! services = ["tcp/3389"]
//! ```
//!
//! The first rule that matches decides; if none does, the answer is [`DEFAULT_DENY`]. [`compile()`] turns the list into
//! a rule set, and the [`Catalogue`] gives the name back for the rule that a verdict reports.
//!
//! A policy from elsewhere is held within bounds by [`compile_within`]: a [`Bound`] is the most that it can allow.
//!
//! What it deliberately does not do: it reads no files (it deserialises with serde from whatever the caller has, whose
//! size the caller has bounded), evaluates no conditions, verifies no tokens and resolves no names. A policy with one
//! mistake in it is refused as a whole: half a policy could miss a denial.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod bound;
mod catalogue;
mod compile;
mod reachable;
mod spec;
mod text;

pub use bound::{Bound, Reach, restrict};
pub use catalogue::{Catalogue, DEFAULT_DENY, NAMES_MAX};
pub use compile::{PolicyError, compile, compile_within};
pub use reachable::never_reachable;
pub use spec::{NAME_BYTES_MAX, NETWORKS_PER_RULE_MAX, RuleName, RuleSpec, SERVICES_PER_RULE_MAX};
pub use text::{Network, ServiceSpec, SpecError};
