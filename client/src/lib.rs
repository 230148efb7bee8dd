//! The client on a user's machine: it joins, logs in, and keeps a tunnel to each site that is open to its user.
//!
//! - [`join()`] and [`login()`] make a state folder with key, certificate and tokens; [`up()`] runs with it, [`down()`] ends
//!   that. [`up_static`] runs from a file, the mode for development and benchmarks.
//! - [`host()`] registers a host of a folder of the same kind, again and again, and needs no user.
//! - [`Admin`] is what an administrator asks of the Controller, with a folder of the same kind.
//!
//! Only the destinations that are granted are routed into a tunnel; everything else goes its way as if the client did not run
//! (C6). The routes stay while a tunnel is down, so that what belongs into it never leaves in the clear. Every token is verified
//! before it is stored and again before it is used (C2), and no packet enters a tunnel before the session channel has shown
//! that both end at the same Gateway (C12, C15).
//!
//! What this crate deliberately does not do: decide what is allowed (the Gateway does, for every packet), and resolve names
//! at the sites.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod admin;
mod beside;
mod channel;
mod controller;
mod down;
mod follow;
mod host;
mod join;
mod login;
mod method;
mod network;
mod password;
mod random;
mod redirect;
mod renewal;
mod routes;
mod site;
mod static_config;
mod static_run;
#[cfg(test)]
mod testing;
mod tokens;
mod tunnel;
mod up;

pub use admin::{Admin, List, Removed};
pub use controller::{ControllerClient, ControllerError};
pub use down::down;
pub use ringfort_enrol::Kind;
pub use ringfort_token::InviteeKind;

pub use host::{Host, host};
pub use join::{Ticket, TicketSource, join};
pub use login::{LoggedIn, Login, Person, login, totp};
pub use password::PasswordSource;
pub use redirect::Browser;
pub use static_run::up_static;
pub use tokens::TokensError;
pub use up::{STATUS_SOCKET, Up, up};
