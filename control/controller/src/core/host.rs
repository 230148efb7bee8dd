//! Hosts that register themselves (W1–W10): who may, what they say, and what it is good for.
//!
//! What a host says of its addresses is a hint. Clients try the addresses of a host that is called like a Gateway after those that
//! were configured for that Gateway, and believe none of them before pin and handshake (W8, C12).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ringfort_identity::{Hostname, PeerIdentity, Role};
use ringfort_proto::api::{self, HOST_ADDRESSES_MAX, HOST_INTERFACES_MAX, HOST_TEXT_BYTES_MAX};
use ringfort_types::UnixSeconds;

use super::ca::RequestedKey;
use super::decision::Decision;
use super::refused::Refused;
use super::store::{self, Connection, Host};
use super::{Administrator, Core, Event, action, to_the_end};

/// Hosts of an organisation.
const HOSTS_MAX: usize = 65_536;
/// How long what a host said is a hint for clients, in seconds: four registrations may be lost.
const HINT_SECONDS: u64 = 300;
/// Addresses of one host that clients are told.
const HINTS_MAX: usize = 8;

/// Proof that whoever connected is a host that may register itself.
#[derive(Debug)]
pub(crate) struct AuthorisedHost {
    name: String,
    jkt: String,
}

impl AuthorisedHost {
    /// That it speaks of itself (W7).
    ///
    /// # Errors
    /// `host_mismatch`.
    pub(crate) fn is_called(&self, hostname: &str) -> Result<(), Refused> {
        if self.name == hostname { Ok(()) } else { Err(Refused::host_mismatch(&self.name)) }
    }
}

