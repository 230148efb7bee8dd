//! One identity in two places: the key of a Gateway in two machines, a session at two Gateways of a site.
//!
//! Neither is refused, since an address may change and a client may move. Both are flagged: counted, logged, and written down for
//! whoever reads the audit log. What is seen here are the Gateways whose streams are open at this Controller.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringfort_enrol::wall_clock;
use ringfort_proto::v1::LiveSession;
use ringfort_types::UnixSeconds;

use super::caller::Caller;
use super::{Shell, counted};
use crate::core::Event;

/// A Gateway's event is written this often at most: two machines that take each other's place do so many times a second.
const WRITTEN_EVERY: Duration = Duration::from_secs(60);
/// How long a session may be live at two Gateways of a site: a client that moves makes the new tunnel first.
const SESSIONS_OVERLAP_MAX: Duration = Duration::from_secs(30);
/// A Gateway that has missed three reports says nothing about now.
const REPORT_AGE_MAX: Duration = Duration::from_secs(15);

/// When something was flagged, for the audit log's `outcome`: it was let be.
const FLAGGED: &str = "flagged";

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Duplicates(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    machines: Machines,
    sessions: Sessions,
}

/// Where a Gateway's streams came from when one took the place of another that was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TakenOver {
    /// When that was last.
    pub(crate) at: UnixSeconds,
    /// The older stream's address, and the newer one's.
    pub(crate) from: [IpAddr; 2],
}

impl Duplicates {
    /// When a Gateway's stream was last taken over from another address, since our start.
    pub(crate) fn of(&self, gateway: &str) -> Option<TakenOver> {
        self.lock().machines.0.get(gateway).map(|(taken, _)| *taken)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream of a Gateway has taken the place of one that was open and came from `before`.
pub(crate) async fn note_stream(shell: &Shell, caller: &Caller, gateway: &str, before: IpAddr) {
    let from = [before, caller.address().ip().to_canonical()];
    if from[0] == from[1] {
        return;
    }
    shell.counters.count(counted::GATEWAY_DUPLICATES);
    let taken = TakenOver { at: wall_clock(), from };
    if !shell.duplicates.lock().machines.note(gateway, taken, Instant::now()) {
        return;
    }
    let detail = format!("streams from {} and {} at once: its key may be in two machines", from[0], from[1]);
    let event = Event {
        actor: &caller.actor(),
        action: "duplicate-gateway",
        target: gateway,
        outcome: FLAGGED,
        detail: &detail,
    };
    let event = shell.core.audit(event, wall_clock()).await;
    tracing::warn!(gateway, event, older = %from[0], newer = %from[1], "a Gateway's stream was taken over from another address");
}

/// A Gateway has reported which sessions are live there.
pub(crate) async fn note_sessions(shell: &Shell, caller: &Caller, gateway: &str, live: &[LiveSession]) {
    let Some(site) = shell.hub.site(gateway) else { return };
    let names = live.iter().map(|live| live.dn.as_str());
    let found = shell.duplicates.lock().sessions.note(&site, gateway, names, Instant::now());
    for Twice { dn, other } in found {
        shell.counters.count(counted::SESSION_DUPLICATES);
        if !shell.noise.take(caller, Instant::now()) {
            shell.counters.count(counted::UNWRITTEN);
            continue;
        }
        let detail = format!("live at the Gateways {other} and {gateway} for more than {SESSIONS_OVERLAP_MAX:?}");
        let actor = caller.actor();
        let event = Event { actor: &actor, action: "duplicate-session", target: dn, outcome: FLAGGED, detail: &detail };
        let event = shell.core.audit(event, wall_clock()).await;
        tracing::warn!(
            session = super::short(dn),
            event,
            gateway,
            other,
            "a session is live at two Gateways of a site"
        );
    }
}

/// Gateways whose streams were taken over, by id: the last time, and when one was written down.
#[derive(Debug, Default)]
struct Machines(BTreeMap<String, (TakenOver, Instant)>);

impl Machines {
    /// Takes one more; whether it is to be written down.
    fn note(&mut self, gateway: &str, taken: TakenOver, now: Instant) -> bool {
        match self.0.get_mut(gateway) {
            Some((last, written)) => {
                *last = taken;
                let is_due = now.saturating_duration_since(*written) >= WRITTEN_EVERY;
                if is_due {
                    *written = now;
                }
                is_due
            }
            None => {
                self.0.insert(gateway.into(), (taken, now));
                true
            }
        }
    }
}

/// Live sessions by site and Gateway. Of their names a hash under a key of this process is kept: a report names thousands.
#[derive(Debug, Default)]
struct Sessions {
    sites: BTreeMap<String, BTreeMap<String, Reported>>,
    key: RandomState,
}

/// What a Gateway reported last.
#[derive(Debug)]
struct Reported {
    at: Instant,
    live: BTreeMap<u64, Live>,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    since: Instant,
    is_flagged: bool,
}

/// A session that was live at another Gateway as well for too long.
#[derive(Debug, PartialEq, Eq)]
struct Twice<'a> {
    dn: &'a str,
    other: String,
}

impl Sessions {
    /// Takes the names that `gateway` reports now; gives those that are news as duplicates.
    fn note<'a>(
        &mut self,
        site: &str,
        gateway: &str,
        names: impl Iterator<Item = &'a str>,
        now: Instant,
    ) -> Vec<Twice<'a>> {
        let others = self.sites.entry(site.into()).or_default();
        let before = others.remove(gateway).map(|reported| reported.live).unwrap_or_default();
        others.retain(|_, other| now.saturating_duration_since(other.at) <= REPORT_AGE_MAX);
        let (mut live, mut found) = (BTreeMap::new(), Vec::new());
        for dn in names {
            let name = self.key.hash_one(dn);
            let mut own = before.get(&name).copied().unwrap_or(Live { since: now, is_flagged: false });
            let mut twice = others.iter_mut().filter_map(|(id, other)| {
                let theirs = other.live.get_mut(&name)?;
                // Both were there from the later beginning to the earlier of the last two reports, which is theirs.
                let together = other.at.saturating_duration_since(theirs.since.max(own.since));
                (together > SESSIONS_OVERLAP_MAX).then_some((id, theirs))
            });
            match twice.next() {
                Some((id, theirs)) => {
                    if !own.is_flagged && !theirs.is_flagged {
                        found.push(Twice { dn, other: id.clone() });
                    }
                    (own.is_flagged, theirs.is_flagged) = (true, true);
                }
                None => own.is_flagged = false,
            }
            live.insert(name, own);
        }
        others.insert(gateway.into(), Reported { at: now, live });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reports of the Gateways a and b at one site, by seconds.
    struct World {
        begun: Instant,
        sessions: Sessions,
    }

