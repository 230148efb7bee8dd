//! The peer's messages, put together from fragments and in order (RFC 9147 §5.5).
//!
//! Fragments may come in any order, overlap, be repeated and be as short as one byte. Whoever comes first for a byte is
//! believed; a fragment that says another length or kind than the first of its message does not belong to it. Where anybody
//! can be first, it is the other way round: who comes last for a byte is believed, and such a fragment begins its message anew.
//! One that is the whole message goes ahead of what has come in pieces, which is kept in case that one is refused.

use std::collections::VecDeque;

use super::ranges::Ranges;
use crate::wire::messages::{Fragment, MessageType};

/// Longest message: a chain of ten large certificates, with room.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// Bytes of all messages that are under way together, with what it takes to remember which of them have come.
const UNDER_WAY_BYTES_MAX: usize = 48 * 1024;
/// Messages that are kept ahead of the next one: the longest flight has five.
const AHEAD_MAX: u16 = 8;

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: MessageType,
    pub(crate) sequence: u16,
    pub(crate) body: Vec<u8>,
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It brought something.
    Fresh {
        /// Whether something before it is still missing.
        after_gap: bool,
    },
    /// Of a message that is through, or already there.
    Repeated,
    /// Not kept: it is too far ahead, or there is no room; its sender will send it again.
    NoRoom,
    /// It does not fit what came before of its message.
    Mismatch,
    /// Longer than any message may be.
    TooLong,
}

/// Which of two fragments counts that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Believed {
    /// The one that came first: in sealed records both are the peer's.
    First,
    /// The one that came last.
    Newest,
}

/// Messages under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reassembly {
    /// Number of the next message that is given out.
    next: u16,
    /// The next message and those behind it, as far as something of them has come.
    under_way: VecDeque<Option<UnderWay>>,
    bytes: usize,
    /// Pieces of the message that was overtaken by a whole one.
    overtaken: Option<UnderWay>,
}

#[derive(Clone, Debug)]
struct UnderWay {
    kind: MessageType,
    length: usize,
    body: Vec<u8>,
    have: Ranges,
}

impl UnderWay {
    fn belongs(&self, fragment: &Fragment<'_>) -> bool {
        self.kind == fragment.kind && self.length == fragment.length
    }
}

impl Reassembly {
    /// Gives memory back that is not in use.
    pub(super) fn rest(&mut self) {
        self.under_way.shrink_to_fit();
    }

    /// Messages from number `next` on.
    pub(crate) fn starting_at(next: u16) -> Self {
        Self { next, ..Self::default() }
    }

    /// The number of the message that is given out next.
    pub(crate) const fn next_sequence(&self) -> u16 {
        self.next
    }

    /// Whether something of a message has come that is not whole yet.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Takes one fragment; `believed` says whom of those that contradict each other.
    pub(crate) fn handle_fragment(&mut self, fragment: &Fragment<'_>, believed: Believed) -> Taken {
        // Numbers do not wrap: 2^16 messages are more than any association lives to send.
        let Some(ahead) = fragment.sequence.checked_sub(self.next) else { return Taken::Repeated };
        if fragment.length > MESSAGE_BYTES_MAX {
            return Taken::TooLong;
        }
        if ahead >= AHEAD_MAX {
            return Taken::NoRoom;
        }
        let place = usize::from(ahead);
        let range = fragment.offset..fragment.offset + fragment.bytes.len();
        if believed == Believed::Newest
            && let Some(slot) = self.under_way.get_mut(place)
        {
            let is_whole = range.len() == fragment.length;
            let gives_way =
                |known: &mut UnderWay| !known.belongs(fragment) || (is_whole && !known.have.covers(known.length));
            if let Some(known) = slot.take_if(gives_way) {
                self.bytes -= known.body.len();
                if is_whole {
                    self.overtaken = Some(known);
                }
            }
        }
        let known = self.under_way.get(place).and_then(Option::as_ref);
        if let Some(known) = known {
            if !known.belongs(fragment) {
                return Taken::Mismatch;
            }
            let says_other = || known.body.get(range.clone()).is_some_and(|before| before != fragment.bytes);
            if known.have.contains(&range) && !(believed == Believed::Newest && says_other()) {
                return Taken::Repeated;
            }
        }
        let grows_by = range.end.saturating_sub(known.map_or(0, |known| known.body.len()));
        let left = UNDER_WAY_BYTES_MAX.checked_sub(self.bytes + self.pieces_bytes() + grows_by);
        // What joins pieces needs no room for another.
        let Some(left) = left.or((grows_by == 0).then_some(0)) else { return Taken::NoRoom };
        while self.under_way.len() <= place {
            self.under_way.push_back(None);
        }
        let Some(slot) = self.under_way.get_mut(place) else { return Taken::NoRoom };
        let message = slot.get_or_insert_with(|| UnderWay {
            kind: fragment.kind,
            length: fragment.length,
            body: Vec::new(),
            have: Ranges::default(),
        });
        let after_gap = ahead > 0 || !message.have.contains(&(0..range.start));
        let missing: Vec<_> = match believed {
            Believed::First => message.have.missing(range.end).filter(|missing| missing.end > range.start).collect(),
            Believed::Newest => vec![range.clone()],
        };
        if !message.have.add_within(range.clone(), left) {
            return Taken::NoRoom;
        }
        if message.body.len() < range.end {
            self.bytes += range.end - message.body.len();
            message.body.resize(range.end, 0);
        }
        for gap in missing {
            let gap = gap.start.max(range.start)..gap.end;
            let from = gap.start - range.start..gap.end - range.start;
            message.body[gap].copy_from_slice(&fragment.bytes[from]);
        }
        Taken::Fresh { after_gap }
    }

