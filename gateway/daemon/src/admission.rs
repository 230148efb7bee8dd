//! Who has which session and which rules: a machine without I/O that turns the workers' events into commands.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use ringfort_engine::gateway::{Command, Event};
use ringfort_packet::flow::FlowKey;
use ringfort_rules::{InnerAddresses, RuleSet};
use ringfort_types::{BootInstant, RuleId, SessionId};

/// Different denials remembered for whoever asks; the oldest is forgotten first.
const DENIALS_MAX: usize = 256;

/// A user as the file has them, with their rules compiled.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) name: Arc<str>,
    pub(crate) inner: InnerAddresses,
    pub(crate) rules: Arc<RuleSet>,
}

/// A live session.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) user: User,
    pub(crate) device: Box<str>,
    pub(crate) outer: SocketAddr,
}

/// What was denied to whom, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) user: Arc<str>,
    pub(crate) flow: FlowKey,
    pub(crate) rule: Option<RuleId>,
    pub(crate) count: u64,
}

/// The directory of users and sessions. `handle_event` takes what a worker tells; `poll_command` gives what every worker
/// is to be told.
#[derive(Debug)]
pub(crate) struct Admission {
    users: HashMap<Box<str>, User>,
    live: BTreeMap<SessionId, Live>,
    by_device: HashMap<Box<str>, SessionId>,
    denials: VecDeque<Denial>,
    commands: VecDeque<Command>,
}

impl Admission {
    /// `users` by the id of their device.
    pub(crate) fn new(users: HashMap<Box<str>, User>) -> Self {
        Self {
            users,
            live: BTreeMap::new(),
            by_device: HashMap::new(),
            denials: VecDeque::new(),
            commands: VecDeque::new(),
        }
    }

    pub(crate) fn handle_event(&mut self, event: &Event) {
        match event {
            Event::Authenticated { session, peer, outer, .. } => self.admit(*session, peer.id(), *outer),
            Event::Denied { session, flow, rule } => self.denied(*session, *flow, *rule),
            Event::Ended { session, .. } => self.remove(*session),
            Event::RulesApplied { .. } | Event::HandshakeFailed { .. } => {}
        }
    }

    pub(crate) fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = (SessionId, &Live)> {
        self.live.iter().map(|(session, live)| (*session, live))
    }

    pub(crate) fn session(&self, session: SessionId) -> Option<&Live> {
        self.live.get(&session)
    }

    pub(crate) fn denials(&self) -> impl Iterator<Item = &Denial> {
        self.denials.iter()
    }

    /// The newest session of a device replaces the older: a device is in one place.
    fn admit(&mut self, session: SessionId, device: &str, outer: SocketAddr) {
        let Some(user) = self.users.get(device).cloned() else {
            return self.commands.push_back(Command::Remove { session });
        };
        if let Some(old) = self.by_device.insert(device.into(), session) {
            self.live.remove(&old);
            self.commands.push_back(Command::Remove { session: old });
        }
        self.commands.push_back(Command::Install {
            session,
            outer,
            inner: user.inner,
            rules: Arc::clone(&user.rules),
            not_after: BootInstant::FAR_FUTURE,
        });
        self.live.insert(session, Live { user, device: device.into(), outer });
    }

    fn remove(&mut self, session: SessionId) {
        if let Some(live) = self.live.remove(&session) {
            self.by_device.remove(&live.device);
            // The owner has ended it; the other workers forget where it was.
            self.commands.push_back(Command::Remove { session });
        }
    }

    fn denied(&mut self, session: SessionId, flow: FlowKey, rule: Option<RuleId>) {
        let Some(live) = self.live.get(&session) else { return };
        // The client's port changes with every attempt and says nothing; all attempts are one denial.
        let same = |denial: &&mut Denial| {
            denial.user == live.user.name
                && denial.rule == rule
                && denial.flow.destination() == flow.destination()
                && denial.flow.destination_port() == flow.destination_port()
                && denial.flow.protocol() == flow.protocol()
        };
        if let Some(denial) = self.denials.iter_mut().find(same) {
            denial.count += 1;
            return;
        }
        if self.denials.len() == DENIALS_MAX {
            self.denials.pop_front();
        }
        self.denials.push_back(Denial { user: Arc::clone(&live.user.name), flow, rule, count: 1 });
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ringfort_packet::flow::protocol::TCP;
    use ringfort_types::WorkerIndex;

    use super::*;

    fn admission() -> Admission {
        let rules = Arc::new(RuleSet::compile(&[], &[]).unwrap());
        let inner = InnerAddresses { ipv4: Some([10, 97, 0, 10].into()), ipv6: None };
        let user = User { name: "alice".into(), inner, rules };
        Admission::new(HashMap::from([("laptop".into(), user)]))
    }

    fn session(worker: u8, count: u64) -> SessionId {
        SessionId::new(WorkerIndex(worker), count)
    }

    fn outer() -> SocketAddr {
        "198.51.100.2:5000".parse().unwrap()
    }

    fn commands(admission: &mut Admission) -> Vec<(&'static str, SessionId)> {
        std::iter::from_fn(|| admission.poll_command())
            .map(|command| match command {
                Command::Install { session, .. } => ("install", session),
                Command::Remove { session } => ("remove", session),
            })
            .collect()
    }

    // Covers: A12 allow
    #[test]
    fn a_known_device_gets_its_users_rules() {
        let mut admission = admission();
        admission.admit(session(0, 1), "laptop", outer());
        assert_eq!(commands(&mut admission), [("install", session(0, 1))]);
        assert_eq!(admission.session(session(0, 1)).unwrap().user.name.as_ref(), "alice");
    }

    // Covers: A12 refuse
    #[test]
    fn an_unknown_device_gets_nothing() {
        let mut admission = admission();
        admission.admit(session(0, 1), "desktop", outer());
        assert_eq!(commands(&mut admission), [("remove", session(0, 1))]);
        assert_eq!(admission.live().count(), 0);
    }

    #[test]
    fn the_newest_session_of_a_device_replaces_the_older() {
        let mut admission = admission();
        admission.admit(session(0, 1), "laptop", outer());
        admission.admit(session(1, 1), "laptop", outer());
        let (old, new) = (session(0, 1), session(1, 1));
        assert_eq!(commands(&mut admission), [("install", old), ("remove", old), ("install", new)]);
        admission.handle_event(&Event::Ended { session: old, reason: ringfort_engine::gateway::EndReason::Removed });
        assert_eq!(commands(&mut admission), [], "the old one's end touches nothing of the new one");
        assert!(admission.session(new).is_some());
    }

    #[test]
    fn denials_are_gathered_whatever_port_they_come_from() {
        let mut admission = admission();
        admission.admit(session(0, 1), "laptop", outer());
        let flow = |port| {
            let (from, to): (IpAddr, IpAddr) = ([10, 97, 0, 10].into(), [10, 98, 0, 20].into());
            FlowKey::new(from, to, TCP, port, 80).unwrap()
        };
        for port in [4_000, 4_001, 4_002] {
            admission.handle_event(&Event::Denied { session: session(0, 1), flow: flow(port), rule: None });
        }
        admission.handle_event(&Event::Denied { session: session(0, 1), flow: flow(4_000), rule: Some(RuleId(3)) });
        admission.handle_event(&Event::Denied { session: session(0, 9), flow: flow(4_000), rule: None });
        assert_eq!(admission.denials().map(|denial| denial.count).collect::<Vec<_>>(), [3, 1]);
    }
}
