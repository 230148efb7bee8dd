//! What has to be done to come from one policy to another.

use ringfort_proto::api::{Policy, PolicyReach, PolicyResource, PolicyStep, Principal};

/// The steps from `current` to `wanted`, in an order in which each is possible: what is taken comes before what is given, and
/// nothing goes that something else still stands on.
#[must_use]
pub fn diff(current: &Policy, wanted: &Policy) -> Vec<PolicyStep> {
    let mut steps = Vec::new();
    take(current, wanted, &mut steps);
    give(current, wanted, &mut steps);
    steps
}

/// A Resource that stays: one that moves to another site is another one.
fn kept<'a>(policy: &'a Policy, name: &str, resource: &PolicyResource) -> Option<&'a PolicyResource> {
    policy.resources.get(name).filter(|other| other.site == resource.site)
}

fn take(current: &Policy, wanted: &Policy, steps: &mut Vec<PolicyStep>) {
    for (name, resource) in &current.resources {
        let Some(stays) = kept(wanted, name, resource) else { continue };
        for principal in principals(resource, Some(stays)) {
            steps.push(PolicyStep::TakeBack { resource: name.clone(), principal });
        }
    }
    let gone = current.resources.iter().filter(|(name, resource)| kept(wanted, name, resource).is_none());
    steps.extend(gone.map(|(resource, _)| PolicyStep::RemoveResource { resource: resource.clone() }));
    for (name, group) in &current.groups {
        let Some(stays) = wanted.groups.get(name) else { continue };
        for user in group.members.difference(&stays.members) {
            steps.push(PolicyStep::RemoveMember { group: name.clone(), user: user.clone() });
        }
    }
    let gone = current.groups.keys().filter(|name| !wanted.groups.contains_key(*name));
    steps.extend(gone.map(|group| PolicyStep::RemoveGroup { group: group.clone() }));
    let gone = current.sites.keys().filter(|name| !wanted.sites.contains_key(*name));
    steps.extend(gone.map(|site| PolicyStep::RemoveSite { site: site.clone() }));
}

fn give(current: &Policy, wanted: &Policy, steps: &mut Vec<PolicyStep>) {
    for (name, site) in &wanted.sites {
        let (name, pools) = (name.clone(), site.pools.clone());
        match current.sites.get(&name) {
            None => steps.push(PolicyStep::NewSite { site: name, pools }),
            Some(known) if known.pools != pools => {
                steps.push(PolicyStep::ChangeSite { site: name, before: known.pools.clone(), pools });
            }
            Some(_) => {}
        }
    }
    let new = wanted.groups.keys().filter(|name| !current.groups.contains_key(*name));
    steps.extend(new.map(|group| PolicyStep::NewGroup { group: group.clone() }));
    for (name, resource) in &wanted.resources {
        let PolicyResource { site, to, services, .. } = resource.clone();
        match kept(current, name, resource) {
            None => steps.push(PolicyStep::NewResource { resource: name.clone(), site, to, services }),
            Some(known) if (&known.to, &known.services) != (&to, &services) => {
                let before = PolicyReach { to: known.to.clone(), services: known.services.clone() };
                let after = PolicyReach { to, services };
                steps.push(PolicyStep::ChangeResource { resource: name.clone(), before, after });
            }
            Some(_) => {}
        }
    }
    for (name, group) in &wanted.groups {
        let known = current.groups.get(name).map(|group| group.members.clone()).unwrap_or_default();
        for user in group.members.difference(&known) {
            steps.push(PolicyStep::AddMember { group: name.clone(), user: user.clone() });
        }
    }
    for (name, resource) in &wanted.resources {
        for principal in principals(resource, kept(current, name, resource)) {
            steps.push(PolicyStep::Grant { resource: name.clone(), principal });
        }
    }
}

