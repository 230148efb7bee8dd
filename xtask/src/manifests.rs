//! What the manifests must say: lints, where dependencies are declared and why, and the no-I/O crates' clippy file.

use crate::Findings;
use crate::layers::{self, Access};
use crate::metadata::Graph;
use crate::read;
use anyhow::{Context, Result};
use std::path::Path;
use toml::{Table, Value};

/// The clippy file that every no-I/O crate carries, by a link or a copy.
const NO_IO_CLIPPY: &str = "xtask/no-io-clippy.toml";

/// All findings on the manifests of the workspace at `root`.
pub(crate) fn check(root: &Path, graph: &Graph) -> Result<Findings> {
    let root_text = read(&root.join("Cargo.toml"))?;
    let root_manifest: Table = root_text.parse().context("Cargo.toml")?;
    let workspace_lints = &root_manifest["workspace"]["lints"];
    let mut findings = root_findings(&root_text, workspace_lints);
    let no_io_clippy = read(&root.join(NO_IO_CLIPPY))?;
    for (_, package, folder) in graph.ours() {
        let path = format!("{folder}/Cargo.toml");
        let manifest: Table = read(&root.join(&path))?.parse().with_context(|| path.clone())?;
        findings.extend(lints(&path, &package.name, &manifest, workspace_lints));
        findings.extend(declared_dependencies(&path, &manifest));
        if layers::place_of(&package.name).is_some_and(|place| place.access == Access::NoIo) {
            let clippy = std::fs::read_to_string(root.join(folder).join("clippy.toml")).unwrap_or_default();
            if clippy != no_io_clippy {
                findings.push(format!("{folder}/clippy.toml is not {NO_IO_CLIPPY}: link it there"));
            }
        }
    }
    Ok(findings)
}

fn root_findings(text: &str, lints: &Value) -> Findings {
    let mut findings = unexplained_dependencies(text);
    if lints["rust"].get("unsafe_code").and_then(Value::as_str) != Some("forbid") {
        findings.push("Cargo.toml: workspace.lints.rust lacks unsafe_code = \"forbid\"".to_owned());
    }
    findings
}

/// Foreign entries of `[workspace.dependencies]` without a comment in the line above, which is where the reason
/// stands. Our own crates need none.
fn unexplained_dependencies(text: &str) -> Findings {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let begin = lines.iter().position(|line| *line == "[workspace.dependencies]").map_or(lines.len(), |at| at + 1);
    let section = lines[begin..].iter().take_while(|line| !line.starts_with('['));
    let mut above = "";
    let mut findings = Findings::new();
    for line in section {
        if let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#'))
            && !value.contains("path =")
            && !above.starts_with('#')
        {
            findings.push(format!("Cargo.toml: {} has no comment above it that says why it is here", name.trim()));
        }
        above = line;
    }
    findings
}

/// Every crate takes the workspace's lints; the unsafe one may instead repeat them all, but for `unsafe_code`.
fn lints(path: &str, package: &str, manifest: &Table, workspace_lints: &Value) -> Findings {
    let own = manifest.get("lints");
    if own.and_then(|lints| lints.get("workspace")).and_then(Value::as_bool) == Some(true) {
        return Findings::new();
    }
    if package != layers::UNSAFE_PACKAGE {
        return vec![format!("{path}: [lints] lacks workspace = true, so unsafe code is not forbidden there")];
    }
    let mut findings = Findings::new();
    for (tool, table) in workspace_lints.as_table().into_iter().flatten() {
        for (lint, level) in table.as_table().into_iter().flatten().filter(|(lint, _)| *lint != "unsafe_code") {
            if own.and_then(|lints| lints.get(tool)).and_then(|table| table.get(lint)) != Some(level) {
                findings.push(format!("{path}: [lints.{tool}] lacks the workspace's {lint} = {level}"));
            }
        }
    }
    findings
}

