//! What passes through a bound session, and what does not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringfort_engine::gateway::{Command, Event};
use ringfort_packet::build::{self, Tcp};
use ringfort_packet::parse::{Transport, parse, tcp_flags};
use ringfort_rules::RuleSet;
use ringfort_types::{BootInstant, RuleId};

use crate::world::{SITE, World, client_address, inner, inner_address, rules};

fn segment(client: usize, port: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let header = Tcp { sequence: 100, acknowledgement: 0, flags, window: 1_000, options: &[] };
    build::tcp(
        SocketAddr::new(inner_address(client), 5_000),
        SocketAddr::new(SITE.parse().unwrap(), port),
        &header,
        payload,
    )
}

fn answer(client: usize, port: u16, flags: u8) -> Vec<u8> {
    let header = Tcp { sequence: 900, acknowledgement: 101, flags, window: 1_000, options: &[] };
    build::tcp(
        SocketAddr::new(SITE.parse().unwrap(), port),
        SocketAddr::new(inner_address(client), 5_000),
        &header,
        &[],
    )
}

const SYN: u8 = tcp_flags::SYN;
const SYN_ACK: u8 = tcp_flags::SYN | tcp_flags::ACK;

// Covers: A13 allow, K3 allow
#[test]
fn an_allowed_packet_reaches_the_site_and_its_answer_comes_back() {
    let mut world = World::new();
    let (client, _) = world.bound_client();
    let packet = segment(client, 80, SYN, &[]);
    world.client_sends(client, &packet);
    world.run(Duration::from_millis(5));
    assert_eq!(world.at_site, [packet]);
    let answer = answer(client, 80, SYN_ACK);
    assert!(!world.site_sends(0, &answer), "the session is this worker's own");
    world.run(Duration::from_millis(5));
    assert_eq!(world.at_client[client], [answer]);
}

// Covers: A13 refuse, K3 refuse
#[test]
fn a_denied_packet_draws_a_reset_and_names_its_rule() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    for (port, expected) in [(81, Some(RuleId(2))), (82, None)] {
        world.client_sends(client, &segment(client, port, SYN, &[]));
        world.run(Duration::from_millis(5));
        assert!(world.at_site.is_empty());
        let reset = world.at_client[client].pop().expect("an answer");
        assert!(matches!(parse(&reset).unwrap().transport, Transport::Tcp { flags, source_port, .. }
            if flags & tcp_flags::RST != 0 && source_port == port));
        match world.events.pop() {
            Some(Event::Denied { session: denied, flow, rule }) => {
                assert_eq!((denied, flow.destination_port(), rule), (session, port, expected));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.counter("packets_denied"), 2);
}

#[test]
fn a_flood_of_denials_is_answered_and_reported_within_bounds() {
    let mut world = World::new();
    let (client, _) = world.bound_client();
    for _ in 0..20 {
        for _ in 0..50 {
            world.client_sends(client, &segment(client, 82, SYN, &[]));
        }
        world.run(Duration::from_millis(0));
    }
    assert_eq!(world.counter("packets_denied"), 1_000);
    let answered = world.at_client[client].len() as u64;
    assert!((100..500).contains(&answered), "{answered}");
    assert_eq!(world.counter("denials_unanswered"), 1_000 - answered);
    assert_eq!(world.events.len() as u64, answered);
}

#[test]
fn a_spoofed_source_is_dropped_and_counted() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    let other = client + 1;
    world.client_sends(client, &segment(other, 80, SYN, &[]));
    world.run(Duration::from_millis(5));
    assert_eq!(world.counter("spoofed_source"), 0, "the client's own machine sends no such packet");
    // The session gets another address, so that what the client sends from its old one is spoofed.
    world.command(&Command::Install {
        session,
        outer: client_address(client),
        inner: inner(other),
        rules: rules(),
        not_after: BootInstant::FAR_FUTURE,
    });
    world.client_sends(client, &segment(client, 80, SYN, &[]));
    world.run(Duration::from_millis(5));
    assert!(world.at_site.is_empty());
    assert_eq!(world.counter("spoofed_source"), 1);
    // And what is for the old one finds nobody.
    world.site_sends(0, &answer(client, 80, SYN_ACK));
    assert_eq!(world.counter("packets_homeless"), 1);
}

