//! Building the namespaces, and running things in them.

use std::{
    array, iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    panic::resume_unwind,
    process::{self, Command},
    thread,
    time::{Duration, Instant},
};

use ringfort_link::{LinkError, LinkIndex, Links, Prefix, sysctl};

use crate::{
    LabError, Namespace, Role,
    address::{self, Bits, Pair},
    cores, enter,
};

/// Clients in one laboratory: as many as 198.51.100.0/24 has networks of four addresses, halved for the sake of round
/// figures. [`Lab::build`] refuses more.
pub const CLIENTS_MAX: usize = 32;

/// Sites in one laboratory: as many as `fd98::` to `fd9f::` gives them networks. [`Lab::build`] refuses more.
pub const SITES_MAX: usize = 8;

/// Longest name of a client in bytes: `to-NAME` must be an interface name (15 bytes).
const CLIENT_NAME_BYTES_MAX: usize = 12;

/// Largest and smallest packet of the outer networks in bytes. IPv6 needs 1280 (RFC 8200, section 5).
const WAN_MTU_BYTES: std::ops::RangeInclusive<u32> = 1280..=65_535;

/// Core numbers end here, so that the mask of cores fits 64 bits.
const STEERING_CORES_MAX: usize = 64;

/// How long interfaces may take to carry packets. The kernel does it from a work queue, in about a millisecond on an
/// idle machine; [`Lab::build`] gives up after this.
const OPERATIONAL_WAIT: Duration = Duration::from_secs(2);

/// What to build.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Names of the clients' namespaces: 1 to [`CLIENTS_MAX`], different, each of 1 to 12 letters `a-z`, digits or `-`,
    /// and none called like another namespace: `internet`, `controller`, `gateway`, `gateway-1`, `site`, `site-1` and so
    /// on, whether or not the laboratory has it.
    pub clients: Vec<String>,
    /// How many sites there are, each behind a gateway of its own: 1 to [`SITES_MAX`].
    pub sites: usize,
    /// Whether there is a controller.
    pub controller: bool,
    /// Largest packet, in bytes of IP, on all ways but those between a gateway and its site: 1280 to 65535.
    pub wan_mtu_bytes: u32,
    /// Which cores do the kernel's receive work; `None` leaves it on the sender's core.
    pub steering: Option<Steering>,
}

impl Spec {
    /// A laboratory with these clients, one site, no controller, an MTU of 1500 bytes and no steering.
    pub fn new<N: Into<String>>(clients: impl IntoIterator<Item = N>) -> Self {
        let clients = clients.into_iter().map(Into::into).collect();
        Self { clients, sites: 1, controller: false, wan_mtu_bytes: 1500, steering: None }
    }

    /// The same with this many sites.
    #[must_use]
    pub fn with_sites(self, sites: usize) -> Self {
        Self { sites, ..self }
    }

    /// The same with a controller.
    #[must_use]
    pub fn with_controller(self) -> Self {
        Self { controller: true, ..self }
    }
}

/// Receive packet steering for measurements.
///
/// A packet that crosses a veth pair is received on the core that sent it, so that the clients' cores would do the
/// gateway's receive work and the figures of both would be wrong. With steering a gateway's receive work goes to one
/// core and everyone else's to another, as the interrupts of a network card would have it. It costs interrupts between
/// the cores, 12-28 % of the gateway's time when measured in a virtual machine, so it is off unless asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    /// The core for clients, internet, sites and controller.
    pub endpoints: usize,
    /// The core for all gateways.
    pub gateway: usize,
}

/// The laboratory. Dropping it lets go of the namespaces; the kernel removes each when nothing uses it any longer.
#[derive(Debug)]
pub struct Lab {
    clients: Vec<Namespace>,
    internet: Namespace,
    first: Site,
    more: Vec<Site>,
    controller: Option<Namespace>,
}

/// A site's namespaces.
#[derive(Debug)]
struct Site {
    gateway: Namespace,
    hosts: Namespace,
}

