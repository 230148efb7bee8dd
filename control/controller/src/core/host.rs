//! Hosts that register themselves (W1–W10): who may, what they say, and what it is good for.
//!
//! A name belongs to the key that joined by an invitation for it, and then to each that follows it with a certificate, and to no other; a
//! host that is removed takes its keys with it.
//!
//! What a host says of its addresses is a hint. Clients try the addresses of a host that is called like a Gateway after those that
//! were configured for that Gateway, and believe none of them before pin and handshake (W8, C12).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ringfort_identity::{Hostname, PeerIdentity, Role};
use ringfort_proto::api::{self, HOST_ADDRESSES_MAX, HOST_INTERFACES_MAX, HOST_TEXT_BYTES_MAX};
use ringfort_token::{InviteeKind, Shown};
use ringfort_types::UnixSeconds;

use super::ca::RequestedKey;
use super::decision::{Decision, REMOVED};
use super::refused::Refused;
use super::store::{self, Connection, Gateway, Host, Site};
use super::{Administrator, Core, Event, Settings, action, to_the_end};

/// Hosts of an organisation.
const HOSTS_MAX: u64 = 65_536;
/// Hosts in one answer; each may have said some 10 KiB.
pub(crate) const PAGE_MAX: u32 = 256;
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
        if self.name == hostname { Ok(()) } else { Err(Refused::host_mismatch(&self.name, hostname)) }
    }
}

/// Which hosts are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostsAsked {
    /// Only those whose name comes after this one.
    pub after: String,
    /// At most so many; 256 at most.
    pub limit: u32,
}

impl Default for HostsAsked {
    /// The first.
    fn default() -> Self {
        Self { after: String::new(), limit: PAGE_MAX }
    }
}

impl Core {
    /// Authorises a host by its name. The key that the name will belong to comes by an invitation.
    ///
    /// # Errors
    /// `request_malformed`, `already_exists`.
    pub async fn admin_add_host(
        &self,
        administrator: &Administrator<action::AddHost>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::Created, Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let name = core.hostname(&mut decision.tx, &request.name).await?;
            if !insert(&mut decision.tx, name.as_str(), "").await? {
                return Err(taken(name.as_str()));
            }
            decision.record(serde_json::Value::Null, serde_json::json!({ "name": name.as_str() }));
            decision.close("add-host", name.as_str(), "").await?;
            Ok(api::Created { id: name.to_string() })
        })
        .await
    }

    /// Takes a host's right to register itself back: its key is revoked, invitations of its name are void, and what it said is
    /// forgotten.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn admin_remove_host(
        &self,
        administrator: &Administrator<action::RemoveHost>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let tx = &mut decision.tx;
            let invitations = store::void_invitations(tx, InviteeKind::Host, &request.name, now).await?;
            let found = store::host(tx, &request.name).await?;
            if found.is_none() && invitations == 0 {
                return Err(Refused::not_found("host", &request.name));
            }
            let jkt: Vec<&str> = found.iter().flat_map(Host::keys).collect();
            for jkt in &jkt {
                decision.deny_key(jkt, REMOVED).await?;
            }
            store::delete_host(&mut decision.tx, &request.name).await?;
            let was = serde_json::json!({ "name": request.name, "jkt": jkt, "invitations": invitations });
            decision.record(was, serde_json::Value::Null);
            decision.close("remove-host", &request.name, &format!("{invitations} invitations")).await
        })
        .await
    }

    /// A page of the hosts that may register themselves, by name, with what they said and how long ago (W8).
    ///
    /// # Errors
    /// `request_malformed` for more than 256.
    pub async fn hosts(
        &self,
        _administrator: &Administrator<action::ListHosts>,
        asked: HostsAsked,
        now: UnixSeconds,
    ) -> Result<Vec<api::HostRow>, Refused> {
        let HostsAsked { after, limit } = asked;
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(Refused::malformed(format!("expected a limit of 1 to {PAGE_MAX} hosts")));
        }
        let hosts = store::hosts_after(&mut *self.inner.store.read().await?, &after, limit).await?;
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
    /// `wrong_role`, `host_unknown`, `certificate_revoked`.
    pub(crate) async fn authorised_host(
        &self,
        peer: &PeerIdentity,
        now: UnixSeconds,
    ) -> Result<AuthorisedHost, Refused> {
        if peer.role() != Role::Host {
            return Err(Refused::wrong_role(Role::Host.as_str(), peer.role().as_str()));
        }
        // A host's id is its certificate's common name: `Trust` sees to that.
        let (name, jkt) = (peer.id().to_owned(), peer.key().to_string());
        let host = store::host(&mut *self.inner.store.read().await?, &name).await?;
        if host.is_none_or(|host| !host.keys().any(|key| key == jkt)) {
            return Err(Refused::host_unknown(&name));
        }
        self.standing(peer, now)?;
        Ok(AuthorisedHost { name, jkt })
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
        let host = Host { interfaces, port, version, last_seen: now, ..Host::new(name, jkt) };
        if !store::set_registered(&mut tx, &host).await? {
            return Err(Refused::host_unknown(&host.name));
        }
        tx.commit().await?;
        Ok(api::Registered { last_seen: now.0, known: Some(self.known_to_clients()) })
    }

    /// A new certificate for a host and the key that signed `request` (PKCS#10, DER); the chain, DER. That may be the key by which it
    /// asks, or another one, to which the name belongs once it has registered by it; until then another request replaces this one.
    ///
    /// # Errors
    /// `request_malformed`; `certificate_revoked`; `key_mismatch` when it does not ask by the key that the name belongs to, or for a key of
    /// somebody else.
    pub(crate) async fn renew_host(
        &self,
        host: &AuthorisedHost,
        request: &[u8],
        now: UnixSeconds,
    ) -> Result<Vec<Vec<u8>>, Refused> {
        let key = RequestedKey::from_request(request)?;
        self.standing_of(&Shown { key: Some(key.thumbprint()), ..Shown::default() }, now)?;
        let jkt = key.thumbprint().to_string();
        let leaf = self.authority().host(&host.name.parse()?, &key, now)?;
        let mut tx = self.inner.store.begin().await?;
        if jkt != host.jkt
            && (store::is_key_of_another(&mut tx, &jkt, &host.name).await?
                || !store::set_next_of_host(&mut tx, &host.name, &host.jkt, &jkt).await?)
        {
            return Err(Refused::key_mismatch());
        }
        let event = Event { actor: &host.name, action: "renew-host", target: &host.name, outcome: "ok", detail: &jkt };
        store::insert_event(&mut tx, &event.recorded(now)).await?;
        tx.commit().await?;
        Ok([&leaf, self.authority().intermediate()].map(|certificate| certificate.to_vec()).into())
    }

    /// A name that a host may have: none of a Controller's own, by which clients of other implementations know it.
    ///
    /// # Errors
    /// `request_malformed`.
    pub(crate) async fn hostname(&self, c: &mut Connection, name: &str) -> Result<Hostname, Refused> {
        let hostname: Hostname = name.parse()?;
        if store::is_a_controllers_name(c, hostname.as_str()).await? {
            return Err(Refused::malformed(format!("{name} is a Controller's own name: choose another")));
        }
        Ok(hostname)
    }

    /// Makes the names of this Controller its own, before it is told to anybody.
    ///
    /// # Errors
    /// When there is a host of such a name.
    pub(super) async fn claim_names(&self) -> anyhow::Result<()> {
        let Settings { names, address, .. } = &self.inner.settings;
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let own: BTreeSet<String> =
            names.iter().map(String::as_str).chain([host]).map(str::to_ascii_lowercase).collect();
        let mut tx = self.inner.store.begin().await?;
        for name in &own {
            anyhow::ensure!(
                store::host(&mut tx, name).await?.is_none(),
                "there is a host {name:?}, as which this Controller is known: remove it (`ringfort admin host remove {name}`), or give the Controller another name"
            );
        }
        store::set_controller_names(&mut tx, &self.id(), &own).await?;
        Ok(tx.commit().await?)
    }
}

