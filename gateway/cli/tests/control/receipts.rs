//! What the administrator is told of what was taken back: who has applied it, and until when a silent Gateway goes on.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::restart::present_what_she_has;
use crate::world::{ALICE, GATEWAY, PATIENCE, World, sessions};

// Covers: X6 allow
pub(crate) fn a_revocation_is_confirmed_with_its_milliseconds() -> Result<()> {
    World::start("")?.play(|world| {
        world.reaches(ALICE, 0)?;
        let told = world.admin(&["revoke", "user", ALICE, "--reason", "left the company", "--wait"])?;
        let took = told.split_once("1/1 gateways in ").and_then(|(_, rest)| rest.split_once(" ms"));
        let took: u64 = took.map(|(took, _)| took.parse()).transpose()?.unwrap_or(u64::MAX);
        ensure!(took < PATIENCE.as_millis() as u64, "{told}");
        ensure!(told.contains(&format!("{GATEWAY} (berlin): ")), "{told}");
        // Confirmed is in force: nothing is waited for.
        ensure!(sessions(&world.gateway.status()?).is_empty(), "the session is still there");
        ensure!(world.get(ALICE, 0)?.is_err(), "alice still gets something");
        let told = world.admin(&["renew", "user", ALICE, "--wait=5", "--json"])?;
        let told: serde_json::Value = serde_json::from_str(&told)?;
        ensure!(told["receipts"]["gateways"][0]["done"] == true, "{told}");
        ensure!(told["receipts"]["serial"] == told["serial"], "{told}");
        let listed = world.admin(&["gateway", "list", "--json"])?;
        let listed: serde_json::Value = serde_json::from_str(&listed)?;
        ensure!(listed[0]["applied"] == told["serial"] && listed[0]["connected"] == true, "{listed}");
        Ok(())
    })
}

// Covers: X6 refuse
pub(crate) fn a_silent_gateway_is_named_with_the_end_of_its_sessions() -> Result<()> {
    World::start("")?.play(|world| {
        world.reaches(ALICE, 0)?;
        world.gateway.kill()?;
        let refused = world.realm.admin(&["revoke", "user", ALICE, "--reason", "left", "--wait=1"])?;
        let (shown, complaint) = (refused.stdout.clone(), refused.refused()?);
        ensure!(shown.contains(&format!("0/1 gateways; {GATEWAY} silent, its sessions end at ")), "{shown}");
        ensure!(complaint.contains("have not confirmed"), "{complaint}");
        // It was revoked all the same: the Gateway hears of it when it is back.
        world.gateway = world.realm.gateway_begin(0, GATEWAY, "")?.ready()?;
        world.gateway_is_alive()?;
        world.is_refused(ALICE, 0)?;
        let told = world.admin(&["renew", "everyone", "--wait"])?;
        ensure!(told.contains("1/1 gateways"), "{told}");
        Ok(())
    })
}

