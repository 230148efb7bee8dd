//! The world: an organisation with its CA and signer, devices with their tunnels, and a Gateway's machine.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ED25519, SanType,
    SerialNumber,
};
use ringfort_admission::{
    Action, Admission, Applied, ChannelId, EXPORTER_TO_CLIENT, EXPORTER_TO_GATEWAY, EXPORTER_TUNNEL, FromClient,
    Moment, Persisted, Settings, ToClient,
};
use ringfort_dtls::{Association, ClientConfig, Event as DtlsEvent, ExporterSecret, Opening, ServerConfig};
use ringfort_engine::gateway::{Command, EndReason, Event};
use ringfort_identity::{Credentials, PeerIdentity, Role, Side, Trust};
use ringfort_packet::flow::FlowKey;
use ringfort_rules::{Decision, Direction, RuleSet};
use ringfort_token::{
    ClaimsToken, Confirmation, Effect, EntitlementToken, Entry, EntryScope, GatewayConfiguration, Grant,
    InnerAddresses, KeySet, RevocationList, SigningKey, Token, audience,
};
use ringfort_types::{BootInstant, RuleEpoch, SessionId, UnixSeconds, WorkerIndex};
use rustls_pki_types::PrivatePkcs8KeyDer;

pub(crate) const ORGANISATION: &str = "example";
pub(crate) const SITE: &str = "site-1";
pub(crate) const GATEWAY: &str = "gateway-1";
pub(crate) const BOOT: BootInstant = BootInstant::from_nanos(1_000_000_000_000);
/// 2030-03-17 17:46:40 UTC.
pub(crate) const WALL: UnixSeconds = UnixSeconds(1_900_000_000);
/// Certificates of devices end 22,400 s later, at 2030-03-18 00:00 UTC.
pub(crate) const CERTIFICATE_END: UnixSeconds = UnixSeconds(1_900_022_400);
/// Tokens end before.
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) trust: Trust,
    gateway: Credentials,
}

pub(crate) static CA: LazyLock<Ca> = LazyLock::new(|| {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let trust = Trust::new(certificate.der(), []).unwrap();
    let issuer = Issuer::new(params, key);
    let (gateway, _) = leaf(&issuer, &KeyPair::generate().unwrap(), Role::Gateway, GATEWAY, "", 1);
    Ca { issuer, trust, gateway }
});

pub(crate) static SIGNER: LazyLock<SigningKey> = LazyLock::new(new_signer);
/// Another organisation's Controller, or a thief's.
pub(crate) static STRANGER: LazyLock<SigningKey> = LazyLock::new(new_signer);
pub(crate) static ALICE: LazyLock<Device> = LazyLock::new(|| Device::new("laptop", "alice", 11));
pub(crate) static BOB: LazyLock<Device> = LazyLock::new(|| Device::new("desktop", "bob", 12));

fn new_signer() -> SigningKey {
    SigningKey::from_pkcs8(&KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_der()).unwrap()
}

fn leaf(
    issuer: &Issuer<'static, KeyPair>,
    key: &KeyPair,
    role: Role,
    id: &str,
    user: &str,
    serial: u64,
) -> (Credentials, Vec<u8>) {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(format!("ringfort://{ORGANISATION}/{role}/{id}").try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.serial_number = Some(SerialNumber::from(serial));
    params.not_after = rcgen::date_time_ymd(2030, 3, 18);
    if role == Role::Device {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, ORGANISATION);
        if !user.is_empty() {
            params.distinguished_name.push(DnType::CommonName, user);
            params.distinguished_name.push(DnType::CustomDnType(vec![0, 9, 2342, 19200300, 100, 1, 1]), id);
        }
    }
    let certificate = params.signed_by(key, issuer).unwrap();
    let der = certificate.der().to_vec();
    (Credentials::new(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der())).unwrap(), der)
}

