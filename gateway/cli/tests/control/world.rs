//! The world of a case: an organisation with one site, a Gateway at it, and alice with a tunnel.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, ensure};
use ringfort_netlab::{Lab, Spec, address, http};
use ringfort_stage::realm::ADMINISTRATOR;
use ringfort_stage::{Process, Realm};
use serde_json::Value;

/// How long anything may take that must come. Nothing takes longer than some milliseconds; a busy machine may.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long one attempt may take where attempts are repeated.
const ATTEMPT: Duration = Duration::from_millis(500);
/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_ringfort");
/// The site and its Gateway.
pub(crate) const SITE: &str = "berlin";
pub(crate) const GATEWAY: &str = "gateway-berlin";
/// The user with a tunnel, and one with nothing but a machine.
pub(crate) const ALICE: &str = "alice";
pub(crate) const MALLORY: &str = "mallory";
/// What alice may reach from the start, and what nobody may.
pub(crate) const WIKI: &str = "wiki";
pub(crate) const PAYROLL: &str = "payroll";

/// Who runs. Fields are dropped in order: processes before the namespaces they are in.
pub(crate) struct World {
    pub(crate) alice: Option<Process>,
    pub(crate) gateway: Process,
    pub(crate) controller: Process,
    _services: Vec<http::Server>,
    pub(crate) realm: Realm,
}

/// Where the n-th service of the site listens.
pub(crate) fn service(n: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(address::site_host(0, n).0), 80)
}

impl World {
    /// Everything runs, and alice's tunnel is up. `gateway` are lines for the Gateway's own file.
    pub(crate) fn start(gateway: &str) -> Result<Self> {
        let mut world = Self::without_tunnel(gateway)?;
        world.join_user(ALICE)?;
        world.login(ALICE)?;
        world.alice = Some(world.up(ALICE)?);
        Ok(world)
    }

    /// Everything runs, and nobody has joined but the Gateway and the operator.
    pub(crate) fn without_tunnel(gateway: &str) -> Result<Self> {
        Self::with_realm(gateway, |realm| realm)
    }

    /// The same, with the organisation that `realm` makes of the usual one.
    pub(crate) fn with_realm(gateway: &str, realm: impl FnOnce(Realm) -> Realm) -> Result<Self> {
        Self::in_laboratory(&laboratory(), gateway, realm)
    }

    /// The same as [`World::without_tunnel`] in a laboratory with so many sites, of which one is the organisation's.
    pub(crate) fn with_sites(sites: usize) -> Result<Self> {
        Self::in_laboratory(&laboratory().with_sites(sites), "", |realm| realm)
    }

    fn in_laboratory(spec: &Spec, gateway: &str, realm: impl FnOnce(Realm) -> Realm) -> Result<Self> {
        let lab = Lab::build(spec)?;
        let realm = realm(Realm::new(lab, Path::new(PROGRAM), "auto")?);
        let mut services = Vec::new();
        for (n, name) in [WIKI, PAYROLL].into_iter().enumerate() {
            let listener = realm.stage.lab.run_in(realm.stage.lab.site(), || TcpListener::bind(service(n)))??;
            services.push(http::serve(listener, name)?);
        }
        let controller = realm.controller_begin()?.ready()?;
        realm.operator_login(&controller)?.ok()?;
        realm.add_user(ALICE)?;
        realm.add_site(0, SITE)?;
        for (n, name) in [WIKI, PAYROLL].into_iter().enumerate() {
            let to = service(n).ip().to_string();
            realm.admin(&["resource", "add", name, "--site", SITE, "--to", &to, "--service", "tcp/80"])?.ok()?;
        }
        realm.admin(&["entitle", WIKI, "--user", ALICE])?.ok()?;
        let line = realm.invite(&["gateway", GATEWAY, "--site", SITE])?;
        realm.join(GATEWAY, realm.stage.lab.gateway(), &line)?.ok()?;
        let gateway = realm.gateway_begin(0, GATEWAY, gateway)?.ready()?;
        let world = Self { alice: None, gateway, controller, _services: services, realm };
        world.gateway_is_alive()?;
        Ok(world)
    }

    /// Carries a case out; if it fails, the error shows what the processes logged.
    pub(crate) fn play(mut self, case: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        case(&mut self).map_err(|error| {
            let mut text = format!("{error:#}\n\nthe controller's log:\n{}", self.controller.log_text());
            text += &format!("\nthe gateway's log:\n{}", self.gateway.log_text());
            if let Some(alice) = &self.alice {
                text += &format!("\nalice's log:\n{}", alice.log_text());
            }
            Error::msg(text)
        })
    }

    /// Waits until the Controller has heard from the Gateway.
    pub(crate) fn gateway_is_alive(&self) -> Result<()> {
        let alive = |status: &Value| {
            status["gateways"].as_array().is_some_and(|all| all.iter().any(|one| one["alive"] == true))
        };
        self.controller.wait_until(PATIENCE, alive).map(drop)
    }

    /// `user`'s machine joins by an invitation.
    pub(crate) fn join_user(&self, user: &str) -> Result<()> {
        let line = self.realm.invite(&["device", "--user", user])?;
        self.realm.join(user, self.realm.stage.lab.client(user)?, &line)?.ok().map(drop)
    }

    /// `user` logs in.
    pub(crate) fn login(&self, user: &str) -> Result<()> {
        self.realm.login(user)?.ok().map(drop)
    }

    /// `user`'s tunnel comes up.
    pub(crate) fn up(&self, user: &str) -> Result<Process> {
        self.realm.up_begin(user)?.ready()
    }

    /// An administrator's command that must succeed.
    pub(crate) fn admin(&self, arguments: &[&str]) -> Result<String> {
        self.realm.admin(arguments)?.ok()
    }

    /// alice's client.
    pub(crate) fn alice(&self) -> Result<&Process> {
        self.alice.as_ref().context("alice has no tunnel")
    }

    /// What `user` gets from the n-th service.
    pub(crate) fn get(&self, user: &str, n: usize) -> Result<Result<String, http::HttpError>> {
        let lab = &self.realm.stage.lab;
        Ok(lab.run_in(lab.client(user)?, || http::get(service(n), ATTEMPT))?)
    }

    /// `user` gets the n-th service's page, sooner or later.
    pub(crate) fn reaches(&self, user: &str, n: usize) -> Result<()> {
        let begun = Instant::now();
        loop {
            match self.get(user, n)? {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > PATIENCE => {
                    return Err(error).context(format!("{user} gets http://{}", service(n)));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// `user` gets nothing from the n-th service, sooner or later.
    pub(crate) fn is_refused(&self, user: &str, n: usize) -> Result<()> {
        let begun = Instant::now();
        while self.get(user, n)?.is_ok() {
            ensure!(begun.elapsed() < PATIENCE, "{user} still gets http://{}", service(n));
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

fn laboratory() -> Spec {
    Spec::new([ALICE, MALLORY, ADMINISTRATOR]).with_controller()
}

/// The live sessions in a Gateway's state.
pub(crate) fn sessions(status: &Value) -> &[Value] {
    status["sessions"].as_array().map(Vec::as_slice).unwrap_or_default()
}
