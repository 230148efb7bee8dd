//! Processes end, by a signal or by force, and come back.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringfort_link::Links;
use ringfort_netlab::Namespace;
use ringfort_stage::files::Plan;

use crate::world::{Backend, PATIENCE, WIKI, World, sessions};

/// The interface of either side's tunnel.
const TUN: &str = "ringfort0";

/// The client knows nothing of it, and finds out.
pub(crate) fn a_killed_gateway_comes_back(backend: Backend) -> Result<()> {
    World::start(backend, &["alice"])?.play(|world| {
        let _server = world.serve(WIKI[0], "wiki")?;
        world.get_page("alice", WIKI[0], "wiki")?;
        world.gateway.kill()?;
        world.gateway = world.stage.gateway()?;
        world.get_page_again("alice", WIKI[0], "wiki")?;
        let tunnels = world.client("alice")?.counter("handshakes_finished")?;
        ensure!(tunnels == 2, "expected the client's second tunnel, found {tunnels}");
        Ok(())
    })
}

/// What a quick restart meets: the interface is held by the process before it, whose end takes the kernel a moment.
pub(crate) fn a_gateway_waits_for_its_interface(backend: Backend) -> Result<()> {
    World::start(backend, &[])?.play(|world| {
        let successor = world.stage.gateway_begin()?;
        let deadline = Instant::now() + PATIENCE;
        while pauses(successor.pid())? < PAUSES_WHEN_WAITING {
            ensure!(Instant::now() < deadline, "it does not wait:\n{}", successor.unready().log_text());
            std::thread::sleep(Duration::from_millis(1));
        }
        world.gateway.kill()?;
        world.gateway = successor.ready()?;
        world.probe("alice", "alice").map(drop)
    })
}

/// Pauses by which a Gateway is surely among its attempts to make the interface: up to there it makes about ten, and then
/// one every 10 ms for 3 s.
const PAUSES_WHEN_WAITING: u64 = 40;

/// How often the main thread of a process has given up its core by itself.
fn pauses(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{pid}/status"))?;
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(count.context("no voluntary_ctxt_switches")?.trim().parse()?)
}

pub(crate) fn a_killed_client_comes_back(backend: Backend) -> Result<()> {
    World::start(backend, &["alice"])?.play(|world| {
        let _server = world.serve(WIKI[0], "wiki")?;
        world.get_page("alice", WIKI[0], "wiki")?;
        world.client("alice")?.kill()?;
        world.start_client("alice")?;
        // The Gateway may install the new session's rules a moment after the client has its tunnel.
        world.get_page_again("alice", WIKI[0], "wiki")?;
        let live = sessions(&world.gateway.status()?).count();
        ensure!(live == 1, "expected the new session in place of the old one, found {live}");
        Ok(())
    })
}

pub(crate) fn a_stopped_gateway_leaves_nothing(backend: Backend) -> Result<()> {
    World::start(backend, &["alice"])?.play(|world| {
        let socket = world.stage.files().join("gateway.sock");
        ensure!(socket.exists() && has_tun(world, world.stage.lab.gateway())?, "the Gateway does not run");
        world.gateway.stop()?;
        ensure!(!socket.exists(), "the status socket is still there");
        ensure!(!has_tun(world, world.stage.lab.gateway())?, "the interface is still there");
        // It said goodbye, so the client need not find out by silence.
        world.client("alice")?.wait_until(PATIENCE, |status| status["up"] == false)?;
        world.gateway = world.stage.gateway()?;
        world.client("alice")?.wait_until(PATIENCE, |status| status["up"] == true)?;
        let _server = world.serve(WIKI[0], "wiki")?;
        world.get_page_again("alice", WIKI[0], "wiki")
    })
}

pub(crate) fn a_stopped_client_leaves_nothing(backend: Backend) -> Result<()> {
    World::start(backend, &["alice"])?.play(|world| {
        let socket = Plan::user_file(&world.stage.files(), "alice").with_extension("sock");
        ensure!(socket.exists() && has_tun(world, world.stage.lab.client("alice")?)?, "the client does not run");
        world.gateway.wait_until(PATIENCE, |status| sessions(status).count() == 1)?;
        world.client("alice")?.stop()?;
        ensure!(!fs::exists(socket)?, "the status socket is still there");
        ensure!(!has_tun(world, world.stage.lab.client("alice")?)?, "the interface is still there");
        world.gateway.wait_until(PATIENCE, |status| sessions(status).count() == 0)?;
        Ok(())
    })
}

fn has_tun(world: &World, place: &Namespace) -> Result<bool> {
    world.run_in(place, || match Links::open()?.index_of(TUN) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    })
}
