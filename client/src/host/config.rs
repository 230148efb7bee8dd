//! The file of a host that registers itself.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfort_enrol::Identity;
use ringfort_identity::Hostname;
use serde::Deserialize;

/// The value of `resolution_mode` that switches registration on (W3).
const DIRECT: &str = "direct";
/// Time between two registrations by default (W4), and shortest and longest that may be set, in seconds.
const INTERVAL_SECONDS: u64 = 60;
const INTERVAL_SECONDS_ALLOWED: std::ops::RangeInclusive<u64> = 1..=86_400;
/// Port of a Controller whose URL names none.
const PORT_DEFAULT: u16 = 443;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    host: Section,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    /// How others find this host: `direct` is by what it registers.
    resolution_mode: Option<String>,
    /// URL of a Controller, `https://host:port`; by default those named at joining.
    server: Option<String>,
    /// Its name; by default the one it joined with.
    hostname: Option<String>,
    /// Port on which it listens for whoever wants to reach it.
    port: u16,
    /// Seconds between two registrations.
    #[serde(default = "interval_seconds")]
    interval_seconds: u64,
}

const fn interval_seconds() -> u64 {
    INTERVAL_SECONDS
}

/// What the file says, and what it left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) mode: Mode,
    /// `host:port` of each Controller, tried in order.
    pub(super) controllers: Vec<String>,
    pub(super) hostname: Hostname,
    pub(super) port: u16,
    pub(super) interval: Duration,
}

/// Whether the host registers itself (W3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Direct,
    /// It does not, because of what the file says or leaves out.
    Off(Option<String>),
}

/// Reads the file at `path` of the host that joined as `identity`.
pub(super) fn read(path: &Path, identity: &Identity) -> Result<Config> {
    let File { host } = ringfort_service::file::read_toml(path)?;
    parse(host, identity).with_context(|| path.display().to_string())
}

fn parse(section: Section, identity: &Identity) -> Result<Config> {
    let Section { resolution_mode, server, hostname, port, interval_seconds } = section;
    let mode = match resolution_mode {
        Some(mode) if mode == DIRECT => Mode::Direct,
        other => Mode::Off(other),
    };
    ensure!(port != 0, "host.port: expected the port on which this host listens, found 0");
    ensure!(
        INTERVAL_SECONDS_ALLOWED.contains(&interval_seconds),
        "host.interval_seconds: expected {} to {}, found {interval_seconds}",
        INTERVAL_SECONDS_ALLOWED.start(),
        INTERVAL_SECONDS_ALLOWED.end()
    );
    let controllers = match server {
        Some(url) => vec![address_of(&url).with_context(|| {
            format!("host.server: expected https://HOST or https://HOST:PORT of a Controller, found {url:?}")
        })?],
        None => identity.controllers.clone(),
    };
    let hostname = hostname.unwrap_or_else(|| identity.id.clone());
    let hostname = hostname.parse().with_context(|| format!("host.hostname: {hostname:?}"))?;
    Ok(Config { mode, controllers, hostname, port, interval: Duration::from_secs(interval_seconds) })
}

/// `host:port` of an `https` URL without a path.
fn address_of(url: &str) -> Option<String> {
    let authority = url.strip_prefix("https://")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    if authority.is_empty() || !authority.bytes().all(is_plain) {
        return None;
    }
    // The colons of an IPv6 address stand in brackets.
    let behind_host = authority.rfind(']').map_or(0, |end| end + 1);
    match authority[behind_host..].split_once(':') {
        Some((_, port)) => port.parse::<u16>().is_ok_and(|port| port != 0).then(|| authority.to_owned()),
        None => Some(format!("{authority}:{PORT_DEFAULT}")),
    }
}

#[cfg(test)]
mod tests {
    use ringfort_enrol::Kind;

    use super::*;

    fn read_text(text: &str) -> Result<Config> {
        let place = tempfile::tempdir()?;
        let path = place.path().join("host.toml");
        std::fs::write(&path, format!("[host]\n{text}"))?;
        let identity = Identity {
            organisation: "o".into(),
            kind: Kind::Host,
            id: "nas".into(),
            site: String::new(),
            user: String::new(),
            controllers: vec!["192.0.2.1:443".into()],
        };
        read(&path, &identity)
    }

    // Covers: W3 allow
    // Covers: W3 refuse
    #[test]
    fn only_direct_switches_registration_on() {
        let mode = |text: &str| read_text(&format!("port = 1\n{text}")).unwrap().mode;
        assert_eq!(mode("resolution_mode = 'direct'"), Mode::Direct);
        assert_eq!(mode(""), Mode::Off(None));
        for other in ["dns", "Direct", "direct ", ""] {
            assert_eq!(mode(&format!("resolution_mode = '{other}'")), Mode::Off(Some(other.into())));
        }
    }

    // Covers: W4 allow
    #[test]
    fn what_is_left_out_comes_from_joining() {
        let config = read_text("port = 3657").unwrap();
        assert_eq!((config.hostname.as_str(), config.port), ("nas", 3_657));
        assert_eq!((config.interval, config.controllers), (Duration::from_secs(60), vec!["192.0.2.1:443".to_owned()]));
        let text = "port = 1\nhostname = 'other'\ninterval_seconds = 5\nserver = 'https://controller.example/'";
        let config = read_text(text).unwrap();
        assert_eq!((config.hostname.as_str(), config.interval), ("other", Duration::from_secs(5)));
        assert_eq!(config.controllers, ["controller.example:443"]);
    }

    #[test]
    fn a_server_is_an_https_url() {
        assert_eq!(address_of("https://192.0.2.1:8443").as_deref(), Some("192.0.2.1:8443"));
        assert_eq!(address_of("https://[2001:db8::1]").as_deref(), Some("[2001:db8::1]:443"));
        assert_eq!(address_of("https://[2001:db8::1]:8443/").as_deref(), Some("[2001:db8::1]:8443"));
        for bad in
            ["http://a", "a:443", "https://", "https://a/b", "https://a:0", "https://a:x", "https://u@a", "https://a?b"]
        {
            assert_eq!(address_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let refused = |text: &str, what: &str| {
            let error = format!("{:#}", read_text(text).unwrap_err());
            assert!(error.contains(what) && error.contains("host.toml"), "{error}");
        };
        refused("resolution_mode = 'direct'", "port");
        refused("port = 0", "found 0");
        refused("port = 65536", "65536");
        refused("port = 1\ninterval_seconds = 0", "1 to 86400");
        refused("port = 1\ninterval_seconds = 86401", "found 86401");
        refused("port = 1\nhostname = 'NAS'", "hostname");
        refused("port = 1\nserver = 'http://a'", "https://HOST");
        refused("port = 1\ninterval = 5", "interval");
    }
}
