//! The time by which signed things are judged (X14): the Controllers', as far as it is known.
//!
//! One Controller whose clock is wrong must not stop a Gateway that could ask another one. So a time that agrees with nothing else is
//! not taken when it is told first: the Gateway goes to the next Controller. What that one says of the time decides. Where no other one
//! answers for some minutes, or the others say the same for so long, the time is taken: better nobody is admitted than somebody by a time
//! that no Controller tells. Whatever is taken, the time never goes back while this process runs, and nobody new is admitted by one
//! that is behind what an earlier process was told, so that none of this makes anything live longer.

use std::time::Duration;

use ringfort_admission::{Moment, NotAdmitting};
use ringfort_engine::Now;
use ringfort_types::{BootInstant, UnixSeconds};

/// How far two clocks may be apart, in seconds: the wall clock and a Controller's, or two Controllers'.
const SKEW_SECONDS_MAX: u64 = 30;

/// How long a time that agrees with nothing else is told before it is taken: a Controller that restarts meanwhile is back.
const DOUBTED_FOR: Duration = Duration::from_secs(300);

/// The Controllers' clock, carried on by `CLOCK_BOOTTIME` between what they tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    told: Option<Reading>,
    /// The last time that a Controller told an earlier process.
    kept: UnixSeconds,
    doubt: Option<Doubt>,
}

/// What a clock said.
#[derive(Clone, Copy, Debug)]
struct Reading {
    ms: u64,
    at: BootInstant,
}

/// A time that was told and not taken.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    told: Reading,
    /// When it was told first.
    since: BootInstant,
    /// The stream on which it was told has ended.
    is_over: bool,
}

/// What to think of a time that was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts.
    Taken,
    /// It does not, so many seconds from all other clocks as it is: another Controller is to be asked.
    Doubted(u64),
    /// It does not, and that was said already.
    Passed,
}

impl Reading {
    fn ms_at(&self, now: BootInstant) -> u64 {
        let passed = u64::try_from(now.saturating_since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.ms.saturating_add(passed)
    }
}

impl Clock {
    pub(super) const fn new(kept: UnixSeconds) -> Self {
        Self { told: None, kept, doubt: None }
    }

    /// A Controller has told its time, in milliseconds since 1970. It never goes back: a Controller that is behind another
    /// makes no expired token good again.
    pub(super) fn tell(&mut self, controller_ms: u64, now: Now) -> Verdict {
        let told = Reading { ms: controller_ms, at: now.boot };
        if self.is_odd(told, now) {
            let before = self.doubt.filter(|doubt| agree(doubt.told.ms_at(now.boot), controller_ms));
            let is_settled = |since| self.told.is_none() || now.boot.saturating_since(since) >= DOUBTED_FOR;
            match before {
                // Told again after other Controllers could have been heard, and none has said otherwise.
                Some(Doubt { is_over: true, since, .. }) if is_settled(since) => {}
                Some(Doubt { is_over: false, .. }) => return Verdict::Passed,
                before => {
                    let since = before.map_or(now.boot, |doubt| doubt.since);
                    self.doubt = Some(Doubt { told, since, is_over: false });
                    return Verdict::Doubted(self.now_ms(now).abs_diff(controller_ms) / 1_000);
                }
            }
        }
        self.doubt = None;
        let before = self.told.map_or(0, |told| told.ms_at(now.boot));
        self.told = Some(Reading { ms: controller_ms.max(before), ..told });
        Verdict::Taken
    }

    /// The stream has ended on which times were told.
    pub(super) fn stream_ended(&mut self) {
        if let Some(doubt) = &mut self.doubt {
            doubt.is_over = true;
        }
    }

    /// Whether a time that was told is none that any other clock shows, while those agree. One that is behind what was told before
    /// changes nothing anyway.
    fn is_odd(&self, told: Reading, now: Now) -> bool {
        let (own, held) = (own_ms(now), self.now_ms(now));
        let is_alone = agree(own, held) && !agree(own, told.ms) && !agree(held, told.ms);
        is_alone && (self.told.is_none() || told.ms > held)
    }

