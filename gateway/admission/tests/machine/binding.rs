//! Channels and tunnels that belong together, and those that do not.

use std::time::Duration;

use rcgen::KeyPair;
use ringfort_admission::{FromClient, ToClient};
use ringfort_token::{Effect, EntryScope};

use crate::world::*;

/// Everything in every order.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

// Covers: C15 allow
#[test]
fn whatever_the_order_the_end_is_the_same_and_nothing_is_installed_before() {
    for order in ORDERS {
        let mut world = World::new();
        let (channel, session_id) = world.open(&ALICE);
        let mut session = None;
        let mut told = sent(&world.drain(), channel);
        for (count, step) in order.into_iter().enumerate() {
            match step {
                0 => world.present(channel, &ALICE.claims(), &ALICE.entitlement(1)),
                1 => world.say(channel, ALICE.tunnels[0].bind(&session_id)),
                _ => session = Some(world.authenticated(&ALICE.tunnels[0])),
            }
            let actions = world.drain();
            assert_eq!(installs(&actions), usize::from(count == 2), "{order:?}");
            told.extend(sent(&actions, channel));
        }
        assert!(world.allows(session.unwrap(), "10.98.0.10", 80), "{order:?}");
        assert_eq!(told.last(), Some(&ALICE.tunnels[0].answer(&session_id)), "{order:?}");
        assert_eq!(told.len(), 3, "{order:?}");
        assert_eq!((world.machine.sessions().count(), world.refusals()), (1, 0), "{order:?}");
        // Nothing is left that would end it.
        world.pass(Duration::from_secs(120));
        assert!(world.allows(session.unwrap(), "10.98.0.10", 80), "{order:?}");
    }
}

// Covers: C15 refuse
#[test]
fn a_wrong_value_is_refused_at_once_whatever_the_order() {
    for order in ORDERS {
        let mut world = World::new();
        let (channel, session_id) = world.open(&ALICE);
        let mut session = None;
        let mut actions = world.drain();
        for step in order {
            match step {
                0 => world.present(channel, &ALICE.claims(), &ALICE.entitlement(1)),
                1 => {
                    let FromClient::Bind { tunnel, mut exported } = ALICE.tunnels[0].bind(&session_id) else {
                        panic!()
                    };
                    exported[31] ^= 1;
                    world.say(channel, FromClient::Bind { tunnel, exported });
                }
                _ => session = Some(world.authenticated(&ALICE.tunnels[0])),
            }
            actions.extend(world.drain());
        }
        assert_eq!(refusal(&actions, Some(channel)), "binding_failed", "{order:?}");
        assert_eq!((world.refused("binding_failed"), world.refusals()), (1, 1), "{order:?}");
        assert!(!world.allows(session.unwrap(), "10.98.0.10", 80), "{order:?}");
    }
}

// Covers: C15 refuse
#[test]
fn a_value_of_another_channel_or_tunnel_is_refused() {
    let mut world = World::new();
    let bind = |tunnel: [u8; 16], exported: FromClient| match exported {
        FromClient::Bind { exported, .. } => FromClient::Bind { tunnel, exported },
        _ => panic!(),
    };
    for tunnel in &ALICE.tunnels {
        world.authenticated(tunnel);
    }
    let (first, first_id) = world.open(&ALICE);
    world.present(first, &ALICE.claims(), &ALICE.entitlement(1));
    world.drain();
    // The value of another tunnel of the same device, under this one's name.
    world.say(first, bind(ALICE.tunnels[0].name(), ALICE.tunnels[1].bind(&first_id)));
    assert_eq!(refusal(&world.drain(), Some(first)), "binding_failed");
    // The value that was shown on an earlier channel.
    let (second, _) = world.open(&ALICE);
    world.present(second, &ALICE.claims(), &ALICE.entitlement(1));
    world.drain();
    world.say(second, ALICE.tunnels[0].bind(&first_id));
    assert_eq!(refusal(&world.drain(), Some(second)), "binding_failed");
}

// Covers: C15 refuse
#[test]
fn a_man_in_the_middle_of_the_tunnel_gains_nothing() {
    // He ends Alice's tunnel himself and has one of his own to the Gateway; he passes on what he sees, exported values
    // included. His certificate is good, and even the session's name may be the same.
    let mallory = Device::with_key("laptop", "alice", 13, &KeyPair::generate().unwrap(), 1);
    for between in [&mallory, &*BOB] {
        let mut world = World::new();
        let (channel, session_id) = world.open(&ALICE);
        world.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
        world.drain();
        let session = world.authenticated(&between.tunnels[0]);
        world.say(channel, between.tunnels[0].bind(&session_id));
        assert_eq!(refusal(&world.drain(), Some(channel)), "binding_failed");
        assert!(!world.allows(session, "10.98.0.10", 80));
        // The value that Alice exports from her tunnel with him is none of the Gateway's tunnel.
        let (channel, session_id) = world.open(&ALICE);
        world.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
        world.drain();
        world.say(channel, ALICE.tunnels[0].bind(&session_id));
        assert_eq!(installs(&world.drain()), 0);
        let actions = world.pass(Duration::from_secs(10));
        assert_eq!(refusal(&actions, Some(channel)), "tunnel_unknown");
    }
}

