//! Messages both ways over datagrams that get lost: flights, acknowledgements and timers (RFC 9147 §5.8, §7; RFC 6347 §4.2.4).
//! DTLS 1.2 has no acknowledgements: there a flight is repeated until the next one is whole, and the last one when the peer
//! repeats its own.
//!
//! Call order: [`Exchange::handle_record`] for each record with handshake messages, [`Exchange::handle_ack`] for each ACK,
//! then [`Exchange::next_message`] until `None`; [`Exchange::send`] for each message of ours; at the end
//! [`Exchange::flush`]. [`Exchange::handle_timeout`] when [`Exchange::poll_timeout`] is due. Datagrams are at
//! [`Exchange::poll_transmit`].
//!
//! It decides nothing about what a message means, nor in which epoch one is welcome.

use std::collections::VecDeque;
use std::time::Duration;

use ringfort_types::BootInstant;

use super::flight::Flight;
use super::reassembly::{Believed, Message, Reassembly, Taken};
use crate::alert::{Alert, Fatal, fail};
use crate::record::{ContentType, RecordLayer, RecordNumber};
use crate::wire::messages::{Fragment, MessageType, parse_ack, write_ack};

/// Records that one ACK names at most: it stays below every datagram's limit.
const ACKED_MAX: usize = 16;
/// A flight is repeated after ever longer times, up to this (RFC 9147 §5.8.2 allows 60 s; a handshake here is given up sooner).
const REPEAT_AFTER_MAX: Duration = Duration::from_secs(8);

/// What is taken in the clear: one kind of message, and of contradicting fragments one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InTheClear {
    kind: MessageType,
    believed: Believed,
}

impl InTheClear {
    /// By a server, which believes the first fragment: it has brought a cookie.
    pub(crate) const SERVER: Self = Self { kind: MessageType::CLIENT_HELLO, believed: Believed::First };
    /// By a client, to which anybody may be first.
    pub(crate) const CLIENT: Self = Self { kind: MessageType::SERVER_HELLO, believed: Believed::Newest };
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Exchange {
    incoming: Reassembly,
    flight: Flight,
    in_the_clear: InTheClear,
    /// Whether the peer's next flight says that ours has arrived: it does during a handshake (RFC 9147 §7).
    pub(crate) next_flight_acknowledges: bool,
    /// Whether our flight is the handshake's last, which only the peer's repetition repeats.
    is_last: bool,
    to_acknowledge: Vec<RecordNumber>,
    acknowledge_at: Option<BootInstant>,
    repeat_at: Option<BootInstant>,
    repeat_after: Duration,
    repeats: u32,
    /// When the flight was last sent, whole or in part.
    sent_at: BootInstant,
    first_repeat_after: Duration,
    datagram_bytes_max: usize,
    out: VecDeque<Box<[u8]>>,
}

impl Exchange {
    /// An exchange whose first messages have the numbers `next_in` and `next_out`.
    pub(crate) fn new(
        (next_in, next_out): (u16, u16),
        in_the_clear: InTheClear,
        first_repeat_after: Duration,
        datagram_bytes_max: usize,
    ) -> Self {
        Self {
            incoming: Reassembly::starting_at(next_in),
            flight: Flight::starting_at(next_out),
            in_the_clear,
            next_flight_acknowledges: true,
            is_last: false,
            to_acknowledge: Vec::new(),
            acknowledge_at: None,
            repeat_at: None,
            repeat_after: first_repeat_after,
            repeats: 0,
            sent_at: BootInstant::default(),
            first_repeat_after,
            datagram_bytes_max,
            out: VecDeque::new(),
        }
    }

