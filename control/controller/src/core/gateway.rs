//! What Gateways are told, and what they report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringfort_identity::{PeerIdentity, Role};
use ringfort_proto::{state_digest, v1};
use ringfort_token::{
    Entry, GatewayConfiguration, GatewayRelay, Grant, InnerAddresses, RevocationList, Serial, Shown, Signed, audience,
};
use ringfort_types::UnixSeconds;
use uuid::Uuid;

use super::ca::RequestedKey;
use super::issue::{Subject, inner_addresses, inner_at};
use super::refused::Refused;
use super::relays;
use super::store::{self, Connection, Gateway, Site};
use super::{Core, Event, hex};

/// Life of a revocation list, in seconds: 10 years. It is judged when it arrives.
const LIST_SECONDS: u64 = 3_652 * 86_400;
/// Entries in one list: with the longest reasons some 3 MiB of the 4 that a list may have.
const LIST_ENTRIES_MAX: usize = 4_096;
/// How long signed lists serve others who ask for the same, in seconds.
const BACKLOG_SECONDS: u64 = 60;
/// Addresses of one Gateway.
const ADDRESSES_MAX: usize = 8;
/// Longest address, in bytes: a DNS name of 253 with a port.
const ADDRESS_BYTES_MAX: usize = 260;

/// Signed lists (rf-revocations+jwt) in order, each with where the Gateway stands that has taken it.
pub type RevocationLists = Arc<[(Arc<str>, Serial)]>;

/// The lists that were signed last for a Gateway that lacked them: reading, signing and encoding thousands of entries anew for each of
/// a thousand Gateways takes longer than sending them.
pub(crate) struct Backlog {
    after: Serial,
    ours: Serial,
    signed_at: UnixSeconds,
    lists: RevocationLists,
}

impl Backlog {
    /// Whether they are what follows `after` as long as our list stands at `ours`.
    fn serves(&self, after: Serial, ours: Serial, now: UnixSeconds) -> bool {
        let age = now.saturating_since(self.signed_at).as_secs();
        (self.after, self.ours) == (after, ours) && self.signed_at <= now && age < BACKLOG_SECONDS
    }
}

/// What an entitlement token says that a Gateway lacks.
struct Newer {
    subject: Subject,
    seq: u64,
    grants: Vec<Grant>,
    /// The session's in the pools of the site, if it has one.
    position: Option<u64>,
}

impl Core {
    /// A new configuration (rf-gateway+jwt) for a Gateway (R7, R8).
    ///
    /// # Errors
    /// `not_found`.
    pub async fn configuration(&self, gateway: &str, now: UnixSeconds) -> Result<String, Refused> {
        let mut tx = self.inner.store.begin().await?;
        let gateway = known_gateway(&mut tx, gateway).await?;
        let site = store::sites(&mut tx).await?.remove(&gateway.site);
        let site = site.ok_or_else(|| Refused::not_found("site", &gateway.site))?;
        let allow = store::resources_at(&mut tx, &site.id).await?;
        let seq = store::next_configuration(&mut tx, &gateway.id).await?;
        let draining = store::draining(&mut tx).await?.contains(&gateway.id);
        let relays = self.relays_for(&gateway.id, &store::relays(&mut tx).await?, now)?;
        let signed = self.sign_configuration(&gateway.id, &site, (allow, relays), (seq, draining), now)?;
        store::set_lease(&mut tx, &gateway.id, now + self.lease()).await?;
        tx.commit().await?;
        Ok(signed.as_str().to_owned())
    }

    /// Life of a configuration and its lease; renewed every minute.
    fn lease(&self) -> Duration {
        Duration::from_secs(self.inner.settings.lease_seconds)
    }

    /// The id of a Gateway's site.
    ///
    /// # Errors
    /// `not_found`; `key_mismatch` for a certificate of that name and another key.
    pub async fn site_of(&self, peer: &PeerIdentity) -> Result<String, Refused> {
        Ok(gateway_with_key(&mut *self.inner.store.read().await?, peer).await?.site)
    }

    /// Signs what a Gateway may forward to for anybody: every Resource of its site.
    pub(crate) fn sign_configuration(
        &self,
        gateway: &str,
        site: &Site,
        (allow, relays): (Vec<Grant>, Vec<GatewayRelay>),
        (seq, draining): (u64, bool),
        now: UnixSeconds,
    ) -> Result<Signed<GatewayConfiguration>, Refused> {
        let until = now + self.lease();
        let token = GatewayConfiguration {
            iss: self.organisation().to_owned(),
            sub: gateway.to_owned(),
            aud: vec![audience::gateway(gateway)],
            jti: Uuid::new_v4().to_string(),
            iat: now,
            nbf: now,
            exp: until,
            seq,
            site: site.id.clone(),
            pools: site.pools.clone(),
            allow,
            lease: until,
            relays,
            draining,
        };
        Ok(self.authority().signing_key().sign(&token)?)
    }