/// Those of `one` that `other` does not have.
fn principals(one: &PolicyResource, other: Option<&PolicyResource>) -> Vec<Principal> {
    let none = PolicyResource::default();
    let other = other.unwrap_or(&none);
    let groups = one.groups.difference(&other.groups).cloned().map(Principal::Group);
    groups.chain(one.users.difference(&other.users).cloned().map(Principal::User)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;
    use ringfort_proto::api::{PolicyGroup, PolicySite};

    use super::*;

    /// Does the steps to a policy, as a Controller does to its database.
    fn carried_out(mut policy: Policy, steps: &[PolicyStep]) -> Policy {
        steps.iter().for_each(|step| carry_out(&mut policy, step.clone()));
        policy
    }

    fn carry_out(policy: &mut Policy, step: PolicyStep) {
        let Policy { sites, groups, resources } = policy;
        match step {
            PolicyStep::NewSite { site, pools } => drop(sites.insert(site, PolicySite { pools })),
            PolicyStep::ChangeSite { site, pools, .. } => sites.get_mut(&site).unwrap().pools = pools,
            PolicyStep::RemoveSite { site } => drop(sites.remove(&site).unwrap()),
            PolicyStep::NewGroup { group } => drop(groups.insert(group, PolicyGroup::default())),
            PolicyStep::RemoveGroup { group } => {
                groups.remove(&group).unwrap();
                resources.values_mut().for_each(|resource| assert!(!resource.groups.contains(&group), "taken before"));
            }
            PolicyStep::AddMember { group, user } => assert!(groups.get_mut(&group).unwrap().members.insert(user)),
            PolicyStep::RemoveMember { group, user } => assert!(groups.get_mut(&group).unwrap().members.remove(&user)),
            PolicyStep::NewResource { resource, site, to, services } => {
                let made = PolicyResource { site, to, services, ..PolicyResource::default() };
                assert!(resources.insert(resource, made).is_none());
            }
            PolicyStep::ChangeResource { resource, before, after } => {
                let resource = resources.get_mut(&resource).unwrap();
                assert_eq!((&resource.to, &resource.services), (&before.to, &before.services));
                (resource.to, resource.services) = (after.to, after.services);
            }
            PolicyStep::RemoveResource { resource } => drop(resources.remove(&resource).unwrap()),
            PolicyStep::Grant { resource, principal } => {
                let resource = resources.get_mut(&resource).unwrap();
                assert!(match principal {
                    Principal::User(user) => resource.users.insert(user),
                    Principal::Group(group) => resource.groups.insert(group),
                });
            }
            PolicyStep::TakeBack { resource, principal } => {
                let resource = resources.get_mut(&resource).unwrap();
                assert!(match principal {
                    Principal::User(user) => resource.users.remove(&user),
                    Principal::Group(group) => resource.groups.remove(&group),
                });
            }
        }
    }

    fn names() -> impl Strategy<Value = BTreeSet<String>> {
        btree_set("[a-d]", 0..4)
    }

    /// A policy whose references hold.
    fn policies() -> impl Strategy<Value = Policy> {
        let site = names().prop_map(|pools| PolicySite { pools });
        let group = names().prop_map(|members| PolicyGroup { members });
        let resource = (any::<prop::sample::Index>(), names(), names(), names(), names());
        let parts =
            (btree_map("[a-d]", site, 1..4), btree_map("[a-d]", group, 0..4), btree_map("[a-d]", resource, 0..4));
        parts.prop_map(|(sites, groups, resources)| {
            let resource = |(site, to, services, of, users): (prop::sample::Index, _, _, BTreeSet<String>, _)| {
                let site = site.get(&sites.keys().cloned().collect::<Vec<_>>()).clone();
                let groups = of.into_iter().filter(|group| groups.contains_key(group)).collect();
                PolicyResource { site, to, services, groups, users }
            };
            let resources = resources.into_iter().map(|(name, parts)| (name, resource(parts))).collect();
            Policy { sites, groups, resources }
        })
    }

    /// Whether every reference of a policy holds, as a database asks of it at any time.
    fn holds(policy: &Policy) -> bool {
        policy.resources.values().all(|resource| {
            policy.sites.contains_key(&resource.site)
                && resource.groups.iter().all(|group| policy.groups.contains_key(group))
        })
    }

    /// Pairs of a user and a Resource as it is there.
    fn may(policy: &Policy) -> BTreeSet<(String, String)> {
        let of = |(name, resource): (&String, &PolicyResource)| {
            let groups = resource.groups.iter().filter_map(|group| policy.groups.get(group));
            let members = groups.flat_map(|group| group.members.clone());
            let place = format!("{name} {} {:?} {:?}", resource.site, resource.to, resource.services);
            members.chain(resource.users.clone()).map(|user| (user, place.clone())).collect::<Vec<_>>()
        };
        policy.resources.iter().flat_map(of).collect()
    }

    proptest! {
        #[test]
        fn its_steps_lead_there_and_nowhere_else(current in policies(), wanted in policies()) {
            let steps = diff(&current, &wanted);
            prop_assert_eq!(carried_out(current.clone(), &steps), wanted.clone());
            prop_assert!(diff(&wanted, &wanted).is_empty());
            prop_assert_eq!(steps.is_empty(), current == wanted);
        }

        #[test]
        fn on_the_way_nothing_hangs_in_the_air_and_nobody_has_more_than_before_or_after(
            current in policies(),
            wanted in policies(),
        ) {
            let both: BTreeSet<_> = may(&current).union(&may(&wanted)).cloned().collect();
            let mut policy = current.clone();
            for step in diff(&current, &wanted) {
                let before = policy.clone();
                policy = carried_out(policy, std::slice::from_ref(&step));
                prop_assert!(policy != before, "{step:?} does nothing");
                prop_assert!(holds(&policy), "{step:?}");
                prop_assert!(may(&policy).is_subset(&both), "{step:?}");
            }
        }
    }

    #[test]
    fn a_resource_that_moves_takes_its_entitlements_along() {
        let resource = |site: &str| PolicyResource {
            site: site.into(),
            users: ["alice".to_owned()].into(),
            ..PolicyResource::default()
        };
        let policy = |site: &str| Policy {
            sites: ["east", "west"].map(|name| (name.to_owned(), PolicySite::default())).into(),
            resources: BTreeMap::from([("wiki".to_owned(), resource(site))]),
            ..Policy::default()
        };
        let steps = diff(&policy("east"), &policy("west"));
        let principal = Principal::User("alice".into());
        let (resource, empty) = ("wiki".to_owned(), BTreeSet::new());
        assert_eq!(
            steps,
            [
                PolicyStep::RemoveResource { resource: resource.clone() },
                PolicyStep::NewResource {
                    resource: resource.clone(),
                    site: "west".into(),
                    to: empty.clone(),
                    services: empty
                },
                PolicyStep::Grant { resource, principal },
            ]
        );
    }
}
