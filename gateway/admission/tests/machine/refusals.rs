//! Every code of a refused Present or channel, once each: one count, one event, one Goodbye, then Close.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::KeyPair;
use ringfort_admission::{FromClient, codes};
use ringfort_identity::Role;
use ringfort_token::{ClaimsToken, Confirmation, Effect, EntitlementToken, EntryScope, Registered, Token, audience};
use ringfort_types::UnixSeconds;
use serde::{Deserialize, Serialize};

use crate::world::*;

/// Presents, and gives the code under which it is refused.
fn code_of(world: &mut World, claims: String, entitlement: String) -> &'static str {
    let (channel, session_id) = world.open(&ALICE);
    let session = world.authenticated(&ALICE.tunnels[0]);
    world.drain();
    let before = world.refusals();
    world.present_texts(channel, claims, entitlement);
    let code = refusal(&world.drain(), Some(channel));
    assert_eq!(world.refusals(), before + 1);
    world.say(channel, ALICE.tunnels[0].bind(&session_id));
    assert!(world.drain().is_empty(), "a closed channel is not heard");
    assert!(!world.allows(session, "10.98.0.10", 80));
    world.ended(session);
    world.drain();
    code
}

fn claims(change: impl FnOnce(&mut ClaimsToken)) -> String {
    let mut token = ALICE.claims();
    change(&mut token);
    sign(&token)
}

fn entitlement(change: impl FnOnce(&mut EntitlementToken)) -> String {
    let mut token = ALICE.entitlement(1);
    change(&mut token);
    sign(&token)
}

/// A claims token without its claims.
#[derive(Serialize, Deserialize)]
struct Empty {}

impl Token for Empty {
    const TYPE: &'static str = ClaimsToken::TYPE;
    const BYTES_MAX: usize = ClaimsToken::BYTES_MAX;

    fn registered(&self) -> Registered<'_> {
        unreachable!("never verified as such")
    }
}

fn with_algorithm_none(token: &str) -> String {
    let (header, rest) = token.split_once('.').unwrap();
    let header = String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap().replace("EdDSA", "none");
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header))
}

// Covers: A11 refuse
// Covers: C13 refuse
// Covers: C14 refuse
// Covers: R12 refuse
#[test]
fn tokens_that_are_not_believed_are_refused_under_their_codes() {
    let mut world = World::new();
    let (good, fine) = (claims(|_| {}), entitlement(|_| {}));
    let late = UnixSeconds(WALL.0 + 60);
    let tampered = good.replace('.', ".e");
    let foreign = STRANGER.sign(&ALICE.claims()).unwrap().as_str().to_owned();
    let of_bob = Confirmation { jkt: *BOB.peer.key() };
    let cases = [
        ("token_malformed", "nonsense".to_owned(), fine.clone()),
        ("token_malformed", "x".repeat(ClaimsToken::BYTES_MAX + 1), fine.clone()),
        ("token_malformed", good.clone(), String::new()),
        ("token_wrong_type", fine.clone(), good.clone()),
        ("token_wrong_type", good.clone(), good.clone()),
        ("token_unknown_key", foreign, fine.clone()),
        ("token_wrong_algorithm", with_algorithm_none(&good), fine.clone()),
        ("token_bad_signature", tampered, fine.clone()),
        ("token_claims", SIGNER.sign(&Empty {}).unwrap().as_str().into(), fine.clone()),
        ("token_wrong_issuer", claims(|token| token.iss = "other".into()), fine.clone()),
        ("token_wrong_audience", claims(|token| token.aud = vec![audience::controller(ORGANISATION)]), fine.clone()),
        ("token_wrong_audience", good.clone(), entitlement(|token| token.aud = vec![audience::site("site-2")])),
        ("token_not_yet_valid", claims(|token| token.nbf = late), fine.clone()),
        (
            "token_expired",
            good.clone(),
            entitlement(|token| (token.nbf, token.exp) = (UnixSeconds(1), UnixSeconds(WALL.0 - 60))),
        ),
        ("token_wrong_holder", claims(|token| token.cnf = of_bob), fine.clone()),
        ("token_wrong_holder", good.clone(), entitlement(|token| token.cnf = of_bob)),
        ("subject_mismatch", claims(|token| token.sub.clone_from(&BOB.dn)), fine.clone()),
        ("subject_mismatch", claims(|token| token.user = "bob".into()), entitlement(|token| token.user = "bob".into())),
        ("subject_mismatch", good.clone(), entitlement(|token| token.sub.clone_from(&BOB.dn))),
        ("subject_mismatch", good.clone(), entitlement(|token| token.user = "bob".into())),
        ("subject_mismatch", good.clone(), entitlement(|token| token.generation = 2)),
        ("subject_mismatch", claims(|token| token.generation = 2), fine.clone()),
        ("policy_malformed", good.clone(), entitlement(|token| token.grants[0].to = vec!["wiki.example".into()])),
        ("policy_malformed", good.clone(), entitlement(|token| token.grants.push(token.grants[0].clone()))),
        ("policy_malformed", good.clone(), entitlement(|token| token.inner = Default::default())),
        ("policy_malformed", good.clone(), entitlement(|token| token.inner.ipv4 = Some([10, 98, 0, 10].into()))),
    ];
    for (code, claims, entitlement) in cases {
        let before = world.refused(code);
        assert_eq!(code_of(&mut world, claims, entitlement), code);
        assert_eq!(world.refused(code), before + 1, "{code}");
    }
    world.admit(&ALICE, 1, 1);
}

