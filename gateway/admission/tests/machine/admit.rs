//! From three tokens and a tunnel to rules.

use std::time::Duration;

use ringfort_admission::{Action, Admission, Moment, NotAdmitting, Persisted, ToClient};
use ringfort_engine::gateway::{Command, Event};
use ringfort_packet::flow::FlowKey;
use ringfort_policy::{Bound, Reach};
use ringfort_token::GatewayConfiguration;
use ringfort_types::UnixSeconds;

use crate::world::*;

// Covers: A11 allow
// Covers: A12 allow
// Covers: C13 allow
// Covers: C14 allow
#[test]
fn what_is_presented_becomes_rules_for_this_session() {
    let mut world = World::new();
    let (channel, session_id) = world.open(&ALICE);
    let welcome = sent(&world.drain(), channel);
    assert_eq!(welcome, [ToClient::Welcome { session: session_id, time: WALL }]);
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(3));
    assert_eq!(sent(&world.drain(), channel), [ToClient::Accepted { seq: 3, ends_at: WALL + HOUR }]);
    let session = world.authenticated(&ALICE.tunnels[0]);
    world.say(channel, ALICE.tunnels[0].bind(&session_id));
    let actions = world.drain();
    assert_eq!(installs(&actions), 1);
    assert!(world.allows(session, "10.98.0.10", 80));
    assert!(!world.allows(session, "10.98.0.10", 81) && !world.allows(session, "10.98.0.11", 80));
    let views: Vec<_> = world.machine.sessions().collect();
    let [view] = views.as_slice() else { panic!("{views:?}") };
    assert_eq!((view.dn, &**view.user, view.device), (&*ALICE.dn, "alice of Example", "laptop"));
    assert_eq!((view.seq, view.ends_at, view.has_channel), (3, WALL + HOUR, true));
    assert_eq!(view.inner.ipv4, Some([10, 97, 0, 10].into()));
    assert_eq!(view.device_claims["os"], "linux");
    assert_eq!(world.machine.live().collect::<Vec<_>>(), [(&*ALICE.dn, 3)]);
    assert_eq!(world.refusals(), 0);
}

// Covers: A12 refuse
#[test]
fn without_tokens_or_after_them_nothing_passes() {
    let mut world = World::new();
    let session = world.authenticated(&ALICE.tunnels[0]);
    assert_eq!(installs(&world.drain()), 0);
    assert!(!world.allows(session, "10.98.0.10", 80));
    let (channel, session) = world.admit(&ALICE, 1, 3);
    world.step(HOUR - Duration::from_secs(1));
    assert!(world.allows(session, "10.98.0.10", 80));
    world.step(Duration::from_secs(1));
    assert!(!world.allows(session, "10.98.0.10", 80), "the workers deny by themselves");
    world.machine.handle_timeout(world.now);
    let actions = world.drain();
    assert_eq!(refusal(&actions, Some(channel)), "expired");
    assert_eq!(removes(&actions), [session]);
    assert_eq!(world.machine.sessions().count(), 0);
}

#[test]
fn a_session_ends_with_whatever_it_rests_on_ends_first() {
    let ends = |claims: UnixSeconds, entitlement: UnixSeconds| {
        let mut world = World::new();
        let (channel, _) = world.open(&ALICE);
        let claims = ringfort_token::ClaimsToken { exp: claims, ..ALICE.claims() };
        let entitlement = ringfort_token::EntitlementToken { exp: entitlement, ..ALICE.entitlement(1) };
        world.present(channel, &claims, &entitlement);
        match sent(&world.drain(), channel).pop() {
            Some(ToClient::Accepted { ends_at, .. }) => ends_at,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ends(WALL + HOUR, WALL + 2 * HOUR), WALL + HOUR);
    assert_eq!(ends(WALL + 2 * HOUR, WALL + HOUR), WALL + HOUR);
    assert_eq!(ends(WALL + 10 * HOUR, WALL + 10 * HOUR), CERTIFICATE_END);
}

// Covers: X14 allow
// Covers: X14 refuse
#[test]
fn without_its_controller_a_gateway_goes_on_for_the_lease_and_then_admits_nobody_new() {
    let mut world = World::new();
    world.step(Duration::from_secs(899));
    let (channel, session) = world.admit(&ALICE, 0, 1);
    world.step(Duration::from_secs(1));
    assert!(matches!(world.machine.admitting(world.now), Err(NotAdmitting::LeaseOver { .. })));
    let (other, _) = world.open(&BOB);
    world.present(other, &BOB.claims(), &BOB.entitlement(1));
    assert_eq!(refusal(&world.drain(), Some(other)), "not_admitting");
    assert!(world.allows(session, "10.98.0.10", 80), "a live session goes on");
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(2));
    assert!(matches!(sent(&world.drain(), channel)[..], [ToClient::Accepted { seq: 2, .. }]));
    // The same session on a new channel, and then on a new tunnel.
    world.machine.channel_closed(channel, world.now);
    let (back, session_id) = world.open(&ALICE);
    world.present(back, &ALICE.claims(), &ALICE.entitlement(2));
    world.say(back, ALICE.tunnels[0].bind(&session_id));
    assert!(sent(&world.drain(), back).contains(&ALICE.tunnels[0].answer(&session_id)));
    let moved = world.authenticated(&ALICE.tunnels[1]);
    world.say(back, ALICE.tunnels[1].bind(&session_id));
    world.drain();
    assert!(world.allows(moved, "10.98.0.10", 80));
    // But no other channel with another tunnel.
    let (newer, session_id) = world.open(&ALICE);
    world.present(newer, &ALICE.claims(), &ALICE.entitlement(2));
    world.drain();
    world.authenticated(&ALICE.tunnels[2]);
    world.say(newer, ALICE.tunnels[2].bind(&session_id));
    assert_eq!(refusal(&world.drain(), Some(newer)), "not_admitting");
    assert!(world.allows(moved, "10.98.0.10", 80));
}

