//! What the Controller asks of this Gateway (K6): each operation is carried out once, answered, and written to the log.
//!
//! What the site's own file does not say, no operation changes; what cannot change while sessions run is refused whole, and the
//! file as it was read before stays in force.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringfort_policy::Bound;
use ringfort_proto::api::CaptureLimits;
use ringfort_proto::v1::operation::What;
use ringfort_proto::v1::{self, Operation, OperationDone};
use serde_json::{Value, json};

use super::config::{self, Section};

/// Operations remembered for whoever asks; the log has them all.
const REMEMBERED_MAX: usize = 16;

/// Our version, as an upgrade is compared with it.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Takes the answer to an operation that was not carried out at once.
pub(super) type Tell = Arc<dyn Fn(Finished) + Send + Sync>;

/// Sets what is logged, by a filter; says what is wrong with one that is none.
pub type SetLog = Box<dyn Fn(&str) -> Result<(), String> + Send>;

/// What operations need.
pub(super) struct Operations {
    path: PathBuf,
    section: Section,
    addresses: Arc<Mutex<Vec<String>>>,
    set_log: SetLog,
    tell: Tell,
    /// Set while a thread takes a package, or captures: one each.
    is_upgrading: Arc<AtomicBool>,
    is_capturing: Arc<AtomicBool>,
    /// Id, what, and code of the answer, which is empty for success.
    remembered: VecDeque<(String, &'static str, &'static str)>,
}

/// What became of an operation.
#[derive(Debug)]
pub(super) struct Finished {
    id: String,
    name: &'static str,
    done: Result<String, NotDone>,
    /// Whether the Controller waits for it.
    is_answer: bool,
}

/// What else is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// What the site bounds is to be bounded so.
    Bounds {
        /// What no Controller can allow here.
        ceiling: Option<Bound>,
        /// How long new sessions are admitted without a Controller, at most.
        no_new_sessions_after: Option<Duration>,
    },
    /// Every session is to end.
    EndSessions,
}

/// Why something was not done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotDone {
    pub(super) code: &'static str,
    pub(super) detail: String,
}

impl NotDone {
    pub(super) const fn new(code: &'static str, detail: String) -> Self {
        Self { code, detail }
    }
}

impl Operations {
    /// For the file at `path`, which says `section`. What takes longer than a moment is told to `tell`.
    pub(super) fn new(
        path: PathBuf,
        section: Section,
        addresses: Arc<Mutex<Vec<String>>>,
        set_log: SetLog,
        tell: Tell,
    ) -> Self {
        let (is_upgrading, is_capturing) = Default::default();
        Self { path, section, addresses, set_log, tell, is_upgrading, is_capturing, remembered: VecDeque::new() }
    }

    /// Carries an operation out on a Gateway that is `draining` or is not; gives the answer, unless it comes later, and what else is
    /// to be done.
    pub(super) fn carry_out(&mut self, operation: Operation, draining: bool) -> (Option<OperationDone>, Effect) {
        let Operation { id, what } = operation;
        let (name, done) = match what {
            Some(What::Reload(_)) => ("reload", self.reload()),
            Some(What::SetLogLevel(level)) => {
                ("log-level", self.set_log_level(&level.filter).map(|text| (text, Effect::None)))
            }
            Some(What::EndSessions(_)) if draining => {
                ("end-sessions", Ok(("every session ends".into(), Effect::EndSessions)))
            }
            Some(What::EndSessions(_)) => {
                let detail = "expected a Gateway that is drained: its clients would come back at once".to_owned();
                ("end-sessions", Err(NotDone { code: "not_draining", detail }))
            }
            Some(What::Upgrade(upgrade)) => match self.upgrade(&id, upgrade) {
                Ok(()) => return (None, Effect::None),
                Err(refused) => ("upgrade", Err(refused)),
            },
            Some(What::Capture(capture)) => {
                ("capture", self.capture(&id, &capture).map(|detail| (detail, Effect::None)))
            }
            None => {
                let detail = "expected an operation that this version knows: update the Gateway".to_owned();
                ("unknown", Err(NotDone { code: "operation_unknown", detail }))
            }
        };
        let (done, effect) = match done {
            Ok((detail, effect)) => (Ok(detail), effect),
            Err(refused) => (Err(refused), Effect::None),
        };
        (self.finished(Finished { id, name, done, is_answer: true }), effect)
    }

