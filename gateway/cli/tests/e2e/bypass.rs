//! What is not for the tunnel goes its way as if there were none (C6); what is for it goes no other way.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Context, Result, ensure};
use ringfort_link::Links;
use ringfort_netlab::{address, http};

use crate::sockets::first_to_arrive;
use crate::world::{Backend, PATIENCE, WIKI, World};

const PORT: u16 = 9_000;

// Covers: C6 allow
pub(crate) fn other_traffic_goes_its_own_way(backend: Backend) -> Result<()> {
    World::start(backend, &["alice"])?.play(|world| {
        let hosts = [IpAddr::V4(address::INTERNET_HOST_V4), IpAddr::V6(address::INTERNET_HOST_V6)];
        let _servers = hosts.map(|at| internet_page(world, at, "a host of the internet"));
        let reach = |world: &World| {
            for (host, outer) in hosts.into_iter().zip(world.stage.lab.client("alice")?.addresses()) {
                let page = world.get_page("alice", host, "a host of the internet")?;
                ensure!(page.contains(&format!("You come from {outer}.")), "expected {outer}, found {page:?}");
            }
            Ok(())
        };
        let before = tunnelled(world)?;
        reach(world)?;
        let after = tunnelled(world)?;
        ensure!(before == after, "it went through the tunnel: {before:?}, {after:?}");
        world.gateway.kill()?;
        reach(world).context("while the Gateway is gone")
    })
}

/// Packets that the tunnel carried, as both of its ends count them.
fn tunnelled(world: &mut World) -> Result<[u64; 4]> {
    let alice = world.client("alice")?;
    let [up, down] = [alice.counter("packets_to_outside")?, alice.counter("packets_to_inside")?];
    Ok([up, down, world.count("packets_to_inside")?, world.count("packets_to_outside")?])
}

/// Somebody on the way pretends to be the site. It works without a client, which shows that the test can fail.
// Covers: C6 refuse
pub(crate) fn traffic_for_the_tunnel_never_leaves_beside_it(backend: Backend) -> Result<()> {
    World::start(backend, &["alice"])?.play(|world| {
        let _wiki = WIKI.map(|at| world.serve(at, "wiki"));
        world.run_in(world.stage.lab.internet(), || {
            let mut links = Links::open()?;
            let index = links.index_of("to-gateway")?;
            WIKI.iter().try_for_each(|at| links.add_address(index, *at, if at.is_ipv4() { 32 } else { 128 }))
        })?;
        let _decoys = WIKI.map(|at| internet_page(world, at, "a decoy"));
        let decoys = WIKI.map(|at| world.run_in(world.stage.lab.internet(), || UdpSocket::bind((at, PORT))));
        for at in WIKI {
            world.get_page("alice", at, "wiki")?;
        }

        world.gateway.kill()?;
        try_in_vain(world)?;
        // The client finds out that its tunnel is down, and keeps the routes.
        world.client("alice")?.wait_until(PATIENCE, |status| status["up"] == false)?;
        try_in_vain(world)?;
        let kept_back = world.client("alice")?.counter("packets_unsent")?;
        ensure!(kept_back > 0, "the client was given nothing to keep back");

        world.client("alice")?.stop()?;
        for (at, decoy) in WIKI.into_iter().zip(decoys) {
            world.get_page("alice", at, "a decoy")?;
            let socket = world.client_socket("alice", (at, PORT).into())?;
            let source = socket.local_addr()?;
            socket.send(b"without a client")?;
            // Anything that had leaked before would be there before.
            first_to_arrive(&decoy?, source, b"without a client")?;
        }
        Ok(())
    })
}

fn try_in_vain(world: &World) -> Result<()> {
    for at in WIKI {
        world.client_socket("alice", (at, PORT).into())?.send(b"with a client")?;
        let page = world.attempt("alice", at)?;
        ensure!(page.is_err(), "somebody beside the tunnel answered: {page:?}");
    }
    Ok(())
}

fn internet_page(world: &World, at: IpAddr, name: &str) -> Result<http::Server> {
    let listener = world.run_in(world.stage.lab.internet(), || TcpListener::bind(SocketAddr::new(at, 80)))?;
    Ok(http::serve(listener, name)?)
}
