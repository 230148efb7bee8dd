//! Hosts that register themselves.

use ringfort_proto::api::HostInterface;
use ringfort_types::UnixSeconds;
use sqlx::{query, query_as, query_scalar};

use super::{Connection, at, int, uint};

/// A host that may register itself.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    /// Thumbprint of the key that the name belongs to; empty until there is one.
    pub(crate) jkt: String,
    /// Of the key that is to follow it; empty for none.
    pub(crate) next_jkt: String,
    /// What it said last, and when; 0 for never.
    pub(crate) interfaces: Vec<HostInterface>,
    pub(crate) port: u16,
    pub(crate) version: String,
    pub(crate) last_seen: UnixSeconds,
}

impl Host {
    /// One that has said nothing yet.
    pub(crate) const fn new(name: String, jkt: String) -> Self {
        Self {
            name,
            jkt,
            next_jkt: String::new(),
            interfaces: Vec::new(),
            port: 0,
            version: String::new(),
            last_seen: UnixSeconds(0),
        }
    }

    /// Thumbprints of its keys: of the one that its name belongs to, and of another one that is to follow it.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        [self.jkt.as_str(), self.next_jkt.as_str()].into_iter().filter(|jkt| !jkt.is_empty())
    }
}

type HostColumns = (String, String, String, String, i64, String, i64);

fn host_of(columns: HostColumns) -> Result<Host, sqlx::Error> {
    let (name, jkt, next_jkt, interfaces, port, version, last_seen) = columns;
    let interfaces = serde_json::from_str(&interfaces).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let port = u16::try_from(port).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(Host { name, jkt, next_jkt, interfaces, port, version, last_seen: at(last_seen) })
}

pub(crate) async fn host(c: &mut Connection, name: &str) -> Result<Option<Host>, sqlx::Error> {
    let found = query_as("SELECT name, jkt, next_jkt, interfaces, port, version, last_seen FROM hosts WHERE name = $1");
    found.bind(name).fetch_optional(c).await?.map(host_of).transpose()
}

/// At most `limit` hosts whose names come after `name`, in their order.
pub(crate) async fn hosts_after(c: &mut Connection, name: &str, limit: u32) -> Result<Vec<Host>, sqlx::Error> {
    let found = query_as(
        "SELECT name, jkt, next_jkt, interfaces, port, version, last_seen FROM hosts WHERE name > $1 \
         ORDER BY name LIMIT $2",
    );
    found.bind(name).bind(i64::from(limit)).fetch_all(c).await?.into_iter().map(host_of).collect()
}

pub(crate) async fn count_hosts(c: &mut Connection) -> Result<u64, sqlx::Error> {
    query_scalar("SELECT COUNT(*) FROM hosts").fetch_one(c).await.map(uint)
}

/// Hosts with the name of a Gateway that have registered since `since`.
pub(crate) async fn hosts_of_gateways(c: &mut Connection, since: UnixSeconds) -> Result<Vec<Host>, sqlx::Error> {
    let found = query_as(
        "SELECT h.name, h.jkt, h.next_jkt, h.interfaces, h.port, h.version, h.last_seen FROM hosts h \
         JOIN gateways g ON g.name = h.name WHERE h.last_seen >= $1 AND h.last_seen > 0",
    );
    found.bind(int(since.0)).fetch_all(c).await?.into_iter().map(host_of).collect()
}

/// Adds a host; `false` if the name is taken.
pub(crate) async fn insert_host(c: &mut Connection, host: &Host) -> Result<bool, sqlx::Error> {
    let added = query(
        "INSERT INTO hosts (name, jkt, interfaces, port, version, last_seen) VALUES ($1, $2, '[]', 0, '', 0) \
         ON CONFLICT (name) DO NOTHING",
    );
    Ok(added.bind(&host.name).bind(&host.jkt).execute(c).await?.rows_affected() == 1)
}

/// Removes a host; `false` if there was none.
pub(crate) async fn delete_host(c: &mut Connection, name: &str) -> Result<bool, sqlx::Error> {
    Ok(query("DELETE FROM hosts WHERE name = $1").bind(name).execute(c).await?.rows_affected() == 1)
}

/// Gives a name that belongs to no key yet to the key `jkt`; `false` if the name belongs to another, or is none.
pub(crate) async fn bind_host(c: &mut Connection, name: &str, jkt: &str) -> Result<bool, sqlx::Error> {
    let bound = query("UPDATE hosts SET jkt = $2 WHERE name = $1 AND (jkt = $2 OR jkt = '')");
    Ok(bound.bind(name).bind(jkt).execute(c).await?.rows_affected() == 1)
}

/// Notes that a certificate for another key was issued to the host whose key is `jkt`; `false` if that is no host's any more.
pub(crate) async fn set_next_of_host(
    c: &mut Connection,
    name: &str,
    jkt: &str,
    next: &str,
) -> Result<bool, sqlx::Error> {
    let set = query("UPDATE hosts SET next_jkt = $3 WHERE name = $1 AND jkt = $2").bind(name).bind(jkt).bind(next);
    Ok(set.execute(c).await?.rows_affected() == 1)
}

/// Keeps what a host said by the key `host.jkt`, to which its name belongs from then on where it was to follow; `false` if there is no
/// such host any more.
pub(crate) async fn set_registered(c: &mut Connection, host: &Host) -> Result<bool, sqlx::Error> {
    let interfaces = serde_json::to_string(&host.interfaces).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let set = query(
        "UPDATE hosts SET interfaces = $3, port = $4, version = $5, last_seen = $6, jkt = $2, \
         next_jkt = CASE WHEN jkt = $2 THEN next_jkt ELSE '' END WHERE name = $1 AND (jkt = $2 OR next_jkt = $2)",
    );
    let set = set.bind(&host.name).bind(&host.jkt).bind(interfaces).bind(i64::from(host.port)).bind(&host.version);
    Ok(set.bind(int(host.last_seen.0)).execute(c).await?.rows_affected() == 1)
}
