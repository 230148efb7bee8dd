//! What is written once: the organisation, invitations, revocations.

use ringfort_token::{Entry, InviteeKind};
use ringfort_types::UnixSeconds;
use sqlx::{query, query_as, query_scalar};

use super::{Connection, at, int, uint};

/// The organisation's id and the database's epoch, once there is an organisation.
pub(crate) async fn organisation(c: &mut Connection) -> Result<Option<(String, u64)>, sqlx::Error> {
    let found: Option<(String, i64)> = query_as("SELECT id, epoch FROM organisation").fetch_optional(c).await?;
    Ok(found.map(|(id, epoch)| (id, uint(epoch))))
}

pub(crate) async fn insert_organisation(c: &mut Connection, id: &str, epoch: u64) -> Result<(), sqlx::Error> {
    let added = query("INSERT INTO organisation (id, epoch, founded) VALUES ($1, $2, $2)");
    added.bind(id).bind(int(epoch)).execute(c).await.map(drop)
}

/// The digest of the key that seals for this database; empty before there was a Controller that said it.
pub(crate) async fn sealing_digest(c: &mut Connection) -> Result<String, sqlx::Error> {
    query_scalar("SELECT sealing FROM organisation").fetch_one(c).await
}

pub(crate) async fn set_sealing_digest(c: &mut Connection, digest: &str) -> Result<(), sqlx::Error> {
    query("UPDATE organisation SET sealing = $1").bind(digest).execute(c).await.map(drop)
}

/// An invitation, without its cookie.
#[derive(Clone, Debug)]
pub(crate) struct Invitation {
    pub(crate) kind: InviteeKind,
    /// What the ticket's `sub` is.
    pub(crate) id: String,
    /// A Gateway's, a host's or a Relay's name.
    pub(crate) name: String,
    /// A Gateway's site, by id.
    pub(crate) site: String,
    /// User of a device, or the service, by id.
    pub(crate) user: String,
    pub(crate) expires_at: UnixSeconds,
}

/// A kind of invitee as its column has it.
pub(crate) const fn kind_column(kind: InviteeKind) -> &'static str {
    match kind {
        InviteeKind::Gateway => "gateway",
        InviteeKind::Device => "device",
        InviteeKind::Controller => "controller",
        InviteeKind::Host => "host",
        InviteeKind::Service => "service",
        InviteeKind::Relay => "relay",
    }
}

pub(crate) async fn insert_invitation(
    c: &mut Connection,
    cookie_hash: &[u8],
    invitation: &Invitation,
) -> Result<(), sqlx::Error> {
    let added = query(
        "INSERT INTO invitations (cookie_hash, kind, id, name, site, user_id, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    );
    let added = added
        .bind(cookie_hash)
        .bind(kind_column(invitation.kind))
        .bind(&invitation.id)
        .bind(&invitation.name)
        .bind(&invitation.site);
    added.bind(&invitation.user).bind(int(invitation.expires_at.0)).execute(c).await.map(drop)
}

type InvitationColumns = (String, String, String, String, String, i64);

fn invitation_of(columns: InvitationColumns) -> Result<Invitation, sqlx::Error> {
    let (kind, id, name, site, user, expires_at) = columns;
    let kind = match kind.as_str() {
        "gateway" => InviteeKind::Gateway,
        "device" => InviteeKind::Device,
        "controller" => InviteeKind::Controller,
        "host" => InviteeKind::Host,
        "service" => InviteeKind::Service,
        "relay" => InviteeKind::Relay,
        other => return Err(sqlx::Error::Decode(format!("an invitation of kind {other:?}").into())),
    };
    Ok(Invitation { kind, id, name, site, user, expires_at: at(expires_at) })
}

/// Takes an invitation that is neither used nor expired, so that nobody else can (I9, I10).
pub(crate) async fn take_invitation(
    c: &mut Connection,
    cookie_hash: &[u8],
    now: UnixSeconds,
) -> Result<Option<Invitation>, sqlx::Error> {
    let taken = query_as(
        "UPDATE invitations SET used_at = $2 WHERE cookie_hash = $1 AND used_at IS NULL AND expires_at > $2 \
         RETURNING kind, id, name, site, user_id, expires_at",
    );
    taken.bind(cookie_hash).bind(int(now.0)).fetch_optional(c).await?.map(invitation_of).transpose()
}

/// When an invitation was used, if there is one.
pub(crate) async fn invitation_used_at(
    c: &mut Connection,
    cookie_hash: &[u8],
) -> Result<Option<Option<i64>>, sqlx::Error> {
    query_scalar("SELECT used_at FROM invitations WHERE cookie_hash = $1").bind(cookie_hash).fetch_optional(c).await
}

/// Where the list of revocations stands.
pub(crate) async fn newest_revocation(c: &mut Connection) -> Result<u64, sqlx::Error> {
    query_scalar("SELECT COALESCE(MAX(n), 0) FROM revocations").fetch_one(c).await.map(uint)
}

/// Adds the entry `n`.
pub(crate) async fn insert_revocation(
    c: &mut Connection,
    n: u64,
    entry: &Entry,
    now: UnixSeconds,
) -> Result<(), sqlx::Error> {
    let json = |error: serde_json::Error| sqlx::Error::Encode(error.into());
    let (scope, effect) = (serde_json::to_string(&entry.scope), serde_json::to_string(&entry.effect));
    let added =
        query("INSERT INTO revocations (n, scope, effect, reason, keep_until, at) VALUES ($1, $2, $3, $4, $5, $6)");
    let added = added.bind(int(n)).bind(scope.map_err(json)?).bind(effect.map_err(json)?).bind(&entry.reason);
    added.bind(int(entry.keep_until.0)).bind(int(now.0)).execute(c).await.map(drop)
}

/// The entries after `n`, in order. Those that are over may be left out; the newest never is.
pub(crate) async fn revocations_after(c: &mut Connection, n: u64) -> Result<Vec<(u64, Entry)>, sqlx::Error> {
    let json = |error: serde_json::Error| sqlx::Error::Decode(error.into());
    let found = query_as("SELECT n, scope, effect, reason, keep_until FROM revocations WHERE n > $1 ORDER BY n");
    let found: Vec<(i64, String, String, String, i64)> = found.bind(int(n)).fetch_all(c).await?;
    let entry = |(n, scope, effect, reason, keep_until): (i64, String, String, String, i64)| {
        let scope = serde_json::from_str(&scope).map_err(json)?;
        let effect = serde_json::from_str(&effect).map_err(json)?;
        Ok((uint(n), Entry { scope, effect, reason, keep_until: at(keep_until) }))
    };
    found.into_iter().map(entry).collect()
}
