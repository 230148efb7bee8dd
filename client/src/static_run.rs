//! The process of a static client: start, the loop of its control thread, end.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use ringfort_dtls::ClientConfig;
use ringfort_engine::client::{Client, Command, Config, Event, Release};
use ringfort_service::desk::{Desk, Letter};
use ringfort_service::{credentials, file, notify_ready, random};
use ringfort_worker::{Report, Sink, Worker, Workers, spawn};
use serde_json::{Map, Value, json};

use crate::network;
use crate::static_config::{self, ClientSection};
use crate::tunnel::{Interface, OuterPath};

/// Brings a tunnel up from the file at `path` and keeps it up until told to stop: by SIGTERM or SIGINT or, with
/// `stop_with_stdin`, by the end of standard input. To be called before any thread is made.
///
/// # Errors
/// Whatever keeps it from running, with what was expected and what came. A Gateway that cannot be reached is no error: it
/// is tried again.
pub fn up_static(path: &Path, stop_with_stdin: bool) -> Result<()> {
    let desk = Desk::open(stop_with_stdin)?;
    let config = static_config::read(path)?;
    let (interface, worker, path_outside) = machine(path, &config)?;
    let sink: Sink<Event> = {
        let report = desk.reporter();
        Arc::new(move |_, told| report(Told::Worker(told)).map_err(Told::into_report))
    };
    let report = desk.reporter();
    network::watch(move || report(Told::NetworkChanged).is_ok())?;
    let mut workers = spawn(vec![worker], config.backend.into(), 0, &sink)?;
    let socket = match &config.status_socket {
        Some(socket) => {
            let socket = file::beside(path, socket);
            let served = desk.serve_status(&socket);
            Some(served.with_context(|| format!("client.status_socket: cannot serve {}", socket.display()))?)
        }
        None => None,
    };
    let result = Control::default().run(&desk, &workers, &path_outside);
    drop(socket);
    workers.stop();
    drop(interface);
    result
}

/// Opens the interface, and what the worker needs.
fn machine(path: &Path, config: &ClientSection) -> Result<(Interface, Worker<Client>, OuterPath)> {
    let beside = |name: &Path| file::beside(path, name);
    let own = credentials::load(&beside(&config.certificate), &beside(&config.key))?;
    let anchor = credentials::load_trust(&beside(&config.ca))?;
    let dtls = Arc::new(ClientConfig::new(&own, anchor)?);
    let mut interface = Interface::open(config.tun.as_str(), config.mtu)?;
    for address in config.inner().iter() {
        interface.add_address(address)?;
    }
    interface.set_up()?;
    // The routes come before the tunnel, so that nothing for them ever leaves another way.
    for route in &config.routes {
        interface.add_route(*route)?;
    }
    let machine = Config {
        dtls,
        gateway_id: config.gateway_id.clone(),
        offloads: interface.offloads(),
        inner: config.inner(),
        routes: config.routes.iter().copied().collect(),
        release: Release::AtOnce,
        random: random()?,
    };
    let (worker, path) = interface.worker(config.gateway, machine, config.core).context("client.gateway")?;
    Ok((interface, worker, path))
}

/// What comes in at the desk.
enum Told {
    Worker(Report<Event>),
    NetworkChanged,
}

impl Told {
    /// The report of a worker's that the desk gave back.
    fn into_report(self) -> Report<Event> {
        match self {
            Self::Worker(report) => report,
            // The desk gives back what it was given.
            Self::NetworkChanged => Report::Ended(Ok(())),
        }
    }
}

/// The control thread: it hears the worker.
#[derive(Default)]
struct Control {
    backend: Option<String>,
    gateway: Option<String>,
    told_ready: bool,
}

impl Control {
    fn run(mut self, desk: &Desk<Told>, workers: &Workers<Client>, path: &OuterPath) -> Result<()> {
        while let Some(letter) = desk.receive() {
            match letter {
                Letter::Report(Told::Worker(report)) => self.handle_report(report)?,
                Letter::Report(Told::NetworkChanged) => match path.follow() {
                    Ok(true) => {
                        tracing::info!("this machine's address has changed");
                        workers.broadcast(&Command::PathChanged)?;
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "the change of address was not followed")
                    }
                },
                Letter::Status(question) => question.answer(self.document(workers)),
                Letter::Stop => break,
            }
        }
        Ok(())
    }

    fn handle_report(&mut self, report: Report<Event>) -> Result<()> {
        match report {
            Report::Started { backend, fallback, core } => {
                let backend = backend.to_string();
                tracing::info!(backend, core, "worker started");
                if let Some(reason) = fallback {
                    tracing::warn!(reason, "io_uring is not available, using epoll");
                }
                self.backend = Some(backend);
            }
            Report::Event(Event::Established { .. }) => {}
            Report::Event(Event::Up(gateway)) => {
                tracing::info!(gateway = gateway.id(), "tunnel up");
                self.gateway = Some(gateway.id().to_owned());
                if !self.told_ready {
                    self.told_ready = true;
                    notify_ready();
                }
            }
            Report::Event(Event::Down(reason)) => {
                tracing::warn!(%reason, "tunnel down, trying again");
                self.gateway = None;
            }
            Report::Ended(Ok(())) => {}
            Report::Ended(Err(error)) => return Err(anyhow!(error).context("the worker ended")),
        }
        Ok(())
    }

    fn document(&self, workers: &Workers<Client>) -> Value {
        let counters: Map<String, Value> = workers
            .snapshot()
            .iter()
            .flat_map(|snapshot| &snapshot.counters)
            .map(|(name, count)| ((*name).to_owned(), Value::from(*count)))
            .collect();
        json!({ "role": "client", "up": self.gateway.is_some(), "gateway": self.gateway, "backend": self.backend, "totals": counters })
    }
}
