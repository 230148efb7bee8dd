//! Handshakes that are on another thread, and what goes on meanwhile.

use std::time::Duration;

use ringfort_engine::client::Event as ClientEvent;
use ringfort_packet::build;

use crate::world::{SITE, World, client_address, inner_address};

/// Everybody waits for a thread, and a session that stands notices nothing.
#[test]
fn packets_do_not_wait_for_handshakes() {
    let mut world = World::new();
    let (client, _) = world.bound_client();
    world.threads_are_busy = true;
    let other = world.add_client(Some("g1"), None);
    world.half_open(1_000..1_100);
    world.run(Duration::from_millis(50));
    assert!(world.counter("handshakes_begun") > 100);
    assert_eq!(world.counter("handshakes_finished"), 1);
    let packet = build::udp(
        std::net::SocketAddr::new(inner_address(client), 5_000),
        std::net::SocketAddr::new(SITE.parse().unwrap(), 80),
        &[7; 100],
    );
    world.client_sends(client, &packet);
    world.run(Duration::from_millis(5));
    assert_eq!(world.counter("packets_denied"), 1, "it was opened and judged");
    assert!(world.client_events[other].is_empty());
    world.threads_are_busy = false;
    world.finish_errands();
    world.run(Duration::from_millis(300));
    assert!(matches!(world.client_events[other].first(), Some(ClientEvent::Up(_))), "{:?}", world.client_events[other]);
}

/// What comes for a handshake that is away waits within bounds, and is not lost.
#[test]
fn what_comes_meanwhile_waits_within_bounds() {
    let mut world = World::new();
    world.admits = true;
    world.threads_are_busy = true;
    let client = world.add_client(Some("g1"), None);
    world.run(Duration::from_millis(5));
    assert_eq!(world.counter("handshakes_begun"), 1);
    // The hello came in two datagrams: one is away, one waits. A record of epoch 2 without an id, from the address of the handshake.
    let mut record = [&[0x2e, 0, 0, 0, 100][..], &[0xaa; 100]].concat();
    let length = record.len();
    for _ in 0..100 {
        world.reaches_worker(0, client_address(client), &mut record, length);
    }
    assert_eq!(world.counter("handshake_datagrams_dropped"), 100 - 63);
    let mut long = [&[0x2e, 0, 0, 5, 0x14][..], &[0xaa; 1_300]].concat();
    let length = long.len();
    world.reaches_worker(0, client_address(client), &mut long, length);
    assert_eq!(world.counter("handshake_datagrams_dropped"), 100 - 63 + 1);
    world.threads_are_busy = false;
    world.finish_errands();
    world.run(Duration::from_millis(500));
    assert!(matches!(world.client_events[client].first(), Some(ClientEvent::Up(_))), "{:?}", world.client_events);
    assert_eq!(world.counter("records_discarded"), 63);
}

/// A handshake that is given up while it is away comes back to nobody, whoever has its place by then.
#[test]
fn a_handshake_that_ended_meanwhile_is_forgotten() {
    let mut world = World::new();
    world.threads_are_busy = true;
    world.half_open(1_000..1_001);
    assert_eq!((world.counter("sessions"), world.counter("handshakes_begun")), (1, 1));
    world.run(Duration::from_secs(11));
    assert_eq!((world.counter("sessions"), world.counter("handshakes_failed")), (0, 1));
    // The next one takes its place before it is back.
    world.half_open(2_000..2_001);
    assert_eq!(world.counter("sessions"), 1);
    world.intercept();
    world.finish_errands();
    assert!(world.destinations().iter().all(|to| to.port() == 2_000), "{:?}", world.destinations());
    assert!(!world.destinations().is_empty());
    assert_eq!(world.counter("sessions"), 1);
}

/// What waits is bounded in bytes too: 32 KiB for a handshake.
#[test]
fn long_datagrams_wait_within_bounds() {
    let mut world = World::new();
    world.threads_are_busy = true;
    world.add_client(Some("g1"), None);
    world.run(Duration::from_millis(5));
    assert_eq!(world.counter("handshakes_begun"), 1);
    let mut long = [&[0x2e, 0, 0, 0x27, 0x0b][..], &[0xaa; 9_995]].concat();
    for _ in 0..10 {
        world.reaches_worker(0, client_address(0), &mut long, 10_000);
    }
    assert_eq!(world.counter("handshake_datagrams_dropped"), 7, "three of 10,000 bytes have room");
}

/// The next handshake in a place goes on although the one that had it before comes back late.
#[test]
fn a_late_handshake_does_not_take_the_place_of_another() {
    let mut world = World::new();
    (world.admits, world.threads_are_busy) = (true, true);
    world.half_open(1_000..1_001);
    world.run_gateway(Duration::from_secs(11));
    assert_eq!((world.counter("sessions"), world.counter("handshakes_failed")), (0, 1));
    let client = world.add_client(Some("g1"), None);
    world.run(Duration::from_millis(5));
    assert_eq!((world.counter("sessions"), world.counter("handshakes_begun")), (1, 2));
    world.threads_are_busy = false;
    // The youngest comes back first.
    world.finish_errands();
    world.run(Duration::from_millis(50));
    assert!(matches!(world.client_events[client].first(), Some(ClientEvent::Up(_))), "{:?}", world.client_events);
    assert_eq!(world.counter("handshakes_begun"), 2);
}
