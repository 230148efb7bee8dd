//! The Controller: decides and signs.

#![forbid(unsafe_code)]