    /// Writes down what became of an operation; gives the answer if one is waited for.
    pub(super) fn finished(&mut self, finished: Finished) -> Option<OperationDone> {
        let Finished { id, name, done, is_answer } = finished;
        let (code, detail) = match done {
            Ok(detail) => ("", detail),
            Err(NotDone { code, detail }) => (code, detail),
        };
        tracing::warn!(operation = id, name, code, detail, "the Controller asked for an operation");
        if self.remembered.len() == REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back((id.clone(), name, code));
        is_answer.then(|| OperationDone { id, code: code.into(), detail })
    }

    /// Has a thread take a package: neither packets nor revocations wait for it.
    fn upgrade(&self, id: &str, upgrade: v1::Upgrade) -> Result<(), NotDone> {
        let Some(allowed) = self.section.upgrade.clone() else {
            let detail = "expected a site that takes upgrades from afar: it says so with [gateway.upgrade] in its file";
            return Err(NotDone::new("upgrade_not_allowed", detail.into()));
        };
        let busy = Busy::begin(&self.is_upgrading)
            .ok_or_else(|| NotDone::new("upgrade_busy", "a package is being taken already: wait for it".into()))?;
        let (tell, id) = (Arc::clone(&self.tell), id.to_owned());
        let work = move || {
            let done = allowed.take(&upgrade.version, &upgrade.sha256, VERSION);
            let done = done.map(|path| format!("{} lies in {} for the installer", upgrade.version, path.display()));
            drop(busy);
            tell(Finished { id, name: "upgrade", done, is_answer: true });
        };
        beside("upgrade", work).map_err(|error| NotDone::new("upgrade_failed", error.to_string()))
    }

    /// Begins a capture, which a thread carries out.
    fn capture(&self, id: &str, capture: &v1::Capture) -> Result<String, NotDone> {
        let Some(allowed) = &self.section.capture else {
            let detail = "expected a site that lets packets be captured: it says so with [gateway.capture] in its file";
            return Err(NotDone::new("capture_not_allowed", detail.into()));
        };
        let busy = Busy::begin(&self.is_capturing)
            .ok_or_else(|| NotDone::new("capture_busy", "a capture runs already: wait for it".into()))?;
        let v1::Capture { seconds, packets, bytes, snap_bytes } = *capture;
        let limits = CaptureLimits { seconds, packets, bytes, snap_bytes };
        let running = allowed.begin(self.section.plane.tun.as_str(), id, limits)?;
        let text = format!("captures for {seconds} s at most into {} at the Gateway", running.path.display());
        let (tell, id) = (Arc::clone(&self.tell), id.to_owned());
        let work = move || {
            let done = running.run().map_err(|error| NotDone::new("capture_failed", error.to_string()));
            drop(busy);
            tell(Finished { id, name: "capture", done, is_answer: false });
        };
        beside("capture", work).map_err(|error| NotDone::new("capture_failed", error.to_string()))?;
        Ok(text)
    }

    /// The last ones, for the status.
    pub(super) fn document(&self) -> Value {
        let row = |(id, name, code): &(String, &str, &str)| json!({ "id": id, "name": name, "code": code });
        self.remembered.iter().map(row).collect()
    }

