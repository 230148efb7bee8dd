//! What administrators change, and who hears of it.

use ringfort_controller::core::{Change, Event, EventsAsked};
use ringfort_token::{RevocationList, Shown, Standing};
use tokio::sync::broadcast::Receiver;

use super::*;

/// What has been sent so far.
fn sent(changes: &mut Receiver<Change>) -> Vec<Change> {
    std::iter::from_fn(|| changes.try_recv().ok()).collect()
}

/// The entitlement tokens among it, as a Gateway verifies them.
fn tokens(world: &World, changes: &mut Receiver<Change>, now: UnixSeconds) -> Vec<Verified<EntitlementToken>> {
    let verify = |change| match change {
        Change::Entitlement { site, token } => Some(world.verify(&token, &audience::site(&site), Holder::Pushed, now)),
        _ => None,
    };
    sent(changes).into_iter().filter_map(verify).collect()
}

// Covers: C1 allow
// Covers: K5 allow
#[tokio::test]
async fn grants_and_removals_are_pushed_with_growing_numbers() {
    let world = World::new().await;
    world.grant("wiki", "alice", NOW).await;
    let device = Client::new("laptop");
    let bearer = world.login("alice", &device, NOW).await;
    let (first, _) = world.entitlements(&bearer, NOW).await;
    world.login("bob", &Client::new("phone"), NOW).await;
    let mut changes = world.core.changes();

    assert_eq!(world.grant("build", "alice", later(1)).await.entitlements, 1);
    assert_eq!(world.take_back("wiki", "alice", later(2)).await.entitlements, 1);
    assert_eq!(world.take_back("build", "alice", later(3)).await.entitlements, 1);
    let pushed = tokens(&world, &mut changes, later(3));
    let seen: Vec<_> = pushed.iter().map(|token| (token.seq, names(token))).collect();
    assert_eq!(seen, [(2, vec!["build", "wiki"]), (3, vec!["build"]), (4, vec![])]);
    for token in &pushed {
        assert_eq!((&token.sub, &token.cnf, token.inner), (&first[0].sub, &first[0].cnf, first[0].inner));
        assert_eq!((token.generation, token.exp), (first[0].generation, first[0].exp));
    }
    // Whoever has no login any more is not written to.
    assert_eq!(world.grant("wiki", "alice", later(12 * 3_600)).await.entitlements, 0);
    assert!(sent(&mut changes).is_empty());
    refused(world.core.admin_grant(&world.admin(), entitlement("wiki", "alice"), NOW).await, "already_exists");
    refused(world.core.admin_take_back(&world.admin(), entitlement("db", "alice"), NOW).await, "not_found");
    refused(world.core.admin_grant(&world.admin(), entitlement("wiki", "nobody"), NOW).await, "not_found");
    refused(world.core.admin_grant(&world.admin(), entitlement("nothing", "alice"), NOW).await, "not_found");
}

#[tokio::test]
async fn groups_and_resources_are_pushed_as_well() {
    let world = World::new().await;
    let core = &world.core;
    let bearer = world.login("alice", &Client::new("laptop"), NOW).await;
    core.admin_new_group(&world.admin(), api::NewGroup { name: "staff".into() }, NOW).await.unwrap();
    for resource in ["wiki", "db"] {
        let principal = api::Principal::Group("staff".into());
        let change = api::EntitlementChange { resource: resource.into(), principal };
        core.admin_grant(&world.admin(), change, NOW).await.unwrap();
    }
    let mut changes = core.changes();
    let member = || api::Membership { group: "staff".into(), user: "alice".into() };
    let named = |name: &str| api::Named { name: name.into() };
    let seen = |changes: &mut Receiver<Change>| {
        let tokens = tokens(&world, changes, NOW);
        assert!(tokens.iter().all(|token| token.sub == bearer.session().to_string()));
        let mut seen: Vec<_> = tokens.iter().map(|token| names(token).join(" ")).collect();
        seen.sort_unstable();
        seen
    };
    assert_eq!(core.admin_add_member(&world.admin(), member(), NOW).await.unwrap().entitlements, 2);
    assert_eq!(seen(&mut changes), ["db", "wiki"]);
    assert_eq!(core.admin_remove_member(&world.admin(), member(), NOW).await.unwrap().entitlements, 2);
    assert_eq!(seen(&mut changes), ["", ""]);
    refused(core.admin_remove_member(&world.admin(), member(), NOW).await, "not_found");
    core.admin_add_member(&world.admin(), member(), NOW).await.unwrap();
    assert_eq!(seen(&mut changes), ["db", "wiki"]);

    core.admin_remove_resource(&world.admin(), named("db"), NOW).await.unwrap();
    let after = sent(&mut changes);
    assert!(
        matches!(&after[..], [Change::Entitlement { site, .. }, Change::Configuration { site: other }] if site == other)
    );
    core.admin_remove_group(&world.admin(), named("staff"), NOW).await.unwrap();
    assert_eq!(seen(&mut changes), [""]);
    core.admin_new_resource(&world.admin(), resource("db", "west", "10.2.0.1"), NOW).await.unwrap();
    assert!(matches!(&sent(&mut changes)[..], [Change::Configuration { .. }]));
}