    /// The revocations after `after`; all, if its epoch is another. Of another epoch it hears also while nothing was taken back in
    /// that yet: the state digest names it.
    ///
    /// # Errors
    /// `internal`.
    pub async fn revocations_after(&self, after: Serial, now: UnixSeconds) -> Result<RevocationLists, Refused> {
        let ours = self.serial();
        if after.epoch == ours.epoch && after.n > ours.n {
            tracing::error!(
                theirs = after.n,
                ours = ours.n,
                "a Gateway knows revocations that this database does not: it was restored from a backup"
            );
        }
        // After a Controller's start all Gateways ask for the same.
        let mut last = self.inner.backlog.lock().await;
        if let Some(backlog) = last.as_ref().filter(|backlog| backlog.serves(after, ours, now)) {
            return Ok(Arc::clone(&backlog.lists));
        }
        let n = if after.epoch == ours.epoch { after.n } else { 0 };
        let entries = store::revocations_after(&mut *self.inner.store.read().await?, n).await?;
        let lists = match entries.is_empty() && after.epoch != ours.epoch {
            true => vec![self.sign_list(n, &[], now)?],
            false => self.sign_revocations(n, &entries, now)?,
        };
        let lists: RevocationLists =
            lists.into_iter().map(|(list, serial)| (Arc::from(list.as_str()), serial)).collect();
        *last = Some(Backlog { after, ours, signed_at: now, lists: Arc::clone(&lists) });
        Ok(lists)
    }

    /// Signs the entries that follow `after`, in lists of bounded length; with each where it leads to. What is not among them is over.
    pub(crate) fn sign_revocations(
        &self,
        after: u64,
        entries: &[(u64, Entry)],
        now: UnixSeconds,
    ) -> Result<Vec<(Signed<RevocationList>, Serial)>, Refused> {
        let mut after = after;
        let mut lists = Vec::new();
        for entries in entries.chunks(LIST_ENTRIES_MAX) {
            let list = self.sign_list(after, entries, now)?;
            after = list.1.n;
            lists.push(list);
        }
        Ok(lists)
    }

    /// Signs one list, of the entries that follow `after`; with it where it leads to.
    fn sign_list(
        &self,
        after: u64,
        entries: &[(u64, Entry)],
        now: UnixSeconds,
    ) -> Result<(Signed<RevocationList>, Serial), Refused> {
        let epoch = self.serial().epoch;
        let n = entries.last().map_or(after, |(n, _)| *n);
        let (entries, numbers) = RevocationList::columns(after, entries);
        let token = RevocationList {
            iss: self.organisation().to_owned(),
            sub: "revocations".into(),
            aud: vec![audience::gateways(self.organisation())],
            jti: Uuid::new_v4().to_string(),
            iat: now,
            nbf: now,
            exp: now + Duration::from_secs(LIST_SECONDS),
            epoch,
            after,
            entries,
            numbers,
        };
        Ok((self.authority().signing_key().sign(&token)?, Serial { epoch, n }))
    }

