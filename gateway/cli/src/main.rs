//! The `ringfort` command: one program, a subcommand per role.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod commands;
mod demo;
mod static_init;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use mimalloc::MiMalloc;
use ringfort_daemon::SetLog;
use tracing_subscriber::{EnvFilter, reload};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[derive(Parser)]
#[command(
    name = "ringfort",
    version,
    about = "Users reach exactly what they are entitled to at a remote site, through an encrypted tunnel."
)]
struct Arguments {
    /// What to log: a level, or filters such as `info,ringfort_daemon=debug`.
    #[arg(long, global = true, default_value = "info", value_name = "FILTER")]
    log: String,
    /// How to write the log, which goes to standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogForm::Text)]
    log_form: LogForm,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogForm {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Join an organisation by an invitation: as a Gateway, a user's machine, a program's, a host, or another Controller.
    Join(commands::join::Options),
    /// Log in at the Controller, and fetch what this client needs.
    Login(commands::client::LoginOptions),
    /// Get one-time passwords for your own account, to be asked for beside the password.
    Totp(commands::client::TotpOptions),
    /// Bring up a client's tunnels and keep them up.
    Up(commands::client::UpOptions),
    /// End a running client.
    Down(commands::client::DownOptions),
    /// Print the state of a running role as JSON.
    Status(commands::status::Options),
    /// Run a Gateway: ends tunnels at a site and lets through what its users' rules allow.
    Gateway(commands::gateway::Options),
    /// Run on a host that registers itself: tells the Controller at which addresses it can be reached.
    Host(commands::host::Options),
    /// Run a Controller: says who may reach what.
    Controller(commands::controller::Options),
    /// Back up a Controller, which may run.
    Backup(commands::backup::BackupOptions),
    /// Make a Controller of its backup; everybody logs in again.
    Restore(commands::backup::RestoreOptions),
    /// Print the HTTP API's OpenAPI document, which a Controller serves as well.
    Openapi,
    /// Administer: users, sites, Resources, entitlements, invitations, revocations.
    Admin(commands::admin::Options),
    /// Write a folder with all that a static Gateway and its clients need, for development and benchmarks.
    StaticInit(static_init::Options),
    /// Show it all in a laboratory of namespaces: a Controller, Gateways, users, what they may reach, and what is refused.
    Demo(demo::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let set_log = match start_log(&arguments) {
        Ok(set_log) => set_log,
        Err(error) => {
            eprintln!("ringfort: {error:#}");
            return ExitCode::from(2);
        }
    };
    let result = match arguments.command {
        Command::Join(options) => commands::join::run(options),
        Command::Login(options) => commands::client::login(options),
        Command::Totp(options) => commands::client::totp(options),
        Command::Up(options) => commands::client::up(options),
        Command::Down(options) => commands::client::down(options),
        Command::Status(options) => commands::status::run(options),
        Command::Gateway(options) => commands::gateway::run(&options, set_log),
        Command::Host(options) => commands::host::run(options),
        Command::Controller(options) => commands::controller::run(options),
        Command::Backup(options) => commands::backup::backup(options),
        Command::Restore(options) => commands::backup::restore(options),
        Command::Openapi => commands::openapi::run(),
        Command::Admin(options) => commands::admin::run(options),
        Command::StaticInit(options) => static_init::run(&options),
        Command::Demo(options) => return demo::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringfort: {}", error_text(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, each said once: many of ours name their cause in their own text.
fn error_text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Starts the log; gives what changes its filter.
fn start_log(arguments: &Arguments) -> anyhow::Result<SetLog> {
    let filter = EnvFilter::try_new(&arguments.log)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    Ok(match arguments.log_form {
        LogForm::Text => {
            let log = log.with_ansi(false).with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            set_log(move |filter| handle.reload(filter))
        }
        LogForm::Json => {
            let log = log.json().flatten_event(true).with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            set_log(move |filter| handle.reload(filter))
        }
    })
}

fn set_log(reload: impl Fn(EnvFilter) -> Result<(), reload::Error> + Send + 'static) -> SetLog {
    Box::new(move |text| {
        let filter = EnvFilter::try_new(text).map_err(|error| format!("expected a level or filters: {error}"))?;
        reload(filter).map_err(|error| error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn causes_are_said_once() {
        let inner = std::io::Error::other("it is gone");
        let error = anyhow!(inner).context("cannot read x: it is gone").context("user alice");
        assert_eq!(error_text(&error), "user alice: cannot read x: it is gone");
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