#[test]
fn a_lower_number_than_was_seen_is_refused() {
    let mut world = World::new();
    world.admit(&ALICE, 1, 5);
    assert_eq!(code_of(&mut world, claims(|_| {}), entitlement(|token| token.seq = 4)), "sequence_old");
    world.admit(&ALICE, 2, 5);
    assert_eq!(world.refused("sequence_old"), 1);
}

#[test]
fn what_was_taken_back_opens_nothing() {
    let scopes = [
        (EntryScope::Token("claims-alice".into()), "token_revoked"),
        (EntryScope::Token("entitlement-alice-1".into()), "token_revoked"),
        (EntryScope::User { user: "alice".into(), below: 2 }, "token_revoked"),
    ];
    for (scope, code) in scopes {
        let mut world = World::new();
        world.machine.pushed_revocations(&sign(&revocations(0, vec![entry(scope, Effect::Revoke)])), world.now);
        world.drain();
        assert_eq!(code_of(&mut world, claims(|_| {}), entitlement(|_| {})), code);
    }
    let scopes = [EntryScope::Certificate(ALICE.peer.serial().into()), EntryScope::Key(*ALICE.peer.key())];
    for scope in scopes {
        let mut world = World::new();
        world.machine.pushed_revocations(&sign(&revocations(0, vec![entry(scope, Effect::Revoke)])), world.now);
        world.drain();
        let (channel, _) = world.open(&ALICE);
        assert_eq!(refusal(&world.drain(), Some(channel)), "certificate_revoked");
        let tunnel = world.authenticated(&ALICE.tunnels[0]);
        let actions = world.drain();
        assert_eq!((refusal(&actions, None), removes(&actions)), ("certificate_revoked", vec![tunnel]));
        world.admit(&BOB, 0, 1);
    }
}

#[test]
fn only_devices_with_a_session_are_heard() {
    let mut world = World::new();
    for role in [Role::Gateway, Role::Controller, Role::Device] {
        // The device's certificate names no session.
        let (channel, _) = world.open_as(&Device::peer_in_role(role));
        assert_eq!(refusal(&world.drain(), Some(channel)), "subject_mismatch", "{role}");
    }
    assert_eq!(world.refused("subject_mismatch"), 3);
}

#[test]
fn who_got_no_channel_is_counted_as_well() {
    let mut world = World::new();
    for code in ["certificate_required", "certificate_refused", "wrong_role"] {
        world.machine.peer_refused(code, "expected a device's certificate, found none".into(), world.now);
        assert_eq!((refusal(&world.drain(), None), world.refused(code)), (code, 1));
    }
}

#[test]
fn messages_have_limits() {
    let mut world = World::new();
    let many: BTreeMap<String, String> = (0..65).map(|at| (at.to_string(), String::new())).collect();
    let long = BTreeMap::from([("os".into(), "x".repeat(1_025))]);
    for device in [many, long] {
        let (channel, _) = world.open(&ALICE);
        world.drain();
        let (claims, entitlement) = (claims(|_| {}), entitlement(|_| {}));
        world.say(channel, FromClient::Present { claims, entitlement, device });
        assert_eq!(refusal(&world.drain(), Some(channel)), "message_malformed");
    }
    let (channel, _) = world.open(&ALICE);
    world.drain();
    world.say(channel, FromClient::Malformed { detail: "expected a message, found none".into() });
    assert_eq!(refusal(&world.drain(), Some(channel)), "message_malformed");
}

#[test]
fn channels_without_a_session_have_a_limit() {
    let mut world = World::new();
    let (older, _) = world.open(&ALICE);
    world.drain();
    let (newer, _) = world.open(&ALICE);
    assert_eq!(refusal(&world.drain(), Some(older)), "replaced", "one for each name");
    let key = KeyPair::generate().unwrap();
    for at in 1..1_024 {
        world.open(&Device::with_key(&format!("d{at}"), "carol", 100 + at, &key, 0));
    }
    world.drain();
    assert_eq!(world.refusals(), 1);
    let (beyond, _) = world.open(&BOB);
    assert_eq!(refusal(&world.drain(), Some(beyond)), "too_many_sessions");
    world.machine.channel_closed(newer, world.now);
    world.admit(&BOB, 0, 1);
}

#[test]
fn every_counter_is_there_from_the_start() {
    let world = World::new();
    for code in codes() {
        assert_eq!(world.machine.refused().get(code), Some(&0), "{code}");
    }
    assert_eq!(world.machine.refused().len(), codes().count());
}
