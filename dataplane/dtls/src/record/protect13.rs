//! One direction of one epoch of DTLS 1.3: sealing and opening (RFC 9147 §4, §4.2.3; RFC 8446 §5.2–§5.5).
//!
//! The nonce is the IV xor the 64-bit sequence number; the epoch is not part of it, since each epoch has its own key and IV.
//! What is authenticated beside the content is the header as it is sent, but with the sequence number before its mask
//! (RFC 9147 §4).
//!
//! The replay window is looked at after a record has been authenticated, since dropping it sooner would tell its number,
//! which is masked, to whoever measures (RFC 9147 §4.5.1). What a duplicate costs is one AEAD operation, as a forgery does.
//!
//! Secrets, IVs and their copies here are wiped when dropped. aws-lc wipes its own: `EVP_AEAD_CTX_free` ends in `OPENSSL_free`,
//! which wipes what it frees, and aws-lc-rs wipes the key schedules of masks. A value that is *moved* leaves bytes behind that
//! nobody wipes, so a [`RecordLayer`](super::RecordLayer) that holds keys is kept in a box.

use std::ops::Range;

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey, quic};
use zeroize::Zeroize;

use super::header::unified;
use super::hkdf::{Secret, derive_secret, expand_label};
use super::resync::{self, Resync};
use super::seal::{Content, seal_body};
use super::sequence::{nonce, reconstruct};
use super::{
    CONTENT_BYTES_MAX, ContentType, Dropped, KeyError, Opened, RecordNumber, ReplayWindow, SealError, Suite, TAG_BYTES,
    Unified,
};
use crate::cid::ConnectionId;

/// Length of the header that we write, without the connection id: first byte, sequence number, length.
const HEADER_BYTES: usize = 1 + 2 + 2;
/// The bytes of ciphertext that a mask is made from.
const SAMPLE_BYTES: usize = 16;
/// The highest epoch that a sender may use (RFC 9147 §8).
const EPOCH_MAX: u64 = (1 << 48) - 1;

/// What both directions derive from a traffic secret.
struct Keys {
    aead: LessSafeKey,
    iv: [u8; NONCE_LEN],
    suite: Suite,
    /// The next epoch's secret is made from it.
    secret: Secret,
    epoch: u64,
    mask: quic::HeaderProtectionKey,
}

impl Keys {
    fn new(suite: Suite, secret: &Secret, epoch: u64) -> Result<Self, KeyError> {
        if secret.as_bytes().len() != suite.hash_bytes() {
            return Err(KeyError::WrongLength);
        }
        let mut key = [0; 32];
        let mut iv = [0; NONCE_LEN];
        let made = (|| {
            let key = key.get_mut(..suite.key_bytes())?;
            expand_label(suite, secret, "key", &[], key).ok()?;
            let aead = LessSafeKey::new(UnboundKey::new(suite.aead(), key).ok()?);
            expand_label(suite, secret, "sn", &[], key).ok()?;
            let mask = quic::HeaderProtectionKey::new(suite.mask(), key).ok()?;
            expand_label(suite, secret, "iv", &[], &mut iv).ok()?;
            Some(Self { aead, iv, suite, secret: secret.clone(), epoch, mask })
        })();
        key.zeroize();
        iv.zeroize();
        made.ok_or(KeyError::WrongLength)
    }

    /// The next epoch's (RFC 8446 §7.2).
    fn next(&self) -> Result<Self, KeyError> {
        if self.epoch >= EPOCH_MAX {
            return Err(KeyError::NoFurtherEpoch);
        }
        let secret = derive_secret(self.suite, &self.secret, "traffic upd", &[]).map_err(|_| KeyError::WrongLength)?;
        Self::new(self.suite, &secret, self.epoch + 1)
    }

    fn nonce(&self, sequence: u64) -> Nonce {
        Nonce::assume_unique_for_key(nonce(&self.iv, sequence))
    }

