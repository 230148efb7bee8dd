//! The server before it is known which version the client speaks, and then that version's.

use std::sync::Arc;

use super::reassembly::Message;
use super::server12::{Server12, Verified};
use super::server13::{Retried, Server13};
use super::{Context, Failure, Step, unexpected};
use crate::alert::{Alert, Fatal, fail};
use crate::config::{ProtocolVersion, ServerConfig};
use crate::wire::hello::{ClientHello, DTLS_1_2, DTLS_1_3, protocols};
use crate::wire::messages::MessageType;

/// What a ClientHello has brought back of an answer that nothing was kept of; it says the version too.
#[derive(Clone, Debug)]
pub(crate) enum Echo {
    /// Nothing: it is the first, and may be of any version.
    Nothing,
    /// A HelloRetryRequest's cookie.
    Retry(Retried),
    /// A HelloVerifyRequest's cookie.
    Verify(Verified),
}

/// See the module's documentation.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "it lives in one box per handshake")]
pub(crate) enum Server {
    Undecided { config: Arc<ServerConfig>, random: [u8; 32] },
    V13(Server13),
    V12(Server12),
}

impl Server {
    /// A server that awaits a ClientHello. `random` is its hello's.
    pub(crate) fn new(config: Arc<ServerConfig>, random: [u8; 32], echo: Echo) -> Self {
        match echo {
            Echo::Nothing => Self::Undecided { config, random },
            Echo::Retry(retried) => Self::V13(Server13::new(config, random, Some(retried))),
            Echo::Verify(verified) => Self::V12(Server12::new(config, random, Some(verified))),
        }
    }

    /// The epoch in which the next message is welcome.
    pub(crate) const fn epoch(&self) -> u64 {
        match self {
            Self::Undecided { .. } => 0,
            Self::V13(server) => server.epoch(),
            Self::V12(server) => server.epoch(),
        }
    }

    /// Takes the next message. One in the clear that is refused changes nothing: another may come in its place.
    pub(crate) fn handle_message(&mut self, message: &Message, cx: &mut Context<'_>) -> Result<Step, Failure> {
        match self {
            Self::Undecided { .. } => {
                let mut decided = self.decide(message)?;
                let step = decided.handle_message(message, cx)?;
                *self = decided;
                Ok(step)
            }
            Self::V13(server) => server.handle_message(message, cx),
            Self::V12(server) => server.handle_message(message, cx),
        }
    }

    /// Whether this hello would be taken in the place of the one that is awaited.
    pub(crate) fn would_take(&self, hello: &Message) -> bool {
        match self {
            Self::Undecided { .. } => self.decide(hello).is_ok_and(|decided| decided.would_take(hello)),
            Self::V13(server) => server.would_take(&hello.body),
            Self::V12(server) => server.would_take(&hello.body),
        }
    }

    fn decide(&self, message: &Message) -> Result<Self, Fatal> {
        let Self::Undecided { config, random } = self else { return Ok(self.clone()) };
        if message.kind != MessageType::CLIENT_HELLO {
            return unexpected(message.kind);
        }
        let hello = ClientHello::parse(&message.body)?;
        let config = Arc::clone(config);
        Ok(match choose_version(&hello, &config)? {
            ProtocolVersion::Dtls13 => Self::V13(Server13::new(config, *random, None)),
            ProtocolVersion::Dtls12 => Self::V12(Server12::new(config, *random, None)),
        })
    }
}

/// The newest version that both speak.
pub(crate) fn choose_version(hello: &ClientHello<'_>, config: &ServerConfig) -> Result<ProtocolVersion, Fatal> {
    let min = config.settings.min_version;
    if hello.offers(DTLS_1_3) {
        Ok(ProtocolVersion::Dtls13)
    } else if min == ProtocolVersion::Dtls12 && hello.offers(DTLS_1_2) {
        Ok(ProtocolVersion::Dtls12)
    } else {
        fail(Alert::PROTOCOL_VERSION, format!("expected a client that speaks {min} or newer"))
    }
}

/// The protocol inside, if the client names any (RFC 7301 §3.2).
pub(super) fn choose_protocol<'a>(hello: &ClientHello<'a>, config: &ServerConfig) -> Result<Option<&'a [u8]>, Fatal> {
    let (Some(ours), Some(offered)) = (&config.settings.protocol, hello.alpn) else { return Ok(None) };
    match protocols(offered).flatten().find(|name| name == ours) {
        Some(name) => Ok(Some(name)),
        None => fail(Alert::NO_APPLICATION_PROTOCOL, "the client speaks no protocol of ours"),
    }
}