impl Lab {
    /// Makes the namespaces of `spec`, joins them, gives them addresses and routes, and waits until every interface
    /// carries packets. Needs [`crate::enter`] before.
    ///
    /// # Errors
    /// [`LabError::Spec`] for what cannot be built; [`LabError::Link`] and [`LabError::System`] for what the kernel
    /// refused; [`LabError::NotOperational`].
    pub fn build(spec: &Spec) -> Result<Self, LabError> {
        check(spec)?;
        let core = |of: fn(Steering) -> usize| spec.steering.map(of);
        // All at once: the kernel takes about a millisecond for each.
        let lab = thread::scope(|scope| {
            let begin = |name: String, addresses: Pair, forwarding: Forwarding, core: Option<usize>| {
                scope.spawn(move || make(&name, addresses, forwarding, core))
            };
            let endpoint = |name: String, addresses: Pair, forwarding: Forwarding| {
                begin(name, addresses, forwarding, core(|steering| steering.endpoints))
            };
            let site = |number: usize| {
                let (gateway, hosts) = (numbered("gateway", number), numbered("site", number));
                let gateway_core = core(|steering| steering.gateway);
                let gateway = begin(gateway, address::gateway(number), Forwarding::On, gateway_core);
                (gateway, endpoint(hosts, address::site_host(number, 0), Forwarding::Off))
            };
            let client =
                |(number, name): (u8, &String)| endpoint(name.clone(), address::client(number), Forwarding::Off);
            let clients: Vec<_> = (0..).zip(&spec.clients).map(client).collect();
            let internet = endpoint("internet".into(), INTERNET_HOST, Forwarding::On);
            let (first, more): (_, Vec<_>) = (site(0), (1..spec.sites).map(site).collect());
            let addresses = (address::CONTROLLER_V4, address::CONTROLLER_V6);
            let controller = spec.controller.then(|| endpoint("controller".into(), addresses, Forwarding::Off));
            let site = |(gateway, hosts)| Ok::<_, LabError>(Site { gateway: made(gateway)?, hosts: made(hosts)? });
            Ok::<_, LabError>(Self {
                clients: clients.into_iter().map(made).collect::<Result<_, _>>()?,
                internet: made(internet)?,
                first: site(first)?,
                more: more.into_iter().map(site).collect::<Result<_, _>>()?,
                controller: controller.map(made).transpose()?,
            })
        })?;
        lab.configure(spec)?;
        Ok(lab)
    }

    /// The namespace of the client called `name`.
    ///
    /// # Errors
    /// [`LabError::UnknownClient`].
    pub fn client(&self, name: &str) -> Result<&Namespace, LabError> {
        let found = self.clients.iter().find(|client| client.name() == name);
        found.ok_or_else(|| LabError::UnknownClient(name.into()))
    }

    /// The router between clients, gateways and controller, and some host of the internet in one.
    pub fn internet(&self) -> &Namespace {
        &self.internet
    }

    /// Where the gateway of the first site runs.
    pub fn gateway(&self) -> &Namespace {
        &self.first.gateway
    }

    /// Where the services are that the gateway of the first site protects.
    pub fn site(&self) -> &Namespace {
        &self.first.hosts
    }

    /// Where the gateway of site number `site` (from 0) runs.
    ///
    /// # Errors
    /// [`LabError::UnknownSite`].
    pub fn gateway_at(&self, site: usize) -> Result<&Namespace, LabError> {
        self.numbered_site(site).map(|site| &site.gateway)
    }

    /// Where the services of site number `site` (from 0) are.
    ///
    /// # Errors
    /// [`LabError::UnknownSite`].
    pub fn site_at(&self, site: usize) -> Result<&Namespace, LabError> {
        self.numbered_site(site).map(|site| &site.hosts)
    }

