//! What goes on in an established association of DTLS 1.2 beside packets: next to nothing. The last flight is repeated when the
//! client repeats its own (RFC 6347 §4.2.4), and nothing is renegotiated (RFC 9325 §3.5).

use std::time::Duration;

use ringfort_types::BootInstant;

use crate::alert::{Alert, Fatal};
use crate::handshake::exchange::Exchange;
use crate::record::{ContentType, RecordLayer};
use crate::wire::messages::{Fragment, MessageType};

/// A client that wants to renegotiate is told no at most so often.
const REFUSALS_APART: Duration = Duration::from_secs(1);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct PostHandshake12 {
    refused_at: Option<BootInstant>,
}

impl PostHandshake12 {
    /// Takes the content of a sealed record with handshake messages. A client may ask for another handshake, and goes on
    /// without one (RFC 5246 §7.2.2); other messages mean nothing here.
    ///
    /// # Errors
    /// When a key has reached its limit.
    pub(crate) fn handle_record(
        &mut self,
        content: &[u8],
        records: &mut RecordLayer,
        exchange: &mut Exchange,
        now: BootInstant,
    ) -> Result<(), Fatal> {
        let Some((fragment, _)) = Fragment::split_first(content) else { return Ok(()) };
        match fragment.kind {
            MessageType::FINISHED => exchange.peer_repeats(records, now),
            MessageType::CLIENT_HELLO
                if self.refused_at.is_none_or(|at| now.saturating_since(at) >= REFUSALS_APART) =>
            {
                self.refused_at = Some(now);
                exchange.send_once(records, ContentType::Alert, &Alert::NO_RENEGOTIATION.encode())
            }
            _ => Ok(()),
        }
    }
}