    /// Masks or unmasks the sequence number in `field`.
    fn mask(&self, ciphertext: &[u8], field: &mut [u8]) -> Option<()> {
        let mask = self.mask.new_mask(ciphertext.get(..SAMPLE_BYTES)?).ok()?;
        for (byte, mask) in field.iter_mut().zip(mask) {
            *byte ^= mask;
        }
        Some(())
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.iv.zeroize();
    }
}

/// Seals the records of one epoch.
pub struct Sealer13 {
    keys: Keys,
    /// The next record's number.
    sequence: u64,
}

impl Sealer13 {
    /// Keys, IV and mask from the epoch's traffic secret (RFC 8446 §7.3, RFC 9147 §4.2.3).
    ///
    /// # Errors
    /// [`KeyError::WrongLength`] if the secret is not as long as the suite's hash.
    pub fn new(suite: Suite, secret: &Secret, epoch: u64) -> Result<Self, KeyError> {
        Ok(Self { keys: Keys::new(suite, secret, epoch)?, sequence: 0 })
    }

    /// The sealer of the next epoch ("traffic upd", RFC 8446 §7.2).
    ///
    /// # Errors
    /// [`KeyError::NoFurtherEpoch`] at epoch 2^48-1 (RFC 9147 §8).
    pub fn next_epoch(&self) -> Result<Self, KeyError> {
        Ok(Self { keys: self.keys.next()?, sequence: 0 })
    }

    /// Its epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.keys.epoch
    }

    /// The number that the next record will have.
    #[must_use]
    pub const fn next_number(&self) -> RecordNumber {
        RecordNumber { epoch: self.keys.epoch, sequence: self.sequence }
    }

    /// Whether so many records have been sealed that a new key is wanted.
    #[must_use]
    pub const fn wants_key_update(&self) -> bool {
        self.sequence >= self.keys.suite.records_soft()
    }

    /// How many bytes longer than its content a record is, without padding.
    #[must_use]
    pub const fn overhead(connection_id_bytes: usize) -> usize {
        HEADER_BYTES + connection_id_bytes + 1 + TAG_BYTES
    }

    /// Seals `content` into a record at the start of `out` and gives its length in bytes. Content and type are padded with
    /// zeros to at least `inner_bytes_min` (RFC 8446 §5.4); 0 for no padding.
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
        let inner = inner_bytes(content.len(), inner_bytes_min)?;
        let total = HEADER_BYTES + connection_id.len() + inner + TAG_BYTES;
        let record = out.get_mut(..total).ok_or(SealError::BufferTooSmall)?;
        self.finish(content_type as u8, &Content::Apart(content), connection_id, record)?;
        Ok(total)
    }

    /// Seals what already stands in `buffer` at `content`, and gives where in it the record stands. There must be room for
    /// the header before it and for type and tag behind it: [`Sealer13::overhead`].
    ///
    /// # Errors
    /// As [`Sealer13::seal`].
    pub fn seal_in_place(
        &mut self,
        content_type: ContentType,
        content: Range<usize>,
        connection_id: &ConnectionId,
        buffer: &mut [u8],
    ) -> Result<Range<usize>, SealError> {
        let length = content.end.checked_sub(content.start).ok_or(SealError::BufferTooSmall)?;
        let inner = inner_bytes(length, 0)?;
        let start = content.start.checked_sub(HEADER_BYTES + connection_id.len()).ok_or(SealError::BufferTooSmall)?;
        let range = start..content.start + inner + TAG_BYTES;
        let record = buffer.get_mut(range.clone()).ok_or(SealError::BufferTooSmall)?;
        self.finish(content_type as u8, &Content::Placed(length), connection_id, record)?;
        Ok(range)
    }

    /// Goes on at a higher number, for tests that cannot seal so many records.
    #[cfg(test)]
    pub(super) const fn skip_to(&mut self, sequence: u64) {
        self.sequence = sequence;
    }

    /// Makes a record of `record`, which has its length.
    #[inline]
    fn finish(
        &mut self,
        inner_type: u8,
        content: &Content<'_>,
        connection_id: &ConnectionId,
        record: &mut [u8],
    ) -> Result<(), SealError> {
        let sequence = self.sequence;
        if sequence >= self.keys.suite.records_max() {
            return Err(SealError::KeyExhausted);
        }
        self.sequence += 1;

        let id = connection_id.as_bytes();
        let (header, body) = record.split_at_mut_checked(HEADER_BYTES + id.len()).ok_or(SealError::BufferTooSmall)?;
        let length = body.len() as u16;
        let (first, rest) = header.split_first_mut().ok_or(SealError::BufferTooSmall)?;
        *first = unified::FIXED
            | unified::SEQUENCE_16
            | unified::LENGTH
            | (self.keys.epoch as u8 & unified::EPOCH_MASK)
            | if id.is_empty() { 0 } else { unified::CONNECTION_ID };
        let (id_field, numbers) = rest.split_at_mut(id.len());
        id_field.copy_from_slice(id);
        let [s0, s1] = (sequence as u16).to_be_bytes();
        let [l0, l1] = length.to_be_bytes();
        numbers.copy_from_slice(&[s0, s1, l0, l1]);

        seal_body(&self.keys.aead, self.keys.nonce(sequence), header, content, &[inner_type], body)?;
        let field = header.get_mut(1 + id.len()..3 + id.len()).ok_or(SealError::BufferTooSmall)?;
        self.keys.mask(body, field).ok_or(SealError::Refused)
    }
}

