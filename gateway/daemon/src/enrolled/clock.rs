//! The time by which signed things are judged (X14): the Controller's, as far as it is known.

use ringfort_admission::{Moment, NotAdmitting};
use ringfort_engine::Now;
use ringfort_types::{BootInstant, UnixSeconds};

/// How far the wall clock may be from the Controller's, in seconds.
const SKEW_SECONDS_MAX: u64 = 30;

/// The Controller's clock, carried on by `CLOCK_BOOTTIME` between what it tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    told: Option<(u64, BootInstant)>,
    /// The last time that a Controller told an earlier process.
    kept: UnixSeconds,
}

impl Clock {
    pub(super) const fn new(kept: UnixSeconds) -> Self {
        Self { told: None, kept }
    }

    /// A Controller has told its time, in milliseconds since 1970. It never goes back: a Controller that is behind another
    /// makes no expired token good again.
    pub(super) fn tell(&mut self, controller_ms: u64, now: Now) {
        let before = self.told.map_or(0, |(ms, at)| ms.saturating_add(millis_since(now.boot, at)));
        self.told = Some((controller_ms.max(before), now.boot));
    }

    pub(super) fn moment(&self, now: Now) -> Moment {
        let wall = match self.told {
            Some((ms, at)) => UnixSeconds(ms.saturating_add(millis_since(now.boot, at)) / 1_000),
            None => UnixSeconds::from_epoch(now.unix).max(self.kept),
        };
        Moment { boot: now.boot, wall }
    }

    /// Whether the clocks are such that new sessions may be admitted.
    pub(super) fn verdict(&self, now: Now) -> Result<(), NotAdmitting> {
        let own = UnixSeconds::from_epoch(now.unix);
        let wall = self.moment(now).wall;
        if self.told.is_none() {
            return if own < self.kept { Err(NotAdmitting::ClockBehind) } else { Ok(()) };
        }
        match own.0.abs_diff(wall.0) {
            0..=SKEW_SECONDS_MAX => Ok(()),
            seconds => Err(NotAdmitting::ClockSkew { seconds }),
        }
    }
}

fn millis_since(now: BootInstant, at: BootInstant) -> u64 {
    u64::try_from(now.saturating_since(at).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(boot_seconds: u64, unix_seconds: u64) -> Now {
        let boot = BootInstant::from_nanos(boot_seconds * 1_000_000_000);
        Now { boot, unix: Duration::from_secs(unix_seconds) }
    }

    #[test]
    fn the_controllers_time_goes_on_by_the_boot_clock_alone() {
        let mut clock = Clock::new(UnixSeconds(0));
        clock.tell(5_000_000, at(10, 5_000));
        // The wall clock steps by a day; signed times are judged as before, and nobody new is admitted.
        let later = at(20, 5_010 + 86_400);
        assert_eq!(clock.moment(later).wall, UnixSeconds(5_010));
        assert_eq!(clock.verdict(later), Err(NotAdmitting::ClockSkew { seconds: 86_400 }));
        assert_eq!(clock.verdict(at(20, 5_040)), Ok(()));
        clock.tell(1_000, at(30, 5_020));
        assert_eq!(
            clock.moment(at(30, 5_020)).wall,
            UnixSeconds(5_020),
            "a Controller that is behind turns nothing back"
        );
    }

    #[test]
    fn without_a_controller_the_kept_time_is_the_least() {
        let clock = Clock::new(UnixSeconds(5_000));
        assert_eq!(clock.moment(at(1, 4_000)).wall, UnixSeconds(5_000));
        assert_eq!(clock.verdict(at(1, 4_000)), Err(NotAdmitting::ClockBehind));
        assert_eq!(clock.verdict(at(1, 6_000)), Ok(()));
    }
}
