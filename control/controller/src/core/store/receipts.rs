//! What Gateways confirmed, and what bounds those that are silent.

use std::collections::BTreeMap;

use ringfort_token::{EntryScope, Serial};
use ringfort_types::UnixSeconds;
use sqlx::{AssertSqlSafe, query, query_as, query_scalar};

use super::{Connection, at, int, uint};

/// Stands for a time that was not measured.
const UNMEASURED: i64 = -1;
/// Confirmations in one statement. The driver looks each parameter up by its name, so that many cost more than their number.
const APPLIED_ROWS_MAX: usize = 32;

/// What one Gateway said that it applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppliedRow {
    pub(crate) serial: Serial,
    /// From the push to the confirmation, in milliseconds.
    pub(crate) took_ms: Option<u64>,
}

/// Keeps what Gateways said, by id; of one that was removed nothing. Many in one statement: a revocation is confirmed by all of them at
/// about the same time.
pub(crate) async fn set_applied(
    c: &mut Connection,
    said: &BTreeMap<&str, AppliedRow>,
    now: UnixSeconds,
) -> Result<(), sqlx::Error> {
    let said: Vec<_> = said.iter().collect();
    for rows in said.chunks(APPLIED_ROWS_MAX) {
        let row = |n: usize| format!("(${}, ${}, ${}, ${})", 4 * n + 2, 4 * n + 3, 4 * n + 4, 4 * n + 5);
        let values = (0..rows.len()).map(row).collect::<Vec<_>>().join(", ");
        // The parameters' numbers are all that is put into it.
        let set = AssertSqlSafe(format!(
            "INSERT INTO applied (gateway, epoch, n, took_ms, at) SELECT g.id, v.column2, v.column3, v.column4, $1 \
             FROM (VALUES {values}) AS v JOIN gateways g ON g.id = v.column1 WHERE TRUE \
             ON CONFLICT (gateway) DO UPDATE SET epoch = excluded.epoch, n = excluded.n, took_ms = excluded.took_ms, \
             at = excluded.at"
        ));
        let mut set = query(set).persistent(rows.len() == APPLIED_ROWS_MAX).bind(int(now.0));
        for (gateway, AppliedRow { serial, took_ms }) in rows {
            set = set.bind(**gateway).bind(int(serial.epoch)).bind(int(serial.n));
            set = set.bind(took_ms.map_or(UNMEASURED, int));
        }
        set.execute(&mut *c).await?;
    }
    Ok(())
}

/// The serials that Gateways have applied, by id.
pub(crate) async fn applied(c: &mut Connection) -> Result<Vec<(String, Serial)>, sqlx::Error> {
    let found: Vec<(String, i64, i64)> = query_as("SELECT gateway, epoch, n FROM applied").fetch_all(c).await?;
    Ok(found.into_iter().map(|(gateway, epoch, n)| (gateway, Serial { epoch: uint(epoch), n: uint(n) })).collect())
}

/// Notes until when a Gateway may admit new sessions by the configuration that is being signed for it. A shorter lease may never reach
/// it, so the longest counts.
pub(crate) async fn set_lease(c: &mut Connection, gateway: &str, until: UnixSeconds) -> Result<(), sqlx::Error> {
    query("UPDATE gateways SET lease_until = $2 WHERE id = $1 AND lease_until < $2")
        .bind(gateway)
        .bind(int(until.0))
        .execute(c)
        .await
        .map(drop)
}

/// Notes when the last token ends from which the entry `n` takes something. Whose token it is that an entry names, or whose
/// certificate, is not always known: then it may be anybody's.
pub(crate) async fn set_revocation_end(c: &mut Connection, n: u64, scope: &EntryScope) -> Result<(), sqlx::Error> {
    let (ends, of) = match scope {
        EntryScope::User { user, .. } => {
            ("SELECT COALESCE(MAX(tokens_end), 0) FROM logins WHERE user_id = $1", user.clone())
        }
        EntryScope::Key(key) => ("SELECT COALESCE(MAX(tokens_end), 0) FROM logins WHERE jkt = $1", key.to_string()),
        EntryScope::Token(id) => (
            "SELECT COALESCE((SELECT tokens_end FROM logins WHERE claims_jti = $1), \
             (SELECT MAX(tokens_end) FROM logins), 0)",
            id.clone(),
        ),
        EntryScope::Certificate(_) => ("SELECT COALESCE(MAX(tokens_end), 0) FROM logins WHERE dn <> $1", String::new()),
    };
    let ends_at: i64 = query_scalar(ends).bind(of).fetch_one(&mut *c).await?;
    let set = query("UPDATE revocations SET ends_at = $2 WHERE n = $1").bind(int(n)).bind(ends_at);
    set.execute(c).await.map(drop)
}

/// A Gateway as far as a receipt tells of it.
pub(crate) struct ReceiptRow {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Name of its site.
    pub(crate) site: String,
    pub(crate) last_seen: UnixSeconds,
    pub(crate) lease_until: UnixSeconds,
    pub(crate) applied: Option<AppliedRow>,
    /// When the last session ends that entries up to the one asked for would end and that it has not heard of.
    pub(crate) unheard_end: UnixSeconds,
}

type ReceiptColumns = (String, String, String, i64, i64, i64, i64, i64, i64);

/// How every Gateway that ever had a configuration stands with the entries up to `serial`, by name.
pub(crate) async fn receipts(c: &mut Connection, serial: Serial) -> Result<Vec<ReceiptRow>, sqlx::Error> {
    let found = query_as(
        "SELECT g.id, g.name, s.name, g.last_seen, g.lease_until, COALESCE(a.epoch, -1), COALESCE(a.n, 0), \
         COALESCE(a.took_ms, -1), \
         COALESCE((SELECT MAX(COALESCE(r.ends_at, r.keep_until)) FROM revocations r WHERE r.n <= $2 \
         AND (a.epoch IS NULL OR a.epoch <> $1 OR r.n > a.n)), 0) \
         FROM gateways g JOIN sites s ON s.id = g.site LEFT JOIN applied a ON a.gateway = g.id \
         WHERE g.lease_until > 0 ORDER BY g.name",
    );
    let found: Vec<ReceiptColumns> = found.bind(int(serial.epoch)).bind(int(serial.n)).fetch_all(c).await?;
    let row = |(id, name, site, last_seen, lease_until, epoch, n, took_ms, unheard_end): ReceiptColumns| ReceiptRow {
        id,
        name,
        site,
        last_seen: at(last_seen),
        lease_until: at(lease_until),
        applied: u64::try_from(epoch)
            .ok()
            .map(|epoch| AppliedRow { serial: Serial { epoch, n: uint(n) }, took_ms: u64::try_from(took_ms).ok() }),
        unheard_end: at(unheard_end),
    };
    Ok(found.into_iter().map(row).collect())
}
