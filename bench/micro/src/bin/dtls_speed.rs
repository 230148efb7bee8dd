//! What the DTLS association costs: a mutual handshake, and sealing and opening one record.
//!
//! `cargo run --release -p ringfort-micro --bin dtls_speed`, pinned to one core (`taskset -c 1`). The allocator is the
//! binary's own, mimalloc; `--no-default-features` takes the system's. Figures are the best of several rounds: everything
//! else on the machine can only add to them. A handshake is both sides together.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::{Association, ClientConfig, Event, Opening, ServerConfig};
use ringfort_service::credentials;
use ringfort_stage::files::{Plan, User};
use ringfort_types::BootInstant;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 30;
const HANDSHAKES: usize = 20;
const RECORDS: usize = 2_000;
const START: BootInstant = BootInstant::from_nanos(1_000_000_000_000);

struct Ends {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    unix: Duration,
}

fn main() -> Result<()> {
    let ends = ends()?;
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..HANDSHAKES {
            ends.connect()?;
        }
        best = best.min(begun.elapsed().as_secs_f64() * 1e6 / HANDSHAKES as f64);
    }
    println!("handshake, both sides   {best:>8.0} us");
    for length in [64, 1_300] {
        let (seal, open) = records(&ends, length)?;
        println!("seal, {length:>5} B           {seal:>8.0} ns");
        println!("open, {length:>5} B           {open:>8.0} ns");
    }
    Ok(())
}

fn ends() -> Result<Ends> {
    let folder = tempfile::tempdir()?;
    let plan = Plan {
        gateway: "192.0.2.1:443".parse()?,
        inner: vec!["10.97.0.1/16".parse()?],
        routes: Vec::new(),
        users: vec![User { name: "alice".into(), rules: Vec::new() }],
        gateway_more: toml::Table::new(),
        client_more: toml::Table::new(),
    };
    plan.write(folder.path())?;
    let file = |name: &str| folder.path().join(name);
    let anchor = credentials::load_trust(&file("ca.pem"))?;
    let gateway = credentials::load(&file("gateway.pem"), &file("gateway.key"))?;
    let alice = credentials::load(&file("alice.pem"), &file("alice.key"))?;
    Ok(Ends {
        server: Arc::new(ServerConfig::new(&gateway, anchor.clone())?),
        client: Arc::new(ClientConfig::new(&alice, anchor)?),
        unix: SystemTime::now().duration_since(UNIX_EPOCH)?,
    })
}

impl Ends {
    /// Two associations after their handshake.
    fn connect(&self) -> Result<(Association, Association)> {
        let mut client = Association::client(&self.client, Some(ConnectionId::NONE), [1; 32], START, self.unix);
        let mut hello = client.poll_transmit().context("no hello")?;
        let opening = Opening::unvalidated(&hello).context("no opening")?;
        let cid = ConnectionId::new(&[1; 8]);
        let mut server = Association::server(&self.server, &opening, cid, [2; 32], START, self.unix);
        server.handle_datagram(&mut hello, START, |_| {});
        let mut established = 0;
        for _ in 0..20 {
            while let Some(mut datagram) = server.poll_transmit() {
                client.handle_datagram(&mut datagram, START, |_| {});
            }
            while let Some(mut datagram) = client.poll_transmit() {
                server.handle_datagram(&mut datagram, START, |_| {});
            }
            for event in [client.poll_event(), server.poll_event()].into_iter().flatten() {
                match event {
                    Event::Established(_) => established += 1,
                    Event::Ended(reason) => bail!("{reason}"),
                }
            }
            if established == 2 {
                return Ok((client, server));
            }
        }
        bail!("no handshake")
    }
}

/// Nanoseconds to seal and to open a record of `length` bytes.
fn records(ends: &Ends, length: usize) -> Result<(f64, f64)> {
    let (mut client, mut server) = ends.connect()?;
    let packet = vec![0x45; length];
    let stride = length + client.overhead();
    let mut sealed = vec![0; stride * RECORDS];
    let (mut best_seal, mut best_open) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for record in sealed.chunks_exact_mut(stride) {
            client.seal(&packet, record).context("not sealed")?;
        }
        best_seal = best_seal.min(begun.elapsed().as_secs_f64() * 1e9 / RECORDS as f64);
        let (begun, mut opened) = (Instant::now(), 0);
        for record in sealed.chunks_exact_mut(stride) {
            server.handle_datagram(record, START, |_| opened += 1);
        }
        best_open = best_open.min(begun.elapsed().as_secs_f64() * 1e9 / RECORDS as f64);
        if opened != RECORDS {
            bail!("{opened} of {RECORDS} records were opened");
        }
    }
    Ok((best_seal, best_open))
}
