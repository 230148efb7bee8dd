//! When a host registers itself, as a machine without I/O (W4, W10).
//!
//! ```text
//!            due                      done, or failed
//!  Waiting ───────▶ Registering ──────────────────────▶ Waiting for the interval,
//!     ▲  due at once: start, network change, wake-up        or for less where something changed meanwhile
//!     └─────────────────────────────────────────────────────┘
//! ```
//!
//! Inputs are `handle_*`, [`Registrar::poll_register`] says when to begin, [`Registrar::poll_timeout`] when to ask again. A failure
//! changes nothing about when the next attempt is made, and nothing ends the attempts.

use std::time::Duration;

use ringfort_types::BootInstant;

/// Changes that come in one go are one change.
const SETTLES_IN: Duration = Duration::from_millis(250);
/// From the beginning of one registration to that of the next at least, however much changes: a broken cable must not become a flood.
const APART: Duration = Duration::from_secs(1);
/// What two readings of the clocks may differ by without the machine having slept.
const SLEEP_MIN: Duration = Duration::from_millis(500);

/// When a host registers itself.
#[derive(Debug)]
pub(super) struct Registrar {
    interval: Duration,
    state: State,
    begun: Option<BootInstant>,
    asleep: Option<Duration>,
}

#[derive(Debug)]
enum State {
    Waiting {
        due: BootInstant,
    },
    /// A registration is under way; something may have changed since it began.
    Registering {
        changed: Option<BootInstant>,
    },
}

impl Registrar {
    /// Registers every `interval`, beginning at once.
    pub(super) const fn new(interval: Duration, now: BootInstant) -> Self {
        Self { interval, state: State::Waiting { due: now }, begun: None, asleep: None }
    }

    /// The machine's addresses or routes have changed.
    pub(super) fn handle_network_changed(&mut self, now: BootInstant) {
        self.due_at(now + SETTLES_IN);
    }

    /// The clocks were read: `asleep` is how long the machine has been suspended since it was started (CLOCK_BOOTTIME less
    /// CLOCK_MONOTONIC, time_namespaces(7)). Where that has grown, it was just woken up. Says whether it was.
    pub(super) fn handle_clocks(&mut self, asleep: Duration, now: BootInstant) -> bool {
        let before = self.asleep.replace(asleep);
        let was_asleep = before.is_some_and(|before| asleep.saturating_sub(before) >= SLEEP_MIN);
        if was_asleep {
            self.due_at(now + SETTLES_IN);
        }
        was_asleep
    }

    /// The registration under way came to its end, one way or the other.
    pub(super) fn handle_done(&mut self, now: BootInstant) {
        if let State::Registering { changed } = self.state {
            let next = self.begun.unwrap_or(now) + self.interval;
            self.state = State::Waiting { due: changed.map_or(next, |changed| changed.min(next)).max(now) };
        }
    }

