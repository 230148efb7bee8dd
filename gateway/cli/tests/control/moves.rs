//! Sessions that go over to another tunnel: away from a Gateway that is drained.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringfort_link::Links;
use ringfort_netlab::{address, http};
use ringfort_stage::Process;
use serde_json::Value;

use crate::world::{ALICE, GATEWAY, PATIENCE, SITE, World, service, sessions};

/// The site's other Gateway, at the laboratory's second site.
const OTHER: &str = "gateway-potsdam";

/// A second Gateway of the site, with a service behind it that alice may reach, and that no other Gateway has.
fn second_gateway(world: &World, service: SocketAddr) -> Result<(Process, http::Server)> {
    let lab = &world.realm.stage.lab;
    let line = world.realm.invite(&["gateway", OTHER, "--site", SITE])?;
    world.realm.join(OTHER, lab.gateway_at(1)?, &line)?.ok()?;
    let gateway = world.realm.gateway_begin(1, OTHER, "")?.ready()?;
    // The laboratory's second site has a pool of its own; the way back to ours leads to its gateway as well.
    let back = || -> Result<()> {
        let (mut links, via) = (Links::open()?, IpAddr::V4(address::gateway_at_site(1).0));
        let index = links.route_to(via)?.output;
        Ok(links.add_route((IpAddr::V4([10, 97, 0, 0].into()), 16), Some(via), index, None)?)
    };
    lab.run_in(lab.site_at(1)?, back)??;
    let listener = lab.run_in(lab.site_at(1)?, || TcpListener::bind(service))??;
    let server = http::serve(listener, "second")?;
    let to = service.ip().to_string();
    world.admin(&["resource", "add", "second", "--site", SITE, "--to", &to, "--service", "tcp/80"])?;
    world.admin(&["entitle", "second", "--user", ALICE])?;
    let begun = Instant::now();
    loop {
        let listed: Value = serde_json::from_str(&world.admin(&["gateway", "list", "--json"])?)?;
        let rows = listed.as_array().map(Vec::as_slice).unwrap_or_default();
        if rows.len() == 2 && rows.iter().all(|row| row["alive"] == true) {
            return Ok((gateway, server));
        }
        ensure!(begun.elapsed() < PATIENCE, "{listed}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Her client is asked, makes the other tunnel beside the one in use, and leaves: at no moment is she without a tunnel.
// Covers: K6 allow
pub(crate) fn a_drained_gateway_is_left_for_another_of_its_site() -> Result<()> {
    World::with_sites(2)?.play(|world| {
        let far = SocketAddr::new(IpAddr::V4(address::site_host(1, 0).0), 80);
        let (other, _server) = second_gateway(world, far)?;
        world.join_user(ALICE)?;
        world.login(ALICE)?;
        world.alice = Some(world.up(ALICE)?);
        let is_at = |gateway: &Process| -> Result<bool> { Ok(sessions(&gateway.status()?).len() == 1) };
        let names = if is_at(&world.gateway)? { [GATEWAY, OTHER] } else { [OTHER, GATEWAY] };
        let (here, there) = if names[0] == GATEWAY { (&world.gateway, &other) } else { (&other, &world.gateway) };
        ensure!(is_at(here)? && !is_at(there)?, "she has not one session");
        let at = |status: &Value| status["sites"][0]["gateway"].clone();
        let before = at(&world.alice()?.status()?);
        world.admin(&["gateway", "drain", names[0]])?;
        let begun = Instant::now();
        loop {
            let status = world.alice()?.status()?;
            ensure!(status["up"] == true, "she was without a tunnel: {status}");
            ensure!(status["last_goodbye"].is_null(), "she was sent away: {status}");
            if at(&status) != before {
                break;
            }
            ensure!(begun.elapsed() < PATIENCE, "she stays: {status}");
            std::thread::sleep(Duration::from_millis(5));
        }
        there.wait_until(PATIENCE, |status| sessions(status).len() == 1)?;
        here.wait_until(PATIENCE, |status| sessions(status).is_empty())?;
        let reaches = if names[0] == GATEWAY { far } else { service(0) };
        let lab = &world.realm.stage.lab;
        let begun = Instant::now();
        while lab.run_in(lab.client(ALICE)?, || http::get(reaches, Duration::from_millis(500)))?.is_err() {
            ensure!(begun.elapsed() < PATIENCE, "nothing passes through the other Gateway");
        }
        ensure!(world.alice()?.status()?["up"] == true, "the other tunnel did not last");
        // The last one that there is cannot be left: she stays.
        world.admin(&["gateway", "drain", names[1]])?;
        there.wait_until(PATIENCE, |status| status["admitting"].to_string().contains("draining"))?;
        ensure!(is_at(there)?, "her session did not go on");
        lab.run_in(lab.client(ALICE)?, || http::get(reaches, PATIENCE))?.context("she is left without a Gateway")?;
        Ok(())
    })
}
