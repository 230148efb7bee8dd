//! `ringfort login`, `up` and `down`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use ringfort_client::{Login, PasswordSource, Up};
use ringfort_service::settings::{Backend, Mtu};

use super::{state_folder, wait_for};

#[derive(Args)]
pub(crate) struct LoginOptions {
    /// The client's state folder.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// `https://HOST:PORT` of a Controller; needed once, unless the device has joined by an invitation.
    #[arg(value_name = "URL")]
    controller: Option<String>,
    /// SHA-256 of the organisation's root certificate, from your administrator; needed once, likewise.
    #[arg(long, value_name = "HEX")]
    ca_fingerprint: Option<String>,
    /// Login name; by default that of the last login.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Read the password from the first line of standard input.
    #[arg(long)]
    password_stdin: bool,
}

#[derive(Args)]
pub(crate) struct UpOptions {
    /// Run from this file: the mode for development and benchmarks.
    #[arg(long = "static", value_name = "FILE", conflicts_with_all = ["state", "status_socket", "backend", "mtu"])]
    file: Option<PathBuf>,
    /// The client's state folder.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Where `ringfort status` may ask; by default client.sock in the state folder.
    #[arg(long, value_name = "PATH")]
    status_socket: Option<PathBuf>,
    /// How packets are read and written.
    #[arg(long, value_enum, default_value_t)]
    backend: BackendName,
    /// Largest packet inside the tunnels, in bytes.
    #[arg(long, value_name = "BYTES", value_parser = parse_mtu)]
    mtu: Option<Mtu>,
    /// End when standard input ends.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

#[derive(Args)]
pub(crate) struct DownOptions {
    /// The client's state folder.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum BackendName {
    /// io_uring, or epoll where the kernel refuses it.
    #[default]
    Auto,
    /// io_uring or an error.
    #[value(name = "io_uring")]
    IoUring,
    /// epoll.
    Epoll,
}

pub(crate) fn login(options: LoginOptions) -> Result<()> {
    let LoginOptions { state, controller, ca_fingerprint, user, password_stdin } = options;
    let state = state_folder(state, "client")?;
    let source = if password_stdin { PasswordSource::Stdin } else { PasswordSource::Terminal };
    let password = |user: &str| source.read(&format!("Password of {user}"));
    let login = Login { controller, ca_fingerprint, user };
    let done = wait_for(ringfort_client::login(&state, login, password))?;
    println!("logged in as {} ({})", done.name, done.session);
    match done.sites.as_slice() {
        [] => println!("no site is open to you yet"),
        sites => println!("sites: {}", sites.join(", ")),
    }
    Ok(())
}

pub(crate) fn up(options: UpOptions) -> Result<()> {
    if let Some(file) = options.file {
        return ringfort_client::up_static(&file, options.stop_with_stdin);
    }
    let backend = match options.backend {
        BackendName::Auto => Backend::Auto,
        BackendName::IoUring => Backend::IoUring,
        BackendName::Epoll => Backend::Epoll,
    };
    ringfort_client::up(&Up {
        state: state_folder(options.state, "client")?,
        status_socket: options.status_socket,
        backend,
        mtu: options.mtu.unwrap_or_default(),
        stop_with_stdin: options.stop_with_stdin,
    })
}

pub(crate) fn down(options: DownOptions) -> Result<()> {
    let state = state_folder(options.state, "client")?;
    let text = if ringfort_client::down(&state)? { "down" } else { "was not up" };
    println!("{text}");
    Ok(())
}

fn parse_mtu(text: &str) -> Result<Mtu, String> {
    Mtu::try_from(text.parse::<u32>().map_err(|error| error.to_string())?)
}
