//! A CA, credentials, and two ends with a network between them that can be told what to lose.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType, SignatureAlgorithm,
};
use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::{
    Association, ClientAuth, ClientConfig, Ended, Event, Front, Randomness, Received, Screened, ServerConfig, Settings,
    Trusted,
};
use ringfort_identity::{Credentials, Role, Side, Trust};
use ringfort_types::BootInstant;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

pub(crate) const START: BootInstant = BootInstant::from_nanos(1_000_000_000_000);
/// 2027-01-15, within what every certificate here is valid for.
pub(crate) const UNIX: Duration = Duration::from_secs(1_800_000_000);
pub(crate) const CLIENT: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ClientAuth;
pub(crate) const SERVER: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ServerAuth;

static ROOTS: AtomicU32 = AtomicU32::new(0);

/// Whoever issues certificates: a root, or an intermediate with what stands between it and its root.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    above: Vec<CertificateDer<'static>>,
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2028, 1, 1);
    params
}

fn ca_params() -> CertificateParams {
    let mut params = params();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

impl Ca {
    pub(crate) fn root() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params();
        // Authorities have names of their own; one that takes another's fails by its signatures.
        let number = ROOTS.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("root {number}"));
        let certificate = params.self_signed(&key).unwrap();
        Self { root: certificate.der().clone(), issuer: Issuer::new(params, key), above: Vec::new() }
    }

    /// Believes whoever stands under this root, if need be by the intermediates behind these leaves.
    pub(crate) fn trust(&self, known: &[&Credentials]) -> Trust {
        let above = known.iter().flat_map(|credentials| credentials.chain()[1..].to_vec());
        Trust::new(&self.root, above).unwrap()
    }

    /// An intermediate: its certificate is sent, which counts for nothing, and known beforehand, where it is.
    pub(crate) fn intermediate(&self) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params();
        params.distinguished_name.push(rcgen::DnType::CommonName, "intermediate");
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { root: self.root.clone(), issuer: Issuer::new(params, key), above: vec![certificate] }
    }

    pub(crate) fn issue(
        &self,
        key: &KeyPair,
        pkcs8: Vec<u8>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Credentials {
        let mut params = params();
        change(&mut params);
        let leaf = params.signed_by(key, &self.issuer).unwrap().der().clone();
        let chain = std::iter::once(leaf).chain(self.above.iter().cloned()).collect();
        Credentials::new(chain, PrivatePkcs8KeyDer::from(pkcs8)).unwrap()
    }

    pub(crate) fn leaf(&self, uri: &str, usage: ExtendedKeyUsagePurpose) -> Credentials {
        self.leaf_with(&rcgen::PKCS_ECDSA_P256_SHA256, uri, usage)
    }

    pub(crate) fn leaf_with(
        &self,
        algorithm: &'static SignatureAlgorithm,
        uri: &str,
        usage: ExtendedKeyUsagePurpose,
    ) -> Credentials {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let pkcs8 = key.serialize_der();
        self.issue(&key, pkcs8, |params| name(params, uri, usage))
    }

    pub(crate) fn gateway(&self) -> Credentials {
        self.leaf("ringfort://example/gateway/g1", SERVER)
    }

    pub(crate) fn device(&self) -> Credentials {
        self.leaf("ringfort://example/device/alice", CLIENT)
    }
}

pub(crate) fn name(params: &mut CertificateParams, uri: &str, usage: ExtendedKeyUsagePurpose) {
    params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    params.extended_key_usages = vec![usage];
}

/// What two ends start with.
#[derive(Clone)]
pub(crate) struct Ends {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server_cid: Option<ConnectionId>,
    pub(crate) client_cid: Option<ConnectionId>,
    pub(crate) seed: u8,
}

impl Ends {
    /// A Gateway and a device of one CA.
    pub(crate) fn usual() -> Self {
        let ca = Ca::root();
        Self::of(&ca, &ca.gateway(), &ca.device())
    }

