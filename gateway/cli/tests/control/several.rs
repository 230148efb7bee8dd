//! Two Controllers on one PostgreSQL, one of which is killed.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringfort_stage::{Process, Realm};
use serde_json::Value;

use crate::world::{ALICE, GATEWAY, MALLORY, PATIENCE, PAYROLL, World};

/// Names a PostgreSQL server: `postgres://user@localhost/postgres?host=/folder/of/its/socket`.
pub(crate) const SERVER: &str = "RINGFORT_TEST_POSTGRES";
/// Where the other Controller listens.
const OTHER_PORT: u16 = 444;
/// Logins, and revocations, while one Controller is killed.
const ROUNDS: usize = 12;

/// A database of this test's own on the server.
fn database() -> Result<String> {
    let server = std::env::var(SERVER).with_context(|| format!("{SERVER} names no PostgreSQL server"))?;
    let name = format!("control_{}", uuid()?.replace('-', ""));
    let made = Command::new("psql").args([&server, "-qc", &format!("CREATE DATABASE {name}")]).status();
    ensure!(made.context("run psql")?.success(), "psql could not make a database");
    Ok(server.replacen("/postgres?", &format!("/{name}?"), 1))
}

/// The number of the revocation that an administrator's command made.
fn revoke(realm: &Realm) -> Result<Option<u64>> {
    let token = uuid()?;
    let answer = realm.admin(&["revoke", "token", &token, "--reason", "for a test", "--json"])?;
    let Ok(text) = answer.ok() else { return Ok(None) };
    let answer: Value = serde_json::from_str(&text)?;
    let serial = answer["serial"].as_str().and_then(|serial| serial.rsplit_once('/')).context("no serial")?;
    Ok(Some(serial.1.parse()?))
}

fn uuid() -> Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

fn knows_both(controllers: &str) -> bool {
    controllers.contains(":443") && controllers.contains(":444")
}

fn connected(status: &Value) -> bool {
    status["gateways"].as_array().is_some_and(|all| all.iter().any(|one| one["connected"] == true))
}

pub(crate) fn one_of_two_controllers_is_killed() -> Result<()> {
    let url = database()?;
    let mut world = World::with_realm("", |realm| realm.with_database(&url))?;
    let line = world.realm.invite(&["controller"])?;
    world.realm.join("controller-2", world.realm.stage.lab.controller()?, &line)?.ok()?;
    let sealing = |name: &str| world.realm.state(name).join("sealing.key");
    std::fs::copy(sealing("controller"), sealing("controller-2"))?;
    let mut other = world.realm.another_controller_begin("controller-2", OTHER_PORT)?.ready()?;
    // Who logs in knows both from then on, and the Gateway hears of it.
    world.realm.operator_login(&world.controller)?.ok()?;
    for user in [ALICE, MALLORY] {
        if user == MALLORY {
            world.realm.add_user(user)?;
        }
        world.join_user(user)?;
        world.login(user)?;
    }
    world.alice = Some(world.up(ALICE)?);
    world.reaches(ALICE, 0)?;
    let identity = world.realm.state(GATEWAY).join("identity.toml");
    let begun = Instant::now();
    while !knows_both(&std::fs::read_to_string(&identity)?) {
        ensure!(begun.elapsed() < PATIENCE, "the Gateway has not heard of the other Controller");
        thread::sleep(Duration::from_millis(10));
    }

    let acknowledged = in_the_middle(&mut world)?;
    // The Gateway goes to the other one by itself, and has everything that was acknowledged.
    other.wait_until(PATIENCE, connected)?;
    world.gateway.wait_until(PATIENCE, |status| status["revocations"]["n"].as_u64() >= Some(acknowledged))?;
    world.reaches(ALICE, 0)?;
    world.admin(&["entitle", PAYROLL, "--user", ALICE])?;
    world.reaches(ALICE, 1)?;
    world.login(MALLORY)?;

    // The one that was killed comes back and knows what happened meanwhile.
    world.controller = world.realm.controller_begin()?.ready()?;
    let serials = [&world.controller, &other].map(|one| one.status().map(|status| status["revocations"].clone()));
    let [first, second] = serials;
    ensure!(first? == second?, "the Controllers disagree");
    world.play(|world| taken_back_everywhere(world, &mut other))
}

/// Logins and revocations side by side, in the middle of which one Controller is killed. Gives the newest revocation that was
/// acknowledged.
fn in_the_middle(world: &mut World) -> Result<u64> {
    let (realm, controller) = (&world.realm, &mut world.controller);
    let is_dead = AtomicBool::new(false);
    let (logins, revocations) = thread::scope(|scope| -> Result<_> {
        let logins = scope.spawn(|| -> Result<usize> {
            // What is on its way to the one that dies may fail, once.
            let mut failed = 0;
            for _ in 0..ROUNDS {
                failed += usize::from(realm.login(MALLORY)?.ok().is_err());
            }
            Ok(failed)
        });
        let revocations = scope.spawn(|| -> Result<Vec<Option<u64>>> {
            let mut made = Vec::new();
            while made.len() < ROUNDS || !is_dead.load(Ordering::Relaxed) {
                made.push(revoke(realm)?);
            }
            Ok(made)
        });
        thread::sleep(Duration::from_millis(200));
        controller.kill()?;
        is_dead.store(true, Ordering::Relaxed);
        let panicked = |_| anyhow::anyhow!("a thread panicked");
        Ok((logins.join().map_err(panicked)??, revocations.join().map_err(panicked)??))
    })?;
    ensure!(logins <= 1, "{logins} logins failed");
    let lost = revocations.iter().filter(|made| made.is_none()).count();
    ensure!(lost <= 1, "{lost} revocations failed");
    let made: Vec<u64> = revocations.into_iter().flatten().collect();
    ensure!(made.is_sorted_by(|a, b| a < b), "numbers given twice: {made:?}");
    made.last().copied().context("no revocation was acknowledged")
}

/// What one Controller decides holds where the other's Gateway is.
fn taken_back_everywhere(world: &mut World, other: &mut Process) -> Result<()> {
    world.admin(&["revoke", "user", ALICE, "--reason", "for a test"])?;
    world.is_refused(ALICE, 0)?;
    other.stop()
}
