//! How often logins fail: of one account by one method, and from one address by all of them. Time is passed in.
//!
//! Methods do not lock each other: whoever fails at a directory as somebody does not keep them from a password of ours. All of it
//! adds up at the address that it comes from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ringfort_types::UnixSeconds;

use super::refused::Refused;

/// Seconds in which failures are counted.
const WINDOW_SECONDS: u64 = 300;
/// Failures of one account in that time.
const ACCOUNT_FAILURES_MAX: u32 = 10;
/// Failures from one address in that time: many users may share one.
const ADDRESS_FAILURES_MAX: u32 = 50;
/// Accounts or addresses whose failures are remembered, some 100 bytes each; beyond, those with the fewest are forgotten.
const REMEMBERED_MAX: usize = 4_096;

/// Whom somebody says that they are, and by which method.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Account {
    method: String,
    name: String,
}

impl Account {
    /// The user `name` of a method. Directories tell names apart neither by case nor by spaces (RFC 4518 §2.6.1), so that what differs
    /// in those alone is one account.
    pub(crate) fn new(method: &str, name: &str) -> Self {
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        Self { method: method.to_owned(), name }
    }
}

/// What counts as one address: of IPv6 the /64, which one customer has.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & (u128::MAX << 64)).into()),
    }
}

/// Failures of late.
pub(crate) struct Failures {
    accounts: Table<Account>,
    addresses: Table<IpAddr>,
}

impl Failures {
    pub(crate) const fn new() -> Self {
        Self { accounts: Table::new(ACCOUNT_FAILURES_MAX), addresses: Table::new(ADDRESS_FAILURES_MAX) }
    }

    /// Counts an attempt as a failure until it succeeds.
    ///
    /// # Errors
    /// `login_limited`.
    pub(crate) fn begin(&mut self, account: Option<&Account>, from: IpAddr, now: UnixSeconds) -> Result<(), Refused> {
        let is_full = account.is_some_and(|account| self.accounts.is_full(account, now));
        if is_full || self.addresses.is_full(&from, now) {
            return Err(Refused::login_limited());
        }
        if let Some(account) = account {
            self.accounts.count(account.clone(), now);
        }
        self.addresses.count(from, now);
        Ok(())
    }

    pub(crate) fn succeeded(&mut self, account: Option<&Account>, from: IpAddr) {
        if let Some(account) = account {
            self.accounts.windows.remove(account);
        }
        self.addresses.uncount(&from);
    }

    /// The attempt came to nothing before the password was looked at.
    pub(crate) fn untried(&mut self, account: Option<&Account>, from: IpAddr) {
        if let Some(account) = account {
            self.accounts.uncount(account);
        }
        self.addresses.uncount(&from);
    }

    /// How many there are of an account.
    #[cfg(test)]
    pub(crate) fn of(&self, account: &Account) -> u32 {
        self.accounts.windows.get(account).map_or(0, |window| window.failures)
    }
}

struct Table<K> {
    max: u32,
    windows: BTreeMap<K, Window>,
}

/// Failures since the first of them.
struct Window {
    since: UnixSeconds,
    failures: u32,
}

impl Window {
    fn is_over(&self, now: UnixSeconds) -> bool {
        now.0 >= self.since.0.saturating_add(WINDOW_SECONDS)
    }
}

impl<K: Ord + Clone> Table<K> {
    const fn new(max: u32) -> Self {
        Self { max, windows: BTreeMap::new() }
    }

    fn uncount(&mut self, key: &K) {
        if let Some(window) = self.windows.get_mut(key) {
            window.failures = window.failures.saturating_sub(1);
        }
    }

    fn is_full(&self, key: &K, now: UnixSeconds) -> bool {
        self.windows.get(key).is_some_and(|window| !window.is_over(now) && window.failures >= self.max)
    }

