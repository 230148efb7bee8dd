//! What goes when a Gateway, a host or a user goes.

use ringfort_token::InviteeKind;
use ringfort_types::UnixSeconds;
use sqlx::query;

use super::{Connection, int, kind_column};

pub(crate) async fn delete_gateway(c: &mut Connection, id: &str) -> Result<(), sqlx::Error> {
    query("DELETE FROM gateways WHERE id = $1").bind(id).execute(c).await.map(drop)
}

/// Lets the invitations that something of this kind and name could still join by expire; gives how many.
pub(crate) async fn void_invitations(
    c: &mut Connection,
    kind: InviteeKind,
    name: &str,
    now: UnixSeconds,
) -> Result<u64, sqlx::Error> {
    let voided = query(
        "UPDATE invitations SET expires_at = $3 \
         WHERE kind = $1 AND name = $2 AND used_at IS NULL AND expires_at > $3",
    );
    Ok(voided.bind(kind_column(kind)).bind(name).bind(int(now.0)).execute(c).await?.rows_affected())
}

/// Lets the invitations of a user's machines that are not used expire.
pub(crate) async fn void_invitations_of_user(
    c: &mut Connection,
    user: &str,
    now: UnixSeconds,
) -> Result<(), sqlx::Error> {
    let voided =
        query("UPDATE invitations SET expires_at = $2 WHERE user_id = $1 AND used_at IS NULL AND expires_at > $2");
    voided.bind(user).bind(int(now.0)).execute(c).await.map(drop)
}
