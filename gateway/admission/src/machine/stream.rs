//! What the Controller pushes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use ringfort_engine::gateway::Command;
use ringfort_policy::Bound;
use ringfort_rules::RuleSet;
use ringfort_token::{GatewayConfiguration, Holder, RevocationList, Standing, Verified};
use ringfort_types::{BootInstant, SessionId};

use crate::compiler::SiteRules;
use crate::interface::{Action, Applied, ChannelId, Moment, Part, ToClient};
use crate::machine::channels::judge;
use crate::machine::time::{REVOKED_LINGER, Timer};
use crate::machine::{Admission, Configuration};
use crate::refused::Refused;

/// How often what can be about nothing any more is taken off the deny list.
const FORGET_EVERY: Duration = Duration::from_secs(60 * 60);

/// What the workers are to confirm.
pub(super) type Missing = BTreeMap<SessionId, u64>;

impl Admission {
    /// A gateway configuration (`rf-gateway+jwt`).
    pub fn pushed_configuration(&mut self, text: &str, now: Moment) {
        let (token, rules) = match self.believe_configuration(text, now) {
            Ok(believed) => believed,
            Err(refused) => {
                self.refuse(&refused, None, now);
                return;
            }
        };
        let (seq, was_draining) = (token.seq, self.is_draining());
        let changed = self.put_in_force(token, rules, text, now);
        if self.is_draining() && !was_draining {
            let live: Vec<ChannelId> = self.sessions.values().filter_map(|session| session.channel).collect();
            live.into_iter().for_each(|channel| self.send(channel, ToClient::Draining));
        }
        self.actions.push_back(Action::Persist(Part::Configuration));
        self.write_sequences(now);
        let missing = if changed { self.recompile(now) } else { Missing::new() };
        self.effects.add(missing, Applied { configuration_seq: Some(seq), ..Applied::default() });
    }

    /// Takes up a configuration from before a restart, if it is still good.
    pub(super) fn restore_configuration(&mut self, text: &str, now: Moment) {
        if let Ok((token, rules)) = self.believe_configuration(text, now) {
            self.put_in_force(token, rules, text, now);
        }
    }

    fn believe_configuration(
        &self,
        text: &str,
        now: Moment,
    ) -> Result<(Verified<GatewayConfiguration>, SiteRules), Refused> {
        let token: Verified<GatewayConfiguration> = self.verify(text, &self.audiences.gateway, Holder::Nobody, now)?;
        if token.sub != self.gateway || token.site != self.site {
            return Err(Refused::SubjectMismatch { expected: "a configuration of this gateway at this site" });
        }
        // The same number again is the same configuration with a new lease.
        let current = self.configuration.as_ref().map(|current| (current.token.seq, current.token.iat));
        if token.seq < self.seen.configuration || current.is_some_and(|current| (token.seq, token.iat) < current) {
            let newest = self.seen.configuration;
            return Err(Refused::SequenceOld { what: "a configuration", newest, found: token.seq });
        }
        let rules = SiteRules::read(&token.allow, &token.pools)?;
        Ok((token, rules))
    }

    fn put_in_force(
        &mut self,
        token: Verified<GatewayConfiguration>,
        rules: SiteRules,
        text: &str,
        now: Moment,
    ) -> bool {
        self.seen.configuration = token.seq;
        self.configuration = Some(Configuration { token, text: text.into(), since: now });
        self.compiler.set_site(rules)
    }

    /// The Gateway's own ceiling has changed: every live session's rules are brought within it at once.
    pub fn set_ceiling(&mut self, ceiling: Option<Bound>, now: Moment) {
        if self.compiler.set_ceiling(ceiling) {
            self.recompile(now);
        }
    }

    /// The networks that only a host prefix opens have changed, because the Gateway's own addresses have.
    pub fn guarded(&mut self, networks: Vec<IpNet>, now: Moment) {
        if self.compiler.set_guarded(networks) {
            self.recompile(now);
        }
    }

