//! One name on two channels: a live session, and a newer channel that shows other tokens beside it. Each is judged by the number
//! that it holds itself.

use ringfort_admission::{Applied, ToClient};
use ringfort_token::EntitlementToken;

use crate::world::*;

const WIKI: (&str, u16) = ("10.98.0.10", 80);
const MAIL: (&str, u16) = ("10.98.0.25", 25);

/// Allows mail, and no longer the wiki.
fn mail(seq: u64) -> EntitlementToken {
    EntitlementToken { grants: vec![grant("mail", MAIL.0, "tcp/25")], ..ALICE.entitlement(seq) }
}

fn live(world: &World) -> Vec<u64> {
    world.machine.live().map(|(_, seq)| seq).collect()
}

/// The rights of a live session are taken back by a push, after a second channel has shown a token with a higher number than the
/// session's.
// Covers: A7 refuse
// Covers: K5 refuse
#[test]
fn what_a_second_channel_shows_keeps_no_taking_back_from_the_live_session() {
    // What is pushed may lie between both numbers, be the one that was shown, or lie above.
    for pushed in [6, 7, 8] {
        let mut world = World::new();
        let (channel, session) = world.admit(&ALICE, 0, 5);
        let (second, _) = world.open(&ALICE);
        // It belongs to another key of the same name, so that it says nothing of the live session.
        let other = Device::with_key("laptop", "alice", 21, &rcgen::KeyPair::generate().unwrap(), 0);
        let (third, _) = world.open_as(&other.peer);
        world.present(third, &other.claims(), &other.entitlement(7));
        assert!(!sent(&world.drain(), second).is_empty(), "the newest channel of a name takes the older one's place");
        assert_eq!(live(&world), [5]);
        world.machine.pushed_entitlement(&sign(&mail(pushed)), world.now);
        let actions = world.drain();
        assert!(matches!(sent(&actions, channel)[..], [ToClient::Entitlement { .. }]), "{pushed}: {actions:?}");
        assert!(!world.allows(session, WIKI.0, WIKI.1), "{pushed}: what was taken back is gone");
        assert!(world.allows(session, MAIL.0, MAIL.1), "{pushed}");
        let entitlements = vec![(ALICE.dn.clone(), pushed)];
        assert_eq!(world.confirm(), [Applied { entitlements, ..Applied::default() }]);
        assert_eq!((live(&world), world.refused("sequence_old")), (vec![pushed], 0));
    }
}

// Covers: A7 allow
#[test]
fn a_newer_token_on_a_second_channel_counts_for_the_live_session_of_its_key_at_once() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 5);
    let (second, session_id) = world.open(&ALICE);
    let text = sign(&mail(7));
    world.present_texts(second, sign(&ALICE.claims()), text.clone());
    let actions = world.drain();
    assert_eq!(sent(&actions, channel), [ToClient::Entitlement { token: text }]);
    assert!(!world.allows(session, WIKI.0, WIKI.1) && world.allows(session, MAIL.0, MAIL.1));
    assert_eq!(live(&world), [7]);
    // The same number pushed afterwards is in force already, an older one is refused.
    world.confirm();
    world.machine.pushed_entitlement(&sign(&mail(7)), world.now);
    let told = applied(&world.drain());
    assert_eq!(told, [Applied { entitlements: vec![(ALICE.dn.clone(), 7)], ..Applied::default() }]);
    world.machine.pushed_entitlement(&sign(&ALICE.entitlement(6)), world.now);
    assert_eq!(refusal(&world.drain(), None), "sequence_old");
    assert!(!world.allows(session, WIKI.0, WIKI.1));
    // And the second channel takes the session over with it.
    let next = world.authenticated(&ALICE.tunnels[1]);
    world.say(second, ALICE.tunnels[1].bind(&session_id));
    world.drain();
    assert!(!world.allows(next, WIKI.0, WIKI.1) && world.allows(next, MAIL.0, MAIL.1));
    assert_eq!(live(&world), [7]);
}

// Covers: A7 refuse
#[test]
fn a_token_from_before_a_taking_back_is_of_no_use_on_any_channel() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 5);
    let text = sign(&mail(6));
    world.machine.pushed_entitlement(&text, world.now);
    world.drain();
    // Pushed again by somebody who kept it.
    world.machine.pushed_entitlement(&sign(&ALICE.entitlement(5)), world.now);
    assert_eq!(refusal(&world.drain(), None), "sequence_old");
    // Shown on a second channel: the newer one takes its place, and the client gets that.
    let (second, session_id) = world.open(&ALICE);
    world.present(second, &ALICE.claims(), &ALICE.entitlement(5));
    let told = sent(&world.drain(), second);
    assert!(told.contains(&ToClient::Entitlement { token: text.clone() }), "{told:?}");
    let next = world.authenticated(&ALICE.tunnels[1]);
    world.say(second, ALICE.tunnels[1].bind(&session_id));
    let actions = world.drain();
    assert!(!sent(&actions, channel).is_empty());
    assert!(removes(&world.pass(std::time::Duration::from_secs(3))).contains(&session));
    assert!(!world.allows(next, WIKI.0, WIKI.1) && world.allows(next, MAIL.0, MAIL.1));
    // After a restart the number alone is known, and the older token is refused.
    let mut world = World::restored(settings(), world.machine.persisted());
    let (channel, _) = world.open(&ALICE);
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(5));
    assert_eq!(refusal(&world.drain(), Some(channel)), "sequence_old");
}

// Covers: A7 refuse
#[test]
fn a_channel_that_waits_with_an_older_token_does_not_bring_it_back() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 5);
    let (second, session_id) = world.open(&ALICE);
    world.present(second, &ALICE.claims(), &ALICE.entitlement(5));
    world.drain();
    // The live session is shown the newer one on its own channel.
    world.present(channel, &ALICE.claims(), &mail(6));
    assert!(matches!(sent(&world.drain(), second)[..], [ToClient::Entitlement { .. }]));
    assert!(!world.allows(session, WIKI.0, WIKI.1));
    let next = world.authenticated(&ALICE.tunnels[1]);
    world.say(second, ALICE.tunnels[1].bind(&session_id));
    world.drain();
    assert!(!world.allows(next, WIKI.0, WIKI.1) && world.allows(next, MAIL.0, MAIL.1));
    assert_eq!(live(&world), [6]);
}

// Covers: A7 refuse
#[test]
fn a_channel_of_another_key_with_an_older_token_binds_nothing() {
    let other = Device::with_key("laptop", "alice", 22, &rcgen::KeyPair::generate().unwrap(), 1);
    let mut world = World::new();
    let (second, session_id) = world.open_as(&other.peer);
    world.present(second, &other.claims(), &other.entitlement(5));
    world.drain();
    world.machine.pushed_entitlement(&sign(&mail(6)), world.now);
    world.drain();
    let session = world.authenticated(&other.tunnels[0]);
    world.say(second, other.tunnels[0].bind(&session_id));
    assert_eq!(refusal(&world.drain(), Some(second)), "sequence_old");
    assert!(!world.allows(session, WIKI.0, WIKI.1) && live(&world).is_empty());
}