/// Lets the holder of `jkt` be the host called `name`, as an invitation promised.
///
/// # Errors
/// `already_exists` when the name belongs to another key, `request_malformed` for one host too many.
pub(crate) async fn admit(c: &mut Connection, name: &str, jkt: &str) -> Result<(), Refused> {
    if insert(c, name, jkt).await? || store::bind_host(c, name, jkt).await? {
        return Ok(());
    }
    Err(taken(name))
}

/// Adds a host; `false` if the name is taken.
///
/// # Errors
/// `request_malformed` for one too many. Writers take turns, so that two cannot be the last one.
async fn insert(c: &mut Connection, name: &str, jkt: &str) -> Result<bool, Refused> {
    if store::host(c, name).await?.is_some() {
        return Ok(false);
    }
    if store::count_hosts(c).await? >= HOSTS_MAX {
        return Err(Refused::malformed(format!("expected at most {HOSTS_MAX} hosts: remove some first")));
    }
    Ok(store::insert_host(c, &Host::new(name.to_owned(), jkt.to_owned())).await?)
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
/// Addresses in the pools of a Gateway's own site lead into its tunnels, and not to it.
pub(crate) async fn hints(
    c: &mut Connection,
    gateways: &[Gateway],
    sites: &BTreeMap<String, Site>,
    now: UnixSeconds,
) -> Result<BTreeMap<String, Vec<String>>, Refused> {
    let since = UnixSeconds(now.0.saturating_sub(HINT_SECONDS));
    let pools = |name: &str| -> Vec<IpNet> {
        let gateway = gateways.iter().find(|gateway| gateway.name == name);
        let site = gateway.and_then(|gateway| sites.get(&gateway.site));
        site.into_iter().flat_map(|site| &site.pools).filter_map(|pool| pool.parse().ok()).collect()
    };
    let hosts = store::hosts_of_gateways(c, since).await?.into_iter();
    let hint = |host: Host| {
        let addresses = candidates(&host.interfaces, host.port, &pools(&host.name));
        (host.name, addresses)
    };
    Ok(hosts.map(hint).collect())
}

/// The addresses at which somebody else may find a host, in the order in which it named them.
fn candidates(interfaces: &[api::HostInterface], port: u16, pools: &[IpNet]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let is_inside = |address: IpAddr| pools.iter().any(|pool| pool.contains(&address.to_canonical()));
    let addresses = interfaces.iter().flat_map(|interface| &interface.addresses).copied();
    let addresses = addresses.filter(|address| is_elsewhere(*address) && !is_inside(*address) && seen.insert(*address));
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
        assert_eq!(candidates(&all, 443, &[]), ["192.0.2.7:443", "[2001:db8::7]:443"]);
        // What leads into the tunnels of its own site leads nowhere from outside.
        let pools = ["192.0.2.1/28", "fd00::1/64"].map(|pool| pool.parse().unwrap());
        let inside = interface(&["192.0.2.7", "fd00::7", "::ffff:192.0.2.8", "192.0.2.16", "2001:db8::7"]);
        assert_eq!(candidates(&[inside], 443, &pools), ["192.0.2.16:443", "[2001:db8::7]:443"]);
        let many: Vec<String> = (0..20).map(|n| format!("192.0.2.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(candidates(&[interface(&many)], 1, &[]).len(), HINTS_MAX);
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
