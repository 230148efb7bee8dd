//! What the guards' tests share.

use crate::metadata::{Edge, Graph, Kind, Package};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// `(name, folder, edges)` of one package; an empty folder makes it a foreign one.
pub(crate) type Synthetic = (&'static str, &'static str, Vec<(&'static str, Kind)>);

/// A graph of synthetic packages, whose ids are their names.
pub(crate) fn graph(packages: &[Synthetic]) -> Graph {
    let mut graph = Graph::default();
    for (name, folder, edges) in packages {
        let edges = edges.iter().map(|(to, kind)| Edge { to: (*to).to_owned(), kind: *kind }).collect();
        let ours = !folder.is_empty();
        graph.packages.insert(
            (*name).to_owned(),
            Package {
                name: (*name).to_owned(),
                version: "1.0.0".to_owned(),
                licence: Some("MIT".to_owned()),
                source: (!ours).then(|| crate::deny::STANDARD_REGISTRY.to_owned()),
                folder: ours.then(|| (*folder).to_owned()),
                edges,
            },
        );
    }
    graph
}

/// A folder of files that goes away when dropped.
pub(crate) struct Tree(PathBuf);

impl Tree {
    /// A fresh folder with these `(path, content)` files.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringfort-xtask-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let tree = Self(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&tree.0).unwrap();
        for (path, content) in files {
            tree.write(path, content);
        }
        tree
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
