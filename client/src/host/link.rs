//! One registration: what this machine's interfaces are, said to a Controller over mutual TLS (W2, W5), and a new certificate where
//! the old one grows old.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Method;
use ringfort_enrol::tls::{self, ALPN_HTTP1, Expected, LiveTrust, OwnCertificate};
use ringfort_enrol::{Folder, FolderError, Https, HttpsError, PrivateKey, wall_clock};
use ringfort_identity::Trust;
use ringfort_link::{LinkError, Links};
use ringfort_proto::api::{
    BASE, CertificateRequest, CertificateResponse, HOST_ADDRESSES_MAX, HOST_INTERFACES_MAX, HostInterface,
    HostRegistration, Known, NONCE_HEADER, Registered, registration_path,
};
use ringfort_types::UnixSeconds;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::Config;
use super::trouble::Trouble;
use crate::controller::decode_certificates;

/// Everything that a registration needs.
pub(super) struct Link {
    folder: Folder,
    trust: LiveTrust,
    own: OwnCertificate,
    /// Those that its file names.
    controllers: Vec<String>,
    /// Those that were heard of, which are asked after them.
    heard: Mutex<Vec<String>>,
    path: String,
    port: u16,
}

impl Link {
    /// With the files of the host that `config` names.
    pub(super) fn open(folder: Folder, config: &Config) -> anyhow::Result<Self> {
        let folder = folder.of_host(&config.hostname);
        folder.finish_next()?;
        Ok(Self {
            trust: LiveTrust::new(folder.trust()?),
            own: OwnCertificate::new(&folder.credentials()?)?,
            controllers: config.controllers.clone(),
            heard: Mutex::default(),
            path: registration_path(config.hostname.as_str()),
            port: config.port,
            folder,
        })
    }

    /// Registers this host; gives the Controller's time.
    pub(super) async fn register(&self) -> Result<UnixSeconds, Trouble> {
        // Of a process that was ended in between.
        self.use_next()?;
        let credentials = self.folder.credentials()?;
        let validity = credentials.chain().first().and_then(tls::validity_of);
        let validity = validity.ok_or_else(|| Trouble::Own("our own certificate cannot be read".into()))?;
        if validity.1 <= wall_clock() {
            return Err(Trouble::Expired);
        }
        let registration =
            HostRegistration { interfaces: interfaces()?, port: self.port, version: env!("CARGO_PKG_VERSION").into() };
        let mut https = self.connect().await?;
        let Registered { last_seen, known } = post(&mut https, &self.path, &registration).await?;
        if let Some(Err(error)) = known.map(|known| self.learn(known)) {
            tracing::warn!(error = format!("{error:#}"), "whom to believe is as it was");
        }
        if tls::is_renewal_due(validity, wall_clock())
            && let Err(error) = self.renew(&mut https).await
        {
            tracing::warn!(%error, "the certificate could not be renewed, trying again with the next registration");
        }
        Ok(UnixSeconds(last_seen))
    }

