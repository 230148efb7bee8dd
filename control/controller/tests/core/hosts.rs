//! Hosts that may register themselves: lists, names, hints.

use ringfort_controller::core::HostsAsked;

use super::*;

fn named(name: &str) -> api::Named {
    api::Named { name: name.into() }
}

#[tokio::test]
async fn hosts_are_listed_page_by_page() {
    let world = World::new().await;
    for n in [4, 1, 3, 0, 2] {
        let host = named(&format!("host-{n}.example"));
        world.core.admin_add_host(&world.admin(), host, NOW).await.unwrap();
    }
    let page = async |after: &str, limit| {
        let asked = HostsAsked { after: after.into(), limit };
        let rows = world.core.hosts(&world.admin(), asked, NOW).await?;
        Ok::<_, Refused>(rows.into_iter().map(|row| row.name).collect::<Vec<_>>())
    };
    assert_eq!(page("", 2).await.unwrap(), ["host-0.example", "host-1.example"]);
    assert_eq!(page("host-1.example", 2).await.unwrap(), ["host-2.example", "host-3.example"]);
    assert_eq!(page("host-3.example", 2).await.unwrap(), ["host-4.example"]);
    assert!(page("host-4.example", 2).await.unwrap().is_empty());
    for limit in [0, 257] {
        refused(page("", limit).await, "request_malformed");
    }
}

// Covers: W6 refuse
#[tokio::test]
async fn removing_a_host_denies_its_key_and_its_invitations() {
    let world = World::new().await;
    let name = "nas.example";
    let invitee = || api::Invitee::Host { name: name.into() };
    let (first, second) = (world.invite(invitee()).await, world.invite(invitee()).await);
    let client = Client::new("");
    let joined = world.core.join(client.join(&first.0, &first.1), NOW).await.unwrap();
    let peer = world.peer(&joined.chain, Role::Host, NOW);
    let pushed = world.core.admin_remove_host(&world.admin(), named(name), NOW).await.unwrap();
    assert!(pushed.serial.ends_with("/1"), "{}", pushed.serial);
    refused(world.core.standing(&peer, NOW), "certificate_revoked");
    refused(world.core.join(Client::new("").join(&second.0, &second.1), NOW).await, "invitation_expired");
    refused(world.core.admin_remove_host(&world.admin(), named(name), NOW).await, "not_found");
    // The name is free for another key, and not for that one.
    let again = world.invite(invitee()).await;
    refused(world.core.join(client.join(&again.0, &again.1), NOW).await, "certificate_revoked");
    let again = world.invite(invitee()).await;
    world.core.join(Client::new("").join(&again.0, &again.1), NOW).await.unwrap();
    // Of a host that is only invited the invitations go.
    let open = world.invite(api::Invitee::Host { name: "new.example".into() }).await;
    world.core.admin_remove_host(&world.admin(), named("new.example"), NOW).await.unwrap();
    refused(world.core.join(Client::new("").join(&open.0, &open.1), NOW).await, "invitation_expired");
}

// Covers: W8 allow
// Covers: W8 refuse
#[tokio::test]
async fn hints_lead_to_a_gateway_from_outside_and_its_digests_are_named_once() {
    let world = World::new().await;
    let (_, joined) = world.gateway("east-1", "east").await;
    world.grant("wiki", "alice", NOW).await;
    let leaf = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &joined.chain[0]);
    let addresses = vec!["203.0.113.10:443".into(), "203.0.113.11:443".into()];
    let certificate_digest = leaf.as_ref().to_vec().into();
    let report = v1::ReportRequest { addresses, certificate_digest, ..Default::default() };
    world.core.report(&world.gateway_peer(&joined), &report, NOW).await.unwrap();
    let (cookie, ticket) = world.invite(api::Invitee::Host { name: "east-1".into() }).await;
    world.core.join(Client::new("").join(&cookie, &ticket), NOW).await.unwrap();
    // East's pool, west's, and an address of the machine's own.
    let said = "UPDATE hosts SET port = 443, last_seen = 1800000000, interfaces = \
        '[{\"name\":\"eth0\",\"addresses\":[\"10.97.0.1\",\"fd00:97::9\",\"192.0.2.7\"]}]'";
    database::execute(&state(world.folder.path()), said).await;
    let bearer = world.login("alice", &Client::new("laptop"), NOW).await;
    let (_, connect) = world.entitlements(&bearer, NOW).await;
    let site = &connect.sites[0];
    let seen: Vec<_> = site
        .gateways
        .iter()
        .map(|gateway| (gateway.address.as_str(), gateway.certificate_digests.len(), gateway.reported))
        .collect();
    let expected = [("203.0.113.10:443", 1, false), ("203.0.113.11:443", 0, false), ("192.0.2.7:443", 0, true)];
    assert_eq!(seen, expected);
    assert_eq!(site.digests_of(&joined.id).len(), 1);
    assert!(site.digests_of("another").is_empty());
}
