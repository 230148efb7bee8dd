//! A source that is not the session's own passes nothing.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use ringfort_packet::build;

use crate::sockets::nothing_but_this_arrives;
use crate::world::{ALICE, BOB, Backend, GATEWAY_INNER, OPEN, PAYROLL, World, plan};

/// Where the site listens, and where packets come from.
const PORT: u16 = 9_000;
const FROM: u16 = 4_000;

pub(crate) fn foreign_sources_reach_nothing(backend: Backend) -> Result<()> {
    World::start(backend, &["bob"])?.play(|world| {
        let mut probe = world.probe("alice", "alice")?;
        for family in [0, 1] {
            let socket = world.site_socket((OPEN[family], PORT).into())?;
            let before = world.count("spoofed_source")?;
            let foreign = foreign(family);
            for source in &foreign {
                let packet = build::udp((*source, FROM).into(), (OPEN[family], PORT).into(), b"I am another");
                probe.send(&packet)?;
            }
            nothing_but_this_arrives(&mut probe, (ALICE[family], FROM).into(), &socket)?;
            world.counted("spoofed_source", before + foreign.len() as u64)?;
        }
        Ok(())
    })
}

/// Another user's address, one that nobody has, the Gateway's, the site's, the outer one, and none at all.
fn foreign(family: usize) -> Vec<IpAddr> {
    let more = [
        ["10.97.0.99", "198.51.100.2", "127.0.0.1", "0.0.0.0", "255.255.255.255"],
        ["fd97::99", "2001:db8:1::2", "::1", "::", "ff02::1"],
    ];
    let more = more[family].iter().filter_map(|address| address.parse().ok());
    [BOB[family], GATEWAY_INNER[family], PAYROLL[family]].into_iter().chain(more).collect()
}

pub(crate) fn a_family_that_the_session_lacks_reaches_nothing(backend: Backend) -> Result<()> {
    let mut plan = plan(backend);
    plan.inner.retain(|pool| pool.addr().is_ipv4());
    plan.routes.retain(|route| route.addr().is_ipv4());
    World::start_with(&plan, &[])?.play(|world| {
        let mut probe = world.probe("alice", "alice")?;
        let [over_v4, over_v6] =
            [world.site_socket((OPEN[0], PORT).into())?, world.site_socket((OPEN[1], PORT).into())?];
        let sources = [ALICE[1], "fd98::10".parse()?];
        for source in sources {
            probe.send(&build::udp((source, FROM).into(), (OPEN[1], PORT).into(), b"over IPv6"))?;
        }
        nothing_but_this_arrives(&mut probe, SocketAddr::new(ALICE[0], FROM), &over_v4)?;
        world.counted("spoofed_source", sources.len() as u64)?;
        over_v6.set_nonblocking(true)?;
        ensure!(over_v6.recv(&mut [0; 64]).is_err(), "a packet of the other family arrived");
        Ok(())
    })
}
