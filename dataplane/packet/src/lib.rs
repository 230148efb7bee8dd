//! Checked views of inner IP packets, and the joining and cutting of segments.
//!
//! The way of a packet through this crate:
//!
//! - tunnel → TUN: [`parse::parse`] checks what came out of the record layer, the firewall decides by
//!   [`parse::Parsed`], [`coalesce::Coalescer`] joins what passed into the super-frames that a TUN queue takes;
//! - TUN → tunnel: [`split::Splitter`] cuts a super-frame into packets, which [`parse::parse`] then checks;
//! - what the firewall refuses may be answered by [`reject`].
//!
//! [`vnet`] is the header that stands before every frame of a TUN queue, [`checksum`] the Internet checksum, and
//! [`build`] makes packets for tests and for the laboratory.
//!
//! Everything here is a pure function of its arguments: no clock, no I/O, no randomness. Nothing on the packet path
//! allocates once its buffers have grown to the size of a batch ([`build`] allocates and is not on that path), and
//! no input makes anything panic. The crate does not decide what may pass, does not reassemble fragments and does
//! not follow connections.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod build;
pub mod checksum;
pub mod coalesce;
pub mod flow;
pub mod parse;
pub mod reject;
pub mod split;
pub mod vnet;
mod wire;
