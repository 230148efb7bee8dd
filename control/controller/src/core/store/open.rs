//! Where the database is, and how it comes to today's form.

use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, SqlSafeStr, query, raw_sql};
use zeroize::Zeroizing;

use super::{Held, Kind, Presence, READERS, Store, WAIT};

/// The forms of the database, one after another. They are written for SQLite; PostgreSQL calls one type by another name.
const FORMS: [(i64, &str, &str); 9] = [
    (1, "first", include_str!("../../../migrations/0001_first.sql")),
    (2, "several", include_str!("../../../migrations/0002_several.sql")),
    (3, "identity", include_str!("../../../migrations/0003_identity.sql")),
    (4, "hosts", include_str!("../../../migrations/0004_hosts.sql")),
    (5, "administration", include_str!("../../../migrations/0005_administration.sql")),
    (6, "accounts", include_str!("../../../migrations/0006_accounts.sql")),
    (7, "over", include_str!("../../../migrations/0007_over.sql")),
    (10, "relays", include_str!("../../../migrations/0010_relays.sql")),
    (11, "keys", include_str!("../../../migrations/0011_keys.sql")),
];
/// How long a transaction in PostgreSQL may leave its turn unused.
const TURN_MAX: Duration = Duration::from_secs(15);
/// How often PostgreSQL looks whether we are there still.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long a connection waits for a lock that another process holds.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Where the database is.
#[derive(Debug)]
pub(crate) enum Place {
    /// A file of this machine, for one Controller.
    File(PathBuf),
    /// A PostgreSQL database, which several Controllers may share.
    Postgres(PostgresUrl),
}

/// The address of a PostgreSQL database: `postgres://user:password@host/database?sslmode=verify-full`. It may hold a password
/// and is not shown; the password may also be where PostgreSQL's own programs find it (`PGPASSFILE`).
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl(Zeroizing<String>);

impl PostgresUrl {
    /// As it is, with whatever is secret in it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgresUrl(…)")
    }
}

impl FromStr for PostgresUrl {
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let is_postgres = url.starts_with("postgres://") || url.starts_with("postgresql://");
        if !is_postgres || PgConnectOptions::from_str(url).is_err() {
            return Err("expected postgres://user:password@host/database, as PostgreSQL's own programs take it");
        }
        Ok(Self(Zeroizing::new(url.to_owned())))
    }
}

impl Serialize for PostgresUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PostgresUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Zeroizing::new(String::deserialize(deserializer)?).parse().map_err(D::Error::custom)
    }
}

impl Store {
    /// Opens the database, makes SQLite's file if there is none, and brings it to today's form. Whoever is there alone has taken
    /// the lock for it before.
    pub(crate) async fn open(place: &Place, presence: Presence) -> anyhow::Result<Self> {
        sqlx::any::install_default_drivers();
        let (kind, options) = match place {
            Place::File(path) => {
                // SQLite gives its further files the mode of this one.
                let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
                made.with_context(|| format!("make {}", path.display()))?;
                (Kind::Sqlite, AnyConnectOptions::from_str(&sqlite_url(path)))
            }
            Place::Postgres(url) => (Kind::Postgres, AnyConnectOptions::from_str(url.as_str())),
        };
        let held = match presence {
            Presence::Shared => Some(Held::take(place, presence).await?),
            Presence::Alone => None,
        };
        // A statement's text may hold nothing secret, but a log has no use for it.
        let options = options.context("read the database's address")?.disable_statement_logging();
        let pool = |connections| {
            AnyPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(WAIT)
                .acquire_slow_threshold(WAIT)
                .after_connect(move |connection, _| {
                    Box::pin(async move {
                        let settings = match kind {
                            Kind::Sqlite => pragmas(),
                            Kind::Postgres => parameters(),
                        };
                        let is_there = presence.statement().filter(|_| kind == Kind::Postgres);
                        for setting in settings.into_iter().chain(is_there) {
                            query(AssertSqlSafe(setting)).execute(&mut *connection).await?;
                        }
                        Ok(())
                    })
                })
        };
        let opening = || match place {
            Place::File(path) => format!("open {}", path.display()),
            Place::Postgres(_) => "connect to the PostgreSQL database".to_owned(),
        };
        // The one that writes stays, and with it that we are there.
        let writes = pool(1).idle_timeout(None).max_lifetime(None);
        let writes = writes.connect_with(options.clone()).await.with_context(opening)?;
        forms(kind).run(&writes).await.context("bring the database to today's form")?;
        let reads = pool(READERS).connect_with(options).await.with_context(opening)?;
        let present = match held {
            Some(Held::File(file)) => Some(file),
            // Our connections say so themselves now.
            Some(held) => {
                held.release().await;
                None
            }
            None => None,
        };
        let store = Self { kind, writes, reads, _present: present };
        store.protect_audit().await.context("protect the audit log")?;
        Ok(store)
    }