    fn now_ms(&self, now: Now) -> u64 {
        match self.told {
            Some(told) => told.ms_at(now.boot),
            None => own_ms(now).max(self.kept.0.saturating_mul(1_000)),
        }
    }

    pub(super) fn moment(&self, now: Now) -> Moment {
        Moment { boot: now.boot, wall: UnixSeconds(self.now_ms(now) / 1_000) }
    }

    /// Whether the clocks are such that new sessions may be admitted.
    pub(super) fn verdict(&self, now: Now) -> Result<(), NotAdmitting> {
        let own = UnixSeconds::from_epoch(now.unix);
        let others = match (self.told, self.doubt) {
            (None, None) => return if own < self.kept { Err(NotAdmitting::ClockBehind) } else { Ok(()) },
            // The only Controller that was heard of says otherwise.
            (None, Some(doubt)) => UnixSeconds(doubt.told.ms_at(now.boot) / 1_000),
            (Some(_), _) => self.moment(now).wall,
        };
        match own.0.abs_diff(others.0) {
            0..=SKEW_SECONDS_MAX if others < self.kept => Err(NotAdmitting::ClockBehind),
            0..=SKEW_SECONDS_MAX => Ok(()),
            seconds => Err(NotAdmitting::ClockSkew { seconds }),
        }
    }
}

fn own_ms(now: Now) -> u64 {
    u64::try_from(now.unix.as_millis()).unwrap_or(u64::MAX)
}

const fn agree(one_ms: u64, other_ms: u64) -> bool {
    one_ms.abs_diff(other_ms) <= SKEW_SECONDS_MAX * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot_seconds: u64, unix_seconds: u64) -> Now {
        let boot = BootInstant::from_nanos(boot_seconds * 1_000_000_000);
        Now { boot, unix: Duration::from_secs(unix_seconds) }
    }