    fn reload(&mut self) -> Result<(String, Effect), NotDone> {
        let refused = |detail| NotDone { code: "reload_refused", detail };
        let new = config::read(&self.path).map_err(|error| refused(format!("{error:#}")))?;
        if new.plane != self.section.plane || new.status_socket != self.section.status_socket {
            let detail = "only `never_beyond`, `no_new_sessions_after`, `addresses`, `upgrade` and `capture` can change while the Gateway runs: restart it for the rest";
            return Err(refused(detail.to_owned()));
        }
        let mut changed = Vec::new();
        if new.upgrade != self.section.upgrade {
            changed.push("upgrade");
        }
        if new.capture != self.section.capture {
            changed.push("capture");
        }
        if new.addresses != self.section.addresses {
            self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&new.addresses);
            changed.push("addresses");
        }
        let mut effect = Effect::None;
        let is_beyond = new.never_beyond != self.section.never_beyond;
        let is_after = new.no_new_sessions_after != self.section.no_new_sessions_after;
        if is_beyond || is_after {
            let (ceiling, no_new_sessions_after) = (new.never_beyond.clone(), new.no_new_sessions_after());
            effect = Effect::Bounds { ceiling, no_new_sessions_after };
            let names = [("never_beyond", is_beyond), ("no_new_sessions_after", is_after)];
            changed.extend(names.into_iter().filter_map(|(name, is_changed)| is_changed.then_some(name)));
        }
        self.section = new;
        let text = if changed.is_empty() {
            "nothing had changed".to_owned()
        } else {
            format!("changed: {}", changed.join(", "))
        };
        Ok((text, effect))
    }

    fn set_log_level(&self, filter: &str) -> Result<String, NotDone> {
        (self.set_log)(filter).map_err(|detail| NotDone { code: "log_level_malformed", detail })?;
        Ok(format!("logs by {filter}"))
    }
}