impl Core {
    /// Authorises a host by its name. It still needs a certificate, by an invitation; the first key that comes with one is the key
    /// that the name belongs to.
    ///
    /// # Errors
    /// `request_malformed`, `already_exists`.
    pub async fn admin_add_host(
        &self,
        administrator: &Administrator<action::AddHost>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::Created, Refused> {
        let name = self.hostname(&request.name)?;
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            if store::hosts(&mut decision.tx).await?.len() >= HOSTS_MAX {
                return Err(Refused::malformed(format!("expected at most {HOSTS_MAX} hosts: remove some first")));
            }
            if !store::insert_host(&mut decision.tx, &Host::new(name.to_string(), String::new())).await? {
                return Err(taken(name.as_str()));
            }
            decision.record(serde_json::Value::Null, serde_json::json!({ "name": name.as_str() }));
            decision.close("add-host", name.as_str(), "").await?;
            Ok(api::Created { id: name.to_string() })
        })
        .await
    }

    /// Takes a host's right to register itself back, and forgets what it said.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn admin_remove_host(
        &self,
        administrator: &Administrator<action::RemoveHost>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<(), Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            if !store::delete_host(&mut decision.tx, &request.name).await? {
                return Err(Refused::not_found("host", &request.name));
            }
            decision.record(serde_json::json!({ "name": request.name }), serde_json::Value::Null);
            decision.close("remove-host", &request.name, "").await.map(drop)
        })
        .await
    }

    /// All hosts that may register themselves, with what they said and how long ago (W8).
    ///
    /// # Errors
    /// `internal`.
    pub async fn hosts(
        &self,
        _administrator: &Administrator<action::ListHosts>,
        now: UnixSeconds,
    ) -> Result<Vec<api::HostRow>, Refused> {
        let hosts = store::hosts(&mut *self.inner.store.read().await?).await?;
        let row = |host: Host| api::HostRow {
            name: host.name,
            joined: !host.jkt.is_empty(),
            last_seen: host.last_seen.0,
            age: (host.last_seen.0 > 0).then(|| now.saturating_since(host.last_seen).as_secs()),
            interfaces: host.interfaces,
            port: host.port,
            version: host.version,
        };
        Ok(hosts.into_iter().map(row).collect())
    }

    /// The host whose certificate it is, if its common name is among the authorised hosts (W6).
    ///
    /// # Errors
    /// `wrong_role`, `certificate_revoked`, `host_unknown`.
    pub(crate) async fn authorised_host(
        &self,
        peer: &PeerIdentity,
        now: UnixSeconds,
    ) -> Result<AuthorisedHost, Refused> {
        if peer.role() != Role::Host {
            return Err(Refused::wrong_role(Role::Host.as_str(), peer.role().as_str()));
        }
        self.standing(peer, now)?;
        // A host's id is its certificate's common name: `Trust` sees to that.
        let (name, jkt) = (peer.id().to_owned(), peer.key().to_string());
        let host = store::host(&mut *self.inner.store.read().await?, &name).await?;
        match host {
            Some(host) if host.jkt.is_empty() || host.jkt == jkt => Ok(AuthorisedHost { name, jkt }),
            _ => Err(Refused::host_unknown(&name)),
        }
    }

    /// Records where a host says that it can be reached (W5, W8).
    ///
    /// # Errors
    /// `request_malformed`; `host_unknown` when it was removed meanwhile.
    pub(crate) async fn register_host(
        &self,
        host: AuthorisedHost,
        request: api::HostRegistration,
        now: UnixSeconds,
    ) -> Result<api::Registered, Refused> {
        checked(&request)?;
        let AuthorisedHost { name, jkt } = host;
        let api::HostRegistration { interfaces, port, version } = request;
        let mut tx = self.inner.store.begin().await?;
        let host = Host { name, jkt, interfaces, port, version, last_seen: now };
        if !store::bind_host(&mut tx, &host.name, &host.jkt).await? || !store::set_registered(&mut tx, &host).await? {
            return Err(Refused::host_unknown(&host.name));
        }
        tx.commit().await?;
        Ok(api::Registered { last_seen: now.0, known: Some(self.known_to_clients()) })
    }

    /// A new certificate for a host and its key; the chain, DER. `request` is PKCS#10, DER.
    ///
    /// # Errors
    /// `key_mismatch`, `request_malformed`.
    pub(crate) async fn renew_host(
        &self,
        host: &AuthorisedHost,
        request: &[u8],
        now: UnixSeconds,
    ) -> Result<Vec<Vec<u8>>, Refused> {
        let key = RequestedKey::from_request(request)?;
        if key.thumbprint().to_string() != host.jkt {
            return Err(Refused::key_mismatch());
        }
        let leaf = self.authority().host(&host.name.parse()?, &key, now)?;
        let event = Event { actor: &host.name, action: "renew-host", target: &host.name, outcome: "ok", detail: "" };
        self.audit(event, now).await;
        Ok([&leaf, self.authority().intermediate()].map(|certificate| certificate.to_vec()).into())
    }

    /// A name that a host may have: none of our own, by which clients of other implementations know the Controller.
    ///
    /// # Errors
    /// `request_malformed`.
    pub(crate) fn hostname(&self, name: &str) -> Result<Hostname, Refused> {
        let hostname: Hostname = name.parse()?;
        if self.inner.settings.names.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            return Err(Refused::malformed(format!("{name} is the Controller's own name: choose another")));
        }
        Ok(hostname)
    }
}

/// Lets the holder of `jkt` be the host called `name`, as an invitation promised.
///
/// # Errors
/// `already_exists` when the name belongs to another key.
pub(crate) async fn admit(c: &mut Connection, name: &str, jkt: &str) -> Result<(), Refused> {
    let host = Host::new(name.to_owned(), jkt.to_owned());
    if store::insert_host(c, &host).await? || store::bind_host(c, name, jkt).await? {
        return Ok(());
    }
    Err(taken(name))
}

/// Whether an invitation for `name` could be used.
///
/// # Errors
/// `already_exists` when the name belongs to a key.
pub(crate) async fn is_free(c: &mut Connection, name: &str) -> Result<(), Refused> {
    match store::host(c, name).await? {
        Some(host) if !host.jkt.is_empty() => Err(taken(name)),
        _ => Ok(()),
    }
}

fn taken(name: &str) -> Refused {
    Refused::already_exists(format!("there is a host {name:?}: remove it first, or choose another name"))
}

