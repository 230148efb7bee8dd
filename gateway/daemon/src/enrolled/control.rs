//! The control thread of an enrolled Gateway: it hears workers, channels and the Controller, and carries out what
//! [`Admission`] decides.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use ringfort_admission::{Action, Admission, Applied, AuditEvent, ChannelId, NotAdmitting, ToClient, destination};
use ringfort_dtls::ServerConfig;
use ringfort_engine::gateway::{Command, Event, Gateway};
use ringfort_enrol::tls::LiveTrust;
use ringfort_enrol::{Folder, Identity, file, token_keys};
use ringfort_identity::{Credentials, Trust};
use ringfort_proto::v1::{LiveSession, OperationDone};
use ringfort_service::desk::{Desk, Letter};
use ringfort_token::Serial;
use ringfort_types::{BootInstant, UnixSeconds, WorkerIndex};
use ringfort_worker::{Report, Sink, Workers, now};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use super::channel::FromChannel;
use super::clock::{Clock, Verdict};
use super::kept::Writer;
use super::operate::{Effect, Finished, Operations};
use super::parse_pools;
use super::stream::{FromStream, Standing, ToController};
use crate::plane::{Dtls, Pools};
use crate::started::Started;
use crate::status;

/// Audit events remembered for whoever asks; the log has them all.
const AUDIT_MAX: usize = 256;
/// Refusals of strangers that are written down in one second; beyond, they are counted only: anybody can cause them.
const STRANGERS_MAX: u32 = 20;
/// What the stream reads of our standing is at most this old: with many sessions it is long, and events come in swarms.
const STANDING_AGE_MAX: Duration = Duration::from_millis(20);
/// The Controller's time is written to disk this often.
const KEEP_TIME_EVERY: Duration = Duration::from_secs(60);

/// What comes to the control thread's desk.
pub(super) enum Told {
    Worker(WorkerIndex, Report<Event>),
    Channel(FromChannel),
    Stream {
        told: FromStream,
        arrived: Instant,
    },
    /// Something came to disk.
    Written,
    /// An operation was carried out beside this thread.
    Finished(Finished),
}

impl Told {
    /// From the stream, just now.
    pub(super) fn stream(told: FromStream) -> Self {
        Self::Stream { told, arrived: Instant::now() }
    }
}

/// Where workers report.
pub(super) fn sink(desk: &Desk<Told>) -> Sink<Event> {
    let report = desk.reporter();
    Arc::new(move |worker, told| match report(Told::Worker(worker, told)) {
        Err(Told::Worker(_, told)) => Err(told),
        _ => Ok(()),
    })
}

/// Who we are, and whom we believe.
pub(super) struct Authorities {
    credentials: Credentials,
    root: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    trust: LiveTrust,
}

impl Authorities {
    /// What the state folder has.
    pub(super) fn of_folder(folder: &Folder) -> Result<Self> {
        let (credentials, trust) = (folder.credentials()?, LiveTrust::new(folder.trust()?));
        let (root, intermediates) = folder.ca()?;
        Ok(Self { credentials, root, intermediates, trust })
    }

    /// For channels and the stream, which hear what is learnt; tunnels are told.
    pub(super) const fn trust(&self) -> &LiveTrust {
        &self.trust
    }

    /// Our certificate and key.
    pub(super) const fn credentials(&self) -> &Credentials {
        &self.credentials
    }
}

/// The state of the control thread.
pub(super) struct Control {
    admission: Admission,
    clock: Clock,
    identity: Identity,
    authorities: Authorities,
    dtls: Dtls,
    writer: Writer,
    standing: Arc<Mutex<Standing>>,
    /// When the standing changed that the stream has not been told yet.
    standing_changed: Option<Instant>,
    to_controller: Option<mpsc::Sender<ToController>>,
    operations: Operations,
    /// What is in force and not on disk yet.
    unwritten: Vec<Applied>,
    /// Revocations up to here are on disk.
    on_disk: Serial,
    again: Option<Arc<Notify>>,
    channels: BTreeMap<ChannelId, mpsc::Sender<ToClient>>,
    admitting: Result<(), NotAdmitting>,
    connected: bool,
    time_kept: Option<BootInstant>,
    audit: VecDeque<AuditEvent>,
    strangers: Strangers,
    strangers_unwritten: u64,
    /// When the oldest revocation arrived that is not confirmed yet, and how long the last ones took to be in force.
    revocation_arrived: Option<Instant>,
    revocation_applied: Option<Duration>,
    revocation_applied_max: Option<Duration>,
    started: Started,
}

