//! The client's second flight of DTLS 1.2, as far as it is in the clear (RFC 6347 §4.2.4): Certificate, ClientKeyExchange,
//! CertificateVerify.
//!
//! Anybody may have sent any of it. So nothing is final: of two messages for one place the newest counts, until a record proves
//! the flight that its keys come of. What a client really said comes again with its next repetition, in the place of what was
//! forged.

use super::reassembly::{Believed, Reassembly, Taken};
use crate::alert::{Alert, Fatal};
use crate::wire::messages::{Fragment, MessageType};

/// Longest ClientKeyExchange, with room: the largest point has 97 bytes.
const KEY_BYTES_MAX: usize = 256;
/// Longest CertificateVerify, with room: an RSA key of 8,192 bits signs in 1,024 bytes.
const SIGNATURE_BYTES_MAX: usize = 2_048;
/// Longest Certificate.
const CHAIN_BYTES_MAX: usize = 24 * 1_024;

/// A place in the flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Certificate,
    Key,
    Signature,
}

impl Part {
    pub(super) const fn kind(self) -> MessageType {
        match self {
            Self::Certificate => MessageType::CERTIFICATE,
            Self::Key => MessageType::CLIENT_KEY_EXCHANGE,
            Self::Signature => MessageType::CERTIFICATE_VERIFY,
        }
    }

    const fn bytes_max(self) -> usize {
        match self {
            Self::Certificate => CHAIN_BYTES_MAX,
            Self::Key => KEY_BYTES_MAX,
            Self::Signature => SIGNATURE_BYTES_MAX,
        }
    }
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct ClientFlight {
    /// The number of its first message.
    first: u16,
    places: Vec<Place>,
}

#[derive(Clone, Debug)]
struct Place {
    part: Part,
    whole: Option<Vec<u8>>,
    under_way: Reassembly,
}

/// What a fragment has brought.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing new.
    Nothing,
    /// A message that cannot be.
    Wrong(Fatal),
    /// A message is whole, the first in its place or another than before, which is given.
    Whole(Part, Option<Vec<u8>>),
}

impl ClientFlight {
    /// A flight from message number `first` on, with a certificate if one was `asked` for.
    pub(super) fn new(first: u16, asked: bool) -> Self {
        let parts: &[Part] = if asked { &[Part::Certificate, Part::Key, Part::Signature] } else { &[Part::Key] };
        let place = |(number, part): (u16, &Part)| Place {
            part: *part,
            whole: None,
            under_way: Reassembly::starting_at(first.saturating_add(number)),
        };
        Self { first, places: (0..).zip(parts).map(place).collect() }
    }

    /// The number of the message at `place`, or of the one behind the last.
    fn number(&self, place: usize) -> u16 {
        self.first.saturating_add(place as u16)
    }

    /// The message for `part`, if it is whole, and its number.
    pub(super) fn whole(&self, part: Part) -> Option<(u16, &[u8])> {
        let place = self.places.iter().position(|place| place.part == part)?;
        Some((self.number(place), self.places.get(place)?.whole.as_deref()?))
    }

    /// Whether the flight begins with message `number`.
    pub(super) const fn is_first(&self, number: u16) -> bool {
        self.first == number
    }

    /// The number of the Finished, which has no signature before it if the client has shown no certificate.
    pub(super) fn finished(&self, is_signed: bool) -> u16 {
        let unsigned = self.places.iter().filter(|place| is_signed || place.part != Part::Signature);
        self.number(unsigned.count())
    }

    /// Puts back what was in a place, or nothing.
    pub(super) fn put_back(&mut self, part: Part, whole: Option<Vec<u8>>) {
        if let Some(place) = self.places.iter_mut().find(|place| place.part == part) {
            place.whole = whole;
        }
    }

