//! Which crate may depend on which: the layers of [`crate::layers`], checked over the resolved graph.
//!
//! Normal and build dependencies go to a strictly lower layer. Development dependencies may go anywhere (a test of a
//! low crate may stand on the namespace laboratory) as long as no circle of our crates comes out of it, because in a
//! circle the low crate would be built twice and tested against its other self.
//!
//! This guard reads no source text: what a no-I/O crate calls in `std` is for its `clippy.toml` to forbid.

use crate::Findings;
use crate::layers::{self, Access};
use crate::metadata::{Graph, Kind, Package};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// All findings on the graph's shape.
pub(crate) fn check(graph: &Graph) -> Findings {
    let mut findings = places(graph);
    findings.extend(directions(graph));
    findings.extend(closed_folder(graph));
    findings.extend(circles(graph));
    findings.extend(io_reach(graph));
    findings.extend(gateway_reach(graph));
    findings
}

/// Every workspace package has a place, and stands there.
fn places(graph: &Graph) -> Findings {
    let mut findings = Findings::new();
    for (_, package, folder) in graph.ours() {
        match layers::place_of(&package.name) {
            None => findings.push(format!(
                "{} ({folder}) has no layer: place it in xtask/src/layers.rs and in docs/ARCHITECTURE.md",
                package.name
            )),
            Some(place) if place.folder != folder => {
                findings.push(format!("{} stands in {folder}, its place is {}", package.name, place.folder));
            }
            Some(_) => {}
        }
    }
    findings
}

fn directions(graph: &Graph) -> Findings {
    let mut findings = Findings::new();
    for (_, package, _) in graph.ours() {
        for (_, target) in graph.targets(package, &[Kind::Normal, Kind::Build]).filter(|(_, target)| target.is_ours()) {
            let (Some(from), Some(to)) = (layers::place_of(&package.name), layers::place_of(&target.name)) else {
                continue; // reported by `places`
            };
            if to.layer >= from.layer {
                findings.push(format!(
                    "{} (layer {}) → {} (layer {}): an edge goes to a strictly lower layer",
                    package.name, from.layer, target.name, to.layer
                ));
            }
        }
    }
    findings
}

fn closed_folder(graph: &Graph) -> Findings {
    let closed = layers::CLOSED_FOLDER;
    let mut findings = Findings::new();
    for (_, package, _) in graph.ours().filter(|(_, _, folder)| folder.starts_with(closed)) {
        for (_, target) in graph.targets(package, &[Kind::Normal, Kind::Build]) {
            if target.folder.as_ref().is_some_and(|folder| !folder.starts_with(closed)) {
                findings.push(format!(
                    "{} → {}: what is in {closed} depends on nothing of ours outside it",
                    package.name, target.name
                ));
            }
        }
    }
    findings
}

/// Circles of our own packages over edges of every kind, each told once.
fn circles(graph: &Graph) -> Findings {
    let mut told = BTreeSet::new();
    let mut findings = Findings::new();
    for (id, package, _) in graph.ours() {
        let kinds = &[Kind::Normal, Kind::Build, Kind::Dev];
        if let Some(path) = shortest_path(graph, id, kinds, &|_, package| package.is_ours(), &|target, _| target == id)
        {
            let members: BTreeSet<String> = path.iter().cloned().collect();
            if told.insert(members) {
                findings.push(format!("{}: development dependencies close a circle", arrows(package, &path)));
            }
        }
    }
    findings
}

/// No-I/O packages that reach a package that does I/O, with the way they reach it. Build-time dependencies of others
/// do not count: they run on the builder's machine.
fn io_reach(graph: &Graph) -> Findings {
    let mut findings = Findings::new();
    for (id, package, _) in graph.ours() {
        if layers::place_of(&package.name).is_none_or(|place| place.access == Access::Io) {
            continue;
        }
        for forbidden in layers::IO_PACKAGES {
            let is_forbidden = |_: &String, target: &Package| target.name == *forbidden;
            if let Some(path) = shortest_path(graph, id, &[Kind::Normal], &|_, _| true, &is_forbidden) {
                findings.push(format!("{}: a no-I/O crate reaches {forbidden}", arrows(package, &path)));
            }
        }
    }
    findings
}

/// What is the Controller's and the Gateway's process reaches, with the way it does.
fn gateway_reach(graph: &Graph) -> Findings {
    let mut findings = Findings::new();
    for (id, package, _) in graph.ours().filter(|(_, package, _)| package.name == layers::GATEWAY_PACKAGE) {
        for forbidden in layers::CONTROLLER_PACKAGES {
            let is_forbidden = |_: &String, target: &Package| target.name == *forbidden;
            if let Some(path) = shortest_path(graph, id, &[Kind::Normal], &|_, _| true, &is_forbidden) {
                findings.push(format!("{}: the Gateway reaches {forbidden}", arrows(package, &path)));
            }
        }
    }
    findings
}

