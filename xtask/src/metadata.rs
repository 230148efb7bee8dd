//! The resolved dependency graph, as `cargo metadata` prints it.
//!
//! Features are those that the whole workspace asks for together, development dependencies included, so a package may
//! seem to reach more than when it is built alone, never less. The graph is the one of 64-bit Linux on x86.
//!
//! Cargo lists an optional dependency as resolved when a feature only mentions it weakly (`ring?/alloc`), although
//! nothing builds it. Such edges are dropped here, and what only they led to.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Dependencies of other operating systems are left out.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What an edge is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Build,
    Dev,
}

/// One dependency of a package.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    /// Package id, a key of [`Graph::packages`].
    pub(crate) to: String,
    pub(crate) kind: Kind,
}

/// One package, ours or foreign.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// SPDX expression as the package states it.
    pub(crate) licence: Option<String>,
    /// Where it comes from; none for a package of this repository.
    pub(crate) source: Option<String>,
    /// Folder from the root of the repository for our own packages, else none.
    pub(crate) folder: Option<String>,
    pub(crate) edges: Vec<Edge>,
}

impl Package {
    /// Whether the package belongs to this workspace.
    pub(crate) fn is_ours(&self) -> bool {
        self.folder.is_some()
    }
}

/// Packages by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    pub(crate) packages: BTreeMap<String, Package>,
}

impl Graph {
    /// The workspace's own packages with their folders, in the order of their ids.
    pub(crate) fn ours(&self) -> impl Iterator<Item = (&String, &Package, &str)> {
        self.packages.iter().filter_map(|(id, package)| Some((id, package, package.folder.as_deref()?)))
    }

    /// The packages at the ends of `package`'s edges of the given kinds.
    pub(crate) fn targets<'a>(
        &'a self,
        package: &'a Package,
        kinds: &'static [Kind],
    ) -> impl Iterator<Item = (&'a String, &'a Package)> {
        let edges = package.edges.iter().filter(|edge| kinds.contains(&edge.kind));
        edges.filter_map(|edge| self.packages.get_key_value(&edge.to))
    }
}

/// The graph of the workspace at `root`, by the locked versions.
pub(crate) fn load(root: &Path) -> Result<Graph> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET])
        .current_dir(root)
        .output()
        .context("cannot start cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    parse(&serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?)
}

fn parse(metadata: &Value) -> Result<Graph> {
    let root = Path::new(text(metadata, "workspace_root")?);
    let members: Vec<&str> = list(metadata, "workspace_members")?.iter().filter_map(Value::as_str).collect();
    let mut graph = Graph::default();
    for package in list(metadata, "packages")? {
        let id = text(package, "id")?;
        let folder = if members.contains(&id) {
            let manifest = Path::new(text(package, "manifest_path")?);
            let folder = manifest.parent().context("a manifest has a folder")?;
            let folder = folder.strip_prefix(root).context("a workspace package outside the workspace")?;
            Some(folder.to_string_lossy().into_owned())
        } else {
            None
        };
        graph.packages.insert(
            id.to_owned(),
            Package {
                name: text(package, "name")?.to_owned(),
                version: text(package, "version")?.to_owned(),
                licence: package["license"].as_str().map(str::to_owned),
                source: package["source"].as_str().map(str::to_owned),
                folder,
                edges: Vec::new(),
            },
        );
    }
    let manifests = list(metadata, "packages")?;
    for node in list(&metadata["resolve"], "nodes")? {
        let id = text(node, "id")?;
        let manifest = manifests.iter().find(|package| package["id"] == id).context("a resolved package is listed")?;
        let edges = edges(node, manifest, &graph)?;
        graph.packages.get_mut(id).context("a resolved package is listed")?.edges = edges;
    }
    let reached = reached(&graph, members.iter().map(|id| (*id).to_owned()).collect());
    graph.packages.retain(|id, _| reached.contains(id));
    Ok(graph)
}

/// The edges of `node` that something builds. `manifest` is the same package under `packages`.
fn edges(node: &Value, manifest: &Value, graph: &Graph) -> Result<Vec<Edge>> {
    let features: Vec<&str> = list(node, "features")?.iter().filter_map(Value::as_str).collect();
    let mut edges = Vec::new();
    for dep in list(node, "deps")? {
        let to = text(dep, "pkg")?;
        let target = graph.packages.get(to).context("a dependency is listed")?;
        let declarations = list(manifest, "dependencies")?.iter().filter(|dep| dep["name"] == target.name);
        for dep_kind in list(dep, "dep_kinds")? {
            let kind = match dep_kind["kind"].as_str() {
                None => Kind::Normal,
                Some("build") => Kind::Build,
                Some("dev") => Kind::Dev,
                Some(other) => bail!("unknown dependency kind {other}"),
            };
            let mut of_kind = declarations.clone().filter(|dep| dep["kind"] == dep_kind["kind"]);
            if of_kind.any(|dep| is_active(dep, manifest, &features)) {
                edges.push(Edge { to: to.to_owned(), kind });
            }
        }
    }
    Ok(edges)
}

