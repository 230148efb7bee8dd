//! What each kind of token says.

use std::net::{Ipv4Addr, Ipv6Addr};

use ringfort_identity::KeyThumbprint;
use ringfort_types::UnixSeconds;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::deny::Entry;

/// The claims that every kind has (RFC 7519 §4.1), and those by which a holder and a deny list are judged.
#[derive(Clone, Copy, Debug)]
pub struct Registered<'a> {
    /// `iss`: the organisation's id, so that several Controllers are one issuer (C14).
    pub issuer: &'a str,
    /// `sub`: whom the token is about.
    pub subject: &'a str,
    /// `aud`: who may believe it, from [`audience`].
    pub audiences: &'a [String],
    /// `jti`: its own id.
    pub id: &'a str,
    /// `iat`.
    pub issued_at: UnixSeconds,
    /// `nbf`.
    pub not_before: UnixSeconds,
    /// `exp`.
    pub expires_at: UnixSeconds,
    /// `cnf.jkt`: whose key must stand behind whoever shows it; `None` for kinds that nobody shows.
    pub holder: Option<KeyThumbprint>,
    /// The user it belongs to and the generation of that user's tokens; `None` for kinds that belong to none.
    pub generation: Option<(&'a str, u64)>,
}

/// A kind of token.
pub trait Token: Serialize + DeserializeOwned {
    /// `typ` in its header (RFC 8725 §3.11).
    const TYPE: &'static str;
    /// Longest text of one, in bytes. What is longer is refused before it is looked into.
    const BYTES_MAX: usize;

    /// The claims that every kind has.
    fn registered(&self) -> Registered<'_>;
}

/// `cnf`: the key whose holder may show the token (RFC 7800; the member is that of RFC 9449 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// Thumbprint of the public key.
    #[serde(with = "thumbprint")]
    pub jkt: KeyThumbprint,
}