    /// Where the controller runs.
    ///
    /// # Errors
    /// [`LabError::NoController`] if the specification asked for none.
    pub fn controller(&self) -> Result<&Namespace, LabError> {
        self.controller.as_ref().ok_or(LabError::NoController)
    }

    /// All namespaces: the clients in the order of the specification, internet, gateway and site of each site in turn,
    /// controller.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        let of_sites = self.sites().flat_map(|site| [&site.gateway, &site.hosts]);
        self.clients.iter().chain([&self.internet]).chain(of_sites).chain(&self.controller)
    }

    /// Runs `work` inside `namespace` on a thread of its own and waits for it. A socket opened there stays in that
    /// namespace and may be used from any thread. A panic goes on in the caller.
    ///
    /// # Errors
    /// [`LabError::System`] if no thread can be started or the namespace cannot be entered.
    pub fn run_in<T: Send>(&self, namespace: &Namespace, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        namespace.run(work)
    }

    /// Starts a process inside `namespace`. Its standard input becomes a pipe held by the [`Role`]; where its output
    /// goes is said in `command` (a pipe, a file, or this process's own).
    ///
    /// # Errors
    /// [`LabError::System`] if the program cannot be started, or as [`Lab::run_in`].
    pub fn spawn(&self, namespace: &Namespace, command: Command) -> Result<Role, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = LabError::system(format!("start {program} in namespace {}", namespace.name()));
        namespace.run(move || Role::start(command))?.map_err(failed)
    }

    /// As [`Lab::spawn`], the process restricted to `cores`.
    ///
    /// # Errors
    /// As [`Lab::spawn`]; also [`LabError::System`] with `EINVAL` where `cores` names none that may be used.
    pub fn spawn_on(&self, namespace: &Namespace, cores: &[usize], command: Command) -> Result<Role, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = LabError::system(format!("start {program} on cores {cores:?} in namespace {}", namespace.name()));
        namespace.run(move || cores::pin_thread(cores).and_then(|()| Role::start(command)))?.map_err(failed)
    }

    /// For each namespace its name and the command by which a person gets a shell in it, as long as this process lives:
    /// from a shell of the same user, or of root.
    pub fn nsenter_lines(&self) -> Vec<(String, String)> {
        let pid = process::id();
        let user = if enter::is_inside() { format!(" --preserve-credentials -U -t {pid}") } else { String::new() };
        let line = |namespace: &Namespace| {
            let target = format!("--net=/proc/{pid}/fd/{}", namespace.descriptor());
            (namespace.name().to_owned(), format!("nsenter{user} {target}"))
        };
        self.namespaces().map(line).collect()
    }

    fn sites(&self) -> impl Iterator<Item = &Site> {
        iter::once(&self.first).chain(&self.more)
    }

    fn numbered_site(&self, number: usize) -> Result<&Site, LabError> {
        let unknown = LabError::UnknownSite { number, sites: self.more.len() + 1 };
        self.sites().nth(number).ok_or(unknown)
    }

    /// Joins the namespaces. Of each pair one end is made directly in the other namespace; both ends are then addressed
    /// and set up from within.
    fn configure(&self, spec: &Spec) -> Result<(), LabError> {
        let mut internet = Host::open(&self.internet)?;
        internet.add_addresses("lo", &[INTERNET_HOST], address::HOST_BITS)?;
        let mtu_bytes = spec.wan_mtu_bytes;

        let mut ends = Vec::new();
        for (number, client) in (0..).zip(&self.clients) {
            let near = format!("to-{}", client.name());
            let mut host = Host::open(client)?;
            internet.join(&near, client, "wan0")?;
            let router = address::client_router(number);
            internet.equip(&near, mtu_bytes, &[router], address::CLIENT_BITS)?;
            host.equip("wan0", mtu_bytes, &[address::client(number)], address::CLIENT_BITS)?;
            host.route("wan0", &DEFAULT, Some(router))?;
            ends.push(host);
        }
        for (number, site) in self.sites().enumerate() {
            let mut gateway = internet.join_server(&site.gateway, mtu_bytes)?;
            let mut hosts = Host::open(&site.hosts)?;
            let gateway_at_site = address::gateway_at_site(number);
            let services: [Pair; address::SERVICES] = array::from_fn(|service| address::site_host(number, service));
            gateway.join("lan0", &site.hosts, "lan0")?;
            gateway.equip("lan0", SITE_MTU_BYTES, &[gateway_at_site], address::SITE_BITS)?;
            hosts.equip("lan0", SITE_MTU_BYTES, &services, address::SITE_BITS)?;
            hosts.route("lan0", &DEFAULT, Some(gateway_at_site))?;
            // Beside the default route: a site has these of its own, also where its default route leads elsewhere.
            let (v4, v6) = address::pool(number);
            hosts.route("lan0", &[(v4.0.into(), v4.1), (v6.0.into(), v6.1)], Some(gateway_at_site))?;
            ends.extend([gateway, hosts]);
        }
        if let Some(controller) = &self.controller {
            ends.push(internet.join_server(controller, mtu_bytes)?);
        }

        ends.push(internet);
        let deadline = Instant::now() + OPERATIONAL_WAIT;
        ends.iter_mut().try_for_each(|end| end.wait_until_operational(deadline))
    }
}

