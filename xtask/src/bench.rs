//! `cargo xtask bench NAME`: benchmarks that need a release build of the program, and a process beside it.

use std::path::Path;

use anyhow::{Result, bail};

use crate::Findings;
use crate::tools::{cargo, must, target};

/// Builds and runs the benchmark `name` with `options` of its own.
pub(crate) fn run(root: &Path, name: &str, options: &[&str]) -> Result<Findings> {
    if name != "push" {
        bail!("bench: no such benchmark: {name}; there is push");
    }
    let target = target(root);
    must(cargo(root, &target).args(["build", "--locked", "--release", "--workspace", "--bin", "ringfort"]))?;
    let mut bench = cargo(root, &target);
    bench.args(["run", "--locked", "--release", "--package", "ringfort-push", "--", "--program"]);
    must(bench.arg(target.join("release/ringfort")).args(options))?;
    Ok(Findings::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_is_is_run() {
        assert!(run(Path::new("/"), "pull", &[]).unwrap_err().to_string().contains("there is push"));
    }
}
