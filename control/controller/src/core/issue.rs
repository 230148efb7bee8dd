//! Tokens: what a session is told it may do, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use ringfort_identity::KeyThumbprint;
use ringfort_proto::api;
use ringfort_token::{
    ClaimsToken, Confirmation, ConnectGateway, ConnectSite, ConnectToken, EntitlementToken, Grant, InnerAddresses,
    Signed, audience,
};
use ringfort_types::UnixSeconds;
use uuid::Uuid;

use super::host;
use super::refused::Refused;
use super::store::{self, Connection, Gateway, Login, Occasion, Relay, Site, User};
use super::{Bearer, Core};

/// Life of a connect token, in seconds: Gateways come and go.
const CONNECT_SECONDS: u64 = 600;
/// A Gateway that has not reported for so many seconds is not alive (R18); it reports every few.
const ALIVE_SECONDS: u64 = 15;

/// Whom a token is issued to: a login in the generation of one of its claims tokens.
pub(crate) struct Subject {
    dn: String,
    user: String,
    key: KeyThumbprint,
    generation: u64,
    until: UnixSeconds,
}

impl Subject {
    /// The bearer of a claims token; what it is given is of the token's generation and ends with it.
    pub(crate) fn of_bearer(bearer: &Bearer) -> Self {
        let claims = &bearer.claims;
        Self {
            dn: claims.sub.clone(),
            user: claims.user.clone(),
            key: claims.cnf.jkt,
            generation: claims.generation,
            until: claims.dies_at(),
        }
    }

    /// A login, as its newest claims token has it.
    pub(crate) fn of_login(login: &Login) -> Result<Self, Refused> {
        Ok(Self {
            dn: login.dn.clone(),
            user: login.user.clone(),
            key: login.jkt.parse().map_err(Refused::internal)?,
            generation: login.generation,
            until: login.expires_at,
        })
    }

    pub(crate) fn dn(&self) -> &str {
        &self.dn
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    pub(crate) const fn key(&self) -> &KeyThumbprint {
        &self.key
    }

    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }
}

impl Core {
    /// One entitlement token per site, and the connect token (A7, C1).
    ///
    /// # Errors
    /// `token_revoked` when the login has ended, `pool_exhausted`.
    pub async fn entitlements(&self, bearer: &Bearer, now: UnixSeconds) -> Result<api::EntitlementsResponse, Refused> {
        let mut tx = self.inner.store.begin().await?;
        self.login_of(&mut tx, bearer, now).await?;
        let subject = Subject::of_bearer(bearer);
        let sites = store::sites(&mut tx).await?;
        let (mut tokens, mut reachable) = (Vec::new(), Vec::new());
        for (id, grants) in store::grants_of(&mut tx, &subject.user).await? {
            let Some(site) = sites.get(&id) else { continue };
            let seq = store::next_sequence(&mut tx, &subject.dn, &id, Occasion::Asked, now).await?;
            let token = self.entitlement(&mut tx, &subject, site, grants, seq, now).await?;
            tokens.push(token.as_str().to_owned());
            reachable.push(site);
        }
        let mut gateways = store::gateways(&mut tx).await?;
        // Those that are drained come last: whoever finds no other is told why by them.
        let draining = store::draining(&mut tx).await?;
        gateways.sort_by_key(|gateway| draining.contains(&gateway.id));
        let hints = host::hints(&mut tx, &gateways, &sites, now).await?;
        let relays = store::relays(&mut tx).await?;
        let connect = self.connect(&subject, &reachable, (&gateways, &hints, &relays), now)?;
        tx.commit().await?;
        let (connect, known) = (connect.as_str().to_owned(), self.known_to_clients());
        Ok(api::EntitlementsResponse { entitlements: tokens, connect, known })
    }

    /// The login that a bearer's claims belong to.
    ///
    /// # Errors
    /// `token_revoked` when it has ended, or is another key's.
    pub(crate) async fn login_of(
        &self,
        c: &mut Connection,
        bearer: &Bearer,
        now: UnixSeconds,
    ) -> Result<Login, Refused> {
        let login = store::live_login(c, &bearer.claims.sub, now).await?;
        let key = bearer.claims.cnf.jkt.to_string();
        login.filter(|login| login.jkt == key).ok_or_else(Refused::login_ended)
    }

