//! The lines of a site: what their machines ask for, and what their workers and channels tell.
//!
//! A site has one line, whose tunnel carries packets. A next one may be made beside it, to another Gateway because this one is
//! drained, or to the same one because we have a new certificate: it takes over once it is bound, and until then the first goes
//! on. What the first one has under way is given a second to arrive.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use ringfort_dtls::ClientConfig;
use ringfort_engine::Machine;
use ringfort_engine::client::{Client, Command, Config, Event as TunnelEvent, Release};
use ringfort_io::UdpSocket;
use ringfort_proto::v1::to_client::Say;
use ringfort_proto::v1::{Denied, Goodbye, Present};
use ringfort_service::random;
use ringfort_types::BootInstant;
use ringfort_worker::{Report, Sink, Workers, now, spawn};

use super::sites::SiteRun;
use super::{Control, Event, hand_in};
use crate::channel::{self, Channel};
use crate::follow::{self, Follower};
use crate::site::{Action, Site, SiteGateway};
use crate::tunnel::OuterPath;

/// How long a line that was followed goes on. A Gateway takes packets of a tunnel that another one followed for three times as long.
const FADE: Duration = Duration::from_secs(1);

/// A connection to one Gateway of a site.
pub(super) struct Line {
    pub(super) machine: Site,
    channel: Option<(u64, Channel)>,
    worker: Option<(u64, Workers<Client>)>,
    /// The worker's way to its Gateway.
    path: Option<OuterPath>,
    pub(super) backend: String,
}

/// A line that is to take the place of the one in use.
pub(super) struct Next {
    pub(super) line: Line,
    reason: Reason,
    tunnel: Option<NextTunnel>,
}

struct NextTunnel {
    number: u64,
    follower: Follower,
    socket: UdpSocket,
    path: OuterPath,
    release: Option<Command>,
}

/// Why there is a next line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The Gateway is drained.
    Draining,
    /// We have a new certificate.
    Certificate,
}

/// A line that was followed.
pub(super) struct Past {
    line: Line,
    until: BootInstant,
}

impl Line {
    /// A line to one of these Gateways, where `present` is shown. It begins at once.
    pub(super) fn new(gateways: Vec<SiteGateway>, present: Present) -> Self {
        let machine = Site::new(gateways, present, now().boot);
        Self { machine, channel: None, worker: None, path: None, backend: String::new() }
    }

    /// Its worker, while it has one.
    pub(super) const fn worker(&self) -> Option<&Workers<Client>> {
        match &self.worker {
            Some((_, workers)) => Some(workers),
            None => None,
        }
    }

    pub(super) fn command(&self, command: &Command) -> Result<()> {
        self.worker().map_or(Ok(()), |workers| workers.broadcast(command).map_err(Into::into))
    }

    pub(super) fn stop_worker(&mut self) {
        self.path = None;
        if let Some((_, mut workers)) = self.worker.take() {
            workers.stop();
        }
    }

    /// Closes the channel; what it gives ends once that is done.
    pub(super) fn close(&mut self) -> Option<tokio::task::JoinHandle<()>> {
        self.channel.take().map(|(_, channel)| channel.close())
    }

    fn has_channel(&self, number: u64) -> bool {
        self.channel.as_ref().is_some_and(|(known, _)| *known == number)
    }

    fn say(&mut self, message: ringfort_proto::v1::ToGateway) {
        if !self.channel.as_ref().is_some_and(|(_, channel)| channel.say(message)) {
            self.channel = None;
            self.machine.handle_closed("the channel takes nothing more".into(), now().boot);
        }
    }
}

impl SiteRun {
    /// When something is due by itself.
    pub(super) fn due(&self) -> Option<BootInstant> {
        let next = self.next.as_ref().and_then(|next| next.line.machine.poll_timeout());
        let past = self.past.as_ref().map(|past| past.until);
        [self.line.machine.poll_timeout(), next, past].into_iter().flatten().min()
    }

    /// Everything that has a worker or a channel, for the end.
    pub(super) fn lines(&mut self) -> impl Iterator<Item = &mut Line> {
        let next = self.next.as_mut().map(|next| &mut next.line);
        let past = self.past.as_mut().map(|past| &mut past.line);
        std::iter::once(&mut self.line).chain(next).chain(past)
    }

    /// Makes a next line to `gateway`, unless there is one. One that was begun with another certificate than we have now is begun anew,
    /// to where it leads.
    pub(super) fn follow(&mut self, gateway: SiteGateway, reason: Reason) {
        let gateway = match (&self.next, reason) {
            (Some(_), Reason::Draining) => return,
            (Some(next), Reason::Certificate) => next.line.machine.gateway().cloned().unwrap_or(gateway),
            (None, _) => gateway,
        };
        tracing::info!(site = self.name, gateway = &*gateway.id, ?reason, "going over to another connection");
        let line = Line::new(vec![gateway], self.line.machine.present().clone());
        self.next = Some(Next { line, reason, tunnel: None });
    }

