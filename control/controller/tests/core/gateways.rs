//! What Gateways are told and report.

use ringfort_controller::core::{Change, EventsAsked};
use ringfort_proto::state_digest;
use ringfort_token::{EntryScope, GatewayConfiguration, RevocationList, Serial};

use super::*;

fn report(
    joined: &v1::Joined,
    configuration_seq: u64,
    serial: Serial,
    sessions: &[v1::LiveSession],
) -> v1::ReportRequest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &joined.chain[0]);
    let revocations = v1::Serial { epoch: serial.epoch, n: serial.n };
    v1::ReportRequest {
        addresses: vec!["203.0.113.20:443".into()],
        certificate_digest: digest.as_ref().to_vec().into(),
        revocations: Some(revocations),
        configuration_seq,
        sessions: sessions.to_vec(),
        state_digest: state_digest(configuration_seq, revocations, sessions).to_vec().into(),
        ..v1::ReportRequest::default()
    }
}

// Covers: R7 allow
// Covers: R8 allow
#[tokio::test]
async fn a_configuration_is_signed_expires_and_holds_all_of_the_site_and_nothing_else() {
    let world = World::new().await;
    let (_, joined) = world.gateway("east-1", "east").await;
    let audience = audience::gateway(&joined.id);
    for seq in 1..=2 {
        let text = world.core.configuration(&joined.id, NOW).await.unwrap();
        let token: Verified<GatewayConfiguration> = world.verify(&text, &audience, Holder::Nobody, NOW);
        assert_eq!((token.seq, &token.site, token.exp, token.lease), (seq, &joined.site, later(900), later(900)));
        let allowed: Vec<_> = token.allow.iter().map(|grant| grant.name.as_str()).collect();
        assert_eq!(allowed, ["build", "wiki"], "granted or not");
        assert_eq!(token.pools, ["10.97.0.1/24", "fd00:97::1/64"]);
    }
    refused(world.core.configuration("nobody", NOW).await, "not_found");
}

// Covers: R18 allow
// Covers: R18 refuse
#[tokio::test]
async fn clients_are_sent_to_gateways_that_are_alive() {
    let world = World::new().await;
    let (_, joined) = world.gateway("east-1", "east").await;
    world.gateway("west-1", "west").await;
    world.grant("wiki", "alice", NOW).await;
    let bearer = world.login("alice", &Client::new("laptop"), NOW).await;
    let gateways = async |now| {
        let (_, connect) = world.entitlements(&bearer, now).await;
        assert_eq!(connect.sites.len(), 1);
        connect.sites[0].gateways.clone()
    };
    assert!(gateways(NOW).await.is_empty(), "it joined and was not heard of since");
    let report = report(&joined, 0, world.core.serial(), &[]);
    world.core.report(&world.gateway_peer(&joined), &report, NOW).await.unwrap();
    let alive = gateways(later(15)).await;
    assert_eq!(alive.len(), 1);
    assert_eq!((alive[0].id.as_str(), alive[0].address.as_str()), (joined.id.as_str(), "203.0.113.20:443"));
    assert!(world.core.gateways(&world.admin(), later(15)).await.unwrap()[0].alive);
    assert!(gateways(later(16)).await.is_empty());
}

