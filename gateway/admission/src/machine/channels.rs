//! What clients say on their channels.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringfort_identity::{PeerIdentity, SessionDn};
use ringfort_token::{ClaimsToken, DenyList, EntitlementToken, Expectation, Holder, Signed, Standing, Token, Verified};
use ringfort_types::SessionId;

use crate::binding;
use crate::held::{Certificate, Held};
use crate::interface::{ChannelId, FromClient, Moment, ToClient};
use crate::machine::Admission;
use crate::machine::tables::{Bind, Channel, Session};
use crate::machine::time::{BIND_PATIENCE, CHANNEL_PATIENCE, FADE, LOST_PATIENCE, Timer};
use crate::refused::Refused;

/// Live sessions of a Gateway.
pub(super) const SESSIONS_MAX: usize = 16_384;
/// Open channels without a session. Each is a device's with a good certificate; a newer one of the same session name takes
/// the place of the older.
const WAITING_MAX: usize = 1_024;
/// What a device says of itself: statements, and bytes of each name and value.
const DEVICE_CLAIMS_MAX: usize = 64;
const DEVICE_CLAIM_BYTES_MAX: usize = 1_024;

impl Admission {
    /// A client has opened its channel over TLS with its certificate. `session_id` is random.
    pub fn channel_opened(&mut self, id: ChannelId, peer: PeerIdentity, session_id: [u8; 16], now: Moment) {
        let dn: Arc<str> = peer.session().map(ToString::to_string).unwrap_or_default().into();
        let certificate = Certificate::of(&peer, now);
        let judged = self.judge_peer(&peer, &certificate, now);
        let patience = now.boot + CHANNEL_PATIENCE;
        let channel = Channel {
            dn: Arc::clone(&dn),
            session_id,
            certificate,
            held: None,
            bind: None,
            had_session: false,
            patience,
        };
        self.channels.insert(id, channel);
        if let Err(refused) = judged {
            return self.goodbye(id, &refused, now);
        }
        match self.waiting.get(&dn).copied() {
            Some(older) => self.goodbye(older, &Refused::Replaced, now),
            None if self.waiting.len() >= WAITING_MAX => {
                let refused = Refused::TooMany { what: "channels without a session", max: WAITING_MAX };
                return self.goodbye(id, &refused, now);
            }
            None => {}
        }
        self.waiting.insert(dn, id);
        self.timers.add(patience, Timer::Channel(id));
        self.send(id, ToClient::Welcome { session: session_id, time: now.wall });
    }

    /// Somebody was refused before there was a channel; `code` is one of [`crate::codes`].
    pub fn peer_refused(&mut self, code: &'static str, detail: String, now: Moment) {
        self.refuse(&Refused::Peer { code, detail }, None, now);
    }

    /// A channel was lost. Its session, if it has one, goes on for 60 s.
    pub fn channel_closed(&mut self, id: ChannelId, now: Moment) {
        let was_attached = self.is_attached(id);
        let Some(channel) = self.forget_channel(id) else { return };
        if let Some((dn, _)) = self.sessions.get_key_value(&channel.dn).filter(|_| was_attached) {
            let dn = Arc::clone(dn);
            if let Some(session) = self.sessions.get_mut(&dn) {
                session.lost_at = Some(now.boot);
            }
            self.timers.add(now.boot + LOST_PATIENCE, Timer::Session(dn));
        }
    }

    /// A client says something.
    pub fn channel_message(&mut self, id: ChannelId, message: FromClient, now: Moment) {
        let done = match message {
            FromClient::Present { claims, entitlement, device } => {
                self.present(id, &claims, &entitlement, device, now).map(|()| self.try_bind(id, now))
            }
            FromClient::Bind { tunnel, exported } => {
                self.note_bind(id, Bind { tunnel, exported, deadline: now.boot + BIND_PATIENCE });
                self.try_bind(id, now);
                Ok(())
            }
            FromClient::Malformed { detail } => Err(Refused::Malformed { detail }),
        };
        if let Err(refused) = done {
            self.refuse_channel(id, &refused, now);
        }
    }

