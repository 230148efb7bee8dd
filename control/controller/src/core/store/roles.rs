//! Roles of administrators.

use ringfort_proto::api::AdministratorRole;
use sqlx::{query, query_scalar};

use super::Connection;

/// A role as its column has it; empty for none.
pub(crate) const fn role_column(role: Option<AdministratorRole>) -> &'static str {
    match role {
        Some(role) => role.as_str(),
        None => "",
    }
}

/// The role in a column. One that is not known is an error, and so nobody's.
pub(crate) fn role_of(column: &str) -> Result<Option<AdministratorRole>, sqlx::Error> {
    if column.is_empty() {
        return Ok(None);
    }
    let known = AdministratorRole::ALL.into_iter().find(|role| role.as_str() == column);
    known.map(Some).ok_or_else(|| sqlx::Error::Decode(format!("a user with the role {column:?}").into()))
}

pub(crate) async fn set_role(
    c: &mut Connection,
    user: &str,
    role: Option<AdministratorRole>,
) -> Result<(), sqlx::Error> {
    query("UPDATE users SET role = $2 WHERE id = $1").bind(user).bind(role_column(role)).execute(c).await.map(drop)
}

/// Owners who may log in, but for this user. A program is none, whatever its account says.
pub(crate) async fn owners_besides(c: &mut Connection, user: &str) -> Result<i64, sqlx::Error> {
    let owners =
        query_scalar("SELECT COUNT(*) FROM users WHERE role = 'owner' AND active = 1 AND service = 0 AND id <> $1");
    owners.bind(user).fetch_one(c).await
}
