//! One side of one DTLS connection, from its first datagram to its end.
//!
//! ```text
//!  handshake ──Done──▶ established ──close, alert, limit──▶ ended
//!      ╰───────────────failure, time──────────────────────────▲
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ringfort_identity::{PeerIdentity, VerifyError};
use ringfort_types::{BootInstant, UnixSeconds};

use crate::alert::{Alert, Fatal};
use crate::cid::ConnectionId;
use crate::config::{ClientConfig, ServerConfig, Settings};
use crate::crypto::{ExporterSecret, Randomness};
use crate::front::Opening;
use crate::handshake::client13::Client13;
use crate::handshake::exchange::{Exchange, Rules};
use crate::handshake::server13::Server13;
use crate::handshake::{Context, Failure, Outcome, Step};
use crate::post_handshake::{PostHandshake, Wish};
use crate::record::{ContentType, Dropped, Open, Opened, PlaintextRecord, RecordLayer, SealError};

/// Bytes by which a sealed record is longer than the packet in it, with the connection id that Gateways give out: unified
/// header 13 (flags, id of 8, sequence number of 2, length of 2), content type 1, tag 16. Without an id it is 8 less.
pub const RECORD_OVERHEAD_BYTES: usize = 30;

/// New attempts of a client after answers that were in the clear and could not be: anybody may have sent them.
const RESTARTS_MAX: u8 = 3;

/// What an association tells its owner.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The handshake is finished and the peer passed every check. Comes once, before any plaintext. `None` only where the
    /// configuration lets peers pass that have no name; the product's never does.
    Established(Option<PeerIdentity>),
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
    /// The peer broke the protocol, or offered nothing that we take.
    #[error("DTLS failed: {0}")]
    Failed(Fatal),
    /// The peer gave up.
    #[error("the peer ended the association: {0}")]
    Alerted(Alert),
    /// The handshake took too long.
    #[error("the handshake was not finished in {0:?}{said}", said = said(.1))]
    TimedOut(Duration, Option<Alert>),
    /// A key may not be used any further and the peer agreed on no new one (RFC 9147 §4.5.3).
    #[error("a key has reached its limit")]
    KeyLimit,
}

fn said(alert: &Option<Alert>) -> String {
    alert.map(|alert| format!("; somebody, perhaps the peer, said {alert}")).unwrap_or_default()
}

/// What a datagram brought.
#[derive(Debug)]
pub enum Received<'a> {
    /// A packet of the peer's.
    Packet {
        /// Where in the datagram it stands.
        at: usize,
        /// Its bytes there.
        bytes: &'a mut [u8],
    },
    /// A record of which nothing is to be had.
    Discarded(Discarded),
}

/// Why a record was discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discarded {
    /// The record layer dropped it.
    Record(Dropped),
    /// It says something in the clear that counts only when it is sealed.
    InTheClear,
}

impl Discarded {
    /// The reason's name in a counter.
    #[must_use]
    pub const fn counter(self) -> &'static str {
        match self {
            Self::Record(dropped) => dropped.counter(),
            Self::InTheClear => "record_in_the_clear",
        }
    }
}

/// One side of one DTLS connection; see the crate's documentation for the order of calls.
pub struct Association {
    records: Box<RecordLayer>,
    exchange: Exchange,
    stage: Stage,
    /// Wall clock minus boot clock at creation, so that certificates are judged by the time of the handshake.
    unix_offset: Duration,
    events: VecDeque<Event>,
}

enum Stage {
    Handshake(Box<Handshake>),
    Established(Established),
    Ended,
}

struct Handshake {
    machine: Machine,
    local_cid: Option<ConnectionId>,
    begun: BootInstant,
    time_max: Duration,
    /// What an alert in the clear said: not believed, but told if nothing else comes.
    alerted: Option<Alert>,
}

enum Machine {
    Server(Server13),
    Client(Client13, Restarts),
}

/// How a client begins anew.
struct Restarts {
    config: Arc<ClientConfig>,
    randomness: Randomness,
    left: u8,
    /// Why, and when.
    pending: Option<BootInstant>,
}

struct Established {
    peer: Option<PeerIdentity>,
    exporter: ExporterSecret,
    post: PostHandshake,
}

