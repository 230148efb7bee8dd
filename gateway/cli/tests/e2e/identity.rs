//! Who shakes hands, and who gets nothing for it.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringfort_packet::build;
use ringfort_packet::parse::{Parsed, Transport, parse};
use ringfort_stage::files::{GATEWAY_ID, Plan};
use ringfort_stage::{Probe, Stage};
use tempfile::TempDir;
use toml::{Table, Value};

use crate::sockets::{answered, nothing_but_this_arrives, pattern};
use crate::world::{ALICE, Backend, OPEN, PATIENCE, World, plan, sessions, stage};

const PORT: u16 = 9_000;
const FROM: u16 = 4_000;

// Covers: A10 allow, K4 allow
pub(crate) fn a_known_device_has_a_session(backend: Backend) -> Result<()> {
    World::start(backend, &["alice"])?.play(|world| {
        let status = world.gateway.wait_until(PATIENCE, |status| sessions(status).count() == 1)?;
        let session = sessions(&status).next().context("no session")?;
        ensure!(session["user"] == "alice" && session["device"] == "alice", "another session: {session}");
        let inner: Vec<String> = ALICE.iter().map(ToString::to_string).collect();
        ensure!(session["inner"] == serde_json::json!(inner), "other inner addresses: {session}");
        let client = world.client("alice")?.status()?;
        ensure!(client["gateway"] == GATEWAY_ID && client["up"] == true, "another tunnel: {client}");
        ensure!(client["backend"] == backend.name(), "another backend: {client}");
        Ok(())
    })
}

/// A leaf of another CA, and the Gateway's own leaf: what a certificate entitles to be is in it.
// Covers: A10 refuse, K4 refuse
pub(crate) fn foreign_certificates_get_nothing(backend: Backend) -> Result<()> {
    World::start(backend, &[])?.play(|world| {
        let mut alice = world.probe("alice", "alice")?;
        let socket = world.site_socket((OPEN[0], PORT).into())?;
        let foreign = foreign_leaf(&world.stage, &world.plan, "alice")?;
        let own = world.stage.files();
        // A refused client is told nothing, so that each attempt lasts to its end: side by side.
        let attempts = std::thread::scope(|scope| {
            let attempts = [(foreign.path(), "alice"), (own.as_path(), "gateway")]
                .map(|(folder, name)| scope.spawn(|| gets_nothing(world.connect(folder, name, "bob"))));
            attempts.map(|attempt| attempt.join())
        });
        for attempt in attempts {
            attempt.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        world.gateway.wait_until(PATIENCE, |status| status["totals"]["handshakes_failed"].as_u64() >= Some(2))?;
        still_alone(world, &mut alice, &socket)
    })
}

/// The CA vouches for the device, but the administrator gave it to nobody.
// Covers: A12 refuse
pub(crate) fn an_unknown_device_gets_nothing(backend: Backend) -> Result<()> {
    let plan = plan(backend);
    let stage = stage(&plan)?;
    let file = Plan::gateway_file(&stage.files());
    let mut table: Table = fs::read_to_string(&file)?.parse()?;
    let users = table["user"].as_array_mut().context("no users")?;
    users.retain(|user| user["name"] != Value::from("bob"));
    fs::write(&file, table.to_string())?;
    World::start_on(stage, &plan, &[])?.play(|world| {
        let mut alice = world.probe("alice", "alice")?;
        let socket = world.site_socket((OPEN[0], PORT).into())?;
        gets_nothing(world.connect(&world.stage.files(), "bob", "bob"))?;
        still_alone(world, &mut alice, &socket)
    })
}

/// No tunnel, or one that the Gateway closes before anything passes: the peer's side of the handshake ends first.
fn gets_nothing(connected: Result<Probe>) -> Result<()> {
    let Ok(mut probe) = connected else { return Ok(()) };
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if probe.send(&build::udp((ALICE[0], FROM).into(), (OPEN[0], PORT).into(), b"let me in")).is_err() {
            return Ok(());
        }
        match probe.receive(Duration::from_millis(20)) {
            Err(_) => return Ok(()),
            Ok(None) => {}
            Ok(Some(packet)) => bail!("the Gateway answered with {packet:?}"),
        }
    }
    bail!("the tunnel stays up")
}

