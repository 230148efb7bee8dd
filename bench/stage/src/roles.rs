//! The processes of a stage.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringfort_netlab::{Lab, Namespace, Role};
use ringfort_service::status;
use serde_json::Value;
use tempfile::TempDir;

use crate::files::Plan;

/// How long a role may take to say that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// How long a role may take to end when asked to.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How long a command may take that ends by itself.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// A laboratory, a folder with files, and the program whose roles are started there.
#[derive(Debug)]
pub struct Stage {
    /// The namespaces.
    pub lab: Lab,
    folder: TempDir,
    program: PathBuf,
}

/// A role that said it is ready. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    role: Role,
    log: PathBuf,
    status: PathBuf,
}

/// How a command that ends by itself has ended.
#[derive(Debug)]
pub struct Finished {
    /// Whether it succeeded.
    pub success: bool,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// From before it was spawned until it had ended.
    pub took: Duration,
}

impl Finished {
    /// What it wrote, if it succeeded.
    ///
    /// # Errors
    /// What it said if it did not.
    pub fn ok(self) -> Result<String> {
        if !self.success {
            bail!("{}", self.stderr.trim());
        }
        Ok(self.stdout)
    }

    /// What it said, if it failed.
    ///
    /// # Errors
    /// What it wrote if it did not.
    pub fn refused(self) -> Result<String> {
        if self.success {
            bail!("expected a refusal, and it succeeded: {}", self.stdout.trim());
        }
        Ok(self.stderr)
    }
}

impl Stage {
    /// A stage without static files. `program` is the `ringfort` command.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn bare(lab: Lab, program: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ringfort-").tempdir()?;
        Ok(Self { lab, folder, program: program.into() })
    }

    /// Writes the plan's files to a folder of the stage's own. `program` is the `ringfort` command.
    ///
    /// # Errors
    /// When the folder or a file cannot be made.
    pub fn new(lab: Lab, plan: &Plan, program: &Path) -> Result<Self> {
        let stage = Self::bare(lab, program)?;
        plan.write(&stage.files())?;
        Ok(stage)
    }

    /// The stage's own folder; it goes with the stage.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The `ringfort` command.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Another program as the `ringfort` command of what is begun from here on: a wrapper of it, most likely. Gives the one before.
    pub fn set_program(&mut self, program: &Path) -> PathBuf {
        std::mem::replace(&mut self.program, program.into())
    }

    /// Where the static files are.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("static")
    }

    /// Starts the Gateway and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; the error carries the end of its log.
    pub fn gateway(&self) -> Result<Process> {
        self.gateway_begin()?.ready()
    }

    /// Starts the Gateway and does not wait.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn gateway_begin(&self) -> Result<Starting> {
        let file = Plan::gateway_file(&self.files());
        self.begin_static("gateway", self.lab.gateway(), "gateway", &file)
    }

    /// Starts `user`'s client in the namespace of the same name and waits until its tunnel is up.
    ///
    /// # Errors
    /// As [`Stage::gateway`].
    pub fn client(&self, user: &str) -> Result<Process> {
        self.client_begin(user)?.ready()
    }

    /// Starts `user`'s client and does not wait.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn client_begin(&self, user: &str) -> Result<Starting> {
        let file = Plan::user_file(&self.files(), user);
        self.begin_static(user, self.lab.client(user)?, "up", &file)
    }

    fn begin_static(&self, name: &str, namespace: &Namespace, role: &str, file: &Path) -> Result<Starting> {
        let arguments = [OsStr::new(role), OsStr::new("--static"), file.as_os_str()];
        self.begin(name, namespace, &arguments, "", self.files().join(format!("{name}.sock")))
    }

    /// Starts a role of the program: `arguments` on its command line, `stdin` as the beginning of its standard input, its state
    /// to be asked at `status`. It ends with its standard input.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn begin(
        &self,
        name: &str,
        namespace: &Namespace,
        arguments: &[impl AsRef<OsStr>],
        stdin: &str,
        status: PathBuf,
    ) -> Result<Starting> {
        let log = (0..).map(|n| self.folder.path().join(format!("{name}-{n}.log"))).find(|path| !path.exists());
        let log = log.context("no free name for a log")?;
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--stop-with-stdin").stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut role = self.lab.spawn(namespace, command).with_context(|| format!("cannot start {name}"))?;
        if let Some(input) = role.stdin() {
            input.write_all(stdin.as_bytes())?;
        }
        let stdout = role.take_stdout().context("no standard output")?;
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Starting { name: name.into(), process: Process { role, log, status }, lines })
    }

    /// Starts any other role of the program and waits until it is ready. It has no state to be asked for.
    ///
    /// # Errors
    /// As [`Stage::gateway`].
    pub fn role(&self, name: &str, namespace: &Namespace, arguments: &[&str]) -> Result<Process> {
        self.begin(name, namespace, arguments, "", PathBuf::new())?.ready()
    }

    /// Carries out a command of the program that ends by itself, with `stdin` as its standard input.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time. How it ended is in the answer.
    pub fn command(&self, namespace: &Namespace, arguments: &[impl AsRef<OsStr>], stdin: &str) -> Result<Finished> {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let begun = Instant::now();
        let mut role = self.lab.spawn(namespace, command)?;
        if let Some(input) = role.stdin() {
            // A command that does not read it is none the worse.
            drop(input.write_all(stdin.as_bytes()));
        }
        role.close_stdin();
        let stdout = role.take_stdout().map(|output| std::thread::spawn(move || read_all(output)));
        let stderr = read_all(role.take_stderr().context("no standard error")?);
        let status = role.wait(COMMAND_LIMIT)?.with_context(|| format!("no end within {COMMAND_LIMIT:?}: {stderr}"))?;
        let took = begun.elapsed();
        let stdout = stdout.and_then(|thread| thread.join().ok()).unwrap_or_default();
        Ok(Finished { success: status.success(), stdout, stderr, took })
    }
}

