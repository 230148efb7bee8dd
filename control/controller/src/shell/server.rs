//! A Controller as a value: opened, served, asked for its state.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use axum::{Router, middleware};
use ringfort_enrol::tls::{self, ALPN_HTTP1, ALPN_HTTP2, ALPN_JOIN, ClientCertificates, LiveTrust, OwnCertificate};
use ringfort_enrol::{Folder, FolderError, Kind, wall_clock};
use ringfort_identity::Credentials;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{broadcast, watch};
use tokio_rustls::TlsAcceptor;

use super::hub::End;
use super::identity::Identity;
use super::limits::{BACKLOG, UNAUTHENTICATED_MAX};
use super::listener::Doors;
use super::settings::{Options, Start};
use super::{Shell, api, counted, grpc, health, metrics, receipts};
use crate::core::{Change, Core, Out, Removed, serial_text};

/// How often is looked whether our own certificates are due: they have a third of their life before them then, weeks.
const RENEWAL_LOOK: Duration = Duration::from_secs(3_600);
/// How often what is over is removed from the database.
const REMOVAL_LOOK: Duration = Duration::from_secs(3_600);
/// Events in the status.
const EVENTS_SHOWN: u32 = 64;

/// A Controller that listens.
pub struct Server {
    doors: Arc<Doors>,
    metrics: Option<TcpListener>,
    own: OwnCertificate,
    trust: LiveTrust,
    listener: TcpListener,
    address: SocketAddr,
    fingerprint: String,
    changes: broadcast::Receiver<Change>,
}

