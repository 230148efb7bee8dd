//! What Controllers of one database hear of each other's decisions.

use std::sync::Arc;
use std::time::Duration;

use ringfort_types::UnixSeconds;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgListener;
use sqlx::{query, query_as, query_scalar};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::open::PostgresUrl;
use super::{Connection, int, uint};

/// Where PostgreSQL tells that there is news; the number of the newest is all that is said there.
const CHANNEL: &str = "ringfort_news";
/// How often is looked for news that nobody told of.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Pause before the database is asked again to tell of news.
const CONNECT_AGAIN: Duration = Duration::from_secs(5);
/// How long news is kept for a Controller that does not run, in seconds. One that was away for longer begins its streams anew.
const KEPT_SECONDS: u64 = 3_600;

/// What follows from a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Consequence {
    /// Another set of Controllers, or of their certificates that everybody has to know.
    Authorities,
    /// There are revocations; they stand in their own table.
    Revocations,
    /// An entitlement token for the Gateways of a site.
    Entitlement {
        /// The site's id.
        site: String,
        /// rf-entitlement+jwt
        token: String,
    },
    /// The Gateways of a site need their configuration anew.
    Configuration {
        /// The site's id.
        site: String,
    },
}

impl Consequence {
    /// The id of the one site whose Gateways it concerns; `None` for all.
    pub(crate) fn site(&self) -> Option<&str> {
        match self {
            Self::Authorities | Self::Revocations => None,
            Self::Entitlement { site, .. } | Self::Configuration { site } => Some(site),
        }
    }
}

/// The number of the newest news.
pub(crate) async fn newest_news(c: &mut Connection) -> Result<u64, sqlx::Error> {
    query_scalar("SELECT COALESCE(MAX(n), 0) FROM news").fetch_one(c).await.map(uint)
}

/// Adds what follows from a decision, and tells other Controllers once the transaction is committed.
pub(crate) async fn insert_news(
    c: &mut Connection,
    consequences: &[Consequence],
    now: UnixSeconds,
) -> Result<(), sqlx::Error> {
    let text = serde_json::to_string(consequences).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let n = newest_news(c).await? + 1;
    let added = query("INSERT INTO news (n, at, consequences) VALUES ($1, $2, $3)");
    added.bind(int(n)).bind(int(now.0)).bind(text).execute(&mut *c).await?;
    let old = query("DELETE FROM news WHERE at < $1 AND n < $2");
    old.bind(int(now.0.saturating_sub(KEPT_SECONDS))).bind(int(n)).execute(&mut *c).await?;
    if is_postgres(c) {
        query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(n.to_string()).execute(c).await?;
    }
    Ok(())
}

/// The news after `n`, in order; `None` if some of it is gone, or was written by a program that knows more than this one.
pub(crate) async fn news_after(
    c: &mut Connection,
    n: u64,
) -> Result<Option<Vec<(u64, Vec<Consequence>)>>, sqlx::Error> {
    let found = query_as("SELECT n, consequences FROM news WHERE n > $1 ORDER BY n");
    let found: Vec<(i64, String)> = found.bind(int(n)).fetch_all(c).await?;
    let read = |((found, text), expected): ((i64, String), u64)| {
        if uint(found) != expected {
            return None;
        }
        let read = serde_json::from_str(&text);
        let consequences = read.inspect_err(|error| tracing::error!(%error, n = found, "news cannot be read")).ok()?;
        Some((expected, consequences))
    };
    Ok(found.into_iter().zip(n + 1..).map(read).collect())
}

fn is_postgres(c: &Connection) -> bool {
    c.backend_name() == <sqlx::Postgres as sqlx::Database>::NAME
}

/// Waits for news of others who write to the database.
pub(crate) struct Listener {
    told: Arc<Notify>,
    look_again: Interval,
    /// Ends with this.
    _listening: JoinSet<()>,
}

impl Listener {
    /// One for the database at `url`. Without a URL nobody else writes to it, and it is only looked at again.
    pub(crate) fn new(url: Option<PostgresUrl>) -> Self {
        let told = Arc::<Notify>::default();
        let mut listening = JoinSet::new();
        if let Some(url) = url {
            listening.spawn(listen(url, Arc::clone(&told)));
        }
        let mut look_again = interval(LOOK_AGAIN);
        look_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { told, look_again, _listening: listening }
    }

    /// Returns when there may be news.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            () = self.told.notified() => {}
            _ = self.look_again.tick() => {}
        }
    }
}

/// Tells of what the database tells, for ever.
async fn listen(url: PostgresUrl, told: Arc<Notify>) {
    let listening = async || {
        let mut listener = PgListener::connect(url.as_str()).await?;
        listener.listen(CHANNEL).await?;
        loop {
            // `None` after a lost connection, when it has listened anew.
            listener.try_recv().await?;
            told.notify_one();
        }
    };
    loop {
        let ended: Result<(), sqlx::Error> = listening().await;
        if let Err(error) = ended {
            tracing::warn!(%error, "the database does not tell of news, and is looked at every second");
        }
        sleep(CONNECT_AGAIN).await;
    }
}
