//! The session channel's listener (A15): TLS 1.3 with both certificates, a websocket in it, one protobuf per message.
//!
//! It knows who is at the other end and nothing more: what is said goes to the control thread, and what that answers comes
//! back through a bounded queue.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{Sink, SinkExt, StreamExt};
use prost::Message as _;
use ringfort_admission::{ChannelId, FromClient, ToClient};
use ringfort_enrol::tls::{self, ALPN_SESSION, HANDSHAKE_TIME_MAX, LiveTrust, PeerRefused};
use ringfort_enrol::wall_clock;
use ringfort_identity::{PeerIdentity, Role, Side, Trust};
use ringfort_proto::v1;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// Longest message, either way: two tokens of the longest kind would not fit, and no real one comes near.
const MESSAGE_BYTES_MAX: usize = 512 << 10;
/// Connections at once, one per session. Beyond it a connection is closed at once, and counted.
const CHANNELS_MAX: usize = 17_408;
/// Connections that have not shaken hands yet. Beyond it a connection is closed at once, and counted.
const HANDSHAKES_MAX: usize = 1_024;
/// Messages waiting for one client. A client that does not take them loses its channel and may come again.
const QUEUE_MAX: usize = 256;
/// The channel is probed this often, and given up when nothing was heard for the second time.
const PING_EVERY: Duration = Duration::from_secs(20);
const SILENCE_MAX: Duration = Duration::from_secs(50);
/// How long a client may leave a message of ours unread. Beyond it the channel is lost.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);
/// Messages that a client may say between two pings: it needs two to bind, and one for each renewal. Each costs the control
/// thread, on which revocations run, up to two signatures.
const SAID_MAX: u32 = 64;
/// How long a client may take to hear our last message.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(2);
/// Entries that a device may say of itself, and bytes of each key and value.
const DEVICE_CLAIMS_MAX: usize = 64;
const DEVICE_CLAIM_BYTES_MAX: usize = 256;

/// What the listener tells the control thread.
pub(super) enum FromChannel {
    /// A device has connected. What is sent to `to_client` reaches it; dropping it closes the channel once that is out.
    Opened { id: ChannelId, peer: PeerIdentity, to_client: mpsc::Sender<ToClient> },
    /// It has said something.
    Said { id: ChannelId, message: FromClient },
    /// It is gone.
    Closed { id: ChannelId },
    /// Somebody was refused before they had a channel.
    Refused { code: &'static str, detail: String },
}

/// Hands something to the control thread; `false` when that has ended.
pub(super) type Tell = Arc<dyn Fn(FromChannel) -> bool + Send + Sync>;

/// Accepts channels until the process ends.
pub(super) async fn listen(listener: TcpListener, acceptor: TlsAcceptor, trust: LiveTrust, tell: Tell) {
    let next = Arc::new(AtomicU64::new(1));
    let (channels, handshakes) = (Arc::new(Semaphore::new(CHANNELS_MAX)), Arc::new(Semaphore::new(HANDSHAKES_MAX)));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // No descriptors left, most likely: some become free.
                tracing::warn!(%error, "a channel could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let permits = (Arc::clone(&channels).try_acquire_owned(), Arc::clone(&handshakes).try_acquire_owned());
        let (Ok(channel), Ok(handshake)) = permits else {
            tell(FromChannel::Refused { code: "too_many_sessions", detail: "no room for another channel".into() });
            continue;
        };
        let (acceptor, trust, tell, next) = (acceptor.clone(), trust.clone(), Arc::clone(&tell), Arc::clone(&next));
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE_TIME_MAX, shake_hands(stream, &acceptor, &trust.get())).await;
            drop(handshake);
            match shaken {
                Ok(Ok((peer, socket))) => {
                    let id = ChannelId(next.fetch_add(1, Ordering::Relaxed));
                    carry(id, peer, socket, &tell).await;
                }
                Ok(Err(Unshaken::Refused { code, detail })) => {
                    tell(FromChannel::Refused { code, detail });
                }
                Ok(Err(Unshaken::Io(error))) => tracing::debug!(%error, "a channel did not come to be"),
                Err(_) => tracing::debug!("a channel did not come to be in time"),
            }
            drop(channel);
        });
    }
}

type Socket = WebSocketStream<tokio_rustls::server::TlsStream<TcpStream>>;

