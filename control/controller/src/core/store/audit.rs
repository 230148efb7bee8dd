//! Audit events: added and read.

use ringfort_types::UnixSeconds;
use sqlx::{query, query_as, query_scalar};

use super::{Connection, at, int, uint};

/// An event in the database.
pub(crate) struct Recorded {
    pub(crate) id: String,
    pub(crate) at: UnixSeconds,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) target: String,
    pub(crate) outcome: String,
    pub(crate) detail: String,
    /// What was there before the action, as JSON; empty for nothing.
    pub(crate) before: String,
    /// What is there after it.
    pub(crate) after: String,
}

pub(crate) async fn insert_event(c: &mut Connection, event: &Recorded) -> Result<(), sqlx::Error> {
    let added = query(
        "INSERT INTO audit (n, id, at, actor, action, target, outcome, detail, before_it, after_it) \
         VALUES ((SELECT COALESCE(MAX(n), 0) + 1 FROM audit), $1, $2, $3, $4, $5, $6, $7, $8, $9)",
    );
    let added = added.bind(&event.id).bind(int(event.at.0)).bind(&event.actor).bind(&event.action).bind(&event.target);
    let added = added.bind(&event.outcome).bind(&event.detail).bind(&event.before).bind(&event.after);
    added.execute(c).await.map(drop)
}

/// The number of the newest event.
pub(crate) async fn newest_event(c: &mut Connection) -> Result<u64, sqlx::Error> {
    query_scalar("SELECT COALESCE(MAX(n), 0) FROM audit").fetch_one(c).await.map(uint)
}

/// Which events are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    /// None from before.
    pub(crate) since: UnixSeconds,
    /// Those with lower numbers.
    pub(crate) below: u64,
    /// The newest of them.
    pub(crate) limit: u32,
}

/// Events with their numbers, the newest first.
pub(crate) async fn events(c: &mut Connection, page: Page) -> Result<Vec<(u64, Recorded)>, sqlx::Error> {
    let found = query_as(
        "SELECT n, id, at, actor, action, target, outcome, detail, before_it, after_it FROM audit \
         WHERE at >= $1 AND n < $2 ORDER BY n DESC LIMIT $3",
    );
    type Columns = (i64, String, i64, String, String, String, String, String, String, String);
    let Page { since, below, limit } = page;
    let found = found.bind(int(since.0)).bind(int(below)).bind(i64::from(limit));
    let found: Vec<Columns> = found.fetch_all(c).await?;
    let recorded = |(n, id, when, actor, action, target, outcome, detail, before, after)| {
        (uint(n), Recorded { id, at: at(when), actor, action, target, outcome, detail, before, after })
    };
    Ok(found.into_iter().map(recorded).collect())
}
