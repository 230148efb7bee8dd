//! What users have besides a password: an e-mail address and one-time passwords.

use std::collections::BTreeMap;

use ringfort_proto::api::OtpKind;
use ringfort_types::UnixSeconds;
use sqlx::{query, query_as, query_scalar};

use super::{Connection, User, at, int, uint, user_by_id};

/// What a list shows of a user besides.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) email: Option<String>,
    pub(crate) service: bool,
    pub(crate) otp: Option<OtpKind>,
}

/// The accounts of all users, by id.
pub(crate) async fn accounts(c: &mut Connection) -> Result<BTreeMap<String, Account>, sqlx::Error> {
    type Columns = (String, Option<String>, i64, String);
    let found = query_as(
        "SELECT u.id, u.email, u.service, \
         CASE WHEN t.secret IS NULL THEN 'none' WHEN t.secret = '' THEN 'external' ELSE 'totp' END \
         FROM users u LEFT JOIN totp t ON t.user_id = u.id",
    );
    let found: Vec<Columns> = found.fetch_all(c).await?;
    let account = |(id, email, service, otp): Columns| {
        let otp = match otp.as_str() {
            "totp" => Some(OtpKind::Totp),
            "external" => Some(OtpKind::External),
            _ => None,
        };
        (id, Account { email, service: service != 0, otp })
    };
    Ok(found.into_iter().map(account).collect())
}

/// The user whom identity providers know by an address.
pub(crate) async fn user_by_email(c: &mut Connection, email: &str) -> Result<Option<User>, sqlx::Error> {
    let id: Option<String> =
        query_scalar("SELECT id FROM users WHERE email = $1").bind(email).fetch_optional(&mut *c).await?;
    match id {
        Some(id) => user_by_id(c, &id).await,
        None => Ok(None),
    }
}

/// The address by which identity providers know a user.
pub(crate) async fn email_of(c: &mut Connection, id: &str) -> Result<Option<String>, sqlx::Error> {
    let found: Option<Option<String>> =
        query_scalar("SELECT email FROM users WHERE id = $1").bind(id).fetch_optional(c).await?;
    Ok(found.flatten())
}

/// Makes an address a user's; `false` if it is another's.
pub(crate) async fn set_email(c: &mut Connection, id: &str, email: Option<&str>) -> Result<bool, sqlx::Error> {
    let set = query(
        "UPDATE users SET email = $2 WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM users WHERE email = $2 AND id <> $1)",
    );
    Ok(set.bind(id).bind(email).execute(c).await?.rows_affected() == 1)
}

/// Whether a user is a program's account.
pub(crate) async fn is_service(c: &mut Connection, id: &str) -> Result<bool, sqlx::Error> {
    let found: Option<i64> = query_scalar("SELECT service FROM users WHERE id = $1").bind(id).fetch_optional(c).await?;
    Ok(found.is_some_and(|service| service != 0))
}

pub(crate) async fn make_service(c: &mut Connection, id: &str) -> Result<(), sqlx::Error> {
    query("UPDATE users SET service = 1 WHERE id = $1").bind(id).execute(c).await.map(drop)
}

/// Lets a user log in, or not.
pub(crate) async fn set_active(c: &mut Connection, id: &str, active: bool) -> Result<(), sqlx::Error> {
    query("UPDATE users SET active = $2 WHERE id = $1").bind(id).bind(i64::from(active)).execute(c).await.map(drop)
}

/// A user's one-time passwords: a row of the table `totp`, whose secret is empty where another system has it.
pub(crate) struct Otp {
    /// Sealed; `None` where a system of the organisation's own checks them.
    pub(crate) secret: Option<String>,
    pub(crate) used_step: u64,
    pub(crate) locked_until: UnixSeconds,
}

impl Otp {
    /// Who checks them.
    pub(crate) const fn kind(&self) -> OtpKind {
        match self.secret {
            Some(_) => OtpKind::Totp,
            None => OtpKind::External,
        }
    }
}

pub(crate) async fn otp(c: &mut Connection, user: &str) -> Result<Option<Otp>, sqlx::Error> {
    let found = query_as("SELECT secret, used_step, locked_until FROM totp WHERE user_id = $1");
    let found: Option<(String, i64, i64)> = found.bind(user).fetch_optional(c).await?;
    Ok(found.map(|(secret, used_step, locked_until)| Otp {
        secret: Some(secret).filter(|secret| !secret.is_empty()),
        used_step: uint(used_step),
        locked_until: at(locked_until),
    }))
}

/// Gives a user one-time passwords by a sealed secret, or `None` for those of another system, in place of earlier ones.
pub(crate) async fn put_otp(c: &mut Connection, user: &str, secret: Option<&str>) -> Result<(), sqlx::Error> {
    let put = query(
        "INSERT INTO totp (user_id, secret, used_step, failures, locked_until) VALUES ($1, $2, 0, 0, 0) \
         ON CONFLICT (user_id) DO UPDATE SET secret = excluded.secret, used_step = 0, failures = 0, locked_until = 0",
    );
    put.bind(user).bind(secret.unwrap_or_default()).execute(c).await.map(drop)
}

/// Takes a user's one-time passwords away.
pub(crate) async fn delete_otp(c: &mut Connection, user: &str) -> Result<(), sqlx::Error> {
    query("DELETE FROM totp WHERE user_id = $1").bind(user).execute(c).await.map(drop)
}

/// Uses a time step up; `false` if it, or a later one, was used.
pub(crate) async fn use_step(c: &mut Connection, user: &str, step: u64) -> Result<bool, sqlx::Error> {
    let used = query("UPDATE totp SET used_step = $2, failures = 0 WHERE user_id = $1 AND used_step < $2");
    Ok(used.bind(user).bind(int(step)).execute(c).await?.rows_affected() == 1)
}

/// Counts a wrong code; gives how many there were in a row.
pub(crate) async fn count_otp_failure(c: &mut Connection, user: &str) -> Result<u64, sqlx::Error> {
    let counted = query_scalar("UPDATE totp SET failures = failures + 1 WHERE user_id = $1 RETURNING failures");
    counted.bind(user).fetch_one(c).await.map(uint)
}

/// Lets no code count until then.
pub(crate) async fn lock_otp(c: &mut Connection, user: &str, until: UnixSeconds) -> Result<(), sqlx::Error> {
    let locked = query("UPDATE totp SET locked_until = $2 WHERE user_id = $1").bind(user).bind(int(until.0));
    locked.execute(c).await.map(drop)
}

/// Another system says that a code is right: the count begins anew. `false` if it is not asked about this user any more.
pub(crate) async fn allow_external(c: &mut Connection, user: &str) -> Result<bool, sqlx::Error> {
    let allowed = query("UPDATE totp SET failures = 0, locked_until = 0 WHERE user_id = $1 AND secret = ''");
    Ok(allowed.bind(user).execute(c).await?.rows_affected() == 1)
}

/// Takes back that a code of another system was counted as wrong. With one less there is no lock either: that is set with the last of
/// those that lock, and none is counted while it lasts.
pub(crate) async fn uncount_external(c: &mut Connection, user: &str) -> Result<(), sqlx::Error> {
    let uncounted = query(
        "UPDATE totp SET failures = failures - 1, locked_until = 0 WHERE user_id = $1 AND secret = '' AND failures > 0",
    );
    uncounted.bind(user).execute(c).await.map(drop)
}
