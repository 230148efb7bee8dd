//! A time in the past, as people type it.

use ringfort_types::UnixSeconds;

/// Since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// So many seconds ago.
    Ago(u64),
    /// At this time.
    At(UnixSeconds),
}

impl Since {
    /// The time, seen from `now`.
    pub(crate) const fn before(self, now: UnixSeconds) -> UnixSeconds {
        match self {
            Self::Ago(seconds) => UnixSeconds(now.0.saturating_sub(seconds)),
            Self::At(at) => at,
        }
    }
}

/// `30m`, `24h`, `7d`, or seconds since 1970.
///
/// # Errors
/// What was expected.
pub(crate) fn parse(text: &str) -> Result<Since, String> {
    let form = || "expected 30m, 24h, 7d, or a number of seconds since 1970".to_owned();
    let unit = match text.chars().last() {
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => return text.parse().map(|at| Since::At(UnixSeconds(at))).map_err(|_| form()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| form())?;
    number.checked_mul(unit).map(Since::Ago).ok_or_else(form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_ago_or_since_1970() {
        assert_eq!(parse("30m"), Ok(Since::Ago(1_800)));
        assert_eq!(parse("7d").unwrap().before(UnixSeconds(700_000)), UnixSeconds(95_200));
        assert_eq!(parse("1764340000").unwrap().before(UnixSeconds(1)), UnixSeconds(1_764_340_000));
        assert_eq!(parse("100000d").unwrap().before(UnixSeconds(5)), UnixSeconds(0));
        for wrong in ["", "m", "-1h", "1w", "yesterday", "18446744073709551615d"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
