//! What the Controller asks of this Gateway (K6): each operation is carried out once, answered, and written to the log.
//!
//! What the site's own file does not say, no operation changes; what cannot change while sessions run is refused whole, and the
//! file as it was read before stays in force.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ringfort_policy::Bound;
use ringfort_proto::v1::operation::What;
use ringfort_proto::v1::{Operation, OperationDone};
use serde_json::{Value, json};

use super::config::{self, Section};

/// Operations remembered for whoever asks; the log has them all.
const REMEMBERED_MAX: usize = 16;

/// Sets what is logged, by a filter; says what is wrong with one that is none.
pub type SetLog = Box<dyn Fn(&str) -> Result<(), String> + Send>;

/// What operations need.
pub(super) struct Operations {
    path: PathBuf,
    section: Section,
    addresses: Arc<Mutex<Vec<String>>>,
    set_log: SetLog,
    /// Id, what, and code of the answer, which is empty for success.
    remembered: VecDeque<(String, &'static str, &'static str)>,
}

/// What else is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// This ceiling is to be in force.
    Ceiling(Option<Bound>),
    /// Every session is to end.
    EndSessions,
}

/// Why something was not done.
#[derive(Debug, PartialEq, Eq)]
struct NotDone {
    code: &'static str,
    detail: String,
}

impl Operations {
    /// For the file at `path`, which says `section`.
    pub(super) fn new(path: PathBuf, section: Section, addresses: Arc<Mutex<Vec<String>>>, set_log: SetLog) -> Self {
        Self { path, section, addresses, set_log, remembered: VecDeque::new() }
    }

    /// Carries an operation out on a Gateway that is `draining` or is not; gives the answer, and what else is to be done.
    pub(super) fn carry_out(&mut self, operation: Operation, draining: bool) -> (OperationDone, Effect) {
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
            None => {
                let detail = "expected an operation that this version knows: update the Gateway".to_owned();
                ("unknown", Err(NotDone { code: "operation_unknown", detail }))
            }
        };
        let (code, detail, effect) = match done {
            Ok((detail, effect)) => ("", detail, effect),
            Err(NotDone { code, detail }) => (code, detail, Effect::None),
        };
        tracing::warn!(operation = id, name, code, detail, "the Controller asked for an operation");
        if self.remembered.len() == REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back((id.clone(), name, code));
        (OperationDone { id, code: code.into(), detail }, effect)
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
            let detail =
                "only `never_beyond` and `addresses` can change while the Gateway runs: restart it for the rest";
            return Err(refused(detail.to_owned()));
        }
        let mut changed = Vec::new();
        if new.addresses != self.section.addresses {
            self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&new.addresses);
            changed.push("addresses");
        }
        let mut effect = Effect::None;
        if new.never_beyond != self.section.never_beyond {
            effect = Effect::Ceiling(new.never_beyond.clone());
            changed.push("never_beyond");
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

#[cfg(test)]
mod tests {
    use ringfort_proto::v1::{EndSessions, Reload, SetLogLevel};

    use super::*;

    const FILE: &str = "[gateway]\nlisten = '203.0.113.10:443'\n";

    struct World {
        _place: tempfile::TempDir,
        operations: Operations,
        draining: bool,
    }

    impl World {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join("gateway.toml");
            std::fs::write(&path, FILE).unwrap();
            let section = config::read(&path).unwrap();
            let addresses = Arc::new(Mutex::new(section.addresses.clone()));
            let set_log = Box::new(|filter: &str| if filter == "debug" { Ok(()) } else { Err("no filter".to_owned()) });
            Self { _place: place, operations: Operations::new(path, section, addresses, set_log), draining: false }
        }

        fn write(&self, more: &str) {
            std::fs::write(&self.operations.path, format!("{FILE}{more}")).unwrap();
        }

        fn carry_out(&mut self, what: Option<What>) -> (String, String, Effect) {
            let (done, effect) = self.operations.carry_out(Operation { id: "7".into(), what }, self.draining);
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
        assert!(matches!(effect, Effect::Ceiling(Some(_))), "{effect:?}");
        assert_eq!(world.addresses(), ["gw.example:443"]);
        world.write("");
        assert_eq!(world.reload().2, Effect::Ceiling(None), "a ceiling can go at the site, and nowhere else");
        assert_eq!(world.addresses(), ["203.0.113.10:443"]);
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
        assert_eq!((rows.as_array().map(Vec::len), &rows[0]["code"]), (Some(8), &json!("reload_refused")));
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
