//! The HTTP API against its document, by schemathesis: requests that fit the schemas and such that do not, from everybody who may
//! ask, and no answer that the document does not have. Run by `cargo xtask e2e`; without it there is nothing to run.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/database.rs"]
mod database;
#[allow(dead_code)]
#[path = "../shell/support.rs"]
mod support;

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};
use ringfort_enrol::{Folder, Invitation, Joiner};
use ringfort_proto::api;

use support::{ADMINISTRATOR, Controller, PASSWORD};

/// A Python with schemathesis, set by `cargo xtask e2e`.
const PYTHON: &str = "RINGFORT_E2E_OPENAPI_PYTHON";
/// The user and the host that ask as well.
const USER: &str = "bob";
const HOST: &str = "nas";

fn main() -> ExitCode {
    let Some(python) = std::env::var_os(PYTHON) else {
        println!("SKIPPED openapi: run cargo xtask e2e");
        return ExitCode::SUCCESS;
    };
    let case = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(answers_are_those_of_the_document(Command::new(&python)));
        Ok(())
    };
    let trials = vec![Trial::test("answers_are_those_of_the_document", case)];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

async fn answers_are_those_of_the_document(mut python: Command) {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_user(USER).await;
    administrator.new_site("berlin").await;
    administrator.new_resource("wiki", "berlin").await;
    administrator.grant("wiki", USER).await;
    let invitee = api::Invitee::Host { name: HOST.into() };
    let invited: api::InvitationResponse =
        administrator.ask("admin/invitations", &api::NewInvitation { invitee, expires_in: None }).await.unwrap();
    let invitation: Invitation = invited.url.parse().unwrap();
    let folder = Folder::create(&controller.place.path().join(HOST)).unwrap();
    let joiner = Joiner { addresses: Vec::new(), client_id: String::new() };
    ringfort_enrol::join(&invitation, &invited.ticket, &joiner, &folder).await.unwrap();

    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi");
    python.current_dir(controller.place.path()).arg(format!("{scripts}/conform.py")).arg(scripts);
    python.arg(controller.address().to_string()).arg(controller.folder().join("rootCA.pem"));
    python.args([ADMINISTRATOR, USER, PASSWORD, HOST]).arg(folder.path());
    let status = tokio::task::spawn_blocking(move || python.status()).await.unwrap().expect("python starts");
    assert!(status.success(), "the run itself has printed what is not as the document says");
    assert_eq!(controller.total("refused_internal").await, 0);
    controller.end().await;
}