/// A device with its key, its certificate and some tunnels, each from a handshake of its own.
pub(crate) struct Device {
    pub(crate) dn: String,
    pub(crate) user: String,
    pub(crate) peer: PeerIdentity,
    pub(crate) tunnels: Vec<Tunnel>,
}

pub(crate) struct Tunnel {
    pub(crate) peer: PeerIdentity,
    pub(crate) exporter: ExporterSecret,
}

impl Tunnel {
    pub(crate) fn name(&self) -> [u8; 16] {
        self.exporter.export(EXPORTER_TUNNEL, b"")[..16].try_into().unwrap()
    }

    pub(crate) fn bind(&self, session_id: &[u8; 16]) -> FromClient {
        FromClient::Bind { tunnel: self.name(), exported: self.exporter.export(EXPORTER_TO_GATEWAY, session_id) }
    }

    pub(crate) fn answer(&self, session_id: &[u8; 16]) -> ToClient {
        ToClient::Bound { exported: self.exporter.export(EXPORTER_TO_CLIENT, session_id), tunnel: self.name() }
    }
}

impl Device {
    pub(crate) fn new(id: &str, user: &str, serial: u64) -> Self {
        Self::with_key(id, user, serial, &KeyPair::generate().unwrap(), 3)
    }

    pub(crate) fn with_key(id: &str, user: &str, serial: u64, key: &KeyPair, tunnels: usize) -> Self {
        let (credentials, _) = leaf(&CA.issuer, key, Role::Device, id, user, serial);
        let peer = CA.trust.verify(credentials.leaf(), Side::Client, Role::Device, WALL).unwrap();
        let tunnels = (0..tunnels).map(|_| handshake(&credentials)).collect();
        Self { dn: format!("UID={id},CN={user},O={ORGANISATION}"), user: user.into(), peer, tunnels }
    }

    /// A certificate in another role.
    pub(crate) fn peer_in_role(role: Role) -> PeerIdentity {
        let (credentials, _) = leaf(&CA.issuer, &KeyPair::generate().unwrap(), role, "other", "", 99);
        let side = if role == Role::Device { Side::Client } else { Side::Server };
        CA.trust.verify(credentials.leaf(), side, role, WALL).unwrap()
    }

    pub(crate) fn claims(&self) -> ClaimsToken {
        ClaimsToken {
            iss: ORGANISATION.into(),
            sub: self.dn.clone(),
            aud: vec![audience::controller(ORGANISATION), audience::site(SITE)],
            jti: format!("claims-{}", self.user),
            iat: WALL,
            nbf: WALL,
            exp: WALL + 2 * HOUR,
            cnf: Confirmation { jkt: *self.peer.key() },
            user: self.user.clone(),
            generation: 1,
            name: format!("{} of Example", self.user),
            groups: Vec::new(),
            auth_time: WALL,
        }
    }

    /// Allows the wiki.
    pub(crate) fn entitlement(&self, seq: u64) -> EntitlementToken {
        EntitlementToken {
            iss: ORGANISATION.into(),
            sub: self.dn.clone(),
            aud: vec![audience::site(SITE)],
            jti: format!("entitlement-{}-{seq}", self.user),
            iat: WALL,
            nbf: WALL,
            exp: WALL + HOUR,
            cnf: Confirmation { jkt: *self.peer.key() },
            user: self.user.clone(),
            generation: 1,
            seq,
            inner: InnerAddresses { ipv4: Some([10, 97, 0, 10].into()), ipv6: None },
            grants: vec![grant("wiki", "10.98.0.10", "tcp/80")],
        }
    }
}

