//! What of a record is in the clear: the header of 13 bytes that plaintext and DTLS 1.2 share (RFC 9147 §4, RFC 6347 §4.1,
//! RFC 9146 §4), and the unified header of DTLS 1.3 (RFC 9147 §4).
//!
//! Everything here looks at bytes that anybody can send. Ranges are within the datagram that was parsed, so that callers
//! work in place.

use std::ops::Range;

use super::{CONTENT_BYTES_MAX, ContentType, SealError, TAG_BYTES};

/// Type, version, epoch, sequence number and length.
pub(crate) const PLAIN_HEADER_BYTES: usize = 13;
/// How much longer than its content a record of DTLS 1.2 may be (RFC 5246 §6.2.3).
const EXPANSION_BYTES_MAX_12: usize = 2_048;
/// The same for DTLS 1.3 (RFC 8446 §5.2).
const EXPANSION_BYTES_MAX_13: usize = 256;
/// The highest sequence number that 48 bits hold.
pub(super) const SEQUENCE_MAX: u64 = (1 << 48) - 1;

/// Bits of the first byte of a unified header.
pub(super) mod unified {
    /// The three highest bits, and what they are.
    pub(in super::super) const FIXED_MASK: u8 = 0b1110_0000;
    pub(in super::super) const FIXED: u8 = 0b0010_0000;
    /// A connection id is present.
    pub(in super::super) const CONNECTION_ID: u8 = 0b0001_0000;
    /// The sequence number has 16 bits, not 8.
    pub(in super::super) const SEQUENCE_16: u8 = 0b0000_1000;
    /// A length is present.
    pub(in super::super) const LENGTH: u8 = 0b0000_0100;
    /// The two low bits of the epoch.
    pub(in super::super) const EPOCH_MASK: u8 = 0b0000_0011;
}

/// The version field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version(
    /// Major and minor byte, each the complement of what they mean.
    pub [u8; 2],
);

impl Version {
    /// DTLS 1.0, also what a first ClientHello may say (RFC 9147 §4).
    pub const DTLS_1_0: Self = Self([0xfe, 0xff]);
    /// DTLS 1.2, and what plaintext records of DTLS 1.3 say.
    pub const DTLS_1_2: Self = Self([0xfe, 0xfd]);
}

/// The header of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// Plaintext, or a protected record of DTLS 1.2.
    Plain(Plain),
    /// A protected record of DTLS 1.3.
    Unified(Unified),
}

/// A header with a content type in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// [`ContentType::Tls12Cid`] if and only if there is a connection id.
    pub content_type: ContentType,
    /// As it stands there. DTLS 1.3 ignores it.
    pub version: Version,
    /// All 16 bits; 0 is plaintext.
    pub epoch: u16,
    /// All 48 bits.
    pub sequence: u64,
    /// Where the record begins.
    pub start: usize,
    /// The connection id; empty without one.
    pub connection_id: Range<usize>,
    /// What follows the header. It ends where the record ends.
    pub fragment: Range<usize>,
}

/// A header of DTLS 1.3 after its first plaintext records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unified {
    /// The two low bits of the epoch.
    pub epoch_bits: u8,
    /// Where the record begins. The header, which is authenticated with the record, ends where the ciphertext begins.
    pub start: usize,
    /// The connection id; empty without one.
    pub connection_id: Range<usize>,
    /// The masked sequence number: one byte or two.
    pub sequence: Range<usize>,
    /// Ciphertext and tag, at least 16 bytes. It ends where the record ends.
    pub ciphertext: Range<usize>,
}

impl Header {
    /// The header of the record that begins at `offset` of `datagram`. `connection_id_bytes` is the length of the id that the
    /// peer was told to send, 0 for none.
    ///
    /// `None` for all that is no whole record: unknown types, lengths beyond the datagram or beyond what a record may have,
    /// a DTLS 1.3 record too short for its mask (RFC 9147 §4.2.3), a connection id where none was agreed on. A unified header
    /// without an id where one was agreed on is the caller's to refuse.
    #[must_use]
    pub fn parse(datagram: &[u8], offset: usize, connection_id_bytes: usize) -> Option<Self> {
        let first = *datagram.get(offset)?;
        if first & unified::FIXED_MASK == unified::FIXED {
            Unified::parse(first, datagram, offset, connection_id_bytes).map(Self::Unified)
        } else {
            Plain::parse(first, datagram, offset, connection_id_bytes).map(Self::Plain)
        }
    }

    /// Where the record ends and the next one of the datagram begins.
    #[must_use]
    pub fn end(&self) -> usize {
        match self {
            Self::Plain(header) => header.fragment.end,
            Self::Unified(header) => header.ciphertext.end,
        }
    }
}

