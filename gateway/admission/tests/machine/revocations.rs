//! What is taken back, at once or with grace.

use std::time::Duration;

use ringfort_admission::{Action, Applied, Part, ToClient};
use ringfort_engine::gateway::Command;
use ringfort_token::{ClaimsToken, Effect, EntitlementToken, Entry, EntryScope, RevocationList, Serial};
use ringfort_types::{BootInstant, UnixSeconds};

use crate::world::*;

fn revoke_alice() -> Vec<Entry> {
    vec![entry(EntryScope::User { user: "alice".into(), below: 2 }, Effect::Revoke)]
}

fn renew_alice(by: UnixSeconds) -> Vec<Entry> {
    vec![entry(EntryScope::User { user: "alice".into(), below: 2 }, Effect::RenewBy(by))]
}

fn renewed(seq: u64) -> (ClaimsToken, EntitlementToken) {
    let claims = ClaimsToken { generation: 2, jti: "claims-2".into(), ..ALICE.claims() };
    (claims, EntitlementToken { generation: 2, ..ALICE.entitlement(seq) })
}

// Covers: A23 refuse
#[test]
fn a_revoked_session_has_empty_rules_before_anything_else_happens() {
    let scopes = [
        EntryScope::User { user: "alice".into(), below: 2 },
        EntryScope::Token("claims-alice".into()),
        EntryScope::Token("entitlement-alice-1".into()),
        EntryScope::Certificate(ALICE.peer.serial().into()),
        EntryScope::Key(*ALICE.peer.key()),
    ];
    for scope in scopes {
        let mut world = World::new();
        let (bobs_channel, bobs) = world.admit(&BOB, 0, 1);
        let (channel, session) = world.admit(&ALICE, 0, 1);
        // What has not been fetched yet must neither come before nor undo it.
        world.machine.pushed_entitlement(&sign(&ALICE.entitlement(2)), world.now);
        world.machine.pushed_entitlement(&sign(&BOB.entitlement(2)), world.now);
        let scope = match scope {
            EntryScope::Token(id) if id.starts_with("entitlement") => EntryScope::Token("entitlement-alice-2".into()),
            other => other,
        };
        let list = revocations(0, vec![entry(scope.clone(), Effect::Revoke)]);
        world.machine.pushed_revocations(&sign(&list), world.now);
        let actions = world.drain();
        let Some(Action::Engine(Command::Install { session: first, not_after, .. })) = actions.first() else {
            panic!("{actions:?}")
        };
        assert_eq!((*first, *not_after), (session, BootInstant::FAR_FUTURE));
        assert!(!world.allows(session, "10.98.0.10", 80), "{scope:?}");
        let Some(ToClient::Goodbye { code: "revoked", message, .. }) = sent(&actions, channel).pop() else {
            panic!("{actions:?}")
        };
        assert!(message.contains("laptop stolen"), "{message}");
        assert!(actions.iter().any(|action| matches!(action, Action::Close { channel: closed } if *closed == channel)));
        assert!(actions.iter().any(|action| matches!(action, Action::Persist(Part::Revocations))));
        assert_eq!((removes(&actions), applied(&actions)), (vec![], vec![]));
        assert_eq!((world.refused("revoked"), world.refusals()), (1, 1));
        // Others go on.
        assert!(world.allows(bobs, "10.98.0.10", 80));
        assert!(sent(&actions, bobs_channel).iter().all(|message| matches!(message, ToClient::Entitlement { .. })));
        let told = world.confirm();
        let serial = Serial { epoch: 1, n: 1 };
        assert_eq!(told.last().unwrap().revocations, Some(serial));
        assert_eq!(removes(&world.pass(Duration::from_millis(1_999))), []);
        assert_eq!(removes(&world.pass(Duration::from_millis(1))), [session]);
        assert_eq!(world.machine.live().collect::<Vec<_>>(), [(&*BOB.dn, 2)]);
    }
}

#[test]
fn all_revoked_sessions_lose_their_rules_before_anybody_is_told() {
    let mut world = World::new();
    let (_, first) = world.admit(&ALICE, 0, 1);
    let (_, second) = world.admit(&BOB, 0, 1);
    let entries = ["alice", "bob"].map(|user| entry(EntryScope::User { user: user.into(), below: 9 }, Effect::Revoke));
    world.machine.pushed_revocations(&sign(&revocations(0, entries.into())), world.now);
    let actions = world.drain();
    assert_eq!(installs(&actions[..2]), 2);
    assert!(!world.allows(first, "10.98.0.10", 80) && !world.allows(second, "10.98.0.10", 80));
}