#[tokio::test]
async fn what_is_malformed_is_not_taken() {
    let world = World::new().await;
    let core = &world.core;
    for pools in [
        &[][..],
        &["10.1.0.0/16"],
        &["10.1.255.255/16"],
        &["10.1.0.1/31"],
        &["10.1.0.1/16", "10.2.0.1/16"],
        &["10.1.0.1"],
        &["fd00::1/127"],
    ] {
        let pools = pools.iter().map(|pool| (*pool).to_owned()).collect();
        refused(
            core.admin_new_site(&world.admin(), api::NewSite { name: "north".into(), pools }, NOW).await,
            "request_malformed",
        );
    }
    let bad = |change: fn(&mut api::NewResource)| {
        let mut request = resource("new", "east", "10.1.0.9");
        change(&mut request);
        let world = &world;
        async move { world.core.admin_new_resource(&world.admin(), request, NOW).await }
    };
    refused(bad(|request| request.to = vec!["10.1.0.1/16".into()]).await, "request_malformed");
    refused(bad(|request| request.to = vec![]).await, "request_malformed");
    refused(bad(|request| request.services = vec!["ssh".into()]).await, "request_malformed");
    refused(bad(|request| request.name = "default-deny".into()).await, "request_malformed");
    refused(bad(|request| request.name = "wiki".into()).await, "already_exists");
    refused(bad(|request| request.site = "north".into()).await, "not_found");
    let user = |name: &str, password: &str| api::NewUser {
        name: name.into(),
        password: password.into(),
        role: None,
        email: None,
    };
    refused(core.admin_new_user(&world.admin(), user("carol", "short"), NOW).await, "request_malformed");
    refused(core.admin_new_user(&world.admin(), user("car ol", "long enough"), NOW).await, "request_malformed");
    refused(core.admin_new_user(&world.admin(), user("alice", "long enough"), NOW).await, "already_exists");
    let named = |name: &str| api::Named { name: name.into() };
    refused(core.admin_remove_site(&world.admin(), named("east"), NOW).await, "request_malformed");
    refused(core.admin_remove_user(&world.admin(), named("root"), NOW).await, "request_malformed");
    for reason in ["", "a\nb", &"x".repeat(257)] {
        let scope = api::RevocationScope::Everyone;
        let request = api::NewRevocation { scope, reason: reason.into(), grace_seconds: None };
        refused(core.admin_revoke(&world.admin(), request, NOW).await, "request_malformed");
    }
}

