//! What a tunnel stands on at this machine: a TUN interface with addresses and routes, and a worker that carries packets between
//! it and a Gateway.
//!
//! The interface outlives its worker: while one Gateway follows another, addresses and routes stay, so that what belongs into
//! the tunnel never leaves another way.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use ringfort_engine::client::{Client, Config};
use ringfort_io::{PortSharing, Tun, TunQueue, UdpSocket};
use ringfort_link::{LinkError, LinkIndex, Links, RouteAnswer};
use ringfort_packet::coalesce::Offloads;
use ringfort_service::settings::Mtu;
use ringfort_worker::{Worker, now};

/// A client that was just killed may hold its TUN queue until the kernel has torn its ring down.
const RESTART_PATIENCE: Duration = Duration::from_secs(3);
/// Socket buffers asked for; the kernel gives at most `net.core.rmem_max` and `wmem_max`.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// A TUN interface of one queue. It goes, with its addresses and routes, when this and every worker on it are dropped.
pub(crate) struct Interface {
    name: String,
    queue: TunQueue,
    offloads: Offloads,
    links: Links,
    index: LinkIndex,
}

impl Interface {
    /// Makes the interface, down and without addresses.
    pub(crate) fn open(name: &str, mtu: Mtu) -> Result<Self> {
        let tun = Tun::open(name, 1, RESTART_PATIENCE)?;
        let offloads = Offloads { uso: tun.offloads().uso };
        let name = tun.name().to_owned();
        let mut links = Links::open()?;
        let index = links.index_of(&name)?;
        links.set_mtu(index, mtu.bytes())?;
        let queue = tun.into_queues().pop().context("the TUN device has no queue")?;
        Ok(Self { name, queue, offloads, links, index })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Adds one of our addresses inside. One that is there already stays.
    pub(crate) fn add_address(&mut self, address: IpAddr) -> Result<(), LinkError> {
        let host_bits = if address.is_ipv4() { 32 } else { 128 };
        there_is_fine(self.links.add_address(self.index, address, host_bits))
    }

    /// Sets it up. Routes are added behind this.
    pub(crate) fn set_up(&mut self) -> Result<(), LinkError> {
        self.links.set_up(self.index)
    }

    /// Routes `net` into the tunnel.
    pub(crate) fn add_route(&mut self, net: IpNet) -> Result<(), LinkError> {
        self.links.add_route((net.network(), net.prefix_len()), None, self.index, None)
    }

    /// Takes a route back.
    pub(crate) fn delete_route(&mut self, net: IpNet) -> Result<(), LinkError> {
        self.links.delete_route((net.network(), net.prefix_len()), None, self.index, None)
    }

    /// What the TUN queue takes.
    pub(crate) const fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// A worker that carries packets between this interface and `gateway`, and what keeps it on the path there.
    pub(crate) fn worker(
        &self,
        gateway: SocketAddr,
        config: Config,
        core: Option<usize>,
    ) -> Result<(Worker<Client>, OuterPath)> {
        let (udp, path) = self.outside(gateway)?;
        Ok((self.carry(Client::new(config, now()), udp, core)?, path))
    }

    /// A socket for a tunnel to `gateway`, and what keeps it on the path there.
    pub(crate) fn outside(&self, gateway: SocketAddr) -> Result<(UdpSocket, OuterPath)> {
        let any: IpAddr = if gateway.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let udp = UdpSocket::bind((any, 0).into(), PortSharing::Exclusive, SOCKET_BUFFER_BYTES)?;
        udp.connect(gateway).with_context(|| format!("no way to the Gateway at {gateway}"))?;
        let path = OuterPath { socket: udp.try_clone()?, gateway };
        Ok((udp, path))
    }

    /// A worker that carries packets between this interface and a tunnel over `udp`.
    pub(crate) fn carry(&self, machine: Client, udp: UdpSocket, core: Option<usize>) -> Result<Worker<Client>> {
        Ok(Worker { machine, udp, tun: self.queue.try_clone()?, core })
    }
}

/// The way to a Gateway outside the tunnel.
#[derive(Debug)]
pub(crate) struct OuterPath {
    socket: UdpSocket,
    gateway: SocketAddr,
}

impl OuterPath {
    /// Sends from the machine's address for this Gateway as it is now; `true` if that is another one than before. Without any way
    /// to the Gateway everything stays as it is, until there is one again.
    pub(crate) fn follow(&self) -> Result<bool> {
        let Ok(RouteAnswer { source: Some(source), .. }) = Links::open()?.route_to(self.gateway.ip()) else {
            return Ok(false);
        };
        if self.socket.local_addr()?.ip() == source {
            return Ok(false);
        }
        self.socket.reconnect(self.gateway).with_context(|| format!("no way to the Gateway at {}", self.gateway))?;
        Ok(true)
    }
}

fn there_is_fine(done: Result<(), LinkError>) -> Result<(), LinkError> {
    match done {
        Err(error) if error.is_already_there() => Ok(()),
        done => done,
    }
}

/// Resolves `host:port`, both families.
pub(crate) fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(std::net::ToSocketAddrs::to_socket_addrs(address)?.collect())
}
