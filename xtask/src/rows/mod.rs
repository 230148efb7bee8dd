//! Requirement rows and the tests that show them.
//!
//! `docs/REQUIREMENTS.md` names the rows, `docs/rows.toml` the closed ones. A test cites rows in a comment directly
//! above it, `Covers: C12 allow` or `Covers: C12 refuse`, several parted by commas ([`covers`]). A closed row needs a
//! test of each side; with the captured output of the test command ([`results`]) every test that cites a row must also
//! have run and passed. Whether a test shows what it claims is for its reader to judge.

mod covers;
mod results;

use crate::{Findings, read, tracked};
use anyhow::{Context, Result};
use covers::{Cover, Side};
use results::Results;
use std::collections::BTreeSet;
use std::path::Path;
use toml::{Table, Value};

/// Checks the repository at `root`, prints the table of rows that tests cite, and with `results` what the run gave.
pub(crate) fn check(root: &Path, results: Option<&str>) -> Result<Findings> {
    let rows = requirement_rows(&read(&root.join("docs/REQUIREMENTS.md"))?);
    let closed = closed_rows(&read(&root.join("docs/rows.toml"))?)?;
    let (covers, mut findings) = covers::scan(root, &tracked::files(root)?)?;
    findings.extend(judge(&rows, &closed, &covers));
    print!("{}", table(&rows, &closed, &covers));
    if let Some(output) = results {
        let results = Results::parse(output);
        findings.extend(results.judge(&covers));
        println!("{}", results.summary());
    }
    Ok(findings)
}

/// The ids in the first column of the page's tables, in order.
fn requirement_rows(page: &str) -> Vec<String> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    cells.filter(|cell| is_row_id(cell)).map(str::to_owned).collect()
}

/// A capital letter and a number: `K1`, `C12`.
fn is_row_id(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_uppercase()) && text.len() > 1 && chars.all(|c| c.is_ascii_digit())
}

fn closed_rows(text: &str) -> Result<Vec<String>> {
    let file: Table = text.parse().context("docs/rows.toml")?;
    let closed = file.get("closed").and_then(Value::as_array).context("docs/rows.toml lacks the list `closed`")?;
    closed.iter().map(|row| Ok(row.as_str().context("docs/rows.toml: a row is a text")?.to_owned())).collect()
}

fn judge(rows: &[String], closed: &[String], covers: &[Cover]) -> Findings {
    let mut findings = Findings::new();
    for cover in covers.iter().filter(|cover| !rows.contains(&cover.row)) {
        findings.push(format!("{}: {} is no row of docs/REQUIREMENTS.md", cover.place(), cover.row));
    }
    for row in closed {
        if !rows.contains(row) {
            findings.push(format!("docs/rows.toml: {row} is no row of docs/REQUIREMENTS.md"));
        }
        for side in [Side::Allow, Side::Refuse] {
            if !covers.iter().any(|cover| cover.row == *row && cover.side == side) {
                findings.push(format!("{row} is declared closed, and no test says `Covers: {row} {side}`"));
            }
        }
    }
    findings
}

fn table(rows: &[String], closed: &[String], covers: &[Cover]) -> String {
    let mut table = String::new();
    let mut shown = 0;
    for row in rows {
        let of = |side| {
            let tests: Vec<&str> =
                covers.iter().filter(|c| c.row == *row && c.side == side).map(|c| &*c.test).collect();
            if tests.is_empty() { "–".to_owned() } else { tests.join(", ") }
        };
        let (allow, refuse) = (of(Side::Allow), of(Side::Refuse));
        let state = if closed.contains(row) { "closed" } else { "open" };
        if (allow.as_str(), refuse.as_str()) != ("–", "–") || state == "closed" {
            table += &format!("{row:<4} {state:<6} allow: {allow} · refuse: {refuse}\n");
            shown += 1;
        }
    }
    let sides: BTreeSet<_> = covers.iter().map(|cover| (&cover.row, cover.side)).collect();
    table + &format!("{shown} of {} rows touched, {} sides shown, {} closed\n", rows.len(), sides.len(), closed.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "## K\n| id | requirement |\n|--|--|\n| K1 | Top level. |\n| C6 | Bypass. |\n";

    fn cover(row: &str, side: Side) -> Cover {
        Cover { row: row.to_owned(), side, test: "a_test".to_owned(), file: "a/src/lib.rs".to_owned(), line: 7 }
    }

    fn findings(closed: &[&str], covers: &[Cover]) -> String {
        let closed: Vec<String> = closed.iter().map(|row| (*row).to_owned()).collect();
        judge(&requirement_rows(PAGE), &closed, covers).join("\n")
    }

    #[test]
    fn a_row_with_both_sides_may_be_closed() {
        assert_eq!(findings(&["K1"], &[cover("K1", Side::Allow), cover("K1", Side::Refuse)]), "");
    }

    #[test]
    fn a_closed_row_that_lacks_a_side_is_refused() {
        let findings = findings(&["K1", "C6"], &[cover("K1", Side::Allow), cover("C6", Side::Refuse)]);
        assert!(findings.contains("K1 is declared closed, and no test says `Covers: K1 refuse`"), "{findings}");
        assert!(findings.contains("no test says `Covers: C6 allow`"), "{findings}");
    }

    #[test]
    fn unknown_rows_are_refused() {
        let findings = findings(&["K9"], &[cover("Z9", Side::Allow)]);
        assert!(findings.contains("a/src/lib.rs:7: Z9 is no row"), "{findings}");
        assert!(findings.contains("docs/rows.toml: K9 is no row"), "{findings}");
    }

    #[test]
    fn the_table_tells_open_from_closed() {
        let rows = requirement_rows(PAGE);
        let table = table(&rows, &["K1".to_owned()], &[cover("C6", Side::Allow)]);
        assert!(table.contains("K1   closed allow: – · refuse: –"), "{table}");
        assert!(table.contains("C6   open   allow: a_test · refuse: –"), "{table}");
        assert!(table.contains("2 of 2 rows touched, 1 sides shown, 1 closed"), "{table}");
    }

    #[test]
    fn the_list_of_closed_rows_must_be_there() {
        assert_eq!(closed_rows("closed = [\"K1\"]").unwrap(), ["K1"]);
        assert!(closed_rows("open = []").is_err());
        assert!(closed_rows("closed = [1]").is_err());
    }
}