#[tokio::test]
async fn a_decision_whose_tokens_would_be_too_long_is_none() {
    let world = World::new().await;
    let bearer = world.login("alice", &Client::new("laptop"), NOW).await;
    let mut changes = world.core.changes();
    let mut refusal = None;
    // Some 20 KiB each; a token has 256.
    for n in 0..20 {
        let mut request = resource(&format!("large-{n}"), "east", "10.1.0.1");
        request.to = (0..1_000).map(|host| format!("10.{n}.{}.{}", host / 200 + 1, host % 200 + 1)).collect();
        world.core.admin_new_resource(&world.admin(), request, NOW).await.unwrap();
        let granted = world.core.admin_grant(&world.admin(), entitlement(&format!("large-{n}"), "alice"), NOW).await;
        if let Err(refused) = granted {
            refusal = Some((n, refused));
            break;
        }
    }
    let (n, refusal) = refusal.expect("there is a limit");
    assert_eq!(refusal.code, "request_malformed");
    let (held, _) = world.entitlements(&bearer, NOW).await;
    assert_eq!(held[0].grants.len(), n, "what was granted before stands");
    assert_eq!(tokens(&world, &mut changes, NOW).len(), n);
    // Nor for somebody who is not logged in and would then never have a token.
    for held in 0..n {
        world.grant(&format!("large-{held}"), "bob", NOW).await;
    }
    let request = entitlement(&format!("large-{n}"), "bob");
    refused(world.core.admin_grant(&world.admin(), request, NOW).await, "request_malformed");
}

/// A Gateway's deny list with what was sent.
fn applied(world: &World, changes: &mut Receiver<Change>, deny: &mut DenyList) -> usize {
    let mut lists = 0;
    for change in sent(changes) {
        if let Change::Revocations { token, serial } = change {
            let audience = audience::gateways(world.core.organisation());
            let list: Verified<RevocationList> = world.verify(&token, &audience, Holder::Nobody, NOW);
            deny.apply(&list).unwrap();
            assert_eq!(deny.serial(), serial);
            lists += 1;
        }
    }
    lists
}

// Covers: A23 allow
// Covers: A23 refuse
#[tokio::test]
async fn revoked_claims_are_dead_and_a_new_login_is_not() {
    let world = World::new().await;
    world.grant("wiki", "alice", NOW).await;
    let device = Client::new("laptop");
    let bearer = world.login("alice", &device, NOW).await;
    world.entitlements(&bearer, NOW).await;
    let response = world.core.renew(&bearer, NOW).await.unwrap();
    let mut changes = world.core.changes();
    let mut deny = DenyList::default();

    let pushed = world.revoke(api::RevocationScope::User("alice".into()), None, NOW).await.unwrap();
    let serial = world.core.serial();
    assert_eq!((pushed.serial, pushed.entitlements), (format!("{}/{}", serial.epoch, serial.n), 0));
    assert_eq!(applied(&world, &mut changes, &mut deny), 1);
    let generation = Some((bearer.claims().user.as_str(), bearer.claims().generation));
    assert!(matches!(deny.standing(&Shown { generation, ..Shown::default() }), Standing::Revoked { serial: 1, .. }));
    refused(world.core.bearer(&response.claims, &device.thumbprint(), NOW), "token_revoked");
    // Whoever was verified just before finds no login any more.
    refused(world.core.renew(&bearer, NOW).await, "token_revoked");
    refused(world.core.entitlements(&bearer, NOW).await, "token_revoked");
    refused(world.core.certificate(&bearer, &device.request(), NOW).await, "token_revoked");
    assert_eq!(world.grant("build", "alice", NOW).await.entitlements, 0);

    let again = world.login("alice", &device, later(1)).await;
    assert_eq!(again.claims().generation, bearer.claims().generation + 1);
    assert_ne!(again.claims().jti, bearer.claims().jti);
    let generation = Some((again.claims().user.as_str(), again.claims().generation));
    assert_eq!(deny.standing(&Shown { generation, ..Shown::default() }), Standing::Good);
    let (tokens, _) = world.entitlements(&again, later(1)).await;
    assert!(tokens[0].seq > 1, "numbers go on over logins");
}

