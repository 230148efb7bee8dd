//! What the Controller pushes: configurations and entitlement tokens.

use std::time::Duration;

use rcgen::KeyPair;
use ringfort_admission::{Action, Applied, Part, ToClient};
use ringfort_token::{Confirmation, EntitlementToken, GatewayConfiguration, audience};

use crate::world::*;

fn mail(device: &Device, seq: u64) -> EntitlementToken {
    EntitlementToken { grants: vec![grant("mail", "10.98.0.25", "tcp/25")], ..device.entitlement(seq) }
}

// Covers: K5 allow
#[test]
fn a_pushed_token_replaces_the_rules_of_a_live_session() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 1);
    let text = sign(&mail(&ALICE, 2));
    world.machine.pushed_entitlement(&text, world.now);
    let actions = world.drain();
    assert_eq!(sent(&actions, channel), [ToClient::Entitlement { token: text }]);
    assert!(world.allows(session, "10.98.0.25", 25) && !world.allows(session, "10.98.0.10", 80));
    assert_eq!(applied(&actions), [], "not before the workers have said so");
    let entitlements = vec![(ALICE.dn.clone(), 2)];
    assert_eq!(world.confirm(), [Applied { entitlements, ..Applied::default() }]);
    assert_eq!(world.machine.live().collect::<Vec<_>>(), [(&*ALICE.dn, 2)]);
    assert_eq!(world.refusals(), 0);
}

#[test]
fn a_token_pushed_twice_is_told_twice_and_installed_once() {
    let mut world = World::new();
    let (_, session) = world.admit(&ALICE, 0, 1);
    for _ in 0..2 {
        world.machine.pushed_entitlement(&sign(&mail(&ALICE, 2)), world.now);
        world.drain();
        world.unconfirmed.clear();
        world.machine.handle_event(
            ringfort_engine::gateway::Event::RulesApplied { session, epoch: ringfort_types::RuleEpoch(1) },
            world.now,
        );
        let entitlements = vec![(ALICE.dn.clone(), 2)];
        assert!(applied(&world.drain()).iter().all(|told| told.entitlements == entitlements));
    }
    assert_eq!((world.installed[&session].count, world.refusals()), (2, 0));
}

// Covers: K5 refuse
#[test]
fn a_pushed_token_admits_nobody() {
    let mut world = World::new();
    let session = world.authenticated(&ALICE.tunnels[0]);
    let (channel, session_id) = world.open(&ALICE);
    world.machine.pushed_entitlement(&sign(&ALICE.entitlement(2)), world.now);
    world.say(channel, ALICE.tunnels[0].bind(&session_id));
    let actions = world.drain();
    assert_eq!((installs(&actions), applied(&actions)), (0, vec![]));
    assert!(!world.allows(session, "10.98.0.10", 80));
    assert_eq!(world.machine.sessions().count(), 0);
}

// Covers: K5 refuse
#[test]
fn a_pushed_token_that_cannot_be_put_in_force_leaves_no_older_one_in_force() {
    let same = || grant("mail", "10.98.0.25", "tcp/25");
    let next = || mail(&ALICE, 2);
    let cases = [
        EntitlementToken { grants: vec![grant("no name", "10.98.0.1", "any")], ..next() },
        EntitlementToken { grants: vec![same(), same()], ..next() },
        EntitlementToken { inner: Default::default(), ..next() },
    ];
    for token in cases {
        let mut world = World::new();
        let (channel, session) = world.admit(&ALICE, 0, 1);
        let (waiting, _) = world.open(&ALICE);
        world.present(waiting, &ALICE.claims(), &ALICE.entitlement(1));
        world.drain();
        world.machine.pushed_entitlement(&sign(&token), world.now);
        let actions = world.drain();
        assert_eq!(removes(&actions), [session]);
        for channel in [channel, waiting] {
            assert!(matches!(&sent(&actions, channel)[..], [ToClient::Goodbye { code: "policy_malformed", .. }]));
        }
        assert_eq!((world.machine.sessions().count(), world.refused("policy_malformed")), (0, 2));
        // Nor does the older one come back.
        let (again, _) = world.open(&ALICE);
        world.present(again, &ALICE.claims(), &ALICE.entitlement(1));
        assert_eq!(refusal(&world.drain(), Some(again)), "policy_malformed");
    }
}

