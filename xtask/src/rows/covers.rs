//! Finds the comments that tie a test to requirement rows, and the test below each.

use super::is_row_id;
use crate::{Findings, read};
use anyhow::Result;
use std::fmt;
use std::path::Path;

/// What a test shows of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// What the row promises happens.
    Allow,
    /// What the row forbids does not.
    Refuse,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Refuse => "refuse",
        })
    }
}

/// One side of one row, shown by one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cover {
    pub(super) row: String,
    pub(super) side: Side,
    /// Name of the function below the comment.
    pub(super) test: String,
    /// Path from the root of the repository.
    pub(super) file: String,
    /// Line of the comment, from 1.
    pub(super) line: usize,
}

impl Cover {
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

/// Languages that tests are written in: the mark of a comment, and what a function begins with.
struct Language {
    extension: &'static str,
    comments: &'static [&'static str],
    function: fn(&str) -> Option<&str>,
    is_attribute: fn(&str) -> bool,
}

const LANGUAGES: [Language; 3] = [
    Language {
        extension: ".rs",
        comments: &["///", "//"],
        function: rust_function,
        is_attribute: |line| line.starts_with("#["),
    },
    Language {
        extension: ".py",
        comments: &["#"],
        function: |line| name_between(line.strip_prefix("async ").unwrap_or(line), "def ", '('),
        is_attribute: |line| line.starts_with('@'),
    },
    Language {
        extension: ".sh",
        comments: &["#"],
        function: |line| name_between(line, "", '(').or_else(|| name_between(line, "function ", ' ')),
        is_attribute: |_| false,
    },
];

/// Every cover in `files`, which are paths from `root`, and what is wrong with their comments.
pub(super) fn scan(root: &Path, files: &[String]) -> Result<(Vec<Cover>, Findings)> {
    let (mut covers, mut findings) = (Vec::new(), Findings::new());
    for file in files {
        if let Some(language) = LANGUAGES.iter().find(|language| file.ends_with(language.extension)) {
            scan_text(file, &read(&root.join(file))?, language, &mut covers, &mut findings);
        }
    }
    Ok((covers, findings))
}

fn scan_text(file: &str, text: &str, language: &Language, covers: &mut Vec<Cover>, findings: &mut Findings) {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    for (at, line) in lines.iter().enumerate() {
        let Some(items) = comment(line, language).and_then(|text| text.strip_prefix("Covers:")) else { continue };
        let place = format!("{file}:{}", at + 1);
        let Some(test) = function_below(&lines[at + 1..], language) else {
            findings.push(format!("{place}: no function stands directly below the comment"));
            continue;
        };
        for item in items.trim().trim_end_matches('.').split(',') {
            match parse_item(item) {
                Some((row, side)) => {
                    covers.push(Cover { row, side, test: test.to_owned(), file: file.to_owned(), line: at + 1 });
                }
                None => findings.push(format!("{place}: {:?} is not `ROW allow` or `ROW refuse`", item.trim())),
            }
        }
    }
}

fn parse_item(item: &str) -> Option<(String, Side)> {
    let (row, side) = item.trim().split_once(' ')?;
    let side = match side.trim() {
        "allow" => Side::Allow,
        "refuse" => Side::Refuse,
        _ => return None,
    };
    is_row_id(row).then(|| (row.to_owned(), side))
}

/// The text of a line that is a comment.
fn comment<'a>(line: &'a str, language: &Language) -> Option<&'a str> {
    language.comments.iter().find_map(|mark| line.strip_prefix(mark)).map(str::trim_start)
}

/// The function that `lines` begin with, after further comments and attributes, which may span lines.
fn function_below<'a>(lines: &[&'a str], language: &Language) -> Option<&'a str> {
    let mut open_brackets = 0;
    for line in lines {
        let brackets = |c| i64::try_from(line.matches(c).count()).unwrap_or(0);
        if open_brackets > 0 || (language.is_attribute)(line) {
            open_brackets += brackets('[') + brackets('(') - brackets(']') - brackets(')');
        } else if comment(line, language).is_none() {
            return (language.function)(line);
        }
    }
    None
}

fn rust_function(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub ")).unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    name_between(line, "fn ", '(').or_else(|| name_between(line, "fn ", '<'))
}

/// The identifier between `prefix`, which the line begins with, and `end`.
fn name_between<'a>(line: &'a str, prefix: &str, end: char) -> Option<&'a str> {
    let (name, _) = line.strip_prefix(prefix)?.split_once(end)?;
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    (!name.is_empty() && name.chars().all(is_name)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan_as(file: &str, lines: &[&str]) -> (Vec<String>, String) {
        let language = LANGUAGES.iter().find(|language| file.ends_with(language.extension)).unwrap();
        let (mut covers, mut findings) = (Vec::new(), Findings::new());
        scan_text(file, &lines.join("\n"), language, &mut covers, &mut findings);
        let covers = covers.iter().map(|cover| format!("{} {} {}", cover.row, cover.side, cover.test)).collect();
        (covers, findings.join("\n"))
    }

    #[test]
    fn comments_above_functions_are_found() {
        let lines = [
            "    // Covers: K1 allow, C6 refuse.",
            "    // Why it is done so.",
            "    #[cfg_attr(",
            "        miri, ignore",
            "    )]",
            "    #[test]",
            "    fn both() {",
            "    /// Covers: A13 refuse",
            "    async fn drops<T>() {}",
        ];
        let (covers, findings) = scan_as("a/src/lib.rs", &lines);
        assert_eq!(covers, ["K1 allow both", "C6 refuse both", "A13 refuse drops"]);
        assert_eq!(findings, "");
    }

    #[test]
    fn other_languages_are_read_too() {
        let (covers, _) = scan_as("t.py", &["# Covers: R1 allow", "@once", "async def test_it(a):"]);
        assert_eq!(covers, ["R1 allow test_it"]);
        let (covers, _) = scan_as("t.sh", &["# Covers: R1 refuse", "test_it() {"]);
        assert_eq!(covers, ["R1 refuse test_it"]);
    }

    #[test]
    fn malformed_items_are_refused() {
        for item in ["K1", "K1 both", "1K allow", "K1 allow C6 refuse", "", "K allow"] {
            let (covers, findings) = scan_as("a.rs", &[&format!("// Covers: {item}"), "fn test() {}"]);
            assert!(covers.is_empty() && findings.starts_with("a.rs:1: "), "{item}: {covers:?} {findings}");
        }
    }

    #[test]
    fn a_comment_above_something_else_is_refused() {
        for below in ["", "struct Test;", "let fn_name = 1;"] {
            let (covers, findings) = scan_as("a.rs", &["// Covers: K1 allow", below, "fn test() {}"]);
            assert!(covers.is_empty() && findings.contains("no function"), "{below}: {covers:?} {findings}");
        }
    }

    #[test]
    fn mentions_within_text_are_not_covers() {
        let (covers, findings) =
            scan_as("a.rs", &["// A test says `Covers: K1 allow`.", "let s = \"// Covers: K1 allow\";"]);
        assert!(covers.is_empty() && findings.is_empty(), "{covers:?} {findings}");
    }
}
