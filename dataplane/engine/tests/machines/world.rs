//! A Gateway of two workers and clients, joined by nothing but this program: no sockets, no clock.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use ringfort_dtls::{Association, ClientConfig, ProtocolVersion, ServerConfig, Settings};
use ringfort_engine::client::{self, Client};
use ringfort_engine::gateway::{self, Command, Event, Gateway};
use ringfort_engine::{Errand as _, Machine, Now, Output};
use ringfort_identity::{Credentials, Trust};
use ringfort_packet::coalesce::Offloads;
use ringfort_packet::split::Splitter;
use ringfort_packet::vnet::VnetHeader;
use ringfort_rules::{Action, Direction, InnerAddresses, PortRange, Rule, RuleSet, Service};
use ringfort_types::{BootInstant, RuleId, SessionId, WorkerIndex};
use rustls_pki_types::PrivatePkcs8KeyDer;

/// Where the story begins on the boot clock.
const START: BootInstant = BootInstant::from_nanos(1_000_000_000_000);
/// Some moment after the certificates begin and before they end.
const UNIX: Duration = Duration::from_secs(1_800_000_000);

pub(crate) const SITE: &str = "10.98.0.10";

pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) anchor: Trust,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { anchor: Trust::new(certificate.der(), []).unwrap(), issuer: Issuer::new(params, key) }
    }

    fn leaf(&self, uri: &str, usage: ExtendedKeyUsagePurpose) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Credentials::new(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der())).unwrap()
    }
}

/// A datagram under way.
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// What was under way.
pub(crate) struct Wire(VecDeque<Datagram>);

pub(crate) struct World {
    ca: Ca,
    pub(crate) now: Now,
    pub(crate) workers: Vec<Gateway>,
    server: Arc<ServerConfig>,
    pub(crate) clients: Vec<Client>,
    wire: VecDeque<Datagram>,
    /// Packets that left the Gateway for its site.
    pub(crate) at_site: Vec<Vec<u8>>,
    /// Packets that reached each client's system.
    pub(crate) at_client: Vec<Vec<Vec<u8>>>,
    pub(crate) events: Vec<Event>,
    pub(crate) client_events: Vec<Vec<client::Event>>,
    /// Datagrams to the Gateway go nowhere: it was killed, or the way is cut.
    pub(crate) cut: bool,
    /// Every session that authenticates is given the usual rules at once.
    pub(crate) admits: bool,
    /// When packets of clients may pass.
    pub(crate) release: client::Release,
    /// First ClientHellos go to another worker than what follows them.
    pub(crate) misled: bool,
    /// Errands stay where they are until [`World::finish_errands`].
    pub(crate) threads_are_busy: bool,
    errands: Vec<(usize, gateway::Errand)>,
    /// The address that a translator gives a client by now.
    pub(crate) translated: Option<(usize, SocketAddr)>,
}

pub(crate) fn gateway_address() -> SocketAddr {
    "203.0.113.10:443".parse().unwrap()
}

pub(crate) fn client_address(index: usize) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 2], 40_000 + index as u16))
}

pub(crate) fn inner(index: usize) -> InnerAddresses {
    InnerAddresses { ipv4: Some([10, 97, 0, 10 + index as u8].into()), ipv6: None }
}

pub(crate) fn inner_address(index: usize) -> IpAddr {
    inner(index).ipv4.unwrap().into()
}

/// Rules that allow TCP to port 80 of the site's service, and name the denial of port 81.
pub(crate) fn rules() -> Arc<RuleSet> {
    let rule = |id, action, port: u16| Rule {
        id: RuleId(id),
        action,
        direction: Direction::ToSite,
        networks: vec![format!("{SITE}/32").parse().unwrap()],
        services: vec![Service::Tcp(PortRange::single(port))],
    };
    Arc::new(RuleSet::compile(&[rule(1, Action::Allow, 80), rule(2, Action::Deny, 81)], &[]).unwrap())
}

