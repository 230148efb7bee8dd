//! Clients by others: a Gateway's stream by gRPC's own implementation for Python. Run by `cargo xtask e2e`, which sees to it that it
//! is there; without it there is nothing to run.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/database.rs"]
mod database;
#[allow(dead_code)]
#[path = "../shell/support.rs"]
mod support;

use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Trial};
use ringfort_proto::api;

use support::Controller;

/// A Python with grpcio, set by `cargo xtask e2e`, and the folder with the bindings made from our .proto files.
const PYTHON: &str = "RINGFORT_E2E_GRPC_PYTHON";
const BINDINGS: &str = "RINGFORT_E2E_GRPC_BINDINGS";
/// Revocations that are made while streams are cut and begun again.
const REVOCATIONS: u64 = 10_000;

fn main() -> ExitCode {
    if std::env::var_os(PYTHON).is_none() {
        println!("SKIPPED clients: run cargo xtask e2e");
        return ExitCode::SUCCESS;
    }
    let case = || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(a_stream_that_is_cut_loses_nothing());
        Ok(())
    };
    let trials = vec![Trial::test("a_stream_that_is_cut_loses_nothing", case)];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// In order, once each, whatever is cut.
async fn a_stream_that_is_cut_loses_nothing() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let gateway = administrator.new_gateway("gw1", "berlin", controller.place.path()).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/subscribe.py");
    let variable = |name: &str| std::env::var_os(name).unwrap_or_else(|| panic!("expected {name}"));
    let mut python = Command::new(variable(PYTHON));
    python.arg(script).arg(controller.address().to_string()).arg(gateway.folder.path()).arg(variable(BINDINGS));
    python.arg(REVOCATIONS.to_string()).stdout(Stdio::piped());
    let python = python.spawn().expect("python starts");
    for made in 1..=REVOCATIONS {
        let pushed: api::Pushed = administrator.revoke_something().await;
        assert!(pushed.serial.ends_with(&format!("/{made}")), "{}", pushed.serial);
    }
    let ended = tokio::task::spawn_blocking(|| python.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{said}");
    println!("{}", said.trim());
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["known"], REVOCATIONS);
    assert!(said["streams"].as_u64() > Some(10), "it was cut now and then");
    // What was applied last is what it had.
    assert!(controller.status().await["gateways"][0]["applied"].as_str().is_some_and(|applied| applied.contains('/')));
}