#[test]
fn nothing_passes_before_rules_and_after_their_end() {
    let mut world = World::new();
    let client = world.add_client(None, None);
    world.run(Duration::from_millis(100));
    world.client_sends(client, &segment(client, 80, SYN, &[]));
    world.run(Duration::from_millis(5));
    assert_eq!(world.counter("packets_unbound"), 1);

    let session = world.session_of(client);
    let not_after = world.now.boot + Duration::from_millis(50);
    world.install(session, client, rules(), not_after);
    world.client_sends(client, &segment(client, 80, SYN, &[]));
    world.run(Duration::from_millis(5));
    assert_eq!(world.at_site.len(), 1);
    world.run(Duration::from_millis(50));
    world.client_sends(client, &segment(client, 80, tcp_flags::ACK, b"late"));
    world.site_sends(0, &answer(client, 80, SYN_ACK));
    world.run(Duration::from_millis(5));
    assert_eq!(world.at_site.len(), 1, "expired, at the very packet");
    assert!(world.at_client[client].is_empty());
}

#[test]
fn new_rules_decide_from_the_next_packet_on() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    world.client_sends(client, &segment(client, 80, SYN, &[]));
    world.run(Duration::from_millis(5));
    assert_eq!(world.at_site.len(), 1);
    world.install(session, client, Arc::new(RuleSet::deny_all()), BootInstant::FAR_FUTURE);
    assert!(matches!(world.events.last(), Some(Event::RulesApplied { session: applied, .. }) if *applied == session));
    world.client_sends(client, &segment(client, 80, tcp_flags::ACK, b"more"));
    world.site_sends(0, &answer(client, 80, SYN_ACK));
    world.run(Duration::from_millis(5));
    assert_eq!(world.at_site.len(), 1);
    assert!(world.at_client[client].iter().all(|packet| {
        matches!(parse(packet).unwrap().transport, Transport::Tcp { flags, .. } if flags & tcp_flags::RST != 0)
    }));
}

#[test]
fn what_the_site_sends_unasked_is_dropped() {
    let mut world = World::new();
    let (client, _) = world.bound_client();
    world.site_sends(0, &answer(client, 80, SYN));
    world
        .site_sends(0, &build::udp("10.98.0.10:53".parse().unwrap(), SocketAddr::new(inner_address(client), 53), b"x"));
    world.site_sends(0, &build::udp("10.98.0.10:53".parse().unwrap(), "10.97.9.9:53".parse().unwrap(), b"x"));
    world.run(Duration::from_millis(5));
    assert!(world.at_client[client].is_empty());
    assert_eq!(world.counter("packets_homeless"), 1);
}

#[test]
fn packets_on_the_foreign_queue_are_handed_over_and_pass() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    let owner = usize::from(session.worker().0);
    world.client_sends(client, &segment(client, 80, SYN, &[]));
    world.run(Duration::from_millis(5));
    let answer = answer(client, 80, SYN_ACK);
    assert!(world.site_sends(1 - owner, &answer));
    world.run(Duration::from_millis(5));
    assert_eq!(world.at_client[client], [answer]);
    assert_eq!(world.counter("handed_over"), 1);
    // Datagrams of the session on the other worker's socket, as after a change of the socket group: noise here, which the
    // owner drops, so what is seen is that it came there.
    let opened = world.counter("datagrams_unknown");
    world.reaches_worker(1 - owner, client_address(client), &mut [0x2f; 100], 100);
    assert_eq!(world.counter("handed_over"), 2);
    assert_eq!(world.counter("datagrams_unknown"), opened);
}