impl Control {
    pub(super) fn new(
        admission: Admission,
        clock: Clock,
        identity: Identity,
        (authorities, dtls): (Authorities, Dtls),
        writer: Writer,
        standing: Arc<Mutex<Standing>>,
        operations: Operations,
    ) -> Self {
        let mut this = Self {
            on_disk: admission.serial(),
            admission,
            clock,
            identity,
            authorities,
            dtls,
            writer,
            standing,
            standing_changed: None,
            to_controller: None,
            operations,
            unwritten: Vec::new(),
            again: None,
            channels: BTreeMap::new(),
            admitting: Ok(()),
            connected: false,
            time_kept: None,
            audit: VecDeque::new(),
            strangers: Strangers { since: Instant::now(), count: 0 },
            strangers_unwritten: 0,
            revocation_arrived: None,
            revocation_applied: None,
            revocation_applied_max: None,
            started: Started::default(),
        };
        if this.admission.is_removed() {
            tracing::error!(
                "this Gateway was removed before it was started: it serves nobody until a Controller takes it back"
            );
        }
        this.publish();
        this
    }

    /// Where confirmations go, and how to ask for a new stream.
    pub(super) fn connect_stream(&mut self, to_controller: mpsc::Sender<ToController>, again: Arc<Notify>) {
        (self.to_controller, self.again) = (Some(to_controller), Some(again));
    }

    /// How many workers there will be.
    pub(super) fn expect_workers(&mut self, count: usize) {
        self.started = Started::expect(count);
    }

    /// The pools of the configuration, once there is one.
    pub(super) fn pools(&self) -> Option<Result<Pools>> {
        self.admission.current_configuration().map(|configuration| parse_pools(&configuration.pools))
    }

    /// The loop, until the process is to end.
    pub(super) fn run(mut self, desk: &Desk<Told>, workers: &Workers<Gateway>) -> Result<()> {
        loop {
            let patience = self.patience();
            // What is due does not wait until no letter comes any more: others can see to it that some always do.
            if patience.is_zero() {
                self.admission.handle_timeout(self.clock.moment(now()));
                self.carry_out(Some(workers))?;
            }
            match desk.receive_within(patience) {
                Some(Letter::Report(told)) => self.handle(told, Some(workers))?,
                Some(Letter::Status(question)) => question.answer(self.document(Some(workers))),
                Some(Letter::Stop) => break,
                None => {}
            }
        }
        self.admission.stop(self.clock.moment(now()));
        self.carry_out(Some(workers))
    }

    /// How long nothing has to be done.
    fn patience(&self) -> Duration {
        let timer = self.admission.poll_timeout().map(|at| at.saturating_since(now().boot));
        let standing = self.standing_changed.map(|changed| STANDING_AGE_MAX.saturating_sub(changed.elapsed()));
        timer.into_iter().chain(standing).min().unwrap_or(Duration::MAX)
    }

    /// Takes one message and does what follows.
    pub(super) fn handle(&mut self, told: Told, workers: Option<&Workers<Gateway>>) -> Result<()> {
        let at = now();
        self.judge_admitting();
        let moment = self.clock.moment(at);
        match told {
            Told::Worker(worker, report) => self.handle_report(worker, report)?,
            Told::Channel(FromChannel::Opened { id, peer, to_client }) => {
                self.channels.insert(id, to_client);
                self.admission.channel_opened(id, peer, random()?, moment);
            }
            Told::Channel(FromChannel::Said { id, message }) => self.admission.channel_message(id, message, moment),
            Told::Channel(FromChannel::Closed { id }) => {
                self.channels.remove(&id);
                self.admission.channel_closed(id, moment);
            }
            Told::Channel(FromChannel::Refused { code, detail }) => {
                if self.strangers.take() {
                    self.admission.peer_refused(code, detail, moment);
                } else {
                    self.strangers_unwritten += 1;
                }
            }
            Told::Stream { told, arrived } => self.handle_stream(told, arrived, workers)?,
            Told::Finished(finished) => {
                let done = self.operations.finished(finished);
                self.answer(done);
            }
            Told::Written => {
                if self.writer.is_idle() {
                    std::mem::take(&mut self.unwritten).into_iter().for_each(|applied| self.tell_applied(applied));
                }
            }
        }
        self.carry_out(workers)
    }

