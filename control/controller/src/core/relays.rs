//! Relays as far as a Controller knows them: which there are, what admits Gateways to them, and who says to be connected (R10, R11,
//! R14, R15).
//!
//! A Relay is called by its FQDN, which is its certificate's id. Every Gateway is told all of them, each with a pass, in its
//! configuration. A pass names the Gateway by a hash under a key of the day, which is derived from the key that seals: all Controllers
//! make the same, and a Relay cannot tell who it is. This module does not carry packets; how a Relay judges a pass is the Relay's.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfort_identity::Hostname;
use ringfort_proto::api;
use ringfort_token::{GatewayRelay, InviteeKind, RelayPass, audience};
use ringfort_types::UnixSeconds;
use serde_json::{Value, json};
use uuid::Uuid;

use super::decision::{Decision, REMOVED};
use super::refused::Refused;
use super::store::{self, Connection, Consequence, Relay};
use super::{Administrator, Core, action, to_the_end};

/// Relays of an organisation: every configuration has a pass for each.
const RELAYS_MAX: usize = 16;
/// Longest name of one, in bytes: that of a [`Hostname`].
const NAME_BYTES_MAX: usize = 64;
const DAY_SECONDS: u64 = 86_400;
/// How long the hash of a day counts after it, in seconds (PROTOCOLS "Relay").
const OVERLAP_SECONDS: u64 = 3_600;
/// Longest life of a Gateway's pass, in seconds.
const PASS_SECONDS_MAX: u64 = 86_400;

impl Relay {
    /// As many as there may be, by the longest names that they can have.
    pub(crate) fn most() -> Vec<Self> {
        let longest = Self { name: "x".repeat(NAME_BYTES_MAX), jkt: String::new(), joined_at: UnixSeconds(0) };
        vec![longest; RELAYS_MAX]
    }
}

impl Core {
    /// All Relays, and the Gateways that say to be connected to each (R15).
    ///
    /// # Errors
    /// `internal`.
    pub async fn relays(
        &self,
        _administrator: &Administrator<action::ListRelays>,
    ) -> Result<Vec<api::RelayRow>, Refused> {
        let mut tx = self.inner.store.snapshot().await?;
        let connected = store::connected_relays(&mut tx).await?;
        let gateways = store::gateways(&mut tx).await?;
        let row = |Relay { name, joined_at, .. }: Relay| {
            let is_at = |id: &String| connected.get(id).is_some_and(|relays| relays.contains(&name));
            let gateways = gateways.iter().filter(|gateway| is_at(&gateway.id));
            let gateways = gateways.map(|gateway| gateway.name.clone()).collect();
            api::RelayRow { gateways, joined_at: joined_at.0, name }
        };
        Ok(store::relays(&mut tx).await?.into_iter().map(row).collect())
    }

    /// Removes a Relay, or the invitations of one that has not joined yet: its key is revoked, and Gateways are not told of it any more.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn admin_remove_relay(
        &self,
        administrator: &Administrator<action::RemoveRelay>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let name = request.name;
            let invitations = store::void_invitations(&mut decision.tx, InviteeKind::Relay, &name, now).await?;
            let jkt = store::relay_key(&mut decision.tx, &name).await?;
            if jkt.is_none() && invitations == 0 {
                return Err(Refused::not_found("Relay", &name));
            }
            if let Some(jkt) = &jkt {
                decision.deny_key(jkt, REMOVED).await?;
                store::delete_relay(&mut decision.tx, &name).await?;
                for site in store::sites(&mut decision.tx).await?.into_keys() {
                    decision.reconfigure(&site);
                }
            }
            decision.record(json!({ "name": name, "jkt": jkt, "invitations": invitations }), Value::Null);
            decision.close("remove-relay", &name, &format!("{invitations} invitations")).await
        })
        .await
    }

    /// The Relays that a Gateway is to be reached through, with what admits it to each (R10, R11).
    pub(crate) fn relays_for(
        &self,
        gateway: &str,
        relays: &[Relay],
        now: UnixSeconds,
    ) -> Result<Vec<GatewayRelay>, Refused> {
        let hash = self.relay_hash(gateway, now)?;
        let day_ends = UnixSeconds((now.0 / DAY_SECONDS + 1) * DAY_SECONDS);
        let exp = (day_ends + Duration::from_secs(OVERLAP_SECONDS)).min(now + Duration::from_secs(PASS_SECONDS_MAX));
        let relay = |Relay { name, .. }: &Relay| {
            let pass = RelayPass {
                iss: self.organisation().to_owned(),
                sub: hash.clone(),
                aud: vec![audience::relay(name)],
                jti: Uuid::new_v4().to_string(),
                iat: now,
                nbf: now,
                exp,
            };
            let pass = self.authority().signing_key().sign(&pass)?.as_str().to_owned();
            Ok(GatewayRelay { fqdn: name.clone(), pass })
        };
        relays.iter().map(relay).collect()
    }

    /// What a Relay knows a Gateway by today (R14).
    fn relay_hash(&self, gateway: &str, now: UnixSeconds) -> Result<String, Refused> {
        let day = (now.0 / DAY_SECONDS).to_be_bytes();
        let key = self.inner.sealing.derive(&[b"relay", &day])?;
        Ok(URL_SAFE_NO_PAD.encode(hmac::sign(&key, gateway.as_bytes())))
    }
}

/// The name of a Relay that can be invited.
///
/// # Errors
/// `request_malformed` for what is no FQDN, `already_exists` for a name that is taken.
pub(crate) async fn checked_relay(core: &Core, c: &mut Connection, name: &str) -> Result<Hostname, Refused> {
    let fqdn = core.hostname(c, name).await?;
    if !fqdn.as_str().contains('.') {
        return Err(Refused::malformed(format!(
            "expected the FQDN of a Relay, such as relay.example.com, found {name:?}"
        )));
    }
    if store::relay_key(c, name).await?.is_some() {
        return Err(taken(name));
    }
    Ok(fqdn)
}

/// Writes down a Relay that joins, and lets all Gateways hear of it.
///
/// # Errors
/// `already_exists`, `request_malformed` for one too many. Writers take turns, so that two cannot be the last one.
pub(crate) async fn admit(c: &mut Connection, name: &str, jkt: String, now: UnixSeconds) -> Result<(), Refused> {
    if store::relays(c).await?.len() >= RELAYS_MAX {
        return Err(Refused::malformed(format!("expected at most {RELAYS_MAX} Relays: remove one first")));
    }
    if !store::insert_relay(c, &Relay { name: name.to_owned(), jkt, joined_at: now }).await? {
        return Err(taken(name));
    }
    let sites = store::sites(c).await?.into_keys();
    let news: Vec<_> = sites.map(|site| Consequence::Configuration { site }).collect();
    Ok(store::insert_news(c, &news, now).await?)
}

/// The Relays that a Gateway reports (R15).
///
/// # Errors
/// `request_malformed` for more than there can be, and for what is no name of one.
pub(crate) fn checked_connected(relays: &[String]) -> Result<Vec<String>, Refused> {
    if relays.len() > RELAYS_MAX || relays.iter().any(|name| name.parse::<Hostname>().is_err()) {
        return Err(Refused::malformed(format!("expected the FQDNs of at most {RELAYS_MAX} Relays")));
    }
    Ok(relays.to_vec())
}

fn taken(name: &str) -> Refused {
    Refused::already_exists(format!("there is a Relay {name:?}: remove it first, or choose another name"))
}
