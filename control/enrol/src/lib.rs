//! How everything joins, and how it proves from then on who it is: used by every role.
//!
//! - [`Invitation`]: the URL of an invitation; [`join()`] uses one up.
//! - [`Folder`]: the private folder of a role with its key, certificate and trust.
//! - [`tls`]: TLS 1.3 for every connection of ours, and [`tls::verify_peer`], the one way to a peer's identity on it.
//! - [`Https`]: a client for the Controller's API over such a connection.
//!
//! From joining on a role's identity is the private key in its folder, which never leaves it, and a short-lived certificate.
//!
//! What this crate deliberately does not do: decide who may join or what an identity may do (the Controller does), believe
//! tokens (`control/token` does), and judge deny lists (whoever admits does).

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod folder;
mod https;
mod invitation;
mod join;
mod key;
pub mod tls;

pub use folder::{Folder, FolderError, Identity, Kind, LockedFolder, Secrecy, SignerRefused, file, to_pem, token_keys};
pub use https::{Answer, Https, HttpsError};
pub use invitation::{HASH_BYTES, Invitation, InvitationError, key_hash};
pub use join::{JoinError, Joiner, MESSAGE_BYTES_MAX, join, read_message, write_message};
pub use key::{KeyFailed, PrivateKey};

use std::time::{SystemTime, UNIX_EPOCH};

use ringfort_types::UnixSeconds;

/// The wall clock.
#[must_use]
pub fn wall_clock() -> UnixSeconds {
    UnixSeconds::from_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
