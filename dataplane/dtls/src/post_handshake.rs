//! What goes on in an established association beside packets: key updates, messages about connection ids, and the end of the handshake's
//! keys (RFC 9147 §4.2.1, §8, §9).
//!
//! ```text
//!  ours:    Idle ──limit near, wish, or asked for──▶ KeyUpdate sent ──ACK──▶ next epoch, the one before forgotten ──▶ Idle
//!  theirs:  KeyUpdate ─▶ next epoch readable, ACK ──first record in it──▶ 3 s later the one before is forgotten
//! ```

use std::time::Duration;

use ringfort_types::BootInstant;

use crate::alert::{Alert, Fatal, fail};
use crate::connection_ids::ConnectionIds;
use crate::handshake::exchange::Exchange;
use crate::handshake::reassembly::Message;
use crate::record::{KeyError, RecordLayer};
use crate::wire::messages::{MessageType, parse_key_update};

/// How long the keys of the handshake can be read after it: the peer may repeat its last flight because our ACK got lost.
const HANDSHAKE_KEYS_KEPT: Duration = Duration::from_secs(30);
/// How long an epoch can be read once its successor is in use: records overtake each other by less.
const OLD_KEYS_KEPT: Duration = Duration::from_secs(3);
/// The epoch of the handshake.
const HANDSHAKE: u64 = 2;

/// What the owner, or the peer, wants of our keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    /// Nothing.
    Keep,
    /// New ones of ours.
    UpdateOurs,
    /// New ones both ways.
    UpdateBoth,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct PostHandshake {
    is_client: bool,
    /// How long a message of ours may go without ACK.
    patience: Duration,
    /// Since when the peer owes an ACK.
    waiting_since: Option<BootInstant>,
    /// Whether a KeyUpdate of ours is under way.
    is_updating: bool,
    wish: Wish,
    /// A read epoch that is to be forgotten, and when; without a time it is waited for a record of the next one.
    old_rx: Option<(u64, Option<BootInstant>)>,
    handshake_keys_until: Option<BootInstant>,
    pub(crate) ids: ConnectionIds,
}

impl PostHandshake {
    pub(crate) fn new(is_client: bool, patience: Duration, now: BootInstant) -> Self {
        Self {
            is_client,
            patience,
            waiting_since: None,
            is_updating: false,
            wish: Wish::Keep,
            old_rx: None,
            handshake_keys_until: Some(now + HANDSHAKE_KEYS_KEPT),
            ids: ConnectionIds::default(),
        }
    }

    /// Asks for new keys at the next [`PostHandshake::settle`].
    pub(crate) fn wish(&mut self, wish: Wish) {
        self.wish = self.wish.max(wish);
    }

    pub(crate) const fn patience(&self) -> Duration {
        self.patience
    }

    /// A record of `epoch` has come: if an older epoch waited for that, its time runs from now.
    #[inline]
    pub(crate) fn note_record(&mut self, epoch: u64, now: BootInstant) {
        if let Some((old, until @ None)) = &mut self.old_rx
            && epoch > *old
        {
            *until = Some(now + OLD_KEYS_KEPT);
        }
    }

    /// Takes a message of the peer's.
    pub(crate) fn handle_message(
        &mut self,
        message: &Message,
        records: &mut RecordLayer,
        exchange: &mut Exchange,
    ) -> Result<(), Fatal> {
        let Message { kind, body, .. } = message;
        match *kind {
            MessageType::KEY_UPDATE => {
                if parse_key_update(body)? {
                    self.wish(Wish::UpdateOurs);
                }
                let old = records.rx_epoch();
                records.update_rx().map_err(no_update)?;
                if let Some((older, _)) = self.old_rx.replace((old, None)) {
                    records.drop_rx(older);
                }
            }
            MessageType::NEW_CONNECTION_ID => self.ids.handle_new(body, records)?,
            MessageType::REQUEST_CONNECTION_ID => self.ids.handle_request(body, records)?,
            // A server's to give (RFC 8446 §4.6.1); we resume nothing.
            MessageType::NEW_SESSION_TICKET if self.is_client => {}
            kind => return fail(Alert::UNEXPECTED_MESSAGE, format!("a message of type {} was not expected", kind.0)),
        }
        exchange.acknowledge_now();
        Ok(())
    }

    /// Draws the conclusions of what came, and begins what is wanted.
    pub(crate) fn settle(
        &mut self,
        records: &mut RecordLayer,
        exchange: &mut Exchange,
        now: BootInstant,
    ) -> Result<(), Fatal> {
        if exchange.is_acknowledged() {
            self.waiting_since = None;
            records.drop_tx(HANDSHAKE);
            if self.is_updating {
                self.is_updating = false;
                let old = records.tx_epoch();
                records.update_tx().map_err(no_update)?;
                records.drop_tx(old);
            }
        } else {
            self.waiting_since.get_or_insert(now);
        }
        // One that is under way answers it.
        if records.wants_key_update() && !self.is_updating {
            self.wish(Wish::UpdateBoth);
        }
        // One at a time (RFC 9147 §8), and none while the handshake's last flight is not acknowledged.
        if self.wish > Wish::Keep && exchange.is_acknowledged() {
            let request = u8::from(self.wish == Wish::UpdateBoth);
            exchange.send(MessageType::KEY_UPDATE, vec![request], records.tx_epoch());
            (self.wish, self.is_updating, self.waiting_since) = (Wish::Keep, true, Some(now));
        }
        Ok(())
    }

    /// Whether the peer owes an ACK for longer than it may.
    pub(crate) fn has_waited_too_long(&self, exchange: &Exchange, now: BootInstant) -> bool {
        !exchange.is_acknowledged()
            && self.waiting_since.is_some_and(|since| now.saturating_since(since) >= self.patience)
    }

    /// Forgets keys whose time has come. Whether the handshake is now over and done with.
    pub(crate) fn handle_timeout(&mut self, records: &mut RecordLayer, now: BootInstant) -> bool {
        let is_over = self.handshake_keys_until.take_if(|until| *until <= now).is_some();
        if is_over {
            records.drop_rx(HANDSHAKE);
        }
        if let Some((old, Some(until))) = self.old_rx
            && until <= now
        {
            self.old_rx = None;
            records.drop_rx(old);
        }
        is_over
    }

    /// When [`PostHandshake::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self, exchange: &Exchange) -> Option<BootInstant> {
        let patience = self.waiting_since.filter(|_| !exchange.is_acknowledged()).map(|since| since + self.patience);
        let old = self.old_rx.and_then(|(_, until)| until);
        [patience, old, self.handshake_keys_until].into_iter().flatten().min()
    }
}

fn no_update(error: KeyError) -> Fatal {
    Fatal::new(Alert::UNEXPECTED_MESSAGE, format!("a key update that cannot be: {error}"))
}
