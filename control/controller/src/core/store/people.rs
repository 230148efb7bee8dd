//! Users, groups, devices and logins.

use std::collections::BTreeSet;

use ringfort_proto::api::AdministratorRole;
use ringfort_types::UnixSeconds;
use sqlx::{query, query_as, query_scalar};

use super::{Connection, at, int, role_column, role_of, uint};

/// A user.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) name: String,
    /// argon2id, as a PHC string.
    pub(crate) password: String,
    /// As an administrator.
    pub(crate) role: Option<AdministratorRole>,
    pub(crate) active: bool,
    pub(crate) generation: u64,
}

type UserColumns = (String, String, String, String, i64, i64);

fn user((id, name, password, role, active, generation): UserColumns) -> Result<User, sqlx::Error> {
    Ok(User { id, name, password, role: role_of(&role)?, active: active != 0, generation: uint(generation) })
}

pub(crate) async fn user_by_name(c: &mut Connection, name: &str) -> Result<Option<User>, sqlx::Error> {
    let found = query_as("SELECT id, name, password, role, active, generation FROM users WHERE name = $1");
    found.bind(name).fetch_optional(c).await?.map(user).transpose()
}

pub(crate) async fn user_by_id(c: &mut Connection, id: &str) -> Result<Option<User>, sqlx::Error> {
    let found = query_as("SELECT id, name, password, role, active, generation FROM users WHERE id = $1");
    found.bind(id).fetch_optional(c).await?.map(user).transpose()
}

pub(crate) async fn users(c: &mut Connection) -> Result<Vec<User>, sqlx::Error> {
    let found = query_as("SELECT id, name, password, role, active, generation FROM users ORDER BY name");
    found.fetch_all(c).await?.into_iter().map(user).collect()
}

/// Adds a user; `false` if the name is taken.
pub(crate) async fn insert_user(c: &mut Connection, user: &User) -> Result<bool, sqlx::Error> {
    let added = query(
        "INSERT INTO users (id, name, password, role, active, generation) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (name) DO NOTHING",
    );
    let added = added.bind(&user.id).bind(&user.name).bind(&user.password).bind(role_column(user.role));
    Ok(added.bind(i64::from(user.active)).bind(int(user.generation)).execute(c).await?.rows_affected() == 1)
}

pub(crate) async fn delete_user(c: &mut Connection, id: &str) -> Result<(), sqlx::Error> {
    query("DELETE FROM users WHERE id = $1").bind(id).execute(c).await.map(drop)
}

/// Starts the next generation of a user's tokens.
pub(crate) async fn raise_generation(c: &mut Connection, id: &str) -> Result<u64, sqlx::Error> {
    let raised = query_scalar("UPDATE users SET generation = generation + 1 WHERE id = $1 RETURNING generation");
    raised.bind(id).fetch_one(c).await.map(uint)
}

/// Ids of users who may log in.
pub(crate) async fn active_users(c: &mut Connection) -> Result<Vec<String>, sqlx::Error> {
    query_scalar("SELECT id FROM users WHERE active = 1 ORDER BY id").fetch_all(c).await
}

pub(crate) async fn group_id(c: &mut Connection, name: &str) -> Result<Option<String>, sqlx::Error> {
    query_scalar("SELECT id FROM user_groups WHERE name = $1").bind(name).fetch_optional(c).await
}

/// Adds a group; `false` if the name is taken.
pub(crate) async fn insert_group(c: &mut Connection, id: &str, name: &str) -> Result<bool, sqlx::Error> {
    let added = query("INSERT INTO user_groups (id, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING");
    Ok(added.bind(id).bind(name).execute(c).await?.rows_affected() == 1)
}

pub(crate) async fn delete_group(c: &mut Connection, id: &str) -> Result<(), sqlx::Error> {
    query("DELETE FROM user_groups WHERE id = $1").bind(id).execute(c).await.map(drop)
}

/// Adds a member; `false` if it is one.
pub(crate) async fn insert_member(c: &mut Connection, group: &str, user: &str) -> Result<bool, sqlx::Error> {
    let added = query("INSERT INTO members (group_id, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING");
    Ok(added.bind(group).bind(user).execute(c).await?.rows_affected() == 1)
}

/// Removes a member; `false` if it was none.
pub(crate) async fn delete_member(c: &mut Connection, group: &str, user: &str) -> Result<bool, sqlx::Error> {
    let removed = query("DELETE FROM members WHERE group_id = $1 AND user_id = $2");
    Ok(removed.bind(group).bind(user).execute(c).await?.rows_affected() == 1)
}

pub(crate) async fn members_of(c: &mut Connection, group: &str) -> Result<Vec<String>, sqlx::Error> {
    query_scalar("SELECT user_id FROM members WHERE group_id = $1 ORDER BY user_id").bind(group).fetch_all(c).await
}

/// Names of a user's groups.
pub(crate) async fn groups_of(c: &mut Connection, user: &str) -> Result<Vec<String>, sqlx::Error> {
    let names = query_scalar(
        "SELECT g.name FROM user_groups g JOIN members m ON m.group_id = g.id WHERE m.user_id = $1 ORDER BY g.name",
    );
    names.bind(user).fetch_all(c).await
}

/// User and key of a device.
pub(crate) async fn device(c: &mut Connection, client: &str) -> Result<Option<(String, String)>, sqlx::Error> {
    query_as("SELECT user_id, jkt FROM devices WHERE client_id = $1").bind(client).fetch_optional(c).await
}

