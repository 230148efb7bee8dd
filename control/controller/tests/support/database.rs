//! The database of an organisation under test: SQLite in its folder or, where `RINGFORT_TEST_POSTGRES` names a server (as
//! `cargo xtask e2e` does), a PostgreSQL database of its own.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use ringfort_controller::core::PostgresUrl;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

/// The server: `postgres://user@localhost/postgres?host=/folder/of/its/socket`.
const SERVER: &str = "RINGFORT_TEST_POSTGRES";

/// Where the organisation in a state folder has its database, made empty if it is not there; `None` for SQLite.
pub(crate) async fn of(folder: &Path) -> Option<PostgresUrl> {
    let server = std::env::var(SERVER).ok()?;
    let name = name(folder);
    let mut connection = PgConnection::connect(&server).await.unwrap();
    let known: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
        .bind(&name)
        .fetch_optional(&mut connection)
        .await
        .unwrap();
    if known.is_none() {
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    Some(url(&server, &name).parse().unwrap())
}

/// Whether organisations under test have PostgreSQL.
#[allow(dead_code)]
pub(crate) fn is_postgres() -> bool {
    std::env::var_os(SERVER).is_some()
}

/// Changes the database behind its Controller's back.
#[allow(dead_code)]
pub(crate) async fn execute(folder: &Path, statement: &'static str) {
    attempt(folder, statement).await.unwrap();
}

/// The same, where the database may refuse; gives the number of rows that it concerned.
#[allow(dead_code)]
pub(crate) async fn attempt(folder: &Path, statement: &'static str) -> Result<u64, sqlx::Error> {
    match std::env::var(SERVER) {
        Ok(server) => {
            let mut connection = PgConnection::connect(&url(&server, &name(folder))).await.unwrap();
            sqlx::query(statement).execute(&mut connection).await.map(|done| done.rows_affected())
        }
        Err(_) => {
            let url = format!("sqlite://{}", folder.join("database.sqlite").display());
            let mut connection = SqliteConnection::connect(&url).await.unwrap();
            sqlx::query(statement).execute(&mut connection).await.map(|done| done.rows_affected())
        }
    }
}

/// Carries out a statement at the PostgreSQL server from outside of the organisation's database, whose name takes the place of
/// `{}`; gives the number of rows that it concerned.
#[allow(dead_code)]
pub(crate) async fn beside(folder: &Path, statement: &str) -> u64 {
    let mut connection = PgConnection::connect(&std::env::var(SERVER).unwrap()).await.unwrap();
    let statement = AssertSqlSafe(statement.replace("{}", &name(folder)));
    sqlx::query(statement).execute(&mut connection).await.unwrap().rows_affected()
}

/// A turn to write, which others wait for while it is held.
#[allow(dead_code)]
pub(crate) enum Turn {
    Sqlite(#[allow(unused)] SqliteConnection),
    Postgres(#[allow(unused)] PgConnection),
}

/// Takes the turn to write behind the Controller's back.
#[allow(dead_code)]
pub(crate) async fn turn(folder: &Path) -> Turn {
    match std::env::var(SERVER) {
        Ok(server) => {
            let mut connection = PgConnection::connect(&url(&server, &name(folder))).await.unwrap();
            // "ringfort" as a number.
            let lock = sqlx::query("SELECT pg_advisory_lock(8244241983257670260)");
            lock.execute(&mut connection).await.unwrap();
            Turn::Postgres(connection)
        }
        Err(_) => {
            let url = format!("sqlite://{}", folder.join("database.sqlite").display());
            let mut connection = SqliteConnection::connect(&url).await.unwrap();
            sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
            Turn::Sqlite(connection)
        }
    }
}

fn name(folder: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    format!("t{:016x}", hasher.finish())
}

fn url(server: &str, database: &str) -> String {
    server.replacen("/postgres?", &format!("/{database}?"), 1)
}
