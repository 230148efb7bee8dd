//! An LDAP directory (RFC 4511): the service searches the user, then binds as them with their password.
//!
//! An empty password is refused before anybody is asked: a directory takes it for an anonymous bind and says success
//! (RFC 4513 §5.1.2). Passwords never go in the clear: the connection is TLS from the start, or by StartTLS, unless it stays on
//! this machine.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ldap3::{LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchEntry, SearchOptions, ldap_escape};
use ringfort_types::UnixSeconds;
use rustls::ClientConfig;
use zeroize::Zeroizing;

use crate::settings::{LdapSettings, SettingsError, read_secret};
use crate::web::is_loopback;
use crate::{Email, Failed, Person};

/// How long all of a login may take.
const TIME_MAX: Duration = Duration::from_secs(10);
/// How long the directory may search, in seconds.
const SEARCH_SECONDS: i32 = 5;
/// Longest password, in bytes; a directory's own limit is lower.
const PASSWORD_BYTES_MAX: usize = 1_024;
/// Groups of one person that are listened to.
const GROUPS_MAX: i32 = 256;
/// The attribute that names a user's groups, where the directory keeps it.
const MEMBER_OF: &str = "memberOf";
/// resultCode sizeLimitExceeded and invalidCredentials (RFC 4511 §4.1.9).
const SIZE_LIMIT_EXCEEDED: u32 = 4;
const INVALID_CREDENTIALS: u32 = 49;

/// A directory, and us as its client.
pub struct Directory {
    settings: LdapSettings,
    password: Zeroizing<String>,
    tls: Arc<ClientConfig>,
    starts_tls: bool,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("name", &self.settings.name).finish_non_exhaustive()
    }
}

