//! Many streams at once, and nothing goes wrong on the way.

use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use ringfort_netlab::bulk::{self, Received};
use ringfort_stage::Process;

use crate::world::{Backend, OPEN, PATIENCE, World};

const STREAMS: u16 = 4;
const DURATION: Duration = Duration::from_millis(800);
const PORT: u16 = 5_201;

/// Counters of what must not happen on a sound way, in either process.
const ERRORS: [&str; 8] = [
    "write_errors",
    "send_errors",
    "send_too_big",
    "send_segmentation_refused",
    "packets_malformed",
    "frames_malformed",
    "truncated",
    "cancelled",
];

// Covers: K8 allow
pub(crate) fn parallel_streams_meet_no_error(backend: Backend) -> Result<()> {
    World::start(backend, &["alice"])?.play(|world| {
        let (up, down) = (streams(world, Way::Up)?, streams(world, Way::Down)?);
        ensure!(up > 0 && down > 0, "a direction carried nothing");
        no_errors("gateway", &world.gateway)?;
        no_errors("client", world.client("alice")?)?;
        let packets = world.count("packets_to_inside")? + world.count("packets_to_outside")?;
        let calls = world.count("system_calls")?;
        ensure!(packets > 1_000, "only {packets} packets were carried");
        ensure!(calls * 2 < packets, "{calls} system calls for {packets} packets: they are not batched");
        Ok(())
    })
}

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

type End = JoinHandle<std::io::Result<Option<Received>>>;

/// Bytes that the receivers counted.
fn streams(world: &World, way: Way) -> Result<u64> {
    let mut ends: Vec<End> = Vec::new();
    for number in 0..STREAMS {
        let at = SocketAddr::new(OPEN[usize::from(number % 2)], PORT + number);
        let listener = world.run_at_site(|| TcpListener::bind(at))?;
        let alice = world.run_at("alice", || bulk::connect(at, PATIENCE))?;
        let site = bulk::accept(&listener)?;
        let (sender, receiver) = match way {
            Way::Up => (alice, site),
            Way::Down => (site, alice),
        };
        ends.push(std::thread::spawn(move || bulk::receive(receiver).map(Some)));
        ends.push(std::thread::spawn(move || bulk::send(sender, DURATION).map(|()| None)));
    }
    let mut bytes = 0;
    for end in ends {
        let Ok(received) = end.join() else { bail!("an end of a stream panicked") };
        bytes += received?.map_or(0, |received| received.bytes);
    }
    Ok(bytes)
}

fn no_errors(name: &str, process: &Process) -> Result<()> {
    let status = process.status()?;
    for counter in ERRORS {
        let count = status["totals"][counter].as_u64();
        ensure!(count == Some(0), "{name}: expected no {counter}, found {count:?}: {:#}", status["totals"]);
    }
    Ok(())
}
