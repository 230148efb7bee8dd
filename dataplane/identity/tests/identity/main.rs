//! From a certificate to an identity, and from a public key to its thumbprint: what is taken, and everything that is not.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod chain;
mod leaf;
mod thumbprint;
mod world;
