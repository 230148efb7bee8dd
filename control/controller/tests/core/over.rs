//! What is over is removed, and nothing that still counts.

use ringfort_controller::core::{Change, Removed};
use ringfort_token::{EntryScope, RevocationList, Serial};

use super::*;

const DAY: u64 = 86_400;

/// The lists that a Gateway gets that has what `serial` names.
async fn lists(world: &World, serial: Serial, now: UnixSeconds) -> Vec<Verified<RevocationList>> {
    let audience = audience::gateways(world.core.organisation());
    let texts = world.core.revocations_after(serial, now).await.unwrap();
    texts.iter().map(|(text, _)| world.verify(text, &audience, Holder::Nobody, now)).collect()
}

fn users(list: &RevocationList) -> Vec<(u64, bool)> {
    let numbered = list.numbered().unwrap().into_iter();
    numbered.map(|(n, entry)| (n, matches!(entry.scope, EntryScope::User { .. }))).collect()
}

// Covers: A23 allow
// Covers: A23 refuse
#[tokio::test]
async fn revocations_are_kept_while_they_matter_and_the_list_goes_on_without_the_others() {
    let world = World::new().await;
    let core = &world.core;
    let lost = Client::new("lost");
    world.login("alice", &lost, NOW).await;
    let user = |name: &str| api::RevocationScope::User(name.into());
    world.revoke(user("alice"), None, NOW).await.unwrap();
    world.revoke(api::RevocationScope::Device("lost".into()), None, NOW).await.unwrap();
    world.revoke(user("bob"), None, NOW).await.unwrap();
    let early = DenyList::restore(core.serial(), []);
    // The entries of users end with the longest login, a week and an hour; they stay for 30 days more.
    let over = later(37 * DAY + 3_600);
    assert_eq!(core.remove_what_is_over(over).await.unwrap().revocations, 0);
    // The newest stays until there is another.
    let after_that = UnixSeconds(over.0 + 1);
    assert_eq!(core.remove_what_is_over(after_that).await.unwrap().revocations, 1);
    assert_eq!(core.serial().n, 3);
    world.revoke(user("alice"), None, after_that).await.unwrap();
    assert_eq!(core.remove_what_is_over(after_that).await.unwrap().revocations, 1);
    assert_eq!(core.remove_what_is_over(after_that).await.unwrap(), Removed::default(), "once");

    // A new Gateway gets what is left, under the numbers that it had; the key stays denied.
    let [list] = &lists(&world, Serial::default(), after_that).await[..] else { panic!("one list") };
    assert_eq!((list.after, users(list)), (0, vec![(2, false), (4, true)]));
    let mut new = DenyList::default();
    new.apply(list).unwrap();
    assert_eq!(new.serial(), core.serial());
    refused(lost.login(core, "alice", "alice password", after_that).await, "certificate_revoked");
    // One that was away follows from where it stood, also in the middle of what is gone.
    for n in 0..4 {
        let serial = Serial { n, ..core.serial() };
        let mut known = DenyList::restore(serial, []);
        for list in lists(&world, serial, after_that).await {
            assert!(list.after <= n);
            known.apply(&list).unwrap();
        }
        assert_eq!(known.serial(), core.serial(), "{n}");
    }
    // Pushes go on in one row.
    let mut changes = core.changes();
    let after_that = UnixSeconds(after_that.0 + 1);
    world.revoke(user("bob"), None, after_that).await.unwrap();
    let pushed = std::iter::from_fn(|| changes.try_recv().ok());
    let tokens = pushed.filter_map(|change| match change {
        Change::Revocations { token, .. } => Some(token),
        _ => None,
    });
    let audience = audience::gateways(core.organisation());
    for token in tokens {
        let list: Verified<RevocationList> = world.verify(&token, &audience, Holder::Nobody, after_that);
        assert_eq!((list.after, list.upto()), (4, 5));
        assert_eq!(new.apply(&list), Ok(vec![5]));
        assert!(early.clone().apply(&list).is_err(), "who stands at 3 still lacks 4");
    }
    assert_eq!(new.serial(), core.serial());
    // So do the numbers after a start.
    let world = world.restarted(after_that).await;
    assert_eq!(world.core.serial().n, 5);
    refused(lost.login(&world.core, "alice", "alice password", after_that).await, "certificate_revoked");
}

