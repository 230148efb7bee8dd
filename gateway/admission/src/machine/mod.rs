//! The machine: its state, what is asked of it, and the steps that its inputs share.

mod channels;
mod entitlements;
mod stream;
mod tables;
mod time;
mod tunnels;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ringfort_engine::gateway::Command;
use ringfort_policy::DEFAULT_DENY;
use ringfort_rules::{InnerAddresses, RuleSet};
use ringfort_token::{DenyList, GatewayConfiguration, KeySet, Serial, Verified, Verifier, audience};
use ringfort_types::{BootInstant, RuleId, SessionId};

use crate::compiler::Compiler;
use crate::denials::{Denial, Denials};
use crate::effects::Effects;
use crate::held::Deadline;
use crate::interface::{
    Action, AuditEvent, ChannelId, Moment, NotAdmitting, Part, Persisted, Revocations, Sequences, SessionView,
    Settings, ToClient,
};
use crate::refused::{Refused, codes};
use crate::seen::Seen;
use tables::{Channel, Session, Tunnel};
use time::{Timer, Timers};

/// Who has which session and which rules; see the crate's documentation.
#[derive(Debug)]
pub struct Admission {
    verifier: Verifier,
    /// Our audiences: as one of the site's Gateways, as this Gateway, as one of the organisation's.
    audiences: Audiences,
    site: String,
    gateway: String,
    event_prefix: String,
    events_made: u64,
    deny: DenyList,
    /// The Controller has removed this Gateway.
    removed: bool,
    forget_at: BootInstant,
    configuration: Option<Configuration>,
    admitting: Result<(), NotAdmitting>,
    no_new_sessions_after: Option<Duration>,
    compiler: Compiler,
    seen: Seen,
    /// Every tunnel that a worker has told of and not ended.
    tunnels: BTreeMap<SessionId, Tunnel>,
    /// Those that may be bound, by their names.
    by_name: BTreeMap<[u8; 16], SessionId>,
    channels: BTreeMap<ChannelId, Channel>,
    /// Channels with a Bind whose other part has not come, by the tunnel's name.
    binding: BTreeSet<([u8; 16], ChannelId)>,
    /// Channels without a session, by session name: at most one each.
    waiting: BTreeMap<Arc<str>, ChannelId>,
    /// Live sessions by name: those with a bound tunnel.
    sessions: BTreeMap<Arc<str>, Session>,
    effects: Effects,
    timers: Timers,
    /// Not before then are sequences written again.
    next_write: BootInstant,
    sequences_changed: bool,
    /// What takes rights away: it comes out before anything else.
    urgent: VecDeque<Action>,
    actions: VecDeque<Action>,
    denials: Denials,
    refused: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
struct Audiences {
    site: String,
    gateway: String,
    gateways: String,
}

#[derive(Debug)]
struct Configuration {
    token: Verified<GatewayConfiguration>,
    text: String,
    /// When it was put in force, by which its times are fixed.
    since: Moment,
}

impl Configuration {
    /// When nobody new is admitted by it any more: when its lease ends, or earlier where the site says so.
    fn admits_until(&self, no_new_sessions_after: Option<Duration>) -> Deadline {
        let lease = Deadline::fix(self.token.lease, self.since);
        no_new_sessions_after.map_or(lease, |after| lease.min(Deadline::fix(self.token.iat + after, self.since)))
    }
}

impl Admission {
    /// A machine that knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings, now: Moment) -> Self {
        Self::restore(settings, Persisted::default(), now)
    }

    /// A machine that goes on with what an earlier one kept. A configuration that is not good any more is forgotten; its
    /// sequence number is not.
    #[must_use]
    pub fn restore(settings: Settings, persisted: Persisted, now: Moment) -> Self {
        let Settings { organisation, site, gateway, signers, ceiling, no_new_sessions_after, guarded, event_prefix } =
            settings;
        let Persisted { configuration, revocations, sequences } = persisted;
        let mut admission = Self {
            verifier: Verifier::new(&organisation, signers),
            audiences: Audiences {
                site: audience::site(&site),
                gateway: audience::gateway(&gateway),
                gateways: audience::gateways(&organisation),
            },
            site,
            gateway,
            event_prefix,
            events_made: 0,
            deny: DenyList::restore(revocations.serial, revocations.entries),
            removed: revocations.removed,
            forget_at: now.boot,
            configuration: None,
            admitting: Ok(()),
            no_new_sessions_after,
            compiler: Compiler::new(ceiling, guarded),
            seen: Seen::restore(sequences),
            tunnels: BTreeMap::new(),
            by_name: BTreeMap::new(),
            channels: BTreeMap::new(),
            binding: BTreeSet::new(),
            waiting: BTreeMap::new(),
            sessions: BTreeMap::new(),
            effects: Effects::default(),
            timers: Timers::default(),
            next_write: now.boot,
            sequences_changed: false,
            urgent: VecDeque::new(),
            actions: VecDeque::new(),
            denials: Denials::default(),
            refused: codes().map(|code| (code, 0)).collect(),
        };
        if let Some(text) = configuration {
            admission.restore_configuration(&text, now);
        }
        admission
    }

