//! The Controllers of this database, and what of their certificates everybody has to know.

use std::collections::BTreeSet;

use ringfort_types::UnixSeconds;
use sqlx::{query, query_as, query_scalar};

use super::{Connection, at, int};

/// A Controller.
#[derive(Clone, Debug)]
pub(crate) struct Controller {
    pub(crate) id: String,
    /// `host:port` where everybody reaches it; empty until it has started.
    pub(crate) address: String,
    pub(crate) started_at: UnixSeconds,
}

/// What a certificate of a Controller is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthorityKind {
    /// It stands between the root and other certificates.
    Intermediate,
    /// Its key signs tokens.
    Signer,
}

impl AuthorityKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Intermediate => "intermediate",
            Self::Signer => "signer",
        }
    }
}

/// A certificate that everybody has to know.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) digest: String,
    pub(crate) kind: AuthorityKind,
    pub(crate) certificate: Vec<u8>,
    pub(crate) expires_at: UnixSeconds,
}

/// The Controllers that have not been removed.
pub(crate) async fn controllers(c: &mut Connection) -> Result<Vec<Controller>, sqlx::Error> {
    let found = query_as("SELECT id, address, started_at FROM controllers WHERE removed = 0 ORDER BY address, id");
    let found: Vec<(String, String, i64)> = found.fetch_all(c).await?;
    let controller = |(id, address, started)| Controller { id, address, started_at: at(started) };
    Ok(found.into_iter().map(controller).collect())
}

/// Whether a Controller was removed.
pub(crate) async fn is_removed(c: &mut Connection, id: &str) -> Result<bool, sqlx::Error> {
    let removed = query_scalar("SELECT removed FROM controllers WHERE id = $1").bind(id);
    Ok(removed.fetch_optional(c).await?.is_some_and(|removed: i64| removed != 0))
}

/// Writes down a Controller that starts; says whether it is new here, or at another address.
pub(crate) async fn put_controller(c: &mut Connection, controller: &Controller) -> Result<bool, sqlx::Error> {
    let known = query_scalar("SELECT address FROM controllers WHERE id = $1").bind(&controller.id);
    let known: Option<String> = known.fetch_optional(&mut *c).await?;
    let put = query(
        "INSERT INTO controllers (id, address, started_at, removed) VALUES ($1, $2, $3, 0) ON CONFLICT (id) DO UPDATE \
         SET address = excluded.address, started_at = excluded.started_at",
    );
    put.bind(&controller.id).bind(&controller.address).bind(int(controller.started_at.0)).execute(c).await?;
    Ok(known.as_ref() != Some(&controller.address))
}

/// Removes a Controller; `false` if there is none. Its certificates stay, so that it is known by them, and are published no more.
pub(crate) async fn remove_controller(c: &mut Connection, id: &str) -> Result<bool, sqlx::Error> {
    let removed = query("UPDATE controllers SET removed = 1 WHERE id = $1 AND removed = 0").bind(id).execute(c).await?;
    Ok(removed.rows_affected() == 1)
}

/// Forgets Controllers that were introduced and have started under their own id since.
pub(crate) async fn forget_introduced(c: &mut Connection) -> Result<(), sqlx::Error> {
    let forgotten = query(
        "DELETE FROM controllers WHERE address = '' AND removed = 0 \
         AND NOT EXISTS (SELECT 1 FROM authorities WHERE authorities.controller = controllers.id)",
    );
    forgotten.execute(c).await.map(drop)
}

/// The certificates that have not expired, those first that last longest.
pub(crate) async fn published(c: &mut Connection, now: UnixSeconds) -> Result<Vec<Published>, sqlx::Error> {
    let found = query_as(
        "SELECT digest, kind, certificate, expires_at FROM authorities JOIN controllers ON controllers.id = controller \
         WHERE expires_at > $1 AND removed = 0 ORDER BY expires_at DESC, digest",
    );
    let found: Vec<Row> = found.bind(int(now.0)).fetch_all(c).await?;
    found.into_iter().map(Published::from_row).collect()
}

/// Those of Controllers that were removed.
pub(crate) async fn published_by_removed(c: &mut Connection) -> Result<Vec<Published>, sqlx::Error> {
    let found = query_as(
        "SELECT digest, kind, certificate, expires_at FROM authorities JOIN controllers ON controllers.id = controller \
         WHERE removed <> 0",
    );
    let found: Vec<Row> = found.fetch_all(c).await?;
    found.into_iter().map(Published::from_row).collect()
}

/// Those of one Controller.
pub(crate) async fn published_by(c: &mut Connection, controller: &str) -> Result<Vec<Published>, sqlx::Error> {
    let found = query_as("SELECT digest, kind, certificate, expires_at FROM authorities WHERE controller = $1");
    let found: Vec<Row> = found.bind(controller).fetch_all(c).await?;
    found.into_iter().map(Published::from_row).collect()
}

type Row = (String, String, Vec<u8>, i64);

impl Published {
    fn from_row((digest, kind, certificate, expires): Row) -> Result<Self, sqlx::Error> {
        let kinds = [AuthorityKind::Intermediate, AuthorityKind::Signer];
        let known = kinds.into_iter().find(|known| known.as_str() == kind);
        let kind = known.ok_or_else(|| sqlx::Error::Decode(format!("a certificate of kind {kind:?}").into()))?;
        Ok(Self { digest, kind, certificate, expires_at: at(expires) })
    }
}

/// Publishes a certificate no longer.
pub(crate) async fn withdraw(c: &mut Connection, digest: &str) -> Result<(), sqlx::Error> {
    query("DELETE FROM authorities WHERE digest = $1").bind(digest).execute(c).await.map(drop)
}

/// Publishes a certificate of a Controller; says whether it is new, or was another's.
pub(crate) async fn publish(
    c: &mut Connection,
    controller: &str,
    certificate: &Published,
) -> Result<bool, sqlx::Error> {
    let added = query(
        "INSERT INTO authorities (digest, controller, kind, certificate, expires_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (digest) DO UPDATE SET controller = excluded.controller \
         WHERE authorities.controller <> excluded.controller",
    );
    let added = added.bind(&certificate.digest).bind(controller).bind(certificate.kind.as_str());
    let added = added.bind(&certificate.certificate).bind(int(certificate.expires_at.0)).execute(c).await?;
    Ok(added.rows_affected() == 1)
}

/// Keeps by which names a Controller is known.
pub(crate) async fn set_controller_names(
    c: &mut Connection,
    id: &str,
    names: &BTreeSet<String>,
) -> Result<(), sqlx::Error> {
    query("DELETE FROM controller_names WHERE controller = $1").bind(id).execute(&mut *c).await?;
    for name in names {
        let added = query("INSERT INTO controller_names (controller, name) VALUES ($1, $2)");
        added.bind(id).bind(name).execute(&mut *c).await?;
    }
    Ok(())
}

/// Whether a Controller that has not been removed is known by this name.
pub(crate) async fn is_a_controllers_name(c: &mut Connection, name: &str) -> Result<bool, sqlx::Error> {
    let found: i64 = query_scalar(
        "SELECT COUNT(*) FROM controller_names n LEFT JOIN controllers c ON c.id = n.controller \
         WHERE n.name = $1 AND COALESCE(c.removed, 0) = 0",
    )
    .bind(name)
    .fetch_one(c)
    .await?;
    Ok(found > 0)
}