fn read_all(mut output: impl Read) -> String {
    let mut text = String::new();
    // What is no text is not ours.
    drop(output.read_to_string(&mut text));
    text
}

/// A role that has not said yet that it is ready.
#[derive(Debug)]
pub struct Starting {
    name: String,
    process: Process,
    lines: mpsc::Receiver<String>,
}

impl Starting {
    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready within 10 s, or ends.
    pub fn ready(self) -> Result<Process> {
        match self.lines.recv_timeout(READY_LIMIT) {
            Ok(line) if line == "ready" => Ok(self.process),
            Ok(line) => bail!("{}: expected the line `ready`, found {line:?}", self.name),
            Err(_) => bail!("{} did not become ready:\n{}", self.name, self.process.log_text()),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.role.pid()
    }

    /// The process as it is: for one that is not expected to become ready.
    #[must_use]
    pub fn unready(self) -> Process {
        self.process
    }
}

impl Process {
    /// The process in the laboratory.
    pub fn role(&mut self) -> &mut Role {
        &mut self.role
    }

    /// CPU time it has used so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_time(&self) -> Result<Duration> {
        Ok(self.role.cpu_time()?)
    }

    /// Its state, as its status socket tells it.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Value> {
        status::query(&self.status)
            .with_context(|| format!("{}: no answer; its log:\n{}", self.status.display(), self.log_text()))
    }

    /// One of its counters, summed over workers.
    ///
    /// # Errors
    /// When it does not answer or has no such counter.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let status = self.status()?;
        status["totals"][name].as_u64().with_context(|| format!("no counter {name} in {}", status["totals"]))
    }

    /// Waits until `holds` says so of its state, at most `limit`; gives the state.
    ///
    /// # Errors
    /// When it does not come true in time; the error carries the last state.
    pub fn wait_until(&self, limit: Duration, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.status()?;
            if holds(&status) {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("it did not come true within {limit:?}; the last state: {status:#}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to end and waits for that.
    ///
    /// # Errors
    /// When it does not end in time or not with success.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.role.stop(STOP_LIMIT)?;
        if !status.success() {
            bail!("it ended with {status}; its log:\n{}", self.log_text());
        }
        Ok(())
    }

    /// Kills it without asking, and leaves it to whoever drops it to wait for its end.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill_begin(&mut self) -> Result<()> {
        Ok(self.role.kill_begin()?)
    }

    /// Kills it without asking and does not wait for its end at all.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill_unwaited(self) -> Result<()> {
        Ok(self.role.kill_unwaited()?)
    }

    /// Kills it without asking.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.role.kill()?;
        Ok(())
    }
}
