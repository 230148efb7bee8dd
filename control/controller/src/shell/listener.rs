//! The TCP port: connections are taken, bounded, shake hands, and go to the door that their ALPN names.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ringfort_enrol::tls::{self, ALPN_HTTP2, ALPN_JOIN, HANDSHAKE_TIME_MAX};
use ringfort_enrol::wall_clock;
use ringfort_identity::{KeyThumbprint, PeerIdentity, Side, Trust};
use rustls::ServerConnection;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;

use super::caller::Caller;
use super::limits::{
    ACCEPT_PAUSE, AUTHENTICATED_MAX, BODY_TIME, HEADER_BYTES_MAX, HEADER_FIELDS_MAX, HEADER_TIME, KEEPALIVE,
    OF_ONE_KEY_MAX, STOP_TIME, STREAMS_MAX, UNAUTHENTICATED_LIFE,
};
use super::places::Places;
use super::{Shell, counted, join};
use crate::core::Refused;

/// Octets of a request's body that a peer may send before they are read (RFC 9113 §6.9): as many as an unauthenticated
/// request may have in all.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// The same for all requests of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// The life of a connection that has no end of its own.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

/// What every connection needs.
pub(crate) struct Doors {
    pub(crate) shell: Arc<Shell>,
    pub(crate) tls: TlsAcceptor,
    pub(crate) router: Router,
    unauthenticated: Arc<Semaphore>,
    authenticated: Arc<Semaphore>,
    /// Connections of each key that was shown, so that one device cannot take the places of all Gateways.
    keys: Arc<Places<KeyThumbprint>>,
}

impl Doors {
    /// Doors before which `unauthenticated_max` may wait that nobody knows.
    pub(crate) fn new(shell: Arc<Shell>, tls: TlsAcceptor, router: Router, unauthenticated_max: usize) -> Self {
        let unauthenticated = Arc::new(Semaphore::new(unauthenticated_max));
        let authenticated = Arc::new(Semaphore::new(AUTHENTICATED_MAX));
        Self { shell, tls, router, unauthenticated, authenticated, keys: Places::new(OF_ONE_KEY_MAX) }
    }

    /// Serves until the Controller is to stop, and then until the last connection has ended, or for [`STOP_TIME`].
    pub(crate) async fn serve(self: &Arc<Self>, listener: &TcpListener) {
        let shell = &self.shell;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = shell.stopped() => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((tcp, address)) => match Arc::clone(&self.unauthenticated).try_acquire_owned() {
                        Ok(permit) => {
                            shell.counters.count(counted::ACCEPTED);
                            connections.spawn(Arc::clone(self).connection(tcp, address, permit));
                        }
                        Err(_) => shell.counters.count(counted::OVER_LIMIT),
                    },
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        let ended = async { while connections.join_next().await.is_some() {} };
        if timeout(STOP_TIME, ended).await.is_err() {
            tracing::warn!(left = connections.len(), "connections are cut off");
        }
    }

    async fn connection(self: Arc<Self>, tcp: TcpStream, address: SocketAddr, permit: OwnedSemaphorePermit) {
        let open = &self.shell.open;
        open.fetch_add(1, Ordering::Relaxed);
        if let Some((stream, peer)) = self.shake_hands(tcp, address).await {
            self.through_a_door(stream, Caller::new(address, peer), permit).await;
        }
        open.fetch_sub(1, Ordering::Relaxed);
    }

    /// The handshake, and who the peer is by it: nobody without a certificate, and never anybody by a bad one.
    async fn shake_hands(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
    ) -> Option<(TlsStream<TcpStream>, Option<PeerIdentity>)> {
        let counters = &self.shell.counters;
        tcp.set_nodelay(true).ok()?;
        let Ok(stream) = timeout(HANDSHAKE_TIME_MAX, self.tls.accept(tcp)).await else {
            counters.count(counted::HANDSHAKES_LATE);
            return None;
        };
        let shaken = stream.map_err(|error| tls::explained(error).to_string()).and_then(|stream| {
            let peer = peer_of(stream.get_ref().1, &self.shell.core.trust()).map_err(|error| error.to_string())?;
            Ok((stream, peer))
        });
        match shaken {
            Ok(shaken) => Some(shaken),
            Err(error) => {
                let nobody = Caller::new(address, None);
                self.shell.refuse(&nobody, "handshake", "", &Refused::handshake(error)).await;
                None
            }
        }
    }

    async fn through_a_door(&self, stream: TlsStream<TcpStream>, caller: Caller, permit: OwnedSemaphorePermit) {
        let alpn = stream.get_ref().1.alpn_protocol();
        if alpn == Some(ALPN_JOIN) {
            return join::serve(&self.shell, &caller, stream).await;
        }
        // A peer with a certificate leaves its place to those who have none yet.
        let _permits = if let Some(key) = caller.key() {
            let places = self.keys.place(key).zip(Arc::clone(&self.authenticated).try_acquire_owned().ok());
            let Some((of_key, place)) = places else {
                return self.shell.counters.count(counted::OVER_LIMIT);
            };
            drop(permit);
            (Some(of_key), place)
        } else {
            (None, permit)
        };
        let builder = auto::Builder::new(TokioExecutor::new());
        let builder = if alpn == Some(ALPN_HTTP2) { builder.http2_only() } else { builder.http1_only() };
        self.http(builder, stream, caller).await;
    }

    async fn http(&self, mut builder: auto::Builder<TokioExecutor>, stream: TlsStream<TcpStream>, caller: Caller) {
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .max_buf_size(HEADER_BYTES_MAX)
            .max_headers(HEADER_FIELDS_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HEADER_BYTES_MAX as u32)
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE);
        let life = if caller.is_known() { FOREVER } else { UNAUTHENTICATED_LIFE };
        let caller = Arc::new(caller);
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Arc::clone(&caller));
            self.router.clone().oneshot(request)
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = connection.as_mut() => return note(&caller, ended),
            () = self.shell.stopped() => {}
            () = sleep(life) => {}
        }
        // What is under way is finished.
        connection.as_mut().graceful_shutdown();
        match timeout(BODY_TIME, connection).await {
            Ok(ended) => note(&caller, ended),
            Err(_) => tracing::debug!(address = %caller.address(), "connection cut off"),
        }
    }
}

fn note<E: std::fmt::Display>(caller: &Caller, ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(address = %caller.address(), %error, "connection ended");
    }
}

fn peer_of(
    connection: &ServerConnection,
    trust: &Trust,
) -> Result<Option<PeerIdentity>, ringfort_identity::VerifyError> {
    match connection.peer_certificates().and_then(<[_]>::first) {
        None => Ok(None),
        Some(leaf) => trust.verify_any_role(leaf, Side::Client, wall_clock()).map(Some),
    }
}
