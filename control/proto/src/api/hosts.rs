//! Hosts that register themselves (W1–W10).

use serde::{Deserialize, Serialize};

use super::Known;
#[cfg(feature = "schema")]
use super::bounds::*;

/// Path of the request by which a host registers itself (W5), which is not below [`super::BASE`]: other implementations know it as this.
#[must_use]
pub fn registration_path(hostname: &str) -> String {
    format!("/api/hosts/{hostname}/client")
}

/// `POST /api/hosts/{hostname}/client` (W5): where a host can be reached, as it sees itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HostRegistration {
    /// Its network interfaces.
    #[cfg_attr(feature = "schema", schemars(length(max = HOST_INTERFACES_MAX)))]
    pub interfaces: Vec<HostInterface>,
    /// Port on which it listens.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub port: u16,
    /// Its version.
    #[cfg_attr(feature = "schema", schemars(length(max = HOST_TEXT_BYTES_MAX)))]
    pub version: String,
}

/// A network interface of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HostInterface {
    /// Its name on the host.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = HOST_TEXT_BYTES_MAX)))]
    pub name: String,
    /// Its addresses.
    #[cfg_attr(feature = "schema", schemars(length(max = HOST_ADDRESSES_MAX)))]
    pub addresses: Vec<std::net::IpAddr>,
}

/// Answer to a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Registered {
    /// When it was recorded, by the Controller's clock, in seconds since 1970.
    pub last_seen: u64,
    /// Whom to believe from then on, and where the Controllers are. Controllers of the first versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Known>,
}

/// One of the answer to `GET admin/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HostRow {
    /// Its name.
    pub name: String,
    /// Whether it has a certificate, or joins by an invitation yet.
    pub joined: bool,
    /// When it registered last, in seconds since 1970; 0 for never.
    pub last_seen: u64,
    /// Seconds since then; none where it never did.
    pub age: Option<u64>,
    /// What it said then.
    pub interfaces: Vec<HostInterface>,
    /// Port on which it listens; 0 where it never registered.
    pub port: u16,
    /// Its version.
    pub version: String,
}
