//! Relays as data: joining, passes, reports.

use std::collections::BTreeSet;

use ringfort_controller::core::Change;
use ringfort_token::{GatewayConfiguration, RelayPass};

use super::*;

const RELAY: &str = "relay.example.com";

fn invitee(name: &str) -> api::Invitee {
    api::Invitee::Relay { name: name.into() }
}

fn named(name: &str) -> api::Named {
    api::Named { name: name.into() }
}

impl World {
    async fn relay(&self, name: &str) -> (Client, v1::Joined) {
        let (cookie, ticket) = self.invite(invitee(name)).await;
        let client = Client::new("");
        let joined = self.core.join(client.join(&cookie, &ticket), NOW).await.unwrap();
        (client, joined)
    }

    async fn configured(&self, gateway: &str, now: UnixSeconds) -> Verified<GatewayConfiguration> {
        let text = self.core.configuration(gateway, now).await.unwrap();
        self.verify(&text, &audience::gateway(gateway), Holder::Nobody, now)
    }

    /// The names of the Relays in the connect token of somebody who logs in now.
    async fn connected(&self, device: &str) -> Vec<String> {
        let bearer = self.login("alice", &Client::new(device), NOW).await;
        self.entitlements(&bearer, NOW).await.1.relays.clone()
    }
}

#[tokio::test]
async fn a_relay_joins_once_by_its_fqdn() {
    let world = World::new().await;
    let (cookie, ticket) = world.invite(invitee(RELAY)).await;
    let other = world.invite(invitee(RELAY)).await;
    let joined = world.core.join(Client::new("").join(&cookie, &ticket), NOW).await.unwrap();
    assert_eq!((joined.kind.as_str(), joined.id.as_str()), ("relay", RELAY));
    let peer = world.peer(&joined.chain, Role::Relay, NOW);
    assert_eq!(peer.id(), RELAY);
    refused(world.core.join(Client::new("").join(&cookie, &ticket), NOW).await, "invitation_used");
    refused(world.core.join(Client::new("").join(&other.0, &other.1), NOW).await, "already_exists");
    let invite = async |name: &str| {
        let request = api::NewInvitation { invitee: invitee(name), expires_in: None };
        world.core.admin_invite(&world.admin(), request, NOW).await
    };
    refused(invite(RELAY).await, "already_exists");
    for name in ["relay", "Relay.example.com", "", "relay..com", "10.0.0.1/8", "controller.example"] {
        refused(invite(name).await, "request_malformed");
    }
    assert_eq!(world.core.relays(&world.admin()).await.unwrap().len(), 1);
}

// Covers: R10 allow
// Covers: R11 allow
#[tokio::test]
async fn a_configuration_has_every_relay_with_a_pass_for_it() {
    let world = World::new().await;
    let (_, gateway) = world.gateway("east-1", "east").await;
    world.grant("wiki", "alice", NOW).await;
    assert!(world.configured(&gateway.id, NOW).await.relays.is_empty());
    let mut changes = world.core.changes();
    world.relay(RELAY).await;
    world.relay("relay.example.org").await;
    let mut sites = BTreeSet::new();
    while let Ok(Change::Configuration { site }) = changes.try_recv() {
        sites.insert(site);
    }
    assert_eq!(sites.len(), 2, "the Gateways of all sites hear of it at once");
    let configuration = world.configured(&gateway.id, NOW).await;
    let names: Vec<_> = configuration.relays.iter().map(|relay| relay.fqdn.as_str()).collect();
    assert_eq!(names, [RELAY, "relay.example.org"]);
    for relay in &configuration.relays {
        let pass: Verified<RelayPass> = world.verify(&relay.pass, &audience::relay(&relay.fqdn), Holder::Nobody, NOW);
        assert!(pass.exp > NOW && pass.exp <= later(86_400), "{}", pass.exp);
    }
    // Each is for one Relay, and good once there.
    let deny = DenyList::default();
    let elsewhere = audience::relay("relay.example.org");
    let expectation = Expectation { audience: &elsewhere, holder: Holder::Nobody, now: NOW, deny: &deny };
    let first = Signed::<RelayPass>::from_text(&configuration.relays[0].pass).unwrap();
    let error = world.core.verifier().verify(&first, &expectation).unwrap_err();
    assert_eq!(error.code(), "token_wrong_audience");
    let again = world.configured(&gateway.id, NOW).await;
    assert_ne!(again.relays[0].pass, configuration.relays[0].pass);
    assert_eq!(world.connected("laptop").await, [RELAY, "relay.example.org"]);
}

