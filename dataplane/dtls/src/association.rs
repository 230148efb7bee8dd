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
use crate::crypto::ExporterSecret;
use crate::front::Opening;
use crate::handshake::client13::Client13;
use crate::handshake::exchange::{Exchange, InTheClear};
use crate::handshake::reassembly::{Believed, Message, Reassembly};
use crate::handshake::server13::Server13;
use crate::handshake::{Context, Failure, Outcome, Step};
use crate::post_handshake::{PostHandshake, Wish};
use crate::record::{ContentType, Dropped, Open, Opened, PlaintextRecord, RecordLayer, RecordNumber, SealError};
use crate::wire::messages::Fragment;

/// Bytes by which a sealed record is longer than the packet in it, with the connection id that Gateways give out: unified
/// header 13 (flags, id of 8, sequence number of 2, length of 2), content type 1, tag 16. Without an id it is 8 less.
pub const RECORD_OVERHEAD_BYTES: usize = 30;

/// How long a handshake goes on after a message in the clear that cannot be: anybody may have sent it, and the right one may
/// still come, to this attempt or to the next.
const DOUBT_TIME: Duration = Duration::from_secs(4);

/// How often a handshake believes another hello than before.
const CHANGES_MAX: u8 = 16;
/// A client whose second hello was repeated so often without answer begins anew: its cookie has grown too old, or was never the
/// server's.
const REPEATS_MAX: u32 = 3;
/// A client begins anew when a hello of the server's has not proved right in this many times of its own first repetition: 2.5 s
/// with the default. A server may wait a second before it repeats a flight of which only the hello arrived, or arrived last
/// (RFC 9147 §5.8.2), and takes no new hello meanwhile; and there must be time for two attempts.
const ANEW_AFTER_REPEATS: u32 = 10;

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

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Fatal(fatal) => Self::Failed(fatal),
            Failure::PeerRefused(error) => Self::PeerRefused(error),
        }
    }
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
    /// The newest record with packets, and whether it came since somebody asked.
    newest: RecordNumber,
    has_news: bool,
}

enum Stage {
    Handshake(Box<Handshake>),
    Established(Established),
    Ended,
}

struct Handshake {
    machine: Machine,
    local_cid: Option<ConnectionId>,
    deadline: BootInstant,
    /// The deadline as long as nothing is wrong.
    deadline_most: BootInstant,
    time_max: Duration,
    /// When a client begins anew, if nothing sealed has come by then.
    anew_at: Option<BootInstant>,
    /// The time it gives a hello of the server's to prove right; more with each attempt.
    anew_after: Duration,
    /// What an alert in the clear said: not believed, but told if nothing else comes.
    alerted: Option<Alert>,
    /// Why a message in the clear was refused; likewise.
    refused: Option<Failure>,
    doubt: Option<Doubt>,
    /// How often another hello may still be believed: each costs a key exchange.
    changes_left: u8,
}

#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "it lives in one box per handshake")]
enum Machine {
    Server(Server13),
    Client(Client13),
}

