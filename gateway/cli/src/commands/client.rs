//! `ringfort login`, `totp`, `up` and `down`.

use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use ringfort_client::{Browser, Login, PasswordSource, Person, Up};
use ringfort_proto::api::TotpSecret;
use ringfort_service::settings::{Backend, Mtu};
use zeroize::Zeroizing;

use super::{state_folder, wait_for};

/// Longest URL that is pasted, in bytes.
const URL_BYTES_MAX: u64 = 16 << 10;
/// What whoever has their browser elsewhere must know of the URL.
const ELSEWHERE: &str = "WARNING: it is for whoever started this login, and nobody else: whoever logs in there is logged in on this machine. \
    Send it to nobody, and open none that you were sent.\n\
    It ends at a page that cannot be shown. Paste the URL of that page here:";

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
    /// How to log in: `password`, or the name of one of the organisation's identity providers; by default the first that can be
    /// used, and `password` with --password-stdin.
    #[arg(long, value_name = "NAME")]
    method: Option<String>,
    /// One-time password of an authenticator app, for users who have one; asked for if it is left out.
    #[arg(long, value_name = "CODE")]
    otp: Option<String>,
    /// The browser is on another machine: paste the URL to which it was sent.
    #[arg(long, conflicts_with = "password_stdin")]
    no_browser: bool,
    /// The identity provider is to ask anew who you are, as for what needs a login of the last five minutes.
    #[arg(long)]
    fresh: bool,
}

#[derive(Args)]
pub(crate) struct TotpOptions {
    /// The state folder of a client whose user has logged in within the last five minutes.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
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
    let LoginOptions { state, controller, ca_fingerprint, user, password_stdin, method, otp, no_browser, fresh } =
        options;
    let state = state_folder(state, "client")?;
    let mut person = match (password_stdin, no_browser) {
        (true, _) => OnCommandLine { source: PasswordSource::Stdin, browser: None },
        (false, true) => OnCommandLine { source: PasswordSource::Terminal, browser: Some(Browser::Elsewhere) },
        (false, false) => OnCommandLine { source: PasswordSource::Terminal, browser: Some(Browser::Here) },
    };
    let login = Login { controller, ca_fingerprint, user, method, otp, fresh };
    let done = wait_for(ringfort_client::login(&state, login, &mut person))?;
    println!("logged in as {} ({})", done.name, done.session);
    match done.sites.as_slice() {
        [] => println!("no site is open to you yet"),
        sites => println!("sites: {}", sites.join(", ")),
    }
    Ok(())
}

/// Whoever types the command.
struct OnCommandLine {
    source: PasswordSource,
    browser: Option<Browser>,
}

impl Person for OnCommandLine {
    fn password(&mut self, user: &str) -> io::Result<Zeroizing<String>> {
        self.source.clone().read(&format!("Password of {user}"))
    }

    fn otp(&mut self) -> io::Result<Zeroizing<String>> {
        match self.source {
            PasswordSource::Terminal => PasswordSource::Terminal.read("One-time password"),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "name it with --otp")),
        }
    }

    fn browser(&self) -> Option<Browser> {
        self.browser
    }

    fn uses(&mut self, method: &str, others: &[String]) {
        eprintln!("the password is that of the method {method}; --method names another: {}", others.join(", "));
    }

    fn visit(&mut self, url: &str) {
        println!("Open this in your browser to log in:\n\n  {url}\n");
        if self.browser == Some(Browser::Elsewhere) {
            println!("{ELSEWHERE}");
        }
        // Whoever reads it waits for it.
        drop(io::stdout().flush());
    }

    fn returned(&mut self) -> io::Result<String> {
        let mut line = String::new();
        io::stdin().lock().take(URL_BYTES_MAX).read_line(&mut line)?;
        Ok(line)
    }
}

pub(crate) fn totp(options: TotpOptions) -> Result<()> {
    let state = state_folder(options.state, "client")?;
    let made = wait_for(ringfort_client::totp(&state))?;
    println!("{}", totp_text(&made));
    Ok(())
}

/// What people need for their authenticator app.
pub(crate) fn totp_text(made: &TotpSecret) -> String {
    format!("{}\nsecret: {}\nput it into an authenticator app now; it is not shown again", made.url, made.secret)
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
