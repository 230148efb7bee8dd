//! Two Controllers on one PostgreSQL, one of which is killed.

use std::path::PathBuf;
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
/// How long alice's machine has to renew what it has.
const GRACE: Duration = Duration::from_secs(8);
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

/// A command from its beginning to its end, and what was acknowledged, if anything was.
struct Tried<T> {
    begun: Instant,
    ended: Instant,
    acknowledged: Option<T>,
}

impl<T> Tried<T> {
    fn of(command: impl FnOnce() -> Result<Option<T>>) -> Result<Self> {
        let begun = Instant::now();
        let acknowledged = command()?;
        Ok(Self { begun, ended: Instant::now(), acknowledged })
    }

    fn was_under_way(&self, at: Instant) -> bool {
        self.begun < at && at < self.ended
    }
}

/// A revocation: of a token that nobody has, and its number.
struct Revocation {
    token: String,
    n: u64,
}

/// The revocation that an administrator's command made.
fn revoke(realm: &Realm) -> Result<Option<Revocation>> {
    let token = uuid()?;
    let answer = realm.admin(&["revoke", "token", &token, "--reason", "for a test", "--json"])?;
    let Ok(text) = answer.ok() else { return Ok(None) };
    let answer: Value = serde_json::from_str(&text)?;
    let serial = answer["serial"].as_str().and_then(|serial| serial.rsplit_once('/')).context("no serial")?;
    Ok(Some(Revocation { token, n: serial.1.parse()? }))
}

/// The file with the claims of [`MALLORY`]'s newest login.
fn claims_of_mallory(realm: &Realm) -> PathBuf {
    realm.state(MALLORY).join("claims.jwt")
}

/// The claims of a login.
fn log_in(realm: &Realm) -> Result<Option<Vec<u8>>> {
    match realm.login(MALLORY)?.ok() {
        Ok(_) => Ok(Some(std::fs::read(claims_of_mallory(realm))?)),
        Err(_) => Ok(None),
    }
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

    let Acknowledged { logins, revocations } = in_the_middle(&mut world)?;
    let newest = revocations.last().context("no revocation was acknowledged")?.n;
    // The Gateway goes to the other one by itself, and has everything that was acknowledged.
    other.wait_until(PATIENCE, connected)?;
    world.gateway.wait_until(PATIENCE, |status| status["revocations"]["n"].as_u64() >= Some(newest))?;
    all_are_written_down(&world, &revocations)?;
    all_are_logged_in(&world, &logins)?;
    alices_machine_renews(&world)?;
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

/// What was acknowledged, in its order: claims of logins, and revocations.
struct Acknowledged {
    logins: Vec<Vec<u8>>,
    revocations: Vec<Revocation>,
}

/// Logins and revocations side by side, in the middle of which one Controller is killed.
fn in_the_middle(world: &mut World) -> Result<Acknowledged> {
    let (realm, controller) = (&world.realm, &mut world.controller);
    let is_dead = AtomicBool::new(false);
    let (killed, logins, revocations) = thread::scope(|scope| -> Result<_> {
        let is_dead = &is_dead;
        let goes_on = move |made: usize| made < ROUNDS || !is_dead.load(Ordering::Relaxed);
        let logins = scope.spawn(move || -> Result<Vec<Tried<Vec<u8>>>> {
            let mut made = Vec::new();
            while goes_on(made.len()) {
                made.push(Tried::of(|| log_in(realm))?);
            }
            Ok(made)
        });
        let revocations = scope.spawn(move || -> Result<Vec<Tried<Revocation>>> {
            let mut made = Vec::new();
            while goes_on(made.len()) {
                made.push(Tried::of(|| revoke(realm))?);
            }
            Ok(made)
        });
        thread::sleep(Duration::from_millis(200));
        let killed = Instant::now();
        controller.kill()?;
        is_dead.store(true, Ordering::Relaxed);
        let panicked = |_| anyhow::anyhow!("a thread panicked");
        Ok((killed, logins.join().map_err(panicked)??, revocations.join().map_err(panicked)??))
    })?;
    let under_way =
        logins.iter().any(|one| one.was_under_way(killed)) || revocations.iter().any(|one| one.was_under_way(killed));
    ensure!(under_way, "nothing was under way when the Controller was killed");
    let after = logins.iter().filter(|one| one.begun > killed && one.acknowledged.is_some()).count();
    ensure!(after > 0, "nobody has logged in at the other Controller");
    let (tried, tried_to_revoke) = (logins.len(), revocations.len());
    let logins: Vec<_> = logins.into_iter().filter_map(|one| one.acknowledged).collect();
    let revocations: Vec<_> = revocations.into_iter().filter_map(|one| one.acknowledged).collect();
    // What is on its way to the one that dies may fail, once.
    ensure!(logins.len() + 1 >= tried, "{} of {tried} logins", logins.len());
    ensure!(revocations.len() + 1 >= tried_to_revoke, "{} of {tried_to_revoke} revocations", revocations.len());
    ensure!(revocations.is_sorted_by(|a, b| a.n < b.n), "numbers given twice");
    Ok(Acknowledged { logins, revocations })
}

/// Each revocation is in the audit log as the Controller has it that was not killed.
fn all_are_written_down(world: &World, revocations: &[Revocation]) -> Result<()> {
    let events: Value = serde_json::from_str(&world.admin(&["list", "audit", "--limit", "1000", "--json"])?)?;
    let events = events.as_array().context("no list of events")?;
    for Revocation { token, n } in revocations {
        let of = format!("token {token}");
        let found = events.iter().filter(|event| event["action"] == "revoke" && event["after"]["of"] == of.as_str());
        ensure!(found.count() == 1, "revocation {n}, of {of}, was acknowledged, and is not in the audit log");
    }
    Ok(())
}

/// The claims of each login are those of somebody who is logged in, and no administrator, at the Controller that was not killed.
fn all_are_logged_in(world: &World, logins: &[Vec<u8>]) -> Result<()> {
    let (stage, state) = (&world.realm.stage, world.realm.state(MALLORY).display().to_string());
    for claims in logins {
        std::fs::write(claims_of_mallory(&world.realm), claims)?;
        let asked = stage.command(stage.lab.client(MALLORY)?, &["admin", "list", "users", "--state", &state], "")?;
        let refused = asked.refused()?;
        ensure!(refused.contains("not_administrator"), "a login that was acknowledged: {refused}");
    }
    Ok(())
}

/// The machine of alice, which knew the Controller that was killed, goes on with tokens of the other one: what she had is dead.
fn alices_machine_renews(world: &World) -> Result<()> {
    let begun = Instant::now();
    world.admin(&["renew", "user", ALICE, "--grace", &GRACE.as_secs().to_string(), "--reason", "exercise"])?;
    // That nothing ends shows when what she had has ended, to the second.
    thread::sleep((GRACE + Duration::from_secs(2)).saturating_sub(begun.elapsed()));
    ensure!(world.get(ALICE, 0)?.is_ok(), "alice gets nothing once the grace is over");
    let status = world.alice()?.status()?;
    ensure!(status["last_goodbye"].is_null(), "alice's session was ended: {}", status["last_goodbye"]);
    Ok(())
}

/// What one Controller decides holds where the other's Gateway is.
fn taken_back_everywhere(world: &mut World, other: &mut Process) -> Result<()> {
    world.admin(&["revoke", "user", ALICE, "--reason", "for a test"])?;
    world.is_refused(ALICE, 0)?;
    other.stop()
}
