//! `ringfort gateway`: with a Controller, or from a file.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use ringfort_daemon::SetLog;

use super::state_folder;

#[derive(Args)]
pub(crate) struct Options {
    /// Folder with which this Gateway joined; as root /var/lib/ringfort/gateway.
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    state: Option<PathBuf>,
    /// The site's own settings: where to listen, and the ceiling that no Controller can lift.
    #[arg(long, value_name = "FILE", default_value = "/etc/ringfort/gateway.toml", conflicts_with = "file")]
    config: PathBuf,
    /// Run from this file of users, certificates and rules: the mode for development and benchmarks.
    #[arg(long = "static", value_name = "FILE")]
    file: Option<PathBuf>,
    /// End when standard input ends.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

pub(crate) fn run(options: &Options, set_log: SetLog) -> Result<()> {
    match &options.file {
        Some(file) => ringfort_daemon::run_static(file, options.stop_with_stdin),
        None => {
            let state = state_folder(options.state.clone(), "gateway").context("where this Gateway joined")?;
            ringfort_daemon::run(&state, &options.config, set_log, options.stop_with_stdin)
        }
    }
}
