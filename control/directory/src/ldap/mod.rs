//! An LDAP directory (RFC 4511): the service searches the user, then binds as them with their password.
//!
//! An empty password is refused before anybody is asked: a directory takes it for an anonymous bind and says success
//! (RFC 4513 §5.1.2). Passwords never go in the clear: the connection is TLS from the start, or by StartTLS, unless it stays on
//! this machine.
//!
//! The protocol is our own, as far as that takes: `ber` and `message` are pure and bounded, `filter` is what the organisation
//! wrote, `connection` sends and receives.
//!
//! What it deliberately does not do: follow referrals, keep connections, write.

mod ber;
mod connection;
mod filter;
mod message;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ringfort_types::UnixSeconds;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::settings::{LdapSettings, SettingsError, read_secret};
use crate::web::is_loopback;
use crate::{Email, Failed, Person};
use connection::{Connection, LdapError};
use filter::Filter;
use message::{BUSY, Entry, INVALID_CREDENTIALS, SIZE_LIMIT_EXCEEDED, SUCCESS, Search, UNAVAILABLE};

/// How long all of a login may take.
const TIME_MAX: Duration = Duration::from_secs(10);
/// How long the directory may search, in seconds.
const SEARCH_SECONDS: u32 = 5;
/// Longest login name and password, in bytes; a directory's own limits are lower.
const USER_BYTES_MAX: usize = 256;
const PASSWORD_BYTES_MAX: usize = 1_024;
/// Groups of one person that are listened to.
const GROUPS_MAX: u32 = 256;
/// The attribute that names a user's groups, where the directory keeps it.
const MEMBER_OF: &str = "memberOf";

/// A directory, and us as its client.
pub struct Directory {
    settings: LdapSettings,
    user_filter: Filter,
    group_filter: Filter,
    password: Zeroizing<String>,
    host: String,
    port: u16,
    name: ServerName<'static>,
    security: Security,
    tls: Arc<ClientConfig>,
}

