//! The demo's story, chapters 1 to 5: from an empty Controller to a push that opens what was refused.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringfort_netlab::{address, http};
use ringfort_stage::{Process, Realm};
use serde_json::Value;

use super::report::Report;
use super::revoke::Traffic;

/// How long anything may take that must come. Nothing here takes longer than some milliseconds; a busy machine may.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long one attempt may take where attempts are repeated.
const ATTEMPT: Duration = Duration::from_millis(200);
/// The sites by number, with their services: at each a page on port 80, and on 8080 one that nobody may reach at first.
pub(super) const SITES: [(&str, &str, &str); 2] =
    [("berlin", "wiki", "wiki-admin"), ("lisbon", "tracker", "tracker-admin")];
/// Names of the Gateways.
pub(super) const GATEWAYS: [&str; 2] = ["gateway-berlin", "gateway-lisbon"];
/// Who has the tunnels, and who has nothing but an account.
pub(super) const ALICE: &str = "alice";
pub(super) const MALLORY: &str = "mallory";
/// Port of what is refused.
const ADMIN_PORT: u16 = 8_080;
/// Ports of the flows that the revocation cuts.
pub(super) const FLOW_PORT: u16 = 7_000;
pub(super) const STREAM_PORT: u16 = 7_001;

/// Who is on the stage. Everything keeps running until it is dropped.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) controller: Process,
    pub(super) gateways: Vec<Process>,
    pub(super) alice: Process,
    /// The command line by which the first Gateway joined.
    pub(super) used_invitation: String,
    _services: Vec<http::Server>,
}

impl Cast {
    /// Ends everything. All are killed before the end of any is waited for. Alice's is not waited for: the kernel takes some 40 ms
    /// to remove her two interfaces, whether we look on or not.
    pub(super) fn leave(self, realm: Realm, traffic: Option<Traffic>) {
        let Self { mut controller, mut gateways, alice, used_invitation: _, _services } = self;
        for process in gateways.iter_mut().chain([&mut controller]) {
            // It may have ended already.
            drop(process.kill_begin());
        }
        drop(alice.kill_unwaited());
        std::thread::scope(|scope| {
            scope.spawn(|| drop(traffic));
            drop((controller, gateways, realm));
        });
    }
}

/// The page of a site's service.
pub(super) fn page(site: usize) -> SocketAddr {
    SocketAddr::new(address::site_host(site, 0).0.into(), 80)
}

pub(super) fn admin_page(site: usize) -> SocketAddr {
    SocketAddr::new(address::site_host(site, 0).0.into(), ADMIN_PORT)
}

