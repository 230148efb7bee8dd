//! Everything that a policy declares, by name.

use std::collections::BTreeMap;

use ringfort_proto::api::{Policy, PolicyGroup, PolicyResource, PolicySite};
use ringfort_token::Grant;
use sqlx::{query, query_as};

use super::{Connection, list, listed};

/// What is in force.
pub(crate) async fn policy(c: &mut Connection) -> Result<Policy, sqlx::Error> {
    let mut policy = Policy::default();
    let sites: Vec<(String, String)> = query_as("SELECT name, pools FROM sites").fetch_all(&mut *c).await?;
    for (name, pools) in sites {
        policy.sites.insert(name, PolicySite { pools: list(&pools)?.into_iter().collect() });
    }
    let groups: Vec<(String,)> = query_as("SELECT name FROM user_groups").fetch_all(&mut *c).await?;
    policy.groups = groups.into_iter().map(|(name,)| (name, PolicyGroup::default())).collect();
    let members = query_as(
        "SELECT g.name, u.name FROM members m JOIN user_groups g ON g.id = m.group_id JOIN users u ON u.id = m.user_id",
    );
    let members: Vec<(String, String)> = members.fetch_all(&mut *c).await?;
    for (group, user) in members {
        policy.groups.entry(group).or_default().members.insert(user);
    }
    policy.resources = resources(c).await?;
    Ok(policy)
}

async fn resources(c: &mut Connection) -> Result<BTreeMap<String, PolicyResource>, sqlx::Error> {
    let found =
        query_as("SELECT r.name, s.name, r.networks, r.services FROM resources r JOIN sites s ON s.id = r.site");
    let found: Vec<(String, String, String, String)> = found.fetch_all(&mut *c).await?;
    let mut resources = BTreeMap::new();
    for (name, site, to, services) in found {
        let (to, services) = (list(&to)?.into_iter().collect(), list(&services)?.into_iter().collect());
        resources.insert(name, PolicyResource { site, to, services, ..PolicyResource::default() });
    }
    let groups = query_as(
        "SELECT r.name, g.name FROM entitlements e JOIN resources r ON r.id = e.resource JOIN user_groups g ON g.id = e.group_id",
    );
    let groups: Vec<(String, String)> = groups.fetch_all(&mut *c).await?;
    for (resource, group) in groups {
        resources.entry(resource).or_default().groups.insert(group);
    }
    let users = query_as(
        "SELECT r.name, u.name FROM entitlements e JOIN resources r ON r.id = e.resource JOIN users u ON u.id = e.user_id",
    );
    let users: Vec<(String, String)> = users.fetch_all(c).await?;
    for (resource, user) in users {
        resources.entry(resource).or_default().users.insert(user);
    }
    Ok(resources)
}

/// Puts a Resource elsewhere at its site.
pub(crate) async fn set_reach(c: &mut Connection, resource: &str, grant: &Grant) -> Result<(), sqlx::Error> {
    let set = query("UPDATE resources SET networks = $2, services = $3 WHERE id = $1").bind(resource);
    set.bind(listed(&grant.to)?).bind(listed(&grant.services)?).execute(c).await.map(drop)
}

/// Gives a site other pools; addresses in the ones before are forgotten.
pub(crate) async fn set_pools(c: &mut Connection, site: &str, pools: &[String]) -> Result<(), sqlx::Error> {
    query("DELETE FROM addresses WHERE site = $1").bind(site).execute(&mut *c).await?;
    query("UPDATE sites SET pools = $2 WHERE id = $1").bind(site).bind(listed(pools)?).execute(c).await.map(drop)
}
