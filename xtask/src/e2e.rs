//! `cargo xtask e2e`: Ringfort against real programs of others, part by part. Each part names what it needs, and the command
//! that runs it; a new one is a line of [`PARTS`] and a function.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::Findings;
use crate::postgres;
use crate::tools::{Needs, cargo, must, target};

/// One part.
struct Part {
    needs: Needs,
    /// Prepares what is not installed by the system, runs the part, and says whether all of it is as expected. Its output is the
    /// harness's.
    run: fn(&Path, &Path) -> Result<bool>,
}

const PARTS: [Part; 6] = [
    Part { needs: Needs { name: "oidc", programs: &["node", "npm"], packages: "nodejs npm" }, run: oidc },
    Part { needs: Needs { name: "ldap", programs: &["slapd", "ldapadd"], packages: "slapd ldap-utils" }, run: ldap },
    Part { needs: Needs { name: "grpc", programs: &["python3"], packages: "python3 python3-venv" }, run: grpc },
    Part { needs: Needs { name: "openapi", programs: &["python3"], packages: "python3 python3-venv" }, run: openapi },
    Part { needs: Needs { name: "clock", programs: &["faketime"], packages: "faketime" }, run: clock },
    Part {
        needs: Needs { name: "postgres", programs: &["initdb", "pg_ctl", "psql"], packages: "postgresql" },
        run: postgres::run,
    },
];

/// The OpenID provider, in the version that the tests were written against.
const OIDC_PROVIDER: &str = "oidc-provider@9.13.3";

/// gRPC for Python, its compiler and its standard services, in the versions that the tests were written against.
const GRPC: [&str; 4] =
    ["grpcio==1.85.1", "grpcio-tools==1.85.1", "grpcio-health-checking==1.85.1", "grpcio-reflection==1.85.1"];
/// What asks the HTTP API for everything that its document has, and what judges the document; likewise.
const OPENAPI: [&str; 3] = ["schemathesis==4.32.5", "cryptography==50.0.2", "openapi-spec-validator==0.9.0"];
/// Where our .proto files are.
const PROTO: &str = "control/proto/proto";

/// Runs the parts that `options` name (`--only LIST`), or all.
pub(crate) fn run(root: &Path, options: &[&str]) -> Result<Findings> {
    let only = only(options)?;
    let target = target(root);
    let mut findings = Findings::new();
    for Part { needs, run } in PARTS.iter().filter(|part| only.is_empty() || only.contains(&part.needs.name)) {
        if !needs.are_met(!only.is_empty(), &mut findings) {
            continue;
        }
        println!("== {}", needs.name);
        if !run(root, &target).with_context(|| format!("cannot run {}", needs.name))? {
            findings.push(format!("{}: not everything is as expected; the run itself has printed what", needs.name));
        }
    }
    Ok(findings)
}

fn only<'a>(options: &[&'a str]) -> Result<Vec<&'a str>> {
    let names = match options {
        [] => return Ok(Vec::new()),
        ["--only", list] => list.split(',').collect::<Vec<_>>(),
        other => bail!("e2e: expected --only LIST, found {}", other.join(" ")),
    };
    let known: Vec<&str> = PARTS.iter().map(|part| part.needs.name).collect();
    match names.iter().find(|name| !known.contains(name)) {
        Some(unknown) => bail!("e2e: no such part: {unknown}; there are {}", known.join(", ")),
        None => Ok(names),
    }
}

/// Logins at an OpenID provider that runs under Node.
fn oidc(root: &Path, target: &Path) -> Result<bool> {
    let folder = target.join("e2e").join(OIDC_PROVIDER);
    if !folder.join("node_modules/oidc-provider/package.json").exists() {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        println!("installing {OIDC_PROVIDER} in {}", folder.display());
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--no-save", "--prefix"]).arg(&folder).arg(OIDC_PROVIDER);
        must(npm.current_dir(&folder).stdout(std::process::Stdio::null()))?;
    }
    let mut test = providers(root, target, "oidc::");
    passes(test.env("RINGFORT_E2E_OIDC_PROVIDER", folder))
}

/// Logins by OpenLDAP.
fn ldap(root: &Path, target: &Path) -> Result<bool> {
    passes(&mut providers(root, target, "ldap::"))
}

/// A Gateway's stream by gRPC's own implementation for Python.
fn grpc(root: &Path, target: &Path) -> Result<bool> {
    let python = python(target, &GRPC)?;
    let bindings = target.join("e2e/bindings");
    std::fs::create_dir_all(&bindings).with_context(|| format!("cannot make {}", bindings.display()))?;
    let mut made = Command::new(&python);
    made.args(["-m", "grpc_tools.protoc", "--proto_path"]).arg(root.join(PROTO));
    made.arg("--python_out").arg(&bindings).arg("--grpc_python_out").arg(&bindings);
    must(made.arg("ringfort/v1/gateway.proto"))?;
    let mut test = cargo(root, target);
    test.args(["test", "--locked", "--workspace", "--test", "clients"]);
    passes(test.env("RINGFORT_E2E_GRPC_PYTHON", &python).env("RINGFORT_E2E_GRPC_BINDINGS", &bindings))
}

/// The HTTP API against its document.
fn openapi(root: &Path, target: &Path) -> Result<bool> {
    let mut test = cargo(root, target);
    test.args(["test", "--locked", "--workspace", "--test", "openapi"]);
    passes(test.env("RINGFORT_E2E_OPENAPI_PYTHON", python(target, &OPENAPI)?))
}

/// Processes whose clock is hours off.
fn clock(root: &Path, target: &Path) -> Result<bool> {
    let mut test = cargo(root, target);
    test.args(["test", "--locked", "--workspace", "--test", "control", "--", "clock::"]);
    passes(test.env("RINGFORT_E2E_FAKETIME", faketime()?))
}

/// What `faketime` preloads into a program with threads. Alone it would leave a process of its own between the test and the program.
fn faketime() -> Result<String> {
    let said = Command::new("faketime").args(["-m", "-f", "+0s", "printenv", "LD_PRELOAD"]).output();
    let said = said.context("cannot start faketime")?.stdout;
    let library = String::from_utf8(said).context("faketime preloads something that is no text")?.trim().to_owned();
    if library.is_empty() {
        bail!("expected faketime to name the library that it preloads, found nothing");
    }
    Ok(library)
}

/// A Python that has these packages, in a folder of their own.
fn python(target: &Path, packages: &[&str]) -> Result<PathBuf> {
    let folder = target.join("e2e").join(packages.join("-"));
    let (python, done) = (folder.join("bin/python"), folder.join("done"));
    if !done.exists() {
        println!("installing {} in {}", packages.join(" "), folder.display());
        must(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        must(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
        std::fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))?;
    }
    Ok(python)
}

/// The Controller's tests at providers whose names begin so.
fn providers(root: &Path, target: &Path, cases: &str) -> Command {
    let mut test = cargo(root, target);
    test.args(["test", "--locked", "--workspace", "--test", "providers", "--", cases]).env("RINGFORT_E2E", "1");
    test
}

fn passes(test: &mut Command) -> Result<bool> {
    Ok(test.status().context("cannot start cargo")?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_chosen_by_name() {
        assert!(only(&[]).unwrap().is_empty());
        assert_eq!(only(&["--only", "ldap,oidc"]).unwrap(), ["ldap", "oidc"]);
        for bad in [&["--only"][..], &["--only", "ldap,dogs"], &["ldap"], &["--fast", "x"]] {
            assert!(only(bad).is_err(), "{bad:?}");
        }
    }
}