// Covers: R14 allow
#[tokio::test]
async fn a_pass_tells_a_relay_nothing_of_the_gateway() {
    let world = World::new().await;
    let (_, gateway) = world.gateway("east-1", "east").await;
    let (_, other) = world.gateway("east-2", "east").await;
    world.relay(RELAY).await;
    let pass = async |gateway: &v1::Joined, now| -> Verified<RelayPass> {
        let configuration = world.configured(&gateway.id, now).await;
        world.verify(&configuration.relays[0].pass, &audience::relay(RELAY), Holder::Nobody, now)
    };
    let (today, same, others) = (pass(&gateway, NOW).await, pass(&gateway, later(60)).await, pass(&other, NOW).await);
    assert_eq!(today.sub, same.sub, "by which the Relay knows whom a client asks for");
    assert_ne!(today.sub, others.sub);
    let tomorrow = later(86_400);
    let next = pass(&gateway, tomorrow).await;
    assert_ne!(today.sub, next.sub, "nobody is followed from one day to the next");
    let day_ends = (NOW.0 / 86_400 + 1) * 86_400;
    assert!(today.exp.0 <= day_ends + 3_600, "a hash counts for an hour after its day");
    let text = serde_json::to_string(&*today).unwrap();
    for secret in [gateway.id.as_str(), "east", "203.0.113"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

// Covers: R15 allow
// Covers: R15 refuse
#[tokio::test]
async fn gateways_report_the_relays_that_they_are_connected_to() {
    let world = World::new().await;
    let (_, gateway) = world.gateway("east-1", "east").await;
    world.relay(RELAY).await;
    let peer = world.gateway_peer(&gateway);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &gateway.chain[0]);
    let report = async |relays: &[&str]| {
        let relays = relays.iter().map(|&relay| relay.into()).collect();
        let certificate_digest = digest.as_ref().to_vec().into();
        let report = v1::ReportRequest { relays, certificate_digest, ..v1::ReportRequest::default() };
        world.core.report(&peer, &report, NOW).await
    };
    let seen = async || world.core.relays(&world.admin()).await.unwrap().remove(0).gateways;
    report(&[]).await.unwrap();
    assert!(seen().await.is_empty());
    report(&[RELAY, "gone.example.com"]).await.unwrap();
    assert_eq!(seen().await, ["east-1"]);
    refused(report(&["no name"]).await, "request_malformed");
    refused(report(&[RELAY; 17]).await, "request_malformed");
    assert_eq!(seen().await, ["east-1"], "what was refused is not kept");
    report(&[]).await.unwrap();
    assert!(seen().await.is_empty());
}

#[tokio::test]
async fn a_removed_relay_is_believed_by_nobody_and_told_to_nobody() {
    let world = World::new().await;
    let (_, gateway) = world.gateway("east-1", "east").await;
    world.grant("wiki", "alice", NOW).await;
    let (client, joined) = world.relay(RELAY).await;
    let peer = world.peer(&joined.chain, Role::Relay, NOW);
    world.core.standing(&peer, NOW).unwrap();
    world.core.admin_remove_relay(&world.admin(), named(RELAY), NOW).await.unwrap();
    refused(world.core.standing(&peer, NOW), "certificate_revoked");
    assert!(world.configured(&gateway.id, NOW).await.relays.is_empty());
    assert!(world.connected("laptop").await.is_empty());
    refused(world.core.admin_remove_relay(&world.admin(), named(RELAY), NOW).await, "not_found");
    // The name is free for another key, and not for that one.
    let again = world.invite(invitee(RELAY)).await;
    refused(world.core.join(client.join(&again.0, &again.1), NOW).await, "certificate_revoked");
    let open = world.invite(invitee(RELAY)).await;
    world.core.admin_remove_relay(&world.admin(), named(RELAY), NOW).await.unwrap();
    refused(world.core.join(Client::new("").join(&open.0, &open.1), NOW).await, "invitation_expired");
}

#[tokio::test]
async fn there_are_sixteen_relays_at_most() {
    let world = World::new().await;
    for n in 0..16 {
        world.relay(&format!("relay-{n}.example.com")).await;
    }
    let (cookie, ticket) = world.invite(invitee(RELAY)).await;
    refused(world.core.join(Client::new("").join(&cookie, &ticket), NOW).await, "request_malformed");
}
