//! What rules allow passes, and everything else is refused at once with the rule that did it.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Result, ensure};
use ringfort_netlab::address;
use ringfort_netlab::http::HttpError;

use crate::sockets::{Pinged, echoed, pattern, ping, refusal};
use crate::world::{ALICE, BOB, Backend, OPEN, PATIENCE, PAYROLL, PORT, WIKI, World, plan, sessions};

/// The port of the echo that rules name.
const ECHO: u16 = 7;

// Covers: A12 allow, A13 allow, C16 allow, K3 allow
pub(crate) fn pages_pass_by_rule(backend: Backend) -> Result<()> {
    World::start(backend, &["alice", "bob"])?.play(|world| {
        for (user, own, at, name) in [("alice", ALICE, WIKI, "wiki"), ("bob", BOB, PAYROLL, "payroll")] {
            for (own, at) in own.into_iter().zip(at) {
                let _server = world.serve(at, name)?;
                let page = world.get_page(user, at, name)?;
                ensure!(page.contains(&format!("You come from {own}.")), "{user} did not come from {own}: {page:?}");
            }
        }
        ensure!(world.count("packets_denied")? == 0, "something was denied");
        Ok(())
    })
}

/// Something listens wherever a connection is refused, so that the refusal can only be the Gateway's.
// Covers: A12 refuse, A13 refuse, C16 refuse, K3 refuse
pub(crate) fn pages_without_a_rule_are_refused_at_once(backend: Backend) -> Result<()> {
    World::start(backend, &["alice", "bob"])?.play(|world| {
        let refused = [
            ("alice", PAYROLL, "payroll-for-accountants-only"),
            ("bob", WIKI, "default-deny"),
            ("bob", OPEN, "default-deny"),
        ];
        for (user, at, rule) in refused {
            for at in at {
                let listener = world.run_at_site(|| TcpListener::bind((at, 80)))?;
                match world.get(user, at)? {
                    Err(HttpError::Refused) => {}
                    other => anyhow::bail!("expected {user} to be refused at {at}, found {other:?}"),
                }
                let found = world.denied_by(user, &format!("tcp/{}", SocketAddr::new(at, 80)))?;
                ensure!(found == rule, "expected {user} to be refused at {at} by {rule}, found {found}");
                nobody_came(&listener)?;
            }
        }
        Ok(())
    })
}

fn nobody_came(listener: &TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let accepted = listener.accept();
    ensure!(
        accepted.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
        "a connection reached the site: {accepted:?}"
    );
    Ok(())
}

// Covers: C4 allow
pub(crate) fn any_port_and_ping_pass(backend: Backend) -> Result<()> {
    World::start(backend, &["alice"])?.play(|world| {
        for at in OPEN {
            for port in [1, 22, 8_443, 65_535] {
                let at = SocketAddr::new(at, port);
                let _echo = world.echo(at)?;
                echoed(&world.client_socket("alice", at)?, &pattern(700))?;
                let _listener = world.run_at_site(|| TcpListener::bind(at))?;
                world.run_at("alice", || TcpStream::connect_timeout(&at, PATIENCE))?;
            }
        }
        for at in WIKI {
            ensure!(ping(world, "alice", at)? == Pinged::Answered, "alice's ping of {at} was refused");
        }
        Ok(())
    })
}

// Covers: C4 refuse
pub(crate) fn udp_and_ping_without_a_rule_are_refused(backend: Backend) -> Result<()> {
    World::start(backend, &["alice", "bob"])?.play(|world| {
        for at in PAYROLL {
            let _echo = world.echo((at, ECHO).into())?;
            let error = refusal(&world.client_socket("alice", (at, ECHO).into())?)?;
            ensure!(error.kind() == prohibited(at), "expected {:?}, found {error}", prohibited(at));
            ensure!(ping(world, "alice", at)? == Pinged::Prohibited, "alice's ping of {at} was answered");
            for destination in [format!("udp/{}", SocketAddr::new(at, ECHO)), icmp(at)] {
                let rule = world.denied_by("alice", &destination)?;
                ensure!(rule == "payroll-for-accountants-only", "{destination} was refused by {rule}");
            }
            // To bob it is the other way round.
            echoed(&world.client_socket("bob", (at, ECHO).into())?, &pattern(700))?;
            ensure!(ping(world, "bob", at)? == Pinged::Answered, "bob's ping of {at} was refused");
        }
        let at = SocketAddr::new(WIKI[0], ECHO + 1);
        let error = refusal(&world.client_socket("alice", at)?)?;
        ensure!(error.kind() == prohibited(at.ip()), "the port beside the allowed one: {error}");
        ensure!(world.denied_by("alice", &format!("udp/{at}"))? == "default-deny", "an unnamed port has a rule");
        Ok(())
    })
}

/// What the system makes of "administratively prohibited": type 3 code 13 in IPv4, type 1 code 1 in IPv6.
const fn prohibited(at: IpAddr) -> ErrorKind {
    if at.is_ipv4() { ErrorKind::HostUnreachable } else { ErrorKind::PermissionDenied }
}

fn icmp(at: IpAddr) -> String {
    if at.is_ipv4() { format!("icmp/{at}") } else { format!("icmp/[{at}]") }
}

// Covers: X8 allow, X8 refuse
pub(crate) fn an_outer_ipv6_path_serves_too(backend: Backend) -> Result<()> {
    let gateway = SocketAddr::new(address::GATEWAY_V6.into(), PORT);
    let plan = ringfort_stage::files::Plan { gateway, ..plan(backend) };
    World::start_with(&plan, &["alice"])?.play(|world| {
        let status = world.gateway.status()?;
        let outer = sessions(&status).next().and_then(|session| session["outer"].as_str()).unwrap_or_default();
        ensure!(outer.starts_with("[2001:db8:1::2]:"), "the session is at {outer}");
        for (wiki, payroll) in WIKI.into_iter().zip(PAYROLL) {
            let _server = world.serve(wiki, "wiki")?;
            world.get_page("alice", wiki, "wiki")?;
            let _server = world.serve(payroll, "payroll")?;
            let refused = world.get("alice", payroll)?;
            ensure!(matches!(refused, Err(HttpError::Refused)), "expected a refusal, found {refused:?}");
        }
        Ok(())
    })
}