    /// A claims token for a login (A5): it names the Controller and every site where the user may do anything.
    pub(crate) async fn claims(
        &self,
        c: &mut Connection,
        login: &Login,
        user: &User,
        now: UnixSeconds,
    ) -> Result<Signed<ClaimsToken>, Refused> {
        let organisation = self.organisation();
        let sites = store::grants_of(c, &user.id).await?;
        let sites = sites.keys().map(|site| audience::site(site));
        let token = ClaimsToken {
            iss: organisation.to_owned(),
            sub: login.dn.clone(),
            aud: std::iter::once(audience::controller(organisation)).chain(sites).collect(),
            jti: login.claims.clone(),
            iat: now,
            nbf: now,
            exp: login.expires_at,
            cnf: Confirmation { jkt: login.jkt.parse().map_err(Refused::internal)? },
            user: user.id.clone(),
            generation: login.generation,
            name: user.name.clone(),
            groups: store::groups_of(c, &user.id).await?,
            auth_time: login.auth_time,
        };
        Ok(self.authority().signing_key().sign(&token)?)
    }

    /// An entitlement token (A7, C13) with the sequence number `seq`.
    pub(crate) async fn entitlement(
        &self,
        c: &mut Connection,
        subject: &Subject,
        site: &Site,
        grants: Vec<Grant>,
        seq: u64,
        now: UnixSeconds,
    ) -> Result<Signed<EntitlementToken>, Refused> {
        let inner = inner_addresses(c, site, &subject.dn, now).await?;
        self.sign_entitlement(subject, site, grants, (seq, inner), now)
    }

    /// Signs an entitlement token with the sequence number and for the inner addresses that its session has.
    pub(crate) fn sign_entitlement(
        &self,
        subject: &Subject,
        site: &Site,
        grants: Vec<Grant>,
        (seq, inner): (u64, InnerAddresses),
        now: UnixSeconds,
    ) -> Result<Signed<EntitlementToken>, Refused> {
        let token = EntitlementToken {
            iss: self.organisation().to_owned(),
            sub: subject.dn.clone(),
            aud: vec![audience::site(&site.id)],
            jti: Uuid::new_v4().to_string(),
            iat: now,
            nbf: now,
            exp: subject.until,
            cnf: Confirmation { jkt: subject.key },
            user: subject.user.clone(),
            generation: subject.generation,
            seq,
            inner,
            grants,
        };
        Ok(self.authority().signing_key().sign(&token)?)
    }

    /// Where a session's sites are: those at which it may do anything, and their Gateways that are alive (C1, R18).
    fn connect(
        &self,
        subject: &Subject,
        sites: &[&Site],
        (gateways, hints, relays): (&[Gateway], &BTreeMap<String, Vec<String>>, &[Relay]),
        now: UnixSeconds,
    ) -> Result<Signed<ConnectToken>, Refused> {
        let sites = sites.iter().map(|site| {
            let alive = || gateways.iter().filter(|gateway| gateway.site == site.id && is_alive(gateway, now));
            let configured = alive().flat_map(|gateway| at_each(gateway, &gateway.addresses, false));
            // Where hosts of the same names say that they are, once nothing that was configured answers (W8).
            let reported = alive().flat_map(|gateway| {
                let new = |address: &&String| !gateway.addresses.contains(address);
                at_each(gateway, hints.get(&gateway.name).into_iter().flatten().filter(new), true)
            });
            let mut gateways: Vec<_> = configured.chain(reported).collect();
            // The digests of a Gateway stand beside the first of its addresses.
            let mut named = BTreeSet::new();
            for gateway in &mut gateways {
                if !named.insert(gateway.id.clone()) {
                    gateway.certificate_digests.clear();
                }
            }
            ConnectSite { site: site.id.clone(), name: site.name.clone(), gateways }
        });
        let token = ConnectToken {
            iss: self.organisation().to_owned(),
            sub: subject.dn.clone(),
            aud: vec![audience::session(&subject.dn)],
            jti: Uuid::new_v4().to_string(),
            iat: now,
            nbf: now,
            exp: subject.until.min(now + Duration::from_secs(CONNECT_SECONDS)),
            cnf: Confirmation { jkt: subject.key },
            user: subject.user.clone(),
            generation: subject.generation,
            sites: sites.collect(),
            relays: relays.iter().map(|relay| relay.name.clone()).collect(),
        };
        Ok(self.authority().signing_key().sign(&token)?)
    }
}

