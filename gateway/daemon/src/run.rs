//! The process of a static Gateway: start, the loop of its control thread, end.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use ipnet::IpNet;
use ringfort_admission::destination;
use ringfort_admission::fixed::{Admission, User};
use ringfort_dtls::ServerConfig;
use ringfort_engine::gateway::{Config, Event, Gateway};
use ringfort_io::{PortSharing, Tun, UdpSocket};
use ringfort_link::Links;
use ringfort_packet::coalesce::Offloads;
use ringfort_policy::Catalogue;
use ringfort_service::desk::{Desk, Letter};
use ringfort_service::{credentials, file, notify_ready, seed};
use ringfort_types::WorkerIndex;
use ringfort_worker::{Report, Sink, Worker, Workers, now, spawn, usable_cores};
use serde_json::{Value, json};

use crate::config::{self, GatewaySection, StaticFile};
use crate::status::{document, rule_name};

/// A Gateway that was just killed may hold its TUN queues and its port until the kernel has torn its rings down.
const RESTART_PATIENCE: Duration = Duration::from_secs(3);
/// Socket buffers asked for; the kernel gives at most `net.core.rmem_max` and `wmem_max`.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;

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
    let machines = machines(path, gateway)?;
    let report = desk.reporter();
    let sink: Sink<Event> = Arc::new(move |worker, told| report((worker, told)).map_err(|(_, told)| told));
    let mut workers = spawn(machines, gateway.backend.into(), &sink)?;
    let socket = match &gateway.status_socket {
        Some(socket) => {
            let socket = file::beside(path, socket);
            let served = desk.serve_status(&socket);
            Some(served.with_context(|| format!("gateway.status_socket: cannot serve {}", socket.display()))?)
        }
        None => None,
    };
    let started = vec![Value::Null; workers.count()];
    let control = Control { admission: Admission::new(users), catalogue, started, told_ready: false };
    let result = control.run(&desk, &workers);
    drop(socket);
    workers.stop();
    result
}

/// Compiles every user's rules; users with equal rules share one set.
fn compile_users(config: &StaticFile, catalogue: &mut Catalogue) -> Result<BTreeMap<Box<str>, User>> {
    let inner = config.gateway.own();
    let mut own: Vec<IpAddr> = inner.iter().collect();
    for address in Links::open()?.addresses()? {
        own.push(address.address);
        own.extend(also_ours(address.address, address.prefix_bits));
    }
    let pools: Vec<IpNet> = config.gateway.pools().collect();
    let guarded = ringfort_policy::never_reachable(&own, &pools);
    let mut users = BTreeMap::new();
    for user in &config.users {
        let rules = ringfort_policy::compile(&user.rules, catalogue, &guarded)
            .with_context(|| format!("user {}", user.name))?;
        let compiled = User { name: user.name.as_str().into(), inner: user.inner(), rules };
        users.insert(user.device.as_str().into(), compiled);
    }
    Ok(users)
}

/// Other addresses of a network at which this machine answers as well: IPv4 broadcast, in both its forms (RFC 1122
/// §3.2.1.3), and the subnet-router anycast address of IPv6 (RFC 4291 §2.6.1).
fn also_ours(address: IpAddr, prefix_bits: u8) -> Vec<IpAddr> {
    match IpNet::new(address, prefix_bits) {
        Ok(IpNet::V4(net)) if prefix_bits < 31 => vec![net.network().into(), net.broadcast().into()],
        Ok(IpNet::V6(net)) if prefix_bits < 127 => vec![net.network().into()],
        _ => Vec::new(),
    }
}

