//! Clients of DTLS 1.2, which are by others: found by connection id, or by their address.

use std::net::SocketAddr;
use std::time::Duration;

use ringfort_dtls::record::ContentType;
use ringfort_engine::gateway::{Command, EndReason, Event};
use ringfort_engine::{MESSAGE_BYTES, Message};
use ringfort_packet::build::{self, Tcp};
use ringfort_packet::parse::tcp_flags;
use ringfort_types::{BootInstant, SessionId};

use crate::other_client::{Client, Offer, Said};
use crate::world::{SITE, World, inner, inner_address, rules};

const HOME: ([u8; 4], u16) = ([198, 51, 100, 2], 41_000);

struct Other {
    client: Client,
    from: SocketAddr,
}

impl Other {
    fn new(world: &World, offer: Offer) -> Self {
        Self { client: Client::new(offer, Some(&world.device("other"))), from: HOME.into() }
    }

    /// A datagram to a worker, and what comes back.
    fn up(&mut self, world: &mut World, worker: usize, datagram: &[u8]) {
        world.reaches_worker(worker, self.from, &mut datagram.to_vec(), datagram.len());
        self.hear(world);
    }

    fn hear(&mut self, world: &mut World) {
        for answer in world.intercept() {
            self.client.handle(&answer);
        }
    }

    /// Up to the Gateway's first flight.
    fn greet(&mut self, world: &mut World) {
        for _ in 0..2 {
            let hello = self.client.hello();
            self.up(world, 0, &hello);
        }
        assert!(self.client.has_flight(), "{:?}", self.client.alerts);
    }

    /// All of the handshake, and rules.
    fn connect(&mut self, world: &mut World) -> SessionId {
        self.greet(world);
        let flight = self.client.second_flight();
        for record in self.client.write(&flight) {
            self.up(world, 0, &record);
        }
        assert!(self.client.is_connected, "{:?} {:?}", self.client.alerts, world.events);
        let authenticated = world.events.iter().find_map(|event| match event {
            Event::Authenticated { session, outer, .. } => Some((*session, *outer)),
            _ => None,
        });
        let (session, outer) = authenticated.unwrap();
        assert_eq!(outer, self.from);
        world.command(&Command::Install {
            session,
            outer,
            inner: inner(0),
            rules: rules(),
            not_after: BootInstant::FAR_FUTURE,
        });
        self.hear(world);
        assert_eq!(self.client.received, [Message::Reply.encode()]);
        self.client.received.clear();
        world.events.clear();
        session
    }

    /// A packet passes to the site and its answer comes back.
    fn is_served(&mut self, world: &mut World, worker: usize) {
        let syn = Tcp { sequence: 100, acknowledgement: 0, flags: tcp_flags::SYN, window: 1_000, options: &[] };
        let (own, site) = (SocketAddr::new(inner_address(0), 5_000), SocketAddr::new(SITE.parse().unwrap(), 80));
        let packet = build::tcp(own, site, &syn, &[]);
        world.at_site.clear();
        let record = self.client.seal(ContentType::ApplicationData, &packet);
        self.up(world, worker, &record);
        assert_eq!(world.at_site, [packet]);
        let flags = tcp_flags::ACK | tcp_flags::SYN;
        let answer = build::tcp(site, own, &Tcp { sequence: 9, acknowledgement: 101, flags, ..syn }, &[]);
        self.client.received.clear();
        world.site_sends(worker, &answer);
        self.hear(world);
        assert_eq!(self.client.received.last(), Some(&answer), "{} more", self.client.received.len());
    }
}

fn named() -> Offer {
    let mut offer = Offer::default();
    offer.cid(&[]);
    offer
}

// Covers: A10 allow, K4 allow
#[test]
fn a_client_of_the_older_version_is_served_with_and_without_an_id() {
    for offer in [named(), Offer::default()] {
        let mut world = World::new();
        let mut other = Other::new(&world, offer);
        other.connect(&mut world);
        other.is_served(&mut world, 0);
        assert_eq!((world.counter("records_discarded"), world.counter("datagrams_unknown")), (0, 0));
    }
}

