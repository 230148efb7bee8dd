//! Entitlement tokens that replace older ones: which of the sessions of a name a token is newer for, and what it does to them.
//!
//! A live session and a channel that waits to take its place may hold tokens of different numbers. Each is judged by its own: what
//! is newer than that is put in force, what is older never is. The highest number seen of a name decides only what may begin.

use std::sync::Arc;

use ringfort_rules::RuleSet;
use ringfort_token::{EntitlementToken, Holder, Verified};

use crate::held::{Deadline, Held};
use crate::interface::{Applied, ChannelId, Moment, ToClient};
use crate::machine::Admission;
use crate::machine::channels::{judge, names_user};
use crate::machine::stream::Missing;
use crate::refused::Refused;

/// Who holds an older token than one that was believed, and would hold that one instead.
#[derive(Clone, Copy, Debug)]
struct Older {
    waiting: Option<ChannelId>,
    is_live: bool,
}

impl Admission {
    /// An entitlement token (`rf-entitlement+jwt`) that nobody presented (K5).
    pub fn pushed_entitlement(&mut self, text: &str, now: Moment) {
        let believed = self.verify::<EntitlementToken>(text, &self.audiences.site, Holder::Pushed, now);
        let (session, done) = match believed {
            Err(refused) => (None, Err(refused)),
            Ok(token) => (Some(token.sub.clone()), self.take_entitlement(&token, text, now)),
        };
        if let Err(refused) = done {
            self.refuse(&refused, session.as_deref(), now);
        }
    }

    fn take_entitlement(&mut self, token: &Verified<EntitlementToken>, text: &str, now: Moment) -> Result<(), Refused> {
        let dn = token.sub.as_str();
        if !names_user(dn, &token.user) {
            return Err(Refused::SubjectMismatch { expected: "an entitlement token whose user its session names" });
        }
        let older = self.older(token);
        if older.is_none() {
            if !self.live_held(dn).into_iter().chain(self.waiting_held(dn)).all(|held| fits(held, token)) {
                let expected = "an entitlement token of the session's user, of its generation or a later one";
                return Err(Refused::SubjectMismatch { expected });
            }
            let newest = self.seen.newest(dn).unwrap_or(token.seq);
            if token.seq < newest {
                return Err(Refused::SequenceOld { what: "an entitlement token", newest, found: token.seq });
            }
        }
        if self.seen.record(dn, token.seq, token.exp, Some(text), now.wall)? {
            self.write_sequences(now);
        }
        let is_in_force = |held: &Held| (held.certificate.key, held.entitlement.seq) == (token.cnf.jkt, token.seq);
        if self.live_held(dn).is_some_and(is_in_force) {
            // Told twice: what is in force is said again.
            let entitlements = vec![(dn.to_owned(), token.seq)];
            self.effects.add(Missing::new(), Applied { entitlements, ..Applied::default() });
        }
        let rules = self.compiler.check_inner(&token.inner).and_then(|()| self.compiler.compile(&token.grants));
        match (rules, older) {
            (Ok(rules), Some(older)) => self.replace_older(older, token, &rules, text, now),
            // What the older one gave may be what this one takes back.
            (Err(refused), Some(older)) => self.end_older(older, dn, &refused, now),
            (Ok(_), None) => {}
            (Err(refused), None) => return Err(refused),
        }
        Ok(())
    }

    /// Puts a token that was presented on one channel in force wherever its name and key hold an older one.
    pub(super) fn spread(&mut self, token: &Verified<EntitlementToken>, rules: &Arc<RuleSet>, text: &str, now: Moment) {
        if let Some(older) = self.older(token) {
            self.replace_older(older, token, rules, text, now);
        }
    }

    fn live_held(&self, dn: &str) -> Option<&Held> {
        self.sessions.get(dn).map(|session| &session.held)
    }

    fn waiting_held(&self, dn: &str) -> Option<&Held> {
        self.channels.get(self.waiting.get(dn)?)?.held.as_ref()
    }

    fn older(&self, token: &EntitlementToken) -> Option<Older> {
        let is_older = |held: &&Held| {
            held.certificate.key == token.cnf.jkt && fits(held, token) && held.entitlement.seq < token.seq
        };
        let is_live = self.live_held(&token.sub).filter(is_older).is_some();
        let waiting = self.waiting_held(&token.sub).filter(is_older);
        let waiting = waiting.and_then(|_| self.waiting.get(&*token.sub).copied());
        (is_live || waiting.is_some()).then_some(Older { waiting, is_live })
    }

    fn replace_older(
        &mut self,
        older: Older,
        token: &Verified<EntitlementToken>,
        rules: &Arc<RuleSet>,
        text: &str,
        now: Moment,
    ) {
        if let Some(id) = older.waiting {
            if let Some(held) = self.channels.get_mut(&id).and_then(|channel| channel.held.as_mut()) {
                held.replace_entitlement(token.clone(), now);
            }
            self.send(id, ToClient::Entitlement { token: text.into() });
        }
        if older.is_live {
            self.replace_live(token, Arc::clone(rules), text, now);
        }
    }

    fn replace_live(&mut self, token: &Verified<EntitlementToken>, rules: Arc<RuleSet>, text: &str, now: Moment) {
        let Some(session) = self.sessions.get_mut(&*token.sub) else { return };
        session.held.replace_entitlement(token.clone(), now);
        // It is believed, so that a demanded renewal is all that the deny list can say of it.
        let renewal = judge(&self.deny, &mut session.held, now).ok().flatten();
        session.rules = rules;
        let tunnel = self.tunnels.get(&session.tunnel).map(|tunnel| tunnel.certificate.until);
        session.deadline = tunnel.into_iter().fold(session.held.ends(), Deadline::min);
        let channel = session.channel;
        let missing = self.install(&token.sub).into_iter().collect();
        self.plan_notice(&token.sub, now);
        if let Some(channel) = channel {
            self.send(channel, ToClient::Entitlement { token: text.into() });
            renewal.into_iter().for_each(|message| self.send(channel, message));
        }
        let entitlements = vec![(token.sub.clone(), token.seq)];
        self.effects.add(missing, Applied { entitlements, ..Applied::default() });
    }

    fn end_older(&mut self, older: Older, dn: &str, refused: &Refused, now: Moment) {
        if let Some(channel) = older.waiting {
            self.goodbye(channel, refused, now);
        }
        if older.is_live {
            self.end_session(dn, refused, now);
        }
    }
}

fn fits(held: &Held, token: &EntitlementToken) -> bool {
    held.claims.user == token.user && held.claims.generation <= token.generation
}