    impl World {
        fn new() -> Self {
            Self { begun: Instant::now(), sessions: Sessions::default() }
        }

        fn note<'a>(&mut self, site: &str, gateway: &str, seconds: u64, names: &[&'a str]) -> Vec<Twice<'a>> {
            let now = self.begun + Duration::from_secs(seconds);
            self.sessions.note(site, gateway, names.iter().copied(), now)
        }
    }

    fn twice<'a>(dn: &'a str, other: &str) -> Vec<Twice<'a>> {
        vec![Twice { dn, other: other.into() }]
    }

    #[test]
    fn a_session_at_two_gateways_for_more_than_thirty_seconds_is_flagged_once() {
        let mut world = World::new();
        let mut found = Vec::new();
        for seconds in (0..=60).step_by(5) {
            found.extend(world.note("one", "a", seconds, &["alice", "bob"]).into_iter().map(|one| (seconds, one.dn)));
            found.extend(world.note("one", "b", seconds, &["alice"]).into_iter().map(|one| (seconds, one.dn)));
        }
        assert_eq!(found, [(35, "alice")]);
        // It ends at one of them, and begins there anew.
        for seconds in (65..=80).step_by(5) {
            assert!(world.note("one", "a", seconds, &["alice"]).is_empty());
            assert!(world.note("one", "b", seconds, &[]).is_empty());
        }
        for seconds in (85..=115).step_by(5) {
            assert!(world.note("one", "a", seconds, &["alice"]).is_empty());
            assert!(world.note("one", "b", seconds, &["alice"]).is_empty());
        }
        assert!(world.note("one", "a", 120, &["alice"]).is_empty(), "by b's last report they were together for 30 s");
        assert_eq!(world.note("one", "b", 120, &["alice"]), twice("alice", "a"));
    }

    #[test]
    fn moving_is_no_duplicate_and_neither_is_another_site() {
        let mut world = World::new();
        for seconds in (0..=120).step_by(5) {
            let (at_a, at_b): (&[&str], &[&str]) = match seconds {
                0..50 => (&["alice"], &[]),
                50..=80 => (&["alice"], &["alice"]),
                _ => (&[], &["alice"]),
            };
            assert!(world.note("one", "a", seconds, at_a).is_empty(), "{seconds}");
            assert!(world.note("one", "b", seconds, at_b).is_empty(), "{seconds}");
            assert!(world.note("two", "c", seconds, &["alice"]).is_empty(), "{seconds}");
        }
    }

    #[test]
    fn what_a_silent_gateway_said_does_not_count() {
        let mut world = World::new();
        for seconds in (0..=20).step_by(5) {
            world.note("one", "a", seconds, &["alice"]);
        }
        for seconds in (0..=120).step_by(5) {
            assert!(world.note("one", "b", seconds, &["alice"]).is_empty(), "{seconds}");
        }
    }

    #[test]
    fn each_gateway_is_written_down_once_a_minute() {
        let (mut machines, begun) = (Machines::default(), Instant::now());
        let taken =
            |seconds| TakenOver { at: UnixSeconds(seconds), from: [[127, 0, 0, 1].into(), [127, 0, 0, 2].into()] };
        let mut note = |gateway: &str, seconds| {
            let is_written = machines.note(gateway, taken(seconds), begun + Duration::from_secs(seconds));
            assert_eq!(machines.0[gateway].0, taken(seconds), "the last time is known all the same");
            is_written
        };
        assert!(note("a", 0));
        assert!(!note("a", 59));
        assert!(note("b", 59), "another one is not in the way");
        assert!(note("a", 60));
        assert!(!note("a", 119));
    }
}
