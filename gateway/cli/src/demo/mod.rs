//! `ringfort demo`: the whole story in a laboratory of namespaces, with the real roles as processes of this program.

mod bench;
mod control;
mod refusals;
mod report;
mod revoke;
mod story;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use ringfort_netlab::{Lab, LabError, Spec, address, enter};
use ringfort_stage::files::{Plan, Rule, User};
use ringfort_stage::realm::{ADMINISTRATOR, PORT};
use ringfort_stage::{Realm, Stage};
use toml::Table;

use report::Report;
use revoke::Traffic;
use story::{ALICE, MALLORY, SITES};

#[derive(Args)]
pub(crate) struct Options {
    /// Print one JSON document instead of a table.
    #[arg(long)]
    json: bool,
    /// Keep everything running afterwards and print how to enter each namespace; Enter ends it.
    #[arg(long)]
    keep: bool,
    /// Also measure: revocation and grant over many runs, and TCP through a tunnel, both ways.
    #[arg(long)]
    bench: bool,
    /// Revocations and grants that are measured.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000), requires = "bench", value_name = "RUNS")]
    runs: u32,
    /// Seconds for each direction of the measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60), requires = "bench", value_name = "SECONDS")]
    seconds: u64,
    /// How packets are read and written: auto, io_uring or epoll.
    #[arg(long, default_value = "auto", value_name = "BACKEND")]
    backend: String,
}

/// Runs the demo. The exit code is 0 when everything was as it should be, 1 when not, and 3 when this machine gives no
/// namespaces.
pub(crate) fn run(options: &Options) -> ExitCode {
    let tier = match enter(probe_tun) {
        Ok(tier) => tier,
        Err(error) => return no_lab(&error),
    };
    let mut report = Report::new(tier.to_string());
    let told = tell(options, &mut report);
    if let Err(error) = &told {
        report.fail(error);
    }
    report.print(options.json);
    if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn no_lab(error: &LabError) -> ExitCode {
    eprintln!("ringfort demo: {error}");
    ExitCode::from(error.exit_code())
}

fn probe_tun() -> std::io::Result<ringfort_io::Tun> {
    ringfort_io::Tun::open("rfprobe%d", 1, std::time::Duration::ZERO).map_err(std::io::Error::other)
}

fn tell(options: &Options, report: &mut Report) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let realm =
        report.step("laboratory", "alice, mallory, operator, internet, controller, two gateways, two sites", |_| {
            let spec = Spec::new([ALICE, MALLORY, ADMINISTRATOR]).with_sites(SITES.len()).with_controller();
            Realm::new(Lab::build(&spec)?, &program, &options.backend)
        })?;
    let mut cast = story::tell(&realm, report)?;
    let traffic =
        report.step("traffic", "datagrams both ways and an established TCP connection", |_| Traffic::start(&realm))?;
    revoke::renew(&realm, report, &cast, &traffic)?;
    revoke::revoke(&realm, report, &cast, &traffic, |report| refusals::tell(&realm, report, &cast))?;
    // Where more follows, nothing is to be heard of it.
    let traffic = (!options.keep && !options.bench).then_some(traffic);
    if options.keep {
        keep(&realm)?;
    }
    if options.bench {
        cast.alice.stop()?;
        control::measure(&realm, &cast, report, options.runs)?;
        cast.leave(realm, traffic);
        throughput(options, &program, report)?;
    } else {
        cast.leave(realm, traffic);
    }
    Ok(())
}

/// Throughput is measured in a laboratory of its own, from files: what a packet costs does not depend on who admitted it.
fn throughput(options: &Options, program: &Path, report: &mut Report) -> Result<()> {
    let lab = Lab::build(&Spec::new([ALICE]))?;
    let stage = Stage::new(lab, &plan(options), program)?;
    let (gateway, _client) =
        report.step("bench", "a static Gateway and a client", |_| Ok((stage.gateway()?, stage.client(ALICE)?)))?;
    bench::measure(&stage, &gateway, report, std::time::Duration::from_secs(options.seconds))
}

/// What the administrator of the throughput's small world wrote down.
fn plan(options: &Options) -> Plan {
    let target = format!("{}/32", address::site_host(0, 2).0);
    let backend = Table::from_iter([("backend".to_owned(), options.backend.clone().into())]);
    let pools = [
        format!("{}/{}", first(address::INNER_POOL_V4.0.into()), address::INNER_POOL_V4.1),
        format!("{}/{}", first(address::INNER_POOL_V6.0.into()), address::INNER_POOL_V6.1),
    ];
    Plan {
        gateway: SocketAddr::new(address::GATEWAY_V4.into(), PORT),
        inner: pools.iter().filter_map(|pool| pool.parse().ok()).collect(),
        routes: ["10.98.0.0/24", "fd98::/64"].iter().filter_map(|route| route.parse().ok()).collect(),
        users: vec![User { name: ALICE.into(), rules: vec![Rule::allow("benchmark", &[&target], &["any"])] }],
        gateway_more: backend.clone(),
        client_more: backend,
    }
}

/// The first address behind a network's own.
fn first(network: IpAddr) -> IpAddr {
    match network {
        IpAddr::V4(network) => IpAddr::V4((u32::from(network) + 1).into()),
        IpAddr::V6(network) => IpAddr::V6((u128::from(network) + 1).into()),
    }
}

fn keep(realm: &Realm) -> Result<()> {
    eprintln!("Everything keeps running. A shell in each namespace, to be typed elsewhere:");
    for (name, line) in realm.stage.lab.nsenter_lines() {
        eprintln!("  {name:<10} {line}");
    }
    eprintln!("Files and status sockets are in {}. Press Enter to end.", realm.stage.folder().display());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}