impl fmt::Debug for Association {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Handshake(_) => "handshake",
            Stage::Established(_) => "established",
            Stage::Ended => "ended",
        };
        f.debug_struct("Association").field("stage", &stage).field("peer", &self.peer()).finish_non_exhaustive()
    }
}

impl Association {
    /// The server's side for a peer whose hello is `opening`; the datagram that it was in comes next, to
    /// [`Association::handle_datagram`]. `local_cid` is the connection id that the client is to send, if it takes part.
    /// `random` is 32 random bytes; `unix_time` is the wall clock at `now`.
    #[must_use]
    pub fn server(
        config: &Arc<ServerConfig>,
        opening: &Opening,
        local_cid: Option<ConnectionId>,
        random: [u8; 32],
        now: BootInstant,
        unix_time: Duration,
    ) -> Self {
        let machine = Machine::Server(Server13::new(Arc::clone(config), random, opening.retried.clone()));
        let mut this = Self::new(machine, &config.settings, opening.message_sequence, local_cid, now, unix_time);
        // The answer's number is that of the question, as the first answer's was, of which nothing was kept.
        this.records.set_plaintext_sequence(opening.record_sequence);
        this
    }

    /// The client's side; its ClientHello is ready at [`Association::poll_transmit`]. `local_cid` is the connection id that the
    /// server is to send: an empty one says that only the client sends one, `None` that neither does. `random` and `unix_time`
    /// as for [`Association::server`].
    #[must_use]
    pub fn client(
        config: &Arc<ClientConfig>,
        local_cid: Option<ConnectionId>,
        random: [u8; 32],
        now: BootInstant,
        unix_time: Duration,
    ) -> Self {
        let mut randomness = Randomness::new(&random);
        let (mut records, mut exchange) = (Box::new(RecordLayer::new()), exchange(&config.settings, 0));
        let unix_offset = unix_time.saturating_sub(Duration::from_nanos(now.as_nanos()));
        let mut cx = Context {
            records: &mut records,
            exchange: &mut exchange,
            local_cid,
            unix_time: UnixSeconds::from_epoch(unix_time),
        };
        let client = Client13::new(Arc::clone(config), randomness.draw(), &mut cx);
        let restarts = Restarts { config: Arc::clone(config), randomness, left: RESTARTS_MAX, pending: None };
        let mut this =
            Self::new(Machine::Client(client, restarts), &config.settings, 0, local_cid, now, unix_time);
        (this.records, this.exchange, this.unix_offset) = (records, exchange, unix_offset);
        this.settle(now);
        this
    }

    fn new(
        machine: Machine,
        settings: &Settings,
        first_message: u16,
        local_cid: Option<ConnectionId>,
        now: BootInstant,
        unix_time: Duration,
    ) -> Self {
        let handshake =
            Handshake { machine, local_cid, begun: now, time_max: settings.handshake_time_max, alerted: None };
        Self {
            records: Box::new(RecordLayer::new()),
            exchange: exchange(settings, first_message),
            stage: Stage::Handshake(Box::new(handshake)),
            unix_offset: unix_time.saturating_sub(Duration::from_nanos(now.as_nanos())),
            events: VecDeque::new(),
        }
    }

