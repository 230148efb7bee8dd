//! Relays, and which Gateways say that they are connected to them.

use std::collections::BTreeMap;

use ringfort_types::UnixSeconds;
use sqlx::{query, query_as, query_scalar};

use super::{Connection, at, int, list, listed};

/// A Relay that has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relay {
    /// Its FQDN.
    pub(crate) name: String,
    /// Thumbprint of its key.
    pub(crate) jkt: String,
    pub(crate) joined_at: UnixSeconds,
}

/// All of them, by name.
pub(crate) async fn relays(c: &mut Connection) -> Result<Vec<Relay>, sqlx::Error> {
    let found = query_as("SELECT name, jkt, joined_at FROM relays ORDER BY name");
    let found: Vec<(String, String, i64)> = found.fetch_all(c).await?;
    let relay = |(name, jkt, joined): (String, String, i64)| Relay { name, jkt, joined_at: at(joined) };
    Ok(found.into_iter().map(relay).collect())
}

/// The key of a Relay.
pub(crate) async fn relay_key(c: &mut Connection, name: &str) -> Result<Option<String>, sqlx::Error> {
    query_scalar("SELECT jkt FROM relays WHERE name = $1").bind(name).fetch_optional(c).await
}

/// Adds a Relay; `false` if the name is taken.
pub(crate) async fn insert_relay(c: &mut Connection, relay: &Relay) -> Result<bool, sqlx::Error> {
    let added = query("INSERT INTO relays (name, jkt, joined_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING");
    let added = added.bind(&relay.name).bind(&relay.jkt).bind(int(relay.joined_at.0));
    Ok(added.execute(c).await?.rows_affected() == 1)
}

pub(crate) async fn delete_relay(c: &mut Connection, name: &str) -> Result<(), sqlx::Error> {
    query("DELETE FROM relays WHERE name = $1").bind(name).execute(c).await.map(drop)
}

/// Keeps which Relays a Gateway is connected to.
pub(crate) async fn set_connected_relays(
    c: &mut Connection,
    gateway: &str,
    relays: &[String],
) -> Result<(), sqlx::Error> {
    let set = query("UPDATE gateways SET relays = $2 WHERE id = $1 AND relays <> $2");
    set.bind(gateway).bind(listed(relays)?).execute(c).await.map(drop)
}

/// The Relays that Gateways are connected to, by the Gateway's id; of those that are connected to any.
pub(crate) async fn connected_relays(c: &mut Connection) -> Result<BTreeMap<String, Vec<String>>, sqlx::Error> {
    let found = query_as("SELECT id, relays FROM gateways WHERE relays <> '[]'");
    let found: Vec<(String, String)> = found.fetch_all(c).await?;
    found.into_iter().map(|(id, relays)| Ok((id, list(&relays)?))).collect()
}