    /// Goes to another Gateway if the one in use has asked for that, and there is one.
    pub(super) fn follow_request(&mut self) {
        if self.line.machine.is_asked_to_go()
            && let Some(gateway) = self.line.machine.elsewhere().cloned()
        {
            self.follow(gateway, Reason::Draining);
        }
    }

    /// The next line came to nothing: what it was for is done without it, as far as it must be.
    fn abandon(&mut self, why: &str) {
        let Some(next) = self.next.take() else { return };
        tracing::warn!(site = self.name, reason = ?next.reason, why, "the other connection came to nothing");
        if next.reason == Reason::Certificate {
            self.line.machine.set_certificate(now().boot);
        } else if self.line.channel.is_none() {
            self.line.machine.handle_closed("the channel was given up for another one".into(), now().boot);
        }
    }

    /// Ends the line that was followed once its time is over.
    fn end_past(&mut self) {
        if self.past.as_ref().is_some_and(|past| past.until <= now().boot)
            && let Some(mut past) = self.past.take()
        {
            past.line.stop_worker();
        }
    }
}

impl Control<'_> {
    /// Does what sites are due for and ask for.
    pub(super) fn drive(&mut self) -> Result<()> {
        for index in 0..self.sites.len() {
            self.sites[index].end_past();
            self.sites[index].line.machine.handle_timeout(now().boot);
            while let Some(action) = self.sites[index].line.machine.poll_action() {
                self.act(index, action)?;
            }
            if let Some(next) = &mut self.sites[index].next {
                next.line.machine.handle_timeout(now().boot);
            }
            while let Some(action) = self.sites[index].next.as_mut().and_then(|next| next.line.machine.poll_action()) {
                self.act_for_next(index, action);
            }
        }
        Ok(())
    }

    fn act(&mut self, index: usize, action: Action) -> Result<()> {
        self.made += 1;
        let number = self.made;
        let site = &mut self.sites[index];
        match action {
            Action::Open(gateway) => {
                // A Gateway has one session of ours: the newer would end the older.
                if site.next.as_ref().is_some_and(|next| next.line.machine.gateway() == Some(&gateway)) {
                    site.abandon("the connection in use goes there itself");
                }
                let channel = self.open(index, number, gateway);
                self.sites[index].line.channel = Some((number, channel));
            }
            Action::Close => site.line.channel = None,
            Action::Say(message) => site.line.say(message),
            Action::StartTunnel(gateway) => {
                site.line.stop_worker();
                if let Err(error) = self.start_tunnel(index, number, gateway) {
                    let site = &mut self.sites[index];
                    let why = format!("{error:#}");
                    tracing::warn!(site = site.name, error = why, "no tunnel");
                    site.line.machine.handle_tunnel_failed(why, now().boot);
                }
            }
            Action::StopTunnel => site.line.stop_worker(),
            Action::Release(tunnel) => {
                tracing::info!(site = site.name, "tunnel bound");
                site.line.command(&Command::Release(tunnel))?;
            }
            Action::Pushed(token) => self.take_pushed(index, &token),
            Action::RenewAsked => self.renew_asked(),
            Action::Renew => self.schedule.demand(),
            Action::Go => site.follow_request(),
        }
        Ok(())
    }

    /// Whatever the next line would do to try again, it is not tried: the line in use goes on.
    fn act_for_next(&mut self, index: usize, action: Action) {
        self.made += 1;
        let number = self.made;
        match action {
            Action::Open(gateway) => {
                let channel = self.open(index, number, gateway);
                if let Some(next) = &mut self.sites[index].next {
                    next.line.channel = Some((number, channel));
                }
            }
            Action::Say(message) => {
                if let Some(next) = &mut self.sites[index].next {
                    next.line.say(message);
                }
            }
            Action::StartTunnel(gateway) => {
                if let Err(error) = self.begin_follower(index, number, &gateway) {
                    self.sites[index].abandon(&format!("{error:#}"));
                }
            }
            Action::Release(tunnel) => {
                if let Some(tunnels) = self.sites[index].next.as_mut().and_then(|next| next.tunnel.as_mut()) {
                    tunnels.release = Some(Command::Release(tunnel));
                    tunnels.follower.release();
                }
            }
            Action::Pushed(token) => self.take_pushed(index, &token),
            Action::RenewAsked => self.renew_asked(),
            Action::Close | Action::StopTunnel | Action::Renew | Action::Go => {
                let why = self.sites[index].next.as_ref().map(|next| next.line.machine.trouble().to_owned());
                self.sites[index].abandon(&why.unwrap_or_default());
            }
        }
    }

    /// A Gateway has told us that what we showed it ends (A24).
    fn renew_asked(&mut self) {
        self.told_to_renew += 1;
        self.schedule.ask();
    }

    fn open(&self, index: usize, number: u64, gateway: SiteGateway) -> Channel {
        let (report, id) = (Arc::clone(&self.report), self.sites[index].id.clone());
        let tell = move |told| hand_in(Arc::clone(&report), Event::Channel(id.clone(), number, told));
        let _runtime = self.runtime.enter();
        Channel::open(gateway, &self.own, self.judge.trust(), tell)
    }

    fn take_pushed(&mut self, index: usize, token: &str) {
        let id = self.sites[index].id.clone();
        if let Err(error) = self.pushed(&id, token) {
            tracing::warn!(site = id, error = format!("{error:#}"), "entitlement token refused");
        }
    }

    /// A tunnel of the site to `gateway`, of which nothing runs yet.
    fn tunnel(&self, index: usize, gateway: SiteGateway) -> Result<Client> {
        let site = &self.sites[index];
        let dtls = ClientConfig::pinned(&self.credentials, self.judge.trust().clone(), gateway.digests)?;
        let config = Config {
            dtls: Arc::new(dtls),
            gateway_id: Some(gateway.id),
            offloads: site.interface.offloads(),
            inner: site.inner,
            routes: site.routes.iter().copied().collect(),
            release: Release::ByCommand,
            random: random()?,
        };
        Ok(Client::new(config, now()))
    }

    fn start_tunnel(&mut self, index: usize, number: u64, gateway: SiteGateway) -> Result<()> {
        let (socket, path) = self.sites[index].interface.outside(gateway.address)?;
        let machine = self.tunnel(index, gateway)?;
        let worker = self.work(index, number, machine, socket)?;
        let line = &mut self.sites[index].line;
        (line.worker, line.path) = (Some((number, worker)), Some(path));
        Ok(())
    }

    fn begin_follower(&mut self, index: usize, number: u64, gateway: &SiteGateway) -> Result<()> {
        let (socket, path) = self.sites[index].interface.outside(gateway.address)?;
        let machine = self.tunnel(index, gateway.clone())?;
        let (report, id) = (Arc::clone(&self.report), self.sites[index].id.clone());
        let tell = move |told| hand_in(Arc::clone(&report), Event::Follower(id.clone(), number, told));
        let _runtime = self.runtime.enter();
        let follower = Follower::begin(machine, &socket, gateway.address, tell)?;
        if let Some(next) = &mut self.sites[index].next {
            next.tunnel = Some(NextTunnel { number, follower, socket, path, release: None });
        }
        Ok(())
    }

    /// Has a worker carry packets between the site's interface and a tunnel.
    fn work(&self, index: usize, number: u64, machine: Client, socket: UdpSocket) -> Result<Workers<Client>> {
        let site = &self.sites[index];
        let worker = site.interface.carry(machine, socket, None)?;
        let (report, id) = (Arc::clone(&self.report), site.id.clone());
        let sink: Sink<TunnelEvent> = Arc::new(move |_, told| {
            report(Event::Worker(id.clone(), number, told)).map_err(|back| match back {
                Event::Worker(_, _, told) => told,
                // The desk gives back what it was given.
                _ => Report::Ended(Ok(())),
            })
        });
        Ok(spawn(vec![worker], self.backend.into(), 0, &sink)?)
    }

    /// The next line takes the place of the one in use.
    fn take_over(&mut self, index: usize, mut machine: Client) -> Result<()> {
        let Some(Next { mut line, tunnel: Some(tunnel), .. }) = self.sites[index].next.take() else { return Ok(()) };
        let site = &mut self.sites[index];
        // What it was started with may have changed meanwhile.
        let routes = site.routes.iter().copied().collect();
        machine.handle_command(Command::Reach { inner: site.inner, routes }, now());
        if let Some(release) = tunnel.release {
            machine.handle_command(release, now());
        }
        line.machine.set_gateways(site.line.machine.gateways().to_vec());
        // It is bound, so the Gateway has let it in.
        line.machine.handle_up();
        let worker = self.work(index, tunnel.number, machine, tunnel.socket)?;
        (line.worker, line.path) = (Some((tunnel.number, worker)), Some(tunnel.path));
        let site = &mut self.sites[index];
        let gateway = line.machine.gateway().map(|gateway| gateway.id.to_string());
        tracing::info!(site = site.name, gateway, "the other connection has taken over");
        let before = std::mem::replace(&mut site.line, line);
        if let Some(mut past) = site.past.replace(Past { line: before, until: now().boot + FADE }) {
            past.line.stop_worker();
        }
        Ok(())
    }

    pub(super) fn hear_follower(&mut self, site: &str, number: u64, told: follow::Told) -> Result<()> {
        let is_of = |run: &SiteRun| {
            let tunnel = run.next.as_ref().and_then(|next| next.tunnel.as_ref());
            run.id == site && tunnel.is_some_and(|tunnel| tunnel.number == number)
        };
        // Any other is one that was given up.
        let Some(index) = self.sites.iter().position(is_of) else { return Ok(()) };
        match told {
            follow::Told::Established { tunnel, digest, exporter } => {
                if let Some(next) = &mut self.sites[index].next {
                    next.line.machine.handle_established(tunnel, digest, exporter, now().boot);
                }
            }
            follow::Told::Released(machine) => self.take_over(index, *machine)?,
            follow::Told::Failed(why) => self.sites[index].abandon(&why),
        }
        Ok(())
    }

    pub(super) fn hear_worker(&mut self, site: &str, number: u64, report: Report<TunnelEvent>) -> Result<()> {
        let now = now().boot;
        let Some(site) = self.sites.iter_mut().find(|run| run.id == site) else { return Ok(()) };
        let is_of = |line: &Line| line.worker.as_ref().is_some_and(|(known, _)| *known == number);
        if !is_of(&site.line) {
            // Of a worker that was stopped, or is about to be: one that was followed reads from the same interface, and must not go on
            // once its tunnel takes nothing more.
            if let Some(past) = site.past.as_mut().filter(|past| is_of(&past.line))
                && let Report::Event(TunnelEvent::Down(_)) = report
            {
                past.until = now;
                site.end_past();
            }
            return Ok(());
        }
        let line = &mut site.line;
        match report {
            Report::Started { backend, fallback, .. } => {
                if let Some(reason) = fallback {
                    tracing::warn!(reason, "io_uring is not available, using epoll");
                }
                line.backend = backend.to_string();
            }
            Report::Event(TunnelEvent::Established { tunnel, gateway, exporter }) => {
                line.machine.handle_established(tunnel, *gateway.certificate_digest(), exporter, now);
            }
            Report::Event(TunnelEvent::Up(gateway)) => {
                tracing::info!(site = site.name, gateway = gateway.id(), "tunnel up");
                line.machine.handle_up();
            }
            Report::Event(TunnelEvent::Down(reason)) => {
                tracing::warn!(site = site.name, %reason, "tunnel down, trying again");
                line.machine.handle_down(reason.to_string(), now);
            }
            Report::Ended(Ok(())) => {}
            Report::Ended(Err(error)) => return Err(anyhow!(error).context("the worker ended")),
        }
        Ok(())
    }

    pub(super) fn hear_channel(&mut self, site: &str, number: u64, told: channel::Told) {
        let now = now().boot;
        let Some(site) = self.sites.iter_mut().find(|run| run.id == site) else { return };
        let is_followed = site.next.is_some();
        let is_next = site.next.as_ref().is_some_and(|next| next.line.has_channel(number));
        let line = match &mut site.next {
            Some(next) if is_next => &mut next.line,
            _ if site.line.has_channel(number) => &mut site.line,
            // Of a channel that was closed, or is about to be.
            _ => return,
        };
        match told {
            channel::Told::Opened(digest) => line.machine.handle_opened(digest, now),
            channel::Told::Message(message) => {
                if let Some(Say::Goodbye(Goodbye { code, message, event })) = &message.say {
                    tracing::warn!(site = site.name, code, message, event, "the Gateway says goodbye");
                    if code == "replaced" && is_followed && !is_next {
                        // By the next line, which is about to hear that it is bound.
                        line.channel = None;
                        return;
                    }
                }
                if let Some(Say::Denied(Denied { destination, rule, reason })) = &message.say {
                    tracing::info!(site = site.name, destination, rule, reason, "denied");
                }
                line.machine.handle_message(message, now);
                if line.machine.is_ended() && !is_next {
                    tracing::error!(site = site.name, "nothing is tried again with these tokens; run `ringfort login`");
                }
            }
            channel::Told::Closed(why) => {
                tracing::warn!(site = site.name, why, "session channel closed, trying again");
                line.channel = None;
                line.machine.handle_closed(why, now);
            }
        }
    }

    /// Tunnels go on from the machine's new address, channels are opened anew and bind them again.
    pub(super) fn follow_network(&mut self) -> Result<()> {
        for site in &mut self.sites {
            match site.line.path.as_ref().map_or(Ok(false), OuterPath::follow) {
                Ok(true) => {
                    tracing::info!(site = site.name, "this machine's address has changed");
                    site.abandon("this machine's address has changed");
                    site.line.command(&Command::PathChanged)?;
                    site.line.channel = None;
                    site.line.machine.handle_network_changed(now().boot);
                }
                Ok(false) => {}
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(site = site.name, error, "the change of address was not followed");
                }
            }
        }
        Ok(())
    }
}