/// How a connection is kept to ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    /// TLS from its start.
    Tls,
    /// TLS from the first request on.
    StartTls,
    /// It stays on this machine.
    Loopback,
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
        let (host, port) = host_and_port(authority).ok_or_else(expected)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| expected())?;
        let (security, usual_port) = match scheme {
            "ldaps" => (Security::Tls, 636),
            "ldap" if is_loopback(host) => (Security::Loopback, 389),
            "ldap" => (Security::StartTls, 389),
            _ => return Err(expected()),
        };
        let filter =
            |what: &str, text: &str| Filter::parse(text).map_err(|error| value(format!("{what}: {error}: {text:?}")));
        if settings.bind_dn.is_empty() {
            return Err(value("expected the bind_dn of an account that may search".into()));
        }
        Ok(Self {
            user_filter: filter("user_filter", &settings.user_filter)?,
            group_filter: filter("group_filter", &settings.group_filter)?,
            password: read_secret(&settings.bind_password_file)?,
            host: host.to_owned(),
            port: port.unwrap_or(usual_port),
            name,
            security,
            tls: crate::trust::tls(settings.ca_file.as_deref())?,
            settings: settings.clone(),
        })
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
        if user.is_empty() || user.len() > USER_BYTES_MAX || password.is_empty() || password.len() > PASSWORD_BYTES_MAX
        {
            return Err(refused());
        }
        let late = |_| self.unreachable(&format!("no answer in {} s", TIME_MAX.as_secs()));
        tokio::time::timeout(TIME_MAX, self.connected(user, password, now)).await.map_err(late)?
    }

    async fn connected(&self, user: &str, password: &str, now: UnixSeconds) -> Result<Person, Failed> {
        let failed = |error: LdapError| error.of(&self.settings.url);
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| failed(error.into()))?;
        match self.security {
            Security::Loopback => self.checked(Connection::new(tcp), user, password, now).await,
            Security::StartTls => {
                let secured = Connection::new(tcp).start_tls(&self.tls, self.name.clone()).await.map_err(failed)?;
                self.checked(secured, user, password, now).await
            }
            Security::Tls => {
                let connecting = TlsConnector::from(Arc::clone(&self.tls)).connect(self.name.clone(), tcp);
                let stream = connecting.await.map_err(|error| failed(error.into()))?;
                self.checked(Connection::new(stream), user, password, now).await
            }
        }
    }

    /// Finds the user and binds as them.
    async fn checked<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut connection: Connection<S>,
        user: &str,
        password: &str,
        now: UnixSeconds,
    ) -> Result<Person, Failed> {
        let failed = |error: LdapError| error.of(&self.settings.url);
        let bound = connection.bind(&self.settings.bind_dn, &self.password).await.map_err(failed)?;
        if bound.code != SUCCESS {
            return Err(self.answer(&format!("our own account: check bind_dn and its password: {bound}")));
        }
        let entry = self.entry(&mut connection, user).await?.ok_or_else(refused)?;
        let groups = match &self.settings.group_base {
            Some(base) => self.groups(&mut connection, base, &entry.dn).await?,
            None => entry.values(MEMBER_OF).map(common_name).take(GROUPS_MAX as usize).collect(),
        };
        let bound = connection.bind(&entry.dn, password).await.map_err(failed)?;
        match bound.code {
            SUCCESS => {}
            INVALID_CREDENTIALS => return Err(refused()),
            // It did not look at the password.
            BUSY | UNAVAILABLE => return Err(self.unreachable(&bound.to_string())),
            code => {
                let text = format!("result {code} for the user: ask whoever keeps the directory");
                return Err(Failed::Refused(text.into()));
            }
        }
        connection.unbind().await;
        let email = entry.values(&self.settings.email_attribute).find_map(|text| text.parse::<Email>().ok());
        Ok(Person { subject: entry.dn, email, groups, authenticated_at: now, ends_at: None })
    }

    /// The one entry that is the user's; several are nobody's.
    async fn entry<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        connection: &mut Connection<S>,
        user: &str,
    ) -> Result<Option<Entry>, Failed> {
        let search = Search {
            base: &self.settings.user_base,
            filter: &self.user_filter,
            value: user,
            attributes: &[&self.settings.email_attribute, MEMBER_OF],
            entries_max: 2,
            seconds_max: SEARCH_SECONDS,
        };
        let (entries, outcome) = connection.search(search).await.map_err(|error| error.of(&self.settings.url))?;
        match (outcome.code, <[_; 1]>::try_from(entries)) {
            (SUCCESS, Ok([entry])) if entry.dn.chars().any(char::is_control) => {
                Err(self.answer("expected the user's distinguished name without control characters"))
            }
            // To bind without a name is to bind as nobody (RFC 4513 §5.1.2).
            (SUCCESS, Ok([entry])) => Ok(Some(entry).filter(|entry| !entry.dn.is_empty())),
            (SUCCESS | SIZE_LIMIT_EXCEEDED, _) => Ok(None),
            _ => Err(self.answer(&format!("the search for the user: {outcome}"))),
        }
    }

    async fn groups<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        connection: &mut Connection<S>,
        base: &str,
        dn: &str,
    ) -> Result<Vec<String>, Failed> {
        let search = Search {
            base,
            filter: &self.group_filter,
            value: dn,
            attributes: &["cn"],
            entries_max: GROUPS_MAX,
            seconds_max: SEARCH_SECONDS,
        };
        let (entries, outcome) = connection.search(search).await.map_err(|error| error.of(&self.settings.url))?;
        match outcome.code {
            SUCCESS | SIZE_LIMIT_EXCEEDED => {
                Ok(entries.iter().filter_map(|entry| entry.values("cn").next().map(str::to_owned)).collect())
            }
            _ => Err(self.answer(&format!("the search for groups: {outcome}"))),
        }
    }

    fn answer(&self, why: &str) -> Failed {
        Failed::Answer(format!("{}: {why}", self.settings.url).into())
    }

    fn unreachable(&self, why: &str) -> Failed {
        Failed::Unreachable(format!("{}: {why}", self.settings.url).into())
    }
}

fn refused() -> Failed {
    Failed::Refused("user name and password do not fit".into())
}

/// The first value of a distinguished name: `staff` of `cn=staff,ou=groups,dc=example`.
fn common_name(dn: &str) -> String {
    let first = dn.split(',').next().unwrap_or(dn);
    first.split_once('=').map_or(first, |(_, value)| value).to_owned()
}

/// Host and port of `host[:port]`, an IPv6 address without its brackets.
fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, behind) = bracketed.split_once(']')?;
            if behind.is_empty() { (host, None) } else { (host, Some(behind.strip_prefix(':')?)) }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    match port {
        None => Some((host, None)),
        Some(port) => {
            let port = Some(port).filter(|port| digits(port))?.parse().ok().filter(|port| *port != 0)?;
            Some((host, Some(port)))
        }
    }
}
