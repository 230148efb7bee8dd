//! One direction of the protected epoch of DTLS 1.2 (RFC 6347 §4.1.2; AES-GCM: RFC 5288, ChaCha20-Poly1305: RFC 7905), with
//! and without connection ids (RFC 9146).
//!
//! AES-GCM sends 8 bytes of its nonce with each record. Ours are epoch and sequence number, so that none repeats by chance
//! (RFC 9325 §7.2.1); a peer's are whatever it sent. There is no key update: a key that has reached its limit ends the
//! association.
//!
//! The sequence number is in the clear, so the replay window spares duplicates the AEAD operation (RFC 6347 §4.1.2.6).

use std::fmt;
use std::ops::Range;

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::header::{PLAIN_HEADER_BYTES, SEQUENCE_MAX, plain_header};
use super::seal::{Content, seal_body};
use super::sequence::nonce;
use super::{
    CONTENT_BYTES_MAX, ContentType, Dropped, KeyError, Opened, Plain, RecordNumber, ReplayWindow, SealError, Suite,
    TAG_BYTES, Version,
};
use crate::cid::{CONNECTION_ID_BYTES_MAX, ConnectionId};

/// The part of a GCM nonce that goes with each record (RFC 5288 §3), in bytes.
const EXPLICIT_BYTES: usize = 8;
/// What is authenticated with a connection id, without the id itself (RFC 9146 §5.3).
const AAD_BYTES_CID: usize = 8 + 1 + 1 + 1 + 2 + 8 + 2;
/// One key's limit of AES blocks: as many as its limit of records (RFC 8446 §5.5) has if all are full. DTLS 1.2 cannot change
/// keys, and its records are packets: counted by records a key would last 24 s at a million records a second of 1,300 bytes,
/// counted by what the analysis is about it lasts five minutes.
const GCM_BLOCKS_MAX: u64 = 23_726_566 * (CONTENT_BYTES_MAX as u64 / 16);
/// So many blocks and records of a key are kept for saying goodbye, which packets may not use.
const GOODBYE_BLOCKS: u64 = 64;
/// A third of the limit: the association should be replaced.
const GCM_BLOCKS_SOFT: u64 = GCM_BLOCKS_MAX / 3;

/// One direction's part of the key block (RFC 5246 §6.3). It is wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Keys12 {
    key: [u8; 32],
    fixed_iv: [u8; NONCE_LEN],
    #[zeroize(skip)]
    suite: Suite,
}

impl Keys12 {
    /// Copies of the write key and of the fixed IV. The caller wipes its own.
    ///
    /// # Errors
    /// [`KeyError::WrongLength`] if they have not the suite's lengths.
    pub fn new(suite: Suite, key: &[u8], fixed_iv: &[u8]) -> Result<Self, KeyError> {
        if key.len() != suite.key_bytes() || fixed_iv.len() != suite.fixed_iv_bytes_12() {
            return Err(KeyError::WrongLength);
        }
        let mut keys = Self { key: [0; 32], fixed_iv: [0; NONCE_LEN], suite };
        keys.key[..key.len()].copy_from_slice(key);
        keys.fixed_iv[..fixed_iv.len()].copy_from_slice(fixed_iv);
        Ok(keys)
    }

    fn aead(&self) -> Result<LessSafeKey, KeyError> {
        let key = &self.key[..self.suite.key_bytes()];
        Ok(LessSafeKey::new(UnboundKey::new(self.suite.aead(), key).map_err(|_| KeyError::WrongLength)?))
    }
}

impl fmt::Debug for Keys12 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys12")
    }
}

/// What both directions keep of their keys.
struct Cipher {
    aead: LessSafeKey,
    fixed_iv: [u8; NONCE_LEN],
    suite: Suite,
}

impl Cipher {
    fn new(keys: &Keys12) -> Result<Self, KeyError> {
        Ok(Self { aead: keys.aead()?, fixed_iv: keys.fixed_iv, suite: keys.suite })
    }

    /// How many bytes of nonce go with a record.
    const fn explicit_bytes(&self) -> usize {
        explicit_bytes(self.suite)
    }

    /// The nonce of the record with this epoch and sequence number. `explicit` is what goes with it, if anything does.
    fn nonce(&self, number: u64, explicit: Option<[u8; EXPLICIT_BYTES]>) -> Nonce {
        let Some(explicit) = explicit else {
            return Nonce::assume_unique_for_key(nonce(&self.fixed_iv, number));
        };
        let mut nonce = self.fixed_iv;
        nonce[NONCE_LEN - EXPLICIT_BYTES..].copy_from_slice(&explicit);
        Nonce::assume_unique_for_key(nonce)
    }
}

