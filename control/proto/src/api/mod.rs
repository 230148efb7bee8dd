//! Bodies of the Controller's HTTP API, `/api/v1/…`, as JSON. `docs/CONTROL.md` has the table of requests.
//!
//! Unknown members are refused in requests, so that a misspelt one is not silently left out, and ignored in responses, so that an
//! older client understands a newer Controller. Binary values are base64url without padding.

mod access;
mod accounts;
mod audit;
mod bounds;
mod gateways;
mod hosts;
mod invitations;
mod login;
mod policy;

pub use access::*;
pub use accounts::*;
pub use audit::*;
pub use bounds::*;
pub use gateways::*;
pub use hosts::*;
pub use invitations::*;
pub use login::*;
pub use policy::*;

use serde::{Deserialize, Serialize};

/// Path of everything below, [`registration_path`] aside.
pub const BASE: &str = "/api/v1";
/// Header of a proof of possession (RFC 9449 §4).
pub const PROOF_HEADER: &str = "dpop";
/// Header in which the Controller gives the nonce for the next proof (RFC 9449 §8). Every response without a client
/// certificate has one.
pub const NONCE_HEADER: &str = "dpop-nonce";

/// The body of every response that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorBody {
    /// Stable: `invitation_used`, `token_expired`, `not_administrator`, …
    pub code: String,
    /// What was expected, what came, what to do.
    pub message: String,
    /// The Controller's audit event; empty where none is written.
    #[serde(default)]
    pub event: String,
}

/// Answer to requests that make something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Created {
    /// Its id.
    pub id: String,
}

/// `POST admin/users/remove`, `admin/users/disable`, `admin/users/enable`, `admin/users/totp`, `admin/users/totp/remove`,
/// `admin/users/external-otp`, `admin/users/external-otp/remove`, `admin/sites/remove`, `admin/resources/remove`,
/// `admin/groups/remove`, `admin/gateways/remove`, `admin/relays/remove`, `admin/hosts`, `admin/hosts/remove` and
/// `admin/controllers/remove`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Name of what is meant.
    pub name: String,
}
