//! What cases do with sockets and with probes, and packets they make.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use ringfort_packet::build::{self, Echo};
use ringfort_packet::parse::{Parsed, parse};
use ringfort_stage::Probe;
use socket2::{Domain, Protocol, Socket, Type};

use crate::world::{PATIENCE, World};

/// How long an answer is waited for before the question is put again.
const AGAIN_AFTER: Duration = Duration::from_millis(300);
/// Bytes of the longest packet.
const PACKET_BYTES_MAX: usize = 65_535;
/// Identifier of the echo requests.
const PING_IDENTIFIER: u16 = 0x5246;

/// How a ping ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pinged {
    /// The reply came.
    Answered,
    /// ICMP said that it is administratively prohibited.
    Prohibited,
}

/// `length` bytes that do not repeat within any packet.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect()
}

/// Sends `payload` on a connected socket until it comes back. A first try may be lost to the discovery of an MTU.
pub(crate) fn echoed(socket: &UdpSocket, payload: &[u8]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    socket.set_read_timeout(Some(AGAIN_AFTER))?;
    let mut answer = vec![0; PACKET_BYTES_MAX];
    while Instant::now() < deadline {
        socket.send(payload)?;
        match socket.recv(&mut answer) {
            Ok(length) => {
                ensure!(answer[..length] == *payload, "{} bytes went, {length} others came back", payload.len());
                return Ok(());
            }
            Err(error) if is_silence(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("{} bytes do not come back", payload.len())
}

/// The error that a refused datagram brings to a connected socket.
pub(crate) fn refusal(socket: &UdpSocket) -> Result<io::Error> {
    let deadline = Instant::now() + PATIENCE;
    socket.set_read_timeout(Some(AGAIN_AFTER))?;
    let mut answer = [0; 64];
    while Instant::now() < deadline {
        if let Err(error) = socket.send(b"may I?") {
            return Ok(error);
        }
        match socket.recv(&mut answer) {
            Ok(length) => bail!("expected a refusal, {length} bytes came"),
            Err(error) if is_silence(&error) => {}
            Err(error) => return Ok(error),
        }
    }
    bail!("neither an answer nor a refusal")
}

/// Whether nothing came within the time that was set.
pub(crate) fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Pings `to` from `user`'s machine.
pub(crate) fn ping(world: &World, user: &str, to: IpAddr) -> Result<Pinged> {
    let socket = world.run_at(user, || raw_icmp(to))?;
    // The kernel writes the IP header, and for ICMPv6 the checksum.
    let packet = build::echo(to, to, Echo::Request, PING_IDENTIFIER, 1, b"are you there?");
    let message = &packet[if to.is_ipv4() { 20 } else { 40 }..];
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        socket.send_to(message, &SocketAddr::new(to, 0).into())?;
        let mut answer = [0; 2_048];
        while let Ok(length) = (&socket).read(&mut answer) {
            // A raw IPv4 socket delivers the IP header too.
            let skip = if to.is_ipv4() { usize::from(answer[0] & 15) * 4 } else { 0 };
            let message = answer.get(skip..length).unwrap_or_default();
            match (message.first_chunk(), to.is_ipv4()) {
                (Some([0, 0]), true) | (Some([129, 0]), false) => return Ok(Pinged::Answered),
                (Some([3, 13]), true) | (Some([1, 1]), false) => return Ok(Pinged::Prohibited),
                _ => {}
            }
        }
    }
    bail!("no answer from {to}")
}

/// A socket for ICMP in the calling thread's namespace, of the family of `address`.
pub(crate) fn raw_icmp(address: IpAddr) -> io::Result<Socket> {
    let protocol = if address.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let socket = Socket::new(Domain::for_address((address, 0).into()), Type::RAW, Some(protocol))?;
    socket.set_read_timeout(Some(AGAIN_AFTER))?;
    Ok(socket)
}

/// Sends `packet` by the probe until a packet that `is_it` comes back.
pub(crate) fn answered(probe: &mut Probe, packet: &[u8], is_it: impl Fn(&Parsed, &[u8]) -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        probe.send(packet)?;
        let again = Instant::now() + AGAIN_AFTER;
        while let Some(answer) = probe.receive(again.saturating_duration_since(Instant::now()))? {
            if parse(&answer).is_ok_and(|parsed| is_it(&parsed, &answer)) {
                return Ok(());
            }
        }
    }
    bail!("no such answer came")
}

/// Shows that nothing reached `socket` but what is sent by `probe` from `source` at the end.
///
/// What a probe sends keeps its order up to the site. So if anything before it had passed, it would be there before.
pub(crate) fn nothing_but_this_arrives(probe: &mut Probe, source: SocketAddr, socket: &UdpSocket) -> Result<()> {
    let last = pattern(40);
    probe.send(&build::udp(source, socket.local_addr()?, &last))?;
    first_to_arrive(socket, source, &last)
}

/// The next datagram at `socket` is this one.
pub(crate) fn first_to_arrive(socket: &UdpSocket, source: SocketAddr, payload: &[u8]) -> Result<()> {
    let mut received = vec![0; PACKET_BYTES_MAX];
    socket.set_read_timeout(Some(PATIENCE))?;
    let (length, from) = socket.recv_from(&mut received)?;
    ensure!(
        from.ip() == source.ip() && from.port() == source.port() && received[..length] == *payload,
        "expected {} bytes from {source} first, found {length} bytes from {from}",
        payload.len(),
    );
    Ok(())
}
