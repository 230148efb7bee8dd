//! The part `postgres` of `cargo xtask e2e`: the Controller's tests once more, on PostgreSQL, and those of several Controllers.
//!
//! The server is a throw-away one in a temporary folder, reached by a socket there, and ends with the run. Root, whom PostgreSQL
//! refuses, runs it as `postgres`, the user that Debian's package makes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::tools::{cargo, find, must};

/// Names the server to the tests.
const SERVER: &str = "RINGFORT_TEST_POSTGRES";
/// Nothing here is worth a wait for the disk. Each organisation under test has a handful of connections.
const SETTINGS: &str = "-c listen_addresses='' -c fsync=off -c max_connections=300 -c shared_buffers=32MB";

/// The tests' runs: target and filter.
const RUNS: [&[&str]; 2] =
    [&["--test", "core", "--test", "shell"], &["--test", "control", "--", "several::", "--include-ignored"]];

/// Runs them; says whether all passed.
pub(crate) fn run(root: &Path, target: &Path) -> Result<bool> {
    let server = Server::start()?;
    for arguments in RUNS {
        let mut test = cargo(root, target);
        test.args(["test", "--locked", "--workspace"]).args(arguments).env(SERVER, server.url());
        if !test.status().context("cannot start cargo")?.success() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A server that ends, and is nowhere, when this is dropped.
struct Server {
    folder: PathBuf,
    pg_ctl: PathBuf,
}

impl Server {
    fn start() -> Result<Self> {
        let [initdb, pg_ctl] = ["initdb", "pg_ctl"].map(|program| find(program).context(program));
        let (initdb, pg_ctl) = (initdb?, pg_ctl?);
        let folder = std::env::temp_dir().join(format!("ringfort-postgres-{}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let server = Self { folder, pg_ctl };
        if is_root() {
            must(Command::new("chown").arg("postgres").arg(&server.folder))?;
        }
        let data = server.data();
        let mut made = as_server(&initdb);
        must(made.args(["-A", "trust", "-U", "ringfort", "--no-sync", "-D"]).arg(&data).stdout(Stdio::null()))?;
        let sockets = format!("{SETTINGS} -c unix_socket_directories='{}'", server.folder.display());
        let mut started = as_server(&server.pg_ctl);
        started
            .arg("-D")
            .arg(&data)
            .args(["-o", &sockets, "-w", "-s", "-l"])
            .arg(server.folder.join("log"))
            .arg("start");
        must(&mut started)?;
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn url(&self) -> String {
        format!("postgres://ringfort@localhost/postgres?host={}", self.folder.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut stopped = as_server(&self.pg_ctl);
        let stopped = must(stopped.arg("-D").arg(self.data()).args(["-m", "immediate", "-s", "stop"]));
        let removed = std::fs::remove_dir_all(&self.folder).context("remove its folder");
        if let Err(error) = stopped.and(removed) {
            eprintln!("PostgreSQL was not cleared away: {error:#}");
        }
    }
}

/// A program of the server's, run by a user whom it accepts.
fn as_server(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
    command
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
