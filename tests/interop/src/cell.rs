//! One cell of the table: two programs, a network between them, and what came of it.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::certificates::Certificates;
use crate::matrix::{Case, Expected, Special};
use crate::peers::{EXPORTER_LABEL, Ours, Peer, Programs, TEXT, Version, exported};
use crate::process::Process;
use crate::proxy::Proxy;

/// A cell that is not settled by then is wrong.
const TIME_MAX: Duration = Duration::from_secs(14);
/// What follows the decisive line still comes in.
const AFTERMATH: Duration = Duration::from_millis(300);
/// Lines are typed again, since their datagrams get lost.
const TYPE_EVERY: Duration = Duration::from_millis(700);

/// What came of a cell.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// As expected; the text says what was seen.
    Good(String),
    /// The peer cannot do this.
    NotApplicable(&'static str),
    /// Not as expected: why, and all output of both.
    Bad { why: String, ours: String, theirs: String, network: String },
}

/// Runs one cell.
pub fn run(
    programs: &Programs,
    certificates: &Certificates,
    (peer, version, ours): (Peer, Version, Ours),
    case: &Case,
) -> Verdict {
    if let Some(reason) = peer.cannot(version, ours, case) {
        return Verdict::NotApplicable(reason);
    }
    let mut seen = Seen::default();
    let ran = match ours {
        Ours::Server => our_server(programs, certificates, (peer, version), case, &mut seen),
        Ours::Client => our_client(programs, certificates, (peer, version), case, &mut seen),
    };
    let judged = ran.map_err(|error| format!("{error:#}")).and_then(|()| judge(peer, version, ours, case, &seen));
    match judged {
        Ok(text) => Verdict::Good(text),
        Err(why) => Verdict::Bad { why, ours: seen.ours, theirs: seen.theirs, network: seen.network },
    }
}

/// What both printed.
#[derive(Debug, Default)]
struct Seen {
    ours: String,
    theirs: String,
    /// What the network did, where it did anything.
    network: String,
}

fn our_server(
    programs: &Programs,
    certificates: &Certificates,
    (peer, version): (Peer, Version),
    case: &Case,
    seen: &mut Seen,
) -> Result<()> {
    let deadline = Instant::now() + TIME_MAX;
    let mut command = Command::new(&programs.echo);
    command.args(["server", "--listen", "127.0.0.1:0", "--client-cert", "required", "--once"]);
    if case.special == Special::NoCookie {
        command.arg("--no-cookie");
    }
    let oldest = if case.special == Special::BothVersions { programs.oldest } else { version };
    common(&mut command, certificates, oldest, case);
    let mut server = Process::start(&mut command)?;
    let address: SocketAddr = match server.await_line("listening address=", deadline) {
        Some(address) => address.parse()?,
        None => {
            seen.ours = server.output();
            anyhow::bail!("our server does not listen");
        }
    };
    let proxy = case.weather.map(|weather| Proxy::start(address, weather)).transpose()?;
    let target = proxy.as_ref().map_or(address, Proxy::address);
    let mut client = Process::start(&mut peer.command(programs, certificates, version, Some(target), case))?;
    wait(peer, case, Ours::Server, &mut server, &mut client, deadline);
    (seen.ours, seen.theirs) = (server.output(), client.output());
    seen.network = proxy.as_ref().map(Proxy::diary).unwrap_or_default();
    Ok(())
}

fn our_client(
    programs: &Programs,
    certificates: &Certificates,
    (peer, version): (Peer, Version),
    case: &Case,
    seen: &mut Seen,
) -> Result<()> {
    let deadline = Instant::now() + TIME_MAX;
    let mut server = Process::start(&mut peer.command(programs, certificates, version, None, case))?;
    let address: SocketAddr = match server.await_line("listening address=", deadline) {
        Some(address) => address.parse()?,
        None => {
            seen.theirs = server.output();
            anyhow::bail!("the peer's server does not listen");
        }
    };
    let proxy = case.weather.map(|weather| Proxy::start(address, weather)).transpose()?;
    let target = proxy.as_ref().map_or(address, Proxy::address);
    let mut command = Command::new(&programs.echo);
    let count = if case.special == Special::KeyUpdate { "6" } else { "1" };
    command.args(["client", "--connect", &target.to_string(), "--send", TEXT, "--count", count]);
    common(&mut command, certificates, version, case);
    let mut client = Process::start(&mut command)?;
    wait(peer, case, Ours::Client, &mut client, &mut server, deadline);
    (seen.ours, seen.theirs) = (client.output(), server.output());
    seen.network = proxy.as_ref().map(Proxy::diary).unwrap_or_default();
    Ok(())
}

fn common(command: &mut Command, certificates: &Certificates, version: Version, case: &Case) {
    command.arg("--ca").arg(certificates.ca()).arg("--crl").arg(certificates.crl());
    // Of the versions above, which cannot be turned off, the peer is told nothing.
    command.args(["--min-version", version.name(), "--timeout", "14"]);
    if let Some((chain, key)) = certificates.ours(case.ours) {
        command.arg("--cert").arg(chain).arg("--key").arg(key);
    }
    if let Some(mtu) = case.mtu {
        command.args(["--mtu", &mtu.to_string()]);
    }
    if let Some(group) = case.group {
        command.args(["--groups", group]);
    }
    if let Some(suite) = case.suite {
        command.args(["--suites", suite]);
    }
    match case.special {
        Special::ConnectionId => drop(command.args(["--cid", "8"])),
        Special::KeyUpdate => drop(command.args(["--key-update-every", "1"])),
        Special::Exporter => drop(command.args(["--print-exporter", EXPORTER_LABEL])),
        Special::None | Special::NoCookie | Special::BothVersions => {}
    }
}

