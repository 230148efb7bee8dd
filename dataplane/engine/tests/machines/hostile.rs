//! What one sender must not be able to do to another.

use std::net::SocketAddr;
use std::time::Duration;

use ringfort_engine::Machine;
use ringfort_engine::client::Event as ClientEvent;
use ringfort_engine::gateway::{Command, Event};
use ringfort_packet::build::{self, Tcp};
use ringfort_packet::parse::tcp_flags;
use ringfort_packet::vnet::{Checksum, Segmentation, SegmentationKind, VnetHeader};
use ringfort_types::BootInstant;

use crate::world::{Ca, SITE, World, client_address, forged_hello, inner, inner_address};

/// Whoever can write alice's address and port into a datagram cannot end her session.
#[test]
fn forged_datagrams_do_not_end_a_session() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    let mut forged = [&[0x2f, 0, 0, 0, 17][..], &[0xaa; 17]].concat();
    for n in 0..15u8 {
        forged.extend_from_slice(&[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 1, n, 0, 13]);
        forged.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    }
    for start in [0, 22] {
        let mut forged = forged[start..].to_vec();
        let length = forged.len();
        world.reaches_worker(usize::from(session.worker().0), client_address(client), &mut forged, length);
    }
    assert!(world.events.is_empty(), "{:?}", world.events);
    assert_eq!(world.counter("sessions"), 1);
}

/// While a handshake is under way at a session's address, each datagram of a batch is looked at by itself. What is passed on
/// is the packet that was judged, not another one of the same buffer.
#[test]
fn the_packet_that_was_judged_is_the_one_that_passes() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    let worker = usize::from(session.worker().0);
    let mut hello = forged_hello();
    let length = hello.len();
    world.reaches_worker(worker, client_address(client), &mut hello, length);
    world.intercept();
    let syn = Tcp { sequence: 100, acknowledgement: 0, flags: tcp_flags::SYN, window: 1_000, options: &[] };
    let packet = |port| {
        let to = SocketAddr::new(SITE.parse().unwrap(), port);
        build::tcp(SocketAddr::new(inner_address(client), 5_000), to, &syn, &[])
    };
    for port in [81, 80, 82] {
        world.client_sends(client, &packet(port));
    }
    let records = world.intercept();
    let segment_bytes = records[0].len();
    let mut batch = records.concat();
    assert_eq!(batch.len(), 3 * segment_bytes);
    world.reaches_worker(worker, client_address(client), &mut batch, segment_bytes);
    assert_eq!(world.counter("packets_denied"), 2);
    assert_eq!(world.at_site, [packet(80)]);
}

/// Hellos from made-up addresses make no state: each is answered once, by less than it cost.
#[test]
fn a_flood_of_hellos_leaves_nothing() {
    let mut world = World::new();
    world.add_client(None, None);
    let hello = world.hello_of_client(0);
    for port in 1_000..3_000 {
        world.reaches_worker(0, ([192, 0, 2, 1], port).into(), &mut hello.clone(), hello.len());
    }
    assert_eq!((world.counter("sessions"), world.counter("hellos_asked")), (0, 2_000));
    let answers = world.intercept();
    assert_eq!(answers.len(), 2_000);
    assert!(answers.iter().all(|answer| answer.len() <= hello.len()));
    assert!(world.events.is_empty());
}

/// Handshakes of real addresses that go no further, more than there is room for.
#[test]
fn handshakes_under_way_are_bounded_and_lock_nobody_out() {
    let mut world = World::new();
    world.half_open(1_000..2_100);
    assert_eq!(world.counter("handshakes_evicted"), 1_100 - 1_024);
    assert_eq!(world.counter("sessions"), 1_024);
    world.admits = true;
    let client = world.add_client(None, None);
    for round in 0..10 {
        world.half_open(3_000 + round * 20..3_020 + round * 20);
        world.run(Duration::from_millis(5));
    }
    assert!(
        matches!(world.client_events[client].first(), Some(ClientEvent::Up(_))),
        "{:?}",
        world.client_events[client]
    );
    world.run(Duration::from_secs(12));
    assert_eq!(world.counter("sessions"), 1, "all others are given up in time");
}

