//! The audit log: what an administrator's action changed, and reading it page by page.
//!
//! Events are added only; the database refuses to change or remove one. Nothing secret is in them: neither passwords and
//! their hashes nor cookies and tickets.

use ringfort_proto::api::{self, EVENTS_MAX};
use ringfort_types::UnixSeconds;
use serde_json::{Value, json};

use super::refused::Refused;
use super::store::{self, Page};
use super::{Administrator, Core, action, hex};

/// Longest JSON of what was there before or after, in bytes; of what is longer the digest is kept.
const CHANGED_BYTES_MAX: usize = 64 << 10;

/// Which events are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsAsked {
    /// None from before, in seconds since 1970.
    pub since: UnixSeconds,
    /// Only those with a lower number, as the last event of a page has it.
    pub below: Option<u64>,
    /// At most so many, the newest; 1,000 at most.
    pub limit: u32,
}

impl Default for EventsAsked {
    /// The newest.
    fn default() -> Self {
        Self { since: UnixSeconds(0), below: None, limit: EVENTS_MAX }
    }
}

impl Core {
    /// A page of the events, the newest first.
    ///
    /// # Errors
    /// `request_malformed` for more than 1,000.
    pub async fn events(
        &self,
        _administrator: &Administrator<action::ListAudit>,
        asked: EventsAsked,
    ) -> Result<Vec<api::AuditRow>, Refused> {
        if !(1..=EVENTS_MAX).contains(&asked.limit) {
            return Err(Refused::malformed(format!("expected a limit of 1 to {EVENTS_MAX} events")));
        }
        self.page_of_events(asked).await
    }

    /// The newest events, for the status on this machine.
    pub(crate) async fn newest_events(&self, count: u32) -> Result<Vec<api::AuditRow>, Refused> {
        self.page_of_events(EventsAsked { limit: count, ..EventsAsked::default() }).await
    }

    async fn page_of_events(&self, asked: EventsAsked) -> Result<Vec<api::AuditRow>, Refused> {
        let EventsAsked { since, below, limit } = asked;
        let page = Page { since, below: below.unwrap_or(u64::MAX), limit };
        let events = store::events(&mut *self.inner.store.read().await?, page).await?;
        let row = |(n, event): (u64, store::Recorded)| api::AuditRow {
            n,
            id: event.id,
            at: event.at.0,
            actor: event.actor,
            action: event.action,
            target: event.target,
            outcome: event.outcome,
            detail: event.detail,
            before: parsed(&event.before),
            after: parsed(&event.after),
        };
        Ok(events.into_iter().map(row).collect())
    }
}

/// What an action changed, for its event.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    before: Value,
    after: Value,
}

impl Changed {
    /// Something that was there, and what is there in its place; `Null` for nothing.
    pub(crate) const fn new(before: Value, after: Value) -> Self {
        Self { before, after }
    }

    /// As columns have it.
    pub(crate) fn columns(&self) -> (String, String) {
        (column(&self.before), column(&self.after))
    }
}

fn column(value: &Value) -> String {
    if value.is_null() {
        return String::new();
    }
    let text = value.to_string();
    if text.len() <= CHANGED_BYTES_MAX {
        return text;
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    json!({ "bytes": text.len(), "sha256": hex(digest.as_ref()) }).to_string()
}

fn parsed(column: &str) -> Option<Value> {
    serde_json::from_str(column).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_known_by_its_digest() {
        assert_eq!(column(&Value::Null), "");
        let short = json!({ "name": "wiki" });
        assert_eq!(parsed(&column(&short)), Some(short));
        let long = json!({ "to": "x".repeat(CHANGED_BYTES_MAX) });
        let kept = parsed(&column(&long)).unwrap();
        assert_eq!(kept["bytes"], CHANGED_BYTES_MAX + 9);
        assert_eq!(kept["sha256"].as_str().map(str::len), Some(64));
    }
}
