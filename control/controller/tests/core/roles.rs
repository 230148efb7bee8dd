//! What each role may do, and who makes whom what.

use std::future::Future;
use std::pin::Pin;

use ringfort_proto::api::AdministratorRole::{Admin, Auditor, Owner};

use super::*;

async fn add(world: &World, name: &str, role: Option<api::AdministratorRole>) -> Bearer {
    let user = api::NewUser { name: name.into(), password: format!("{name} password"), role, email: None };
    world.core.admin_new_user(&world.admin(), user, NOW).await.unwrap();
    world.login(name, &Client::new(&format!("{name}-machine")), NOW).await
}

async fn change(world: &World, name: &str, role: Option<api::AdministratorRole>) -> Result<(), Refused> {
    world.core.admin_change_role(&world.admin(), api::RoleChange { name: name.into(), role }, NOW).await
}

/// The table, by the least role of each action.
macro_rules! table {
    ($($least:ident: $($action:ident)*;)*) => { vec![$(($least, vec![$(|core: Core, bearer: Bearer| {
        let proof = async move { core.administrator::<action::$action>(&bearer, NOW).await.map(drop) };
        Box::pin(proof) as Pin<Box<dyn Future<Output = Result<(), Refused>>>>
    }),*])),*] };
}

#[tokio::test]
async fn every_action_is_for_its_least_role_and_those_above() {
    type Ask = fn(Core, Bearer) -> Pin<Box<dyn Future<Output = Result<(), Refused>>>>;
    let actions: Vec<(_, Vec<Ask>)> = table! {
        Auditor: ListUsers ListGateways ListSessions ListAudit SeeReceipts;
        Admin: NewUser RemoveUser NewSite RemoveSite NewResource RemoveResource NewGroup RemoveGroup AddMember
            RemoveMember Grant TakeBack Invite Revoke RemoveGateway OperateGateway;
        Owner: ChangeRole;
    };
    let world = World::new().await;
    for role in api::AdministratorRole::ALL {
        let bearer = add(&world, role.as_str(), Some(role)).await;
        for (least, actions) in &actions {
            for ask in actions {
                match role >= *least {
                    true => ask(world.core.clone(), bearer.clone()).await.unwrap(),
                    false => refused(ask(world.core.clone(), bearer.clone()).await, "role_insufficient"),
                }
            }
        }
    }
    let nobody = add(&world, "nobody", None).await;
    for (_, actions) in &actions {
        for ask in actions {
            refused(ask(world.core.clone(), nobody.clone()).await, "not_administrator");
        }
    }
}

#[tokio::test]
async fn only_an_owner_makes_and_unmakes_administrators() {
    let world = World::new().await;
    let core = &world.core;
    let bearer = add(&world, "admin", Some(Admin)).await;
    let admin: Administrator<action::NewUser> = core.administrator(&bearer, NOW).await.unwrap();
    let new = |name: &str, role| api::NewUser { name: name.into(), password: "long enough".into(), role, email: None };
    for role in api::AdministratorRole::ALL {
        refused(core.admin_new_user(&admin, new("friend", Some(role)), NOW).await, "role_insufficient");
    }
    core.admin_new_user(&admin, new("friend", None), NOW).await.unwrap();
    let named = |name: &str| api::Named { name: name.into() };
    let remover = admin.also().unwrap();
    refused(core.admin_remove_user(&remover, named("root"), NOW).await, "role_insufficient");
    refused(core.admin_remove_user(&remover, named("admin"), NOW).await, "role_insufficient");
    core.admin_remove_user(&remover, named("friend"), NOW).await.unwrap();
    refused(admin.also::<action::ChangeRole>().map(drop), "role_insufficient");
}

#[tokio::test]
async fn a_role_counts_from_the_next_request_on_and_the_last_owner_stays() {
    let world = World::new().await;
    let core = &world.core;
    let alice = world.login("alice", &Client::new("laptop"), NOW).await;
    refused(core.administrator::<action::ListUsers>(&alice, NOW).await, "not_administrator");
    change(&world, "alice", Some(Auditor)).await.unwrap();
    let seeing: Administrator<action::ListUsers> = core.administrator(&alice, NOW).await.unwrap();
    let rows = core.users(&seeing).await.unwrap();
    let roles: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.role)).collect();
    assert_eq!(roles, [("alice", Some(Auditor)), ("bob", None), ("root", Some(Owner))]);
    refused(core.administrator::<action::Revoke>(&alice, NOW).await, "role_insufficient");

    for role in [Some(Admin), Some(Auditor), None] {
        refused(change(&world, "root", role).await, "request_malformed");
    }
    let root = api::Named { name: "root".into() };
    refused(core.admin_remove_user(&world.admin(), root.clone(), NOW).await, "request_malformed");
    change(&world, "root", Some(Owner)).await.unwrap();
    change(&world, "alice", Some(Owner)).await.unwrap();
    core.administrator::<action::ChangeRole>(&alice, NOW).await.unwrap();
    change(&world, "root", None).await.unwrap();
    let owner = core.administrator(&alice, NOW).await.unwrap();
    let demoted = api::RoleChange { name: "alice".into(), role: Some(Admin) };
    refused(core.admin_change_role(&owner, demoted, NOW).await, "request_malformed");
    core.admin_remove_user(&owner.also().unwrap(), root, NOW).await.unwrap();
    let nobody = api::RoleChange { name: "nobody".into(), role: Some(Admin) };
    refused(core.admin_change_role(&owner, nobody, NOW).await, "not_found");
}

/// Between the first look and the decision a request is on its way and waits for its turn.
#[tokio::test]
async fn what_was_taken_from_an_administrator_meanwhile_counts() {
    let world = World::new().await;
    let core = &world.core;
    let bearer = add(&world, "second", Some(Owner)).await;
    let named = |name: &str| api::Named { name: name.into() };
    let site = |name: &str| api::NewSite { name: name.into(), pools: vec!["10.99.0.1/24".into()] };
    // Whatever they asked for was looked at while they were an owner.
    let changing: Administrator<action::ChangeRole> = core.administrator(&bearer, NOW).await.unwrap();
    core.admin_new_site(&changing.also().unwrap(), site("north"), NOW).await.unwrap();
    change(&world, "second", Some(Admin)).await.unwrap();
    let again = api::RoleChange { name: "second".into(), role: Some(Owner) };
    refused(core.admin_change_role(&changing, again.clone(), NOW).await, "role_insufficient");
    refused(core.admin_new_site(&changing.also().unwrap(), site("south"), NOW).await, "role_insufficient");
    let lesser = core.administrator(&bearer, NOW).await.unwrap();
    core.admin_new_site(&lesser, site("south"), NOW).await.unwrap();
    change(&world, "second", None).await.unwrap();
    refused(core.admin_new_site(&lesser, site("centre"), NOW).await, "not_administrator");
    let request = api::OperationRequest { name: "nobody".into(), operation: api::Operation::Reload };
    refused(core.operated(&lesser.also().unwrap(), &request, NOW).await, "not_administrator");

    change(&world, "second", Some(Admin)).await.unwrap();
    world.revoke(api::RevocationScope::User("second".into()), None, NOW).await.unwrap();
    refused(core.admin_remove_site(&lesser.also().unwrap(), named("south"), NOW).await, "token_revoked");
    core.admin_remove_site(&world.admin(), named("south"), NOW).await.unwrap();
}