    pub(crate) fn of(ca: &Ca, gateway: &Credentials, device: &Credentials) -> Self {
        Self::with(ca, gateway, device, Settings::default(), Settings::default())
    }

    pub(crate) fn with(ca: &Ca, gateway: &Credentials, device: &Credentials, ours: Settings, theirs: Settings) -> Self {
        let trust = ca.trust(&[gateway, device]);
        let clients = ClientAuth::Required(Arc::new(Trusted::new(trust.clone(), Side::Client, Role::Device)));
        let gateways = Arc::new(Trusted::new(trust, Side::Server, Role::Gateway));
        Self {
            server: Arc::new(ServerConfig::with_settings(gateway, clients, ours).unwrap()),
            client: Arc::new(ClientConfig::with_settings(Some(device), gateways, theirs).unwrap()),
            server_cid: ConnectionId::new(&[0xc1; 8]),
            client_cid: Some(ConnectionId::NONE),
            seed: 1,
        }
    }
}

/// The server's end: what screens strangers, and the association that one of them got.
pub(crate) struct Server {
    pub(crate) front: Front,
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) association: Option<Association>,
    cid: Option<ConnectionId>,
    randomness: Randomness,
    /// Answers of the front, to be sent.
    replies: Vec<Box<[u8]>>,
    /// The random of the hello that began the association.
    begun_by: [u8; 32],
}

pub(crate) fn client_address() -> SocketAddr {
    "192.0.2.7:50000".parse().unwrap()
}

impl Server {
    pub(crate) fn new(ends: &Ends) -> Self {
        Self {
            front: Front::new(&[ends.seed; 32]),
            config: Arc::clone(&ends.server),
            association: None,
            cid: ends.server_cid,
            randomness: Randomness::new(&[ends.seed ^ 0x55; 32]),
            replies: Vec::new(),
            begun_by: [0; 32],
        }
    }

    /// As a worker does it: hellos in the clear are screened, everything else is the association's.
    pub(crate) fn handle(&mut self, datagram: &mut [u8], now: BootInstant, mut deliver: impl FnMut(Received<'_>)) {
        let is_clear = datagram.first().is_some_and(|first| *first == 22);
        if is_clear {
            let mut reply = vec![0; datagram.len()];
            match self.front.screen(&self.config, datagram, client_address(), now, &mut reply) {
                Screened::Opening(opening) => {
                    let is_over = self.association.as_ref().is_none_or(|association| {
                        association.poll_timeout().is_none() && association.version().is_none()
                    });
                    if is_over || self.begun_by != *opening.random() {
                        self.begun_by = *opening.random();
                        let random = self.randomness.draw();
                        self.association =
                            Some(Association::server(&self.config, &opening, self.cid, random, now, unix(now)));
                    }
                }
                Screened::Reply { bytes, .. } => {
                    reply.truncate(bytes);
                    self.replies.push(reply.into());
                    return;
                }
                Screened::Dropped(_) => {}
            }
        }
        if let Some(association) = &mut self.association {
            association.handle_datagram(datagram, now, &mut deliver);
        }
    }

    pub(crate) fn transmits(&mut self) -> Vec<Box<[u8]>> {
        let mut all = std::mem::take(&mut self.replies);
        if let Some(association) = &mut self.association {
            all.extend(std::iter::from_fn(|| association.poll_transmit()));
        }
        all
    }
}

pub(crate) fn unix(now: BootInstant) -> Duration {
    UNIX + now.saturating_since(START)
}

/// Two ends and the time.
pub(crate) struct Pair {
    pub(crate) client: Association,
    pub(crate) server: Server,
    pub(crate) now: BootInstant,
    pub(crate) client_events: Vec<Event>,
    pub(crate) server_events: Vec<Event>,
    pub(crate) delivered: Vec<Vec<u8>>,
}

impl Pair {
    pub(crate) fn new(ends: &Ends) -> Self {
        let client = Association::client(&ends.client, ends.client_cid, [ends.seed ^ 0xaa; 32], START, UNIX);
        let (client_events, server_events, delivered) = (Vec::new(), Vec::new(), Vec::new());
        Self { client, server: Server::new(ends), now: START, client_events, server_events, delivered }
    }