// Covers: R16 allow
// Covers: R16 refuse
#[tokio::test]
async fn only_digests_of_certificates_that_were_issued_to_a_gateway_are_passed_on() {
    let world = World::new().await;
    let (client, joined) = world.gateway("east-1", "east").await;
    let (_, other) = world.gateway("east-2", "east").await;
    world.grant("wiki", "alice", NOW).await;
    let bearer = world.login("alice", &Client::new("laptop"), NOW).await;
    let serial = world.core.serial();
    refused(
        world.core.report(&world.gateway_peer(&joined), &report(&other, 0, serial, &[]), NOW).await,
        "request_malformed",
    );
    world.core.report(&world.gateway_peer(&joined), &report(&joined, 0, serial, &[]), NOW).await.unwrap();

    let peer = world.peer(&joined.chain, Role::Gateway, NOW);
    let chain = world.core.enroll(&peer, &client.request(), NOW).await.unwrap();
    let renewed = world.peer(&chain, Role::Gateway, NOW);
    assert_eq!((renewed.id(), renewed.key()), (peer.id(), peer.key()));
    let hex = |bytes: &[u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (old, new) = (hex(peer.certificate_digest()), hex(renewed.certificate_digest()));
    let digests = async || world.entitlements(&bearer, NOW).await.1.sites[0].gateways[0].certificate_digests.clone();
    assert_eq!(digests().await, [old, new.clone()]);
    let joined = v1::Joined { chain: chain.into_iter().map(Into::into).collect(), ..joined };
    world.core.report(&world.gateway_peer(&joined), &report(&joined, 0, serial, &[]), NOW).await.unwrap();
    assert_eq!(digests().await, [new]);
}

/// What a user may reach is signed for that user: the addresses of Resources, and which Gateways serve each of them.
// Covers: R23 allow
// Covers: R23 refuse
#[tokio::test]
async fn a_user_is_told_the_addresses_and_the_gateways_that_serve_each() {
    let world = World::new().await;
    let serial = world.core.serial();
    let mut of_site = Vec::new();
    for (name, site) in [("east-1", "east"), ("east-2", "east"), ("west-1", "west")] {
        let (_, joined) = world.gateway(name, site).await;
        world.core.report(&world.gateway_peer(&joined), &report(&joined, 0, serial, &[]), NOW).await.unwrap();
        of_site.push((site, joined.id));
    }
    for resource in ["wiki", "db"] {
        world.grant(resource, "alice", NOW).await;
    }
    world.grant("build", "bob", NOW).await;
    let bearer = world.login("alice", &Client::new("laptop"), NOW).await;
    let (tokens, connect) = world.entitlements(&bearer, NOW).await;
    for (site, address) in [("east", "10.1.0.1"), ("west", "10.2.0.1")] {
        let place = connect.sites.iter().position(|one| one.name == site).unwrap();
        let token = &tokens[place];
        assert_eq!(token.aud, [audience::site(&connect.sites[place].site)]);
        assert_eq!((token.grants.len(), token.grants[0].to.as_slice()), (1, [address.to_owned()].as_slice()));
        let mut serving: Vec<_> = connect.sites[place].gateways.iter().map(|one| one.id.clone()).collect();
        serving.sort_unstable();
        let mut expected: Vec<_> = of_site.iter().filter(|(of, _)| *of == site).map(|(_, id)| id.clone()).collect();
        expected.sort_unstable();
        assert_eq!(serving, expected, "{site}");
    }
    // Nobody else's is in it, nobody else can show it, and it says nothing else under its signature.
    let bob = world.login("bob", &Client::new("desktop"), NOW).await;
    let (his, _) = world.entitlements(&bob, NOW).await;
    assert_eq!((his.len(), names(&his[0])), (1, vec!["build"]));
    let deny = DenyList::default();
    let response = world.core.entitlements(&bearer, NOW).await.unwrap();
    let session = audience::session(&bearer.session().to_string());
    let verify = |text: &str, holder: &KeyThumbprint| {
        let expectation = Expectation { audience: &session, holder: Holder::Key(holder), now: NOW, deny: &deny };
        world.core.verifier().verify::<ConnectToken>(&Signed::from_text(text).unwrap(), &expectation).map(drop)
    };
    let own = bearer.claims().cnf.jkt;
    verify(&response.connect, &own).unwrap();
    assert_eq!(verify(&response.connect, &bob.claims().cnf.jkt).unwrap_err().code(), "token_wrong_holder");
    let [header, payload, signature] = response.connect.split('.').collect::<Vec<_>>()[..] else { panic!("no JWS") };
    let mut said: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    said["sites"][0]["gateways"][0]["address"] = "198.51.100.66:443".into();
    let other = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(said.to_string()));
    assert_eq!(verify(&other, &own).unwrap_err().code(), "token_bad_signature");
}

/// A Gateway that asks for a certificate by a further key: what it would keep.
async fn enroll(world: &World, peer: &PeerIdentity, joined: &v1::Joined) -> Result<(Client, v1::Joined), Refused> {
    let key = Client::new("east-1");
    let chain = world.core.enroll(peer, &key.request(), NOW).await?;
    Ok((key, v1::Joined { chain: chain.into_iter().map(Into::into).collect(), ..joined.clone() }))
}

