//! Connection ids that are given and taken after the handshake (RFC 9147 §9).
//!
//! Who moves to another address takes an id that was never used before: whoever watches both paths then cannot tell by the id that
//! they are one association's.

use crate::alert::{Alert, Fatal, fail};
use crate::cid::ConnectionId;
use crate::handshake::exchange::Exchange;
use crate::record::RecordLayer;
use crate::wire::messages::{
    MessageType, parse_new_connection_id, parse_request_connection_id, write_new_connection_id,
};

/// Ids of the peer's kept for later; those beyond are ignored, as RFC 9147 §9 allows.
const SPARE_MAX: usize = 4;
/// Ids of ours given at one request.
const GIVEN_MAX: u8 = 4;

/// The spare ids of one association.
#[derive(Debug, Default)]
pub(crate) struct ConnectionIds {
    /// The peer's that we have not used yet, in its order.
    spare: Vec<ConnectionId>,
    /// Whether the peer owes us an answer: there is one request at a time.
    is_asking: bool,
    /// How many of ours the peer wants.
    wanted: Option<u8>,
}

impl ConnectionIds {
    /// Takes the body of a NewConnectionId.
    pub(crate) fn handle_new(&mut self, body: &[u8], records: &mut RecordLayer) -> Result<(), Fatal> {
        let (ids, immediate) = parse_new_connection_id(body)?;
        if records.peer_cid().is_empty() {
            return fail(Alert::UNEXPECTED_MESSAGE, "a connection id where none was agreed on");
        }
        self.is_asking = false;
        for (count, id) in ids.into_iter().enumerate() {
            let Some(id) = ConnectionId::new(id).filter(|id| !id.is_empty()) else {
                return fail(Alert::ILLEGAL_PARAMETER, "expected connection ids of 1 to 20 bytes");
            };
            if immediate && count == 0 {
                records.set_peer_cid(id);
            } else if self.spare.len() < SPARE_MAX {
                self.spare.push(id);
            }
        }
        Ok(())
    }

    /// Takes the body of a RequestConnectionId.
    pub(crate) fn handle_request(&mut self, body: &[u8], records: &RecordLayer) -> Result<(), Fatal> {
        let count = parse_request_connection_id(body)?;
        if records.local_cid().is_empty() {
            return fail(Alert::UNEXPECTED_MESSAGE, "a request for connection ids where none was agreed on");
        }
        self.wanted = Some(count.min(GIVEN_MAX));
        Ok(())
    }

    /// How many ids the peer wants, once for each request.
    pub(crate) const fn take_wanted(&mut self) -> Option<u8> {
        self.wanted.take()
    }

    /// Gives the peer ids of ours, which its records may name us by from now on. None is an answer too.
    pub(crate) fn give(ids: &[ConnectionId], records: &mut RecordLayer, exchange: &mut Exchange) {
        let given = ids.iter().take(GIVEN_MAX.into()).filter(|id| records.add_local_cid(**id));
        let given: Vec<Vec<u8>> = given.map(|id| id.as_bytes().to_vec()).collect();
        let body = write_new_connection_id(&given, false);
        exchange.send(MessageType::NEW_CONNECTION_ID, body, records.tx_epoch());
    }

    /// Asks the peer for `count` ids, unless it sends none or still owes some.
    pub(crate) fn ask(&mut self, count: u8, records: &RecordLayer, exchange: &mut Exchange) {
        if !records.peer_cid().is_empty() && !self.is_asking {
            self.is_asking = true;
            exchange.send(MessageType::REQUEST_CONNECTION_ID, vec![count], records.tx_epoch());
        }
    }

    /// Sends by an id that was not used before, from now on; `false` if there is none. One more is asked for.
    pub(crate) fn change(&mut self, records: &mut RecordLayer, exchange: &mut Exchange) -> bool {
        let has_spare = !self.spare.is_empty();
        if has_spare {
            records.set_peer_cid(self.spare.remove(0));
        }
        self.ask(1, records, exchange);
        has_spare
    }
}
