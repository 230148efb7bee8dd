//! The database: SQLite, written by one connection and read by a few.
//!
//! The statements keep to what SQLite and PostgreSQL share (`$1`, `ON CONFLICT`, `RETURNING`). Functions take the connection
//! of the transaction that they are part of.

mod identity;
mod ledger;
mod people;
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

pub(crate) use identity::*;
pub(crate) use ledger::*;
pub(crate) use people::*;
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
    let first = include_str!("../../../migrations/0001_first.sql").into_sql_str();
    let identity = include_str!("../../../migrations/0003_identity.sql").into_sql_str();
    Migrator::with_migrations(vec![
        Migration::new(1, "first".into(), MigrationType::Simple, first, false),
        Migration::new(3, "identity".into(), MigrationType::Simple, identity, false),
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
