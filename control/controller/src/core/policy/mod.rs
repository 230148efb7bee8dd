//! Policy as code: what two policies differ in and what is wrong with one, which is pure; and applying one, in one transaction.
//!
//! What it deliberately does not do: it reads no file, makes no users and removes none, and touches neither Gateways nor
//! administrators.

mod apply;
mod diff;
mod lint;

pub use diff::diff;
pub use lint::{Finding, Severity, lint};
