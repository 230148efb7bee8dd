//! The process of a static Gateway: start, the loop of its control thread, end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use ringfort_admission::destination;
use ringfort_admission::fixed::{Admission, User};
use ringfort_engine::gateway::{Event, Gateway};
use ringfort_policy::Catalogue;
use ringfort_service::desk::{Desk, Letter};
use ringfort_service::{credentials, file};
use ringfort_types::WorkerIndex;
use ringfort_worker::{Report, Sink, Workers, spawn};

use crate::config::{self, StaticFile};
use crate::started::Started;
use crate::status::{document, rule_name};

/// Runs a Gateway from the file at `path` until it is told to stop: by SIGTERM or SIGINT or, with `stop_with_stdin`, by the
/// end of standard input. To be called before any thread is made.
///
/// # Errors
/// Whatever keeps it from running, with what was expected and what came.
pub fn run_static(path: &Path, stop_with_stdin: bool) -> Result<()> {
    let desk = Desk::open(stop_with_stdin)?;
    let config = config::read(path)?;
    let gateway = &config.gateway;
    let mut catalogue = Catalogue::default();
    let users = compile_users(&config, &mut catalogue)?;
    let beside = |name: &Path| file::beside(path, name);
    let own = credentials::load(&beside(&gateway.certificate), &beside(&gateway.key))?;
    let dtls = gateway.plane.dtls.server(&own, credentials::load_trust(&beside(&gateway.ca))?)?;
    let helpers = gateway.plane.handshake_threads()?;
    let machines = gateway.plane.open(&gateway.pools(), &dtls)?;
    let report = desk.reporter();
    let sink: Sink<Event> = Arc::new(move |worker, told| report((worker, told)).map_err(|(_, told)| told));
    let mut workers = spawn(machines, gateway.plane.backend.into(), helpers, &sink)?;
    let socket = match &gateway.status_socket {
        Some(socket) => {
            let socket = file::beside(path, socket);
            let served = desk.serve_status(&socket);
            Some(served.with_context(|| format!("gateway.status_socket: cannot serve {}", socket.display()))?)
        }
        None => None,
    };
    let started = Started::expect(workers.count());
    let control = Control { admission: Admission::new(users), catalogue, started };
    let result = control.run(&desk, &workers);
    drop(socket);
    workers.stop();
    result
}

/// Compiles every user's rules; users with equal rules share one set.
fn compile_users(config: &StaticFile, catalogue: &mut Catalogue) -> Result<BTreeMap<Box<str>, User>> {
    let guarded = config.gateway.pools().guarded()?;
    let mut users = BTreeMap::new();
    for user in &config.users {
        let rules = ringfort_policy::compile(&user.rules, catalogue, &guarded)
            .with_context(|| format!("user {}", user.name))?;
        let compiled = User { name: user.name.as_str().into(), inner: user.inner(), rules };
        users.insert(user.device.as_str().into(), compiled);
    }
    Ok(users)
}

/// The control thread: it hears the workers and tells them what follows.
struct Control {
    admission: Admission,
    catalogue: Catalogue,
    started: Started,
}

impl Control {
    fn run(mut self, desk: &Desk<(WorkerIndex, Report<Event>)>, workers: &Workers<Gateway>) -> Result<()> {
        while let Some(letter) = desk.receive() {
            match letter {
                Letter::Report((worker, report)) => self.handle_report(worker, report, workers)?,
                Letter::Status(question) => {
                    question.answer(document(
                        &self.admission,
                        &self.catalogue,
                        self.started.document(),
                        &workers.snapshot(),
                    ));
                }
                Letter::Stop => break,
            }
        }
        Ok(())
    }

    fn handle_report(&mut self, worker: WorkerIndex, report: Report<Event>, workers: &Workers<Gateway>) -> Result<()> {
        match report {
            Report::Started { backend, fallback, core } => {
                self.started.note(worker, backend, fallback, core);
                Ok(())
            }
            Report::Event(event) => {
                self.log(&event);
                self.admission.handle_event(&event);
                while let Some(command) = self.admission.poll_command() {
                    workers.broadcast(&command)?;
                }
                Ok(())
            }
            Report::Ended(Ok(())) => Ok(()),
            Report::Ended(Err(error)) => Err(anyhow!(error).context(format!("worker {worker} ended"))),
        }
    }

    /// Before the event is handled, since afterwards an ended session has no user any more.
    fn log(&self, event: &Event) {
        let user = |session| self.admission.session(session).map(|live| live.user.name.to_string());
        match event {
            Event::Authenticated { session, peer, outer, .. } => {
                tracing::info!(%session, device = peer.id(), "session authenticated");
                tracing::debug!(%session, %outer, "session address");
            }
            Event::Moved { session, outer } => {
                tracing::info!(%session, user = user(*session), "session at another address");
                tracing::debug!(%session, %outer, "session address");
            }
            Event::RulesApplied { session, epoch } => {
                tracing::info!(%session, user = user(*session), epoch = epoch.0, "rules applied")
            }
            Event::Denied { session, flow, rule } => {
                let rule = rule_name(*rule, &self.catalogue);
                tracing::info!(%session, user = user(*session), destination = destination(flow), rule, "denied");
            }
            Event::Ended { session, reason } => {
                tracing::info!(%session, user = user(*session), ?reason, "session ended")
            }
            Event::HandshakeFailed { outer, reason } => {
                tracing::info!(%reason, "handshake failed");
                tracing::debug!(%outer, "handshake address");
            }
        }
    }
}
