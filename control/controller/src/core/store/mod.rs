//! The database: SQLite in the state folder, or PostgreSQL for several Controllers.
//!
//! One set of statements serves both, of what they share (`$1`, `ON CONFLICT`, `RETURNING`; BIGINT, TEXT and bytes). Writers
//! take turns in both: in SQLite there is one connection that writes, in PostgreSQL each transaction that writes holds one
//! lock for all Controllers. What is decided in one transaction therefore sees everything that was decided before.
//! Functions take the connection of the transaction that they are part of.

mod audit;
mod controllers;
mod draining;
mod epoch;
mod hosts;
mod identity;
mod ledger;
mod news;
mod open;
mod over;
mod people;
mod policy;
mod presence;
mod providers;
mod receipts;
mod relays;
mod removal;
mod roles;
mod sites;

use std::time::Duration;

use ringfort_types::UnixSeconds;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyPool, Transaction, query};

pub(crate) use audit::*;
pub(crate) use controllers::*;
pub(crate) use draining::*;
pub(crate) use epoch::*;
pub(crate) use hosts::*;
pub(crate) use identity::*;
pub(crate) use ledger::*;
pub(crate) use news::*;
pub use open::PostgresUrl;
pub(crate) use open::{Place, copy_database};
pub(crate) use over::*;
pub(crate) use people::*;
pub(crate) use policy::*;
pub(crate) use presence::{Held, Presence};
pub(crate) use providers::*;
pub(crate) use receipts::*;
pub(crate) use relays::*;
pub(crate) use removal::*;
pub(crate) use roles::*;
pub(crate) use sites::*;

/// Connections that read. A point read takes some 50 µs in SQLite, 170 in PostgreSQL.
const READERS: u32 = 4;
/// How long a request waits for its turn; a write takes some 0.5 ms.
const WAIT: Duration = Duration::from_secs(30);
/// The lock of those who write to PostgreSQL: "ringfort" as a number.
const WRITERS_LOCK: i64 = 0x7269_6e67_666f_7274;

pub(crate) type Connection = sqlx::AnyConnection;

/// What kind of database it is, where that makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

/// The database.
pub(crate) struct Store {
    kind: Kind,
    /// One connection, so that writers wait for their turn in order instead of for a lock.
    writes: AnyPool,
    reads: AnyPool,
    /// That a Controller is there, where its connections do not say so.
    _present: Option<std::fs::File>,
}

impl Store {
    /// A transaction that writes.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        match self.kind {
            Kind::Sqlite => self.writes.begin_with("BEGIN IMMEDIATE").await,
            Kind::Postgres => {
                let mut tx = self.writes.begin().await?;
                query("SELECT pg_advisory_xact_lock($1)").bind(WRITERS_LOCK).execute(&mut *tx).await?;
                Ok(tx)
            }
        }
    }

    /// A connection for one statement that reads.
    pub(crate) async fn read(&self) -> Result<PoolConnection<Any>, sqlx::Error> {
        self.reads.acquire().await
    }

    /// Several statements that read one state.
    pub(crate) async fn snapshot(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        match self.kind {
            Kind::Sqlite => self.reads.begin().await,
            Kind::Postgres => self.reads.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await,
        }
    }
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
