//! The commands, a module per family.

pub(crate) mod admin;
pub(crate) mod backup;
pub(crate) mod client;
pub(crate) mod controller;
pub(crate) mod gateway;
pub(crate) mod host;
pub(crate) mod join;
pub(crate) mod openapi;
mod policy;
mod receipts;
mod since;
pub(crate) mod status;
mod table;

use std::future::Future;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The folder of a role where none is named: `/var/lib/ringfort/<role>` for root, the user's state folder for anybody else.
fn state_folder(named: Option<PathBuf>, role: &str) -> Result<PathBuf> {
    if let Some(named) = named {
        return Ok(named);
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/ringfort").join(role));
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    let base = base.context("expected $HOME or $XDG_STATE_HOME to be set; or name a folder with --state")?;
    Ok(base.join("ringfort").join(role))
}

/// Runs one request to its end on this thread.
fn wait_for<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