    fn present(
        &mut self,
        id: ChannelId,
        claims: &str,
        presented_text: &str,
        device: BTreeMap<String, String>,
        now: Moment,
    ) -> Result<(), Refused> {
        let Some(channel) = self.channels.get(&id) else { return Ok(()) };
        let (dn, certificate) = (Arc::clone(&channel.dn), channel.certificate.clone());
        check_device(&device)?;
        if !self.sessions.contains_key(&dn) && !channel.had_session {
            self.admitting(now)?;
        }
        let claims: Verified<ClaimsToken> =
            self.verify(claims, &self.audiences.site, Holder::Key(&certificate.key), now)?;
        let names = claims.sub == *dn && names_user(&dn, &claims.user);
        if !names {
            return Err(Refused::SubjectMismatch {
                expected: "a claims token about the session that the certificate names",
            });
        }
        let presented = self.verify(presented_text, &self.audiences.site, Holder::Key(&certificate.key), now)?;
        check_together(&claims, &presented)?;
        let (entitlement, newer) = self.newest(&dn, &claims, &certificate, presented, now)?;

        let attached = self.is_attached(id);
        let before = self.sessions.get(&dn).map(|session| &session.held).or(channel.held.as_ref());
        let mut held = Held::new(claims, entitlement, certificate, device, before, now);
        self.compiler.check_inner(&held.entitlement.inner)?;
        let rules = self.compiler.compile(&held.entitlement.grants)?;
        let renewal = judge(&self.deny, &mut held, now)?;
        let mut deadline = held.ends();
        if let Some(session) = self.sessions.get(&dn).filter(|_| attached) {
            let tunnel = self.tunnels.get(&session.tunnel);
            deadline = tunnel.map_or(deadline, |tunnel| deadline.min(tunnel.certificate.until));
        }
        if deadline.at <= now.boot {
            return Err(Refused::Expired { at: deadline.ends_at });
        }
        let token = held.entitlement.clone();
        if self.seen.record(&dn, token.seq, token.exp, None, now.wall)? {
            self.write_sequences(now);
        }

        let spread = Arc::clone(&rules);
        match self.sessions.get_mut(&dn).filter(|_| attached) {
            Some(session) => {
                (session.held, session.rules, session.deadline) = (held, rules, deadline);
                self.install(&dn);
                self.plan_notice(&dn, now);
            }
            None => {
                if let Some(channel) = self.channels.get_mut(&id) {
                    channel.held = Some(held);
                }
            }
        }
        self.send(id, ToClient::Accepted { seq: token.seq, ends_at: deadline.ends_at });
        if let Some(text) = &newer {
            self.send(id, ToClient::Entitlement { token: text.clone() });
        }
        if let Some(message) = renewal {
            self.send(id, message);
        }
        self.spread(&token, &spread, newer.as_deref().unwrap_or(presented_text), now);
        Ok(())
    }

    /// A text becomes a believed token, or the reason why not.
    pub(super) fn verify<T: Token>(
        &self,
        text: &str,
        audience: &str,
        holder: Holder<'_>,
        now: Moment,
    ) -> Result<Verified<T>, Refused> {
        let expectation = Expectation { audience, holder, now: now.wall, deny: &self.deny };
        Ok(self.verifier.verify(&Signed::from_text(text)?, &expectation)?)
    }

    /// The entitlement token that counts: the presented one, or a newer one that was pushed, with its text.
    fn newest(
        &self,
        dn: &str,
        claims: &ClaimsToken,
        certificate: &Certificate,
        presented: Verified<EntitlementToken>,
        now: Moment,
    ) -> Result<(Verified<EntitlementToken>, Option<String>), Refused> {
        let Some(newest) = self.seen.newest(dn).filter(|newest| *newest > presented.seq) else {
            return Ok((presented, None));
        };
        let old = Refused::SequenceOld { what: "an entitlement token", newest, found: presented.seq };
        let text = self.seen.pushed(dn).ok_or_else(|| old.clone())?;
        let pushed = self.verify(text, &self.audiences.site, Holder::Key(&certificate.key), now);
        match pushed {
            Ok(pushed) if check_together(claims, &pushed).is_ok() => Ok((pushed, Some(text.into()))),
            _ => Err(old),
        }
    }

