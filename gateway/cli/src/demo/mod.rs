//! `ringfort demo`: the whole story in a laboratory of namespaces, with the real roles as processes of this program.

mod bench;
mod chapters;
mod report;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use ringfort_netlab::{Lab, LabError, Spec, address, enter};
use ringfort_stage::Stage;
use ringfort_stage::files::{Plan, Rule, User};
use toml::Table;

use report::Report;

/// Where the demo's Gateway listens.
const PORT: u16 = 443;

#[derive(Args)]
pub(crate) struct Options {
    /// Print one JSON document instead of a table.
    #[arg(long)]
    json: bool,
    /// Keep everything running afterwards and print how to enter each namespace; Enter ends it.
    #[arg(long)]
    keep: bool,
    /// Also measure TCP through the tunnel, both ways.
    #[arg(long)]
    bench: bool,
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

fn probe_tun() -> std::io::Result<()> {
    ringfort_io::Tun::open("rfprobe%d", 1, std::time::Duration::ZERO).map(drop).map_err(std::io::Error::other)
}

fn tell(options: &Options, report: &mut Report) -> Result<()> {
    let lab = report.step("laboratory", "clients alice and bob, internet, gateway, site: a namespace each", |_| {
        Ok(Lab::build(&Spec::new(["alice", "bob"]))?)
    })?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let stage = Stage::new(lab, &plan(options), &program)?;
    let cast = chapters::tell(&stage, report)?;
    if options.bench {
        bench::measure(&stage, &cast, report, std::time::Duration::from_secs(options.seconds))?;
    }
    if options.keep {
        keep(&stage)?;
    }
    Ok(())
}

/// What the administrator of this small world wrote down.
fn plan(options: &Options) -> Plan {
    let [wiki, payroll, _] = address::SITE_V4.map(|address| format!("{address}/32"));
    let [wiki6, payroll6, _] = address::SITE_V6.map(|address| format!("{address}/128"));
    let allow = |name: &str, to: [&str; 2]| Rule::allow(name, &to, &["tcp/80", "icmp-echo"]);
    let deny = |name: &str, to: [&str; 2]| Rule::deny(name, &to, &["any"]);
    let mut alice =
        vec![allow("wiki-for-staff", [&wiki, &wiki6]), deny("payroll-for-accountants-only", [&payroll, &payroll6])];
    if options.bench {
        let [_, _, target] = address::SITE_V4.map(|address| format!("{address}/32"));
        alice.push(Rule::allow("benchmark", &[&target], &["any"]));
    }
    let bob = vec![allow("payroll-for-accountants", [&payroll, &payroll6])];
    let backend = Table::from_iter([("backend".to_owned(), options.backend.clone().into())]);
    let pools = [
        format!("{}/{}", first(address::INNER_POOL_V4.0.into()), address::INNER_POOL_V4.1),
        format!("{}/{}", first(address::INNER_POOL_V6.0.into()), address::INNER_POOL_V6.1),
    ];
    Plan {
        gateway: SocketAddr::new(address::GATEWAY_V4.into(), PORT),
        inner: pools.iter().filter_map(|pool| pool.parse().ok()).collect(),
        routes: ["10.98.0.0/24", "fd98::/64"].iter().filter_map(|route| route.parse().ok()).collect(),
        users: [("alice", alice), ("bob", bob), ("mallory", Vec::new())]
            .map(|(name, rules)| User { name: name.into(), rules })
            .into(),
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

fn keep(stage: &Stage) -> Result<()> {
    eprintln!("Everything keeps running. A shell in each namespace, to be typed elsewhere:");
    for (name, line) in stage.lab.nsenter_lines() {
        eprintln!("  {name:<10} {line}");
    }
    eprintln!("Files and status sockets are in {}. Press Enter to end.", stage.files().display());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}
