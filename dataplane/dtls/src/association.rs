//! One side of one DTLS 1.3 connection, on dimpl. The whole of what has to be replaced when the engine of our own comes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, DtlsCertificate, Output};
use ringfort_identity::{ConfigError, Credentials, PeerIdentity, Role, Side as ShownBy, Trust, VerifyError};
use ringfort_types::{BootInstant, UnixSeconds};

use crate::exporter::ExporterSecret;
use crate::screen::acceptable_bytes;

/// Bytes by which a sealed record is longer than the packet in it: unified header 5, content type 1, tag 16.
pub const RECORD_OVERHEAD_BYTES: usize = 22;

/// Largest datagram of a handshake, so that it crosses any path with an MTU of 1,280 (IPv6 minimum, less headers).
const HANDSHAKE_MTU_BYTES: usize = 1_200;
/// First retransmission of a flight: a tunnel is set up by a waiting person, and one round trip is rarely longer.
const FLIGHT_RTO: Duration = Duration::from_millis(250);
/// A handshake that takes longer is given up.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Longest datagram a handshake may come in. Together with dimpl's queue of 30 datagrams it bounds a peer's certificate
/// below [`SCRATCH_BYTES`], where dimpl would panic.
const HANDSHAKE_DATAGRAM_BYTES_MAX: usize = 2_048;
/// Scratch space for the outputs of a handshake, and for those of an established association that fit no datagram.
const SCRATCH_BYTES: usize = 1 << 16;
/// dimpl asks to be woken at once, again and again, while a datagram of the peer's flight is missing; each time it would
/// send an ACK.
const WAKE_AFTER_MIN: Duration = Duration::from_millis(5);
/// An established association needs its clock moved only this often; every call costs dimpl a pass over its timers.
const CLOCK_STEP: Duration = Duration::from_millis(20);

/// What every association of one Gateway shares.
#[derive(Debug)]
pub struct ServerConfig(Shared);

/// What every association of one client shares.
#[derive(Debug)]
pub struct ClientConfig(Shared);

impl ServerConfig {
    /// A server with `credentials` whose clients must hold a device certificate under `clients`. `epoch` is one moment
    /// on both clocks, since dimpl counts on `Instant`.
    ///
    /// # Errors
    /// [`ConfigError::Parameters`] when dimpl refuses its settings.
    pub fn new(credentials: &Credentials, clients: Trust, epoch: (BootInstant, Instant)) -> Result<Self, ConfigError> {
        Shared::new(credentials, clients, Role::Device, epoch).map(Self)
    }
}

impl ClientConfig {
    /// A client with `credentials` that talks to holders of a Gateway certificate under `gateways`; `epoch` as for
    /// [`ServerConfig::new`].
    ///
    /// # Errors
    /// As [`ServerConfig::new`].
    pub fn new(credentials: &Credentials, gateways: Trust, epoch: (BootInstant, Instant)) -> Result<Self, ConfigError> {
        Shared::new(credentials, gateways, Role::Gateway, epoch).map(Self)
    }
}

struct Shared {
    dimpl: Arc<Config>,
    certificate: DtlsCertificate,
    trust: Trust,
    peer_role: Role,
    epoch: (BootInstant, Instant),
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("peer_role", &self.peer_role).finish_non_exhaustive()
    }
}

impl Shared {
    fn new(
        credentials: &Credentials,
        trust: Trust,
        peer_role: Role,
        epoch: (BootInstant, Instant),
    ) -> Result<Self, ConfigError> {
        let dimpl = Config::builder()
            .mtu(HANDSHAKE_MTU_BYTES)
            .require_client_certificate(true)
            .use_server_cookie(true)
            .flight_start_rto(FLIGHT_RTO)
            .handshake_timeout(HANDSHAKE_LIMIT)
            .build()
            .map_err(|error| ConfigError::Parameters(format!("{error:?}")))?;
        let certificate = DtlsCertificate {
            certificate: credentials.leaf().to_vec(),
            private_key: credentials.private_key().secret_pkcs8_der().to_vec(),
        };
        Ok(Self { dimpl: Arc::new(dimpl), certificate, trust, peer_role, epoch })
    }

    fn instant(&self, now: BootInstant) -> Instant {
        self.epoch.1 + now.saturating_since(self.epoch.0)
    }

    fn boot(&self, instant: Instant) -> BootInstant {
        self.epoch.0 + instant.saturating_duration_since(self.epoch.1)
    }
}