/// Whether clients are sent to a Gateway (R18).
pub(crate) fn is_alive(gateway: &Gateway, now: UnixSeconds) -> bool {
    was_seen(gateway.last_seen, now)
}

/// Whether a Gateway that reported last at `last_seen` counts as alive (R18).
pub(crate) fn was_seen(last_seen: UnixSeconds, now: UnixSeconds) -> bool {
    last_seen.0 > 0 && now.0 <= last_seen.0.saturating_add(ALIVE_SECONDS)
}

fn at_each<'a>(
    gateway: &Gateway,
    addresses: impl IntoIterator<Item = &'a String>,
    reported: bool,
) -> impl Iterator<Item = ConnectGateway> {
    let id = gateway.id.clone();
    let digests = [&gateway.digest, &gateway.next_digest].into_iter().filter(|digest| !digest.is_empty());
    let digests: Vec<String> = digests.cloned().collect();
    addresses.into_iter().map(move |address| ConnectGateway {
        id: id.clone(),
        address: address.clone(),
        certificate_digests: digests.clone(),
        reported,
    })
}

/// A session's addresses at a site (X1): the same as long as the pool suffices, of both families at one position.
///
/// # Errors
/// `pool_exhausted`.
pub(crate) async fn inner_addresses(
    c: &mut Connection,
    site: &Site,
    dn: &str,
    now: UnixSeconds,
) -> Result<InnerAddresses, Refused> {
    let pools = pools(site);
    let last = pools.iter().map(|pool| positions(*pool)).min().unwrap_or_default();
    let is_free = |n| pools.iter().all(|pool| at_position(*pool, n) != pool.addr());
    let position = store::position(c, &site.id, dn, last, is_free, now).await?;
    let position = position.ok_or_else(|| Refused::pool_exhausted(&site.name))?;
    Ok(inner_at(site, position))
}

/// The addresses at a position in a site's pools.
pub(crate) fn inner_at(site: &Site, position: u64) -> InnerAddresses {
    let mut inner = InnerAddresses::default();
    for pool in pools(site) {
        match at_position(pool, position) {
            IpAddr::V4(address) => inner.ipv4 = Some(address),
            IpAddr::V6(address) => inner.ipv6 = Some(address),
        }
    }
    inner
}

fn pools(site: &Site) -> Vec<IpNet> {
    site.pools.iter().filter_map(|pool| pool.parse().ok()).collect()
}

/// The last position in a pool: neither the network's own address, which is 0, nor the last, which is for broadcast.
fn positions(pool: IpNet) -> u64 {
    let host_bits = u32::from(pool.max_prefix_len() - pool.prefix_len()).min(32);
    (1_u64 << host_bits).saturating_sub(2)
}

fn at_position(pool: IpNet, n: u64) -> IpAddr {
    match pool.network() {
        IpAddr::V4(network) => {
            // A position is below 2³².
            IpAddr::V4(Ipv4Addr::from(u32::from(network).wrapping_add(u32::try_from(n).unwrap_or_default())))
        }
        IpAddr::V6(network) => IpAddr::V6(Ipv6Addr::from(u128::from(network).wrapping_add(u128::from(n)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_addresses_of_hosts() {
        let small: IpNet = "10.0.0.1/30".parse().unwrap();
        assert_eq!(positions(small), 2);
        assert_eq!(at_position(small, 2), "10.0.0.2".parse::<IpAddr>().unwrap());
        assert_eq!(positions("10.97.0.1/16".parse().unwrap()), 65_534);
        let large: IpNet = "fd00::1/64".parse().unwrap();
        assert_eq!(positions(large), (1 << 32) - 2);
        assert_eq!(at_position(large, 0x1_0002), "fd00::1:2".parse::<IpAddr>().unwrap());
    }
}
