//! Who we are and who a peer is: credentials, trust, roles, and the one way from a certificate to an identity.
//!
//! Every connection of Ringfort, DTLS and TLS alike, names its peer by [`Trust::verify`]: chain to the organisation's root,
//! time, extended key usage, and the role in the leaf's one URI (`ringfort://<organisation>/<role>/<id>`), which the CA
//! alone sets. Nothing else makes a [`PeerIdentity`]. Only the **leaf** is looked at for who the peer is, never another
//! certificate of the chain (A2, A9; RFC 5280 §6).
//!
//! What this crate deliberately does not do: handshakes (a certificate says nothing until its holder has signed with its
//! key, which the caller of [`Trust::verify`] has seen), revocation (deny lists are judged where sessions are admitted), and
//! any I/O or clock.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod credentials;
mod hostname;
mod key;
mod name;
mod peer;
mod trust;

pub use credentials::{ConfigError, Credentials};
pub use hostname::Hostname;
pub use key::{KeyError, KeyThumbprint};
pub use name::{ID_BYTES_MAX, NameError, Role, RoleUri, SessionDn};
pub use peer::PeerIdentity;
pub use trust::{INTERMEDIATES_MAX, Side, Trust, VerifyError};
