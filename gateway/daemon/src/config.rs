//! The file of a static Gateway.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ringfort_policy::RuleSpec;
use ringfort_rules::InnerAddresses;
use serde::Deserialize;

use crate::plane::{Plane, Pools};

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
    #[serde(flatten)]
    pub(crate) plane: Plane,
    /// PEM files, relative to this one: the CA, our leaf under it, its key.
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Our address inside with the length of the client pool's prefix.
    pub(crate) ipv4: Option<Ipv4Net>,
    pub(crate) ipv6: Option<Ipv6Net>,
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
        let pools = gateway.pools();
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
                let pool = pools.networks().find(|pool| pool.contains(&address));
                let Some(pool) = pool else { bail!("user {name}: {address} lies in no pool of the gateway") };
                ensure!(!pools.own().contains(address), "user {name}: {address} is the gateway's own");
                let edge = matches!(pool, IpNet::V4(_)) && (address == pool.network() || address == pool.broadcast());
                ensure!(!edge, "user {name}: {address} is the network or broadcast address of {pool}");
                ensure!(addresses.insert(address), "user {name}: {address} is another user's already");
            }
        }
        Ok(())
    }
}

impl GatewaySection {
    /// Our addresses inside, with the pools.
    pub(crate) fn pools(&self) -> Pools {
        Pools(self.ipv4.map(IpNet::V4).into_iter().chain(self.ipv6.map(IpNet::V6)).collect())
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
            file.gateway.pools().networks().map(|pool| pool.to_string()).collect::<Vec<_>>(),
            ["10.97.0.0/16", "fd97::/64"]
        );
        assert_eq!(file.gateway.plane.worker_cores(&[0, 1, 2]).unwrap(), [0, 1]);
        assert_eq!(file.gateway.plane.worker_cores(&[3]).unwrap(), [3]);
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
        let with = |workers, cores| Plane { workers, cores, ..check("").unwrap().gateway.plane };
        assert!(with(Some(0), None).worker_cores(&[0, 1]).is_err());
        assert!(with(None, Some(vec![7])).worker_cores(&[0, 1]).unwrap_err().to_string().contains("core 7"));
        assert_eq!(with(Some(2), Some(vec![1])).worker_cores(&[0, 1]).unwrap(), [1, 1]);
    }
}