    /// Takes the content of a record with handshake messages. Where messages of its epoch are not `welcome`, only repetitions
    /// mean something. Of plaintext (`number.epoch` 0), which anybody may have sent, what does not fit is ignored; in DTLS 1.3
    /// only the very next message may come in it, since everything behind is sealed.
    ///
    /// # Errors
    /// When the peer breaks the protocol in a sealed record.
    pub(crate) fn handle_record(
        &mut self,
        records: &mut RecordLayer,
        number: RecordNumber,
        content: &[u8],
        welcome: bool,
        now: BootInstant,
    ) -> Result<(), Fatal> {
        let sealed = number.epoch > 0;
        if content.is_empty() && sealed {
            return fail(Alert::UNEXPECTED_MESSAGE, "a handshake record without content");
        }
        let mut rest = content;
        let (mut fresh, mut after_gap, mut repeated, mut kept) = (false, false, false, true);
        while !rest.is_empty() {
            let Some((fragment, behind)) = Fragment::split_first(rest) else {
                return if sealed {
                    fail(Alert::DECODE_ERROR, "a fragment beyond its message or record")
                } else {
                    Ok(())
                };
            };
            rest = behind;
            let next = self.incoming.next_sequence();
            if fragment.sequence >= next && !welcome {
                kept = false;
                continue;
            }
            if !sealed && (fragment.sequence > next || fragment.kind != self.in_the_clear.kind) {
                continue;
            }
            match self
                .incoming
                .handle_fragment(&fragment, if sealed { Believed::First } else { self.in_the_clear.believed })
            {
                Taken::Fresh { after_gap: gap } => {
                    fresh = true;
                    after_gap |= gap;
                }
                Taken::Repeated => repeated = true,
                Taken::NoRoom => kept = false,
                Taken::Mismatch | Taken::TooLong if !sealed => kept = false,
                Taken::Mismatch => {
                    return fail(Alert::ILLEGAL_PARAMETER, "fragments of one message that do not belong together");
                }
                Taken::TooLong => return fail(Alert::ILLEGAL_PARAMETER, "a message longer than any may be"),
            }
        }
        if fresh && sealed && self.next_flight_acknowledges {
            self.acknowledge_flight();
        }
        if repeated && !fresh {
            self.peer_repeats(records, now)?;
        }
        // What was not kept must be sent again, so it is not acknowledged. In DTLS 1.2 the answer to what is sealed is there
        // before any key to seal an ACK with. ACKs of plaintext tell a peer nothing that the flight behind it does not, and
        // neither do those of a flight that ours answers. Behind the handshake nothing answers a message but its ACK, whatever
        // of ours is under way: two messages that cross each other would else be repeated for ever once both ACKs are lost.
        let only_acks_answer = !self.next_flight_acknowledges;
        if sealed && kept && (fresh || self.flight.is_done() || only_acks_answer) {
            if self.to_acknowledge.len() < ACKED_MAX && !self.to_acknowledge.contains(&number) {
                self.to_acknowledge.push(number);
            }
            let soon = if after_gap || !fresh { Duration::ZERO } else { self.first_repeat_after / 4 };
            let at = now + soon;
            self.acknowledge_at = Some(self.acknowledge_at.map_or(at, |before| before.min(at)));
        }
        Ok(())
    }

    /// The peer sends again what we have: it lacks our flight. It gets that again, unless it has just been sent.
    pub(crate) fn peer_repeats(&mut self, records: &mut RecordLayer, now: BootInstant) -> Result<(), Fatal> {
        if !self.flight.is_done() && now.saturating_since(self.sent_at) >= self.first_repeat_after / 2 {
            self.sent_at = now;
            return self.flight.write(records, self.datagram_bytes_max, true, &mut self.out);
        }
        Ok(())
    }

    /// Takes the content of a sealed ACK.
    ///
    /// # Errors
    /// When it has not the form of one.
    pub(crate) fn handle_ack(
        &mut self,
        records: &mut RecordLayer,
        content: &[u8],
        now: BootInstant,
    ) -> Result<(), Fatal> {
        let mut news = false;
        for number in parse_ack(content)? {
            news |= self.flight.acknowledge(number);
        }
        if self.flight.is_done() {
            self.acknowledge_flight();
        } else if news {
            // What it lacks got lost, most likely; an ACK comes when something behind it has come.
            self.write(records, true, now)?;
        }
        Ok(())
    }

    /// The peer's next message, once it is whole.
    pub(crate) fn next_message(&mut self) -> Option<Message> {
        self.incoming.next_message()
    }

    /// Whether part of a message is there.
    pub(crate) fn is_message_under_way(&self) -> bool {
        self.incoming.is_under_way()
    }

    /// Goes back to where the next messages have the numbers `next_in` and `next_out`; whatever came or went since is forgotten.
    pub(crate) fn rewind(&mut self, (next_in, next_out): (u16, u16)) {
        self.begin_answer();
        self.expect(next_in);
        self.flight = Flight::starting_at(next_out);
    }

    /// The next message has number `next_in`; what else has come of any is forgotten.
    pub(crate) fn expect(&mut self, next_in: u16) {
        self.incoming = Reassembly::starting_at(next_in);
    }