/// Defines a kind: the registered claims, then its own.
macro_rules! token {
    (
        $(#[$meta:meta])*
        $name:ident, $type:literal, $bytes_max:expr, holder: |$this:ident| $holder:expr, generation: $generation:expr,
        { $( $(#[$field_meta:meta])* $field:ident: $field_type:ty, )* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Issuer: the organisation's id.
            pub iss: String,
            /// Whom it is about.
            pub sub: String,
            /// Who may believe it.
            pub aud: Vec<String>,
            /// Its own id.
            pub jti: String,
            /// When it was issued.
            #[serde(with = "seconds")]
            pub iat: UnixSeconds,
            /// From when on it counts.
            #[serde(with = "seconds")]
            pub nbf: UnixSeconds,
            /// Until when it counts.
            #[serde(with = "seconds")]
            pub exp: UnixSeconds,
            $( $(#[$field_meta])* pub $field: $field_type, )*
        }

        impl Token for $name {
            const TYPE: &'static str = $type;
            const BYTES_MAX: usize = $bytes_max;

            fn registered(&self) -> Registered<'_> {
                let $this = self;
                Registered {
                    issuer: &$this.iss,
                    subject: &$this.sub,
                    audiences: &$this.aud,
                    id: &$this.jti,
                    issued_at: $this.iat,
                    not_before: $this.nbf,
                    expires_at: $this.exp,
                    holder: $holder,
                    generation: $generation,
                }
            }
        }
    };
}

token! {
    /// The right to join once, together with the cookie of the same invitation (R3, I2). `sub` is the id that the joiner
    /// will have: a host's is its name.
    EnrolTicket, "rf-enrol+jwt", 4 << 10, holder: |this| None, generation: None,
    {
        /// What will join.
        kind: InviteeKind,
        /// The site of a Gateway; empty for a device.
        site: String,
        /// The user of a device; empty for a Gateway.
        user: String,
    }
}

token! {
    /// Who a session is (A5): issued at login to the session's distinguished name, which is `sub`.
    ClaimsToken, "rf-claims+jwt", 16 << 10,
    holder: |this| Some(this.cnf.jkt), generation: Some((&this.user, this.generation)),
    {
        /// The client's key.
        cnf: Confirmation,
        /// The user's id.
        user: String,
        /// Generation of the user's tokens; those of earlier generations than the deny list's are dead.
        #[serde(rename = "gen")]
        generation: u64,
        /// The user's name, for people.
        name: String,
        /// Names of the groups the user is in.
        groups: Vec<String>,
        /// When the user last proved who they are (OpenID Connect Core §2).
        #[serde(with = "seconds")]
        auth_time: UnixSeconds,
    }
}

token! {
    /// What a session may do at one site (A7, C13). `sub` is the session's distinguished name.
    EntitlementToken, "rf-entitlement+jwt", 256 << 10,
    holder: |this| Some(this.cnf.jkt), generation: Some((&this.user, this.generation)),
    {
        /// The client's key.
        cnf: Confirmation,
        /// The user's id.
        user: String,
        /// As in the claims token.
        #[serde(rename = "gen")]
        generation: u64,
        /// Grows with each token for this session and site; a Gateway refuses a lower one than it saw.
        seq: u64,
        /// The session's addresses at the site.
        inner: InnerAddresses,
        /// What it may do.
        grants: Vec<Grant>,
    }
}

token! {
    /// Where a session's sites are (C1, C8, C12): read by the client only. `sub` is the session's distinguished name.
    ConnectToken, "rf-connect+jwt", 256 << 10,
    holder: |this| Some(this.cnf.jkt), generation: Some((&this.user, this.generation)),
    {
        /// The client's key.
        cnf: Confirmation,
        /// The user's id.
        user: String,
        /// As in the claims token.
        #[serde(rename = "gen")]
        generation: u64,
        /// The sites where the session has entitlements, and no other.
        sites: Vec<ConnectSite>,
        /// FQDNs of the Relays through which their Gateways may be reached. Left out where there is none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        relays: Vec<String>,
    }
}

token! {
    /// What admits a Gateway to one Relay (R11, R13). `sub` is a keyed hash of the Gateway's id, another one each day, so that the Relay
    /// learns neither name, place nor address (R14); there is nothing else in it by which one Gateway could be told from another.
    RelayPass, "rf-relay+jwt", 2 << 10, holder: |this| None, generation: None, {}
}

token! {
    /// What a Gateway is to do (R7). `sub` is the Gateway's id.
    GatewayConfiguration, "rf-gateway+jwt", 1 << 20, holder: |this| None, generation: None,
    {
        /// Grows with each configuration of this Gateway; a lower one is refused.
        seq: u64,
        /// Its site.
        site: String,
        /// The pools of its clients' inner addresses, with the Gateways' own address: `10.97.0.1/16`.
        pools: Vec<String>,
        /// What it may forward to for any user, whatever their tokens say (R8, R9).
        allow: Vec<Grant>,
        /// After this the Gateway admits no new session until it hears from a Controller (X14).
        #[serde(with = "seconds")]
        lease: UnixSeconds,
        /// The Relays that it is to be reached through, none or several (R10).
        relays: Vec<GatewayRelay>,
        /// Whether it is drained for maintenance: it admits no new session. Left out where it is not.
        #[serde(default, skip_serializing_if = "is_false")]
        draining: bool,
    }
}

token! {
    /// What was taken back since an earlier serial (A23). `sub` is `revocations`.
    RevocationList, "rf-revocations+jwt", 4 << 20, holder: |this| None, generation: None,
    {
        /// The database's epoch; a restored database starts a new one.
        epoch: u64,
        /// The serial number that the entries follow.
        after: u64,
        /// Entries in order.
        entries: Vec<Entry>,
        /// The number of each entry, where some are left out because they are over: nothing is left that they could be about. Left
        /// out itself where the numbers are `after + 1`, `after + 2`, ….
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        numbers: Vec<u64>,
    }
}

impl RevocationList {
    /// The entries that follow `after`, with their numbers, for whoever fills in the rest.
    #[must_use]
    pub fn columns(after: u64, entries: &[(u64, Entry)]) -> (Vec<Entry>, Vec<u64>) {
        let has_gaps = (after + 1..).zip(entries).any(|(expected, (n, _))| *n != expected);
        let numbers = if has_gaps { entries.iter().map(|(n, _)| *n).collect() } else { Vec::new() };
        (entries.iter().map(|(_, entry)| entry.clone()).collect(), numbers)
    }

    /// The entries with their numbers; `None` if these are not one for each, growing, and above `after`.
    #[must_use]
    pub fn numbered(&self) -> Option<Vec<(u64, &Entry)>> {
        let last = self.after.checked_add(self.entries.len() as u64)?;
        if self.numbers.is_empty() {
            return Some((self.after..last).map(|before| before + 1).zip(&self.entries).collect());
        }
        let before = std::iter::once(&self.after).chain(&self.numbers);
        let is_in_order = before.zip(&self.numbers).all(|(before, n)| before < n);
        let is_whole = self.numbers.len() == self.entries.len();
        (is_in_order && is_whole).then(|| self.numbers.iter().copied().zip(&self.entries).collect())
    }

    /// Where whoever takes the list up stands then.
    #[must_use]
    pub fn upto(&self) -> u64 {
        self.numbers.last().copied().unwrap_or(self.after.saturating_add(self.entries.len() as u64))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
const fn is_false(draining: &bool) -> bool {
    !*draining
}

/// What joins by an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InviteeKind {
    /// A Gateway at a site.
    Gateway,
    /// A user's machine.
    Device,
    /// Another Controller of the same database.
    Controller,
    /// A host that registers itself.
    Host,
    /// A program's machine.
    Service,
    /// A Relay.
    Relay,
}

/// Addresses of a session inside the tunnel, the same at every Gateway of the site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InnerAddresses {
    /// IPv4, if the site has a pool of it.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6, likewise.
    pub ipv6: Option<Ipv6Addr>,
}

/// One thing that is allowed: services of a Resource, as `control/policy` reads them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// What people call it; denials and `why` name it.
    pub name: String,
    /// Addresses and networks at the site.
    pub to: Vec<String>,
    /// Services there, such as `tcp/80`.
    pub services: Vec<String>,
}

/// A Relay as a Gateway needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayRelay {
    /// Its FQDN, by which its certificate is known (C9).
    pub fqdn: String,
    /// What admits the Gateway to it (rf-relay+jwt, R11). Only the Relay can judge it.
    pub pass: String,
}

/// A site as the client needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectSite {
    /// Its id.
    pub site: String,
    /// Its name, for people.
    pub name: String,
    /// Gateways that serve it, those that are alive (R18).
    pub gateways: Vec<ConnectGateway>,
}

impl ConnectSite {
    /// The digests of a Gateway's certificates, whichever of its addresses is used; none of one that has none.
    #[must_use]
    pub fn digests_of(&self, gateway: &str) -> &[String] {
        let first = self.gateways.iter().find(|one| one.id == gateway);
        first.map_or(&[], |one| one.certificate_digests.as_slice())
    }
}

/// A Gateway as the client needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectGateway {
    /// Its id, as in its certificate.
    pub id: String,
    /// Where it listens, UDP and TCP: `203.0.113.10:443`.
    pub address: String,
    /// SHA-256 digests in hexadecimal of the certificates it may show: today's, and the next one (C12). They stand beside the first
    /// address of each Gateway only ([`ConnectSite::digests_of`]).
    pub certificate_digests: Vec<String>,
    /// Whether the host reported the address itself and nobody configured it (W8): it is tried last, and it is no reason to leave a
    /// granted network out of a tunnel.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reported: bool,
}