/// Handshakes that fail are reported within bounds, so that the reports hide no others.
#[test]
fn reports_of_failed_handshakes_are_bounded() {
    let mut world = World::new();
    let foreign = Ca::new();
    for _ in 0..70 {
        world.add_client(None, Some(&foreign));
    }
    world.run(Duration::from_millis(5));
    assert_eq!(world.counter("handshakes_failed"), 70);
    let reported = world.events.iter().filter(|event| matches!(event, Event::HandshakeFailed { .. })).count() as u64;
    assert_eq!(world.counter("failures_unreported"), 0, "each of two workers has room for 50 at once");
    assert_eq!(reported, 70);
    for _ in 0..140 {
        world.add_client(None, Some(&foreign));
    }
    world.run(Duration::from_millis(5));
    assert!(world.counter("failures_unreported") > 0);
}

/// All that a worker takes in during one turn fits what it can put out: 32 frames of its own and 32 handed over.
#[test]
fn one_turns_frames_fit_one_turns_batches() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    let (site, own) = (SocketAddr::new(SITE.parse().unwrap(), 80), SocketAddr::new(inner_address(client), 5_000));
    let syn = Tcp { sequence: 100, acknowledgement: 0, flags: tcp_flags::SYN, window: 1_000, options: &[] };
    world.client_sends(client, &build::tcp(own, site, &syn, &[]));
    world.run(Duration::from_millis(5));
    let data = Tcp { sequence: 900, acknowledgement: 101, flags: tcp_flags::ACK, window: 1_000, options: &[] };
    let segmentation =
        Segmentation { kind: SegmentationKind::TcpV4, segment_bytes: 1_360.try_into().unwrap(), ecn: false };
    let checksum = Checksum::Partial { start: 20, offset: 16 };
    let header = VnetHeader { checksum, segmentation: Some(segmentation), headers_bytes: 40 };
    let mut frame = header.to_bytes().to_vec();
    frame.extend_from_slice(&build::tcp(site, own, &data, &vec![7; 48 * 1_360]));
    let worker = usize::from(session.worker().0);
    for _ in 0..64 {
        assert_eq!(world.workers[worker].handle_inside(&mut frame.clone(), world.now), None);
    }
    assert_eq!((world.counter("packets_to_outside"), world.counter("packets_unsent")), (64 * 48, 0));
}

/// A Gateway cannot speak to a user's machine in the name of hosts that no route leads to.
#[test]
fn a_client_takes_packets_only_from_where_its_routes_lead() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    let own = SocketAddr::new(inner_address(client), 5_000);
    let udp = |from: &str| build::udp(from.parse().unwrap(), own, b"hello");
    // The Gateway lets everything through that its own rules let through; here they let the site open flows.
    let rule = ringfort_rules::Rule {
        id: ringfort_types::RuleId(9),
        action: ringfort_rules::Action::Allow,
        direction: ringfort_rules::Direction::ToClient,
        networks: vec!["0.0.0.0/0".parse().unwrap()],
        services: vec![ringfort_rules::Service::Any],
    };
    let anything = std::sync::Arc::new(ringfort_rules::RuleSet::compile(&[rule], &[]).unwrap());
    let outer = client_address(client);
    let not_after = BootInstant::FAR_FUTURE;
    world.command(&Command::Install { session, outer, inner: inner(client), rules: anything, not_after });
    world.site_sends(0, &udp("10.98.0.10:53"));
    world.site_sends(0, &udp("192.168.1.1:53"));
    world.run(Duration::from_millis(5));
    assert_eq!(world.at_client[client], [udp("10.98.0.10:53")]);
    assert_eq!(world.client_counter(client, "packets_unexpected"), 1);
}

