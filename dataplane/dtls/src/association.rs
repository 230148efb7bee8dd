//! One side of one DTLS connection, from its first datagram to its end.
//!
//! ```text
//!  handshake ──Done──▶ established ──close, alert, limit──▶ ended
//!      ╰───────────────failure, time──────────────────────────▲
//! ```

mod events;
mod stage;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ringfort_identity::PeerIdentity;
use ringfort_types::{BootInstant, UnixSeconds};

use crate::alert::{Alert, Fatal};
use crate::cid::ConnectionId;
use crate::config::{ClientConfig, ProtocolVersion, ServerConfig, Settings};
use crate::connection_ids::ConnectionIds;
use crate::crypto::ExporterSecret;
use crate::front::Opening;
use crate::handshake::client13::Client13;
use crate::handshake::exchange::{Exchange, InTheClear};
use crate::handshake::reassembly::{Message, Reassembly};
use crate::handshake::server::Server;
use crate::handshake::{Context, Failure, Outcome, Step};
use crate::post_handshake::{PostHandshake, Wish};
use crate::post_handshake12::PostHandshake12;
use crate::record::{ContentType, Dropped, Open, Opened, PlaintextRecord, RecordLayer, RecordNumber, SealError};
use crate::wire::messages::Fragment;
pub use events::{Discarded, Ended, Event, Received};
use stage::{Doubt, Established, Handshake, Machine, Post, Stage};