/// Where Gateways can be reached besides their configured addresses, by their name: what hosts of the same names said of late.
pub(crate) async fn hints(c: &mut Connection, now: UnixSeconds) -> Result<BTreeMap<String, Vec<String>>, Refused> {
    let since = UnixSeconds(now.0.saturating_sub(HINT_SECONDS));
    let hosts = store::hosts_of_gateways(c, since).await?;
    Ok(hosts.into_iter().map(|host| (host.name, candidates(&host.interfaces, host.port))).collect())
}

/// The addresses at which somebody else may find a host, in the order in which it named them.
fn candidates(interfaces: &[api::HostInterface], port: u16) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let addresses = interfaces.iter().flat_map(|interface| &interface.addresses);
    let addresses = addresses.copied().filter(|address| is_elsewhere(*address) && seen.insert(*address));
    addresses.take(HINTS_MAX).map(|address| SocketAddr::new(address, port).to_string()).collect()
}

/// Whether an address means the same host to everybody who can send to it.
fn is_elsewhere(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(is_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// Bounds of what a host says of itself.
fn checked(request: &api::HostRegistration) -> Result<(), Refused> {
    let api::HostRegistration { interfaces, port, version } = request;
    let is_text = |text: &str| text.len() <= HOST_TEXT_BYTES_MAX && !text.chars().any(char::is_control);
    let addresses: usize = interfaces.iter().map(|interface| interface.addresses.len()).sum();
    if interfaces.len() > HOST_INTERFACES_MAX || addresses > HOST_ADDRESSES_MAX {
        return Err(Refused::malformed(format!(
            "expected at most {HOST_INTERFACES_MAX} interfaces with {HOST_ADDRESSES_MAX} addresses, found {} with {addresses}",
            interfaces.len()
        )));
    }
    if !interfaces.iter().all(|interface| !interface.name.is_empty() && is_text(&interface.name)) {
        return Err(Refused::malformed(format!(
            "expected names of interfaces of 1 to {HOST_TEXT_BYTES_MAX} plain bytes"
        )));
    }
    if *port == 0 || !is_text(version) {
        return Err(Refused::malformed(format!(
            "expected a port of 1 to 65535 and a version of at most {HOST_TEXT_BYTES_MAX} plain bytes"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_others_can_use_are_passed_on() {
        let interface = |addresses: &[&str]| api::HostInterface {
            name: "eth0".into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        };
        let all = [
            interface(&["127.0.0.1", "::1", "0.0.0.0", "::", "0.1.2.3", "::ffff:127.0.0.1"]),
            interface(&["169.254.1.1", "fe80::1", "224.0.0.1", "ff02::1", "255.255.255.255"]),
            interface(&["192.0.2.7", "2001:db8::7", "192.0.2.7"]),
        ];
        assert_eq!(candidates(&all, 443), ["192.0.2.7:443", "[2001:db8::7]:443"]);
        let many: Vec<String> = (0..20).map(|n| format!("192.0.2.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(candidates(&[interface(&many)], 1).len(), HINTS_MAX);
    }

    #[test]
    fn what_a_host_says_has_bounds() {
        let registration = |interfaces: usize, addresses: usize, port, name: &str, version: &str| {
            let addresses = vec![IpAddr::from([192, 0, 2, 1]); addresses];
            let interface = api::HostInterface { name: name.into(), addresses };
            checked(&api::HostRegistration { interfaces: vec![interface; interfaces], port, version: version.into() })
        };
        assert_eq!(registration(64, 4, 1, "eth0", ""), Ok(()));
        assert_eq!(registration(0, 0, 65_535, "", "1.0"), Ok(()));
        let long = "x".repeat(65);
        for refused in [
            registration(65, 0, 1, "eth0", ""),
            registration(1, 257, 1, "eth0", ""),
            registration(1, 1, 0, "eth0", ""),
            registration(1, 1, 1, "", ""),
            registration(1, 1, 1, &long, ""),
            registration(1, 1, 1, "a\nb", ""),
            registration(1, 1, 1, "eth0", &long),
            registration(1, 1, 1, "eth0", "\u{1b}"),
        ] {
            assert_eq!(refused.unwrap_err().code, "request_malformed");
        }
    }
}
