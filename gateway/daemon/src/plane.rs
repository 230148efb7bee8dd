//! The data plane of a Gateway: what is opened for its workers, and which addresses are the machine's own.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use ringfort_dtls::{ProtocolVersion, ServerConfig, Settings};
use ringfort_engine::gateway::{Config, Gateway};
use ringfort_identity::{Credentials, Trust};
use ringfort_io::{PortSharing, Tun, UdpSocket};
use ringfort_link::Links;
use ringfort_packet::coalesce::Offloads;
use ringfort_rules::InnerAddresses;
use ringfort_service::settings::{Backend, Mtu, TunName};
use ringfort_service::{random, seed};
use ringfort_types::WorkerIndex;
use ringfort_worker::{Worker, now, usable_cores};
use serde::Deserialize;

/// A Gateway that was just killed may hold its TUN queues and its port until the kernel has torn its rings down.
const RESTART_PATIENCE: Duration = Duration::from_secs(3);
/// Socket buffers asked for; the kernel gives at most `net.core.rmem_max` and `wmem_max`.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// Workers by default, on a machine with so many cores or more.
const WORKERS_DEFAULT: usize = 2;
/// Workers at most: what one byte of a connection id can tell apart leaves room for more, no machine has been seen to
/// need them.
const WORKERS_MAX: usize = 64;
/// Threads for handshakes at most.
const HANDSHAKE_THREADS_MAX: usize = 8;

/// How the data plane runs on this machine: the part of a Gateway's file that both modes have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Plane {
    /// Where clients send their datagrams.
    pub(crate) listen: SocketAddr,
    /// Name of the TUN interface.
    #[serde(default)]
    pub(crate) tun: TunName,
    #[serde(default)]
    pub(crate) mtu: Mtu,
    /// Number of workers; by default two, or one on a machine with one core.
    pub(crate) workers: Option<usize>,
    /// Cores for them; by default the first ones that the process may use.
    pub(crate) cores: Option<Vec<usize>>,
    /// Threads for handshakes; by default one for every two cores.
    pub(crate) handshake_threads: Option<usize>,
    #[serde(default)]
    pub(crate) backend: Backend,
    #[serde(default)]
    pub(crate) dtls: Dtls,
}

/// Our addresses inside, each with the prefix length of the pool from which clients have theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pools(pub(crate) Vec<IpNet>);

impl Pools {
    /// The Gateway's own inner addresses.
    pub(crate) fn own(&self) -> InnerAddresses {
        let mut own = InnerAddresses::default();
        for pool in &self.0 {
            match pool.addr() {
                IpAddr::V4(address) => own.ipv4 = Some(address),
                IpAddr::V6(address) => own.ipv6 = Some(address),
            }
        }
        own
    }

    /// The networks from which clients have their inner addresses.
    pub(crate) fn networks(&self) -> impl Iterator<Item = IpNet> {
        self.0.iter().map(IpNet::trunc)
    }

    /// What no rule reaches unless it names a single address ([`ringfort_policy::never_reachable`]), as this machine is now.
    pub(crate) fn guarded(&self) -> Result<Vec<IpNet>> {
        let mut own: Vec<IpAddr> = self.own().iter().collect();
        for address in Links::open()?.addresses()? {
            own.push(address.address);
            own.extend(also_ours(address.address, address.prefix_bits));
        }
        let pools: Vec<IpNet> = self.networks().collect();
        Ok(ringfort_policy::never_reachable(&own, &pools))
    }
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

/// What the administrator says of DTLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dtls {
    /// The least version that is spoken.
    #[serde(default)]
    min_version: MinVersion,
}

/// Versions of DTLS as they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum MinVersion {
    #[default]
    #[serde(rename = "1.2")]
    Dtls12,
    #[serde(rename = "1.3")]
    Dtls13,
}

impl Dtls {
    /// The DTLS side of a Gateway with `own` credentials, for devices under `trust`.
    pub(crate) fn server(self, own: &Credentials, trust: Trust) -> Result<Arc<ServerConfig>> {
        let min_version = match self.min_version {
            MinVersion::Dtls12 => ProtocolVersion::Dtls12,
            MinVersion::Dtls13 => ProtocolVersion::Dtls13,
        };
        let settings = Settings { min_version, ..Settings::default() };
        Ok(Arc::new(ServerConfig::for_devices(own, trust, settings)?))
    }
}

