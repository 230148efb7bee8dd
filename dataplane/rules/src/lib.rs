//! The firewall of the data plane: for one session, one direction and one packet, may it pass?
//!
//! A [`RuleSet`] is compiled once from an ordered list of [`Rule`]s and shared by every session with the same
//! policy. [`SessionRules`] is what one session holds of it: its set, the epoch of that set, its deadline and its
//! inner addresses. A [`Firewall`] belongs to one worker and judges packets; it remembers flows so that most
//! packets cost one table look-up, and so that answers find their way back.
//!
//! Call order, per worker:
//! 1. [`SessionRules::new`], then [`SessionRules::install`] and [`SessionRules::revoke`] as commands arrive;
//! 2. [`Firewall::judge`] for each packet, with times that never run backwards;
//! 3. [`Firewall::sweep`] once per turn of the worker, with a bounded number of entries to visit;
//! 4. [`Firewall::close_session`] when a session has ended.
//!
//! What it deliberately does not do: it knows no tokens, users or names (the control side turns them into rules),
//! reads no clock, does no I/O, parses no bytes, reassembles no fragments and follows no TCP sequence numbers. It
//! builds no RST or ICMP answer either: [`Verdict::Deny`] tells the caller to.
//!
//! Deny is what happens when nothing happens: no rule, a rule past its deadline, a full table and a packet
//! that cannot be matched all end in a refusal (A13, K3).

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod compile;
mod drops;
mod firewall;
mod flow;
mod fragment;
mod rule;
mod ruleset;
mod session;
mod table;
mod tally;

pub use compile::{ADDRESS_RANGES_MAX, CompileError, MATCHES_MAX, PORT_RANGES_MAX, RULES_MAX};
pub use drops::{DropCounters, DropReason};
pub use firewall::{Firewall, Verdict};
pub use flow::{FLOWS_MAX, FLOWS_PER_SESSION_MAX, Flow, FlowState, Traffic};
pub use fragment::{FRAGMENT_LIFETIME, FRAGMENTED_PACKETS_MAX, FRAGMENTED_PACKETS_PER_SESSION_MAX};
pub use rule::{Action, Decision, Direction, PortRange, Rule, Service};
pub use ruleset::RuleSet;
pub use session::{InnerAddresses, SessionRules};
