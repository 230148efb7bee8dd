//! Tokens that live for a minute: whoever renews does not notice, whoever cannot ends when it was told (A24).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::changes::flow_to;
use crate::world::{ALICE, GATEWAY, MALLORY, PATIENCE, PAYROLL, World, service, sessions};

/// The shortest login that a Controller can be told to give, in seconds.
const LOGIN_SECONDS: u64 = 60;
/// One life and then some.
const LIFE: Duration = Duration::from_secs(LOGIN_SECONDS + 30);

/// The world, whose logins last a minute from now on.
fn world() -> Result<World> {
    let mut world = World::without_tunnel("")?;
    world.controller.stop()?;
    let file = world.realm.state("controller").join("controller.toml");
    let (was, is) = ("login_seconds = 43200", format!("login_seconds = {LOGIN_SECONDS}"));
    let text = std::fs::read_to_string(&file)?;
    ensure!(text.contains(was), "{text}");
    std::fs::write(&file, text.replace(was, &is))?;
    world.controller = world.realm.controller_begin()?.ready()?;
    world.gateway_is_alive()?;
    Ok(world)
}

/// When the only session ends, by the Gateway's clock, and its tunnel.
fn session(status: &Value) -> Option<(u64, Value)> {
    let [session] = sessions(status) else { return None };
    Some((session["ends_at"].as_u64()?, session["session"].clone()))
}

fn time(status: &Value) -> u64 {
    status["controller"]["time"].as_u64().unwrap_or_default()
}

/// A service renews by its certificate, again and again. A thousand packets a second pass in each direction over the end of what
/// it began with.
// Covers: A24 allow
pub(crate) fn packets_flow_over_the_end_of_the_tokens_that_began_them() -> Result<()> {
    world()?.play(|world| {
        let to = SocketAddr::new(service(0).ip(), 7_000);
        world.admin(&["resource", "add", "flow", "--site", "berlin", "--to", "10.98.0.10", "--service", "udp/7000"])?;
        world.admin(&["service", "add", MALLORY])?;
        world.admin(&["entitle", "flow", "--user", MALLORY])?;
        let line = world.realm.invite(&["service", MALLORY])?;
        world.realm.join(MALLORY, world.realm.stage.lab.client(MALLORY)?, &line)?.ok()?;
        let _service = world.up(MALLORY)?;
        let flow = flow_to(world, MALLORY, to)?;
        let (first_end, tunnel) = session(&world.gateway.status()?).context("no session")?;
        let status = world.gateway.wait_until(LIFE, |status| time(status) > first_end + 2)?;
        let (end, same) = session(&status).context("the session ended")?;
        ensure!(
            end > first_end + LOGIN_SECONDS / 2 && same == tunnel,
            "{first_end}, then {end}; {tunnel}, then {same}"
        );
        ensure!((flow.up().missing(), flow.down().missing()) == (0, 0), "packets were lost");
        ensure!(flow.up().received() > LOGIN_SECONDS * 900, "the flow stood still: {}", flow.up().received());
        Ok(())
    })
}

/// Seconds before the end of her login at which alice logs in again.
const IN_TIME: u64 = 25;

