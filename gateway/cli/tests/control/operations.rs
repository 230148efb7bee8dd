//! What an administrator asks of a Gateway from afar (K6).

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::world::{ALICE, GATEWAY, PATIENCE, World, service, sessions};

// Covers: K6 allow
// Covers: K6 refuse
pub(crate) fn a_drained_gateway_admits_nobody_new_until_it_is_over() -> Result<()> {
    World::start("")?.play(|world| {
        world.reaches(ALICE, 0)?;
        world.admin(&["gateway", "drain", GATEWAY])?;
        let drained = |status: &Value| status["admitting"].to_string().contains("draining");
        world.gateway.wait_until(PATIENCE, drained)?;
        world.reaches(ALICE, 0)?;
        ensure!(sessions(&world.gateway.status()?).len() == 1, "the live session did not go on");
        // Neither a restart nor the Controller's absence ends it, once it is on disk.
        world.gateway.wait_until(PATIENCE, |status| status["state_on_disk"] == true)?;
        world.gateway.kill()?;
        world.controller.kill()?;
        world.gateway = world.realm.gateway_begin(0, GATEWAY, "")?.ready()?;
        ensure!(drained(&world.gateway.status()?), "it was forgotten");
        let refused = |status: &Value| status["totals"]["refused_not_admitting"].as_u64() > Some(0);
        world.gateway.wait_until(PATIENCE, refused)?;
        ensure!(world.get(ALICE, 0)?.is_err(), "alice was admitted");
        world.controller = world.realm.controller_begin()?.ready()?;
        world.gateway_is_alive()?;
        let listed: Value = serde_json::from_str(&world.admin(&["gateway", "list", "--json"])?)?;
        ensure!(listed[0]["draining"] == true, "{listed}");
        world.admin(&["gateway", "drain", GATEWAY, "--off"])?;
        world.reaches(ALICE, 0)
    })
}

pub(crate) fn the_sessions_of_a_drained_gateway_are_ended_when_it_is_asked() -> Result<()> {
    World::start("")?.play(|world| {
        world.reaches(ALICE, 0)?;
        world.admin(&["gateway", "drain", GATEWAY, "--end-sessions"])?;
        world.gateway.wait_until(PATIENCE, |status| sessions(status).is_empty())?;
        let told = |status: &Value| status["last_goodbye"]["code"] == "not_admitting";
        world.alice()?.wait_until(PATIENCE, told)?;
        ensure!(world.get(ALICE, 0)?.is_err(), "alice still gets something");
        world.admin(&["gateway", "drain", GATEWAY, "--off"])?;
        world.reaches(ALICE, 0)
    })
}

// Covers: K6 allow
// Covers: K6 refuse
pub(crate) fn a_reload_brings_the_ceiling_without_dropping_anybody() -> Result<()> {
    World::start("")?.play(|world| {
        world.reaches(ALICE, 0)?;
        let file = world.realm.stage.folder().join(format!("{GATEWAY}.toml"));
        let as_it_was = std::fs::read_to_string(&file)?;
        let write = |more: &str| std::fs::write(&file, format!("{as_it_was}{more}\n"));
        let tunnel = |status: &Value| sessions(status).first().map(|session| session["session"].clone());
        let before = tunnel(&world.gateway.status()?);
        let other = service(1).ip();
        write(&format!("never_beyond = [{{ to = [\"{other}\"], services = [\"tcp/80\"] }}]"))?;
        let told = world.admin(&["gateway", "reload", GATEWAY])?;
        ensure!(told.contains("never_beyond"), "{told}");
        world.is_refused(ALICE, 0)?;
        write("mtu = 1300")?;
        let refused = world.realm.admin(&["gateway", "reload", GATEWAY])?.refused()?;
        ensure!(refused.contains("operation_failed") && refused.contains("restart"), "{refused}");
        ensure!(world.get(ALICE, 0)?.is_err(), "the old file is not in force any more");
        write("")?;
        world.admin(&["gateway", "reload", GATEWAY])?;
        world.reaches(ALICE, 0)?;
        let after = world.gateway.status()?;
        ensure!(before.is_some() && before == tunnel(&after), "another tunnel carries the session");
        let codes: Vec<&str> =
            after["operations"].as_array().into_iter().flatten().filter_map(|one| one["code"].as_str()).collect();
        ensure!(codes == ["", "reload_refused", ""], "{codes:?}");
        world.gateway.kill()?;
        world.controller.wait_until(PATIENCE, |status| status["subscribers"] == 0)?;
        let refused = world.realm.admin(&["gateway", "reload", GATEWAY])?.refused()?;
        ensure!(refused.contains("gateway_unreachable"), "{refused}");
        Ok(())
    })
}

pub(crate) fn a_gateway_logs_as_it_is_told() -> Result<()> {
    World::without_tunnel("")?.play(|world| {
        ensure!(!world.gateway.log_text().contains("DEBUG"), "it logs everything from the start");
        world.admin(&["gateway", "log-level", GATEWAY, "debug"])?;
        world.join_user(ALICE)?;
        world.login(ALICE)?;
        world.alice = Some(world.up(ALICE)?);
        world.reaches(ALICE, 0)?;
        ensure!(world.gateway.log_text().contains("DEBUG"), "it logs as before");
        let refused = world.realm.admin(&["gateway", "log-level", GATEWAY, "loud=very"])?.refused()?;
        ensure!(refused.contains("log_level_malformed"), "{refused}");
        Ok(())
    })
}