    /// Brings the rules of every live session within bounds that have changed. What cannot be brought there is denied.
    fn recompile(&mut self, now: Moment) -> Missing {
        let names: Vec<Arc<str>> = self.sessions.keys().cloned().collect();
        let mut missing = Missing::new();
        for dn in names {
            let Some(session) = self.sessions.get_mut(&dn) else { continue };
            let compiled = self.compiler.compile(&session.held.entitlement.grants);
            let refused = compiled.as_ref().err().cloned();
            session.rules = compiled.unwrap_or_else(|_| Arc::new(RuleSet::deny_all()));
            missing.extend(self.install(&dn));
            if let Some(refused) = refused {
                self.refuse(&refused, Some(&dn), now);
            }
        }
        missing
    }

    /// A revocation list (`rf-revocations+jwt`; A23). Live sessions that are revoked have empty rules before anything else
    /// happens.
    pub fn pushed_revocations(&mut self, text: &str, now: Moment) {
        let before = self.deny.serial().epoch;
        let list = self.verify::<RevocationList>(text, &self.audiences.gateways, Holder::Nobody, now);
        let applied = list.and_then(|list| Ok(self.deny.apply(&list)?));
        let news = match applied {
            Ok(news) => news,
            Err(refused) => {
                self.refuse(&refused, None, now);
                if let Refused::RevocationsGap { .. } = refused {
                    self.actions.push_back(Action::Resubscribe);
                }
                return;
            }
        };
        let missing = match (0 < before && before < self.deny.serial().epoch, news.is_empty()) {
            (true, _) => self.begin_epoch(now),
            (false, true) => Missing::new(),
            (false, false) => self.enforce(now),
        };
        // A time that is doubted lets nothing be forgotten: what was revoked would be good again once the clocks agree.
        if now.boot >= self.forget_at && self.admitting.is_ok() {
            self.deny.forget(now.wall);
            self.forget_at = now.boot + FORGET_EVERY;
        }
        self.actions.push_back(Action::Persist(Part::Revocations));
        self.effects.add(missing, Applied { revocations: Some(self.deny.serial()), ..Applied::default() });
    }

    /// The Controller's database was restored: whatever it issued before may be of somebody it does not know any more.
    fn begin_epoch(&mut self, now: Moment) -> Missing {
        let serial = self.deny.serial().n;
        let over = || Refused::Revoked { serial, reason: "the Controller was restored from a backup".into() };
        let sessions = self.sessions.keys().map(|dn| (Arc::clone(dn), over())).collect();
        let missing = self.revoke(sessions, now);
        let waiting: Vec<ChannelId> = self.waiting.values().copied().collect();
        for id in waiting {
            self.goodbye(id, &over(), now);
        }
        self.enforce_on_unbound(now);
        missing
    }

    /// Judges everything that is there by the deny list as it is now.
    fn enforce(&mut self, now: Moment) -> Missing {
        let fading = self.sessions.iter().filter(|(_, session)| session.fading.is_some());
        let fading: Vec<Arc<str>> = fading.map(|(dn, _)| Arc::clone(dn)).collect();
        fading.iter().for_each(|dn| self.end_fading(dn));
        let (mut revoked, mut demanded) = (Vec::new(), Vec::new());
        for (dn, session) in &self.sessions {
            let tunnel = self.tunnels.get(&session.tunnel).map(|tunnel| tunnel.certificate.standing(&self.deny));
            let standing = match tunnel {
                Some(standing @ Standing::Revoked { .. }) => standing,
                _ => session.held.standing(&self.deny, now),
            };
            match standing {
                Standing::Revoked { serial, reason } => {
                    revoked.push((Arc::clone(dn), Refused::Revoked { serial, reason: reason.into() }));
                }
                Standing::RenewBy { by, .. } if session.held.renew.map(|renew| renew.ends_at) != Some(by) => {
                    demanded.push(Arc::clone(dn));
                }
                Standing::RenewBy { .. } | Standing::Good => {}
            }
        }
        let mut missing = self.revoke(revoked, now);
        for dn in demanded {
            missing.extend(self.demand_renewal(&dn, now));
        }
        self.enforce_on_waiting(now);
        self.enforce_on_unbound(now);
        missing
    }

