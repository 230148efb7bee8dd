//! The Gateway's side of its Controller's stream: `Subscribe` for what is pushed, `Report` as the heartbeat, `Enroll` for a
//! new certificate. It dials out, tries every Controller in turn, and never gives up (R5).
//!
//! It believes nothing: texts go to the control thread, which verifies them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use hyper_util::rt::TokioIo;
use ringfort_admission::Applied;
use ringfort_enrol::tls::{self, ALPN_HTTP2, Expected, LiveTrust};
use ringfort_enrol::{Folder, Identity, PrivateKey, wall_clock};
use ringfort_identity::Credentials;
use ringfort_proto::state_digest;
use ringfort_proto::v1::gateway_control_client::GatewayControlClient;
use ringfort_proto::v1::{
    self, EnrollRequest, Hello, LiveSession, Push, ReportRequest, SubscribeRequest, push, subscribe_request::Say,
};
use ringfort_token::Serial;
use ringfort_types::UnixSeconds;
use rustls_pki_types::CertificateDer;
use tokio::sync::{Notify, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use super::rotation::{Rotation, Step};

/// Pause before another attempt, after the first failure and at most; between them it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Time between two reports, until a Controller says otherwise, and what it may say.
const REPORT_EVERY: Duration = Duration::from_secs(2);
const REPORT_EVERY_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(60);
/// How long the answer to a report may take. A Controller that is silent for longer is left.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest message: a configuration of a large site, or revocations of a long absence.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Reports in a row that the Controller may find to disagree with what it believes, before the stream begins anew: the first
/// may have crossed a push.
const DISAGREEMENTS_MAX: u32 = 2;
/// What a Controller says to a Gateway that is none of the organisation's: its key was revoked; or the database has no Gateway of this
/// name, or another key for it, as after a restore. It would never hear what was revoked since.
const NOT_OURS: [&str; 3] = ["certificate_revoked", "not_found", "key_mismatch"];
/// Messages to the Controller waiting in the stream.
const QUEUE_MAX: usize = 1_024;

/// Where the Gateway stands, as it tells the Controller. The control thread writes it, the stream reads it.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    pub(super) configuration_seq: u64,
    /// Revocations that are in force.
    pub(super) revocations: Serial,
    /// Those of them that would be in force after a restart as well.
    pub(super) revocations_on_disk: Serial,
    /// Live sessions and the sequence numbers of their entitlement tokens.
    pub(super) sessions: Vec<LiveSession>,
}

/// What the stream tells the control thread.
#[derive(Debug)]
pub(super) enum FromStream {
    /// Whom to believe from now on. Nothing of it is believed yet.
    Known {
        /// Certificates of the keys that sign tokens, DER.
        signers: Vec<CertificateDer<'static>>,
        /// Intermediates, DER.
        intermediates: Vec<CertificateDer<'static>>,
    },
    /// Text of a configuration.
    Configuration(String),
    /// Text of an entitlement token.
    Entitlement(String),
    /// Text of a revocation list.
    Revocations(String),
    /// A Controller's clock.
    Time {
        /// Milliseconds since 1970.
        ms: u64,
        /// Where that Controller is.
        controller: Arc<str>,
    },
    /// The stream is open and everything missed has come; or it is not any more.
    Connected(bool),
    /// Something to be done, which [`ToController::Done`] answers.
    Operation(v1::Operation),
    /// The Controller refuses us: our key is revoked, or not that of the Gateway that we are.
    Removed,
    /// A new certificate of ours, and its key.
    Certificate(Credentials),
}

/// What the control thread has to say to the Controller.
#[derive(Debug)]
pub(super) enum ToController {
    /// Something is in force.
    Applied(Applied),
    /// An operation was carried out, or was not.
    Done(v1::OperationDone),
}

