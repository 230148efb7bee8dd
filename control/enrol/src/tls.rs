//! TLS 1.3 as every connection of ours has it, and the one way to the identity of a peer on it.
//!
//! Names in certificates are role URIs, not hosts: whom we talk to is the Controller of the organisation, or a certain
//! Gateway, wherever it is. So the verifiers here ask [`Trust`], send no server name, and accept TLS 1.3 only.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::{constant_time, digest};
use ringfort_identity::{ConfigError, Credentials, PeerIdentity, Role, Side, Trust, VerifyError};
use ringfort_types::UnixSeconds;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::invitation::{HASH_BYTES, key_hash};

/// ALPN of the API over HTTP/1.1 (RFC 7301).
pub const ALPN_HTTP1: &[u8] = b"http/1.1";
/// ALPN of gRPC and of the API over HTTP/2.
pub const ALPN_HTTP2: &[u8] = b"h2";
/// ALPN of joining.
pub const ALPN_JOIN: &[u8] = b"ringfort-join/1";
/// ALPN of the session channel.
pub const ALPN_SESSION: &[u8] = b"ringfort-session/1";

/// How long connecting may take, and the TLS handshake on either side. Longer, and whoever waits should hear of it.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// A certificate is renewed when no more than this part of its life is left.
const RENEW_AT_LEFT: u64 = 3;

/// Our own certificate on a connection. It can be replaced while connections come and go.
#[derive(Clone)]
pub struct OwnCertificate(Arc<RwLock<Arc<CertifiedKey>>>);

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnCertificate")
    }
}

impl OwnCertificate {
    /// Shows `credentials`.
    ///
    /// # Errors
    /// [`ConfigError::PrivateKey`] when TLS cannot use the key.
    pub fn new(credentials: &Credentials) -> Result<Self, ConfigError> {
        Ok(Self(Arc::new(RwLock::new(Self::certified(credentials)?))))
    }

    /// Shows `credentials` from the next connection on.
    ///
    /// # Errors
    /// As [`OwnCertificate::new`]; the old ones stay then.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), ConfigError> {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Self::certified(credentials)?;
        Ok(())
    }

    fn certified(credentials: &Credentials) -> Result<Arc<CertifiedKey>, ConfigError> {
        let key = PrivateKeyDer::Pkcs8(credentials.private_key().clone_key());
        let key = provider::sign::any_supported_type(&key).map_err(|_| ConfigError::PrivateKey)?;
        Ok(Arc::new(CertifiedKey::new(credentials.chain().to_vec(), key)))
    }

    fn get(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Whom a listener believes. It can be replaced while connections come and go.
#[derive(Clone, Debug)]
pub struct LiveTrust(Arc<RwLock<Trust>>);

impl LiveTrust {
    /// Believes peers under `trust`.
    #[must_use]
    pub fn new(trust: Trust) -> Self {
        Self(Arc::new(RwLock::new(trust)))
    }

    /// Believes peers under `trust` and no others from the next handshake on.
    pub fn replace(&self, trust: Trust) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = trust;
    }

    /// The trust of this moment.
    #[must_use]
    pub fn get(&self) -> Trust {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether a server's clients must show a certificate. One that is shown is verified in either case (W9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// The handshake fails without.
    Required,
    /// The doors behind decide.
    Optional,
}

/// A server that shows `own` and takes clients under `trust`, of any role: [`verify_peer`] asks for the role.
///
/// # Errors
/// What rustls refused.
pub fn server(
    own: &OwnCertificate,
    trust: &LiveTrust,
    clients: ClientCertificates,
    alpn: &[&[u8]],
) -> Result<ServerConfig, Error> {
    let verifier = Clients { trust: trust.clone(), clients, hints: Vec::new() };
    let mut config = ServerConfig::builder_with_provider(provider_of_ours())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(own.clone()));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // No tickets: each would be state that outlives a revocation.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Whom a client expects.
#[derive(Clone, Debug)]
pub struct Expected {
    /// In this role.
    pub role: Role,
    /// With this id; `None` for any of the role.
    pub id: Option<Box<str>>,
    /// With a certificate of one of these SHA-256 digests (C12); empty for any.
    pub digests: Vec<[u8; 32]>,
}

impl Expected {
    /// Any Controller of the organisation.
    #[must_use]
    pub const fn controller() -> Self {
        Self { role: Role::Controller, id: None, digests: Vec::new() }
    }
}

/// A client that shows `own`, if it has a certificate, to a server under `trust` that is the `expected` one.
///
/// # Errors
/// What rustls refused.
pub fn client(
    own: Option<&OwnCertificate>,
    trust: &Trust,
    expected: Expected,
    alpn: &[u8],
) -> Result<ClientConfig, Error> {
    client_with(own, Arc::new(Server { trust: trust.clone(), expected }), alpn)
}

/// A client that has nothing but the SHA-256 of the root certificate (A1). The server must send its chain with the root.
///
/// Returned with it is what was seen: the root's digest, for telling a person what to compare, and the chain.
///
/// # Errors
/// What rustls refused.
pub fn first_contact(fingerprint: Option<[u8; 32]>, alpn: &[u8]) -> Result<(ClientConfig, Arc<FirstContact>), Error> {
    let contact = Arc::new(FirstContact { fingerprint, root_seen: Mutex::default() });
    let verifier: Arc<FirstContact> = Arc::clone(&contact);
    Ok((client_with(None, verifier, alpn)?, contact))
}

/// A client that has nothing but the hash of the server's key, from an invitation (I3).
///
/// # Errors
/// What rustls refused.
pub fn invited(hash: [u8; HASH_BYTES]) -> Result<ClientConfig, Error> {
    client_with(None, Arc::new(Invited { hash }), ALPN_JOIN)
}

fn client_with(
    own: Option<&OwnCertificate>,
    verifier: Arc<dyn ServerCertVerifier>,
    alpn: &[u8],
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider_of_ours())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(own.clone())),
        None => builder.with_no_client_auth(),
    };
    config.enable_sni = false;
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

