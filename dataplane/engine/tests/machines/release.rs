//! A tunnel that waits for its session channel (C15), and what a client takes once its routes change.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringfort_engine::Machine;
use ringfort_engine::client::{Command, DownReason, Event, Release, TunnelNumber};
use ringfort_packet::build;
use ringfort_rules::{Action, Direction, Rule, RuleSet, Service};
use ringfort_types::{BootInstant, RuleId};

use crate::world::{SITE, World, inner, inner_address};

/// A client whose tunnel is up and waits.
fn waiting() -> (World, usize) {
    let mut world = World::new();
    (world.admits, world.release) = (true, Release::ByCommand);
    let client = world.add_client(Some("g1"), None);
    world.run(Duration::from_millis(100));
    assert!(matches!(world.client_events[client][..], [Event::Up(_)]), "the Gateway has admitted it");
    (world, client)
}

fn there(client: usize) -> Vec<u8> {
    build::udp(SocketAddr::new(inner_address(client), 5_000), SocketAddr::new(SITE.parse().unwrap(), 80), b"hello")
}

fn command(world: &mut World, client: usize, command: Command) {
    let now = world.now;
    world.clients[client].handle_command(command, now);
}

// Covers: C15 refuse
#[test]
fn nothing_passes_an_unbound_tunnel() {
    let (mut world, client) = waiting();
    world.client_sends(client, &there(client));
    command(&mut world, client, Command::Release(TunnelNumber(2)));
    world.client_sends(client, &there(client));
    assert_eq!(world.client_counter(client, "packets_unsent"), 2, "a release of another tunnel releases nothing");
    assert_eq!(world.client_counter(client, "packets_to_outside"), 0);
}

#[test]
fn a_tunnel_that_nobody_releases_is_given_up() {
    let (mut world, client) = waiting();
    world.run(Duration::from_secs(9));
    assert_eq!(world.client_events[client].len(), 1);
    world.run(Duration::from_secs(2));
    assert!(matches!(world.client_events[client][1], Event::Down(DownReason::NotReleased)));
    let up_again = world.client_events[client][2..].iter().any(|event| matches!(event, Event::Up(_)));
    assert!(up_again, "a new tunnel takes its place, and waits as well");
    world.client_sends(client, &there(client));
    command(&mut world, client, Command::Release(TunnelNumber(1)));
    world.client_sends(client, &there(client));
    assert_eq!(world.client_counter(client, "packets_unsent"), 2);
}

// Covers: C15 allow
#[test]
fn a_released_tunnel_carries_packets_and_lives() {
    let (mut world, client) = waiting();
    command(&mut world, client, Command::Release(TunnelNumber(1)));
    world.client_sends(client, &there(client));
    assert_eq!(world.client_counter(client, "packets_to_outside"), 1);
    world.run(Duration::from_secs(60));
    assert_eq!(world.client_events[client].len(), 1, "it is up still");
}

/// The Gateway lets the site open flows to the client here, so that only the client's own judgement is seen.
#[test]
fn packets_come_from_where_the_routes_lead_at_the_time() {
    let mut world = World::new();
    let (client, session) = world.bound_client();
    let rule = Rule {
        id: RuleId(9),
        action: Action::Allow,
        direction: Direction::ToClient,
        networks: vec!["0.0.0.0/0".parse().unwrap()],
        services: vec![Service::Any],
    };
    world.install(session, client, Arc::new(RuleSet::compile(&[rule], &[]).unwrap()), BootInstant::FAR_FUTURE);
    let own = SocketAddr::new(inner_address(client), 5_000);
    let arrives = |world: &mut World, from: &str| {
        let before = world.at_client[client].len();
        world.site_sends(0, &build::udp(from.parse().unwrap(), own, b"hello"));
        world.run(Duration::from_millis(5));
        world.at_client[client].len() > before
    };
    let reach = |world: &mut World, route: &str| {
        let routes = [route.parse().unwrap()].into_iter().collect();
        command(world, client, Command::Reach { inner: inner(client), routes });
    };
    assert!(arrives(&mut world, "10.98.0.10:53") && !arrives(&mut world, "10.99.0.10:53"));
    reach(&mut world, "10.99.0.0/24");
    assert!(!arrives(&mut world, "10.98.0.10:53") && arrives(&mut world, "10.99.0.10:53"));
    assert_eq!(world.client_events[client].len(), 1, "the tunnel stayed");
}