#[tokio::test]
async fn a_new_certificate_brings_a_new_key_and_the_old_one_is_nobodys() {
    let world = World::new().await;
    let (_, joined) = world.gateway("east-1", "east").await;
    let core = &world.core;
    let old = world.gateway_peer(&joined);
    let says = |of: &v1::Joined| report(of, 0, core.serial(), &[]);
    core.report(&old, &says(&joined), NOW).await.unwrap();
    // An answer that was lost: the key of the next request counts, and the one before is none.
    let (_, lost) = enroll(&world, &old, &joined).await.unwrap();
    let (key, renewed) = enroll(&world, &old, &joined).await.unwrap();
    refused(core.report(&world.gateway_peer(&lost), &says(&lost), NOW).await, "key_mismatch");
    let new = world.gateway_peer(&renewed);
    assert_eq!((new.id(), *new.key()), (old.id(), key.thumbprint()));
    // Both are the Gateway's until it has reported by the new one, and the old one cannot say that in its place.
    assert_eq!(core.site_of(&old).await.unwrap(), core.site_of(&new).await.unwrap());
    core.report(&old, &says(&joined), NOW).await.unwrap();
    refused(core.report(&old, &says(&renewed), NOW).await, "key_mismatch");
    refused(core.report(&new, &says(&joined), NOW).await, "key_mismatch");
    refused(enroll(&world, &new, &joined).await.map(drop), "key_mismatch");
    core.report(&new, &says(&renewed), NOW).await.unwrap();
    // Whoever has a copy of the old one has nothing any more.
    refused(core.site_of(&old).await, "key_mismatch");
    refused(core.report(&old, &says(&joined), NOW).await, "key_mismatch");
    refused(enroll(&world, &old, &joined).await.map(drop), "key_mismatch");
    let asked = EventsAsked { limit: 1, ..EventsAsked::default() };
    let [event] = &core.events(&world.admin(), asked).await.unwrap()[..] else { panic!("no event") };
    assert_eq!((event.action.as_str(), event.target.as_str()), ("rotate-key", joined.id.as_str()));
    assert_eq!(event.detail, format!("{} in place of {}", key.thumbprint(), old.key()));
    // And so on with the next one.
    let (_, third) = enroll(&world, &new, &joined).await.unwrap();
    core.report(&world.gateway_peer(&third), &says(&third), NOW).await.unwrap();
    refused(core.site_of(&new).await, "key_mismatch");
}

#[tokio::test]
async fn a_gateway_takes_no_key_of_somebody_else() {
    let world = World::new().await;
    let (own, joined) = world.gateway("east-1", "east").await;
    let (other, joined_other) = world.gateway("east-2", "east").await;
    let peer = world.gateway_peer(&joined);
    refused(world.core.enroll(&peer, &other.request(), NOW).await, "key_mismatch");
    let (next_of_other, _) = enroll(&world, &world.gateway_peer(&joined_other), &joined_other).await.unwrap();
    refused(world.core.enroll(&peer, &next_of_other.request(), NOW).await, "key_mismatch");
    let device = Client::new("laptop");
    world.login("alice", &device, NOW).await;
    refused(world.core.enroll(&peer, &device.request(), NOW).await, "key_mismatch");
    // Nor one whose holder has not signed, nor one that was taken back.
    let mut unsigned = Client::new("east-1").request();
    let last = unsigned.len() - 1;
    unsigned[last] ^= 1;
    refused(world.core.enroll(&peer, &unsigned, NOW).await, "request_malformed");
    let named = api::Named { name: "east-2".into() };
    world.core.admin_remove_gateway(&world.admin(), named, NOW).await.unwrap();
    for taken_back in [&other, &next_of_other] {
        refused(world.core.enroll(&peer, &taken_back.request(), NOW).await, "certificate_revoked");
    }
    // A user's machine is no Gateway.
    let phone = Client::new("phone");
    let bearer = world.login("alice", &phone, NOW).await;
    let response = world.core.certificate(&bearer, &phone.request(), NOW).await.unwrap();
    let chain: Vec<_> = response.chain.iter().map(|one| URL_SAFE_NO_PAD.decode(one).unwrap()).collect();
    let device_peer = world.peer(&chain, Role::Device, NOW);
    refused(world.core.enroll(&device_peer, &phone.request(), NOW).await, "wrong_role");
    // One from before keys changed asks by the key that it has, and keeps that.
    world.core.enroll(&peer, &own.request(), NOW).await.unwrap();
}

