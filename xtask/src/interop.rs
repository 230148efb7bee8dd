//! `cargo xtask interop`: the DTLS engine against other implementations. Builds what `tests/interop` needs, and runs it.
//!
//! The package stands outside the workspace, and each peer has needs of its own ([`crate::tools`]).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::Findings;
use crate::tools::{Needs, cargo, must, target};

/// The package, from the root of the repository.
const PACKAGE: &str = "tests/interop";
/// The page that `--write` writes.
const PAGE: &str = "docs/dtls-interop.md";
/// The crate that ships the sources of wolfSSL, and where in it they are.
const WOLFSSL: (&str, &str) = ("wolfssl-sys", "wolfssl-src");
/// How wolfSSL is built: both versions, connection ids, all that the cases ask for, and no programs of its own.
const WOLFSSL_OPTIONS: [&str; 14] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DWOLFSSL_DTLS=yes",
    "-DWOLFSSL_DTLS13=yes",
    "-DWOLFSSL_DTLS_CID=yes",
    "-DWOLFSSL_DTLS_MTU=yes",
    "-DWOLFSSL_DTLS_CH_FRAG=yes",
    "-DWOLFSSL_HRR_COOKIE=yes",
    "-DWOLFSSL_ED25519=yes",
    "-DWOLFSSL_CURVE25519=yes",
    "-DWOLFSSL_CRL=yes",
    "-DWOLFSSL_KEYING_MATERIAL=yes",
    "-DWOLFSSL_EXAMPLES=no",
    "-DWOLFSSL_CRYPT_TESTS=no",
];

/// The peer that is built into the package, and the package's feature for it.
const BORING: &str = "boring";

const PEERS: [Needs; 5] = [
    Needs { name: "openssl", programs: &["openssl"], packages: "openssl" },
    Needs { name: "gnutls", programs: &["gnutls-cli"], packages: "gnutls-bin" },
    Needs { name: "wolfssl", programs: &["cmake", "make", "cc"], packages: "cmake make gcc" },
    Needs { name: BORING, programs: &["cmake", "make", "c++", "clang"], packages: "cmake make g++ clang libclang-dev" },
    Needs { name: "dimpl", programs: &[], packages: "" },
];

/// What the command line says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    /// The peers that are asked for; all if none.
    peers: Vec<String>,
    writes: bool,
    /// Handed on as they are.
    more: Vec<String>,
}

impl Options {
    fn parse(args: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--write" => options.writes = true,
                "--verbose" => options.more.push("--verbose".to_owned()),
                "--peers" => {
                    let names = args.next().context("--peers wants names, separated by commas")?;
                    options.peers = names.split(',').map(str::to_owned).collect();
                }
                "--only" | "--seed" | "--versions" => {
                    let value = args.next().with_context(|| format!("{arg} wants a value"))?;
                    options.more.extend([(*arg).to_owned(), (*value).to_owned()]);
                }
                other => bail!("interop: no such option: {other}"),
            }
        }
        if let Some(unknown) = options.peers.iter().find(|name| PEERS.iter().all(|peer| peer.name != **name)) {
            bail!("interop: no such peer: {unknown}; there are openssl, gnutls, wolfssl, boring and dimpl");
        }
        Ok(options)
    }

    fn asks_for(&self, peer: &Needs) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|name| name == peer.name)
    }
}

/// Builds and runs. What is not as expected is one finding: the run itself has printed each.
pub(crate) fn run(root: &Path, args: &[&str]) -> Result<Findings> {
    let options = Options::parse(args)?;
    let target = target(root);
    let (mut peers, mut findings) = (Vec::new(), Findings::new());
    for peer in PEERS.iter().filter(|peer| options.asks_for(peer)) {
        if peer.are_met(!options.peers.is_empty(), &mut findings) {
            peers.push(peer.name);
        }
    }
    if !findings.is_empty() {
        return Ok(findings);
    }
    let wolfssl = if peers.contains(&"wolfssl") { Some(build_wolfssl(root, &target)?) } else { None };
    println!("building dtls_echo and the table");
    must(cargo(root, &target).args(["build", "--locked", "--workspace", "--example", "dtls_echo"]))?;
    let mut table = package(root, &target, &peers);
    table.args(["--", "run", "--peers", &peers.join(","), "--echo"]).arg(target.join("debug/examples/dtls_echo"));
    if let Some(wolfssl) = wolfssl {
        table.arg("--wolfssl").arg(wolfssl);
    }
    if options.writes {
        table.arg("--write").arg(root.join(PAGE));
        table.args(["--command", &["cargo xtask interop", &args.join(" ")].join(" ")]);
    }
    table.args(&options.more);
    let status = table.status().context("cannot start cargo")?;
    if !status.success() {
        findings.push(
            "the engine and its peers do not do what is expected of them; --verbose shows what both said".to_owned(),
        );
    }
    Ok(findings)
}

