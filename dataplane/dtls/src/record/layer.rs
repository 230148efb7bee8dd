//! The record state of one association.

use std::ops::Range;

use super::header::{Header, Plain, Unified, Version, write_plaintext};
use super::{
    ContentType, Dropped, KeyError, Keys12, Opened, Opener12, Opener13, RecordNumber, SealError, Sealer12, Sealer13,
    Secret, Suite,
};
use crate::cid::ConnectionId;

/// Read epochs held at once, the newest included. The handshake needs two, a key update two, and one more of either may
/// still be in flight. Installing another drops the oldest.
const RX_EPOCHS_MAX: usize = 4;
/// Connection ids by which the peer may name us at once.
const LOCAL_CIDS_MAX: usize = 8;

/// What one association needs to seal and to open.
///
/// 1,472 bytes in itself and 1,184 in aws-lc's two AEAD contexts. In itself: two sequence number masks of 504 bytes, which is
/// how large aws-lc-rs keeps both schedules of an AES-256 key whatever the key; the replay window of 144; two secrets for the
/// next epochs of 49; two connection ids of 21. Other epochs take a box each for as long as they are held.
///
/// Keep it in a box: a move leaves key schedules behind that nobody wipes.
pub struct RecordLayer {
    /// The newest read epoch.
    rx: Option<Opener>,
    /// The newest write epoch.
    tx: Option<Sealer>,
    /// Other read epochs, the newest first.
    #[expect(clippy::vec_box, reason = "what lies in a box is not moved, and leaves no copy of its keys behind")]
    rx_older: Vec<Box<Opener>>,
    /// The write epoch before, as long as its flight may have to be sent again.
    tx_before: Option<Box<Sealer>>,
    /// The next plaintext record's number.
    plaintext_sequence: u64,
    /// One more than the highest epochs ever installed, so that none is installed twice.
    rx_epochs: u64,
    tx_epochs: u64,
    /// The id that the peer used last.
    local_cid: ConnectionId,
    peer_cid: ConnectionId,
    /// Other ids that the peer may send to us, the newest last.
    more_local_cids: Vec<ConnectionId>,
    /// How many of them were given before the one that the peer used last.
    older_local_cids: u8,
}

/// An association should stay below 3 KiB with all that it allocates.
const _: () = assert!(size_of::<RecordLayer>() <= 1_536);

/// What became of the next record of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Open {
    /// A record of epoch 0. Anybody may have sent it.
    Plaintext(PlaintextRecord),
    /// The peer's.
    Record(Opened),
    /// Nothing to be had from it.
    Dropped(Dropped),
    /// The datagram holds no further record.
    End,
}

/// A record that nothing protects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaintextRecord {
    /// What it says it carries: never application data.
    pub content_type: ContentType,
    /// What it says its version is.
    pub version: Version,
    /// Where in the datagram its content stands.
    pub content: Range<usize>,
    /// What it says its number is; the epoch is 0.
    pub number: RecordNumber,
}

/// How far a batch has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Packets sealed.
    pub packets: usize,
    /// Bytes written.
    pub bytes: usize,
    /// Length of each record but the last, which may be shorter: what `UDP_SEGMENT` is told.
    pub stride_bytes: usize,
}

#[expect(clippy::large_enum_variant, reason = "the current epoch is reached without a pointer")]
enum Opener {
    V13(Opener13),
    V12(Opener12),
}

#[expect(clippy::large_enum_variant, reason = "the current epoch is reached without a pointer")]
enum Sealer {
    V13(Sealer13),
    V12(Sealer12),
}

