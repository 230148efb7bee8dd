//! The world of a case: a laboratory, a Gateway in it, the clients that the case asks for, and what serves at the site.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, ensure};
use ringfort_netlab::{Lab, Namespace, Spec, address, http, udp};
use ringfort_stage::files::{Plan, Rule, User};
use ringfort_stage::{Probe, Process, Stage};
use serde_json::Value;
use toml::Table;

/// How long anything may take that must come. Nothing takes longer than some milliseconds; a busy machine may.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long one attempt may take where attempts are repeated.
const ATTEMPT: Duration = Duration::from_millis(500);
/// Where the Gateway listens.
pub(crate) const PORT: u16 = 4_433;
/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_ringfort");

/// How both sides read and write packets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Backend {
    IoUring,
    Epoll,
}

impl Backend {
    /// As in configuration files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// The site's addresses in both families: of the wiki, the payroll and the open host, to which alice may send anything.
pub(crate) const WIKI: [IpAddr; 2] = site(0);
pub(crate) const PAYROLL: [IpAddr; 2] = site(1);
pub(crate) const OPEN: [IpAddr; 2] = site(2);
/// Inner addresses as [`Plan`] gives them to its first users.
pub(crate) const ALICE: [IpAddr; 2] = inner(10);
pub(crate) const BOB: [IpAddr; 2] = inner(11);
/// The Gateway's own inner addresses.
pub(crate) const GATEWAY_INNER: [IpAddr; 2] = inner(1);

const fn site(number: usize) -> [IpAddr; 2] {
    [IpAddr::V4(address::SITE_V4[number]), IpAddr::V6(address::SITE_V6[number])]
}

const fn inner(host: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd97, 0, 0, 0, 0, 0, 0, host as u16);
    [IpAddr::V4(Ipv4Addr::new(10, 97, 0, host)), IpAddr::V6(v6)]
}

/// Two users who may see one another's opposite, and mallory, who may do nothing.
pub(crate) fn plan(backend: Backend) -> Plan {
    let hosts = [WIKI, PAYROLL, OPEN].map(|host| host.map(|address| address.to_string()));
    let [wiki, payroll, open] = hosts.each_ref().map(|host| host.each_ref().map(String::as_str));
    let served = ["tcp/80", "udp/7", "icmp-echo"];
    let alice = vec![
        Rule::allow("wiki-for-staff", &wiki, &served),
        Rule::deny("payroll-for-accountants-only", &payroll, &["any"]),
        Rule::allow("open-host", &open, &["any"]),
    ];
    let bob = vec![Rule::allow("payroll-for-accountants", &payroll, &served)];
    let backend = Table::from_iter([("backend".to_owned(), backend.name().into())]);
    Plan {
        gateway: SocketAddr::new(address::GATEWAY_V4.into(), PORT),
        inner: ["10.97.0.1/16", "fd97::1/64"].iter().filter_map(|pool| pool.parse().ok()).collect(),
        routes: ["10.98.0.0/24", "fd98::/64"].iter().filter_map(|route| route.parse().ok()).collect(),
        users: [("alice", alice), ("bob", bob), ("mallory", Vec::new())]
            .map(|(name, rules)| User { name: name.into(), rules })
            .into(),
        gateway_more: backend.clone(),
        client_more: backend,
    }
}

/// Fields are dropped in order: processes before the namespaces they are in.
pub(crate) struct World {
    clients: BTreeMap<String, Process>,
    pub(crate) gateway: Process,
    pub(crate) stage: Stage,
    pub(crate) plan: Plan,
}

impl World {
    /// The usual plan, with tunnels of `clients` up.
    pub(crate) fn start(backend: Backend, clients: &[&str]) -> Result<Self> {
        Self::start_with(&plan(backend), clients)
    }

    /// As [`World::start`], with another plan.
    pub(crate) fn start_with(plan: &Plan, clients: &[&str]) -> Result<Self> {
        Self::start_on(stage(plan)?, plan, clients)
    }

    /// As [`World::start_with`], with files that may have been changed.
    pub(crate) fn start_on(stage: Stage, plan: &Plan, clients: &[&str]) -> Result<Self> {
        let gateway = stage.gateway()?;
        let starting = clients.iter().map(|user| Ok((*user, stage.client_begin(user)?))).collect::<Result<Vec<_>>>()?;
        let ready = |(user, client): (&str, ringfort_stage::Starting)| Ok((user.to_owned(), client.ready()?));
        let clients: BTreeMap<_, _> = starting.into_iter().map(ready).collect::<Result<_>>()?;
        // A client has its tunnel a moment before the Gateway has the session.
        gateway.wait_until(PATIENCE, |status| sessions(status).count() == clients.len())?;
        Ok(Self { clients, gateway, stage, plan: plan.clone() })
    }

    /// Carries a case out; if it fails, the error shows what the processes logged.
    pub(crate) fn play(mut self, case: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        case(&mut self).map_err(|error| {
            let mut text = format!("{error:#}\n\nthe gateway's log:\n{}", self.gateway.log_text());
            for (user, client) in &self.clients {
                text += &format!("\n{user}'s log:\n{}", client.log_text());
            }
            Error::msg(text)
        })
    }

    /// The client of `user`, which was asked for at the start.
    pub(crate) fn client(&mut self, user: &str) -> Result<&mut Process> {
        self.clients.get_mut(user).with_context(|| format!("{user} has no client"))
    }

    /// Starts the client of `user`, in place of an earlier one.
    pub(crate) fn start_client(&mut self, user: &str) -> Result<()> {
        self.clients.insert(user.into(), self.stage.client(user)?);
        Ok(())
    }

