//! Gateways that are drained for maintenance.

use std::collections::BTreeSet;

use sqlx::{query, query_scalar};

use super::Connection;

pub(crate) async fn set_draining(c: &mut Connection, gateway: &str, draining: bool) -> Result<(), sqlx::Error> {
    let set = query("UPDATE gateways SET draining = $2 WHERE id = $1").bind(gateway).bind(i64::from(draining));
    set.execute(c).await.map(drop)
}

/// The ids of those that are drained.
pub(crate) async fn draining(c: &mut Connection) -> Result<BTreeSet<String>, sqlx::Error> {
    let found: Vec<String> = query_scalar("SELECT id FROM gateways WHERE draining = 1").fetch_all(c).await?;
    Ok(found.into_iter().collect())
}
