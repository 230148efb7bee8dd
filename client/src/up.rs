//! The process of a client that joined and logged in: a tunnel and a session channel to each site.
//!
//! The control thread owns everything and decides nothing by itself: [`crate::site`] says what to do for a site,
//! [`crate::routes`] what is routed where, [`crate::renewal`] when tokens are renewed. Channels and renewals run as tasks
//! beside it, packets on a worker's thread per site.

mod sites;
mod status;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use ringfort_dtls::ClientConfig;
use ringfort_engine::client::{Command, Config, Event as TunnelEvent, Release};
use ringfort_enrol::tls::OwnCertificate;
use ringfort_enrol::{Folder, Identity, Kind, PrivateKey, file, wall_clock};
use ringfort_identity::Credentials;
use ringfort_proto::v1::to_client::Say;
use ringfort_proto::v1::{Denied, Goodbye};
use ringfort_service::desk::{Desk, Letter};
use ringfort_service::settings::{Backend, Mtu};
use ringfort_service::{notify_ready, random};
use ringfort_types::UnixSeconds;
use ringfort_worker::{Report, Sink, now, spawn};
use tokio::runtime::Runtime;

use crate::channel::{Channel, Told};
use crate::down::Running;
use crate::login::login_service;
use crate::network;
use crate::renewal::{self, Renewed, Schedule};
use crate::routes::LeftOut;
use crate::site::{Action, SiteGateway};
use crate::tokens::{self, Judge, Tokens};
use crate::tunnel::{self, OuterPath};
use crate::up::sites::SiteRun;

/// Name of the status socket in the state folder.
pub const STATUS_SOCKET: &str = "client.sock";
/// Threads for channels and renewals.
const TASK_THREADS: usize = 1;
/// Pause before a task tries again to hand something in at a full desk.
const DESK_PAUSE: Duration = Duration::from_millis(5);
/// How long closing the channels may take at the end.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(1);
/// The control thread looks at what is due at least so often.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How to run.
#[derive(Clone, Debug)]
pub struct Up {
    /// The state folder of a device whose user has logged in, or of a service that has joined.
    pub state: PathBuf,
    /// Where `ringfort status` may ask; [`STATUS_SOCKET`] in the state folder by default.
    pub status_socket: Option<PathBuf>,
    /// How packets are read and written.
    pub backend: Backend,
    /// Largest packet inside the tunnels.
    pub mtu: Mtu,
    /// End also at the end of standard input.
    pub stop_with_stdin: bool,
}

/// Brings up a tunnel to each site that is open to the user and keeps them up until told to stop, by SIGTERM or SIGINT. To be
/// called before any thread is made.
///
/// # Errors
/// Whatever keeps it from running, with what was expected and what came. A Gateway or a Controller that cannot be reached is no
/// error: it is tried again.
pub fn up(options: &Up) -> Result<()> {
    let desk = Desk::open(options.stop_with_stdin)?;
    let (folder, identity) = Folder::open_joined(&options.state)?;
    let _running = Running::take(&options.state)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(TASK_THREADS).enable_all().build()?;
    if identity.kind == Kind::Service {
        runtime.block_on(login_service(&folder, &identity))?;
    }
    let mut control = Control::new(options, folder, identity, &desk, &runtime)?;
    let socket = options.status_socket.clone().unwrap_or_else(|| options.state.join(STATUS_SOCKET));
    let served = desk.serve_status(&socket);
    let served = served.with_context(|| format!("cannot serve the status at {}", socket.display()))?;
    let report = desk.reporter();
    network::watch(move || report(Event::NetworkChanged).is_ok())?;
    let result = control.run(&desk);
    drop(served);
    control.stop();
    result
}

/// What comes in at the desk.
enum Event {
    /// From the worker of a site; the number says which of its workers.
    Worker(String, u64, Report<TunnelEvent>),
    /// From the channel of a site, likewise.
    Channel(String, u64, Told),
    /// The machine's addresses or routes have changed.
    NetworkChanged,
    /// A renewal came to its end.
    Renewed(Result<Box<Renewed>>),
}

type Reporter = Arc<dyn Fn(Event) -> Result<(), Event> + Send + Sync>;

struct Control<'a> {
    folder: Folder,
    identity: Identity,
    backend: Backend,
    mtu: Mtu,
    runtime: &'a Runtime,
    report: Reporter,
    own: OwnCertificate,
    credentials: Credentials,
    certificate_ends: UnixSeconds,
    judge: Judge,
    tokens: Tokens,
    schedule: Schedule,
    /// Addresses that must stay reachable beside the tunnels, besides those of the Gateways.
    controllers: BTreeSet<IpAddr>,
    /// In the order of the connect token: earlier ones have the first say about routes.
    sites: Vec<SiteRun>,
    left_out: Vec<LeftOut>,
    /// Workers and channels made so far; each is known by its number.
    made: u64,
    told_ready: bool,
    login_ended: Option<String>,
}