enum Unshaken {
    /// The peer is nobody here.
    Refused { code: &'static str, detail: String },
    /// The connection failed.
    Io(io::Error),
}

async fn shake_hands(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    trust: &Trust,
) -> Result<(PeerIdentity, Socket), Unshaken> {
    stream.set_nodelay(true).map_err(Unshaken::Io)?;
    // A certificate that does not pass ends the handshake; so does none.
    let stream = acceptor.accept(stream).await.map_err(|error| match error.get_ref() {
        Some(tls_error) if tls_error.is::<rustls::Error>() => {
            let none = matches!(tls_error.downcast_ref(), Some(rustls::Error::NoCertificatesPresented));
            let code = if none { PeerRefused::NoCertificate.code() } else { "certificate_refused" };
            Unshaken::Refused { code, detail: tls::explained(error).to_string() }
        }
        _ => Unshaken::Io(error),
    })?;
    let tls = stream.get_ref().1;
    if tls.alpn_protocol() != Some(ALPN_SESSION) {
        let why = "expected ALPN ringfort-session/1, found none";
        return Err(Unshaken::Io(io::Error::new(io::ErrorKind::InvalidData, why)));
    }
    let shown = tls.peer_certificates();
    let peer = tls::verify_peer(shown, trust, Side::Client, Role::Device, wall_clock());
    let refusal = peer.as_ref().err().map(|refused| (refused.code(), refused.to_string()));
    #[expect(clippy::result_large_err, reason = "the signature is the websocket library's")]
    let answer = |_: &Request, response: Response| match &refusal {
        None => Ok(response),
        Some((code, _)) => {
            let mut refused = ErrorResponse::new(Some((*code).to_owned()));
            *refused.status_mut() = StatusCode::FORBIDDEN;
            Err(refused)
        }
    };
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let socket = tokio_tungstenite::accept_hdr_async_with_config(stream, answer, Some(config)).await;
    let peer = peer.map_err(|refused| Unshaken::Refused { code: refused.code(), detail: refused.to_string() })?;
    Ok((peer, socket.map_err(|error| Unshaken::Io(io::Error::other(error)))?))
}

/// Carries messages between the socket and the control thread until either ends the channel.
async fn carry(id: ChannelId, peer: PeerIdentity, socket: Socket, tell: &Tell) {
    let (to_client, mut queue) = mpsc::channel(QUEUE_MAX);
    if !tell(FromChannel::Opened { id, peer, to_client }) {
        return;
    }
    let (mut sink, mut stream) = socket.split();
    let mut said = 0;
    let mut heard = tokio::time::Instant::now();
    let mut ping = tokio::time::interval(PING_EVERY);
    ping.reset();
    loop {
        tokio::select! {
            message = queue.recv() => match message {
                Some(message) => {
                    if !send(&mut sink, Message::Binary(encode(message)), SEND_TIME_MAX).await {
                        break;
                    }
                }
                // The control thread has said its last.
                None => {
                    drop(tokio::time::timeout(GOODBYE_TIME_MAX, sink.close()).await);
                    break;
                }
            },
            // Who says too much is not heard any more, and told so.
            received = stream.next(), if said <= SAID_MAX => {
                heard = tokio::time::Instant::now();
                said += 1;
                match received {
                    Some(Ok(Message::Binary(_))) if said > SAID_MAX => {
                        let detail = format!("expected at most {SAID_MAX} messages in {PING_EVERY:?}, found more");
                        tell(FromChannel::Said { id, message: FromClient::Malformed { detail } });
                    }
                    Some(Ok(Message::Binary(bytes))) => {
                        if !tell(FromChannel::Said { id, message: decode(bytes) }) {
                            break;
                        }
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                        let detail = "expected binary messages, found text".into();
                        tell(FromChannel::Said { id, message: FromClient::Malformed { detail } });
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                }
            }
            _ = ping.tick() => {
                let silent = said > SAID_MAX || heard.elapsed() > SILENCE_MAX;
                if silent || !send(&mut sink, Message::Ping(Bytes::new()), SEND_TIME_MAX).await {
                    break;
                }
                said = 0;
            }
        }
    }
    tell(FromChannel::Closed { id });
}

/// Sends a message; `false` when the client is gone, or does not read it `within` that time.
async fn send(sink: &mut (impl Sink<Message> + Unpin), message: Message, within: Duration) -> bool {
    matches!(tokio::time::timeout(within, sink.send(message)).await, Ok(Ok(())))
}

fn decode(bytes: Bytes) -> FromClient {
    let malformed = |detail: String| FromClient::Malformed { detail };
    let message = match v1::ToGateway::decode(bytes) {
        Ok(message) => message,
        Err(error) => return malformed(format!("expected a message of ringfort.v1.ToGateway: {error}")),
    };
    match message.say {
        Some(v1::to_gateway::Say::Present(v1::Present { claims, entitlement, device })) => {
            let short = |text: &String| text.len() <= DEVICE_CLAIM_BYTES_MAX;
            if device.len() > DEVICE_CLAIMS_MAX || !device.iter().all(|(key, value)| short(key) && short(value)) {
                return malformed(format!(
                    "expected at most {DEVICE_CLAIMS_MAX} device claims of {DEVICE_CLAIM_BYTES_MAX} bytes"
                ));
            }
            let device: BTreeMap<String, String> = device.into_iter().collect();
            FromClient::Present { claims, entitlement, device }
        }
        Some(v1::to_gateway::Say::Bind(v1::Bind { tunnel, exported })) => {
            match (tunnel.as_ref().try_into(), exported.as_ref().try_into()) {
                (Ok(tunnel), Ok(exported)) => FromClient::Bind { tunnel, exported },
                _ => malformed("expected a tunnel of 16 bytes and an exported value of 32".into()),
            }
        }
        None => malformed("expected Present or Bind, found an empty message".into()),
    }
}

fn encode(message: ToClient) -> Bytes {
    use v1::to_client::Say;
    let say = match message {
        ToClient::Welcome { session, time } => {
            Say::Welcome(v1::Welcome { session: session.to_vec().into(), time: time.0 })
        }
        ToClient::Accepted { seq, ends_at } => Say::Accepted(v1::Accepted { seq, ends_at: ends_at.0 }),
        ToClient::Bound { exported, tunnel } => {
            Say::Bound(v1::Bound { exported: exported.to_vec().into(), tunnel: tunnel.to_vec().into() })
        }
        ToClient::Denied { destination, rule, reason } => Say::Denied(v1::Denied { destination, rule, reason }),
        ToClient::Entitlement { token } => Say::Entitlement(v1::Entitlement { token }),
        ToClient::RenewBy { time, reason } => Say::RenewBy(v1::RenewBy { time: time.0, reason }),
        ToClient::Draining => Say::Draining(v1::Draining {}),
        ToClient::Goodbye { code, message, event } => Say::Goodbye(v1::Goodbye { code: code.into(), message, event }),
    };
    v1::ToClient { say: Some(say) }.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(tunnel: usize, exported: usize) -> Bytes {
        let bind = v1::Bind { tunnel: vec![1; tunnel].into(), exported: vec![2; exported].into() };
        v1::ToGateway { say: Some(v1::to_gateway::Say::Bind(bind)) }.encode_to_vec().into()
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_loses_its_channel() {
        let takes_one = |taken: usize, _: Message| async move {
            if taken > 0 {
                std::future::pending::<()>().await;
            }
            Ok::<_, io::Error>(taken + 1)
        };
        let mut sink = Box::pin(futures_util::sink::unfold(0, takes_one));
        let within = Duration::from_millis(50);
        assert!(send(&mut sink, Message::Ping(Bytes::new()), within).await);
        assert!(!send(&mut sink, Message::Ping(Bytes::new()), within).await);
    }

    #[test]
    fn messages_of_the_wrong_form_are_told_as_such() {
        assert!(matches!(decode(bind(16, 32)), FromClient::Bind { .. }));
        for bytes in [bind(15, 32), bind(16, 33), Bytes::new(), Bytes::from_static(b"\xff\xff")] {
            assert!(matches!(decode(bytes), FromClient::Malformed { .. }));
        }
        let present = |device| {
            let present = v1::Present { claims: "c".into(), entitlement: "e".into(), device };
            decode(v1::ToGateway { say: Some(v1::to_gateway::Say::Present(present)) }.encode_to_vec().into())
        };
        let many = (0..=DEVICE_CLAIMS_MAX).map(|n| (n.to_string(), String::new())).collect();
        assert!(matches!(present(many), FromClient::Malformed { .. }));
        let long = [("os".to_owned(), "x".repeat(DEVICE_CLAIM_BYTES_MAX + 1))].into();
        assert!(matches!(present(long), FromClient::Malformed { .. }));
        assert!(matches!(present([("os".to_owned(), "linux".to_owned())].into()), FromClient::Present { .. }));
    }
}
