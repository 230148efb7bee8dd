//! Service accounts: a program's machine that logs in by its certificate.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::world::{ALICE, MALLORY, PATIENCE, WIKI, World};

/// A service on mallory's machine, which has joined and may reach the wiki.
fn joined(world: &World) -> Result<()> {
    world.admin(&["service", "add", MALLORY])?;
    world.admin(&["entitle", WIKI, "--user", MALLORY])?;
    let line = world.realm.invite(&["service", MALLORY])?;
    world.realm.join(MALLORY, world.realm.stage.lab.client(MALLORY)?, &line)?.ok().map(drop)
}

// Covers: X12 allow
// Covers: X12 refuse
pub(crate) fn a_service_comes_up_without_a_login() -> Result<()> {
    World::without_tunnel("")?.play(|world| {
        joined(world)?;
        let service = world.up(MALLORY)?;
        world.reaches(MALLORY, 0)?;
        ensure!(world.get(MALLORY, 1)?.is_err(), "it reaches what it was not entitled to");
        // It renews by itself: its certificate is a new login, and the tunnel stays.
        let claims = world.realm.state(MALLORY).join("claims.jwt");
        let before = std::fs::read_to_string(&claims)?;
        world.admin(&["renew", "user", MALLORY, "--grace", "20"])?;
        let begun = Instant::now();
        while std::fs::read_to_string(&claims)? == before {
            ensure!(begun.elapsed() < PATIENCE, "the service did not renew");
            std::thread::sleep(Duration::from_millis(20));
        }
        world.reaches(MALLORY, 0)?;
        // Disabled it loses the tunnel at once, and gets no other.
        world.admin(&["user", "disable", MALLORY])?;
        world.is_refused(MALLORY, 0)?;
        drop(service);
        ensure!(world.up(MALLORY).is_err(), "a disabled service came up");
        // Enabled again it needs a new key: its own stays dead.
        world.admin(&["user", "enable", MALLORY])?;
        ensure!(world.up(MALLORY).is_err(), "a service came up with a key that was denied");
        std::fs::remove_dir_all(world.realm.state(MALLORY))?;
        let line = world.realm.invite(&["service", MALLORY])?;
        world.realm.join(MALLORY, world.realm.stage.lab.client(MALLORY)?, &line)?.ok()?;
        let _service = world.up(MALLORY)?;
        world.reaches(MALLORY, 0)
    })
}

// Covers: X12 refuse
pub(crate) fn nobody_logs_in_as_a_service() -> Result<()> {
    World::without_tunnel("")?.play(|world| {
        joined(world)?;
        // With its folder, and with one of one's own.
        let refused = world.realm.login(MALLORY)?.refused()?;
        ensure!(refused.contains("a Service"), "{refused}");
        world.join_user(ALICE)?;
        let state = world.realm.state(ALICE).display().to_string();
        let arguments = ["login", "--user", MALLORY, "--password-stdin", "--state", &state];
        let lab = &world.realm.stage.lab;
        let refused = world.realm.stage.command(lab.client(ALICE)?, &arguments, "any password\n")?;
        let refused = refused.refused()?;
        ensure!(refused.contains("login_refused"), "{refused}");
        Ok(())
    })
}
