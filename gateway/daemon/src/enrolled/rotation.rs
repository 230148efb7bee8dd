//! When a Gateway takes a new certificate, and when it shows it.
//!
//! Clients take only certificates whose digests their connect tokens name (C12). So a new one is fetched early, kept beside the old
//! one, and shown once every connect token that does not name it is over.

use std::time::Duration;

use ringfort_enrol::tls;
use ringfort_types::UnixSeconds;

/// How long a connect token lives.
const CONNECT_TOKEN_LIFE: Duration = Duration::from_secs(600);

/// From when to when a certificate is valid.
pub(super) type Validity = (UnixSeconds, UnixSeconds);

/// What is to be done about our certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing yet.
    Wait,
    /// Ask for a new one.
    Fetch,
    /// Show the one that was fetched.
    Use,
}

/// The step at `now`. `next` is the validity of the certificate that was fetched, and since when this process knows it.
pub(super) fn step(current: Validity, next: Option<(Validity, Duration)>, now: UnixSeconds) -> Step {
    let is_over = |(_, until): Validity| until <= now;
    let is_due = |validity| tls::is_renewal_due(validity, now);
    match next {
        // Of a Gateway that was off for long.
        Some((next, _)) if is_due(next) => Step::Fetch,
        // A certificate that is over serves nobody, one that is not yet named some.
        Some((_, known)) if known >= CONNECT_TOKEN_LIFE || is_over(current) => Step::Use,
        Some(_) => Step::Wait,
        None if is_due(current) => Step::Fetch,
        None => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURRENT: Validity = (UnixSeconds(1_000), UnixSeconds(4_000));
    const NEXT: Validity = (UnixSeconds(3_000), UnixSeconds(6_000));

    fn at(now: u64, next: Option<(Validity, u64)>) -> Step {
        let next = next.map(|(validity, seconds)| (validity, Duration::from_secs(seconds)));
        step(CURRENT, next, UnixSeconds(now))
    }

    #[test]
    fn a_new_certificate_is_fetched_early_and_shown_late() {
        assert_eq!(at(2_999, None), Step::Wait);
        assert_eq!(at(3_000, None), Step::Fetch);
        assert_eq!(at(3_001, Some((NEXT, 0))), Step::Wait);
        assert_eq!(at(3_599, Some((NEXT, 599))), Step::Wait);
        assert_eq!(at(3_600, Some((NEXT, 600))), Step::Use);
    }

    #[test]
    fn a_certificate_that_is_over_is_replaced_at_once() {
        assert_eq!(at(4_000, Some((NEXT, 0))), Step::Use);
        assert_eq!(at(4_001, None), Step::Fetch);
        assert_eq!(at(5_500, Some((NEXT, 700))), Step::Fetch, "the fetched one grew old as well");
    }
}