/// Dependencies that a crate declares by itself instead of taking them from the workspace's table.
fn declared_dependencies(path: &str, manifest: &Table) -> Findings {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flatten();
    let tables = targets.filter_map(|(_, target)| target.as_table()).chain([manifest]);
    let mut findings = Findings::new();
    for table in tables {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in table.get(section).and_then(Value::as_table).into_iter().flatten() {
                if value.get("workspace").and_then(Value::as_bool) != Some(true) {
                    findings.push(format!(
                        "{path}: {name} is declared here; declare it once in the root Cargo.toml, take it with workspace = true"
                    ));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, graph};

    const ROOT: &str = "[workspace.dependencies]\n\
        ringfort-types = { path = \"dataplane/types\" }\n\n\
        # Context on errors.\n\
        anyhow = \"1\"\n\
        [workspace.lints.rust]\nunsafe_code = \"forbid\"\nmissing_docs = \"warn\"\n";
    const MEMBER: &str = "[dependencies]\nanyhow.workspace = true\n[lints]\nworkspace = true\n";
    const CLIPPY: &str = "disallowed-methods = []\n";

    fn tree() -> Tree {
        Tree::new(&[
            ("Cargo.toml", ROOT),
            (NO_IO_CLIPPY, CLIPPY),
            ("dataplane/types/Cargo.toml", MEMBER),
            ("dataplane/types/clippy.toml", CLIPPY),
            ("dataplane/io/Cargo.toml", MEMBER),
        ])
    }

    fn findings(tree: &Tree) -> String {
        let graph = graph(&[("ringfort-types", "dataplane/types", vec![]), ("ringfort-io", "dataplane/io", vec![])]);
        check(tree.path(), &graph).unwrap().join("\n")
    }

    #[test]
    fn good_manifests_pass() {
        assert_eq!(findings(&tree()), "");
    }

    #[test]
    fn a_dependency_without_a_reason_is_refused() {
        let tree = tree();
        tree.write("Cargo.toml", &ROOT.replace("anyhow = \"1\"\n", "anyhow = \"1\"\nserde = \"1\"\n"));
        assert!(findings(&tree).contains("serde has no comment"), "{}", findings(&tree));
    }

    #[test]
    fn a_workspace_that_allows_unsafe_code_is_refused() {
        let tree = tree();
        tree.write("Cargo.toml", &ROOT.replace("forbid", "deny"));
        assert!(findings(&tree).contains("lacks unsafe_code = \"forbid\""), "{}", findings(&tree));
    }

    #[test]
    fn a_crate_without_the_workspace_lints_is_refused() {
        let tree = tree();
        tree.write("dataplane/types/Cargo.toml", "[dependencies]\n");
        assert!(findings(&tree).contains("dataplane/types/Cargo.toml: [lints] lacks"), "{}", findings(&tree));
    }

    #[test]
    fn the_unsafe_crate_repeats_every_other_lint() {
        let tree = tree();
        tree.write("dataplane/io/Cargo.toml", "[lints.rust]\nmissing_docs = \"warn\"\n");
        assert_eq!(findings(&tree), "");
        tree.write("dataplane/io/Cargo.toml", "[lints.rust]\nmissing_docs = \"allow\"\n");
        assert!(findings(&tree).contains("lacks the workspace's missing_docs"), "{}", findings(&tree));
    }

    #[test]
    fn a_version_outside_the_root_is_refused() {
        let tree = tree();
        let target = "[target.'cfg(unix)'.dev-dependencies]\nlibc = \"0.2\"\n";
        tree.write("dataplane/types/Cargo.toml", &format!("{MEMBER}{target}"));
        assert!(findings(&tree).contains("libc is declared here"), "{}", findings(&tree));
    }

    #[test]
    fn a_no_io_crate_without_its_clippy_file_is_refused() {
        let tree = tree();
        tree.write("dataplane/types/clippy.toml", "");
        assert!(findings(&tree).contains("dataplane/types/clippy.toml is not"), "{}", findings(&tree));
    }
}