#[test]
fn a_tunnel_that_does_not_come_is_waited_for_ten_seconds() {
    let mut world = World::new();
    let (channel, session_id) = world.open(&ALICE);
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
    world.say(channel, ALICE.tunnels[0].bind(&session_id));
    world.drain();
    world.pass(Duration::from_millis(9_999));
    assert_eq!(world.refusals(), 0);
    assert_eq!(refusal(&world.pass(Duration::from_millis(1)), Some(channel)), "tunnel_unknown");
    assert_eq!(world.refused("tunnel_unknown"), 1);
    // A channel that asks for none does not stay for ever either.
    let (idle, _) = world.open(&ALICE);
    world.drain();
    world.pass(Duration::from_millis(29_999));
    assert_eq!(world.refusals(), 1);
    assert_eq!(refusal(&world.pass(Duration::from_millis(1)), Some(idle)), "tunnel_unknown");
}

#[test]
fn a_newer_bind_takes_the_place_of_one_that_waits() {
    let mut world = World::new();
    let (channel, session_id) = world.open(&ALICE);
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
    world.say(channel, ALICE.tunnels[0].bind(&session_id));
    world.say(channel, ALICE.tunnels[1].bind(&session_id));
    world.drain();
    world.authenticated(&ALICE.tunnels[0]);
    assert_eq!(installs(&world.drain()), 0);
    let session = world.authenticated(&ALICE.tunnels[1]);
    assert_eq!(installs(&world.drain()), 1);
    assert!(world.allows(session, "10.98.0.10", 80));
    world.pass(Duration::from_secs(60));
    assert_eq!(world.refusals(), 0);
}

#[test]
fn a_second_tunnel_replaces_the_first() {
    let mut world = World::new();
    let (channel, session_id) = world.open(&ALICE);
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
    let first = world.authenticated(&ALICE.tunnels[0]);
    world.say(channel, ALICE.tunnels[0].bind(&session_id));
    world.drain();
    let second = world.authenticated(&ALICE.tunnels[1]);
    world.say(channel, ALICE.tunnels[1].bind(&session_id));
    let actions = world.drain();
    assert_eq!((installs(&actions), removes(&actions)), (1, vec![]));
    assert!(world.allows(second, "10.98.0.10", 80));
    assert_eq!(sent(&actions, channel), [ALICE.tunnels[1].answer(&session_id)]);
    // What the client has sent already still arrives through the first.
    assert_eq!(removes(&world.pass(Duration::from_millis(2_999))), []);
    assert!(world.allows(first, "10.98.0.10", 80));
    assert_eq!(removes(&world.pass(Duration::from_millis(1))), [first]);
    world.ended(first);
    world.drain();
    assert_eq!(world.machine.sessions().next().unwrap().tunnel, second, "the old one's end touches nothing");
    assert!(world.allows(second, "10.98.0.10", 80));
}

#[test]
fn the_newest_session_of_a_name_replaces_the_older_once_it_is_bound() {
    let mut world = World::new();
    let (old, old_tunnel) = world.admit(&ALICE, 0, 1);
    let (new, session_id) = world.open(&ALICE);
    world.present(new, &ALICE.claims(), &ALICE.entitlement(2));
    let new_tunnel = world.authenticated(&ALICE.tunnels[1]);
    let actions = world.drain();
    assert!(matches!(sent(&actions, old)[..], [ToClient::Entitlement { .. }]), "its newer token counts for both");
    assert!(world.allows(old_tunnel, "10.98.0.10", 80));
    world.say(new, ALICE.tunnels[1].bind(&session_id));
    let actions = world.drain();
    assert!(matches!(sent(&actions, old)[..], [ToClient::Goodbye { code: "replaced", .. }]));
    assert_eq!(removes(&world.pass(Duration::from_secs(3))), [old_tunnel]);
    assert!(world.allows(new_tunnel, "10.98.0.10", 80));
    assert_eq!((world.refused("replaced"), world.refusals()), (1, 1));
    assert_eq!(world.machine.live().collect::<Vec<_>>(), [(&*ALICE.dn, 2)]);
    // One that fails to bind replaces nothing.
    let (failing, _) = world.open(&ALICE);
    world.present(failing, &ALICE.claims(), &ALICE.entitlement(2));
    world.drain();
    world.say(failing, ALICE.tunnels[1].bind(&session_id));
    assert_eq!(refusal(&world.drain(), Some(failing)), "binding_failed");
    assert!(world.allows(new_tunnel, "10.98.0.10", 80));
}