    /// Has the machine admit new sessions, or not, as the clocks have it.
    fn judge_admitting(&mut self) {
        let verdict = self.clock.verdict(now());
        if verdict != self.admitting {
            if let Err(reason) = verdict {
                tracing::error!(%reason, "no new session is admitted");
            }
            self.admitting = verdict;
            self.admission.set_admitting(verdict);
        }
    }

    fn handle_stream(&mut self, told: FromStream, arrived: Instant, workers: Option<&Workers<Gateway>>) -> Result<()> {
        let at = now();
        let moment = self.clock.moment(at);
        match told {
            FromStream::Time { ms, controller } => {
                let verdict = self.clock.tell(ms, at);
                if let Verdict::Doubted(seconds) = verdict {
                    tracing::error!(
                        %controller,
                        seconds,
                        "the Controller's clock agrees neither with this Gateway's nor with what Controllers told before: set the one that is wrong; another Controller is asked"
                    );
                    self.begin_stream_anew();
                }
                self.judge_admitting();
                if verdict == Verdict::Taken
                    && self.time_kept.is_none_or(|kept| at.boot.saturating_since(kept) >= KEEP_TIME_EVERY)
                {
                    self.time_kept = Some(at.boot);
                    self.writer.time(self.clock.moment(at).wall);
                }
            }
            FromStream::Known { signers, intermediates } => {
                if let Err(error) = self.learn(&signers, intermediates, moment.wall, workers) {
                    tracing::error!(error = format!("{error:#}"), "whom to believe is as it was");
                }
            }
            FromStream::Configuration(text) => self.admission.pushed_configuration(&text, moment),
            FromStream::Entitlement(text) => self.admission.pushed_entitlement(&text, moment),
            FromStream::Revocations(text) => {
                let before = self.admission.serial();
                self.admission.pushed_revocations(&text, moment);
                if self.admission.serial() > before {
                    self.revocation_arrived.get_or_insert(arrived);
                }
            }
            FromStream::Connected(connected) => {
                if connected != self.connected {
                    tracing::info!(connected, "the Controller's stream");
                }
                self.connected = connected;
                if connected {
                    self.admission.let_in_again();
                } else {
                    self.clock.stream_ended();
                }
            }
            FromStream::Operation(operation) => {
                let draining = self.admission.current_configuration().is_some_and(|current| current.draining);
                let (done, effect) = self.operations.carry_out(operation, draining);
                match effect {
                    Effect::None => {}
                    Effect::Bounds { ceiling, no_new_sessions_after } => {
                        self.admission.set_ceiling(ceiling, moment);
                        self.admission.set_no_new_sessions_after(no_new_sessions_after);
                    }
                    Effect::EndSessions => self.admission.dismiss(moment),
                }
                self.answer(done);
            }
            FromStream::Removed => {
                if !self.admission.is_removed() {
                    tracing::error!(
                        "the Controller has revoked this Gateway's key: its sessions end, and it serves nobody any more"
                    );
                    self.admission.removed(moment);
                }
            }
            FromStream::Certificate(credentials) => {
                self.authorities.credentials = credentials;
                self.show(workers)?;
            }
        }
        Ok(())
    }

