//! Our messages of one flight, cut into records, until the peer has them (RFC 9147 §5.8, §7; RFC 6347 §4.2.4).

use std::collections::VecDeque;
use std::ops::Range;

use super::ranges::Ranges;
use crate::alert::{Alert, Fatal};
use crate::record::{ContentType, PLAIN_HEADER_BYTES, RecordLayer, RecordNumber};
use crate::wire::messages::{Fragment, HEADER_BYTES, MessageType};

/// Records of which it is remembered what they carried. An ACK for an older one only costs a retransmission.
const SENT_MAX: usize = 256;
/// What a ChangeCipherSpec says (RFC 5246 §7.1).
const CHANGE_CIPHER_SPEC: u8 = 1;
/// A fragment is not begun where less than this fits into the rest of a datagram.
const FRAGMENT_BYTES_MIN: usize = 32;

/// Messages that the peer has not acknowledged, by an ACK or by its next flight.
#[derive(Debug, Default)]
pub(super) struct Flight {
    next_sequence: u16,
    items: Vec<Item>,
    sent: VecDeque<Sent>,
}

#[derive(Debug)]
struct Item {
    epoch: u64,
    /// `None` is a ChangeCipherSpec.
    kind: Option<MessageType>,
    sequence: u16,
    body: Vec<u8>,
    acknowledged: Ranges,
    /// Whether it has been sent at all.
    is_sent: bool,
}

/// What one record carried: which message, and what of it.
#[derive(Debug)]
struct Sent {
    number: RecordNumber,
    sequence: u16,
    range: Range<usize>,
}

impl Flight {
    /// Gives memory back that is not in use.
    pub(super) fn rest(&mut self) {
        self.items.shrink_to_fit();
        self.sent.shrink_to_fit();
    }

    /// Messages from number `next` on.
    pub(super) fn starting_at(next: u16) -> Self {
        Self { next_sequence: next, ..Self::default() }
    }

    /// Adds a message that goes out under the keys of `epoch`.
    pub(super) fn push(&mut self, kind: MessageType, body: Vec<u8>, epoch: u64) {
        let sequence = self.next_sequence;
        self.next_sequence = self.next_sequence.saturating_add(1);
        self.items.push(Item {
            epoch,
            kind: Some(kind),
            sequence,
            body,
            acknowledged: Ranges::default(),
            is_sent: false,
        });
    }

    /// Adds a ChangeCipherSpec of DTLS 1.2, which is a record in the clear and no message (RFC 6347 §4.1).
    pub(super) fn push_change_cipher_spec(&mut self) {
        self.items.push(Item {
            epoch: 0,
            kind: None,
            sequence: 0,
            body: vec![CHANGE_CIPHER_SPEC],
            acknowledged: Ranges::default(),
            is_sent: false,
        });
    }

    /// The number that the next message will have.
    pub(super) const fn next_sequence(&self) -> u16 {
        self.next_sequence
    }

    /// Whether the peer has everything.
    pub(super) fn is_done(&self) -> bool {
        self.items.is_empty()
    }

    /// The peer has everything.
    pub(super) fn acknowledge_all(&mut self) {
        self.items = Vec::new();
        self.sent = VecDeque::new();
    }

    /// The peer has this record; whether that is news.
    pub(super) fn acknowledge(&mut self, number: RecordNumber) -> bool {
        let Some(at) = self.sent.iter().position(|sent| sent.number == number) else { return false };
        let Some(Sent { sequence, range, .. }) = self.sent.remove(at) else { return false };
        for item in self.items.iter_mut().filter(|item| item.sequence == sequence) {
            // If there are too many pieces, it goes out once more.
            item.acknowledged.add(range.clone());
        }
        self.items.retain(|item| !(item.is_sent && item.acknowledged.covers(item.body.len())));
        true
    }

