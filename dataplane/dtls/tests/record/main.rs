//! The record layer from outside: round trips, what must be dropped, and that no nonce is used twice.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod pair;
mod roundtrip;