    /// Takes a fragment that came in the clear.
    pub(super) fn handle_fragment(&mut self, fragment: &Fragment<'_>) -> Heard {
        // Repetitions of what was before are no part of it.
        let Some(place) = fragment.sequence.checked_sub(self.first) else { return Heard::Nothing };
        if fragment.kind == MessageType::CLIENT_HELLO {
            return Heard::Nothing;
        }
        let number = fragment.sequence;
        let Some(place) = self.places.get_mut(usize::from(place)).filter(|place| place.part.kind() == fragment.kind)
        else {
            let reason = format!("a message of type {} was not expected in the clear", fragment.kind.0);
            return Heard::Wrong(Fatal::new(Alert::UNEXPECTED_MESSAGE, reason));
        };
        let too_long = || Heard::Wrong(Fatal::new(Alert::ILLEGAL_PARAMETER, "a message longer than any may be"));
        if fragment.length > place.part.bytes_max() {
            return too_long();
        }
        match place.under_way.handle_fragment(fragment, Believed::Newest) {
            Taken::TooLong => return too_long(),
            Taken::Fresh { .. } | Taken::Repeated | Taken::NoRoom | Taken::Mismatch => {}
        }
        let Some(message) = place.under_way.next_message() else { return Heard::Nothing };
        place.under_way = Reassembly::starting_at(number);
        if place.whole.as_ref() == Some(&message.body) {
            return Heard::Nothing;
        }
        Heard::Whole(place.part, place.whole.replace(message.body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(kind: MessageType, sequence: u16, body: &[u8], at: std::ops::Range<usize>) -> Fragment<'_> {
        Fragment { kind, length: body.len(), sequence, offset: at.start, bytes: &body[at] }
    }

    fn whole(kind: MessageType, sequence: u16, body: &[u8]) -> Fragment<'_> {
        fragment(kind, sequence, body, 0..body.len())
    }

    #[test]
    fn messages_come_in_any_order_and_the_newest_counts() {
        let mut flight = ClientFlight::new(2, true);
        let (key, chain) = (MessageType::CLIENT_KEY_EXCHANGE, MessageType::CERTIFICATE);
        assert!(matches!(flight.handle_fragment(&whole(key, 3, b"forged")), Heard::Whole(Part::Key, None)));
        assert!(matches!(flight.handle_fragment(&fragment(chain, 2, b"chain", 3..5)), Heard::Nothing));
        assert!(matches!(
            flight.handle_fragment(&fragment(chain, 2, b"chain", 0..3)),
            Heard::Whole(Part::Certificate, None)
        ));
        assert_eq!(flight.whole(Part::Certificate), Some((2, &b"chain"[..])));
        assert!(matches!(flight.handle_fragment(&whole(chain, 2, b"chain")), Heard::Nothing), "the same again");
        let Heard::Whole(Part::Key, Some(before)) = flight.handle_fragment(&whole(key, 3, b"real")) else { panic!() };
        assert_eq!((before, flight.whole(Part::Key)), (b"forged".to_vec(), Some((3, &b"real"[..]))));
        flight.put_back(Part::Key, None);
        assert_eq!(flight.whole(Part::Key), None);
        assert_eq!((flight.finished(true), flight.finished(false)), (5, 4));
    }

    #[test]
    fn what_cannot_be_is_told_apart_from_what_is_old() {
        let mut flight = ClientFlight::new(2, false);
        assert_eq!(flight.finished(false), 3);
        let mut heard = |kind, sequence, body: &[u8]| flight.handle_fragment(&whole(kind, sequence, body));
        for old in [MessageType::FINISHED, MessageType::CLIENT_HELLO] {
            assert!(matches!(heard(old, 1, b""), Heard::Nothing));
        }
        for (kind, number) in [
            (MessageType::CERTIFICATE, 2),
            (MessageType::FINISHED, 2),
            (MessageType::CLIENT_KEY_EXCHANGE, 3),
            (MessageType::CLIENT_KEY_EXCHANGE, u16::MAX),
        ] {
            let Heard::Wrong(fatal) = heard(kind, number, b"x") else { panic!("{kind:?} {number}") };
            assert_eq!(fatal.alert, Alert::UNEXPECTED_MESSAGE);
        }
        let Heard::Wrong(fatal) = heard(MessageType::CLIENT_KEY_EXCHANGE, 2, &[0; KEY_BYTES_MAX + 1]) else { panic!() };
        assert_eq!(fatal.alert, Alert::ILLEGAL_PARAMETER);
        assert!(matches!(heard(MessageType::CLIENT_KEY_EXCHANGE, 2, b"x"), Heard::Whole(Part::Key, None)));
    }
}