    fn note_bind(&mut self, id: ChannelId, bind: Bind) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        self.timers.add(bind.deadline, Timer::Channel(id));
        let before = channel.bind.replace(bind);
        if let Some(before) = before {
            self.binding.remove(&(before.tunnel, id));
        }
        self.binding.insert((bind.tunnel, id));
    }

    /// Binds the tunnel that the channel asks for, once tunnel, tokens and Bind are all there, in whatever order they came.
    pub(super) fn try_bind(&mut self, id: ChannelId, now: Moment) {
        match self.check_bind(id, now) {
            Ok(Some(tunnel)) => self.bind(id, tunnel, now),
            Ok(None) => {}
            Err(refused) => self.refuse_channel(id, &refused, now),
        }
    }

    /// The tunnel that the channel may have now; `None` while something is missing.
    fn check_bind(&self, id: ChannelId, now: Moment) -> Result<Option<SessionId>, Refused> {
        let Some(channel) = self.channels.get(&id) else { return Ok(None) };
        let Some(bind) = &channel.bind else { return Ok(None) };
        let Some(tunnel_id) = self.by_name.get(&bind.tunnel) else { return Ok(None) };
        let Some(tunnel) = self.tunnels.get(tunnel_id) else { return Ok(None) };
        let is_clients = binding::is_by_client(&tunnel.exporter, &channel.session_id, &bind.exported);
        if !is_clients || tunnel.certificate.key != channel.certificate.key || tunnel.dn != channel.dn {
            return Err(Refused::BindingFailed);
        }
        let session = self.sessions.get(&channel.dn);
        let attached = session.filter(|session| session.channel == Some(id));
        let Some(held) = attached.map(|session| &session.held).or(channel.held.as_ref()) else { return Ok(None) };
        let newest = self.seen.newest(&channel.dn).unwrap_or_default();
        if attached.is_none() && held.entitlement.seq < newest {
            let found = held.entitlement.seq;
            return Err(Refused::SequenceOld { what: "an entitlement token", newest, found });
        }
        let goes_on = attached.is_some() || channel.had_session || session.is_some_and(|it| it.tunnel == *tunnel_id);
        if !goes_on {
            self.admitting(now)?;
        }
        if session.is_none() && self.sessions.len() >= SESSIONS_MAX {
            return Err(Refused::TooMany { what: "sessions", max: SESSIONS_MAX });
        }
        let deadline = held.ends().min(tunnel.certificate.until);
        if deadline.at <= now.boot {
            return Err(Refused::Expired { at: deadline.ends_at });
        }
        Ok(Some(*tunnel_id))
    }

    fn bind(&mut self, id: ChannelId, tunnel_id: SessionId, now: Moment) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let (dn, session_id) = (Arc::clone(&channel.dn), channel.session_id);
        if let Some(bind) = channel.bind.take() {
            self.binding.remove(&(bind.tunnel, id));
        }
        let held = channel.held.as_ref().or(self.sessions.get(&dn).map(|session| &session.held));
        let Some((held, tunnel)) = held.zip(self.tunnels.get(&tunnel_id)) else { return };
        let (deadline, key) = (held.ends().min(tunnel.certificate.until), held.certificate.key);
        let bound =
            ToClient::Bound { exported: binding::by_gateway(&tunnel.exporter, &session_id), tunnel: tunnel.name };
        let rules = match self.compiler.compile(&held.entitlement.grants) {
            Ok(rules) => rules,
            Err(refused) => return self.refuse_channel(id, &refused, now),
        };

        let own = channel.held.take();
        self.end_fading(&dn);
        let old = self.sessions.remove(&dn);
        // The client's own packets are on their way through the tunnel that this one follows; another key's are not its own.
        let follows = old.as_ref().filter(|old| old.tunnel != tunnel_id && old.held.certificate.key == key);
        let fading = follows.map(|old| old.tunnel);
        let older = old.as_ref().map(|old| (old.channel, old.tunnel));
        let in_force = old.as_ref().map(|old| (old.tunnel, old.inner(), Arc::clone(&old.rules), old.deadline));
        let Some(held) = own.or_else(|| old.map(|old| old.held)) else { return };
        let session = Session {
            channel: Some(id),
            lost_at: None,
            tunnel: tunnel_id,
            held,
            rules,
            deadline,
            fading: None,
            notice: None,
        };
        // A running tunnel that comes back to the same rules is not disturbed.
        let is_in_force = in_force.is_some_and(|(tunnel, inner, rules, deadline)| {
            (tunnel, inner, deadline) == (session.tunnel, session.inner(), session.deadline)
                && Arc::ptr_eq(&rules, &session.rules)
        });
        self.sessions.insert(Arc::clone(&dn), session);
        if self.waiting.get(&dn) == Some(&id) {
            self.waiting.remove(&dn);
        }
        if !is_in_force {
            self.install(&dn);
        }
        if let Some(session) = self.sessions.get_mut(&dn) {
            session.fading = fading;
        }
        self.plan_notice(&dn, now);
        self.send(id, bound);
        if self.is_draining() {
            self.send(id, ToClient::Draining);
        }
        if let Some((older_channel, older_tunnel)) = older {
            if let Some(older_channel) = older_channel.filter(|older| *older != id) {
                self.goodbye(older_channel, &Refused::Replaced, now);
            }
            match fading {
                Some(fading) => {
                    self.let_go(fading);
                    self.timers.add(now.boot + FADE, Timer::Linger(fading));
                }
                None if older_tunnel != tunnel_id => self.remove_tunnel(older_tunnel),
                None => {}
            }
        }
    }
}

