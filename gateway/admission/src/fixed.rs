//! The admission of `--static`: users, devices and rules from a file, and no tokens.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use ringfort_engine::gateway::{Command, Event};
use ringfort_rules::{InnerAddresses, RuleSet};
use ringfort_types::{BootInstant, SessionId};

use crate::denials::{Denial, Denials};

/// A user as the file has them, with their rules compiled.
#[derive(Clone, Debug)]
pub struct User {
    /// Their name.
    pub name: Arc<str>,
    /// Their addresses inside.
    pub inner: InnerAddresses,
    /// What they may do.
    pub rules: Arc<RuleSet>,
}

/// A live session.
#[derive(Clone, Debug)]
pub struct Live {
    /// Whose.
    pub user: User,
    /// Id of their device.
    pub device: Box<str>,
    /// Where its datagrams come from.
    pub outer: SocketAddr,
}

/// The directory of users and sessions. [`Admission::handle_event`] takes what a worker tells; [`Admission::poll_command`]
/// gives what every worker is to be told.
#[derive(Debug)]
pub struct Admission {
    users: BTreeMap<Box<str>, User>,
    live: BTreeMap<SessionId, Live>,
    by_device: BTreeMap<Box<str>, SessionId>,
    denials: Denials,
    commands: VecDeque<Command>,
}

impl Admission {
    /// `users` by the id of their device.
    #[must_use]
    pub fn new(users: BTreeMap<Box<str>, User>) -> Self {
        Self {
            users,
            live: BTreeMap::new(),
            by_device: BTreeMap::new(),
            denials: Denials::default(),
            commands: VecDeque::new(),
        }
    }

    /// Takes what a worker tells.
    pub fn handle_event(&mut self, event: &Event) {
        match event {
            Event::Authenticated { session, peer, outer, .. } => self.admit(*session, peer.id(), *outer),
            Event::Moved { session, outer } => {
                if let Some(live) = self.live.get_mut(session) {
                    live.outer = *outer;
                }
            }
            Event::Denied { session, flow, rule } => {
                if let Some(live) = self.live.get(session) {
                    self.denials.record(&live.user.name, *flow, *rule);
                }
            }
            Event::Ended { session, .. } => self.remove(*session),
            Event::RulesApplied { .. } | Event::HandshakeFailed { .. } => {}
        }
    }

    /// What every worker is to be told next.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// The live sessions.
    pub fn live(&self) -> impl Iterator<Item = (SessionId, &Live)> {
        self.live.iter().map(|(session, live)| (*session, live))
    }

    /// One of them.
    #[must_use]
    pub fn session(&self, session: SessionId) -> Option<&Live> {
        self.live.get(&session)
    }

    /// What was denied.
    pub fn denials(&self) -> impl Iterator<Item = &Denial> {
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
}

#[cfg(test)]
mod tests {
    use ringfort_types::WorkerIndex;

    use super::*;

    fn admission() -> Admission {
        let rules = Arc::new(RuleSet::compile(&[], &[]).unwrap());
        let inner = InnerAddresses { ipv4: Some([10, 97, 0, 10].into()), ipv6: None };
        let user = User { name: "alice".into(), inner, rules };
        Admission::new(BTreeMap::from([("laptop".into(), user)]))
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
                Command::Credentials(_) => panic!("a static Gateway has one certificate"),
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
}
