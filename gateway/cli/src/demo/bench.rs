//! TCP through the tunnel, both ways: how fast, and what it costs the Gateway.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use ringfort_netlab::bulk::{self, Received};
use ringfort_netlab::{Namespace, address, udp};
use ringfort_stage::{Process, Stage};
use serde_json::{Value, json};

use super::report::Report;

/// Where the site takes the streams.
const PORT: u16 = 5_201;
/// Round trips measured on the idle tunnel.
const ROUND_TRIPS: u32 = 200;

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

pub(super) fn measure(stage: &Stage, gateway: &Process, report: &mut Report, duration: Duration) -> Result<()> {
    let target = SocketAddr::new(address::SITE_V4[2].into(), PORT);
    let idle = report.step("bench rtt", "round trips of 64 bytes on the idle tunnel", |_| {
        round_trips(stage, stage.lab.site(), target)
    })?;
    report.measured("idle round trip", idle);
    let plain = report.step("bench rtt", "the same to the gateway's outer address, without the tunnel", |_| {
        round_trips(stage, stage.lab.gateway(), SocketAddr::new(address::GATEWAY_V4.into(), PORT))
    })?;
    report.measured("idle round trip without tunnel", plain);
    for (name, title, way) in [("bench up", "client to site", Way::Up), ("bench down", "site to client", Way::Down)] {
        let measured = report.step(name, &format!("TCP, one stream, {title}"), |what| {
            let before = Reading::of(gateway)?;
            let received = stream(stage, target, way, duration)?;
            let after = Reading::of(gateway)?;
            let figures = figures(&before, &after, received);
            *what = format!(
                "TCP, one stream, {title}: {} Gbit/s, gateway {} CPU s/GB",
                figures["gbit_per_second"], figures["gateway_cpu_seconds_per_gb"]
            );
            Ok(figures)
        })?;
        report.measured(title, measured);
    }
    Ok(())
}

/// What the Gateway has used and counted so far.
struct Reading {
    cpu: Duration,
    totals: Value,
}

impl Reading {
    fn of(gateway: &Process) -> Result<Self> {
        let totals = gateway.status()?["totals"].take();
        Ok(Self { cpu: gateway.cpu_time()?, totals })
    }

    fn count(&self, name: &str) -> u64 {
        self.totals[name].as_u64().unwrap_or_default()
    }
}

fn figures(before: &Reading, after: &Reading, received: Received) -> Value {
    let grown = |name| after.count(name).saturating_sub(before.count(name)) as f64;
    let gigabytes = received.bytes as f64 / 1e9;
    let packets = grown("packets_to_inside") + grown("packets_to_outside");
    json!({
        "gbit_per_second": round(received.gbit_per_second()),
        "gateway_cpu_seconds_per_gb": round((after.cpu - before.cpu).as_secs_f64() / gigabytes),
        "system_calls_per_1000_packets": round(grown("system_calls") * 1_000.0 / packets),
        "packets_per_inside_frame": round(packets / (grown("frames_in") + grown("frames_out"))),
        "gigabytes": round(gigabytes),
    })
}

fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

fn stream(stage: &Stage, target: SocketAddr, way: Way, duration: Duration) -> Result<Received> {
    let listener = stage.lab.run_in(stage.lab.site(), || TcpListener::bind(target))??;
    let site = std::thread::spawn(move || {
        let stream = bulk::accept(&listener)?;
        match way {
            Way::Up => bulk::receive(stream).map(Some),
            Way::Down => bulk::send(stream, duration).map(|()| None),
        }
    });
    let client = stage.lab.run_in(stage.lab.client("alice")?, || {
        let stream = bulk::connect(target, Duration::from_secs(5))?;
        match way {
            Way::Up => bulk::send(stream, duration).map(|()| None),
            Way::Down => bulk::receive(stream).map(Some),
        }
    })??;
    let site = site.join().map_err(|_| anyhow::anyhow!("the site's end panicked"))??;
    client.or(site).context("nobody received")
}

/// Round trips from alice to an echo at `target`, which is an address of `place`.
fn round_trips(stage: &Stage, place: &Namespace, target: SocketAddr) -> Result<Value> {
    let socket = stage.lab.run_in(place, || UdpSocket::bind(target))??;
    let echo = udp::echo(socket)?;
    let trips = stage.lab.run_in(stage.lab.client("alice")?, || {
        let socket = UdpSocket::bind(SocketAddr::from(([0; 4], 0)))?;
        udp::round_trips(&socket, target, ROUND_TRIPS, 64, Duration::from_millis(500))
    })??;
    drop(echo);
    let micros = |percent| trips.percentile(percent).map(|trip| trip.as_micros() as u64);
    Ok(json!({ "p50_us": micros(50), "p99_us": micros(99), "lost": ROUND_TRIPS as usize - trips.returned() }))
}