    #[test]
    fn the_controllers_time_goes_on_by_the_boot_clock_alone() {
        let mut clock = Clock::new(UnixSeconds(0));
        assert_eq!(clock.tell(5_000_000, at(10, 5_000)), Verdict::Taken);
        // The wall clock steps by a day; signed times are judged as before, and nobody new is admitted.
        let later = at(20, 5_010 + 86_400);
        assert_eq!(clock.moment(later).wall, UnixSeconds(5_010));
        assert_eq!(clock.verdict(later), Err(NotAdmitting::ClockSkew { seconds: 86_400 }));
        assert_eq!(clock.verdict(at(20, 5_040)), Ok(()));
        assert_eq!(clock.tell(1_000, at(30, 5_020)), Verdict::Taken);
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

    /// A clock to which a Controller has told the right time, which is 4,990 s ahead of the boot clock.
    fn told() -> Clock {
        let mut clock = Clock::new(UnixSeconds(0));
        assert_eq!(clock.tell(5_000_000, at(10, 5_000)), Verdict::Taken);
        clock
    }

    // Covers: X14 allow
    #[test]
    fn one_fast_controller_among_others_stops_nothing() {
        let mut clock = told();
        let hour = 3_600_000;
        assert_eq!(clock.tell(5_020_000 + hour, at(30, 5_020)), Verdict::Doubted(3_600));
        assert_eq!(clock.tell(5_021_000 + hour, at(31, 5_021)), Verdict::Passed, "it is said once");
        assert_eq!((clock.moment(at(31, 5_021)).wall, clock.verdict(at(31, 5_021))), (UnixSeconds(5_021), Ok(())));
        clock.stream_ended();
        // Another Controller tells what was known.
        assert_eq!(clock.tell(5_032_000, at(40, 5_030)), Verdict::Taken);
        assert_eq!(clock.moment(at(40, 5_030)).wall, UnixSeconds(5_032));
        // Whenever the first one is heard again it is left again.
        assert_eq!(clock.tell(5_040_000 + hour, at(50, 5_040)), Verdict::Doubted(3_598));
        assert_eq!(clock.verdict(at(50, 5_040)), Ok(()));
        // Half a minute is no matter of doubt.
        let mut clock = told();
        assert_eq!(clock.tell(5_050_000, at(30, 5_020)), Verdict::Taken);
        assert_eq!(clock.moment(at(30, 5_020)).wall, UnixSeconds(5_050));
    }

    // Covers: X14 refuse
    #[test]
    fn a_time_that_nobody_contradicts_is_taken_and_never_turned_back() {
        let hour = 3_600_000;
        // The only Controller, or another one, says the same again.
        let mut clock = told();
        assert_eq!(clock.tell(5_020_000 + hour, at(30, 5_020)), Verdict::Doubted(3_600));
        clock.stream_ended();
        // Another one may only be away for a moment.
        assert_eq!(clock.tell(5_035_000 + hour, at(40, 5_030)), Verdict::Doubted(3_605));
        assert_eq!(clock.verdict(at(40, 5_030)), Ok(()));
        clock.stream_ended();
        assert_eq!(clock.tell(5_335_000 + hour, at(340, 5_330)), Verdict::Taken);
        assert_eq!(clock.moment(at(340, 5_330)).wall, UnixSeconds(5_335 + 3_600), "tokens end by it");
        assert_eq!(clock.verdict(at(340, 5_330)), Err(NotAdmitting::ClockSkew { seconds: 3_605 }));
        assert_eq!(clock.tell(5_340_000, at(350, 5_340)), Verdict::Taken);
        assert_eq!(clock.moment(at(350, 5_340)).wall, UnixSeconds(5_345 + 3_600));
        // A third time is another doubt.
        let mut clock = told();
        assert_eq!(clock.tell(5_020_000 + hour, at(30, 5_020)), Verdict::Doubted(3_600));
        clock.stream_ended();
        assert_eq!(clock.tell(5_030_000 + 2 * hour, at(40, 5_030)), Verdict::Doubted(7_200));
        // Where our own wall clock is off, a Controller is right.
        let mut clock = told();
        assert_eq!(clock.tell(5_020_000 + hour, at(30, 6_000)), Verdict::Taken);
        let mut clock = told();
        assert_eq!(clock.tell(5_100_000, at(30, 5_100)), Verdict::Taken, "it agrees with the wall clock");
    }

    // Covers: X14 refuse
    #[test]
    fn nobody_is_admitted_while_the_first_time_that_is_told_is_doubted() {
        for off in [1_400_000, 8_600_000] {
            let mut clock = Clock::new(UnixSeconds(4_000));
            assert_eq!(clock.tell(off, at(10, 5_000)), Verdict::Doubted(3_600));
            assert_eq!(clock.verdict(at(10, 5_000)), Err(NotAdmitting::ClockSkew { seconds: 3_600 }));
            clock.stream_ended();
            let mut other = clock;
            assert_eq!(other.tell(5_010_000, at(20, 5_010)), Verdict::Taken);
            assert_eq!((other.moment(at(20, 5_010)).wall, other.verdict(at(20, 5_010))), (UnixSeconds(5_010), Ok(())));
            // There is no other: it is our clock that is off, as far as anybody says.
            assert_eq!(clock.tell(off + 10_000, at(20, 5_010)), Verdict::Taken);
            assert_eq!(clock.moment(at(20, 5_010)).wall, UnixSeconds(off / 1_000 + 10));
            assert_eq!(clock.verdict(at(20, 5_010)), Err(NotAdmitting::ClockSkew { seconds: 3_600 }));
        }
        // A time behind the one that an earlier process was told admits nobody, whoever agrees on it.
        let mut behind = Clock::new(UnixSeconds(6_000));
        assert_eq!(behind.tell(5_000_000, at(10, 5_000)), Verdict::Taken);
        assert_eq!(behind.verdict(at(10, 5_000)), Err(NotAdmitting::ClockBehind));
        assert_eq!(behind.verdict(at(1_010, 6_000)), Ok(()));
        // Behind what was kept, our own clock has nothing to say.
        let mut clock = Clock::new(UnixSeconds(9_000));
        assert_eq!(clock.tell(9_500_000, at(10, 5_000)), Verdict::Taken);
    }
}
