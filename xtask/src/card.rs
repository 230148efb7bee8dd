//! The design card (K7): ten packages, each where it serves best. `docs/card.toml` says who uses each and why; the
//! dependency graph says whether that is true.

use crate::Findings;
use crate::metadata::{Graph, Kind};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use toml::{Table, Value};

/// The packages that the card names.
const CARD: [&str; 10] =
    ["tokio-uring", "io-uring", "aws-lc-rs", "rustls", "smoltcp", "crossbeam", "dashmap", "mimalloc", "prost", "tonic"];

/// What there is to show and what is wrong.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) table: String,
    pub(crate) findings: Findings,
}

/// Compares the claims in `text` (`docs/card.toml`) with the graph.
pub(crate) fn check(text: &str, graph: &Graph) -> Result<Report> {
    let file: Table = text.parse().context("docs/card.toml")?;
    let mut claims: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut findings = Findings::new();
    for claim in file.get("package").and_then(Value::as_array).into_iter().flatten() {
        let name = field(claim, "name").context("docs/card.toml: a package without a name")?;
        if !CARD.contains(&name) {
            findings.push(format!("docs/card.toml: {name} is not on the card"));
        }
        if claims.insert(name, claim).is_some() {
            findings.push(format!("docs/card.toml: {name} stands there twice"));
        }
    }
    let mut table = String::new();
    for name in CARD {
        let Some(claim) = claims.get(name) else {
            findings.push(format!("docs/card.toml: {name} is missing"));
            continue;
        };
        findings.extend(judge(name, claim, &users(name, graph)));
        line(&mut table, name, claim)?;
    }
    Ok(Report { table, findings })
}

/// Our packages that depend on `name` directly, other than for tests.
fn users(name: &str, graph: &Graph) -> BTreeSet<String> {
    let ours = graph.ours().map(|(_, package, _)| package);
    let users = ours
        .filter(|package| graph.targets(package, &[Kind::Normal, Kind::Build]).any(|(_, target)| target.name == name));
    users.map(|package| package.name.clone()).collect()
}

fn judge(name: &str, claim: &Value, users: &BTreeSet<String>) -> Findings {
    let used_by = claim.get("used_by").and_then(Value::as_array).into_iter().flatten();
    let claimed: BTreeSet<String> = used_by.filter_map(Value::as_str).map(str::to_owned).collect();
    let mut findings = Findings::new();
    for user in claimed.difference(users) {
        findings.push(format!("docs/card.toml: {user} does not depend on {name} directly"));
    }
    for user in users.difference(&claimed) {
        findings.push(format!("docs/card.toml: {name} is used by {user}, which is not said there"));
    }
    if claimed.is_empty() == field(claim, "absent").is_none() {
        findings.push(format!("docs/card.toml: {name} needs either used_by or absent (where it will serve)"));
    }
    if field(claim, "absent").is_none() && field(claim, "why").is_none() {
        findings.push(format!("docs/card.toml: {name} lacks why"));
    }
    if field(claim, "figure").is_some() != field(claim, "command").is_some() {
        findings.push(format!("docs/card.toml: {name}: a figure and its command stand together"));
    }
    findings
}

fn line(table: &mut String, name: &str, claim: &Value) -> Result<()> {
    if let Some(absent) = field(claim, "absent") {
        writeln!(table, "{name:<12} absent: {absent}")?;
        return Ok(());
    }
    let used_by = claim.get("used_by").and_then(Value::as_array).into_iter().flatten();
    let used_by: Vec<&str> = used_by.filter_map(Value::as_str).collect();
    writeln!(table, "{name:<12} {}: {}", used_by.join(", "), field(claim, "why").unwrap_or_default())?;
    match (field(claim, "figure"), field(claim, "command")) {
        (Some(figure), Some(command)) => writeln!(table, "{:12} {figure} [{command}]", "")?,
        _ => writeln!(table, "{:12} no figure yet", "")?,
    }
    Ok(())
}

/// A text that is there and not empty.
fn field<'a>(claim: &'a Value, key: &str) -> Option<&'a str> {
    claim.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Kind::{Dev, Normal};
    use crate::testing::graph;

    fn card() -> String {
        let absent = CARD.iter().filter(|name| **name != "io-uring");
        let absent = absent.map(|name| format!("[[package]]\nname = \"{name}\"\nabsent = \"later\"\n"));
        let used = "[[package]]\nname = \"io-uring\"\nused_by = [\"ringfort-io\"]\nwhy = \"the ring\"\n";
        absent.collect::<String>() + used
    }

    fn base() -> Graph {
        graph(&[
            ("ringfort-io", "dataplane/io", vec![("io-uring", Normal)]),
            ("ringfort-daemon", "gateway/daemon", vec![("tonic", Dev)]),
            ("io-uring", "", vec![]),
            ("tonic", "", vec![]),
        ])
    }

    fn findings(text: &str, graph: &Graph) -> String {
        check(text, graph).unwrap().findings.join("\n")
    }

    #[test]
    fn a_true_card_passes_and_is_printed() {
        let report = check(&card(), &base()).unwrap();
        assert_eq!(report.findings.join("\n"), "");
        assert!(report.table.contains("ringfort-io: the ring"), "{}", report.table);
        assert!(report.table.contains("smoltcp      absent: later"), "{}", report.table);
    }

    #[test]
    fn a_use_that_is_not_there_is_refused() {
        let text = card().replace("ringfort-io\"]", "ringfort-io\", \"ringfort-worker\"]");
        assert_eq!(findings(&text, &base()), "docs/card.toml: ringfort-worker does not depend on io-uring directly");
    }

    #[test]
    fn a_use_that_is_not_claimed_is_refused() {
        let mut graph = base();
        let edge = crate::metadata::Edge { to: "tonic".to_owned(), kind: Normal };
        graph.packages.get_mut("ringfort-daemon").unwrap().edges.push(edge);
        assert!(findings(&card(), &graph).contains("tonic is used by ringfort-daemon"));
    }

    #[test]
    fn a_missing_a_double_and_a_foreign_entry_are_refused() {
        let text = card().replace("\"tonic\"", "\"prost\"") + "[[package]]\nname = \"ring\"\nabsent = \"never\"\n";
        let findings = findings(&text, &base());
        for expected in ["tonic is missing", "prost stands there twice", "ring is not on the card"] {
            assert!(findings.contains(expected), "{findings}");
        }
    }

    #[test]
    fn a_figure_without_its_command_is_refused() {
        let text = card() + "figure = \"1 ns\"\n";
        assert!(findings(&text, &base()).contains("a figure and its command stand together"));
    }
}