impl Drop for Cipher {
    fn drop(&mut self) {
        self.fixed_iv.zeroize();
    }
}

const fn explicit_bytes(suite: Suite) -> usize {
    match suite {
        Suite::Aes128GcmSha256 | Suite::Aes256GcmSha384 => EXPLICIT_BYTES,
        Suite::ChaCha20Poly1305Sha256 => 0,
    }
}

/// Seals the records of one epoch.
pub struct Sealer12 {
    cipher: Cipher,
    epoch: u16,
    sequence: u64,
    blocks: u64,
}

impl Sealer12 {
    /// From one direction's part of the key block. `epoch` is 1 where there is no renegotiation.
    ///
    /// # Errors
    /// [`KeyError::WrongLength`] never in practice: [`Keys12::new`] has checked it.
    pub fn new(keys: &Keys12, epoch: u16) -> Result<Self, KeyError> {
        Ok(Self { cipher: Cipher::new(keys)?, epoch, sequence: 0, blocks: 0 })
    }

    /// Its epoch.
    #[must_use]
    pub const fn epoch(&self) -> u16 {
        self.epoch
    }

    /// Its suite.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.cipher.suite
    }

    /// The number that the next record will have.
    #[must_use]
    pub fn next_number(&self) -> RecordNumber {
        RecordNumber { epoch: self.epoch.into(), sequence: self.sequence }
    }

    /// Whether so much has been sealed that the association should be replaced by a new one.
    #[must_use]
    pub const fn wants_key_update(&self) -> bool {
        match self.cipher.suite {
            Suite::ChaCha20Poly1305Sha256 => self.sequence >= self.cipher.suite.records_soft(),
            _ => self.blocks >= GCM_BLOCKS_SOFT,
        }
    }

    /// How many bytes longer than its content a record is, without padding.
    #[must_use]
    pub const fn overhead(suite: Suite, connection_id_bytes: usize) -> usize {
        // A connection id brings the inner content type along (RFC 9146 §4).
        let inner_type = if connection_id_bytes == 0 { 0 } else { 1 };
        PLAIN_HEADER_BYTES + connection_id_bytes + explicit_bytes(suite) + inner_type + TAG_BYTES
    }

    /// Seals `content` into a record at the start of `out` and gives its length in bytes. With a connection id content and
    /// type are padded with zeros to at least `inner_bytes_min`, and are at most 2^14 bytes together (RFC 9146 §4); without one
    /// there is no padding.
    ///
    /// The number is taken before anything is sealed and never again, whatever the outcome.
    ///
    /// # Errors
    /// [`SealError::ContentTooLong`], [`SealError::BufferTooSmall`], [`SealError::KeyExhausted`].
    pub fn seal(
        &mut self,
        content_type: ContentType,
        content: &[u8],
        inner_bytes_min: usize,
        connection_id: &ConnectionId,
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        self.finish(content_type, &Content::Apart(content), inner_bytes_min, connection_id, out)
    }

    /// Seals what already stands in `buffer` at `content`, and gives where in it the record stands. There must be room before
    /// and behind it: [`Sealer12::overhead`].
    ///
    /// # Errors
    /// As [`Sealer12::seal`].
    pub fn seal_in_place(
        &mut self,
        content_type: ContentType,
        content: Range<usize>,
        connection_id: &ConnectionId,
        buffer: &mut [u8],
    ) -> Result<Range<usize>, SealError> {
        let length = content.end.checked_sub(content.start).ok_or(SealError::BufferTooSmall)?;
        let header_bytes = PLAIN_HEADER_BYTES + connection_id.len() + self.cipher.explicit_bytes();
        let start = content.start.checked_sub(header_bytes).ok_or(SealError::BufferTooSmall)?;
        let out = buffer.get_mut(start..).ok_or(SealError::BufferTooSmall)?;
        let total = self.finish(content_type, &Content::Placed(length), 0, connection_id, out)?;
        Ok(start..start + total)
    }

    /// Goes on at a higher number, for tests that cannot seal so many records.
    #[cfg(test)]
    pub(super) const fn skip_to(&mut self, sequence: u64) {
        self.sequence = sequence;
    }

    /// Makes a record at the start of `out` and gives its length.
    #[inline]
    fn finish(
        &mut self,
        content_type: ContentType,
        content: &Content<'_>,
        inner_bytes_min: usize,
        connection_id: &ConnectionId,
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let id = connection_id.as_bytes();
        let explicit_bytes = self.cipher.explicit_bytes();
        let (outer_type, inner_bytes) = if id.is_empty() {
            (content_type, content.len())
        } else {
            (ContentType::Tls12Cid, (content.len() + 1).max(inner_bytes_min))
        };
        if inner_bytes > CONTENT_BYTES_MAX {
            return Err(SealError::ContentTooLong);
        }
        let header_bytes = PLAIN_HEADER_BYTES + id.len() + explicit_bytes;
        let total = header_bytes + inner_bytes + TAG_BYTES;
        let record = out.get_mut(..total).ok_or(SealError::BufferTooSmall)?;

        let number = self.take_number(inner_bytes, content_type)?;
        let (header, body) = record.split_at_mut_checked(header_bytes).ok_or(SealError::BufferTooSmall)?;
        // The header without an id, then apart: its length field comes behind the id.
        let length = explicit_bytes + inner_bytes + TAG_BYTES;
        let fields = plain_header(outer_type, Version::DTLS_1_2, number, length);
        let (before_id, rest) = header.split_at_mut(PLAIN_HEADER_BYTES - 2);
        let (id_field, rest) = rest.split_at_mut(id.len());
        let (length_field, explicit_field) = rest.split_at_mut(2);
        before_id.copy_from_slice(&fields[..PLAIN_HEADER_BYTES - 2]);
        id_field.copy_from_slice(id);
        length_field.copy_from_slice(&fields[PLAIN_HEADER_BYTES - 2..]);
        let explicit = number.to_be_bytes();
        explicit_field.copy_from_slice(&explicit[..explicit_bytes]);

        let nonce = self.cipher.nonce(number, (explicit_bytes != 0).then_some(explicit));
        let mut aad = AdditionalData::new();
        aad.fill(outer_type, Version::DTLS_1_2, number, id, inner_bytes);
        let inner_type = [content_type as u8];
        let inner_type = if id.is_empty() { &[][..] } else { &inner_type };
        seal_body(&self.cipher.aead, nonce, aad.as_bytes(), content, inner_type, body)?;
        Ok(total)
    }

    /// Epoch and sequence number of a record, which no other will have.
    fn take_number(&mut self, inner_bytes: usize, content_type: ContentType) -> Result<u64, SealError> {
        let gcm = self.cipher.explicit_bytes() != 0;
        let kept = if content_type == ContentType::ApplicationData { GOODBYE_BLOCKS } else { 0 };
        if self.sequence + kept > SEQUENCE_MAX || gcm && self.blocks + kept >= GCM_BLOCKS_MAX {
            return Err(SealError::KeyExhausted);
        }
        let number = u64::from(self.epoch) << 48 | self.sequence;
        self.sequence += 1;
        // One more for the tag's own block.
        self.blocks += inner_bytes.div_ceil(16) as u64 + 1;
        Ok(number)
    }
}

