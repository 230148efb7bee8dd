//! Receipts as people read them (X6).

use std::fmt::Write;

use ringfort_proto::api::{Receipt, Receipts};
use ringfort_types::UnixSeconds;

/// Who has applied what was taken back, in how many milliseconds, and until when those that are silent go on.
pub(crate) fn text(receipts: &Receipts, now: UnixSeconds) -> String {
    let awaited = || receipts.gateways.iter().filter(|receipt| receipt.awaited);
    let done = awaited().filter(|receipt| receipt.done);
    let mut text = format!("{}/{} gateways", done.clone().count(), awaited().count());
    if let Some(longest) = done.clone().filter_map(|receipt| receipt.took_ms).max() {
        let _ = write!(text, " in {longest} ms");
    }
    for silent in awaited().filter(|receipt| !receipt.done) {
        let _ = write!(text, "; {}", silence(silent, now));
    }
    for receipt in done {
        let took = receipt.took_ms.map_or_else(|| "caught up later".to_owned(), |took| format!("{took} ms"));
        let _ = write!(text, "\n  {} ({}): {took}", receipt.name, receipt.site);
    }
    text
}

fn silence(receipt: &Receipt, now: UnixSeconds) -> String {
    match receipt.sessions_end.map(UnixSeconds) {
        None => format!("{} silent, it has no sessions of it", receipt.name),
        Some(end) if end <= now => format!("{} silent, its sessions ended at {}", receipt.name, clock(end, now)),
        Some(end) => format!("{} silent, its sessions end at {}", receipt.name, clock(end, now)),
    }
}

/// Coordinated universal time, with the date where it is another day's.
fn clock(at: UnixSeconds, now: UnixSeconds) -> String {
    const DAY: u64 = 86_400;
    let second = at.0 % DAY;
    let time = format!("{:02}:{:02}:{:02} UTC", second / 3_600, second / 60 % 60, second % 60);
    if at.0 / DAY == now.0 / DAY {
        return time;
    }
    let (year, month, day) = date(at.0 / DAY);
    format!("{year}-{month:02}-{day:02} {time}")
}

/// The date `days` after 1970-01-01, in the Gregorian calendar: 400 years have 146,097 days, and are counted from a March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let from_january = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(from_january <= 2), from_january, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(name: &str, done: bool, took_ms: Option<u64>, sessions_end: Option<u64>) -> Receipt {
        Receipt {
            id: name.into(),
            name: name.into(),
            site: "berlin".into(),
            applied: String::new(),
            done,
            awaited: true,
            took_ms,
            sessions_end,
            lease_until: 0,
        }
    }

    #[test]
    fn receipts_say_how_long_it_took_and_who_is_silent_until_when() {
        // 2026-03-01 12:00:00 UTC
        let now = UnixSeconds(1_772_366_400);
        let mut receipts = Receipts {
            serial: "1/2".into(),
            gateways: vec![
                receipt("gw-1", true, Some(38), None),
                receipt("gw-2", true, None, None),
                receipt("gw-17", false, None, Some(now.0 + 250)),
                receipt("gw-18", false, None, Some(now.0 + 86_400)),
                receipt("gw-19", false, None, None),
            ],
        };
        assert_eq!(
            text(&receipts, now),
            "2/5 gateways in 38 ms; gw-17 silent, its sessions end at 12:04:10 UTC; \
             gw-18 silent, its sessions end at 2026-03-02 12:00:00 UTC; gw-19 silent, it has no sessions of it\n  \
             gw-1 (berlin): 38 ms\n  gw-2 (berlin): caught up later"
        );
        receipts.gateways.iter_mut().for_each(|receipt| receipt.awaited = false);
        assert_eq!(text(&receipts, now), "0/0 gateways");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_512, (2026, 2, 28)),
            (20_513, (2026, 3, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }
}