/// Connects to `address` (`host:port`) and shakes hands, within [`HANDSHAKE_TIME_MAX`] each.
///
/// # Errors
/// What the system or TLS said.
pub async fn connect(address: &str, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let late =
        |_| io::Error::new(io::ErrorKind::TimedOut, format!("{address} did not answer in {HANDSHAKE_TIME_MAX:?}"));
    let tcp = tokio::time::timeout(HANDSHAKE_TIME_MAX, TcpStream::connect(address)).await.map_err(late)??;
    tcp.set_nodelay(true)?;
    // Names are role URIs; this one is never sent.
    let name = ServerName::try_from("ringfort.invalid").map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(config));
    tokio::time::timeout(HANDSHAKE_TIME_MAX, connector.connect(name, tcp)).await.map_err(late)?.map_err(explained)
}

/// What a verifier of ours said about a peer's certificate. TLS hands it on in a wrapping that shows types and no sentences.
#[derive(Clone, Debug)]
pub(crate) struct CertificateRefused(Arc<dyn std::error::Error + Send + Sync>);

impl CertificateRefused {
    /// Whether a verifier said this.
    pub(crate) fn is<E: std::error::Error + 'static>(&self) -> bool {
        self.0.is::<E>()
    }
}

impl fmt::Display for CertificateRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for CertificateRefused {}

/// An error of a handshake with what our verifier said, if it was that.
#[must_use]
pub fn explained(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(said)))) => {
            io::Error::new(io::ErrorKind::InvalidData, CertificateRefused(Arc::clone(said)))
        }
        _ => error,
    }
}

/// Who the peer of a finished handshake is, in the role that is expected at this door: from its **leaf** and from nothing
/// else. The one entry for every listener and every connection.
///
/// # Errors
/// [`PeerRefused`].
pub fn verify_peer(
    certificates: Option<&[CertificateDer<'_>]>,
    trust: &Trust,
    side: Side,
    role: Role,
    now: UnixSeconds,
) -> Result<PeerIdentity, PeerRefused> {
    let leaf = certificates.and_then(<[_]>::first).ok_or(PeerRefused::NoCertificate)?;
    Ok(trust.verify(leaf, side, role, now)?)
}

/// Why a peer is nobody here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerRefused {
    /// It showed none.
    #[error("expected a certificate of this organisation; join or log in first")]
    NoCertificate,
    /// It did not pass.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl PeerRefused {
    /// A stable name: in errors, audit events, and of the counter.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoCertificate => "certificate_required",
            Self::Verify(VerifyError::Role { .. }) => "wrong_role",
            Self::Verify(_) => "certificate_refused",
        }
    }
}

/// The SubjectPublicKeyInfo of a certificate, DER; `None` if it cannot be read.
#[must_use]
pub fn public_key_of(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed.public_key().raw.to_vec())
}

/// From when until when a certificate counts; `None` if it cannot be read.
#[must_use]
pub fn validity_of(certificate: &CertificateDer<'_>) -> Option<(UnixSeconds, UnixSeconds)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let seconds = |at: i64| u64::try_from(at).ok().map(UnixSeconds);
    let validity = parsed.validity();
    Some((seconds(validity.not_before.timestamp())?, seconds(validity.not_after.timestamp())?))
}

