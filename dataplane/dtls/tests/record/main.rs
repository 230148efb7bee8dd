//! The record layer from outside: round trips, what must be dropped, and that no nonce is used twice.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod drops;
mod header;
mod nonces;
mod numbers;
mod pair;
mod resync;
mod roundtrip;
