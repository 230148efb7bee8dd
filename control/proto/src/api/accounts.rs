//! People and programs: accounts, roles, groups, logins.

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use super::bounds::*;

/// `POST admin/users`.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Login name.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = NAME)))]
    pub name: String,
    /// First password, of 8 to 1,024 bytes; empty for a user who logs in at an identity provider only.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(length(max = PASSWORD_BYTES_MAX)))]
    pub password: String,
    /// The role as an administrator, if any.
    #[serde(default)]
    pub role: Option<AdministratorRole>,
    /// The address by which identity providers know the user (R21).
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(length(max = EMAIL_BYTES_MAX)))]
    pub email: Option<String>,
}

impl std::fmt::Debug for NewUser {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewUser").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What an administrator may do; each may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum AdministratorRole {
    /// Sees lists, receipts and the audit log.
    Auditor,
    /// Changes everything but administrators.
    Admin,
    /// Makes and removes administrators and changes their roles.
    Owner,
}

impl AdministratorRole {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auditor, Self::Admin, Self::Owner];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

/// `POST admin/users/role`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RoleChange {
    /// Login name.
    pub name: String,
    /// The role from now on; `None` takes it away.
    pub role: Option<AdministratorRole>,
}

/// `POST admin/users/email`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UserEmail {
    /// Login name.
    pub name: String,
    /// The address by which identity providers know the user (R21); `None` for nobody.
    #[cfg_attr(feature = "schema", schemars(length(max = EMAIL_BYTES_MAX)))]
    pub email: Option<String>,
}

/// `POST admin/services`: an account of a program, which logs in by its certificate alone (X12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewService {
    /// Name, unique among users.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = NAME)))]
    pub name: String,
}

/// `POST admin/groups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewGroup {
    /// Name, unique.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = NAME)))]
    pub name: String,
}

/// `POST admin/groups/members` and `POST admin/groups/members/remove`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Name of the group.
    pub group: String,
    /// Login name of the user.
    pub user: String,
}

/// One of the answer to `GET admin/users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UserRow {
    /// Its id, which stands in names of sessions.
    pub id: String,
    /// Login name.
    pub name: String,
    /// The role as an administrator, if any.
    #[serde(default)]
    pub role: Option<AdministratorRole>,
    /// Whether the user may log in.
    pub active: bool,
    /// Names of the groups the user is in.
    pub groups: Vec<String>,
    /// The address by which identity providers know the user.
    #[serde(default)]
    pub email: Option<String>,
    /// Whether it is a program's account.
    #[serde(default)]
    pub service: bool,
    /// The one-time password that is asked for, if any.
    #[serde(default)]
    pub otp: Option<OtpKind>,
}

/// Who checks a user's one-time passwords. A user has one kind, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OtpKind {
    /// The Controller: those of an authenticator app (RFC 6238).
    Totp,
    /// A system of the organisation's own.
    External,
}

/// One of the answer to `GET admin/sessions`: a login that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionRow {
    /// The session's distinguished name (A5).
    pub dn: String,
    /// Login name of the user.
    pub user: String,
    /// The device's client id.
    pub client_id: String,
    /// `jti` of the newest claims token.
    pub claims: String,
    /// When the user logged in, in seconds since 1970.
    pub auth_time: u64,
    /// When the login ends, in seconds since 1970.
    pub expires_at: u64,
}
