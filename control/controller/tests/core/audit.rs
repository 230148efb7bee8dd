//! The audit log: what changed, page by page, and added to only.

use ringfort_controller::core::EventsAsked;
use serde_json::{Value, json};

use super::*;

async fn newest(world: &World) -> api::AuditRow {
    let asked = EventsAsked { limit: 1, ..EventsAsked::default() };
    world.core.events(&world.admin(), asked).await.unwrap().remove(0)
}

/// Every action of an administrator that changes anything, in an order in which it can.
#[tokio::test]
async fn every_action_says_what_was_before_and_what_is_after() {
    let world = World::new().await;
    let core = &world.core;
    let mut seen = Vec::new();
    macro_rules! done {
        ($answer:expr => $action:literal, $before:expr, $after:expr) => {
            $answer.await.unwrap();
            let row = newest(&world).await;
            assert_eq!((row.action.as_str(), row.outcome.as_str(), row.actor.as_str()), ($action, "ok", "root"));
            let (before, after): (Value, Value) = ($before, $after);
            assert_eq!((row.before.unwrap_or_default(), row.after.unwrap_or_default()), (before, after), $action);
            seen.push($action);
        };
    }
    let named = |name: &str| api::Named { name: name.into() };
    let new =
        |name: &str| api::NewUser { name: name.into(), password: "carols password".into(), role: None, email: None };
    done!(core.admin_new_user(&world.admin(), new("carol"), NOW) => "new-user",
        Value::Null, json!({ "name": "carol", "role": "none" }));
    let role = api::RoleChange { name: "carol".into(), role: Some(api::AdministratorRole::Admin) };
    done!(core.admin_change_role(&world.admin(), role, NOW) => "change-role",
        json!({ "role": "none" }), json!({ "role": "admin" }));
    let pools = vec!["10.95.0.1/24".to_owned()];
    let site = json!({ "name": "north", "pools": ["10.95.0.1/24"] });
    done!(core.admin_new_site(&world.admin(), api::NewSite { name: "north".into(), pools }, NOW) => "new-site",
        Value::Null, site.clone());
    let printer = json!({ "name": "printer", "site": "north", "to": ["10.3.0.1"], "services": ["tcp/80"] });
    done!(core.admin_new_resource(&world.admin(), resource("printer", "north", "10.3.0.1"), NOW) => "new-resource",
        Value::Null, printer.clone());
    done!(core.admin_new_group(&world.admin(), api::NewGroup { name: "staff".into() }, NOW) => "new-group",
        Value::Null, json!({ "name": "staff" }));
    let member = || api::Membership { group: "staff".into(), user: "carol".into() };
    done!(core.admin_add_member(&world.admin(), member(), NOW) => "add-member",
        json!({ "groups": [] }), json!({ "groups": ["staff"] }));
    let principal = api::Principal::Group("staff".into());
    let change = api::EntitlementChange { resource: "printer".into(), principal };
    let entitled = |entitled: bool| json!({ "resource": "printer", "of": "group staff", "entitled": entitled });
    done!(core.admin_grant(&world.admin(), change.clone(), NOW) => "grant", entitled(false), entitled(true));
    done!(core.admin_take_back(&world.admin(), change, NOW) => "take-back", entitled(true), entitled(false));
    let revocation = |grace_seconds| api::NewRevocation {
        scope: api::RevocationScope::User("carol".into()),
        reason: "exercise".into(),
        grace_seconds,
    };
    done!(core.admin_revoke(&world.admin(), revocation(Some(30)), NOW) => "renew",
        Value::Null, json!({ "of": "user carol", "good_until": later(30).0, "reason": "exercise" }));
    done!(core.admin_revoke(&world.admin(), revocation(None), NOW) => "revoke",
        Value::Null, json!({ "of": "user carol", "good_until": null, "reason": "exercise" }));
    done!(core.admin_remove_member(&world.admin(), member(), NOW) => "remove-member",
        json!({ "groups": ["staff"] }), json!({ "groups": [] }));
    done!(core.admin_remove_group(&world.admin(), named("staff"), NOW) => "remove-group",
        json!({ "name": "staff", "members": [] }), Value::Null);
    done!(core.admin_remove_resource(&world.admin(), named("printer"), NOW) => "remove-resource", printer, Value::Null);
    done!(core.admin_remove_site(&world.admin(), named("north"), NOW) => "remove-site", site, Value::Null);
    done!(core.admin_remove_user(&world.admin(), named("carol"), NOW) => "remove-user",
        json!({ "name": "carol", "role": "admin", "groups": [] }), Value::Null);

    let invitee = api::Invitee::Gateway { name: "east-9".into(), site: "east".into() };
    let invitation = world.invite(invitee).await;
    let invited = newest(&world).await.after.unwrap();
    assert_eq!((&invited["kind"], &invited["for"]), (&json!("gateway"), &json!("east-9")));
    assert_eq!(invited["expires_at"], later(7 * 86_400).0);
    let (_, joined) = world.gateway("east-1", "east").await;
    let drain = api::Drain { name: "east-1".into(), draining: true };
    done!(core.admin_drain(&world.admin(), drain, NOW) => "drain",
        json!({ "draining": false }), json!({ "draining": true }));
    core.admin_remove_gateway(&world.admin(), named("east-1"), NOW).await.unwrap();
    let removed = newest(&world).await.before.unwrap();
    assert_eq!((&removed["id"], &removed["addresses"]), (&json!(joined.id), &json!(["203.0.113.10:443"])));
    seen.extend(["invite", "remove-gateway"]);
    assert_eq!(seen.len(), 18, "an action that is new belongs here");

    // Of what is secret nothing is told.
    let all = core.events(&world.admin(), EventsAsked::default()).await.unwrap();
    let text = serde_json::to_string(&all).unwrap();
    for secret in ["carols password", "argon2", &invitation.1, &URL_SAFE_NO_PAD.encode(&invitation.0)] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn the_log_is_read_page_by_page_and_by_time() {
    let world = World::new().await;
    for n in 0..25 {
        world.core.admin_new_group(&world.admin(), api::NewGroup { name: format!("g{n}") }, later(n)).await.unwrap();
    }
    let read = async |asked| world.core.events(&world.admin(), asked).await.unwrap();
    let all = read(EventsAsked::default()).await;
    let mut pages = Vec::new();
    let mut asked = EventsAsked { limit: 7, ..EventsAsked::default() };
    loop {
        let page = read(asked).await;
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 7);
        asked.below = Some(last.n);
        pages.extend(page);
    }
    assert_eq!(pages, all, "each event once, in order");
    assert_eq!(all.iter().map(|row| row.n).collect::<Vec<_>>(), (1..=all.len() as u64).rev().collect::<Vec<_>>());
    let since = read(EventsAsked { since: later(20), ..EventsAsked::default() }).await;
    assert_eq!(since.iter().map(|row| row.target.as_str()).collect::<Vec<_>>(), ["g24", "g23", "g22", "g21", "g20"]);
    for limit in [0, 1_001] {
        let asked = EventsAsked { limit, ..EventsAsked::default() };
        refused(world.core.events(&world.admin(), asked).await, "request_malformed");
    }
}
