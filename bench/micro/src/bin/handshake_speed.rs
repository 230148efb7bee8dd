//! What a DTLS 1.3 handshake costs a Gateway, and what a hello costs it that brings no cookie.
//!
//! `cargo run --release -p ringfort-micro --bin handshake_speed`, pinned to one core (`taskset -c 1`). Handshakes are mutual, with
//! P-256 certificates under a CA, behind the cookie. The server's part is the time inside its calls. The allocator is the binary's
//! own, mimalloc; `--no-default-features` takes the system's. Figures are the best of several rounds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::{
    Association, ClientAuth, ClientConfig, Event, Front, Group, Screened, ServerConfig, Settings, Trusted,
};
use ringfort_identity::{Credentials, Role, Side, Trust};
use ringfort_service::credentials;
use ringfort_stage::files::{Plan, User};
use ringfort_types::BootInstant;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 30;
const HANDSHAKES: usize = 20;
const HELLOS: u16 = 2_000;
const ASSOCIATIONS: usize = 20_000;
const START: BootInstant = BootInstant::from_nanos(1_000_000_000_000);

fn main() -> Result<()> {
    let keys = Keys::new()?;
    println!("{:<34} {:>10} {:>12} {:>14}", "", "server us", "per s, core", "both sides us");
    for group in Group::ALL {
        let ends = keys.ends(group)?;
        let (mut server, mut both) = (f64::MAX, f64::MAX);
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let spent: Result<Duration> = (0..HANDSHAKES).map(|_| ends.shake_hands()).sum();
            both = both.min(begun.elapsed().as_secs_f64() * 1e6 / HANDSHAKES as f64);
            server = server.min(spent?.as_secs_f64() * 1e6 / HANDSHAKES as f64);
        }
        println!("{:<34} {server:>10.1} {:>12.0} {both:>14.1}", format!("handshake, {group:?}"), 1e6 / server);
    }
    println!("a hello without cookie, answered: {:.0} ns", keys.ends(Group::X25519)?.hellos()?);
    println!("an established association: {:.0} bytes", keys.ends(Group::X25519)?.bytes()?);
    Ok(())
}

/// What both sides show.
struct Keys {
    gateway: Credentials,
    alice: Credentials,
    anchor: Trust,
    unix: Duration,
}

/// Both sides, with one group each.
struct Ends {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    unix: Duration,
}

impl Keys {
    fn new() -> Result<Self> {
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
        Ok(Self {
            anchor: credentials::load_trust(&file("ca.pem"))?,
            gateway: credentials::load(&file("gateway.pem"), &file("gateway.key"))?,
            alice: credentials::load(&file("alice.pem"), &file("alice.key"))?,
            unix: SystemTime::now().duration_since(UNIX_EPOCH)?,
        })
    }

    fn ends(&self, group: Group) -> Result<Ends> {
        let settings = Settings { groups: vec![group], ..Settings::default() };
        let clients = Trusted::new(self.anchor.clone(), Side::Client, Role::Device);
        let clients = ClientAuth::Required(Arc::new(clients));
        let servers = Arc::new(Trusted::new(self.anchor.clone(), Side::Server, Role::Gateway));
        Ok(Ends {
            server: Arc::new(ServerConfig::with_settings(&self.gateway, clients, settings.clone())?),
            client: Arc::new(ClientConfig::with_settings(Some(&self.alice), servers, settings)?),
            unix: self.unix,
        })
    }
}

/// What the process has in memory now (proc(5), statm).
fn resident_bytes() -> Result<i64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: i64 = text.split(' ').nth(1).context("statm has another form")?.parse()?;
    Ok(pages * 4_096)
}

fn address(port: u16) -> SocketAddr {
    ([192, 0, 2, 7], port).into()
}

/// Runs `work` and adds its time to `spent`.
fn timed<T>(spent: &mut Duration, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    *spent += begun.elapsed();
    done
}

impl Ends {
    fn client(&self) -> Association {
        Association::client(&self.client, Some(ConnectionId::NONE), [1; 32], START, self.unix)
    }

    /// One handshake; gives the time that the server spent.
    fn shake_hands(&self) -> Result<Duration> {
        Ok(self.connect()?.0)
    }

    /// What an established association of the server's takes of the process's memory, a while after its handshake.
    fn bytes(&self) -> Result<f64> {
        let mut all = Vec::with_capacity(ASSOCIATIONS);
        // The allocators' first pages are nobody's.
        for _ in 0..ASSOCIATIONS / 10 {
            all.push(self.connect()?.1);
        }
        let (before, count) = (resident_bytes()?, all.len());
        while all.len() < ASSOCIATIONS {
            let mut association = self.connect()?.1;
            association.handle_timeout(START + Duration::from_secs(60));
            all.push(association);
        }
        Ok((resident_bytes()? - before) as f64 / (all.len() - count) as f64)
    }

    /// One handshake; gives the time that the server spent, and its association.
    fn connect(&self) -> Result<(Duration, Association)> {
        let (mut front, mut reply, mut spent) = (Front::new(&[3; 32]), [0; 2_000], Duration::ZERO);
        let mut client = self.client();
        let mut server: Option<Association> = None;
        let mut established = 0;
        for _ in 0..20 {
            while let Some(mut datagram) = client.poll_transmit() {
                if let Some(server) = &mut server {
                    timed(&mut spent, || server.handle_datagram(&mut datagram, START, |_| {}));
                    continue;
                }
                let screened =
                    timed(&mut spent, || front.screen(&self.server, &datagram, address(1), START, &mut reply));
                match screened {
                    Screened::Reply { bytes, .. } => client.handle_datagram(&mut reply[..bytes], START, |_| {}),
                    Screened::Opening(opening) => {
                        let cid = ConnectionId::new(&[1; 8]);
                        server = Some(timed(&mut spent, || {
                            let mut server =
                                Association::server(&self.server, &opening, cid, [2; 32], START, self.unix);
                            server.handle_datagram(&mut datagram, START, |_| {});
                            server
                        }));
                    }
                    Screened::Dropped(why) => bail!("the hello was dropped: {why:?}"),
                }
            }
            let Some(association) = &mut server else { continue };
            while let Some(mut datagram) = timed(&mut spent, || association.poll_transmit()) {
                client.handle_datagram(&mut datagram, START, |_| {});
            }
            for event in [client.poll_event(), association.poll_event()].into_iter().flatten() {
                match event {
                    Event::Established(_) => established += 1,
                    Event::ConnectionIdsWanted(_) => {}
                    Event::Ended(reason) => bail!("{reason}"),
                }
            }
            if established == 2 {
                return Ok((spent, server.context("no server")?));
            }
        }
        bail!("no handshake")
    }

    /// Nanoseconds for a hello without cookie and the answer to it.
    fn hellos(&self) -> Result<f64> {
        let hello = self.client().poll_transmit().context("no hello")?;
        let (mut front, mut reply, mut best) = (Front::new(&[3; 32]), [0; 2_000], f64::MAX);
        for _ in 0..ROUNDS {
            let (begun, mut answered) = (Instant::now(), 0);
            for port in 0..HELLOS {
                let screened = front.screen(&self.server, &hello, address(port), START, &mut reply);
                answered += u16::from(matches!(screened, Screened::Reply { .. }));
            }
            best = best.min(begun.elapsed().as_secs_f64() * 1e9 / f64::from(HELLOS));
            ensure!(answered == HELLOS, "{answered} of {HELLOS} hellos were answered");
        }
        Ok(best)
    }
}
