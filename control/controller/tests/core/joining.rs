//! Invitations: who may make them, and that they work once.

use std::sync::Arc;

use super::*;

fn gateway_invitation(name: &str) -> api::Invitee {
    api::Invitee::Gateway { name: name.into(), site: "east".into() }
}

// Covers: R1 allow
// Covers: R3 allow
// Covers: R4 allow
// Covers: R6 allow
// Covers: I1 allow
// Covers: I2 allow
// Covers: I6 allow
#[tokio::test]
async fn a_gateway_joins_and_gets_its_certificate() {
    let world = World::new().await;
    let request = api::NewInvitation { invitee: gateway_invitation("east-1"), expires_in: None };
    let invitation = world.core.admin_invite(&world.admin(), request, NOW).await.unwrap();
    assert_eq!(invitation.expires_at, later(7 * 86_400).0);
    let (address, secret) = invitation.url.rsplit_once('/').unwrap();
    assert_eq!((address, secret.len()), ("controller.example:8443", 48));
    assert_eq!(URL_SAFE_NO_PAD.decode(secret).unwrap()[..18], world.core.join_key_hash());

    let client = Client::new("east-1");
    let joined = world.core.join(client.join(&cookie(&invitation.url), &invitation.ticket), NOW).await.unwrap();
    let peer = world.peer(&joined.chain, Role::Gateway, NOW);
    assert_eq!((peer.id(), peer.key()), (joined.id.as_str(), &client.thumbprint()));
    assert_eq!(peer.not_after(), later(7 * 86_400));
    let chain: Vec<_> = joined.chain.iter().map(|one| CertificateDer::from(one.to_vec())).collect();
    world.core.trust().verify(&chain[0], Side::Server, Role::Gateway, NOW).unwrap();
    let rows = world.core.gateways(&world.admin(), NOW).await.unwrap();
    assert_eq!((rows[0].name.as_str(), rows[0].site.as_str(), rows[0].alive), ("east-1", "east", false));
}

// Covers: R1 refuse
// Covers: R2 refuse
// Covers: R2 allow
#[tokio::test]
async fn invitations_are_made_by_administrators_who_authenticated_just_now() {
    let world = World::new().await;
    let alice = world.login("alice", &Client::new("laptop"), NOW).await;
    refused(world.core.administrator::<action::Invite>(&alice, NOW).await, "not_administrator");
    let request = |name| api::NewInvitation { invitee: gateway_invitation(name), expires_in: None };
    world.core.admin_invite(&world.admin(), request("east-1"), later(300)).await.unwrap();
    refused(world.core.admin_invite(&world.admin(), request("east-2"), later(301)).await, "authentication_not_fresh");
}

// Covers: I1 refuse
#[tokio::test]
async fn invitations_for_what_is_not_or_is_already_are_not_made() {
    let world = World::new().await;
    world.gateway("east-1", "east").await;
    let invite = |invitee, expires_in| {
        let request = api::NewInvitation { invitee, expires_in };
        let world = &world;
        async move { world.core.admin_invite(&world.admin(), request, NOW).await }
    };
    refused(invite(gateway_invitation("east-1"), None).await, "already_exists");
    refused(invite(api::Invitee::Gateway { name: "x".into(), site: "north".into() }, None).await, "not_found");
    refused(invite(api::Invitee::Device { user: "nobody".into() }, None).await, "not_found");
    refused(invite(gateway_invitation("a b"), None).await, "request_malformed");
    refused(invite(gateway_invitation("east-2"), Some(59)).await, "request_malformed");
    refused(invite(gateway_invitation("east-2"), Some(31 * 86_400)).await, "request_malformed");
}

// Covers: R4 refuse
// Covers: I6 refuse
// Covers: I9 refuse
#[tokio::test]
async fn unknown_used_and_expired_cookies_are_told_apart_and_refused() {
    let world = World::new().await;
    let (cookie, ticket) = world.invite(gateway_invitation("east-1")).await;
    let client = Client::new("east-1");
    refused(world.core.join(client.join(&[7; 18], &ticket), NOW).await, "invitation_unknown");
    refused(world.core.join(client.join(&[7; 17], &ticket), NOW).await, "request_malformed");
    refused(world.core.join(client.join(&cookie, &ticket), later(7 * 86_400)).await, "invitation_expired");
    world.core.join(client.join(&cookie, &ticket), NOW).await.unwrap();
    refused(world.core.join(client.join(&cookie, &ticket), NOW).await, "invitation_used");
}

