//! The process of a static client: start, the loop of its control thread, end.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use ringfort_dtls::ClientConfig;
use ringfort_engine::client::{Client, Config, Event, Release};
use ringfort_io::{PortSharing, Tun, TunQueue, UdpSocket};
use ringfort_link::Links;
use ringfort_packet::coalesce::Offloads;
use ringfort_service::desk::{Desk, Letter};
use ringfort_service::{credentials, file, notify_ready};
use ringfort_worker::{Report, Sink, Worker, Workers, now, spawn};
use serde_json::{Map, Value, json};

use crate::config::{self, ClientSection};

/// A client that was just killed may hold its TUN queue until the kernel has torn its ring down.
const RESTART_PATIENCE: Duration = Duration::from_secs(3);
/// Socket buffers asked for; the kernel gives at most `net.core.rmem_max` and `wmem_max`.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// Brings a tunnel up from the file at `path` and keeps it up until told to stop: by SIGTERM or SIGINT or, with
/// `stop_with_stdin`, by the end of standard input. To be called before any thread is made.
///
/// # Errors
/// Whatever keeps it from running, with what was expected and what came. A Gateway that cannot be reached is no error: it
/// is tried again.
pub fn up_static(path: &Path, stop_with_stdin: bool) -> Result<()> {
    let desk = Desk::open(stop_with_stdin)?;
    let config = config::read(path)?;
    let worker = machine(path, &config)?;
    let sink: Sink<Event> = {
        let report = desk.reporter();
        Arc::new(move |_, told| report(told))
    };
    let mut workers = spawn(vec![worker], config.backend.into(), &sink)?;
    let socket = match &config.status_socket {
        Some(socket) => {
            let socket = file::beside(path, socket);
            let served = desk.serve_status(&socket);
            Some(served.with_context(|| format!("client.status_socket: cannot serve {}", socket.display()))?)
        }
        None => None,
    };
    let result = Control::default().run(&desk, &workers);
    drop(socket);
    workers.stop();
    result
}

/// Opens what the worker needs: TUN queue, socket, credentials, routes.
fn machine(path: &Path, config: &ClientSection) -> Result<Worker<Client>> {
    let beside = |name: &Path| file::beside(path, name);
    let own = credentials::load(&beside(&config.certificate), &beside(&config.key))?;
    let anchor = credentials::load_trust(&beside(&config.ca))?;
    let dtls = Arc::new(ClientConfig::new(&own, anchor, (now().boot, Instant::now()))?);

    let tun = Tun::open(config.tun.as_str(), 1, RESTART_PATIENCE)?;
    let offloads = Offloads { uso: tun.offloads().uso };
    set_up_interface(tun.name(), config)?;
    let tun: TunQueue = tun.into_queues().pop().context("the TUN device has no queue")?;
    let any: IpAddr = if config.gateway.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let udp = UdpSocket::bind((any, 0).into(), PortSharing::Exclusive, SOCKET_BUFFER_BYTES)?;
    udp.connect(config.gateway).with_context(|| format!("client.gateway: no way to {}", config.gateway))?;
    let routes = config.routes.iter().copied().collect();
    let machine = Config { dtls, gateway_id: config.gateway_id.clone(), offloads, inner: config.inner(), routes, release: Release::AtOnce };
    Ok(Worker { machine: Client::new(machine, now()), udp, tun, core: config.core })
}

/// The routes come before the tunnel, so that nothing for them ever leaves another way.
fn set_up_interface(name: &str, config: &ClientSection) -> Result<()> {
    let mut links = Links::open()?;
    let index = links.index_of(name)?;
    links.set_mtu(index, config.mtu.bytes())?;
    for address in config.inner().iter() {
        let host_bits = if address.is_ipv4() { 32 } else { 128 };
        links.add_address(index, address, host_bits)?;
    }
    links.set_up(index)?;
    for route in &config.routes {
        links.add_route((route.network(), route.prefix_len()), None, index, None)?;
    }
    Ok(())
}

/// The control thread: it hears the worker.
#[derive(Default)]
struct Control {
    backend: Option<String>,
    gateway: Option<String>,
    told_ready: bool,
}

impl Control {
    fn run(mut self, desk: &Desk<Report<Event>>, workers: &Workers<Client>) -> Result<()> {
        while let Some(letter) = desk.receive() {
            match letter {
                Letter::Report(report) => self.handle_report(report)?,
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
