//! The other implementations: how each is started, and what its output says.
//!
//! Three of them are programs of ours around a library (`wolfssl/peer.c`, [`boring`], [`dimpl`]) with one command line and one
//! vocabulary of output lines: `listening address=`, `established …`, `packet text="…"`, `alert received=N`, `exporter
//! value=HEX`, `cid enabled=…`, `closed`, `failed error=…`. OpenSSL and GnuTLS are their own tools, whose lines are read as
//! they are.

#[cfg(feature = "boring")]
pub mod boring;
pub mod dimpl;
pub mod options;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::certificates::{Certificates, Shown};
use crate::matrix::{Case, Obsolete, Special};

/// What both ends send.
pub const TEXT: &str = "hello interop";
/// What both ends derive a value from (RFC 5705 §4: labels for experiments begin so).
pub const EXPORTER_LABEL: &str = "EXPERIMENTAL-ringfort-interop";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    OpenSsl,
    GnuTls,
    WolfSsl,
    Boring,
    Dimpl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V13,
    V12,
}

impl Version {
    pub const fn name(self) -> &'static str {
        match self {
            Self::V13 => "1.3",
            Self::V12 => "1.2",
        }
    }
}

/// Which side is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ours {
    Server,
    Client,
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    pub echo: PathBuf,
    pub wolfssl: Option<PathBuf>,
    /// The oldest version that our server speaks.
    pub oldest: Version,
}