/// What the stream needs.
pub(super) struct Link {
    pub(super) folder: Folder,
    /// As the Controller said last; its addresses of Controllers are tried in turn.
    pub(super) identity: Mutex<Identity>,
    pub(super) trust: LiveTrust,
    pub(super) rotation: Rotation,
    /// `host:port` where clients reach us, as far as we know.
    pub(super) addresses: Arc<Mutex<Vec<String>>>,
    pub(super) standing: Arc<Mutex<Standing>>,
    /// Hands something to the control thread; `false` when that has ended.
    pub(super) tell: Box<dyn Fn(FromStream) -> bool + Send + Sync>,
}

/// Keeps the stream up until the process ends. `applied` is what to confirm, `again` asks for a new stream.
pub(super) async fn keep(link: Link, mut applied: mpsc::Receiver<ToController>, again: Arc<Notify>) {
    let mut pause = PAUSE_FIRST;
    for turn in 0.. {
        let mut connected = false;
        // What was asked of the last stream is answered by its end.
        tokio::select! {
            biased;
            () = again.notified() => {}
            () = std::future::ready(()) => {}
        }
        let Some(address) = link.controller(turn) else { return tracing::error!("identity.toml names no Controller") };
        // Without a stream too: a certificate that is over opens none.
        if let Err(error) = link.use_next_if_due(wall_clock(), Instant::now()) {
            tracing::warn!(error = format!("{error:#}"), "the new certificate is not in use yet, trying again");
        }
        let ended = tokio::select! {
            ended = run(&link, &address, &mut applied, &mut connected) => ended,
            () = again.notified() => Err(anyhow!("asked to begin anew")),
        };
        if !(link.tell)(FromStream::Connected(false)) {
            return;
        }
        let code = ended.as_ref().err().and_then(|error| error.downcast_ref::<Refused>()).map(|refused| &*refused.code);
        if code.is_some_and(|code| NOT_OURS.contains(&code)) && !(link.tell)(FromStream::Removed) {
            return;
        }
        if connected {
            pause = PAUSE_FIRST;
        }
        if let Err(error) = ended {
            tracing::warn!(
                controller = address,
                error = format!("{error:#}"),
                "the Controller's stream ended, trying again"
            );
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// One stream, from beginning to end.
async fn run(
    link: &Link,
    address: &str,
    applied: &mut mpsc::Receiver<ToController>,
    connected: &mut bool,
) -> Result<()> {
    let channel = connect(link, address).await?;
    let mut client = GatewayControlClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let (to_controller, outgoing) = mpsc::channel(QUEUE_MAX);
    // What was applied before the stream began is in the hello.
    while applied.try_recv().is_ok() {}
    to_controller.send(say(Say::Hello(link.hello()))).await?;
    let mut pushes = client.subscribe(ReceiverStream::new(outgoing)).await.map_err(refused)?.into_inner();
    let caught_up = Notify::new();
    let controller: Arc<str> = address.into();
    // Side by side: however long a Controller takes to answer a report, pushes go on.
    tokio::select! {
        ended = link.hear(&controller, &mut pushes, &to_controller, applied, connected, &caught_up) => ended,
        ended = link.keep_reporting(&controller, client, &caught_up) => ended,
    }
}

async fn connect(link: &Link, address: &str) -> Result<Channel> {
    let config = tls::client(Some(link.rotation.own()), &link.trust.get(), Expected::controller(), ALPN_HTTP2)?;
    let target = address.to_owned();
    let connector = tower::service_fn(move |_| {
        let (target, config) = (target.clone(), config.clone());
        async move { tls::connect(&target, config).await.map(TokioIo::new) }
    });
    // The name in the URI is never looked up: the connector knows where to go.
    let endpoint = Endpoint::from_static("http://controller")
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_with_connector(connector).await?)
}

fn say(say: Say) -> SubscribeRequest {
    SubscribeRequest { say: Some(say) }
}

/// What the Controller refused.
#[derive(Debug)]
struct Refused {
    code: String,
    event: String,
    message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, event, message } = self;
        write!(f, "{message} [{code}, event {event}]")
    }
}

impl std::error::Error for Refused {}

fn refused(status: tonic::Status) -> Refused {
    let text = |name| status.metadata().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    Refused { code: text("ringfort-code"), event: text("ringfort-event"), message: status.message().into() }
}

