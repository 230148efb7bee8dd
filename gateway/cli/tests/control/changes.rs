//! What the administrator changes, and how soon and how far it reaches.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use ringfort_netlab::pace::Flow;
use serde_json::Value;

use crate::world::{ALICE, PATIENCE, PAYROLL, SITE, WIKI, World, service, sessions};

/// Attempts to reach something until the Gateway is seen to deny it, and the pause between two.
const TRIES_MAX: u32 = 100;
const TRY_AGAIN: Duration = Duration::from_millis(100);

// Covers: K5 allow
// Covers: A21 allow
pub(crate) fn a_grant_reaches_a_live_session() -> Result<()> {
    World::start("")?.play(|world| {
        let before = world.gateway.status()?;
        world.reaches(ALICE, 0)?;
        world.is_refused(ALICE, 1)?;
        world.admin(&["entitle", PAYROLL, "--user", ALICE])?;
        world.reaches(ALICE, 1)?;
        let after = world.gateway.status()?;
        let tunnel = |status: &Value| sessions(status).first().map(|session| session["session"].clone());
        ensure!(tunnel(&before) == tunnel(&after), "another tunnel carries the session");
        Ok(())
    })
}

// Covers: K5 refuse
// Covers: A13 refuse
pub(crate) fn what_is_taken_back_is_refused_at_once() -> Result<()> {
    World::start("")?.play(|world| {
        // Something else at the same host stays, so that the client goes on sending there and the Gateway has to say no.
        let host = service(0).ip().to_string();
        world.admin(&["resource", "add", "other", "--site", SITE, "--to", &host, "--service", "tcp/81"])?;
        world.admin(&["entitle", "other", "--user", ALICE])?;
        world.reaches(ALICE, 0)?;
        world.admin(&["unentitle", WIKI, "--user", ALICE])?;
        world.is_refused(ALICE, 0)?;
        let destination = format!("tcp/{}", service(0));
        let denied = |status: &Value| {
            let denials = status["denials"].as_array().map(Vec::as_slice).unwrap_or_default();
            denials.iter().any(|denial| denial["destination"] == destination.as_str())
        };
        // The first refusal may be of the client's own making, while it sets its routes anew.
        for _ in 0..TRIES_MAX {
            ensure!(world.get(ALICE, 0)?.is_err(), "alice reaches what was taken back");
            if denied(&world.gateway.status()?) {
                return Ok(());
            }
            std::thread::sleep(TRY_AGAIN);
        }
        bail!("the Gateway has not denied anything")
    })
}

pub(crate) fn groups_grant_and_take_back() -> Result<()> {
    World::start("")?.play(|world| {
        world.admin(&["group", "add", "accountants"])?;
        world.admin(&["entitle", PAYROLL, "--group", "accountants"])?;
        world.is_refused(ALICE, 1)?;
        world.admin(&["group", "member", "add", "accountants", ALICE])?;
        world.reaches(ALICE, 1)?;
        world.admin(&["group", "member", "remove", "accountants", ALICE])?;
        world.is_refused(ALICE, 1)?;
        world.reaches(ALICE, 0)
    })
}

// Covers: A23 refuse
pub(crate) fn a_revocation_ends_the_session_and_a_login_begins_another() -> Result<()> {
    World::start("")?.play(|world| {
        world.reaches(ALICE, 0)?;
        world.admin(&["revoke", "user", ALICE, "--reason", "left the company"])?;
        world.is_refused(ALICE, 0)?;
        let told = world.alice()?.wait_until(PATIENCE, |status| !status["last_goodbye"].is_null())?;
        ensure!(told["last_goodbye"]["code"] == "revoked", "alice was told {}", told["last_goodbye"]);
        ensure!(told["last_goodbye"].to_string().contains("left the company"), "alice was not told why");
        world.gateway.wait_until(PATIENCE, |status| sessions(status).is_empty())?;
        world.alice = None;
        // What she has is worth nothing any more.
        let refused = world.realm.up_begin(ALICE)?.ready();
        ensure!(refused.is_err(), "revoked tokens brought a tunnel up");
        world.login(ALICE)?;
        world.alice = Some(world.up(ALICE)?);
        world.reaches(ALICE, 0)
    })
}

// Covers: A4 refuse
pub(crate) fn a_revoked_device_does_not_come_back() -> Result<()> {
    World::start("")?.play(|world| {
        let status = world.gateway.status()?;
        let device = sessions(&status).first().and_then(|session| session["device"].as_str()).unwrap_or_default();
        world.admin(&["revoke", "device", device, "--reason", "lost"])?;
        world.is_refused(ALICE, 0)?;
        world.alice = None;
        let refused = world.realm.login(ALICE)?.refused()?;
        ensure!(refused.contains("certificate_revoked"), "{refused}");
        Ok(())
    })
}

// Covers: A23 allow
pub(crate) fn a_renewal_is_not_noticed() -> Result<()> {
    World::start("")?.play(|world| {
        world.admin(&["resource", "add", "flow", "--site", "berlin", "--to", "10.98.0.10", "--service", "udp/7000"])?;
        world.admin(&["entitle", "flow", "--user", ALICE])?;
        let flow = flow_to(world, ALICE, SocketAddr::new(service(0).ip(), 7_000))?;
        let before = world.gateway.status()?;
        world.admin(&["renew", "user", ALICE, "--grace", "20", "--reason", "exercise"])?;
        let horizon = before["controller"]["time"].as_u64().unwrap_or_default() + 3_600;
        world.gateway.wait_until(PATIENCE, |status| {
            status["revocations"]["n"] != before["revocations"]["n"]
                && sessions(status).iter().all(|session| session["ends_at"].as_u64() > Some(horizon))
        })?;
        ensure!((flow.up().missing(), flow.down().missing()) == (0, 0), "packets were lost");
        Ok(())
    })
}

/// A thousand datagrams a second from `user` to `to` at the site, and as many back. The tunnel carries them when it returns.
pub(crate) fn flow_to(world: &World, user: &str, to: SocketAddr) -> Result<Flow> {
    let lab = &world.realm.stage.lab;
    let far = lab.run_in(lab.site(), || UdpSocket::bind(to))??;
    let near = lab.run_in(lab.client(user)?, || {
        let near = UdpSocket::bind("0.0.0.0:0")?;
        near.connect(to)?;
        std::io::Result::Ok(near)
    })??;
    let flow = Flow::start(near, far, 1_000)?;
    let begun = Instant::now();
    while flow.down().received() < 100 {
        ensure!(begun.elapsed() < PATIENCE, "no packets pass");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(flow)
}
