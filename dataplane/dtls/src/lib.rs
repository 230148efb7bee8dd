//! DTLS associations for the data plane, without I/O.
//!
//! An [`Association`] is one side of one connection of DTLS 1.3, or the server's side of one of DTLS 1.2, which look the same
//! from outside. Call order, per datagram or per wake-up:
//!
//! - A. A server's [`Front`] screens what comes from addresses where nobody is known: it asks for a cookie and keeps nothing, or
//!   gives an [`Opening`]. [`Association::server`] and [`Association::client`] make an association from a shared
//!   [`ServerConfig`] or [`ClientConfig`].
//! - B. [`Association::handle_datagram`] takes what came from the peer and hands out the plaintexts, opened in place;
//!   [`Association::handle_timeout`] takes the time.
//! - C. [`Association::seal`] protects one inner packet into the caller's buffer; [`Association::update_keys`] asks for new
//!   keys, which also come by themselves; [`Association::close`] says goodbye.
//! - D. [`Association::poll_transmit`] until `None`, then [`Association::poll_event`] until `None`, then
//!   [`Association::poll_timeout`] says when to call B again.
//!
//! Time and randomness go in, time never backwards; key pairs and signatures alone take their randomness from the cryptography
//! library. Datagrams that are malformed, replayed or foreign are dropped inside and told ([`Received::Discarded`]); an
//! [`Ended`] event means that the association is over.
//!
//! The peer is authenticated **before** any plaintext is handed out: it has signed the handshake with the key of its leaf, and a
//! [`PeerPolicy`] has judged its chain; the product's, [`Trusted`], asks for the CA, the time, the extended key usage, and the
//! role in the certificate's URI (`ringfort-identity`). An established association has an [`ExporterSecret`], from which both
//! sides derive values that bind other channels to it (C15).
//!
//! What is in the clear ends nothing: alerts there are not believed, a hello that cannot be is told so and another awaited, and a
//! hello that led nowhere gives way to the next. In DTLS 1.2 that goes for all up to the client's Finished, which proves what
//! was before it; the extended master secret is mandatory (RFC 7627), AEADs with ephemeral keys are all that is spoken
//! (RFC 9325), nothing is renegotiated, and a key that has reached its limit ends the association.
//!
//! From the outside in: [`record`] seals and opens, `handshake` shakes hands, `post_handshake` is what goes on beside packets,
//! `crypto` computes, `wire` reads and writes, [`cid`] makes connection ids, `cookie` cookies.
//!
//! What this crate deliberately does not do: choose rules, know users, own sockets or read clocks; resume, send early data or
//! renegotiate; be a client of DTLS 1.2. Sources: RFC 9147, RFC 8446, RFC 6347, RFC 5246, RFC 7627, RFC 9325, RFC 9146,
//! RFC 5280; requirements K4, A2, A8,
//! A10, C12, C15, X10, X16.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod alert;
mod association;
pub mod cid;
mod config;
mod connection_ids;
mod cookie;
mod crypto;
mod front;
mod handshake;
mod policy;
mod post_handshake;
mod post_handshake12;
pub mod record;
mod wire;

pub use alert::{Alert, Fatal};
pub use association::{
    Association, Discarded, Ended, Event, RECORD_OVERHEAD_BYTES_12, RECORD_OVERHEAD_BYTES_13, Received,
};
pub use config::{AddressValidation, ClientAuth, ClientConfig, PROTOCOL, ProtocolVersion, ServerConfig, Settings};
pub use crypto::{EXPORTED_BYTES, ExporterSecret, Group, Randomness};
pub use front::{Front, Opening, Reply, Screened, Unwelcome};
pub use policy::{PeerPolicy, Trusted};