/// Bytes by which a sealed record of DTLS 1.3 is longer than the packet in it, with the connection id that Gateways give out:
/// unified header 13 (flags, id of 8, sequence number of 2, length of 2), content type 1, tag 16. Without an id it is 8 less.
pub const RECORD_OVERHEAD_BYTES_13: usize = 30;
/// The same for DTLS 1.2 with AES-GCM: header 21 (13 and the id), explicit nonce 8, content type 1, tag 16. Without an id it is
/// 9 less, with ChaCha20-Poly1305 8 less. [`Association::overhead`] has the figure of one association.
pub const RECORD_OVERHEAD_BYTES_12: usize = 46;

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
        let machine = Machine::Server(Server::new(Arc::clone(config), random, opening.echo.clone()));
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
            grace: settings.repeat_after,
            alerted: None,
            refused: None,
            tell_at: None,
            doubt: None,
            early: None,
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
            let start = offset;
            let opened = match &mut self.stage {
                Stage::Ended => return,
                Stage::Established(_) | Stage::Handshake(_) => self.records.open(datagram, &mut offset),
            };
            match (opened, &mut self.stage) {
                (Open::End, _) => break,
                (Open::Dropped(Dropped::UnknownEpoch), Stage::Handshake(handshake)) => {
                    handshake.keep_early(datagram.get(start..offset).unwrap_or_default());
                    deliver(Received::Discarded(Discarded::Record(Dropped::UnknownEpoch)));
                }
                (Open::Record(record), Stage::Established(established))
                    if record.content_type == ContentType::ApplicationData
                        && record.number.epoch >= established.first_epoch() =>
                {
                    if let Post::V13(post) = &mut established.post {
                        post.note_record(record.number.epoch, now);
                    }
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
                let told =
                    handshake.tell_at.take_if(|at| *at <= now).and(handshake.refused.as_ref()).map(Failure::alert);
                let unanswered = handshake.awaits_answer_to_cookie() && self.exchange.repeats() >= REPEATS_MAX;
                if unanswered || handshake.anew_at.is_some_and(|at| at <= now) {
                    self.begin_anew(now);
                }
                if let Some(alert) = told {
                    self.tell(alert);
                }
            }
            Stage::Established(Established { post: Post::V13(post), .. }) => {
                if post.handle_timeout(&mut self.records, now) {
                    self.exchange.rest();
                    self.events.shrink_to_fit();
                }
                if post.has_waited_too_long(&self.exchange, now) {
                    let why = Ended::TimedOut(post.patience(), None);
                    return self.end(why);
                }
            }
            Stage::Established(_) => {}
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
                self.end_used_up();
                None
            }
            Err(_) => None,
        }
    }

    /// Whether packets that were sealed have led to something that neither a datagram nor the time would lead to: a new key is
    /// wanted (RFC 9147 §4.5.3), or the association has ended for want of one. Who seals much and hears little looks now and then,
    /// and calls [`Association::handle_timeout`].
    #[must_use]
    #[inline]
    pub fn is_due(&self) -> bool {
        match &self.stage {
            Stage::Established(Established { post: Post::V13(_), .. }) => {
                self.records.wants_key_update() && self.exchange.is_acknowledged()
            }
            _ => !self.events.is_empty(),
        }
    }

    /// Asks for new keys both ways (RFC 9147 §8), before any limit demands it. Nothing before the handshake is done, nor with
    /// DTLS 1.2, which has no other keys than the handshake's.
    pub fn update_keys(&mut self, now: BootInstant) {
        if let Some(post) = self.stage.post_13() {
            post.wish(Wish::UpdateBoth);
            self.settle(now);
        }
    }

    /// Asks the peer for `count` connection ids beside the one in use (RFC 9147 §9). Nothing where it has none.
    pub fn request_connection_ids(&mut self, count: u8, now: BootInstant) {
        if let Some(post) = self.stage.post_13() {
            post.ids.ask(count, &self.records, &mut self.exchange);
            self.settle(now);
        }
    }

    /// Gives the peer these connection ids, as long as the first one each: its records may name us by any of them. Of more than
    /// eight in all, one that is older than the one in use is no longer taken; where there is none, no more are given.
    pub fn give_connection_ids(&mut self, ids: &[ConnectionId], now: BootInstant) {
        if self.stage.post_13().is_some() {
            ConnectionIds::give(ids, &mut self.records, &mut self.exchange);
            self.settle(now);
        }
    }

    /// Names the peer by an id that was not used before, because we are about to send from another address: so nobody can tell by
    /// the id that both are one association's. `false` if there is none; one more is asked for either way.
    pub fn change_connection_id(&mut self, now: BootInstant) -> bool {
        let Some(post) = self.stage.post_13() else { return false };
        let has_changed = post.ids.change(&mut self.records, &mut self.exchange);
        self.settle(now);
        has_changed
    }

    /// Sends a record of any type with any content under the newest keys, those of the handshake included: what a hostile peer that
    /// has keys can do. For fuzz targets only (`cargo xtask fuzz`).
    #[cfg(fuzzing)]
    pub fn send_record(&mut self, content_type: ContentType, content: &[u8]) {
        drop(self.exchange.send_once(&mut self.records, content_type, content));
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
            Stage::Handshake(handshake) => Some(handshake.poll_timeout()),
            Stage::Established(established) => established.poll_timeout(&self.exchange),
        };
        [own, self.exchange.poll_timeout()].into_iter().flatten().min()
    }

    /// The peer, once established.
    #[must_use]
    pub fn peer(&self) -> Option<&PeerIdentity> {
        self.established().and_then(|established| established.peer.as_ref())
    }

    /// The version that was agreed on, once established.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.established().map(Established::version)
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
                    self.end_used_up();
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
                self.handle_flight(content, now);
                taken.is_ok()
            }
            // A part of the client's flight that says nothing (RFC 6347 §4.1).
            ContentType::ChangeCipherSpec => handshake.server12().is_some(),
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
            (handshake.doubt, handshake.anew_at, handshake.refused, handshake.tell_at) = (None, None, None, None);
            handshake.deadline = handshake.deadline_most;
        }
        if let Some(post) = self.stage.post_13() {
            post.note_record(record.number.epoch, now);
        }
        let content = datagram.get(record.content.clone()).unwrap_or_default();
        let is_12 = self.stage.is_12();
        match record.content_type {
            ContentType::Handshake => {
                let welcome = match &mut self.stage {
                    Stage::Handshake(handshake) => {
                        handshake.server12().map_or(Ok(()), |server| server.check_place(content))?;
                        handshake.epoch() == record.number.epoch
                    }
                    Stage::Established(Established { post: Post::V12(post), .. }) => {
                        return post.handle_record(content, &mut self.records, &mut self.exchange, now);
                    }
                    Stage::Established(_) => record.number.epoch > 2,
                    Stage::Ended => false,
                };
                self.exchange.handle_record(&mut self.records, record.number, content, welcome, now)?;
                self.handle_messages(now);
                Ok(())
            }
            // Before the Finished nobody knows whose they are.
            ContentType::ApplicationData if is_12 => Ok(()),
            ContentType::Ack if !is_12 => self.exchange.handle_ack(&mut self.records, content, now),
            ContentType::Alert => {
                match Alert::decode(content) {
                    Some((_, Alert::CLOSE_NOTIFY)) => {
                        // Each side says it before it goes (RFC 8446 §6.1, RFC 5246 §7.2.1).
                        self.tell(Alert::CLOSE_NOTIFY);
                        self.end(Ended::ClosedByPeer);
                    }
                    // There they are warnings, and nothing comes of them.
                    Some((1, _)) if is_12 => {}
                    // It only announces a close_notify (RFC 8446 §6.1).
                    Some((_, Alert::USER_CANCELED)) => {}
                    Some((_, alert)) => self.end(Ended::Alerted(alert)),
                    // RFC 8446 §5.4.
                    None if content.is_empty() => {
                        return Err(Fatal::new(Alert::UNEXPECTED_MESSAGE, "a record of alerts without content"));
                    }
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
                Stage::Established(Established { post: Post::V13(post), .. }) => {
                    let handled = post.handle_message(&message, &mut self.records, &mut self.exchange);
                    self.events.extend(post.ids.take_wanted().map(Event::ConnectionIdsWanted));
                    handled.map_err(Failure::Fatal)
                }
                Stage::Established(_) => Ok(()),
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
        let step = handshake.machine.handle_message(&message, &mut cx);
        match (step, before) {
            (Ok(Step::Done(outcome)), _) => self.establish(outcome, now),
            (Ok(Step::Refused(fatal)), _) => self.refuse_soon(fatal, now),
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

    /// Takes what of the client's second flight is in the clear, in DTLS 1.2.
    fn handle_flight(&mut self, mut content: &[u8], now: BootInstant) {
        while let Some((fragment, rest)) = Fragment::split_first(content) {
            content = rest;
            let Stage::Handshake(handshake) = &mut self.stage else { return };
            let mut cx = Context {
                records: &mut self.records,
                exchange: &mut self.exchange,
                local_cid: handshake.local_cid,
                unix_time: unix_time(self.unix_offset, now),
            };
            let Some(server) = handshake.server12() else { return };
            match server.handle_fragment(&fragment, &mut cx) {
                Ok(Step::Done(outcome)) => self.establish(outcome, now),
                Ok(Step::Refused(fatal)) => self.refuse_soon(fatal, now),
                Ok(Step::More) => self.handle_early(now),
                Err(failure) => self.fail(&failure),
            }
        }
    }

    /// Takes the record that was waiting for keys, if there are any.
    fn handle_early(&mut self, now: BootInstant) {
        let Stage::Handshake(handshake) = &mut self.stage else { return };
        if self.records.rx_epoch() > 0
            && let Some(mut early) = handshake.early.take()
        {
            let opened = self.records.open(&mut early, &mut 0);
            self.handle_record(opened, &early, now);
        }
    }

    /// Goes back to before the hello that was believed, and believes this one.
    fn believe(&mut self, hello: &Message, now: BootInstant) {
        let Stage::Handshake(handshake) = &mut self.stage else { return };
        let Some(doubt) = handshake.doubt.take() else { return };
        handshake.changes_left -= 1;
        handshake.machine = doubt.machine;
        self.records.forget_keys();
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
        self.records.forget_keys();
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
        let is_12 = self.stage.is_12();
        let Stage::Handshake(handshake) = &self.stage else { return };
        let (patience, Outcome { peer, exporter }) = (handshake.time_max, outcome);
        self.exchange.next_flight_acknowledges = false;
        let post = if is_12 {
            Post::V12(PostHandshake12::default())
        } else {
            self.exchange.acknowledge_now();
            Post::V13(PostHandshake::new(handshake.is_client(), patience, now))
        };
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

    /// The same where the right message comes with what has come or a round trip later, if it comes: the peer is told only if
    /// it has not by then, since a peer of DTLS 1.2 believes alerts in the clear.
    fn refuse_soon(&mut self, fatal: Fatal, now: BootInstant) {
        let Stage::Handshake(handshake) = &mut self.stage else { return };
        if handshake.refused.is_none() {
            handshake.deadline = handshake.deadline.min(now + DOUBT_TIME);
            handshake.refused = Some(Failure::Fatal(fatal));
            handshake.tell_at = Some(now + handshake.grace);
        }
    }

    /// Sends what is due and draws the conclusions of what came.
    fn settle(&mut self, now: BootInstant) {
        if let Stage::Established(Established { post: Post::V13(post), .. }) = &mut self.stage
            && let Err(fatal) = post.settle(&mut self.records, &mut self.exchange, now)
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

    /// Ends because a key may not be used any further, and says goodbye with what it is kept for that.
    fn end_used_up(&mut self) {
        self.tell(Alert::CLOSE_NOTIFY);
        self.end(Ended::KeyLimit);
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

/// The peer's next message and ours both have the number `first`.
fn exchange(settings: &Settings, first: u16, in_the_clear: InTheClear) -> Exchange {
    Exchange::new((first, first), in_the_clear, settings.repeat_after, settings.handshake_datagram_bytes_max)
}

fn unix_time(offset: Duration, now: BootInstant) -> UnixSeconds {
    UnixSeconds::from_epoch(offset + Duration::from_nanos(now.as_nanos()))
}
