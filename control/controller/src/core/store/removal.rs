//! What goes when a Gateway goes.

use ringfort_types::UnixSeconds;
use sqlx::{query, query_as};

use super::{Connection, int};

/// Id and key of a Gateway.
pub(crate) async fn gateway_key(c: &mut Connection, name: &str) -> Result<Option<(String, String)>, sqlx::Error> {
    query_as("SELECT id, jkt FROM gateways WHERE name = $1").bind(name).fetch_optional(c).await
}

pub(crate) async fn delete_gateway(c: &mut Connection, id: &str) -> Result<(), sqlx::Error> {
    query("DELETE FROM gateways WHERE id = $1").bind(id).execute(c).await.map(drop)
}

/// Lets the invitations that a Gateway of this name could still join by expire; gives how many.
pub(crate) async fn void_invitations(c: &mut Connection, gateway: &str, now: UnixSeconds) -> Result<u64, sqlx::Error> {
    let voided = query(
        "UPDATE invitations SET expires_at = $2 \
         WHERE kind = 'gateway' AND name = $1 AND used_at IS NULL AND expires_at > $2",
    );
    Ok(voided.bind(gateway).bind(int(now.0)).execute(c).await?.rows_affected())
}