/// Until both have shown what decides, or until they can show no more.
fn wait(peer: Peer, case: &Case, side: Ours, ours: &mut Process, theirs: &mut Process, deadline: Instant) {
    let mut typed = Instant::now();
    let mut end = deadline;
    loop {
        let (our_output, their_output) = (ours.output(), theirs.output());
        let is_settled = match case.expected {
            Expected::Echo => has_echo(peer, side, case, &our_output, &their_output),
            Expected::WeRefuse { .. } => our_end(&our_output).is_some() && peer.alert_received(&their_output).is_some(),
            Expected::TheyRefuse => our_end(&our_output).is_some(),
        };
        if is_settled || (ours.has_ended() && theirs.has_ended()) {
            end = end.min(Instant::now() + AFTERMATH);
        }
        if Instant::now() >= end {
            return;
        }
        if peer.is_typed_into() && our_output.contains("established") && typed.elapsed() >= TYPE_EVERY {
            theirs.type_line(TEXT);
            typed = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How our end came to its end, in its own words.
fn our_end(output: &str) -> Option<&str> {
    output.lines().find(|line| line.starts_with("ended ") || line.starts_with("refused "))
}

fn has_echo(peer: Peer, side: Ours, case: &Case, ours: &str, theirs: &str) -> bool {
    let packets = |output: &str| output.lines().filter(|line| line.starts_with("packet ")).count();
    let wanted = if case.special == Special::KeyUpdate { 6 } else { 1 };
    match side {
        // The client is the one that knows whether all has come back.
        Ours::Server => {
            packets(ours) >= wanted && peer.has_echo(theirs) && (peer.is_typed_into() || theirs.contains("closed"))
        }
        Ours::Client => packets(ours) >= wanted && our_end(ours).is_some(),
    }
}

/// Says what was seen, or what is wrong with it.
fn judge(peer: Peer, version: Version, side: Ours, case: &Case, seen: &Seen) -> Result<String, String> {
    let established = seen.ours.lines().find(|line| line.starts_with("established "));
    let end = our_end(&seen.ours);
    match case.expected {
        Expected::Echo => {
            let Some(established) = established else {
                return Err(format!("not established; {}", end.unwrap_or("no end either")));
            };
            if !has_echo(peer, side, case, &seen.ours, &seen.theirs) {
                return Err(format!("established, but no echo; {}", end.unwrap_or("not ended")));
            }
            check_choice(version, case, established)?;
            check_special(case, seen)?;
            Ok("echo".to_owned())
        }
        Expected::WeRefuse { alert, reason } => {
            let end = end.ok_or("we did not refuse")?;
            // In DTLS 1.2 a missing certificate is a handshake_failure (RFC 5246 §7.4.6).
            let alert = if version == Version::V12 && alert == 116 { 40 } else { alert };
            if seen.ours.lines().any(|line| line.starts_with("packet ")) {
                return Err("packets were taken of a peer that must be refused".to_owned());
            }
            if !reason.split('|').any(|reason| end.contains(reason)) {
                return Err(format!("refused for another reason: {end}"));
            }
            match peer.alert_received(&seen.theirs) {
                Some(received) if received == alert => Ok(format!("refused, alert {received}")),
                Some(received) => Err(format!("refused, but by alert {received} instead of {alert}")),
                None => Err(format!("refused by us ({end}), but the peer tells of no alert")),
            }
        }
        Expected::TheyRefuse => {
            let end = end.ok_or("nobody refused")?;
            let is_alert = end.contains("the peer ended the association") || end.contains("said ");
            if seen.ours.lines().any(|line| line.starts_with("packet ")) || !is_alert {
                return Err(format!("not refused by an alert of the peer's: {end}"));
            }
            let alert = end.rsplit_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("?", |(alert, _)| alert);
            Ok(format!("they refuse, alert {alert}"))
        }
    }
}

/// Version, group and suite are those that were asked for.
fn check_choice(version: Version, case: &Case, established: &str) -> Result<(), String> {
    let group = match case.group {
        Some("x25519mlkem768") => "X25519MLKEM768",
        Some("x25519") => "X25519",
        Some("p256") => "P-256",
        Some("p384") => "P-384",
        _ => "",
    };
    let suite = match case.suite {
        Some("aes256") => "AES_256_GCM_SHA384",
        Some("chacha20") => "CHACHA20_POLY1305",
        _ => "",
    };
    let is_right = established.contains(&format!("version={} ", version.name()))
        && established.contains(&format!("group={group}"))
        && established.contains(suite);
    if is_right { Ok(()) } else { Err(format!("not what was asked for: {established}")) }
}

fn check_special(case: &Case, seen: &Seen) -> Result<(), String> {
    match case.special {
        Special::Exporter => {
            let ours = seen.ours.lines().find(|line| line.starts_with("exporter "));
            let ours = ours.and_then(|line| line.rsplit_once("value=")).map(|(_, value)| value.to_owned());
            let theirs = exported(&seen.theirs);
            if ours.is_none() || ours != theirs {
                return Err(format!("exported values differ: ours {ours:?}, theirs {theirs:?}"));
            }
        }
        Special::ConnectionId => {
            let is_ours = seen.ours.lines().any(|line| line.starts_with("established ") && !line.contains("cid=none"));
            if !is_ours || !seen.theirs.contains("cid enabled=1 receives=4 sends=8") {
                return Err("connection ids were not agreed on".to_owned());
            }
        }
        Special::KeyUpdate => {
            let updates = seen.ours.lines().filter(|line| line.starts_with("key-update ")).count();
            if updates < 6 {
                return Err(format!("only {updates} key updates"));
            }
        }
        Special::None | Special::NoCookie | Special::BothVersions => {}
    }
    Ok(())
}