    /// The peer's flight is whole and our last one of a handshake of DTLS 1.2 answers it. It begins with a ChangeCipherSpec.
    pub(crate) fn begin_last_flight(&mut self) {
        self.begin_answer();
        self.is_last = true;
        self.flight.push_change_cipher_spec();
    }

    /// How often the flight has been repeated for want of an answer.
    pub(crate) const fn repeats(&self) -> u32 {
        self.repeats
    }

    /// Lets another message come in the place of the last one: see [`Reassembly::reject_last`].
    pub(crate) fn reject_last(&mut self) {
        self.incoming.reject_last();
    }

    /// Adds a message to our flight, under the keys of `epoch`.
    pub(crate) fn send(&mut self, kind: MessageType, body: Vec<u8>, epoch: u64) {
        self.flight.push(kind, body, epoch);
    }

    /// The number of the next message of ours.
    pub(crate) const fn next_out(&self) -> u16 {
        self.flight.next_sequence()
    }

    /// Whether the peer has all that we sent.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.flight.is_done()
    }

    /// What has been received is acknowledged at the next [`Exchange::flush`], not a while later.
    pub(crate) fn acknowledge_now(&mut self) {
        if !self.to_acknowledge.is_empty() {
            self.acknowledge_at = Some(BootInstant::default());
        }
    }

    /// The peer's flight is whole and one of ours answers it: the peer has what we sent before, and learns by the answer that
    /// its own has arrived.
    pub(crate) fn begin_answer(&mut self) {
        self.acknowledge_flight();
        self.to_acknowledge.clear();
        self.acknowledge_at = None;
    }

    fn acknowledge_flight(&mut self) {
        self.flight.acknowledge_all();
        self.repeat_at = None;
        self.repeat_after = self.first_repeat_after;
        self.repeats = 0;
    }

    /// Sends what was added, and an ACK that is due.
    ///
    /// # Errors
    /// When a key has reached its limit.
    pub(crate) fn flush(&mut self, records: &mut RecordLayer, now: BootInstant) -> Result<(), Fatal> {
        self.write(records, false, now)?;
        if self.acknowledge_at.is_some_and(|at| at <= now) {
            self.acknowledge_at = None;
            let content = write_ack(&std::mem::take(&mut self.to_acknowledge));
            if records.tx_epoch() > 0 {
                self.send_once(records, ContentType::Ack, &content)?;
            }
        }
        Ok(())
    }

    /// Sends a record that belongs to no flight, an alert or an ACK, under the newest keys.
    ///
    /// # Errors
    /// As [`Exchange::flush`].
    pub(crate) fn send_once(
        &mut self,
        records: &mut RecordLayer,
        content_type: ContentType,
        content: &[u8],
    ) -> Result<(), Fatal> {
        let mut datagram = vec![0; content.len() + records.overhead()];
        let sealed = records.seal(content_type, content, &mut datagram);
        let length = sealed.map_err(|error| Fatal::new(Alert::INTERNAL_ERROR, error.to_string()))?;
        datagram.truncate(length);
        self.out.push_back(datagram.into());
        Ok(())
    }

    /// Repeats what the peer lacks and acknowledges what came, as far as it is time.
    ///
    /// # Errors
    /// As [`Exchange::flush`].
    pub(crate) fn handle_timeout(&mut self, records: &mut RecordLayer, now: BootInstant) -> Result<(), Fatal> {
        if self.repeat_at.is_some_and(|at| at <= now) {
            self.repeat_after = (self.repeat_after * 2).min(REPEAT_AFTER_MAX);
            self.repeats += 1;
            self.write(records, true, now)?;
        }
        self.flush(records, now)
    }

    fn write(&mut self, records: &mut RecordLayer, all: bool, now: BootInstant) -> Result<(), Fatal> {
        let before = self.out.len();
        self.flight.write(records, self.datagram_bytes_max, all, &mut self.out)?;
        if self.out.len() > before {
            self.sent_at = now;
            self.repeat_at = (!self.is_last).then(|| now + self.repeat_after);
        }
        Ok(())
    }

    /// When [`Exchange::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<BootInstant> {
        [self.repeat_at, self.acknowledge_at].into_iter().flatten().min()
    }

    /// Gives memory back that only a handshake needs.
    pub(crate) fn rest(&mut self) {
        self.out.shrink_to_fit();
        self.to_acknowledge.shrink_to_fit();
        self.flight.rest();
        self.incoming.rest();
    }

    /// The next datagram for the peer.
    pub(crate) fn poll_transmit(&mut self) -> Option<Box<[u8]>> {
        self.out.pop_front()
    }
}