pub(crate) fn handshake(credentials: &Credentials) -> Tunnel {
    let server = Arc::new(ServerConfig::new(&CA.gateway, CA.trust.clone()).unwrap());
    let client = Arc::new(ClientConfig::new(credentials, CA.trust.clone()).unwrap());
    let unix = WALL.since_epoch();
    let mut client = Association::client(&client, None, [1; 32], BOOT, unix);
    let mut hello = client.poll_transmit().unwrap();
    let opening = Opening::unvalidated(&hello).unwrap();
    let mut server = Association::server(&server, &opening, None, [2; 32], BOOT, unix);
    server.handle_datagram(&mut hello, BOOT, |_| {});
    loop {
        match server.poll_event() {
            Some(DtlsEvent::Established(peer)) => {
                return Tunnel { peer: peer.unwrap(), exporter: server.exporter().unwrap().clone() };
            }
            Some(DtlsEvent::Ended(reason)) => panic!("{reason}"),
            Some(DtlsEvent::ConnectionIdsWanted(_)) | None => {}
        }
        while let Some(mut datagram) = server.poll_transmit() {
            client.handle_datagram(&mut datagram, BOOT, |_| {});
        }
        let datagrams: Vec<_> = std::iter::from_fn(|| client.poll_transmit()).collect();
        assert!(!datagrams.is_empty(), "the client has nothing to say");
        datagrams.into_iter().for_each(|mut datagram| server.handle_datagram(&mut datagram, BOOT, |_| {}));
    }
}

pub(crate) fn grant(name: &str, to: &str, service: &str) -> Grant {
    Grant { name: name.into(), to: vec![to.into()], services: vec![service.into()] }
}

pub(crate) fn sign<T: Token>(token: &T) -> String {
    SIGNER.sign(token).unwrap().as_str().into()
}

pub(crate) fn configuration(seq: u64, allow: Vec<Grant>) -> GatewayConfiguration {
    GatewayConfiguration {
        iss: ORGANISATION.into(),
        sub: GATEWAY.into(),
        aud: vec![audience::gateway(GATEWAY)],
        jti: format!("configuration-{seq}"),
        iat: WALL,
        nbf: WALL,
        exp: WALL + Duration::from_secs(900),
        seq,
        site: SITE.into(),
        pools: vec!["10.97.0.1/16".into()],
        allow,
        lease: WALL + Duration::from_secs(900),
        relays: Vec::new(),
        draining: false,
    }
}

pub(crate) fn everything() -> Vec<Grant> {
    vec![grant("all", "10.98.0.0/16", "any")]
}

pub(crate) fn revocations(after: u64, entries: Vec<Entry>) -> RevocationList {
    RevocationList {
        iss: ORGANISATION.into(),
        sub: "revocations".into(),
        aud: vec![audience::gateways(ORGANISATION)],
        jti: format!("revocations-{after}"),
        iat: WALL,
        nbf: WALL,
        exp: WALL + 1_000 * HOUR,
        epoch: 1,
        after,
        entries,
        numbers: vec![],
    }
}

pub(crate) fn entry(scope: EntryScope, effect: Effect) -> Entry {
    Entry { scope, effect, reason: "laptop stolen".into(), keep_until: WALL + 100 * HOUR }
}

pub(crate) fn settings() -> Settings {
    let mut signers = KeySet::default();
    signers.add(SIGNER.public_key()).unwrap();
    Settings {
        organisation: ORGANISATION.into(),
        site: SITE.into(),
        gateway: GATEWAY.into(),
        signers,
        ceiling: None,
        no_new_sessions_after: None,
        guarded: Vec::new(),
        event_prefix: "e".into(),
    }
}

/// What a worker has of a session.
pub(crate) struct Installed {
    pub(crate) rules: Arc<RuleSet>,
    pub(crate) not_after: BootInstant,
    pub(crate) count: usize,
}

/// The machine, and workers that do as they are told at once.
pub(crate) struct World {
    pub(crate) machine: Admission,
    pub(crate) now: Moment,
    pub(crate) installed: BTreeMap<SessionId, Installed>,
    /// Installations that no worker has confirmed.
    pub(crate) unconfirmed: Vec<SessionId>,
    channels: u64,
    tunnels: u64,
}

