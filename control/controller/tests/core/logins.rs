//! Logins, claims, entitlement tokens.

use super::*;

// Covers: A3 allow
// Covers: A4 allow
// Covers: A5 allow
// Covers: A6 allow
// Covers: A7 allow
#[tokio::test]
async fn a_password_buys_claims_and_claims_buy_a_token_for_each_site() {
    let world = World::new().await;
    world.grant("wiki", "alice", NOW).await;
    world.grant("db", "alice", NOW).await;
    let device = Client::new("laptop");
    let bearer = world.login("alice", &device, NOW).await;
    let claims = bearer.claims();
    assert_eq!(claims.sub, format!("UID=laptop,CN={},O={}", claims.user, world.core.organisation()));
    assert_eq!((claims.name.as_str(), claims.auth_time, claims.exp), ("alice", NOW, later(12 * 3_600)));
    assert_eq!(claims.aud.len(), 3, "the Controller and both sites");

    let (tokens, connect) = world.entitlements(&bearer, NOW).await;
    assert_eq!(tokens.len(), 2);
    for token in &tokens {
        assert_eq!((&token.sub, token.generation, token.exp), (&claims.sub, claims.generation, claims.exp));
        assert_eq!((token.seq, token.aud.len()), (1, 1));
        assert!(claims.aud.contains(&token.aud[0]));
    }
    let mut granted: Vec<_> = tokens.iter().flat_map(|token| names(token)).collect();
    granted.sort_unstable();
    assert_eq!(granted, ["db", "wiki"]);
    assert_eq!(connect.exp, later(600));
    // Asked again, the numbers grow and the addresses stay.
    let (again, _) = world.entitlements(&bearer, later(60)).await;
    for (token, again) in tokens.iter().zip(&again) {
        assert_eq!((again.seq, again.inner), (2, token.inner));
    }
}

// Covers: C1 allow
// Covers: C1 refuse
#[tokio::test]
async fn nobody_is_told_more_than_they_may() {
    let world = World::new().await;
    world.grant("wiki", "alice", NOW).await;
    world.grant("build", "bob", NOW).await;
    let bearer = world.login("alice", &Client::new("laptop"), NOW).await;
    let (tokens, connect) = world.entitlements(&bearer, NOW).await;
    assert_eq!(tokens.len(), 1);
    assert_eq!(names(&tokens[0]), ["wiki"]);
    assert_eq!(connect.sites.iter().map(|site| site.name.as_str()).collect::<Vec<_>>(), ["east"]);
    // Who may do nothing hears of no site.
    let root = Client::new("other").login(&world.core, "root", "first password", NOW).await.unwrap();
    let (tokens, connect) = world.entitlements(&root, NOW).await;
    assert!(tokens.is_empty() && connect.sites.is_empty());
    assert_eq!(root.claims().aud.len(), 1);
}

// Covers: A7 allow
#[tokio::test]
async fn groups_give_what_users_have_not() {
    let world = World::new().await;
    let core = &world.core;
    core.admin_new_group(&world.admin(), api::NewGroup { name: "staff".into() }, NOW).await.unwrap();
    let change = api::EntitlementChange { resource: "db".into(), principal: api::Principal::Group("staff".into()) };
    core.admin_grant(&world.admin(), change, NOW).await.unwrap();
    let member = || api::Membership { group: "staff".into(), user: "alice".into() };
    core.admin_add_member(&world.admin(), member(), NOW).await.unwrap();
    refused(core.admin_add_member(&world.admin(), member(), NOW).await, "already_exists");
    // By the group and directly: it stands in the token once.
    world.grant("db", "alice", NOW).await;
    let bearer = world.login("alice", &Client::new("laptop"), NOW).await;
    assert_eq!(bearer.claims().groups, ["staff"]);
    let (tokens, _) = world.entitlements(&bearer, NOW).await;
    assert_eq!(names(&tokens[0]), ["db"]);
}

#[tokio::test]
async fn addresses_are_of_the_pool_and_nobody_elses() {
    let world = World::new().await;
    world.grant("wiki", "alice", NOW).await;
    world.grant("wiki", "bob", NOW).await;
    let mut seen = Vec::new();
    for (user, device) in [("alice", "laptop"), ("alice", "phone"), ("bob", "laptop-2")] {
        let bearer = world.login(user, &Client::new(device), NOW).await;
        let (tokens, _) = world.entitlements(&bearer, NOW).await;
        seen.push((tokens[0].inner.ipv4.unwrap().to_string(), tokens[0].inner.ipv6.unwrap().to_string()));
    }
    // The first is the Gateways' own.
    let expected = [("10.97.0.2", "fd00:97::2"), ("10.97.0.3", "fd00:97::3"), ("10.97.0.4", "fd00:97::4")];
    assert_eq!(seen, expected.map(|(v4, v6)| (v4.to_owned(), v6.to_owned())));
}

