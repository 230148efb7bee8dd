//! The life of sessions: who gets one, and how it ends.

use std::net::SocketAddr;
use std::time::Duration;

use ringfort_dtls::Ended;
use ringfort_engine::Machine;
use ringfort_engine::client::{DownReason, Event as ClientEvent};
use ringfort_engine::gateway::{Command, EndReason, Event};
use ringfort_packet::build::{self, Tcp};
use ringfort_packet::parse::tcp_flags;
use ringfort_types::BootInstant;

use crate::world::{Ca, SITE, World, client_address, forged_hello, gateway_address, inner_address, rules};

fn ends(world: &World) -> Vec<&EndReason> {
    world.events.iter().filter_map(end).collect()
}

fn end(event: &Event) -> Option<&EndReason> {
    match event {
        Event::Ended { reason, .. } => Some(reason),
        _ => None,
    }
}

#[test]
fn a_foreign_certificate_gets_no_session() {
    let mut world = World::new();
    let foreign = Ca::new();
    world.add_client(None, Some(&foreign));
    world.run(Duration::from_millis(100));
    let failed = |event: &Event| matches!(event, Event::HandshakeFailed { reason: Ended::PeerRefused(_), .. });
    assert!(world.events.iter().all(failed) && !world.events.is_empty(), "{:?}", world.events);
    assert_eq!(world.counter("sessions"), 0);
    assert_eq!(world.counter("handshakes_finished"), 0);
}

#[test]
fn another_gateway_than_the_one_asked_for_is_left() {
    let mut world = World::new();
    let client = world.add_client(Some("g2"), None);
    world.run(Duration::from_millis(50));
    let event = world.client_events[client].first();
    assert!(matches!(event, Some(ClientEvent::Down(DownReason::OtherGateway { .. }))), "{event:?}");
}

#[test]
fn a_session_without_rules_ends_after_ten_seconds() {
    let mut world = World::new();
    world.add_client(None, None);
    world.run(Duration::from_millis(100));
    world.cut = true;
    world.run(Duration::from_millis(9_000));
    assert!(ends(&world).is_empty());
    world.run(Duration::from_millis(1_500));
    assert_eq!(ends(&world).first(), Some(&&EndReason::Unbound));
}

/// The client's handshake is done before the Gateway has looked at its certificate, let alone for its rules.
#[test]
fn a_client_is_up_only_once_it_is_admitted() {
    let mut world = World::new();
    let client = world.add_client(None, None);
    let foreign = world.add_client(None, Some(&Ca::new()));
    world.run(Duration::from_millis(2_900));
    assert!(world.client_events[client].is_empty(), "{:?}", world.client_events[client]);
    let session = world.session_of(client);
    world.install(session, client, rules(), BootInstant::FAR_FUTURE);
    world.run(Duration::from_millis(5));
    assert!(matches!(world.client_events[client][..], [ClientEvent::Up(_)]), "{:?}", world.client_events[client]);
    world.run(Duration::from_secs(20));
    let refused = |event: &ClientEvent| matches!(event, ClientEvent::Down(DownReason::Dtls(Ended::Alerted(_))));
    assert!(world.client_events[foreign].len() > 2 && world.client_events[foreign].iter().all(refused));
}

#[test]
fn removal_ends_a_session_everywhere_and_the_client_comes_again() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    world.command(&Command::Remove { session });
    assert_eq!(ends(&world), [&EndReason::Removed]);
    assert_eq!(world.counter("sessions"), 0);
    world.run(Duration::from_millis(300));
    let closed = |event: &ClientEvent| matches!(event, ClientEvent::Down(DownReason::Dtls(Ended::ClosedByPeer)));
    assert!(world.client_events[client].iter().any(closed), "{:?}", world.client_events[client]);
    assert!(matches!(world.client_events[client].last(), Some(ClientEvent::Up(_))));
    assert_ne!(world.session_of(client), session, "a session id is never used twice");
}

