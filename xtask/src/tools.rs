//! Programs that a campaign needs and the repository does not bring: what is missing is left out with a word of what to install,
//! unless it was asked for by name or `CI` is set, where it fails the run.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::Findings;

/// Where programs are besides the path: daemons, for those who are not root.
const FURTHER: [&str; 2] = ["/usr/sbin", "/sbin"];
/// Where Debian has the programs of each version of PostgreSQL.
const POSTGRES: &str = "/usr/lib/postgresql";

/// Something that needs programs, and Debian's packages that have them.
pub(crate) struct Needs {
    pub(crate) name: &'static str,
    pub(crate) programs: &'static [&'static str],
    pub(crate) packages: &'static str,
}

impl Needs {
    /// Whether the programs are there. If not, that is a finding where they `must` be there or `CI` is set, else a word.
    pub(crate) fn are_met(&self, must: bool, findings: &mut Findings) -> bool {
        let Self { name, programs, packages } = self;
        let missing: Vec<&str> = programs.iter().copied().filter(|program| find(program).is_none()).collect();
        if missing.is_empty() {
            return true;
        }
        if must || is_ci() {
            findings.push(format!("{name} needs {}: install {packages}", missing.join(", ")));
        } else {
            println!("SKIPPED {name}: install {packages}");
        }
        false
    }
}

fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir(POSTGRES).into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let folders = env::split_paths(&path).chain(FURTHER.map(PathBuf::from)).chain(versions);
    folders.map(|folder| folder.join(program)).find(|program| program.is_file())
}

/// Cargo's target directory.
pub(crate) fn target(root: &Path) -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root.join(folder),
        None => root.join("target"),
    }
}

/// Cargo, in the root, whose settings count for all of it.
pub(crate) fn cargo(root: &Path, target: &Path) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).env("CARGO_TARGET_DIR", target);
    cargo
}

/// Runs a command that must succeed.
pub(crate) fn must(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name} failed: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_must_be_there_is_a_finding() {
        let mut findings = Findings::new();
        let there = Needs { name: "cargo", programs: &["cargo"], packages: "cargo" };
        assert!(there.are_met(true, &mut findings) && findings.is_empty());
        let missing = Needs { name: "dogs", programs: &["cargo", "no-such-program"], packages: "dogs-bin" };
        assert!(!missing.are_met(true, &mut findings));
        assert_eq!(findings, ["dogs needs no-such-program: install dogs-bin"]);
    }
}
