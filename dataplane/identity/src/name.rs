//! Names in certificates: the role URI, and the distinguished name of a session.

use std::fmt;
use std::str::FromStr;

/// Longest part of a name: organisation, id, client id, user id.
pub const ID_BYTES_MAX: usize = 128;

/// What a certificate entitles its holder to be. The CA alone sets it, as `URI:ringfort://<organisation>/<role>/<id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Decides and signs.
    Controller,
    /// Ends tunnels at a site.
    Gateway,
    /// Joins clients and Gateways that cannot reach each other.
    Relay,
    /// A protected host that registers itself.
    Host,
    /// A user's machine.
    Device,
    /// A program that acts without a user.
    Service,
    /// A key that signs tokens, of one Controller.
    Signer,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 7] =
        [Self::Controller, Self::Gateway, Self::Relay, Self::Host, Self::Device, Self::Service, Self::Signer];

    /// The word in the URI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Gateway => "gateway",
            Self::Relay => "relay",
            Self::Host => "host",
            Self::Device => "device",
            Self::Service => "service",
            Self::Signer => "signer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// A part is empty, too long, or has other characters than names may have.
    #[error("expected a part of a name of 1 to {ID_BYTES_MAX} letters, digits, '-', '_' or '.'")]
    Part,
    /// Not a role URI.
    #[error("expected ringfort://ORGANISATION/ROLE/ID with a known role")]
    Uri,
    /// Not the name of a host.
    #[error("expected a hostname of at most 64 bytes: lower-case letters, digits and '-', in labels joined by '.'")]
    Hostname,
    /// Not the name of a session.
    #[error("expected UID=CLIENT,CN=USER,O=ORGANISATION")]
    SessionDn,
}

fn part(text: &str) -> Result<Box<str>, NameError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || text.len() > ID_BYTES_MAX || !text.bytes().all(plain) {
        return Err(NameError::Part);
    }
    Ok(text.into())
}

/// `ringfort://<organisation>/<role>/<id>`, in parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleUri {
    organisation: Box<str>,
    role: Role,
    id: Box<str>,
}

impl RoleUri {
    /// A URI of these parts.
    ///
    /// # Errors
    /// [`NameError::Part`].
    pub fn new(organisation: &str, role: Role, id: &str) -> Result<Self, NameError> {
        Ok(Self { organisation: part(organisation)?, role, id: part(id)? })
    }

    /// Its organisation.
    #[must_use]
    pub fn organisation(&self) -> &str {
        &self.organisation
    }

    /// Its role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for RoleUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ringfort://{}/{}/{}", self.organisation, self.role, self.id)
    }
}

impl FromStr for RoleUri {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = text.strip_prefix("ringfort://").ok_or(NameError::Uri)?.split('/');
        let (Some(organisation), Some(role), Some(id), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NameError::Uri);
        };
        let role = Role::ALL.into_iter().find(|known| known.as_str() == role).ok_or(NameError::Uri)?;
        Self::new(organisation, role, id)
    }
}

/// The distinguished name of a session (A5): `UID=<client id>,CN=<user>,O=<organisation>` (RFC 4514). All three are opaque:
/// human names are claims. It stands byte-equal in the claims token and in the certificate (A9).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionDn {
    client: Box<str>,
    user: Box<str>,
    organisation: Box<str>,
}

impl SessionDn {
    /// The name of `user`'s session on the device that calls itself `client`.
    ///
    /// # Errors
    /// [`NameError::Part`].
    pub fn new(client: &str, user: &str, organisation: &str) -> Result<Self, NameError> {
        Ok(Self { client: part(client)?, user: part(user)?, organisation: part(organisation)? })
    }

    /// The client id, which the client made (A4).
    #[must_use]
    pub fn client(&self) -> &str {
        &self.client
    }

    /// The user's id.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The organisation's id.
    #[must_use]
    pub fn organisation(&self) -> &str {
        &self.organisation
    }
}

impl fmt::Display for SessionDn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UID={},CN={},O={}", self.client, self.user, self.organisation)
    }
}

impl FromStr for SessionDn {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = text.split(',');
        let mut next = |prefix| parts.next().and_then(|part| part.strip_prefix(prefix)).ok_or(NameError::SessionDn);
        let (client, user, organisation) = (next("UID=")?, next("CN=")?, next("O=")?);
        if parts.next().is_some() {
            return Err(NameError::SessionDn);
        }
        Self::new(client, user, organisation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_uris_round_trip_and_nothing_else_is_one() {
        for role in Role::ALL {
            let text = format!("ringfort://example/{role}/a-1");
            let uri: RoleUri = text.parse().unwrap();
            assert_eq!((uri.organisation(), uri.role(), uri.id()), ("example", role, "a-1"));
            assert_eq!(uri.to_string(), text);
        }
        for bad in [
            "ringfort://example/devices/a",
            "ringfort://example/device/",
            "ringfort://example/device/a/b",
            "ringfort:///device/a",
            "spiffe://example/device/a",
            "ringfort://example/device",
            "ringfort://example/device/a b",
            "ringfort://example/Device/a",
        ] {
            assert!(bad.parse::<RoleUri>().is_err(), "{bad}");
        }
        assert_eq!(RoleUri::new("o", Role::Host, &"x".repeat(ID_BYTES_MAX + 1)), Err(NameError::Part));
    }

    #[test]
    fn session_names_have_one_form() {
        let text = "UID=c1,CN=u1,O=example";
        let name: SessionDn = text.parse().unwrap();
        assert_eq!((name.client(), name.user(), name.organisation()), ("c1", "u1", "example"));
        assert_eq!(name.to_string(), text);
        for bad in [
            "CN=u1,UID=c1,O=example",
            "UID=c1, CN=u1,O=example",
            "UID=c1,CN=u1",
            "UID=c1,CN=u1,O=example,O=other",
            "UID=c1+CN=x,CN=u1,O=example",
            "UID=,CN=u1,O=example",
        ] {
            assert!(bad.parse::<SessionDn>().is_err(), "{bad}");
        }
        assert!(SessionDn::new("a,CN=root", "u", "o").is_err());
    }
}
