//! A token bucket.

use std::time::Duration;

use ringfort_types::BootInstant;

/// Grants `rate` things per second and at most `burst` at once.
#[derive(Debug)]
pub(crate) struct Budget {
    interval: Duration,
    burst: u32,
    left: u32,
    counted: BootInstant,
}

impl Budget {
    /// A full bucket at `now`. `rate` is per second and not 0.
    pub(crate) fn new(rate: u32, burst: u32, now: BootInstant) -> Self {
        Self { interval: Duration::from_secs(1) / rate, burst, left: burst, counted: now }
    }

    /// Takes one if there is one.
    pub(crate) fn take(&mut self, now: BootInstant) -> bool {
        let grown = now.saturating_since(self.counted).as_nanos() / self.interval.as_nanos();
        match u32::try_from(grown) {
            Ok(grown) if grown < self.burst => {
                self.left = self.left.saturating_add(grown).min(self.burst);
                self.counted = self.counted + self.interval * grown;
            }
            _ => (self.left, self.counted) = (self.burst, now),
        }
        let granted = self.left > 0;
        self.left -= u32::from(granted);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_the_burst_and_then_the_rate() {
        let start = BootInstant::from_nanos(7);
        let mut budget = Budget::new(1_000, 10, start);
        let taken = |budget: &mut Budget, now| (0..100).filter(|_| budget.take(now)).count();
        assert_eq!(taken(&mut budget, start), 10);
        assert_eq!(taken(&mut budget, start + Duration::from_micros(500)), 0);
        assert_eq!(taken(&mut budget, start + Duration::from_millis(3)), 3);
        assert_eq!(taken(&mut budget, start + Duration::from_secs(3_600)), 10);
        assert_eq!(taken(&mut budget, BootInstant::FAR_FUTURE), 10);
    }
}
