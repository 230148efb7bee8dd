//! Towards the client passes what belongs to a flow, or what a rule lets the site open.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Result, ensure};
use ringfort_packet::build;
use ringfort_stage::files::Rule;

use crate::sockets::{echoed, first_to_arrive, raw_icmp, refusal};
use crate::world::{ALICE, Backend, OPEN, PATIENCE, WIKI, World, plan};

const PORT: u16 = 9_000;
/// How long a connection may try that must not come about. Cutting it short is no harm.
const BRIEF: Duration = Duration::from_millis(100);

pub(crate) fn replies_pass_and_unsolicited_packets_do_not(backend: Backend) -> Result<()> {
    World::start(backend, &["alice"])?.play(|world| {
        for family in [0, 1] {
            let site = world.site_socket((OPEN[family], PORT).into())?;
            let before = world.count("no_flow")?;
            let alice = world.run_at("alice", || UdpSocket::bind((ALICE[family], PORT)))?;
            let (to, from) = (alice.local_addr()?, site.local_addr()?);
            site.send_to(b"unsolicited", to)?;
            world.counted("no_flow", before + 1)?;

            alice.send_to(b"question", from)?;
            first_to_arrive(&site, to, b"question")?;
            // The flow is between two ports, not between two hosts.
            world.site_socket((OPEN[family], PORT + 1).into())?.send_to(b"from another port", to)?;
            world.site_socket((WIKI[family], PORT).into())?.send_to(b"from another host", to)?;
            world.counted("no_flow", before + 3)?;
            site.send_to(b"answer", to)?;
            first_to_arrive(&alice, from, b"answer")?;

            let _listener = world.run_at("alice", || TcpListener::bind(to))?;
            let opened = world.run_at_site(|| Result::<_>::Ok(TcpStream::connect_timeout(&to, BRIEF)))?;
            ensure!(opened.is_err(), "the site opened a connection to the client");
            let knocked = world.count("no_flow")?;
            ensure!(knocked > before + 3, "the attempt was not counted");
        }
        Ok(())
    })
}

pub(crate) fn icmp_errors_pass_for_a_live_flow_only(backend: Backend) -> Result<()> {
    World::start(backend, &["alice"])?.play(|world| {
        for family in [0, 1] {
            let closed = SocketAddr::new(OPEN[family], PORT);
            let socket = world.client_socket("alice", closed)?;
            let error = refusal(&socket)?;
            ensure!(error.kind() == ErrorKind::ConnectionRefused, "expected a closed port, found {error}");

            // The same error about packets that alice never sent: from another port, and to another host.
            let own = SocketAddr::new(ALICE[family], socket.local_addr()?.port());
            let before = world.count("unrelated_icmp_error")?;
            let unrelated = [
                build::udp((own.ip(), 1).into(), closed, b"never sent"),
                build::udp(own, (WIKI[family], PORT).into(), b"never sent"),
            ];
            for quoted in &unrelated {
                port_unreachable(world, OPEN[family], own.ip(), quoted)?;
            }
            world.counted("unrelated_icmp_error", before + unrelated.len() as u64)?;
            // Ours would pass, so that it was the quoted packet that made the difference.
            let passed = world.count("packets_to_outside")?;
            port_unreachable(world, OPEN[family], own.ip(), &build::udp(own, closed, b"sent"))?;
            world
                .gateway
                .wait_until(PATIENCE, |status| status["totals"]["packets_to_outside"].as_u64() > Some(passed))?;
            world.counted("unrelated_icmp_error", before + unrelated.len() as u64)?;
        }
        Ok(())
    })
}

/// Sends "port unreachable" about `quoted` from `from` at the site.
fn port_unreachable(world: &World, from: IpAddr, to: IpAddr, quoted: &[u8]) -> Result<()> {
    let (kind, code) = if from.is_ipv4() { (3, 3) } else { (1, 4) };
    let packet = build::icmp(from, to, kind, code, [0; 4], quoted);
    let message = &packet[if from.is_ipv4() { 20 } else { 40 }..];
    world.run_at_site(|| {
        let socket = raw_icmp(from)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.send_to(message, &SocketAddr::new(to, 0).into())
    })?;
    Ok(())
}

// Covers: X12 allow, X12 refuse
pub(crate) fn the_site_opens_flows_by_rule_only(backend: Backend) -> Result<()> {
    let mut plan = plan(backend);
    let hosts = WIKI.map(|address| address.to_string());
    let services = [format!("udp/{PORT}"), format!("tcp/{PORT}")];
    let remote_help = Rule::allow_from(
        "remote-help",
        &hosts.each_ref().map(String::as_str),
        &services.each_ref().map(String::as_str),
    );
    plan.users[0].rules.push(remote_help);
    World::start_with(&plan, &["alice"])?.play(|world| {
        for family in [0, 1] {
            let before = world.count("no_flow")?;
            let [open, closed] = [PORT, PORT + 1].map(|port| SocketAddr::new(ALICE[family], port));
            let alice = world.run_at("alice", || UdpSocket::bind(open))?;
            let _echo = ringfort_netlab::udp::echo(alice)?;
            let helper = world.site_socket((WIKI[family], 5_000).into())?;
            helper.connect(open)?;
            echoed(&helper, b"may I help?")?;
            let _listener = world.run_at("alice", || TcpListener::bind(open))?;
            world.run_at_site(|| {
                let socket = socket2::Socket::new(socket2::Domain::for_address(open), socket2::Type::STREAM, None)?;
                socket.bind(&SocketAddr::new(WIKI[family], 0).into())?;
                socket.connect_timeout(&open.into(), PATIENCE)
            })?;
            ensure!(world.count("no_flow")? == before, "the rule did not let everything through");

            world.site_socket((WIKI[family], 5_001).into())?.send_to(b"another port", closed)?;
            world.site_socket((OPEN[family], 5_000).into())?.send_to(b"another host", open)?;
            world.counted("no_flow", before + 2)?;
        }
        Ok(())
    })
}