// Covers: K5 refuse
#[test]
fn a_pushed_token_that_does_not_fit_changes_nothing() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 3);
    world.present(
        channel,
        &ringfort_token::ClaimsToken { generation: 2, jti: "c2".into(), ..ALICE.claims() },
        &EntitlementToken { generation: 2, ..ALICE.entitlement(4) },
    );
    world.drain();
    world.confirm();
    let next = || EntitlementToken { generation: 2, ..mail(&ALICE, 5) };
    let foreign = STRANGER.sign(&next()).unwrap().as_str().to_owned();
    let cases = [
        ("token_unknown_key", foreign),
        ("token_malformed", "nonsense".into()),
        ("token_malformed", "x".repeat(1 << 20)),
        ("token_wrong_audience", sign(&EntitlementToken { aud: vec![audience::site("site-2")], ..next() })),
        ("token_expired", sign(&EntitlementToken { exp: ringfort_types::UnixSeconds(1), ..next() })),
        ("subject_mismatch", sign(&EntitlementToken { generation: 1, ..next() })),
        ("subject_mismatch", sign(&EntitlementToken { user: "bob".into(), ..next() })),
        ("subject_mismatch", sign(&EntitlementToken { sub: "alice".into(), ..next() })),
        ("sequence_old", sign(&EntitlementToken { seq: 3, ..next() })),
    ];
    for (code, text) in cases {
        let before = (world.refused(code), world.refusals());
        world.machine.pushed_entitlement(&text, world.now);
        let actions = world.drain();
        assert_eq!(refusal(&actions, None), code);
        assert_eq!((world.refused(code), world.refusals()), (before.0 + 1, before.1 + 1), "{code}");
        assert!(sent(&actions, channel).is_empty(), "{code}");
        assert!(world.allows(session, "10.98.0.10", 80) && !world.allows(session, "10.98.0.25", 25), "{code}");
    }
    world.machine.pushed_entitlement(&sign(&next()), world.now);
    world.drain();
    assert!(world.allows(session, "10.98.0.25", 25));
}

#[test]
fn a_pushed_token_of_another_key_is_kept_for_that_key_and_touches_no_session() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 1);
    let other = Device::with_key("laptop", "alice", 14, &KeyPair::generate().unwrap(), 0);
    world.machine.pushed_entitlement(&sign(&mail(&other, 2)), world.now);
    let actions = world.drain();
    assert_eq!((installs(&actions), sent(&actions, channel)), (0, vec![]));
    assert!(world.allows(session, "10.98.0.10", 80));
    // The old key's tokens are older than what was seen; that key cannot use the new one.
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
    assert_eq!(refusal(&world.drain(), Some(channel)), "sequence_old");
}

#[test]
fn a_pushed_token_wins_over_an_older_presented_one() {
    let mut world = World::new();
    let text = sign(&mail(&ALICE, 7));
    world.machine.pushed_entitlement(&text, world.now);
    let (channel, session_id) = world.open(&ALICE);
    world.drain();
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(3));
    let told = sent(&world.drain(), channel);
    assert_eq!(told, [ToClient::Accepted { seq: 7, ends_at: WALL + HOUR }, ToClient::Entitlement { token: text }]);
    // One that comes while the channel waits for its tunnel counts as well.
    world.machine.pushed_entitlement(&sign(&EntitlementToken { seq: 8, ..ALICE.entitlement(8) }), world.now);
    assert!(matches!(sent(&world.drain(), channel)[..], [ToClient::Entitlement { .. }]));
    let session = world.authenticated(&ALICE.tunnels[0]);
    world.say(channel, ALICE.tunnels[0].bind(&session_id));
    world.drain();
    assert!(world.allows(session, "10.98.0.10", 80) && !world.allows(session, "10.98.0.25", 25));
    assert_eq!(world.machine.live().collect::<Vec<_>>(), [(&*ALICE.dn, 8)]);
}

// Covers: R7 allow
// Covers: R12 allow
#[test]
fn a_configuration_is_in_force_when_the_workers_have_said_so() {
    let mut world = World::new();
    let (_, session) = world.admit(&ALICE, 0, 1);
    world.machine.pushed_configuration(&sign(&configuration(2, vec![grant("none", "10.98.9.9", "any")])), world.now);
    let actions = world.drain();
    assert!(actions.iter().any(|action| matches!(action, Action::Persist(Part::Configuration))));
    assert_eq!((world.machine.configuration_seq(), applied(&actions)), (2, vec![]));
    assert!(!world.allows(session, "10.98.0.10", 80));
    assert_eq!(world.confirm(), [Applied { configuration_seq: Some(2), ..Applied::default() }]);
    // A new lease alone disturbs nobody and is in force at once.
    world.machine.pushed_configuration(&sign(&configuration(3, vec![grant("none", "10.98.9.9", "any")])), world.now);
    let actions = world.drain();
    assert_eq!(installs(&actions), 0);
    assert_eq!(applied(&actions), [Applied { configuration_seq: Some(3), ..Applied::default() }]);
}

