//! What bounds a user's rules beside their own token: the site's ceiling, and the site's allow-list.

use anyhow::{Result, ensure};
use ringfort_stage::hostile;
use ringfort_token::GatewayConfiguration;
use serde_json::Value;

use crate::world::{ALICE, GATEWAY, PATIENCE, PAYROLL, World, service, sessions};

// Covers: C19 refuse
// Covers: R9 refuse
pub(crate) fn the_local_ceiling_holds_whatever_is_granted() -> Result<()> {
    let wiki = service(0).ip();
    World::start(&format!("never_beyond = [{{ to = [\"{wiki}\"], services = [\"tcp/80\"] }}]"))?.play(|world| {
        let seq = |status: &Value| sessions(status).first().and_then(|session| session["seq"].as_u64());
        let granted = seq(&world.gateway.status()?);
        world.admin(&["entitle", PAYROLL, "--user", ALICE])?;
        // Until the grant is there, it is refused for want of it.
        world.gateway.wait_until(PATIENCE, |status| seq(status) > granted)?;
        world.reaches(ALICE, 0)?;
        // What the Gateway passed on becomes a route.
        let payroll = format!("{}/32", service(1).ip());
        let routed = |status: &Value| {
            status["sites"][0]["routes"].as_array().is_some_and(|routes| routes.iter().any(|route| *route == *payroll))
        };
        world.alice()?.wait_until(PATIENCE, routed)?;
        let before = world.gateway.counter("packets_denied")?;
        ensure!(world.get(ALICE, 1)?.is_err(), "a grant went beyond the ceiling");
        ensure!(world.gateway.counter("packets_denied")? > before, "the packet did not come as far as the Gateway");
        Ok(())
    })
}

// Covers: R8 allow
// Covers: R7 allow
pub(crate) fn the_allow_list_has_the_sites_resources_and_no_others() -> Result<()> {
    World::start("")?.play(|world| {
        // The address is at this site, the Resource is said to be at another.
        world.admin(&["site", "add", "lisbon", "--pool", "10.121.0.1/16"])?;
        let to = service(1).ip().to_string();
        world.admin(&["resource", "add", "elsewhere", "--site", "lisbon", "--to", &to, "--service", "tcp/8080"])?;
        world.admin(&["entitle", "elsewhere", "--user", ALICE])?;
        world.reaches(ALICE, 0)?;
        let text = std::fs::read_to_string(world.realm.state(GATEWAY).join("configuration.jwt"))?;
        let configuration: GatewayConfiguration = hostile::said(text.trim())?;
        let mut names: Vec<&str> = configuration.allow.iter().map(|grant| grant.name.as_str()).collect();
        names.sort_unstable();
        ensure!(names == ["payroll", "wiki"], "the allow-list has {names:?}");
        Ok(())
    })
}
