//! Packets up to the tunnel's MTU pass, larger ones are told so, and streams find it out by themselves.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringfort_netlab::{Lab, Spec};
use ringfort_stage::Stage;
use rustix::io::Errno;
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover};

use crate::sockets::{echoed, first_to_arrive, pattern};
use crate::world::{ALICE, Backend, OPEN, PATIENCE, PROGRAM, World, plan};

/// The tunnel's MTU, and that of the site's network.
const TUNNEL_BYTES: usize = 1_400;
const SITE_BYTES: usize = 1_500;
/// IP and UDP headers of each family.
const HEADER_BYTES: [usize; 2] = [28, 48];
const PORT: u16 = 9_000;
/// Bytes of a stream, not a multiple of anything.
const STREAM_BYTES: usize = 6_000_011;

pub(crate) fn packets_up_to_the_mtu_leave_the_client(backend: Backend) -> Result<()> {
    World::start(backend, &["alice"])?.play(|world| {
        for (at, header_bytes) in OPEN.into_iter().zip(HEADER_BYTES) {
            let at = SocketAddr::new(at, PORT);
            let _echo = world.echo(at)?;
            let socket = world.client_socket("alice", at)?;
            never_fragment(&socket)?;
            let fitting = TUNNEL_BYTES - header_bytes;
            echoed(&socket, &pattern(fitting))?;
            let refused = socket.send(&pattern(fitting + 1));
            ensure!(is_too_long(&refused), "expected {TUNNEL_BYTES} + 1 bytes to be too long, found {refused:?}");
        }
        Ok(())
    })
}

pub(crate) fn the_site_learns_the_mtu(backend: Backend) -> Result<()> {
    World::start(backend, &["alice"])?.play(|world| {
        for family in [0, 1] {
            let (at, header_bytes) = (SocketAddr::new(OPEN[family], PORT), HEADER_BYTES[family]);
            let site = world.site_socket(at)?;
            let alice = world.client_socket("alice", at)?;
            let client = SocketAddr::new(ALICE[family], alice.local_addr()?.port());
            alice.send(b"open the flow")?;
            first_to_arrive(&site, client, b"open the flow")?;
            site.connect(client)?;
            never_fragment(&site)?;
            let deadline = Instant::now() + PATIENCE;
            // It fits the site's own network, and the Gateway answers that it does not fit the tunnel.
            while !is_too_long(&site.send(&pattern(SITE_BYTES - header_bytes))) {
                ensure!(Instant::now() < deadline, "nobody tells the site that its packets are too long");
                std::thread::sleep(Duration::from_millis(5));
            }
            // The answer itself is an error that waits at the socket for the next call.
            site.take_error()?;
            let refused = site.send(&pattern(TUNNEL_BYTES - header_bytes + 1));
            ensure!(is_too_long(&refused), "expected {TUNNEL_BYTES} + 1 bytes to be too long, found {refused:?}");
            site.send(&pattern(TUNNEL_BYTES - header_bytes))?;
            first_to_arrive(&alice, at, &pattern(TUNNEL_BYTES - header_bytes))?;
        }
        Ok(())
    })
}

fn never_fragment(socket: &UdpSocket) -> Result<()> {
    if socket.local_addr()?.is_ipv4() {
        set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DO)?;
    } else {
        set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DO)?;
    }
    Ok(())
}

fn is_too_long(sent: &std::io::Result<usize>) -> bool {
    sent.as_ref().is_err_and(|error| error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error()))
}

/// Both directions of one connection at once, cut and joined by every offload on the way.
pub(crate) fn streams_arrive_unchanged(backend: Backend) -> Result<()> {
    World::start(backend, &["alice"])?.play(exchange_streams)
}

/// Datagrams of the tunnel that are larger than the way's MTU are cut one by one where they leave.
pub(crate) fn a_narrow_path_carries_streams_too(backend: Backend) -> Result<()> {
    let plan = plan(backend);
    let spec = Spec { wan_mtu_bytes: 1_300, ..Spec::new(["alice", "bob"]) };
    let stage = Stage::new(Lab::build(&spec)?, &plan, Path::new(PROGRAM))?;
    World::start_on(stage, &plan, &["alice"])?.play(|world| {
        exchange_streams(world)?;
        let cut = world.count("send_segmentation_refused")?;
        ensure!(cut > 0, "no batch met the narrow path");
        Ok(())
    })
}

fn exchange_streams(world: &mut World) -> Result<()> {
    for at in OPEN.map(|at| SocketAddr::new(at, PORT)) {
        let listener = world.run_at_site(|| TcpListener::bind(at))?;
        let site = std::thread::spawn(move || exchange(&listener.accept()?.0, 1, 2));
        let alice = world.run_at("alice", || TcpStream::connect_timeout(&at, PATIENCE))?;
        exchange(&alice, 2, 1).with_context(|| format!("alice's end of the stream to {at}"))?;
        let Ok(site) = site.join() else { bail!("the site's end panicked") };
        site.with_context(|| format!("the site's end of the stream to {at}"))?;
    }
    Ok(())
}

/// Sends the stream of seed `own` and expects that of seed `other`, to its end and not beyond.
fn exchange(stream: &TcpStream, own: u32, other: u32) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut sending = stream.try_clone()?;
    let sender = std::thread::spawn(move || {
        sending.write_all(&content(own))?;
        sending.shutdown(Shutdown::Write)
    });
    let mut received = Vec::new();
    (&mut &*stream).take(STREAM_BYTES as u64 + 1).read_to_end(&mut received)?;
    let Ok(sent) = sender.join() else { bail!("the sender panicked") };
    sent?;
    let expected = content(other);
    let differs = received.iter().zip(&expected).position(|(found, expected)| found != expected);
    ensure!(received.len() == expected.len(), "expected {} bytes, found {}", expected.len(), received.len());
    ensure!(differs.is_none(), "the stream differs from byte {differs:?} on");
    Ok(())
}

/// Bytes that differ everywhere, so that no exchange or loss goes unseen.
fn content(seed: u32) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    })
    .take(STREAM_BYTES)
    .collect()
}