    /// Entitlement tokens of a Gateway's site that are newer than those named for its live sessions.
    ///
    /// What was pushed for sessions that are not live there comes too: somebody who stayed away while something was taken
    /// back would otherwise find a Gateway that missed the push, and show it the older token.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn entitlements_newer(
        &self,
        gateway: &str,
        sessions: &[v1::LiveSession],
        now: UnixSeconds,
    ) -> Result<Vec<String>, Refused> {
        let (site, newer) = self.newer_at(gateway, sessions, now).await?;
        let mut tokens = Vec::new();
        for Newer { subject, seq, grants, position } in newer {
            let inner = match position {
                Some(position) => inner_at(&site, position),
                None => match self.allot(&site, &subject, now).await {
                    Ok(inner) => inner,
                    // It has no address there, so it has no token there that a Gateway could hold.
                    Err(refused) if refused.code == "pool_exhausted" => {
                        tracing::warn!(site = site.id, "no address is left at a site; nothing was sent for a session");
                        continue;
                    }
                    Err(refused) => return Err(refused),
                },
            };
            let token = self.sign_entitlement(&subject, &site, grants, (seq, inner), now)?;
            tokens.push(token.as_str().to_owned());
            // There may be thousands, and others wait for this thread.
            tokio::task::yield_now().await;
        }
        Ok(tokens)
    }

    /// What the tokens say that a Gateway lacks, as the database has it at one moment.
    ///
    /// No writer waits for it, and what is signed of it afterwards is what would have been signed at that moment under the
    /// writers' lock. Whatever changes what a live login may do raises its number in the same transaction
    /// ([`Decision`](super::decision::Decision)). So at any one moment number and content belong together: the content is that of
    /// the push under this number, and newer only where the login has begun anew since, whose older tokens are dead. A change
    /// that comes after that moment has a higher number, and is news: the stream took its place in the hub before, gets it
    /// after these, and the Gateway keeps the higher number of the two.
    async fn newer_at(
        &self,
        gateway: &str,
        sessions: &[v1::LiveSession],
        now: UnixSeconds,
    ) -> Result<(Site, Vec<Newer>), Refused> {
        let named: BTreeMap<&str, u64> = sessions.iter().map(|live| (live.dn.as_str(), live.seq)).collect();
        let mut tx = self.inner.store.snapshot().await?;
        let gateway = known_gateway(&mut tx, gateway).await?;
        let site = store::sites(&mut tx).await?.remove(&gateway.site);
        let site = site.ok_or_else(|| Refused::not_found("site", &gateway.site))?;
        let mut newer = Vec::new();
        for store::Sequence { dn, seq, pushed_seq } in store::sequences_at(&mut tx, &site.id, now).await? {
            let is_newer = named.get(dn.as_str()).map_or(pushed_seq > 0, |known| seq > *known);
            let login = if is_newer { store::live_login(&mut tx, &dn, now).await? } else { None };
            let Some(subject) = login.map(|login| Subject::of_login(&login)).transpose()? else { continue };
            if self.is_good(&subject, now) {
                let grants = store::grants_of(&mut tx, subject.user()).await?.remove(&site.id).unwrap_or_default();
                let position = store::position_of(&mut tx, &site.id, &dn).await?;
                newer.push(Newer { subject, seq, grants, position });
            }
        }
        Ok((site, newer))
    }

    /// Gives a session its inner addresses at a site where it has none.
    ///
    /// # Errors
    /// `pool_exhausted`.
    async fn allot(&self, site: &Site, subject: &Subject, now: UnixSeconds) -> Result<InnerAddresses, Refused> {
        let mut tx = self.inner.store.begin().await?;
        let inner = inner_addresses(&mut tx, site, subject.dn(), now).await?;
        tx.commit().await?;
        Ok(inner)
    }

    /// Whether a login's tokens are still good for something.
    pub(crate) fn is_good(&self, subject: &Subject, now: UnixSeconds) -> bool {
        let generation = Some((subject.user(), subject.generation()));
        self.standing_of(&Shown { key: Some(subject.key()), generation, ..Shown::default() }, now).is_ok()
    }

    /// A new certificate for a Gateway and the key that signed `request` (PKCS#10, DER); the chain, DER. The Gateway is bound to
    /// that key once it has reported by it ([`Core::report`]); until then another request replaces this one.
    ///
    /// # Errors
    /// `wrong_role`, `certificate_revoked`, `request_malformed`, `not_found`; `key_mismatch` when it does not ask by the key that it is
    /// bound to, or for a key of somebody else.
    pub async fn enroll(&self, peer: &PeerIdentity, request: &[u8], now: UnixSeconds) -> Result<Vec<Vec<u8>>, Refused> {
        if peer.role() != Role::Gateway {
            return Err(Refused::wrong_role(Role::Gateway.as_str(), peer.role().as_str()));
        }
        self.standing(peer, now)?;
        let key = RequestedKey::from_request(request)?;
        let mut tx = self.inner.store.begin().await?;
        let gateway = gateway_with_key(&mut tx, peer).await?;
        let jkt = key.thumbprint().to_string();
        // The next key asks for none that follows it, or the one in use would be known to nobody.
        if peer.key().to_string() != gateway.jkt || store::is_key_of_another(&mut tx, &jkt, &gateway.id).await? {
            return Err(Refused::key_mismatch());
        }
        self.standing_of(&Shown { key: Some(key.thumbprint()), ..Shown::default() }, now)?;
        let leaf = self.authority().gateway(&gateway.id, &key, now)?;
        store::set_next(&mut tx, &gateway.id, &jkt, &certificate_digest(&leaf)).await?;
        let event = Event { actor: &gateway.name, action: "enroll", target: &gateway.id, outcome: "ok", detail: &jkt };
        store::insert_event(&mut tx, &event.recorded(now)).await?;
        tx.commit().await?;
        Ok([&leaf, self.authority().intermediate()].map(|certificate| certificate.to_vec()).into())
    }

    /// Takes a Gateway's report (R15, R16, R18) and says whether it is in the state that we believe it to be in. The first one by the key
    /// of its new certificate binds it to that key: the one before is refused from then on, whoever has it.
    ///
    /// # Errors
    /// `not_found`; `key_mismatch`, also for the digest of a certificate for another key than the connection's; `request_malformed` for
    /// addresses and Relays that are none, and for the digest of a certificate that was not issued to it.
    pub async fn report(
        &self,
        peer: &PeerIdentity,
        report: &v1::ReportRequest,
        now: UnixSeconds,
    ) -> Result<bool, Refused> {
        let addresses = checked_addresses(&report.addresses)?;
        let digest = hex(&report.certificate_digest);
        let relays = relays::checked_connected(&report.relays)?;
        let mut tx = self.inner.store.begin().await?;
        let mut gateway = gateway_with_key(&mut tx, peer).await?;
        let key = peer.key().to_string();
        if digest == gateway.next_digest {
            // A Controller of an earlier version gave a certificate for the same key, and did not write that down.
            if gateway.next_jkt.is_empty() {
                gateway.next_jkt.clone_from(&gateway.jkt);
            }
            if key != gateway.next_jkt {
                return Err(Refused::key_mismatch());
            }
            gateway.digest = std::mem::take(&mut gateway.next_digest);
            let before = std::mem::replace(&mut gateway.jkt, std::mem::take(&mut gateway.next_jkt));
            if before != gateway.jkt {
                let detail = format!("{} in place of {before}", gateway.jkt);
                let event = Event {
                    actor: &gateway.name,
                    action: "rotate-key",
                    target: &gateway.id,
                    outcome: "ok",
                    detail: &detail,
                };
                store::insert_event(&mut tx, &event.recorded(now)).await?;
            }
        } else if digest != gateway.digest {
            return Err(Refused::malformed("expected the digest of a certificate that was issued to this Gateway"));
        } else if key != gateway.jkt {
            return Err(Refused::key_mismatch());
        }
        if !addresses.is_empty() {
            gateway.addresses = addresses;
        }
        gateway.last_seen = now;
        store::set_reported(&mut tx, &gateway).await?;
        store::set_connected_relays(&mut tx, &gateway.id, &relays).await?;
        let sequences = match report.sessions.is_empty() {
            true => Vec::new(),
            false => store::sequences_at(&mut tx, &gateway.site, now).await?,
        };
        tx.commit().await?;
        let sequences: BTreeMap<&str, _> = sequences.iter().map(|one| (one.dn.as_str(), one)).collect();
        let believed = |live: &v1::LiveSession| {
            // Whatever was pushed it must have; what a client asked for since it may show or not. Of a session that is not known
            // here any more nothing will be pushed: it ends with its token.
            let seq = sequences.get(live.dn.as_str()).map_or(live.seq, |one| live.seq.clamp(one.pushed_seq, one.seq));
            v1::LiveSession { dn: live.dn.clone(), seq }
        };
        let believed: Vec<_> = report.sessions.iter().map(believed).collect();
        let Serial { epoch, n } = self.serial();
        let expected = state_digest(gateway.configuration_seq, v1::Serial { epoch, n }, &believed);
        Ok(report.state_digest.as_ref() == expected)
    }
}