// Covers: A23 allow
#[tokio::test]
async fn demanded_renewal_leaves_time_to_renew() {
    let world = World::new().await;
    world.grant("wiki", "alice", NOW).await;
    let device = Client::new("laptop");
    let key = device.thumbprint();
    let claims = world.core.login(&device.credentials("alice", "alice password"), key, FROM, NOW).await.unwrap().claims;
    world.revoke(api::RevocationScope::User("alice".into()), Some(30), NOW).await.unwrap();
    let old = world.core.bearer(&claims, &key, later(29)).unwrap();
    assert_eq!(old.claims().dies_at(), later(30));
    // What is issued to the old claims, or pushed for them, is of their generation and dies with them.
    let (tokens, _) = world.entitlements(&old, later(10)).await;
    assert_eq!((tokens[0].generation, tokens[0].exp), (old.claims().generation, later(30)));
    let mut changes = world.core.changes();
    assert_eq!(world.grant("build", "alice", later(10)).await.entitlements, 1);
    assert_eq!(super::changes::tokens(&world, &mut changes, later(10))[0].generation, old.claims().generation);

    let renewed = world.core.renew(&old, later(29)).await.unwrap().claims;
    let new = world.core.bearer(&renewed, &key, later(31)).unwrap();
    assert_eq!(new.claims().generation, old.claims().generation + 1);
    assert_eq!((new.claims().dies_at(), new.claims().auth_time), (later(12 * 3_600), NOW));
    refused(world.core.bearer(&claims, &key, later(30)), "token_revoked");
    let (tokens, _) = world.entitlements(&new, later(31)).await;
    assert_eq!(tokens[0].generation, new.claims().generation);
}

/// The device's newest claims die, or those that are named: another device of the same user goes on with what it has.
// Covers: A23 allow
// Covers: A23 refuse
#[tokio::test]
async fn one_device_or_one_token_is_renewed_and_nothing_else() {
    for by_token in [false, true] {
        let world = World::new().await;
        world.grant("wiki", "alice", NOW).await;
        let (device, other) = (Client::new("laptop"), Client::new("phone"));
        let key = device.thumbprint();
        let request = device.credentials("alice", "alice password");
        let claims = world.core.login(&request, key, FROM, NOW).await.unwrap().claims;
        let untouched = world.login("alice", &other, NOW).await;
        let before = world.core.bearer(&claims, &key, NOW).unwrap();
        let scope = match by_token {
            true => api::RevocationScope::Token(before.claims().jti.clone()),
            false => api::RevocationScope::Device("laptop".into()),
        };
        let (mut changes, mut deny) = (world.core.changes(), DenyList::default());
        world.revoke(scope, Some(30), NOW).await.unwrap();
        assert_eq!(applied(&world, &mut changes, &mut deny), 1);
        let by = later(30);
        let standing = |bearer: &Bearer| {
            let (user, generation) = (bearer.claims().user.clone(), bearer.claims().generation);
            let token = bearer.claims().jti.clone();
            move |deny: &DenyList| {
                let shown = Shown { token: Some(&token), generation: Some((&user, generation)), ..Shown::default() };
                matches!(deny.standing(&shown), Standing::RenewBy { by: at, .. } if at == by)
            }
        };
        assert!(standing(&before)(&deny) && !standing(&untouched)(&deny));

        let old = world.core.bearer(&claims, &key, later(29)).unwrap();
        assert_eq!(old.claims().dies_at(), by);
        // What is issued to the old claims dies with them.
        let (tokens, _) = world.entitlements(&old, later(10)).await;
        assert_eq!(tokens[0].exp, by);
        let renewed = world.core.renew(&old, later(29)).await.unwrap().claims;
        let new = world.core.bearer(&renewed, &key, by).unwrap();
        assert_ne!(new.claims().jti, old.claims().jti);
        assert_eq!((new.claims().generation, new.claims().dies_at()), (old.claims().generation, later(12 * 3_600)));
        assert!(!standing(&new)(&deny));
        refused(world.core.bearer(&claims, &key, by), "token_revoked");
        assert!(world.entitlements(&new, by).await.0[0].exp > by);
        world.core.renew(&untouched, by).await.unwrap();
        // The key is none of what was to be renewed.
        world.login("alice", &device, later(31)).await;
    }
}