/// Names of the packages on the shortest way from `start` to the first package that `is_goal` accepts, without
/// `start` itself. The way goes through packages that `may_pass` accepts.
fn shortest_path(
    graph: &Graph,
    start: &String,
    kinds: &'static [Kind],
    may_pass: &dyn Fn(&String, &Package) -> bool,
    is_goal: &dyn Fn(&String, &Package) -> bool,
) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<&String, &String> = BTreeMap::new();
    let mut queue = VecDeque::from([graph.packages.get_key_value(start)?]);
    while let Some((id, package)) = queue.pop_front() {
        for (next, target) in graph.targets(package, kinds) {
            if is_goal(next, target) {
                let mut path = vec![target.name.clone()];
                let mut at = id;
                while at != start {
                    path.push(graph.packages.get(at)?.name.clone());
                    at = came_from.get(at)?;
                }
                path.reverse();
                return Some(path);
            }
            if may_pass(next, target) && next != start && !came_from.contains_key(next) {
                came_from.insert(next, id);
                queue.push_back((next, target));
            }
        }
    }
    None
}

fn arrows(start: &Package, path: &[String]) -> String {
    format!("{} → {}", start.name, path.join(" → "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Synthetic, graph};
    use Kind::{Build, Dev, Normal};

    fn good() -> Vec<Synthetic> {
        vec![
            ("ringfort", "gateway/cli", vec![("ringfort-worker", Normal), ("tokio", Normal)]),
            ("ringfort-worker", "dataplane/worker", vec![("ringfort-engine", Normal), ("ringfort-netlab", Dev)]),
            ("ringfort-engine", "dataplane/engine", vec![("ringfort-types", Normal), ("siphash", Normal)]),
            ("ringfort-netlab", "bench/netlab", vec![("tokio", Normal)]),
            ("ringfort-types", "dataplane/types", vec![]),
            ("siphash", "", vec![("cc", Build)]),
            ("cc", "", vec![("rustix", Normal)]),
            ("tokio", "", vec![("mio", Normal)]),
            ("mio", "", vec![]),
            ("rustix", "", vec![]),
        ]
    }

    fn findings_with(change: impl FnOnce(&mut Vec<Synthetic>)) -> String {
        let mut packages = good();
        change(&mut packages);
        check(&graph(&packages)).join("\n")
    }

    #[test]
    fn a_graph_that_keeps_to_the_layers_passes() {
        assert_eq!(findings_with(|_| {}), "");
    }

    #[test]
    fn an_edge_upwards_is_refused() {
        let findings = findings_with(|packages| packages[4].2.push(("ringfort-engine", Build)));
        assert!(findings.contains("ringfort-types (layer 0) → ringfort-engine (layer 3)"), "{findings}");
    }

    #[test]
    fn an_edge_within_a_layer_is_refused() {
        let findings = findings_with(|packages| {
            packages[2].2.push(("ringfort-policy", Normal));
            packages.push(("ringfort-policy", "control/policy", vec![]));
        });
        assert!(findings.contains("ringfort-engine (layer 3) → ringfort-policy (layer 3)"), "{findings}");
    }

    #[test]
    fn an_unplaced_package_is_refused() {
        let findings = findings_with(|packages| packages.push(("ringfort-utils", "dataplane/utils", vec![])));
        assert!(findings.contains("ringfort-utils (dataplane/utils) has no layer"), "{findings}");
    }

    #[test]
    fn a_package_in_another_folder_is_refused() {
        let findings = findings_with(|packages| packages[4].1 = "types");
        assert!(findings.contains("ringfort-types stands in types"), "{findings}");
    }

    #[test]
    fn a_transitive_reach_of_io_is_refused_with_its_path() {
        let findings = findings_with(|packages| packages[5].2.push(("tokio", Normal)));
        assert!(findings.contains("ringfort-engine → siphash → tokio: a no-I/O crate reaches tokio"), "{findings}");
        assert!(findings.contains("ringfort-engine → siphash → tokio → mio"), "{findings}");
        assert!(!findings.contains("rustix"), "what only a build script uses does not count: {findings}");
    }

    #[test]
    fn a_gateway_that_reaches_a_database_is_refused() {
        let findings = findings_with(|packages| {
            packages.push(("ringfort-daemon", "gateway/daemon", vec![("ringfort-enrol", Normal), ("sqlx", Dev)]));
            packages.push(("ringfort-enrol", "control/enrol", vec![("argon2", Normal)]));
            packages.extend([("argon2", "", vec![]), ("sqlx", "", vec![])]);
        });
        assert_eq!(findings, "ringfort-daemon → ringfort-enrol → argon2: the Gateway reaches argon2");
    }

    #[test]
    fn the_data_plane_leans_on_nothing_outside() {
        let findings = findings_with(|packages| packages[1].2.push(("ringfort-netlab", Normal)));
        assert!(findings.contains("ringfort-worker → ringfort-netlab: what is in dataplane/"), "{findings}");
    }

    #[test]
    fn a_circle_through_a_development_dependency_is_refused_once() {
        let findings = findings_with(|packages| packages[4].2.push(("ringfort-worker", Dev)));
        assert_eq!(findings.matches("close a circle").count(), 1, "{findings}");
    }
}
