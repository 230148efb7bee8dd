//! Text that must not be committed, because it ties the project to one machine, one mirror or one tool.

use crate::{Findings, tracked};
use anyhow::Result;
use std::path::Path;

/// Folders of a builder's own machine. Refused where they begin an absolute path.
const MACHINE_PATHS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// Hosts that serve packages; manifests and scripts name packages, and the clients know where they are.
const REGISTRY_HOSTS: [&str; 6] = [
    concat!("index.crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("pypi", ".org"),
    concat!("files.python", "hosted.org"),
    concat!("registry.npmjs", ".org"),
    concat!("deb.deb", "ian.org"),
];

/// Writing tools and their makers: the text speaks of the project, whoever typed it. Whole words, in any case.
const TOOL_NAMES: [&str; 9] = [
    concat!("cla", "ude"),
    concat!("anth", "ropic"),
    concat!("chat", "gpt"),
    concat!("open", "ai"),
    concat!("cop", "ilot"),
    concat!("gem", "ini"),
    concat!("l", "lm"),
    concat!("language ", "model"),
    concat!("ai-", "generated"),
];

/// Made by tools, not by hand.
const SKIPPED: [&str; 1] = ["Cargo.lock"];

/// Findings in every text file of the repository at `root`.
pub(crate) fn check(root: &Path) -> Result<Findings> {
    let mut findings = Findings::new();
    for path in tracked::files(root)?.iter().filter(|path| !SKIPPED.contains(&path.as_str())) {
        // What is not UTF-8 is not prose.
        if let Ok(text) = std::fs::read_to_string(root.join(path)) {
            findings.extend(check_text(path, &text));
        }
    }
    Ok(findings)
}

fn check_text(path: &str, text: &str) -> Findings {
    let mut findings = Findings::new();
    for (number, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        let mut find = |what: &str, found: &str| findings.push(format!("{path}:{}: {what} {found:?}", number + 1));
        for machine_path in MACHINE_PATHS.iter().filter(|word| begins_a_path(line, word)) {
            find("path of one machine", machine_path);
        }
        for host in REGISTRY_HOSTS.iter().filter(|host| lower.contains(**host)) {
            find("host of a package registry", host);
        }
        for name in TOOL_NAMES.iter().filter(|word| has_word(&lower, word)) {
            find("name of a writing tool", name);
        }
    }
    findings
}

/// Whether `prefix` stands in `line` as the beginning of a path, not in the middle of one.
fn begins_a_path(line: &str, prefix: &str) -> bool {
    let middle = |c: char| c.is_alphanumeric() || "._-~$})*".contains(c);
    line.match_indices(prefix).any(|(at, _)| !line[..at].ends_with(middle))
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(char::is_alphanumeric) && !line[at + word.len()..].starts_with(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(line: &str) -> String {
        check_text("a.md", line).join("\n")
    }

    #[test]
    fn ordinary_text_passes() {
        for line in [
            "the session ends when the tunnel's work/ is done",
            concat!("https://example.org/some/wo", "rk/ is a page"),
            concat!("$HOME/wo", "rk/"),
            "crates.io is a registry's name, not a host's",
            "a llama, an unclaimed copy",
        ] {
            assert_eq!(findings(line), "", "{line}");
        }
    }

    #[test]
    fn every_listed_text_is_refused_with_its_place() {
        for word in MACHINE_PATHS.iter().chain(&REGISTRY_HOSTS).chain(&TOOL_NAMES) {
            assert!(findings(&format!("first\nsee {word} there")).starts_with("a.md:2: "), "{word}");
        }
        assert!(findings(&format!("By {}!", TOOL_NAMES[0].to_uppercase())).contains("writing tool"));
    }
}
