//! One site's connection as a machine without I/O: which Gateway, when to open a channel, when a tunnel may carry packets, what
//! is told when something ends (C12, C15, A11, A15).
//!
//! ```text
//!            due               opened           Welcome            Accepted, tunnel established      Bound, as expected
//!  Closed ────────▶ Opening ──────────▶ Open ───────────▶ presented ───────────────────▶ binding ──────────────▶ bound
//!    ▲                 │                  │ lost, Goodbye that may be tried again                                   │
//!    └─────────────────┴──────────────────┴────────────────────────────────────────────────────────────────────────┘
//!  Ended ◀── Goodbye that says these tokens are of no use; renewed ones, or a login, lead back to Closed
//! ```
//!
//! The tunnel runs beside: it is started with the Gateway's Welcome, and goes on while a channel is lost, so that a new channel
//! can bind it again. Inputs are `handle_*` and `set_*`, what is to be done comes from [`Site::poll_action`].

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::constant_time;
use ringfort_dtls::{EXPORTED_BYTES, ExporterSecret};
use ringfort_engine::client::TunnelNumber;
use ringfort_proto::v1::{Bind, Bound, Denied, Goodbye, Present, ToClient, ToGateway, to_client, to_gateway};
use ringfort_types::BootInstant;

/// Pause before a channel is tried again; doubles up to the second value.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long the Gateway may take for each of its answers.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the same Gateway is tried again while the tunnel to it runs: it keeps the session for 60 s.
const HOLD_MAX: Duration = Duration::from_secs(50);
/// Tunnels that came to nothing, with the channel open, before another Gateway is tried.
const DOWNS_MAX: u32 = 3;
/// Denials kept for the status.
const DENIALS_MAX: usize = 64;

/// Exporter labels of `docs/CONTROL.md`.
const LABEL_TUNNEL: &str = "EXPORTER-ringfort-tunnel-v1";
const LABEL_CLIENT: &str = "EXPORTER-ringfort-c2g-v1";
const LABEL_GATEWAY: &str = "EXPORTER-ringfort-g2c-v1";
/// Bytes of a tunnel's name and of a session's id.
const TUNNEL_ID_BYTES: usize = 16;
const SESSION_ID_BYTES: usize = 16;

/// Goodbyes after which only another login helps.
const CODES_FINAL: [&str; 4] = ["revoked", "certificate_revoked", "replaced", "subject_mismatch"];
/// Goodbyes that say nothing about the tokens: the same or another Gateway is tried.
const CODES_AGAIN: [&str; 6] =
    ["not_admitting", "binding_failed", "tunnel_unknown", "channel_lost", "stopping", "too_many_sessions"];

/// A Gateway of the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SiteGateway {
    /// Its id.
    pub(crate) id: Box<str>,
    /// Where it listens, UDP and TCP.
    pub(crate) address: SocketAddr,
    /// Digests of the certificates it may show (C12).
    pub(crate) digests: Vec<[u8; 32]>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Open a channel to this Gateway, in place of any other.
    Open(SiteGateway),
    /// Close the channel.
    Close,
    /// Send this on the channel.
    Say(ToGateway),
    /// Run a tunnel to this Gateway, in place of any other.
    StartTunnel(SiteGateway),
    /// End the tunnel.
    StopTunnel,
    /// Packets may pass the tunnel of this number.
    Release(TunnelNumber),
    /// The Gateway passed on an entitlement token.
    Pushed(String),
    /// The Gateway asks for renewed tokens; it asks again if it is shown some that are too old.
    RenewAsked,
    /// The tokens are to be renewed now.
    Renew,
    /// The Gateway would be rid of the session: another one is to be gone to, beside this one.
    Go,
}

