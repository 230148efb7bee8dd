//! How many entries of a table each session holds.

use ringfort_types::SessionId;

use crate::table::{BoundedTable, Hashed, Position, Seed};

/// Counts the entries of each session that has any, and remembers which of those sessions have ended.
#[derive(Clone, Debug)]
pub(crate) struct SessionTally {
    seed: Seed,
    sessions: BoundedTable<Tally>,
    per_session_max: u32,
}

#[derive(Clone, Debug)]
struct Tally {
    session: SessionId,
    entries: u32,
    closed: bool,
}

impl SessionTally {
    /// A tally for a table of `entries_max` entries, at most `per_session_max` of them one session's.
    pub(crate) fn new(entries_max: usize, per_session_max: u32, seed: u64) -> Self {
        Self { seed: Seed::new(seed), sessions: BoundedTable::new(entries_max), per_session_max }
    }

    /// Counts one more entry of `session`, unless it has as many as it may.
    pub(crate) fn admit(&mut self, session: SessionId) -> bool {
        let (hash, found) = self.find(session);
        match found.and_then(|position| self.sessions.get_mut(position)) {
            Some(tally) if tally.entries >= self.per_session_max => false,
            Some(tally) => {
                tally.entries += 1;
                true
            }
            None => self.sessions.insert(hash, Tally { session, entries: 1, closed: false }).is_ok(),
        }
    }

    /// Counts one entry less.
    pub(crate) fn release(&mut self, session: SessionId) {
        let (_, Some(position)) = self.find(session) else { return };
        let Some(tally) = self.sessions.get_mut(position) else { return };
        tally.entries = tally.entries.saturating_sub(1);
        if tally.entries == 0 {
            self.sessions.remove(position);
        }
    }

    /// Marks the session, which makes no more entries. Forgotten with its last entry, as ids are not used again.
    pub(crate) fn close(&mut self, session: SessionId) {
        let (_, Some(position)) = self.find(session) else { return };
        if let Some(tally) = self.sessions.get_mut(position) {
            tally.closed = true;
        }
    }

    pub(crate) fn is_closed(&self, session: SessionId) -> bool {
        let (_, found) = self.find(session);
        found.and_then(|position| self.sessions.get(position)).is_some_and(|tally| tally.closed)
    }

    fn find(&self, session: SessionId) -> (Hashed, Option<Position>) {
        let hash = self.seed.hash(&session);
        (hash, self.sessions.find(hash, |tally| tally.session == session))
    }
}