impl World {
    /// A Gateway with the configuration `seq` 1, which allows the whole site.
    pub(crate) fn new() -> Self {
        let mut world = Self::without_configuration(settings());
        world.machine.pushed_configuration(&sign(&configuration(1, everything())), world.now);
        world.drain();
        world
    }

    pub(crate) fn without_configuration(settings: Settings) -> Self {
        Self::restored(settings, Persisted::default())
    }

    pub(crate) fn restored(settings: Settings, persisted: Persisted) -> Self {
        let now = Moment { boot: BOOT, wall: WALL };
        Self {
            machine: Admission::restore(settings, persisted, now),
            now,
            installed: BTreeMap::new(),
            unconfirmed: Vec::new(),
            channels: 0,
            tunnels: 0,
        }
    }

    /// What the machine asks for, done by the workers.
    pub(crate) fn drain(&mut self) -> Vec<Action> {
        let actions: Vec<Action> = std::iter::from_fn(|| self.machine.poll_action()).collect();
        for action in &actions {
            match action {
                Action::Engine(Command::Install { session, rules, not_after, .. }) => {
                    let count = self.installed.get(session).map_or(0, |before| before.count) + 1;
                    let installed = Installed { rules: Arc::clone(rules), not_after: *not_after, count };
                    self.installed.insert(*session, installed);
                    self.unconfirmed.push(*session);
                }
                Action::Engine(Command::Remove { session }) => {
                    self.installed.remove(session);
                }
                _ => {}
            }
        }
        actions
    }

    /// The workers confirm; gives what the Controller is told then.
    pub(crate) fn confirm(&mut self) -> Vec<Applied> {
        for session in std::mem::take(&mut self.unconfirmed) {
            self.machine.handle_event(Event::RulesApplied { session, epoch: RuleEpoch(1) }, self.now);
        }
        applied(&self.drain())
    }

    pub(crate) fn open(&mut self, device: &Device) -> (ChannelId, [u8; 16]) {
        self.open_as(&device.peer)
    }

    pub(crate) fn open_as(&mut self, peer: &PeerIdentity) -> (ChannelId, [u8; 16]) {
        self.channels += 1;
        let session_id = u128::from(self.channels).to_be_bytes();
        let channel = ChannelId(self.channels);
        self.machine.channel_opened(channel, peer.clone(), session_id, self.now);
        (channel, session_id)
    }

    pub(crate) fn present(&mut self, channel: ChannelId, claims: &ClaimsToken, entitlement: &EntitlementToken) {
        self.present_texts(channel, sign(claims), sign(entitlement));
    }

    pub(crate) fn present_texts(&mut self, channel: ChannelId, claims: String, entitlement: String) {
        let device = BTreeMap::from([("os".into(), "linux".into())]);
        self.say(channel, FromClient::Present { claims, entitlement, device });
    }

    pub(crate) fn say(&mut self, channel: ChannelId, message: FromClient) {
        self.machine.channel_message(channel, message, self.now);
    }

    pub(crate) fn authenticated(&mut self, tunnel: &Tunnel) -> SessionId {
        self.tunnels += 1;
        let session = SessionId::new(WorkerIndex(0), self.tunnels);
        let event = Event::Authenticated {
            session,
            peer: tunnel.peer.clone(),
            outer: "198.51.100.2:5000".parse().unwrap(),
            exporter: tunnel.exporter.clone(),
        };
        self.machine.handle_event(event, self.now);
        session
    }

    pub(crate) fn ended(&mut self, session: SessionId) {
        self.machine.handle_event(Event::Ended { session, reason: EndReason::Idle }, self.now);
    }

