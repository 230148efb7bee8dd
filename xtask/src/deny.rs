//! Bans, licences and sources, read from `deny.toml`, the file of `cargo deny`.
//!
//! `cargo deny check bans licenses sources` reads the same file and more of it; this guard serves where installing
//! that tool would cost more than the check. It reads this part, and refuses keys that it does not know, so that
//! nothing in the file is believed checked that is not:
//!
//! - `graph.targets`: ignored, the graph is that of [`crate::metadata`];
//! - `licenses.allow`, `licenses.exceptions` (`crate`, `allow`), `licenses.private.ignore`;
//! - `bans.multiple-versions` and `bans.wildcards`: ignored;
//! - `bans.deny`: `crate`, `reason`, and either `wrappers` (only these packages may depend on it directly) or
//!   `deny-multiple-versions = true` (allowed, but in one version);
//! - `sources.unknown-registry` and `sources.unknown-git`, which must be `"deny"`.

use crate::Findings;
use crate::licence;
use crate::metadata::{Graph, Package};
use anyhow::{Context, Result, bail};
use toml::{Table, Value};

/// The registry that cargo uses unless told otherwise, by the name that lock files give it.
pub(crate) const STANDARD_REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What `deny.toml` asks for.
#[derive(Debug)]
pub(crate) struct Policy {
    licences: Vec<String>,
    /// Package, and the licences allowed to it beyond the general ones.
    exceptions: Vec<(String, Vec<String>)>,
    bans: Vec<Ban>,
}

#[derive(Debug)]
struct Ban {
    package: String,
    reason: String,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    /// Only these packages may depend on it directly; none, if the list is empty.
    Wrappers(Vec<String>),
    /// Allowed in one version.
    OneVersion,
}

impl Policy {
    /// Reads the text of `deny.toml`. Fails on keys that this guard does not know.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let file: Table = text.parse().context("deny.toml")?;
        only_known(&file, &["graph", "licenses", "bans", "sources"], "deny.toml")?;
        let licenses = section(&file, "licenses")?;
        only_known(licenses, &["allow", "exceptions", "private"], "licenses")?;
        let mut exceptions = Vec::new();
        for exception in tables(licenses, "exceptions")? {
            only_known(exception, &["crate", "allow"], "licenses.exceptions")?;
            exceptions.push((string(exception, "crate")?, strings(exception, "allow")?));
        }
        let bans = section(&file, "bans")?;
        only_known(bans, &["multiple-versions", "wildcards", "deny"], "bans")?;
        let sources = section(&file, "sources")?;
        only_known(sources, &["unknown-registry", "unknown-git"], "sources")?;
        for key in ["unknown-registry", "unknown-git"] {
            if sources.get(key).and_then(Value::as_str) != Some("deny") {
                bail!("deny.toml: sources.{key} must be \"deny\"");
            }
        }
        Ok(Self {
            licences: strings(licenses, "allow")?,
            exceptions,
            bans: tables(bans, "deny")?.into_iter().map(Ban::parse).collect::<Result<_>>()?,
        })
    }
}

impl Ban {
    fn parse(entry: &Table) -> Result<Self> {
        only_known(entry, &["crate", "reason", "wrappers", "deny-multiple-versions"], "bans.deny")?;
        let package = string(entry, "crate")?;
        let reason = string(entry, "reason").with_context(|| format!("the ban of {package}"))?;
        let rule = match entry.get("deny-multiple-versions").and_then(Value::as_bool) {
            Some(true) => Rule::OneVersion,
            _ => Rule::Wrappers(strings(entry, "wrappers").unwrap_or_default()),
        };
        Ok(Self { package, reason, rule })
    }
}