    /// What it takes to remember which bytes have come.
    fn pieces_bytes(&self) -> usize {
        self.under_way.iter().flatten().map(|message| message.have.memory_bytes()).sum()
    }

    /// The next message, once it is whole.
    pub(crate) fn next_message(&mut self) -> Option<Message> {
        let whole = |message: &UnderWay| message.have.covers(message.length);
        if !self.under_way.front()?.as_ref().is_some_and(whole) {
            return None;
        }
        let message = self.under_way.pop_front()??;
        self.bytes -= message.body.len();
        let sequence = self.next;
        self.next = self.next.saturating_add(1);
        Some(Message { kind: message.kind, sequence, body: message.body })
    }

    /// Forgets the message that was given out last, so that another one may come in its place: the one that came was
    /// anybody's.
    pub(crate) fn reject_last(&mut self) {
        if let Some(before) = self.next.checked_sub(1) {
            self.next = before;
            let overtaken = self.overtaken.take();
            self.bytes = overtaken.as_ref().map_or(0, |message| message.body.len());
            self.under_way = overtaken.into_iter().map(Some).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fragment(sequence: u16, body: &[u8], at: std::ops::Range<usize>) -> Fragment<'_> {
        Fragment { kind: MessageType::CERTIFICATE, length: body.len(), sequence, offset: at.start, bytes: &body[at] }
    }

    proptest! {
        #[test]
        fn any_order_of_fragments_makes_the_messages(
            lengths in proptest::collection::vec(0usize..300, 1..6),
            cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1usize..80), 0..200),
        ) {
            let bodies: Vec<Vec<u8>> =
                lengths.iter().enumerate().map(|(n, length)| (0..*length).map(|at| (at * 7 + n) as u8).collect()).collect();
            let mut reassembly = Reassembly::default();
            let mut out = Vec::new();
            for (which, at, length) in cuts {
                let which = which.index(bodies.len());
                let body = &bodies[which];
                let start = at.index(body.len() + 1);
                let taken = reassembly.handle_fragment(&fragment(which as u16, body, start..(start + length).min(body.len())), Believed::First);
                prop_assert!(matches!(taken, Taken::Fresh { .. } | Taken::Repeated), "{:?}", taken);
                out.extend(std::iter::from_fn(|| reassembly.next_message()));
            }
            for (which, body) in bodies.iter().enumerate() {
                reassembly.handle_fragment(&fragment(which as u16, body, 0..body.len()), Believed::First);
                out.extend(std::iter::from_fn(|| reassembly.next_message()));
            }
            let got: Vec<Vec<u8>> = out.into_iter().map(|message| message.body).collect();
            prop_assert_eq!(got, bodies);
            prop_assert_eq!(reassembly.bytes, 0);
        }
    }

    #[test]
    fn what_does_not_belong_together_is_told_apart() {
        let body = [1; 100];
        let mut reassembly = Reassembly::default();
        assert_eq!(
            reassembly.handle_fragment(&fragment(0, &body, 10..20), Believed::First),
            Taken::Fresh { after_gap: true }
        );
        assert_eq!(reassembly.handle_fragment(&fragment(0, &body, 12..18), Believed::First), Taken::Repeated);
        assert_eq!(reassembly.handle_fragment(&fragment(0, &body[..99], 0..9), Believed::First), Taken::Mismatch);
        let other = Fragment { kind: MessageType::FINISHED, ..fragment(0, &body, 0..9) };
        assert_eq!(reassembly.handle_fragment(&other, Believed::First), Taken::Mismatch);
        // The first byte to come stays.
        assert_eq!(
            reassembly.handle_fragment(&fragment(0, &[2; 100], 0..100), Believed::First),
            Taken::Fresh { after_gap: false }
        );
        let body = reassembly.next_message().unwrap().body;
        assert!(body[10..20].iter().all(|byte| *byte == 1) && body[..10].iter().all(|byte| *byte == 2));
        assert_eq!(reassembly.handle_fragment(&fragment(0, &body, 0..100), Believed::First), Taken::Repeated);
    }

    #[test]
    fn in_the_clear_the_whole_message_wins() {
        let mut reassembly = Reassembly::default();
        // Somebody else was first: with another length, then with other bytes.
        reassembly.handle_fragment(&fragment(0, &[9; 50], 0..20), Believed::Newest);
        reassembly.handle_fragment(&fragment(0, &[8; 100], 0..20), Believed::Newest);
        assert_eq!(
            reassembly.handle_fragment(&fragment(0, &[7; 100], 0..100), Believed::Newest),
            Taken::Fresh { after_gap: false }
        );
        assert_eq!(reassembly.bytes, 100);
        assert_eq!(reassembly.next_message().unwrap().body, [7; 100]);
        assert_eq!(reassembly.bytes, 0);
        // Refused, it gives the place back to what it overtook.
        reassembly.reject_last();
        assert_eq!(reassembly.bytes, 20);
        reassembly.handle_fragment(&fragment(0, &[8; 100], 20..100), Believed::Newest);
        assert_eq!(reassembly.next_message().unwrap().body, [8; 100]);
    }

    #[test]
    fn in_the_clear_the_newest_fragment_wins() {
        let mut reassembly = Reassembly::default();
        reassembly.handle_fragment(&fragment(0, &[1; 100], 0..40), Believed::Newest);
        // Damaged, and then as it was said.
        reassembly.handle_fragment(&fragment(0, &[9; 100], 30..70), Believed::Newest);
        assert_eq!(
            reassembly.handle_fragment(&fragment(0, &[1; 100], 30..70), Believed::Newest),
            Taken::Fresh { after_gap: false }
        );
        assert_eq!(reassembly.handle_fragment(&fragment(0, &[1; 100], 30..70), Believed::Newest), Taken::Repeated);
        assert_eq!(reassembly.bytes, 70);
        reassembly.handle_fragment(&fragment(0, &[1; 100], 70..100), Believed::Newest);
        assert_eq!(reassembly.next_message().unwrap().body, [1; 100]);
        assert_eq!(reassembly.bytes, 0);
    }

    #[test]
    fn memory_is_bounded() {
        let long = vec![0; MESSAGE_BYTES_MAX + 1];
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.handle_fragment(&fragment(0, &long, 0..10), Believed::First), Taken::TooLong);
        assert_eq!(reassembly.handle_fragment(&fragment(AHEAD_MAX, &long[..9], 0..9), Believed::First), Taken::NoRoom);
        for sequence in 0..AHEAD_MAX {
            reassembly.handle_fragment(&fragment(sequence, &long[1..], 0..10_000), Believed::First);
        }
        assert!(reassembly.bytes <= UNDER_WAY_BYTES_MAX);
        assert_eq!(reassembly.handle_fragment(&fragment(7, &long[1..], 0..10_000), Believed::First), Taken::NoRoom);
    }

    /// What it takes to remember which bytes have come counts too: it may be more than the bytes.
    #[test]
    fn the_memory_of_pieces_is_bounded() {
        let body = vec![5; 2_000];
        let mut reassembly = Reassembly::default();
        let most = |reassembly: &Reassembly| {
            assert!(reassembly.bytes + reassembly.pieces_bytes() <= UNDER_WAY_BYTES_MAX);
        };
        for sequence in 0..AHEAD_MAX {
            for at in (1..body.len()).step_by(2) {
                reassembly.handle_fragment(&fragment(sequence, &body, at..at + 1), Believed::First);
                most(&reassembly);
            }
        }
        assert!(reassembly.pieces_bytes() > UNDER_WAY_BYTES_MAX / 2);
        // Whoever fills the gaps from the start still gets through.
        for sequence in 0..AHEAD_MAX {
            for at in 0..body.len() {
                reassembly.handle_fragment(&fragment(sequence, &body, at..at + 1), Believed::First);
                most(&reassembly);
            }
            assert_eq!(reassembly.next_message().unwrap().body, body);
        }
        assert_eq!((reassembly.bytes, reassembly.pieces_bytes()), (0, 0));
    }

    #[test]
    fn a_rejected_message_may_come_again() {
        let mut reassembly = Reassembly::starting_at(1);
        reassembly.handle_fragment(&fragment(1, &[1; 4], 0..4), Believed::First);
        assert_eq!(reassembly.next_message().unwrap().sequence, 1);
        reassembly.reject_last();
        reassembly.handle_fragment(&fragment(1, &[2; 5], 0..5), Believed::First);
        assert_eq!(reassembly.next_message().unwrap().body, [2; 5]);
    }
}