/// The site's network is a plain Ethernet whatever the way to it is.
const SITE_MTU_BYTES: u32 = 1500;

/// The default routes of both families.
const DEFAULT: [Prefix; 2] = [(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0)];

/// The addresses of the internet as some host.
const INTERNET_HOST: Pair = (address::INTERNET_HOST_V4, address::INTERNET_HOST_V6);

/// Whether a namespace passes on packets that are not for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forwarding {
    On,
    Off,
}

fn check(spec: &Spec) -> Result<(), LabError> {
    let refuse = |text: String| Err(LabError::Spec(text));
    if spec.clients.is_empty() || spec.clients.len() > CLIENTS_MAX {
        return refuse(format!("it has {} clients, and may have 1 to {CLIENTS_MAX}", spec.clients.len()));
    }
    for (number, name) in spec.clients.iter().enumerate() {
        let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if name.is_empty() || name.len() > CLIENT_NAME_BYTES_MAX || !letters {
            return refuse(format!("{name:?} is no client name: 1 to {CLIENT_NAME_BYTES_MAX} of a-z, 0-9 and '-'"));
        }
        let of_site = |site: usize| [numbered("gateway", site), numbered("site", site)];
        let taken = ["internet", "controller"].contains(&name.as_str())
            || (0..SITES_MAX).flat_map(of_site).any(|other| other == *name);
        if taken || spec.clients.iter().take(number).any(|other| other == name) {
            return refuse(format!("the name {name:?} is taken"));
        }
    }
    if !(1..=SITES_MAX).contains(&spec.sites) {
        return refuse(format!("it has {} sites, and may have 1 to {SITES_MAX}", spec.sites));
    }
    if !WAN_MTU_BYTES.contains(&spec.wan_mtu_bytes) {
        return refuse(format!("an MTU of {} bytes is not within {WAN_MTU_BYTES:?}", spec.wan_mtu_bytes));
    }
    let cores = spec.steering.map(|steering| steering.endpoints.max(steering.gateway));
    if cores.is_some_and(|core| core >= STEERING_CORES_MAX) {
        return refuse(format!("steering is for cores below {STEERING_CORES_MAX}"));
    }
    Ok(())
}

/// The name of a site's namespace: the first site's without a number.
fn numbered(name: &str, site: usize) -> String {
    if site == 0 { name.to_owned() } else { format!("{name}-{site}") }
}