impl Server {
    /// Opens the state folder at `path`, makes the organisation on the first start, and listens. It ends when `stop` becomes
    /// true.
    ///
    /// # Errors
    /// Whatever keeps it from running, with what was expected and what came.
    pub async fn open(path: &Path, options: &Options, stop: watch::Receiver<bool>) -> Result<Self> {
        let folder = match Folder::open_joined(path) {
            Ok((folder, identity)) if identity.kind == Kind::Controller => folder,
            Ok(_) => bail!("{}: expected the folder of a Controller, found another role's", path.display()),
            Err(FolderError::NotJoined { .. }) => Folder::create(path)?,
            Err(error) => return Err(error.into()),
        };
        let start = Start::new(&folder, options)?;
        let listener = listen(start.listen()).await?;
        let address = listener.local_addr()?;
        let settings = start.settings(options, address);
        let identity = Identity::new(&start.identity())?;
        let metrics = metrics::listen(start.metrics()).await?;
        let core = Core::open(path, &settings, options.administrator.as_ref(), wall_clock()).await?;
        start.keep(&folder, &settings, address)?;
        let fingerprint = tls::fingerprint(&CertificateDer::from(core.root_der()));
        let fingerprint = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
        let (chain, key) = core.server_credentials();
        let PrivateKeyDer::Pkcs8(key) = key else { bail!("expected the Controller's key in PKCS#8 form") };
        let own = OwnCertificate::new(&Credentials::new(chain, key)?)?;
        let trust = LiveTrust::new(core.trust());
        let alpn = [ALPN_HTTP2, ALPN_HTTP1, ALPN_JOIN];
        let acceptor = TlsAcceptor::from(Arc::new(tls::server(&own, &trust, ClientCertificates::Optional, &alpn)?));
        let changes = core.changes();
        let shell = Arc::new(Shell::new(core, identity, stop));
        let gateways_only = middleware::from_fn_with_state(Arc::clone(&shell), grpc::gateways_only);
        let control = Router::new().route_service(&format!("/{}/{{*method}}", grpc::NAME), grpc::service(&shell));
        let router = api::router(&shell).merge(control.layer(gateways_only)).merge(health::services(&shell)?);
        let unauthenticated = options.unauthenticated_max.unwrap_or(UNAUTHENTICATED_MAX);
        let doors = Arc::new(Doors::new(shell, acceptor, router, unauthenticated));
        Ok(Self { doors, metrics, own, trust, listener, address, fingerprint, changes })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` becomes true, and then until what is under way has ended, for 3 s at most. Or until this Controller is
    /// removed.
    ///
    /// # Errors
    /// Why it cannot go on, for whoever could start it anew.
    pub async fn serve(&self) -> Result<(), Out> {
        let shell = &self.doors.shell;
        let telling = tell(Arc::clone(shell), self.trust.clone(), self.changes.resubscribe());
        let keeping = receipts::keep(shell);
        let ending = async {
            shell.stopped().await;
            shell.hub.end_all(End::Stopping);
            std::future::pending::<()>().await;
        };
        let out = tokio::select! {
            () = self.doors.serve(&self.listener) => None,
            () = self.keep_certificates() => None,
            () = self.keep_small() => None,
            () = metrics::serve(shell, self.metrics.as_ref()) => None,
            out = shell.core.follow(wall_clock) => Some(out),
            () = telling => None,
            () = keeping => None,
            () = health::keep(shell) => None,
            () = ending => None,
        };
        self.keep_last_seen().await;
        out.filter(|out| *out != Out::Removed).map_or(Ok(()), Err)
    }

    async fn keep_last_seen(&self) {
        if let Err(error) = self.doors.shell.core.keep_last_seen().await {
            tracing::warn!(error = format!("{error:#}"), "how far the database is could not be kept");
        }
    }

    /// Renews our own certificates in time, for ever.
    async fn keep_certificates(&self) {
        let core = &self.doors.shell.core;
        loop {
            tokio::time::sleep(RENEWAL_LOOK).await;
            let renewed = async {
                if core.renew_own_certificates(wall_clock()).await? {
                    let (chain, key) = core.server_credentials();
                    let PrivateKeyDer::Pkcs8(key) = key else { bail!("expected the Controller's key in PKCS#8 form") };
                    self.own.replace(&Credentials::new(chain, key)?)?;
                    tracing::info!("our own certificates were renewed");
                }
                Ok(())
            };
            if let Err(error) = renewed.await {
                tracing::error!(
                    error = format!("{error:#}"),
                    "our own certificates could not be renewed, trying again"
                );
            }
        }
    }

    /// Removes what is over from the database, and keeps how far that is, for ever. Several Controllers may do so side by side.
    async fn keep_small(&self) {
        let core = &self.doors.shell.core;
        loop {
            tokio::time::sleep(REMOVAL_LOOK).await;
            self.keep_last_seen().await;
            match core.remove_what_is_over(wall_clock()).await {
                Ok(removed) if removed == Removed::default() => {}
                Ok(Removed { invitations, logins, sequences, revocations }) => {
                    tracing::info!(invitations, logins, sequences, revocations, "what was over was removed");
                }
                Err(error) => tracing::warn!(%error, "what is over could not be removed, trying again"),
            }
        }
    }

    /// The state, for the status socket.
    pub async fn status(&self) -> Value {
        let shell = &self.doors.shell;
        let gateways = shell.core.known_gateways(wall_clock()).await.unwrap_or_default();
        let gateways: Vec<Value> = gateways
            .into_iter()
            .map(|row| {
                let applied = shell.hub.applied(&row.id);
                let serial = applied.and_then(|applied| applied.revocations);
                json!({
                    "connected": shell.hub.open_since(&row.id).is_some(),
                    "duplicate": shell.duplicates.of(&row.id).map(|taken| json!({ "at": taken.at.0, "from": taken.from })),
                    "connected_since": shell.hub.open_since(&row.id).map(|since| since.0),
                    "applied": serial.map(serial_text),
                    "applied_configuration": applied.map(|applied| applied.configuration_seq),
                    "applied_at": applied.map(|applied| applied.at.0),
                    "applied_after_ms": applied.and_then(|applied| applied.took_ms),
                    "id": row.id,
                    "name": row.name,
                    "site": row.site,
                    "alive": row.alive,
                    "last_seen": row.last_seen,
                })
            })
            .collect();
        let serial = shell.core.serial();
        json!({
            "role": "controller",
            "organisation": shell.core.organisation(),
            "ca_fingerprint": self.fingerprint,
            "address": self.address.to_string(),
            "revocations": serial_text(serial),
            "gateways": gateways,
            "subscribers": shell.hub.open(None),
            "connections": shell.open.load(Ordering::Relaxed),
            "totals": shell.counters.totals(),
            "events": shell.core.newest_events(EVENTS_SHOWN).await.unwrap_or_default(),
        })
    }
}

/// Passes on what happens, in its order. It ends with the core, which is never.
async fn tell(shell: Arc<Shell>, trust: LiveTrust, mut changes: broadcast::Receiver<Change>) {
    loop {
        let change = changes.recv().await;
        if matches!(change, Ok(Change::Authorities) | Err(broadcast::error::RecvError::Lagged(_))) {
            trust.replace(shell.core.trust());
        }
        let lost = match change {
            Ok(change) => shell.hub.tell(change, Instant::now()),
            // Something was missed, and nobody knows what: every Gateway asks for it by beginning its stream anew.
            Err(broadcast::error::RecvError::Lagged(_)) => shell.hub.end_all(End::Lost),
            Err(broadcast::error::RecvError::Closed) => return,
        };
        shell.counters.add(counted::LOST, lost as u64);
    }
}

async fn listen(address: &str) -> Result<TcpListener> {
    let listening = || format!("cannot listen on {address}");
    let resolved = tokio::net::lookup_host(address).await.with_context(listening)?.next().with_context(listening)?;
    let socket = if resolved.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.with_context(listening)?;
    socket.set_reuseaddr(true)?;
    socket.bind(resolved).with_context(listening)?;
    socket.listen(BACKLOG).with_context(listening)
}