/// Opens the records of one epoch.
pub struct Opener12 {
    cipher: Cipher,
    epoch: u16,
    forgeries: u64,
    window: ReplayWindow,
}

impl Opener12 {
    /// As [`Sealer12::new`], of the peer's part.
    ///
    /// # Errors
    /// [`KeyError::WrongLength`] never in practice: [`Keys12::new`] has checked it.
    pub fn new(keys: &Keys12, epoch: u16) -> Result<Self, KeyError> {
        Ok(Self { cipher: Cipher::new(keys)?, epoch, forgeries: 0, window: ReplayWindow::new() })
    }

    /// Its epoch.
    #[must_use]
    pub const fn epoch(&self) -> u16 {
        self.epoch
    }

    /// Whether so many forgeries have come that the association should be replaced: half of what the key bears.
    #[must_use]
    pub const fn wants_key_update(&self) -> bool {
        self.forgeries >= self.cipher.suite.forgeries_max() / 2
    }

    /// Counts as many forgeries as the key bears, for tests that cannot make so many.
    #[cfg(test)]
    pub(super) const fn skip_to_forgery_limit(&mut self) {
        self.forgeries = self.cipher.suite.forgeries_max();
    }

    /// How many records failed to authenticate.
    #[must_use]
    pub const fn forgeries(&self) -> u64 {
        self.forgeries
    }

    /// The highest number opened so far.
    #[must_use]
    pub const fn highest(&self) -> Option<u64> {
        self.window.highest()
    }

