//! BER as LDAP restricts it (RFC 4511 §5.1, ITU-T X.690 §8): definite lengths, tags of one byte, strings in one piece.
//!
//! A [`Reader`] lends pieces of the message and copies nothing. It goes down only where its caller asks it to, and passes over all else
//! by its length, so that no message makes it recurse. A [`Writer`] writes into memory that never grows and is wiped.

use zeroize::Zeroizing;

/// Longest message of a directory, in bytes: a user with some thousand groups has 100 KB.
pub(super) const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Longest request of ours, in bytes.
pub(super) const REQUEST_BYTES_MAX: usize = 32 << 10;
/// Elements within elements that are gone into; an entry has five.
const DEPTH_MAX: u8 = 16;

/// Universal tags (X.690 §8, ITU-T X.680 §8.4).
pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// Bytes that are not the BER that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BerError {
    /// It ends within an element.
    #[error("expected an element, found the end of what it stands in")]
    Truncated,
    /// X.690 §8.1.3.6, which LDAP does not use.
    #[error("expected a definite length, found an indefinite one")]
    Indefinite,
    /// A length that no message has.
    #[error("expected at most {MESSAGE_BYTES_MAX} bytes, found a greater length")]
    TooLong,
    /// X.690 §8.1.2.4, which LDAP does not use.
    #[error("expected a tag of one byte, found a longer one")]
    LongTag,
    /// Another element.
    #[error("expected an element with the tag {expected:#04x}, found {found:#04x}")]
    Tag {
        /// That of what is expected.
        expected: u8,
        /// That of what came.
        found: u8,
    },
    /// A number below 0 or beyond 2³¹ - 1 (RFC 4511 §4.1.1).
    #[error("expected a number from 0 to 2147483647")]
    Number,
    /// A string.
    #[error("expected UTF-8 of at most {0} bytes")]
    Text(usize),
    /// More of something than is listened to.
    #[error("expected at most {0} {1}")]
    TooMany(usize, &'static str),
    /// Elements within elements within elements.
    #[error("expected at most {DEPTH_MAX} elements within each other")]
    TooDeep,
    /// More than one message where one was expected.
    #[error("expected the end of the message, found more")]
    Trailing,
}

/// The start of an element.
struct Header {
    tag: u8,
    /// Of the header itself.
    bytes: usize,
    content_bytes: usize,
}

impl Header {
    /// That at the start of `bytes`; `None` while it is not whole.
    fn read(bytes: &[u8]) -> Result<Option<Self>, BerError> {
        let [tag, rest @ ..] = bytes else { return Ok(None) };
        if tag & 0x1f == 0x1f {
            return Err(BerError::LongTag);
        }
        let [first, rest @ ..] = rest else { return Ok(None) };
        let (more, content_bytes) = match first {
            0..=0x7f => (0, usize::from(*first)),
            0x80 => return Err(BerError::Indefinite),
            // Directories may use more bytes than they need: some always send four.
            0x81..=0x84 => {
                let more = usize::from(first & 0x7f);
                let Some(length) = rest.get(..more) else { return Ok(None) };
                (more, length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
            }
            _ => return Err(BerError::TooLong),
        };
        if content_bytes > MESSAGE_BYTES_MAX {
            return Err(BerError::TooLong);
        }
        Ok(Some(Self { tag: *tag, bytes: 2 + more, content_bytes }))
    }
}

/// How long the message is that begins with `start`; `None` while that cannot be told.
pub(super) fn message_bytes(start: &[u8]) -> Result<Option<usize>, BerError> {
    match start.first() {
        None | Some(&SEQUENCE) => {}
        Some(&found) => return Err(BerError::Tag { expected: SEQUENCE, found }),
    }
    let Some(header) = Header::read(start)? else { return Ok(None) };
    let total = header.bytes + header.content_bytes;
    if total > MESSAGE_BYTES_MAX { Err(BerError::TooLong) } else { Ok(Some(total)) }
}

/// Elements one after the other.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    depth: u8,
}