/// Content, type and padding.
fn inner_bytes(content_bytes: usize, inner_bytes_min: usize) -> Result<usize, SealError> {
    let inner = (content_bytes + 1).max(inner_bytes_min);
    if inner > CONTENT_BYTES_MAX + 1 { Err(SealError::ContentTooLong) } else { Ok(inner) }
}

/// Opens the records of one epoch.
pub struct Opener13 {
    keys: Keys,
    forgeries: u64,
    resync: Resync,
    window: ReplayWindow,
}

impl Opener13 {
    /// As [`Sealer13::new`], of the peer's secret.
    ///
    /// # Errors
    /// [`KeyError::WrongLength`] if the secret is not as long as the suite's hash.
    pub fn new(suite: Suite, secret: &Secret, epoch: u64) -> Result<Self, KeyError> {
        Ok(Self::with_keys(Keys::new(suite, secret, epoch)?))
    }

    /// The opener of the next epoch ("traffic upd", RFC 8446 §7.2).
    ///
    /// # Errors
    /// [`KeyError::NoFurtherEpoch`] at epoch 2^48-1.
    pub fn next_epoch(&self) -> Result<Self, KeyError> {
        Ok(Self::with_keys(self.keys.next()?))
    }

    const fn with_keys(keys: Keys) -> Self {
        Self { keys, forgeries: 0, resync: Resync::new(), window: ReplayWindow::new() }
    }

