//! Clients by others: a Gateway's stream, and the standard services, by gRPC's own implementation for Python. Run by `cargo xtask e2e`, which sees to it that it
//! is there; without it there is nothing to run.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/database.rs"]
mod database;
#[allow(dead_code)]
#[path = "../shell/support.rs"]
mod support;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Trial};
use ringfort_proto::api;

use support::{Controller, PATIENCE};

/// A Python with grpcio, set by `cargo xtask e2e`, and the folder with the bindings made from our .proto files.
const PYTHON: &str = "RINGFORT_E2E_GRPC_PYTHON";
const BINDINGS: &str = "RINGFORT_E2E_GRPC_BINDINGS";
/// Watches of one address that may be open.
const OPEN_OF_ONE_ADDRESS_MAX: usize = 16;
/// Revocations that are made while streams are cut and begun again.
const REVOCATIONS: u64 = 10_000;

fn main() -> ExitCode {
    if std::env::var_os(PYTHON).is_none() {
        println!("SKIPPED clients: run cargo xtask e2e");
        return ExitCode::SUCCESS;
    }
    let trials = vec![
        Trial::test("a_stream_that_is_cut_loses_nothing", || {
            block_on(a_stream_that_is_cut_loses_nothing());
            Ok(())
        }),
        Trial::test("health_and_reflection_answer_anybody_within_bounds", || {
            block_on(health_and_reflection_answer_anybody_within_bounds());
            Ok(())
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn block_on(case: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(case);
}

/// One of the scripts beside this file, at the Controller.
fn script(name: &str, controller: &Controller) -> Command {
    let mut python = Command::new(variable(PYTHON));
    python.arg(format!("{}/tests/clients/{name}", env!("CARGO_MANIFEST_DIR"))).arg(controller.address().to_string());
    python
}

fn variable(name: &str) -> OsString {
    std::env::var_os(name).unwrap_or_else(|| panic!("expected {name}"))
}

/// The standard services of gRPC, by its own clients of them, while the database goes away and comes back.
async fn health_and_reflection_answer_anybody_within_bounds() {
    let controller = Controller::start().await;
    let mut python = script("standard.py", &controller);
    python.arg(controller.folder().join("rootCA.pem")).arg(OPEN_OF_ONE_ADDRESS_MAX.to_string());
    let mut python = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
    let (mut say, said) = (python.stdin.take().unwrap(), python.stdout.take().unwrap());
    let (lines, mut line) = tokio::sync::mpsc::unbounded_channel();
    let reader =
        std::thread::spawn(move || BufReader::new(said).lines().try_for_each(|line| lines.send(line.unwrap())));
    let mut next = async || tokio::time::timeout(PATIENCE, line.recv()).await.expect("in time");
    let mut done = |what: &str| writeln!(say, "{what}").unwrap();
    assert_eq!(next().await.as_deref(), Some("serving"));
    database::execute(&controller.folder(), "ALTER TABLE organisation RENAME TO away").await;
    done("serving");
    assert_eq!(next().await.as_deref(), Some("not serving"));
    database::execute(&controller.folder(), "ALTER TABLE away RENAME TO organisation").await;
    done("not serving");
    assert_eq!(next().await.as_deref(), Some("watching"));
    assert_eq!(controller.total("refused_requests_limited").await, 2);
    done("watching");
    controller.end().await;
    assert!(python.wait().unwrap().success());
    reader.join().unwrap().unwrap();
}

/// In order, once each, whatever is cut.
async fn a_stream_that_is_cut_loses_nothing() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let gateway = administrator.new_gateway("gw1", "berlin", controller.place.path()).await;
    let mut python = script("subscribe.py", &controller);
    python.arg(gateway.folder.path()).arg(variable(BINDINGS));
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