impl<'a> Reader<'a> {
    /// What `bytes` has.
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, depth: 0 }
    }

    /// Whether there is no further element.
    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The tag of the next element.
    pub(super) fn peek(&self) -> Result<u8, BerError> {
        self.rest.first().copied().ok_or(BerError::Truncated)
    }

    /// The next element, whose tag is `tag`: its content.
    pub(super) fn content(&mut self, tag: u8) -> Result<&'a [u8], BerError> {
        let found = self.peek()?;
        if found == tag { Ok(self.next()?.1) } else { Err(BerError::Tag { expected: tag, found }) }
    }

    /// The next element if its tag is `tag`.
    pub(super) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, BerError> {
        if self.rest.first() == Some(&tag) { self.content(tag).map(Some) } else { Ok(None) }
    }

    /// What is in the next element, whose tag is `tag`.
    pub(super) fn nested(&mut self, tag: u8) -> Result<Self, BerError> {
        if self.depth >= DEPTH_MAX {
            return Err(BerError::TooDeep);
        }
        Ok(Self { rest: self.content(tag)?, depth: self.depth + 1 })
    }

    /// INTEGER or ENUMERATED as LDAP has them: not negative, of 31 bits.
    pub(super) fn number(&mut self, tag: u8) -> Result<u32, BerError> {
        match self.content(tag)? {
            [first @ 0..=0x7f, rest @ ..] if rest.len() < 4 => {
                Ok(rest.iter().fold(u32::from(*first), |number, byte| number << 8 | u32::from(*byte)))
            }
            _ => Err(BerError::Number),
        }
    }

    /// The text of an element of at most `bytes_max`.
    pub(super) fn text(&mut self, tag: u8, bytes_max: usize) -> Result<&'a str, BerError> {
        let content = self.content(tag)?;
        let text = std::str::from_utf8(content).ok().filter(|text| text.len() <= bytes_max);
        text.ok_or(BerError::Text(bytes_max))
    }

    /// Passes over what is left: components of a later version of the protocol (RFC 4511 §4). They must be elements.
    pub(super) fn pass_over(mut self) -> Result<(), BerError> {
        while !self.is_empty() {
            self.next()?;
        }
        Ok(())
    }

    /// Nothing may be left.
    pub(super) const fn end(&self) -> Result<(), BerError> {
        if self.is_empty() { Ok(()) } else { Err(BerError::Trailing) }
    }

    fn next(&mut self) -> Result<(u8, &'a [u8]), BerError> {
        let header = Header::read(self.rest)?.ok_or(BerError::Truncated)?;
        let content = self.rest.get(header.bytes..).ok_or(BerError::Truncated)?;
        let (content, rest) = content.split_at_checked(header.content_bytes).ok_or(BerError::Truncated)?;
        self.rest = rest;
        Ok((header.tag, content))
    }
}

/// A request while it is written.
pub(super) struct Writer {
    /// It is never moved, so that no copy of a password stays behind.
    bytes: Zeroizing<Vec<u8>>,
    is_full: bool,
}

