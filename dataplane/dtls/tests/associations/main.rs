//! Whole associations back to back: what is established, what is refused, and what a network or a stranger can do to them.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod dimpl_peer;
mod front;
mod handshake;
mod hostile;
mod keys;
mod lossy;
mod network;
mod paths;
mod refused;
mod thirteen;
mod twelve;
mod world;
