//! Invitations.

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use super::bounds::*;

/// `POST admin/invitations`; needs an authentication not older than five minutes (R2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewInvitation {
    /// What is invited.
    pub invitee: Invitee,
    /// Seconds until it expires; 7 days by default (I10).
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = INVITATION_SECONDS_MIN, max = INVITATION_SECONDS_MAX)))]
    pub expires_in: Option<u64>,
}

/// What is invited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Invitee {
    /// A Gateway.
    Gateway {
        /// Its name, unique.
        name: String,
        /// Name of its site.
        site: String,
    },
    /// A user's machine.
    Device {
        /// Login name of the user.
        user: String,
    },
    /// Another Controller of the same database.
    Controller {},
    /// A host that registers itself.
    Host {
        /// Its name.
        name: String,
    },
    /// A machine of a service account (X12).
    Service {
        /// Its name.
        name: String,
    },
    /// A Relay.
    Relay {
        /// Its FQDN, by which Gateways and clients reach it.
        name: String,
    },
}

/// Answer to `POST admin/invitations`. Shown once: the Controller does not keep the cookie.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InvitationResponse {
    /// `host:port/<key hash><cookie>` (I2).
    pub url: String,
    /// rf-enrol+jwt (R3).
    pub ticket: String,
    /// When it expires, in seconds since 1970.
    pub expires_at: u64,
}

impl std::fmt::Debug for InvitationResponse {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InvitationResponse").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}
