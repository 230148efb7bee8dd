//! Who has which session and which rules.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod denials;
pub mod fixed;
mod interface;

pub use denials::{DENIALS_MAX, Denial, Denials, destination};
pub use interface::{
    Action, Applied, AuditEvent, ChannelId, FromClient, Moment, NotAdmitting, Part, Persisted, Revocations, Sequence,
    Sequences, SessionView, Settings, ToClient,
};