/// Makes a namespace with its loopback interface up and its sysctls written, which interfaces made later inherit.
fn make(name: &str, addresses: Pair, forwarding: Forwarding, core: Option<usize>) -> Result<Namespace, LabError> {
    let within = |source: LinkError| LabError::Link { namespace: name.into(), source };
    Namespace::make(name, addresses, || {
        write_sysctls(forwarding, core).map_err(within)?;
        let mut links = Links::open().map_err(within)?;
        let loopback = links.index_of("lo").map_err(within)?;
        links.set_up(loopback).map_err(within)
    })
}

/// Waits for [`make`]. A panic goes on in the caller.
fn made(making: thread::ScopedJoinHandle<'_, Result<Namespace, LabError>>) -> Result<Namespace, LabError> {
    making.join().unwrap_or_else(|panic| resume_unwind(panic))
}

fn write_sysctls(forwarding: Forwarding, core: Option<usize>) -> Result<(), LinkError> {
    let on = if forwarding == Forwarding::On { "1" } else { "0" };
    let values = [
        // A spoofed source is for the gateway under test to drop and count; the kernel must not be quicker.
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        // Link-local addresses of routers are needed at once to find neighbours; nobody else can have them.
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        ("net/ipv4/ip_forward", on),
        ("net/ipv6/conf/all/forwarding", on),
        // Tests provoke the same ICMP error several times a second and count the answers.
        ("net/ipv4/icmp_ratelimit", "0"),
        ("net/ipv6/icmp/ratelimit", "0"),
    ];
    values.iter().try_for_each(|(path, value)| sysctl(path, value))?;
    if let Some(core) = core {
        sysctl("net/core/rps_default_mask", &format!("{:x}", 1_u64 << core))?;
    }
    // Of use where roles run TCP without choosing its congestion control. A kernel whose administrator did not allow
    // cubic refuses outside the first namespace (EPERM); `bulk` chooses per socket, and does not depend on this.
    let _ = sysctl("net/ipv4/tcp_congestion_control", "cubic");
    Ok(())
}

/// A namespace and a netlink socket in it.
struct Host<'a> {
    namespace: &'a Namespace,
    links: Links,
    equipped: Vec<(String, LinkIndex)>,
}

impl<'a> Host<'a> {
    fn open(namespace: &'a Namespace) -> Result<Self, LabError> {
        let links = namespace.run(Links::open)?;
        let links = links.map_err(|source| LabError::Link { namespace: namespace.name().into(), source })?;
        Ok(Self { namespace, links, equipped: Vec::new() })
    }

    fn link_error(&self) -> impl Fn(LinkError) -> LabError + use<> {
        let namespace = self.namespace.name().to_owned();
        move |source| LabError::Link { namespace: namespace.clone(), source }
    }

    fn join(&mut self, near: &str, other: &Namespace, far: &str) -> Result<(), LabError> {
        let failed = self.link_error();
        self.links.add_veth(near, far, Some(std::os::fd::AsFd::as_fd(other))).map(drop).map_err(failed)
    }