    /// The first Controller that can be reached.
    async fn connect(&self) -> Result<Https, Trouble> {
        let mut last = Trouble::Network("no address of a Controller is known: name one in host.server".into());
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for address in self.controllers.iter().chain(heard.iter().filter(|one| !self.controllers.contains(one))) {
            let config = tls::client(Some(&self.own), &self.trust.get(), Expected::controller(), ALPN_HTTP1);
            match Https::connect(address, config.map_err(|error| Trouble::Own(error.to_string()))?).await {
                Ok(https) => return Ok(https),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    /// Believes the intermediates that the Controller names from now on, these and no others, and asks the Controllers that it
    /// names after those of the file.
    fn learn(&self, known: Known) -> anyhow::Result<()> {
        let (root, before) = self.folder.ca()?;
        let intermediates = decode_certificates(&known.intermediates)?;
        if before != intermediates {
            let trust = Trust::new(&root, intermediates.iter().cloned())?;
            self.folder.write_ca(std::iter::once(&root).chain(&intermediates))?;
            self.trust.replace(trust);
        }
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = known.controllers;
        Ok(())
    }

    /// Fetches a certificate that lasts longer, for a new key, and shows it from the next connection on. With its first registration by that
    /// the Controller refuses the old key; an answer that is lost costs nothing.
    async fn renew(&self, https: &mut Https) -> Result<(), Trouble> {
        let own = |error: &dyn std::fmt::Display| Trouble::Own(error.to_string());
        let key = PrivateKey::generate().map_err(|error| own(&error))?;
        let certificate_request = key.certificate_request().map_err(|error| own(&error))?;
        let request = CertificateRequest { certificate_request: URL_SAFE_NO_PAD.encode(certificate_request) };
        let answer: CertificateResponse = post(https, &format!("{BASE}/hosts/certificate"), &request).await?;
        let chain = decode_certificates(&answer.chain).map_err(|error| own(&error))?;
        // What we cannot use, we do not keep.
        self.folder.write_next(&key, &chain)?;
        self.use_next()?;
        tracing::info!("key and certificate were renewed");
        Ok(())
    }

    /// Shows the certificate that was fetched, if there is one.
    fn use_next(&self) -> Result<(), Trouble> {
        if matches!(self.folder.next(), Ok(Some(_))) {
            let credentials = self.folder.use_next()?;
            self.own.replace(&credentials).map_err(|error| Trouble::Own(error.to_string()))?;
        }
        Ok(())
    }
}

async fn post<B: Serialize, T: DeserializeOwned>(https: &mut Https, path: &str, body: &B) -> Result<T, HttpsError> {
    Ok(https.request(Method::POST, path, &[], Some(body), NONCE_HEADER).await?.body)
}

/// The interfaces of this machine with their addresses.
fn interfaces() -> Result<Vec<HostInterface>, LinkError> {
    let mut links = Links::open()?;
    let mut found = BTreeMap::new();
    for one in links.addresses()? {
        found.entry(one.index).or_insert_with(Vec::new).push(one.address);
    }
    let mut interfaces = Vec::new();
    for (index, addresses) in found {
        match links.name_of(index) {
            Ok(name) => interfaces.push(HostInterface { name, addresses }),
            // It went meanwhile.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(worth_telling(interfaces))
}

/// What others can use of it, as much as a Controller takes: an address that leads to itself, or means something on one link only,
/// leads nobody here, and a machine with many containers has hundreds of those.
fn worth_telling(mut interfaces: Vec<HostInterface>) -> Vec<HostInterface> {
    let mut left = HOST_ADDRESSES_MAX;
    for interface in &mut interfaces {
        let is_local = |address: &IpAddr| match address {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
        };
        interface.addresses.retain(|address| !is_local(address));
        interface.addresses.truncate(left);
        left -= interface.addresses.len();
    }
    interfaces.retain(|interface| !interface.addresses.is_empty());
    interfaces.truncate(HOST_INTERFACES_MAX);
    interfaces
}

impl From<FolderError> for Trouble {
    fn from(error: FolderError) -> Self {
        Self::Own(error.to_string())
    }
}

impl From<LinkError> for Trouble {
    fn from(error: LinkError) -> Self {
        Self::Own(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, addresses: &[&str]) -> HostInterface {
        HostInterface { name: name.into(), addresses: addresses.iter().map(|one| one.parse().unwrap()).collect() }
    }

    #[test]
    fn what_leads_nobody_here_is_not_told() {
        let all = vec![
            interface("lo", &["127.0.0.1", "::1"]),
            interface("eth0", &["192.0.2.7", "fe80::1", "2001:db8::7", "169.254.3.4"]),
            interface("veth1", &["fe80::2"]),
        ];
        assert_eq!(worth_telling(all), [interface("eth0", &["192.0.2.7", "2001:db8::7"])]);
    }

    #[test]
    fn a_controller_is_told_no_more_than_it_takes() {
        let many = |count: usize| vec!["192.0.2.7"; count];
        let told = worth_telling(vec![interface("a", &many(250)), interface("b", &many(10)), interface("c", &many(1))]);
        assert_eq!(told.iter().map(|one| one.addresses.len()).collect::<Vec<_>>(), [250, 6]);
        let told = worth_telling(vec![interface("a", &many(1)); HOST_INTERFACES_MAX + 1]);
        assert_eq!(told.len(), HOST_INTERFACES_MAX);
    }
}
