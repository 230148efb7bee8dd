//! Figures of many times.

use std::fmt;
use std::time::Duration;

/// Times, to be shown in milliseconds.
pub(crate) struct Millis(Vec<Duration>);

impl Millis {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The smallest that so many of a hundred do not exceed.
    fn percentile(&self, percent: usize) -> f64 {
        let at = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = [50, 99, 100].map(|percent| self.percentile(percent));
        write!(f, "p50 {p50:.1}, p99 {p99:.1}, max {max:.1} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_times_that_there_were() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(Millis::of(times).to_string(), "p50 100.0, p99 198.0, max 200.0 ms");
        assert_eq!(Millis::of(vec![Duration::from_millis(7)]).to_string(), "p50 7.0, p99 7.0, max 7.0 ms");
    }
}