    /// Joins this host, the internet, to a server: by a pair of its own and routes to single addresses, not by a network
    /// that the servers share, which would take a bridge.
    fn join_server<'b>(&mut self, server: &'b Namespace, mtu_bytes: u32) -> Result<Host<'b>, LabError> {
        let near = format!("to-{}", server.name());
        let own = (server.v4(), server.v6());
        let mut host = Host::open(server)?;
        self.join(&near, server, "wan0")?;
        self.equip(&near, mtu_bytes, &[address::ROUTER], address::HOST_BITS)?;
        host.equip("wan0", mtu_bytes, &[own], address::HOST_BITS)?;
        self.route(&near, &address::with_bits(own, address::HOST_BITS), None)?;
        host.route("wan0", &address::with_bits(address::ROUTER, address::HOST_BITS), None)?;
        host.route("wan0", &DEFAULT, Some(address::ROUTER))?;
        Ok(host)
    }

    fn equip(&mut self, interface: &str, mtu_bytes: u32, addresses: &[Pair], bits: Bits) -> Result<(), LabError> {
        let failed = self.link_error();
        let index = self.links.index_of(interface).map_err(&failed)?;
        self.links.set_mtu(index, mtu_bytes).map_err(&failed)?;
        self.add_addresses(interface, addresses, bits)?;
        self.links.set_up(index).map_err(&failed)?;
        self.equipped.push((interface.to_owned(), index));
        Ok(())
    }

    fn add_addresses(&mut self, interface: &str, addresses: &[Pair], bits: Bits) -> Result<(), LabError> {
        let failed = self.link_error();
        let index = self.links.index_of(interface).map_err(&failed)?;
        for pair in addresses {
            for (address, prefix_bits) in address::with_bits(*pair, bits) {
                self.links.add_address(index, address, prefix_bits).map_err(&failed)?;
            }
        }
        Ok(())
    }

    /// Routes of both families, through the next hop `via` or, without one, to neighbours.
    fn route(&mut self, interface: &str, destinations: &[Prefix; 2], via: Option<Pair>) -> Result<(), LabError> {
        let failed = self.link_error();
        let index = self.links.index_of(interface).map_err(&failed)?;
        let via = [via.map(|via| IpAddr::V4(via.0)), via.map(|via| IpAddr::V6(via.1))];
        for (destination, via) in destinations.iter().zip(via) {
            self.links.add_route(*destination, via, index, None).map_err(&failed)?;
        }
        Ok(())
    }

    fn wait_until_operational(&mut self, deadline: Instant) -> Result<(), LabError> {
        let failed = self.link_error();
        for (interface, index) in &self.equipped {
            while !self.links.is_operational(*index).map_err(&failed)? {
                if Instant::now() >= deadline {
                    return Err(LabError::NotOperational {
                        namespace: self.namespace.name().into(),
                        interface: interface.clone(),
                        waited_ms: OPERATIONAL_WAIT.as_millis(),
                    });
                }
                thread::sleep(Duration::from_micros(200));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_built_is_refused() {
        let many: Vec<String> = (0..=CLIENTS_MAX).map(|number| format!("client-{number}")).collect();
        let names: [&[&str]; 5] = [&[], &["a", "a"], &["Alice"], &["thirteen-long"], &["../x"]];
        let taken: [&[&str]; 6] =
            [&["internet"], &["gateway"], &["site"], &["gateway-1"], &["site-7"], &["controller"]];
        for clients in names.into_iter().chain(taken) {
            assert!(matches!(check(&Spec::new(clients.iter().copied())), Err(LabError::Spec(_))), "{clients:?}");
        }
        assert!(matches!(check(&Spec::new(many)), Err(LabError::Spec(_))));
        for sites in [0, SITES_MAX + 1] {
            assert!(matches!(check(&Spec::new(["alice"]).with_sites(sites)), Err(LabError::Spec(_))), "{sites}");
        }
        for wan_mtu_bytes in [0, 1279, 65_536] {
            let spec = Spec { wan_mtu_bytes, ..Spec::new(["alice"]) };
            assert!(matches!(check(&spec), Err(LabError::Spec(_))), "{wan_mtu_bytes}");
        }
        let steering = Some(Steering { endpoints: 0, gateway: STEERING_CORES_MAX });
        assert!(matches!(check(&Spec { steering, ..Spec::new(["alice"]) }), Err(LabError::Spec(_))));
        assert!(check(&Spec::new(["alice", "bob", "client-3"])).is_ok());
        assert!(check(&Spec::new(["alice"]).with_sites(SITES_MAX).with_controller()).is_ok());
    }

    #[test]
    fn the_last_client_has_addresses_of_its_own_network() {
        let last = CLIENTS_MAX as u8 - 1;
        assert_eq!(address::client(last).0, Ipv4Addr::new(198, 51, 100, 126));
        assert_eq!(address::client_router(last).0, Ipv4Addr::new(198, 51, 100, 125));
    }
}