/// She logs in again while her client runs. It goes on with the certificate and the tokens that this brought, through a tunnel made
/// beside the one in use, over the end of everything that it began with. Of a thousand packets a second that she sends none is lost.
/// What comes down meets a new session, to which its flow is unknown until she has sent something of it: that is some milliseconds'
/// worth. What is pushed later brings nothing of the first login back. Nobody renews the second one: it ends.
// Covers: A24 refuse
pub(crate) fn packets_flow_over_the_end_of_the_certificate_that_began_them() -> Result<()> {
    world()?.play(|world| {
        let to = SocketAddr::new(service(0).ip(), 7_000);
        world.admin(&["resource", "add", "flow", "--site", "berlin", "--to", "10.98.0.10", "--service", "udp/7000"])?;
        world.admin(&["entitle", "flow", "--user", ALICE])?;
        world.join_user(ALICE)?;
        world.login(ALICE)?;
        world.alice = Some(world.up(ALICE)?);
        let flow = flow_to(world, ALICE, to)?;
        let certificate = |status: &Value| status["certificate_ends_at"].as_u64();
        let (first_end, tunnel) = session(&world.gateway.status()?).context("no session")?;
        let first = certificate(&world.alice()?.status()?);
        ensure!(first == Some(first_end), "her certificate ends at {first:?}, her session at {first_end}");
        world.gateway.wait_until(LIFE, |status| time(status) + IN_TIME > first_end)?;

        let claims = || std::fs::read_to_string(world.realm.state(ALICE).join("claims.jwt"));
        let before = claims()?;
        world.login(ALICE)?;
        let status = world.alice()?.wait_until(PATIENCE, |status| certificate(status) > first)?;
        ensure!(status["login_ends_at"].as_u64() == certificate(&status), "{status}");
        let moved = |status: &Value| session(status).is_some_and(|(end, now)| now != tunnel && end > first_end);
        let status = world.gateway.wait_until(PATIENCE, moved)?;
        let (second_end, _) = session(&status).context("no session")?;

        world.gateway.wait_until(LIFE, |status| time(status) > first_end + 5)?;
        let (begun, came_down) = (Instant::now(), flow.down().received());
        while flow.up().missing() != 0 || flow.down().received() < came_down + 1_000 {
            // What is on its way is missing for a moment, what was lost for ever.
            ensure!(begun.elapsed() < PATIENCE, "lost: {} up, {} down", flow.up().missing(), flow.down().missing());
            std::thread::sleep(Duration::from_millis(1));
        }
        ensure!(flow.up().received() > (LOGIN_SECONDS - IN_TIME) * 900, "the flow stood still");
        let status = world.alice()?.status()?;
        ensure!(status["up"] == true && status["last_goodbye"].is_null(), "she was sent away: {status}");
        // The Gateway passes news on to her, which she stores beside what the login brought.
        world.admin(&["entitle", PAYROLL, "--user", ALICE])?;
        world.reaches(ALICE, 1)?;
        ensure!(claims()? != before, "what the login brought was overwritten");

        let ended = world.gateway.wait_until(LIFE, |status| sessions(status).is_empty())?;
        ensure!((second_end..=second_end + 10).contains(&(time(&ended) + 1)), "ended at {}", time(&ended));
        let status = world.alice()?.wait_until(PATIENCE, |status| !status["last_goodbye"].is_null())?;
        ensure!(status["last_goodbye"]["code"] == "expired", "{}", status["last_goodbye"]);
        ensure!(world.get(ALICE, 0)?.is_err(), "alice still gets something");
        Ok(())
    })
}

/// A login by password is not prolonged: the client asks when it is told to, and the session ends at the time that was told.
///
/// It has asked by itself before, at two thirds of its life, and would not again for half a minute, when the session is over. So what
/// follows the Gateway's word follows from it.
// Covers: A24 allow
// Covers: A24 refuse
pub(crate) fn who_cannot_renew_ends_at_the_time_that_was_told() -> Result<()> {
    world()?.play(|world| {
        world.join_user(ALICE)?;
        world.login(ALICE)?;
        world.alice = Some(world.up(ALICE)?);
        world.reaches(ALICE, 0)?;
        let (end, _) = session(&world.gateway.status()?).context("no session")?;
        let told = world.alice()?.status()?["sites"][0]["ends_at"].as_u64();
        ensure!(told == Some(end), "the client was told {told:?}, expected {end}");
        let claims = || std::fs::read_to_string(world.realm.state(ALICE).join("claims.jwt"));
        let (first, begun) = (claims()?, Instant::now());
        let mut untold = first.clone();
        loop {
            let held = claims()?;
            match world.alice()?.status()?["told_to_renew"].as_u64() {
                Some(0) => untold = held,
                Some(1) => break,
                told => bail!("the client was told to renew {told:?} times"),
            }
            ensure!(begun.elapsed() < LIFE, "the Gateway has not told that the session ends");
            std::thread::sleep(Duration::from_millis(20));
        }
        ensure!(untold != first, "the client has not asked by itself");
        while claims()? == untold {
            ensure!(begun.elapsed() < LIFE, "the client has not done as it was told");
            std::thread::sleep(Duration::from_millis(20));
        }
        let ended = world.gateway.wait_until(LIFE, |status| sessions(status).is_empty())?;
        ensure!(time(&ended) + 1 >= end, "it ended {} s too early", end.saturating_sub(time(&ended)));
        ensure!(time(&ended) <= end + 10, "it ended {} s too late", time(&ended) - end);
        ensure!(ended["totals"]["refused_expired"] == 1, "{}", ended["totals"]);
        let status = world.alice()?.wait_until(PATIENCE, |status| !status["last_goodbye"].is_null())?;
        ensure!(status["last_goodbye"]["code"] == "expired", "{}", status["last_goodbye"]);
        ensure!(world.get(ALICE, 0)?.is_err(), "alice still gets something");
        Ok(())
    })
}

