//! What a client does when its Gateway is silent, and what a Gateway does when a client is.

use std::net::SocketAddr;
use std::time::Duration;

use ringfort_engine::Machine;
use ringfort_engine::client::{DownReason, Event as ClientEvent};
use ringfort_engine::gateway::{EndReason, Event};
use ringfort_packet::build;

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