    fn count(&mut self, key: K, now: UnixSeconds) {
        if self.windows.len() >= REMEMBERED_MAX && !self.windows.contains_key(&key) {
            self.windows.retain(|_, window| !window.is_over(now));
            if self.windows.len() >= REMEMBERED_MAX {
                // Not those that are guessed at most: names that nobody has must not push them out.
                let least = self.windows.iter().min_by_key(|(_, window)| (window.failures, window.since));
                let least = least.map(|(key, _)| key.clone());
                least.and_then(|least| self.windows.remove(&least));
            }
        }
        let window = self.windows.entry(key).or_insert(Window { since: now, failures: 0 });
        if window.is_over(now) {
            *window = Window { since: now, failures: 0 };
        }
        window.failures = window.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn address(text: &str) -> IpAddr {
        network(text.parse().unwrap())
    }

    fn account(name: &str) -> Account {
        Account::new("password", name)
    }

    #[test]
    fn an_account_is_one_however_it_is_spelt_and_each_method_has_its_own() {
        let mut failures = Failures::new();
        for (n, name) in ["alice", "Alice", " alice", "ALICE  ", "\talice"].into_iter().cycle().take(10).enumerate() {
            failures.begin(Some(&Account::new("corp", name)), address(&format!("192.0.2.{n}")), NOW).unwrap();
        }
        let mut refused = |method: &str, from: &str| {
            failures.begin(Some(&Account::new(method, "aLICE ")), address(from), NOW).err().map(|refused| refused.code)
        };
        assert_eq!(refused("corp", "198.51.100.1"), Some("login_limited"));
        assert_eq!(refused("password", "198.51.100.1"), None);
        assert_eq!(Account::new("corp", "a  b"), Account::new("corp", "A b"));
        assert_ne!(Account::new("corp", "ab"), Account::new("corp", "a b"));
    }

    #[test]
    fn what_fails_by_any_method_adds_up_at_its_address() {
        let (mut failures, from) = (Failures::new(), address("192.0.2.1"));
        for n in 0..50 {
            let method = ["corp", "password", "sso"][n % 3];
            failures.begin(Some(&Account::new(method, &format!("user{n}"))), from, NOW).unwrap();
        }
        for method in ["corp", "password"] {
            let refused = failures.begin(Some(&Account::new(method, "alice")), from, NOW).unwrap_err();
            assert_eq!(refused.code, "login_limited");
        }
    }

    #[test]
    fn ten_failures_in_five_minutes_are_enough() {
        let mut failures = Failures::new();
        for n in 0..10 {
            failures.begin(Some(&account("alice")), address(&format!("192.0.2.{n}")), NOW).unwrap();
        }
        let refused = failures.begin(Some(&account("alice")), address("192.0.2.99"), NOW).unwrap_err();
        assert_eq!((refused.code, refused.status), ("login_limited", 429));
        failures.begin(Some(&account("bob")), address("192.0.2.1"), NOW).unwrap();
        failures.begin(Some(&account("alice")), address("192.0.2.99"), UnixSeconds(NOW.0 + WINDOW_SECONDS)).unwrap();
    }

    #[test]
    fn a_success_starts_the_count_anew() {
        let mut failures = Failures::new();
        for _ in 0..100 {
            failures.begin(Some(&account("alice")), address("192.0.2.1"), NOW).unwrap();
            failures.succeeded(Some(&account("alice")), address("192.0.2.1"));
        }
    }

    #[test]
    fn one_address_cannot_try_many_names() {
        let mut failures = Failures::new();
        for n in 0..50 {
            // Addresses of one /64 are one.
            failures.begin(Some(&account(&format!("user{n}"))), address(&format!("2001:db8::{n}")), NOW).unwrap();
        }
        assert_eq!(
            failures.begin(Some(&account("another")), address("2001:db8::ffff"), NOW).unwrap_err().code,
            "login_limited"
        );
        failures.begin(Some(&account("another")), address("2001:db8:0:1::1"), NOW).unwrap();
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut table = Table::<u32>::new(1);
        for n in 0..2 * u32::try_from(REMEMBERED_MAX).unwrap() {
            table.count(n, UnixSeconds(NOW.0 + u64::from(n) / 100));
        }
        assert_eq!(table.windows.len(), REMEMBERED_MAX);
        assert!(!table.windows.contains_key(&0) && table.windows.contains_key(&8_191));
    }

    #[test]
    fn a_name_that_is_guessed_at_is_not_forgotten_for_others() {
        let mut table = Table::<u32>::new(10);
        for _ in 0..10 {
            table.count(0, NOW);
        }
        for n in 1..=2 * u32::try_from(REMEMBERED_MAX).unwrap() {
            table.count(n, NOW);
        }
        assert!(table.is_full(&0, NOW));
    }
}