    /// Takes one datagram and opens its records in place. Each packet is given to `deliver` with its place in the datagram;
    /// none comes before the peer is authenticated or after the end.
    pub fn handle_datagram(
        &mut self,
        datagram: &mut [u8],
        now: BootInstant,
        mut deliver: impl FnMut(Received<'_>),
    ) {
        let (mut offset, mut is_only_data) = (0, true);
        loop {
            let opened = match &mut self.stage {
                Stage::Ended => return,
                Stage::Established(_) | Stage::Handshake(_) => self.records.open(datagram, &mut offset),
            };
            match (opened, &mut self.stage) {
                (Open::End, _) => break,
                (Open::Record(record), Stage::Established(established))
                    if record.content_type == ContentType::ApplicationData && record.number.epoch > 2 =>
                {
                    established.post.note_record(record.number.epoch, now);
                    if let Some(bytes) = datagram.get_mut(record.content.clone()).filter(|bytes| !bytes.is_empty()) {
                        deliver(Received::Packet { at: record.content.start, bytes });
                    }
                }
                (opened, _) => {
                    is_only_data = false;
                    if let Some(discarded) = self.handle_record(opened, datagram, now) {
                        deliver(Received::Discarded(discarded));
                    }
                }
            }
        }
        if !is_only_data || self.records.wants_key_update() {
            self.settle(now);
        }
    }

    /// Moves the clock; retransmissions and give-ups follow from it.
    pub fn handle_timeout(&mut self, now: BootInstant) {
        match &mut self.stage {
            Stage::Ended => return,
            Stage::Handshake(handshake) => {
                if now.saturating_since(handshake.begun) >= handshake.time_max {
                    let why = Ended::TimedOut(handshake.time_max, handshake.alerted);
                    return self.end(why);
                }
                if let Machine::Client(client, restarts) = &mut handshake.machine
                    && restarts.pending.is_some_and(|at| at <= now)
                {
                    restarts.pending = None;
                    self.exchange = exchange(&restarts.config.settings, 0);
                    let mut cx = Context {
                        records: &mut self.records,
                        exchange: &mut self.exchange,
                        local_cid: handshake.local_cid,
                        unix_time: unix_time(self.unix_offset, now),
                    };
                    *client = Client13::new(Arc::clone(&restarts.config), restarts.randomness.draw(), &mut cx);
                }
            }
            Stage::Established(established) => {
                established.post.handle_timeout(&mut self.records, now);
                if established.post.has_waited_too_long(&self.exchange, now) {
                    let why = Ended::TimedOut(established.post.patience(), None);
                    return self.end(why);
                }
            }
        }
        if let Err(fatal) = self.exchange.handle_timeout(&mut self.records, now) {
            return self.fail(&Failure::Fatal(fatal));
        }
        self.settle(now);
    }

    /// Seals one packet into `out` and says how long the record is; `None` before the handshake is done, after the end, or
    /// when `out` is shorter than packet and overhead together.
    #[inline]
    pub fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        if !matches!(self.stage, Stage::Established(_)) {
            return None;
        }
        match self.records.seal(ContentType::ApplicationData, packet, out) {
            Ok(length) => Some(length),
            Err(SealError::KeyExhausted) => {
                self.end(Ended::KeyLimit);
                None
            }
            Err(_) => None,
        }
    }

    /// Asks for new keys both ways (RFC 9147 §8), before any limit demands it. Nothing before the handshake is done.
    pub fn update_keys(&mut self, now: BootInstant) {
        if let Stage::Established(established) = &mut self.stage {
            established.post.wish(Wish::UpdateBoth);
            self.settle(now);
        }
    }

    /// Says goodbye; the notice is at [`Association::poll_transmit`].
    pub fn close(&mut self) {
        if !matches!(self.stage, Stage::Ended) {
            // A handshake under way is given up (RFC 8446 §6.1).
            self.tell(Alert::CLOSE_NOTIFY);
            self.end(Ended::Closed);
        }
    }