/// The site may shorten the time without a Controller, and not lengthen it.
// Covers: X14 allow
// Covers: X14 refuse
#[test]
fn the_site_may_have_it_admit_nobody_new_before_the_lease_ends() {
    let after = |seconds| Some(Duration::from_secs(seconds));
    let mut world =
        World::without_configuration(ringfort_admission::Settings { no_new_sessions_after: after(120), ..settings() });
    world.machine.pushed_configuration(&sign(&configuration(1, everything())), world.now);
    world.drain();
    world.step(Duration::from_secs(119));
    let (channel, session) = world.admit(&ALICE, 0, 1);
    world.step(Duration::from_secs(1));
    let ended = WALL + Duration::from_secs(120);
    assert_eq!(world.machine.admitting(world.now), Err(NotAdmitting::LeaseOver { ended }));
    let (other, _) = world.open(&BOB);
    world.present(other, &BOB.claims(), &BOB.entitlement(1));
    let actions = world.drain();
    assert!(
        matches!(sent(&actions, other).pop(), Some(ToClient::Goodbye { message, .. }) if message.contains(&ended.to_string()))
    );
    assert_eq!(refusal(&actions, Some(other)), "not_admitting");
    assert!(world.allows(session, "10.98.0.10", 80), "a live session goes on");
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(2));
    assert!(matches!(sent(&world.drain(), channel)[..], [ToClient::Accepted { seq: 2, .. }]), "and is renewed");
    // The file is read again: without the line it is the lease, and more than that it never is.
    for longer in [None, after(901), after(86_400)] {
        world.machine.set_no_new_sessions_after(longer);
        assert_eq!(world.machine.admitting(world.now), Ok(()), "{longer:?}");
    }
    world.step(Duration::from_secs(780));
    let ended = WALL + Duration::from_secs(900);
    assert_eq!(world.machine.admitting(world.now), Err(NotAdmitting::LeaseOver { ended }));
    // Word of the Controller begins it anew.
    world.machine.set_no_new_sessions_after(after(120));
    let newer = GatewayConfiguration { iat: world.now.wall, lease: WALL + HOUR, ..configuration(2, everything()) };
    let newer = GatewayConfiguration { nbf: world.now.wall, exp: WALL + HOUR, ..newer };
    world.machine.pushed_configuration(&sign(&newer), world.now);
    world.step(Duration::from_secs(119));
    assert_eq!(world.machine.admitting(world.now), Ok(()));
    world.step(Duration::from_secs(1));
    assert!(world.machine.admitting(world.now).is_err());
}

/// A restart does not begin it anew.
// Covers: X14 refuse
#[test]
fn the_time_without_a_controller_goes_on_over_a_restart() {
    let persisted = Persisted { configuration: Some(sign(&configuration(1, everything()))), ..Persisted::default() };
    let settings = ringfort_admission::Settings { no_new_sessions_after: Some(Duration::from_secs(120)), ..settings() };
    for (since, admits) in [(119, true), (120, false), (899, false)] {
        let now = Moment { boot: BOOT, wall: WALL + Duration::from_secs(since) };
        let machine = Admission::restore(settings.clone(), persisted.clone(), now);
        assert_eq!(machine.admitting(now).is_ok(), admits, "{since} s");
    }
}