impl Writer {
    /// With nothing in it.
    pub(super) fn new() -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(REQUEST_BYTES_MAX)), is_full: false }
    }

    /// An element of what `content` writes.
    pub(super) fn nested(&mut self, tag: u8, content: impl FnOnce(&mut Self)) {
        self.put(&[tag]);
        let start = self.bytes.len();
        content(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX).to_be_bytes();
        // The length is known only now, and stands before the content.
        let octets = match length {
            [0, 0, 0, short @ 0..=0x7f] => self.put(&[short]),
            [0, 0, 0, one] => self.put(&[0x81, one]),
            [0, 0, high, low] => self.put(&[0x82, high, low]),
            [a, b, c, d] => self.put(&[0x84, a, b, c, d]),
        };
        self.bytes[start..].rotate_right(octets);
    }

    /// An element with this content.
    pub(super) fn element(&mut self, tag: u8, content: &[u8]) {
        self.nested(tag, |within| {
            within.put(content);
        });
    }

    /// INTEGER or ENUMERATED.
    pub(super) fn number(&mut self, tag: u8, number: u32) {
        let bytes = u64::from(number).to_be_bytes();
        // As few bytes as it takes, and the first bit 0: it is the sign.
        let skipped = bytes.windows(2).take_while(|two| two[0] == 0 && two[1] <= 0x7f).count();
        self.element(tag, &bytes[skipped..]);
    }

    /// BOOLEAN, of which LDAP writes TRUE as 0xff (RFC 4511 §5.1).
    pub(super) fn boolean(&mut self, tag: u8, is_true: bool) {
        self.element(tag, &[if is_true { 0xff } else { 0 }]);
    }

    /// Bytes as they are: how many there was room for.
    pub(super) fn put(&mut self, bytes: &[u8]) -> usize {
        self.is_full |= bytes.len() > REQUEST_BYTES_MAX - self.bytes.len();
        if self.is_full {
            return 0;
        }
        self.bytes.extend_from_slice(bytes);
        bytes.len()
    }

    /// All of it; `None` if there was no room for all of it.
    pub(super) fn finish(self) -> Option<Zeroizing<Vec<u8>>> {
        (!self.is_full).then_some(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new();
        write(&mut writer);
        writer.finish().unwrap().to_vec()
    }

    #[test]
    fn lengths_are_definite_and_bounded() {
        let read = |bytes: &[u8]| Reader::new(bytes).content(OCTET_STRING).map(<[u8]>::to_vec);
        for (bytes, content) in [
            (&b"\x04\x00"[..], &b""[..]),
            (b"\x04\x02hi", b"hi"),
            (b"\x04\x81\x02hi", b"hi"),
            (b"\x04\x84\x00\x00\x00\x02hi", b"hi"),
        ] {
            assert_eq!(read(bytes).unwrap(), content);
        }
        for (bytes, error) in [
            (&b""[..], BerError::Truncated),
            (b"\x04", BerError::Truncated),
            (b"\x04\x02h", BerError::Truncated),
            (b"\x04\x82\x00", BerError::Truncated),
            (b"\x04\x80hi\x00\x00", BerError::Indefinite),
            (b"\x04\x84\x00\x04\x00\x01", BerError::TooLong),
            (b"\x04\x84\xff\xff\xff\xff", BerError::TooLong),
            (b"\x04\x85\x00\x00\x00\x00\x02hi", BerError::TooLong),
            (b"\x04\xff", BerError::TooLong),
            (b"\x24\x02hi", BerError::Tag { expected: OCTET_STRING, found: 0x24 }),
        ] {
            assert_eq!(read(bytes).unwrap_err(), error, "{bytes:02x?}");
        }
        assert_eq!(Reader::new(b"\x1f\x20\x00").next().unwrap_err(), BerError::LongTag);
    }

    #[test]
    fn a_message_is_known_by_its_start() {
        for (start, total) in [
            (&b""[..], None),
            (b"\x30", None),
            (b"\x30\x82\x01", None),
            (b"\x30\x05", Some(7)),
            (b"\x30\x82\x01\x00", Some(260)),
        ] {
            assert_eq!(message_bytes(start).unwrap(), total);
        }
        assert_eq!(message_bytes(b"HTTP").unwrap_err(), BerError::Tag { expected: SEQUENCE, found: b'H' });
        assert_eq!(message_bytes(b"\x30\x83\x04\x00\x00").unwrap_err(), BerError::TooLong, "with its header");
        assert_eq!(message_bytes(b"\x30\x80").unwrap_err(), BerError::Indefinite);
    }

    #[test]
    fn numbers_have_31_bits() {
        for number in [0, 1, 127, 128, 255, 256, 32_767, 32_768, 0x7fff_ffff] {
            let bytes = written(|writer| writer.number(INTEGER, number));
            assert_eq!(Reader::new(&bytes).number(INTEGER).unwrap(), number);
        }
        assert_eq!(written(|writer| writer.number(INTEGER, 128)), b"\x02\x02\x00\x80");
        for bad in [&b"\x02\x00"[..], b"\x02\x01\x80", b"\x02\x05\x00\x00\x00\x00\x01"] {
            assert_eq!(Reader::new(bad).number(INTEGER).unwrap_err(), BerError::Number);
        }
    }

    #[test]
    fn elements_within_elements_are_bounded() {
        let nested = (0..40).fold(Vec::new(), |within: Vec<u8>, _| written(|writer| writer.element(SEQUENCE, &within)));
        let mut reader = Reader::new(&nested);
        for _ in 0..DEPTH_MAX {
            reader = reader.nested(SEQUENCE).unwrap();
        }
        assert_eq!(reader.nested(SEQUENCE).unwrap_err(), BerError::TooDeep);
        Reader::new(&nested).pass_over().unwrap();
    }

    #[test]
    fn a_request_without_room_is_none() {
        let mut writer = Writer::new();
        writer.nested(SEQUENCE, |within| within.element(OCTET_STRING, &[b'x'; REQUEST_BYTES_MAX]));
        assert!(writer.finish().is_none());
        let mut writer = Writer::new();
        writer.nested(SEQUENCE, |within| within.element(OCTET_STRING, &[b'x'; REQUEST_BYTES_MAX - 8]));
        assert_eq!(writer.finish().unwrap().len(), REQUEST_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = message_bytes(&bytes);
            let _ = Reader::new(&bytes).pass_over();
            let mut reader = Reader::new(&bytes);
            while let Ok((_, content)) = reader.next() {
                let _ = Reader::new(content).pass_over();
            }
        }

        #[test]
        fn what_is_written_is_read(content in proptest::collection::vec(any::<u8>(), 0..20_000), number in 0..=0x7fff_ffff_u32) {
            let bytes = written(|writer| writer.nested(SEQUENCE, |within| {
                within.number(ENUMERATED, number);
                within.element(OCTET_STRING, &content);
                within.boolean(BOOLEAN, true);
            }));
            prop_assert_eq!(message_bytes(&bytes).unwrap(), Some(bytes.len()));
            let mut outer = Reader::new(&bytes);
            let mut within = outer.nested(SEQUENCE).unwrap();
            outer.end().unwrap();
            prop_assert_eq!(within.number(ENUMERATED).unwrap(), number);
            prop_assert_eq!(within.content(OCTET_STRING).unwrap(), &content[..]);
            prop_assert_eq!(within.optional(INTEGER).unwrap(), None);
            prop_assert_eq!(within.optional(BOOLEAN).unwrap(), Some(&[0xff][..]));
            within.end().unwrap();
        }
    }
}
