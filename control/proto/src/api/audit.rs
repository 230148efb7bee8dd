//! The audit log.

use serde::{Deserialize, Serialize};

/// One of the answer to `GET admin/audit?since=<seconds since 1970>&below=<n>&limit=<at most 1,000>`, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditRow {
    /// Its number: `GET admin/audit?below=<n>` goes on behind it.
    #[serde(default)]
    pub n: u64,
    /// The event's id.
    pub id: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// Who: a login name, a session, a Gateway or an address.
    pub actor: String,
    /// What was asked for.
    pub action: String,
    /// Of whom or what.
    pub target: String,
    /// `ok`, or the code of the refusal.
    pub outcome: String,
    /// What else is worth knowing; nothing secret.
    pub detail: String,
    /// Of an administrator's action: what was there before; absent for nothing.
    #[serde(default)]
    pub before: Option<serde_json::Value>,
    /// What is there after it.
    #[serde(default)]
    pub after: Option<serde_json::Value>,
}