fn message(applied: Applied) -> v1::Applied {
    let Applied { revocations, configuration_seq, entitlements } = applied;
    v1::Applied {
        revocations: revocations.map(serial),
        configuration_seq: configuration_seq.unwrap_or_default(),
        entitlements: entitlements.into_iter().map(|(dn, seq)| LiveSession { dn, seq }).collect(),
    }
}

const fn serial(serial: Serial) -> v1::Serial {
    v1::Serial { epoch: serial.epoch, n: serial.n }
}

impl Link {
    fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hello(&self) -> Hello {
        let Standing { configuration_seq, revocations: _, revocations_on_disk, sessions } = self.standing();
        // What a hello names counts as confirmed: in force and on disk. The rest is sent again and changes nothing.
        Hello { configuration_seq, revocations: Some(serial(revocations_on_disk)), sessions }
    }

    /// The Controller whose turn it is.
    fn controller(&self, turn: usize) -> Option<String> {
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        identity.controllers.get(turn % identity.controllers.len().max(1)).cloned()
    }

    /// Keeps where the Controllers are now.
    fn learn_controllers(&self, controllers: Vec<String>) -> Result<()> {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        if !controllers.is_empty() && controllers != identity.controllers {
            identity.controllers = controllers;
            self.folder.write_identity(&identity)?;
        }
        Ok(())
    }

    /// Hands a Controller's time to the control thread; `false` when that has ended.
    fn tell_time(&self, controller: &Arc<str>, ms: u64) -> bool {
        (self.tell)(FromStream::Time { ms, controller: Arc::clone(controller) })
    }

    /// Hands a push to the control thread.
    fn take(&self, controller: &Arc<str>, pushed: Push, connected: &mut bool) -> Result<()> {
        let Push { controller_time_ms, what, signers, intermediates, controllers } = pushed;
        let mut told = self.tell_time(controller, controller_time_ms);
        if !signers.is_empty() {
            let [signers, intermediates] = [signers, intermediates]
                .map(|all| all.into_iter().map(|der| CertificateDer::from(Vec::from(der))).collect());
            told &= (self.tell)(FromStream::Known { signers, intermediates });
        }
        self.learn_controllers(controllers)?;
        told &= match what {
            Some(push::What::Configuration(text)) => (self.tell)(FromStream::Configuration(text)),
            Some(push::What::Entitlement(text)) => (self.tell)(FromStream::Entitlement(text)),
            Some(push::What::Revocations(text)) => (self.tell)(FromStream::Revocations(text)),
            Some(push::What::Operation(operation)) => (self.tell)(FromStream::Operation(operation)),
            Some(push::What::CaughtUp(_)) => {
                *connected = true;
                (self.tell)(FromStream::Connected(true))
            }
            None => true,
        };
        ensure!(told, "the control thread has ended");
        Ok(())
    }

    /// Hands pushes to the control thread, and its confirmations to the Controller.
    async fn hear(
        &self,
        controller: &Arc<str>,
        pushes: &mut Streaming<Push>,
        to_controller: &mpsc::Sender<SubscribeRequest>,
        applied: &mut mpsc::Receiver<ToController>,
        connected: &mut bool,
        caught_up: &Notify,
    ) -> Result<()> {
        loop {
            tokio::select! {
                biased;
                pushed = pushes.next() => {
                    let pushed = pushed.context("the Controller ended the stream")?.map_err(refused)?;
                    self.take(controller, pushed, connected)?;
                    if *connected {
                        caught_up.notify_one();
                    }
                }
                done = applied.recv() => {
                    let done = done.context("the control thread has ended")?;
                    let done = match done {
                        ToController::Applied(applied) => Say::Applied(message(applied)),
                        ToController::Done(done) => Say::OperationDone(done),
                    };
                    to_controller.send(say(done)).await?;
                }
            }
        }
    }