/// Whether a certificate that counts from and until these times is to be renewed: when a third of its life is left.
#[must_use]
pub const fn is_renewal_due((from, until): (UnixSeconds, UnixSeconds), now: UnixSeconds) -> bool {
    until.0.saturating_sub(now.0) <= until.0.saturating_sub(from.0) / RENEW_AT_LEFT
}

/// SHA-256 of a certificate: the fingerprint that people compare.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    bytes
}

fn provider_of_ours() -> Arc<CryptoProvider> {
    Arc::new(provider::default_provider())
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(error))))
}

fn seconds(now: UnixTime) -> UnixSeconds {
    UnixSeconds(now.as_secs())
}

/// The part of a verifier that is the same for all: the signature over the handshake, TLS 1.3 only.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("TLS 1.3 is expected".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = provider::default_provider().signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider::default_provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

#[derive(Debug)]
struct Clients {
    trust: LiveTrust,
    clients: ClientCertificates,
    hints: Vec<DistinguishedName>,
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn client_auth_mandatory(&self) -> bool {
        self.clients == ClientCertificates::Required
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _sent: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.trust.get().verify_any_role(leaf, Side::Client, seconds(now)).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

#[derive(Debug)]
struct Server {
    trust: Trust,
    expected: Expected,
}

/// A server that is another one than expected.
#[derive(Debug, thiserror::Error)]
enum OtherServer {
    #[error("expected {role} {expected}, found {found}")]
    Id { role: Role, expected: Box<str>, found: Box<str> },
}

impl ServerCertVerifier for Server {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _sent: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Expected { role, id, digests } = &self.expected;
        let peer = self.trust.verify(leaf, Side::Server, *role, seconds(now)).map_err(refused)?;
        if let Some(expected) = id.clone().filter(|expected| **expected != *peer.id()) {
            return Err(refused(OtherServer::Id { role: *role, expected, found: peer.id().into() }));
        }
        peer.pinned(digests).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

/// What a client saw that had nothing but a fingerprint.
#[derive(Debug)]
pub struct FirstContact {
    fingerprint: Option<[u8; 32]>,
    root_seen: Mutex<Option<[u8; 32]>>,
}

/// The fingerprint does not fit, or there is none to compare with.
#[derive(Debug, thiserror::Error)]
#[error("expected a chain that ends with the root of the given fingerprint")]
struct OtherRoot;

impl FirstContact {
    /// SHA-256 of the last certificate that the server sent: what it claims to be its root.
    #[must_use]
    pub fn root_seen(&self) -> Option<[u8; 32]> {
        *self.root_seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Root and intermediates among `sent`, the certificates behind a server's leaf; `None` unless they end with a certificate of
/// the fingerprint `expected`.
#[must_use]
pub fn split_root<'a, 'b>(
    sent: &'a [CertificateDer<'b>],
    expected: &[u8; 32],
) -> Option<(&'a CertificateDer<'b>, &'a [CertificateDer<'b>])> {
    let (root, intermediates) = sent.split_last()?;
    constant_time::verify_slices_are_equal(&fingerprint(root), expected).ok()?;
    Some((root, intermediates))
}

impl ServerCertVerifier for FirstContact {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let seen = sent.last().map(fingerprint);
        *self.root_seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        let expected = self.fingerprint.as_ref().ok_or_else(|| refused(OtherRoot))?;
        let (root, intermediates) = split_root(sent, expected).ok_or_else(|| refused(OtherRoot))?;
        // The one time that what was sent counts: nothing else is known yet.
        let intermediates = intermediates.iter().map(|sent| sent.clone().into_owned());
        let trust = Trust::new(root, intermediates).map_err(refused)?;
        trust.verify(leaf, Side::Server, Role::Controller, seconds(now)).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

#[derive(Debug)]
struct Invited {
    hash: [u8; HASH_BYTES],
}

/// The key is not the one that the invitation names.
#[derive(Debug, thiserror::Error)]
#[error("the key of the server is not the one that the invitation names")]
pub(crate) struct OtherKey;

impl ServerCertVerifier for Invited {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _sent: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = public_key_of(leaf).map(|key| key_hash(&key));
        let same = found.is_some_and(|found| constant_time::verify_slices_are_equal(&found, &self.hash).is_ok());
        if same { Ok(ServerCertVerified::assertion()) } else { Err(refused(OtherKey)) }
    }

    signatures!();
}
