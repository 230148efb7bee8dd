//! The file of a static Gateway.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ringfort_policy::RuleSpec;
use ringfort_rules::InnerAddresses;
use ringfort_service::settings::{Backend, Mtu, TunName};
use serde::Deserialize;

/// Workers by default, on a machine with so many cores or more.
const WORKERS_DEFAULT: usize = 2;
/// Workers at most: what one byte of a connection id can tell apart leaves room for more, no machine has been seen to
/// need them.
const WORKERS_MAX: usize = 64;
/// Users at most; more belong into a Controller's database.
const USERS_MAX: usize = 65_536;
/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StaticFile {
    pub(crate) gateway: GatewaySection,
    #[serde(default, rename = "user")]
    pub(crate) users: Vec<UserSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatewaySection {
    /// Where clients send their datagrams.
    pub(crate) listen: SocketAddr,
    /// PEM files, relative to this one: the CA, our leaf under it, its key.
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Our address inside with the length of the client pool's prefix.
    pub(crate) ipv4: Option<Ipv4Net>,
    pub(crate) ipv6: Option<Ipv6Net>,
    /// Name of the TUN interface.
    #[serde(default)]
    pub(crate) tun: TunName,
    #[serde(default)]
    pub(crate) mtu: Mtu,
    /// Number of workers; by default two, or one on a machine with one core.
    pub(crate) workers: Option<usize>,
    /// Cores for them; by default the first ones that the process may use.
    pub(crate) cores: Option<Vec<usize>>,
    #[serde(default)]
    pub(crate) backend: Backend,
    /// Where `ringfort status` may ask, relative to this file.
    pub(crate) status_socket: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserSection {
    pub(crate) name: String,
    /// Id in the certificates of the user's devices: `ringfort://<organisation>/device/<id>`.
    pub(crate) device: String,
    pub(crate) ipv4: Option<std::net::Ipv4Addr>,
    pub(crate) ipv6: Option<std::net::Ipv6Addr>,
    /// In order; the first that matches decides, and none is a denial.
    #[serde(default, rename = "rule")]
    pub(crate) rules: Vec<RuleSpec>,
}

impl StaticFile {
    /// Checks what the form alone does not.
    pub(crate) fn check(&self) -> Result<()> {
        let gateway = &self.gateway;
        ensure!(
            gateway.ipv4.is_some() || gateway.ipv6.is_some(),
            "gateway: expected ipv4, ipv6 or both (address/prefix of the client pool)"
        );
        ensure!(self.users.len() <= USERS_MAX, "expected at most {USERS_MAX} users, found {}", self.users.len());
        let (mut devices, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for user in &self.users {
            let name = &user.name;
            ensure!(
                devices.insert(&user.device),
                "user {name}: the device {:?} is another user's already",
                user.device
            );
            ensure!(user.ipv4.is_some() || user.ipv6.is_some(), "user {name}: expected ipv4, ipv6 or both");
            for address in user.inner().iter() {
                let pool = gateway.pools().find(|pool| pool.contains(&address));
                let Some(pool) = pool else { bail!("user {name}: {address} lies in no pool of the gateway") };
                ensure!(!gateway.own().contains(address), "user {name}: {address} is the gateway's own");
                let edge = matches!(pool, IpNet::V4(_)) && (address == pool.network() || address == pool.broadcast());
                ensure!(!edge, "user {name}: {address} is the network or broadcast address of {pool}");
                ensure!(addresses.insert(address), "user {name}: {address} is another user's already");
            }
        }
        Ok(())
    }
}

impl GatewaySection {
    /// The Gateway's own inner addresses.
    pub(crate) fn own(&self) -> InnerAddresses {
        InnerAddresses { ipv4: self.ipv4.map(|net| net.addr()), ipv6: self.ipv6.map(|net| net.addr()) }
    }

    /// The networks from which clients have their inner addresses.
    pub(crate) fn pools(&self) -> impl Iterator<Item = IpNet> {
        let v4 = self.ipv4.map(|net| IpNet::V4(net.trunc()));
        let v6 = self.ipv6.map(|net| IpNet::V6(net.trunc()));
        v4.into_iter().chain(v6)
    }

    /// Our inner addresses with their prefix lengths, for the interface.
    pub(crate) fn interface_addresses(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        let v4 = self.ipv4.map(|net| (IpAddr::V4(net.addr()), net.prefix_len()));
        let v6 = self.ipv6.map(|net| (IpAddr::V6(net.addr()), net.prefix_len()));
        v4.into_iter().chain(v6)
    }

    /// The core of each worker, among the `usable` ones.
    pub(crate) fn worker_cores(&self, usable: &[usize]) -> Result<Vec<usize>> {
        let cores = self.cores.as_deref().unwrap_or(usable);
        let workers = self.workers.unwrap_or_else(|| cores.len().min(WORKERS_DEFAULT));
        ensure!((1..=WORKERS_MAX).contains(&workers), "gateway.workers: expected 1 to {WORKERS_MAX}, found {workers}");
        if let Some(core) = cores.iter().find(|core| !usable.contains(core)) {
            bail!("gateway.cores: core {core} is not among those that this process may use ({usable:?})");
        }
        ensure!(!cores.is_empty(), "gateway.cores: expected at least one core");
        // More workers than cores share them: slower, but of use where two workers are to be seen on one core.
        Ok(cores.iter().copied().cycle().take(workers).collect())
    }
}

impl UserSection {
    pub(crate) fn inner(&self) -> InnerAddresses {
        InnerAddresses { ipv4: self.ipv4, ipv6: self.ipv6 }
    }
}

/// Parses and checks a file's text; for tests and for the reader.
pub(crate) fn read(path: &std::path::Path) -> Result<StaticFile> {
    let file: StaticFile = ringfort_service::file::read_toml(path)?;
    file.check().with_context(|| path.display().to_string())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: &str = r#"
        [gateway]
        listen = "203.0.113.2:4433"
        ca = "ca.pem"
        certificate = "gateway.pem"
        key = "gateway.key"
        ipv4 = "10.97.0.1/16"
        ipv6 = "fd97::1/64"
    "#;

    fn check(users: &str) -> Result<StaticFile> {
        let file: StaticFile = toml::from_str(&format!("{GATEWAY}\n{users}"))?;
        file.check()?;
        Ok(file)
    }

    fn user(name: &str, device: &str, ipv4: &str) -> String {
        format!("[[user]]\nname = {name:?}\ndevice = {device:?}\nipv4 = {ipv4:?}\n")
    }

    #[test]
    fn a_good_file_passes() {
        let file = check(&(user("alice", "a", "10.97.0.10") + &user("bob", "b", "10.97.0.11"))).unwrap();
        assert_eq!(file.users.len(), 2);
        assert_eq!(
            file.gateway.pools().map(|pool| pool.to_string()).collect::<Vec<_>>(),
            ["10.97.0.0/16", "fd97::/64"]
        );
        assert_eq!(file.gateway.worker_cores(&[0, 1, 2]).unwrap(), [0, 1]);
        assert_eq!(file.gateway.worker_cores(&[3]).unwrap(), [3]);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let refused = |users: &str, what: &str| {
            let error = format!("{:#}", check(users).unwrap_err());
            assert!(error.contains(what), "{error}");
        };
        refused(&(user("alice", "a", "10.97.0.10") + &user("bob", "a", "10.97.0.11")), "another user's");
        refused(&(user("alice", "a", "10.97.0.10") + &user("bob", "b", "10.97.0.10")), "another user's");
        refused(&user("alice", "a", "10.98.0.10"), "no pool");
        refused(&user("alice", "a", "10.97.0.1"), "gateway's own");
        refused(&user("alice", "a", "10.97.255.255"), "broadcast");
        refused("[[user]]\nname = 'x'\ndevice = 'x'\n", "expected ipv4");
        refused("[[user]]\nname = 'x'\ndevice = 'x'\nipv4 = '10.97.0.9'\nadmin = true\n", "admin");
        let file = check("").unwrap();
        let with = |workers, cores| GatewaySection { workers, cores, ..check("").unwrap().gateway };
        assert!(with(Some(0), None).worker_cores(&[0, 1]).is_err());
        assert!(with(None, Some(vec![7])).worker_cores(&[0, 1]).unwrap_err().to_string().contains("core 7"));
        assert_eq!(with(Some(2), Some(vec![1])).worker_cores(&[0, 1]).unwrap(), [1, 1]);
        drop(file);
    }
}
