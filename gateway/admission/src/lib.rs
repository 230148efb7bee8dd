//! Who has which session and which rules.

#![forbid(unsafe_code)]
