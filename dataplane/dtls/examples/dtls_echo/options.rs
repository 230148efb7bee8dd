//! The command line, and what the engine is configured with by it.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::record::Suite;
use ringfort_dtls::{
    AddressValidation, ClientAuth, ClientConfig, EXPORTED_BYTES, Group, ProtocolVersion, ServerConfig, Settings,
};
use ringfort_identity::Credentials;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::Failed;
use crate::policy::Policy;

/// A DTLS server and client to point other DTLS stacks at.
///
/// Each event is one line on standard output: a word, then name=value pairs. Exit codes: 0 as asked, 1 the handshake failed or
/// what was sent did not come back, 2 the program could not start, 3 the time is over.
#[derive(Debug, Parser)]
#[command(name = "dtls_echo")]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Returns every packet to its sender
    Server(ServerOptions),
    /// Sends packets and prints what comes back
    Client(ClientOptions),
}

#[derive(Debug, Args)]
pub(crate) struct ServerOptions {
    /// Address and port to listen on; port 0 takes any free one, which is printed
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4433")]
    pub(crate) listen: SocketAddr,
    /// Our certificate and the intermediates above it, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: PathBuf,
    /// The private key of the certificate, PEM, PKCS#8
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// Whether clients are asked for a certificate
    #[arg(long, value_name = "HOW", default_value = "none")]
    pub(crate) client_cert: ClientCertificate,
    /// Ask no cookie of clients before state is kept for them
    #[arg(long)]
    pub(crate) no_cookie: bool,
    /// Tell clients the names of the authorities in --ca
    #[arg(long)]
    pub(crate) name_authorities: bool,
    /// Leave after the first association: code 0 if it was established, 1 if not
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) common: CommonOptions,
}

#[derive(Debug, Args)]
pub(crate) struct ClientOptions {
    /// Address and port of the server
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) connect: SocketAddr,
    /// Our certificate and the intermediates above it, PEM; without, none is shown
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// The private key of the certificate, PEM, PKCS#8
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// What to send; without, each line of standard input is a packet
    #[arg(long, value_name = "TEXT")]
    pub(crate) send: Option<String>,
    /// How often to send it, each time when the packet before has come back
    #[arg(long, value_name = "N", default_value_t = 1, requires = "send")]
    pub(crate) count: u32,
    /// Take any packet as the answer, for servers that do not return what they get
    #[arg(long)]
    pub(crate) any_answer: bool,
    #[command(flatten)]
    pub(crate) common: CommonOptions,
}

#[derive(Debug, Args)]
pub(crate) struct CommonOptions {
    /// Authorities under which the peer's certificate must stand, PEM; without, every certificate passes
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Revocation lists of those authorities, PEM; may be given several times
    #[arg(long, value_name = "FILE", requires = "ca")]
    pub(crate) crl: Vec<PathBuf>,
    /// Lowest version; a client of ours speaks 1.3 only
    #[arg(long, value_name = "VERSION", default_value = "1.3")]
    pub(crate) min_version: Version,
    /// Highest version, which cannot be lowered: who offers 1.3 gets that
    #[arg(long, value_name = "VERSION", default_value = "1.3")]
    pub(crate) max_version: Version,
    /// Cipher suites, the best first: aes128, aes256, chacha20
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "aes128,aes256,chacha20")]
    pub(crate) suites: Vec<SuiteName>,
    /// Groups of the key exchange, the best first: x25519mlkem768, x25519, p256, p384
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "x25519mlkem768,x25519,p256,p384")]
    pub(crate) groups: Vec<GroupName>,
    /// Protocol inside (ALPN) that a peer must name if it names any
    #[arg(long, value_name = "NAME")]
    pub(crate) alpn: Option<String>,
    /// Length of the connection id that the peer is to send to us, 0 to 8: with 0 only we send one; without this option neither
    /// does
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u8).range(0..=8))]
    pub(crate) cid: Option<u8>,
    /// Longest datagram of a handshake, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1_200)]
    pub(crate) mtu: usize,
    /// Print the exported value of this label, with no context (RFC 8446 §7.5); the length is 32, which is also what is taken
    /// when none is given
    #[arg(long, value_name = "LABEL[:LENGTH]")]
    pub(crate) print_exporter: Option<ExporterLabel>,
    /// Ask for new keys after so many packets of ours
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) key_update_every: Option<u32>,
    /// Leave after so many seconds, with code 3
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClientCertificate {
    /// Who shows none is sent away
    Required,
    /// Who shows none passes
    Requested,
    /// They are not asked
    None,
}

/// A version that the engine speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Version {
    /// DTLS 1.2, which servers speak with clients by others
    #[value(name = "1.2")]
    V12,
    /// DTLS 1.3
    #[value(name = "1.3")]
    V13,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SuiteName {
    Aes128,
    Aes256,
    Chacha20,
}

