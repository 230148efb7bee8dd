//! Clocks that are hours off: one process runs under libfaketime, the others have the right time. Run by `cargo xtask e2e`.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use ringfort_stage::Process;

use crate::world::{ALICE, GATEWAY, PATIENCE, World, sessions};

/// What to preload for another time: libfaketime, set by `cargo xtask e2e`.
pub(crate) const LIBRARY: &str = "RINGFORT_E2E_FAKETIME";
/// Where the Controller tells its metrics, in a namespace of its own.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9_464);

/// What the metric says where clocks agree, in milliseconds.
const RIGHT: RangeInclusive<i64> = -30_000..=30_000;

/// A program that is `ringfort` with a wall clock that is off by `offset`, such as `+3h`. Other clocks are as they are.
fn off_by(world: &World, offset: &str) -> Result<PathBuf> {
    let path = world.realm.stage.folder().join(format!("ringfort{offset}"));
    let program = world.realm.stage.program();
    let library = std::env::var(LIBRARY)?;
    let set = format!("LD_PRELOAD='{library}' FAKETIME='{offset}' FAKETIME_DONT_FAKE_MONOTONIC=1");
    std::fs::write(&path, format!("#!/bin/sh\n{set} exec '{}' \"$@\"\n", program.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
    Ok(path)
}

/// Carries out `work` with another program as the `ringfort` command.
fn with<T>(world: &mut World, program: &Path, work: impl FnOnce(&mut World) -> Result<T>) -> Result<T> {
    let usual = world.realm.stage.set_program(program);
    let done = work(world);
    world.realm.stage.set_program(&usual);
    done
}

/// Waits until the log of a process has all of these words in one line.
fn logs(process: &Process, words: &[&str]) -> Result<()> {
    let begun = Instant::now();
    let has = |text: &str| text.lines().any(|line| words.iter().all(|word| line.contains(word)));
    while !has(&process.log_text()) {
        ensure!(begun.elapsed() < PATIENCE, "expected a line with {words:?} in\n{}", process.log_text());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}

/// The Controller's metric of how far the Gateway's clock is ahead, in milliseconds, once it is among these.
fn ahead_ms(world: &World, expected: RangeInclusive<i64>) -> Result<()> {
    let begun = Instant::now();
    loop {
        match scrape(world)? {
            Some(ms) if expected.contains(&ms) => return Ok(()),
            other => ensure!(begun.elapsed() < PATIENCE, "expected {expected:?} ms ahead, found {other:?}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// The metric as it is; none before the Gateway's first report to this process.
fn scrape(world: &World) -> Result<Option<i64>> {
    let lab = &world.realm.stage.lab;
    let text = lab.run_in(lab.controller()?, || -> std::io::Result<String> {
        let mut tcp = TcpStream::connect(METRICS)?;
        tcp.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        tcp.read_to_string(&mut text)?;
        Ok(text)
    })??;
    let line = text.lines().find(|line| line.starts_with("ringfort_controller_gateway_clock_ahead_milliseconds{"));
    Ok(line.and_then(|line| line.rsplit(' ').next()).map(str::parse).transpose()?)
}

/// The Controller again, with metrics.
fn tell_metrics(world: &mut World) -> Result<()> {
    world.controller.kill()?;
    let file = world.realm.state("controller").join("controller.toml");
    let kept = std::fs::read_to_string(&file)?;
    std::fs::write(&file, format!("metrics = \"{METRICS}\"\n{kept}"))?;
    world.controller = world.realm.controller_begin()?.ready()?;
    world.gateway_is_alive()
}

// Covers: X14 refuse
pub(crate) fn a_gateway_whose_clock_is_hours_ahead_admits_nobody_and_says_why() -> Result<()> {
    World::start("")?.play(|world| {
        tell_metrics(world)?;
        ahead_ms(world, RIGHT)?;
        world.reaches(ALICE, 0)?;
        world.gateway.kill()?;
        let ahead = off_by(world, "+3h")?;
        world.gateway = with(world, &ahead, |world| world.realm.gateway_begin(0, GATEWAY, "")?.ready())?;
        // Both sides say it, and say what to do.
        logs(&world.gateway, &["no new session is admitted", "s from its controller's", "set the clock"])?;
        logs(&world.controller, &["expected a Gateway's clock within 30 s of ours", "set the clocks"])?;
        ahead_ms(world, 10_800_000 - 5_000..=10_800_000 + 5_000)?;
        let status = world.gateway.wait_until(PATIENCE, |status| status["admitting"] != "yes")?;
        ensure!(status["admitting"].as_str().is_some_and(|why| why.contains("set the clock")), "{status}");
        ensure!(sessions(&status).is_empty(), "nobody is admitted");
        world.is_refused(ALICE, 0)?;
        logs(world.alice()?, &["not_admitting"])?;
        // With the right time again, everything goes on by itself.
        world.gateway.kill()?;
        world.gateway = world.realm.gateway_begin(0, GATEWAY, "")?.ready()?;
        world.reaches(ALICE, 0)?;
        logs(&world.controller, &["the Gateway's clock is right again"])?;
        ahead_ms(world, RIGHT)
    })
}

pub(crate) fn a_client_whose_clock_is_hours_off_is_told_so() -> Result<()> {
    World::without_tunnel("")?.play(|world| {
        world.join_user(ALICE)?;
        for (offset, said) in [("+3h", "check the clocks"), ("-3h", "check the clock of this machine")] {
            let off = off_by(world, offset)?;
            let refused = with(world, &off, |world| world.realm.login(ALICE)?.refused())?;
            ensure!(refused.contains(said), "{offset}: expected {said:?}, found {refused}");
        }
        world.login(ALICE)
    })
}
