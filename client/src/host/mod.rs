//! A host that registers itself: it tells the Controller, over mutual TLS and again and again, at which addresses it can be reached
//! (W1–W10).
//!
//! [`registrar`] says when, [`link`] does it, [`trouble`] says once what is wrong; here they are joined.

mod config;
mod link;
mod registrar;
mod trouble;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ringfort_enrol::{Folder, Kind};
use ringfort_service::desk::{Desk, Letter};
use ringfort_service::notify_ready;
use ringfort_types::{BootInstant, UnixSeconds};
use ringfort_worker::now;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use config::{Config, Mode};
use link::Link;
use registrar::Registrar;
use trouble::{Told, Trouble};

use crate::network;

/// Name of the file in the folder of a host, and of its status socket there.
const CONFIG: &str = "host.toml";
const STATUS_SOCKET: &str = "host.sock";
/// The clocks are looked at so often: no timer of ours runs while the machine sleeps, so a wake-up is noticed by looking.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How to run.
#[derive(Clone, Debug)]
pub struct Host {
    /// The folder with which the host joined (W1's configuration directory).
    pub state: PathBuf,
    /// Its file; `host.toml` in the folder by default.
    pub config: Option<PathBuf>,
    /// End also at the end of standard input.
    pub stop_with_stdin: bool,
}

/// What comes in at the desk.
enum Event {
    NetworkChanged,
    /// A registration came to its end, at this time of the Controller's.
    Done(Result<UnixSeconds, Trouble>),
}

/// Registers the host until told to stop, by SIGTERM or SIGINT; ends at once where its file does not say `direct` (W3). To be called
/// before any thread is made.
///
/// # Errors
/// Whatever keeps it from running, with what was expected and what came. A Controller that cannot be reached, or refuses, is no error:
/// it is asked again at the interval, for ever (W10).
pub fn host(options: &Host) -> Result<()> {
    let desk = Desk::open(options.stop_with_stdin)?;
    let (folder, identity) = Folder::open_joined(&options.state)?;
    if identity.kind != Kind::Host {
        bail!("{}: expected the folder of a host, found that of a {:?}", options.state.display(), identity.kind);
    }
    let path = options.config.clone().unwrap_or_else(|| folder.file(CONFIG));
    let config = config::read(&path, &identity)?;
    if let Mode::Off(found) = &config.mode {
        let found = found.as_deref().unwrap_or_default();
        tracing::info!(resolution_mode = found, "this host does not register itself: that needs \"direct\"");
        notify_ready();
        return Ok(());
    }
    let link = Arc::new(Link::open(folder, &config)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let report = desk.reporter();
    network::watch(move || report(Event::NetworkChanged).is_ok())?;
    let socket = options.state.join(STATUS_SOCKET);
    let served = desk.serve_status(&socket);
    let served = served.with_context(|| format!("cannot serve the status at {}", socket.display()))?;
    notify_ready();
    let done: Done = Arc::new(desk.waiting_reporter());
    let register = || {
        let (link, done) = (Arc::clone(&link), Arc::clone(&done));
        runtime.spawn(async move { done(Event::Done(link.register().await)) });
    };
    Control {
        registrar: Registrar::new(config.interval, now().boot),
        config,
        told: Told::default(),
        counts: Counts::default(),
    }
    .run(&desk, || asleep(time_of), register);
    drop(served);
    runtime.shutdown_background();
    Ok(())
}

type Done = Arc<dyn Fn(Event) -> bool + Send + Sync>;

struct Control {
    registrar: Registrar,
    config: Config,
    told: Told,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    registered: u64,
    failed: u64,
    network_changes: u64,
    wake_ups: u64,
    last_registered: Option<UnixSeconds>,
}

impl Control {
    fn run(mut self, desk: &Desk<Event>, asleep: impl Fn() -> Duration, register: impl Fn()) {
        loop {
            let at = now().boot;
            if self.look(asleep(), at) {
                register();
            }
            let due = self.registrar.poll_timeout().map(|due| due.saturating_since(at));
            match desk.receive_within(due.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)) {
                Some(Letter::Report(Event::NetworkChanged)) => {
                    self.counts.network_changes += 1;
                    self.registrar.handle_network_changed(now().boot);
                }
                Some(Letter::Report(Event::Done(result))) => self.done(result),
                Some(Letter::Status(question)) => question.answer(self.document()),
                Some(Letter::Stop) => return,
                None => {}
            }
        }
    }

    /// Takes note of how long the machine has been suspended, and says whether to register now.
    fn look(&mut self, asleep: Duration, at: BootInstant) -> bool {
        if self.registrar.handle_clocks(asleep, at) {
            self.counts.wake_ups += 1;
        }
        self.registrar.poll_register(at)
    }

    fn done(&mut self, result: Result<UnixSeconds, Trouble>) {
        self.registrar.handle_done(now().boot);
        match result {
            Ok(at) => {
                self.counts.registered += 1;
                self.counts.last_registered = Some(at);
                self.told.success();
            }
            Err(trouble) => {
                self.counts.failed += 1;
                self.told.failure(trouble, self.config.interval);
            }
        }
    }

    fn document(&self) -> Value {
        let Counts { registered, failed, network_changes, wake_ups, last_registered } = &self.counts;
        json!({
            "role": "host",
            "hostname": self.config.hostname.as_str(),
            "controllers": self.config.controllers,
            "interval_seconds": self.config.interval.as_secs(),
            "last_registered": last_registered.map(|at| at.0),
            "trouble": self.told.trouble().map(|trouble| json!({ "code": trouble.code(), "what": trouble.to_string() })),
            "totals": {
                "registered": registered,
                "failed": failed,
                "network_changes": network_changes,
                "wake_ups": wake_ups,
            },
        })
    }
}

/// How long the machine has been suspended since it was started, by a reader of clocks.
fn asleep(read: impl Fn(ClockId) -> Duration) -> Duration {
    // In this order a pause between the two readings cannot look like sleep.
    let boot = read(ClockId::Boottime);
    boot.saturating_sub(read(ClockId::Monotonic))
}

/// What a clock shows.
fn time_of(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests;