/// What an association tells its owner.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The handshake is finished and the peer passed every check. Comes once, before any plaintext.
    Established(PeerIdentity),
    /// The association is over; it hands out and accepts nothing more.
    Ended(Ended),
}

/// Why an association is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// The peer said goodbye.
    #[error("the peer closed the association")]
    ClosedByPeer,
    /// We did.
    #[error("closed")]
    Closed,
    /// The peer's certificate did not pass.
    #[error("the peer's {0}")]
    PeerRefused(VerifyError),
    /// The handshake or the record layer gave up.
    #[error("DTLS failed: {0}")]
    Failed(String),
}

/// One side of one DTLS connection; see the crate's documentation for the order of calls.
pub struct Association {
    dtls: Dtls,
    shared: Side,
    /// Wall clock minus boot clock at creation, so that certificates are judged by the time of the handshake.
    unix_offset: Duration,
    peer: Option<PeerIdentity>,
    exporter: Option<ExporterSecret>,
    connected: bool,
    ended: bool,
    clock: BootInstant,
    timeout: BootInstant,
    events: VecDeque<Event>,
    transmits: VecDeque<Box<[u8]>>,
}

enum Side {
    Server(Arc<ServerConfig>),
    Client(Arc<ClientConfig>),
}

impl Side {
    fn shared(&self) -> &Shared {
        match self {
            Self::Server(config) => &config.0,
            Self::Client(config) => &config.0,
        }
    }
}

impl fmt::Debug for Association {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Association").field("peer", &self.peer).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Association {
    /// The server's side for a peer that sent a ClientHello. `unix_time` is the wall clock at `now`.
    #[must_use]
    pub fn server(config: &Arc<ServerConfig>, now: BootInstant, unix_time: Duration) -> Self {
        Self::new(Side::Server(Arc::clone(config)), false, now, unix_time)
    }

    /// The client's side; its ClientHello is ready at [`Association::poll_transmit`].
    #[must_use]
    pub fn client(config: &Arc<ClientConfig>, now: BootInstant, unix_time: Duration) -> Self {
        Self::new(Side::Client(Arc::clone(config)), true, now, unix_time)
    }

    fn new(side: Side, active: bool, now: BootInstant, unix_time: Duration) -> Self {
        let shared = side.shared();
        let mut dtls = Dtls::new_13(Arc::clone(&shared.dimpl), shared.certificate.clone(), shared.instant(now));
        dtls.set_active(active);
        let mut this = Self {
            dtls,
            shared: side,
            unix_offset: unix_time.saturating_sub(Duration::from_nanos(now.as_nanos())),
            peer: None,
            exporter: None,
            connected: false,
            ended: false,
            clock: BootInstant::default(),
            timeout: now,
            events: VecDeque::new(),
            transmits: VecDeque::new(),
        };
        this.handle_timeout(now);
        this
    }

    /// Takes one datagram. Each plaintext in it is moved to the datagram's own bytes and given to `deliver` with its
    /// offset there. Nothing is delivered before the peer is authenticated or after the end.
    pub fn handle_datagram(
        &mut self,
        datagram: &mut [u8],
        now: BootInstant,
        mut deliver: impl FnMut(usize, &mut [u8]),
    ) {
        if self.ended || (!self.connected && datagram.len() > HANDSHAKE_DATAGRAM_BYTES_MAX) {
            return;
        }
        let acceptable = acceptable_bytes(datagram, self.connected);
        let datagram = &mut datagram[..acceptable];
        if datagram.is_empty() {
            return;
        }
        if !self.connected || now.saturating_since(self.clock) >= CLOCK_STEP {
            self.handle_timeout(now);
        }
        if let Err(error) = self.dtls.handle_packet(datagram) {
            return self.end(Ended::Failed(error.to_string()));
        }
        self.drain(datagram, &mut deliver);
    }

    /// Moves the clock; retransmissions and give-ups follow from it.
    pub fn handle_timeout(&mut self, now: BootInstant) {
        if self.ended {
            return;
        }
        self.clock = now;
        let instant = self.shared.shared().instant(now);
        if let Err(error) = self.dtls.handle_timeout(instant) {
            return self.end(Ended::Failed(error.to_string()));
        }
        self.drain(&mut [], &mut |_, _| {});
    }

