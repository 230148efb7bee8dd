//! A client behind an address translator that changes its mind, and somebody on the way who sends records on from elsewhere (X10).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringfort_link::Links;
use ringfort_stage::files::Plan;
use serde_json::Value;
use toml::Table;

use crate::world::{Backend, PATIENCE, WIKI, World, plan, sessions, stage};

/// The translator's inner side, on the client's own machine.
const TRANSLATOR: &str = "127.0.0.1:4500";
/// A datagram longer than any.
const DATAGRAM_BYTES: usize = 65_536;

/// Passes datagrams on under one of its outer addresses.
struct Translator {
    outer: Arc<[UdpSocket]>,
    /// The address in use.
    at: Arc<AtomicUsize>,
    /// Bytes that came back to each.
    heard: Arc<[AtomicUsize]>,
    /// The next datagram that a client sends is sent from the last address, once.
    strays: Arc<AtomicBool>,
    /// Bytes that have gone that way.
    strayed: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Translator {
    /// Starts one with three outer addresses. To be called where the client is.
    fn start(gateway: SocketAddr) -> std::io::Result<Self> {
        let inner = UdpSocket::bind(TRANSLATOR)?;
        inner.set_read_timeout(Some(Duration::from_millis(1)))?;
        let outer = || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(gateway)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let outer: Arc<[UdpSocket]> = (0..3).map(|_| outer()).collect::<std::io::Result<Vec<_>>>()?.into();
        let heard: Arc<[AtomicUsize]> = (0..3).map(|_| AtomicUsize::new(0)).collect();
        let (at, strays, strayed, over) = (Arc::default(), Arc::default(), Arc::default(), Arc::default());
        let mut this = Self { outer, at, heard, strays, strayed, over, thread: None };
        let (outer, at, heard) = (Arc::clone(&this.outer), Arc::clone(&this.at), Arc::clone(&this.heard));
        let (strays, strayed, over) = (Arc::clone(&this.strays), Arc::clone(&this.strayed), Arc::clone(&this.over));
        this.thread = Some(std::thread::spawn(move || {
            let (mut buffer, mut client) = (vec![0; DATAGRAM_BYTES], None);
            while !over.load(Ordering::Relaxed) {
                let current = at.load(Ordering::Relaxed);
                for (number, socket) in outer.iter().enumerate() {
                    while let Ok(length) = socket.recv(&mut buffer) {
                        heard[number].fetch_add(length, Ordering::Relaxed);
                        // What comes back to an address that is no longer the client's is lost.
                        if let Some(client) = client.filter(|_| number == current) {
                            drop(inner.send_to(&buffer[..length], client));
                        }
                    }
                }
                if let Ok((length, from)) = inner.recv_from(&mut buffer) {
                    client = Some(from);
                    let stray = strays.swap(false, Ordering::Relaxed);
                    strayed.fetch_add(if stray { length } else { 0 }, Ordering::Relaxed);
                    let out = if stray { outer.len() - 1 } else { current };
                    drop(outer[out].send(&buffer[..length]));
                }
            }
        }));
        Ok(this)
    }

    fn address(&self, number: usize) -> Result<SocketAddr> {
        Ok(self.outer[number].local_addr()?)
    }

    fn heard(&self, number: usize) -> usize {
        self.heard[number].load(Ordering::Relaxed)
    }
}

impl Drop for Translator {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// alice's client, with a translator between it and the Gateway.
fn behind_a_translator(backend: Backend) -> Result<(World, Translator)> {
    let plan = plan(backend);
    let stage = stage(&plan)?;
    let file = Plan::user_file(&stage.files(), "alice");
    let mut table: Table = fs::read_to_string(&file)?.parse()?;
    let section = table.get_mut("client").and_then(toml::Value::as_table_mut).context("no section [client]")?;
    section.insert("gateway".into(), TRANSLATOR.into());
    fs::write(&file, table.to_string())?;
    let gateway = plan.gateway;
    let translator = stage.lab.run_in(stage.lab.client("alice")?, || Translator::start(gateway))??;
    Ok((World::start_on(stage, &plan, &["alice"])?, translator))
}

/// Where the one session is, by the Gateway.
fn is_at(world: &World, address: SocketAddr) -> Result<()> {
    let port = format!(":{}", address.port());
    let is_there = |session: &Value| session["outer"].as_str().is_some_and(|outer| outer.ends_with(&port));
    world.gateway.wait_until(PATIENCE, |status| sessions(status).any(is_there)).map(drop)
}

// Covers: X10 allow
pub(crate) fn a_session_goes_on_from_another_address(backend: Backend) -> Result<()> {
    let (world, translator) = behind_a_translator(backend)?;
    world.play(|world| {
        let _wiki = world.serve(WIKI[0], "wiki")?;
        world.get_page("alice", WIKI[0], "wiki")?;
        let handshakes = world.count("handshakes_finished")?;
        for number in [1, 0, 1] {
            translator.at.store(number, Ordering::Relaxed);
            world.get_page("alice", WIKI[0], "wiki")?;
        }
        // The way back to the first address needs no proof: it has given one.
        world.gateway.wait_until(PATIENCE, |status| status["totals"]["paths_proven"].as_u64() >= Some(2))?;
        ensure!(world.count("sessions_moved")? == 3, "{} moves", world.count("sessions_moved")?);
        ensure!(world.count("handshakes_finished")? == handshakes, "it shook hands anew");
        ensure!(world.client("alice")?.status()?["up"] == true, "alice's tunnel is down");
        Ok(())
    })
}

/// alice's machine itself gets another address and loses the one that it had: her tunnel goes on from there.
// Covers: X10 allow
pub(crate) fn a_machine_with_another_address_keeps_its_tunnel(backend: Backend) -> Result<()> {
    World::start(backend, &["alice"])?.play(|world| {
        let _wiki = world.serve(WIKI[0], "wiki")?;
        world.get_page("alice", WIKI[0], "wiki")?;
        let handshakes = world.count("handshakes_finished")?;
        let gateway = world.plan.gateway.ip();
        let router = world.stage.lab.internet();
        world.run_in(router, || {
            let mut links = Links::open()?;
            let index = links.index_of("to-alice")?;
            links.add_address(index, ELSEWHERE[0].into(), ELSEWHERE_BITS)
        })?;
        let (old, new) = (world.run_at("alice", || moves(gateway))?, ELSEWHERE[1]);
        world.get_page_again("alice", WIKI[0], "wiki")?;
        let is_there =
            |session: &Value| session["outer"].as_str().is_some_and(|outer| outer.starts_with(&new.to_string()));
        world.gateway.wait_until(PATIENCE, |status| sessions(status).any(is_there))?;
        ensure!(world.count("handshakes_finished")? == handshakes, "it shook hands anew, after it left {old}");
        ensure!(world.count("sessions")? == 1 && world.count("sessions_moved")? >= 1);
        Ok(())
    })
}

/// The network to which alice's machine moves: the router's address and hers.
const ELSEWHERE: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 129), Ipv4Addr::new(198, 51, 100, 130)];
const ELSEWHERE_BITS: u8 = 30;

