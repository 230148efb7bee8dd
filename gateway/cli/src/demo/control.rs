//! Revocation and grant over many runs: how long until the last packet, and until the first.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringfort_netlab::pace::monotonic;
use ringfort_stage::{Process, Realm};
use serde_json::{Value, json};

use super::report::Report;
use super::revoke::{Cut, MEASURED_MIN, Rates, Traffic};
use super::story::{ALICE, Cast, PATIENCE, SITES, admin_page, millis, until_answered};

/// Over how long the rate of the flow is taken before it is cut.
const RATE_TIME: Duration = Duration::from_millis(50);

/// Measures `runs` of each. Between two revocations alice logs in again.
pub(super) fn measure(realm: &Realm, cast: &Cast, report: &mut Report, runs: u32) -> Result<()> {
    let gateway = cast.gateways.first().context("no gateway")?;
    let mut figures = Figures::default();
    report.step("bench", "", |what| {
        for _ in 0..runs {
            run(realm, gateway, &mut figures)?;
        }
        *what = format!("{runs} times: log in, up, grant, revoke");
        Ok(())
    })?;
    for (name, times) in figures.named() {
        report.measured(name, summary(times));
    }
    Ok(())
}

#[derive(Default)]
struct Figures {
    up: Vec<Duration>,
    down: Vec<Duration>,
    stream: Vec<Duration>,
    last: Vec<Duration>,
    in_force: Vec<Duration>,
    grant: Vec<Duration>,
    login: Vec<Duration>,
    tunnels: Vec<Duration>,
}

impl Figures {
    fn named(&self) -> [(&'static str, &[Duration]); 8] {
        [
            ("revoke command to last packet, all flows", &self.last),
            ("revoke command to last packet, UDP up", &self.up),
            ("revoke command to last packet, UDP down", &self.down),
            ("revoke command to last packet, TCP", &self.stream),
            ("revocation push at the gateway to in force", &self.in_force),
            ("grant command to first answer", &self.grant),
            ("login command", &self.login),
            ("up command to both tunnels bound", &self.tunnels),
        ]
    }
}

fn run(realm: &Realm, gateway: &Process, figures: &mut Figures) -> Result<()> {
    // The grant of the last run is taken back; the first time it is the story's.
    realm.admin(&["unentitle", SITES[0].2, "--user", ALICE])?.ok()?;
    let login = realm.login(ALICE)?;
    figures.login.push(login.took);
    login.ok()?;
    let begun = Instant::now();
    let mut alice = realm.up_begin(ALICE)?.ready()?;
    figures.tunnels.push(begun.elapsed());

    let at = admin_page(0);
    let begun = Instant::now();
    let granted = std::thread::scope(|scope| {
        let trying =
            scope.spawn(|| realm.stage.lab.run_in(realm.stage.lab.client(ALICE)?, || until_answered(at, begun))?);
        realm.admin(&["entitle", SITES[0].2, "--user", ALICE])?.ok()?;
        trying.join().map_err(|_| anyhow::anyhow!("the attempts panicked"))?
    })?;
    figures.grant.push(granted);

    let traffic = Traffic::start(realm)?;
    let rates = Rates::begin(&traffic);
    std::thread::sleep(RATE_TIME);
    rates.end(&traffic, MEASURED_MIN)?;
    let begun = monotonic()?;
    realm.admin(&["revoke", "user", ALICE, "--reason", "measured"])?.ok()?;
    let cut = traffic.prove_cut(begun, || Ok(()))?;
    let Cut { up, down, stream } = cut;
    figures.up.push(up);
    figures.down.push(down);
    figures.stream.push(stream);
    figures.last.push(cut.last());
    let status = gateway.wait_until(PATIENCE, |status| status["revocation_applied_us"]["last"].is_u64())?;
    let micros = status["revocation_applied_us"]["last"].as_u64().context("no revocation was applied")?;
    figures.in_force.push(Duration::from_micros(micros));
    alice.stop()
}

/// Nearest rank, in milliseconds.
fn summary(times: &[Duration]) -> Value {
    let mut times = times.to_vec();
    times.sort();
    let percentile = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(rank).copied().map(millis)
    };
    json!({ "runs": times.len(), "p50_ms": percentile(50), "p99_ms": percentile(99), "max_ms": percentile(100) })
}