/// Nothing comes to the Gateway's disk: what was taken back is in force and is not confirmed, neither on the stream that brought it nor
/// on the next one, until it would outlast a restart.
// Covers: X6 refuse
pub(crate) fn what_is_not_on_disk_is_not_confirmed() -> Result<()> {
    World::start("")?.play(|world| {
        world.reaches(ALICE, 0)?;
        // A folder in the file's place: not even root can write over it.
        let file = world.realm.state(GATEWAY).join("revocations.json");
        if file.exists() {
            std::fs::remove_file(&file)?;
        }
        std::fs::create_dir_all(file.join("in the way"))?;
        let refused = world.realm.admin(&["revoke", "user", ALICE, "--reason", "left", "--wait=1"])?;
        let (shown, complaint) = (refused.stdout.clone(), refused.refused()?);
        ensure!(shown.contains("0/1 gateways") && complaint.contains("have not confirmed"), "{shown}{complaint}");
        world.is_refused(ALICE, 0)?;
        let revoked = world.gateway.status()?["revocations"].clone();
        ensure!(revoked["n"].as_u64() > Some(0), "{revoked}");

        let connected = |is| move |status: &Value| status["controller"]["connected"] == is;
        world.controller.kill()?;
        world.gateway.wait_until(PATIENCE, connected(false))?;
        world.controller = world.realm.controller_begin()?.ready()?;
        // It has caught up, so its hello was heard.
        world.gateway.wait_until(PATIENCE, connected(true))?;
        let serial = format!("{}/{}", revoked["epoch"], revoked["n"]);
        let applied = || -> Result<Value> {
            let listed: Value = serde_json::from_str(&world.admin(&["gateway", "list", "--json"])?)?;
            Ok(listed[0]["applied"].clone())
        };
        ensure!(applied()? != serial.as_str(), "confirmed, and not on disk");
        ensure!(world.gateway.status()?["revocations"] == revoked, "not in force any more");

        std::fs::remove_dir_all(&file)?;
        world.gateway.wait_until(PATIENCE, |status| status["state_on_disk"] == true)?;
        let begun = Instant::now();
        while applied()? != serial.as_str() {
            ensure!(begun.elapsed() < PATIENCE, "on disk, and never confirmed");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    })
}

// Covers: A23 refuse
pub(crate) fn a_group_is_revoked_in_one_decision() -> Result<()> {
    World::start("")?.play(|world| {
        world.reaches(ALICE, 0)?;
        world.admin(&["group", "add", "accountants"])?;
        world.admin(&["group", "member", "add", "accountants", ALICE])?;
        let told = world.admin(&["revoke", "group", "accountants", "--reason", "the project is over", "--wait"])?;
        ensure!(told.contains("1/1 gateways in "), "{told}");
        ensure!(world.get(ALICE, 0)?.is_err(), "a member of the group still gets something");
        let told = world.alice()?.wait_until(PATIENCE, |status| !status["last_goodbye"].is_null())?;
        ensure!(told["last_goodbye"].to_string().contains("the project is over"), "{}", told["last_goodbye"]);
        Ok(())
    })
}

pub(crate) fn a_removed_gateway_is_nowhere_any_more() -> Result<()> {
    World::start("")?.play(|world| {
        world.reaches(ALICE, 0)?;
        world.admin(&["gateway", "remove", GATEWAY])?;
        // It hears of it where it asks, and its users are told.
        world.gateway.wait_until(PATIENCE, |status| status["admitting"].to_string().contains("removed"))?;
        world.is_refused(ALICE, 0)?;
        // First that it stops, and whenever her machine tries again that it is no Gateway any more.
        let told = |status: &serde_json::Value| status["last_goodbye"]["code"] == "not_admitting";
        world.alice()?.wait_until(PATIENCE, told)?;
        let status = world.controller.wait_until(PATIENCE, |status| status["subscribers"] == 0)?;
        ensure!(status["gateways"] == serde_json::json!([]), "{}", status["gateways"]);
        ensure!(status["totals"]["refused_certificate_revoked"].as_u64() > Some(0), "nobody was refused");
        // Started anew it is refused as before, and admits nobody.
        world.gateway.kill()?;
        let before = world.controller.counter("refused_certificate_revoked")?;
        world.gateway = world.realm.gateway_begin(0, GATEWAY, "")?.ready()?;
        world.gateway.wait_until(PATIENCE, |status| status["admitting"].to_string().contains("removed"))?;
        ensure!(world.controller.counter("refused_certificate_revoked")? > before, "it was not refused again");
        ensure!(world.get(ALICE, 0)?.is_err(), "alice gets something by a Gateway that was removed");
        let again = world.realm.admin(&["gateway", "remove", GATEWAY])?.refused()?;
        ensure!(again.contains("not_found"), "{again}");
        // And it knows by itself, with nobody there to tell it.
        world.gateway.wait_until(PATIENCE, |status| status["state_on_disk"] == true)?;
        world.gateway.kill()?;
        world.controller.kill()?;
        world.gateway = world.realm.gateway_begin(0, GATEWAY, "")?.ready()?;
        let status = world.gateway.status()?;
        ensure!(status["admitting"].to_string().contains("removed"), "{}", status["admitting"]);
        let refused = present_what_she_has(world)?;
        ensure!(refused.code == "not_admitting", "{refused:?}");
        Ok(())
    })
}