/// As after an update: what was issued under the key that it had is taken into use over the stream that is open.
#[tokio::test]
async fn a_certificate_for_the_same_key_is_taken_into_use() {
    let world = World::new().await;
    let (own, joined) = world.gateway("east-1", "east").await;
    let peer = world.gateway_peer(&joined);
    let chain = world.core.enroll(&peer, &own.request(), NOW).await.unwrap();
    let renewed = v1::Joined { chain: chain.into_iter().map(Into::into).collect(), ..joined };
    let says = report(&renewed, 0, world.core.serial(), &[]);
    world.core.report(&peer, &says, NOW).await.unwrap();
    world.core.report(&world.gateway_peer(&renewed), &says, NOW).await.unwrap();
}

#[tokio::test]
async fn the_digest_tells_whether_both_believe_the_same() {
    let world = World::new().await;
    let (_, joined) = world.gateway("east-1", "east").await;
    world.core.configuration(&joined.id, NOW).await.unwrap();
    world.grant("wiki", "alice", NOW).await;
    let bearer = world.login("alice", &Client::new("laptop"), NOW).await;
    world.entitlements(&bearer, NOW).await;
    let live = |seq| vec![v1::LiveSession { dn: bearer.session().to_string(), seq }];
    let serial = world.core.serial();
    let agrees = async |seq, serial, sessions: &[v1::LiveSession]| {
        world.core.report(&world.gateway_peer(&joined), &report(&joined, seq, serial, sessions), NOW).await.unwrap()
    };
    assert!(agrees(1, serial, &[]).await);
    assert!(agrees(1, serial, &live(1)).await);
    assert!(!agrees(0, serial, &live(1)).await);
    assert!(!agrees(1, Serial { n: serial.n + 1, ..serial }, &live(1)).await);
    assert!(!agrees(1, serial, &live(2)).await);
    // What a client asks for it may show or not; what is pushed must arrive.
    world.entitlements(&bearer, NOW).await;
    assert!(agrees(1, serial, &live(1)).await && agrees(1, serial, &live(2)).await);
    assert!(!agrees(1, serial, &live(3)).await);
    world.grant("build", "alice", NOW).await;
    assert!(!agrees(1, serial, &live(2)).await && agrees(1, serial, &live(3)).await);
    // Nothing will be pushed for a session that nobody knows: it ends with its token.
    let stranger = [v1::LiveSession { dn: "UID=x,CN=y,O=z".into(), seq: 1 }];
    assert!(agrees(1, serial, &stranger).await);
    refused(
        world
            .core
            .report(
                &world.gateway_peer(&joined),
                &v1::ReportRequest { addresses: vec!["nowhere".into()], ..Default::default() },
                NOW,
            )
            .await,
        "request_malformed",
    );
}

