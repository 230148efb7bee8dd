//! `ringfort host`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use ringfort_client::Host;

use super::state_folder;

#[derive(Args)]
pub(crate) struct Options {
    /// Folder with which this host joined; as root /var/lib/ringfort/host.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The host's own settings: whether and how often it registers itself; host.toml in the folder by default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// End when standard input ends.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

pub(crate) fn run(options: Options) -> Result<()> {
    let Options { state, config, stop_with_stdin } = options;
    ringfort_client::host(&Host { state: state_folder(state, "host")?, config, stop_with_stdin })
}
