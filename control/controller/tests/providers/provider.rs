//! An OpenID provider as a process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A folder with npm's `oidc-provider` in its `node_modules`.
const FOLDER: &str = "RINGFORT_E2E_OIDC_PROVIDER";
/// The secret of the client `ringfort`.
pub(crate) const SECRET: &str = "hush: a secret";

/// The provider. It ends when this is dropped.
pub(crate) struct Provider {
    child: Child,
    pub(crate) issuer: String,
}

impl Provider {
    /// One that is spoken to in the clear, over loopback.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same after it has lost all it knew: who is logged in, and every token.
    pub(crate) fn restart(self) -> Self {
        let port = self.issuer.rsplit_once(':').unwrap().1.to_owned();
        drop(self);
        Self::start_at(&[], &port)
    }

    /// One with a key and a certificate.
    pub(crate) fn start_with(files: &[&Path]) -> Self {
        Self::start_at(files, "0")
    }

    fn start_at(files: &[&Path], port: &str) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/providers/provider.mjs");
        let folder = std::env::var_os(FOLDER).unwrap_or_else(|| panic!("expected {FOLDER}: run cargo xtask e2e"));
        let mut command = Command::new("node");
        command
            .arg(script)
            .arg(folder)
            .args(files)
            .env("PORT", port)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("node starts");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("ready ").map(str::to_owned));
        Self { issuer: ready.expect("the provider says where it listens"), child }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
