//! Who is let in where: tunnels, session channels and the Controller's doors.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ringfort_netlab::http;
use ringfort_packet::build;
use ringfort_stage::Probe;
use ringfort_stage::hostile;

use crate::world::{ALICE, GATEWAY, MALLORY, PATIENCE, World, service};

/// A device with a good certificate and no channel: its tunnel comes up and carries nothing.
// Covers: C15 refuse
// Covers: A11 refuse
pub(crate) fn a_tunnel_without_its_channel_carries_nothing() -> Result<()> {
    World::start("")?.play(|world| {
        let credentials = world.realm.stage.folder().join("probe");
        static_names(&world.realm.state(ALICE), &credentials)?;
        let (lab, to) = (&world.realm.stage.lab, world.realm.gateway_address(0));
        let before = world.gateway.counter("packets_unbound")?;
        let packet = build::udp(SocketAddr::from(([10, 97, 0, 2], 4_000)), service(0), b"unbound");
        lab.run_in(lab.client(MALLORY)?, || {
            let mut probe = Probe::connect_unbound(&credentials, ALICE, to)?;
            probe.send(&packet)
        })??;
        world.gateway.wait_until(PATIENCE, |status| status["totals"]["packets_unbound"].as_u64() > Some(before))?;
        // alice's own session goes on.
        world.reaches(ALICE, 0)
    })
}

/// The folder of a client as the probe's static files are called.
fn static_names(state: &Path, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for (from, to) in [("chain.pem", "alice.pem"), ("key.pem", "alice.key"), ("ca.pem", "ca.pem")] {
        std::fs::copy(state.join(from), folder.join(to)).with_context(|| from.to_owned())?;
    }
    Ok(())
}

/// A Gateway's certificate at a session channel, a user's at the Controller's gRPC port, and none at either.
// Covers: A2 refuse
pub(crate) fn roles_open_their_own_doors_only() -> Result<()> {
    World::start("")?.play(|world| {
        let (lab, to) = (&world.realm.stage.lab, world.realm.gateway_address(0));
        let gateway = world.realm.state(GATEWAY);
        let before = world.gateway.counter("refused_wrong_role")?;
        let refused = lab.run_in(lab.client(MALLORY)?, || hostile::present(&gateway, to, "", ""))?;
        ensure!(refused.is_err(), "a Gateway's certificate opened a session channel");
        world
            .gateway
            .wait_until(PATIENCE, |status| status["totals"]["refused_wrong_role"].as_u64() == Some(before + 1))?;
        let controller = world.realm.controller_address();
        let refused =
            lab.run_in(lab.client(MALLORY)?, || hostile::subscribe(&world.realm.state(ALICE), controller))??;
        ensure!(refused.code == "wrong_role", "{refused:?}");
        // Whoever shows nothing gets nothing, in plain HTTP least of all.
        for port in [to, controller] {
            let plain = lab.run_in(lab.client(MALLORY)?, || http::get(port, PATIENCE))?;
            ensure!(plain.is_err(), "{port} answered a stranger: {plain:?}");
        }
        Ok(())
    })
}