impl Peer {
    pub const ALL: [Self; 5] = [Self::OpenSsl, Self::GnuTls, Self::WolfSsl, Self::Boring, Self::Dimpl];

    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenSsl => "openssl",
            Self::GnuTls => "gnutls",
            Self::WolfSsl => "wolfssl",
            Self::Boring => "boring",
            Self::Dimpl => "dimpl",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|peer| peer.name() == name)
    }

    /// Its full name and version, as it says itself.
    pub fn version(self, programs: &Programs) -> String {
        let first_line = |command: &mut Command| {
            let output = command.output().ok().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            output.and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_else(|| "not found".to_owned())
        };
        match self {
            Self::OpenSsl => {
                let line = first_line(Command::new("openssl").arg("version"));
                line.split_once(" (").map_or(line.clone(), |(version, _)| version.to_owned())
            }
            Self::GnuTls => format!("GnuTLS ({})", first_line(Command::new("gnutls-cli").arg("--version"))),
            Self::WolfSsl => {
                programs.wolfssl.as_ref().map_or_else(String::new, |path| first_line(Command::new(path).arg("version")))
            }
            Self::Boring => "BoringSSL (crate boring-sys 5.4)".to_owned(),
            Self::Dimpl => "dimpl 0.9 (crate)".to_owned(),
        }
    }

    /// Why this peer cannot take part in a case; `None` if it can.
    pub fn cannot(self, version: Version, ours: Ours, case: &Case) -> Option<&'static str> {
        match (self, version) {
            (Self::OpenSsl, Version::V13) => return Some("OpenSSL 3 has no DTLS 1.3"),
            (Self::GnuTls, Version::V13) => return Some("GnuTLS has no DTLS 1.3"),
            _ => {}
        }
        if ours == Ours::Client {
            if version == Version::V12 {
                return Some("our client speaks DTLS 1.3 only");
            }
            if case.theirs == Shown::Nothing {
                return Some("a server always shows a certificate");
            }
            if case.special == Special::NoCookie {
                return Some("of our server only");
            }
        }
        if case.obsolete.is_some() {
            return match (version, self) {
                (Version::V13, _) => Some("of DTLS 1.2 only"),
                (_, Self::OpenSsl) if case.obsolete == Some(Obsolete::PlainMasterSecret) => {
                    Some("s_client always offers the extended master secret")
                }
                (_, Self::OpenSsl | Self::GnuTls) => None,
                _ => Some("tried with OpenSSL and GnuTLS, whose tools can be told so"),
            };
        }
        if version == Version::V12 && case.special == Special::BothVersions {
            return Some("it is in the table of 1.3");
        }
        if version == Version::V12 && case.special == Special::KeyUpdate {
            return Some("DTLS 1.2 has no key update");
        }
        match self {
            Self::Dimpl => dimpl_cannot(ours, case),
            // See `dataplane/dtls/src/front.rs`. The case split-hello is without cookies.
            Self::Boring if ours == Ours::Server && case.special == Special::BothVersions => Some(
                "its first hello fills two datagrams then, which our server takes only where it asks for no cookie",
            ),
            Self::Boring if case.special == Special::ConnectionId => Some("BoringSSL has no connection ids"),
            Self::OpenSsl | Self::GnuTls if case.special == Special::ConnectionId => {
                Some("the tool has no connection ids")
            }
            // Without and with an empty one are the same in DTLS 1.3 only (RFC 5705 §4, RFC 8446 §7.5).
            Self::OpenSsl | Self::GnuTls if case.special == Special::Exporter => {
                Some("the tool exports without a context")
            }
            Self::WolfSsl if case.group.is_some() && version == Version::V12 => {
                Some("the peer program sets groups in DTLS 1.3 only")
            }
            Self::OpenSsl | Self::GnuTls | Self::WolfSsl | Self::Boring
                if case.group == Some("x25519mlkem768") && version == Version::V12 =>
            {
                Some("hybrid groups are of DTLS 1.3")
            }
            _ => None,
        }
    }

    /// The peer as a client of `server`, or as a server on a port of its choice.
    pub fn command(
        self,
        programs: &Programs,
        certificates: &Certificates,
        version: Version,
        server: Option<SocketAddr>,
        case: &Case,
    ) -> Command {
        match (self, server) {
            (Self::OpenSsl, Some(server)) => openssl(certificates, server, case),
            (Self::GnuTls, Some(server)) => gnutls(certificates, server, case),
            _ => self.program_of_ours(programs, certificates, version, server, case),
        }
    }

    fn program_of_ours(
        self,
        programs: &Programs,
        certificates: &Certificates,
        version: Version,
        server: Option<SocketAddr>,
        case: &Case,
    ) -> Command {
        let mut command = match (self, &programs.wolfssl) {
            (Self::WolfSsl, Some(path)) => Command::new(path),
            _ => {
                let mut command = Command::new(std::env::current_exe().unwrap_or_default());
                command.args(["peer", self.name()]);
                command
            }
        };
        match server {
            Some(address) => command.args(["client", &address.ip().to_string(), &address.port().to_string()]),
            None => command.args(["server", "127.0.0.1", "0"]),
        };
        let version = if case.special == Special::BothVersions { "both" } else { version.name() };
        command.args(["--version", version, "--text", TEXT]).arg("--ca").arg(certificates.ca());
        if let Some((chain, key)) = certificates.theirs(case.theirs) {
            command.arg("--cert").arg(chain).arg("--key").arg(key);
        }
        if server.is_none() {
            command.args(["--client-cert", "required"]);
        }
        if let Some(mtu) = case.mtu {
            command.args(["--mtu", &mtu.to_string()]);
        }
        if let Some(group) = case.group {
            command.args(["--group", group]);
        }
        match case.special {
            Special::ConnectionId => drop(command.args(["--cid", "a1b2c3d4"])),
            Special::Exporter => drop(command.args(["--exporter", EXPORTER_LABEL])),
            Special::KeyUpdate => drop(command.args(["--update-keys", "1", "--count", "6"])),
            _ => {}
        }
        command
    }

    /// Whether packets must be typed into the program, and do not come from it by themselves.
    pub const fn is_typed_into(self) -> bool {
        matches!(self, Self::OpenSsl | Self::GnuTls)
    }

    /// Whether the output shows that the text has come back.
    pub fn has_echo(self, output: &str) -> bool {
        match self {
            Self::OpenSsl => output.lines().any(|line| line == TEXT),
            Self::GnuTls => output.lines().any(|line| line.ends_with(TEXT)),
            _ => output.lines().any(|line| line == format!("packet text=\"{TEXT}\"")),
        }
    }

    /// The alert that the other end has received.
    pub fn alert_received(self, output: &str) -> Option<u8> {
        let (start, end) = match self {
            Self::OpenSsl => ("SSL alert number ", "\n"),
            Self::GnuTls => ("Received alert [", "]"),
            _ => ("alert received=", "\n"),
        };
        let (_, rest) = output.split_once(start)?;
        rest.split(end).next()?.trim().parse().ok()
    }
}