/// With an id it is found wherever it is, at whatever worker its datagrams arrive; without one it stays where it was.
// Covers: X10 allow, X10 refuse
#[test]
fn an_older_client_moves_by_its_id_only() {
    let mut world = World::new();
    let mut other = Other::new(&world, named());
    other.connect(&mut world);
    other.is_served(&mut world, 1);
    other.from = ([203, 0, 113, 9], 999).into();
    let keepalive = other.client.seal(ContentType::ApplicationData, &Message::Request.encode());
    other.up(&mut world, 1, &keepalive);
    let challenge = other.client.received.iter().find_map(|message| match Message::decode(message) {
        Some(Message::Challenge(token)) => Some(token),
        _ => None,
    });
    let response = Message::Response(challenge.unwrap()).encode();
    assert_eq!(response.len(), MESSAGE_BYTES);
    let response = other.client.seal(ContentType::ApplicationData, &response);
    other.up(&mut world, 1, &response);
    assert_eq!((world.counter("sessions_moved"), world.counter("paths_proven")), (1, 1));
    other.is_served(&mut world, 0);

    let mut world = World::new();
    let mut other = Other::new(&world, Offer::default());
    other.connect(&mut world);
    let home = other.from;
    other.from = ([203, 0, 113, 9], 999).into();
    let keepalive = other.client.seal(ContentType::ApplicationData, &Message::Request.encode());
    other.up(&mut world, 0, &keepalive);
    assert_eq!((world.counter("sessions_moved"), world.counter("datagrams_unknown")), (0, 1));
    other.from = home;
    other.is_served(&mut world, 0);
}

/// The Gateway's last flight got lost: the client repeats its own, in one datagram that begins in the clear, and has it again.
#[test]
fn the_end_of_the_handshake_is_repeated_for_who_lacks_it() {
    for offer in [named(), Offer::default()] {
        let mut world = World::new();
        let mut other = Other::new(&world, offer);
        other.greet(&mut world);
        let flight = other.client.second_flight();
        let datagram = other.client.write(&flight).concat();
        world.reaches_worker(0, other.from, &mut datagram.clone(), datagram.len());
        assert!(!world.intercept().is_empty(), "which got lost");
        assert_eq!(world.counter("handshakes_finished"), 1);
        world.run_gateway(Duration::from_secs(1));
        let again = other.client.write(&flight).concat();
        other.up(&mut world, 0, &again);
        assert!(other.client.is_connected);
        assert_eq!(world.counter("sessions"), 1);
    }
}

/// A second handshake at the address of a client without an id is told apart from its session, and takes its place when it is
/// finished.
#[test]
fn a_second_handshake_at_the_same_address_replaces_the_first_session() {
    let mut world = World::new();
    let mut other = Other::new(&world, Offer::default());
    let first = other.connect(&mut world);
    let mut again = Other::new(&world, Offer { random: [0x77; 32], ..Offer::default() });
    again.greet(&mut world);
    other.is_served(&mut world, 0);
    again.connect_on(&mut world);
    let ended = |event: &Event| match event {
        Event::Ended { session, reason } => Some((*session, reason.clone())),
        _ => None,
    };
    let ended: Vec<_> = world.events.iter().filter_map(ended).collect();
    assert_eq!(ended, [(first, EndReason::Replaced)]);
}

impl Other {
    /// From the Gateway's first flight on, each record in a datagram of its own.
    fn connect_on(&mut self, world: &mut World) {
        let flight: Vec<Said> = self.client.second_flight();
        for record in self.client.write(&flight) {
            world.reaches_worker(0, self.from, &mut record.clone(), record.len());
        }
        // The goodbye to the session that was replaced is not for this one to read.
        world.intercept();
    }
}

// Covers: A10 refuse, K4 refuse
#[test]
fn a_gateway_that_speaks_the_newer_version_only_refuses_the_older() {
    let mut world = World::new();
    world.newer_only();
    let mut other = Other::new(&world, Offer::default());
    let hello = other.client.hello();
    other.up(&mut world, 0, &hello);
    // protocol_version
    assert_eq!(other.client.alerts, [70]);
    assert_eq!((world.counter("sessions"), world.counter("hellos_refused")), (0, 1));
    let (_, session) = world.bound_client();
    assert_eq!(world.counter("sessions"), 1, "{session:?} is of a client of ours");
}
