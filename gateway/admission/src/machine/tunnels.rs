//! What the workers tell.

use std::net::SocketAddr;
use std::sync::Arc;

use ringfort_dtls::ExporterSecret;
use ringfort_engine::gateway::Event;
use ringfort_identity::{PeerIdentity, Role};
use ringfort_packet::flow::FlowKey;
use ringfort_token::Standing;
use ringfort_types::{RuleId, SessionId};

use crate::binding;
use crate::denials::destination;
use crate::held::Certificate;
use crate::interface::{Moment, ToClient};
use crate::machine::Admission;
use crate::machine::tables::Tunnel;
use crate::machine::time::{CHANNEL_PATIENCE, Timer};
use crate::refused::Refused;

impl Admission {
    /// A worker tells something.
    pub fn handle_event(&mut self, event: Event, now: Moment) {
        match event {
            Event::Authenticated { session, peer, outer, exporter } => {
                self.authenticated(session, &peer, outer, exporter, now);
            }
            Event::RulesApplied { session, .. } => {
                if let Some(tunnel) = self.tunnels.get_mut(&session) {
                    tunnel.confirmed += 1;
                    self.effects.confirmed(session, tunnel.confirmed);
                }
            }
            Event::Moved { session, outer } => {
                if let Some(tunnel) = self.tunnels.get_mut(&session) {
                    tunnel.outer = outer;
                }
            }
            Event::Denied { session, flow, rule } => self.denied(session, flow, rule),
            Event::Ended { session, .. } => self.ended(session, now),
            Event::HandshakeFailed { .. } => {}
        }
    }

    fn authenticated(
        &mut self,
        id: SessionId,
        peer: &PeerIdentity,
        outer: SocketAddr,
        exporter: ExporterSecret,
        now: Moment,
    ) {
        let dn: Arc<str> = peer.session().map(ToString::to_string).unwrap_or_default().into();
        let certificate = Certificate::of(peer, now);
        let judged = self.judge_peer(peer, &certificate, now);
        let name = binding::name_of(&exporter);
        let device = peer.id().into();
        let tunnel =
            Tunnel { dn: Arc::clone(&dn), device, certificate, outer, exporter, name, installed: 0, confirmed: 0 };
        self.tunnels.insert(id, tunnel);
        if let Err(refused) = judged {
            self.refuse(&refused, Some(&dn).filter(|dn| !dn.is_empty()).map(|dn| &**dn), now);
            self.remove_tunnel(id);
            return;
        }
        self.by_name.insert(name, id);
        let channels: Vec<_> =
            self.binding.iter().filter(|(tunnel, _)| *tunnel == name).map(|(_, channel)| *channel).collect();
        for channel in channels {
            self.try_bind(channel, now);
        }
    }

    /// Whether a peer may have sessions at all: a device whose certificate names a session and stands well.
    pub(super) fn judge_peer(
        &self,
        peer: &PeerIdentity,
        certificate: &Certificate,
        now: Moment,
    ) -> Result<(), Refused> {
        let names_session =
            peer.role() == Role::Device && peer.session().is_some_and(|dn| dn.organisation() == self.verifier.issuer());
        if !names_session {
            return Err(Refused::SubjectMismatch { expected: "a device's certificate whose subject names a session" });
        }
        match certificate.standing(&self.deny) {
            Standing::Revoked { serial, reason } => Err(Refused::CertificateRevoked { serial, reason: reason.into() }),
            Standing::RenewBy { by, serial, reason } if by <= now.wall => {
                Err(Refused::CertificateRevoked { serial, reason: reason.into() })
            }
            Standing::RenewBy { .. } | Standing::Good => Ok(()),
        }
    }

    fn denied(&mut self, id: SessionId, flow: FlowKey, rule: Option<RuleId>) {
        let Some(tunnel) = self.tunnels.get(&id) else { return };
        let Some(session) = self.sessions.get(&tunnel.dn).filter(|session| session.tunnel == id) else { return };
        self.denials.record(&session.held.name, flow, rule);
        let Some(channel) = session.channel else { return };
        let (destination, name) = (destination(&flow), self.rule_name(rule).to_owned());
        let reason = match rule {
            None => format!("nothing that this session is entitled to covers {destination}"),
            Some(_) => format!("the rule {name} denies {destination}"),
        };
        self.send(channel, ToClient::Denied { destination, rule: name, reason });
    }

    fn ended(&mut self, id: SessionId, now: Moment) {
        let Some(tunnel) = self.tunnels.get(&id) else { return };
        let dn = Arc::clone(&tunnel.dn);
        let is_bound = self.sessions.get(&dn).is_some_and(|session| session.tunnel == id);
        if tunnel.installed > 0 {
            // The owner has ended it; the other workers forget where it was.
            self.remove_tunnel(id);
        } else {
            self.let_go(id);
        }
        self.tunnels.remove(&id);
        self.effects.confirmed(id, u64::MAX);
        if is_bound {
            self.end_fading(&dn);
        }
        let session = if is_bound { self.sessions.remove(&dn) } else { None };
        let Some(session) = session else { return };
        // The channel stays, and may bind another tunnel.
        let Some(channel) = session.channel else { return };
        if self.waiting.contains_key(&dn) {
            return self.goodbye(channel, &Refused::Replaced, now);
        }
        self.waiting.insert(dn, channel);
        if let Some(open) = self.channels.get_mut(&channel) {
            open.held = Some(session.held);
            open.had_session = true;
            open.patience = now.boot + CHANNEL_PATIENCE;
            self.timers.add(open.patience, Timer::Channel(channel));
        }
        self.try_bind(channel, now);
    }
}