    /// Opens the record of `header` in place. Whatever the outcome, its bytes in `datagram` are no record any more.
    ///
    /// # Errors
    /// Why it is dropped. Nothing has changed then, except that a forgery has been counted, and that a record which was the
    /// peer's cannot come again.
    pub fn open(&mut self, header: &Plain, datagram: &mut [u8]) -> Result<Opened, Dropped> {
        if self.forgeries >= self.cipher.suite.forgeries_max() {
            return Err(Dropped::ForgeryLimit);
        }
        if header.epoch != self.epoch {
            return Err(Dropped::UnknownEpoch);
        }
        let explicit_bytes = self.cipher.explicit_bytes();
        let inner_bytes = header
            .fragment
            .len()
            .checked_sub(explicit_bytes + TAG_BYTES)
            .filter(|_| header.version == Version::DTLS_1_2)
            .ok_or(Dropped::Malformed)?;
        if !self.window.check(header.sequence) {
            return Err(Dropped::Replayed);
        }
        let number = u64::from(header.epoch) << 48 | header.sequence;
        let mut aad = AdditionalData::new();
        let id = datagram.get(header.connection_id.clone()).ok_or(Dropped::Malformed)?;
        if id.len() > CONNECTION_ID_BYTES_MAX {
            return Err(Dropped::ConnectionId);
        }
        aad.fill(header.content_type, header.version, number, id, inner_bytes);
        let fragment = datagram.get_mut(header.fragment.clone()).ok_or(Dropped::Malformed)?;
        let (explicit, body) = fragment.split_at_mut_checked(explicit_bytes).ok_or(Dropped::Malformed)?;
        let nonce = self.cipher.nonce(number, explicit.first_chunk().copied());
        let (inner, tag) = body.split_last_chunk_mut::<TAG_BYTES>().ok_or(Dropped::Malformed)?;
        let aad = Aad::from(aad.as_bytes());
        if self.cipher.aead.open_in_place_separate_tag(nonce, aad, &*tag, inner).is_err() {
            self.forgeries += 1;
            return Err(Dropped::NotAuthentic);
        }
        self.window.commit(header.sequence);

        let start = header.fragment.start + explicit_bytes;
        let number = RecordNumber { epoch: header.epoch.into(), sequence: header.sequence };
        if header.content_type != ContentType::Tls12Cid {
            if inner_bytes > CONTENT_BYTES_MAX {
                return Err(Dropped::RecordOverflow);
            }
            return Ok(Opened { content_type: header.content_type, content: start..start + inner_bytes, number });
        }
        if inner_bytes > CONTENT_BYTES_MAX + 1 {
            return Err(Dropped::RecordOverflow);
        }
        let length = inner.iter().rposition(|&byte| byte != 0).ok_or(Dropped::NoContentType)?;
        match ContentType::from_wire(inner[length]) {
            Some(ContentType::Tls12Cid | ContentType::Ack) | None => Err(Dropped::NoContentType),
            Some(content_type) => Ok(Opened { content_type, content: start..start + length, number }),
        }
    }
}

/// What is authenticated beside the content: 13 bytes (RFC 5246 §6.2.3.3), or with a connection id up to 43 (RFC 9146 §5.3).
struct AdditionalData {
    bytes: [u8; AAD_BYTES_CID + CONNECTION_ID_BYTES_MAX],
    length: usize,
}

impl AdditionalData {
    const fn new() -> Self {
        Self { bytes: [0; AAD_BYTES_CID + CONNECTION_ID_BYTES_MAX], length: 0 }
    }

    /// `id` is at most [`CONNECTION_ID_BYTES_MAX`] long.
    fn fill(&mut self, outer_type: ContentType, version: Version, number: u64, id: &[u8], inner_bytes: usize) {
        let number = number.to_be_bytes();
        let length = (inner_bytes as u16).to_be_bytes();
        if outer_type == ContentType::Tls12Cid {
            // A placeholder where the number stands without an id, so that neither form reads as the other.
            self.push(&[0xff; 8]);
            self.push(&[outer_type as u8, id.len() as u8, outer_type as u8]);
            self.push(&version.0);
            self.push(&number);
            self.push(id);
        } else {
            self.push(&number);
            self.push(&[outer_type as u8]);
            self.push(&version.0);
        }
        self.push(&length);
    }