fn still_alone(world: &World, alice: &mut Probe, socket: &UdpSocket) -> Result<()> {
    nothing_but_this_arrives(alice, (ALICE[0], FROM + 1).into(), socket)?;
    let status = world.gateway.wait_until(PATIENCE, |status| sessions(status).count() == 1)?;
    ensure!(sessions(&status).all(|session| session["user"] == "alice"), "another session: {status:#}");
    Ok(())
}

/// A folder with the CA of `stage` and a leaf for `name` that another CA issued.
fn foreign_leaf(stage: &Stage, plan: &Plan, name: &str) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let other = folder.path().join("other");
    plan.write(&other)?;
    take(&other, folder.path(), name)?;
    fs::copy(stage.files().join("ca.pem"), folder.path().join("ca.pem"))?;
    Ok(folder)
}

fn take(from: &Path, to: &Path, name: &str) -> Result<()> {
    for file in ["pem", "key"].map(|suffix| format!("{name}.{suffix}")) {
        fs::copy(from.join(&file), to.join(&file))?;
    }
    Ok(())
}

pub(crate) fn the_newest_session_of_a_device_replaces_the_older(backend: Backend) -> Result<()> {
    World::start(backend, &[])?.play(|world| {
        let target = SocketAddr::new(OPEN[0], PORT);
        let _echo = world.echo(target)?;
        let request = |port| build::udp((ALICE[0], port).into(), target, &pattern(50));
        let reply_to = |port| {
            move |parsed: &Parsed, _: &[u8]| {
                parsed.transport == Transport::Udp { source_port: PORT, destination_port: port }
            }
        };
        let mut older = world.probe("alice", "alice")?;
        answered(&mut older, &request(FROM), reply_to(FROM))?;
        let mut newer = world.probe("alice", "bob")?;
        answered(&mut newer, &request(FROM + 1), reply_to(FROM + 1))?;
        let status = world.gateway.status()?;
        ensure!(sessions(&status).count() == 1, "expected one session: {status:#}");
        // The Gateway says goodbye to the older tunnel; until then only what was under way may come.
        while let Ok(packet) = older.receive(PATIENCE) {
            let packet = packet.context("the older tunnel was not ended")?;
            ensure!(!parse(&packet).is_ok_and(|parsed| reply_to(FROM + 1)(&parsed, &packet)), "it went to both");
        }
        Ok(())
    })
}

// Covers: A10 refuse
pub(crate) fn a_client_refuses_another_gateway(backend: Backend) -> Result<()> {
    // A Gateway of another CA.
    let mut plan = plan(backend);
    let stage_of_another = stage(&plan)?;
    let leaf = foreign_leaf(&stage_of_another, &plan, "gateway")?;
    take(leaf.path(), &stage_of_another.files(), "gateway")?;
    is_refused(stage_of_another, &plan, "certificate")?;
    // One of the same CA that is not the one asked for.
    plan.client_more.insert("gateway_id".into(), "gateway-2".into());
    is_refused(stage(&plan)?, &plan, "expected gateway gateway-2, found gateway")
}

fn is_refused(stage: Stage, plan: &Plan, why: &str) -> Result<()> {
    World::start_on(stage, plan, &[])?.play(|world| {
        let alice = world.stage.client_begin("alice")?.unready();
        let deadline = Instant::now() + PATIENCE;
        // Twice: it goes on trying, and goes on refusing.
        while alice.log_text().matches(why).count() < 2 {
            ensure!(Instant::now() < deadline, "expected {why:?} in its log:\n{}", alice.log_text());
            std::thread::sleep(Duration::from_millis(10));
        }
        ensure!(alice.status()?["up"] == false, "its tunnel is up");
        ensure!(!alice.log_text().contains("tunnel up"), "its tunnel was up:\n{}", alice.log_text());
        Ok(())
    })
}