    /// Sees to it that audit events are added and read, and no statement changes or removes one.
    async fn protect_audit(&self) -> Result<(), sqlx::Error> {
        let mut tx = self.begin().await?;
        raw_sql(match self.kind {
            Kind::Sqlite => include_str!("../../../migrations/sqlite/audit_append_only.sql"),
            Kind::Postgres => include_str!("../../../migrations/postgres/audit_append_only.sql"),
        })
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }
}

/// Copies SQLite's database at `from` to the new file `to`, as it is at one moment; it may be in use.
pub(crate) async fn copy_database(from: &Path, to: &Path) -> anyhow::Result<()> {
    use sqlx::Connection;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(from).read_only(true).busy_timeout(LOCK_WAIT);
    let mut connection = options.connect().await.with_context(|| format!("open {}", from.display()))?;
    // SQLite would make it for everybody to read.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    made.with_context(|| format!("make {}", to.display()))?;
    let name = to.to_str().with_context(|| format!("{}: expected a name in UTF-8", to.display()))?;
    query("VACUUM INTO $1").bind(name).execute(&mut connection).await.context("copy the database")?;
    Ok(connection.close().await?)
}

/// What every connection to SQLite is set to.
fn pragmas() -> Vec<String> {
    vec![
        format!("PRAGMA busy_timeout = {}", LOCK_WAIT.as_millis()),
        "PRAGMA journal_mode = WAL".into(),
        "PRAGMA synchronous = FULL".into(),
        "PRAGMA foreign_keys = ON".into(),
    ]
}

/// What every connection to PostgreSQL is set to, whatever the server's own settings are. Writers take turns, so one whose
/// machine went away amid its turn must not keep it: the server notices by itself, before the others stop waiting.
fn parameters() -> Vec<String> {
    let mut set = vec![
        "SET synchronous_commit = on".to_owned(),
        "SET default_transaction_isolation = 'read committed'".to_owned(),
        "SET tcp_keepalives_count = 3".to_owned(),
    ];
    for (name, value) in
        [("idle_in_transaction_session_timeout", TURN_MAX), ("tcp_user_timeout", TURN_MAX), ("lock_timeout", WAIT)]
    {
        set.push(format!("SET {name} = '{}ms'", value.as_millis()));
    }
    for name in ["tcp_keepalives_idle", "tcp_keepalives_interval"] {
        set.push(format!("SET {name} = '{}s'", KEEP_ALIVE.as_secs()));
    }
    set
}

fn forms(kind: Kind) -> Migrator {
    let form = |(version, name, statements): (i64, &'static str, &str)| {
        let statements = match kind {
            Kind::Sqlite => statements.to_owned(),
            Kind::Postgres => statements.replace(" BLOB", " BYTEA"),
        };
        let statements = AssertSqlSafe(statements).into_sql_str();
        Migration::new(version, name.into(), MigrationType::Simple, statements, false)
    };
    Migrator::with_migrations(FORMS.map(form).into())
}

