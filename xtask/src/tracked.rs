//! The files that belong to the repository: what git tracks, and what it would track if it were added.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Paths from `root`, sorted; ignored files are left out. A path that was deleted but not committed is left out too.
pub(crate) fn files(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root)
        .output()
        .context("cannot start git, which lists the files of the repository")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let list = String::from_utf8(output.stdout).context("a path that is not UTF-8")?;
    let mut files: Vec<String> = list.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    files.retain(|path| root.join(path).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}
