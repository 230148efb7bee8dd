//! Sites, Resources, entitlements, Gateways, and what sessions have at sites.

use std::collections::BTreeMap;

use ringfort_token::Grant;
use ringfort_types::UnixSeconds;
use sqlx::{query, query_as, query_scalar};

use super::{Connection, at, int, list, listed, uint};

/// A site.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) id: String,
    pub(crate) name: String,
    /// With the Gateways' own address: `10.97.0.1/16`.
    pub(crate) pools: Vec<String>,
}

fn site((id, name, pools): (String, String, String)) -> Result<Site, sqlx::Error> {
    Ok(Site { id, name, pools: list(&pools)? })
}

pub(crate) async fn site_by_name(c: &mut Connection, name: &str) -> Result<Option<Site>, sqlx::Error> {
    let found = query_as("SELECT id, name, pools FROM sites WHERE name = $1").bind(name);
    found.fetch_optional(c).await?.map(site).transpose()
}

pub(crate) async fn sites(c: &mut Connection) -> Result<BTreeMap<String, Site>, sqlx::Error> {
    let found: Vec<_> = query_as("SELECT id, name, pools FROM sites ORDER BY id").fetch_all(c).await?;
    found.into_iter().map(|columns| site(columns).map(|site| (site.id.clone(), site))).collect()
}

/// Adds a site; `false` if the name is taken.
pub(crate) async fn insert_site(c: &mut Connection, site: &Site) -> Result<bool, sqlx::Error> {
    let added = query("INSERT INTO sites (id, name, pools) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING");
    let added = added.bind(&site.id).bind(&site.name).bind(listed(&site.pools)?).execute(c).await?;
    Ok(added.rows_affected() == 1)
}

pub(crate) async fn delete_site(c: &mut Connection, id: &str) -> Result<(), sqlx::Error> {
    query("DELETE FROM sites WHERE id = $1").bind(id).execute(c).await.map(drop)
}

/// Resources and Gateways at a site.
pub(crate) async fn things_at(c: &mut Connection, site: &str) -> Result<i64, sqlx::Error> {
    let count = query_scalar(
        "SELECT (SELECT COUNT(*) FROM resources WHERE site = $1) + (SELECT COUNT(*) FROM gateways WHERE site = $1)",
    );
    count.bind(site).fetch_one(c).await
}

/// Id and site of a Resource.
pub(crate) async fn resource(c: &mut Connection, name: &str) -> Result<Option<(String, String)>, sqlx::Error> {
    query_as("SELECT id, site FROM resources WHERE name = $1").bind(name).fetch_optional(c).await
}

/// Adds a Resource; `false` if the name is taken.
pub(crate) async fn insert_resource(
    c: &mut Connection,
    id: &str,
    site: &str,
    grant: &Grant,
) -> Result<bool, sqlx::Error> {
    let added = query(
        "INSERT INTO resources (id, name, site, networks, services) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (name) DO NOTHING",
    );
    let added = added.bind(id).bind(&grant.name).bind(site).bind(listed(&grant.to)?).bind(listed(&grant.services)?);
    Ok(added.execute(c).await?.rows_affected() == 1)
}

pub(crate) async fn delete_resource(c: &mut Connection, id: &str) -> Result<(), sqlx::Error> {
    query("DELETE FROM resources WHERE id = $1").bind(id).execute(c).await.map(drop)
}

/// What may be reached at a site by anybody.
pub(crate) async fn resources_at(c: &mut Connection, site: &str) -> Result<Vec<Grant>, sqlx::Error> {
    let found = query_as("SELECT name, networks, services FROM resources WHERE site = $1 ORDER BY name");
    found.bind(site).fetch_all(c).await?.into_iter().map(grant).collect()
}

fn grant((name, to, services): (String, String, String)) -> Result<Grant, sqlx::Error> {
    Ok(Grant { name, to: list(&to)?, services: list(&services)? })
}

