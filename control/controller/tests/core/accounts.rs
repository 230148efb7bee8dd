//! What becomes of accounts that are closed, and who decides about whom.

use ringfort_proto::api::AdministratorRole::{Admin, Owner};

use super::*;

fn named(name: &str) -> api::Named {
    api::Named { name: name.into() }
}

/// An administrator with a machine of their own.
async fn administrator(world: &World, name: &str, role: api::AdministratorRole) -> Bearer {
    let user = api::NewUser { name: name.into(), password: format!("{name} password"), role: Some(role), email: None };
    world.core.admin_new_user(&world.admin(), user, NOW).await.unwrap();
    world.login(name, &Client::new(&format!("{name}-machine")), NOW).await
}

async fn service(world: &World, name: &str) {
    let service = api::NewService { name: name.into() };
    world.core.admin_new_service(&world.admin(), service, NOW).await.unwrap();
}

fn invitation(invitee: api::Invitee) -> api::NewInvitation {
    api::NewInvitation { invitee, expires_in: None }
}

#[tokio::test]
async fn keys_of_whoever_is_shut_out_are_dead_for_good() {
    let world = World::new().await;
    let (alice, bob) = (Client::new("laptop"), Client::new("phone"));
    let bearer = world.login("alice", &alice, NOW).await;
    let chain = world.core.certificate(&bearer, &alice.request(), NOW).await.unwrap().chain;
    let chain: Vec<_> = chain.iter().map(|one| URL_SAFE_NO_PAD.decode(one).unwrap()).collect();
    let peer = world.peer(&chain, Role::Device, NOW);
    world.login("bob", &bob, NOW).await;
    let open = world.invite(api::Invitee::Device { user: "alice".into() }).await;
    let kept = world.invite(api::Invitee::Device { user: "bob".into() }).await;

    world.core.admin_disable_user(&world.admin(), named("alice"), NOW).await.unwrap();
    refused(world.core.standing(&peer, NOW), "certificate_revoked");
    // Enabled again she comes with a new key, under the same name if she likes; the old one and the invitation stay dead.
    world.core.admin_enable_user(&world.admin(), named("alice"), NOW).await.unwrap();
    refused(world.core.standing(&peer, NOW), "certificate_revoked");
    refused(alice.login(&world.core, "alice", "alice password", NOW).await, "certificate_revoked");
    refused(world.core.join(Client::new("tablet").join(&open.0, &open.1), NOW).await, "invitation_expired");
    world.login("alice", &Client::new("laptop"), NOW).await;
    // Others are not concerned.
    world.login("bob", &bob, NOW).await;
    world.core.join(Client::new("desk").join(&kept.0, &kept.1), NOW).await.unwrap();
    // Who is removed takes the keys with them.
    world.core.admin_remove_user(&world.admin(), named("bob"), NOW).await.unwrap();
    refused(bob.login(&world.core, "alice", "alice password", NOW).await, "certificate_revoked");
}

#[tokio::test]
async fn an_admin_takes_nothing_from_an_owner_and_brings_them_no_machine() {
    let world = World::new().await;
    let core = &world.core;
    let bearer = administrator(&world, "admin", Admin).await;
    let admin: Administrator<action::Revoke> = core.administrator(&bearer, NOW).await.unwrap();
    core.admin_new_group(&world.admin(), api::NewGroup { name: "staff".into() }, NOW).await.unwrap();
    for user in ["alice", "root"] {
        let member = api::Membership { group: "staff".into(), user: user.into() };
        core.admin_add_member(&world.admin(), member, NOW).await.unwrap();
    }
    let sessions = core.sessions(&world.admin(), NOW).await.unwrap();
    let token_of = |user: &str| sessions.iter().find(|row| row.user == user).unwrap().claims.clone();
    let revoke = |scope| {
        let request = api::NewRevocation { scope, reason: "for a test".into(), grace_seconds: None };
        core.admin_revoke(&admin, request, NOW)
    };
    let serial = core.serial();
    for scope in [
        api::RevocationScope::User("root".into()),
        api::RevocationScope::Device("admin-device".into()),
        api::RevocationScope::Token(token_of("root")),
        api::RevocationScope::Group("staff".into()),
        api::RevocationScope::Everyone,
    ] {
        refused(revoke(scope).await, "role_insufficient");
    }
    refused(core.admin_disable_user(&admin.also().unwrap(), named("root"), NOW).await, "role_insufficient");
    let inviter: Administrator<action::Invite> = admin.also().unwrap();
    let root = api::Invitee::Device { user: "root".into() };
    refused(core.admin_invite(&inviter, invitation(root), NOW).await, "role_insufficient");
    assert_eq!(core.serial(), serial, "nothing was taken");
    // Of users they may, and of what is their own.
    let own = api::Invitee::Device { user: "admin".into() };
    core.admin_invite(&inviter, invitation(own), NOW).await.unwrap();
    core.admin_invite(&inviter, invitation(api::Invitee::Device { user: "alice".into() }), NOW).await.unwrap();
    revoke(api::RevocationScope::User("alice".into())).await.unwrap();
    revoke(api::RevocationScope::Device("admin-machine".into())).await.unwrap();
    refused(core.administrator::<action::Revoke>(&bearer, NOW).await, "token_revoked");
    // An owner may all of it.
    world.revoke(api::RevocationScope::Everyone, None, NOW).await.unwrap();
}