/// Opens what the workers need: TUN queues, sockets, credentials.
fn machines(path: &Path, gateway: &GatewaySection) -> Result<Vec<Worker<Gateway>>> {
    let beside = |name: &Path| file::beside(path, name);
    let own = credentials::load(&beside(&gateway.certificate), &beside(&gateway.key))?;
    let anchor = credentials::load_trust(&beside(&gateway.ca))?;
    let dtls = Arc::new(ServerConfig::new(&own, anchor, (now().boot, Instant::now()))?);

    let cores = gateway.worker_cores(&usable_cores()?)?;
    let tun = Tun::open(gateway.tun.as_str(), cores.len(), RESTART_PATIENCE)?;
    let offloads = Offloads { uso: tun.offloads().uso };
    set_up_interface(tun.name(), gateway)?;
    let seed = seed()?;
    let mut workers = Vec::with_capacity(cores.len());
    for ((index, core), tun) in (0..=u8::MAX).map(WorkerIndex).zip(cores).zip(tun.into_queues()) {
        let config = Config { worker: index, dtls: Arc::clone(&dtls), seed, offloads, own: gateway.own() };
        let udp = bind(gateway)?;
        workers.push(Worker { machine: Gateway::new(config, now()), udp, tun, core: Some(core) });
    }
    // A handshake begun at one worker would go on at another. Clients that were already trying send again.
    workers.iter().for_each(|worker| worker.udp.discard_arrived());
    Ok(workers)
}

fn bind(gateway: &GatewaySection) -> Result<UdpSocket> {
    let deadline = Instant::now() + RESTART_PATIENCE;
    loop {
        match UdpSocket::bind(gateway.listen, PortSharing::ReusePort, SOCKET_BUFFER_BYTES) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result.with_context(|| format!("gateway.listen: cannot bind {}", gateway.listen)),
        }
    }
}

fn set_up_interface(name: &str, gateway: &GatewaySection) -> Result<()> {
    let mut links = Links::open()?;
    let index = links.index_of(name)?;
    links.set_mtu(index, gateway.mtu.bytes())?;
    for (address, prefix_bits) in gateway.interface_addresses() {
        links.add_address(index, address, prefix_bits)?;
    }
    links.set_up(index)?;
    for (family, path) in
        [("IPv4", "/proc/sys/net/ipv4/ip_forward"), ("IPv6", "/proc/sys/net/ipv6/conf/all/forwarding")]
    {
        if fs::read_to_string(path).is_ok_and(|value| value.trim() == "0") {
            tracing::warn!(
                family,
                sysctl = path,
                "forwarding is off: packets for the site will not leave this machine"
            );
        }
    }
    Ok(())
}

/// The control thread: it hears the workers and tells them what follows.
struct Control {
    admission: Admission,
    catalogue: Catalogue,
    /// What each worker said at its start.
    started: Vec<Value>,
    told_ready: bool,
}

impl Control {
    fn run(mut self, desk: &Desk<(WorkerIndex, Report<Event>)>, workers: &Workers<Gateway>) -> Result<()> {
        while let Some(letter) = desk.receive() {
            match letter {
                Letter::Report((worker, report)) => self.handle_report(worker, report, workers)?,
                Letter::Status(question) => {
                    question.answer(document(&self.admission, &self.catalogue, &self.started, &workers.snapshot()));
                }
                Letter::Stop => break,
            }
        }
        Ok(())
    }

    fn handle_report(&mut self, worker: WorkerIndex, report: Report<Event>, workers: &Workers<Gateway>) -> Result<()> {
        match report {
            Report::Started { backend, fallback, core } => {
                let backend = backend.to_string();
                tracing::info!(%worker, backend, core, "worker started");
                if let Some(reason) = fallback {
                    tracing::warn!(%worker, reason, "io_uring is not available, using epoll");
                }
                if let Some(place) = self.started.get_mut(usize::from(worker.0)) {
                    *place = json!({ "backend": backend, "core": core });
                }
                if !self.told_ready && self.started.iter().all(Value::is_object) {
                    self.told_ready = true;
                    notify_ready();
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_and_anycast_addresses_are_ours() {
        let also = |address: &str, bits| {
            also_ours(address.parse().unwrap(), bits).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(also("10.98.0.1", 24), ["10.98.0.0", "10.98.0.255"]);
        assert_eq!(also("fd98::1", 64), ["fd98::"]);
        assert_eq!(also("192.0.2.1", 31), Vec::<String>::new());
        assert_eq!(also("192.0.2.1", 32), Vec::<String>::new());
        assert_eq!(also("fd98::1", 128), Vec::<String>::new());
    }
}