/// What a user may reach, directly or by a group, by site.
pub(crate) async fn grants_of(c: &mut Connection, user: &str) -> Result<BTreeMap<String, Vec<Grant>>, sqlx::Error> {
    let found = query_as(
        "SELECT r.site, r.name, r.networks, r.services FROM resources r WHERE r.id IN (SELECT e.resource FROM entitlements e \
         WHERE e.user_id = $1 OR e.group_id IN (SELECT m.group_id FROM members m WHERE m.user_id = $1)) \
         ORDER BY r.site, r.name",
    );
    let mut grants = BTreeMap::<String, Vec<Grant>>::new();
    for (site, name, to, services) in found.bind(user).fetch_all(c).await? {
        grants.entry(site).or_default().push(grant((name, to, services))?);
    }
    Ok(grants)
}

/// Whose an entitlement is, by id.
#[derive(Clone, Debug)]
pub(crate) enum Owner {
    User(String),
    Group(String),
}

/// Entitles; `false` if it did before.
pub(crate) async fn insert_entitlement(c: &mut Connection, resource: &str, owner: &Owner) -> Result<bool, sqlx::Error> {
    let (statement, id) = match owner {
        Owner::User(id) => ("INSERT INTO entitlements (resource, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", id),
        Owner::Group(id) => {
            ("INSERT INTO entitlements (resource, group_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", id)
        }
    };
    Ok(query(statement).bind(resource).bind(id).execute(c).await?.rows_affected() == 1)
}

/// Takes back; `false` if there was nothing.
pub(crate) async fn delete_entitlement(c: &mut Connection, resource: &str, owner: &Owner) -> Result<bool, sqlx::Error> {
    let (statement, id) = match owner {
        Owner::User(id) => ("DELETE FROM entitlements WHERE resource = $1 AND user_id = $2", id),
        Owner::Group(id) => ("DELETE FROM entitlements WHERE resource = $1 AND group_id = $2", id),
    };
    Ok(query(statement).bind(resource).bind(id).execute(c).await?.rows_affected() == 1)
}

/// Users who may reach a Resource.
pub(crate) async fn users_of_resource(c: &mut Connection, resource: &str) -> Result<Vec<String>, sqlx::Error> {
    let found = query_scalar(
        "SELECT e.user_id FROM entitlements e WHERE e.resource = $1 AND e.user_id IS NOT NULL \
         UNION SELECT m.user_id FROM members m JOIN entitlements e ON e.group_id = m.group_id WHERE e.resource = $1",
    );
    found.bind(resource).fetch_all(c).await
}

/// Sites at which a group may reach anything.
pub(crate) async fn sites_of_group(c: &mut Connection, group: &str) -> Result<Vec<String>, sqlx::Error> {
    let found = query_scalar(
        "SELECT DISTINCT r.site FROM resources r JOIN entitlements e ON e.resource = r.id WHERE e.group_id = $1",
    );
    found.bind(group).fetch_all(c).await
}

/// A Gateway.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) site: String,
    pub(crate) addresses: Vec<String>,
    /// Thumbprint of its key.
    pub(crate) jkt: String,
    /// SHA-256 in hexadecimal of the certificate that it shows.
    pub(crate) digest: String,
    /// Key and digest of the one that it was given since; empty for none.
    pub(crate) next_jkt: String,
    pub(crate) next_digest: String,
    pub(crate) last_seen: UnixSeconds,
    pub(crate) configuration_seq: u64,
}

impl Gateway {
    /// Thumbprints of its keys: of the one it has, and of another one that is to follow it.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        let next = Some(self.next_jkt.as_str()).filter(|next| !next.is_empty() && *next != self.jkt);
        std::iter::once(self.jkt.as_str()).chain(next)
    }
}

type GatewayColumns = (String, String, String, String, String, String, String, String, i64, i64);

fn gateway_of(columns: GatewayColumns) -> Result<Gateway, sqlx::Error> {
    let (id, name, site, addresses, jkt, digest, next_jkt, next_digest, last_seen, configuration_seq) = columns;
    let (addresses, last_seen, configuration_seq) = (list(&addresses)?, at(last_seen), uint(configuration_seq));
    Ok(Gateway { id, name, site, addresses, jkt, digest, next_jkt, next_digest, last_seen, configuration_seq })
}