impl<'a> Control<'a> {
    fn new(options: &Up, folder: Folder, identity: Identity, desk: &Desk<Event>, runtime: &'a Runtime) -> Result<Self> {
        let key: PrivateKey = folder.key()?;
        let now = wall_clock();
        let judge = Judge::of_folder(&folder, &identity, key.thumbprint()?, now)?;
        let tokens = Tokens::load(&folder, &judge, now)?;
        let chain = folder.certificates(file::CHAIN)?;
        let certificate_ends = judge.certificate(&chain, &tokens.claims.token, now);
        let certificate_ends = certificate_ends.context("our own certificate; run `ringfort login` again")?;
        let credentials = folder.credentials()?;
        let controllers = identity.controllers.iter().flat_map(|address| match tunnel::resolve(address) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%address, %error, "no address of the Controller is known");
                Vec::new()
            }
        });
        let report: Reporter = Arc::new(desk.reporter());
        Ok(Self {
            controllers: controllers.map(|address| address.ip()).collect(),
            own: OwnCertificate::new(&credentials)?,
            folder,
            identity,
            backend: options.backend,
            mtu: options.mtu,
            runtime,
            report,
            credentials,
            certificate_ends,
            judge,
            tokens,
            schedule: Schedule::default(),
            sites: Vec::new(),
            left_out: Vec::new(),
            made: 0,
            told_ready: false,
            login_ended: None,
        })
    }

    fn run(&mut self, desk: &Desk<Event>) -> Result<()> {
        self.apply()?;
        loop {
            self.begin_renewal();
            self.drive()?;
            self.tell_ready();
            let Some(letter) = desk.receive_within(self.patience()) else {
                self.adopt_login()?;
                continue;
            };
            match letter {
                Letter::Stop => return Ok(()),
                Letter::Status(question) => question.answer(self.document()),
                Letter::Report(Event::NetworkChanged) => self.follow_network()?,
                Letter::Report(Event::Renewed(result)) => self.renewed(result)?,
                Letter::Report(Event::Worker(site, number, report)) => self.hear_worker(&site, number, report)?,
                Letter::Report(Event::Channel(site, number, told)) => self.hear_channel(&site, number, told),
            }
        }
    }

    fn stop(&mut self) {
        let mut closing = Vec::new();
        for site in &mut self.sites {
            closing.extend(site.channel.take().map(|(_, channel)| channel.close()));
            site.stop_worker();
        }
        // So that a Gateway learns that the session is over, and does not wait for us to come back.
        self.runtime.block_on(async {
            let all = futures_util::future::join_all(closing);
            drop(tokio::time::timeout(FAREWELL_TIME_MAX, all).await);
        });
    }

    /// How long nothing is due.
    fn patience(&self) -> Duration {
        let now = now().boot;
        let sites = self.sites.iter().filter_map(|site| site.machine.poll_timeout());
        let renewal = self.schedule.poll_timeout(&self.tokens, self.certificate_ends, (now, wall_clock()));
        let next = sites.chain(renewal).min();
        next.map_or(LOOK_EVERY, |at| at.saturating_since(now).min(LOOK_EVERY))
    }

    /// Does what sites are due for and ask for.
    fn drive(&mut self) -> Result<()> {
        for index in 0..self.sites.len() {
            self.sites[index].machine.handle_timeout(now().boot);
            while let Some(action) = self.sites[index].machine.poll_action() {
                self.act(index, action)?;
            }
        }
        Ok(())
    }

    fn act(&mut self, index: usize, action: Action) -> Result<()> {
        self.made += 1;
        let number = self.made;
        let site = &mut self.sites[index];
        match action {
            Action::Open(gateway) => {
                let (report, id) = (Arc::clone(&self.report), site.id.clone());
                let tell = move |told| hand_in(Arc::clone(&report), Event::Channel(id.clone(), number, told));
                let _runtime = self.runtime.enter();
                site.channel = Some((number, Channel::open(gateway, &self.own, self.judge.trust(), tell)));
            }
            Action::Close => site.channel = None,
            Action::Say(message) => {
                let said = site.channel.as_ref().is_some_and(|(_, channel)| channel.say(message));
                if !said {
                    site.channel = None;
                    site.machine.handle_closed("the channel takes nothing more".into(), now().boot);
                }
            }
            Action::StartTunnel(gateway) => {
                site.stop_worker();
                if let Err(error) = self.start_tunnel(index, number, gateway) {
                    let site = &mut self.sites[index];
                    let why = format!("{error:#}");
                    tracing::warn!(site = site.name, error = why, "no tunnel");
                    site.machine.handle_tunnel_failed(why, now().boot);
                }
            }
            Action::StopTunnel => site.stop_worker(),
            Action::Release(tunnel) => {
                tracing::info!(site = site.name, "tunnel bound");
                site.command(&Command::Release(tunnel))?;
            }
            Action::Pushed(token) => {
                let id = site.id.clone();
                if let Err(error) = self.pushed(&id, &token) {
                    tracing::warn!(site = id, error = format!("{error:#}"), "entitlement token refused");
                }
            }
            Action::RenewAsked => self.schedule.ask(),
            Action::Renew => self.schedule.demand(),
        }
        Ok(())
    }

    /// Tunnels go on from the machine's new address, channels are opened anew and bind them again.
    fn follow_network(&mut self) -> Result<()> {
        for site in &mut self.sites {
            match site.path.as_ref().map_or(Ok(false), OuterPath::follow) {
                Ok(true) => {
                    tracing::info!(site = site.name, "this machine's address has changed");
                    site.command(&Command::PathChanged)?;
                    site.channel = None;
                    site.machine.handle_network_changed(now().boot);
                }
                Ok(false) => {}
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(site = site.name, error, "the change of address was not followed");
                }
            }
        }
        Ok(())
    }

    fn start_tunnel(&mut self, index: usize, number: u64, gateway: SiteGateway) -> Result<()> {
        let site = &mut self.sites[index];
        let dtls = ClientConfig::pinned(&self.credentials, self.judge.trust().clone(), gateway.digests)?;
        let config = Config {
            dtls: Arc::new(dtls),
            gateway_id: Some(gateway.id),
            offloads: site.interface.offloads(),
            inner: site.inner,
            routes: site.routes.iter().copied().collect(),
            release: Release::ByCommand,
            random: random()?,
        };
        let (worker, path) = site.interface.worker(gateway.address, config, None)?;
        site.path = Some(path);
        let (report, id) = (Arc::clone(&self.report), site.id.clone());
        let sink: Sink<TunnelEvent> = Arc::new(move |_, told| {
            report(Event::Worker(id.clone(), number, told)).map_err(|back| match back {
                Event::Worker(_, _, told) => told,
                // The desk gives back what it was given.
                _ => Report::Ended(Ok(())),
            })
        });
        site.worker = Some((number, spawn(vec![worker], self.backend.into(), 0, &sink)?));
        Ok(())
    }

    fn hear_worker(&mut self, site: &str, number: u64, report: Report<TunnelEvent>) -> Result<()> {
        let now = now().boot;
        let found = self.sites.iter_mut().find(|run| run.id == site);
        let Some(site) = found.filter(|run| run.worker.as_ref().is_some_and(|(known, _)| *known == number)) else {
            // Of a worker that was stopped.
            return Ok(());
        };
        match report {
            Report::Started { backend, fallback, .. } => {
                if let Some(reason) = fallback {
                    tracing::warn!(reason, "io_uring is not available, using epoll");
                }
                site.backend = backend.to_string();
            }
            Report::Event(TunnelEvent::Established { tunnel, gateway, exporter }) => {
                site.machine.handle_established(tunnel, *gateway.certificate_digest(), exporter, now);
            }
            Report::Event(TunnelEvent::Up(gateway)) => {
                tracing::info!(site = site.name, gateway = gateway.id(), "tunnel up");
                site.machine.handle_up();
            }
            Report::Event(TunnelEvent::Down(reason)) => {
                tracing::warn!(site = site.name, %reason, "tunnel down, trying again");
                site.machine.handle_down(reason.to_string(), now);
            }
            Report::Ended(Ok(())) => {}
            Report::Ended(Err(error)) => return Err(anyhow!(error).context("the worker ended")),
        }
        Ok(())
    }

    fn hear_channel(&mut self, site: &str, number: u64, told: Told) {
        let now = now().boot;
        let found = self.sites.iter_mut().find(|run| run.id == site);
        let Some(site) = found.filter(|run| run.channel.as_ref().is_some_and(|(known, _)| *known == number)) else {
            // Of a channel that was closed.
            return;
        };
        match told {
            Told::Opened(digest) => site.machine.handle_opened(digest, now),
            Told::Message(message) => {
                if let Some(Say::Goodbye(Goodbye { code, message, event })) = &message.say {
                    tracing::warn!(site = site.name, code, message, event, "the Gateway says goodbye");
                }
                if let Some(Say::Denied(Denied { destination, rule, reason })) = &message.say {
                    tracing::info!(site = site.name, destination, rule, reason, "denied");
                }
                site.machine.handle_message(message, now);
                if site.machine.is_ended() {
                    tracing::error!(site = site.name, "nothing is tried again with these tokens; run `ringfort login`");
                }
            }
            Told::Closed(why) => {
                tracing::warn!(site = site.name, why, "session channel closed, trying again");
                site.channel = None;
                site.machine.handle_closed(why, now);
            }
        }
    }

    /// Takes an entitlement token that a Gateway passed on: verified, stored, routed; the tunnel stays.
    fn pushed(&mut self, site: &str, token: &str) -> Result<()> {
        self.tokens.take_pushed(&self.judge, site, token, wall_clock())?;
        self.tokens.store(&self.folder)?;
        let seq = self.tokens.entitlements.get(site).map_or(0, |held| held.token.seq);
        if let Some(run) = self.sites.iter_mut().find(|run| run.id == site) {
            run.machine.set_pushed(token.to_owned(), seq);
        }
        self.route()
    }

    fn begin_renewal(&mut self) {
        let now = (now().boot, wall_clock());
        let Some(extent) = self.schedule.begin(&self.tokens, self.certificate_ends, now) else { return };
        tracing::debug!(?extent, "renewing");
        let claims = self.tokens.claims.clone();
        let (state, report) = (self.folder.path().to_owned(), Arc::clone(&self.report));
        self.runtime.spawn(async move {
            let result = renewal::renew(state, claims, extent).await;
            hand_in(report, Event::Renewed(result.map(Box::new))).await;
        });
    }

    fn renewed(&mut self, result: Result<Box<Renewed>>) -> Result<()> {
        let now = now().boot;
        let mut renewed = match result {
            Ok(renewed) => renewed,
            Err(error) => {
                let is_refusal = renewal::is_refusal(&error);
                self.schedule.failed(is_refusal, now);
                if !is_refusal {
                    tracing::warn!(error = format!("{error:#}"), "renewal failed, trying again");
                    return Ok(());
                }
                let text = format!("{error:#}; run `ringfort login` again");
                tracing::error!(error = text, "renewal refused");
                self.login_ended = Some(text.clone());
                if self.sites.is_empty() {
                    bail!(text);
                }
                return Ok(());
            }
        };
        self.schedule.succeeded(now);
        renewed.tokens.keep_newer(std::mem::take(&mut self.tokens.entitlements));
        renewed.tokens.store(&self.folder)?;
        let chain = renewed.chain;
        if let Some(chain) = &chain {
            self.folder.write_certificates(file::CHAIN, chain)?;
        }
        (self.judge, self.tokens) = (renewed.judge, renewed.tokens);
        tracing::info!(until = self.tokens.claims.token.dies_at().0, "tokens renewed");
        self.renew_certificate(chain.is_some())
    }

    /// Goes on with the tokens of a `ringfort login` that came after ours, with the same folder.
    fn adopt_login(&mut self) -> Result<()> {
        let today = wall_clock();
        let kept = self.folder.read_text(tokens::file::CLAIMS);
        if kept.is_ok_and(|text| text.trim() == self.tokens.claims.text) {
            return Ok(());
        }
        let adopted = Judge::of_folder(&self.folder, &self.identity, self.judge.holder(), today)
            .and_then(|judge| Tokens::load(&self.folder, &judge, today).map(|tokens| (judge, tokens)));
        match adopted {
            Ok((judge, tokens)) if tokens.connect.is_some() => {
                tracing::info!("logged in again");
                (self.judge, self.tokens, self.schedule) = (judge, tokens, Schedule::default());
                self.renew_certificate(true)?;
                for site in &mut self.sites {
                    site.machine.begin_anew(now().boot);
                }
                Ok(())
            }
            // Half-written, or of no use: ours stay.
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::debug!(%error, "the tokens in the folder are not used");
                Ok(())
            }
        }
    }

    /// Goes on with the certificate in the folder, if it is a new one, and with the tokens as they are now.
    fn renew_certificate(&mut self, is_new: bool) -> Result<()> {
        self.login_ended = None;
        if is_new {
            let chain = self.folder.certificates(file::CHAIN)?;
            self.certificate_ends = self.judge.certificate(&chain, &self.tokens.claims.token, wall_clock())?;
            self.credentials = self.folder.credentials()?;
            self.own.replace(&self.credentials)?;
        }
        self.apply()?;
        for site in self.sites.iter_mut().filter(|_| is_new) {
            site.machine.set_certificate(now().boot);
        }
        Ok(())
    }

    fn is_up(&self) -> bool {
        let mut with_gateway = self.sites.iter().filter(|run| run.machine.has_gateway()).peekable();
        self.tokens.connect.is_some() && with_gateway.all(|run| run.machine.is_up() && run.machine.is_bound())
    }

    fn tell_ready(&mut self) {
        if !self.told_ready && self.is_up() {
            self.told_ready = true;
            notify_ready();
        }
    }
}

/// Hands an event in at the desk, waiting while it is full.
async fn hand_in(report: Reporter, mut event: Event) {
    while let Err(back) = report(event) {
        event = back;
        tokio::time::sleep(DESK_PAUSE).await;
    }
}