/// A tunnel that another one has followed lives on its session's rights, and never longer than they do.
#[test]
fn what_changes_a_sessions_rights_ends_the_tunnel_before_its_tunnel() {
    type Change = fn(&mut World);
    let changes: [(&str, Change); 4] = [
        ("a push", |world| world.machine.pushed_entitlement(&sign(&ALICE.entitlement(2)), world.now)),
        ("a revocation", |world| {
            let scope = EntryScope::Key(*ALICE.peer.key());
            let list = revocations(0, vec![entry(scope, Effect::Revoke)]);
            world.machine.pushed_revocations(&sign(&list), world.now);
        }),
        ("another's revocation", |world| {
            let list = revocations(0, vec![entry(EntryScope::Token("x".into()), Effect::Revoke)]);
            world.machine.pushed_revocations(&sign(&list), world.now);
        }),
        ("the end", |world| world.machine.dismiss(world.now)),
    ];
    for (what, change) in changes {
        let mut world = World::new();
        let (channel, first) = world.admit(&ALICE, 0, 1);
        world.authenticated(&ALICE.tunnels[1]);
        // The session id of the first channel of a world.
        world.say(channel, ALICE.tunnels[1].bind(&1_u128.to_be_bytes()));
        assert_eq!(removes(&world.drain()), [], "{what}");
        change(&mut world);
        assert!(removes(&world.drain()).contains(&first), "{what}");
        assert!(!world.allows(first, "10.98.0.10", 80), "{what}");
        assert!(!removes(&world.pass(Duration::from_secs(1))).contains(&first), "{what}: once");
    }
}

#[test]
fn another_keys_tunnel_is_not_waited_for() {
    let mut world = World::new();
    let (_, first) = world.admit(&ALICE, 0, 1);
    let other = Device::with_key("laptop", "alice", 23, &rcgen::KeyPair::generate().unwrap(), 1);
    let (channel, session_id) = world.open_as(&other.peer);
    world.present(channel, &other.claims(), &other.entitlement(2));
    world.authenticated(&other.tunnels[0]);
    world.say(channel, other.tunnels[0].bind(&session_id));
    assert_eq!(removes(&world.drain()), [first]);
}

#[test]
fn a_lost_channel_comes_back_and_disturbs_nothing() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 1);
    world.machine.channel_closed(channel, world.now);
    world.pass(Duration::from_secs(59));
    assert!(world.allows(session, "10.98.0.10", 80));
    let (back, session_id) = world.open(&ALICE);
    world.present(back, &ALICE.claims(), &ALICE.entitlement(1));
    world.say(back, ALICE.tunnels[0].bind(&session_id));
    let actions = world.drain();
    assert!(sent(&actions, back).contains(&ALICE.tunnels[0].answer(&session_id)));
    assert_eq!((installs(&actions), removes(&actions)), (0, vec![]), "{actions:?}");
    world.pass(Duration::from_secs(120));
    assert!(world.allows(session, "10.98.0.10", 80));
    assert_eq!((world.installed[&session].count, world.refusals()), (1, 0));
}

#[test]
fn a_lost_channel_that_does_not_come_back_ends_its_session() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 1);
    world.machine.channel_closed(channel, world.now);
    world.machine.channel_closed(channel, world.now);
    world.pass(Duration::from_millis(59_999));
    assert!(world.allows(session, "10.98.0.10", 80));
    let actions = world.pass(Duration::from_millis(1));
    assert_eq!(refusal(&actions, None), "channel_lost");
    assert_eq!(removes(&actions), [session]);
    assert!(!world.allows(session, "10.98.0.10", 80));
}

#[test]
fn a_channel_outlives_its_tunnel_and_binds_another() {
    let mut world = World::new();
    let (channel, session_id) = world.open(&ALICE);
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
    let first = world.authenticated(&ALICE.tunnels[0]);
    world.say(channel, ALICE.tunnels[0].bind(&session_id));
    world.drain();
    world.ended(first);
    let actions = world.drain();
    assert_eq!(removes(&actions), [first], "the other workers forget where it was");
    assert_eq!((sent(&actions, channel), world.machine.sessions().count()), (vec![], 0));
    let second = world.authenticated(&ALICE.tunnels[1]);
    world.say(channel, ALICE.tunnels[1].bind(&session_id));
    world.drain();
    assert!(world.allows(second, "10.98.0.10", 80));
    world.ended(second);
    world.drain();
    assert_eq!(refusal(&world.pass(Duration::from_secs(30)), Some(channel)), "tunnel_unknown");
}

#[test]
fn a_tunnel_that_was_removed_is_bound_no_more() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 1);
    world.say(channel, FromClient::Malformed { detail: "expected a message, found none".into() });
    let actions = world.drain();
    assert_eq!((refusal(&actions, Some(channel)), removes(&actions)), ("message_malformed", vec![session]));
    let (again, session_id) = world.open(&ALICE);
    world.present(again, &ALICE.claims(), &ALICE.entitlement(1));
    world.say(again, ALICE.tunnels[0].bind(&session_id));
    assert_eq!(installs(&world.drain()), 0);
    assert_eq!(refusal(&world.pass(Duration::from_secs(10)), Some(again)), "tunnel_unknown");
}
