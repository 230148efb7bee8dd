//! What a client does when its Gateway is silent, and what a Gateway does when a client is.

use std::net::SocketAddr;
use std::time::Duration;

use ringfort_engine::Machine;
use ringfort_engine::client::{DownReason, Event as ClientEvent};
use ringfort_engine::gateway::{EndReason, Event};
use ringfort_packet::build::{self, Tcp};
use ringfort_packet::parse::tcp_flags;
use ringfort_packet::vnet::{Checksum, Segmentation, SegmentationKind, VnetHeader};

use crate::world::{SITE, World, inner_address};

fn packet(client: usize) -> Vec<u8> {
    build::udp(SocketAddr::new(inner_address(client), 5_000), SocketAddr::new(SITE.parse().unwrap(), 53), b"anyone?")
}

fn downs(world: &World, client: usize) -> usize {
    let silent = |event: &&ClientEvent| matches!(event, ClientEvent::Down(DownReason::Silent));
    world.client_events[client].iter().filter(silent).count()
}

#[test]
fn a_client_finds_out_that_its_gateway_was_restarted() {
    let mut world = World::new();
    let (client, _) = world.bound_client();
    world.restart_gateway();
    world.client_sends(client, &packet(client));
    world.run(Duration::from_secs(2));
    assert_eq!(downs(&world, client), 0, "not yet: an answer may be slow");
    world.run(Duration::from_secs(2));
    assert_eq!(downs(&world, client), 1);
    assert!(matches!(world.client_events[client].last(), Some(ClientEvent::Up(_))));
    assert_eq!(world.counter("sessions"), 1);
}

#[test]
fn one_way_traffic_is_no_silence() {
    let mut world = World::new();
    let (client, _) = world.bound_client();
    for _ in 0..20 {
        world.client_sends(client, &packet(client));
        world.run(Duration::from_millis(500));
    }
    assert_eq!(downs(&world, client), 0, "the Gateway answers the client's questions");
}

#[test]
fn an_idle_tunnel_lives_and_keeps_its_way_open() {
    let mut world = World::new();
    let (client, _) = world.bound_client();
    world.run(Duration::from_secs(400));
    assert_eq!(downs(&world, client), 0);
    assert_eq!(world.counter("sessions"), 1);
}

#[test]
fn a_client_tries_again_and_again_at_growing_intervals() {
    let mut world = World::new();
    (world.cut, world.admits) = (true, true);
    let client = world.add_client(None, None);
    world.run(Duration::from_secs(60));
    let attempts = world.client_events[client].len();
    assert!((3..8).contains(&attempts), "{attempts} attempts of about 10 s and the pauses between them");
    world.cut = false;
    world.run(Duration::from_secs(16));
    assert!(matches!(world.client_events[client].last(), Some(ClientEvent::Up(_))));
}

#[test]
fn a_session_whose_client_is_silent_ends_after_five_minutes() {
    let mut world = World::new();
    let (_, session) = world.bound_client();
    world.cut = true;
    world.run(Duration::from_secs(290));
    assert!(world.events.is_empty());
    world.run(Duration::from_secs(45));
    let idle =
        |event: &Event| matches!(event, Event::Ended { session: ended, reason: EndReason::Idle } if *ended == session);
    assert!(world.events.iter().any(idle), "{:?}", world.events);
}

#[test]
fn a_client_that_stops_says_goodbye() {
    let mut world = World::new();
    let (client, _) = world.bound_client();
    let now = world.now;
    assert!(!world.clients[client].handle_stop(now));
    world.run(Duration::from_millis(5));
    assert!(matches!(world.events.last(), Some(Event::Ended { reason: EndReason::Dtls(_), .. })), "{:?}", world.events);
}

/// So much goes one way that a key is used up before anything comes back: new keys come in time all the same (RFC 9147 §4.5.3).
#[test]
fn one_way_traffic_gets_new_keys_in_time() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    let worker = usize::from(session.worker().0);
    let (site, own) = (SocketAddr::new(SITE.parse().unwrap(), 80), SocketAddr::new(inner_address(client), 5_000));
    let tcp = |flags| Tcp { sequence: 100, acknowledgement: 101, flags, window: 1_000, options: &[] };
    world.client_sends(client, &build::tcp(own, site, &tcp(tcp_flags::SYN), &[]));
    // Nothing is due any more that would have the associations look after their keys.
    world.run(Duration::from_secs(2));
    let segmentation = Segmentation { kind: SegmentationKind::TcpV4, segment_bytes: 8.try_into().unwrap(), ecn: false };
    let header = VnetHeader {
        checksum: Checksum::Partial { start: 20, offset: 16 },
        segmentation: Some(segmentation),
        headers_bytes: 40,
    };
    let frame = |from, to| [&header.to_bytes()[..], &build::tcp(from, to, &tcp(tcp_flags::ACK), &[7; 48 * 8])].concat();
    let (down, up) = (frame(site, own), frame(own, site));
    // By the first update both sides come to epoch 4, by the second to 5.
    for (is_down, epoch_bits) in [(true, 0), (false, 1)] {
        // So many records are sealed before a new key is wanted. Of those here one of 24,000 arrives.
        for round in 0..(1 << 23) / 48 {
            if is_down {
                world.workers[worker].handle_inside(&mut down.clone(), world.now);
                world.workers[worker].clear_output();
            } else {
                world.clients[client].handle_inside(&mut up.clone(), world.now);
                world.clients[client].clear_output();
            }
            if round % 500 == 0 {
                match is_down {
                    true => assert!(!world.site_sends(worker, &build::tcp(site, own, &tcp(tcp_flags::ACK), &[]))),
                    false => world.client_sends(client, &build::tcp(own, site, &tcp(tcp_flags::ACK), &[])),
                }
                world.run(Duration::ZERO);
            }
        }
        // The wish for new keys was lost with the rest; it comes again.
        world.run(Duration::from_millis(300));
        match is_down {
            true => assert!(!world.site_sends(worker, &build::tcp(site, own, &tcp(tcp_flags::ACK), &[]))),
            false => world.client_sends(client, &build::tcp(own, site, &tcp(tcp_flags::ACK), &[])),
        }
        let [record] = world.wire()[..] else { panic!("one packet is under way") };
        assert_eq!(record[0] & 3, epoch_bits);
        world.run(Duration::from_millis(5));
    }
    assert_eq!(world.counter("sessions"), 1);
}
