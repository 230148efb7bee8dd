//! Who users are at identity providers, and their sessions there.

use ringfort_types::UnixSeconds;
use sqlx::{query, query_as, query_scalar};

use super::{Connection, at, int};

/// Whether a method's `subject` may be this user: neither is bound to another.
pub(crate) async fn may_be_bound(
    c: &mut Connection,
    user: &str,
    method: &str,
    subject: &str,
) -> Result<bool, sqlx::Error> {
    let others: i64 = query_scalar(
        "SELECT COUNT(*) FROM provider_subjects \
         WHERE method = $2 AND (user_id = $1 OR subject = $3) AND NOT (user_id = $1 AND subject = $3)",
    )
    .bind(user)
    .bind(method)
    .bind(subject)
    .fetch_one(c)
    .await?;
    Ok(others == 0)
}

/// Binds a user to who they are by a method, at the first login by it.
pub(crate) async fn bind_subject(
    c: &mut Connection,
    user: &str,
    method: &str,
    subject: &str,
    now: UnixSeconds,
) -> Result<(), sqlx::Error> {
    let bound = query(
        "INSERT INTO provider_subjects (user_id, method, subject, bound_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT DO NOTHING",
    );
    bound.bind(user).bind(method).bind(subject).bind(int(now.0)).execute(c).await.map(drop)
}

/// Whether a user has logged in at a provider.
pub(crate) async fn has_subjects(c: &mut Connection, user: &str) -> Result<bool, sqlx::Error> {
    let bound: i64 =
        query_scalar("SELECT COUNT(*) FROM provider_subjects WHERE user_id = $1").bind(user).fetch_one(c).await?;
    Ok(bound > 0)
}

/// Forgets who a user is at every provider; gives the methods.
pub(crate) async fn forget_subjects(c: &mut Connection, user: &str) -> Result<Vec<String>, sqlx::Error> {
    query_scalar("DELETE FROM provider_subjects WHERE user_id = $1 RETURNING method").bind(user).fetch_all(c).await
}

/// A login's session at an identity provider.
pub(crate) struct ProviderSession {
    pub(crate) method: String,
    pub(crate) subject: String,
    /// Sealed.
    pub(crate) refresh: String,
    pub(crate) refreshed_at: UnixSeconds,
    /// When the login ends whatever the provider says.
    pub(crate) latest: UnixSeconds,
    /// Who asks the provider at the moment; empty for nobody.
    pub(crate) lease: String,
}

/// The provider's session of a login, or none. Nobody asks about it any more.
pub(crate) async fn put_provider_session(
    c: &mut Connection,
    dn: &str,
    session: Option<&ProviderSession>,
) -> Result<(), sqlx::Error> {
    query("DELETE FROM provider_sessions WHERE dn = $1").bind(dn).execute(&mut *c).await?;
    let Some(ProviderSession { method, subject, refresh, refreshed_at, latest, lease: _ }) = session else {
        return Ok(());
    };
    let put = query(
        "INSERT INTO provider_sessions (dn, method, subject, refresh, refreshed_at, latest) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    );
    let put = put.bind(dn).bind(method).bind(subject).bind(refresh).bind(int(refreshed_at.0)).bind(int(latest.0));
    put.execute(c).await.map(drop)
}

pub(crate) async fn provider_session(c: &mut Connection, dn: &str) -> Result<Option<ProviderSession>, sqlx::Error> {
    type Columns = (String, String, String, i64, i64, String);
    let found =
        query_as("SELECT method, subject, refresh, refreshed_at, latest, lease FROM provider_sessions WHERE dn = $1");
    let found: Option<Columns> = found.bind(dn).fetch_optional(c).await?;
    Ok(found.map(|(method, subject, refresh, refreshed_at, latest, lease)| ProviderSession {
        method,
        subject,
        refresh,
        refreshed_at: at(refreshed_at),
        latest: at(latest),
        lease,
    }))
}

/// Takes the right to spend the refresh token `refresh` of a login until `until`; `false` if somebody else has it, or the token is
/// not that one any more.
pub(crate) async fn lease_session(
    c: &mut Connection,
    dn: &str,
    (refresh, lease): (&str, &str),
    until: UnixSeconds,
    now: UnixSeconds,
) -> Result<bool, sqlx::Error> {
    let leased = query(
        "UPDATE provider_sessions SET lease = $3, leased_until = $4 WHERE dn = $1 AND refresh = $2 AND leased_until <= $5",
    );
    let leased = leased.bind(dn).bind(refresh).bind(lease).bind(int(until.0)).bind(int(now.0));
    Ok(leased.execute(c).await?.rows_affected() == 1)
}

/// Gives that right back.
pub(crate) async fn release_session(c: &mut Connection, dn: &str, lease: &str) -> Result<(), sqlx::Error> {
    let released = query("UPDATE provider_sessions SET lease = '', leased_until = 0 WHERE dn = $1 AND lease = $2");
    released.bind(dn).bind(lease).execute(c).await.map(drop)
}