// Covers: A23 refuse
#[test]
fn what_waits_is_revoked_as_well() {
    let mut world = World::new();
    let (channel, session_id) = world.open(&ALICE);
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
    let tunnel = world.authenticated(&ALICE.tunnels[0]);
    world.drain();
    let list = revocations(0, vec![entry(EntryScope::Key(*ALICE.peer.key()), Effect::Revoke)]);
    world.machine.pushed_revocations(&sign(&list), world.now);
    let actions = world.drain();
    assert!(matches!(sent(&actions, channel)[..], [ToClient::Goodbye { code: "certificate_revoked", .. }]));
    assert_eq!(removes(&actions), [tunnel]);
    world.say(channel, ALICE.tunnels[0].bind(&session_id));
    assert!(world.drain().is_empty());
    // Tokens alone: the tunnel and the certificate stay good.
    let mut world = World::new();
    let (channel, _) = world.open(&ALICE);
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
    world.drain();
    world.machine.pushed_revocations(&sign(&revocations(0, revoke_alice())), world.now);
    assert_eq!(refusal(&world.drain(), Some(channel)), "revoked");
    let (channel, session_id) = world.open(&ALICE);
    let (claims, entitlement) = renewed(2);
    world.present(channel, &claims, &entitlement);
    let session = world.authenticated(&ALICE.tunnels[0]);
    world.say(channel, ALICE.tunnels[0].bind(&session_id));
    world.drain();
    assert!(world.allows(session, "10.98.0.10", 80));
}

/// What a renewal may be demanded of, and what takes its place: everything of a user, a device's claims, one entitlement token.
fn renewals() -> [(EntryScope, ClaimsToken, EntitlementToken); 3] {
    let claims = ClaimsToken { jti: "claims-2".into(), ..ALICE.claims() };
    let (next_claims, next_entitlement) = renewed(2);
    [
        (EntryScope::User { user: "alice".into(), below: 2 }, next_claims, next_entitlement),
        (EntryScope::Token("claims-alice".into()), claims.clone(), ALICE.entitlement(2)),
        (EntryScope::Token("entitlement-alice-1".into()), claims, ALICE.entitlement(2)),
    ]
}

// Covers: A23 allow
#[test]
fn a_renewal_with_grace_loses_nothing() {
    for (scope, claims, entitlement) in renewals() {
        let mut world = World::new();
        let (channel, session) = world.admit(&ALICE, 0, 1);
        let (bobs_channel, _) = world.admit(&BOB, 0, 1);
        let by = WALL + Duration::from_secs(30);
        let list = revocations(0, vec![entry(scope.clone(), Effect::RenewBy(by))]);
        world.machine.pushed_revocations(&sign(&list), world.now);
        let actions = world.drain();
        let told = ToClient::RenewBy { time: by, reason: "laptop stolen".into() };
        assert_eq!((sent(&actions, channel), sent(&actions, bobs_channel)), (vec![told], vec![]), "{scope:?}");
        let ends_at = |world: &World| {
            world.machine.sessions().find(|session| session.dn == &*ALICE.dn).map(|session| session.ends_at)
        };
        assert_eq!(ends_at(&world), Some(by));
        let revocations = Some(Serial { epoch: 1, n: 1 });
        assert_eq!(world.confirm(), [Applied { revocations, ..Applied::default() }]);
        world.step(Duration::from_secs(29));
        assert!(world.allows(session, "10.98.0.10", 80), "the old rules stay");
        world.present(channel, &claims, &entitlement);
        let accepted = ToClient::Accepted { seq: 2, ends_at: WALL + HOUR };
        assert_eq!(sent(&world.drain(), channel), [accepted], "{scope:?}");
        world.pass(Duration::from_secs(600));
        assert!(world.allows(session, "10.98.0.10", 80), "{scope:?}");
        assert_eq!((ends_at(&world), world.refusals()), (Some(WALL + HOUR), 0));
    }
}

