//! `ringfort controller`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use ringfort_client::PasswordSource;
use ringfort_controller::core::{FirstAdministrator, PostgresUrl};

use super::state_folder;

#[derive(Args)]
pub(crate) struct Options {
    /// The Controller's state folder; made on the first start.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Where to listen; needed on the first start.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where everybody reaches the Controller, as invitations name it; by default where it listens. First start only.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// DNS name or IP address for the Controller's certificate; may be given several times. First start only.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// PostgreSQL database of several Controllers, by default a file of this one: postgres://USER@HOST/NAME?sslmode=verify-full.
    /// A password is better kept in the file that PGPASSFILE names, since a command line is not private. First start only.
    #[arg(long, value_name = "URL")]
    database: Option<PostgresUrl>,
    /// Login name of the first administrator. First start only.
    #[arg(long, value_name = "NAME")]
    administrator: Option<String>,
    /// Read the administrator's password from the first line of standard input.
    #[arg(long, requires = "administrator", conflicts_with = "password_file")]
    password_stdin: bool,
    /// Read the administrator's password from the first line of this file.
    #[arg(long, requires = "administrator", value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// End when standard input ends.
    #[arg(long, hide = true, conflicts_with = "password_stdin")]
    stop_with_stdin: bool,
}

pub(crate) fn run(options: Options) -> Result<()> {
    let state = state_folder(options.state, "controller")?;
    let source = match (options.password_file, options.password_stdin) {
        (Some(file), _) => PasswordSource::File(file),
        (None, true) => PasswordSource::Stdin,
        (None, false) => PasswordSource::Terminal,
    };
    let administrator = options.administrator.map(|name| -> Result<_> {
        let password = source.read(&format!("New password of {name}"))?;
        Ok(FirstAdministrator { name, password })
    });
    let settings = ringfort_controller::Options {
        listen: options.listen,
        names: options.names,
        address: options.advertise,
        database: options.database,
        administrator: administrator.transpose()?,
        ..ringfort_controller::Options::default()
    };
    ringfort_controller::run(&state, &settings, options.stop_with_stdin)
}
