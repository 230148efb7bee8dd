//! Policy as code, with the commands that an administrator types.

use anyhow::{Context, Result, ensure};

use crate::world::{ALICE, SITE, World};

pub(crate) fn a_policy_is_exported_changed_and_applied() -> Result<()> {
    World::start("")?.play(|world| {
        world.reaches(ALICE, 0)?;
        let exported = world.admin(&["export"])?;
        let place = world.realm.state("policy");
        std::fs::create_dir_all(&place)?;
        let file = place.join("policy.toml");
        let path = file.to_str().context("a path in UTF-8")?;
        std::fs::write(&file, &exported)?;
        world.admin(&["lint", "-f", path])?;
        ensure!(world.admin(&["apply", "-f", path])?.contains("is in force"), "what is exported is in force");

        // Nobody has anything: alice's packets are denied at once.
        let mut policy: toml::Table = toml::from_str(&exported)?;
        let resources = policy["resources"].as_table_mut().context("no Resources")?;
        for (_, resource) in resources.iter_mut() {
            resource.as_table_mut().context("a table")?.retain(|name, _| name != "users" && name != "groups");
        }
        std::fs::write(&file, toml::to_string(&policy)?)?;
        let shown = world.admin(&["apply", "-f", path, "--plan"])?;
        ensure!(shown.lines().any(|line| line.starts_with("- resource") && line.ends_with(ALICE)), "{shown}");
        world.reaches(ALICE, 0)?;
        let refused = world.realm.admin(&["apply", "-f", path])?.refused()?;
        ensure!(refused.contains("--yes"), "{refused}");
        world.reaches(ALICE, 0)?;
        world.admin(&["apply", "-f", path, "--yes"])?;
        ensure!(world.get(ALICE, 0)?.is_err(), "alice reaches what was taken back");
        std::fs::write(&file, &exported)?;
        world.admin(&["apply", "-f", path, "--yes"])?;
        world.reaches(ALICE, 0)?;

        std::fs::write(&file, exported.replace(&format!("site = \"{SITE}\""), "site = \"nowhere\""))?;
        for command in ["lint", "apply"] {
            let refused = world.realm.admin(&[command, "-f", path])?.refused()?;
            ensure!(refused.contains("error"), "{command}: {refused}");
        }
        std::fs::write(&file, "[resource.wiki]")?;
        let refused = world.realm.admin(&["lint", "-f", path])?.refused()?;
        ensure!(refused.contains("expected a policy") && refused.contains("resource"), "{refused}");
        Ok(())
    })
}