    /// Whether to register now. Whoever is told so begins, and says so by [`Registrar::handle_done`] when it is over.
    pub(super) fn poll_register(&mut self, now: BootInstant) -> bool {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return false;
        }
        self.state = State::Registering { changed: None };
        self.begun = Some(now);
        true
    }

    /// When [`Registrar::poll_register`] wants to be asked; not while a registration is under way.
    pub(super) fn poll_timeout(&self) -> Option<BootInstant> {
        match self.state {
            State::Waiting { due } => Some(self.begun.map_or(due, |begun| due.max(begun + APART))),
            State::Registering { .. } => None,
        }
    }

    fn due_at(&mut self, at: BootInstant) {
        match &mut self.state {
            State::Waiting { due } => *due = at.min(*due),
            // What it says may be of before.
            State::Registering { changed } => *changed = Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);

    fn at(ms: u64) -> BootInstant {
        BootInstant::from_nanos(1_000_000_000_000 + ms * 1_000_000)
    }

    /// One that has registered at 0.
    fn registered() -> Registrar {
        let mut registrar = Registrar::new(INTERVAL, at(0));
        assert!(registrar.poll_register(at(0)), "at once");
        assert_eq!(registrar.poll_timeout(), None);
        assert!(!registrar.poll_register(at(1)), "one at a time");
        registrar.handle_done(at(20));
        registrar
    }

    // Covers: W4 allow
    // Covers: W4 refuse
    #[test]
    fn it_registers_at_the_interval_and_not_before() {
        let mut registrar = registered();
        assert_eq!(registrar.poll_timeout(), Some(at(60_000)));
        assert!(!registrar.poll_register(at(59_999)));
        assert!(registrar.poll_register(at(60_000)));
        registrar.handle_done(at(60_010));
        assert_eq!(registrar.poll_timeout(), Some(at(120_000)), "what a registration takes does not add up");
    }

    // Covers: W4 allow
    #[test]
    fn changes_in_one_go_are_one_registration() {
        let mut registrar = registered();
        for ms in [10_000, 10_001, 10_100] {
            registrar.handle_network_changed(at(ms));
        }
        assert!(!registrar.poll_register(at(10_249)));
        assert!(registrar.poll_register(at(10_250)));
        registrar.handle_done(at(10_260));
        assert_eq!(registrar.poll_timeout(), Some(at(70_250)));
    }

    #[test]
    fn a_change_during_a_registration_is_registered_as_well() {
        let mut registrar = registered();
        assert!(registrar.poll_register(at(60_000)));
        registrar.handle_network_changed(at(60_005));
        assert_eq!(registrar.poll_timeout(), None);
        registrar.handle_done(at(60_020));
        assert!(!registrar.poll_register(at(60_999)), "no flood");
        assert!(registrar.poll_register(at(61_000)));
    }

    #[test]
    fn a_change_that_came_long_ago_is_due_at_once() {
        let mut registrar = registered();
        assert!(registrar.poll_register(at(60_000)));
        registrar.handle_network_changed(at(60_005));
        registrar.handle_done(at(90_000));
        assert!(registrar.poll_register(at(90_000)));
    }

    // Covers: W4 allow
    // Covers: W4 refuse
    #[test]
    fn a_wake_up_is_a_jump_between_the_clocks() {
        let mut registrar = registered();
        let hour = Duration::from_secs(3_600);
        assert!(!registrar.handle_clocks(hour, at(5_000)), "what was before the start does not count");
        assert!(
            !registrar.handle_clocks(hour + Duration::from_millis(3), at(10_000)),
            "readings are not of one moment"
        );
        assert!(!registrar.handle_clocks(Duration::ZERO, at(15_000)), "nor does it sleep backwards");
        assert_eq!(registrar.poll_timeout(), Some(at(60_000)));
        let mut registrar = registered();
        assert!(!registrar.handle_clocks(hour, at(5_000)));
        assert!(registrar.handle_clocks(hour + Duration::from_secs(2), at(20_000)));
        registrar.handle_network_changed(at(20_100));
        assert!(registrar.poll_register(at(20_250)), "the wake-up and the network that comes with it are one");
        registrar.handle_done(at(20_300));
        assert!(!registrar.handle_clocks(hour + Duration::from_secs(2), at(25_000)), "once");
        assert_eq!(registrar.poll_timeout(), Some(at(80_250)));
    }

    #[test]
    fn a_long_sleep_makes_the_interval_due_as_well() {
        let mut registrar = registered();
        assert!(registrar.poll_register(at(3_600_000)));
        registrar.handle_done(at(3_600_010));
        assert_eq!(registrar.poll_timeout(), Some(at(3_660_000)));
    }

    // Covers: W10 allow
    #[test]
    fn however_long_an_attempt_takes_the_next_one_comes() {
        let mut registrar = registered();
        let mut now = 60_000;
        for _ in 0..10_000 {
            assert!(registrar.poll_register(at(now)));
            registrar.handle_done(at(now + 5_000));
            now += 60_000;
        }
        // Even one that took longer than the interval.
        assert!(registrar.poll_register(at(now)));
        registrar.handle_done(at(now + 70_000));
        assert!(registrar.poll_register(at(now + 70_000)));
    }
}
