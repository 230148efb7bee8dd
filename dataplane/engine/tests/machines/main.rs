//! The machines of Gateway and client against each other, without sockets or clock.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod errands;
mod hostile;
mod paths;
mod release;
mod sessions;
mod silence;
mod traffic;
mod twelve;
mod world;

#[allow(dead_code, unused_imports)]
#[path = "../../../dtls/tests/associations/twelve/client.rs"]
mod other_client;
