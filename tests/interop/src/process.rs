//! Other programs, with a limit on their time: what they print is collected, and they are gone at the end.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Output past this is not kept: no program here has so much to say.
const OUTPUT_BYTES_MAX: usize = 1 << 18;
/// How often output is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A running program. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    output: Arc<Mutex<String>>,
}

impl Process {
    /// Starts `command`.
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let output = Arc::new(Mutex::new(String::new()));
        if let Some(stdout) = child.stdout.take() {
            collect(stdout, &output);
        }
        if let Some(stderr) = child.stderr.take() {
            collect(stderr, &output);
        }
        let stdin = child.stdin.take();
        Ok(Self { child, stdin, output })
    }

    /// What it has printed, on both channels.
    pub fn output(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Types a line into it. A program that has ended takes none.
    pub fn type_line(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            drop(stdin.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdin.flush()));
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// The rest of the first line that begins with `start`, when it comes before `deadline`.
    pub fn await_line(&mut self, start: &str, deadline: Instant) -> Option<String> {
        loop {
            let output = self.output();
            if let Some(rest) = output.lines().find_map(|line| line.strip_prefix(start)) {
                return Some(rest.to_owned());
            }
            if Instant::now() >= deadline || self.has_ended() {
                return None;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn collect(from: impl Read + Send + 'static, to: &Arc<Mutex<String>>) {
    let to = Arc::clone(to);
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let mut output = to.lock().unwrap_or_else(PoisonError::into_inner);
            if output.len() < OUTPUT_BYTES_MAX {
                output.push_str(&String::from_utf8_lossy(&line));
            }
            line.clear();
        }
    });
}