pub(super) fn tell(realm: &Realm, report: &mut Report) -> Result<Cast> {
    let services =
        report.step("sites", "two sites, each with a service and an administrators' page", |_| serve(realm))?;
    let controller = report.step("controller", "", |what| {
        let controller = realm.controller_begin()?.ready()?;
        let fingerprint = controller.status()?["ca_fingerprint"].as_str().unwrap_or_default().to_owned();
        let short = fingerprint.get(..16).context("the Controller tells no fingerprint")?;
        *what = format!("initialised itself; fingerprint of its CA {short}…");
        Ok(controller)
    })?;
    let (gateways, used_invitation) = std::thread::scope(|scope| {
        let what = "logs in by URL and fingerprint; creates two sites with two resources each";
        let account = report.step("operator", what, |_| {
            realm.operator_login(&controller)?.ok()?;
            // What does not need each other is done at once, as several people would; her password takes the longest.
            let account = scope.spawn(|| realm.add_user(ALICE));
            at_once(vec![Box::new(|| add_site(realm, 0)), Box::new(|| add_site(realm, 1))])?;
            Ok(account)
        })?;
        report.step("gateways", "", |what| {
            let entitled = scope.spawn(|| {
                account.join().unwrap_or_else(|_| bail!("a step panicked"))?;
                at_once(SITES.map(|(_, page, _)| entitle(realm, page, ALICE)).into())
            });
            let joined = join_gateways(realm, &controller, what)?;
            entitled.join().unwrap_or_else(|_| bail!("a step panicked"))?;
            Ok(joined)
        })
    })?;
    let line = report.step("invitation", "", |what| {
        let line = realm.invite(&["device", "--user", ALICE])?;
        *what = shown(&line);
        Ok(line)
    })?;
    let begun = Instant::now();
    report.step("join", "alice's machine makes its client id and key, and uses the invitation up", |_| {
        realm.join(ALICE, realm.stage.lab.client(ALICE)?, &line)?.ok().map(drop)
    })?;
    report.step(
        "login",
        "password → claims token → an entitlement token per site → CSR → certificate",
        |what| {
            *what = format!("{what}: {}", realm.login(ALICE)?.ok()?.trim());
            Ok(())
        },
    )?;
    let alice = report.step("up", "a DTLS tunnel to a Gateway in each site, tokens presented and bound", |_| {
        realm.up_begin(ALICE)?.ready()
    })?;
    for (site, (name, service, _)) in SITES.iter().enumerate() {
        report.step("allowed", "", |what| {
            let text = get(realm, ALICE, page(site))?.with_context(|| format!("alice was refused at {name}"))?;
            ensure!(text.contains(service), "expected {service}, found {text:?}");
            *what = format!("alice gets http://{} at {name}: {:?}", page(site), text.trim());
            Ok(())
        })?;
        if site == 0 {
            report.measured("join to first packet ms", millis(begun.elapsed()).into());
        }
    }
    refused(realm, report, &alice)?;
    grant(realm, report)?;
    Ok(Cast { controller, gateways, alice, used_invitation, _services: services })
}

fn serve(realm: &Realm) -> Result<Vec<http::Server>> {
    let mut servers = Vec::new();
    for (site, (_, service, admin)) in SITES.iter().enumerate() {
        for (at, name) in [(page(site), service), (admin_page(site), admin)] {
            let listener = realm.stage.lab.run_in(realm.stage.lab.site_at(site)?, || TcpListener::bind(at))??;
            servers.push(http::serve(listener, name)?);
        }
    }
    Ok(servers)
}

/// A site and its Resources.
fn add_site(realm: &Realm, number: usize) -> Result<()> {
    let (site, service, admin) = SITES[number];
    realm.add_site(number, site)?;
    let to = address::site_host(number, 0).0.to_string();
    let flows = [format!("udp/{FLOW_PORT}"), format!("tcp/{STREAM_PORT}")];
    let admin_port = format!("tcp/{ADMIN_PORT}");
    let add = |name: &str, services: &[&str]| {
        let mut arguments = vec!["resource", "add", name, "--site", site, "--to", &to];
        services.iter().for_each(|service| arguments.extend(["--service", service]));
        realm.admin(&arguments)?.ok().map(drop)
    };
    at_once(vec![
        Box::new(|| add(service, &["tcp/80", "icmp-echo", &flows[0], &flows[1]])),
        Box::new(|| add(admin, &[&admin_port])),
    ])
}

fn join_gateways(realm: &Realm, controller: &Process, what: &mut String) -> Result<(Vec<Process>, String)> {
    let join = |number: usize| {
        let ((site, ..), name) = (SITES[number], GATEWAYS[number]);
        let line = realm.invite(&["gateway", name, "--site", site])?;
        realm.join(name, realm.stage.lab.gateway_at(number)?, &line)?.ok()?;
        Ok((realm.gateway_begin(number, name, "")?.ready()?, line))
    };
    let (berlin, lisbon) = std::thread::scope(|scope| {
        let berlin = scope.spawn(|| join(0));
        let lisbon = join(1);
        (berlin.join().unwrap_or_else(|_| bail!("a step panicked")), lisbon)
    });
    let ((berlin, line), (lisbon, _)) = (berlin?, lisbon?);
    // Clients are only sent to Gateways that have been heard of (R18).
    let connected = |status: &Value| {
        let gateways = status["gateways"].as_array().map(Vec::as_slice).unwrap_or_default();
        gateways.iter().filter(|gateway| gateway["alive"] == true).count() == GATEWAYS.len()
    };
    controller.wait_until(PATIENCE, connected)?;
    *what =
        format!("both have joined and stream; meanwhile alice got an account and two entitlements: {}", shown(&line));
    Ok((vec![berlin, lisbon], line))
}