/// All findings on the packages of `graph`.
pub(crate) fn check(policy: &Policy, graph: &Graph) -> Result<Findings> {
    let mut findings = Findings::new();
    for ban in &policy.bans {
        findings.extend(banned(ban, graph));
    }
    for package in graph.packages.values().filter(|package| !package.is_ours()) {
        findings.extend(licence_finding(policy, package));
        if package.source.as_deref() != Some(STANDARD_REGISTRY) {
            let source = package.source.as_deref().unwrap_or("a path outside the workspace");
            findings.push(format!("{} comes from {source}, not from the standard registry", package.name));
        }
    }
    for (name, _) in &policy.exceptions {
        if !graph.packages.values().any(|package| package.name == *name) {
            findings.push(format!("deny.toml: the licence exception for {name} is not needed: nothing depends on it"));
        }
    }
    Ok(findings)
}

fn banned(ban: &Ban, graph: &Graph) -> Findings {
    let found: Vec<&Package> = graph.packages.values().filter(|package| package.name == ban.package).collect();
    match &ban.rule {
        Rule::OneVersion if found.len() > 1 => {
            let versions: Vec<&str> = found.iter().map(|package| package.version.as_str()).collect();
            vec![format!("{} is there in several versions ({}): {}", ban.package, versions.join(", "), ban.reason)]
        }
        Rule::OneVersion => Findings::new(),
        Rule::Wrappers(wrappers) => {
            let mut findings = Findings::new();
            for (id, package) in graph.packages.iter().filter(|(_, package)| package.name == ban.package) {
                let users = graph.packages.values().filter(|user| user.edges.iter().any(|edge| edge.to == *id));
                for user in users.filter(|user| !wrappers.contains(&user.name)) {
                    findings.push(format!("{} depends on {}: {}", user.name, package.name, ban.reason));
                }
            }
            for wrapper in wrappers.iter().filter(|_| found.is_empty()) {
                findings
                    .push(format!("deny.toml: {wrapper} does not bring {} any more: drop the exception", ban.package));
            }
            findings
        }
    }
}

fn licence_finding(policy: &Policy, package: &Package) -> Option<String> {
    let Some(expression) = &package.licence else {
        return Some(format!("{} {} states no licence", package.name, package.version));
    };
    let more = policy.exceptions.iter().filter(|(name, _)| *name == package.name).flat_map(|(_, allow)| allow);
    let allowed: Vec<String> = policy.licences.iter().chain(more).cloned().collect();
    match licence::is_met(expression, &allowed) {
        Ok(true) => None,
        Ok(false) => Some(format!("{} {}: {expression} is not allowed", package.name, package.version)),
        Err(error) => Some(format!("{} {}: {error}", package.name, package.version)),
    }
}

fn only_known(table: &Table, known: &[&str], place: &str) -> Result<()> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => bail!("deny.toml: {place} has the key {key}, which `cargo xtask deny` does not check"),
        None => Ok(()),
    }
}

fn section<'a>(file: &'a Table, key: &str) -> Result<&'a Table> {
    file.get(key).and_then(Value::as_table).with_context(|| format!("deny.toml lacks [{key}]"))
}

fn string(table: &Table, key: &str) -> Result<String> {
    Ok(table.get(key).and_then(Value::as_str).with_context(|| format!("deny.toml: {key} is missing"))?.to_owned())
}

fn strings(table: &Table, key: &str) -> Result<Vec<String>> {
    let list = table.get(key).and_then(Value::as_array).with_context(|| format!("deny.toml: {key} is missing"))?;
    list.iter().map(|value| Ok(value.as_str().with_context(|| format!("deny.toml: {key}"))?.to_owned())).collect()
}