#[test]
fn a_tunnel_that_ends_need_not_confirm() {
    let mut world = World::new();
    let (_, alice) = world.admit(&ALICE, 0, 1);
    world.admit(&BOB, 0, 1);
    world.machine.pushed_configuration(&sign(&configuration(2, vec![])), world.now);
    world.drain();
    world.ended(alice);
    assert_eq!(applied(&world.drain()), [], "the other has not confirmed");
    assert_eq!(world.confirm(), [Applied { configuration_seq: Some(2), ..Applied::default() }]);
}

// Covers: R7 refuse
// Covers: R12 refuse
#[test]
fn a_configuration_that_is_not_ours_or_not_newer_is_refused() {
    let mut world = World::new();
    world.machine.pushed_configuration(&sign(&configuration(5, everything())), world.now);
    world.drain();
    let next = || configuration(6, vec![]);
    let late = WALL + Duration::from_secs(60);
    let cases = [
        ("token_unknown_key", STRANGER.sign(&next()).unwrap().as_str().to_owned()),
        ("token_bad_signature", sign(&next()).replace('.', ".e")),
        ("token_wrong_type", sign(&ALICE.claims())),
        ("token_wrong_issuer", sign(&GatewayConfiguration { iss: "other".into(), ..next() })),
        ("token_wrong_audience", sign(&GatewayConfiguration { aud: vec![audience::gateway("g2")], ..next() })),
        ("token_not_yet_valid", sign(&GatewayConfiguration { nbf: late, ..next() })),
        ("token_expired", sign(&GatewayConfiguration { exp: ringfort_types::UnixSeconds(1), ..next() })),
        ("subject_mismatch", sign(&GatewayConfiguration { sub: "g2".into(), ..next() })),
        ("subject_mismatch", sign(&GatewayConfiguration { site: "site-2".into(), ..next() })),
        ("sequence_old", sign(&configuration(4, vec![]))),
        (
            "sequence_old",
            sign(&GatewayConfiguration { iat: ringfort_types::UnixSeconds(WALL.0 - 1), ..configuration(5, vec![]) }),
        ),
        ("policy_malformed", sign(&configuration(6, vec![grant("x", "nowhere", "any")]))),
        ("policy_malformed", sign(&GatewayConfiguration { pools: vec!["10.97.0.1".into()], ..next() })),
    ];
    for (code, text) in cases {
        let before = world.refused(code);
        world.machine.pushed_configuration(&text, world.now);
        assert_eq!(refusal(&world.drain(), None), code);
        assert_eq!((world.refused(code), world.machine.configuration_seq()), (before + 1, 5), "{code}");
    }
    // The same number with a new lease is no step back.
    world.step(Duration::from_secs(600));
    let again =
        GatewayConfiguration { iat: late, lease: late + HOUR, exp: late + HOUR, ..configuration(5, everything()) };
    world.machine.pushed_configuration(&sign(&again), world.now);
    world.drain();
    world.step(Duration::from_secs(600));
    assert_eq!(world.machine.admitting(world.now), Ok(()));
}

#[test]
fn keys_that_are_no_longer_the_controllers_sign_nothing() {
    let mut world = World::new();
    let (_, session) = world.admit(&ALICE, 0, 1);
    let mut keys = ringfort_token::KeySet::default();
    keys.add(STRANGER.public_key()).unwrap();
    world.machine.signers(keys);
    world.machine.pushed_entitlement(&sign(&ALICE.entitlement(2)), world.now);
    assert_eq!(refusal(&world.drain(), None), "token_unknown_key");
    world.machine.pushed_entitlement(STRANGER.sign(&mail(&ALICE, 2)).unwrap().as_str(), world.now);
    world.drain();
    assert!(world.allows(session, "10.98.0.25", 25));
}

#[test]
fn a_pushed_token_of_another_holder_under_the_same_name_is_not_installed() {
    let mut world = World::new();
    let (_, session) = world.admit(&ALICE, 0, 1);
    let stolen = EntitlementToken { cnf: Confirmation { jkt: *BOB.peer.key() }, ..mail(&ALICE, 2) };
    world.machine.pushed_entitlement(&sign(&stolen), world.now);
    world.drain();
    assert!(!world.allows(session, "10.98.0.25", 25));
}
