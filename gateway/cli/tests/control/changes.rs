//! What the administrator changes, and how soon and how far it reaches.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringfort_netlab::pace::Flow;
use ringfort_stage::hostile;
use ringfort_token::ClaimsToken;
use serde_json::Value;

use crate::restart::present_what_she_has;
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

/// By what an administrator can take back what alice has. The operator, who is one of everyone, comes last.
const SCOPES: [&str; 5] = ["user", "token", "group", "device", "everyone"];
const GROUP: &str = "accountants";
/// Seconds in which something must be renewed.
const GRACE: u64 = 3;

/// The claims token in alice's folder.
fn claims(world: &World) -> Result<String> {
    Ok(std::fs::read_to_string(world.realm.state(ALICE).join("claims.jwt"))?)
}

/// Has `command` done about one of [`SCOPES`], as alice is known by it now.
fn about(world: &World, command: &str, scope: &str, more: &[&str]) -> Result<String> {
    let name = match scope {
        "user" => Some(ALICE.into()),
        "token" => Some(hostile::said::<ClaimsToken>(&claims(world)?)?.jti),
        "group" => Some(GROUP.into()),
        "device" => {
            let status = world.gateway.status()?;
            let session = sessions(&status).first().context("alice has no session")?;
            session["device"].as_str().map(str::to_owned)
        }
        _ => None,
    };
    let scope = [command, scope].into_iter().chain(name.as_deref());
    world.admin(&scope.chain(more.iter().copied()).collect::<Vec<_>>())
}

fn alice_in_a_group(world: &World) -> Result<()> {
    world.admin(&["group", "add", GROUP])?;
    world.admin(&["group", "member", "add", GROUP, ALICE]).map(drop)
}

/// Of a thousand packets a second in each direction none is lost, over the end of what was renewed. Her login lasts for hours: what
/// makes her client renew is nothing but the Gateway's word. What she had before is worth nothing afterwards.
// Covers: A23 allow
// Covers: A23 refuse
// Covers: A24 allow
pub(crate) fn a_renewal_is_not_noticed() -> Result<()> {
    World::start("")?.play(|world| {
        world.admin(&["resource", "add", "flow", "--site", "berlin", "--to", "10.98.0.10", "--service", "udp/7000"])?;
        world.admin(&["entitle", "flow", "--user", ALICE])?;
        alice_in_a_group(world)?;
        let flow = flow_to(world, ALICE, SocketAddr::new(service(0).ip(), 7_000))?;
        let mut dead = Vec::new();
        for scope in SCOPES {
            let (before, client, old) = (world.gateway.status()?, world.alice()?.status()?, claims(world)?);
            about(world, "renew", scope, &["--grace", &GRACE.to_string(), "--reason", "exercise"])?;
            let time = |status: &Value| status["controller"]["time"].as_u64();
            let horizon = time(&before).map(|time| time + 3_600);
            let renewed = world.gateway.wait_until(PATIENCE, |status| {
                status["revocations"]["n"] != before["revocations"]["n"]
                    && sessions(status).iter().all(|session| session["ends_at"].as_u64() > horizon)
            })?;
            let told = world.alice()?.status()?["told_to_renew"].as_u64();
            ensure!(told > client["told_to_renew"].as_u64(), "{scope}: it renewed without being told, {told:?}");
            ensure!(claims(world)? != old, "{scope}: what is in the folder was not renewed");
            dead.push(old);
            // The time is over, and the tunnel is the same.
            let over = time(&renewed).map(|time| time + GRACE + 1);
            let received = (flow.up().received(), flow.down().received());
            let after = world.gateway.wait_until(PATIENCE, |status| time(status) >= over)?;
            ensure!(sessions(&after).len() == 1, "{scope}: the session ended");
            ensure!(sessions(&after)[0]["session"] == sessions(&before)[0]["session"], "{scope}: another tunnel");
            let begun = Instant::now();
            while flow.up().received() < received.0 + 1_000 || flow.down().received() < received.1 + 1_000 {
                ensure!(begun.elapsed() < PATIENCE, "{scope}: nothing passes any more");
                std::thread::sleep(Duration::from_millis(5));
            }
            let lost = (flow.up().missing(), flow.down().missing());
            ensure!(lost == (0, 0), "{scope}: packets were lost: {lost:?}");
        }
        let status = world.alice()?.status()?;
        ensure!(status["last_goodbye"].is_null(), "she was sent away: {status}");
        drop(flow);
        world.alice = None;
        for old in dead {
            std::fs::write(world.realm.state(ALICE).join("claims.jwt"), old)?;
            let refused = present_what_she_has(world)?;
            ensure!(refused.code == "token_revoked", "{refused:?}");
        }
        Ok(())
    })
}

/// Each name by which it can be taken back, with a live session each time. Where the Gateway has confirmed it, the next packet is
/// refused.
// Covers: A23 refuse
// Covers: X6 allow
pub(crate) fn whatever_is_revoked_ends_the_live_session() -> Result<()> {
    World::start("")?.play(|world| {
        alice_in_a_group(world)?;
        for scope in SCOPES {
            world.reaches(ALICE, 0)?;
            let is_everyone = scope == "everyone";
            // The operator too is one of everyone, and so not there to ask for receipts.
            let wait: &[&str] = if is_everyone { &[] } else { &["--wait"] };
            let told = about(world, "revoke", scope, &[&["--reason", "an exercise"], wait].concat())?;
            if is_everyone {
                world.gateway.wait_until(PATIENCE, |status| sessions(status).is_empty())?;
                world.realm.admin(&["list", "users"])?.refused()?;
            } else {
                ensure!(told.contains("1/1 gateways in "), "{told}");
            }
            ensure!(world.get(ALICE, 0)?.is_err(), "{scope}: alice still gets something");
            let status = world.alice()?.wait_until(PATIENCE, |status| !status["last_goodbye"].is_null())?;
            let goodbye = &status["last_goodbye"];
            ensure!(goodbye["code"] == "revoked", "{scope}: she was told {goodbye}");
            ensure!(goodbye.to_string().contains("an exercise"), "{scope}: she was told {goodbye}");
            ensure!(sessions(&world.gateway.status()?).is_empty(), "{scope}: the session is still there");
            world.alice = None;
            if is_everyone {
                break;
            }
            // A key that was revoked does not come back: that takes another one.
            if scope == "device" {
                std::fs::remove_dir_all(world.realm.state(ALICE))?;
                world.join_user(ALICE)?;
            }
            world.login(ALICE)?;
            world.alice = Some(world.up(ALICE)?);
        }
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
