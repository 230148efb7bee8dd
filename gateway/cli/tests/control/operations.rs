//! What an administrator asks of a Gateway from afar (K6).

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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

/// The package's digest and the list with it, signed as signify does, by a key whose public half is in the Gateway's file.
// Covers: K6 allow
// Covers: K6 refuse
pub(crate) fn a_signed_package_is_laid_for_the_sites_installer() -> Result<()> {
    let place = tempfile::tempdir()?;
    let (from, into) = (place.path().join("from"), place.path().join("into"));
    for folder in [&from, &into] {
        std::fs::create_dir(folder)?;
    }
    let unspecified = |_| anyhow::anyhow!("no key");
    let key = Ed25519KeyPair::generate().map_err(unspecified)?;
    let signify = |what: &[u8]| STANDARD.encode([&b"Ed"[..], b"release1", what].concat());
    let file = format!(
        "[gateway.upgrade]\nkeys = [\"{}\"]\nfrom = \"{}\"\ninto = \"{}\"\nfile = \"ringfort-{{version}}.deb\"",
        signify(key.public_key().as_ref()),
        from.display(),
        into.display()
    );
    let hex = |bytes: &[u8]| {
        let digest = digest::digest(&digest::SHA256, bytes);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let (good, bad) = (hex(b"the package"), hex(b"another package"));
    let list = format!("SHA256 (ringfort-99.1.0.deb) = {good}\n");
    std::fs::write(from.join("ringfort-99.1.0.deb"), "the package")?;
    let signature = signify(key.sign(list.as_bytes()).as_ref());
    std::fs::write(from.join("SHA256.sig"), format!("untrusted comment: release\n{signature}\n{list}"))?;
    World::without_tunnel(&file)?.play(|world| {
        let upgrade = |version: &str, digest: &str| {
            world.realm.admin(&["gateway", "upgrade", GATEWAY, version, "--sha256", digest])
        };
        for (version, digest, code) in [
            ("99.1.0", &bad, "upgrade_mismatch"),
            ("99.2.0", &good, "upgrade_unsigned"),
            ("0.0.1", &good, "upgrade_not_newer"),
            ("x", &good, "request_malformed"),
        ] {
            let refused = upgrade(version, digest)?.refused()?;
            ensure!(refused.contains(code), "{version}: {refused}");
        }
        ensure!(std::fs::read_dir(&into)?.next().is_none(), "something was laid");
        let told = upgrade("99.1.0", &good)?.ok()?;
        ensure!(told.contains("ringfort-99.1.0.deb"), "{told}");
        ensure!(std::fs::read(into.join("ringfort-99.1.0.deb"))? == b"the package", "another file was laid");
        let events: Value = serde_json::from_str(&world.admin(&["list", "audit", "--limit", "20", "--json"])?)?;
        let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
        let action = format!("upgrade 99.1.0 {good}");
        ensure!(events.iter().any(|event| event["action"] == action.as_str()), "{events:?}");
        ensure!(events.iter().any(|event| event["outcome"] == "operation_failed"), "{events:?}");
        Ok(())
    })
}

// Covers: K6 allow
// Covers: K6 refuse
pub(crate) fn packets_are_captured_where_the_site_allows_it() -> Result<()> {
    let place = tempfile::tempdir()?;
    World::start("")?.play(|world| {
        let capture = ["gateway", "capture", GATEWAY, "--seconds", "60", "--packets", "5"];
        let refused = world.realm.admin(&capture)?.refused()?;
        ensure!(refused.contains("capture_not_allowed"), "{refused}");
        let file = world.realm.stage.folder().join(format!("{GATEWAY}.toml"));
        let as_it_was = std::fs::read_to_string(&file)?;
        let allowed = format!("[gateway.capture]\ninto = \"{}\"", place.path().display());
        std::fs::write(&file, format!("{as_it_was}{allowed}\n"))?;
        world.admin(&["gateway", "reload", GATEWAY])?;
        // More of each packet than the site lets go.
        let refused = world.realm.admin(&[&capture[..], &["--snap", "65"]].concat())?.refused()?;
        ensure!(refused.contains("capture_malformed"), "{refused}");
        world.admin(&capture)?;
        world.reaches(ALICE, 0)?;
        // It began, and it ended by itself once the packets were there.
        let captures = |status: &Value| {
            let done = status["operations"].as_array().map(Vec::as_slice).unwrap_or_default();
            done.iter().filter(|one| one["name"] == "capture" && one["code"] == "").count()
        };
        world.gateway.wait_until(PATIENCE, |status| captures(status) == 2)?;
        let entry = std::fs::read_dir(place.path())?.next().context("no file")??;
        let bytes = std::fs::read(entry.path())?;
        ensure!(bytes.starts_with(&[0xd4, 0xc3, 0xb2, 0xa1]), "no pcap file");
        let (mut at, mut packets) = (24, Vec::new());
        while let Some(header) = bytes.get(at..at + 16) {
            let kept = u32::from_le_bytes(header[8..12].try_into()?) as usize;
            packets.push(bytes.get(at + 16..at + 16 + kept).context("a packet is cut off")?);
            at += 16 + kept;
        }
        ensure!(packets.len() == 5 && packets.iter().all(|packet| packet.len() <= 64), "{} packets", packets.len());
        let IpAddr::V4(to) = service(0).ip() else { return Ok(()) };
        ensure!(packets.iter().any(|packet| packet.get(16..20) == Some(&to.octets()[..])), "none is to the wiki");
        Ok(())
    })
}