/// How what is held stands with the deny list: refused when it is dead, noted when its renewal is demanded. Gives what the
/// client is to be told.
pub(super) fn judge(deny: &DenyList, held: &mut Held, now: Moment) -> Result<Option<ToClient>, Refused> {
    let (renewal, message) = match held.standing(deny, now) {
        Standing::Revoked { serial, reason } => return Err(Refused::Revoked { serial, reason: reason.into() }),
        Standing::RenewBy { by, reason, .. } => (Some(by), Some(ToClient::RenewBy { time: by, reason: reason.into() })),
        Standing::Good => (None, None),
    };
    held.set_renewal(renewal, now);
    Ok(message)
}

/// Whether `dn` is the name of a session of the user.
pub(super) fn names_user(dn: &str, user: &str) -> bool {
    dn.parse::<SessionDn>().is_ok_and(|dn| dn.user() == user)
}

fn check_device(device: &BTreeMap<String, String>) -> Result<(), Refused> {
    let fits = |text: &String| text.len() <= DEVICE_CLAIM_BYTES_MAX;
    if device.len() > DEVICE_CLAIMS_MAX || !device.iter().all(|(name, value)| fits(name) && fits(value)) {
        let detail = format!(
            "expected at most {DEVICE_CLAIMS_MAX} statements about the device with at most {DEVICE_CLAIM_BYTES_MAX} bytes in name and value, found more: say less"
        );
        return Err(Refused::Malformed { detail });
    }
    Ok(())
}

/// Both tokens are of one login.
pub(super) fn check_together(claims: &ClaimsToken, entitlement: &EntitlementToken) -> Result<(), Refused> {
    let together =
        (&entitlement.sub, &entitlement.user, entitlement.generation) == (&claims.sub, &claims.user, claims.generation);
    if !together {
        let expected = "an entitlement token of the claims token's session, user and generation";
        return Err(Refused::SubjectMismatch { expected });
    }
    Ok(())
}
