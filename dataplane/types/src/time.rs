//! Time as the data plane sees it.

use std::ops::Add;
use std::time::Duration;

/// A point on `CLOCK_BOOTTIME`, in nanoseconds since boot.
///
/// Rule deadlines are fixed on this clock: it goes on while the machine sleeps and no step of the wall
/// clock moves it. Machines never read it themselves; their shells pass it in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootInstant {
    nanos: u64,
}

impl BootInstant {
    /// A point later than every other: the deadline of what does not expire by itself.
    pub const FAR_FUTURE: Self = Self { nanos: u64::MAX };

    /// The point `nanos` nanoseconds after boot.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self { nanos }
    }

    /// Nanoseconds since boot.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.nanos
    }

    /// Time from `earlier` to this point, zero if `earlier` is the later one.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }
}

impl Add<Duration> for BootInstant {
    type Output = Self;

    /// Saturates at [`BootInstant::FAR_FUTURE`].
    fn add(self, rhs: Duration) -> Self {
        let nanos = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Self { nanos: self.nanos.saturating_add(nanos) }
    }
}

/// Seconds since 1970 (RFC 7519 NumericDate), as signed statements say when they begin and end.
///
/// Only for such statements and for comparing with them: what passes in this process is timed by [`BootInstant`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub u64);

impl UnixSeconds {
    /// The whole seconds in a time since 1970.
    #[must_use]
    pub const fn from_epoch(since: Duration) -> Self {
        Self(since.as_secs())
    }

    /// Time since 1970.
    #[must_use]
    pub const fn since_epoch(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// Time from `earlier` to this point, zero if `earlier` is the later one.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for UnixSeconds {
    type Output = Self;

    /// Whole seconds only. Saturates.
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(rhs.as_secs()))
    }
}

impl std::fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_wraps() {
        let early = BootInstant::from_nanos(5);
        let late = early + Duration::from_secs(1);
        assert_eq!(late.saturating_since(early), Duration::from_secs(1));
        assert_eq!(early.saturating_since(late), Duration::ZERO);
        assert_eq!(late + Duration::MAX, BootInstant::FAR_FUTURE);
    }
}
