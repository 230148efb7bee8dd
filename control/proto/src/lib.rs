//! What parties of Ringfort say to each other on the wire: messages of the gRPC stream, of the session channel and of joining
//! ([`v1`], from the .proto files beside), and of the HTTP API ([`api`]).
//!
//! The messages are plain data: nothing in them is believed before its receiver has checked it, and these types stop at the
//! crate that received them. The bindings are checked in and made by `cargo xtask proto`. Both ends compute the [`state_digest`].

#![forbid(unsafe_code)]

pub mod api;
mod digest;

pub use digest::state_digest;

/// Descriptors of the gRPC services and their messages, an encoded `FileDescriptorSet`, for reflection. Made by `cargo xtask proto`.
pub const DESCRIPTORS: &[u8] = include_bytes!("descriptors.bin");

/// Protobuf messages and gRPC services of package `ringfort.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the .proto files say what each message means"
)]
pub mod v1 {
    include!("generated.rs");
}
