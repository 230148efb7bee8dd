//! The Controller's process: start, status, end.

use std::path::Path;

use anyhow::{Context, Result};
use ringfort_service::desk::{Desk, Letter, Question};
use ringfort_service::notify_ready;
use tokio::sync::{mpsc, watch};

use crate::shell::{Options, Server};

/// Threads of the runtime. Passwords are hashed elsewhere; what is left is signatures, TLS and the database.
const THREADS: usize = 2;
/// Name of the status socket in the state folder.
const STATUS_SOCKET: &str = "controller.sock";

/// Runs a Controller in the state folder `folder` until it is told to stop: by SIGTERM or SIGINT or, with
/// `stop_with_stdin`, by the end of standard input. To be called before any thread is made.
///
/// # Errors
/// Whatever keeps it from running, with what was expected and what came.
pub fn run(folder: &Path, options: &Options, stop_with_stdin: bool) -> Result<()> {
    let desk: Desk<()> = Desk::open(stop_with_stdin)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    let (stop, stopped) = watch::channel(false);
    let server = runtime.block_on(Server::open(folder, options, stopped.clone()))?;
    let path = folder.join(STATUS_SOCKET);
    let socket = desk.serve_status(&path).with_context(|| format!("cannot serve {}", path.display()))?;
    let (ask, mut questions) = mpsc::channel::<Question>(1);
    std::thread::Builder::new().name("desk".into()).spawn(move || {
        while let Some(letter) = desk.receive() {
            match letter {
                Letter::Status(question) => drop(ask.blocking_send(question)),
                Letter::Stop => drop(stop.send(true)),
                Letter::Report(()) => {}
            }
        }
    })?;
    notify_ready();
    runtime.block_on(async {
        let answering = async {
            while let Some(question) = questions.recv().await {
                question.answer(server.status().await);
            }
        };
        tokio::select! {
            served = server.serve() => served,
            () = answering => Ok(()),
        }
    })?;
    drop(socket);
    Ok(())
}