fn entitle<'a>(realm: &'a Realm, service: &'a str, user: &'a str) -> Work<'a> {
    Box::new(move || realm.admin(&["entitle", service, "--user", user])?.ok().map(drop))
}

/// A user with an account, a machine, and one entitlement.
pub(super) fn settle(realm: &Realm, user: &str) -> Result<()> {
    realm.add_user(user)?;
    let join = || {
        let line = realm.invite(&["device", "--user", user])?;
        realm.join(user, realm.stage.lab.client(user)?, &line)?.ok().map(drop)
    };
    at_once(vec![entitle(realm, SITES[0].1, user), Box::new(join)])?;
    realm.login(user)?.ok().map(drop)
}

/// An invitation as a table has room for it.
fn shown(line: &str) -> String {
    match line.split_once("--ticket ") {
        Some((url, ticket)) => format!("{url}--ticket {}…", ticket.get(..12).unwrap_or(ticket)),
        None => line.into(),
    }
}

/// Chapter 5: a service that nobody granted, refused with the Gateway's reason.
fn refused(realm: &Realm, report: &mut Report, alice: &Process) -> Result<()> {
    report.step("refused", "", |what| {
        let at = admin_page(0);
        if let Ok(text) = get(realm, ALICE, at)? {
            bail!("alice got {text:?}");
        }
        let destination = format!("tcp/{at}");
        let find = |status: &Value| {
            let sites = status["sites"].as_array()?;
            let denials = sites.iter().filter_map(|site| site["denials"].as_array()).flatten();
            denials.clone().find(|denial| denial["destination"] == destination.as_str()).cloned()
        };
        let status = alice.wait_until(PATIENCE, |status| find(status).is_some())?;
        let denial = find(&status).context("no denial")?;
        let text = |name: &str| denial[name].as_str().unwrap_or_default().to_owned();
        *what = format!("alice tries http://{at}: refused by {:?}: {}", text("rule"), text("reason"));
        Ok(())
    })
}

/// Chapter 5b: the administrator entitles alice, and what was refused answers; her machine has no part in it.
fn grant(realm: &Realm, report: &mut Report) -> Result<()> {
    let took = report.step("grant", "", |what| {
        let at = admin_page(0);
        let begun = Instant::now();
        let took = std::thread::scope(|scope| {
            let trying =
                scope.spawn(|| realm.stage.lab.run_in(realm.stage.lab.client(ALICE)?, || until_answered(at, begun))?);
            realm.admin(&["entitle", SITES[0].2, "--user", ALICE])?.ok()?;
            trying.join().map_err(|_| anyhow::anyhow!("the attempts panicked"))?
        })?;
        *what =
            format!("the operator entitles alice: http://{at} answers {:.1} ms after the command began", millis(took));
        Ok(took)
    })?;
    report.measured("grant to first answer ms", millis(took).into());
    Ok(())
}

/// Tries until there is an answer; gives the time since `begun`.
pub(super) fn until_answered(at: SocketAddr, begun: Instant) -> Result<Duration> {
    while begun.elapsed() < PATIENCE {
        if http::get(at, ATTEMPT).is_ok() {
            return Ok(begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    bail!("no answer within {PATIENCE:?}")
}

fn get(realm: &Realm, user: &str, at: SocketAddr) -> Result<Result<String, http::HttpError>> {
    Ok(realm.stage.lab.run_in(realm.stage.lab.client(user)?, || http::get(at, PATIENCE))?)
}

pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

type Work<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;

/// Carries out several things at once; the first error is the answer.
pub(super) fn at_once(works: Vec<Work<'_>>) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = works.into_iter().map(|work| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a step panicked")))
    })
}