pub(crate) async fn gateway(c: &mut Connection, id: &str) -> Result<Option<Gateway>, sqlx::Error> {
    let found = query_as(
        "SELECT id, name, site, addresses, jkt, certificate_digest, next_jkt, next_digest, last_seen, configuration_seq \
         FROM gateways WHERE id = $1",
    );
    found.bind(id).fetch_optional(c).await?.map(gateway_of).transpose()
}

pub(crate) async fn gateways(c: &mut Connection) -> Result<Vec<Gateway>, sqlx::Error> {
    let found = query_as(
        "SELECT id, name, site, addresses, jkt, certificate_digest, next_jkt, next_digest, last_seen, configuration_seq \
         FROM gateways ORDER BY name",
    );
    found.fetch_all(c).await?.into_iter().map(gateway_of).collect()
}

pub(crate) async fn gateway_named(c: &mut Connection, name: &str) -> Result<Option<String>, sqlx::Error> {
    query_scalar("SELECT id FROM gateways WHERE name = $1").bind(name).fetch_optional(c).await
}

/// Adds a Gateway; `false` if id or name is taken.
pub(crate) async fn insert_gateway(c: &mut Connection, gateway: &Gateway) -> Result<bool, sqlx::Error> {
    let added = query(
        "INSERT INTO gateways (id, name, site, addresses, jkt, certificate_digest, next_digest, last_seen, \
         configuration_seq) VALUES ($1, $2, $3, $4, $5, $6, '', 0, 0) ON CONFLICT DO NOTHING",
    );
    let added = added.bind(&gateway.id).bind(&gateway.name).bind(&gateway.site).bind(listed(&gateway.addresses)?);
    Ok(added.bind(&gateway.jkt).bind(&gateway.digest).execute(c).await?.rows_affected() == 1)
}

/// Takes the next sequence number for a Gateway's configuration.
pub(crate) async fn next_configuration(c: &mut Connection, id: &str) -> Result<u64, sqlx::Error> {
    let next = query_scalar(
        "UPDATE gateways SET configuration_seq = configuration_seq + 1 WHERE id = $1 RETURNING configuration_seq",
    );
    next.bind(id).fetch_one(c).await.map(uint)
}

/// Notes that a certificate for the key `jkt` was issued to a Gateway, which it will show from some time on; one that was noted before
/// is none any more.
pub(crate) async fn set_next(c: &mut Connection, id: &str, jkt: &str, digest: &str) -> Result<(), sqlx::Error> {
    let set = query("UPDATE gateways SET next_jkt = $2, next_digest = $3 WHERE id = $1");
    set.bind(id).bind(jkt).bind(digest).execute(c).await.map(drop)
}

/// Whether a key is that of another Gateway or host than that of the id or name `id`, of a device or a Relay.
pub(crate) async fn is_key_of_another(c: &mut Connection, jkt: &str, id: &str) -> Result<bool, sqlx::Error> {
    let found = query_scalar::<_, i64>(
        "SELECT (SELECT COUNT(*) FROM gateways WHERE id <> $2 AND (jkt = $1 OR next_jkt = $1)) \
         + (SELECT COUNT(*) FROM hosts WHERE name <> $2 AND (jkt = $1 OR next_jkt = $1)) \
         + (SELECT COUNT(*) FROM devices WHERE jkt = $1) + (SELECT COUNT(*) FROM relays WHERE jkt = $1)",
    );
    Ok(found.bind(jkt).bind(id).fetch_one(c).await? > 0)
}

/// Keeps what a Gateway reported.
pub(crate) async fn set_reported(c: &mut Connection, gateway: &Gateway) -> Result<(), sqlx::Error> {
    let set = query(
        "UPDATE gateways SET addresses = $2, jkt = $3, certificate_digest = $4, next_jkt = $5, next_digest = $6, \
         last_seen = $7 WHERE id = $1",
    );
    let set = set.bind(&gateway.id).bind(listed(&gateway.addresses)?).bind(&gateway.jkt).bind(&gateway.digest);
    let set = set.bind(&gateway.next_jkt).bind(&gateway.next_digest).bind(int(gateway.last_seen.0));
    set.execute(c).await.map(drop)
}

/// Who asked for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// The session's client.
    Asked,
    /// Nobody: it is pushed.
    Pushed,
}

