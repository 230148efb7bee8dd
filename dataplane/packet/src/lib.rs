//! Checked views of inner IP packets, and the joining and cutting of segments.

#![forbid(unsafe_code)]

pub mod flow;
pub mod parse;
