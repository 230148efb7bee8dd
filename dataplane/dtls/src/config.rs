//! What all associations of one Gateway or client share.

use std::sync::Arc;
use std::time::Duration;

use ringfort_identity::{ConfigError, Credentials, Role, Side, Trust};
use rustls::sign::SigningKey;
use rustls_pki_types::CertificateDer;

use crate::crypto::Group;
use crate::policy::{PeerPolicy, Trusted};
use crate::record::Suite;

/// The protocol inside, as both sides name it (RFC 7301): the same for everybody, so that it tells an observer nothing.
pub const PROTOCOL: &[u8] = b"ringfort-tunnel/1";

/// Smallest limit of handshake datagrams: a first ClientHello is whole in its datagram, and no shorter than the answer to it.
const DATAGRAM_BYTES_MIN: usize = 200;

/// A version of DTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// RFC 6347, with what RFC 9325 leaves of it.
    Dtls12,
    /// RFC 9147.
    Dtls13,
}

impl std::fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dtls12 => "DTLS 1.2",
            Self::Dtls13 => "DTLS 1.3",
        })
    }
}

/// How a server makes sure that a peer is where it says, before it keeps anything of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressValidation {
    /// By a cookie that comes back (RFC 9147 §5.1, RFC 6347 §4.2.1): for every socket that the world can reach.
    Cookie,
    /// Not at all: where something else has done so, as a Relay's channel has, and in tests.
    None,
}

/// What may be chosen. [`Settings::default`] has the product's values.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Suites, the best first. All three: nobody is slower for there being another.
    pub suites: Vec<Suite>,
    /// Groups, the best first. All four; DTLS 1.2 leaves the hybrid one out.
    pub groups: Vec<Group>,
    /// The protocol inside. A peer that names protocols must name this one; one that names none passes. `None` asks and answers
    /// nothing.
    pub protocol: Option<Vec<u8>>,
    /// Longest datagram of a handshake: 1,200 bytes cross every path with the IPv6 minimum MTU of 1,280.
    pub handshake_datagram_bytes_max: usize,
    /// After this time a flight is repeated for the first time. A tunnel is set up by a waiting person, and one round trip is
    /// rarely longer than 250 ms; RFC 9147 §5.8.2 leaves it to the deployment and advises 1 s where nothing is known.
    pub repeat_after: Duration,
    /// A handshake that takes longer is given up.
    pub handshake_time_max: Duration,
    /// How a server makes sure of its peer's address.
    pub address_validation: AddressValidation,
    /// The oldest version that a server speaks. With DTLS 1.2 it is open to clients by others, most of which know nothing
    /// newer; who offers 1.3 gets that. Clients of ours speak 1.3 whatever stands here.
    pub min_version: ProtocolVersion,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            suites: Suite::ALL.to_vec(),
            groups: Group::ALL.to_vec(),
            protocol: Some(PROTOCOL.to_vec()),
            handshake_datagram_bytes_max: 1_200,
            repeat_after: Duration::from_millis(250),
            handshake_time_max: Duration::from_secs(10),
            address_validation: AddressValidation::Cookie,
            min_version: ProtocolVersion::Dtls12,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |what: &str| Err(ConfigError::Parameters(what.into()));
        if self.suites.is_empty() || self.groups.is_empty() {
            return refuse("expected at least one cipher suite and one group");
        }
        if self.handshake_datagram_bytes_max < DATAGRAM_BYTES_MIN {
            return refuse("expected handshake datagrams of at least 200 bytes");
        }
        if self.protocol.as_ref().is_some_and(|protocol| protocol.is_empty() || protocol.len() > 255) {
            return refuse("expected a protocol name of 1 to 255 bytes");
        }
        Ok(())
    }
}

/// Whether clients must show a certificate.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// They must, and it is judged. What the product asks for.
    Required(Arc<dyn PeerPolicy>),
    /// They may, and it is judged; who shows none has no name.
    Requested(Arc<dyn PeerPolicy>),
    /// They are not asked.
    None,
}

impl ClientAuth {
    pub(crate) fn policy(&self) -> Option<&Arc<dyn PeerPolicy>> {
        match self {
            Self::Required(policy) | Self::Requested(policy) => Some(policy),
            Self::None => None,
        }
    }
}

/// Our certificate chain and the key that signs for it.
#[derive(Clone, Debug)]
pub(crate) struct OwnCertificate {
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    pub(crate) key: Arc<dyn SigningKey>,
}

impl OwnCertificate {
    fn of(credentials: &Credentials) -> Self {
        Self { chain: credentials.chain().into(), key: Arc::clone(credentials.signing_key()) }
    }
}

/// What every association of one Gateway shares.
#[derive(Debug)]
pub struct ServerConfig {
    pub(crate) own: OwnCertificate,
    pub(crate) clients: ClientAuth,
    /// Names of the authorities, made once.
    pub(crate) authorities: Vec<Vec<u8>>,
    pub(crate) settings: Settings,
}

impl ServerConfig {
    /// A server with `credentials` whose clients must hold a device certificate under `clients`.
    ///
    /// # Errors
    /// None today; the settings are the default ones.
    pub fn new(credentials: &Credentials, clients: Trust) -> Result<Self, ConfigError> {
        let clients = ClientAuth::Required(Arc::new(Trusted::new(clients, Side::Client, Role::Device)));
        Self::with_settings(credentials, clients, Settings::default())
    }

    /// A server whose clients are asked as `clients` says, with `settings`.
    ///
    /// # Errors
    /// [`ConfigError::Parameters`] says which setting cannot be.
    pub fn with_settings(
        credentials: &Credentials,
        clients: ClientAuth,
        settings: Settings,
    ) -> Result<Self, ConfigError> {
        settings.check()?;
        let authorities = clients.policy().map(|policy| policy.authorities()).unwrap_or_default();
        Ok(Self { own: OwnCertificate::of(credentials), clients, authorities, settings })
    }

    /// Its settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// What every association of one client shares.
#[derive(Debug)]
pub struct ClientConfig {
    /// What is shown to servers that ask; a client without is sent away by ours.
    pub(crate) own: Option<OwnCertificate>,
    pub(crate) servers: Arc<dyn PeerPolicy>,
    pub(crate) settings: Settings,
}

impl ClientConfig {
    /// A client with `credentials` that talks to holders of a Gateway certificate under `gateways`.
    ///
    /// # Errors
    /// None today; the settings are the default ones.
    pub fn new(credentials: &Credentials, gateways: Trust) -> Result<Self, ConfigError> {
        let gateways = Arc::new(Trusted::new(gateways, Side::Server, Role::Gateway));
        Self::with_settings(Some(credentials), gateways, Settings::default())
    }

    /// A client that judges servers by `servers`, with `settings`.
    ///
    /// # Errors
    /// [`ConfigError::Parameters`] says which setting cannot be.
    pub fn with_settings(
        credentials: Option<&Credentials>,
        servers: Arc<dyn PeerPolicy>,
        settings: Settings,
    ) -> Result<Self, ConfigError> {
        settings.check()?;
        Ok(Self { own: credentials.map(OwnCertificate::of), servers, settings })
    }

    /// Its settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }
}