    fn push(&mut self, part: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.length..self.length + part.len()) {
            place.copy_from_slice(part);
            self.length += part.len();
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Header;
    use super::*;

    const ID: [u8; 3] = [1, 2, 3];

    fn pair(suite: Suite) -> (Sealer12, Opener12) {
        let keys = Keys12::new(suite, &[1; 32][..suite.key_bytes()], &[2; 12][..suite.fixed_iv_bytes_12()]).unwrap();
        (Sealer12::new(&keys, 1).unwrap(), Opener12::new(&keys, 1).unwrap())
    }

    fn open(rx: &mut Opener12, datagram: &mut [u8]) -> Result<Opened, Dropped> {
        let Some(Header::Plain(header)) = Header::parse(datagram, 0, ID.len()) else { panic!("no plain header") };
        rx.open(&header, datagram)
    }

    /// What a record is authenticated with must be what it says, down to its version.
    #[test]
    fn other_versions_are_dropped() {
        let (mut tx, mut rx) = pair(Suite::Aes128GcmSha256);
        let mut record = [0; 60];
        let length = tx.seal(ContentType::Alert, &[1, 0], 0, &ConnectionId::NONE, &mut record).unwrap();
        let mut other = record;
        other[2] = 0xff;
        assert_eq!(open(&mut rx, &mut other[..length]), Err(Dropped::Malformed));
        let mut short = record;
        short[12] = (EXPLICIT_BYTES + TAG_BYTES - 1) as u8;
        assert_eq!(open(&mut rx, &mut short[..length]), Err(Dropped::Malformed));
        open(&mut rx, &mut record[..length]).unwrap();
    }

    /// A peer that draws its explicit nonces by lot is read all the same.
    #[test]
    fn any_explicit_nonce_is_read() {
        let (_, mut rx) = pair(Suite::Aes128GcmSha256);
        let keys = Keys12::new(Suite::Aes128GcmSha256, &[1; 16], &[2; 4]).unwrap();
        let cipher = Cipher::new(&keys).unwrap();
        let (number, explicit) = (1 << 48 | 5, [0xab; EXPLICIT_BYTES]);
        let mut aad = AdditionalData::new();
        aad.fill(ContentType::Handshake, Version::DTLS_1_2, number, &[], 4);
        let mut content = *b"done";
        let nonce = cipher.nonce(number, Some(explicit));
        let tag = cipher.aead.seal_in_place_separate_tag(nonce, Aad::from(aad.as_bytes()), &mut content).unwrap();
        let header = plain_header(ContentType::Handshake, Version::DTLS_1_2, number, EXPLICIT_BYTES + 4 + TAG_BYTES);
        let mut record = [&header[..], &explicit, &content, tag.as_ref()].concat();
        let opened = open(&mut rx, &mut record).unwrap();
        assert_eq!(&record[opened.content], b"done");
    }

    #[test]
    fn a_key_ends_at_its_limit() {
        for suite in Suite::ALL {
            let (mut tx, _) = pair(suite);
            let seal = |tx: &mut Sealer12| tx.seal(ContentType::Alert, &[1, 0], 0, &ConnectionId::NONE, &mut [0; 60]);
            tx.sequence = SEQUENCE_MAX;
            seal(&mut tx).unwrap();
            assert_eq!(seal(&mut tx), Err(SealError::KeyExhausted), "48 bits are used up");
            let (mut tx, _) = pair(suite);
            tx.blocks = GCM_BLOCKS_MAX;
            assert_eq!(seal(&mut tx).is_err(), suite != Suite::ChaCha20Poly1305Sha256);
        }
    }

    /// Packets come to their end before the alert that says so.
    #[test]
    fn a_key_has_a_goodbye_left_when_packets_have_used_it_up() {
        for suite in Suite::ALL {
            let (mut tx, mut rx) = pair(suite);
            tx.sequence = SEQUENCE_MAX - GOODBYE_BLOCKS;
            tx.blocks = GCM_BLOCKS_MAX - GOODBYE_BLOCKS - 1;
            let mut record = [0; 60];
            let mut seal = |content_type| tx.seal(content_type, &[1, 0], 0, &ConnectionId::NONE, &mut record);
            seal(ContentType::ApplicationData).unwrap();
            assert_eq!(seal(ContentType::ApplicationData), Err(SealError::KeyExhausted));
            let length = seal(ContentType::Alert).unwrap();
            open(&mut rx, &mut record[..length]).unwrap();
        }
    }

    #[test]
    fn forgeries_end_a_key() {
        let (mut tx, mut rx) = pair(Suite::ChaCha20Poly1305Sha256);
        rx.forgeries = rx.cipher.suite.forgeries_max();
        let mut record = [0; 60];
        let length = tx.seal(ContentType::Alert, &[1, 0], 0, &ConnectionId::NONE, &mut record).unwrap();
        assert_eq!(open(&mut rx, &mut record[..length]), Err(Dropped::ForgeryLimit));
    }

    #[test]
    fn keys_of_another_length_are_refused() {
        assert!(Keys12::new(Suite::Aes128GcmSha256, &[1; 32], &[2; 4]).is_err());
        assert!(Keys12::new(Suite::Aes128GcmSha256, &[1; 16], &[2; 12]).is_err());
    }
}
