//! Tokens, proofs and the deny list from outside: what is believed, and everything that is not.
//!
//! The negative cases are made from tables: each begins with a text that is believed, changes one thing in it, signs the
//! result with the right key, and names the refusal. So what is refused is refused for that one thing.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod claims;
mod deny;
mod form;
mod json;
mod judged;
mod kinds;
mod proofs;
mod world;
