//! What is wrong with a policy, and what is only odd.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use ringfort_policy::never_reachable;
use ringfort_proto::api::{Policy, PolicyResource};
use serde::Serialize;

use super::super::access::{GROUPS_MAX, SITES_MAX, checked_grant, checked_name, checked_pools};
use super::super::refused::Refused;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The policy cannot be applied.
    Error,
    /// It can, and may not be what was meant.
    Warning,
}

/// Something found in a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where: `resources.wiki`.
    pub place: String,
    /// What was expected, and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}: {}", self.place, self.message)
    }
}

/// Everything that can be found without asking anybody, errors first.
#[must_use]
pub fn lint(policy: &Policy) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    found.sites(policy);
    found.groups(policy);
    for (name, resource) in &policy.resources {
        found.resource(policy, name, resource);
    }
    found.twins(policy);
    let Findings(mut found) = found;
    found.sort();
    found
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, place: String, message: impl Into<String>) {
        self.0.push(Finding { severity, place, message: message.into() });
    }

    fn check<T>(&mut self, place: String, checked: Result<T, Refused>) {
        if let Err(refused) = checked {
            self.add(Severity::Error, place, refused.message);
        }
    }

    fn sites(&mut self, policy: &Policy) {
        if policy.sites.len() > SITES_MAX {
            self.add(Severity::Error, "sites".into(), format!("expected at most {SITES_MAX} sites"));
        }
        let used: BTreeSet<_> = policy.resources.values().map(|resource| resource.site.as_str()).collect();
        for (name, site) in &policy.sites {
            let place = || format!("sites.{name}");
            self.check(place(), checked_name("site", name));
            self.check(place(), checked_pools(&site.pools));
            if !used.contains(name.as_str()) {
                self.add(Severity::Warning, place(), "no Resource is there: nobody comes to this site");
            }
        }
    }

    fn groups(&mut self, policy: &Policy) {
        let entitled: BTreeSet<_> = policy.resources.values().flat_map(|resource| &resource.groups).collect();
        let mut of_user = BTreeMap::<&str, usize>::new();
        for (name, group) in &policy.groups {
            let place = || format!("groups.{name}");
            self.check(place(), checked_name("group", name));
            for user in &group.members {
                self.check(place(), checked_name("user", user));
                *of_user.entry(user).or_default() += 1;
            }
            if group.members.is_empty() {
                self.add(Severity::Warning, place(), "it has no members");
            }
            if !entitled.contains(name) {
                self.add(Severity::Warning, place(), "it is entitled to nothing");
            }
        }
        for (user, groups) in of_user {
            if groups > GROUPS_MAX {
                let message = format!("expected at most {GROUPS_MAX} groups of one user, found {groups} of {user}");
                self.add(Severity::Error, "groups".into(), message);
            }
        }
    }

    fn resource(&mut self, policy: &Policy, name: &str, resource: &PolicyResource) {
        let place = || format!("resources.{name}");
        let PolicyResource { site, to, services, groups, users } = resource;
        let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
        self.check(place(), checked_grant(name.to_owned(), list(to), list(services)));
        let Some(known) = policy.sites.get(site) else {
            self.add(Severity::Error, place(), format!("expected one of the sites of this policy, found {site:?}"));
            return;
        };
        for group in groups.iter().filter(|group| !policy.groups.contains_key(*group)) {
            self.add(Severity::Error, place(), format!("expected groups of this policy, found {group:?}"));
        }
        for user in users {
            self.check(place(), checked_name("user", user));
            let by = groups.iter().find(|group| policy.groups.get(*group).is_some_and(|it| it.members.contains(user)));
            if let Some(group) = by {
                let message = format!("{user} is entitled by the group {group} as well: one of the two is enough");
                self.add(Severity::Warning, place(), message);
            }
        }
        if groups.is_empty() && users.is_empty() {
            self.add(Severity::Warning, place(), "nobody is entitled to it");
        }
        let pools: Vec<IpNet> = known.pools.iter().filter_map(|pool| pool.parse::<IpNet>().ok()).collect();
        let own: Vec<IpAddr> = pools.iter().map(IpNet::addr).collect();
        let never = never_reachable(&own, &pools);
        for text in to {
            let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            // The form was looked at above.
            let Ok(network) = network else { continue };
            if network.prefix_len() == 0 {
                self.add(
                    Severity::Warning,
                    place(),
                    format!("{text} is every address there is: name networks of the site"),
                );
            } else if network.prefix_len() < network.max_prefix_len() && never.iter().any(|one| one.contains(&network))
            {
                let message = format!(
                    "{text} lies where Gateways let nothing through but single addresses (loopback, link-local, pools): name those"
                );
                self.add(Severity::Warning, place(), message);
            }
        }
        if services.contains("any") {
            self.add(Severity::Warning, place(), "\"any\" is every protocol and port: name services");
        }
    }

    /// Resources that are the same but for their names.
    fn twins(&mut self, policy: &Policy) {
        let mut places = BTreeMap::new();
        for (name, PolicyResource { site, to, services, .. }) in &policy.resources {
            if let Some(other) = places.insert((site, to, services), name) {
                let message = format!("it is the same as {other}: denials will name one of them");
                self.add(Severity::Warning, format!("resources.{name}"), message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let policy: Policy = toml::from_str(text).unwrap();
        lint(&policy).iter().map(ToString::to_string).collect()
    }

    const GOOD: &str = r#"
        [sites.east]
        pools = ["10.97.0.1/24", "fd00:97::1/64"]
        [groups.staff]
        members = ["alice", "bob"]
        [resources.wiki]
        site = "east"
        to = ["10.98.0.10"]
        services = ["tcp/443"]
        groups = ["staff"]
        users = ["carol"]
    "#;

    #[test]
    fn a_good_policy_is_let_be() {
        assert_eq!(found(GOOD), Vec::<String>::new());
        assert_eq!(found(""), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_applied_is_an_error() {
        for (from, to, place, said) in [
            ("[sites.east]", "[sites.\"ea st\"]", "sites.ea st", "expected a name of a site"),
            ("10.97.0.1/24", "10.97.0.0/24", "sites.east", "expected one pool per family"),
            ("10.97.0.1/24", "fd00:98::1/64", "sites.east", "expected one pool per family"),
            ("[groups.staff]", "[groups.\"\"]", "groups.", "expected a name of a group"),
            ("\"bob\"", "\"b b\"", "groups.staff", "expected a name of a user"),
            ("site = \"east\"", "site = \"west\"", "resources.wiki", "expected one of the sites of this policy"),
            ("10.98.0.10", "wiki.example", "resources.wiki", "expected an address or a network"),
            ("tcp/443", "https", "resources.wiki", "expected a service"),
            ("[\"tcp/443\"]", "[]", "resources.wiki", "services"),
            ("groups = [\"staff\"]", "groups = [\"stuff\"]", "resources.wiki", "expected groups of this policy"),
            ("[\"carol\"]", "[\"\"]", "resources.wiki", "expected a name of a user"),
            ("[resources.wiki]", "[resources.default-deny]", "resources.default-deny", "choose another name"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let found = found(&GOOD.replace(from, to));
            let expected = format!("error: {place}: ");
            assert!(found.iter().any(|line| line.starts_with(&expected) && line.contains(said)), "{to}: {found:?}");
        }
        let many: String = (0..129).map(|n| format!("[sites.s{n}]\npools = [\"10.97.0.1/24\"]\n")).collect();
        assert!(found(&many)[0].starts_with("error: sites: expected at most 128"));
        let many: String = (0..65).map(|n| format!("[groups.g{n}]\nmembers = [\"alice\"]\n")).collect();
        assert!(found(&many)[0].contains("found 65 of alice"));
    }

    #[test]
    fn what_is_odd_is_a_warning() {
        for (from, to, place, said) in [
            ("[groups.staff]", "[sites.west]\npools = [\"10.96.0.1/24\"]\n[groups.staff]", "sites.west", "no Resource"),
            ("[\"alice\", \"bob\"]", "[]", "groups.staff", "no members"),
            ("groups = [\"staff\"]", "", "groups.staff", "entitled to nothing"),
            ("[\"carol\"]", "[\"bob\"]", "resources.wiki", "entitled by the group staff as well"),
            ("10.98.0.10", "0.0.0.0/0", "resources.wiki", "every address"),
            ("10.98.0.10", "10.97.0.0/28", "resources.wiki", "let nothing through"),
            ("10.98.0.10", "127.0.0.0/8", "resources.wiki", "let nothing through"),
            ("tcp/443", "any", "resources.wiki", "every protocol"),
            ("groups = [\"staff\"]\n        users = [\"carol\"]", "", "resources.wiki", "nobody is entitled"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let found = found(&GOOD.replace(from, to));
            let expected = format!("warning: {place}: ");
            assert!(found.iter().any(|line| line.starts_with(&expected) && line.contains(said)), "{to}: {found:?}");
            assert!(found.iter().all(|line| line.starts_with("warning")), "{to}: {found:?}");
        }
        let twin = format!(
            "{GOOD}\n[resources.wiki2]\nsite = \"east\"\nto = [\"10.98.0.10\"]\nservices = [\"tcp/443\"]\nusers = [\"x\"]"
        );
        assert_eq!(found(&twin), ["warning: resources.wiki2: it is the same as wiki: denials will name one of them"]);
        // One address there is meant.
        assert!(found(&GOOD.replace("10.98.0.10", "10.97.0.9")).is_empty());
    }

    #[test]
    fn a_misspelt_member_is_not_left_out_silently() {
        for (from, to) in [("members", "member"), ("pools", "pool"), ("services", "service"), ("[sites", "[site")] {
            assert!(toml::from_str::<Policy>(&GOOD.replace(from, to)).is_err(), "{to}");
        }
    }
}