/// Takes the next sequence number of a session's tokens at a site.
pub(crate) async fn next_sequence(
    c: &mut Connection,
    dn: &str,
    site: &str,
    occasion: Occasion,
    now: UnixSeconds,
) -> Result<u64, sqlx::Error> {
    let next = query_scalar(
        "INSERT INTO sequences (dn, site, seq, pushed_seq, used_at) \
         SELECT $1, $2, o.sequences_from + 1, $3 * (o.sequences_from + 1), $4 \
         FROM organisation o WHERE TRUE ON CONFLICT (dn, site) DO UPDATE \
         SET seq = sequences.seq + 1, used_at = excluded.used_at, \
         pushed_seq = CASE WHEN $3 = 1 THEN sequences.seq + 1 ELSE sequences.pushed_seq END RETURNING seq",
    );
    let next = next.bind(dn).bind(site).bind(i64::from(occasion == Occasion::Pushed)).bind(int(now.0));
    next.fetch_one(c).await.map(uint)
}

/// Where the tokens of a session at a site stand.
pub(crate) struct Sequence {
    pub(crate) dn: String,
    pub(crate) seq: u64,
    /// The newest that was pushed.
    pub(crate) pushed_seq: u64,
}

/// Where the tokens at a site stand, of all sessions whose login has not ended.
pub(crate) async fn sequences_at(
    c: &mut Connection,
    site: &str,
    now: UnixSeconds,
) -> Result<Vec<Sequence>, sqlx::Error> {
    let found = query_as(
        "SELECT s.dn, s.seq, s.pushed_seq FROM sequences s JOIN logins l ON l.dn = s.dn \
         WHERE s.site = $1 AND l.expires_at > $2 ORDER BY s.dn",
    );
    let found: Vec<(String, i64, i64)> = found.bind(site).bind(int(now.0)).fetch_all(c).await?;
    let sequence = |(dn, seq, pushed)| Sequence { dn, seq: uint(seq), pushed_seq: uint(pushed) };
    Ok(found.into_iter().map(sequence).collect())
}

/// The position that a session has at a site.
pub(crate) async fn position_of(c: &mut Connection, site: &str, dn: &str) -> Result<Option<u64>, sqlx::Error> {
    let found = query_scalar("SELECT n FROM addresses WHERE site = $1 AND dn = $2").bind(site).bind(dn);
    Ok(found.fetch_optional(c).await?.map(uint))
}

/// The position of a session in its site's pools: the one it has, or the next free one up to `last` that `is_free`, or
/// that of the session whose login ended longest ago. `None` if every one is in use.
pub(crate) async fn position(
    c: &mut Connection,
    site: &str,
    dn: &str,
    last: u64,
    is_free: impl Fn(u64) -> bool,
    now: UnixSeconds,
) -> Result<Option<u64>, sqlx::Error> {
    let own = query_scalar("UPDATE addresses SET used_at = $3 WHERE site = $1 AND dn = $2 RETURNING n");
    if let Some(n) = own.bind(site).bind(dn).bind(int(now.0)).fetch_optional(&mut *c).await? {
        return Ok(Some(uint(n)));
    }
    let newest = query_scalar("SELECT COALESCE(MAX(n), 0) FROM addresses WHERE site = $1");
    let newest = uint(newest.bind(site).fetch_one(&mut *c).await?);
    // Two pools have two addresses that are the Gateways' own.
    if let Some(n) = (newest + 1..=last).take(3).find(|n| is_free(*n)) {
        let add = query("INSERT INTO addresses (site, dn, n, used_at) VALUES ($1, $2, $3, $4)");
        add.bind(site).bind(dn).bind(int(n)).bind(int(now.0)).execute(c).await?;
        return Ok(Some(n));
    }
    let over = query_scalar(
        "UPDATE addresses SET dn = $2, used_at = $3 WHERE site = $1 AND n = (SELECT a.n FROM addresses a \
         WHERE a.site = $1 AND NOT EXISTS (SELECT 1 FROM logins l WHERE l.dn = a.dn AND l.expires_at > $3) \
         ORDER BY a.used_at, a.n LIMIT 1) RETURNING n",
    );
    Ok(over.bind(site).bind(dn).bind(int(now.0)).fetch_optional(c).await?.map(uint))
}
