//! Everything a static Gateway and its clients need, written to one folder: a CA, leaves under it, and their files.
//!
//! For development, tests and benchmarks. The CA's key is used once and never written.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use toml::{Table, Value};

/// Organisation in every certificate's URI.
const ORGANISATION: &str = "static";
/// Id of the Gateway.
pub const GATEWAY_ID: &str = "gateway";

/// What to write.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the Gateway listens, as its clients see it.
    pub gateway: SocketAddr,
    /// The Gateway's inner addresses, each with its pool's prefix length.
    pub inner: Vec<IpNet>,
    /// What lies behind the Gateway, for the clients' routes.
    pub routes: Vec<IpNet>,
    /// The users. The n-th, from 0, has the inner addresses 10 + n of each pool.
    pub users: Vec<User>,
    /// More keys for the Gateway's section, such as `backend` or `cores`.
    pub gateway_more: Table,
    /// More keys for each client's section.
    pub client_more: Table,
}

/// A user with one device.
#[derive(Clone, Debug)]
pub struct User {
    /// Name; the device is called alike.
    pub name: String,
    /// Rules in order.
    pub rules: Vec<Rule>,
}

/// One rule, as in the Gateway's file.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What people call it.
    pub name: String,
    /// Prefixes at the site that it is about.
    pub networks: Vec<String>,
    /// Services it is about, such as `tcp/80`.
    pub services: Vec<String>,
    /// `allow` or `deny`.
    pub action: String,
    /// `to-site` for flows that the client opens, `to-client` for those that the site opens.
    pub direction: String,
}

impl Rule {
    /// A rule that allows `services` at `to`.
    #[must_use]
    pub fn allow(name: &str, to: &[&str], services: &[&str]) -> Self {
        Self::new(name, "allow", "to-site", to, services)
    }

    /// A rule that denies `services` at `to`.
    #[must_use]
    pub fn deny(name: &str, to: &[&str], services: &[&str]) -> Self {
        Self::new(name, "deny", "to-site", to, services)
    }

    /// A rule that lets `from` open flows to `services` of the client (X12).
    #[must_use]
    pub fn allow_from(name: &str, from: &[&str], services: &[&str]) -> Self {
        Self::new(name, "allow", "to-client", from, services)
    }

    fn new(name: &str, action: &str, direction: &str, networks: &[&str], services: &[&str]) -> Self {
        let strings = |list: &[&str]| list.iter().map(|&item| item.to_owned()).collect();
        Self {
            name: name.into(),
            networks: strings(networks),
            services: strings(services),
            action: action.into(),
            direction: direction.into(),
        }
    }

    fn table(&self) -> Table {
        let strings = |list: &[String]| Value::Array(list.iter().cloned().map(Value::String).collect());
        let networks = if self.direction == "to-client" { "from" } else { "to" };
        Table::from_iter([
            ("name".into(), Value::String(self.name.clone())),
            ("action".into(), Value::String(self.action.clone())),
            ("direction".into(), Value::String(self.direction.clone())),
            (networks.into(), strings(&self.networks)),
            ("services".into(), strings(&self.services)),
        ])
    }
}

impl Plan {
    /// The `index`-th user's address in each pool.
    pub fn user_addresses(&self, index: usize) -> Result<Vec<IpAddr>> {
        let offset = u32::try_from(index)?.checked_add(10).context("too many users")?;
        self.inner.iter().map(|pool| nth(*pool, offset)).collect()
    }

    /// The Gateway's file in `folder`.
    #[must_use]
    pub fn gateway_file(folder: &Path) -> PathBuf {
        folder.join("gateway.toml")
    }

    /// A user's file in `folder`.
    #[must_use]
    pub fn user_file(folder: &Path, user: &str) -> PathBuf {
        folder.join(format!("{user}.toml"))
    }