    /// Reports again and again, once everything missed has come. It ends with a new certificate, by which the stream is to begin anew:
    /// the Controller hears the new key from whoever has it, and from nobody else.
    async fn keep_reporting(
        &self,
        controller: &Arc<str>,
        mut client: GatewayControlClient<Channel>,
        caught_up: &Notify,
    ) -> Result<()> {
        caught_up.notified().await;
        let mut disagreements = 0;
        loop {
            let (agrees, next) = self.report(controller, &mut client).await?;
            disagreements = if agrees { 0 } else { disagreements + 1 };
            ensure!(disagreements < DISAGREEMENTS_MAX, "the Controller believes us to be in another state");
            match self.renew_if_due(&mut client, wall_clock(), Instant::now()).await {
                Ok(Renewal::InUse) => return Ok(()),
                Ok(Renewal::Nothing) => {}
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "the certificate could not be renewed, trying again");
                }
            }
            tokio::time::sleep(next).await;
        }
    }

    async fn report(
        &self,
        controller: &Arc<str>,
        client: &mut GatewayControlClient<Channel>,
    ) -> Result<(bool, Duration)> {
        let Standing { configuration_seq, revocations, revocations_on_disk: _, sessions } = self.standing();
        let digest = state_digest(configuration_seq, serial(revocations), &sessions);
        let leaf = self.rotation.leaf()?;
        let request = ReportRequest {
            version: env!("CARGO_PKG_VERSION").into(),
            addresses: self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            certificate_digest: tls::fingerprint(&leaf).to_vec().into(),
            revocations: Some(serial(revocations)),
            configuration_seq,
            sessions,
            state_digest: digest.to_vec().into(),
            gateway_time_ms: wall_clock().0.saturating_mul(1_000),
            // Relays are told of already, and connected to once they carry packets.
            relays: Vec::new(),
        };
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, client.report(request)).await;
        let answer = answer.map_err(|_| anyhow!("no answer to a report in {ANSWER_TIME_MAX:?}"))?.map_err(refused)?;
        let answer = answer.into_inner();
        ensure!(self.tell_time(controller, answer.controller_time_ms), "the control thread has ended");
        let next = match answer.report_again_ms {
            0 => REPORT_EVERY,
            ms => Duration::from_millis(ms.into()).clamp(*REPORT_EVERY_RANGE.start(), *REPORT_EVERY_RANGE.end()),
        };
        Ok((answer.state_agrees, next))
    }

    /// Fetches a new certificate for a new key in time, and shows it once clients know it. An answer that is lost leaves nothing: the next
    /// request is by another key, and the Controller forgets the one before.
    async fn renew_if_due(
        &self,
        client: &mut GatewayControlClient<Channel>,
        now: UnixSeconds,
        at: Instant,
    ) -> Result<Renewal> {
        if self.rotation.step(now, at)? == Step::Fetch {
            let key = PrivateKey::generate()?;
            let request = client.enroll(EnrollRequest { certificate_request: key.certificate_request()?.into() });
            let answer = tokio::time::timeout(ANSWER_TIME_MAX, request).await;
            let answer = answer.map_err(|_| anyhow!("no answer in {ANSWER_TIME_MAX:?}"))?.map_err(refused)?;
            let chain = answer.into_inner().chain;
            let chain: Vec<_> = chain.into_iter().map(|der| CertificateDer::from(Vec::from(der))).collect();
            self.rotation.keep(&key, &chain, at)?;
            tracing::info!("a new key and its certificate are here, to be used once clients know them");
        }
        self.use_next_if_due(now, at)
    }

    /// Shows the certificate that was fetched, if it is time.
    fn use_next_if_due(&self, now: UnixSeconds, at: Instant) -> Result<Renewal> {
        if self.rotation.step(now, at)? != Step::Use {
            return Ok(Renewal::Nothing);
        }
        let credentials = self.rotation.use_next()?;
        ensure!((self.tell)(FromStream::Certificate(credentials)), "the control thread has ended");
        tracing::info!("the new key and its certificate are in use");
        Ok(Renewal::InUse)
    }
}

/// What became of our certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    /// Nothing that others notice.
    Nothing,
    /// Another one is in use.
    InUse,
}

#[cfg(test)]
mod tests;
