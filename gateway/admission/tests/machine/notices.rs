//! Clients are told before what their session rests on expires (A24).

use std::time::Duration;

use ringfort_admission::ToClient;
use ringfort_token::{ClaimsToken, EntitlementToken};
use ringfort_types::UnixSeconds;

use crate::world::*;

/// Of the hour that tokens of these tests live, the last quarter begins then.
const TOLD_AFTER: Duration = Duration::from_secs(45 * 60);
const MOMENT: Duration = Duration::from_secs(1);

fn renewed(ends_at: UnixSeconds) -> (ClaimsToken, EntitlementToken) {
    let claims = ClaimsToken { jti: "renewed".into(), exp: ends_at, ..ALICE.claims() };
    (claims, EntitlementToken { exp: ends_at, ..ALICE.entitlement(2) })
}

fn told(time: UnixSeconds, message: &ToClient) -> bool {
    matches!(message, ToClient::RenewBy { time: by, .. } if *by == time)
}

// Covers: A24 allow
#[test]
fn who_renews_when_told_goes_on_without_noticing() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 1);
    assert_eq!(sent(&world.pass(TOLD_AFTER - MOMENT), channel), []);
    let messages = sent(&world.pass(MOMENT), channel);
    assert!(matches!(&messages[..], [message] if told(WALL + HOUR, message)), "{messages:?}");
    assert_eq!(sent(&world.pass(MOMENT), channel), [], "it is said once");
    let ends_at = WALL + 2 * HOUR;
    let (claims, entitlement) = renewed(ends_at);
    world.present(channel, &claims, &entitlement);
    let actions = world.drain();
    assert_eq!(sent(&actions, channel), [ToClient::Accepted { seq: 2, ends_at }]);
    assert_eq!(removes(&actions), []);
    // The old end passes, and packets with it.
    let actions = world.pass(Duration::from_secs(20 * 60));
    assert_eq!((sent(&actions, channel), removes(&actions)), (vec![], vec![]));
    assert!(world.allows(session, "10.98.0.10", 80));
    // The new end has a notice of its own.
    let messages = sent(&world.pass(Duration::from_secs(45 * 60)), channel);
    assert!(matches!(&messages[..], [message] if told(ends_at, message)), "{messages:?}");
    assert_eq!(world.refusals(), 0);
}

// Covers: A24 refuse
#[test]
fn who_does_not_renew_ends_at_the_time_that_was_told() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 1);
    world.pass(TOLD_AFTER);
    // The same tokens again renew nothing, and are no reason to ask again.
    world.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
    assert_eq!(sent(&world.drain(), channel), [ToClient::Accepted { seq: 1, ends_at: WALL + HOUR }]);
    assert_eq!(world.installed[&session].not_after, BOOT + HOUR, "packets end then without any message");
    assert_eq!(sent(&world.pass(HOUR - TOLD_AFTER - MOMENT), channel), []);
    assert!(world.allows(session, "10.98.0.10", 80));
    let actions = world.pass(MOMENT);
    assert_eq!(refusal(&actions, Some(channel)), "expired");
    assert_eq!((removes(&actions), world.machine.sessions().count()), (vec![session], 0));
}

// Covers: A24 refuse
#[test]
fn who_renews_tokens_and_no_certificate_ends_with_the_certificate() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 1);
    let (claims, entitlement) = renewed(CERTIFICATE_END + HOUR);
    world.present(channel, &claims, &entitlement);
    let until = CERTIFICATE_END.saturating_since(WALL);
    assert_eq!(sent(&world.drain(), channel), [ToClient::Accepted { seq: 2, ends_at: CERTIFICATE_END }]);
    assert_eq!(world.installed[&session].not_after, BOOT + until, "packets end then without any message");
    let messages = sent(&world.pass(until - MOMENT), channel);
    assert!(matches!(&messages[..], [message] if told(CERTIFICATE_END, message)), "{messages:?}");
    assert!(world.allows(session, "10.98.0.10", 80));
    let actions = world.pass(MOMENT);
    assert_eq!(refusal(&actions, Some(channel)), "expired");
    assert_eq!((removes(&actions), world.machine.sessions().count()), (vec![session], 0));
}

#[test]
fn who_had_no_channel_then_is_told_on_the_next_one() {
    let mut world = World::new();
    let (channel, _) = world.admit(&ALICE, 0, 1);
    world.pass(TOLD_AFTER - MOMENT);
    world.machine.channel_closed(channel, world.now);
    world.pass(2 * MOMENT);
    let (back, session_id) = world.open(&ALICE);
    world.present(back, &ALICE.claims(), &ALICE.entitlement(1));
    world.say(back, ALICE.tunnels[0].bind(&session_id));
    world.drain();
    let messages = sent(&world.pass(HOUR - TOLD_AFTER - 2 * MOMENT), back);
    assert!(matches!(&messages[..], [message] if told(WALL + HOUR, message)), "{messages:?}");
}