// Covers: X14 refuse
#[test]
fn a_clock_that_cannot_be_trusted_admits_nobody_new() {
    let mut world = World::new();
    for why in [NotAdmitting::ClockBehind, NotAdmitting::ClockSkew { seconds: 31 }, NotAdmitting::Draining] {
        world.machine.set_admitting(Err(why));
        let (channel, _) = world.open(&ALICE);
        world.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
        assert_eq!(refusal(&world.drain(), Some(channel)), "not_admitting");
    }
    world.machine.set_admitting(Ok(()));
    world.admit(&ALICE, 0, 1);
    let mut fresh = World::without_configuration(settings());
    assert_eq!(fresh.machine.admitting(fresh.now), Err(NotAdmitting::NoConfiguration));
    let (channel, _) = fresh.open(&ALICE);
    fresh.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
    assert_eq!(refusal(&fresh.drain(), Some(channel)), "not_admitting");
}

// Covers: X14 refuse
#[test]
fn a_step_of_the_wall_clock_extends_nothing() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 1);
    world.step(HOUR / 2);
    world.now.wall = WALL;
    world.machine.pushed_configuration(&sign(&configuration(2, vec![grant("wiki", "10.98.0.10", "any")])), world.now);
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
    world.drain();
    world.now.boot = world.now.boot + HOUR / 2;
    assert!(!world.allows(session, "10.98.0.10", 80));
    world.machine.handle_timeout(world.now);
    assert_eq!(refusal(&world.drain(), Some(channel)), "expired");
}

// Covers: R8 allow
// Covers: R8 refuse
// Covers: R9 allow
// Covers: R9 refuse
#[test]
fn the_sites_allow_list_and_the_gateways_ceiling_bound_every_token() {
    let reach = Reach::new(&["10.98.0.0/24".parse().unwrap()], &["tcp/1-1023".parse().unwrap()]).unwrap();
    let ceiling = Some(Bound::new(vec![reach]));
    let mut world = World::without_configuration(ringfort_admission::Settings { ceiling, ..settings() });
    world.machine.pushed_configuration(&sign(&configuration(1, vec![grant("web", "10.98.0.0/16", "tcp")])), world.now);
    let (channel, session_id) = world.open(&ALICE);
    let grants = vec![grant("broad", "10.0.0.0/8", "any"), grant("elsewhere", "192.0.2.0/24", "any")];
    let broad = ringfort_token::EntitlementToken { grants, ..ALICE.entitlement(1) };
    world.present(channel, &ALICE.claims(), &broad);
    let session = world.authenticated(&ALICE.tunnels[0]);
    world.say(channel, ALICE.tunnels[0].bind(&session_id));
    world.drain();
    assert!(world.allows(session, "10.98.0.10", 80), "within all three");
    assert!(!world.allows(session, "10.98.1.10", 80), "beyond the ceiling's networks");
    assert!(!world.allows(session, "10.98.0.10", 8_080), "beyond the ceiling's services");
    assert!(!world.allows(session, "10.99.0.10", 80), "beyond the allow-list");
    assert!(!world.allows(session, "192.0.2.1", 80), "beyond altogether");
    // The allow-list shrinks, and every live session with it.
    world.machine.pushed_configuration(&sign(&configuration(2, vec![grant("wiki", "10.98.0.11", "tcp")])), world.now);
    world.drain();
    assert!(!world.allows(session, "10.98.0.10", 80));
    assert!(world.allows(session, "10.98.0.11", 80));
    assert_eq!(world.machine.sessions().count(), 1);
}

#[test]
fn pools_and_guarded_networks_are_not_reached_by_a_grant_that_merely_covers_them() {
    let mut world = World::without_configuration(settings());
    world.machine.pushed_configuration(&sign(&configuration(1, vec![grant("all", "10.0.0.0/8", "any")])), world.now);
    let (channel, session_id) = world.open(&ALICE);
    let broad =
        ringfort_token::EntitlementToken { grants: vec![grant("broad", "10.0.0.0/8", "any")], ..ALICE.entitlement(1) };
    world.present(channel, &ALICE.claims(), &broad);
    let session = world.authenticated(&ALICE.tunnels[0]);
    world.say(channel, ALICE.tunnels[0].bind(&session_id));
    world.drain();
    assert!(world.allows(session, "10.98.0.1", 22));
    assert!(!world.allows(session, "10.97.0.1", 22) && !world.allows(session, "10.97.0.99", 22));
    world.machine.guarded(vec!["10.98.0.1/32".parse().unwrap()], world.now);
    world.drain();
    assert!(!world.allows(session, "10.98.0.1", 22));
}