impl RecordLayer {
    /// A layer without keys and without connection ids: it seals and opens plaintext.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            rx: None,
            tx: None,
            rx_older: Vec::new(),
            tx_before: None,
            plaintext_sequence: 0,
            rx_epochs: 1,
            tx_epochs: 1,
            local_cid: ConnectionId::NONE,
            peer_cid: ConnectionId::NONE,
            more_local_cids: Vec::new(),
            older_local_cids: 0,
        }
    }

    /// Sets the connection id that the peer must send to us. Protected records without it are dropped from now on.
    pub fn set_local_cid(&mut self, id: ConnectionId) {
        self.local_cid = id;
        (self.more_local_cids, self.older_local_cids) = (Vec::new(), 0);
    }

    /// Lets the peer send this id in place of the one before, if it is as long and there is room. Of more than eight the oldest
    /// gives way if the peer has used a newer one; an id that it uses, or may use next, never does.
    pub fn add_local_cid(&mut self, id: ConnectionId) -> bool {
        if id.len() != self.local_cid.len() || id.is_empty() {
            return false;
        }
        if self.more_local_cids.len() + 1 >= LOCAL_CIDS_MAX {
            if self.older_local_cids == 0 {
                return false;
            }
            self.more_local_cids.remove(0);
            self.older_local_cids -= 1;
        }
        self.more_local_cids.push(id);
        true
    }

    /// The peer has used another id of ours than before.
    #[cold]
    fn note_local_cid(&mut self, id: &[u8]) {
        let Some(at) = self.more_local_cids.iter().position(|more| more.as_bytes() == id) else { return };
        let older = usize::from(self.older_local_cids);
        let before = std::mem::replace(&mut self.local_cid, self.more_local_cids.remove(at));
        let (place, older) = if at < older { (older - 1, at) } else { (older, at + 1) };
        self.more_local_cids.insert(place, before);
        self.older_local_cids = older as u8;
    }

    /// Sets the connection id that we send to the peer.
    pub const fn set_peer_cid(&mut self, id: ConnectionId) {
        self.peer_cid = id;
    }

    /// The connection id that the peer must send to us.
    #[must_use]
    pub const fn local_cid(&self) -> &ConnectionId {
        &self.local_cid
    }

    /// The connection id that we send to the peer.
    #[must_use]
    pub const fn peer_cid(&self) -> &ConnectionId {
        &self.peer_cid
    }

    /// Sets the next plaintext record's number. A server that keeps no state before the cookie gives its first answer the
    /// number of what it answers (RFC 9147 §5.1, RFC 6347 §4.2.1), and must go on above it.
    pub const fn set_plaintext_sequence(&mut self, sequence: u64) {
        self.plaintext_sequence = sequence;
    }

    /// Forgets all keys and connection ids: back to plaintext, of which the numbers go on.
    pub(crate) fn forget_keys(&mut self) {
        *self = Self { plaintext_sequence: self.plaintext_sequence, ..Self::new() };
    }

    /// Installs a write epoch of DTLS 1.3 and seals under it from now on. The one before is kept until
    /// [`RecordLayer::drop_tx`], so that its flight can be sent again; the one before that is dropped.
    ///
    /// # Errors
    /// [`KeyError::EpochUsed`] if `epoch` is not above all before; [`KeyError::WrongLength`].
    pub fn install_tx(&mut self, epoch: u64, suite: Suite, secret: &Secret) -> Result<(), KeyError> {
        self.check_tx(epoch)?;
        let sealer = Sealer::V13(Sealer13::new(suite, secret, epoch)?);
        self.push_tx(epoch, sealer);
        Ok(())
    }

    /// Installs a read epoch of DTLS 1.3 beside those that are there. A fifth drops the oldest.
    ///
    /// # Errors
    /// [`KeyError::EpochUsed`] if `epoch` is not above all before; [`KeyError::WrongLength`].
    pub fn install_rx(&mut self, epoch: u64, suite: Suite, secret: &Secret) -> Result<(), KeyError> {
        self.check_rx(epoch)?;
        let opener = Opener::V13(Opener13::new(suite, secret, epoch)?);
        self.push_rx(epoch, opener);
        Ok(())
    }

    /// Installs the write epoch of DTLS 1.2, which is 1.
    ///
    /// # Errors
    /// [`KeyError::EpochUsed`] the second time.
    pub fn install_tx12(&mut self, keys: &Keys12) -> Result<(), KeyError> {
        self.check_tx(1)?;
        let sealer = Sealer::V12(Sealer12::new(keys, 1)?);
        self.push_tx(1, sealer);
        Ok(())
    }

    /// Installs the read epoch of DTLS 1.2, which is 1.
    ///
    /// # Errors
    /// [`KeyError::EpochUsed`] the second time.
    pub fn install_rx12(&mut self, keys: &Keys12) -> Result<(), KeyError> {
        self.check_rx(1)?;
        let opener = Opener::V12(Opener12::new(keys, 1)?);
        self.push_rx(1, opener);
        Ok(())
    }

    /// Moves to the next write epoch of DTLS 1.3 ("traffic upd", RFC 8446 §7.2) and gives its number. Only once the peer has
    /// acknowledged our KeyUpdate (RFC 9147 §8).
    ///
    /// # Errors
    /// [`KeyError::NothingInstalled`]; [`KeyError::NoFurtherEpoch`], with DTLS 1.2 always.
    pub fn update_tx(&mut self) -> Result<u64, KeyError> {
        let next = match &self.tx {
            None => return Err(KeyError::NothingInstalled),
            Some(Sealer::V12(_)) => return Err(KeyError::NoFurtherEpoch),
            Some(Sealer::V13(sealer)) => sealer.next_epoch()?,
        };
        let epoch = next.epoch();
        self.push_tx(epoch, Sealer::V13(next));
        Ok(epoch)
    }

    /// Makes the next read epoch of DTLS 1.3 readable beside those that are, and gives its number. Upon the peer's KeyUpdate;
    /// the caller drops the old epoch after a while (RFC 9147 §4.2.1, §8).
    ///
    /// # Errors
    /// [`KeyError::NothingInstalled`]; [`KeyError::NoFurtherEpoch`], with DTLS 1.2 always.
    pub fn update_rx(&mut self) -> Result<u64, KeyError> {
        let next = match &self.rx {
            None => return Err(KeyError::NothingInstalled),
            Some(Opener::V12(_)) => return Err(KeyError::NoFurtherEpoch),
            Some(Opener::V13(opener)) => opener.next_epoch()?,
        };
        let epoch = next.epoch();
        self.push_rx(epoch, Opener::V13(next));
        Ok(epoch)
    }

    /// Forgets a write epoch and wipes its keys. Nothing if it is not held.
    pub fn drop_tx(&mut self, epoch: u64) {
        self.tx_before = self.tx_before.take().filter(|sealer| sealer.epoch() != epoch);
        if self.tx.as_ref().is_some_and(|sealer| sealer.epoch() == epoch) {
            self.tx = None;
        }
    }

    /// Forgets a read epoch and wipes its keys. Nothing if it is not held.
    pub fn drop_rx(&mut self, epoch: u64) {
        self.rx_older.retain(|opener| opener.epoch() != epoch);
        if self.rx.as_ref().is_some_and(|opener| opener.epoch() == epoch) {
            self.rx = (!self.rx_older.is_empty()).then(|| *self.rx_older.remove(0));
        }
        if self.rx_older.is_empty() {
            self.rx_older = Vec::new();
        }
    }

    /// The epoch that [`RecordLayer::seal`] writes: 0 is plaintext.
    #[must_use]
    pub fn tx_epoch(&self) -> u64 {
        self.tx.as_ref().map_or(0, Sealer::epoch)
    }

    /// The newest epoch that can be read: 0 is plaintext.
    #[must_use]
    pub fn rx_epoch(&self) -> u64 {
        self.rx.as_ref().map_or(0, Opener::epoch)
    }

    /// The number that the next record sealed in `epoch` will have, if it can be sealed.
    #[must_use]
    pub fn next_number(&self, epoch: u64) -> Option<RecordNumber> {
        if epoch == 0 {
            return Some(RecordNumber { epoch, sequence: self.plaintext_sequence });
        }
        [self.tx.as_ref(), self.tx_before.as_deref()]
            .into_iter()
            .flatten()
            .find(|sealer| sealer.epoch() == epoch)
            .map(Sealer::next_number)
    }

    /// Whether the current write key has sealed so much that a new one is wanted, or the current read key has seen so many
    /// forgeries that the peer should be asked for one (RFC 9147 §4.5.3). With DTLS 1.2: that the association should be
    /// replaced.
    #[must_use]
    pub fn wants_key_update(&self) -> bool {
        self.tx.as_ref().is_some_and(Sealer::wants_key_update) || self.rx.as_ref().is_some_and(Opener::wants_key_update)
    }

    /// How many bytes longer than its content a record of the current write epoch is.
    #[must_use]
    pub fn overhead(&self) -> usize {
        match &self.tx {
            None => super::header::PLAIN_HEADER_BYTES,
            Some(Sealer::V13(_)) => Sealer13::overhead(self.peer_cid.len()),
            Some(Sealer::V12(sealer)) => Sealer12::overhead(sealer.suite(), self.peer_cid.len()),
        }
    }

    /// Seals `content` under the current write epoch into a record at the start of `out`, and gives its length in bytes.
    /// Without a key the record is plaintext; application data then is refused.
    ///
    /// # Errors
    /// See [`SealError`].
    #[inline]
    pub fn seal(&mut self, content_type: ContentType, content: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        match &mut self.tx {
            Some(sealer) => sealer.seal(content_type, content, 0, &self.peer_cid, out),
            None => self.seal_plaintext(content_type, Version::DTLS_1_2, content, out),
        }
    }

    /// [`RecordLayer::seal`], padded with zeros to at least `inner_bytes_min` of content and type together, where the record's
    /// form has padding: DTLS 1.3 and connection ids (RFC 8446 §5.4, RFC 9146 §4).
    ///
    /// # Errors
    /// See [`SealError`]; [`SealError::NoSuchEpoch`] without a key.
    pub fn seal_padded(
        &mut self,
        content_type: ContentType,
        content: &[u8],
        inner_bytes_min: usize,
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let sealer = self.tx.as_mut().ok_or(SealError::NoSuchEpoch)?;
        sealer.seal(content_type, content, inner_bytes_min, &self.peer_cid, out)
    }

    /// Seals what already stands in `buffer` at `content` under the current write epoch, and gives where in it the record
    /// stands. All of [`RecordLayer::overhead`] but type and tag, 17 bytes (16 for DTLS 1.2 without a connection id), must be
    /// free before it.
    ///
    /// # Errors
    /// See [`SealError`]; [`SealError::NoSuchEpoch`] without a key.
    #[inline]
    pub fn seal_in_place(
        &mut self,
        content_type: ContentType,
        content: Range<usize>,
        buffer: &mut [u8],
    ) -> Result<Range<usize>, SealError> {
        match self.tx.as_mut().ok_or(SealError::NoSuchEpoch)? {
            Sealer::V13(sealer) => sealer.seal_in_place(content_type, content, &self.peer_cid, buffer),
            Sealer::V12(sealer) => sealer.seal_in_place(content_type, content, &self.peer_cid, buffer),
        }
    }

    /// Seals under `epoch`, which is the current one, the one before it, or 0: a flight is sent again under the keys that it
    /// was sent with (RFC 9147 §4.2.1).
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal_in(
        &mut self,
        epoch: u64,
        content_type: ContentType,
        content: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        if epoch == 0 {
            return self.seal_plaintext(content_type, Version::DTLS_1_2, content, out);
        }
        [self.tx.as_mut(), self.tx_before.as_deref_mut()]
            .into_iter()
            .flatten()
            .find(|sealer| sealer.epoch() == epoch)
            .ok_or(SealError::NoSuchEpoch)?
            .seal(content_type, content, 0, &self.peer_cid, out)
    }

    /// Writes a plaintext record of epoch 0 and counts it. A first ClientHello may say [`Version::DTLS_1_0`].
    ///
    /// # Errors
    /// See [`SealError`]; [`SealError::NoSuchEpoch`] for application data, which is never sent in the clear.
    pub fn seal_plaintext(
        &mut self,
        content_type: ContentType,
        version: Version,
        content: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        if matches!(content_type, ContentType::ApplicationData | ContentType::Tls12Cid) {
            return Err(SealError::NoSuchEpoch);
        }
        let written = write_plaintext(content_type, version, self.plaintext_sequence, content, out)?;
        self.plaintext_sequence += 1;
        Ok(written)
    }

    /// Seals packets of one length one behind the other, as `UDP_SEGMENT` wants them: all records have the first one's
    /// length but the last, which may be shorter. It stops before a packet that is longer than the first, behind one that is
    /// shorter, and where `out` is full; what is left is the next batch's.
    ///
    /// # Errors
    /// See [`SealError`], if the first packet cannot be sealed, or the key is exhausted. Nothing of `out` may be sent then.
    pub fn seal_batch<'p>(
        &mut self,
        content_type: ContentType,
        packets: impl IntoIterator<Item = &'p [u8]>,
        out: &mut [u8],
    ) -> Result<Batch, SealError> {
        let mut batch = Batch::default();
        for packet in packets {
            let stride = packet.len() + self.overhead();
            if batch.packets != 0 && (stride > batch.stride_bytes || stride > out.len() - batch.bytes) {
                break;
            }
            let place = out.get_mut(batch.bytes..).ok_or(SealError::BufferTooSmall)?;
            let bytes = self.seal(content_type, packet, place)?;
            batch.packets += 1;
            batch.bytes += bytes;
            batch.stride_bytes = batch.stride_bytes.max(bytes);
            if bytes < batch.stride_bytes {
                break;
            }
        }
        Ok(batch)
    }

    /// Opens the record that begins at `offset` of `datagram` in place and moves `offset` behind it. Call until
    /// [`Open::End`]; do not touch bytes from `offset` on in between.
    #[inline]
    pub fn open(&mut self, datagram: &mut [u8], offset: &mut usize) -> Open {
        if *offset >= datagram.len() {
            return Open::End;
        }
        let Some(header) = Header::parse(datagram, *offset, self.local_cid.len()) else {
            *offset = datagram.len();
            return Open::Dropped(Dropped::Malformed);
        };
        *offset = header.end();
        let (opened, id) = match header {
            Header::Unified(header) => (self.open_unified(&header, datagram), header.connection_id),
            Header::Plain(header) if header.epoch == 0 => return plaintext(header),
            Header::Plain(header) => (self.open_plain(&header, datagram), header.connection_id),
        };
        match opened {
            Ok(record) => {
                if !self.more_local_cids.is_empty()
                    && let Some(id) = datagram.get(id)
                    && id != self.local_cid.as_bytes()
                {
                    self.note_local_cid(id);
                }
                Open::Record(record)
            }
            Err(reason) => {
                if reason == Dropped::ConnectionId {
                    *offset = datagram.len();
                }
                Open::Dropped(reason)
            }
        }
    }

    /// Opens all records of the datagrams that stand one behind the other in `buffer`, each `stride_bytes` long but the last,
    /// as UDP GRO joins them. `sink` is given what became of each record, except [`Open::End`], and its datagram.
    pub fn open_batch(&mut self, buffer: &mut [u8], stride_bytes: usize, mut sink: impl FnMut(Open, &mut [u8])) {
        for datagram in buffer.chunks_mut(stride_bytes.max(1)) {
            let mut offset = 0;
            loop {
                match self.open(datagram, &mut offset) {
                    Open::End => break,
                    open => sink(open, datagram),
                }
            }
        }
    }

    #[inline]
    fn open_unified(&mut self, header: &Unified, datagram: &mut [u8]) -> Result<Opened, Dropped> {
        self.check_cid(&header.connection_id, datagram)?;
        if let Some(Opener::V13(opener)) = &mut self.rx
            && opener.epoch() as u8 & 3 == header.epoch_bits
        {
            return opener.open(header, datagram);
        }
        for opener in &mut self.rx_older {
            if let Opener::V13(opener) = &mut **opener
                && opener.epoch() as u8 & 3 == header.epoch_bits
            {
                return opener.open(header, datagram);
            }
        }
        Err(Dropped::UnknownEpoch)
    }

    #[inline]
    fn open_plain(&mut self, header: &Plain, datagram: &mut [u8]) -> Result<Opened, Dropped> {
        self.check_cid(&header.connection_id, datagram)?;
        match &mut self.rx {
            Some(Opener::V12(opener)) => opener.open(header, datagram),
            _ => Err(Dropped::UnknownEpoch),
        }
    }

    fn check_cid(&self, id: &Range<usize>, datagram: &[u8]) -> Result<(), Dropped> {
        let id = datagram.get(id.clone()).unwrap_or_default();
        let is_ours = id == self.local_cid.as_bytes() || self.more_local_cids.iter().any(|more| id == more.as_bytes());
        if is_ours { Ok(()) } else { Err(Dropped::ConnectionId) }
    }

    /// Brings the keys of DTLS 1.2 to their limits, for tests that cannot seal or forge so many records.
    #[cfg(test)]
    pub(crate) const fn use_up_12(&mut self, tx: bool, rx: bool) {
        if let (Some(Sealer::V12(sealer)), true) = (&mut self.tx, tx) {
            sealer.skip_to(super::header::SEQUENCE_MAX);
        }
        if let (Some(Opener::V12(opener)), true) = (&mut self.rx, rx) {
            opener.skip_to_forgery_limit();
        }
    }

    const fn check_tx(&self, epoch: u64) -> Result<(), KeyError> {
        if epoch < self.tx_epochs { Err(KeyError::EpochUsed) } else { Ok(()) }
    }

    const fn check_rx(&self, epoch: u64) -> Result<(), KeyError> {
        if epoch < self.rx_epochs { Err(KeyError::EpochUsed) } else { Ok(()) }
    }

    fn push_tx(&mut self, epoch: u64, sealer: Sealer) {
        self.tx_epochs = epoch + 1;
        self.tx_before = self.tx.replace(sealer).map(Box::new);
    }

    fn push_rx(&mut self, epoch: u64, opener: Opener) {
        self.rx_epochs = epoch + 1;
        if let Some(before) = self.rx.replace(opener) {
            self.rx_older.insert(0, Box::new(before));
            self.rx_older.truncate(RX_EPOCHS_MAX - 1);
        }
    }
}

