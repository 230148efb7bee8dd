//! Administrators of each role, with the commands that they type.

use anyhow::{Result, ensure};
use ringfort_stage::Finished;

use crate::world::{ALICE, GATEWAY, World};

fn admin(world: &World, arguments: &[&str]) -> Result<Finished> {
    let state = world.realm.state(ALICE).display().to_string();
    let arguments: Vec<&str> = ["admin"].iter().chain(arguments).chain(&["--state", &state]).copied().collect();
    world.realm.stage.command(world.realm.stage.lab.client(ALICE)?, &arguments, "")
}

pub(crate) fn an_auditor_sees_and_an_admin_changes_but_neither_makes_administrators() -> Result<()> {
    World::without_tunnel("")?.play(|world| {
        world.join_user(ALICE)?;
        world.login(ALICE)?;
        let refused = admin(world, &["list", "users"])?.refused()?;
        ensure!(refused.contains("not_administrator"), "{refused}");
        world.admin(&["user", "role", ALICE, "auditor"])?;
        let listed = admin(world, &["list", "users"])?.ok()?;
        ensure!(listed.lines().any(|line| line.starts_with(ALICE) && line.contains("auditor")), "{listed}");
        ensure!(admin(world, &["gateway", "list"])?.ok()?.contains(GATEWAY), "no Gateway is listed");
        let refused = admin(world, &["revoke", "everyone", "--reason", "why not"])?.refused()?;
        ensure!(refused.contains("role_insufficient") && refused.contains("ask an owner"), "{refused}");
        let told = admin(world, &["list", "audit", "--since", "1h", "--limit", "2", "--json"])?.ok()?;
        let told: serde_json::Value = serde_json::from_str(&told)?;
        ensure!(told.as_array().map(Vec::len) == Some(2), "{told}");
        ensure!(told[0]["outcome"] == "role_insufficient", "the newest event is her refusal: {told}");
        ensure!(told[1]["before"]["role"] == "none" && told[1]["after"]["role"] == "auditor", "{told}");
        world.admin(&["user", "role", ALICE, "admin"])?;
        admin(world, &["group", "add", "staff"])?.ok()?;
        let refused = admin(world, &["user", "role", ALICE, "owner"])?.refused()?;
        ensure!(refused.contains("role_insufficient"), "{refused}");
        let refused = world.realm.admin(&["user", "role", "operator", "none"])?.refused()?;
        ensure!(refused.contains("last owner"), "{refused}");
        world.admin(&["user", "role", ALICE, "none"])?;
        ensure!(admin(world, &["list", "users"])?.refused()?.contains("not_administrator"));
        Ok(())
    })
}