fn tables<'a>(table: &'a Table, key: &str) -> Result<Vec<&'a Table>> {
    let list = table.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|value| value.as_table().with_context(|| format!("deny.toml: {key} holds tables"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Kind::{Dev, Normal};
    use crate::testing::graph;

    const FILE: &str = r#"
        [licenses]
        allow = ["MIT"]
        exceptions = [{ crate = "aws-lc-sys", allow = ["OpenSSL"] }]
        [bans]
        deny = [
            { crate = "ring", reason = "one cryptography library" },
            { crate = "aws-lc-sys", wrappers = ["aws-lc-rs"], reason = "through aws-lc-rs only" },
            { crate = "rustls", deny-multiple-versions = true, reason = "one TLS" },
        ]
        [sources]
        unknown-registry = "deny"
        unknown-git = "deny"
    "#;

    fn base() -> Graph {
        let mut graph = graph(&[
            ("ringfort", "gateway/cli", vec![("aws-lc-rs", Normal), ("rustls", Normal)]),
            ("aws-lc-rs", "", vec![("aws-lc-sys", Normal)]),
            ("aws-lc-sys", "", vec![]),
            ("rustls", "", vec![]),
        ]);
        graph.packages.get_mut("aws-lc-sys").unwrap().licence = Some("MIT AND OpenSSL".to_owned());
        graph
    }

    fn findings(graph: &Graph) -> String {
        check(&Policy::parse(FILE).unwrap(), graph).unwrap().join("\n")
    }

    fn add(graph: &mut Graph, id: &str, name: &str, user: &str) {
        let mut package = graph.packages["rustls"].clone();
        package.name = name.to_owned();
        graph.packages.insert(id.to_owned(), package);
        let edge = crate::metadata::Edge { to: id.to_owned(), kind: Dev };
        graph.packages.get_mut(user).unwrap().edges.push(edge);
    }

    #[test]
    fn a_clean_graph_passes() {
        assert_eq!(findings(&base()), "");
    }

    #[test]
    fn a_banned_package_is_refused_with_who_brings_it() {
        let mut graph = base();
        add(&mut graph, "ring", "ring", "rustls");
        assert_eq!(findings(&graph), "rustls depends on ring: one cryptography library");
    }

    #[test]
    fn a_package_reached_past_its_wrapper_is_refused() {
        let mut graph = base();
        let edge = crate::metadata::Edge { to: "aws-lc-sys".to_owned(), kind: Normal };
        graph.packages.get_mut("ringfort").unwrap().edges.push(edge);
        assert_eq!(findings(&graph), "ringfort depends on aws-lc-sys: through aws-lc-rs only");
    }

    #[test]
    fn a_second_version_is_refused() {
        let mut graph = base();
        add(&mut graph, "rustls 2", "rustls", "ringfort");
        assert!(findings(&graph).contains("rustls is there in several versions"), "{}", findings(&graph));
    }

    #[test]
    fn an_exception_that_serves_nothing_is_refused() {
        let mut graph = base();
        graph.packages.remove("aws-lc-sys");
        let findings = findings(&graph);
        assert!(findings.contains("drop the exception"), "{findings}");
        assert!(findings.contains("licence exception for aws-lc-sys is not needed"), "{findings}");
    }

    #[test]
    fn other_licences_and_none_are_refused() {
        let mut graph = base();
        graph.packages.get_mut("rustls").unwrap().licence = Some("GPL-3.0".to_owned());
        graph.packages.get_mut("aws-lc-rs").unwrap().licence = None;
        let findings = findings(&graph);
        assert!(findings.contains("rustls 1.0.0: GPL-3.0 is not allowed"), "{findings}");
        assert!(findings.contains("aws-lc-rs 1.0.0 states no licence"), "{findings}");
    }

    #[test]
    fn another_source_is_refused() {
        let mut graph = base();
        graph.packages.get_mut("rustls").unwrap().source = Some("git+https://example.org/rustls".to_owned());
        assert!(findings(&graph).contains("rustls comes from git+"), "{}", findings(&graph));
    }

    #[test]
    fn keys_that_would_not_be_checked_are_refused() {
        let error = Policy::parse(&FILE.replace("[bans]", "[bans]\nskip = []")).unwrap_err().to_string();
        assert!(error.contains("bans has the key skip"), "{error}");
        let error = Policy::parse(&FILE.replace("unknown-git = \"deny\"", "")).unwrap_err().to_string();
        assert!(error.contains("sources.unknown-git"), "{error}");
    }
}