impl Directory {
    /// The directory of these settings; it is not asked anything yet.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn new(settings: &LdapSettings) -> Result<Self, SettingsError> {
        let value = |why: String| SettingsError::Value { name: settings.name.clone(), why };
        let url = settings.url.as_str();
        let expected = || value(format!("expected ldaps://HOST[:PORT] or ldap://HOST[:PORT], found {url:?}"));
        let (scheme, authority) = url.split_once("://").ok_or_else(expected)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
        if authority.is_empty() || authority.len() > 260 || !authority.bytes().all(plain) {
            return Err(expected());
        }
        let starts_tls = match scheme {
            "ldaps" => false,
            "ldap" => !is_loopback(host(authority)),
            _ => return Err(expected()),
        };
        for (what, filter) in [("user_filter", &settings.user_filter), ("group_filter", &settings.group_filter)] {
            if !filter.contains("{}") || ldap3::parse_filter(filled(filter, "x")).is_err() {
                return Err(value(format!(
                    "expected a filter of RFC 4515 with {{}} in it as {what}, found {filter:?}"
                )));
            }
        }
        if settings.bind_dn.is_empty() {
            return Err(value("expected the bind_dn of an account that may search".into()));
        }
        let password = read_secret(&settings.bind_password_file)?;
        let tls = crate::trust::tls(settings.ca_file.as_deref())?;
        Ok(Self { settings: settings.clone(), password, tls, starts_tls })
    }

    /// The method's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Where it is: the URI by which people know it (R19).
    #[must_use]
    pub fn url(&self) -> &str {
        &self.settings.url
    }

    /// Checks the password of the user whose login name is `user` (A3).
    ///
    /// # Errors
    /// [`Failed::Refused`], in the same words for an unknown user and for a wrong password; [`Failed::Unreachable`],
    /// [`Failed::Answer`].
    pub async fn check(&self, user: &str, password: &str, now: UnixSeconds) -> Result<Person, Failed> {
        if user.is_empty() || password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            return Err(refused());
        }
        let late = |_| Failed::Unreachable(format!("{}: no answer in {} s", self.settings.url, TIME_MAX.as_secs()));
        tokio::time::timeout(TIME_MAX, self.checked(user, password, now)).await.map_err(late)?
    }

    async fn checked(&self, user: &str, password: &str, now: UnixSeconds) -> Result<Person, Failed> {
        let settings = LdapConnSettings::new().set_config(Arc::clone(&self.tls)).set_starttls(self.starts_tls);
        let (connection, mut ldap) =
            LdapConnAsync::with_settings(settings, &self.settings.url).await.map_err(|error| self.failed(error))?;
        // Ended with this login, however that ends.
        let _driver = Driver(tokio::spawn(async move { drop(connection.drive().await) }));
        let failed = |error| self.failed(error);
        let bound = ldap.simple_bind(&self.settings.bind_dn, &self.password).await.map_err(failed)?;
        if bound.rc != 0 {
            return Err(Failed::Answer(format!(
                "result {} for our own account: check bind_dn and its password",
                bound.rc
            )));
        }
        let entry = self.entry(&mut ldap, user).await?.ok_or_else(refused)?;
        let groups = match &self.settings.group_base {
            Some(base) => self.groups(&mut ldap, base, &entry.dn).await?,
            None => values(&entry, MEMBER_OF).map(common_name).take(GROUPS_MAX as usize).collect(),
        };
        match ldap.simple_bind(&entry.dn, password).await.map_err(failed)?.rc {
            0 => {}
            INVALID_CREDENTIALS => return Err(refused()),
            code => {
                return Err(Failed::Refused(format!("result {code} for the user: ask whoever keeps the directory")));
            }
        }
        drop(ldap.unbind().await);
        let email = values(&entry, &self.settings.email_attribute).find_map(|text| text.parse::<Email>().ok());
        Ok(Person { subject: entry.dn, email, groups, authenticated_at: now, ends_at: None })
    }

    /// The one entry that is the user's; several are nobody's.
    async fn entry(&self, ldap: &mut ldap3::Ldap, user: &str) -> Result<Option<SearchEntry>, Failed> {
        let filter = filled(&self.settings.user_filter, user);
        let attributes = [self.settings.email_attribute.as_str(), MEMBER_OF];
        let options = SearchOptions::new().sizelimit(2).timelimit(SEARCH_SECONDS);
        let search =
            ldap.with_search_options(options).search(&self.settings.user_base, Scope::Subtree, &filter, attributes);
        let found = search.await.map_err(|error| self.failed(error))?;
        match (found.1.rc, <[_; 1]>::try_from(found.0)) {
            (0, Ok([entry])) => Ok(Some(SearchEntry::construct(entry)).filter(|entry| !entry.dn.is_empty())),
            (0 | SIZE_LIMIT_EXCEEDED, _) => Ok(None),
            (code, _) => Err(Failed::Answer(format!("result {code} of the search for the user"))),
        }
    }

    async fn groups(&self, ldap: &mut ldap3::Ldap, base: &str, dn: &str) -> Result<Vec<String>, Failed> {
        let filter = filled(&self.settings.group_filter, dn);
        let options = SearchOptions::new().sizelimit(GROUPS_MAX).timelimit(SEARCH_SECONDS);
        let search = ldap.with_search_options(options).search(base, Scope::Subtree, &filter, ["cn"]);
        let found = search.await.map_err(|error| self.failed(error))?;
        match found.1.rc {
            0 | SIZE_LIMIT_EXCEEDED => {
                let entries = found.0.into_iter().map(SearchEntry::construct);
                Ok(entries.filter_map(|entry| values(&entry, "cn").next().map(str::to_owned)).collect())
            }
            code => Err(Failed::Answer(format!("result {code} of the search for groups"))),
        }
    }

    fn failed(&self, error: LdapError) -> Failed {
        match error {
            LdapError::LdapResult { result } => Failed::Answer(format!("result {}", result.rc)),
            other => Failed::Unreachable(format!("{}: {other}", self.settings.url)),
        }
    }
}