#[tokio::test]
async fn what_a_gateway_missed_is_sent_and_nothing_else() {
    let world = World::new().await;
    let (_, joined) = world.gateway("east-1", "east").await;
    world.grant("wiki", "alice", NOW).await;
    world.grant("wiki", "bob", NOW).await;
    let (alice, bob) = (Client::new("laptop"), Client::new("phone"));
    let alice = world.login("alice", &alice, NOW).await;
    let bob = world.login("bob", &bob, NOW).await;
    world.entitlements(&alice, NOW).await;
    world.entitlements(&bob, NOW).await;
    let live = |seq| vec![v1::LiveSession { dn: alice.session().to_string(), seq }];
    let newer = async |sessions: &[v1::LiveSession], now| {
        let texts = world.core.entitlements_newer(&joined.id, sessions, now).await.unwrap();
        let verify = |text: &String| world.verify(text, &audience::site(&joined.site), Holder::Pushed, now);
        texts.iter().map(verify).collect::<Vec<Verified<EntitlementToken>>>()
    };
    assert!(newer(&live(1), NOW).await.is_empty());
    assert!(newer(&[], NOW).await.is_empty(), "sessions that are not live and to whom nothing happened");
    world.take_back("wiki", "bob", later(1)).await;
    world.grant("build", "alice", later(2)).await;
    let tokens = newer(&live(1), later(3)).await;
    let mut seen: Vec<_> = tokens.iter().map(|token| (token.user.as_str(), token.seq, names(token))).collect();
    seen.sort_unstable();
    // What was taken from bob comes although bob is not there: his older token must not count here.
    let mut expected =
        vec![(alice.claims().user.as_str(), 2, vec!["build", "wiki"]), (bob.claims().user.as_str(), 2, vec![])];
    expected.sort_unstable();
    assert_eq!(seen, expected);
    assert_eq!(newer(&live(2), later(3)).await.len(), 1, "alice's is there");
    assert!(newer(&live(1), later(13 * 3_600)).await.is_empty(), "logins that ended");
    refused(world.core.entitlements_newer("nobody", &[], NOW).await, "not_found");
}

/// Or a thousand Gateways that begin their streams anew would keep every decision waiting.
#[tokio::test]
async fn a_gateway_catches_up_while_somebody_writes() {
    let world = World::new().await;
    let (_, joined) = world.gateway("east-1", "east").await;
    let alice = world.login("alice", &Client::new("laptop"), NOW).await;
    world.grant("wiki", "alice", NOW).await;
    let newer = async || {
        let texts = world.core.entitlements_newer(&joined.id, &[], NOW).await.unwrap();
        let verify = |text: &String| world.verify(text, &audience::site(&joined.site), Holder::Pushed, NOW);
        texts.iter().map(verify).collect::<Vec<Verified<EntitlementToken>>>()
    };
    let before = newer().await;
    let turn = crate::database::turn(&state(world.folder.path())).await;
    let during = newer().await;
    assert_eq!((during[0].seq, names(&during[0]), during[0].inner), (1, vec!["wiki"], before[0].inner));
    drop(turn);
    world.grant("build", "alice", NOW).await;
    let after = newer().await;
    assert_eq!((after[0].seq, names(&after[0]), after[0].inner), (2, vec!["build", "wiki"], before[0].inner));
    assert_eq!(after[0].sub, alice.session().to_string());
}

#[tokio::test]
async fn who_has_no_inner_address_gets_one_and_keeps_nobody_from_catching_up() {
    let world = World::new().await;
    let (_, joined) = world.gateway("east-1", "east").await;
    for (user, client) in [("alice", "laptop"), ("bob", "phone")] {
        world.login(user, &Client::new(client), NOW).await;
        world.grant("wiki", user, NOW).await;
    }
    let addresses = async || {
        let texts = world.core.entitlements_newer(&joined.id, &[], NOW).await.unwrap();
        let verify = |text: &String| world.verify(text, &audience::site(&joined.site), Holder::Pushed, NOW);
        let tokens = texts.iter().map(verify).collect::<Vec<Verified<EntitlementToken>>>();
        tokens.iter().map(|token| token.inner.ipv4.unwrap().to_string()).collect::<Vec<_>>()
    };
    let both = addresses().await;
    assert_eq!(both.len(), 2);
    let folder = state(world.folder.path());
    crate::database::execute(&folder, "DELETE FROM addresses WHERE dn LIKE '%laptop%'").await;
    let again = addresses().await;
    assert_eq!(again.len(), 2);
    assert_ne!(again, both, "another one");
    assert_eq!(addresses().await, again, "and it stays");
    // The pool ends with 254, which is bob's.
    crate::database::execute(&folder, "DELETE FROM addresses WHERE dn LIKE '%laptop%'").await;
    crate::database::execute(&folder, "UPDATE addresses SET n = 254").await;
    assert_eq!(addresses().await, ["10.97.0.254"]);
}

