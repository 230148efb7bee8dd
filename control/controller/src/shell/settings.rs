//! What the Controller is told at its start, and keeps in `controller.toml`.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use ringfort_enrol::{Folder, Secrecy};
use serde::{Deserialize, Serialize};

use crate::core::{FirstAdministrator, PostgresUrl, Settings};

/// Name of the file.
const FILE: &str = "controller.toml";

/// What whoever starts a Controller says. On the first start it is kept; later starts take what is there.
#[derive(Default)]
pub struct Options {
    /// Where to listen: `203.0.113.1:443`. Needed on the first start; later it overrides what is kept, for this run.
    pub listen: Option<String>,
    /// DNS names and IP addresses in the Controller's certificate; first start only. By default the host of `address`.
    pub names: Vec<String>,
    /// `host:port` where everybody reaches the Controller; invitations name it. First start only; by default `listen`.
    pub address: Option<String>,
    /// The first administrator; first start only.
    pub administrator: Option<FirstAdministrator>,
    /// The PostgreSQL database; first start only. By default a file in the state folder.
    pub database: Option<PostgresUrl>,
    /// Connections at a time that have shown no certificate; 1,024 by default.
    pub unauthenticated_max: Option<usize>,
}

/// `controller.toml`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// Where to listen.
    listen: String,
    /// Where metrics are to be had, in the clear; nowhere without it. Written by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metrics: Option<SocketAddr>,
    /// The core's.
    controller: Settings,
    /// Where users log in besides; written by hand.
    #[serde(default, skip_serializing_if = "ringfort_directory::Settings::is_empty")]
    identity: ringfort_directory::Settings,
}

impl Kept {
    /// The settings kept in `folder`, if it has any.
    fn read(folder: &Folder) -> Result<Option<Self>> {
        if !folder.has(FILE) {
            return Ok(None);
        }
        let text = zeroize::Zeroizing::new(folder.read_text(FILE)?);
        match toml::from_str(&text) {
            Ok(kept) => Ok(Some(kept)),
            Err(error) => bail!("{}: {}", folder.file(FILE).display(), told(&text, &error)),
        }
    }
}

/// What is wrong with a file, by line and key. Never what the file says: the database's address may hold a password.
fn told(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count();
    let key = text.lines().nth(line).and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
    let is_key = |key: &&str| {
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    };
    let key = key.filter(is_key).map(|key| format!(", `{key}`")).unwrap_or_default();
    let message = error.message();
    // What was found stands before or after what was expected, and may be a secret.
    let expected = match message.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {expected}"),
        None if message.starts_with("missing field ") => message.to_owned(),
        None if message.starts_with("expected ") => message.to_owned(),
        None => "expected what docs/OPERATING.md names".to_owned(),
    };
    let expected = expected.split(", found ").next().unwrap_or_default();
    format!("line {}{key}: {expected}", line + 1)
}

/// The core's settings that are kept in `folder`.
///
/// # Errors
/// When there are none, or they cannot be read.
pub(crate) fn kept_settings(folder: &Folder) -> Result<Settings> {
    let kept = Kept::read(folder)?.with_context(|| format!("{}: expected {FILE}", folder.path().display()))?;
    Ok(kept.controller)
}

/// Where to listen, and what the core is to know: from the file if there is one, else from `options`.
pub(crate) struct Start {
    kept: Option<Kept>,
    listen: String,
}

impl Start {
    /// Looks at what is kept in `folder`.
    ///
    /// # Errors
    /// When the file cannot be read, or there is none and `options` do not say where to listen.
    pub(crate) fn new(folder: &Folder, options: &Options) -> Result<Self> {
        let kept = Kept::read(folder)?;
        let listen = options.listen.clone().or_else(|| kept.as_ref().map(|kept| kept.listen.clone()));
        let Some(listen) = listen else {
            bail!("expected an address to listen on for the first start, such as 0.0.0.0:443")
        };
        Ok(Self { kept, listen })
    }

    /// The address to listen on.
    pub(crate) fn listen(&self) -> &str {
        &self.listen
    }

    /// The core's settings, now that we listen at `bound`.
    pub(crate) fn settings(&self, options: &Options, bound: SocketAddr) -> Settings {
        if let Some(kept) = &self.kept {
            return kept.controller.clone();
        }
        let address = options.address.clone().unwrap_or_else(|| bound.to_string());
        let names = if options.names.is_empty() { vec![host(&address).to_owned()] } else { options.names.clone() };
        Settings { database: options.database.clone(), ..Settings::new(address, names) }
    }

    /// Where metrics are to be had.
    pub(crate) fn metrics(&self) -> Option<SocketAddr> {
        self.kept.as_ref().and_then(|kept| kept.metrics)
    }

    /// The identity providers.
    pub(crate) fn identity(&self) -> ringfort_directory::Settings {
        self.kept.as_ref().map(|kept| kept.identity.clone()).unwrap_or_default()
    }