/// A hello in the clear was believed, and nothing sealed has come yet that would prove it right. If another hello comes in its
/// place, that one is believed instead: otherwise one forged hello would keep the peer's out.
struct Doubt {
    /// Where the handshake stood before the hello, and the number of our next message then.
    machine: Machine,
    next_out: u16,
    /// The hello that is believed.
    hello: Message,
    /// Another one under way.
    other: Reassembly,
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
        let (mut records, mut exchange) =
            (Box::new(RecordLayer::new()), exchange(&config.settings, 0, InTheClear::CLIENT));
        let mut cx = Context {
            records: &mut records,
            exchange: &mut exchange,
            local_cid,
            unix_time: UnixSeconds::from_epoch(unix_time),
        };
        let client = Client13::new(Arc::clone(config), &random, &mut cx);
        let mut this = Self::new(Machine::Client(client), &config.settings, 0, local_cid, now, unix_time);
        (this.records, this.exchange) = (records, exchange);
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
        let time_max = settings.handshake_time_max;
        let deadline = now + time_max;
        let handshake = Handshake {
            machine,
            local_cid,
            deadline,
            deadline_most: deadline,
            time_max,
            anew_at: None,
            anew_after: settings.repeat_after * ANEW_AFTER_REPEATS,
            alerted: None,
            refused: None,
            doubt: None,
            changes_left: CHANGES_MAX,
        };
        Self {
            records: Box::new(RecordLayer::new()),
            exchange: exchange(settings, first_message, InTheClear::SERVER),
            stage: Stage::Handshake(Box::new(handshake)),
            unix_offset: unix_time.saturating_sub(Duration::from_nanos(now.as_nanos())),
            events: VecDeque::new(),
            newest: RecordNumber { epoch: 0, sequence: 0 },
            has_news: false,
        }
    }

    /// Takes one datagram and opens its records in place. Each packet is given to `deliver` with its place in the datagram;
    /// none comes before the peer is authenticated or after the end.
    pub fn handle_datagram(&mut self, datagram: &mut [u8], now: BootInstant, mut deliver: impl FnMut(Received<'_>)) {
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
                    if record.number > self.newest {
                        (self.newest, self.has_news) = (record.number, true);
                    }
                    if let Some(bytes) = datagram.get_mut(record.content.clone()) {
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
                if now >= handshake.deadline {
                    let why = match handshake.refused.take() {
                        Some(failure) => failure.into(),
                        None => Ended::TimedOut(handshake.time_max, handshake.alerted),
                    };
                    return self.end(why);
                }
                let unanswered = handshake.awaits_answer_to_cookie() && self.exchange.repeats() >= REPEATS_MAX;
                if unanswered || handshake.anew_at.is_some_and(|at| at <= now) {
                    self.begin_anew(now);
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
                Some(handshake.anew_at.map_or(handshake.deadline, |at| at.min(handshake.deadline)))
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

    /// Whether a record with packets has come since the last call that is newer than all before it. Only then may a peer be
    /// taken to have moved to where it came from (RFC 9146 §6): an old record can be sent again by anybody from anywhere.
    pub const fn take_news(&mut self) -> bool {
        std::mem::replace(&mut self.has_news, false)
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
                if let Some(hello) = handshake.other_hello(content) {
                    self.believe(&hello, now);
                }
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
        if let Stage::Handshake(handshake) = &mut self.stage {
            // Whoever sealed it has the keys that come of the hello.
            (handshake.doubt, handshake.anew_at, handshake.refused) = (None, None, None);
            handshake.deadline = handshake.deadline_most;
        }
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
            let handled = match &mut self.stage {
                Stage::Ended => return,
                Stage::Handshake(_) => self.handle_handshake_message(message, now),
                Stage::Established(established) => established
                    .post
                    .handle_message(&message, &mut self.records, &mut self.exchange)
                    .map_err(Failure::Fatal),
            };
            if let Err(failure) = handled {
                return self.fail(&failure);
            }
        }
    }

    fn handle_handshake_message(&mut self, message: Message, now: BootInstant) -> Result<(), Failure> {
        let Stage::Handshake(handshake) = &mut self.stage else { return Ok(()) };
        let before = (handshake.epoch() == 0).then(|| (handshake.machine.clone(), self.exchange.next_out()));
        let mut cx = Context {
            records: &mut self.records,
            exchange: &mut self.exchange,
            local_cid: handshake.local_cid,
            unix_time: unix_time(self.unix_offset, now),
        };
        let step = match &mut handshake.machine {
            Machine::Server(server) => server.handle_message(&message, &mut cx),
            Machine::Client(client) => client.handle_message(&message, &mut cx),
        };
        match (step, before) {
            (Ok(Step::Done(outcome)), _) => self.establish(outcome, now),
            (Ok(Step::More), Some((machine, next_out))) if handshake.epoch() > 0 => {
                let other = Reassembly::starting_at(message.sequence);
                handshake.doubt = Some(Doubt { machine, next_out, hello: message, other });
                handshake.anew_at = handshake.is_client().then(|| now + handshake.anew_after);
            }
            (Ok(Step::More), _) => {}
            (Err(failure), Some(_)) => self.refuse(failure, now),
            (Err(failure), None) => return Err(failure),
        }
        Ok(())
    }

    /// Goes back to before the hello that was believed, and believes this one.
    fn believe(&mut self, hello: &Message, now: BootInstant) {
        let Stage::Handshake(handshake) = &mut self.stage else { return };
        let Some(doubt) = handshake.doubt.take() else { return };
        handshake.changes_left -= 1;
        handshake.machine = doubt.machine;
        forget_keys(&mut self.records);
        self.exchange.rewind((hello.sequence + 1, doubt.next_out));
        if let Err(failure) = self.handle_handshake_message(hello.clone(), now) {
            self.fail(&failure);
        }
    }

    /// A client's next attempt: nothing that has been said counts any more.
    fn begin_anew(&mut self, now: BootInstant) {
        let Stage::Handshake(handshake) = &mut self.stage else { return };
        let Machine::Client(client) = &mut handshake.machine else { return };
        (handshake.doubt, handshake.anew_at) = (None, None);
        handshake.anew_after *= 2;
        forget_keys(&mut self.records);
        self.exchange.rewind((0, 0));
        client.begin_anew(&mut Context {
            records: &mut self.records,
            exchange: &mut self.exchange,
            local_cid: handshake.local_cid,
            unix_time: unix_time(self.unix_offset, now),
        });
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

    /// A message in the clear cannot be. The peer is told, once; if it was not the peer's, the right one comes.
    fn refuse(&mut self, failure: Failure, now: BootInstant) {
        self.exchange.reject_last();
        let Stage::Handshake(handshake) = &mut self.stage else { return };
        handshake.deadline = handshake.deadline.min(now + DOUBT_TIME);
        if handshake.is_client() && handshake.anew_at.is_none() {
            handshake.anew_at = Some(now + handshake.anew_after / 4);
        }
        if handshake.refused.is_none() {
            let alert = failure.alert();
            handshake.refused = Some(failure);
            self.tell(alert);
        }
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
        self.end(failure.clone().into());
    }

    /// Sends an alert. Where it cannot be sent, the peer learns by silence.
    fn tell(&mut self, alert: Alert) {
        drop(self.exchange.send_once(&mut self.records, ContentType::Alert, &alert.encode()));
    }

    /// Ends; the keys are gone at once.
    fn end(&mut self, why: Ended) {
        if !matches!(self.stage, Stage::Ended) {
            self.stage = Stage::Ended;
            *self.records = RecordLayer::new();
            self.events.push_back(Event::Ended(why));
        }
    }
}

impl Handshake {
    /// Another hello than the one that is believed, once it is whole.
    fn other_hello(&mut self, mut content: &[u8]) -> Option<Message> {
        let doubt = self.doubt.as_mut().filter(|_| self.changes_left > 0)?;
        while let Some((fragment, rest)) = Fragment::split_first(content) {
            content = rest;
            if fragment.sequence == doubt.hello.sequence && fragment.kind == doubt.hello.kind {
                doubt.other.handle_fragment(&fragment, Believed::Newest);
            }
        }
        let other = doubt.other.next_message()?;
        doubt.other = Reassembly::starting_at(other.sequence);
        Some(other).filter(|other| *other != doubt.hello)
    }

    const fn is_client(&self) -> bool {
        matches!(self.machine, Machine::Client(_))
    }

    fn awaits_answer_to_cookie(&self) -> bool {
        matches!(&self.machine, Machine::Client(client) if client.awaits_answer_to_cookie())
    }

    /// The epoch in which the next message is welcome.
    const fn epoch(&self) -> u64 {
        match &self.machine {
            Machine::Server(server) => server.epoch(),
            Machine::Client(client) => client.epoch(),
        }
    }
}

/// Back to plaintext. Its numbers go on.
fn forget_keys(records: &mut RecordLayer) {
    let plaintext = records.next_number(0).map_or(0, |number| number.sequence);
    *records = RecordLayer::new();
    records.set_plaintext_sequence(plaintext);
}

/// The peer's next message and ours both have the number `first`.
fn exchange(settings: &Settings, first: u16, in_the_clear: InTheClear) -> Exchange {
    Exchange::new((first, first), in_the_clear, settings.repeat_after, settings.handshake_datagram_bytes_max)
}

fn unix_time(offset: Duration, now: BootInstant) -> UnixSeconds {
    UnixSeconds::from_epoch(offset + Duration::from_nanos(now.as_nanos()))
}
