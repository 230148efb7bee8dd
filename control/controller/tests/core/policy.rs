//! Policies applied as a whole.

use ringfort_proto::api::{Policy, PolicyStep};

use super::*;

async fn current(world: &World) -> api::PolicyState {
    world.core.policy(&world.admin()).await.unwrap()
}

async fn plan(world: &World, policy: &Policy) -> Result<api::PolicyPlan, Refused> {
    let request = api::PolicyWanted { policy: policy.clone() };
    world.core.admin_plan_policy(&world.admin(), request, NOW).await
}

async fn apply(world: &World, policy: &Policy) -> Result<api::PolicyApplied, Refused> {
    let digest = plan(world, policy).await?.digest;
    world.core.admin_apply_policy(&world.admin(), api::PolicyChange { policy: policy.clone(), digest }, NOW).await
}

/// The wiki for alice and the staff, build for the staff, and a site that was not there.
fn wanted() -> Policy {
    toml::from_str(
        r#"
        [sites.east]
        pools = ["10.97.0.1/24", "fd00:97::1/64"]
        [sites.north]
        pools = ["10.95.0.1/24"]
        [groups.staff]
        members = ["alice", "bob"]
        [resources.wiki]
        site = "east"
        to = ["10.1.0.1"]
        services = ["tcp/443"]
        users = ["alice"]
        [resources.build]
        site = "north"
        to = ["10.1.0.2"]
        services = ["tcp/80"]
        groups = ["staff"]
        "#,
    )
    .unwrap()
}

#[tokio::test]
async fn a_policy_is_put_into_force_whole_and_once() {
    let world = World::new().await;
    world.grant("wiki", "alice", NOW).await;
    world.grant("db", "bob", NOW).await;
    let bearer = world.login("alice", &Client::new("laptop"), NOW).await;
    let wanted = wanted();
    let planned = plan(&world, &wanted).await.unwrap();
    assert!(planned.steps.contains(&PolicyStep::RemoveSite { site: "west".into() }), "{:?}", planned.steps);
    assert_eq!(current(&world).await.digest, planned.digest, "a plan changes nothing");

    let mut changes = world.core.changes();
    let applied = apply(&world, &wanted).await.unwrap();
    assert_eq!(applied.steps, planned.steps);
    assert_eq!(applied.pushed.entitlements, 2, "alice's at two sites");
    assert_eq!(current(&world).await.policy, wanted);
    let mut pushed = Vec::new();
    while let Ok(change) = changes.try_recv() {
        if let ringfort_controller::core::Change::Entitlement { token, .. } = change {
            let key = bearer.claims().cnf.jkt;
            let site = audience_of(&token);
            let token: Verified<EntitlementToken> = world.verify(&token, &site, Holder::Key(&key), NOW);
            pushed.extend(token.grants.iter().map(|grant| (grant.name.clone(), grant.services.clone())));
        }
    }
    pushed.sort();
    let one = |name: &str, service: &str| (name.to_owned(), vec![service.to_owned()]);
    assert_eq!(pushed, [one("build", "tcp/80"), one("wiki", "tcp/443")]);
    // Once more does nothing, and what is exported is what was applied.
    let again = apply(&world, &current(&world).await.policy).await.unwrap();
    assert!(again.steps.is_empty() && again.pushed.entitlements == 0);

    let events = world.core.events(&world.admin(), Default::default()).await.unwrap();
    let steps = events.iter().filter(|event| event.action != "apply-policy" && event.actor == "root").count();
    assert!(steps >= applied.steps.len(), "each step is an event of its own");
    let whole = events.iter().find(|event| event.detail == format!("{} steps", applied.steps.len())).unwrap();
    assert_eq!((whole.action.as_str(), whole.actor.as_str()), ("apply-policy", "root"));
}

/// Whom a token is for, unchecked: the check that follows is told.
fn audience_of(token: &str) -> String {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    payload["aud"].as_str().or(payload["aud"][0].as_str()).unwrap().to_owned()
}

#[tokio::test]
async fn what_was_changed_meanwhile_is_not_overwritten() {
    let world = World::new().await;
    let policy = wanted();
    let digest = plan(&world, &policy).await.unwrap().digest;
    world.grant("db", "bob", NOW).await;
    let stale = api::PolicyChange { policy, digest };
    refused(world.core.admin_apply_policy(&world.admin(), stale, NOW).await, "policy_changed");
    assert!(current(&world).await.policy.resources["db"].users.contains("bob"));
}

#[tokio::test]
async fn a_policy_that_cannot_be_carried_out_is_none() {
    let world = World::new().await;
    let before = current(&world).await;
    let broken = |change: fn(&mut Policy)| {
        let mut policy = wanted();
        change(&mut policy);
        policy
    };
    let unknown_user = broken(|policy| {
        policy.groups.get_mut("staff").unwrap().members.insert("nobody".into());
    });
    let refusal = apply(&world, &unknown_user).await.unwrap_err();
    assert_eq!(refusal.code, "not_found");
    assert!(refusal.message.contains("nobody"), "{refusal}");
    let unknown_site = broken(|policy| drop(policy.sites.remove("north")));
    let refusal = apply(&world, &unknown_site).await.unwrap_err();
    assert_eq!(refusal.code, "request_malformed");
    assert!(refusal.message.contains("resources.build"), "{refusal}");
    // A site with a Gateway neither goes nor has other pools.
    world.gateway("west-1", "west").await;
    let refusal = apply(&world, &wanted()).await.unwrap_err();
    assert!(refusal.message.contains("west"), "{refusal}");
    let mut pools = before.policy.clone();
    pools.sites.get_mut("west").unwrap().pools = ["10.94.0.1/24".to_owned()].into();
    refused(apply(&world, &pools).await, "request_malformed");
    assert_eq!(current(&world).await, before, "nothing of it was done");
    // Without one it has.
    let mut pools = before.policy.clone();
    pools.sites.get_mut("east").unwrap().pools = ["10.94.0.1/24".to_owned()].into();
    apply(&world, &pools).await.unwrap();
    world.grant("wiki", "alice", NOW).await;
    let bearer = world.login("alice", &Client::new("laptop"), NOW).await;
    let (tokens, _) = world.entitlements(&bearer, NOW).await;
    assert!(tokens[0].inner.ipv4.unwrap().to_string().starts_with("10.94.0."), "{:?}", tokens[0].inner);
}

#[tokio::test]
async fn an_auditor_sees_and_does_not_apply() {
    let world = World::new().await;
    let role = Some(api::AdministratorRole::Auditor);
    let user = api::NewUser { name: "eve".into(), password: "eve password".into(), role, email: None };
    world.core.admin_new_user(&world.admin(), user, NOW).await.unwrap();
    let eve = world.login("eve", &Client::new("eve-machine"), NOW).await;
    let seeing: Administrator<action::SeePolicy> = world.core.administrator(&eve, NOW).await.unwrap();
    world.core.policy(&seeing).await.unwrap();
    world.core.admin_plan_policy(&seeing, api::PolicyWanted { policy: wanted() }, NOW).await.unwrap();
    refused(world.core.administrator::<action::ApplyPolicy>(&eve, NOW).await, "role_insufficient");
}