// Covers: A23 refuse
#[test]
fn who_does_not_renew_is_out_when_the_grace_is_over() {
    let [(user, ..), (token, claims, _), _] = renewals();
    for scope in [user, token] {
        let mut world = World::new();
        let (channel, session) = world.admit(&ALICE, 0, 1);
        let by = WALL + Duration::from_secs(30);
        let list = revocations(0, vec![entry(scope.clone(), Effect::RenewBy(by))]);
        world.machine.pushed_revocations(&sign(&list), world.now);
        world.drain();
        // The same tokens again do not lengthen it, and a pushed one does not either.
        world.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
        let generation = if matches!(scope, EntryScope::User { .. }) { 2 } else { claims.generation };
        let pushed = EntitlementToken { generation, ..ALICE.entitlement(2) };
        world.machine.pushed_entitlement(&sign(&pushed), world.now);
        world.drain();
        world.step(Duration::from_secs(30));
        assert!(!world.allows(session, "10.98.0.10", 80), "the workers deny by themselves");
        world.machine.handle_timeout(world.now);
        assert_eq!(refusal(&world.drain(), Some(channel)), "expired", "{scope:?}");
        let (channel, _) = world.open(&ALICE);
        world.drain();
        world.present(channel, &ALICE.claims(), &ALICE.entitlement(2));
        assert_eq!(refusal(&world.drain(), Some(channel)), "token_revoked", "{scope:?}");
    }
}

#[test]
fn a_demanded_renewal_holds_for_a_channel_that_comes_back() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 1);
    let by = WALL + Duration::from_secs(30);
    world.machine.pushed_revocations(&sign(&revocations(0, renew_alice(by))), world.now);
    world.machine.channel_closed(channel, world.now);
    world.drain();
    let (back, session_id) = world.open(&ALICE);
    world.present(back, &ALICE.claims(), &ALICE.entitlement(1));
    world.say(back, ALICE.tunnels[0].bind(&session_id));
    let told = sent(&world.drain(), back);
    assert!(told.contains(&ToClient::RenewBy { time: by, reason: "laptop stolen".into() }), "{told:?}");
    world.step(Duration::from_secs(30));
    assert!(!world.allows(session, "10.98.0.10", 80));
}

#[test]
fn lists_that_do_not_fit_are_refused() {
    let mut world = World::new();
    let text = |after, epoch, entries| sign(&RevocationList { epoch, ..revocations(after, entries) });
    world.machine.pushed_revocations(&text(0, 2, revoke_alice()), world.now);
    world.drain();
    world.machine.pushed_revocations(&text(0, 1, revoke_alice()), world.now);
    assert_eq!(refusal(&world.drain(), None), "sequence_old");
    world.machine.pushed_revocations(&text(5, 2, revoke_alice()), world.now);
    let actions = world.drain();
    assert_eq!(refusal(&actions, None), "revocations_gap");
    assert!(matches!(actions.last(), Some(Action::Resubscribe)));
    let foreign = STRANGER.sign(&revocations(1, Vec::new())).unwrap().as_str().to_owned();
    world.machine.pushed_revocations(&foreign, world.now);
    assert_eq!(refusal(&world.drain(), None), "token_unknown_key");
    assert_eq!(world.machine.serial(), Serial { epoch: 2, n: 1 });
    // What is known already changes nothing, and is told.
    let (_, session) = world.admit(&BOB, 0, 1);
    world.machine.pushed_revocations(&text(0, 2, revoke_alice()), world.now);
    let actions = world.drain();
    assert_eq!((installs(&actions), applied(&actions).len()), (0, 1));
    assert!(world.allows(session, "10.98.0.10", 80));
}

/// A restored Controller does not know everybody to whom it issued something.
#[test]
fn a_new_epoch_ends_every_session_that_there_is() {
    let mut world = World::new();
    let list = |epoch, entries| sign(&RevocationList { epoch, ..revocations(0, entries) });
    // The first epoch that a Gateway hears of is not a new one.
    let (_, early) = world.admit(&BOB, 0, 1);
    world.machine.pushed_revocations(&list(1, Vec::new()), world.now);
    world.drain();
    assert!(world.allows(early, "10.98.0.10", 80));
    let (channel, _) = world.open(&ALICE);
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
    world.machine.pushed_revocations(&list(2, revoke_alice()), world.now);
    let actions = world.drain();
    assert!(!world.allows(early, "10.98.0.10", 80));
    assert!(matches!(sent(&actions, channel).pop(), Some(ToClient::Goodbye { code: "revoked", .. })), "{actions:?}");
    assert_eq!((world.refused("revoked"), world.machine.serial()), (2, Serial { epoch: 2, n: 1 }));
}
