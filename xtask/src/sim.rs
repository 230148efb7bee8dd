//! Long campaigns of the simulations that `cargo test` runs in short.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{Findings, interop};

/// Seeds of a campaign when none are named.
pub(crate) const SEEDS: &str = "0..100000";

/// Handshakes over a bad network, one for each seed of `seeds` (`FROM..TO`): first of the engine with itself, then with BoringSSL.
pub(crate) fn dtls(root: &Path, seeds: &str) -> Result<Findings> {
    let range =
        seeds.split_once("..").and_then(|(from, to)| Some((from.parse::<u64>().ok()?, to.parse::<u64>().ok()?)));
    ensure!(range.is_some_and(|(from, to)| from < to), "expected seeds as FROM..TO, such as {SEEDS}, found {seeds:?}");
    let test = ["--package", "ringfort-dtls", "--test", "associations", "lossy::", "--", "--nocapture"];
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status =
        Command::new(cargo).arg("test").args(test).env("RINGFORT_DTLS_SEEDS", seeds).current_dir(root).status();
    let status = status.context("cannot run cargo")?;
    if !status.success() {
        return Ok(vec![format!("seeds {seeds}: {status}")]);
    }
    interop::simulate(root, seeds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_that_are_no_range_are_refused() {
        for seeds in ["", "5", "5..5", "7..3", "a..b", "1..2..3"] {
            let error = dtls(Path::new("/"), seeds).unwrap_err().to_string();
            assert!(error.contains("expected seeds as FROM..TO"), "{error}");
        }
    }
}