/// One site.
#[derive(Debug)]
pub(crate) struct Site {
    gateways: Vec<SiteGateway>,
    at: usize,
    present: Present,
    channel: Channel,
    tunnel: Tunnel,
    pause: Duration,
    lost_since: Option<BootInstant>,
    downs: u32,
    /// Whether a renewal was asked for because of a Goodbye, and nothing was bound since.
    renewed_for_goodbye: bool,
    /// The Gateway of this channel has asked to be left.
    is_asked_to_go: bool,
    seq: u64,
    ends_at: u64,
    denials: VecDeque<Denied>,
    goodbye: Option<Goodbye>,
    trouble: String,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
enum Channel {
    Closed { retry_at: BootInstant },
    Opening,
    Open(Open),
    Ended(Until),
}

/// What an end lasts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// Renewed tokens.
    Renewal,
    /// Another login.
    Login,
}

#[derive(Debug)]
struct Open {
    gateway_digest: [u8; 32],
    stage: Stage,
    /// By when the Gateway must have answered; `None` when nothing is asked of it.
    answer_by: Option<BootInstant>,
}

#[derive(Debug)]
enum Stage {
    /// Waiting for Welcome.
    Greeted,
    /// Waiting for Accepted.
    Presented {
        session: [u8; SESSION_ID_BYTES],
    },
    /// Waiting for a tunnel.
    Accepted {
        session: [u8; SESSION_ID_BYTES],
    },
    /// Waiting for Bound.
    Binding {
        session: [u8; SESSION_ID_BYTES],
        number: TunnelNumber,
        tunnel: [u8; TUNNEL_ID_BYTES],
        expected: [u8; EXPORTED_BYTES],
    },
    Bound {
        session: [u8; SESSION_ID_BYTES],
    },
}

#[derive(Debug, Default)]
struct Tunnel {
    /// The Gateway that it leads to.
    gateway: Option<Box<str>>,
    established: Option<Established>,
    /// The Gateway has let us in.
    is_admitted: bool,
    released: bool,
}

#[derive(Debug)]
struct Established {
    number: TunnelNumber,
    gateway_digest: [u8; 32],
    exporter: ExporterSecret,
}

impl Site {
    /// A site with these Gateways, the preferred one first, where `present` is to be shown. It begins at once.
    pub(crate) fn new(gateways: Vec<SiteGateway>, present: Present, now: BootInstant) -> Self {
        Self {
            gateways,
            at: 0,
            present,
            channel: Channel::Closed { retry_at: now },
            tunnel: Tunnel::default(),
            pause: PAUSE_FIRST,
            lost_since: None,
            downs: 0,
            renewed_for_goodbye: false,
            is_asked_to_go: false,
            seq: 0,
            ends_at: 0,
            denials: VecDeque::new(),
            goodbye: None,
            trouble: String::new(),
            actions: VecDeque::new(),
        }
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: BootInstant) {
        match &self.channel {
            Channel::Closed { retry_at } if now >= *retry_at => {
                // A site without a Gateway waits for one.
                if let Some(gateway) = self.gateways.get(self.at).cloned() {
                    self.channel = Channel::Opening;
                    self.actions.push_back(Action::Open(gateway));
                }
            }
            Channel::Open(Open { answer_by: Some(by), .. }) if now >= *by => {
                self.lose(format!("the Gateway did not answer within {ANSWER_TIME_MAX:?}"), now);
            }
            _ => {}
        }
    }