// Covers: R3 refuse
// Covers: R6 refuse
// Covers: I10 refuse
#[tokio::test]
async fn whatever_fails_after_the_cookie_has_used_the_invitation_up() {
    let world = World::new().await;
    let foreign = tempfile::tempdir().unwrap();
    let foreign = open(foreign.path(), NOW).await;
    let bearer = Client::new("x").login(&foreign, "root", "first password", NOW).await.unwrap();
    let owner: Administrator<action::ChangeRole> = foreign.administrator(&bearer, NOW).await.unwrap();
    let site = api::NewSite { name: "east".into(), pools: vec!["10.97.0.1/24".into()] };
    foreign.admin_new_site(&owner.also().unwrap(), site, NOW).await.unwrap();
    let request = api::NewInvitation { invitee: gateway_invitation("east-1"), expires_in: None };
    let foreign = foreign.admin_invite(&owner.also().unwrap(), request, NOW).await.unwrap().ticket;
    let (_, other) = world.invite(gateway_invitation("east-9")).await;

    let client = Client::new("east-1");
    let mut unsigned = client.join(&[], "");
    unsigned.certificate_request = b"nothing".to_vec().into();
    for (ticket, request, code) in [
        (Some(foreign.as_str()), None, "token_unknown_key"),
        (Some(other.as_str()), None, "ticket_mismatch"),
        (Some("nothing"), None, "token_malformed"),
        (None, Some(unsigned.certificate_request.clone()), "request_malformed"),
    ] {
        let (cookie, own) = world.invite(gateway_invitation("east-1")).await;
        let mut wrong = client.join(&cookie, ticket.unwrap_or(&own));
        if let Some(request) = request {
            wrong.certificate_request = request;
        }
        refused(world.core.join(wrong, NOW).await, code);
        refused(world.core.join(client.join(&cookie, &own), NOW).await, "invitation_used");
    }
    assert!(world.core.gateways(&world.admin(), NOW).await.unwrap().is_empty());
}

// Covers: I7 refuse
#[tokio::test]
async fn a_key_that_did_not_sign_the_request_joins_nobody() {
    let world = World::new().await;
    let (cookie, ticket) = world.invite(gateway_invitation("east-1")).await;
    let mut request = Client::new("east-1").join(&cookie, &ticket);
    let mut bytes = request.certificate_request.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    request.certificate_request = bytes.into();
    refused(world.core.join(request, NOW).await, "request_malformed");
    assert!(world.core.gateways(&world.admin(), NOW).await.unwrap().is_empty());
}

// Covers: R4 refuse
// Covers: I9 allow
// Covers: I10 allow
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_thousand_who_race_exactly_one_joins() {
    let world = World::new().await;
    let (cookie, ticket) = world.invite(gateway_invitation("east-1")).await;
    let request = Client::new("east-1").join(&cookie, &ticket);
    let start = Arc::new(tokio::sync::Barrier::new(1_000));
    let joins: Vec<_> = (0..1_000)
        .map(|_| {
            let (core, request, start) = (world.core.clone(), request.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                core.join(request, NOW).await.map(drop)
            })
        })
        .collect();
    let (mut won, mut lost) = (0, 0);
    for join in joins {
        match join.await.unwrap() {
            Ok(()) => won += 1,
            Err(refused) => {
                assert_eq!(refused.code, "invitation_used");
                lost += 1;
            }
        }
    }
    assert_eq!((won, lost), (1, 999));
    assert_eq!(world.core.gateways(&world.admin(), NOW).await.unwrap().len(), 1);
    // Each of both tokens is of no use any more with the other of a good pair.
    let (fresh, other) = world.invite(gateway_invitation("east-2")).await;
    let client = Client::new("east-2");
    refused(world.core.join(client.join(&cookie, &other), NOW).await, "invitation_used");
    refused(world.core.join(client.join(&fresh, &ticket), NOW).await, "ticket_mismatch");
}

// Covers: I10 refuse
#[tokio::test]
async fn a_gateway_of_the_same_name_is_not_overwritten() {
    let world = World::new().await;
    let first = world.invite(gateway_invitation("east-1")).await;
    let second = world.invite(gateway_invitation("east-1")).await;
    let joined = world.core.join(Client::new("a").join(&first.0, &first.1), NOW).await.unwrap();
    refused(world.core.join(Client::new("b").join(&second.0, &second.1), NOW).await, "already_exists");
    let rows = world.core.gateways(&world.admin(), NOW).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), [joined.id.as_str()]);
}

// Covers: I10 allow
// Covers: I10 refuse
#[tokio::test]
async fn a_device_joins_for_its_user_and_is_not_overwritten() {
    let world = World::new().await;
    let invite = || world.invite(api::Invitee::Device { user: "alice".into() });
    let device = Client::new("laptop");
    let (cookie, ticket) = invite().await;
    let joined = world.core.join(device.join(&cookie, &ticket), NOW).await.unwrap();
    assert_eq!((joined.id.as_str(), joined.kind.as_str(), joined.user.as_str()), ("laptop", "device", "alice"));
    assert!(joined.chain.is_empty(), "a device has its certificate after login");
    world.login("alice", &device, NOW).await;
    refused(device.login(&world.core, "bob", "bob password", NOW).await, "already_exists");
    let (cookie, ticket) = invite().await;
    refused(world.core.join(Client::new("laptop").join(&cookie, &ticket), NOW).await, "already_exists");
}

// Covers: I10 allow
#[tokio::test]
async fn the_cookie_is_in_no_file() {
    if database::is_postgres() {
        return eprintln!("the database is in no file here");
    }
    let world = World::new().await;
    let (cookie, ticket) = world.invite(gateway_invitation("east-1")).await;
    world.core.join(Client::new("east-1").join(&cookie, &ticket), NOW).await.unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &cookie);
    let text = URL_SAFE_NO_PAD.encode(&cookie);
    let mut hashes = 0;
    for entry in std::fs::read_dir(state(world.folder.path())).unwrap() {
        let content = std::fs::read(entry.unwrap().path()).unwrap();
        let has = |bytes: &[u8]| content.windows(bytes.len()).any(|window| window == bytes);
        assert!(!has(&cookie) && !has(text.as_bytes()) && !has(ticket.as_bytes()));
        hashes += usize::from(has(hash.as_ref()));
    }
    assert!(hashes > 0, "the search finds what is there");
}