/// A connection's task, which ends when this is dropped.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn refused() -> Failed {
    Failed::Refused("user name and password do not fit".into())
}

/// A filter with `value` in its place, of which no character means anything there.
fn filled(filter: &str, value: &str) -> String {
    filter.replace("{}", &ldap_escape(value))
}

/// The values of an attribute, whose name has no case.
fn values<'a>(entry: &'a SearchEntry, name: &str) -> impl Iterator<Item = &'a str> {
    let found = entry.attrs.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.into_iter().flat_map(|(_, values)| values.iter().map(String::as_str))
}

/// The first value of a distinguished name: `staff` of `cn=staff,ou=groups,dc=example`.
fn common_name(dn: &str) -> String {
    let first = dn.split(',').next().unwrap_or(dn);
    first.split_once('=').map_or(first, |(_, value)| value).to_owned()
}

/// The host of `host[:port]`, an IPv6 address without its brackets.
fn host(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or(bracketed),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn settings(place: &std::path::Path) -> LdapSettings {
        let secret = place.join("password");
        std::fs::write(&secret, "hush").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        LdapSettings {
            name: "corp".into(),
            url: "ldap://127.0.0.1:1".into(),
            bind_dn: "cn=service".into(),
            bind_password_file: secret,
            user_base: "dc=example".into(),
            user_filter: "(uid={})".into(),
            email_attribute: "mail".into(),
            group_base: None,
            group_filter: "(member={})".into(),
            ca_file: None,
            email_domains: None,
            administrators: false,
            second_factor: false,
        }
    }

    #[test]
    fn a_password_goes_in_the_clear_on_this_machine_only() {
        let place = tempfile::tempdir().unwrap();
        let starts_tls = |url: &str| {
            Directory::new(&LdapSettings { url: url.into(), ..settings(place.path()) }).map(|made| made.starts_tls)
        };
        for (url, expected) in [
            ("ldap://127.0.0.1:389", false),
            ("ldap://[::1]", false),
            ("ldap://ldap.example", true),
            ("ldap://localhost", true),
            ("ldap://10.0.0.1:389", true),
            ("ldaps://ldap.example", false),
        ] {
            assert_eq!(starts_tls(url).unwrap(), expected, "{url}");
        }
        for bad in ["ldapi:///run/slapd", "http://a", "ldap://", "ldap://a/b", "ldap://u@a", "a"] {
            assert!(starts_tls(bad).unwrap_err().to_string().contains("ldaps://HOST"), "{bad}");
        }
    }

    #[test]
    fn a_login_name_is_no_filter() {
        assert_eq!(filled("(uid={})", "*)(uid=*"), "(uid=\\2a\\29\\28uid=\\2a)");
        assert_eq!(filled("(|(uid={})(mail={}))", "a"), "(|(uid=a)(mail=a))");
        let place = tempfile::tempdir().unwrap();
        for bad in ["(uid=alice)", "(uid={}", "uid={}"] {
            let made = Directory::new(&LdapSettings { user_filter: bad.into(), ..settings(place.path()) });
            assert!(made.is_err() || bad == "uid={}", "{bad}");
        }
    }

    // Covers: A3 refuse
    #[tokio::test]
    async fn an_empty_password_is_refused_without_asking_anybody() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(&settings(place.path())).unwrap();
        let now = UnixSeconds(1_800_000_000);
        for (user, password) in [("alice", ""), ("", "password"), ("alice", "x".repeat(1_025).as_str())] {
            assert_eq!(directory.check(user, password, now).await.unwrap_err(), refused());
        }
        // Nobody is there to be asked.
        assert!(matches!(directory.check("alice", "password", now).await, Err(Failed::Unreachable(_))));
    }

    #[test]
    fn groups_are_known_by_their_first_name() {
        assert_eq!(common_name("cn=staff,ou=groups,dc=example"), "staff");
        assert_eq!((host("[::1]:389"), host("a:389"), host("a")), ("::1", "a", "a"));
    }
}