    /// Runs `work` in a namespace; a socket opened there stays there.
    pub(crate) fn run_in<T, E>(&self, place: &Namespace, work: impl FnOnce() -> Result<T, E> + Send) -> Result<T>
    where
        T: Send,
        E: Into<Error> + Send,
    {
        self.stage.lab.run_in(place, work)?.map_err(Into::into)
    }

    /// Runs `work` where `user`'s client is.
    pub(crate) fn run_at<T, E>(&self, user: &str, work: impl FnOnce() -> Result<T, E> + Send) -> Result<T>
    where
        T: Send,
        E: Into<Error> + Send,
    {
        self.run_in(self.stage.lab.client(user)?, work)
    }

    /// Runs `work` at the site.
    pub(crate) fn run_at_site<T, E>(&self, work: impl FnOnce() -> Result<T, E> + Send) -> Result<T>
    where
        T: Send,
        E: Into<Error> + Send,
    {
        self.run_in(self.stage.lab.site(), work)
    }

    /// A page at the site.
    pub(crate) fn serve(&self, at: IpAddr, name: &str) -> Result<http::Server> {
        let listener = self.run_at_site(|| TcpListener::bind((at, 80)))?;
        Ok(http::serve(listener, name)?)
    }

    /// A UDP echo at the site.
    pub(crate) fn echo(&self, at: SocketAddr) -> Result<udp::Echo> {
        Ok(udp::echo(self.site_socket(at)?)?)
    }

    /// A UDP socket at the site.
    pub(crate) fn site_socket(&self, at: SocketAddr) -> Result<UdpSocket> {
        let socket = self.run_at_site(|| UdpSocket::bind(at))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    }

    /// A UDP socket of `user`'s inner address of `to`'s family, connected to `to`.
    pub(crate) fn client_socket(&self, user: &str, to: SocketAddr) -> Result<UdpSocket> {
        self.run_at(user, || {
            let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            std::io::Result::Ok(socket)
        })
    }

    /// What `user` gets from `http://at/`.
    pub(crate) fn get(&self, user: &str, at: IpAddr) -> Result<Result<String, http::HttpError>> {
        self.run_at(user, || Result::<_, Error>::Ok(http::get((at, 80).into(), PATIENCE)))
    }

    /// As [`World::get`]; it must succeed and say that it is `name`.
    pub(crate) fn get_page(&self, user: &str, at: IpAddr, name: &str) -> Result<String> {
        let page = self.get(user, at)?.with_context(|| format!("{user} gets http://{at}"))?;
        ensure!(page.contains(&format!("This is {name}.")), "expected {name} at {at}, found {page:?}");
        Ok(page)
    }

    /// As [`World::get`], without much patience.
    pub(crate) fn attempt(&self, user: &str, at: IpAddr) -> Result<Result<String, http::HttpError>> {
        self.run_at(user, || Result::<_, Error>::Ok(http::get((at, 80).into(), ATTEMPT)))
    }

    /// As [`World::get_page`], while a tunnel may have to come up first.
    pub(crate) fn get_page_again(&self, user: &str, at: IpAddr, name: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.attempt(user, at)? {
                Ok(page) => {
                    ensure!(page.contains(name), "expected {name} at {at}, found {page:?}");
                    return Ok(());
                }
                Err(error) if Instant::now() >= deadline => {
                    return Err(error).context(format!("{user} gets http://{at}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// A tunnel of `user` driven by hand, in the namespace of `place`. Every worker has its rules when this returns: they
    /// take commands and questions in order, and the question that was answered came after the command.
    pub(crate) fn probe(&self, user: &str, place: &str) -> Result<Probe> {
        let probe = self.connect(&self.stage.files(), user, place)?;
        let outer = probe.local_addr()?.to_string();
        self.gateway.wait_until(PATIENCE, |status| sessions(status).any(|session| session["outer"] == *outer))?;
        Ok(probe)
    }

    /// Tries a handshake with credentials from `folder`.
    pub(crate) fn connect(&self, folder: &Path, user: &str, place: &str) -> Result<Probe> {
        self.run_at(place, || Probe::connect(folder, user, self.plan.gateway))
    }

    /// One of the Gateway's counters.
    pub(crate) fn count(&self, name: &str) -> Result<u64> {
        self.gateway.counter(name)
    }

    /// Waits until one of the Gateway's counters has reached `count`, and checks that it stands exactly there.
    pub(crate) fn counted(&self, name: &str, count: u64) -> Result<()> {
        self.gateway.wait_until(PATIENCE, |status| status["totals"][name].as_u64() >= Some(count))?;
        let found = self.count(name)?;
        ensure!(found == count, "expected {name} at {count}, found {found}");
        Ok(())
    }

    /// Waits until the Gateway tells of `user`'s denial at `destination`, and gives the rule that made it.
    pub(crate) fn denied_by(&self, user: &str, destination: &str) -> Result<String> {
        let find = |status: &Value| {
            let is_it = |denial: &&Value| denial["user"] == user && denial["destination"] == destination;
            Some(status["denials"].as_array()?.iter().find(is_it)?["rule"].as_str()?.to_owned())
        };
        let status = self.gateway.wait_until(PATIENCE, |status| find(status).is_some())?;
        find(&status).context("the denial is gone")
    }
}

/// A laboratory with the files of `plan`.
pub(crate) fn stage(plan: &Plan) -> Result<Stage> {
    Stage::new(Lab::build(&Spec::new(["alice", "bob"]))?, plan, Path::new(PROGRAM))
}

/// The sessions in a Gateway's status.
pub(crate) fn sessions(status: &Value) -> impl Iterator<Item = &Value> {
    status["sessions"].as_array().into_iter().flatten()
}
