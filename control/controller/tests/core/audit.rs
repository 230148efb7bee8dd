//! The audit log: what changed, page by page, and added to only.

use std::cell::RefCell;
use std::collections::BTreeSet;

use ringfort_controller::core::EventsAsked;
use ringfort_directory::external_otp::OtpAnswer;
use serde_json::{Value, json};

use super::*;

/// Actions of which there is nothing to say: they change nothing.
const CHANGE_NOTHING: [&str; 9] = [
    "list-users",
    "list-gateways",
    "list-controllers",
    "list-hosts",
    "list-relays",
    "list-sessions",
    "list-audit",
    "see-receipts",
    "see-policy",
];

/// The first administrator, and the actions of the table that they were asked for.
struct Seen<'a> {
    world: &'a World,
    actions: RefCell<BTreeSet<&'static str>>,
}

impl Seen<'_> {
    fn admin<A: Action>(&self) -> Administrator<A> {
        self.actions.borrow_mut().insert(A::NAME);
        self.world.admin()
    }
}

async fn newest(world: &World) -> api::AuditRow {
    let asked = EventsAsked { limit: 1, ..EventsAsked::default() };
    world.core.events(&world.admin(), asked).await.unwrap().remove(0)
}

/// Every action of the table that changes anything, in an order in which it can.
#[tokio::test]
async fn every_action_says_what_was_before_and_what_is_after() {
    let world = World::new().await;
    let core = &world.core;
    let seen = Seen { world: &world, actions: RefCell::default() };
    macro_rules! done {
        ($answer:expr => $action:literal, $before:expr, $after:expr) => {
            $answer.await.unwrap();
            let row = newest(&world).await;
            assert_eq!((row.action.as_str(), row.outcome.as_str(), row.actor.as_str()), ($action, "ok", "root"));
            let (before, after): (Value, Value) = ($before, $after);
            assert_eq!((row.before.unwrap_or_default(), row.after.unwrap_or_default()), (before, after), $action);
        };
    }
    let named = |name: &str| api::Named { name: name.into() };
    let new =
        |name: &str| api::NewUser { name: name.into(), password: "carols password".into(), role: None, email: None };
    done!(core.admin_new_user(&seen.admin(), new("carol"), NOW) => "new-user",
        Value::Null, json!({ "name": "carol", "role": "none" }));
    let role = api::RoleChange { name: "carol".into(), role: Some(api::AdministratorRole::Admin) };
    done!(core.admin_change_role(&seen.admin(), role, NOW) => "change-role",
        json!({ "role": "none" }), json!({ "role": "admin" }));
    let pools = vec!["10.95.0.1/24".to_owned()];
    let site = json!({ "name": "north", "pools": ["10.95.0.1/24"] });
    done!(core.admin_new_site(&seen.admin(), api::NewSite { name: "north".into(), pools }, NOW) => "new-site",
        Value::Null, site.clone());
    let printer = json!({ "name": "printer", "site": "north", "to": ["10.3.0.1"], "services": ["tcp/80"] });
    done!(core.admin_new_resource(&seen.admin(), resource("printer", "north", "10.3.0.1"), NOW) => "new-resource",
        Value::Null, printer.clone());
    done!(core.admin_new_group(&seen.admin(), api::NewGroup { name: "staff".into() }, NOW) => "new-group",
        Value::Null, json!({ "name": "staff" }));
    let member = || api::Membership { group: "staff".into(), user: "carol".into() };
    done!(core.admin_add_member(&seen.admin(), member(), NOW) => "add-member",
        json!({ "groups": [] }), json!({ "groups": ["staff"] }));
    let principal = api::Principal::Group("staff".into());
    let change = api::EntitlementChange { resource: "printer".into(), principal };
    let entitled = |entitled: bool| json!({ "resource": "printer", "of": "group staff", "entitled": entitled });
    done!(core.admin_grant(&seen.admin(), change.clone(), NOW) => "grant", entitled(false), entitled(true));
    done!(core.admin_take_back(&seen.admin(), change, NOW) => "take-back", entitled(true), entitled(false));
    let revocation = |grace_seconds| api::NewRevocation {
        scope: api::RevocationScope::User("carol".into()),
        reason: "exercise".into(),
        grace_seconds,
    };
    done!(core.admin_revoke(&seen.admin(), revocation(Some(30)), NOW) => "renew",
        Value::Null, json!({ "of": "user carol", "good_until": later(30).0, "reason": "exercise" }));
    done!(core.admin_revoke(&seen.admin(), revocation(None), NOW) => "revoke",
        Value::Null, json!({ "of": "user carol", "good_until": null, "reason": "exercise" }));
    done!(core.admin_remove_member(&seen.admin(), member(), NOW) => "remove-member",
        json!({ "groups": ["staff"] }), json!({ "groups": [] }));
    done!(core.admin_remove_group(&seen.admin(), named("staff"), NOW) => "remove-group",
        json!({ "name": "staff", "members": [] }), Value::Null);
    done!(core.admin_remove_resource(&seen.admin(), named("printer"), NOW) => "remove-resource", printer, Value::Null);
    done!(core.admin_remove_site(&seen.admin(), named("north"), NOW) => "remove-site", site, Value::Null);
    done!(core.admin_remove_user(&seen.admin(), named("carol"), NOW) => "remove-user",
        json!({ "name": "carol", "role": "admin", "groups": [] }), Value::Null);

    let email = |email: Option<&str>| api::UserEmail { name: "bob".into(), email: email.map(str::to_owned) };
    let address = "bob@example.org";
    done!(core.admin_set_email(&seen.admin(), email(Some(address)), NOW) => "set-email",
        json!({ "email": null, "known_to": [] }), json!({ "email": address }));
    done!(core.admin_set_email(&seen.admin(), email(None), NOW) => "set-email",
        json!({ "email": address, "known_to": [] }), json!({ "email": null }));
    let active = |active: bool| json!({ "active": active });
    done!(core.admin_disable_user(&seen.admin(), named("bob"), NOW) => "disable-user", active(true), active(false));
    done!(core.admin_enable_user(&seen.admin(), named("bob"), NOW) => "enable-user", active(false), active(true));
    let otp = |kind: &str| json!({ "otp": kind });
    core.set_external_otp(|_| Box::pin(async { Ok(OtpAnswer::Deny) }));
    let answer = core.admin_new_totp(&seen.admin(), named("bob"), NOW).await.unwrap();
    let row = newest(&world).await;
    assert_eq!((row.action.as_str(), row.before, row.after), ("new-totp", None, Some(otp("totp"))));
    done!(core.admin_remove_totp(&seen.admin(), named("bob"), NOW) => "remove-totp", otp("totp"), Value::Null);
    done!(core.admin_set_external_otp(&seen.admin(), named("bob"), NOW) => "set-external-otp",
        Value::Null, otp("external"));
    done!(core.admin_remove_external_otp(&seen.admin(), named("bob"), NOW) => "remove-external-otp",
        otp("external"), Value::Null);
    done!(core.admin_new_service(&seen.admin(), api::NewService { name: "backup".into() }, NOW) => "new-service",
        Value::Null, json!({ "name": "backup", "service": true }));
    done!(core.admin_add_host(&seen.admin(), named("nas.example"), NOW) => "add-host",
        Value::Null, json!({ "name": "nas.example" }));
    done!(core.admin_remove_host(&seen.admin(), named("nas.example"), NOW) => "remove-host",
        json!({ "name": "nas.example", "jkt": [], "invitations": 0 }), Value::Null);
    let state = core.policy(&world.admin()).await.unwrap();
    let mut policy = state.policy;
    policy.groups.insert("night".into(), api::PolicyGroup::default());
    let planned = core.admin_plan_policy(&world.admin(), api::PolicyWanted { policy: policy.clone() }, NOW).await;
    assert_eq!(planned.unwrap().digest, state.digest);
    let change = api::PolicyChange { policy, digest: state.digest.clone() };
    core.admin_apply_policy(&seen.admin(), change, NOW).await.unwrap();
    let (row, now_in_force) = (newest(&world).await, core.policy(&world.admin()).await.unwrap().digest);
    assert_eq!((row.action.as_str(), row.before), ("apply-policy", Some(json!({ "digest": state.digest }))));
    assert_eq!(row.after, Some(json!({ "digest": now_in_force, "steps": 1 })));

    let request = |invitee| api::NewInvitation { invitee, expires_in: None };
    let invitee = api::Invitee::Gateway { name: "east-9".into(), site: "east".into() };
    let invitation = core.admin_invite(&seen.admin(), request(invitee), NOW).await.unwrap();
    let invited = newest(&world).await.after.unwrap();
    assert_eq!((&invited["kind"], &invited["for"]), (&json!("gateway"), &json!("east-9")));
    assert_eq!(invited["expires_at"], later(7 * 86_400).0);
    world.invite(api::Invitee::Relay { name: "relay.example".into() }).await;
    done!(core.admin_remove_relay(&seen.admin(), named("relay.example"), NOW) => "remove-relay",
        json!({ "name": "relay.example", "jkt": null, "invitations": 1 }), Value::Null);
    let (_, joined, _) = several::join(&world, "second").await;
    let invited = core.events(&world.admin(), EventsAsked::default()).await.unwrap().into_iter();
    let invited = invited.filter(|row| row.action == "invite").filter_map(|row| row.after);
    assert!(invited.into_iter().any(|after| after["kind"] == "controller"));
    // To invite one is an action of its own, and is called as other invitations are.
    let _: Administrator<action::InviteController> = seen.admin();
    done!(core.admin_remove_controller(&seen.admin(), named(&joined.id), NOW) => "remove-controller",
        json!({ "address": "", "id": joined.id }), Value::Null);
    let (_, joined) = world.gateway("east-1", "east").await;
    let drain = api::Drain { name: "east-1".into(), draining: true };
    done!(core.admin_drain(&seen.admin(), drain, NOW) => "drain",
        json!({ "draining": false }), json!({ "draining": true }));
    core.admin_remove_gateway(&seen.admin(), named("east-1"), NOW).await.unwrap();
    let removed = newest(&world).await.before.unwrap();
    assert_eq!((&removed["id"], &removed["addresses"]), (&json!(joined.id), &json!(["203.0.113.10:443"])));
    let told: BTreeSet<_> = seen.actions.take().into_iter().chain(CHANGE_NOTHING).collect();
    assert_eq!(told, action::NAMES.iter().copied().collect(), "an action that is new belongs here");

    // Of what is secret nothing is told.
    let all = core.events(&world.admin(), EventsAsked::default()).await.unwrap();
    let text = serde_json::to_string(&all).unwrap();
    let cookie = URL_SAFE_NO_PAD.encode(cookie(&invitation.url));
    for secret in ["carols password", "argon2", &answer.secret, &invitation.ticket, &cookie] {
        assert!(!text.contains(secret), "{secret}");
    }
}

/// Whatever the database is.
#[tokio::test]
async fn no_statement_changes_or_removes_an_event() {
    let world = World::new().await;
    let read = async || world.core.events(&world.admin(), EventsAsked::default()).await.unwrap();
    let before = read().await;
    let whole = match database::is_postgres() {
        true => "TRUNCATE audit",
        false => "INSERT OR REPLACE INTO audit SELECT * FROM audit",
    };
    let one = ["UPDATE audit SET outcome = 'changed' WHERE n = 1", "DELETE FROM audit WHERE n = 1"];
    for statement in [one[0], one[1], "UPDATE audit SET actor = 'nobody'", "DELETE FROM audit", whole] {
        let refused = database::attempt(&state(world.folder.path()), statement).await.unwrap_err().to_string();
        assert!(refused.contains("audit events are not"), "{statement}: {refused}");
    }
    assert_eq!(read().await, before);
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