#[test]
fn a_second_handshake_from_the_same_address_replaces_the_first_only_once_it_is_finished() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    // A ClientHello that anybody could have sent from there.
    let mut hello = forged_hello();
    let length = hello.len();
    let worker = usize::from(session.worker().0);
    world.reaches_worker(worker, client_address(client), &mut hello, length);
    assert_eq!(ends(&world), Vec::<&EndReason>::new(), "a plaintext datagram ends nothing");
    world.run(Duration::from_secs(12));
    assert_eq!(world.counter("sessions"), 1, "the forged handshake is given up, the session lives");
    assert_eq!(ends(&world), Vec::<&EndReason>::new());
}

/// As after a start of the Gateway during which the kernel changed its mind about whose the sender is: what follows the hellos
/// reaches another worker, to which the connection id says whose it is.
#[test]
fn a_handshake_goes_on_whichever_worker_its_datagrams_reach() {
    let mut world = World::new();
    (world.misled, world.admits) = (true, true);
    let client = world.add_client(None, None);
    world.run(Duration::from_millis(50));
    assert!(world.counter("handed_over") > 0);
    assert!(
        matches!(world.client_events[client].last(), Some(ClientEvent::Up(_))),
        "{:?}",
        world.client_events[client]
    );
}

/// The client refuses the Gateway's certificate in the middle of the handshake.
#[test]
fn an_attempt_that_the_client_gave_up_does_not_hinder_the_next() {
    let mut world = World::new();
    let client = world.add_client_that_trusts(Ca::new().anchor, None, None);
    world.run(Duration::from_secs(2));
    let refused = |event: &&ClientEvent| matches!(event, ClientEvent::Down(DownReason::Dtls(Ended::PeerRefused(_))));
    let attempts = world.client_events[client].iter().filter(refused).count();
    // Pauses of 100, 200, 400 and 800 ms lie between them.
    assert_eq!(attempts, 5, "{:?}", world.client_events[client]);
    assert_eq!(world.counter("sessions"), 0, "the Gateway is told");
}

/// X10: a client whose address changes goes on, by its connection id; an old record that somebody sends again from elsewhere
/// moves nothing.
// Covers: X10 allow, X10 refuse
#[test]
fn a_session_follows_its_client_to_another_address() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    let worker = usize::from(session.worker().0);
    let syn = Tcp { sequence: 100, acknowledgement: 0, flags: tcp_flags::SYN, window: 1_000, options: &[] };
    let packet = |from| {
        let to = SocketAddr::new(SITE.parse().unwrap(), 80);
        build::tcp(SocketAddr::new(inner_address(client), from), to, &syn, &[])
    };
    world.client_sends(client, &packet(5_000));
    world.client_sends(client, &packet(5_001));
    let [old, new] = <[Vec<u8>; 2]>::try_from(world.intercept()).unwrap();
    let (elsewhere, attacker) = (([203, 0, 113, 77], 1_234).into(), ([192, 0, 2, 66], 666).into());
    // The kernel gives the new address to the other worker.
    let length = new.len();
    world.reaches_worker(1 - worker, elsewhere, &mut new.clone(), length);
    assert_eq!((world.counter("sessions_moved"), world.at_site.len()), (1, 1));
    world.reaches_worker(worker, attacker, &mut new.clone(), length);
    let length = old.len();
    world.reaches_worker(worker, attacker, &mut old.clone(), length);
    assert_eq!(world.counter("sessions_moved"), 1, "neither a repeated record nor an older one moves a session");
    // What the site answers goes to where the client is.
    let answer = Tcp { sequence: 9, acknowledgement: 101, flags: tcp_flags::ACK | tcp_flags::SYN, ..syn };
    let (site, own) = (SocketAddr::new(SITE.parse().unwrap(), 80), SocketAddr::new(inner_address(client), 5_001));
    world.site_sends(worker, &build::tcp(site, own, &answer, &[]));
    assert_eq!(world.destinations(), [elsewhere; 2], "what the client is to send back, and the packet");
    assert!(world.events.is_empty(), "{:?}", world.events);
}