/// Moves this machine to the other network: its old address goes, and with it the way by which it reached `gateway`.
fn moves(gateway: IpAddr) -> Result<IpAddr> {
    let mut links = Links::open()?;
    let way = links.route_to(gateway)?;
    let (old, index) = (way.source.context("no source address")?, way.output);
    let found = links.addresses()?.into_iter().find(|found| found.address == old).context("not our own address")?;
    let [router, own] = ELSEWHERE.map(IpAddr::from);
    links.delete_address(index, old, found.prefix_bits)?;
    links.add_address(index, own, ELSEWHERE_BITS)?;
    links.add_route(([0, 0, 0, 0].into(), 0), Some(router), index, None)?;
    ensure!(links.route_to(gateway)?.source == Some(own), "another source address than {own}");
    Ok(old)
}

/// One of alice's records is sent on from the address of somebody who never asked. That one hears little, and alice goes on.
// Covers: X10 refuse
pub(crate) fn a_record_sent_on_from_elsewhere_costs_nobody_much(backend: Backend) -> Result<()> {
    let (world, translator) = behind_a_translator(backend)?;
    world.play(|world| {
        let _wiki = world.serve(WIKI[0], "wiki")?;
        world.get_page("alice", WIKI[0], "wiki")?;
        let victim = 2;
        let socket = world.client_socket("alice", (WIKI[0], 9).into())?;
        let begun = Instant::now();
        // What goes astray must be a packet: what associations say to keep themselves going moves nothing.
        while world.count("sessions_moved")? == 0 {
            ensure!(begun.elapsed() < PATIENCE, "the session does not move");
            translator.strays.store(true, Ordering::Relaxed);
            socket.send(&[7; 100])?;
            std::thread::sleep(Duration::from_millis(50));
        }
        translator.strays.store(false, Ordering::Relaxed);
        // alice says nothing; the site would like to.
        let begun = Instant::now();
        while world.count("paths_unproven")? == 0 && world.count("sessions_moved")? == 1 {
            ensure!(begun.elapsed() < PATIENCE, "the session stays where nobody answers");
            std::thread::sleep(Duration::from_millis(20));
        }
        let (heard, sent) = (translator.heard(victim), translator.strayed.load(Ordering::Relaxed));
        ensure!(heard > 0 && heard <= 3 * sent, "{heard} bytes for {sent}");
        world.get_page("alice", WIKI[0], "wiki")?;
        is_at(world, translator.address(0)?)?;
        ensure!(
            world.count("sessions")? == 1 && world.client("alice")?.status()?["up"] == true,
            "alice lost her tunnel"
        );
        Ok(())
    })
}
