//! The session channel's I/O: TLS with both certificates, a websocket in it, a protobuf in each of its messages (A15).
//!
//! One task serves one connection to its end. What is said and when is [`crate::site`]'s to decide.

use std::io;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use ringfort_enrol::tls::{self, ALPN_SESSION, Expected, HANDSHAKE_TIME_MAX, OwnCertificate};
use ringfort_enrol::wall_clock;
use ringfort_identity::{Role, Side, Trust};
use ringfort_proto::v1::{ToClient, ToGateway};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::site::SiteGateway;

/// Longest message, either way: an entitlement token and room around it.
const MESSAGE_BYTES_MAX: usize = 512 << 10;
/// A ping when nothing was said for so long, and when silence means that the connection is gone.
const PING_EVERY: Duration = Duration::from_secs(20);
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Messages waiting to be sent.
const OUTGOING_MAX: usize = 32;

/// The stream below the websocket.
type Stream = tokio_rustls::client::TlsStream<TcpStream>;

/// What a channel tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// It is open; the digest is that of the Gateway's certificate.
    Opened([u8; 32]),
    /// The Gateway said something.
    Message(ToClient),
    /// It is closed, or never was open.
    Closed(String),
}

/// A channel that is open, or about to be. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Channel {
    send: mpsc::Sender<ToGateway>,
    task: JoinHandle<()>,
}

impl Channel {
    /// Opens a channel to `gateway`. What it tells goes to `tell`, which waits where there is no room.
    pub(crate) fn open<F: Future<Output = ()> + Send>(
        gateway: SiteGateway,
        own: &OwnCertificate,
        trust: &Trust,
        tell: impl Fn(Told) -> F + Send + Sync + 'static,
    ) -> Self {
        let (send, outgoing) = mpsc::channel(OUTGOING_MAX);
        let (own, trust) = (own.clone(), trust.clone());
        let task = tokio::spawn(async move {
            let why = match serve(&gateway, &own, &trust, outgoing, &tell).await {
                Ok(why) => why.to_owned(),
                Err(error) => error.to_string(),
            };
            tell(Told::Closed(why)).await;
        });
        Self { send, task }
    }

    /// Closes it; the task ends once that is done.
    pub(crate) fn close(self) -> JoinHandle<()> {
        self.task
    }

    /// Sends a message; `false` when so many wait that the connection must be stuck.
    pub(crate) fn say(&self, message: ToGateway) -> bool {
        self.send.try_send(message).is_ok()
    }
}

async fn serve<F: Future<Output = ()> + Send>(
    gateway: &SiteGateway,
    own: &OwnCertificate,
    trust: &Trust,
    mut outgoing: mpsc::Receiver<ToGateway>,
    tell: &(impl Fn(Told) -> F + Send + Sync),
) -> io::Result<&'static str> {
    let (mut socket, digest) = connect(gateway, own, trust).await?;
    tell(Told::Opened(digest)).await;
    let mut ping = interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            received = socket.next() => {
                heard = Instant::now();
                match received.transpose().map_err(io::Error::other)? {
                    Some(Message::Binary(bytes)) => {
                        let message = ToClient::decode(bytes).map_err(io::Error::other)?;
                        tell(Told::Message(message)).await;
                    }
                    Some(Message::Text(_)) => return Err(io::Error::other("expected binary messages, found text")),
                    Some(Message::Close(_)) | None => return Ok("the Gateway closed the channel"),
                    Some(_) => {}
                }
            }
            message = outgoing.recv() => match message {
                Some(message) => {
                    let bytes = message.encode_to_vec();
                    socket.send(Message::Binary(bytes.into())).await.map_err(io::Error::other)?;
                }
                None => {
                    // Politeness that may take no longer than anything else here.
                    drop(timeout(HANDSHAKE_TIME_MAX, socket.close(None)).await);
                    return Ok("closed");
                }
            },
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE_MAX {
                    return Err(io::Error::other(format!("nothing was heard for {SILENCE_MAX:?}")));
                }
                socket.send(Message::Ping(bytes_of_nothing())).await.map_err(io::Error::other)?;
            }
        }
    }
}

/// Connects to the Gateway that the connect token names, with a certificate that it names (C12).
async fn connect(
    gateway: &SiteGateway,
    own: &OwnCertificate,
    trust: &Trust,
) -> io::Result<(WebSocketStream<Stream>, [u8; 32])> {
    let expected = Expected { role: Role::Gateway, id: Some(gateway.id.clone()), digests: gateway.digests.clone() };
    let config = tls::client(Some(own), trust, expected, ALPN_SESSION).map_err(io::Error::other)?;
    let stream = tls::connect(&gateway.address.to_string(), config).await?;
    let connection = stream.get_ref().1;
    if connection.alpn_protocol() != Some(ALPN_SESSION) {
        return Err(io::Error::other("expected a Gateway that serves session channels there"));
    }
    let peer = tls::verify_peer(connection.peer_certificates(), trust, Side::Server, Role::Gateway, wall_clock());
    let digest = *peer.map_err(io::Error::other)?.certificate_digest();
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let upgrade = tokio_tungstenite::client_async_with_config("ws://ringfort.invalid/session", stream, Some(config));
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the Gateway did not take up the channel");
    let (socket, _) = timeout(HANDSHAKE_TIME_MAX, upgrade).await.map_err(late)?.map_err(io::Error::other)?;
    Ok((socket, digest))
}

fn bytes_of_nothing() -> tokio_tungstenite::tungstenite::Bytes {
    tokio_tungstenite::tungstenite::Bytes::new()
}