#[test]
fn noise_from_strangers_makes_no_state() {
    let mut world = World::new();
    for first in 0..=255u8 {
        world.reaches_worker(0, ([192, 0, 2, 1], 1_000).into(), &mut [first; 60], 60);
    }
    world.reaches_worker(0, ([192, 0, 2, 1], 1_000).into(), &mut [], 1);
    assert_eq!(world.counter("sessions"), 0);
    assert_eq!(world.counter("datagrams_unknown"), 256);
}

#[test]
fn stopping_says_goodbye_to_every_client() {
    let mut world = World::new();
    let clients = [world.bound_client().0, world.bound_client().0];
    for worker in 0..2 {
        let now = world.now;
        assert!(!world.workers[worker].handle_stop(now), "two goodbyes fit one turn");
    }
    world.run(Duration::from_millis(20));
    for client in clients {
        let closed = |event: &ClientEvent| matches!(event, ClientEvent::Down(DownReason::Dtls(Ended::ClosedByPeer)));
        assert!(world.client_events[client].iter().any(closed));
    }
    assert_eq!(ends(&world), [&EndReason::Stopped, &EndReason::Stopped]);
}

#[test]
fn a_command_for_a_session_that_is_gone_does_nothing() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    world.command(&Command::Remove { session });
    world.events.clear();
    world.install(session, client, rules(), BootInstant::FAR_FUTURE);
    world.command(&Command::Remove { session });
    assert!(world.events.is_empty(), "{:?}", world.events);
}

/// An id names one session: the next one in the same place has another, and is not bothered with records of the one before.
#[test]
fn an_old_connection_id_names_nobody() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    world.client_sends(client, &[0x45; 40]);
    world.client_command(client, ringfort_engine::client::Command::PathChanged);
    let records = world.intercept();
    world.cut = true;
    world.command(&Command::Remove { session });
    world.intercept();
    world.cut = false;
    let other = world.add_client(Some("g1"), None);
    let mut next = world.add_client(Some("g1"), None);
    if client_address(other).port() % 2 == client_address(client).port() % 2 {
        next = other;
    }
    world.run(Duration::from_millis(100));
    assert!(matches!(world.client_events[next].first(), Some(ClientEvent::Up(_))));
    let (unknown, discarded) = (world.counter("datagrams_unknown"), world.counter("records_discarded"));
    for record in &records {
        world.reaches_worker(usize::from(session.worker().0), client_address(next), &mut record.clone(), record.len());
    }
    assert_eq!(world.counter("datagrams_unknown"), unknown + records.len() as u64);
    assert_eq!(world.counter("records_discarded"), discarded);
}

/// A hello that is repeated, or doubled on the way, goes to the handshake that it began.
#[test]
fn a_hello_that_comes_twice_begins_one_handshake() {
    let mut world = World::new();
    world.admits = true;
    let client = world.add_client(Some("g1"), None);
    let mut hello = world.hello_of_client(client);
    let length = hello.len();
    world.reaches_worker(0, client_address(client), &mut hello, length);
    let mut retry = world.intercept().remove(0);
    let length = retry.len();
    world.clients[client].handle_outside(0, gateway_address(), &mut retry, length, world.now);
    let output = world.clients[client].output();
    let second: Vec<_> =
        (0..output.outside.len()).map(|at| output.outside.transmit(at).unwrap().bytes.to_vec()).collect();
    world.clients[client].clear_output();
    for _ in 0..3 {
        for datagram in &second {
            world.reaches_worker(0, client_address(client), &mut datagram.clone(), datagram.len());
        }
    }
    assert_eq!((world.counter("handshakes_begun"), world.counter("sessions")), (1, 1));
    world.run(Duration::from_millis(100));
    assert!(matches!(world.client_events[client].first(), Some(ClientEvent::Up(_))));
}
