//! Who has which session and which rules: tokens, pushes, tunnels, channels and time become actions.
//!
//! ```text
//!  channel: opened ──▶ Present believed ──┐
//!                      Bind ──────────────┼──▶ bound = a live session ──▶ channel lost: 60 s to come back
//!  tunnel: Authenticated ─────────────────┘            │
//!                                                      ▼ revoked, expired, replaced, lost, tunnel ended, stopped
//!                                                    ended
//! ```
//!
//! An [`Admission`] is asked in this order:
//!
//! - A. [`Admission::new`], or [`Admission::restore`] with what an earlier process kept.
//! - B. Inputs: [`Admission::handle_event`] for what workers tell; [`Admission::channel_opened`],
//!   [`Admission::channel_message`] and [`Admission::channel_closed`] for session channels, [`Admission::peer_refused`] for
//!   those that came to nothing; [`Admission::signers`], [`Admission::pushed_configuration`],
//!   [`Admission::pushed_entitlement`] and [`Admission::pushed_revocations`] for the Controller's stream;
//!   [`Admission::set_admitting`] and [`Admission::guarded`] for what the process itself finds out;
//!   [`Admission::handle_timeout`] when it is time.
//! - C. [`Admission::poll_action`] until `None` after each input, in order; then [`Admission::poll_timeout`].
//!
//! A session is a distinguished name with a bound tunnel. Its rules are the Gateway's own ceiling ∧ the site's allow-list ∧
//! the grants of the newest entitlement token; it ends with whatever it rests on ends first: claims, entitlement, the
//! certificates of channel and tunnel, a renewal that is demanded. Whatever is refused has one code, one count and one
//! audit event ([`codes`]).
//!
//! [`fixed`] is the admission of `--static`, which knows users from a file and no tokens.
//!
//! What this crate deliberately does not do: no sockets, files, clocks or randomness (all passed in); no packets, which
//! workers judge; no certificates, which the handshake has verified; no protobuf, which the shells convert. Requirements:
//! A11, A12, A23, C13–C15, K5, R7–R9, R12, X14; `docs/CONTROL.md`.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod binding;
mod compiler;
mod denials;
mod effects;
pub mod fixed;
mod held;
mod interface;
mod machine;
mod refused;
mod seen;

pub use binding::{EXPORTER_TO_CLIENT, EXPORTER_TO_GATEWAY, EXPORTER_TUNNEL};
pub use denials::{DENIALS_MAX, Denial, Denials, destination};
pub use interface::{
    Action, Applied, AuditEvent, ChannelId, FromClient, Moment, NotAdmitting, Part, Persisted, Revocations, Sequence,
    Sequences, SessionView, Settings, ToClient,
};
pub use machine::Admission;
pub use refused::codes;
