//! An organisation on the stage: a Controller, its administrator, Gateways at sites and users, each a real process with the
//! commands that people type.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ringfort_netlab::{Lab, Namespace, address};

use crate::roles::{Finished, Process, Stage, Starting};

/// Where Controllers and Gateways listen.
pub const PORT: u16 = 443;
/// Login name of the administrator.
pub const ADMINISTRATOR: &str = "operator";
/// Passwords are this with the login name in front: nothing here is worth more.
const PASSWORD: &str = "-correct-horse-battery";

/// The organisation. The laboratory needs a controller, and a client's namespace called `operator`.
#[derive(Debug)]
pub struct Realm {
    /// Namespaces, folder and program.
    pub stage: Stage,
    /// How packets are read and written: `auto`, `io_uring` or `epoll`.
    backend: String,
    /// The PostgreSQL database of its Controllers, if they do not use a file.
    database: Option<String>,
}

impl Realm {
    /// An organisation of which nothing runs yet.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(lab: Lab, program: &Path, backend: &str) -> Result<Self> {
        Ok(Self { stage: Stage::bare(lab, program)?, backend: backend.into(), database: None })
    }

    /// The same, whose Controllers keep what they know in the PostgreSQL database at `url`.
    #[must_use]
    pub fn with_database(self, url: &str) -> Self {
        Self { database: Some(url.into()), ..self }
    }

    /// Where the Controller listens.
    #[must_use]
    pub fn controller_address(&self) -> SocketAddr {
        (address::CONTROLLER_V4, PORT).into()
    }

    /// Where the Gateway of site `number` listens.
    #[must_use]
    pub fn gateway_address(&self, number: usize) -> SocketAddr {
        (address::gateway(number).0, PORT).into()
    }

    /// The state folder of whoever is called `name`.
    #[must_use]
    pub fn state(&self, name: &str) -> PathBuf {
        self.stage.folder().join(name)
    }

    /// The password of `user`.
    #[must_use]
    pub fn password(user: &str) -> String {
        format!("{user}{PASSWORD}\n")
    }

    /// Starts the Controller, which initialises itself in an empty folder, and does not wait.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn controller_begin(&self) -> Result<Starting> {
        let password = self.stage.folder().join("administrator.password");
        std::fs::write(&password, Self::password(ADMINISTRATOR))?;
        let more = ["--administrator".into(), ADMINISTRATOR.into(), "--password-file".into(), password.into()];
        self.begin_controller("controller", self.controller_address(), &more)
    }

    /// Starts another Controller called `name`, which has joined, on another port of the same machine, and does not wait.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn another_controller_begin(&self, name: &str, port: u16) -> Result<Starting> {
        self.begin_controller(name, (address::CONTROLLER_V4, port).into(), &[])
    }

    fn begin_controller(&self, name: &str, listen: SocketAddr, more: &[OsString]) -> Result<Starting> {
        let state = self.state(name);
        let mut arguments: Vec<OsString> =
            vec!["controller".into(), "--state".into(), state.clone().into(), "--listen".into()];
        arguments.push(listen.to_string().into());
        arguments.extend(more.iter().cloned());
        if let Some(url) = &self.database {
            arguments.extend(["--database".into(), url.into()]);
        }
        self.stage.begin(name, self.stage.lab.controller()?, &arguments, "", state.join("controller.sock"))
    }

    /// Logs the administrator in, from URL and fingerprint alone (A1).
    ///
    /// # Errors
    /// When the command cannot be carried out; how it ended is in the answer.
    pub fn operator_login(&self, controller: &Process) -> Result<Finished> {
        let status = controller.status()?;
        let fingerprint = status["ca_fingerprint"].as_str().context("the Controller tells no fingerprint")?.to_owned();
        let url = format!("https://{}", self.controller_address());
        let arguments = ["login", &url, "--ca-fingerprint", &fingerprint, "--user", ADMINISTRATOR, "--password-stdin"];
        self.of(ADMINISTRATOR, self.stage.lab.client(ADMINISTRATOR)?, &arguments, &Self::password(ADMINISTRATOR))
    }

    /// A command of the administrator's: `ringfort admin …`.
    ///
    /// # Errors
    /// As [`Realm::operator_login`].
    pub fn admin(&self, arguments: &[&str]) -> Result<Finished> {
        self.admin_with(arguments, "")
    }

    /// As [`Realm::admin`], with standard input.
    ///
    /// # Errors
    /// As [`Realm::operator_login`].
    pub fn admin_with(&self, arguments: &[&str], stdin: &str) -> Result<Finished> {
        let arguments: Vec<&str> = std::iter::once("admin").chain(arguments.iter().copied()).collect();
        self.of(ADMINISTRATOR, self.stage.lab.client(ADMINISTRATOR)?, &arguments, stdin)
    }

    /// Creates a user.
    ///
    /// # Errors
    /// When it does not succeed.
    pub fn add_user(&self, user: &str) -> Result<String> {
        self.admin_with(&["user", "add", user, "--password-stdin"], &Self::password(user))?.ok()
    }

    /// Creates the site with the number `number` of the laboratory, with its pools.
    ///
    /// # Errors
    /// When it does not succeed.
    pub fn add_site(&self, number: usize, name: &str) -> Result<String> {
        let ((v4, v4_bits), (v6, v6_bits)) = address::pool(number);
        let pools = [(IpAddr::V4(v4), v4_bits), (IpAddr::V6(v6), v6_bits)];
        let pools = pools.map(|(network, bits)| format!("{}/{bits}", first(network)));
        self.admin(&["site", "add", name, "--pool", &pools[0], "--pool", &pools[1]])?.ok()
    }

    /// Invites somebody; gives the command line that the administrator is shown.
    ///
    /// # Errors
    /// When it does not succeed.
    pub fn invite(&self, arguments: &[&str]) -> Result<String> {
        let arguments: Vec<&str> = std::iter::once("invite").chain(arguments.iter().copied()).collect();
        let shown = self.admin(&arguments)?.ok()?;
        let line = shown.lines().map(str::trim).find(|line| line.starts_with("ringfort join "));
        line.map(str::to_owned).with_context(|| format!("no command to join in {shown:?}"))
    }

    /// Types a command line that an administrator was shown, in `namespace`, for whoever is called `name`.
    ///
    /// # Errors
    /// As [`Realm::operator_login`].
    pub fn join(&self, name: &str, namespace: &Namespace, line: &str) -> Result<Finished> {
        let arguments: Vec<&str> = line.split_whitespace().skip(1).collect();
        self.of(name, namespace, &arguments, "")
    }

    /// Starts the Gateway called `name` of site `number`, which has joined, and does not wait. `more` are lines for its file.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn gateway_begin(&self, number: usize, name: &str, more: &str) -> Result<Starting> {
        let file = self.stage.folder().join(format!("{name}.toml"));
        let listen = self.gateway_address(number);
        std::fs::write(&file, format!("[gateway]\nlisten = \"{listen}\"\nbackend = \"{}\"\n{more}\n", self.backend))?;
        let state = self.state(name);
        let arguments: [OsString; 5] =
            ["gateway".into(), "--state".into(), state.clone().into(), "--config".into(), file.into()];
        self.stage.begin(name, self.stage.lab.gateway_at(number)?, &arguments, "", state.join("gateway.sock"))
    }

    /// Starts the host called `name` in `namespace`, which has joined, and does not wait. `file` are the lines of its file.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn host_begin(&self, name: &str, namespace: &Namespace, file: &str) -> Result<Starting> {
        let state = self.state(name);
        std::fs::write(state.join("host.toml"), format!("[host]\n{file}\n"))?;
        let arguments: [OsString; 3] = ["host".into(), "--state".into(), state.clone().into()];
        self.stage.begin(name, namespace, &arguments, "", state.join("host.sock"))
    }

    /// Logs `user` in, whose machine has joined.
    ///
    /// # Errors
    /// As [`Realm::operator_login`].
    pub fn login(&self, user: &str) -> Result<Finished> {
        let arguments = ["login", "--user", user, "--password-stdin"];
        self.of(user, self.stage.lab.client(user)?, &arguments, &Self::password(user))
    }

    /// Brings `user`'s tunnels up and does not wait.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn up_begin(&self, user: &str) -> Result<Starting> {
        let state = self.state(user);
        let arguments: [OsString; 5] =
            ["up".into(), "--state".into(), state.clone().into(), "--backend".into(), self.backend.clone().into()];
        self.stage.begin(user, self.stage.lab.client(user)?, &arguments, "", state.join("client.sock"))
    }

    /// A command with the state folder of whoever is called `name`.
    fn of(&self, name: &str, namespace: &Namespace, arguments: &[&str], stdin: &str) -> Result<Finished> {
        let mut all: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        all.extend(["--state".into(), self.state(name).into()]);
        self.stage.command(namespace, &all, stdin)
    }
}

/// The first address behind a network's own.
fn first(network: IpAddr) -> IpAddr {
    match network {
        IpAddr::V4(network) => IpAddr::V4((u32::from(network) + 1).into()),
        IpAddr::V6(network) => IpAddr::V6((u128::from(network) + 1).into()),
    }
}
