//! The commands that people type.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfort_netlab::{Lab, Spec, address};
use serde_json::Value;

use crate::world::{Backend, PATIENCE, PORT, PROGRAM, WIKI, plan, stage};

/// How long the whole demo may take; it takes half a second.
const DEMO_MAX: Duration = Duration::from_secs(60);

/// What `static-init` prints is typed in, and works.
pub(crate) fn written_files_are_accepted(backend: Backend) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let files = folder.path().join("static");
    let init = || {
        let mut command = Command::new(PROGRAM);
        command.arg("static-init").arg(&files).args(["--user", "alice", "--backend", backend.name()]);
        command.args(["--allow", "10.98.0.0/24", "--allow", "fd98::/64"]);
        command.arg("--gateway-address").arg(format!("{}:{PORT}", address::GATEWAY_V4)).output()
    };
    let output = init()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout)?;
    let lines: Vec<Vec<&str>> = printed.lines().map(|line| line.split(' ').skip(1).collect()).collect();
    let [gateway, client] = lines.as_slice() else { anyhow::bail!("expected two commands, found {printed}") };

    // The stage brings its own files, which nobody looks at.
    let stage = stage(&plan(backend))?;
    let mut gateway = stage.role("gateway", stage.lab.gateway(), gateway)?;
    let mut client = stage.role("alice", stage.lab.client("alice")?, client)?;
    for at in WIKI {
        let listener = stage.lab.run_in(stage.lab.site(), || std::net::TcpListener::bind((at, 80)))??;
        let _server = ringfort_netlab::http::serve(listener, "wiki")?;
        let alice = stage.lab.client("alice")?;
        let page = stage.lab.run_in(alice, || ringfort_netlab::http::get((at, 80).into(), PATIENCE))??;
        ensure!(page.contains("This is wiki."), "found {page:?}");
    }
    let status = status(&files.join("gateway.sock"))?;
    ensure!(status["role"] == "gateway" && status["sessions"][0]["user"] == "alice", "found {status:#}");
    let status = self::status(&files.join("alice.sock"))?;
    ensure!(status["role"] == "client" && status["up"] == true, "found {status:#}");
    client.stop()?;
    gateway.stop()?;

    let nobody = Command::new(PROGRAM).args(["status", "--socket"]).arg(files.join("gateway.sock")).output()?;
    let error = String::from_utf8_lossy(&nobody.stderr).into_owned();
    ensure!(nobody.status.code() == Some(1) && error.contains("is it running?"), "found {error}");
    let again = init()?;
    let error = String::from_utf8_lossy(&again.stderr).into_owned();
    ensure!(again.status.code() == Some(1) && error.contains("expected an empty folder"), "found {error}");
    Ok(())
}

fn status(socket: &Path) -> Result<Value> {
    let output = Command::new(PROGRAM).args(["status", "--socket"]).arg(socket).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The demo makes a laboratory of its own, within the one where it is started.
pub(crate) fn the_demo_passes(backend: Backend) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = folder.path().join("output");
    let lab = Lab::build(&Spec::new(["alice"]))?;
    let mut command = Command::new(PROGRAM);
    command.args(["demo", "--json", "--backend", backend.name()]).stdout(File::create(&output)?);
    let mut demo = lab.spawn(lab.client("alice")?, command)?;
    let ended = demo.wait(DEMO_MAX)?.context("the demo does not end")?;
    let text = fs::read_to_string(output)?;
    ensure!(ended.success(), "it ended with {ended}: {text}");
    let report: Value = serde_json::from_str(&text)?;
    ensure!(report["passed"] == true, "found {report:#}");
    let steps = report["steps"].as_array().context("no steps")?;
    ensure!(steps.len() > 8 && steps.iter().all(|step| step["passed"] == true), "found {report:#}");
    Ok(())
}