    /// What is to be done next. To be asked until `None` after each input.
    pub fn poll_action(&mut self) -> Option<Action> {
        let next = self.urgent.pop_front().or_else(|| self.actions.pop_front());
        next.or_else(|| self.effects.poll().map(Action::Applied))
    }

    /// When [`Admission::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<BootInstant> {
        self.timers.next()
    }

    /// The keys that sign tokens have changed; the caller has verified their certificates. What was believed before stays
    /// believed.
    pub fn signers(&mut self, keys: KeySet) {
        self.verifier = Verifier::new(self.verifier.issuer(), keys);
    }

    /// Whether the clock can be trusted and the Gateway is to take new sessions, as the caller judges it.
    pub fn set_admitting(&mut self, admitting: Result<(), NotAdmitting>) {
        self.admitting = admitting;
    }

    /// How long new sessions are admitted after the Controller's newest configuration, as the site's own file says now: at most for
    /// its lease (X14).
    pub const fn set_no_new_sessions_after(&mut self, after: Option<Duration>) {
        self.no_new_sessions_after = after;
    }

    /// Whether new sessions are admitted.
    ///
    /// # Errors
    /// [`NotAdmitting`] says why not.
    pub fn admitting(&self, now: Moment) -> Result<(), NotAdmitting> {
        if self.removed {
            return Err(NotAdmitting::Removed);
        }
        self.admitting?;
        let Some(configuration) = &self.configuration else { return Err(NotAdmitting::NoConfiguration) };
        let until = configuration.admits_until(self.no_new_sessions_after);
        if until.at <= now.boot {
            return Err(NotAdmitting::LeaseOver { ended: until.ends_at });
        }
        if configuration.token.draining { Err(NotAdmitting::Draining) } else { Ok(()) }
    }

    /// Whether the Controller has this Gateway drained.
    fn is_draining(&self) -> bool {
        self.configuration.as_ref().is_some_and(|current| current.token.draining)
    }

    /// The Gateway stops: every client is told, and none is heard any more. The workers end their tunnels themselves.
    pub fn stop(&mut self, now: Moment) {
        self.admitting = Err(NotAdmitting::Draining);
        let channels: Vec<ChannelId> = self.channels.keys().copied().collect();
        for channel in channels {
            self.goodbye(channel, &Refused::Stopping, now);
        }
    }

    /// The Gateway serves nobody any more: every session ends, and every client is told. Nobody new comes in unless
    /// [`Admission::set_admitting`] says so.
    pub fn dismiss(&mut self, now: Moment) {
        let sessions: Vec<Arc<str>> = self.sessions.keys().cloned().collect();
        for dn in sessions {
            self.end_session(&dn, &Refused::Stopping, now);
        }
        let channels: Vec<ChannelId> = self.channels.keys().copied().collect();
        for channel in channels {
            self.goodbye(channel, &Refused::Stopping, now);
        }
    }

    /// The Controller refuses this Gateway because its key is revoked: it serves nobody any more, also after a restart.
    pub fn removed(&mut self, now: Moment) {
        self.removed = true;
        self.actions.push_back(Action::Persist(Part::Revocations));
        self.dismiss(now);
    }

    /// A Controller has taken this Gateway's stream: if it was removed, that was undone.
    pub fn let_in_again(&mut self) {
        if std::mem::take(&mut self.removed) {
            self.actions.push_back(Action::Persist(Part::Revocations));
        }
    }

    /// Whether the Controller has removed this Gateway.
    #[must_use]
    pub const fn is_removed(&self) -> bool {
        self.removed
    }

    /// The live sessions, by name.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView<'_>> {
        self.sessions.iter().filter_map(|(dn, session)| self.view(dn, session))
    }

    /// The live session that has this tunnel.
    #[must_use]
    pub fn session(&self, tunnel: SessionId) -> Option<SessionView<'_>> {
        let (dn, session) = self.sessions.get_key_value(&self.tunnels.get(&tunnel)?.dn)?;
        if session.tunnel == tunnel { self.view(dn, session) } else { None }
    }

    fn view<'a>(&'a self, dn: &'a Arc<str>, session: &'a Session) -> Option<SessionView<'a>> {
        let tunnel = self.tunnels.get(&session.tunnel)?;
        Some(SessionView {
            dn,
            user: &session.held.name,
            device: &tunnel.device,
            device_claims: &session.held.device,
            tunnel: session.tunnel,
            outer: tunnel.outer,
            inner: session.inner(),
            seq: session.held.entitlement.seq,
            ends_at: session.deadline.ends_at,
            has_channel: session.channel.is_some(),
        })
    }

    /// Names of the live sessions with the sequence numbers of their entitlement tokens, for Hello and Report.
    pub fn live(&self) -> impl Iterator<Item = (&str, u64)> {
        self.sessions.iter().map(|(dn, session)| (&**dn, session.held.entitlement.seq))
    }

    /// Where the deny list stands.
    #[must_use]
    pub const fn serial(&self) -> Serial {
        self.deny.serial()
    }

    /// Sequence number of the configuration in force, 0 for none.
    #[must_use]
    pub fn configuration_seq(&self) -> u64 {
        self.configuration.as_ref().map_or(0, |configuration| configuration.token.seq)
    }

    /// The configuration in force.
    #[must_use]
    pub fn current_configuration(&self) -> Option<&GatewayConfiguration> {
        self.configuration.as_ref().map(|configuration| &*configuration.token)
    }

    /// What was denied.
    pub fn denials(&self) -> impl Iterator<Item = &Denial> {
        self.denials.iter()
    }

    /// The name people gave the rule.
    #[must_use]
    pub fn rule_name(&self, rule: Option<RuleId>) -> &str {
        self.compiler.rule_name(rule).unwrap_or(DEFAULT_DENY)
    }

    /// How often something was refused, by code: the counters `refused_<code>`. All codes are there from the start.
    #[must_use]
    pub const fn refused(&self) -> &BTreeMap<&'static str, u64> {
        &self.refused
    }

    /// What is to be on disk; [`Action::Persist`] says which part has changed.
    #[must_use]
    pub fn persisted(&self) -> Persisted {
        Persisted {
            configuration: self.persisted_configuration().map(Into::into),
            revocations: self.persisted_revocations(),
            sequences: self.persisted_sequences(),
        }
    }

    /// The part [`Part::Configuration`].
    #[must_use]
    pub fn persisted_configuration(&self) -> Option<&str> {
        self.configuration.as_ref().map(|configuration| configuration.text.as_str())
    }

    /// The part [`Part::Revocations`].
    #[must_use]
    pub fn persisted_revocations(&self) -> Revocations {
        let entries = self.deny.entries().map(|(n, entry)| (n, entry.clone())).collect();
        Revocations { serial: self.deny.serial(), entries, removed: self.removed }
    }

    /// The part [`Part::Sequences`].
    #[must_use]
    pub fn persisted_sequences(&self) -> Sequences {
        self.seen.sequences()
    }

    /// Counts and writes down that something was refused or ended; gives the event's id. The one place that does.
    fn refuse(&mut self, refused: &Refused, session: Option<&str>, now: Moment) -> String {
        self.events_made += 1;
        let id = format!("{}-{}", self.event_prefix, self.events_made);
        let code = refused.code();
        *self.refused.entry(code).or_default() += 1;
        self.actions.push_back(Action::Audit(AuditEvent {
            id: id.clone(),
            at: now.wall,
            code,
            session: session.map(Into::into),
            detail: refused.to_string(),
        }));
        id
    }

    /// Refuses, says goodbye and closes the channel. A session that it has goes on without it, for the caller to see to.
    fn goodbye(&mut self, id: ChannelId, refused: &Refused, now: Moment) {
        let Some(channel) = self.forget_channel(id) else { return };
        let event = self.refuse(refused, Some(&channel.dn), now);
        self.send(id, ToClient::Goodbye { code: refused.code(), message: refused.to_string(), event });
        self.actions.push_back(Action::Close { channel: id });
    }

    /// Refuses what came on a channel: the channel ends, and with it the session if it has one.
    fn refuse_channel(&mut self, id: ChannelId, refused: &Refused, now: Moment) {
        let Some(channel) = self.channels.get(&id) else { return };
        let dn = Arc::clone(&channel.dn);
        match self.is_attached(id) {
            true => self.end_session(&dn, refused, now),
            false => self.goodbye(id, refused, now),
        }
    }

    /// Ends a live session: goodbye on its channel, and its tunnel is removed.
    fn end_session(&mut self, dn: &str, refused: &Refused, now: Moment) {
        self.end_fading(dn);
        let Some(session) = self.sessions.remove(dn) else { return };
        self.remove_tunnel(session.tunnel);
        match session.channel {
            Some(channel) => self.goodbye(channel, refused, now),
            None => {
                self.refuse(refused, Some(dn), now);
            }
        }
    }

    /// Takes a channel out of every table but that of sessions.
    fn forget_channel(&mut self, id: ChannelId) -> Option<Channel> {
        let channel = self.channels.remove(&id)?;
        if self.waiting.get(&channel.dn) == Some(&id) {
            self.waiting.remove(&channel.dn);
        }
        if let Some(bind) = &channel.bind {
            self.binding.remove(&(bind.tunnel, id));
        }
        if let Some(session) = self.sessions.get_mut(&channel.dn).filter(|session| session.channel == Some(id)) {
            session.channel = None;
        }
        Some(channel)
    }

    fn is_attached(&self, id: ChannelId) -> bool {
        let session = self.channels.get(&id).and_then(|channel| self.sessions.get(&channel.dn));
        session.is_some_and(|session| session.channel == Some(id))
    }

    fn send(&mut self, channel: ChannelId, message: ToClient) {
        self.actions.push_back(Action::Send { channel, message });
    }

    /// Has the workers end a tunnel; it can be bound no more.
    fn remove_tunnel(&mut self, id: SessionId) {
        self.let_go(id);
        self.actions.push_back(Action::Engine(Command::Remove { session: id }));
    }

    /// Ends the tunnel that the session's tunnel has followed, if it still takes packets.
    fn end_fading(&mut self, dn: &str) {
        let fading = self.sessions.get_mut(dn).and_then(|session| session.fading.take());
        if let Some(fading) = fading.filter(|fading| self.tunnels.contains_key(fading)) {
            self.urgent.push_back(Action::Engine(Command::Remove { session: fading }));
        }
    }

    /// A tunnel that ends, now or soon, can be bound no more.
    fn let_go(&mut self, id: SessionId) {
        if let Some(tunnel) = self.tunnels.get(&id)
            && self.by_name.get(&tunnel.name) == Some(&id)
        {
            self.by_name.remove(&tunnel.name);
        }
    }

    /// Puts a session's rules in force as they are now; gives what the workers are to confirm.
    fn install(&mut self, dn: &str) -> Option<(SessionId, u64)> {
        self.end_fading(dn);
        let (dn, session) = self.sessions.get_key_value(dn)?;
        let not_after = session.deadline.at;
        self.timers.add(not_after, Timer::Session(Arc::clone(dn)));
        let (tunnel, inner, rules) = (session.tunnel, session.inner(), Arc::clone(&session.rules));
        let (number, command) = self.installation(tunnel, inner, rules, not_after)?;
        self.actions.push_back(Action::Engine(command));
        Some((tunnel, number))
    }

    /// An installation for a tunnel, and its number among those of the tunnel.
    fn installation(
        &mut self,
        session: SessionId,
        inner: InnerAddresses,
        rules: Arc<RuleSet>,
        not_after: BootInstant,
    ) -> Option<(u64, Command)> {
        let tunnel = self.tunnels.get_mut(&session)?;
        tunnel.installed += 1;
        Some((tunnel.installed, Command::Install { session, outer: tunnel.outer, inner, rules, not_after }))
    }

    /// Has the sequences written: at once, and then at most once in [`time::WRITE_EVERY`].
    fn write_sequences(&mut self, now: Moment) {
        if now.boot >= self.next_write {
            self.sequences_changed = false;
            self.next_write = now.boot + time::WRITE_EVERY;
            self.actions.push_back(Action::Persist(Part::Sequences));
        } else {
            self.sequences_changed = true;
            self.timers.add(self.next_write, Timer::Write);
        }
    }
}