/// Handshakes with BoringSSL over a simulated network, one for each seed of `seeds` (`FROM..TO`). The run itself has printed what
/// became of them.
pub(crate) fn simulate(root: &Path, seeds: &str) -> Result<Findings> {
    let mut findings = Findings::new();
    let boring = PEERS.iter().find(|peer| peer.name == BORING).context("BoringSSL is a peer")?;
    if boring.are_met(false, &mut findings) {
        let target = target(root);
        let status = package(root, &target, &[BORING]).args(["--", "simulate", seeds]).status();
        if !status.context("cannot start cargo")?.success() {
            findings.push(format!("seeds {seeds}: too many handshakes with BoringSSL were given up, or one was wrong"));
        }
    }
    Ok(findings)
}

/// `cargo run` of the package, built for `peers`; its own options come behind.
fn package(root: &Path, target: &Path, peers: &[&str]) -> Command {
    let mut command = cargo(root, target);
    command.args(["run", "--quiet", "--locked", "--manifest-path"]).arg(root.join(PACKAGE).join("Cargo.toml"));
    if peers.contains(&BORING) {
        command.args(["--features", BORING]);
    }
    command
}

/// wolfSSL's library and the program of ours around it, in the target directory.
fn build_wolfssl(root: &Path, target: &Path) -> Result<PathBuf> {
    let package = root.join(PACKAGE).join("wolfssl");
    let sources = sources_of(root, target, &package)?;
    let folder = target.join("interop").join(sources.parent().and_then(Path::file_name).context("a crate's folder")?);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    println!("building wolfSSL in {}", folder.display());
    if !folder.join("libwolfssl.a").exists() {
        must(quietly(Command::new("cmake").arg("-S").arg(&sources).arg("-B").arg(&folder).args(WOLFSSL_OPTIONS)))?;
        must(quietly(Command::new("cmake").arg("--build").arg(&folder).args(["--parallel", "2"])))?;
    }
    let program = folder.join("ringfort-peer");
    let mut compile = Command::new("cc");
    compile.args(["-O1", "-Wall", "-Wextra", "-I"]).arg(&folder).arg("-I").arg(&sources).arg("-o").arg(&program);
    must(compile.arg(package.join("peer.c")).arg(folder.join("libwolfssl.a")).args(["-lm", "-lpthread"]))?;
    Ok(program)
}

/// Where cargo has put the sources that a manifest brings, which it fetches if need be.
fn sources_of(root: &Path, target: &Path, package: &Path) -> Result<PathBuf> {
    let output = cargo(root, target)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        .output()
        .context("cannot start cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let packages = metadata.get("packages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let found = packages.iter().find(|package| package.get("name").and_then(Value::as_str) == Some(WOLFSSL.0));
    let manifest = found.and_then(|package| package.get("manifest_path")).and_then(Value::as_str);
    let folder =
        manifest.and_then(|path| Path::new(path).parent()).context("cargo metadata lacks wolfSSL's sources")?;
    Ok(folder.join(WOLFSSL.1))
}

/// Output only if it fails.
fn quietly(command: &mut Command) -> &mut Command {
    command.stdout(std::process::Stdio::null())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let options = Options::parse(&["--peers", "openssl,dimpl", "--write", "--only", "loss"]).unwrap();
        assert_eq!(options.peers, ["openssl", "dimpl"]);
        assert!(options.writes);
        assert_eq!(options.more, ["--only", "loss"]);
        let asked = PEERS.iter().filter(|peer| options.asks_for(peer)).map(|peer| peer.name).collect::<Vec<_>>();
        assert_eq!(asked, ["openssl", "dimpl"]);
        assert!(PEERS.iter().all(|peer| Options::default().asks_for(peer)));
    }

    #[test]
    fn what_is_unknown_is_refused() {
        for args in [&["--peers", "mbedtls"][..], &["--peers"], &["--only"], &["--fast"]] {
            assert!(Options::parse(args).is_err(), "{args:?}");
        }
    }
}