#[tokio::test]
async fn revocations_follow_what_a_gateway_has_and_another_epoch_has_nothing() {
    let world = World::new().await;
    for user in ["alice", "bob", "alice"] {
        world.revoke(api::RevocationScope::User(user.into()), None, NOW).await.unwrap();
    }
    let ours = world.core.serial();
    assert_eq!(ours.n, 3);
    let audience = audience::gateways(world.core.organisation());
    for (after, first, count) in [
        (Serial { n: 0, ..ours }, 0, 3),
        (Serial { n: 2, ..ours }, 2, 1),
        (Serial { epoch: ours.epoch - 1, n: 3 }, 0, 3),
        (Serial::default(), 0, 3),
    ] {
        let lists = world.core.revocations_after(after, NOW).await.unwrap();
        assert_eq!(lists.len(), 1);
        let list: Verified<RevocationList> = world.verify(&lists[0].0, &audience, Holder::Nobody, NOW);
        assert_eq!((list.epoch, list.after, list.entries.len()), (ours.epoch, first, count));
        let mut deny = DenyList::restore(Serial { epoch: ours.epoch, n: first }, []);
        assert_eq!(deny.apply(&list).unwrap().len(), count);
        assert_eq!(deny.serial(), ours);
    }
    assert!(world.core.revocations_after(ours, NOW).await.unwrap().is_empty());
}

/// Or it would never agree with us about the state, and begin its stream again and again.
#[tokio::test]
async fn a_new_gateway_hears_of_the_epoch_before_anything_is_revoked() {
    let world = World::new().await;
    let ours = world.core.serial();
    assert_eq!(ours.n, 0);
    let (_, joined) = world.gateway("east-1", "east").await;
    let audience = audience::gateways(world.core.organisation());
    let lists = world.core.revocations_after(Serial::default(), NOW).await.unwrap();
    assert_eq!(lists.len(), 1);
    let list: Verified<RevocationList> = world.verify(&lists[0].0, &audience, Holder::Nobody, NOW);
    let mut deny = DenyList::default();
    let agrees = async |serial| {
        world.core.report(&world.gateway_peer(&joined), &report(&joined, 0, serial, &[]), NOW).await.unwrap()
    };
    assert!(!agrees(deny.serial()).await);
    assert!(deny.apply(&list).unwrap().is_empty());
    assert!(agrees(deny.serial()).await);
    assert!(world.core.revocations_after(deny.serial(), NOW).await.unwrap().is_empty(), "once");
}

// Covers: R18 refuse
#[tokio::test]
async fn a_removed_gateway_is_refused_everywhere_and_nobody_is_sent_there() {
    let world = World::new().await;
    let core = &world.core;
    let (key, joined) = world.gateway("east-1", "east").await;
    let invitee = || api::Invitee::Gateway { name: "east-2".into(), site: "east".into() };
    let (cookie, ticket) = world.invite(invitee()).await;
    core.report(&world.gateway_peer(&joined), &report(&joined, 0, core.serial(), &[]), NOW).await.unwrap();
    world.grant("wiki", "alice", NOW).await;
    let alice = world.login("alice", &Client::new("laptop"), NOW).await;
    let (_, connect) = world.entitlements(&alice, NOW).await;
    assert_eq!(connect.sites[0].gateways.len(), 1);
    let peer = world.peer(&joined.chain, Role::Gateway, NOW);
    let (next, renewed) = enroll(&world, &peer, &joined).await.unwrap();
    let mut changes = core.changes();

    let named = |name: &str| api::Named { name: name.into() };
    core.admin_remove_gateway(&world.admin(), named("east-1"), later(1)).await.unwrap();
    let change = changes.try_recv().unwrap();
    let Change::Revocations { token, .. } = change else { panic!("{change:?}") };
    let audience = audience::gateways(core.organisation());
    let list: Verified<RevocationList> = world.verify(&token, &audience, Holder::Nobody, later(1));
    let denied: Vec<_> = list.entries.iter().map(|entry| entry.scope.clone()).collect();
    assert_eq!(denied, [&key, &next].map(|key| EntryScope::Key(key.thumbprint())), "the other Gateways hear of both");
    let (_, connect) = world.entitlements(&alice, later(1)).await;
    assert!(connect.sites[0].gateways.is_empty(), "nobody is sent there");
    refused(core.standing(&peer, later(1)), "certificate_revoked");
    refused(core.standing(&peer, later(7 * 86_400)), "certificate_revoked");
    refused(core.standing(&world.gateway_peer(&renewed), later(1)), "certificate_revoked");
    refused(core.enroll(&peer, &key.request(), later(1)).await, "certificate_revoked");
    for answer in [
        core.configuration(&joined.id, later(1)).await.map(drop),
        core.report(&world.gateway_peer(&joined), &report(&joined, 0, core.serial(), &[]), later(1)).await.map(drop),
        core.entitlements_newer(&joined.id, &[], later(1)).await.map(drop),
        core.admin_remove_gateway(&world.admin(), named("east-1"), later(1)).await.map(drop),
    ] {
        refused(answer, "not_found");
    }
    assert!(core.gateways(&world.admin(), later(1)).await.unwrap().is_empty());

    // Nor does its key come back by another invitation; another key may have the name.
    let (again, second) = world.invite(api::Invitee::Gateway { name: "east-1".into(), site: "east".into() }).await;
    refused(core.join(key.join(&again, &second), later(1)).await, "certificate_revoked");
    let (again, second) = world.invite(api::Invitee::Gateway { name: "east-1".into(), site: "east".into() }).await;
    refused(core.join(next.join(&again, &second), later(1)).await, "certificate_revoked");
    world.gateway("east-1", "east").await;
    // One that has not joined yet is removed with its invitation.
    core.admin_remove_gateway(&world.admin(), named("east-2"), later(2)).await.unwrap();
    refused(core.join(Client::new("late").join(&cookie, &ticket), later(3)).await, "invitation_expired");
    refused(core.admin_remove_gateway(&world.admin(), named("east-2"), later(3)).await, "not_found");
}