    /// Takes everything away from these sessions: first of all of them the rules, then the rest.
    fn revoke(&mut self, revoked: Vec<(Arc<str>, Refused)>, now: Moment) -> Missing {
        // An installation from before that was not fetched yet must not come after and give the rules back.
        let names: BTreeSet<&str> = revoked.iter().map(|(dn, _)| &**dn).collect();
        let tunnels = &mut self.tunnels;
        self.actions.retain(|action| {
            let Action::Engine(Command::Install { session, .. }) = action else { return true };
            let tunnel = tunnels.get_mut(session).filter(|tunnel| names.contains(&*tunnel.dn));
            tunnel.map(|tunnel| tunnel.installed -= 1).is_none()
        });
        let mut missing = Missing::new();
        for (dn, _) in &revoked {
            self.end_fading(dn);
            let Some((tunnel, inner)) = self.sessions.get(dn).map(|session| (session.tunnel, session.inner())) else {
                continue;
            };
            // The empty set has no deadline: it goes on refusing with an answer until the tunnel is removed.
            let rules = Arc::new(RuleSet::deny_all());
            if let Some((number, command)) = self.installation(tunnel, inner, rules, BootInstant::FAR_FUTURE) {
                missing.insert(tunnel, number);
                self.urgent.push_back(Action::Engine(command));
            }
        }
        for (dn, refused) in revoked {
            let Some(session) = self.sessions.remove(&dn) else { continue };
            self.let_go(session.tunnel);
            self.timers.add(now.boot + REVOKED_LINGER, Timer::Linger(session.tunnel));
            match session.channel {
                Some(channel) => self.goodbye(channel, &refused, now),
                None => {
                    self.refuse(&refused, Some(&dn), now);
                }
            }
        }
        missing
    }

    fn demand_renewal(&mut self, dn: &str, now: Moment) -> Option<(SessionId, u64)> {
        let session = self.sessions.get_mut(dn)?;
        let Standing::RenewBy { by, reason, .. } = session.held.standing(&self.deny, now) else { return None };
        session.held.set_renewal(Some(by), now);
        session.deadline = session.deadline.min(session.held.ends());
        let told = session.channel.map(|channel| (channel, ToClient::RenewBy { time: by, reason: reason.into() }));
        let missing = self.install(dn);
        self.plan_notice(dn, now);
        if let Some((channel, message)) = told {
            self.send(channel, message);
        }
        missing
    }

    fn enforce_on_waiting(&mut self, now: Moment) {
        let waiting: Vec<ChannelId> = self.waiting.values().copied().collect();
        for id in waiting {
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            let mut held = channel.held.take();
            let judged = match &mut held {
                Some(held) => judge(&self.deny, held, now),
                None => Ok(None),
            };
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            channel.held = held;
            let standing = channel.certificate.standing(&self.deny);
            let judged = match standing {
                Standing::Revoked { serial, reason } => {
                    Err(Refused::CertificateRevoked { serial, reason: reason.into() })
                }
                Standing::RenewBy { .. } | Standing::Good => judged,
            };
            match judged {
                Ok(message) => message.into_iter().for_each(|message| self.send(id, message)),
                Err(refused) => self.goodbye(id, &refused, now),
            }
        }
    }

    fn enforce_on_unbound(&mut self, now: Moment) {
        let unbound = self.by_name.values().filter_map(|id| Some((*id, self.tunnels.get(id)?)));
        let refused: Vec<_> = unbound
            .filter_map(|(id, tunnel)| match tunnel.certificate.standing(&self.deny) {
                Standing::Revoked { serial, reason } => {
                    let refused = Refused::CertificateRevoked { serial, reason: reason.into() };
                    Some((id, Arc::clone(&tunnel.dn), refused))
                }
                Standing::RenewBy { .. } | Standing::Good => None,
            })
            .collect();
        for (id, dn, refused) in refused {
            self.refuse(&refused, Some(&dn), now);
            self.remove_tunnel(id);
        }
    }
}