pub(crate) async fn devices_of(c: &mut Connection, user: &str) -> Result<i64, sqlx::Error> {
    query_scalar("SELECT COUNT(*) FROM devices WHERE user_id = $1").bind(user).fetch_one(c).await
}

/// Forgets a user's devices; gives their keys, each once.
pub(crate) async fn delete_devices(c: &mut Connection, user: &str) -> Result<BTreeSet<String>, sqlx::Error> {
    let deleted = query_scalar("DELETE FROM devices WHERE user_id = $1 RETURNING jkt").bind(user);
    Ok(deleted.fetch_all(c).await?.into_iter().collect())
}

pub(crate) async fn insert_device(
    c: &mut Connection,
    client: &str,
    user: &str,
    jkt: &str,
    now: UnixSeconds,
) -> Result<(), sqlx::Error> {
    let added = query("INSERT INTO devices (client_id, user_id, jkt, registered_at) VALUES ($1, $2, $3, $4)");
    added.bind(client).bind(user).bind(jkt).bind(int(now.0)).execute(c).await.map(drop)
}

/// A login: the parent of everything issued for it.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) dn: String,
    pub(crate) user: String,
    pub(crate) client: String,
    pub(crate) jkt: String,
    /// That of its newest claims token.
    pub(crate) generation: u64,
    pub(crate) claims: String,
    pub(crate) auth_time: UnixSeconds,
    pub(crate) expires_at: UnixSeconds,
}

type LoginColumns = (String, String, String, String, i64, String, i64, i64);

fn login_of((dn, user, client, jkt, generation, claims, auth_time, expires_at): LoginColumns) -> Login {
    let (generation, auth_time, expires_at) = (uint(generation), at(auth_time), at(expires_at));
    Login { dn, user, client, jkt, generation, claims, auth_time, expires_at }
}

/// The login of a session, if it has not ended.
pub(crate) async fn live_login(c: &mut Connection, dn: &str, now: UnixSeconds) -> Result<Option<Login>, sqlx::Error> {
    let found = query_as(
        "SELECT dn, user_id, client_id, jkt, generation, claims_jti, auth_time, expires_at FROM logins \
         WHERE dn = $1 AND expires_at > $2",
    );
    Ok(found.bind(dn).bind(int(now.0)).fetch_optional(c).await?.map(login_of))
}

/// A user's logins that have not ended.
pub(crate) async fn live_logins_of(
    c: &mut Connection,
    user: &str,
    now: UnixSeconds,
) -> Result<Vec<Login>, sqlx::Error> {
    let found = query_as(
        "SELECT dn, user_id, client_id, jkt, generation, claims_jti, auth_time, expires_at FROM logins \
         WHERE user_id = $1 AND expires_at > $2 ORDER BY dn",
    );
    Ok(found.bind(user).bind(int(now.0)).fetch_all(c).await?.into_iter().map(login_of).collect())
}

/// All logins that have not ended.
pub(crate) async fn live_logins(c: &mut Connection, now: UnixSeconds) -> Result<Vec<Login>, sqlx::Error> {
    let found = query_as(
        "SELECT dn, user_id, client_id, jkt, generation, claims_jti, auth_time, expires_at FROM logins \
         WHERE expires_at > $1 ORDER BY dn",
    );
    Ok(found.bind(int(now.0)).fetch_all(c).await?.into_iter().map(login_of).collect())
}

/// Starts a login, or takes the place of an earlier one of the same session. What was issued for that one may last longer.
pub(crate) async fn put_login(c: &mut Connection, login: &Login) -> Result<(), sqlx::Error> {
    let put = query(
        "INSERT INTO logins (dn, user_id, client_id, jkt, generation, claims_jti, auth_time, expires_at, tokens_end) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) ON CONFLICT (dn) DO UPDATE SET jkt = excluded.jkt, \
         generation = excluded.generation, claims_jti = excluded.claims_jti, auth_time = excluded.auth_time, \
         expires_at = excluded.expires_at, tokens_end = CASE WHEN excluded.tokens_end > logins.tokens_end \
         THEN excluded.tokens_end ELSE logins.tokens_end END",
    );
    let put = put.bind(&login.dn).bind(&login.user).bind(&login.client).bind(&login.jkt).bind(int(login.generation));
    let put = put.bind(&login.claims).bind(int(login.auth_time.0)).bind(int(login.expires_at.0));
    put.execute(c).await.map(drop)
}

pub(crate) async fn end_logins_of_user(c: &mut Connection, user: &str) -> Result<(), sqlx::Error> {
    query("DELETE FROM logins WHERE user_id = $1").bind(user).execute(c).await.map(drop)
}

pub(crate) async fn end_logins_of_key(c: &mut Connection, jkt: &str) -> Result<(), sqlx::Error> {
    query("DELETE FROM logins WHERE jkt = $1").bind(jkt).execute(c).await.map(drop)
}

/// Whose login it is that a claims token is the newest of.
pub(crate) async fn user_of_claims(c: &mut Connection, jti: &str) -> Result<Option<User>, sqlx::Error> {
    let user: Option<String> =
        query_scalar("SELECT user_id FROM logins WHERE claims_jti = $1").bind(jti).fetch_optional(&mut *c).await?;
    match user {
        Some(user) => user_by_id(c, &user).await,
        None => Ok(None),
    }
}

pub(crate) async fn end_login_of_claims(c: &mut Connection, jti: &str) -> Result<(), sqlx::Error> {
    query("DELETE FROM logins WHERE claims_jti = $1").bind(jti).execute(c).await.map(drop)
}