/// A file's name as a URL, in which some bytes stand for something else.
fn sqlite_url(path: &Path) -> String {
    let mut url = String::from("sqlite://");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => url.push(char::from(*byte)),
            other => url.push_str(&format!("%{other:02X}")),
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_may_have_any_name_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a b?c#d%41é.sqlite");
        let store = Store::open(&Place::File(path.clone()), Presence::Shared).await.unwrap();
        assert_eq!(super::super::organisation(&mut store.read().await.unwrap()).await.unwrap(), None);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let files: Vec<_> = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(files.iter().all(|name| name.to_string_lossy().starts_with("a b?c#d%41é.sqlite")), "{files:?}");
        for (pragma, value) in [("journal_mode", "wal"), ("synchronous", "2"), ("foreign_keys", "1")] {
            let asked = query(AssertSqlSafe(format!("SELECT CAST({pragma} AS TEXT) FROM pragma_{pragma}")));
            let row = asked.fetch_one(&mut *store.read().await.unwrap()).await.unwrap();
            assert_eq!(sqlx::Row::get::<String, _>(&row, 0), value, "{pragma}");
        }
    }

    #[tokio::test]
    async fn who_had_the_mark_becomes_an_owner() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("database.sqlite");
        // A database as the first version of the program left it.
        sqlx::any::install_default_drivers();
        std::fs::File::create(&path).unwrap();
        let options = AnyConnectOptions::from_str(&sqlite_url(&path)).unwrap();
        let old = AnyPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        let first = forms(Kind::Sqlite).iter().take(1).cloned().collect();
        Migrator::with_migrations(first).run(&old).await.unwrap();
        for (name, mark) in [("ada", 1_i64), ("bob", 0)] {
            let add = query("INSERT INTO users VALUES ($1, $1, '', $2, 1, 1)").bind(name).bind(mark);
            add.execute(&old).await.unwrap();
        }
        old.close().await;
        let store = Store::open(&Place::File(path), Presence::Shared).await.unwrap();
        let roles = super::super::users(&mut store.begin().await.unwrap()).await.unwrap();
        let roles: Vec<_> = roles.iter().map(|user| (user.name.as_str(), user.role)).collect();
        assert_eq!(roles, [("ada", Some(ringfort_proto::api::AdministratorRole::Owner)), ("bob", None)]);
    }

    #[tokio::test]
    async fn an_audit_event_is_neither_changed_nor_removed() {
        use super::super::{Page, Recorded, events, insert_event};
        let place = tempfile::tempdir().unwrap();
        let at = Place::File(place.path().join("database.sqlite"));
        let store = Store::open(&at, Presence::Shared).await.unwrap();
        let text = || "x".to_owned();
        let event = Recorded {
            id: text(),
            at: ringfort_types::UnixSeconds(1),
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
            let refused = query(statement).execute(&mut *tx).await.unwrap_err();
            assert!(refused.to_string().contains("audit events are not"), "{statement}: {refused}");
        }
        let page = Page { since: ringfort_types::UnixSeconds(0), below: u64::MAX, limit: 9 };
        let kept = events(&mut store.begin().await.unwrap(), page).await.unwrap();
        assert_eq!(kept.iter().map(|(n, event)| (*n, event.actor.as_str())).collect::<Vec<_>>(), [(1, "x")]);
    }

    #[tokio::test]
    async fn controllers_are_at_a_database_side_by_side_and_a_restore_is_alone() {
        let place = tempfile::tempdir().unwrap();
        let (path, link) = (place.path().join("database.sqlite"), place.path().join("link"));
        let first = Store::open(&Place::File(path.clone()), Presence::Shared).await.unwrap();
        // Known by another name it is the same database.
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let second = Store::open(&Place::File(link.clone()), Presence::Shared).await.unwrap();
        drop(first);
        let refused = Held::take(&Place::File(path.clone()), Presence::Alone).await.err().unwrap();
        assert!(refused.to_string().contains("stop every Controller"), "{refused}");
        drop(second);
        let alone = Held::take(&Place::File(path.clone()), Presence::Alone).await.unwrap();
        let refused = Store::open(&Place::File(link.clone()), Presence::Shared).await.err().unwrap();
        assert!(refused.to_string().contains("is being restored"), "{refused}");
        Store::open(&Place::File(path), Presence::Alone).await.unwrap();
        alone.release().await;
        Store::open(&Place::File(link), Presence::Shared).await.unwrap();
    }

    #[test]
    fn only_postgresql_is_named_by_a_url_and_no_password_is_shown() {
        let url: PostgresUrl = "postgres://ringfort:secret@db.example/ringfort".parse().unwrap();
        assert!(!format!("{url:?}").contains("secret"));
        for wrong in ["mysql://root:secret@host/db", "sqlite://secret", "", "postgres://host:secret/db"] {
            let error = wrong.parse::<PostgresUrl>().unwrap_err();
            assert!(error.starts_with("expected postgres://") && !error.contains("secret"), "{error}");
        }
    }
}
