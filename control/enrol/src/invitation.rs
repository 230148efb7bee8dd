//! The URL of an invitation (I2): where to join, whom to expect there, and the one-time secret.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroize;

/// Bytes of a key hash, and of a cookie: 144 bits, 24 characters each.
pub const HASH_BYTES: usize = 18;
/// Characters of both together.
const SECRET_CHARACTERS: usize = HASH_BYTES * 2 / 3 * 4;
/// Longest `host:port`: a DNS name has at most 253 characters.
const ADDRESS_BYTES_MAX: usize = 260;

/// `host:port/<key hash><cookie>`. Its cookie is a secret: it is not printed for debugging, and wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    address: Box<str>,
    key_hash: [u8; HASH_BYTES],
    cookie: [u8; HASH_BYTES],
}

/// A text that is no invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an invitation HOST:PORT/ with {SECRET_CHARACTERS} letters, digits, '-' or '_' behind it; copy the whole of it"
)]
pub struct InvitationError;

impl Invitation {
    /// An invitation to join at `address` (`host:port`), where a key with this hash answers.
    ///
    /// # Errors
    /// [`InvitationError`] when `address` is no host and port.
    pub fn new(address: &str, key_hash: [u8; HASH_BYTES], cookie: [u8; HASH_BYTES]) -> Result<Self, InvitationError> {
        let (host, port) = address.rsplit_once(':').ok_or(InvitationError)?;
        let good = !host.is_empty()
            && address.len() <= ADDRESS_BYTES_MAX
            && !host.contains(['/', '@', ' '])
            && port.parse::<u16>().is_ok_and(|port| port != 0);
        if !good {
            return Err(InvitationError);
        }
        Ok(Self { address: address.into(), key_hash, cookie })
    }

    /// `host:port` of the Controller.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Hash of the key that must answer there ([`key_hash`]).
    #[must_use]
    pub const fn key_hash(&self) -> &[u8; HASH_BYTES] {
        &self.key_hash
    }

    /// The one-time secret.
    #[must_use]
    pub const fn cookie(&self) -> &[u8; HASH_BYTES] {
        &self.cookie
    }
}

/// The hash of a public key (a DER SubjectPublicKeyInfo) as invitations carry it: the first 144 bits of its SHA-256 (I3).
#[must_use]
pub fn key_hash(spki: &[u8]) -> [u8; HASH_BYTES] {
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(&digest::digest(&digest::SHA256, spki).as_ref()[..HASH_BYTES]);
    hash
}

impl fmt::Display for Invitation {
    /// The whole of it, with the secret: it is shown to the one who invites.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = URL_SAFE_NO_PAD.encode(self.key_hash);
        write!(f, "{}/{hash}{}", self.address, URL_SAFE_NO_PAD.encode(self.cookie))
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation").field("address", &self.address).finish_non_exhaustive()
    }
}

impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let (address, secret) = text.trim().rsplit_once('/').ok_or(InvitationError)?;
        if secret.len() != SECRET_CHARACTERS || !secret.is_ascii() {
            return Err(InvitationError);
        }
        let (hash, cookie) = secret.split_at(SECRET_CHARACTERS / 2);
        let decode = |text| {
            let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvitationError)?;
            <[u8; HASH_BYTES]>::try_from(bytes).map_err(|_| InvitationError)
        };
        Self::new(address, decode(hash)?, decode(cookie)?)
    }
}

impl Drop for Invitation {
    fn drop(&mut self) {
        self.cookie.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Covers: I2 allow
    #[test]
    fn an_invitation_is_one_short_url() {
        let invitation = Invitation::new("controller.example:443", [1; HASH_BYTES], [0xfe; HASH_BYTES]).unwrap();
        let text = invitation.to_string();
        assert!(text.len() <= 80, "{} characters", text.len());
        assert_eq!(text.parse::<Invitation>().unwrap(), invitation);
        let v6 = Invitation::new("[2001:db8::1]:443", [1; HASH_BYTES], [2; HASH_BYTES]).unwrap();
        assert_eq!(v6.to_string().parse::<Invitation>().unwrap(), v6);
        assert!(!format!("{invitation:?}").contains(&URL_SAFE_NO_PAD.encode([0xfe; HASH_BYTES])));
    }

    // Covers: I2 refuse
    #[test]
    fn what_is_cut_or_changed_is_no_invitation() {
        let good = Invitation::new("host:443", [1; HASH_BYTES], [2; HASH_BYTES]).unwrap().to_string();
        for bad in [
            &good[..good.len() - 1],
            &format!("{good}A"),
            &good.replace("host:443", "host"),
            &good.replace("host:443", ":443"),
            &good.replace("host:443", "host:0"),
            &good.replace("host:443", "host:99999"),
            &good.replace("host:443", "https://host:443"),
            &good.replace('A', "+"),
            "",
        ] {
            assert!(bad.parse::<Invitation>().is_err(), "{bad}");
        }
    }
}
