//! Processes that are killed, stopped and started again, in the middle of everything.

use std::time::Duration;

use anyhow::{Result, ensure};
use ringfort_stage::hostile::{self, Refused};
use serde_json::Value;

use crate::world::{ALICE, GATEWAY, MALLORY, PATIENCE, PAYROLL, WIKI, World, sessions};

pub(crate) fn a_controller_that_was_killed_loses_nothing() -> Result<()> {
    World::start("")?.play(|world| {
        world.controller.kill()?;
        world.reaches(ALICE, 0)?;
        ensure!(world.realm.admin(&["entitle", PAYROLL, "--user", ALICE])?.refused().is_ok());
        world.controller = world.realm.controller_begin()?.ready()?;
        world.gateway_is_alive()?;
        world.admin(&["entitle", PAYROLL, "--user", ALICE])?;
        world.reaches(ALICE, 1)?;
        world.admin(&["revoke", "user", ALICE, "--reason", "restart"])?;
        world.is_refused(ALICE, 0)
    })
}

// Covers: R12 refuse
pub(crate) fn a_gateway_that_was_killed_refuses_what_it_refused_before() -> Result<()> {
    World::start("")?.play(|world| {
        world.admin(&["revoke", "user", ALICE, "--reason", "left the company"])?;
        world.is_refused(ALICE, 0)?;
        world.alice = None;
        // In force at once, and on disk a moment later: only then the Controller hears that it will last.
        world.gateway.wait_until(PATIENCE, |status| status["state_on_disk"] == true)?;
        world.gateway.kill()?;
        // Nobody is there to tell it again.
        world.controller.kill()?;
        world.gateway = world.realm.gateway_begin(0, GATEWAY, "")?.ready()?;
        let status = world.gateway.status()?;
        ensure!(status["revocations"]["n"].as_u64() > Some(0), "it has forgotten its revocations");
        let before = status["totals"]["refused_token_revoked"].as_u64();
        let refused = present_what_she_has(world)?;
        ensure!(refused.code == "token_revoked", "{refused:?}");
        let after = world.gateway.status()?["totals"]["refused_token_revoked"].as_u64();
        ensure!(after == before.map(|count| count + 1), "counted {before:?}, then {after:?}");
        Ok(())
    })
}

/// What the Gateway refuses alice with when she shows it the tokens in her folder.
pub(crate) fn present_what_she_has(world: &World) -> Result<Refused> {
    present(world, ALICE)
}

fn present(world: &World, user: &str) -> Result<Refused> {
    let folder = world.realm.state(user);
    let claims = std::fs::read_to_string(folder.join("claims.jwt"))?;
    let entitlement = std::fs::read_dir(&folder)?
        .filter_map(Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().starts_with("entitlement-"))
        .map(|entry| std::fs::read_to_string(entry.path()))
        .transpose()?
        .unwrap_or_default();
    let (lab, to) = (&world.realm.stage.lab, world.realm.gateway_address(0));
    lab.run_in(lab.client(user)?, || hostile::present(&folder, to, &claims, &entitlement))?
}

// Covers: X14 allow
pub(crate) fn a_gateway_goes_on_without_its_controller() -> Result<()> {
    World::start("")?.play(|world| {
        world.controller.kill()?;
        world.gateway.kill()?;
        world.gateway = world.realm.gateway_begin(0, GATEWAY, "")?.ready()?;
        // The client comes back by itself, with the tokens that it has.
        world.reaches(ALICE, 0)?;
        world.is_refused(ALICE, 1)
    })
}

/// The shortest time that a site's file may say. A Controller signs a configuration every minute, and the time counts from the newest.
const NO_NEW_SESSIONS_AFTER: u64 = 120;

/// Cut off, the Gateway admits whoever has signed tokens for as long as its site allows, well within the Controller's lease of 15
/// minutes, and then nobody new. Who is in goes on.
// Covers: X14 allow
// Covers: X14 refuse
pub(crate) fn nobody_new_is_admitted_long_after_the_last_word_of_the_controller() -> Result<()> {
    World::start(&format!("no_new_sessions_after = {NO_NEW_SESSIONS_AFTER}"))?.play(|world| {
        world.realm.add_user(MALLORY)?;
        world.admin(&["entitle", WIKI, "--user", MALLORY])?;
        world.join_user(MALLORY)?;
        world.login(MALLORY)?;
        let mut mallory = world.up(MALLORY)?;
        world.reaches(MALLORY, 0)?;
        mallory.stop()?;
        world.gateway.wait_until(PATIENCE, |status| sessions(status).len() == 1)?;
        world.controller.kill()?;
        // Her tokens are enough: nobody is there to ask.
        let mut mallory = world.up(MALLORY)?;
        world.reaches(MALLORY, 0)?;
        world.is_refused(MALLORY, 1)?;
        mallory.stop()?;
        let before = world.gateway.wait_until(PATIENCE, |status| sessions(status).len() == 1)?;
        ensure!(before["admitting"] == "yes", "{}", before["admitting"]);
        let patience = PATIENCE + Duration::from_secs(NO_NEW_SESSIONS_AFTER);
        let over = world.gateway.wait_until(patience, |status| status["admitting"] != "yes")?;
        let refused = present(world, MALLORY)?;
        ensure!(refused.code == "not_admitting", "{refused:?}");
        // Alice's session is the one that it was, and carries what its rules allow.
        let session = |status: &Value| sessions(status).first().map(|session| session["session"].clone());
        ensure!(sessions(&over).len() == 1 && session(&over) == session(&before), "{over}");
        let got = world.get(ALICE, 0)?;
        ensure!(got.is_ok(), "alice gets nothing any more: {got:?}");
        ensure!(world.get(ALICE, 1)?.is_err(), "alice gets what she is not entitled to");
        // With the Controller's next word it admits again.
        world.controller = world.realm.controller_begin()?.ready()?;
        world.gateway.wait_until(PATIENCE, |status| status["admitting"] == "yes")?;
        let _mallory = world.up(MALLORY)?;
        world.reaches(MALLORY, 0)
    })
}

pub(crate) fn a_client_that_was_killed_comes_back() -> Result<()> {
    World::start("")?.play(|world| {
        if let Some(alice) = &mut world.alice {
            alice.kill()?;
        }
        world.alice = Some(world.up(ALICE)?);
        world.reaches(ALICE, 0)?;
        world.gateway.wait_until(PATIENCE, |status| sessions(status).len() == 1).map(drop)
    })
}

pub(crate) fn everything_ends_when_it_is_asked_to() -> Result<()> {
    World::start("")?.play(|world| {
        let state = world.realm.state(ALICE).display().to_string();
        let lab = &world.realm.stage.lab;
        world.realm.stage.command(lab.client(ALICE)?, &["down", "--state", &state], "")?.ok()?;
        world.gateway.wait_until(PATIENCE, |status| sessions(status).is_empty())?;
        if let Some(mut alice) = world.alice.take() {
            alice.stop()?;
        }
        world.gateway.stop()?;
        world.controller.stop()
    })
}
