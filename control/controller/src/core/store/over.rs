//! Removing what is over.
//!
//! Each statement removes a bounded number of rows, so that no writer waits long for its turn.

use ringfort_types::UnixSeconds;
use sqlx::{query, query_scalar};

use super::{Connection, int};

/// Rows that one statement removes at most: some 50 ms of a database that others write to.
pub(crate) const REMOVED_MAX: u64 = 5_000;

/// Removes invitations that were used up or have expired before `before`; gives how many.
pub(crate) async fn remove_invitations(c: &mut Connection, before: UnixSeconds) -> Result<u64, sqlx::Error> {
    let removed = query(
        "DELETE FROM invitations WHERE cookie_hash IN \
         (SELECT cookie_hash FROM invitations WHERE expires_at < $1 OR used_at < $1 LIMIT $2)",
    );
    Ok(removed.bind(int(before.0)).bind(int(REMOVED_MAX)).execute(c).await?.rows_affected())
}

/// Removes logins of which every token has ended before `before`; gives how many.
pub(crate) async fn remove_logins(c: &mut Connection, before: UnixSeconds) -> Result<u64, sqlx::Error> {
    let removed = query(
        "DELETE FROM logins WHERE dn IN \
         (SELECT dn FROM logins WHERE expires_at < $1 AND tokens_end < $1 LIMIT $2)",
    );
    Ok(removed.bind(int(before.0)).bind(int(REMOVED_MAX)).execute(c).await?.rows_affected())
}

/// Removes sequences of sessions that have no login and were given no number since `before`; gives how many. Sequences that begin
/// later begin above them: a Gateway that remembers the number sees none fall.
pub(crate) async fn remove_sequences(c: &mut Connection, before: UnixSeconds) -> Result<u64, sqlx::Error> {
    let removed = query_scalar(
        "DELETE FROM sequences WHERE (dn, site) IN (SELECT s.dn, s.site FROM sequences s WHERE s.used_at < $1 \
         AND NOT EXISTS (SELECT 1 FROM logins l WHERE l.dn = s.dn) LIMIT $2) RETURNING seq",
    );
    let removed: Vec<i64> = removed.bind(int(before.0)).bind(int(REMOVED_MAX)).fetch_all(&mut *c).await?;
    if let Some(highest) = removed.iter().max() {
        let raise = query("UPDATE organisation SET sequences_from = $1 WHERE sequences_from < $1");
        raise.bind(*highest).execute(c).await?;
    }
    Ok(removed.len() as u64)
}

/// Removes revocations of which nothing is left since `before` that they could be about; gives how many. The newest stays: it says
/// where the list stands.
pub(crate) async fn remove_revocations(c: &mut Connection, before: UnixSeconds) -> Result<u64, sqlx::Error> {
    let removed = query(
        "DELETE FROM revocations WHERE n IN (SELECT n FROM revocations WHERE keep_until < $1 \
         AND COALESCE(ends_at, 0) < $1 AND n < (SELECT MAX(n) FROM revocations) ORDER BY n LIMIT $2)",
    );
    Ok(removed.bind(int(before.0)).bind(int(REMOVED_MAX)).execute(c).await?.rows_affected())
}
