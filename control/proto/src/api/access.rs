//! Who may reach what: sites, Resources, entitlements, and what is taken back.

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use super::bounds::*;

/// `POST admin/sites`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewSite {
    /// Name, unique.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = NAME)))]
    pub name: String,
    /// Pools of clients' inner addresses with the Gateways' own address: `10.97.0.1/16`; one per family at most.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 2)))]
    pub pools: Vec<String>,
}

/// `POST admin/resources`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewResource {
    /// Name, unique; denials name it.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = RESOURCE_NAME)))]
    pub name: String,
    /// Name of the site it is at.
    pub site: String,
    /// Addresses and networks: `10.98.0.10`, `10.98.0.0/24`.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = NETWORKS_MAX)))]
    pub to: Vec<String>,
    /// Services: `tcp/80`, `udp/5000-5100`, `icmp-echo`, `any`.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = SERVICES_MAX)))]
    pub services: Vec<String>,
}

/// Whom an entitlement is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Principal {
    /// One user, by login name.
    User(String),
    /// A group's members, by its name.
    Group(String),
}

/// `POST admin/entitlements` grants, `POST admin/entitlements/remove` takes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EntitlementChange {
    /// Name of the resource.
    pub resource: String,
    /// Whose.
    pub principal: Principal,
}

/// Answer to a change that is pushed: what went out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pushed {
    /// Entitlement tokens that were signed anew and pushed.
    pub entitlements: u32,
    /// Serial of the revocation list afterwards, `epoch/n`; empty where it did not change.
    #[serde(default)]
    pub serial: String,
    /// Gateways whose stream was open.
    pub gateways: u32,
}

/// What a revocation is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum RevocationScope {
    /// All that a user has, by login name.
    User(String),
    /// All that the members of a group have, by its name.
    Group(String),
    /// One device, by its client id.
    Device(String),
    /// One token, by its `jti`.
    Token(String),
    /// All users.
    Everyone,
}

/// `POST admin/revocations`: takes back at once, or with a grace time demands renewal (A23).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewRevocation {
    /// What it is about.
    pub scope: RevocationScope,
    /// Shown to the user.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = REASON_BYTES_MAX)))]
    pub reason: String,
    /// Seconds in which whoever is meant renews unnoticed; `None` revokes at once.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = GRACE_SECONDS_MAX)))]
    pub grace_seconds: Option<u32>,
}
