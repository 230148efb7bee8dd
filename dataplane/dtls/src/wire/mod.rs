//! Reading and writing the presentation language of TLS (RFC 8446 §3), and the messages written in it.
//!
//! A [`Reader`] never goes beyond the bytes it was given; a vector's length is checked before its content is looked at. A
//! parser takes everything or fails: what is left over is an error ([`Reader::end`]).
//!
//! Nothing here decides whether a message is welcome; that is the handshake's business.

pub(crate) mod hello;
pub(crate) mod messages;
pub(crate) mod messages12;

use crate::alert::{Alert, Fatal};

/// Bytes that are not what they should be. The alert for it is always `decode_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl From<Malformed> for Fatal {
    fn from(Malformed(what): Malformed) -> Self {
        Self::new(Alert::DECODE_ERROR, what)
    }
}

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// What is read, for the error.
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed(self.what))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed(self.what))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u24(&mut self) -> Result<usize, Malformed> {
        let [high, middle, low] = self.array()?;
        Ok(u32::from_be_bytes([0, high, middle, low]) as usize)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A vector with a length of one byte.
    pub(crate) fn vec8(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    /// A vector with a length of two bytes.
    pub(crate) fn vec16(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A vector with a length of three bytes.
    pub(crate) fn vec24(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u24()?;
        self.take(length)
    }

    /// That everything has been read.
    pub(crate) const fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed(self.what)) }
    }
}

/// A list of numbers of two bytes each: suites, groups, schemes, versions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct U16List<'a>(&'a [[u8; 2]]);

impl<'a> U16List<'a> {
    /// Reads a list that has at least one member, as all of TLS's have.
    pub(crate) fn parse(what: &'static str, bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes.as_chunks() {
            (list, []) if !list.is_empty() => Ok(Self(list)),
            _ => Err(Malformed(what)),
        }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u16> + 'a {
        self.0.iter().map(|number| u16::from_be_bytes(*number))
    }

    pub(crate) fn contains(self, number: u16) -> bool {
        self.iter().any(|other| other == number)
    }
}

/// Writes a message. Lengths are filled in when what they are of has been written.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, number: u8) -> &mut Self {
        self.0.push(number);
        self
    }

    pub(crate) fn u16(&mut self, number: u16) -> &mut Self {
        self.bytes(&number.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, number: u64) -> &mut Self {
        self.bytes(&number.to_be_bytes())
    }

    pub(crate) fn u16s(&mut self, numbers: &[u16]) -> &mut Self {
        numbers.iter().fold(self, |w, number| w.u16(*number))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A vector with a length of one byte.
    pub(crate) fn vec8(&mut self, content: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        self.vector::<1>(content)
    }

    /// A vector with a length of two bytes.
    pub(crate) fn vec16(&mut self, content: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        self.vector::<2>(content)
    }

    /// A vector with a length of three bytes.
    pub(crate) fn vec24(&mut self, content: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        self.vector::<3>(content)
    }

    /// An extension with its number.
    pub(crate) fn extension(&mut self, number: u16, content: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        self.u16(number).vec16(content)
    }

    /// Everything we write is far shorter than what its length can say: our own certificates bound it, and those were
    /// checked when the configuration was made.
    fn vector<const N: usize>(&mut self, content: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        let at = self.0.len();
        self.0.extend_from_slice(&[0; N]);
        content(self);
        let length = (self.0.len() - at - N).to_be_bytes();
        self.0[at..at + N].copy_from_slice(&length[length.len() - N..]);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.u8(1).vec8(|w| w.bytes(b"abc")).vec16(|w| w.u16s(&[2, 3])).vec24(|w| w.u64(4));
        let mut reader = Reader::new("test", &writer.0);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.vec8(), Ok(&b"abc"[..]));
        let list = U16List::parse("test", reader.vec16().unwrap()).unwrap();
        assert_eq!(list.iter().collect::<Vec<_>>(), [2, 3]);
        assert!(list.contains(3) && !list.contains(4));
        assert_eq!(reader.end(), Err(Malformed("test")), "something is left");
        assert_eq!(Reader::new("test", reader.vec24().unwrap()).u64(), Ok(4));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn a_reader_stays_within_its_bytes() {
        assert!(Reader::new("test", &[2, 1]).vec8().is_err());
        assert!(Reader::new("test", &[0, 2, 1]).vec16().is_err());
        assert!(Reader::new("test", &[0, 0, 2, 1]).vec24().is_err());
        assert!(Reader::new("test", &[0]).u16().is_err());
        for not_a_list in [&[][..], &[1], &[1, 2, 3]] {
            assert!(U16List::parse("test", not_a_list).is_err());
        }
    }
}
