//! `ringfort status`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::state_folder;

/// Status sockets in state folders.
const SOCKETS: [&str; 4] = [ringfort_client::STATUS_SOCKET, "gateway.sock", "controller.sock", "host.sock"];

#[derive(Args)]
pub(crate) struct Options {
    /// Its state folder; by default that of this user's client.
    #[arg(long, value_name = "DIR", conflicts_with = "socket")]
    state: Option<PathBuf>,
    /// Its status socket, as named in its file.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(crate) fn run(options: Options) -> Result<()> {
    let socket = match options.socket {
        Some(socket) => socket,
        None => {
            let state = state_folder(options.state, "client")?;
            let found = SOCKETS.iter().map(|name| state.join(name)).find(|socket| socket.exists());
            found.with_context(|| format!("{}: no role runs with this folder", state.display()))?
        }
    };
    let document = ringfort_service::status::query(&socket)
        .with_context(|| format!("{}: no role answers there; is it running?", socket.display()))?;
    println!("{document:#}");
    Ok(())
}