    /// A whole session with the tokens of `seq`: its channel, its tunnel.
    pub(crate) fn admit(&mut self, device: &Device, tunnel: usize, seq: u64) -> (ChannelId, SessionId) {
        let (channel, session_id) = self.open(device);
        self.present(channel, &device.claims(), &device.entitlement(seq));
        let session = self.authenticated(&device.tunnels[tunnel]);
        self.say(channel, device.tunnels[tunnel].bind(&session_id));
        let actions = self.drain();
        assert!(sent(&actions, channel).contains(&device.tunnels[tunnel].answer(&session_id)), "{actions:?}");
        self.confirm();
        (channel, session)
    }

    /// Lets time pass, with the machine woken whenever it wants.
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<Action> {
        let end = self.now.boot + time;
        let mut actions = Vec::new();
        while let Some(at) = self.machine.poll_timeout().filter(|at| *at <= end) {
            self.step(at.saturating_since(self.now.boot));
            self.machine.handle_timeout(self.now);
            actions.extend(self.drain());
        }
        self.step(end.saturating_since(self.now.boot));
        actions
    }

    /// Both clocks go on.
    pub(crate) fn step(&mut self, time: Duration) {
        let boot = self.now.boot + time;
        let since_start = boot.saturating_since(BOOT);
        self.now = Moment { boot, wall: WALL + since_start };
    }

    /// Whether a worker would let the session's packet pass.
    pub(crate) fn allows(&self, session: SessionId, to: &str, port: u16) -> bool {
        let Some(installed) = self.installed.get(&session) else { return false };
        let flow = FlowKey::new([10, 97, 0, 10].into(), to.parse().unwrap(), 6, 40_000, port).unwrap();
        self.now.boot < installed.not_after
            && matches!(installed.rules.judge(Direction::ToSite, &flow), Decision::Allow(_))
    }

    pub(crate) fn refused(&self, code: &str) -> u64 {
        self.machine.refused()[code]
    }

    /// The sum of all counters.
    pub(crate) fn refusals(&self) -> u64 {
        self.machine.refused().values().sum()
    }
}

pub(crate) fn sent(actions: &[Action], to: ChannelId) -> Vec<ToClient> {
    let messages = actions.iter().filter_map(|action| match action {
        Action::Send { channel, message } if *channel == to => Some(message.clone()),
        _ => None,
    });
    messages.collect()
}

pub(crate) fn applied(actions: &[Action]) -> Vec<Applied> {
    let applied = actions.iter().filter_map(|action| match action {
        Action::Applied(applied) => Some(applied.clone()),
        _ => None,
    });
    applied.collect()
}

pub(crate) fn installs(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Engine(Command::Install { .. }))).count()
}

pub(crate) fn removes(actions: &[Action]) -> Vec<SessionId> {
    let removed = actions.iter().filter_map(|action| match action {
        Action::Engine(Command::Remove { session }) => Some(*session),
        _ => None,
    });
    removed.collect()
}

/// The code of the one refusal in `actions`: one audit event, and on the channel, if it has one, a Goodbye with the same code
/// and id, then Close. Nothing is installed.
pub(crate) fn refusal(actions: &[Action], channel: Option<ChannelId>) -> &'static str {
    let events: Vec<_> = actions
        .iter()
        .filter_map(|action| if let Action::Audit(event) = action { Some(event) } else { None })
        .collect();
    let [event] = events.as_slice() else { panic!("expected one event: {actions:?}") };
    assert_eq!(installs(actions), 0, "{actions:?}");
    assert!(!event.detail.is_empty());
    if let Some(channel) = channel {
        let Some(ToClient::Goodbye { code, message, event: id }) = sent(actions, channel).pop() else {
            panic!("expected a goodbye: {actions:?}")
        };
        assert_eq!((code, &message, &id), (event.code, &event.detail, &event.id));
        let close =
            actions.iter().position(|action| matches!(action, Action::Close { channel: closed } if *closed == channel));
        let goodbye =
            actions.iter().position(|action| matches!(action, Action::Send { message: ToClient::Goodbye { .. }, .. }));
        assert!(goodbye < close, "{actions:?}");
    }
    event.code
}