/// A user who sees another's records sends one on from his own address and then shakes hands from there: the session that was
/// only ever said to be there stays, and goes back to its client.
#[test]
fn a_session_that_was_moved_by_force_is_not_replaced_where_it_is_said_to_be() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    let worker = usize::from(session.worker().0);
    let own = SocketAddr::new(inner_address(client), 5_000);
    let syn = Tcp { sequence: 100, acknowledgement: 0, flags: tcp_flags::SYN, window: 1_000, options: &[] };
    let packet = build::tcp(own, SocketAddr::new(SITE.parse().unwrap(), 80), &syn, &[]);
    world.client_sends(client, &packet);
    let [record] = <[Vec<u8>; 1]>::try_from(world.intercept()).unwrap();
    // Addresses of two clients reach one worker.
    world.add_client(Some("g1"), None);
    let other = world.add_client(Some("g1"), None);
    assert_eq!(usize::from(client_address(other).port()) % 2, worker);
    world.reaches_worker(worker, client_address(other), &mut record.clone(), record.len());
    world.run(Duration::from_millis(50));
    assert!(matches!(world.client_events[other].first(), Some(ClientEvent::Up(_))));
    let ended = world.events.iter().any(|event| matches!(event, Event::Ended { session: of, .. } if *of == session));
    assert!(!ended, "{:?}", world.events);
    world.run(Duration::from_secs(4));
    world.at_site.clear();
    world.client_sends(client, &packet);
    world.run(Duration::from_millis(5));
    assert_eq!(world.at_site, [packet]);
    assert!(matches!(world.client_events[client][..], [ClientEvent::Up(_)]), "{:?}", world.client_events[client]);
}

/// Whoever sees what the Gateway sends to an address can bring a cookie back from there and begin a handshake of his own. The one
/// that is under way goes on beside it.
#[test]
fn another_handshake_at_an_address_does_not_end_the_one_under_way() {
    let mut world = World::new();
    world.admits = true;
    let client = world.add_client(Some("g1"), None);
    // Up to the Gateway's flight.
    let mut hello = world.hello_of_client(client);
    let length = hello.len();
    world.reaches_worker(0, client_address(client), &mut hello, length);
    world.threads_are_busy = true;
    world.run(Duration::from_millis(5));
    world.threads_are_busy = false;
    world.finish_errands();
    assert_eq!(world.counter("handshakes_begun"), 1);
    let flight = world.take_wire();
    world.half_open_from(client_address(client), 7);
    assert_eq!(world.counter("handshakes_begun"), 2);
    world.put_on_wire(flight);
    world.run(Duration::from_millis(100));
    assert!(matches!(world.client_events[client][..], [ClientEvent::Up(_)]), "{:?}", world.client_events[client]);
    assert_eq!(world.counter("handshakes_finished"), 1);
    world.run(Duration::from_secs(12));
    assert_eq!(world.counter("sessions"), 1, "the other one is given up in time");
}

/// Nor does a made-up cookie in the name of somebody whose handshake is under way: it is not even answered. To others it is said
/// that their cookie is not good (RFC 9147 §5.1).
#[test]
fn a_made_up_cookie_is_not_answered_where_a_handshake_is_under_way() {
    let mut world = World::new();
    let spoiled = world.second_hello_with_another_cookie(7);
    let stranger = ([192, 0, 2, 1], 5_000).into();
    world.half_open_from(stranger, 9);
    assert_eq!(world.counter("handshakes_begun"), 1);
    world.intercept();
    world.reaches_worker(0, stranger, &mut spoiled.clone(), spoiled.len());
    assert_eq!((world.counter("hello_cookies_refused"), world.intercept().len()), (1, 0));
    world.reaches_worker(0, ([192, 0, 2, 1], 5_001).into(), &mut spoiled.clone(), spoiled.len());
    assert_eq!((world.counter("hello_cookies_refused"), world.counter("handshakes_begun")), (2, 1));
    let [alert] = <[Vec<u8>; 1]>::try_from(world.intercept()).unwrap();
    assert_eq!((alert[0], alert.last()), (21, Some(&47)));
}
