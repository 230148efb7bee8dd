//! How everything joins, and how it proves afterwards who it is.

#![forbid(unsafe_code)]