    /// Believes the keys that sign tokens, and the intermediates, that the Controller names from now on: these and no others.
    fn learn(
        &mut self,
        signers: &[CertificateDer<'static>],
        intermediates: Vec<CertificateDer<'static>>,
        now: UnixSeconds,
        workers: Option<&Workers<Gateway>>,
    ) -> Result<()> {
        let Authorities { root, trust, intermediates: before, .. } = &mut self.authorities;
        let told = Trust::new(root, intermediates.iter().cloned())?;
        self.admission.signers(token_keys(signers, &told, now)?);
        self.writer.certificates(file::SIGNERS, signers);
        if intermediates != *before {
            let ca: Vec<_> = std::iter::once(&*root).chain(&intermediates).cloned().collect();
            self.writer.certificates(file::CA, &ca);
            trust.replace(told);
            *before = intermediates;
            self.show(workers)?;
        }
        Ok(())
    }

    /// How tunnels shake hands, as what we are and believe now.
    pub(super) fn server(&self) -> Result<Arc<ServerConfig>> {
        let Authorities { credentials, trust, .. } = &self.authorities;
        self.dtls.server(credentials, trust.get())
    }

    fn show(&self, workers: Option<&Workers<Gateway>>) -> Result<()> {
        if let Some(workers) = workers {
            workers.broadcast(&Command::Credentials(self.server()?))?;
        }
        Ok(())
    }

    /// Carries out what the machine decided, in its order: what cuts somebody off comes first.
    fn carry_out(&mut self, workers: Option<&Workers<Gateway>>) -> Result<()> {
        while let Some(action) = self.admission.poll_action() {
            if matches!(action, Action::Engine(_) | Action::Persist(_)) {
                self.standing_changed.get_or_insert_with(Instant::now);
            }
            match action {
                Action::Engine(command) => {
                    if let Some(workers) = workers {
                        workers.broadcast(&command)?;
                    }
                }
                Action::Send { channel, message } => self.send(channel, message),
                Action::Close { channel } => drop(self.channels.remove(&channel)),
                Action::Audit(event) => self.write_down(event),
                Action::Applied(applied) => self.confirm(applied),
                Action::Persist(part) => self.writer.part(part, &self.admission),
                Action::Resubscribe => self.begin_stream_anew(),
            }
        }
        if self.standing_changed.is_some_and(|changed| changed.elapsed() >= STANDING_AGE_MAX) {
            self.publish();
        }
        Ok(())
    }

    /// Has the stream begin anew, with the next Controller.
    fn begin_stream_anew(&self) {
        if let Some(again) = &self.again {
            again.notify_one();
        }
    }

    fn send(&mut self, channel: ChannelId, message: ToClient) {
        let Some(to_client) = self.channels.get(&channel) else { return };
        // A client that takes nothing loses its channel: dropping the sender closes it, and its end comes back as such.
        if to_client.try_send(message).is_err() {
            self.channels.remove(&channel);
        }
    }

    fn write_down(&mut self, event: AuditEvent) {
        let AuditEvent { id, code, session, detail, .. } = &event;
        tracing::warn!(event = id, code, session, detail, "refused");
        if self.audit.len() == AUDIT_MAX {
            self.audit.pop_front();
        }
        self.audit.push_back(event);
    }

    fn confirm(&mut self, applied: Applied) {
        if applied.revocations.is_some()
            && let Some(arrived) = self.revocation_arrived.take()
        {
            let took = arrived.elapsed();
            self.revocation_applied = Some(took);
            self.revocation_applied_max = self.revocation_applied_max.max(Some(took));
        }
        if applied.revocations.is_some() && !self.writer.is_idle() {
            return self.unwritten.push(applied);
        }
        self.tell_applied(applied);
    }

    fn tell_applied(&mut self, applied: Applied) {
        // Without a stream nobody waits for it; the next hello says the same, which is why it is written first.
        if applied.revocations.is_some() {
            self.publish();
        }
        self.tell_controller(ToController::Applied(applied));
    }

    fn answer(&self, done: Option<OperationDone>) {
        if let Some(done) = done {
            self.tell_controller(ToController::Done(done));
        }
    }

    fn tell_controller(&self, said: ToController) {
        if let Some(to_controller) = &self.to_controller {
            drop(to_controller.try_send(said));
        }
    }

    /// Tells the stream where we stand.
    fn publish(&mut self) {
        self.standing_changed = None;
        if self.writer.is_idle() {
            // Whatever the machine wants written has been handed over before anything else is done.
            self.on_disk = self.admission.serial();
        }
        let live = self.admission.live();
        let standing = Standing {
            configuration_seq: self.admission.configuration_seq(),
            revocations: self.admission.serial(),
            revocations_on_disk: self.on_disk,
            sessions: live.map(|(dn, seq)| LiveSession { dn: dn.into(), seq }).collect(),
        };
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    fn handle_report(&mut self, worker: WorkerIndex, report: Report<Event>) -> Result<()> {
        match report {
            Report::Started { backend, fallback, core } => {
                self.started.note(worker, backend, fallback, core);
                Ok(())
            }
            Report::Event(event) => {
                log(&event, &self.admission);
                self.admission.handle_event(event, self.clock.moment(now()));
                Ok(())
            }
            Report::Ended(Ok(())) => Ok(()),
            Report::Ended(Err(error)) => Err(anyhow!(error).context(format!("worker {worker} ended"))),
        }
    }

    /// The whole state.
    pub(super) fn document(&self, workers: Option<&Workers<Gateway>>) -> Value {
        let snapshots = workers.map(Workers::snapshot).unwrap_or_default();
        let sessions: Vec<Value> = self
            .admission
            .sessions()
            .map(|session| {
                json!({
                    "session": session.tunnel.to_string(),
                    "dn": session.dn,
                    "user": &**session.user,
                    "device": session.device,
                    "device_claims": session.device_claims,
                    "outer": session.outer.to_string(),
                    "inner": session.inner.iter().map(|address| address.to_string()).collect::<Vec<_>>(),
                    "seq": session.seq,
                    "ends_at": session.ends_at.0,
                    "channel": session.has_channel,
                })
            })
            .collect();
        let audit: Vec<Value> = self
            .audit
            .iter()
            .map(|event| {
                json!({ "id": event.id, "at": event.at.0, "code": event.code, "session": event.session, "detail": event.detail })
            })
            .collect();
        let serial = self.admission.serial();
        let mut totals = status::totals(&snapshots);
        if let Value::Object(totals) = &mut totals {
            let refused = self.admission.refused().iter();
            totals.insert("strangers_unwritten".into(), self.strangers_unwritten.into());
            totals.extend(refused.map(|(code, count)| (format!("refused_{code}"), Value::from(*count))));
        }
        let micros = |took: Option<Duration>| took.map(|took| took.as_micros() as u64);
        json!({
            "role": "gateway",
            "id": self.identity.id,
            "site": self.identity.site,
            "controller": { "connected": self.connected, "time": self.clock.moment(now()).wall.0 },
            "admitting": self.admission.admitting(self.clock.moment(now())).map_or_else(|reason| reason.to_string(), |()| "yes".into()),
            "configuration_seq": self.admission.configuration_seq(),
            "revocations": { "epoch": serial.epoch, "n": serial.n },
            "operations": self.operations.document(),
            "state_on_disk": self.writer.is_idle(),
            "revocation_applied_us": { "last": micros(self.revocation_applied), "max": micros(self.revocation_applied_max) },
            "workers": self.started.document(),
            "sessions": sessions,
            "denials": self.admission.denials().map(|denial| status::denial(denial, self.admission.rule_name(denial.rule))).collect::<Vec<_>>(),
            "audit": audit,
            "counters": snapshots.iter().map(status::counters).collect::<Vec<_>>(),
            "totals": totals,
        })
    }
}

/// How many strangers were refused in this second.
struct Strangers {
    since: Instant,
    count: u32,
}

impl Strangers {
    /// Whether one more is written down.
    fn take(&mut self) -> bool {
        if self.since.elapsed() >= Duration::from_secs(1) {
            (self.since, self.count) = (Instant::now(), 0);
        }
        self.count += 1;
        self.count <= STRANGERS_MAX
    }
}

/// Before the event is handled, since afterwards an ended session has no user any more.
fn log(event: &Event, admission: &Admission) {
    let user = |session| admission.session(session).map(|live| live.user.to_string());
    match event {
        Event::Authenticated { session, peer, outer, .. } => {
            tracing::info!(%session, device = peer.id(), "tunnel authenticated");
            tracing::debug!(%session, %outer, "tunnel address");
        }
        Event::Moved { session, outer } => {
            tracing::info!(%session, user = user(*session), "session at another address");
            tracing::debug!(%session, %outer, "session address");
        }
        Event::RulesApplied { session, epoch } => {
            tracing::info!(%session, user = user(*session), epoch = epoch.0, "rules applied");
        }
        Event::Denied { session, flow, rule } => {
            let rule = admission.rule_name(*rule);
            tracing::info!(%session, user = user(*session), destination = destination(flow), rule, "denied");
        }
        Event::Ended { session, reason } => {
            tracing::info!(%session, user = user(*session), ?reason, "tunnel ended");
        }
        Event::HandshakeFailed { outer, reason } => {
            tracing::info!(%reason, "handshake failed");
            tracing::debug!(%outer, "handshake address");
        }
    }
}

/// The name of a session.
fn random() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&ringfort_service::seed().context("no randomness")?.to_ne_bytes());
    bytes[8..].copy_from_slice(&ringfort_service::seed().context("no randomness")?.to_ne_bytes());
    Ok(bytes)
}
