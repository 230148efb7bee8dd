//! A Gateway that a Controller manages: start, the loop of its control thread, end.
//!
//! Three worlds meet here and share nothing but messages: the workers with the packets, the tasks that talk to the
//! Controller and to the clients' channels, and the control thread, on which [`Admission`] decides. A push comes from the
//! stream's task to the control thread and from there to every worker: two hand-overs, no lock on the way.

mod capture;
mod channel;
mod clock;
mod config;
mod control;
mod kept;
mod operate;
mod rotation;
mod stream;
mod upgrade;

use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use ringfort_admission::{Admission, Settings};
use ringfort_enrol::tls::{self, ALPN_SESSION, ClientCertificates, OwnCertificate};
use ringfort_enrol::{Folder, Kind};
use ringfort_service::desk::{Desk, Letter};
use ringfort_service::{file, seed};
use ringfort_worker::{now, spawn};
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsAcceptor;

use crate::plane::Pools;
use clock::Clock;
use control::{Authorities, Control, Told};
use kept::Writer;
use operate::Operations;
pub use operate::SetLog;
use rotation::Rotation;
use stream::{Link, Standing};

/// Confirmations waiting for the stream.
const APPLIED_MAX: usize = 1_024;

/// Runs the Gateway that joined with the folder `state`, with the settings of this site in the file `config`, until it is told
/// to stop as [`crate::run_static`] is. `set_log` changes what is logged, where the Controller asks for that. To be called before any thread is made.
///
/// # Errors
/// Whatever keeps it from running, with what was expected and what came. A Controller that cannot be reached is no error,
/// unless it never could: without any configuration the Gateway waits for one.
pub fn run(state: &Path, config: &Path, set_log: SetLog, stop_with_stdin: bool) -> Result<()> {
    let desk: Desk<Told> = Desk::open(stop_with_stdin)?;
    let (folder, identity) = Folder::open_joined(state)?;
    if identity.kind != Kind::Gateway {
        bail!("{}: expected the folder of a Gateway, found that of a {:?}", state.display(), identity.kind);
    }
    let section = config::read(config)?;
    folder.finish_next()?;
    let authorities = Authorities::of_folder(&folder)?;
    let trust = authorities.trust().clone();
    let own = OwnCertificate::new(authorities.credentials())?;
    let (persisted, kept_time) = kept::load(&folder)?;
    let clock = Clock::new(kept_time);
    let moment = clock.moment(now());
    let settings = Settings {
        organisation: identity.organisation.clone(),
        site: identity.site.clone(),
        gateway: identity.id.clone(),
        signers: folder.token_keys(&trust.get(), moment.wall)?,
        ceiling: section.never_beyond.clone(),
        no_new_sessions_after: section.no_new_sessions_after(),
        guarded: Pools(Vec::new()).guarded()?,
        event_prefix: format!("{:08x}", seed()? as u32),
    };
    let admission = Admission::restore(settings, persisted, moment);

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("channels")
        .enable_io()
        .enable_time()
        .build()
        .context("cannot start the runtime")?;
    let standing = Arc::new(Mutex::new(Standing::default()));
    let (applied, confirmations) = mpsc::channel(APPLIED_MAX);
    let again = Arc::new(Notify::new());
    let tell = desk.waiting_reporter();
    let addresses = Arc::new(Mutex::new(section.addresses.clone()));
    let link = Link {
        folder: folder.clone(),
        identity: Mutex::new(identity.clone()),
        trust: trust.clone(),
        rotation: Rotation::new(folder.clone(), own.clone()),
        addresses: Arc::clone(&addresses),
        standing: Arc::clone(&standing),
        tell: Box::new(move |told| tell(Told::stream(told))),
    };
    let report = desk.reporter();
    let writer = Writer::start(folder.clone(), move || drop(report(Told::Written)))?;
    let report = desk.waiting_reporter();
    let later: operate::Tell = Arc::new(move |finished| {
        report(Told::Finished(finished));
    });
    let operations = Operations::new(config.to_owned(), section.clone(), addresses, set_log, later);
    let dtls = section.plane.dtls;
    let mut control = Control::new(admission, clock, identity, (authorities, dtls), writer, standing, operations);
    control.connect_stream(applied, Arc::clone(&again));
    runtime.spawn(stream::keep(link, confirmations, again));

    let socket = match &section.status_socket {
        Some(socket) => file::beside(config, socket),
        None => folder.file("gateway.sock"),
    };
    let served = desk.serve_status(&socket).with_context(|| format!("cannot serve {}", socket.display()))?;

    // Without a configuration nothing is known of the pools, so the interface cannot be set up.
    let pools = loop {
        if let Some(pools) = control.pools() {
            break pools?;
        }
        match desk.receive() {
            Some(Letter::Report(told)) => control.handle(told, None)?,
            Some(Letter::Status(question)) => question.answer(control.document(None)),
            Some(Letter::Stop) | None => return Ok(()),
        }
    };
    let helpers = section.plane.handshake_threads()?;
    let machines = section.plane.open(&pools, &control.server()?)?;
    control.expect_workers(machines.len());
    let mut workers = spawn(machines, section.plane.backend.into(), helpers, &control::sink(&desk))?;

    let acceptor = tls::server(&own, &trust, ClientCertificates::Required, &[ALPN_SESSION])?;
    let acceptor = TlsAcceptor::from(Arc::new(acceptor));
    let listen = section.plane.listen;
    let listener = runtime.block_on(async { tokio::net::TcpListener::bind(listen).await });
    let listener = listener.with_context(|| format!("gateway.listen: cannot listen on TCP {listen}"))?;
    let tell = desk.waiting_reporter();
    let tell: channel::Tell = Arc::new(move |told| tell(Told::Channel(told)));
    runtime.spawn(channel::listen(listener, acceptor, trust, tell));

    let result = control.run(&desk, &workers);
    drop(served);
    workers.stop();
    // Last messages to clients are on their way; a client that does not take them is not waited for.
    runtime.shutdown_timeout(std::time::Duration::from_millis(300));
    result
}

/// The pools of a configuration as interface addresses.
fn parse_pools(texts: &[String]) -> Result<Pools> {
    let parse = |text: &String| text.parse::<IpNet>().with_context(|| format!("a pool of the configuration: {text:?}"));
    Ok(Pools(texts.iter().map(parse).collect::<Result<_>>()?))
}