// Covers: A23 refuse
#[tokio::test]
async fn a_device_without_a_login_has_nothing_to_renew() {
    let world = World::new().await;
    let laptop = || api::RevocationScope::Device("laptop".into());
    refused(world.revoke(laptop(), Some(30), NOW).await, "not_found");
    let device = Client::new("laptop");
    let bearer = world.login("alice", &device, NOW).await;
    refused(world.revoke(laptop(), Some(0), NOW).await, "request_malformed");
    world.revoke(api::RevocationScope::User("alice".into()), None, NOW).await.unwrap();
    let none = world.revoke(laptop(), Some(30), NOW).await.unwrap_err();
    assert_eq!(none.code, "not_found");
    assert!(none.message.contains("logged in") && none.message.contains("laptop"), "{}", none.message);
    let again = world.login("alice", &device, later(1)).await;
    assert_ne!(again.claims().jti, bearer.claims().jti);
    refused(world.revoke(laptop(), Some(30), later(12 * 3_600 + 1)).await, "not_found");
    assert_eq!(world.core.serial().n, 1, "what was refused wrote nothing");
}

#[tokio::test]
async fn who_did_not_renew_in_time_is_not_written_to() {
    let world = World::new().await;
    world.login("alice", &Client::new("laptop"), NOW).await;
    world.revoke(api::RevocationScope::Everyone, Some(30), NOW).await.unwrap();
    assert_eq!(world.grant("wiki", "alice", later(29)).await.entitlements, 1);
    assert_eq!(world.grant("build", "alice", later(30)).await.entitlements, 0);
}

// Covers: A23 allow
#[tokio::test]
async fn devices_tokens_and_everyone_can_be_revoked() {
    let world = World::new().await;
    let (lost, kept) = (Client::new("lost"), Client::new("kept"));
    let on_lost = world.login("alice", &lost, NOW).await;
    let response = world.core.certificate(&on_lost, &lost.request(), NOW).await.unwrap();
    let chain: Vec<_> = response.chain.iter().map(|one| URL_SAFE_NO_PAD.decode(one).unwrap()).collect();
    let peer = world.peer(&chain, Role::Device, NOW);
    world.core.standing(&peer, NOW).unwrap();
    let mut changes = world.core.changes();
    let mut deny = DenyList::default();

    let device = || api::RevocationScope::Device("lost".into());
    refused(world.revoke(api::RevocationScope::Device("nothing".into()), None, NOW).await, "not_found");
    refused(world.revoke(api::RevocationScope::User("nobody".into()), None, NOW).await, "not_found");
    refused(world.revoke(api::RevocationScope::Token("nothing".into()), None, NOW).await, "request_malformed");
    world.revoke(device(), None, NOW).await.unwrap();
    refused(world.core.standing(&peer, NOW), "certificate_revoked");
    refused(world.core.entitlements(&on_lost, NOW).await, "token_revoked");
    refused(lost.login(&world.core, "alice", "alice password", later(1)).await, "certificate_revoked");
    refused(lost.login(&world.core, "alice", "alice password", later(30 * 86_400)).await, "certificate_revoked");

    let on_kept = world.login("alice", &kept, NOW).await;
    world.revoke(api::RevocationScope::Token(on_kept.claims().jti.clone()), None, NOW).await.unwrap();
    refused(world.core.renew(&on_kept, NOW).await, "token_revoked");
    let on_kept = world.login("alice", &kept, NOW).await;

    let pushed = world.revoke(api::RevocationScope::Everyone, None, NOW).await.unwrap();
    assert_eq!(pushed.serial, format!("{}/5", world.core.serial().epoch), "one for each of three users");
    refused(world.core.entitlements(&on_kept, NOW).await, "token_revoked");
    assert!(world.core.sessions(&world.admin(), NOW).await.unwrap().is_empty());
    assert_eq!(applied(&world, &mut changes, &mut deny), 3);
    assert_eq!(deny.serial(), world.core.serial());
}