    /// Writes what the peer lacks into datagrams of at most `datagram_bytes_max`: all of it, or what was not sent yet.
    pub(super) fn write(
        &mut self,
        records: &mut RecordLayer,
        datagram_bytes_max: usize,
        all: bool,
        out: &mut VecDeque<Box<[u8]>>,
    ) -> Result<(), Fatal> {
        let mut datagram = Datagram { bytes: Vec::new(), bytes_max: datagram_bytes_max, out };
        let mut content = Vec::new();
        for item in self.items.iter_mut().filter(|item| all || !item.is_sent) {
            item.is_sent = true;
            let Item { kind, sequence, body, acknowledged, .. } = &*item;
            let Some(kind) = kind else {
                datagram.seal(records, item.epoch, ContentType::ChangeCipherSpec, body)?;
                continue;
            };
            // A message without a body is a header.
            let empty = body.is_empty().then_some(0..0);
            for mut range in acknowledged.missing(body.len()).chain(empty) {
                loop {
                    let room = datagram.room(records, item.epoch, range.len() + HEADER_BYTES);
                    let end = range.end.min(range.start + room.saturating_sub(HEADER_BYTES));
                    content.clear();
                    content.extend_from_slice(&Fragment::header(
                        *kind,
                        body.len(),
                        *sequence,
                        range.start,
                        end - range.start,
                    ));
                    content.extend_from_slice(&body[range.start..end]);
                    let number = datagram.seal(records, item.epoch, ContentType::Handshake, &content)?;
                    if self.sent.len() == SENT_MAX {
                        self.sent.pop_front();
                    }
                    self.sent.push_back(Sent { number, sequence: *sequence, range: range.start..end });
                    range.start = end;
                    if range.is_empty() {
                        break;
                    }
                }
            }
        }
        datagram.finish();
        Ok(())
    }
}

/// A datagram that is filled record by record.
struct Datagram<'a> {
    bytes: Vec<u8>,
    bytes_max: usize,
    out: &'a mut VecDeque<Box<[u8]>>,
}

impl Datagram<'_> {
    /// How much content the next record may carry, of `wanted`: begins a new datagram where too little fits.
    fn room(&mut self, records: &RecordLayer, epoch: u64, wanted: usize) -> usize {
        let overhead = overhead(records, epoch);
        let bytes_max = self.bytes_max;
        let room = |used: usize| bytes_max.saturating_sub(used + overhead);
        let least = wanted.min(HEADER_BYTES + FRAGMENT_BYTES_MIN);
        if room(self.bytes.len()) < least {
            self.finish();
        }
        // The configuration refuses limits under which nothing fits.
        room(self.bytes.len()).max(HEADER_BYTES + 1)
    }

    fn seal(
        &mut self,
        records: &mut RecordLayer,
        epoch: u64,
        content_type: ContentType,
        content: &[u8],
    ) -> Result<RecordNumber, Fatal> {
        let overhead = overhead(records, epoch);
        if self.bytes.len() + content.len() + overhead > self.bytes_max {
            self.finish();
        }
        let at = self.bytes.len();
        self.bytes.resize(at + content.len() + overhead, 0);
        let number = records.next_number(epoch).ok_or_else(no_key)?;
        let sealed = records.seal_in(epoch, content_type, content, &mut self.bytes[at..]);
        let length = sealed.map_err(|error| Fatal::new(Alert::INTERNAL_ERROR, error.to_string()))?;
        self.bytes.truncate(at + length);
        Ok(number)
    }

    fn finish(&mut self) {
        if !self.bytes.is_empty() {
            self.out.push_back(std::mem::take(&mut self.bytes).into());
        }
    }
}

/// How much longer than its content a record of `epoch` is.
fn overhead(records: &RecordLayer, epoch: u64) -> usize {
    if epoch == 0 { PLAIN_HEADER_BYTES } else { records.overhead() }
}

fn no_key() -> Fatal {
    Fatal::new(Alert::INTERNAL_ERROR, "a message for an epoch without keys")
}
