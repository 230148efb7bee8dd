//! The database: SQLite, written by one connection and read by a few.
//!
//! The statements keep to what SQLite and PostgreSQL share (`$1`, `ON CONFLICT`, `RETURNING`). Functions take the connection
//! of the transaction that they are part of.

mod audit;
mod draining;
mod ledger;
mod people;
mod receipts;
mod removal;
mod roles;
mod sites;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use ringfort_types::UnixSeconds;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqlSafeStr, Sqlite, SqlitePool, Transaction};

pub(crate) use audit::*;
pub(crate) use draining::*;
pub(crate) use ledger::*;
pub(crate) use people::*;
pub(crate) use receipts::*;
pub(crate) use removal::*;
pub(crate) use roles::*;
pub(crate) use sites::*;

/// Connections that read. A point read takes some 50 µs.
const READERS: u32 = 4;
/// How long a request waits for its turn, in seconds; a write takes some 0.5 ms.
const WAIT_SECONDS: u64 = 30;
/// How long a connection waits for a lock that another process holds, in seconds.
const LOCK_SECONDS: u64 = 5;

pub(crate) type Connection = sqlx::SqliteConnection;

/// The database.
pub(crate) struct Store {
    /// One connection, so that writers wait for their turn in order instead of for SQLite's lock.
    writes: SqlitePool,
    reads: SqlitePool,
}

impl Store {
    /// Opens the database, makes it if there is none, and brings it to today's form.
    pub(crate) async fn open(path: &Path) -> anyhow::Result<Self> {
        // SQLite gives its further files the mode of this one.
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        made.with_context(|| format!("make {}", path.display()))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(LOCK_SECONDS));
        let pool = |connections| {
            SqlitePoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_secs(WAIT_SECONDS))
        };
        let writes = pool(1).connect_with(options.clone()).await.context("open the database")?;
        migrations().run(&writes).await.context("bring the database to today's form")?;
        let append_only = include_str!("../../../migrations/sqlite/audit_append_only.sql").into_sql_str();
        sqlx::raw_sql(append_only).execute(&writes).await.context("protect the audit log")?;
        let reads = pool(READERS).connect_with(options).await.context("open the database")?;
        Ok(Self { writes, reads })
    }

    /// A transaction that writes.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.writes.begin_with("BEGIN IMMEDIATE").await
    }

    /// A connection for one statement that reads.
    pub(crate) async fn read(&self) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        self.reads.acquire().await
    }

    /// Several statements that read one state.
    pub(crate) async fn snapshot(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.reads.begin().await
    }
}

fn migrations() -> Migrator {
    let simple = |number, name: &'static str, text: &'static str| {
        Migration::new(number, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        simple(1, "first", include_str!("../../../migrations/0001_first.sql")),
        simple(5, "administration", include_str!("../../../migrations/0005_administration.sql")),
    ])
}

/// As the database has it. What is beyond 2⁶³ is no time or counter of ours.
pub(crate) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// As we have it.
pub(crate) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

pub(crate) fn at(number: i64) -> UnixSeconds {
    UnixSeconds(uint(number))
}

/// A list in a column.
pub(crate) fn list(text: &str) -> Result<Vec<String>, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// A list for a column.
pub(crate) fn listed(list: &[String]) -> Result<String, sqlx::Error> {
    serde_json::to_string(list).map_err(|error| sqlx::Error::Encode(error.into()))
}

#[cfg(test)]
mod tests {
    use ringfort_proto::api::AdministratorRole;

    use super::*;

    /// A database as the first version of the program left it.
    async fn first_form(path: &Path) -> SqlitePool {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        let first = migrations().iter().take(1).cloned().collect();
        Migrator::with_migrations(first).run(&pool).await.unwrap();
        pool
    }

    #[tokio::test]
    async fn who_had_the_mark_becomes_an_owner() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("database.sqlite");
        let old = first_form(&path).await;
        for (name, mark) in [("ada", 1), ("bob", 0)] {
            let add = sqlx::query("INSERT INTO users VALUES ($1, $1, '', $2, 1, 1)").bind(name).bind(mark);
            add.execute(&old).await.unwrap();
        }
        old.close().await;
        let store = Store::open(&path).await.unwrap();
        let roles: Vec<_> = users(&mut store.begin().await.unwrap()).await.unwrap();
        let roles: Vec<_> = roles.iter().map(|user| (user.name.as_str(), user.role)).collect();
        assert_eq!(roles, [("ada", Some(AdministratorRole::Owner)), ("bob", None)]);
    }

    #[tokio::test]
    async fn an_audit_event_is_neither_changed_nor_removed() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("database.sqlite")).await.unwrap();
        let text = || "x".to_owned();
        let event = Recorded {
            id: text(),
            at: UnixSeconds(1),
            actor: text(),
            action: text(),
            target: text(),
            outcome: text(),
            detail: text(),
            before: String::new(),
            after: String::new(),
        };
        let mut tx = store.begin().await.unwrap();
        insert_event(&mut tx, &event).await.unwrap();
        tx.commit().await.unwrap();
        for statement in [
            "UPDATE audit SET actor = 'nobody'",
            "DELETE FROM audit",
            "INSERT OR REPLACE INTO audit SELECT * FROM audit",
        ] {
            let mut tx = store.begin().await.unwrap();
            let refused = sqlx::query(statement).execute(&mut *tx).await.unwrap_err();
            assert!(refused.to_string().contains("audit events are not"), "{statement}: {refused}");
        }
        let page = Page { since: UnixSeconds(0), below: u64::MAX, limit: 9 };
        let kept = events(&mut store.begin().await.unwrap(), page).await.unwrap();
        assert_eq!(kept.iter().map(|(n, event)| (*n, event.actor.as_str())).collect::<Vec<_>>(), [(1, "x")]);
    }
}
