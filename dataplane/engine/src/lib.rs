//! What one worker does with packets, without I/O: [`gateway::Gateway`] at a site, [`client::Client`] on a user's machine.
//!
//! **Inside** is the TUN side, **outside** the socket side. Both machines are a [`Machine`]; the shell around one of them
//! works in turns:
//!
//! - A. [`Machine::handle_command`] for what the control side wants.
//! - B. [`Machine::handle_outside`] for each received buffer, [`Machine::handle_inside`] for each TUN frame. A buffer that
//!   belongs to a session of another worker comes back untouched with that worker's index.
//! - C. [`Machine::handle_timeout`] when [`Machine::poll_timeout`] is due.
//! - D. [`Machine::poll_errand`] while there is room for errands; each comes back by [`Machine::handle_errand`] when it has run.
//! - E. [`Machine::poll_event`] until `None`; then write [`Machine::output`] and call [`Machine::clear_output`]. The output
//!   refers to the received buffers by slot, so these stay as they are until it is written.
//!
//! The way of a packet from outside: association by address → opened in place → firewall → coalesced. From inside:
//! session by inner destination → firewall → cut into packets in place → sealed behind the previous record of the same
//! send.
//!
//! This crate deliberately reads no clock, owns no socket and knows no tokens: it has sessions, rules and packets.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod budget;
pub mod client;
pub mod counters;
pub mod gateway;
mod machine;
mod message;
mod outbox;
mod prefixes;
mod timers;

pub use machine::{Errand, Machine, NoErrand, Now, Output};
pub use message::{MESSAGE_BYTES, Message, Token};
pub use outbox::{Outbox, Transmit};
pub use prefixes::Prefixes;
