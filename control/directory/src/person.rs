//! Whom a provider speaks of.

use std::fmt;
use std::str::FromStr;

use ringfort_types::UnixSeconds;

/// Longest e-mail address (RFC 5321 §4.5.3.1.3).
const EMAIL_BYTES_MAX: usize = 254;

/// What a provider said of somebody who proved to be them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The provider's own name for them: `sub`, or a distinguished name.
    pub subject: String,
    /// Their e-mail address, if the provider vouches for it (R21).
    pub email: Option<Email>,
    /// Names of groups that the provider has them in.
    pub groups: Vec<String>,
    /// When they proved it.
    pub authenticated_at: UnixSeconds,
    /// When the provider's own session ends (R22); `None` where it has none, as with LDAP.
    pub ends_at: Option<UnixSeconds>,
}

/// An e-mail address as addresses are compared: in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Email(String);

/// A text that is no e-mail address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an e-mail address of at most {EMAIL_BYTES_MAX} printable ASCII characters, such as alice@example.org"
)]
pub struct EmailError;

impl Email {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands behind the `@`.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, domain)| domain)
    }
}

impl FromStr for Email {
    type Err = EmailError;

    fn from_str(text: &str) -> Result<Self, EmailError> {
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
        let good = text.len() <= EMAIL_BYTES_MAX
            && text.split_once('@').is_some_and(|(local, host)| plain(local) && plain(host) && !host.contains('@'));
        // Providers differ in whether they keep the case; nobody has two mailboxes that differ in it alone.
        if good { Ok(Self(text.to_ascii_lowercase())) } else { Err(EmailError) }
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_without_case_and_odd_ones_are_none() {
        assert_eq!("Alice@Example.ORG".parse::<Email>().unwrap(), "alice@example.org".parse().unwrap());
        let long = format!("{}@example.org", "a".repeat(EMAIL_BYTES_MAX));
        for bad in ["", "alice", "@example.org", "alice@", "a@b@c", "a b@c", "\u{430}lice@example.org", &long] {
            assert_eq!(bad.parse::<Email>(), Err(EmailError), "{bad}");
        }
    }
}