/// Whether a declared dependency is built: it is not optional, or one of `features` asks for it outright.
fn is_active(declaration: &Value, manifest: &Value, features: &[&str]) -> bool {
    if declaration["optional"].as_bool() != Some(true) {
        return true;
    }
    let Some(name) = declaration["rename"].as_str().or(declaration["name"].as_str()) else { return true };
    let asked = features.iter().filter_map(|feature| manifest["features"][feature].as_array()).flatten();
    asked.filter_map(Value::as_str).any(|ask| {
        ask.strip_prefix("dep:") == Some(name) || ask.split_once('/').is_some_and(|(package, _)| package == name)
    })
}

/// The ids that can be reached from `start` by edges of any kind, `start` included.
fn reached(graph: &Graph, start: BTreeSet<String>) -> BTreeSet<String> {
    let mut queue: Vec<String> = start.iter().cloned().collect();
    let mut reached = start;
    while let Some(package) = queue.pop().and_then(|id| graph.packages.get(&id)) {
        for edge in &package.edges {
            if reached.insert(edge.to.clone()) {
                queue.push(edge.to.clone());
            }
        }
    }
    reached
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("cargo metadata lacks the text {key}"))
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a [Value]> {
    Ok(value[key].as_array().with_context(|| format!("cargo metadata lacks the list {key}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata() -> Value {
        json!({
            "workspace_root": "/w",
            "workspace_members": ["a"],
            "packages": [
                {"id": "a", "name": "ours", "version": "0.1.0", "manifest_path": "/w/sub/a/Cargo.toml",
                 "dependencies": [{"name": "theirs", "kind": null}, {"name": "theirs", "kind": "dev"}]},
                {"id": "b", "name": "theirs", "version": "1.0.0", "license": "MIT", "source": "registry+x",
                 "manifest_path": "/c/b/Cargo.toml",
                 "features": {"std": ["weak?/std", "strong/std"], "hard": ["dep:weak"]},
                 "dependencies": [{"name": "weak", "kind": null, "optional": true},
                                  {"name": "strong", "kind": null, "optional": true}]},
                {"id": "s", "name": "strong", "version": "1.0.0", "manifest_path": "/c/s/Cargo.toml"},
                {"id": "v", "name": "weak", "version": "1.0.0", "manifest_path": "/c/v/Cargo.toml"},
                {"id": "w", "name": "winapi", "version": "1.0.0", "manifest_path": "/c/w/Cargo.toml"},
            ],
            "resolve": {"nodes": [
                {"id": "a", "features": [], "deps": [{"pkg": "b", "dep_kinds": [{"kind": null}, {"kind": "dev"}]}]},
                {"id": "b", "features": ["std"], "deps": [{"pkg": "v", "dep_kinds": [{"kind": null}]},
                                                          {"pkg": "s", "dep_kinds": [{"kind": null}]}]},
                {"id": "s", "features": [], "deps": []},
                {"id": "v", "features": [], "deps": []},
            ]},
        })
    }

    #[test]
    fn packages_edges_and_folders_are_read() {
        let graph = parse(&metadata()).unwrap();
        let ours: Vec<_> = graph.ours().map(|(id, package, folder)| (&**id, package.edges.len(), folder)).collect();
        assert_eq!(ours, [("a", 2, "sub/a")]);
        assert_eq!(graph.packages["b"].licence.as_deref(), Some("MIT"));
        assert!(!graph.packages.contains_key("w"), "a package of another target is left out");
    }

    #[test]
    fn an_optional_dependency_counts_when_a_feature_asks_for_it_outright() {
        let graph = parse(&metadata()).unwrap();
        assert!(graph.packages.contains_key("s"));
        assert!(!graph.packages.contains_key("v"), "a weak mention builds nothing");
        let mut metadata = metadata();
        metadata["resolve"]["nodes"][1]["features"] = json!(["std", "hard"]);
        assert!(parse(&metadata).unwrap().packages.contains_key("v"));
    }

    #[test]
    fn metadata_without_a_graph_is_refused() {
        let error = parse(&json!({"workspace_root": "/w", "workspace_members": [], "packages": []})).unwrap_err();
        assert!(error.to_string().contains("nodes"), "{error}");
    }
}
