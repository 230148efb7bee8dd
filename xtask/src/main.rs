//! Guards of the repository: what a compiler cannot see, checked by one command each.
//!
//! Every guard reads the tree and returns *findings*, one sentence each; none means the guard passes. A guard changes
//! nothing (but `proto` writes what it checks with `--check`), builds nothing and needs no network. `interop` and `e2e` are no guards: they
//! run ours against programs of others. What it holds the tree to stands in one table at the top of its
//! module, or in a file of `docs/` that people edit.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod bench;
mod card;
mod dag;
mod deny;
mod e2e;
mod fuzz;
mod interop;
mod layers;
mod layout;
mod licence;
mod manifests;
mod metadata;
mod postgres;
mod prose;
mod proto;
mod rows;
mod sim;
#[cfg(test)]
mod testing;
mod tools;
mod tracked;

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What is wrong, one sentence each.
type Findings = Vec<String>;

const HELP: &str = "\
Guards of the repository. Usage: cargo xtask TASK

  dag                   crate layers, no-I/O reach, lint tables, dependency declarations
  deny                  bans, licences and sources of deny.toml, over the resolved graph
  card                  the design card's packages: who uses each, why, and a figure
  layout                the top level of the tree
  prose                 text that must not be committed: machine paths, registry hosts, tool names
  proto [--check]       bindings from the .proto files: writes them, or compares
  rows [--results FILE] requirement rows and the tests that show them; with FILE, the captured
                        output of the README's test command, that each cited test ran and passed

Campaigns, which take minutes and are no part of the guards:

  e2e [--only LIST]     Ringfort against real programs of others: oidc (Node's oidc-provider),
                        ldap (OpenLDAP), grpc (a Gateway's stream by grpcio), openapi (the HTTP API by
                        schemathesis), clock (clocks hours off, by faketime), postgres (the Controller on
                        PostgreSQL); what is missing is left out, or fails the run under CI
  bench push [OPTIONS]  a revocation to many Gateways; builds the program in release
  fuzz TARGET [RUNS]    libFuzzer on record, front, server13 or server12 (10000000 executions)
  sim-dtls [FROM..TO]   handshakes over a simulated network that loses, doubles, delays and damages,
                        one for each seed (0..100000): with itself, then with BoringSSL if that can be built
  interop [OPTIONS]     the DTLS engine against other implementations (tests/interop); builds them
      --peers LIST      of openssl, gnutls, wolfssl, boring, dimpl: only these; what they need must be there
      --only LIST       only cases with one of these words in their name
      --versions LIST   of 1.3, 1.2
      --seed N          other misfortunes of the bad networks
      --write           writes docs/dtls-interop.md
      --verbose         what both sides said, where it is not as expected

  nightly               interop with every peer, sim-dtls, and a million executions of each fuzz target

Exit codes: 0 passed, 1 findings, 2 the guard could not run.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            for finding in &findings {
                eprintln!("error: {finding}");
            }
            eprintln!("{}: {} finding(s)", args.join(" "), findings.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[String]) -> Result<Findings> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["dag"] => {
            let root = repository_root()?;
            let graph = metadata::load(&root)?;
            let mut findings = dag::check(&graph);
            findings.extend(manifests::check(&root, &graph)?);
            Ok(findings)
        }
        ["deny"] => {
            let root = repository_root()?;
            deny::check(&deny::Policy::parse(&read(&root.join("deny.toml"))?)?, &metadata::load(&root)?)
        }
        ["card"] => {
            let root = repository_root()?;
            let report = card::check(&read(&root.join("docs/card.toml"))?, &metadata::load(&root)?)?;
            print!("{}", report.table);
            Ok(report.findings)
        }
        ["bench", name, options @ ..] => bench::run(&repository_root()?, name, options),
        ["e2e", options @ ..] => e2e::run(&repository_root()?, options),
        ["interop", options @ ..] => interop::run(&repository_root()?, options),
        ["layout"] => layout::check(&repository_root()?),
        ["prose"] => prose::check(&repository_root()?),
        ["proto"] => proto::write(&repository_root()?),
        ["proto", "--check"] => proto::check(&repository_root()?),
        ["nightly"] => nightly(&repository_root()?),
        ["fuzz", target] => fuzz::run(&repository_root()?, target, fuzz::RUNS),
        ["fuzz", target, runs] => fuzz::run(&repository_root()?, target, runs),
        ["sim-dtls"] => sim::dtls(&repository_root()?, sim::SEEDS),
        ["sim-dtls", seeds] => sim::dtls(&repository_root()?, seeds),
        ["rows"] => rows::check(&repository_root()?, None),
        ["rows", "--results", file] => rows::check(&repository_root()?, Some(&read(Path::new(file))?)),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(Findings::new())
        }
        other => bail!("no such task: {}\n\n{HELP}", other.join(" ")),
    }
}

/// The campaigns one after the other, to the first that finds something.
fn nightly(root: &Path) -> Result<Findings> {
    let mut findings = interop::run(root, &[])?;
    if findings.is_empty() {
        findings = sim::dtls(root, sim::SEEDS)?;
    }
    for target in fuzz::TARGETS {
        if findings.is_empty() {
            findings = fuzz::run(root, target, "1000000")?;
        }
    }
    Ok(findings)
}

/// The root of the checkout that this run was started in: cargo sets the variable for `run` and for `test` alike. The
/// path compiled into the binary would not do, since a target directory may be shared by several checkouts.
fn repository_root() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("start it as `cargo xtask`")?;
    Ok(Path::new(&manifest).parent().context("xtask has a parent folder")?.to_path_buf())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_task() {
        for task in ["dag", "deny", "card", "layout", "prose", "rows", "e2e", "interop", "fuzz", "sim-dtls", "nightly"]
        {
            assert!(HELP.contains(&format!("\n  {task} ")), "{task}");
        }
    }

    #[test]
    fn an_unknown_task_is_refused() {
        let error = run(&["dogs".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("no such task: dogs"), "{error}");
    }
}