#[tokio::test]
async fn a_full_pool_takes_from_those_who_left_and_refuses_otherwise() {
    let world = World::new().await;
    let site = api::NewSite { name: "tiny".into(), pools: vec!["10.95.0.1/30".into()] };
    world.core.admin_new_site(&world.admin(), site, NOW).await.unwrap();
    world.core.admin_new_resource(&world.admin(), resource("one", "tiny", "10.3.0.1"), NOW).await.unwrap();
    world.grant("one", "alice", NOW).await;
    let first = world.login("alice", &Client::new("laptop"), NOW).await;
    let (tokens, _) = world.entitlements(&first, NOW).await;
    assert_eq!(tokens[0].inner.ipv4.unwrap().to_string(), "10.95.0.2");
    let second = world.login("alice", &Client::new("phone"), NOW).await;
    refused(world.core.entitlements(&second, NOW).await, "pool_exhausted");
    // An administrator's change is not held up by it.
    assert_eq!(world.take_back("one", "alice", NOW).await.entitlements, 1);
    world.grant("one", "alice", NOW).await;
    let after = later(12 * 3_600 + 1);
    let second = world.login("alice", &Client::new("tablet"), after).await;
    let (tokens, _) = world.entitlements(&second, after).await;
    assert_eq!(tokens[0].inner.ipv4.unwrap().to_string(), "10.95.0.2");
}

// Covers: A3 refuse
#[tokio::test]
async fn every_wrong_login_is_refused_in_the_same_words() {
    let world = World::new().await;
    let device = Client::new("laptop");
    let disable = "UPDATE users SET active = 0 WHERE name = 'bob'";
    database::execute(&state(world.folder.path()), disable).await;
    let mut seen = Vec::new();
    for (user, password) in
        [("alice", "bob password"), ("nobody", "bob password"), ("bob", "bob password"), ("alice", "")]
    {
        seen.push(device.login(&world.core, user, password, NOW).await.unwrap_err());
    }
    assert!(seen.iter().all(|refused| *refused == Refused::login()), "{seen:?}");
    // Nobody can have that name; what costs nothing is none of the failed logins, each of which is written down.
    refused(device.login(&world.core, &"x".repeat(129), "bob password", NOW).await, "request_malformed");
    // Too many of them, and the right one does not help either.
    for _ in 0..8 {
        refused(device.login(&world.core, "alice", "wrong", NOW).await, "login_refused");
    }
    refused(device.login(&world.core, "alice", "alice password", NOW).await, "login_limited");
    device.login(&world.core, "alice", "alice password", later(300)).await.unwrap();
}

// Covers: A4 refuse
#[tokio::test]
async fn a_client_id_stays_with_its_user_and_key() {
    let world = World::new().await;
    let device = Client::new("laptop");
    world.login("alice", &device, NOW).await;
    world.login("alice", &device, later(1)).await;
    refused(device.login(&world.core, "bob", "bob password", NOW).await, "already_exists");
    refused(Client::new("laptop").login(&world.core, "alice", "alice password", NOW).await, "already_exists");
    for bad in ["", "a,CN=root", "a b", &"x".repeat(129)] {
        refused(Client::new(bad).login(&world.core, "alice", "alice password", NOW).await, "request_malformed");
    }
}

// Covers: A6 refuse
// Covers: C14 refuse
#[tokio::test]
async fn claims_count_for_their_holder_here_and_in_time_only() {
    let world = World::new().await;
    let device = Client::new("laptop");
    let claims =
        world.core.login(&device.credentials("alice", "alice password"), device.thumbprint(), FROM, NOW).await.unwrap();
    let key = device.thumbprint();
    world.core.bearer(&claims.claims, &key, NOW).unwrap();
    refused(world.core.bearer(&claims.claims, &Client::new("x").thumbprint(), NOW), "token_wrong_holder");
    refused(world.core.bearer(&claims.claims, &key, later(12 * 3_600 + 5)), "token_expired");
    refused(world.core.bearer(&"x".repeat(17 << 10), &key, NOW), "request_malformed");
    let foreign = tempfile::tempdir().unwrap();
    let foreign = open(foreign.path(), NOW).await;
    refused(foreign.bearer(&claims.claims, &key, NOW), "token_unknown_key");
}

#[tokio::test]
async fn renewed_claims_end_with_the_login_and_name_new_sites() {
    let world = World::new().await;
    let device = Client::new("laptop");
    let bearer = world.login("alice", &device, NOW).await;
    world.grant("wiki", "alice", NOW).await;
    let response = world.core.renew(&bearer, later(3_600)).await.unwrap();
    let renewed = world.core.bearer(&response.claims, &device.thumbprint(), later(3_600)).unwrap();
    let (old, new) = (bearer.claims(), renewed.claims());
    assert_eq!((new.exp, new.auth_time, &new.sub), (old.exp, old.auth_time, &old.sub));
    assert_ne!(new.jti, old.jti);
    assert_eq!((old.aud.len(), new.aud.len()), (1, 2));
    let end = later(12 * 3_600);
    refused(world.core.renew(&bearer, end).await, "token_revoked");
    refused(world.core.entitlements(&bearer, end).await, "token_revoked");
    refused(world.core.certificate(&bearer, &device.request(), end).await, "token_revoked");
}
