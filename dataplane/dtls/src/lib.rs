//! DTLS associations for the data plane, without I/O.
//!
//! An [`Association`] is one side of one DTLS connection. Call order, per datagram or per wake-up:
//!
//! - A. [`Association::server`] or [`Association::client`] makes one from a shared [`ServerConfig`] or [`ClientConfig`].
//! - B. [`Association::handle_datagram`] takes what came from the peer and hands out the plaintexts, opened in place;
//!   [`Association::handle_timeout`] takes the time.
//! - C. [`Association::seal`] protects one inner packet into the caller's buffer; [`Association::close`] says goodbye.
//! - D. [`Association::poll_transmit`] until `None`, then [`Association::poll_event`] until `None`, then
//!   [`Association::poll_timeout`] says when to call B again.
//!
//! Time goes in and never backwards. Datagrams that are malformed, replayed or foreign are dropped inside; an [`Ended`]
//! event means that the association is over.
//!
//! The peer is authenticated **before** any plaintext is handed out: chain to the configured CA, time, extended key
//! usage, and the role in the certificate's URI (`ringfort-identity`). An established association also has an
//! [`ExporterSecret`], from which both sides derive values that bind other channels to it (C15).
//!
//! What this crate deliberately does not do: choose rules, know users, own sockets or read clocks. What it cannot do
//! until it has an engine of its own, because today it stands on dimpl: stateless cookies, connection ids, certificate
//! sending of intermediates (both sides must know them), DTLS 1.2, RSA and Ed25519 certificates, and
//! records without allocation. Sources: RFC 9147, RFC 5280, RFC 6125; requirements K4, A2, A10.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod association;
pub mod cid;
mod exporter;
pub mod record;
mod screen;

pub use association::{Association, ClientConfig, Ended, Event, RECORD_OVERHEAD_BYTES, ServerConfig};
pub use exporter::{EXPORTED_BYTES, ExporterSecret};
pub use screen::opening_random;
