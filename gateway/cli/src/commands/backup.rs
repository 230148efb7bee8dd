//! `ringfort backup` and `ringfort restore`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::state_folder;

#[derive(Args)]
pub(crate) struct BackupOptions {
    /// The Controller's state folder.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// A new folder for the backup. It will have every key of the Controller: keep it as you keep that.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

#[derive(Args)]
pub(crate) struct RestoreOptions {
    /// A backup. Without it the state folder is taken as it is, with a PostgreSQL database that was restored by its own means.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// The Controller's state folder; new, if there is a backup.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

pub(crate) fn backup(options: BackupOptions) -> Result<()> {
    let state = state_folder(options.state, "controller")?;
    ringfort_controller::backup(&state, &options.to)?;
    println!("{} is a backup of {}", options.to.display(), state.display());
    if !options.to.join("database.sqlite").exists() {
        println!("the database is in PostgreSQL and not in it: use pg_dump");
    }
    Ok(())
}

pub(crate) fn restore(options: RestoreOptions) -> Result<()> {
    let state = state_folder(options.state, "controller")?;
    ringfort_controller::restore(options.from.as_deref(), &state)?;
    println!("{} begins a new epoch: everybody logs in again, and open invitations are used up", state.display());
    println!("ringfort controller --state {}", state.display());
    Ok(())
}
