//! The machines of Gateway and client against each other, without sockets or clock.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod errands;
mod hostile;
mod paths;
mod release;
mod sessions;
mod silence;
mod traffic;
mod world;