#[tokio::test]
async fn a_number_is_never_given_twice_although_every_revocation_is_over() {
    let world = World::new().await;
    for user in ["alice", "bob"] {
        world.revoke(api::RevocationScope::User(user.into()), None, NOW).await.unwrap();
    }
    let long_after = later(400 * DAY);
    world.core.remove_what_is_over(long_after).await.unwrap();
    let world = world.restarted(long_after).await;
    assert_eq!(world.core.serial().n, 2);
    let pushed = world.revoke(api::RevocationScope::User("bob".into()), None, long_after).await.unwrap();
    assert!(pushed.serial.ends_with("/3"), "{}", pushed.serial);
}

// Covers: I9 refuse
#[tokio::test]
async fn invitations_go_a_month_after_they_are_used_or_expired_and_open_none_again() {
    let world = World::new().await;
    let core = &world.core;
    let (used, used_ticket) = world.invite(api::Invitee::Gateway { name: "gw1".into(), site: "east".into() }).await;
    let client = Client::new("gw1");
    core.join(client.join(&used, &used_ticket), NOW).await.unwrap();
    let (open, ticket) = world.invite(api::Invitee::Gateway { name: "gw2".into(), site: "east".into() }).await;
    assert_eq!(core.remove_what_is_over(later(30 * DAY)).await.unwrap().invitations, 0);
    refused(core.join(client.join(&used, &used_ticket), later(30 * DAY)).await, "invitation_used");
    assert_eq!(core.remove_what_is_over(later(30 * DAY + 1)).await.unwrap().invitations, 1);
    refused(core.join(client.join(&open, &ticket), later(30 * DAY + 1)).await, "invitation_expired");
    assert_eq!(core.remove_what_is_over(later(37 * DAY + 1)).await.unwrap().invitations, 1);
    for (cookie, ticket) in [(&used, &used_ticket), (&open, &ticket)] {
        refused(core.join(client.join(cookie, ticket), later(37 * DAY + 1)).await, "invitation_unknown");
        refused(core.join(client.join(cookie, ticket), NOW).await, "invitation_unknown");
    }
}

// Covers: C13 allow
#[tokio::test]
async fn logins_and_sequences_go_and_no_number_falls_for_it() {
    let world = World::new().await;
    let core = &world.core;
    world.grant("wiki", "alice", NOW).await;
    let (laptop, phone) = (Client::new("laptop"), Client::new("phone"));
    let alice = world.login("alice", &laptop, NOW).await;
    let mut highest = 0;
    for _ in 0..5 {
        let (tokens, _) = world.entitlements(&alice, NOW).await;
        highest = tokens[0].seq;
    }
    // Of bob's login nothing is left at once; what it was given is remembered all the same.
    world.grant("wiki", "bob", NOW).await;
    let bob = world.login("bob", &phone, NOW).await;
    world.entitlements(&bob, NOW).await;
    world.revoke(api::RevocationScope::User("bob".into()), None, NOW).await.unwrap();
    let ended = 12 * 3_600;
    let removed = core.remove_what_is_over(later(ended + 30 * DAY)).await.unwrap();
    assert_eq!((removed.logins, removed.sequences), (0, 1), "bob's numbers, 30 days after the last one");
    let removed = core.remove_what_is_over(later(ended + 30 * DAY + 1)).await.unwrap();
    assert_eq!((removed.logins, removed.sequences), (2, 1), "alice's login and the administrator's, and her numbers");

    // Whoever comes back, and whoever is new, goes on above.
    let now = later(ended + 31 * DAY);
    let alice = world.login("alice", &laptop, now).await;
    let (tokens, _) = world.entitlements(&alice, now).await;
    assert!(tokens[0].seq > highest, "{} after {highest}", tokens[0].seq);
    let bob = world.login("bob", &phone, now).await;
    let (tokens, _) = world.entitlements(&bob, now).await;
    assert!(tokens[0].seq > highest, "{} after {highest}", tokens[0].seq);
    // What lives stays.
    assert_eq!(core.remove_what_is_over(now).await.unwrap(), Removed::default());
    let (tokens, _) = world.entitlements(&alice, now).await;
    assert!(tokens[0].seq > highest + 1);
}