#[test]
fn what_is_denied_is_remembered_and_told() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 1);
    let flow = FlowKey::new([10, 97, 0, 10].into(), [10, 98, 0, 20].into(), 6, 40_000, 22).unwrap();
    for _ in 0..2 {
        world.machine.handle_event(Event::Denied { session, flow, rule: None }, world.now);
    }
    let told = sent(&world.drain(), channel);
    assert!(matches!(&told[..], [ToClient::Denied { destination, rule, .. }, _]
        if destination == "tcp/10.98.0.20:22" && rule == "default-deny"));
    let denials: Vec<_> = world.machine.denials().map(|denial| (&*denial.user, denial.count)).collect();
    assert_eq!(denials, [("alice of Example", 2)]);
}

#[test]
fn a_gateway_that_stops_says_so() {
    let mut world = World::new();
    let (channel, _) = world.admit(&ALICE, 0, 1);
    world.machine.stop(world.now);
    assert_eq!(refusal(&world.drain(), Some(channel)), "stopping");
    assert_eq!(world.machine.admitting(world.now), Err(NotAdmitting::Draining));
}

#[test]
fn a_gateway_that_serves_nobody_any_more_ends_its_sessions() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 1);
    let (waiting, _) = world.open(&BOB);
    world.machine.set_admitting(Err(NotAdmitting::Removed));
    world.drain();
    world.machine.dismiss(world.now);
    let actions = world.drain();
    for channel in [channel, waiting] {
        let last = sent(&actions, channel).pop();
        assert!(matches!(last, Some(ToClient::Goodbye { code: "stopping", .. })), "{last:?}");
    }
    let removes =
        |action: &Action| matches!(action, Action::Engine(Command::Remove { session: removed }) if *removed == session);
    assert!(actions.iter().any(removes), "its tunnel ends: {actions:?}");
    assert_eq!(world.machine.sessions().count(), 0);
    let (again, _) = world.open(&ALICE);
    world.present(again, &ALICE.claims(), &ALICE.entitlement(1));
    assert_eq!(refusal(&world.drain(), Some(again)), "not_admitting");
}

#[test]
fn a_drained_gateway_keeps_its_sessions_and_admits_nobody_new() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 1);
    let grants = || vec![grant("wiki", "10.98.0.10", "any")];
    let drained = GatewayConfiguration { draining: true, ..configuration(2, grants()) };
    world.machine.pushed_configuration(&sign(&drained), world.now);
    assert_eq!(sent(&world.drain(), channel), [ToClient::Draining], "its client is asked to go");
    assert_eq!(world.machine.admitting(world.now), Err(NotAdmitting::Draining));
    // A new lease is no reason to ask again, a channel that came back is.
    let again = GatewayConfiguration { jti: "again".into(), iat: WALL + HOUR / 60, ..drained.clone() };
    world.step(HOUR / 60);
    world.machine.pushed_configuration(&sign(&again), world.now);
    assert_eq!(sent(&world.drain(), channel), []);
    world.machine.channel_closed(channel, world.now);
    let (channel, session_id) = world.open(&ALICE);
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
    world.say(channel, ALICE.tunnels[0].bind(&session_id));
    assert_eq!(sent(&world.drain(), channel).last(), Some(&ToClient::Draining));
    assert!(world.allows(session, "10.98.0.10", 80), "a live session goes on");
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(2));
    assert!(matches!(sent(&world.drain(), channel)[..], [ToClient::Accepted { seq: 2, .. }]), "and is renewed");
    let (other, _) = world.open(&BOB);
    world.present(other, &BOB.claims(), &BOB.entitlement(1));
    assert_eq!(refusal(&world.drain(), Some(other)), "not_admitting");
    world.machine.pushed_configuration(&sign(&configuration(3, grants())), world.now);
    world.drain();
    assert_eq!(world.machine.admitting(world.now), Ok(()));
}

#[test]
fn another_ceiling_is_in_force_at_once_and_drops_nobody() {
    let mut world = World::new();
    let (_, session) = world.admit(&ALICE, 0, 1);
    assert!(world.allows(session, "10.98.0.10", 80));
    let reach = Reach::new(&["10.98.0.0/24".parse().unwrap()], &["tcp/1-79".parse().unwrap()]).unwrap();
    world.machine.set_ceiling(Some(Bound::new(vec![reach])), world.now);
    world.drain();
    assert!(!world.allows(session, "10.98.0.10", 80), "beyond the new ceiling");
    assert_eq!(world.machine.sessions().count(), 1);
    world.machine.set_ceiling(None, world.now);
    world.drain();
    assert!(world.allows(session, "10.98.0.10", 80));
}
