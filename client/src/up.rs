//! The process of a client that joined and logged in: a tunnel and a session channel to each site.
//!
//! The control thread owns everything and decides nothing by itself: [`crate::site`] says what to do for a connection of a site,
//! [`crate::routes`] what is routed where, [`crate::renewal`] when tokens are renewed. Channels and renewals run as tasks
//! beside it, packets on a worker's thread per site.

mod lines;
mod sites;
mod status;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ringfort_engine::client::Event as TunnelEvent;
use ringfort_enrol::tls::OwnCertificate;
use ringfort_enrol::{Folder, Identity, Kind, LockedFolder, PrivateKey, file, wall_clock};
use ringfort_identity::Credentials;
use ringfort_service::desk::{Desk, Letter};
use ringfort_service::notify_ready;
use ringfort_service::settings::{Backend, Mtu};
use ringfort_types::UnixSeconds;
use ringfort_worker::{Report, now};
use tokio::runtime::Runtime;

use crate::beside;
use crate::channel;
use crate::down::Running;
use crate::follow;
use crate::login::login_service;
use crate::network;
use crate::renewal::{self, Renewed, Schedule};
use crate::routes::LeftOut;
use crate::tokens::{Beside, Judge, Tokens};
use crate::tunnel;
use crate::up::lines::Reason;
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
    let report = desk.waiting_reporter();
    beside::watch(&control.folder, move || report(Event::ClaimsChanged))?;
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
    Channel(String, u64, channel::Told),
    /// From a tunnel that is to take the place of a site's, likewise.
    Follower(String, u64, follow::Told),
    /// The machine's addresses or routes have changed.
    NetworkChanged,
    /// There is another claims token in the folder, ours or that of a login beside us.
    ClaimsChanged,
    /// A renewal of what hangs on this claims token came to its end.
    Renewed(String, Result<Box<Renewed>>),
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
    /// How often a Gateway has told us to renew, by `RenewBy` (A24).
    told_to_renew: u64,
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
            told_to_renew: 0,
        })
    }

    fn run(&mut self, desk: &Desk<Event>) -> Result<()> {
        self.apply()?;
        // Somebody may have logged in before anything was noticed.
        drop(self.lock()?);
        loop {
            self.begin_renewal();
            self.drive()?;
            self.tell_ready();
            let Some(letter) = desk.receive_within(self.patience()) else { continue };
            match letter {
                Letter::Stop => return Ok(()),
                Letter::Status(question) => question.answer(self.document()),
                Letter::Report(Event::NetworkChanged) => self.follow_network()?,
                Letter::Report(Event::ClaimsChanged) => drop(self.lock()?),
                Letter::Report(Event::Renewed(claims, result)) => self.renewed(&claims, result)?,
                Letter::Report(Event::Worker(site, number, report)) => self.hear_worker(&site, number, report)?,
                Letter::Report(Event::Channel(site, number, told)) => self.hear_channel(&site, number, told),
                Letter::Report(Event::Follower(site, number, told)) => self.hear_follower(&site, number, told)?,
            }
        }
    }

    fn stop(&mut self) {
        let mut closing = Vec::new();
        for line in self.sites.iter_mut().flat_map(SiteRun::lines) {
            closing.extend(line.close());
            line.stop_worker();
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
        let sites = self.sites.iter().filter_map(SiteRun::due);
        let renewal = self.schedule.poll_timeout(&self.tokens, self.certificate_ends, (now, wall_clock()));
        let next = sites.chain(renewal).min();
        next.map_or(LOOK_EVERY, |at| at.saturating_since(now).min(LOOK_EVERY))
    }

    /// Takes an entitlement token that a Gateway passed on: verified, stored, routed; the tunnel stays.
    fn pushed(&mut self, site: &str, token: &str) -> Result<()> {
        self.tokens.take_pushed(&self.judge, site, token, wall_clock())?;
        let folder = self.lock()?;
        self.tokens.store(&folder)?;
        let held = self.tokens.entitlements.get(site);
        if let (Some(held), Some(run)) = (held, self.sites.iter_mut().find(|run| run.id == site)) {
            run.line.machine.set_pushed(held.text.clone(), held.token.seq);
            if let Some(next) = &mut run.next {
                next.line.machine.set_pushed(held.text.clone(), held.token.seq);
            }
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
            let of = claims.text.clone();
            let result = renewal::renew(state, claims, extent).await;
            hand_in(report, Event::Renewed(of, result.map(Box::new))).await;
        });
    }

    /// Goes on with what a renewal of what hangs on the claims token `of` has brought. Whatever somebody who logged in meanwhile has
    /// brought is newer.
    fn renewed(&mut self, of: &str, result: Result<Box<Renewed>>) -> Result<()> {
        let folder = self.lock()?;
        if of != self.tokens.claims.text {
            return Ok(());
        }
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
        let chain = renewed.chain;
        if let Some(chain) = &chain {
            folder.write_certificates(file::CHAIN, chain)?;
        }
        renewed.tokens.store(&folder)?;
        (self.judge, self.tokens) = (renewed.judge, renewed.tokens);
        tracing::info!(until = self.tokens.claims.token.dies_at().0, "tokens renewed");
        self.renew_certificate(chain.is_some())
    }

    /// Locks the folder, so that our tokens may be stored there. What a `ringfort login` beside us has brought there is ours from
    /// then on.
    fn lock(&mut self) -> Result<LockedFolder> {
        let folder = self.folder.lock()?;
        if let Some(beside) = self.tokens.beside(&folder, self.judge.holder(), wall_clock()) {
            self.adopt(beside)?;
        }
        Ok(folder)
    }

    /// Goes on with a login that came after ours.
    fn adopt(&mut self, beside: Beside) -> Result<()> {
        let Beside { identity, judge, mut tokens } = beside;
        tracing::info!(until = tokens.claims.token.dies_at().0, "logged in again");
        if tokens.claims.token.sub == self.tokens.claims.token.sub {
            tokens.keep_newer(std::mem::take(&mut self.tokens.entitlements));
        } else {
            // Another user: nothing of theirs is shown where we are the one before.
            for site in &mut self.sites {
                site.next = None;
                site.line.machine.set_certificate(now().boot);
            }
        }
        (self.identity, self.judge, self.tokens, self.schedule) = (identity, judge, tokens, Schedule::default());
        self.renew_certificate(true)?;
        for site in &mut self.sites {
            site.line.machine.begin_anew(now().boot);
        }
        Ok(())
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
            let bound = site.line.machine.gateway().cloned().filter(|_| site.line.machine.is_bound());
            match bound {
                Some(gateway) => site.follow(gateway, Reason::Certificate),
                None => site.line.machine.set_certificate(now().boot),
            }
        }
        Ok(())
    }

    fn is_up(&self) -> bool {
        let mut with_gateway =
            self.sites.iter().map(|run| &run.line.machine).filter(|line| line.has_gateway()).peekable();
        self.tokens.connect.is_some() && with_gateway.all(|line| line.is_up() && line.is_bound())
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