impl Plane {
    /// Opens what the workers need: TUN queues and sockets.
    pub(crate) fn open(&self, pools: &Pools, dtls: &Arc<ServerConfig>) -> Result<Vec<Worker<Gateway>>> {
        let cores = self.worker_cores(&usable_cores()?)?;
        let tun = Tun::open(self.tun.as_str(), cores.len(), RESTART_PATIENCE)?;
        let offloads = Offloads { uso: tun.offloads().uso };
        self.set_up_interface(tun.name(), pools)?;
        let count = cores.len();
        let (seed, cookie_seed) = (seed()?, random()?);
        let mut workers = Vec::with_capacity(cores.len());
        for ((index, core), tun) in (0..=u8::MAX).map(WorkerIndex).zip(cores).zip(tun.into_queues()) {
            let config = Config {
                worker: index,
                workers: WORKERS_MAX.min(count) as u8,
                dtls: Arc::clone(dtls),
                seed,
                cookie_seed,
                random: random()?,
                offloads,
                own: pools.own(),
            };
            let udp = self.bind()?;
            workers.push(Worker { machine: Gateway::new(config, now()), udp, tun, core: Some(core) });
        }
        // A handshake begun at one worker would go on at another. Clients that were already trying send again.
        workers.iter().for_each(|worker| worker.udp.discard_arrived());
        Ok(workers)
    }

    fn bind(&self) -> Result<UdpSocket> {
        let deadline = Instant::now() + RESTART_PATIENCE;
        loop {
            match UdpSocket::bind(self.listen, PortSharing::ReusePort, SOCKET_BUFFER_BYTES) {
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                result => return result.with_context(|| format!("gateway.listen: cannot bind {}", self.listen)),
            }
        }
    }

    fn set_up_interface(&self, name: &str, pools: &Pools) -> Result<()> {
        let mut links = Links::open()?;
        let index = links.index_of(name)?;
        links.set_mtu(index, self.mtu.bytes())?;
        for pool in &pools.0 {
            links.add_address(index, pool.addr(), pool.prefix_len())?;
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

    /// How many threads shake hands.
    pub(crate) fn handshake_threads(&self) -> Result<usize> {
        let Some(count) = self.handshake_threads else {
            return Ok((usable_cores()?.len() / 2).clamp(1, HANDSHAKE_THREADS_MAX));
        };
        let possible = 1..=HANDSHAKE_THREADS_MAX;
        ensure!(
            possible.contains(&count),
            "gateway.handshake_threads: expected 1 to {HANDSHAKE_THREADS_MAX}, found {count}"
        );
        Ok(count)
    }

    /// The core of each worker, among the `usable` ones.
    pub(crate) fn worker_cores(&self, usable: &[usize]) -> Result<Vec<usize>> {
        let cores = self.cores.as_deref().unwrap_or(usable);
        let workers = self.workers.unwrap_or_else(|| cores.len().min(WORKERS_DEFAULT));
        ensure!((1..=WORKERS_MAX).contains(&workers), "gateway.workers: expected 1 to {WORKERS_MAX}, found {workers}");
        if let Some(core) = cores.iter().find(|core| !usable.contains(core)) {
            bail!("gateway.cores: core {core} is not among those that this process may use ({usable:?})");
        }
        ensure!(!cores.is_empty(), "gateway.cores: expected at least one core");
        // More workers than cores share them: slower, but of use where two workers are to be seen on one core.
        Ok(cores.iter().copied().cycle().take(workers).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_written_as_people_say_them() {
        let read = |text: &str| toml::from_str::<Dtls>(text).map(|dtls| dtls.min_version);
        assert_eq!(read("").unwrap(), MinVersion::Dtls12);
        assert_eq!(read("min_version = \"1.3\"").unwrap(), MinVersion::Dtls13);
        for wrong in ["min_version = \"1.1\"", "min_version = 1.3", "max_version = \"1.3\""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

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
