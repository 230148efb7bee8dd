//! Logins that were begun at an OpenID provider and wait for a browser to come back.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ringfort_directory::oidc::{Finished, Pending};
use ringfort_identity::KeyThumbprint;

use super::limits::{OIDC_BEGUN_MAX, OIDC_LIFE, OIDC_OF_ONE_ADDRESS_MAX};

/// A login that waits for a browser.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) key: KeyThumbprint,
    pub(super) client_id: String,
    /// Which of the providers.
    pub(super) provider: usize,
    pub(super) stage: Stage,
    /// What counts as one address.
    pub(super) from: IpAddr,
    pub(super) begun_at: Instant,
}

/// How far it has come.
pub(super) enum Stage {
    /// The browser is at the provider.
    Begun(Pending),
    /// The provider has said who they are; what is missing is a one-time password of ours.
    Known(Finished),
}

impl std::fmt::Debug for Stage {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Begun(_) => "Begun",
            Self::Known(_) => "Known",
        })
    }
}

impl Waiting {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.begun_at) >= OIDC_LIFE
    }
}

/// Those that wait, by their handles: each good once, and not for long.
#[derive(Debug, Default)]
pub(super) struct Begun(Mutex<BTreeMap<String, Waiting>>);

impl Begun {
    /// Keeps one more. Of one address the oldest makes room; when there are too many in all, the oldest of those who have the most, so
    /// that whoever begins many ends their own.
    pub(super) fn insert(&self, handle: String, waiting: Waiting) {
        let mut begun = self.begun();
        let now = waiting.begun_at;
        begun.retain(|_, one| !one.is_over(now));
        let same = || begun.iter().filter(|(_, one)| one.from == waiting.from);
        let goes = if same().count() >= OIDC_OF_ONE_ADDRESS_MAX {
            same().min_by_key(|(_, one)| one.begun_at).map(|(handle, _)| handle.clone())
        } else if begun.len() >= OIDC_BEGUN_MAX {
            oldest_of_most(&begun)
        } else {
            None
        };
        if let Some(goes) = goes {
            begun.remove(&goes);
        }
        begun.insert(handle, waiting);
    }

    /// At which provider the login with this handle was begun.
    pub(super) fn provider(&self, handle: &str) -> Option<usize> {
        self.begun().get(handle).map(|waiting| waiting.provider)
    }

    /// Takes it off.
    pub(super) fn take(&self, handle: &str, now: Instant) -> Option<Waiting> {
        self.begun().remove(handle).filter(|waiting| !waiting.is_over(now))
    }

    fn begun(&self) -> MutexGuard<'_, BTreeMap<String, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The oldest login of the network with the most of them.
fn oldest_of_most(begun: &BTreeMap<String, Waiting>) -> Option<String> {
    let mut networks: BTreeMap<IpAddr, (usize, Reverse<Instant>, &String)> = BTreeMap::new();
    for (handle, one) in begun {
        let begun_at = Reverse(one.begun_at);
        let (count, oldest, of) = networks.entry(site(one.from)).or_insert((0, begun_at, handle));
        *count += 1;
        if begun_at > *oldest {
            (*oldest, *of) = (begun_at, handle);
        }
    }
    networks.into_values().max().map(|(_, _, handle)| handle.clone())
}

/// What one organisation has at most times: the /24 of an IPv4 address, the /48 of an IPv6 address.
fn site(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) & (u32::MAX << 8)).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & (u128::MAX << 80)).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringfort_directory::oidc::RedirectUri;
    use ringfort_types::UnixSeconds;

    use super::*;
    use crate::core::network;

    fn waiting(from: &str, begun_at: Instant) -> Waiting {
        let redirect = RedirectUri::new("http://127.0.0.1:1/callback/sso", "/callback/sso").unwrap();
        let pending = Pending::new(redirect, UnixSeconds(0)).unwrap();
        let (key, from) = ("A".repeat(43).parse().unwrap(), network(from.parse().unwrap()));
        Waiting { key, client_id: "c".into(), provider: 0, stage: Stage::Begun(pending), from, begun_at }
    }

    #[test]
    fn a_login_is_finished_once_and_in_time() {
        let (begun, start) = (Begun::default(), Instant::now());
        begun.insert("a".into(), waiting("192.0.2.1", start));
        begun.insert("b".into(), waiting("192.0.2.1", start));
        let almost = start + OIDC_LIFE - Duration::from_secs(1);
        assert_eq!((begun.provider("a"), begun.provider("c")), (Some(0), None));
        assert!(begun.take("c", almost).is_none() && begun.take("a", almost).is_some());
        assert!(begun.take("a", almost).is_none(), "once");
        assert!(begun.take("b", start + OIDC_LIFE).is_none(), "too late");
    }

    #[test]
    fn of_one_address_the_oldest_goes() {
        let (begun, start) = (Begun::default(), Instant::now());
        for n in 0..=OIDC_OF_ONE_ADDRESS_MAX as u64 {
            begun.insert(n.to_string(), waiting("192.0.2.1", start + Duration::from_millis(n)));
        }
        assert!(begun.take("0", start).is_none() && begun.take("1", start).is_some());
    }

    #[test]
    fn whoever_begins_too_many_ends_their_own() {
        for flood in [
            |n: usize| format!("10.0.{}.{}", (n / 16) & 15, n & 255),
            |n: usize| format!("2001:db8:{:x}:{:x}::1", n / 256, n & 255),
        ] {
            let (begun, start) = (Begun::default(), Instant::now());
            // Older than all of the flood.
            begun.insert("alice".into(), waiting("192.0.2.1", start));
            begun.insert("bob".into(), waiting("2001:db8:ffff::1", start));
            let later = start + Duration::from_secs(1);
            for n in 0..OIDC_BEGUN_MAX + 256 {
                begun.insert(format!("x{n}"), waiting(&flood(n), later + Duration::from_millis(n as u64)));
            }
            let full = begun.begun().len();
            assert!(full <= OIDC_BEGUN_MAX, "{full}");
            begun.insert("carol".into(), waiting("198.51.100.1", later));
            for name in ["alice", "bob", "carol"] {
                assert!(begun.take(name, later).is_some(), "{name} cannot log in");
            }
        }
    }

    #[test]
    fn when_there_is_no_room_the_oldest_of_the_fullest_network_goes() {
        let (begun, start) = (Begun::default(), Instant::now());
        // One of each /24, and two of one.
        for n in 0..OIDC_BEGUN_MAX - 1 {
            let from = format!("10.{}.{}.1", n >> 8, n & 255);
            begun.insert(format!("x{n}"), waiting(&from, start + Duration::from_micros(n as u64)));
        }
        begun.insert("second".into(), waiting("10.1.1.2", start + Duration::from_secs(1)));
        assert_eq!(begun.begun().len(), OIDC_BEGUN_MAX);
        begun.insert("more".into(), waiting("198.51.100.1", start + Duration::from_secs(1)));
        assert!(begun.provider("x257").is_none() && begun.provider("x0").is_some(), "that of 10.1.1.0/24");
        begun.insert("again".into(), waiting("203.0.113.1", start + Duration::from_secs(1)));
        assert!(begun.provider("x0").is_none() && begun.provider("more").is_some(), "the oldest where all have one");
        assert_eq!(begun.begun().len(), OIDC_BEGUN_MAX);
        begun.insert("later".into(), waiting("198.51.100.1", start + OIDC_LIFE * 2));
        assert_eq!(begun.begun().len(), 1, "what is over takes no room");
    }
}