/// Something that is done once at a time, until this is dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn begin(flag: &Arc<AtomicBool>) -> Option<Self> {
        (!flag.swap(true, Ordering::AcqRel)).then(|| Self(Arc::clone(flag)))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn beside(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(work).map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use ringfort_proto::v1::{Capture, EndSessions, Reload, SetLogLevel, Upgrade};

    use super::*;

    const FILE: &str = "[gateway]\nlisten = '203.0.113.10:443'\n";

    struct World {
        _place: tempfile::TempDir,
        operations: Operations,
        draining: bool,
        tells: mpsc::Receiver<Finished>,
    }

    impl World {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join("gateway.toml");
            std::fs::write(&path, FILE).unwrap();
            let section = config::read(&path).unwrap();
            let addresses = Arc::new(Mutex::new(section.addresses.clone()));
            let set_log = Box::new(|filter: &str| if filter == "debug" { Ok(()) } else { Err("no filter".to_owned()) });
            let (told, tells) = mpsc::channel();
            let tell: Tell = Arc::new(move |finished| told.send(finished).unwrap());
            let operations = Operations::new(path, section, addresses, set_log, tell);
            Self { _place: place, operations, draining: false, tells }
        }

        fn write(&self, more: &str) {
            std::fs::write(&self.operations.path, format!("{FILE}{more}")).unwrap();
        }

        fn carry_out(&mut self, what: Option<What>) -> (String, String, Effect) {
            let (done, effect) = self.operations.carry_out(Operation { id: "7".into(), what }, self.draining);
            let done = done.or_else(|| self.operations.finished(self.tells.recv().unwrap())).unwrap();
            assert_eq!(done.id, "7");
            (done.code, done.detail, effect)
        }

        fn reload(&mut self) -> (String, String, Effect) {
            self.carry_out(Some(What::Reload(Reload {})))
        }

        fn addresses(&self) -> Vec<String> {
            self.operations.addresses.lock().unwrap().clone()
        }
    }

    // Covers: K6 allow
    #[test]
    fn a_reload_takes_the_ceiling_and_the_addresses() {
        let mut world = World::new();
        assert_eq!(world.reload(), (String::new(), "nothing had changed".into(), Effect::None));
        world.write("addresses = ['gw.example:443']\nnever_beyond = [{ to = ['10.98.0.10'], services = ['tcp/80'] }]");
        let (code, detail, effect) = world.reload();
        assert_eq!((&*code, &*detail), ("", "changed: addresses, never_beyond"));
        assert!(matches!(effect, Effect::Bounds { ceiling: Some(_), no_new_sessions_after: None }), "{effect:?}");
        assert_eq!(world.addresses(), ["gw.example:443"]);
        world.write("");
        let unbounded = Effect::Bounds { ceiling: None, no_new_sessions_after: None };
        assert_eq!(world.reload().2, unbounded, "a ceiling can go at the site, and nowhere else");
        assert_eq!(world.addresses(), ["203.0.113.10:443"]);
        world.write("no_new_sessions_after = 300");
        let (_, detail, effect) = world.reload();
        assert_eq!(detail, "changed: no_new_sessions_after");
        let no_new_sessions_after = Some(Duration::from_secs(300));
        assert_eq!(effect, Effect::Bounds { ceiling: None, no_new_sessions_after });
    }

    // Covers: K6 refuse
    #[test]
    fn what_cannot_change_or_be_read_is_refused_whole() {
        let mut world = World::new();
        for (more, what) in [
            ("mtu = 1300\naddresses = ['gw.example:443']", "restart"),
            ("workers = 1", "restart"),
            ("status_socket = 'elsewhere'", "restart"),
            ("never_byond = []", "never_byond"),
            ("no_new_sessions_after = 60", "120 to 86400"),
            ("never_beyond = [{ to = ['10.98.0.0'] }]", "services"),
        ] {
            world.write(more);
            let (code, detail, effect) = world.reload();
            assert_eq!((&*code, effect), ("reload_refused", Effect::None), "{more}");
            assert!(detail.contains(what), "{detail}");
            assert_eq!(world.addresses(), ["203.0.113.10:443"], "the old stays in force");
        }
        assert_eq!(world.carry_out(None).0, "operation_unknown");
        let level = |filter: &str| Some(What::SetLogLevel(SetLogLevel { filter: filter.into() }));
        assert_eq!(world.carry_out(level("debug")).0, "");
        assert_eq!(world.carry_out(level("loud")).0, "log_level_malformed");
        let rows = world.operations.document();
        assert_eq!((rows.as_array().map(Vec::len), &rows[0]["code"]), (Some(9), &json!("reload_refused")));
    }

    // Covers: K6 refuse
    #[test]
    fn what_the_sites_file_does_not_allow_is_refused_until_it_does() {
        let mut world = World::new();
        let upgrade = || Some(What::Upgrade(Upgrade { version: "99.0.0".into(), sha256: vec![7; 32].into() }));
        let capture = || Some(What::Capture(Capture { seconds: 1, packets: 1, bytes: 1, snap_bytes: 65 }));
        assert_eq!(world.carry_out(upgrade()).0, "upgrade_not_allowed");
        assert_eq!(world.carry_out(capture()).0, "capture_not_allowed");
        // A key of signify's form, and folders that are not there.
        let key = "RWRyZWxlYXNlMQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let upgrades = format!(
            "[gateway.upgrade]\nkeys = ['{key}']\nfrom = '/nowhere'\ninto = '/nowhere'\nfile = 'r-{{version}}.deb'\n"
        );
        world.write(&format!("{upgrades}[gateway.capture]\ninto = '/nowhere'\n"));
        assert_eq!(world.reload().1, "changed: upgrade, capture");
        assert_eq!(world.carry_out(upgrade()).0, "upgrade_unreadable");
        assert_eq!(
            world.carry_out(capture()).0,
            "capture_malformed",
            "it keeps more of each packet than the site allows"
        );
        // One at a time.
        let busy =
            [&world.operations.is_upgrading, &world.operations.is_capturing].map(|flag| Busy::begin(flag).unwrap());
        assert_eq!(world.carry_out(upgrade()).0, "upgrade_busy");
        assert_eq!(world.carry_out(capture()).0, "capture_busy");
        drop(busy);
        assert_eq!(world.carry_out(upgrade()).0, "upgrade_unreadable");
        world.write("");
        world.reload();
        assert_eq!(world.carry_out(upgrade()).0, "upgrade_not_allowed");
    }

    #[test]
    fn sessions_are_ended_on_a_drained_gateway_only() {
        let mut world = World::new();
        let end = || Some(What::EndSessions(EndSessions {}));
        let (code, _, effect) = world.carry_out(end());
        assert_eq!((&*code, effect), ("not_draining", Effect::None));
        world.draining = true;
        let (code, _, effect) = world.carry_out(end());
        assert_eq!((&*code, effect), ("", Effect::EndSessions));
    }
}