    /// When [`Site::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<BootInstant> {
        match &self.channel {
            Channel::Closed { retry_at } if !self.gateways.is_empty() => Some(*retry_at),
            Channel::Open(open) => open.answer_by,
            _ => None,
        }
    }

    /// The next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The channel is open; `gateway_digest` is that of the certificate at its other end.
    pub(crate) fn handle_opened(&mut self, gateway_digest: [u8; 32], now: BootInstant) {
        if matches!(self.channel, Channel::Opening) {
            let answer_by = Some(now + ANSWER_TIME_MAX);
            self.channel = Channel::Open(Open { gateway_digest, stage: Stage::Greeted, answer_by });
        }
    }

    /// The channel could not be opened, or was lost.
    pub(crate) fn handle_closed(&mut self, why: String, now: BootInstant) {
        if matches!(self.channel, Channel::Opening | Channel::Open(_)) {
            self.lose(why, now);
        }
    }

    /// The machine has another address: whatever channel there is ends at the old one. The tunnel goes on and is bound again.
    pub(crate) fn handle_network_changed(&mut self, now: BootInstant) {
        if matches!(self.channel, Channel::Opening | Channel::Open(_)) {
            self.pause = Duration::ZERO;
            self.lose("this machine's address has changed".into(), now);
            self.pause = PAUSE_FIRST;
        }
    }

    /// The Gateway said something.
    pub(crate) fn handle_message(&mut self, message: ToClient, now: BootInstant) {
        use to_client::Say;
        if !matches!(self.channel, Channel::Open(_)) {
            return;
        }
        match message.say {
            Some(Say::Welcome(welcome)) => self.welcome(&welcome.session, now),
            Some(Say::Accepted(accepted)) => {
                (self.seq, self.ends_at) = (accepted.seq, accepted.ends_at);
                if let Channel::Open(open) = &mut self.channel
                    && let Stage::Presented { session } = open.stage
                {
                    (open.stage, open.answer_by) = (Stage::Accepted { session }, None);
                }
                self.try_bind(now);
            }
            Some(Say::Bound(bound)) => self.bound(&bound, now),
            Some(Say::Denied(denied)) => {
                if self.denials.len() == DENIALS_MAX {
                    self.denials.pop_front();
                }
                self.denials.push_back(denied);
            }
            Some(Say::Entitlement(entitlement)) => self.actions.push_back(Action::Pushed(entitlement.token)),
            Some(Say::RenewBy(_)) => self.actions.push_back(Action::RenewAsked),
            Some(Say::Draining(_)) => {
                self.is_asked_to_go = true;
                self.actions.push_back(Action::Go);
            }
            Some(Say::Goodbye(goodbye)) => self.take_leave(goodbye, now),
            // Of a later version.
            None => {}
        }
    }

    /// A handshake with the Gateway is finished.
    pub(crate) fn handle_established(
        &mut self,
        number: TunnelNumber,
        gateway_digest: [u8; 32],
        exporter: ExporterSecret,
        now: BootInstant,
    ) {
        self.tunnel.established = Some(Established { number, gateway_digest, exporter });
        (self.tunnel.is_admitted, self.tunnel.released) = (false, false);
        self.unbind();
        self.try_bind(now);
    }

    /// The Gateway has let the tunnel in.
    pub(crate) fn handle_up(&mut self) {
        self.tunnel.is_admitted = true;
    }

    /// The tunnel is down; its worker tries again by itself.
    pub(crate) fn handle_down(&mut self, why: String, now: BootInstant) {
        self.trouble = why;
        self.tunnel.established = None;
        (self.tunnel.is_admitted, self.tunnel.released) = (false, false);
        self.unbind();
        if !matches!(self.channel, Channel::Open(_)) {
            // It begins anew with the next Welcome.
            return self.stop_tunnel();
        }
        self.downs += 1;
        if self.downs >= DOWNS_MAX && self.gateways.len() > 1 {
            self.downs = 0;
            self.lose(format!("no tunnel: {}", self.trouble), now);
        }
    }

    /// The tunnel that was to be started could not be.
    pub(crate) fn handle_tunnel_failed(&mut self, why: String, now: BootInstant) {
        self.tunnel = Tunnel::default();
        self.lose(why, now);
    }

    /// New tokens: they are shown at once, and make an end that tokens brought about undone.
    pub(crate) fn set_tokens(&mut self, present: Present, now: BootInstant) {
        self.present = present;
        match &mut self.channel {
            Channel::Ended(Until::Renewal) => self.channel = Channel::Closed { retry_at: now },
            Channel::Open(open) if !matches!(open.stage, Stage::Greeted) => {
                self.actions.push_back(Action::Say(say(to_gateway::Say::Present(self.present.clone()))));
            }
            _ => {}
        }
    }

    /// Somebody has logged in again: whatever ended begins anew.
    pub(crate) fn begin_anew(&mut self, now: BootInstant) {
        if self.is_ended() {
            self.channel = Channel::Closed { retry_at: now };
        }
    }

    /// The entitlement token that the Gateway passed on was believed; it need not be shown.
    pub(crate) fn set_pushed(&mut self, token: String, seq: u64) {
        self.present.entitlement = token;
        self.seq = seq;
    }

    /// The site's Gateways have changed. The one in use stays in use while it is among them, at the same address if it has that still.
    pub(crate) fn set_gateways(&mut self, gateways: Vec<SiteGateway>) {
        let current = self.gateways.get(self.at).map(|gateway| (gateway.id.clone(), gateway.address));
        let place = |same: &dyn Fn(&SiteGateway) -> bool| gateways.iter().position(same);
        self.at = current
            .and_then(|(id, address)| {
                let here = place(&|gateway| gateway.id == id && gateway.address == address);
                here.or_else(|| place(&|gateway| gateway.id == id))
            })
            .unwrap_or(0);
        self.gateways = gateways;
    }

    /// We have a new certificate: channel and tunnel begin anew with it.
    pub(crate) fn set_certificate(&mut self, now: BootInstant) {
        if self.is_ended() {
            return;
        }
        self.stop_tunnel();
        self.actions.push_back(Action::Close);
        self.channel = Channel::Closed { retry_at: now };
    }

    fn welcome(&mut self, session: &[u8], now: BootInstant) {
        let Channel::Open(open) = &mut self.channel else { return };
        let (Stage::Greeted, Ok(session)) = (&open.stage, session.try_into()) else {
            return self.lose("expected one Welcome with a session id of 16 bytes".into(), now);
        };
        (open.stage, open.answer_by) = (Stage::Presented { session }, Some(now + ANSWER_TIME_MAX));
        self.is_asked_to_go = false;
        let Some(gateway) = self.gateways.get(self.at).cloned() else { return };
        if self.tunnel.gateway.as_ref() != Some(&gateway.id) {
            self.stop_tunnel();
            self.tunnel.gateway = Some(gateway.id.clone());
            self.actions.push_back(Action::StartTunnel(gateway));
        }
        self.actions.push_back(Action::Say(say(to_gateway::Say::Present(self.present.clone()))));
    }

    /// Binds the tunnel to the channel when both are there and not bound yet.
    fn try_bind(&mut self, now: BootInstant) {
        let (Channel::Open(open), Some(tunnel)) = (&mut self.channel, &self.tunnel.established) else { return };
        let Stage::Accepted { session } = open.stage else { return };
        if open.gateway_digest != tunnel.gateway_digest {
            self.stop_tunnel();
            return self.lose("channel and tunnel end at different certificates; nothing was sent".into(), now);
        }
        let mut name = [0; TUNNEL_ID_BYTES];
        name.copy_from_slice(&tunnel.exporter.export(LABEL_TUNNEL, &[])[..TUNNEL_ID_BYTES]);
        let exported = tunnel.exporter.export(LABEL_CLIENT, &session).to_vec().into();
        let expected = tunnel.exporter.export(LABEL_GATEWAY, &session);
        open.stage = Stage::Binding { session, number: tunnel.number, tunnel: name, expected };
        open.answer_by = Some(now + ANSWER_TIME_MAX);
        let bind = Bind { tunnel: name.to_vec().into(), exported };
        self.actions.push_back(Action::Say(say(to_gateway::Say::Bind(bind))));
    }

    fn bound(&mut self, bound: &Bound, now: BootInstant) {
        let Channel::Open(open) = &mut self.channel else { return };
        let Stage::Binding { session, number, tunnel, expected } = &open.stage else { return };
        if bound.tunnel != tunnel[..] {
            // Of a tunnel that has gone down since.
            return;
        }
        if constant_time::verify_slices_are_equal(&bound.exported, expected).is_err() {
            self.stop_tunnel();
            return self
                .lose("the Gateway's end of the tunnel is not that of the channel; nothing was sent".into(), now);
        }
        let (session, number) = (*session, *number);
        (open.stage, open.answer_by) = (Stage::Bound { session }, None);
        self.tunnel.released = true;
        (self.pause, self.lost_since, self.downs) = (PAUSE_FIRST, None, 0);
        self.renewed_for_goodbye = false;
        self.trouble.clear();
        self.actions.push_back(Action::Release(number));
    }

    /// The tunnel that was bound, or about to be, is no more.
    fn unbind(&mut self) {
        if let Channel::Open(open) = &mut self.channel
            && let Stage::Binding { session, .. } | Stage::Bound { session } = open.stage
        {
            (open.stage, open.answer_by) = (Stage::Accepted { session }, None);
        }
    }

    fn take_leave(&mut self, goodbye: Goodbye, now: BootInstant) {
        let code = goodbye.code.clone();
        let (text, is_again) = (format!("{} [{code}]", goodbye.message), CODES_AGAIN.contains(&code.as_str()));
        self.goodbye = Some(goodbye);
        if code != "channel_lost" {
            self.stop_tunnel();
        }
        if is_again {
            return self.lose(text, now);
        }
        self.trouble = text;
        self.actions.push_back(Action::Close);
        if CODES_FINAL.contains(&code.as_str()) {
            self.channel = Channel::Ended(Until::Login);
            return;
        }
        self.channel = Channel::Ended(Until::Renewal);
        if !self.renewed_for_goodbye {
            self.renewed_for_goodbye = true;
            self.actions.push_back(Action::Renew);
        }
    }

    fn stop_tunnel(&mut self) {
        if self.tunnel.gateway.is_some() {
            self.tunnel = Tunnel::default();
            self.actions.push_back(Action::StopTunnel);
        }
    }

    /// The channel is gone: another attempt follows, with the same Gateway while the tunnel to it carries packets.
    fn lose(&mut self, why: String, now: BootInstant) {
        self.trouble = why;
        self.actions.push_back(Action::Close);
        let since = *self.lost_since.get_or_insert(now);
        let holds = self.tunnel.released && now.saturating_since(since) < HOLD_MAX;
        if !holds && !self.gateways.is_empty() {
            self.at = (self.at + 1) % self.gateways.len();
        }
        self.channel = Channel::Closed { retry_at: now + self.pause };
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// What is shown.
    pub(crate) const fn present(&self) -> &Present {
        &self.present
    }

    /// The site's Gateways, the preferred one first.
    pub(crate) fn gateways(&self) -> &[SiteGateway] {
        &self.gateways
    }

    /// Whether the Gateway that has our session asks us to go to another one.
    pub(crate) const fn is_asked_to_go(&self) -> bool {
        self.is_asked_to_go && self.is_bound()
    }

    /// The preferred one of the site's other Gateways.
    pub(crate) fn elsewhere(&self) -> Option<&SiteGateway> {
        let here = self.gateway()?;
        self.gateways.iter().find(|gateway| gateway.id != here.id)
    }

    /// Whether there is a Gateway to go to.
    pub(crate) fn has_gateway(&self) -> bool {
        !self.gateways.is_empty()
    }

    /// The Gateway in use, or to be tried next.
    pub(crate) fn gateway(&self) -> Option<&SiteGateway> {
        self.gateways.get(self.at)
    }

    /// Whether a channel is open and bound to the tunnel.
    pub(crate) const fn is_bound(&self) -> bool {
        matches!(&self.channel, Channel::Open(Open { stage: Stage::Bound { .. }, .. }))
    }

    /// Whether packets pass.
    pub(crate) const fn is_up(&self) -> bool {
        self.tunnel.is_admitted && self.tunnel.released
    }

    /// Whether nothing is tried any more with these tokens.
    pub(crate) const fn is_ended(&self) -> bool {
        matches!(self.channel, Channel::Ended(_))
    }

    /// Sequence number of the entitlement token in force, and when the session ends, both as the Gateway says.
    pub(crate) const fn standing(&self) -> (u64, u64) {
        (self.seq, self.ends_at)
    }

    /// The last denials, the oldest first.
    pub(crate) fn denials(&self) -> impl Iterator<Item = &Denied> {
        self.denials.iter()
    }

    /// What a Gateway said last when it ended a channel.
    pub(crate) const fn goodbye(&self) -> Option<&Goodbye> {
        self.goodbye.as_ref()
    }

    /// What went wrong last; empty when nothing is.
    pub(crate) fn trouble(&self) -> &str {
        &self.trouble
    }
}

fn say(say: to_gateway::Say) -> ToGateway {
    ToGateway { say: Some(say) }
}

#[cfg(test)]
mod tests;