    /// Keeps them, on the first start.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn keep(&self, folder: &Folder, settings: &Settings, bound: SocketAddr) -> Result<()> {
        if self.kept.is_none() {
            let identity = ringfort_directory::Settings::default();
            let kept = Kept { listen: bound.to_string(), metrics: None, controller: settings.clone(), identity };
            // The database's address may hold a password.
            folder.write(FILE, toml::to_string(&kept)?.as_bytes(), Secrecy::Secret)?;
        }
        Ok(())
    }
}

/// The host of `host:port`, an IPv6 address without its brackets.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_counts_and_listen_may_be_overridden() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(&place.path().join("state")).unwrap();
        let none = Options::default();
        assert!(Start::new(&folder, &none).err().unwrap().to_string().contains("0.0.0.0:443"));
        let bound = "127.0.0.1:4443".parse().unwrap();
        let first = Options { listen: Some("127.0.0.1:0".into()), ..Options::default() };
        let start = Start::new(&folder, &first).unwrap();
        let settings = start.settings(&first, bound);
        assert_eq!(
            (settings.address.as_str(), settings.names.as_slice()),
            ("127.0.0.1:4443", &["127.0.0.1".into()][..])
        );
        start.keep(&folder, &settings, bound).unwrap();
        let again = Start::new(&folder, &none).unwrap();
        assert_eq!(again.listen(), "127.0.0.1:4443");
        let other =
            Options { listen: Some("[::1]:5".into()), address: Some("elsewhere:1".into()), ..Options::default() };
        let again = Start::new(&folder, &other).unwrap();
        assert_eq!(again.listen(), "[::1]:5");
        assert_eq!(again.settings(&other, bound), settings, "kept settings stay");
    }

    #[test]
    fn identity_providers_are_written_by_hand() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(&place.path().join("state")).unwrap();
        let first = Options { listen: Some("127.0.0.1:0".into()), ..Options::default() };
        let (start, bound) = (Start::new(&folder, &first).unwrap(), "127.0.0.1:4443".parse().unwrap());
        start.keep(&folder, &start.settings(&first, bound), bound).unwrap();
        assert!(Start::new(&folder, &first).unwrap().identity().is_empty());
        let kept = folder.read_text(FILE).unwrap();
        let with = |lines: &str| {
            folder.write(FILE, format!("{kept}\n[[identity.oidc]]\n{lines}").as_bytes(), Secrecy::Public).unwrap();
            Start::new(&folder, &first).map(|start| start.identity())
        };
        let identity = with("name = \"sso\"\nissuer = \"https://id.example\"\nclient_id = \"ringfort\"").unwrap();
        assert_eq!((identity.oidc[0].name.as_str(), identity.ldap.len()), ("sso", 0));
        let error = with("name = \"sso\"\nissuer = \"https://id.example\"\nclient = \"ringfort\"").unwrap_err();
        assert!(format!("{error:#}").contains("client_id"), "{error:#}");
    }

    #[test]
    fn an_error_names_line_and_key_and_nothing_that_the_file_says() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(&place.path().join("state")).unwrap();
        let controller = "[controller]\naddress = \"c.example:443\"\nnames = []\n";
        let head = format!("listen = \"127.0.0.1:1\"\n{controller}");
        for (file, line, expected) in [
            // No address, one that is too much of a value, two in one line, a key that there is not, and no string at all.
            (
                format!("{head}database = \"postgres://u:hunter2@/x:y\"\n"),
                "line 5, `database`: ",
                "expected postgres://",
            ),
            (
                format!("{head}login_seconds = \"postgres://u:hunter2@h/d\"\n"),
                "line 5, `login_seconds`: ",
                "expected u64",
            ),
            (
                format!("{head}login_seconds = \"hunter2, expected hunter2\"\n"),
                "line 5, `login_seconds`: ",
                "expected u64",
            ),
            (format!("{head}databse = \"postgres://u:hunter2@h/d\"\n"), "line 5, `databse`: ", "`database`"),
            (format!("{head}database = postgres://u:hunter2@h/d\n"), "line 5, `database`: ", "expected"),
            (format!("{head}database = \"postgres://u:hunter2@h/d\n"), "line 5, `database`: ", "expected"),
            (format!("{head}postgres://u:hunter2@h/d\n"), "line 5: ", "expected"),
            (format!("{head}database = [\"postgres://u:hunter2@h/d\"]\n"), "line 5, `database`: ", "expected a string"),
            (format!("metrics = \"hunter2\"\n{head}"), "line 1, `metrics`: ", "expected"),
            (controller.to_owned(), "line ", "missing field `listen`"),
        ] {
            folder.write(FILE, file.as_bytes(), Secrecy::Secret).unwrap();
            let error = Start::new(&folder, &Options::default()).err().unwrap();
            let error = format!("{error:#} {error:?}");
            assert!(error.contains(line) && error.contains(expected), "{file}: {error}");
            assert!(error.contains(FILE), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        folder.write(FILE, head.as_bytes(), Secrecy::Secret).unwrap();
        Start::new(&folder, &Options::default()).unwrap();
    }

    #[test]
    fn hosts_are_names_in_certificates() {
        assert_eq!((host("a.example:443"), host("[2001:db8::1]:443")), ("a.example", "2001:db8::1"));
    }
}