/// The value that a peer exported, in hexadecimal.
pub fn exported(output: &str) -> Option<String> {
    output.lines().find_map(|line| line.strip_prefix("exporter value=")).map(str::to_owned)
}

fn dimpl_cannot(ours: Ours, case: &Case) -> Option<&'static str> {
    let unfit = |shown| matches!(shown, Shown::Rsa2048 | Shown::Ed25519);
    if unfit(case.theirs) || unfit(case.ours) {
        return Some("dimpl has ECDSA only");
    }
    if matches!(case.theirs, Shown::Intermediate | Shown::Large) {
        return Some("dimpl sends its leaf only");
    }
    if case.theirs == Shown::Nothing {
        return Some("dimpl always shows a certificate");
    }
    if case.ours == Shown::WrongCa {
        return Some("dimpl checks no chain");
    }
    if case.group == Some("x25519mlkem768") {
        return Some("dimpl has no hybrid group");
    }
    match case.special {
        Special::ConnectionId => Some("dimpl has no connection ids"),
        Special::Exporter => Some("dimpl exports for SRTP only"),
        Special::KeyUpdate if ours == Ours::Client => None,
        _ => None,
    }
}

fn openssl(certificates: &Certificates, server: SocketAddr, case: &Case) -> Command {
    let mut command = Command::new("openssl");
    let version = if case.obsolete == Some(Obsolete::Dtls10) { "-dtls1" } else { "-dtls1_2" };
    command.args(["s_client", version]);
    match case.obsolete {
        Some(Obsolete::Cbc) => drop(command.args(["-cipher", "ECDHE-ECDSA-AES128-SHA256"])),
        Some(Obsolete::StaticRsa) => drop(command.args(["-cipher", "AES128-GCM-SHA256"])),
        // Its hash is MD5 with SHA-1, which the usual level forbids.
        Some(Obsolete::Dtls10) => drop(command.args(["-cipher", "DEFAULT:@SECLEVEL=0"])),
        Some(Obsolete::PlainMasterSecret) | None => {}
    }
    command.args(["-connect", &server.to_string(), "-verify_return_error", "-CAfile"]);
    command.arg(certificates.ca());
    if let Some((chain, key)) = certificates.theirs(case.theirs) {
        // -cert takes the first certificate of the file, -cert_chain those above it.
        command.arg("-cert").arg(&chain).arg("-key").arg(key).arg("-cert_chain").arg(chain);
    }
    if let Some(mtu) = case.mtu {
        command.args(["-mtu", &mtu.to_string()]);
    }
    if let Some(group) = case.group {
        command.args([
            "-groups",
            match group {
                // The server's certificate must be of a curve that is offered too (RFC 8422 §5.3); it takes none but the case's.
                "p256" => "P-256",
                "p384" => "P-384:P-256",
                _ => "X25519:P-256",
            },
        ]);
    }
    command
}

fn gnutls(certificates: &Certificates, server: SocketAddr, case: &Case) -> Command {
    let mut command = Command::new("gnutls-cli");
    let groups = match case.group {
        Some("p256") => ":-GROUP-ALL:+GROUP-SECP256R1",
        Some("p384") => ":-GROUP-ALL:+GROUP-SECP384R1",
        Some(_) => ":-GROUP-ALL:+GROUP-X25519",
        None => "",
    };
    command.args(["--udp", "--port", &server.port().to_string()]);
    let version = if case.obsolete == Some(Obsolete::Dtls10) { "DTLS1.0" } else { "DTLS1.2" };
    let obsolete = match case.obsolete {
        Some(Obsolete::PlainMasterSecret) => ":%NO_SESSION_HASH",
        Some(Obsolete::Cbc) => ":-CIPHER-ALL:+AES-128-CBC",
        Some(Obsolete::StaticRsa) => ":-KX-ALL:+RSA",
        Some(Obsolete::Dtls10) | None => "",
    };
    command.args(["--priority", &format!("NORMAL:-VERS-ALL:+VERS-{version}{groups}{obsolete}")]);
    command.arg("--x509cafile").arg(certificates.ca());
    if let Some((chain, key)) = certificates.theirs(case.theirs) {
        command.arg("--x509certfile").arg(chain).arg("--x509keyfile").arg(key);
    }
    if let Some(mtu) = case.mtu {
        command.args(["--mtu", &mtu.to_string()]);
    }
    command.arg(server.ip().to_string());
    command
}
