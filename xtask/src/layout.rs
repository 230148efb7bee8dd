//! The top level of the repository (K1): which folders there are, and that each holds something.

use crate::Findings;
use anyhow::{Context, Result};
use std::path::Path;

/// The folders that the design card asks for.
const CARD_ROOMS: [&str; 6] = ["gateway", "control", "dataplane", "bench", "systemd", "docs"];

/// Further folders of the project, each with content of its own. A new one is listed here and in the README's map.
const MORE_ROOMS: [&str; 3] = ["client", "tests", "xtask"];

/// Cargo's output when the target directory is not set elsewhere; never committed.
const OUTPUT: &str = "target";

/// Findings on the top level of `root`. Hidden folders are tools' own.
pub(crate) fn check(root: &Path) -> Result<Findings> {
    let mut findings = Findings::new();
    if !has_content(&root.join("Cargo.toml"))? {
        findings.push("the top level lacks Cargo.toml".to_owned());
    }
    for room in CARD_ROOMS.iter().chain(&MORE_ROOMS) {
        if !has_content(&root.join(room))? {
            findings.push(format!("the top level lacks {room}/, or there is nothing in it"));
        }
    }
    for entry in std::fs::read_dir(root).with_context(|| format!("cannot list {}", root.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let listed = CARD_ROOMS.contains(&name.as_str()) || MORE_ROOMS.contains(&name.as_str());
        if entry.file_type()?.is_dir() && !listed && !name.starts_with('.') && name != OUTPUT {
            findings.push(format!(
                "{name}/ is not listed in xtask/src/layout.rs: give it a purpose there, or another home"
            ));
        }
    }
    Ok(findings)
}

/// Whether `path` is a file that is not empty, or a folder with such a file somewhere in it.
fn has_content(path: &Path) -> Result<bool> {
    let Ok(metadata) = path.symlink_metadata() else { return Ok(false) };
    if !metadata.is_dir() {
        return Ok(metadata.len() > 0);
    }
    for entry in std::fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))? {
        if has_content(&entry?.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    fn copy() -> Tree {
        let tree = Tree::new(&[("Cargo.toml", "[workspace]\n"), ("README.md", "x"), (".ci/run", "x")]);
        for room in CARD_ROOMS.iter().chain(&MORE_ROOMS) {
            tree.write(&format!("{room}/inner/file"), "content");
        }
        tree
    }

    fn findings(tree: &Tree) -> String {
        check(tree.path()).unwrap().join("\n")
    }

    // The real tree, and a copy that the refusals below start from.
    // Covers: K1 allow
    #[test]
    fn the_top_level_is_the_cards() {
        assert_eq!(check(&crate::repository_root().unwrap()).unwrap().join("\n"), "");
        assert_eq!(findings(&copy()), "");
    }

    // Covers: K1 refuse
    #[test]
    fn a_missing_an_empty_and_an_unlisted_room_are_refused() {
        for room in CARD_ROOMS {
            let tree = copy();
            std::fs::remove_file(tree.path().join(room).join("inner/file")).unwrap();
            assert!(findings(&tree).contains(&format!("lacks {room}/")), "an empty {room}: {}", findings(&tree));
            std::fs::remove_dir_all(tree.path().join(room)).unwrap();
            assert!(findings(&tree).contains(&format!("lacks {room}/")), "no {room}: {}", findings(&tree));
        }
        let tree = copy();
        std::fs::remove_file(tree.path().join("Cargo.toml")).unwrap();
        tree.write("misc/file", "content");
        let findings = findings(&tree);
        assert!(findings.contains("lacks Cargo.toml"), "{findings}");
        assert!(findings.contains("misc/ is not listed"), "{findings}");
    }
}
