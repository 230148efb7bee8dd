//! The demo's story.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringfort_netlab::{address, http};
use ringfort_packet::build;
use ringfort_stage::{Probe, Process, Stage};
use serde_json::Value;

use super::PORT;
use super::report::Report;

/// How long a page may take, and a refusal. Nothing here takes longer than some milliseconds; a busy machine may.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who is on the stage. Dropped last, so that everything keeps running until then.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) gateway: Process,
    _clients: [Process; 2],
    _services: Process,
}

pub(super) fn tell(stage: &Stage, report: &mut Report) -> Result<Cast> {
    let [wiki, payroll, _] = address::SITE_V4.map(|address| SocketAddr::new(address.into(), 80));
    let [wiki6, payroll6, _] = address::SITE_V6.map(|address| SocketAddr::new(address.into(), 80));
    let services = report.step("site", "two services: the wiki and the payroll, over IPv4 and IPv6", |_| {
        let names = [(wiki, "wiki"), (wiki6, "wiki"), (payroll, "payroll"), (payroll6, "payroll")];
        let arguments: Vec<String> = names.iter().map(|(address, name)| format!("{address}={name}")).collect();
        let arguments: Vec<&str> = std::iter::once("serve").chain(arguments.iter().map(String::as_str)).collect();
        stage.role("services", stage.lab.site(), &arguments)
    })?;
    let gateway = report.step("gateway", "started", |what| {
        let gateway = stage.gateway()?;
        *what = workers(&gateway.status()?);
        Ok(gateway)
    })?;
    let clients = report.step("tunnels", "alice and bob: DTLS 1.3, each with their own certificate", |_| {
        let (alice, bob) = (stage.client_begin("alice")?, stage.client_begin("bob")?);
        Ok([alice.ready()?, bob.ready()?])
    })?;
    allowed(stage, report, "alice", &[wiki, wiki6])?;
    refused(stage, report, &gateway, "alice", payroll)?;
    allowed(stage, report, "bob", &[payroll, payroll6])?;
    refused(stage, report, &gateway, "bob", wiki)?;
    bypass(stage, report)?;
    spoofed(stage, report, &gateway)?;
    Ok(Cast { gateway, _clients: clients, _services: services })
}

fn workers(status: &Value) -> String {
    let workers = status["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let each: Vec<String> = workers
        .iter()
        .map(|worker| format!("core {} by {}", worker["core"], worker["backend"].as_str().unwrap_or_default()))
        .collect();
    format!("{} workers: {}", workers.len(), each.join(", "))
}

fn allowed(stage: &Stage, report: &mut Report, user: &str, services: &[SocketAddr]) -> Result<()> {
    for service in services {
        report.step("allowed", &format!("{user} gets http://{service}"), |what| {
            let page = get(stage, user, *service)?.with_context(|| format!("{user} was refused"))?;
            *what = format!("{user} gets http://{service}: {:?}", page.trim());
            Ok(())
        })?;
    }
    Ok(())
}

fn refused(stage: &Stage, report: &mut Report, gateway: &Process, user: &str, service: SocketAddr) -> Result<()> {
    report.step("refused", &format!("{user} tries http://{service}"), |what| {
        if let Ok(page) = get(stage, user, service)? {
            bail!("{user} got {page:?}");
        }
        let destination = format!("tcp/{service}");
        let is_this = |denial: &Value| denial["user"] == user && denial["destination"] == destination.as_str();
        let find = |status: &Value| status["denials"].as_array()?.iter().find(|denial| is_this(denial)).cloned();
        let status = gateway.wait_until(PATIENCE, |status| find(status).is_some())?;
        let rule = find(&status)
            .and_then(|denial| denial["rule"].as_str().map(str::to_owned))
            .context("the denial names no rule")?;
        *what = format!("{user} tries http://{service}: refused by rule {rule:?}");
        Ok(())
    })
}

/// What is not for the tunnel goes its way as if there were none (C6).
fn bypass(stage: &Stage, report: &mut Report) -> Result<()> {
    let host = SocketAddr::new(address::INTERNET_HOST_V4.into(), 80);
    report.step("bypass", "alice reaches a host of the internet beside the tunnel", |what| {
        let listener = stage.lab.run_in(stage.lab.internet(), || std::net::TcpListener::bind(host))??;
        let server = http::serve(listener, "internet host")?;
        let page = get(stage, "alice", host)?.context("the host did not answer")?;
        drop(server);
        let outer = stage.lab.client("alice")?.v4();
        ensure!(page.contains(&outer.to_string()), "expected the host to see {outer}, found {page:?}");
        *what = format!("alice gets http://{host} beside the tunnel: {:?}", page.trim());
        Ok(())
    })
}

/// Another user's machine sends a packet with bob's inner address as its source.
fn spoofed(stage: &Stage, report: &mut Report, gateway: &Process) -> Result<()> {
    report.step("spoofed", "mallory's machine sends with bob's address", |what| {
        let before = gateway.counter("spoofed_source")?;
        let bob: IpAddr = [10, 97, 0, 11].into();
        let packet =
            build::udp(SocketAddr::new(bob, 4_000), SocketAddr::new(address::SITE_V4[0].into(), 80), b"I am bob");
        let begun = Instant::now();
        let to = SocketAddr::new(address::GATEWAY_V4.into(), PORT);
        let files = stage.files();
        let _probe = stage.lab.run_in(stage.lab.client("alice")?, || {
            let mut probe = Probe::connect(&files, "mallory", to)?;
            // Unbound for a moment: the packet counts only once the rules are there.
            while begun.elapsed() < PATIENCE && gateway.counter("spoofed_source")? == before {
                probe.send(&packet)?;
                std::thread::sleep(Duration::from_millis(2));
            }
            anyhow::Ok(probe)
        })??;
        let dropped = gateway.counter("spoofed_source")? - before;
        ensure!(dropped > 0, "the packet was not counted");
        *what = format!("mallory's machine sends with bob's address: dropped and counted ({dropped})");
        Ok(())
    })
}

fn get(stage: &Stage, user: &str, service: SocketAddr) -> Result<Result<String, http::HttpError>> {
    Ok(stage.lab.run_in(stage.lab.client(user)?, || http::get(service, PATIENCE))?)
}