    pub(crate) fn established(ends: &Ends) -> Self {
        let mut pair = Self::new(ends);
        pair.run();
        assert_eq!((pair.server_peer(), pair.client_peer()), (Some("alice"), Some("g1")));
        pair.server_events.clear();
        pair.client_events.clear();
        pair
    }

    pub(crate) fn server_end(&mut self) -> &mut Association {
        self.server.association.as_mut().unwrap()
    }

    pub(crate) fn reaches_server(&mut self, datagram: &mut [u8]) {
        let delivered = &mut self.delivered;
        self.server.handle(datagram, self.now, |received| keep(delivered, received));
    }

    pub(crate) fn reaches_client(&mut self, datagram: &mut [u8]) {
        let delivered = &mut self.delivered;
        self.client.handle_datagram(datagram, self.now, |received| keep(delivered, received));
    }

    pub(crate) fn client_sends(&mut self) -> Vec<Box<[u8]>> {
        std::iter::from_fn(|| self.client.poll_transmit()).collect()
    }

    pub(crate) fn take_events(&mut self) {
        self.client_events.extend(std::iter::from_fn(|| self.client.poll_event()));
        if let Some(association) = &mut self.server.association {
            self.server_events.extend(std::iter::from_fn(|| association.poll_event()));
        }
    }

    /// Carries datagrams to and fro until neither side has any, at most 100 times.
    pub(crate) fn run(&mut self) {
        for _ in 0..100 {
            let (up, down) = (self.client_sends(), self.server.transmits());
            if up.is_empty() && down.is_empty() {
                break;
            }
            up.into_iter().for_each(|mut datagram| self.reaches_server(&mut datagram));
            down.into_iter().for_each(|mut datagram| self.reaches_client(&mut datagram));
            self.take_events();
        }
    }

    /// Lets time pass in steps, with everything carried.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(50);
            self.tick();
            self.run();
        }
    }

    pub(crate) fn tick(&mut self) {
        let now = self.now;
        if self.client.poll_timeout().is_some_and(|at| at <= now) {
            self.client.handle_timeout(now);
        }
        if let Some(association) = &mut self.server.association
            && association.poll_timeout().is_some_and(|at| at <= now)
        {
            association.handle_timeout(now);
        }
        self.take_events();
    }

    pub(crate) fn client_peer(&self) -> Option<&str> {
        peer(&self.client_events)
    }

    pub(crate) fn server_peer(&self) -> Option<&str> {
        peer(&self.server_events)
    }

    /// Packets pass both ways.
    pub(crate) fn assert_alive(&mut self) {
        self.delivered.clear();
        let mut record = [0; 200];
        let length = self.client.seal(b"up", &mut record).unwrap();
        self.reaches_server(&mut record[..length]);
        let length = self.server_end().seal(b"down", &mut record).unwrap();
        self.reaches_client(&mut record[..length]);
        assert_eq!(self.delivered, [b"up".to_vec(), b"down".to_vec()]);
    }
}

fn keep(delivered: &mut Vec<Vec<u8>>, received: Received<'_>) {
    if let Received::Packet { bytes, .. } = received {
        delivered.push(bytes.to_vec());
    }
}

fn peer(events: &[Event]) -> Option<&str> {
    events.iter().find_map(|event| match event {
        Event::Established(Some(peer)) => Some(peer.id()),
        _ => None,
    })
}

pub(crate) fn ended(events: &[Event]) -> Option<&Ended> {
    match events.last() {
        Some(Event::Ended(why)) => Some(why),
        _ => None,
    }
}