#[tokio::test]
async fn no_program_is_an_administrator() {
    let world = World::new().await;
    service(&world, "backup").await;
    let change = |role| api::RoleChange { name: "backup".into(), role };
    for role in api::AdministratorRole::ALL {
        refused(world.core.admin_change_role(&world.admin(), change(Some(role)), NOW).await, "request_malformed");
    }
    let admin: Administrator<action::Invite> = world.admin();
    let request = || invitation(api::Invitee::Service { name: "backup".into() });
    world.core.admin_invite(&admin, request(), NOW).await.unwrap();
    // Not even where the database says so.
    database::execute(&state(world.folder.path()), "UPDATE users SET role = 'owner' WHERE name = 'backup'").await;
    refused(world.core.admin_invite(&admin, request(), NOW).await, "request_malformed");
    let root = api::RoleChange { name: "root".into(), role: None };
    refused(world.core.admin_change_role(&world.admin(), root, NOW).await, "request_malformed");
    world.core.admin_change_role(&world.admin(), change(None), NOW).await.unwrap();
    world.core.admin_invite(&admin, request(), NOW).await.unwrap();
}

#[tokio::test]
async fn an_owner_who_may_not_log_in_is_nobodys_last_hope() {
    let world = World::new().await;
    let core = &world.core;
    administrator(&world, "carol", Owner).await;
    let demoted = |name: &str| api::RoleChange { name: name.into(), role: None };
    core.admin_disable_user(&world.admin(), named("carol"), NOW).await.unwrap();
    refused(core.admin_change_role(&world.admin(), demoted("root"), NOW).await, "request_malformed");
    refused(core.admin_disable_user(&world.admin(), named("root"), NOW).await, "request_malformed");
    refused(core.admin_remove_user(&world.admin(), named("root"), NOW).await, "request_malformed");
    // She is none whose place must be taken.
    core.admin_change_role(&world.admin(), demoted("carol"), NOW).await.unwrap();
    let owner = api::RoleChange { name: "carol".into(), role: Some(Owner) };
    core.admin_change_role(&world.admin(), owner, NOW).await.unwrap();
    core.admin_remove_user(&world.admin(), named("carol"), NOW).await.unwrap();
}

#[tokio::test]
async fn what_was_taken_back_stays_so_for_as_long_as_any_token_may_last() {
    let world = World::new().await;
    let laptop = Client::new("laptop");
    let request = laptop.credentials("alice", "alice password");
    let claims = world.core.login(&request, laptop.thumbprint(), FROM, NOW).await.unwrap().claims;
    // Logins last for a minute from now on, and that one does not hear of it.
    let lowered = Settings { login_seconds: 60, ..settings(world.folder.path()).await };
    let folder = state(world.folder.path());
    let core = Core::open(&folder, &lowered, None, NOW).await.unwrap();
    let revocation = api::NewRevocation {
        scope: api::RevocationScope::User("alice".into()),
        reason: "for a test".into(),
        grace_seconds: None,
    };
    core.admin_revoke(&world.admin(), revocation, NOW).await.unwrap();
    drop(core);
    let core = Core::open(&folder, &lowered, None, later(6 * 3_600)).await.unwrap();
    refused(core.bearer(&claims, &laptop.thumbprint(), later(6 * 3_600)), "token_revoked");
}

#[tokio::test]
async fn names_that_nobody_types_are_refused_before_the_database_is_asked() {
    let world = World::new().await;
    for name in ["al\0ice", "alice\n", "\u{7f}", "alice\u{85}"] {
        let answer = Client::new("laptop").login(&world.core, name, "alice password", NOW).await;
        refused(answer, "request_malformed");
    }
    // What is written of them can be written.
    let (actor, target) = ("192.0.2.1\0", "al\0ice");
    let event = ringfort_controller::core::Event { actor, action: "login", target, outcome: "x", detail: "\0" };
    let id = world.core.audit(event, NOW).await;
    let newest = world.core.events(&world.admin(), Default::default()).await.unwrap().remove(0);
    assert_eq!((newest.id, newest.target.as_str()), (id, "al\u{fffd}ice"));
}
