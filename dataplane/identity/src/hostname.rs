//! Names of hosts.

use std::fmt;
use std::str::FromStr;

use crate::name::NameError;

/// Longest name, in bytes: what a common name may have (RFC 5280 appendix A.1, ub-common-name).
const BYTES_MAX: usize = 64;
/// Longest label, in bytes (RFC 1123 §2.1).
const LABEL_BYTES_MAX: usize = 63;

/// Name of a host that registers itself (W6): the common name of its certificate, a DNS name in it, and the id of its URI. Labels of
/// lower-case letters, digits and '-' are joined by '.' (RFC 1123 §2.1), so that one host has one spelling; it is also safe in paths
/// and names of files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(Box<str>);

impl Hostname {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Hostname {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_label = |label: &str| {
            let bytes = label.as_bytes();
            let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
            !bytes.is_empty()
                && bytes.len() <= LABEL_BYTES_MAX
                && bytes.iter().all(plain)
                && bytes.first() != Some(&b'-')
                && bytes.last() != Some(&b'-')
        };
        if text.len() > BYTES_MAX || !text.split('.').all(is_label) {
            return Err(NameError::Hostname);
        }
        Ok(Self(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_spelling() {
        let longest = format!("{}.a", "x".repeat(62));
        for good in ["a", "backup-1", "nas.example", "3com", longest.as_str()] {
            assert_eq!(good.parse::<Hostname>().unwrap().as_str(), good);
        }
        let (label, whole) = ("x".repeat(64), format!("{}.aa", "x".repeat(62)));
        for bad in
            ["", ".", "a.", ".a", "a..b", "../a", "a/b", "A", "a_b", "-a", "a-", "a b", "a\0", "é", &label, &whole]
        {
            assert_eq!(bad.parse::<Hostname>(), Err(NameError::Hostname), "{bad}");
        }
    }
}
