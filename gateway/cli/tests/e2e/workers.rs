//! One thread per core, each with its socket and its queue, and the way between them.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use ringfort_packet::build;
use ringfort_packet::parse::{Parsed, Transport};
use ringfort_stage::Probe;
use ringfort_stage::files::{Plan, Rule, User};

use crate::sockets::{answered, echoed, pattern};
use crate::world::{Backend, OPEN, PATIENCE, World, plan};

/// Probes, and flows of each. That all of the probes' ports fall to one socket of two happens once in 2³¹ runs.
const PROBES: usize = 32;
const FLOWS: u16 = 2;
const FROM: u16 = 4_000;
const PORT: u16 = 9_000;

// Covers: K2 allow
pub(crate) fn each_worker_has_its_core_socket_and_queue(backend: Backend) -> Result<()> {
    let usable = allowed_cores("/proc/self/status")?;
    World::start_with(&crowd(backend), &[])?.play(|world| {
        let workers = usable.len().min(2);
        let cores = worker_cores(world)?;
        ensure!(cores.len() == workers, "expected {workers} workers, found {cores:?}");
        let mut seen = BTreeSet::<usize>::new();
        for (thread, allowed) in &cores {
            ensure!(allowed.len() == 1, "{thread} may run on {allowed:?}");
            ensure!(allowed.is_subset(&usable), "{thread} runs on {allowed:?}, outside {usable:?}");
            seen.extend(allowed);
        }
        ensure!(seen.len() == workers, "workers share cores: {cores:?}");
        let told = world.gateway.status()?;
        let backends = told["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
        ensure!(backends.iter().all(|worker| worker["backend"] == backend.name()), "another backend: {backends:?}");

        let _echo = world.echo((OPEN[0], PORT).into())?;
        for (number, mut probe) in crowd_in(world)?.into_iter().enumerate() {
            for flow in 0..FLOWS {
                let request = request(world, number, flow)?;
                answered(&mut probe, &request, |parsed, _| {
                    parsed.transport == Transport::Udp { source_port: PORT, destination_port: FROM + flow }
                })?;
            }
        }
        let status = world.gateway.status()?;
        let counters = status["counters"].as_array().context("no counters")?;
        ensure!(counters.len() == workers, "expected the counters of {workers} workers");
        for (worker, counters) in counters.iter().enumerate() {
            for name in ["datagrams_in", "datagrams_out", "frames_in", "frames_out"] {
                ensure!(counters[name].as_u64() > Some(0), "worker {worker} counted no {name}: {counters:#}");
            }
        }
        Ok(())
    })
}

/// The kernel finds the queue for a reply by the request that came from there; an ICMP error belongs to no request, so
/// about every other one comes by the queue of another worker than its session's.
pub(crate) fn packets_on_a_foreign_queue_still_pass(backend: Backend) -> Result<()> {
    World::start_with(&crowd(backend), &[])?.play(|world| {
        if allowed_cores("/proc/self/status")?.len() < 2 {
            return Ok(());
        }
        for (number, mut probe) in crowd_in(world)?.into_iter().enumerate() {
            for flow in 0..FLOWS {
                answered(&mut probe, &request(world, number, flow)?, is_port_unreachable)?;
            }
        }
        ensure!(world.count("handed_over")? > 0, "nothing came by a foreign queue");
        ensure!(world.count("mail_refused")? == 0, "a worker refused what another handed over");
        Ok(())
    })
}

const fn is_port_unreachable(parsed: &Parsed, _: &[u8]) -> bool {
    matches!(parsed.transport, Transport::IcmpError { kind: 3, code: 3, .. })
}

// Covers: K2 refuse
pub(crate) fn one_worker_is_one_thread(backend: Backend) -> Result<()> {
    let mut plan = plan(backend);
    plan.gateway_more.insert("workers".into(), 1.into());
    World::start_with(&plan, &["alice"])?.play(|world| {
        let cores = worker_cores(world)?;
        ensure!(cores.len() == 1, "expected one worker, found {cores:?}");
        let at = SocketAddr::new(OPEN[0], PORT);
        let _echo = world.echo(at)?;
        echoed(&world.client_socket("alice", at)?, &pattern(100))?;
        ensure!(world.count("handed_over")? == 0, "there is nobody to hand over to");
        Ok(())
    })
}

/// A plan with many users who may do the same.
fn crowd(backend: Backend) -> Plan {
    let open = OPEN[0].to_string();
    let rules = vec![Rule::allow("open-host", &[&open], &["any"])];
    let users = (0..PROBES).map(|number| User { name: format!("user-{number}"), rules: rules.clone() }).collect();
    Plan { users, ..plan(backend) }
}

/// A probe for each of the plan's users; their sockets have different ports.
fn crowd_in(world: &World) -> Result<Vec<Probe>> {
    let folder = world.stage.files();
    let connect = |number| world.connect(&folder, &format!("user-{number}"), "alice");
    let probes = (0..PROBES).map(connect).collect::<Result<Vec<_>>>()?;
    world.gateway.wait_until(PATIENCE, |status| status["sessions"].as_array().map(Vec::len) == Some(PROBES))?;
    Ok(probes)
}

fn request(world: &World, number: usize, flow: u16) -> Result<Vec<u8>> {
    let own = world.plan.user_addresses(number)?[0];
    Ok(build::udp((own, FROM + flow).into(), (OPEN[0], PORT).into(), &pattern(100)))
}

/// The Gateway's worker threads with the cores that each may run on.
fn worker_cores(world: &mut World) -> Result<Vec<(String, BTreeSet<usize>)>> {
    let pid = world.gateway.role().pid();
    let mut workers = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        let name = fs::read_to_string(task.join("comm"))?;
        if name.starts_with("ringfort-w") {
            workers.push((name.trim().to_owned(), allowed_cores(&task.join("status").to_string_lossy())?));
        }
    }
    Ok(workers)
}

/// `Cpus_allowed_list` of a `status` file in `/proc`: numbers and ranges, such as `0,2-3`.
fn allowed_cores(status: &str) -> Result<BTreeSet<usize>> {
    let text = fs::read_to_string(status)?;
    let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).context("no Cpus_allowed_list")?;
    let mut cores = BTreeSet::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
            bail!("no list of cores: {list:?}")
        };
        cores.extend(first..=last);
    }
    Ok(cores)
}
