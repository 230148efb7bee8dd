//! Who is at the database: Controllers side by side, or a restore, which is alone there.
//!
//! Whoever is there holds a lock for as long as it is, which goes with its process: of a file beside SQLite's, or of PostgreSQL's
//! own, held by every connection of a Controller.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::{AssertSqlSafe, Connection, PgConnection, query};
use tokio::time::{Instant, sleep};

use super::Place;
use super::open::PostgresUrl;

/// The lock of those who are at a PostgreSQL database: "rf-alone" as a number.
const PRESENCE_LOCK: i64 = 0x7266_2d61_6c6f_6e65;
/// How long somebody is waited for who is about to leave.
const LEAVING: Duration = Duration::from_secs(5);
/// How often is looked whether they have.
const LOOK: Duration = Duration::from_millis(20);
/// What PostgreSQL says of a lock that was not to be had in time (lock_not_available).
const NOT_AVAILABLE: &str = "55P03";

/// How somebody is at the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// As a Controller, beside others.
    Shared,
    /// With nobody else.
    Alone,
}

impl Presence {
    /// What a connection to PostgreSQL says that is there like this; nothing where another one holds the lock for it.
    pub(super) fn statement(self) -> Option<String> {
        (self == Self::Shared).then(|| format!("SELECT pg_advisory_lock_shared({PRESENCE_LOCK})"))
    }
}

/// Holds the lock.
pub(crate) enum Held {
    /// Until it is closed.
    File(File),
    /// Until it ends.
    Postgres(PgConnection),
}

impl Held {
    /// Takes the lock of the database at `place`, once those who leave have left.
    ///
    /// # Errors
    /// When others are there: a Controller for whoever is to be alone, a restore for Controllers.
    pub(crate) async fn take(place: &Place, presence: Presence) -> anyhow::Result<Self> {
        let held = match place {
            Place::File(path) => lock_file(&lock_of(path), presence).await?.map(Self::File),
            Place::Postgres(url) => lock_postgres(url, presence).await?.map(Self::Postgres),
        };
        match (held, presence) {
            (Some(held), _) => Ok(held),
            (None, Presence::Alone) => bail!(
                "expected a database that no Controller uses, found one that is in use: stop every Controller of it first"
            ),
            (None, Presence::Shared) => {
                bail!(
                    "expected a database that Controllers may use, found one that is being restored: start again after that"
                )
            }
        }
    }

    /// Gives it back at once.
    pub(crate) async fn release(self) {
        if let Self::Postgres(mut connection) = self {
            // Where that fails the connection is gone, and the lock with it.
            drop(query("SELECT pg_advisory_unlock_all()").execute(&mut connection).await);
            drop(connection.close().await);
        }
    }
}

/// The file beside SQLite's database, wherever that really is.
fn lock_of(database: &Path) -> PathBuf {
    let mut name = OsString::from(std::fs::canonicalize(database).unwrap_or_else(|_| database.to_owned()));
    name.push("-lock");
    name.into()
}

async fn lock_file(path: &Path, presence: Presence) -> anyhow::Result<Option<File>> {
    let naming = || format!("lock {}", path.display());
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(path).with_context(naming)?;
    let until = Instant::now() + LEAVING;
    loop {
        let locked = match presence {
            Presence::Shared => file.try_lock_shared(),
            Presence::Alone => file.try_lock(),
        };
        match locked {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(error)) => return Err(error).with_context(naming),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => return Ok(None),
            Err(TryLockError::WouldBlock) => sleep(LOOK).await,
        }
    }
}

async fn lock_postgres(url: &PostgresUrl, presence: Presence) -> anyhow::Result<Option<PgConnection>> {
    let connecting = "connect to the PostgreSQL database";
    let mut connection = PgConnection::connect(url.as_str()).await.context(connecting)?;
    let wait = format!("SET lock_timeout = '{}ms'", LEAVING.as_millis());
    query(AssertSqlSafe(wait)).execute(&mut connection).await.context(connecting)?;
    let function = match presence {
        Presence::Shared => "pg_advisory_lock_shared",
        Presence::Alone => "pg_advisory_lock",
    };
    let lock = format!("SELECT {function}({PRESENCE_LOCK})");
    match query(AssertSqlSafe(lock)).execute(&mut connection).await {
        Ok(_) => Ok(Some(connection)),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(NOT_AVAILABLE) => Ok(None),
        Err(error) => Err(error).context("lock the PostgreSQL database"),
    }
}
