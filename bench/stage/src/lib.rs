//! The product's roles on the laboratory's stage, as demo, tests and benches start them: files for a static Gateway and its
//! clients, the processes, their states, and a client without an interface that sends whatever packets a test wants.
//!
//! It deliberately looks into no role: what it learns of one comes from its output, its status socket and the kernel.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod files;
pub mod hostile;
mod probe;
pub mod realm;
mod roles;

pub use probe::Probe;
pub use realm::Realm;
pub use roles::{Finished, Process, Stage, Starting};