    /// The next datagram of the handshake or of its aftermath, to be sent to the peer.
    pub fn poll_transmit(&mut self) -> Option<Box<[u8]>> {
        self.exchange.poll_transmit()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Association::handle_timeout`] wants to be called; `None` if never.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<BootInstant> {
        let own = match &self.stage {
            Stage::Ended => return None,
            Stage::Handshake(handshake) => {
                let restart = match &handshake.machine {
                    Machine::Client(_, restarts) => restarts.pending,
                    Machine::Server(_) => None,
                };
                [Some(handshake.begun + handshake.time_max), restart].into_iter().flatten().min()
            }
            Stage::Established(established) => established.post.poll_timeout(&self.exchange),
        };
        [own, self.exchange.poll_timeout()].into_iter().flatten().min()
    }

    /// The peer, once established.
    #[must_use]
    pub fn peer(&self) -> Option<&PeerIdentity> {
        self.established().and_then(|established| established.peer.as_ref())
    }

    /// The secret for values that bind other channels to this association (C15), once established.
    #[must_use]
    pub fn exporter(&self) -> Option<&ExporterSecret> {
        self.established().map(|established| &established.exporter)
    }

    /// How many bytes longer than its packet a record is.
    #[must_use]
    pub fn overhead(&self) -> usize {
        self.records.overhead()
    }

    /// The connection id by which the peer's records name this association; empty if there is none.
    #[must_use]
    pub fn local_cid(&self) -> &ConnectionId {
        self.records.local_cid()
    }

    const fn established(&self) -> Option<&Established> {
        match &self.stage {
            Stage::Established(established) => Some(established),
            _ => None,
        }
    }

    /// Takes a record that is no packet.
    fn handle_record(&mut self, opened: Open, datagram: &[u8], now: BootInstant) -> Option<Discarded> {
        let handled = match opened {
            Open::End => Ok(()),
            Open::Dropped(dropped) => {
                if let Some(alert) = dropped.fatal_alert() {
                    self.fail(&Failure::Fatal(Fatal::new(Alert(alert), "a sealed record that may not be")));
                } else if dropped == Dropped::ForgeryLimit {
                    self.end(Ended::KeyLimit);
                }
                return Some(Discarded::Record(dropped));
            }
            Open::Plaintext(record) => {
                if !self.handle_plaintext(&record, datagram, now) {
                    return Some(Discarded::InTheClear);
                }
                Ok(())
            }
            Open::Record(record) => self.handle_sealed(&record, datagram, now),
        };
        if let Err(fatal) = handled {
            self.fail(&Failure::Fatal(fatal));
        }
        None
    }

    /// Takes what anybody may have sent. It may bring a handshake on; it ends nothing.
    fn handle_plaintext(&mut self, record: &PlaintextRecord, datagram: &[u8], now: BootInstant) -> bool {
        let Stage::Handshake(handshake) = &mut self.stage else { return false };
        let content = datagram.get(record.content.clone()).unwrap_or_default();
        match record.content_type {
            ContentType::Handshake => {
                let welcome = handshake.epoch() == 0;
                // What is in the clear and wrong is ignored.
                let taken = self.exchange.handle_record(&mut self.records, record.number, content, welcome, now);
                self.handle_messages(now);
                taken.is_ok()
            }
            ContentType::Alert => {
                handshake.alerted = Alert::decode(content).map(|(_, alert)| alert).or(handshake.alerted);
                false
            }
            _ => false,
        }
    }

    fn handle_sealed(&mut self, record: &Opened, datagram: &[u8], now: BootInstant) -> Result<(), Fatal> {
        let content = datagram.get(record.content.clone()).unwrap_or_default();
        match record.content_type {
            ContentType::Handshake => {
                let welcome = match &self.stage {
                    Stage::Handshake(handshake) => handshake.epoch() == record.number.epoch,
                    Stage::Established(_) => record.number.epoch > 2,
                    Stage::Ended => false,
                };
                self.exchange.handle_record(&mut self.records, record.number, content, welcome, now)?;
                self.handle_messages(now);
                Ok(())
            }
            ContentType::Ack => self.exchange.handle_ack(&mut self.records, content, now),
            ContentType::Alert => {
                match Alert::decode(content) {
                    Some((_, Alert::CLOSE_NOTIFY)) => self.end(Ended::ClosedByPeer),
                    // It only announces a close_notify (RFC 8446 §6.1).
                    Some((_, Alert::USER_CANCELED)) => {}
                    Some((_, alert)) => self.end(Ended::Alerted(alert)),
                    None => return Err(Fatal::new(Alert::DECODE_ERROR, "an alert")),
                }
                Ok(())
            }
            content_type => {
                Err(Fatal::new(Alert::UNEXPECTED_MESSAGE, format!("a record of {content_type:?} was not expected")))
            }
        }
    }

    /// Takes the messages that are whole.
    fn handle_messages(&mut self, now: BootInstant) {
        while let Some(message) = self.exchange.next_message() {
            let unix_time = unix_time(self.unix_offset, now);
            match &mut self.stage {
                Stage::Ended => return,
                Stage::Established(established) => {
                    let taken = established.post.handle_message(&message, &mut self.records, &mut self.exchange);
                    if let Err(fatal) = taken {
                        return self.fail(&Failure::Fatal(fatal));
                    }
                }
                Stage::Handshake(handshake) => {
                    let was_clear = handshake.epoch() == 0;
                    let mut cx = Context {
                        records: &mut self.records,
                        exchange: &mut self.exchange,
                        local_cid: handshake.local_cid,
                        unix_time,
                    };
                    let step = match &mut handshake.machine {
                        Machine::Server(server) => server.handle_message(&message, &mut cx),
                        Machine::Client(client, _) => client.handle_message(&message, &mut cx),
                    };
                    match step {
                        Ok(Step::More) => {}
                        Ok(Step::Done(outcome)) => return self.establish(outcome, now),
                        Err(failure) => return self.fail_handshake(&failure, was_clear, now),
                    }
                }
            }
        }
    }

    fn establish(&mut self, outcome: Outcome, now: BootInstant) {
        if self.exchange.is_message_under_way() {
            // Nothing of the handshake comes behind a Finished (RFC 8446 §5.1).
            let fatal = Fatal::new(Alert::UNEXPECTED_MESSAGE, "a message behind the Finished");
            return self.fail(&Failure::Fatal(fatal));
        }
        let Stage::Handshake(handshake) = &self.stage else { return };
        let (patience, Outcome { peer, exporter }) = (handshake.time_max, outcome);
        self.exchange.next_flight_acknowledges = false;
        self.exchange.acknowledge_now();
        let post = PostHandshake::new(patience, now);
        self.events.push_back(Event::Established(peer.clone()));
        self.stage = Stage::Established(Established { peer, exporter, post });
    }

    /// A handshake failed. What came in the clear may be anybody's: the peer is told, but a client tries again.
    fn fail_handshake(&mut self, failure: &Failure, was_clear: bool, now: BootInstant) {
        if let Stage::Handshake(handshake) = &mut self.stage
            && let Machine::Client(_, restarts) = &mut handshake.machine
            && was_clear
            && restarts.left > 0
            && self.records.tx_epoch() == 0
        {
            restarts.left -= 1;
            restarts.pending = Some(now + restarts.config.settings.repeat_after);
            self.tell(failure.alert());
            return;
        }
        self.fail(failure);
    }

    /// Sends what is due and draws the conclusions of what came.
    fn settle(&mut self, now: BootInstant) {
        if let Stage::Established(established) = &mut self.stage
            && let Err(fatal) = established.post.settle(&mut self.records, &mut self.exchange, now)
        {
            return self.fail(&Failure::Fatal(fatal));
        }
        if !matches!(self.stage, Stage::Ended)
            && let Err(fatal) = self.exchange.flush(&mut self.records, now)
        {
            self.fail(&Failure::Fatal(fatal));
        }
    }

    fn fail(&mut self, failure: &Failure) {
        self.tell(failure.alert());
        self.end(match failure {
            Failure::Fatal(fatal) => Ended::Failed(fatal.clone()),
            Failure::PeerRefused(error) => Ended::PeerRefused(error.clone()),
        });
    }

    /// Sends an alert. Where it cannot be sent, the peer learns by silence.
    fn tell(&mut self, alert: Alert) {
        drop(self.exchange.send_once(&mut self.records, ContentType::Alert, &alert.encode()));
    }

    /// Ends; the keys are gone at once.
    fn end(&mut self, why: Ended) {
        if !matches!(self.stage, Stage::Ended) {
            self.stage = Stage::Ended;
            self.records = Box::new(RecordLayer::new());
            self.events.push_back(Event::Ended(why));
        }
    }
}

impl Handshake {
    /// The epoch in which the next message is welcome.
    const fn epoch(&self) -> u64 {
        match &self.machine {
            Machine::Server(server) => server.epoch(),
            Machine::Client(client, _) => client.epoch(),
        }
    }
}

/// The client's next message and ours both have the number `first`.
fn exchange(settings: &Settings, first: u16) -> Exchange {
    Exchange::new(Rules::V13, (first, first), settings.repeat_after, settings.handshake_datagram_bytes_max)
}

fn unix_time(offset: Duration, now: BootInstant) -> UnixSeconds {
    UnixSeconds::from_epoch(offset + Duration::from_nanos(now.as_nanos()))
}