/// A Gateway that joined.
///
/// # Errors
/// `not_found`.
async fn known_gateway(c: &mut Connection, id: &str) -> Result<Gateway, Refused> {
    store::gateway(c, id).await?.ok_or_else(|| Refused::not_found("Gateway", id))
}

/// The Gateway whose certificate `peer` shows: one that names it and has its key, or the one that is to follow it. A Controller that was
/// removed could name any, and a copy of an older key is nobody's.
///
/// # Errors
/// `not_found`, `key_mismatch`.
async fn gateway_with_key(c: &mut Connection, peer: &PeerIdentity) -> Result<Gateway, Refused> {
    let gateway = known_gateway(c, peer.id()).await?;
    let key = peer.key().to_string();
    if !gateway.keys().any(|jkt| jkt == key) {
        return Err(Refused::key_mismatch());
    }
    Ok(gateway)
}

/// SHA-256 of a certificate in hexadecimal, as a report names it.
pub(crate) fn certificate_digest(certificate: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate).as_ref())
}

/// Where clients reach a Gateway: `host:port` each.
///
/// # Errors
/// `request_malformed`.
pub(crate) fn checked_addresses(addresses: &[String]) -> Result<Vec<String>, Refused> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    let is_one = |address: &String| {
        address.len() <= ADDRESS_BYTES_MAX
            && address.bytes().all(plain)
            && address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0))
    };
    if addresses.len() > ADDRESSES_MAX || !addresses.iter().all(is_one) {
        return Err(Refused::malformed(format!("expected at most {ADDRESSES_MAX} addresses of the form host:port")));
    }
    Ok(addresses.to_vec())
}