impl Plain {
    fn parse(first: u8, datagram: &[u8], start: usize, connection_id_bytes: usize) -> Option<Self> {
        let content_type = ContentType::from_wire(first)?;
        let (&[_, v0, v1, e0, e1, s0, s1, s2, s3, s4, s5], _) = datagram.get(start..)?.split_first_chunk()?;
        let id_start = start + PLAIN_HEADER_BYTES - 2;
        let id_bytes = match content_type {
            ContentType::Tls12Cid if connection_id_bytes == 0 => return None,
            ContentType::Tls12Cid => connection_id_bytes,
            _ => 0,
        };
        let length_start = id_start + id_bytes;
        let fragment = range_of_length(datagram, length_start, CONTENT_BYTES_MAX + EXPANSION_BYTES_MAX_12)?;
        Some(Self {
            content_type,
            version: Version([v0, v1]),
            epoch: u16::from_be_bytes([e0, e1]),
            sequence: u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5]),
            start,
            connection_id: id_start..length_start,
            fragment,
        })
    }
}

impl Unified {
    fn parse(first: u8, datagram: &[u8], start: usize, connection_id_bytes: usize) -> Option<Self> {
        let id_start = start + 1;
        let id_bytes = match first & unified::CONNECTION_ID != 0 {
            true if connection_id_bytes == 0 => return None,
            true => connection_id_bytes,
            false => 0,
        };
        let sequence_start = id_start + id_bytes;
        let sequence_end = sequence_start + if first & unified::SEQUENCE_16 != 0 { 2 } else { 1 };
        let ciphertext = if first & unified::LENGTH != 0 {
            range_of_length(datagram, sequence_end, CONTENT_BYTES_MAX + EXPANSION_BYTES_MAX_13)?
        } else {
            sequence_end..datagram.len()
        };
        // Without a length the end is the datagram's, which may lie before the header's.
        let bytes = ciphertext.end.checked_sub(ciphertext.start)?;
        (TAG_BYTES..=CONTENT_BYTES_MAX + EXPANSION_BYTES_MAX_13).contains(&bytes).then_some(Self {
            epoch_bits: first & unified::EPOCH_MASK,
            start,
            connection_id: id_start..sequence_start,
            sequence: sequence_start..sequence_end,
            ciphertext,
        })
    }
}

/// What the length field at `start` says follows it, if that is in the datagram and at most `bytes_max`.
fn range_of_length(datagram: &[u8], start: usize, bytes_max: usize) -> Option<Range<usize>> {
    let (&length, rest) = datagram.get(start..)?.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(length));
    (length <= rest.len() && length <= bytes_max).then_some(start + 2..start + 2 + length)
}

/// Writes a plaintext record (RFC 9147 §4, RFC 6347 §4.1) of epoch 0 to the start of `out` and gives its length in bytes.
/// `sequence` is the caller's to count; [`RecordLayer`](super::RecordLayer) does for an association.
///
/// # Errors
/// [`SealError::ContentTooLong`], [`SealError::BufferTooSmall`]; [`SealError::KeyExhausted`] above 48 bits.
pub fn write_plaintext(
    content_type: ContentType,
    version: Version,
    sequence: u64,
    content: &[u8],
    out: &mut [u8],
) -> Result<usize, SealError> {
    if content.len() > CONTENT_BYTES_MAX {
        return Err(SealError::ContentTooLong);
    }
    if sequence > SEQUENCE_MAX {
        return Err(SealError::KeyExhausted);
    }
    let total = PLAIN_HEADER_BYTES + content.len();
    let (header, body) = out
        .get_mut(..total)
        .and_then(<[u8]>::split_first_chunk_mut::<PLAIN_HEADER_BYTES>)
        .ok_or(SealError::BufferTooSmall)?;
    *header = plain_header(content_type, version, sequence, content.len());
    body.copy_from_slice(content);
    Ok(total)
}

/// The 13 bytes of a header without a connection id. `number` is the epoch, in its highest 16 bits, and the sequence number.
pub(super) fn plain_header(
    content_type: ContentType,
    version: Version,
    number: u64,
    length: usize,
) -> [u8; PLAIN_HEADER_BYTES] {
    let mut header = [0; PLAIN_HEADER_BYTES];
    header[0] = content_type as u8;
    header[1..3].copy_from_slice(&version.0);
    header[3..11].copy_from_slice(&number.to_be_bytes());
    // Lengths were checked against CONTENT_BYTES_MAX, far below 16 bits.
    header[11..].copy_from_slice(&(length as u16).to_be_bytes());
    header
}