impl World {
    pub(crate) fn new() -> Self {
        let ca = Ca::new();
        let own = ca.leaf("ringfort://example/gateway/g1", ExtendedKeyUsagePurpose::ServerAuth);
        let server = Arc::new(ServerConfig::new(&own, ca.anchor.clone()).unwrap());
        let mut world = Self {
            ca,
            now: Now { boot: START, unix: UNIX },
            workers: Vec::new(),
            server,
            clients: Vec::new(),
            wire: VecDeque::new(),
            at_site: Vec::new(),
            at_client: Vec::new(),
            events: Vec::new(),
            client_events: Vec::new(),
            cut: false,
            admits: false,
            release: client::Release::AtOnce,
            misled: false,
            threads_are_busy: false,
            errands: Vec::new(),
            translated: None,
        };
        world.restart_gateway();
        world
    }

    /// Credentials of a device.
    pub(crate) fn device(&self, id: &str) -> Credentials {
        self.ca.leaf(&format!("ringfort://example/device/{id}"), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The Gateway starts anew and speaks DTLS 1.3 only.
    pub(crate) fn newer_only(&mut self) {
        let own = self.ca.leaf("ringfort://example/gateway/g1", ExtendedKeyUsagePurpose::ServerAuth);
        let settings = Settings { min_version: ProtocolVersion::Dtls13, ..Settings::default() };
        self.server = Arc::new(ServerConfig::for_devices(&own, self.ca.anchor.clone(), settings).unwrap());
        self.restart_gateway();
    }

    /// New workers that know nothing of the old ones' sessions.
    pub(crate) fn restart_gateway(&mut self) {
        let own = InnerAddresses { ipv4: Some([10, 97, 0, 1].into()), ipv6: None };
        let worker = |index| {
            let dtls = Arc::clone(&self.server);
            let (worker, offloads, random) = (WorkerIndex(index), Offloads { uso: true }, [index; 32]);
            let config =
                gateway::Config { worker, workers: 2, dtls, seed: 7, cookie_seed: [9; 32], random, offloads, own };
            Gateway::new(config, self.now)
        };
        self.workers = vec![worker(0), worker(1)];
    }

    /// A client of its own device under `ca`, or under the world's.
    pub(crate) fn add_client(&mut self, gateway_id: Option<&str>, ca: Option<&Ca>) -> usize {
        self.add_client_that_trusts(self.ca.anchor.clone(), gateway_id, ca)
    }

    /// As [`World::add_client`]; Gateways must be under `anchor`.
    pub(crate) fn add_client_that_trusts(&mut self, anchor: Trust, gateway_id: Option<&str>, ca: Option<&Ca>) -> usize {
        let index = self.clients.len();
        let uri = format!("ringfort://example/device/d{index}");
        let own = ca.unwrap_or(&self.ca).leaf(&uri, ExtendedKeyUsagePurpose::ClientAuth);
        let dtls = Arc::new(ClientConfig::new(&own, anchor).unwrap());
        let gateway_id = gateway_id.map(Into::into);
        let routes = ["10.98.0.0/24".parse().unwrap()].into_iter().collect();
        let (offloads, release) = (Offloads { uso: true }, self.release);
        let random = [index as u8; 32];
        let config = client::Config { dtls, gateway_id, offloads, inner: inner(index), routes, release, random };
        self.clients.push(Client::new(config, self.now));
        self.at_client.push(Vec::new());
        self.client_events.push(Vec::new());
        index
    }

    /// A client that is up, on the worker of even or odd index as its own, with the usual rules. From here on, all are
    /// admitted.
    pub(crate) fn bound_client(&mut self) -> (usize, SessionId) {
        self.admits = true;
        let index = self.add_client(Some("g1"), None);
        self.run(Duration::from_millis(100));
        let session = self.session_of(index);
        self.events.clear();
        (index, session)
    }

    pub(crate) fn session_of(&self, client: usize) -> SessionId {
        let found = self.events.iter().rev().find_map(|event| match event {
            Event::Authenticated { session, outer, .. } if *outer == client_address(client) => Some(*session),
            _ => None,
        });
        found.expect("the client did not authenticate")
    }

    pub(crate) fn install(&mut self, session: SessionId, client: usize, rules: Arc<RuleSet>, not_after: BootInstant) {
        let outer = client_address(client);
        self.command(&Command::Install { session, outer, inner: inner(client), rules, not_after });
    }

    pub(crate) fn command(&mut self, command: &Command) {
        for index in 0..self.workers.len() {
            self.workers[index].handle_command(command.clone(), self.now);
            self.after_worker(index, &[]);
        }
    }

    /// Lets time pass in steps of 5 ms, and everything that is under way arrive.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now.boot + time;
        loop {
            self.settle();
            if self.now.boot >= end {
                return;
            }
            self.now.boot = self.now.boot + Duration::from_millis(5);
            self.now.unix += Duration::from_millis(5);
        }
    }

    /// Lets time pass for the Gateway alone; nothing arrives.
    pub(crate) fn run_gateway(&mut self, time: Duration) {
        self.now.boot = self.now.boot + time;
        self.now.unix += time;
        for index in 0..self.workers.len() {
            self.workers[index].handle_timeout(self.now);
            self.after_worker(index, &[]);
        }
    }

    fn settle(&mut self) {
        for _ in 0..20_000 {
            for index in 0..self.clients.len() {
                if self.clients[index].poll_timeout().is_some_and(|at| at <= self.now.boot) {
                    self.clients[index].handle_timeout(self.now);
                }
                self.after_client(index, &[]);
            }
            for index in 0..self.workers.len() {
                if self.workers[index].poll_timeout().is_some_and(|at| at <= self.now.boot) {
                    self.workers[index].handle_timeout(self.now);
                }
                self.after_worker(index, &[]);
            }
            let Some(datagram) = self.wire.pop_front() else { return };
            self.arrive(datagram);
        }
        panic!("the wire never falls silent");
    }

    fn arrive(&mut self, mut datagram: Datagram) {
        let length = datagram.bytes.len();
        if datagram.to == gateway_address() {
            // The kernel spreads senders over the workers' sockets; here by port.
            let elsewhere = self.misled && is_hello(&datagram.bytes);
            let worker = (usize::from(datagram.from.port()) + usize::from(elsewhere)) % self.workers.len();
            if !self.cut {
                self.reaches_worker(worker, datagram.from, &mut datagram.bytes, length);
            }
        } else {
            // Answers to those who are not there are lost.
            let translated = self.translated.filter(|(_, address)| *address == datagram.to).map(|(client, _)| client);
            let index = translated.unwrap_or(usize::from(datagram.to.port()).wrapping_sub(40_000));
            let has_left = self.translated.is_some_and(|(client, address)| client == index && address != datagram.to);
            if has_left {
                return;
            }
            if index >= self.clients.len() {
                return;
            }
            self.clients[index].handle_outside(0, datagram.from, &mut datagram.bytes, length, self.now);
            self.after_client(index, &datagram.bytes);
        }
    }

    /// Datagrams that one worker's socket received; handed over if it says so, as its shell would.
    pub(crate) fn reaches_worker(&mut self, worker: usize, from: SocketAddr, bytes: &mut [u8], segment_bytes: usize) {
        let owner = self.workers[worker].handle_outside(0, from, bytes, segment_bytes, self.now);
        self.after_worker(worker, bytes);
        if let Some(owner) = owner.map(|owner| usize::from(owner.0)) {
            assert_eq!(self.workers[owner].handle_outside(0, from, bytes, segment_bytes, self.now), None);
            self.after_worker(owner, bytes);
        }
    }

    /// A packet from the site that the kernel put into one worker's TUN queue. Says whether it was handed over.
    pub(crate) fn site_sends(&mut self, worker: usize, packet: &[u8]) -> bool {
        let mut frame = VnetHeader::PLAIN.to_bytes().to_vec();
        frame.extend_from_slice(packet);
        let owner = self.workers[worker].handle_inside(&mut frame, self.now);
        self.after_worker(worker, &[]);
        let Some(owner) = owner.map(|owner| usize::from(owner.0)) else { return false };
        assert_eq!(self.workers[owner].handle_inside(&mut frame, self.now), None);
        self.after_worker(owner, &[]);
        true
    }

    /// A packet that a client's system routes into its tunnel.
    pub(crate) fn client_sends(&mut self, client: usize, packet: &[u8]) {
        let mut frame = VnetHeader::PLAIN.to_bytes().to_vec();
        frame.extend_from_slice(packet);
        self.clients[client].handle_inside(&mut frame, self.now);
        self.after_client(client, &[]);
    }

    fn after_worker(&mut self, index: usize, buffer: &[u8]) {
        let worker = &mut self.workers[index];
        while let Some(mut errand) = worker.poll_errand() {
            if self.threads_are_busy {
                self.errands.push((index, errand));
            } else {
                errand.run(self.now);
                worker.handle_errand(errand, self.now);
            }
        }
        self.at_site.extend(collect(worker.output(), buffer, &mut self.wire, gateway_address(), gateway_address()));
        worker.clear_output();
        let new = self.events.len();
        self.events.extend(std::iter::from_fn(|| worker.poll_event()));
        let authenticated = |event: &Event| match event {
            Event::Authenticated { session, outer, .. } => Some((*session, usize::from(outer.port() - 40_000))),
            _ => None,
        };
        let admitted: Vec<_> = self.events[new..].iter().filter_map(authenticated).filter(|_| self.admits).collect();
        for (session, client) in admitted {
            self.install(session, client, rules(), BootInstant::FAR_FUTURE);
        }
    }

    /// Runs the errands that are out, the youngest first, and gives them back.
    pub(crate) fn finish_errands(&mut self) {
        while let Some((index, mut errand)) = self.errands.pop() {
            errand.run(self.now);
            self.workers[index].handle_errand(errand, self.now);
            self.after_worker(index, &[]);
        }
    }

    fn after_client(&mut self, index: usize, buffer: &[u8]) {
        let client = &mut self.clients[index];
        let translated = self.translated.filter(|(client, _)| *client == index).map(|(_, address)| address);
        let from = translated.unwrap_or_else(|| client_address(index));
        let arrived = collect(client.output(), buffer, &mut self.wire, from, gateway_address());
        self.at_client[index].extend(arrived);
        client.clear_output();
        // That the handshake is finished says nothing about being admitted; only what follows does.
        let events = std::iter::from_fn(|| client.poll_event());
        let told = events.filter(|event| !matches!(event, client::Event::Established { .. }));
        self.client_events[index].extend(told);
    }

    /// Handshakes of a device that go as far as the Gateway's answer to the hello with the cookie, one from each of `ports`, all
    /// to the first worker.
    pub(crate) fn half_open(&mut self, ports: std::ops::Range<u16>) {
        let own = self.ca.leaf("ringfort://example/device/x", ExtendedKeyUsagePurpose::ClientAuth);
        let config = Arc::new(ClientConfig::new(&own, self.ca.anchor.clone()).unwrap());
        for port in ports {
            self.half_open_by(&config, ([192, 0, 2, 1], port).into(), port);
        }
    }

    /// The same from one address, by a client that no other is like.
    pub(crate) fn half_open_from(&mut self, from: SocketAddr, number: u16) {
        let own = self.ca.leaf("ringfort://example/device/x", ExtendedKeyUsagePurpose::ClientAuth);
        let config = Arc::new(ClientConfig::new(&own, self.ca.anchor.clone()).unwrap());
        self.half_open_by(&config, from, number);
    }

    /// The hello of a client of that kind that has been asked for a cookie, with one that is not the Gateway's.
    pub(crate) fn second_hello_with_another_cookie(&mut self, number: u16) -> Vec<u8> {
        let own = self.ca.leaf("ringfort://example/device/x", ExtendedKeyUsagePurpose::ClientAuth);
        let config = Arc::new(ClientConfig::new(&own, self.ca.anchor.clone()).unwrap());
        let mut client = Association::client(&config, None, random_of(number), self.now.boot, self.now.unix);
        let mut first = client.poll_transmit().unwrap();
        let length = first.len();
        self.reaches_worker(0, ([192, 0, 2, 255], 1).into(), &mut first, length);
        let [mut retry] = <[Vec<u8>; 1]>::try_from(self.intercept()).unwrap();
        // The cookie is the request's last extension.
        *retry.last_mut().unwrap() ^= 1;
        client.handle_datagram(&mut retry, self.now.boot, |_| {});
        client.poll_transmit().unwrap().to_vec()
    }

    fn half_open_by(&mut self, config: &Arc<ClientConfig>, from: SocketAddr, number: u16) {
        let mut client = Association::client(config, None, random_of(number), self.now.boot, self.now.unix);
        for _ in 0..2 {
            while let Some(mut datagram) = client.poll_transmit() {
                let length = datagram.len();
                self.reaches_worker(0, from, &mut datagram, length);
            }
            let answers = self.intercept();
            if let [retry] = answers.as_slice() {
                client.handle_datagram(&mut retry.clone(), self.now.boot, |_| {});
            }
        }
    }

    /// Takes what is under way off the wire, to be put back.
    pub(crate) fn take_wire(&mut self) -> Wire {
        Wire(std::mem::take(&mut self.wire))
    }

    pub(crate) fn put_on_wire(&mut self, Wire(datagrams): Wire) {
        self.wire.extend(datagrams);
    }

    /// Where what is under way goes to.
    pub(crate) fn destinations(&self) -> Vec<SocketAddr> {
        self.wire.iter().map(|datagram| datagram.to).collect()
    }

    /// What is under way.
    pub(crate) fn wire(&self) -> Vec<&[u8]> {
        self.wire.iter().map(|datagram| &datagram.bytes[..]).collect()
    }

    /// A command to a client.
    pub(crate) fn client_command(&mut self, client: usize, command: client::Command) {
        self.clients[client].handle_command(command, self.now);
        self.after_client(client, &[]);
    }

    /// Takes what is under way off the wire.
    pub(crate) fn intercept(&mut self) -> Vec<Vec<u8>> {
        self.wire.drain(..).map(|datagram| datagram.bytes).collect()
    }

    /// The first ClientHello of a client that has not run yet.
    pub(crate) fn hello_of_client(&mut self, client: usize) -> Vec<u8> {
        self.clients[client].handle_timeout(self.now);
        let hello = self.clients[client].output().outside.transmit(0).unwrap().bytes.to_vec();
        self.clients[client].clear_output();
        hello
    }

    pub(crate) fn client_counter(&self, client: usize, name: &str) -> u64 {
        let mut found = 0;
        self.clients[client].visit_counters(&mut |counter, count| found += if counter == name { count } else { 0 });
        found
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let mut sum = 0;
        for worker in &self.workers {
            worker.visit_counters(&mut |counter, count| sum += if counter == name { count } else { 0 });
        }
        sum
    }
}

/// Puts an output's datagrams on the wire and gives the packets of its frames.
fn collect(
    output: &Output,
    buffer: &[u8],
    wire: &mut VecDeque<Datagram>,
    from: SocketAddr,
    to: SocketAddr,
) -> Vec<Vec<u8>> {
    for index in 0..output.outside.len() {
        let send = output.outside.transmit(index).unwrap();
        let to = send.to.unwrap_or(to);
        wire.extend(send.bytes.chunks(send.segment_bytes).map(|bytes| Datagram { from, to, bytes: bytes.to_vec() }));
    }
    let mut packets = Vec::new();
    for frame in output.inside.frames() {
        let mut bytes = frame.header().to_vec();
        for piece in frame.pieces() {
            let start = piece.start as usize;
            bytes.extend_from_slice(&buffer[start..start + piece.len as usize]);
        }
        let mut splitter = Splitter::new(&mut bytes).unwrap();
        while let Some(packet) = splitter.next_packet() {
            packets.push(packet.to_vec());
        }
    }
    packets
}

/// Whether a datagram begins in the clear, as those of the hellos do.
fn is_hello(datagram: &[u8]) -> bool {
    datagram.first() == Some(&22)
}

/// A plaintext record that begins like a ClientHello.
pub(crate) fn forged_hello() -> Vec<u8> {
    let mut hello = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 92, 1, 0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 80];
    hello.resize(13 + 92, 0);
    hello
}

/// Another client hello's random for each number.
fn random_of(number: u16) -> [u8; 32] {
    let [high, low] = number.to_be_bytes();
    let mut random = [0; 32];
    (random[0], random[1]) = (high, low);
    random
}