/// The forms of `aud`.
pub mod audience {
    /// The Controllers of an organisation.
    #[must_use]
    pub fn controller(organisation: &str) -> String {
        format!("controller:{organisation}")
    }

    /// One Controller's join listener, by the hash of its key.
    #[must_use]
    pub fn join(key_hash: &str) -> String {
        format!("join:{key_hash}")
    }

    /// The Gateways of a site.
    #[must_use]
    pub fn site(site: &str) -> String {
        format!("site:{site}")
    }

    /// One Gateway.
    #[must_use]
    pub fn gateway(gateway: &str) -> String {
        format!("gateway:{gateway}")
    }

    /// One Relay, by its FQDN.
    #[must_use]
    pub fn relay(fqdn: &str) -> String {
        format!("relay:{fqdn}")
    }

    /// All Gateways of an organisation.
    #[must_use]
    pub fn gateways(organisation: &str) -> String {
        format!("gateways:{organisation}")
    }

    /// One session's client, by its distinguished name.
    #[must_use]
    pub fn session(dn: &str) -> String {
        format!("session:{dn}")
    }
}

/// [`UnixSeconds`] as a number (RFC 7519 NumericDate; whole seconds only).
pub(crate) mod seconds {
    use ringfort_types::UnixSeconds;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
    pub(crate) fn serialize<S: Serializer>(at: &UnixSeconds, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(at.0)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnixSeconds, D::Error> {
        u64::deserialize(deserializer).map(UnixSeconds)
    }
}

/// [`KeyThumbprint`] as its text.
pub(crate) mod thumbprint {
    use ringfort_identity::KeyThumbprint;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(key: &KeyThumbprint, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(key)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<KeyThumbprint, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