/// What listens in the Gateway's namespace, from `/proc/net`.
fn listening(world: &World) -> Result<Vec<String>> {
    let lab = &world.realm.stage.lab;
    let read = || -> Result<Vec<String>> {
        let mut found = Vec::new();
        for (table, waits) in [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")] {
            let text = std::fs::read_to_string(format!("/proc/thread-self/net/{table}"))?;
            let rows = text.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
            let rows = rows.filter(|row| row.get(3) == Some(&waits));
            found.extend(rows.filter_map(|row| Some(format!("{table} {}", row.get(1)?))));
        }
        Ok(found)
    };
    lab.run_in(lab.gateway(), read)?
}

/// A Gateway that has joined starts without a Controller and without anybody at its keyboard. Nothing listens until it has reached
/// its Controller: whatever comes in is refused by the kernel, and it becomes alive all the same. From then on there is the one
/// port of its clients, over UDP and TCP.
// Covers: R5 allow
// Covers: R5 refuse
pub(crate) fn a_gateway_dials_out_and_needs_no_inbound_port() -> Result<()> {
    World::without_tunnel("")?.play(|world| {
        world.gateway.stop()?;
        world.controller.stop()?;
        // As it was when it had just joined.
        std::fs::remove_file(world.realm.state(GATEWAY).join("configuration.jwt"))?;
        world.gateway = world.realm.gateway_begin(0, GATEWAY, "")?.unready();
        let waits = |status: &Value| status["admitting"].to_string().contains("no configuration");
        let begun = Instant::now();
        while !world.gateway.status().is_ok_and(|status| waits(&status)) {
            ensure!(begun.elapsed() < PATIENCE, "the Gateway does not wait for its Controller");
            std::thread::sleep(Duration::from_millis(20));
        }
        // It cannot dial: it serves nobody, listens nowhere, and goes on trying.
        ensure!(listening(world)?.is_empty(), "something listens: {:?}", listening(world)?);
        let tried = |text: &str| text.matches("trying again").count();
        let before = tried(&world.gateway.log_text());
        let begun = Instant::now();
        while tried(&world.gateway.log_text()) < before + 2 {
            ensure!(begun.elapsed() < PATIENCE, "it has given up");
            std::thread::sleep(Duration::from_millis(20));
        }
        ensure!(listening(world)?.is_empty(), "something listens: {:?}", listening(world)?);
        // It can: it is alive by its own doing, and then listens for clients and for nobody else.
        world.controller = world.realm.controller_begin()?.ready()?;
        world.gateway_is_alive()?;
        world.gateway.wait_until(PATIENCE, |status| status["admitting"] == "yes")?;
        let begun = Instant::now();
        while listening(world)?.is_empty() {
            ensure!(begun.elapsed() < PATIENCE, "it serves no clients");
            std::thread::sleep(Duration::from_millis(20));
        }
        let port = format!(":{:04X}", world.realm.gateway_address(0).port());
        let other: Vec<_> = listening(world)?.into_iter().filter(|one| !one.contains(&port)).collect();
        ensure!(other.is_empty(), "besides the clients' port there is {other:?}");
        world.join_user(ALICE)?;
        world.login(ALICE)?;
        world.alice = Some(world.up(ALICE)?);
        world.reaches(ALICE, 0)
    })
}