impl Default for RecordLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl Opener {
    fn epoch(&self) -> u64 {
        match self {
            Self::V13(opener) => opener.epoch(),
            Self::V12(opener) => opener.epoch().into(),
        }
    }

    fn wants_key_update(&self) -> bool {
        match self {
            Self::V13(opener) => opener.wants_key_update(),
            Self::V12(opener) => opener.wants_key_update(),
        }
    }
}

impl Sealer {
    fn epoch(&self) -> u64 {
        match self {
            Self::V13(sealer) => sealer.epoch(),
            Self::V12(sealer) => sealer.epoch().into(),
        }
    }

    fn next_number(&self) -> RecordNumber {
        match self {
            Self::V13(sealer) => sealer.next_number(),
            Self::V12(sealer) => sealer.next_number(),
        }
    }

    fn wants_key_update(&self) -> bool {
        match self {
            Self::V13(sealer) => sealer.wants_key_update(),
            Self::V12(sealer) => sealer.wants_key_update(),
        }
    }

    #[inline]
    fn seal(
        &mut self,
        content_type: ContentType,
        content: &[u8],
        inner_bytes_min: usize,
        connection_id: &ConnectionId,
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        match self {
            Self::V13(sealer) => sealer.seal(content_type, content, inner_bytes_min, connection_id, out),
            Self::V12(sealer) => sealer.seal(content_type, content, inner_bytes_min, connection_id, out),
        }
    }
}

/// A record of epoch 0, unless it is of a kind that is never in the clear.
fn plaintext(header: Plain) -> Open {
    if matches!(header.content_type, ContentType::ApplicationData | ContentType::Tls12Cid)
        || header.fragment.len() > super::CONTENT_BYTES_MAX
    {
        return Open::Dropped(Dropped::Malformed);
    }
    Open::Plaintext(PlaintextRecord {
        content_type: header.content_type,
        version: header.version,
        content: header.fragment,
        number: RecordNumber { epoch: 0, sequence: header.sequence },
    })
}