    /// Seals one packet into `out` and says how long the record is; `None` before the handshake is done, after the end, or
    /// when `out` is shorter than packet and [`RECORD_OVERHEAD_BYTES`] together.
    pub fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        if self.ended || !self.connected || out.len() < packet.len() + RECORD_OVERHEAD_BYTES {
            return None;
        }
        if let Err(error) = self.dtls.send_application_data(packet) {
            self.end(Ended::Failed(error.to_string()));
            return None;
        }
        // Nothing else is queued: every call drains, so the first datagram out is this record.
        match self.dtls.poll_output(out) {
            Output::Packet(record) => Some(record.len()),
            _ => None,
        }
    }

    /// Says goodbye; the notice is at [`Association::poll_transmit`].
    pub fn close(&mut self) {
        if !self.ended {
            if self.dtls.close().is_ok() {
                self.drain(&mut [], &mut |_, _| {});
            }
            self.end(Ended::Closed);
        }
    }

    /// The next datagram of the handshake or of its aftermath, to be sent to the peer.
    pub fn poll_transmit(&mut self) -> Option<Box<[u8]>> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Association::handle_timeout`] wants to be called; `None` after the end.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<BootInstant> {
        (!self.ended).then_some(self.timeout)
    }

    /// The peer, once established.
    #[must_use]
    pub fn peer(&self) -> Option<&PeerIdentity> {
        self.peer.as_ref().filter(|_| self.connected)
    }

    /// The secret for values that bind other channels to this association (C15), once established.
    #[must_use]
    pub fn exporter(&self) -> Option<&ExporterSecret> {
        self.exporter.as_ref().filter(|_| self.connected)
    }

    /// Takes everything dimpl has to say. Plaintexts are written one behind the other to the start of `datagram`: together
    /// they are shorter than the records they came in, and dimpl holds a copy of those.
    fn drain(&mut self, datagram: &mut [u8], deliver: &mut impl FnMut(usize, &mut [u8])) {
        let mut filled = 0;
        let mut scratch = if self.connected { Vec::new() } else { vec![0; SCRATCH_BYTES] };
        loop {
            let room = if scratch.is_empty() { &mut datagram[filled..] } else { scratch.as_mut_slice() };
            match self.dtls.poll_output(room) {
                // dimpl releases data only after `Connected`; were it otherwise, nobody would get to see it.
                Output::ApplicationData(_) if !self.connected => {}
                Output::ApplicationData(plaintext) => {
                    let length = plaintext.len();
                    let end = filled + length;
                    if datagram.len() >= end {
                        if !scratch.is_empty() {
                            datagram[filled..end].copy_from_slice(&scratch[..length]);
                        }
                        deliver(filled, &mut datagram[filled..end]);
                        filled = end;
                    }
                }
                Output::Packet(packet) => self.transmits.push_back(packet.into()),
                Output::PeerCert(leaf) => {
                    let shared = self.shared.shared();
                    let unix_time = self.unix_offset + Duration::from_nanos(self.clock.as_nanos());
                    let side = if shared.peer_role == Role::Gateway { ShownBy::Server } else { ShownBy::Client };
                    let now = UnixSeconds::from_epoch(unix_time);
                    match shared.trust.verify(&leaf.into(), &[], side, shared.peer_role, now) {
                        Ok(peer) => self.peer = Some(peer),
                        Err(error) => {
                            self.transmits.clear();
                            return self.end(Ended::PeerRefused(error));
                        }
                    }
                }
                Output::Connected => match &self.peer {
                    Some(peer) => {
                        self.connected = true;
                        self.events.push_back(Event::Established(peer.clone()));
                    }
                    None => return self.end(Ended::Failed("the peer showed no certificate".into())),
                },
                // Comes right behind `Connected`, before anything else.
                Output::KeyingMaterial(exported, _) => self.exporter = Some(ExporterSecret::new(&exported)),
                Output::CloseNotify => return self.end(Ended::ClosedByPeer),
                Output::Timeout(at) => {
                    self.timeout = self.shared.shared().boot(at).max(self.clock + WAKE_AFTER_MIN);
                    return;
                }
                Output::BufferTooSmall { needed } => {
                    scratch.resize(needed.max(HANDSHAKE_DATAGRAM_BYTES_MAX), 0);
                }
                _ => {}
            }
        }
    }

    fn end(&mut self, why: Ended) {
        if !self.ended {
            self.ended = true;
            self.events.push_back(Event::Ended(why));
        }
    }
}
