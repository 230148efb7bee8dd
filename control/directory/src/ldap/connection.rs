//! A connection to a directory: one request at a time, and the responses to it.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ber::{BerError, message_bytes};
use super::message::{Entry, Message, Outcome, Request, Response, START_TLS, SUCCESS, Search};
use crate::Failed;

/// Bytes of a directory in one login: one user with the longest message there is, and their groups.
const BYTES_MAX: usize = 1 << 20;
/// Bytes that are taken from the system at once.
const PIECE_BYTES: usize = 4 << 10;

/// What ends a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum LdapError {
    /// The network, or TLS.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It was closed.
    #[error("expected a response, found the end of the connection")]
    Ended,
    /// Notice of disconnection (RFC 4511 §4.4.1), or another one that was not asked for.
    #[error("expected a response, found a notice: {0}")]
    Notice(Outcome),
    /// No LDAP.
    #[error("expected a message of LDAP: {0}")]
    Malformed(#[from] BerError),
    /// The response to another request.
    #[error("expected a response to request {expected}, found one to {found}")]
    Id {
        /// That of the request.
        expected: u32,
        /// That of the response.
        found: u32,
    },
    /// A response of another kind.
    #[error("expected the response to a {0}, found another")]
    Kind(&'static str),
    /// More than was asked for.
    #[error("expected at most {0} {1}")]
    TooMuch(usize, &'static str),
    /// StartTLS is refused.
    #[error("expected StartTLS to succeed: {0}; use ldaps, or have the directory offer it")]
    NoTls(Outcome),
    /// What whoever is in between may have put in (RFC 4513 §3.1.1).
    #[error("expected nothing between the response to StartTLS and TLS, found bytes in the clear")]
    BeforeTls,
    /// What the organisation wrote, or the entry's name, does not fit.
    #[error("expected a shorter base, filter or distinguished name for a request")]
    RequestTooLong,
}

impl LdapError {
    /// What it means of the directory at `url`.
    pub(super) fn of(self, url: &str) -> Failed {
        let text = format!("{url}: {self}").into();
        match self {
            Self::Io(_) | Self::Ended | Self::Notice(_) => Failed::Unreachable(text),
            _ => Failed::Answer(text),
        }
    }
}

/// A connection, secured or not.
pub(super) struct Connection<S> {
    stream: S,
    /// What came and was not read yet: the start of a message, or several.
    received: Vec<u8>,
    bytes_left: usize,
    last_id: u32,
}

impl Connection<TcpStream> {
    /// Begins TLS on it (RFC 4511 §4.14). What was received before counts for nothing then.
    pub(super) async fn start_tls(
        mut self,
        tls: &Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Connection<TlsStream<TcpStream>>, LdapError> {
        self.send(&Request::StartTls).await?;
        let Response::Extended(outcome, oid) = self.receive().await? else { return Err(LdapError::Kind("StartTLS")) };
        if outcome.code != SUCCESS {
            return Err(LdapError::NoTls(outcome));
        }
        if oid.is_some_and(|oid| oid != START_TLS) {
            return Err(LdapError::Kind("StartTLS"));
        }
        // What comes later in the clear is no TLS, and fails the handshake.
        if !self.received.is_empty() {
            return Err(LdapError::BeforeTls);
        }
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, self.stream).await?;
        Ok(Connection::new(stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Over a stream on which nothing was said.
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, received: Vec::new(), bytes_left: BYTES_MAX, last_id: 0 }
    }

    /// Binds with a password, which must not be empty (RFC 4513 §5.1.2).
    pub(super) async fn bind(&mut self, dn: &str, password: &str) -> Result<Outcome, LdapError> {
        self.send(&Request::Bind { dn, password }).await?;
        match self.receive().await? {
            Response::Bound(outcome) => Ok(outcome),
            _ => Err(LdapError::Kind("bind")),
        }
    }

    /// Searches: the entries, and how it ended.
    pub(super) async fn search(&mut self, search: Search<'_>) -> Result<(Vec<Entry>, Outcome), LdapError> {
        let entries_max = usize::try_from(search.entries_max).unwrap_or(usize::MAX);
        self.send(&Request::Search(search)).await?;
        let mut entries = Vec::new();
        loop {
            match self.receive().await? {
                Response::Entry(_) if entries.len() >= entries_max => {
                    return Err(LdapError::TooMuch(entries_max, "entries, as the search said"));
                }
                Response::Entry(entry) => entries.push(entry),
                // Nobody is sent elsewhere with a password of ours.
                Response::Reference => {}
                Response::Done(outcome) => return Ok((entries, outcome)),
                _ => return Err(LdapError::Kind("search")),
            }
        }
    }

    /// Says good-bye, if the directory still listens.
    pub(super) async fn unbind(mut self) {
        if self.send(&Request::Unbind).await.is_ok() {
            drop(self.stream.shutdown().await);
        }
    }

    async fn send(&mut self, request: &Request<'_>) -> Result<(), LdapError> {
        self.last_id += 1;
        let bytes = request.encode(self.last_id).ok_or(LdapError::RequestTooLong)?;
        self.stream.write_all(&bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next response, which must be to the last request.
    async fn receive(&mut self) -> Result<Response, LdapError> {
        let bytes = loop {
            match message_bytes(&self.received)? {
                Some(bytes) if bytes <= self.received.len() => break bytes,
                _ => self.read().await?,
            }
        };
        let Message { id, response } = Message::decode(&self.received[..bytes])?;
        self.received.drain(..bytes);
        match response {
            Response::Extended(outcome, _) if id == 0 => Err(LdapError::Notice(outcome)),
            response if id == self.last_id => Ok(response),
            _ => Err(LdapError::Id { expected: self.last_id, found: id }),
        }
    }

    async fn read(&mut self) -> Result<(), LdapError> {
        let mut piece = [0; PIECE_BYTES];
        let count = self.stream.read(&mut piece).await?;
        if count == 0 {
            return Err(LdapError::Ended);
        }
        self.bytes_left = self.bytes_left.checked_sub(count).ok_or(LdapError::TooMuch(BYTES_MAX, "bytes"))?;
        self.received.extend_from_slice(&piece[..count]);
        Ok(())
    }
}
