//! The file of a static client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use ringfort_rules::InnerAddresses;
use ringfort_service::settings::{Backend, Mtu, TunName};
use serde::Deserialize;

/// Routes at most.
const ROUTES_MAX: usize = 4_096;
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StaticFile {
    pub(crate) client: ClientSection,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientSection {
    /// Where the Gateway listens.
    pub(crate) gateway: SocketAddr,
    /// Id that the Gateway's certificate must carry; without it any Gateway of the CA will do.
    pub(crate) gateway_id: Option<Box<str>>,
    /// PEM files, relative to this one: the CA, our leaf under it, its key.
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Our addresses inside.
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
    /// What lies behind the Gateway.
    pub(crate) routes: Vec<IpNet>,
    /// Name of the TUN interface.
    #[serde(default)]
    pub(crate) tun: TunName,
    #[serde(default)]
    pub(crate) mtu: Mtu,
    /// Core for the one worker; by default the scheduler chooses.
    pub(crate) core: Option<usize>,
    #[serde(default)]
    pub(crate) backend: Backend,
    /// Where `ringfort status` may ask, relative to this file.
    pub(crate) status_socket: Option<PathBuf>,
}

pub(crate) fn read(path: &Path) -> Result<ClientSection> {
    let file: StaticFile = ringfort_service::file::read_toml(path)?;
    file.client.check().with_context(|| path.display().to_string())?;
    Ok(file.client)
}

impl ClientSection {
    fn check(&self) -> Result<()> {
        ensure!(self.ipv4.is_some() || self.ipv6.is_some(), "client: expected ipv4, ipv6 or both");
        ensure!(
            self.routes.len() <= ROUTES_MAX,
            "client.routes: expected at most {ROUTES_MAX}, found {}",
            self.routes.len()
        );
        for route in &self.routes {
            let source = match route {
                IpNet::V4(_) => self.ipv4.map(IpAddr::V4),
                IpNet::V6(_) => self.ipv6.map(IpAddr::V6),
            };
            ensure!(source.is_some(), "client.routes: {route} needs an inner address of its family");
            if route.contains(&self.gateway.ip()) {
                bail!(
                    "client.routes: {route} contains the gateway's own address {}, so the tunnel would run through itself",
                    self.gateway.ip()
                );
            }
        }
        Ok(())
    }

    pub(crate) fn inner(&self) -> InnerAddresses {
        InnerAddresses { ipv4: self.ipv4, ipv6: self.ipv6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(more: &str) -> Result<()> {
        let text = format!(
            "[client]\ngateway = '203.0.113.2:4433'\nca = 'ca.pem'\ncertificate = 'a.pem'\nkey = 'a.key'\nipv4 = '10.97.0.10'\n{more}"
        );
        toml::from_str::<StaticFile>(&text)?.client.check()
    }

    #[test]
    fn routes_must_be_usable() {
        check("routes = ['10.98.0.0/24']").unwrap();
        let refused = |more: &str, what: &str| {
            let error = format!("{:#}", check(more).unwrap_err());
            assert!(error.contains(what), "{error}");
        };
        refused("routes = ['fd98::/64']", "address of its family");
        refused("routes = ['203.0.113.0/24']", "through itself");
        refused("routes = ['0.0.0.0/0']", "through itself");
        refused("routes = ['10.98.0.0']", "invalid");
        refused("routes = []\nmtu = 500", "MTU");
        refused("routes = []\nresources = []", "resources");
        refused("", "routes");
    }
}