// Covers: K6 allow
// Covers: K6 refuse
#[tokio::test]
async fn a_drained_gateway_is_told_so_and_comes_last() {
    let world = World::new().await;
    let core = &world.core;
    let (_, first) = world.gateway("east-1", "east").await;
    let (_, second) = world.gateway("east-2", "east").await;
    for joined in [&first, &second] {
        core.report(&world.gateway_peer(joined), &report(joined, 0, core.serial(), &[]), NOW).await.unwrap();
    }
    world.grant("wiki", "alice", NOW).await;
    let alice = world.login("alice", &Client::new("laptop"), NOW).await;
    let order = async || {
        let (_, connect) = world.entitlements(&alice, NOW).await;
        connect.sites[0].gateways.iter().map(|gateway| gateway.id.clone()).collect::<Vec<_>>()
    };
    let told = async |joined: &v1::Joined| {
        let text = core.configuration(&joined.id, NOW).await.unwrap();
        let audience = audience::gateway(&joined.id);
        world.verify::<GatewayConfiguration>(&text, &audience, Holder::Nobody, NOW).draining
    };
    assert_eq!(order().await, [first.id.clone(), second.id.clone()]);
    let mut changes = core.changes();
    let drain = |name: &str, draining| api::Drain { name: name.into(), draining };
    core.admin_drain(&world.admin(), drain("east-1", true), NOW).await.unwrap();
    assert!(matches!(changes.try_recv().unwrap(), Change::Configuration { site } if site == first.site));
    assert_eq!((told(&first).await, told(&second).await), (true, false));
    assert_eq!(order().await, [second.id.clone(), first.id.clone()], "others first");
    let rows = core.gateways(&world.admin(), NOW).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.draining).collect::<Vec<_>>(), [true, false]);
    refused(core.admin_drain(&world.admin(), drain("west-1", true), NOW).await, "not_found");

    let world = world.restarted(NOW).await;
    let text = world.core.configuration(&first.id, NOW).await.unwrap();
    let audience = audience::gateway(&first.id);
    assert!(world.verify::<GatewayConfiguration>(&text, &audience, Holder::Nobody, NOW).draining, "it is kept");
    world.core.admin_drain(&world.admin(), drain("east-1", false), NOW).await.unwrap();
    let text = world.core.configuration(&first.id, NOW).await.unwrap();
    assert!(!world.verify::<GatewayConfiguration>(&text, &audience, Holder::Nobody, NOW).draining);
}