impl From<SuiteName> for Suite {
    fn from(name: SuiteName) -> Self {
        match name {
            SuiteName::Aes128 => Self::Aes128GcmSha256,
            SuiteName::Aes256 => Self::Aes256GcmSha384,
            SuiteName::Chacha20 => Self::ChaCha20Poly1305Sha256,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum GroupName {
    X25519mlkem768,
    X25519,
    P256,
    P384,
}

impl From<GroupName> for Group {
    fn from(name: GroupName) -> Self {
        match name {
            GroupName::X25519mlkem768 => Self::X25519MlKem768,
            GroupName::X25519 => Self::X25519,
            GroupName::P256 => Self::P256,
            GroupName::P384 => Self::P384,
        }
    }
}

/// The label of a value to export.
#[derive(Clone, Debug)]
pub(crate) struct ExporterLabel(pub(crate) String);

impl FromStr for ExporterLabel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        /// What the derivation of a label can carry (RFC 8446 §7.1).
        const LABEL_BYTES_MAX: usize = 249;
        let label = match text.rsplit_once(':') {
            Some((label, length)) if length.parse() == Ok(EXPORTED_BYTES) => label,
            Some((_, length)) if length.parse::<usize>().is_ok() => {
                return Err(format!("this engine exports {EXPORTED_BYTES} bytes, no other length"));
            }
            _ => text,
        };
        if label.is_empty() || label.len() > LABEL_BYTES_MAX {
            return Err(format!("expected a label of 1 to {LABEL_BYTES_MAX} bytes"));
        }
        Ok(Self(label.to_owned()))
    }
}

impl CommonOptions {
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// A connection id of ours from random bytes, if we take part.
    pub(crate) fn connection_id(&self, random: &[u8; 32]) -> Option<ConnectionId> {
        let length = usize::from(self.cid?);
        ConnectionId::new(random.get(..length)?)
    }

    fn settings(&self, address_validation: AddressValidation) -> Result<Settings, Failed> {
        if self.max_version != Version::V13 {
            return Err("--max-version: the engine always speaks 1.3 too".into());
        }
        Ok(Settings {
            min_version: match self.min_version {
                Version::V12 => ProtocolVersion::Dtls12,
                Version::V13 => ProtocolVersion::Dtls13,
            },
            suites: self.suites.iter().copied().map(Suite::from).collect(),
            groups: self.groups.iter().copied().map(Group::from).collect(),
            protocol: self.alpn.as_ref().map(|name| name.as_bytes().to_vec()),
            handshake_datagram_bytes_max: self.mtu,
            address_validation,
            ..Settings::default()
        })
    }
}

impl ServerOptions {
    /// The server's configuration, and what judges its clients.
    pub(crate) fn config(&self) -> Result<(Arc<ServerConfig>, Arc<Policy>), Failed> {
        let policy = Arc::new(Policy::for_clients(&self.common, self.name_authorities)?);
        let clients = match self.client_cert {
            ClientCertificate::Required => ClientAuth::Required(Arc::clone(&policy) as _),
            ClientCertificate::Requested => ClientAuth::Requested(Arc::clone(&policy) as _),
            ClientCertificate::None => ClientAuth::None,
        };
        let validation = if self.no_cookie { AddressValidation::None } else { AddressValidation::Cookie };
        let settings = self.common.settings(validation)?;
        let credentials = credentials(&self.cert, &self.key)?;
        Ok((Arc::new(ServerConfig::with_settings(&credentials, clients, settings)?), policy))
    }
}

impl ClientOptions {
    /// The client's configuration, and what judges the server.
    pub(crate) fn config(&self) -> Result<(Arc<ClientConfig>, Arc<Policy>), Failed> {
        let policy = Arc::new(Policy::for_servers(&self.common)?);
        let own = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some(credentials(cert, key)?),
            _ => None,
        };
        let settings = self.common.settings(AddressValidation::None)?;
        let config = ClientConfig::with_settings(own.as_ref(), Arc::clone(&policy) as _, settings)?;
        Ok((Arc::new(config), policy))
    }
}

fn credentials(cert: &Path, key: &Path) -> Result<Credentials, Failed> {
    let chain = pem_items::<CertificateDer<'static>>(cert, "certificate")?;
    let key = PrivatePkcs8KeyDer::from_pem_file(key)
        .map_err(|error| unreadable(key, &error, "PKCS#8 key (`openssl pkcs8 -topk8 -nocrypt` makes one)"))?;
    Ok(Credentials::new(chain, key)?)
}

/// All items of a PEM file, at least one.
pub(crate) fn pem_items<T: PemObject>(path: &Path, what: &str) -> Result<Vec<T>, Failed> {
    let items = T::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<T>, _>>)
        .map_err(|error| unreadable(path, &error, what))?;
    if items.is_empty() {
        return Err(format!("{}: expected a {what} in PEM, found none", path.display()).into());
    }
    Ok(items)
}

fn unreadable(path: &Path, error: &dyn fmt::Display, what: &str) -> Failed {
    format!("{}: expected a {what} in PEM: {error}", path.display()).into()
}
