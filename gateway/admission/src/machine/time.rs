//! What happens when nothing comes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ringfort_engine::gateway::Command;
use ringfort_types::{BootInstant, SessionId};

use crate::interface::{Action, ChannelId, Moment, ToClient};
use crate::machine::Admission;
use crate::machine::tables::Notice;
use crate::refused::Refused;

/// A Bind waits so long for its tunnel, as the workers keep an unbound tunnel.
pub(super) const BIND_PATIENCE: Duration = Duration::from_secs(10);
/// A channel without a session is closed after this time, so that none takes room for nothing.
pub(super) const CHANNEL_PATIENCE: Duration = Duration::from_secs(30);
/// A session whose channel was lost goes on for so long.
pub(super) const LOST_PATIENCE: Duration = Duration::from_secs(60);
/// A tunnel that another one of its session has followed takes packets for so long: those that were on their way, and those that the
/// client sends before it has heard that the other one is bound. Whatever changes the session's rights ends it at once.
pub(super) const FADE: Duration = Duration::from_secs(3);
/// A client is told that its session ends when a quarter of the time is left that it had, and at most so long before. It renews by
/// itself at two thirds of each life: whoever has not done so by then is asked while it can still try again.
const NOTICE_MAX: Duration = Duration::from_secs(15 * 60);
/// What the client is told.
const NOTICE_REASON: &str = "what the session rests on expires then";
/// A revoked session answers every packet with a refusal for so long, so that applications learn it at once.
pub(super) const REVOKED_LINGER: Duration = Duration::from_secs(2);
/// The file of sequence numbers has a line for every session name: it is not written more often.
pub(super) const WRITE_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Session(Arc<str>),
    Channel(ChannelId),
    Linger(SessionId),
    Write,
}

/// Wake-ups in order. They are not taken back: whoever is woken looks whether the time has come.
#[derive(Debug, Default)]
pub(super) struct Timers {
    set: BTreeSet<(BootInstant, Timer)>,
}

impl Timers {
    pub(super) fn add(&mut self, at: BootInstant, timer: Timer) {
        self.set.insert((at, timer));
    }

    pub(super) fn next(&self) -> Option<BootInstant> {
        self.set.first().map(|(at, _)| *at)
    }

    fn pop_due(&mut self, now: BootInstant) -> Option<Timer> {
        let due = self.next().is_some_and(|at| at <= now);
        if due { self.set.pop_first().map(|(_, timer)| timer) } else { None }
    }
}

impl Admission {
    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Moment) {
        while let Some(timer) = self.timers.pop_due(now.boot) {
            match timer {
                Timer::Session(dn) => self.look_at_session(&dn, now),
                Timer::Channel(id) => self.look_at_channel(id, now),
                Timer::Linger(session) => {
                    if self.tunnels.contains_key(&session) {
                        self.actions.push_back(Action::Engine(Command::Remove { session }));
                    }
                }
                Timer::Write if self.sequences_changed => self.write_sequences(now),
                Timer::Write => {}
            }
        }
    }

    /// Has the client told in time when its session ends (A24).
    pub(super) fn plan_notice(&mut self, dn: &str, now: Moment) {
        let Some((name, _)) = self.sessions.get_key_value(dn) else { return };
        let name = Arc::clone(name);
        let Some(session) = self.sessions.get_mut(dn) else { return };
        let deadline = session.deadline;
        if session.notice.is_some_and(|notice| notice.ends_at == deadline.ends_at) {
            return;
        }
        let left = deadline.at.saturating_since(now.boot);
        let due = now.boot + left.saturating_sub((left / 4).min(NOTICE_MAX));
        session.notice = Some(Notice { ends_at: deadline.ends_at, due, is_given: false });
        self.timers.add(due, Timer::Session(name));
    }

    fn give_notice(&mut self, dn: &str, now: Moment) {
        let Some(session) = self.sessions.get_mut(dn) else { return };
        // One whose channel is lost is told on the channel that comes back.
        let Some(channel) = session.channel else { return };
        let Some(notice) = session.notice.as_mut().filter(|notice| notice.due <= now.boot && !notice.is_given) else {
            return;
        };
        notice.is_given = true;
        let time = notice.ends_at;
        self.send(channel, ToClient::RenewBy { time, reason: NOTICE_REASON.into() });
    }

    fn look_at_session(&mut self, dn: &str, now: Moment) {
        let Some(session) = self.sessions.get(dn) else { return };
        if session.deadline.at <= now.boot {
            let at = session.deadline.ends_at;
            self.end_session(dn, &Refused::Expired { at }, now);
        } else if session.lost_at.is_some_and(|lost| lost + LOST_PATIENCE <= now.boot) {
            self.end_session(dn, &Refused::ChannelLost { seconds: LOST_PATIENCE.as_secs() }, now);
        } else {
            self.give_notice(dn, now);
        }
    }

    fn look_at_channel(&mut self, id: ChannelId, now: Moment) {
        let Some(channel) = self.channels.get(&id) else { return };
        let patience = match &channel.bind {
            Some(bind) if bind.deadline <= now.boot => BIND_PATIENCE,
            _ if channel.patience <= now.boot && !self.is_attached(id) => CHANNEL_PATIENCE,
            _ => return,
        };
        self.refuse_channel(id, &Refused::TunnelUnknown { seconds: patience.as_secs() }, now);
    }
}