// Covers: A23 allow
#[tokio::test]
async fn a_groups_members_are_revoked_in_one_decision_and_nobody_else() {
    let world = World::new().await;
    let core = &world.core;
    core.admin_new_group(&world.admin(), api::NewGroup { name: "staff".into() }, NOW).await.unwrap();
    for user in ["alice", "bob"] {
        let membership = api::Membership { group: "staff".into(), user: user.into() };
        core.admin_add_member(&world.admin(), membership, NOW).await.unwrap();
    }
    let alice = world.login("alice", &Client::new("laptop"), NOW).await;
    let bob = world.login("bob", &Client::new("phone"), NOW).await;
    let root = Client::new("roots").login(core, "root", "first password", NOW).await.unwrap();
    let mut changes = core.changes();
    let mut deny = DenyList::default();
    let staff = || api::RevocationScope::Group("staff".into());

    world.revoke(staff(), Some(30), NOW).await.unwrap();
    assert_eq!((core.serial().n, applied(&world, &mut changes, &mut deny)), (2, 1), "two entries in one list");
    for bearer in [&alice, &bob] {
        core.renew(bearer, later(29)).await.unwrap();
    }
    let pushed = world.revoke(staff(), None, later(29)).await.unwrap();
    assert_eq!(pushed.serial, format!("{}/4", core.serial().epoch));
    for bearer in [&alice, &bob] {
        refused(core.entitlements(bearer, later(29)).await, "token_revoked");
    }
    core.entitlements(&root, later(29)).await.unwrap();
    refused(world.revoke(api::RevocationScope::Group("nobody".into()), None, NOW).await, "not_found");
    core.admin_new_group(&world.admin(), api::NewGroup { name: "empty".into() }, NOW).await.unwrap();
    assert_eq!(world.revoke(api::RevocationScope::Group("empty".into()), None, NOW).await.unwrap().serial, "");
}

// Covers: A23 refuse
#[tokio::test]
async fn a_removed_user_has_nothing_left() {
    let world = World::new().await;
    world.grant("wiki", "alice", NOW).await;
    let device = Client::new("laptop");
    let bearer = world.login("alice", &device, NOW).await;
    let claims = world.core.renew(&bearer, NOW).await.unwrap().claims;
    let removed = api::Named { name: "alice".into() };
    world.core.admin_remove_user(&world.admin(), removed.clone(), NOW).await.unwrap();
    refused(world.core.bearer(&claims, &device.thumbprint(), NOW), "token_revoked");
    refused(world.core.entitlements(&bearer, NOW).await, "token_revoked");
    refused(device.login(&world.core, "alice", "alice password", NOW).await, "login_refused");
    refused(world.core.admin_remove_user(&world.admin(), removed, NOW).await, "not_found");
    // Whoever comes under the same name is somebody else.
    let user = api::NewUser { name: "alice".into(), password: "alice password".into(), role: None, email: None };
    world.core.admin_new_user(&world.admin(), user, NOW).await.unwrap();
    let other = world.login("alice", &Client::new("other"), NOW).await;
    assert_ne!(other.claims().user, bearer.claims().user);
    assert!(world.entitlements(&other, NOW).await.0.is_empty());
}

#[tokio::test]
async fn everything_done_and_refused_has_its_event() {
    let world = World::new().await;
    world.grant("wiki", "alice", later(7)).await;
    let event = Event {
        actor: "192.0.2.1",
        action: "join",
        target: "",
        outcome: "invitation_used",
        detail: &"é".repeat(9_000),
    };
    let id = world.core.audit(event, later(8)).await;
    let events = world.core.events(&world.admin(), EventsAsked::default()).await.unwrap();
    assert_eq!(
        (events[0].id.as_str(), events[0].outcome.as_str(), events[0].at),
        (id.as_str(), "invitation_used", later(8).0)
    );
    assert_eq!(events[0].detail.len(), 1_024);
    let granted = &events[1];
    let seen = [&granted.actor, &granted.action, &granted.target, &granted.outcome, &granted.detail];
    assert_eq!(seen, ["root", "grant", "wiki", "ok", "user alice"]);
    assert_eq!(events.last().unwrap().action, "found");
    assert!(events.iter().all(|event| !event.detail.contains("password")));
}
