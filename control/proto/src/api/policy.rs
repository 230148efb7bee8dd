//! Policy as code: who may reach what, declared as a whole.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Sites, groups and Resources of an organisation with their entitlements, by name. A file reads
///
/// ```toml
/// [sites.east]
/// pools = ["10.97.0.1/16"]
///
/// [groups.staff]
/// members = ["alice"]
///
/// [resources.wiki]
/// site = "east"
/// to = ["10.98.0.10"]
/// services = ["tcp/443"]
/// groups = ["staff"]
/// ```
///
/// It is the whole of it: what is not in it is not there once it is applied. Users, Gateways, devices and administrators are no
/// part of it; users are named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Sites.
    #[serde(default)]
    pub sites: BTreeMap<String, PolicySite>,
    /// Groups of users.
    #[serde(default)]
    pub groups: BTreeMap<String, PolicyGroup>,
    /// Resources, and who is entitled to each.
    #[serde(default)]
    pub resources: BTreeMap<String, PolicyResource>,
}

/// A site of a [`Policy`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicySite {
    /// Pools of clients' inner addresses with the Gateways' own address: `10.97.0.1/16`; one per family at most.
    pub pools: BTreeSet<String>,
}

/// A group of a [`Policy`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyGroup {
    /// Login names of its users.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub members: BTreeSet<String>,
}

/// A Resource of a [`Policy`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyResource {
    /// Name of the site it is at.
    pub site: String,
    /// Addresses and networks: `10.98.0.10`, `10.98.0.0/24`.
    pub to: BTreeSet<String>,
    /// Services: `tcp/80`, `udp/5000-5100`, `icmp-echo`, `any`.
    pub services: BTreeSet<String>,
    /// Names of the groups that are entitled to it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// Login names of users who are.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub users: BTreeSet<String>,
}

/// One difference between two policies, and what is done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the members are those of the request of the same name")]
pub enum PolicyStep {
    /// As `POST admin/entitlements/remove`.
    TakeBack { resource: String, principal: super::Principal },
    /// As `POST admin/groups/members/remove`.
    RemoveMember { group: String, user: String },
    /// As `POST admin/groups/remove`.
    RemoveGroup { group: String },
    /// As `POST admin/resources/remove`.
    RemoveResource { resource: String },
    /// As `POST admin/sites/remove`.
    RemoveSite { site: String },
    /// As `POST admin/sites`.
    NewSite { site: String, pools: BTreeSet<String> },
    /// The pools of a site that has no Gateway.
    ChangeSite { site: String, before: BTreeSet<String>, pools: BTreeSet<String> },
    /// As `POST admin/groups`.
    NewGroup { group: String },
    /// As `POST admin/groups/members`.
    AddMember { group: String, user: String },
    /// As `POST admin/resources`.
    NewResource { resource: String, site: String, to: BTreeSet<String>, services: BTreeSet<String> },
    /// Where a Resource is, at the same site; whoever is entitled to it stays so.
    ChangeResource { resource: String, before: PolicyReach, after: PolicyReach },
    /// As `POST admin/entitlements`.
    Grant { resource: String, principal: super::Principal },
}

/// Where a Resource is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyReach {
    /// Addresses and networks.
    pub to: BTreeSet<String>,
    /// Services there.
    pub services: BTreeSet<String>,
}

/// Answer to `GET admin/policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PolicyState {
    /// What is in force.
    pub policy: Policy,
    /// SHA-256 of it in hexadecimal.
    pub digest: String,
}

/// `POST admin/policy/plan`: what would have to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyWanted {
    /// What is to be in force.
    pub policy: Policy,
}

/// Answer to `POST admin/policy/plan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PolicyPlan {
    /// In the order in which it is done; empty when it is in force.
    pub steps: Vec<PolicyStep>,
    /// SHA-256 in hexadecimal of what is in force now.
    pub digest: String,
}

/// `POST admin/policy`: do it, all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyChange {
    /// What is to be in force.
    pub policy: Policy,
    /// What was in force when the plan was made; if that has changed since, nothing is done.
    pub digest: String,
}

/// Answer to `POST admin/policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PolicyApplied {
    /// What was done.
    pub steps: Vec<PolicyStep>,
    /// What went out.
    pub pushed: super::Pushed,
}