    /// Writes all files into `folder`, which must be empty or not exist yet.
    ///
    /// # Errors
    /// When a file is there already or cannot be written, or the plan contradicts itself.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        ensure!(fs::read_dir(folder)?.next().is_none(), "{}: expected an empty folder", folder.display());
        let ca = Ca::new()?;
        write_new(&folder.join("ca.pem"), ca.pem.as_bytes(), 0o644)?;
        ca.leaf(
            folder,
            "gateway",
            &format!("ringfort://{ORGANISATION}/gateway/{GATEWAY_ID}"),
            ExtendedKeyUsagePurpose::ServerAuth,
        )?;
        write_new(&Self::gateway_file(folder), self.gateway_table()?.to_string().as_bytes(), 0o644)?;
        for (index, user) in self.users.iter().enumerate() {
            let uri = format!("ringfort://{ORGANISATION}/device/{}", user.name);
            ca.leaf(folder, &user.name, &uri, ExtendedKeyUsagePurpose::ClientAuth)?;
            let file = self.client_table(index, user)?;
            write_new(&Self::user_file(folder, &user.name), file.to_string().as_bytes(), 0o644)?;
        }
        Ok(())
    }

    fn gateway_table(&self) -> Result<Table> {
        let mut gateway = credentials("gateway");
        gateway.insert("listen".into(), self.gateway.to_string().into());
        gateway.insert("status_socket".into(), "gateway.sock".into());
        for pool in &self.inner {
            gateway.insert(family(pool.addr()).into(), pool.to_string().into());
        }
        gateway.extend(self.gateway_more.clone());
        let mut users = Vec::new();
        for (index, user) in self.users.iter().enumerate() {
            let mut table = Table::new();
            table.insert("name".into(), user.name.clone().into());
            table.insert("device".into(), user.name.clone().into());
            for address in self.user_addresses(index)? {
                table.insert(family(address).into(), address.to_string().into());
            }
            table.insert(
                "rule".into(),
                Value::Array(user.rules.iter().map(|rule| Value::Table(rule.table())).collect()),
            );
            users.push(Value::Table(table));
        }
        Ok(Table::from_iter([("gateway".into(), Value::Table(gateway)), ("user".into(), Value::Array(users))]))
    }

    fn client_table(&self, index: usize, user: &User) -> Result<Table> {
        let mut client = credentials(&user.name);
        client.insert("gateway".into(), self.gateway.to_string().into());
        client.insert("gateway_id".into(), GATEWAY_ID.into());
        client.insert("status_socket".into(), format!("{}.sock", user.name).into());
        for address in self.user_addresses(index)? {
            client.insert(family(address).into(), address.to_string().into());
        }
        let routes = self.routes.iter().map(|route| Value::String(route.to_string())).collect();
        client.insert("routes".into(), Value::Array(routes));
        client.extend(self.client_more.clone());
        Ok(Table::from_iter([("client".into(), Value::Table(client))]))
    }
}

fn credentials(name: &str) -> Table {
    let file = |key: &str, value: String| (key.to_owned(), Value::String(value));
    Table::from_iter([
        file("ca", "ca.pem".into()),
        file("certificate", format!("{name}.pem")),
        file("key", format!("{name}.key")),
    ])
}

const fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(_) => "ipv6",
    }
}

fn nth(pool: IpNet, offset: u32) -> Result<IpAddr> {
    let address = match pool.network() {
        IpAddr::V4(network) => IpAddr::V4(u32::from(network).wrapping_add(offset).into()),
        IpAddr::V6(network) => IpAddr::V6(u128::from(network).wrapping_add(offset.into()).into()),
    };
    ensure!(pool.contains(&address), "the pool {pool} has no room for so many users");
    Ok(address)
}

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("Ringfort static CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    fn leaf(&self, folder: &Path, file: &str, uri: &str, usage: ExtendedKeyUsagePurpose) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(file);
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer)?;
        write_new(&folder.join(format!("{file}.pem")), certificate.pem().as_bytes(), 0o644)?;
        write_new(&folder.join(format!("{file}.key")), key.serialize_pem().as_bytes(), 0o600)
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(bytes)).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            gateway: "203.0.113.10:4433".parse().unwrap(),
            inner: vec!["10.97.0.1/16".parse().unwrap(), "fd97::1/64".parse().unwrap()],
            routes: vec!["10.98.0.0/24".parse().unwrap()],
            users: vec![User {
                name: "alice".into(),
                rules: vec![Rule::allow("wiki", &["10.98.0.10/32"], &["tcp/80"])],
            }],
            gateway_more: Table::new(),
            client_more: Table::new(),
        }
    }

    #[test]
    fn keys_are_private_and_nothing_is_overwritten() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        plan().write(folder.path()).unwrap();
        for key in ["gateway.key", "alice.key"] {
            assert_eq!(fs::metadata(folder.path().join(key)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(!folder.path().join("ca.key").exists());
        assert!(plan().write(folder.path()).unwrap_err().to_string().contains("empty folder"));
        ringfort_service::credentials::load(&folder.path().join("alice.pem"), &folder.path().join("alice.key"))
            .unwrap();
    }

    #[test]
    fn users_have_addresses_of_each_pool() {
        let addresses = plan().user_addresses(1).unwrap();
        assert_eq!(addresses, ["10.97.0.11".parse::<IpAddr>().unwrap(), "fd97::b".parse().unwrap()]);
        let small = Plan { inner: vec!["10.97.0.1/28".parse().unwrap()], ..plan() };
        assert!(small.user_addresses(6).is_err());
    }
}
