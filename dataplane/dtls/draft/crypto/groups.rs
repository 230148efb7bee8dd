//! Groups of the key exchange (RFC 8446 §4.2.7; X25519MLKEM768 from draft-ietf-tls-ecdhe-mlkem, X16).

use std::fmt;

use rustls::crypto::aws_lc_rs::kx_group;
use rustls::crypto::{ActiveKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup};

use super::refused;
use crate::alert::{Alert, Fatal};

/// A group in which keys are exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// X25519 and ML-KEM-768 together: secret also from whoever records today and has a quantum computer later.
    X25519MlKem768,
    /// The fastest.
    X25519,
    /// For peers that must use NIST's curves.
    P256,
    /// The same, longer; three times as slow.
    P384,
}

impl Group {
    /// All groups, in the order in which we prefer them.
    pub const ALL: [Self; 4] = [Self::X25519MlKem768, Self::X25519, Self::P256, Self::P384];

    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::X25519MlKem768 => 0x11ec,
            Self::X25519 => 0x001d,
            Self::P256 => 0x0017,
            Self::P384 => 0x0018,
        }
    }

    /// Whether DTLS 1.2 knows it: key encapsulation needs a key share from the client first.
    #[must_use]
    pub const fn is_for_12(self) -> bool {
        !matches!(self, Self::X25519MlKem768)
    }

    /// The group with this number, if it is one of ours.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.number() == number)
    }

    fn exchange(self) -> &'static dyn SupportedKxGroup {
        match self {
            Self::X25519MlKem768 => kx_group::X25519MLKEM768,
            Self::X25519 => kx_group::X25519,
            Self::P256 => kx_group::SECP256R1,
            Self::P384 => kx_group::SECP384R1,
        }
    }
}

/// Our half of a key exchange that waits for the peer's.
pub(crate) struct KeyShare {
    group: Group,
    exchange: Box<dyn ActiveKeyExchange>,
}

impl fmt::Debug for KeyShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyShare").field("group", &self.group).finish_non_exhaustive()
    }
}

impl KeyShare {
    /// A fresh pair in `group`.
    pub(crate) fn new(group: Group) -> Result<Self, Fatal> {
        Ok(Self { group, exchange: group.exchange().start().map_err(refused)? })
    }

    pub(crate) const fn group(&self) -> Group {
        self.group
    }

    /// What the peer is told.
    pub(crate) fn public(&self) -> &[u8] {
        self.exchange.pub_key()
    }

    /// The secret that the peer's half makes with ours.
    pub(crate) fn complete(self, peer: &[u8]) -> Result<SharedSecret, Fatal> {
        self.exchange.complete(peer).map_err(bad_share)
    }
}

/// A server's half in answer to a client's, with the secret that both make.
pub(crate) fn answer_share(group: Group, peer: &[u8]) -> Result<(Vec<u8>, SharedSecret), Fatal> {
    let completed = group.exchange().start_and_complete(peer).map_err(bad_share)?;
    debug_assert_eq!(completed.group, NamedGroup::from(group.number()));
    Ok((completed.pub_key, completed.secret))
}

/// A point that is none of the group, or of the wrong length (RFC 8446 §4.2.8.2).
fn bad_share(_: Error) -> Fatal {
    Fatal::new(Alert::ILLEGAL_PARAMETER, "a key share that is no element of its group")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_make_one_secret() {
        for group in Group::ALL {
            let ours = KeyShare::new(group).unwrap();
            let (theirs, secret) = answer_share(group, ours.public()).unwrap();
            assert_eq!(ours.complete(&theirs).unwrap().secret_bytes(), secret.secret_bytes(), "{group:?}");
            assert_eq!(Group::from_number(group.number()), Some(group));
            assert_eq!(answer_share(group, &[4; 65]).err().map(|fatal| fatal.alert), Some(Alert::ILLEGAL_PARAMETER));
        }
        assert_eq!(Group::from_number(0x0100), None);
    }
}
