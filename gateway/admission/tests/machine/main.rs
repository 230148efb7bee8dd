//! The machine in a small world of its own: real certificates, real tokens, real handshakes; workers, clients and a
//! Controller that do what they are told.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod admit;
mod binding;
mod notices;
mod pushes;
mod refusals;
mod restart;
mod revocations;
mod sequences;
mod two_channels;
mod world;
