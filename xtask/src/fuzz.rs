//! Fuzz campaigns of the targets in `tests/fuzz`, by libFuzzer.
//!
//! The instrumentation is the compiler's own (sancov), which a stable compiler has; sanitizers, which it has not, would find
//! nothing in code without `unsafe`. Corpora are kept in `target/fuzz/TARGET`, so that a campaign goes on where the last one ended.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::Findings;

/// The targets: binaries of `tests/fuzz`.
pub(crate) const TARGETS: [&str; 4] = ["record", "front", "server13", "server12"];

/// Executions of a campaign when no number is named.
pub(crate) const RUNS: &str = "10000000";

/// What `cargo fuzz` passes too.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Ccodegen-units=1 -Clink-dead-code";

/// Runs `target` for `runs` executions. libFuzzer's last line says how many there were.
pub(crate) fn run(root: &Path, target: &str, runs: &str) -> Result<Findings> {
    ensure!(TARGETS.contains(&target), "no such fuzz target: {target}; there are {}", TARGETS.join(", "));
    let count = runs.parse::<u64>().ok().filter(|count| *count > 0);
    ensure!(count.is_some(), "expected a number of executions, found {runs:?}");
    let folder = root.join("target/fuzz").join(target);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // With a target named, build scripts and macros are spared the instrumentation.
    command.args(["run", "--release", "--target", &host()?, "--bin", target, "--"]);
    command.arg(&folder).current_dir(root.join("tests/fuzz"));
    command.args([&format!("-runs={runs}"), "-max_len=1024", "-timeout=10", "-print_final_stats=1"]);
    // Instrumented and other objects do not mix.
    command.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", root.join("target/fuzz-build"));
    let status = command.status().context("cannot run cargo")?;
    Ok(if status.success() { Findings::new() } else { vec![format!("fuzz target {target}: {status}")] })
}

/// The compiler's own target.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = Command::new(rustc).arg("-vV").output().context("cannot run rustc")?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let host = told.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_a_binary_and_every_binary_a_target() {
        let mut found: Vec<String> = std::fs::read_dir(crate::repository_root().unwrap().join("tests/fuzz/src/bin"))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        found.sort();
        let mut targets = TARGETS;
        targets.sort_unstable();
        assert_eq!(found, targets);
    }

    #[test]
    fn unknown_targets_and_counts_are_refused() {
        let refused = |target, runs| run(Path::new("/"), target, runs).unwrap_err().to_string();
        assert!(refused("nothing", "1").contains("there are record"));
        assert!(refused("record", "many").contains("expected a number"));
        assert!(refused("record", "0").contains("expected a number"));
    }
}
