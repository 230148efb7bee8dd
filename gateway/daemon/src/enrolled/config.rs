//! The file of a Gateway that a Controller manages: what is the site's own business. Everything else comes from the Controller.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfort_policy::Bound;
use serde::Deserialize;

use super::capture::Capture;
use super::upgrade::Upgrade;
use crate::plane::Plane;

/// Shortest and longest time without a Controller that a site may set, in seconds. A configuration comes every minute: what is shorter
/// would shut the door between two of them.
const NO_NEW_SESSIONS_AFTER: std::ops::RangeInclusive<u64> = 120..=86_400;
/// Addresses under which clients may find one Gateway.
const ADDRESSES_MAX: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    gateway: Section,
}

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    #[serde(flatten)]
    pub(super) plane: Plane,
    /// Where clients reach the Gateway, `host:port`; by default where it listens.
    #[serde(default)]
    pub(super) addresses: Vec<String>,
    /// The local ceiling: what no Controller can allow here (C19). Without it everything is left to the Controller.
    pub(super) never_beyond: Option<Bound>,
    /// How long after its Controller's last configuration the Gateway admits new sessions at most, in seconds (X14); by default, and at
    /// most, for as long as that says.
    pub(super) no_new_sessions_after: Option<u64>,
    /// Where `ringfort status` may ask, relative to this file; by default `gateway.sock` in the state folder.
    pub(super) status_socket: Option<PathBuf>,
    /// Upgrades that may be asked for from afar; none without it.
    pub(super) upgrade: Option<Upgrade>,
    /// Captures that may be asked for from afar; none without it.
    pub(super) capture: Option<Capture>,
}

pub(super) fn read(path: &Path) -> Result<Section> {
    let File { mut gateway } = ringfort_service::file::read_toml(path)?;
    gateway.check().with_context(|| path.display().to_string())?;
    if gateway.addresses.is_empty() {
        gateway.addresses.push(gateway.plane.listen.to_string());
    }
    Ok(gateway)
}

impl Section {
    /// [`Section::no_new_sessions_after`] as a time.
    pub(super) fn no_new_sessions_after(&self) -> Option<Duration> {
        self.no_new_sessions_after.map(Duration::from_secs)
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.addresses.len() <= ADDRESSES_MAX,
            "gateway.addresses: expected at most {ADDRESSES_MAX}, found {}",
            self.addresses.len()
        );
        ensure!(
            !self.addresses.is_empty() || !self.plane.listen.ip().is_unspecified(),
            "gateway.listen: {} is every address of this machine; say with `addresses` where clients reach it",
            self.plane.listen
        );
        if let Some(seconds) = self.no_new_sessions_after {
            let (min, max) = (NO_NEW_SESSIONS_AFTER.start(), NO_NEW_SESSIONS_AFTER.end());
            ensure!(
                NO_NEW_SESSIONS_AFTER.contains(&seconds),
                "gateway.no_new_sessions_after: expected {min} to {max} seconds, found {seconds}"
            );
        }
        if let Some(upgrade) = &self.upgrade {
            upgrade.check().map_err(anyhow::Error::msg)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Section> {
        let place = tempfile::tempdir()?;
        let path = place.path().join("gateway.toml");
        std::fs::write(&path, format!("[gateway]\n{text}"))?;
        read(&path)
    }

    #[test]
    fn a_ceiling_and_addresses() {
        let section = read_text("listen = '203.0.113.10:443'").unwrap();
        assert_eq!(section.addresses, ["203.0.113.10:443"]);
        assert_eq!((section.never_beyond.is_none(), section.no_new_sessions_after()), (true, None));
        for seconds in [120, 86_400] {
            let section =
                read_text(&format!("listen = '203.0.113.10:443'\nno_new_sessions_after = {seconds}")).unwrap();
            assert_eq!(section.no_new_sessions_after(), Some(Duration::from_secs(seconds)));
        }
        let text = "listen = '[::]:443'\naddresses = ['gw.example:443']\n\
                    never_beyond = [{ to = ['10.98.0.0/24'], services = ['tcp/80'] }]";
        assert!(read_text(text).unwrap().never_beyond.is_some());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let refused = |text: &str, what: &str| {
            let error = format!("{:#}", read_text(text).unwrap_err());
            assert!(error.contains(what), "{error}");
        };
        refused("listen = '0.0.0.0:443'", "addresses");
        refused("listen = '203.0.113.10:443'\nnever_byond = []", "never_byond");
        refused("listen = '203.0.113.10:443'\nmtu = 100", "MTU");
        for seconds in [0, 119, 86_401] {
            let text = format!("listen = '203.0.113.10:443'\nno_new_sessions_after = {seconds}");
            refused(&text, &format!("expected 120 to 86400 seconds, found {seconds}"));
        }
        refused("listen = '203.0.113.10:443'\nnever_beyond = [{ to = ['10.98.0.0'] }]", "services");
    }
}