    /// Its epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.keys.epoch
    }

    /// Whether so many forgeries have come that the peer should be asked for a new key: half of what the key bears.
    #[must_use]
    pub const fn wants_key_update(&self) -> bool {
        self.forgeries >= self.keys.suite.forgeries_max() / 2
    }

    /// How often something failed to authenticate under this key. A record that was tried under several numbers counts
    /// for each.
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
    pub fn open(&mut self, header: &Unified, datagram: &mut [u8]) -> Result<Opened, Dropped> {
        if self.forgeries >= self.keys.suite.forgeries_max() {
            return Err(Dropped::ForgeryLimit);
        }
        let (head, body) = datagram
            .get_mut(..header.ciphertext.end)
            .and_then(|record| record.split_at_mut_checked(header.ciphertext.start))
            .ok_or(Dropped::Malformed)?;
        let field = head.get_mut(header.sequence.clone()).ok_or(Dropped::Malformed)?;
        self.keys.mask(body, field).ok_or(Dropped::Malformed)?;
        let (low, bits) = match *field {
            [low] => (u16::from(low), 8),
            [high, low] => (u16::from_be_bytes([high, low]), 16),
            _ => return Err(Dropped::Malformed),
        };
        let nearest = reconstruct(low, bits, self.window.expected());
        let aad = head.get(header.start..).ok_or(Dropped::Malformed)?;

        let sequence = if self.resync.wanted() {
            self.search(nearest, bits, aad, body)?
        } else {
            self.open_as(nearest, aad, body)?
        };
        if !self.window.check(sequence) {
            return Err(Dropped::Replayed);
        }
        self.window.commit(sequence);
        // Not for a replay, which anybody can send.
        self.resync.opened();

        let inner = body.len() - TAG_BYTES;
        if inner > CONTENT_BYTES_MAX + 1 {
            return Err(Dropped::RecordOverflow);
        }
        // The type is the last byte that is no padding (RFC 8446 §5.4).
        let length = body[..inner].iter().rposition(|&byte| byte != 0).ok_or(Dropped::NoContentType)?;
        let content_type = match ContentType::from_wire(body[length]) {
            Some(ContentType::Tls12Cid | ContentType::ChangeCipherSpec) | None => return Err(Dropped::NoContentType),
            Some(content_type) => content_type,
        };
        let start = header.ciphertext.start;
        let number = RecordNumber { epoch: self.keys.epoch, sequence };
        Ok(Opened { content_type, content: start..start + length, number })
    }

    /// Expects a higher number, for tests that cannot open so many records.
    #[cfg(test)]
    pub(super) fn skip_to(&mut self, sequence: u64) {
        self.window.commit(sequence - 1);
    }

    #[inline]
    fn open_as(&mut self, sequence: u64, aad: &[u8], body: &mut [u8]) -> Result<u64, Dropped> {
        // Tag and ciphertext apart: with both together aws-lc-rs moves the plaintext onto itself, 20 ns for 1,300 bytes.
        let (ciphertext, tag) = body.split_last_chunk_mut::<TAG_BYTES>().ok_or(Dropped::Malformed)?;
        let nonce = self.keys.nonce(sequence);
        match self.keys.aead.open_in_place_separate_tag(nonce, Aad::from(aad), &*tag, ciphertext) {
            Ok(_) => Ok(sequence),
            Err(_) => {
                self.forgeries += 1;
                self.resync.failed();
                Err(Dropped::NotAuthentic)
            }
        }
    }

    /// Tries the record under `nearest` and under further numbers (see [`resync`]). A failure in place wipes the ciphertext,
    /// so each attempt goes to a buffer beside it.
    #[cold]
    #[inline(never)]
    fn search(&mut self, nearest: u64, bits: u32, aad: &[u8], body: &mut [u8]) -> Result<u64, Dropped> {
        let mut buffer = [0; CONTENT_BYTES_MAX + 256];
        let (ciphertext, tag) = body.split_last_chunk_mut::<TAG_BYTES>().ok_or(Dropped::Malformed)?;
        let out = buffer.get_mut(..ciphertext.len()).ok_or(Dropped::Malformed)?;
        let mut attempt = |keys: &Keys, sequence| {
            let opened =
                keys.aead.open_separate_gather(keys.nonce(sequence), Aad::from(aad), ciphertext, &*tag, out).is_ok();
            if opened {
                ciphertext.copy_from_slice(out);
            }
            opened
        };
        if attempt(&self.keys, nearest) {
            return Ok(nearest);
        }
        self.forgeries += 1;
        let first = self.resync.begin();
        for period in first..first + resync::STEPS {
            let Some(sequence) = nearest.checked_add(period << bits) else { break };
            if attempt(&self.keys, sequence) {
                return Ok(sequence);
            }
            self.forgeries += 1;
        }
        self.resync.failed();
        Err(Dropped::NotAuthentic)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Header;
    use super::*;

    fn pair(suite: Suite) -> (Sealer13, Opener13) {
        let secret = Secret::new(&[9; 48][..suite.hash_bytes()]).unwrap();
        (Sealer13::new(suite, &secret, 3).unwrap(), Opener13::new(suite, &secret, 3).unwrap())
    }

    fn open(rx: &mut Opener13, datagram: &mut [u8]) -> Result<Opened, Dropped> {
        let Some(Header::Unified(header)) = Header::parse(datagram, 0, 0) else { panic!("no unified header") };
        rx.open(&header, datagram)
    }

    /// A record of any inner type and length, as no honest peer seals it.
    fn seal_odd(tx: &mut Sealer13, inner_type: u8, content_bytes: usize) -> Vec<u8> {
        let mut record = vec![0; Sealer13::overhead(0) + content_bytes];
        let content = Content::Placed(content_bytes);
        tx.finish(inner_type, &content, &ConnectionId::NONE, &mut record).unwrap();
        record
    }

    #[test]
    fn what_the_peer_may_not_send_is_told_apart() {
        let (mut tx, mut rx) = pair(Suite::Aes128GcmSha256);
        for (inner_type, content_bytes, reason, alert) in [
            (0, 0, Dropped::NoContentType, 10),
            (0, 500, Dropped::NoContentType, 10),
            (20, 1, Dropped::NoContentType, 10),
            (25, 1, Dropped::NoContentType, 10),
            (99, 1, Dropped::NoContentType, 10),
            (23, CONTENT_BYTES_MAX + 1, Dropped::RecordOverflow, 22),
        ] {
            let mut record = seal_odd(&mut tx, inner_type, content_bytes);
            let mut again = record.clone();
            assert_eq!(open(&mut rx, &mut record), Err(reason), "{inner_type}");
            assert_eq!(reason.fatal_alert(), Some(alert));
            assert_eq!(open(&mut rx, &mut again), Err(Dropped::Replayed), "it counts as seen");
        }
        open(&mut rx, &mut seal_odd(&mut tx, 23, CONTENT_BYTES_MAX)).unwrap();
    }

    #[test]
    fn a_key_ends_at_its_limit() {
        for suite in Suite::ALL {
            let (mut tx, _) = pair(suite);
            let seal = |tx: &mut Sealer13| tx.seal(ContentType::Ack, &[], 0, &ConnectionId::NONE, &mut [0; 50]);
            tx.skip_to(suite.records_soft() - 1);
            assert!(!tx.wants_key_update());
            seal(&mut tx).unwrap();
            assert!(tx.wants_key_update());
            tx.skip_to(suite.records_max() - 1);
            seal(&mut tx).unwrap();
            assert_eq!(seal(&mut tx), Err(SealError::KeyExhausted));
            assert_eq!(seal(&mut tx), Err(SealError::KeyExhausted));
            assert_eq!(tx.next_epoch().unwrap().next_number(), RecordNumber { epoch: 4, sequence: 0 });
        }
    }

    #[test]
    fn forgeries_end_a_key() {
        let (mut tx, mut rx) = pair(Suite::Aes128GcmSha256);
        rx.forgeries = rx.keys.suite.forgeries_max() / 2 - 1;
        assert!(!rx.wants_key_update());
        let mut forged = seal_odd(&mut tx, 23, 10);
        forged[20] ^= 1;
        assert_eq!(open(&mut rx, &mut forged), Err(Dropped::NotAuthentic));
        assert!(rx.wants_key_update());
        rx.forgeries = rx.keys.suite.forgeries_max();
        assert_eq!(open(&mut rx, &mut seal_odd(&mut tx, 23, 10)), Err(Dropped::ForgeryLimit));
    }

    #[test]
    fn epochs_do_not_wrap() {
        let suite = Suite::Aes128GcmSha256;
        let secret = Secret::new(&[9; 32]).unwrap();
        let last = Sealer13::new(suite, &secret, EPOCH_MAX).unwrap();
        assert_eq!(last.next_epoch().err(), Some(KeyError::NoFurtherEpoch));
        assert!(Opener13::new(suite, &secret, EPOCH_MAX - 1).unwrap().next_epoch().is_ok());
    }

    #[test]
    fn a_secret_of_another_length_is_refused() {
        let secret = Secret::new(&[9; 32]).unwrap();
        assert_eq!(Sealer13::new(Suite::Aes256GcmSha384, &secret, 3).err(), Some(KeyError::WrongLength));
        assert!(Secret::new(&[9; 49]).is_none());
        assert!(Secret::new(&[9; 300]).is_none());
    }
}
