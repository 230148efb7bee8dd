//! Groups of the key exchange (RFC 8446 §4.2.7; X25519MLKEM768 from draft-ietf-tls-ecdhe-mlkem, X16).

use std::fmt;

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::kem::{self, Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use zeroize::Zeroizing;

use super::refused;
use crate::alert::{Alert, Fatal};

/// Bytes of an X25519 public value, which stands behind ML-KEM's part.
const X25519_BYTES: usize = 32;
/// Bytes of an ML-KEM-768 encapsulation key and of its ciphertext (FIPS 203 §8).
const ENCAPSULATION_KEY_BYTES: usize = 1_184;
const CIPHERTEXT_BYTES: usize = 1_088;

/// The secret of an exchange; wiped when dropped.
pub(crate) type SharedSecret = Zeroizing<Vec<u8>>;

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

    /// The group with this number, if it is one of ours.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.number() == number)
    }

    /// The curve of the group, which of the hybrid one is its second half.
    fn curve(self) -> &'static agreement::Algorithm {
        match self {
            Self::X25519MlKem768 | Self::X25519 => &agreement::X25519,
            Self::P256 => &agreement::ECDH_P256,
            Self::P384 => &agreement::ECDH_P384,
        }
    }
}

/// Our half of a key exchange that waits for the peer's. A half of the peer's that is wrong does not use it up: in the clear,
/// anybody may have sent it.
pub(crate) struct KeyShare {
    group: Group,
    curve: PrivateKey,
    kem: Option<DecapsulationKey<kem::AlgorithmId>>,
    public: Vec<u8>,
}

impl fmt::Debug for KeyShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyShare").field("group", &self.group).finish_non_exhaustive()
    }
}

impl KeyShare {
    /// A fresh pair in `group`.
    pub(crate) fn new(group: Group) -> Result<Self, Fatal> {
        let curve = PrivateKey::generate(group.curve()).map_err(refused)?;
        let (mut kem, mut public) = (None, Vec::new());
        if group == Group::X25519MlKem768 {
            let key = DecapsulationKey::generate(&ML_KEM_768).map_err(refused)?;
            let encapsulation = key.encapsulation_key().map_err(refused)?;
            public.extend_from_slice(encapsulation.key_bytes().map_err(refused)?.as_ref());
            kem = Some(key);
        }
        public.extend_from_slice(curve.compute_public_key().map_err(refused)?.as_ref());
        Ok(Self { group, curve, kem, public })
    }

    pub(crate) const fn group(&self) -> Group {
        self.group
    }

    /// What the peer is told.
    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    /// The secret that a server's half makes with ours.
    pub(crate) fn complete(&self, peer: &[u8]) -> Result<SharedSecret, Fatal> {
        let Some(kem) = &self.kem else { return agree(self.group, &self.curve, peer) };
        let (ciphertext, point) = halves(peer, CIPHERTEXT_BYTES)?;
        let decapsulated = kem.decapsulate(Ciphertext::from(ciphertext)).map_err(bad_share)?;
        let agreed = agree(self.group, &self.curve, point)?;
        Ok(Zeroizing::new([decapsulated.as_ref(), &agreed].concat()))
    }
}

/// A server's half in answer to a client's, with the secret that both make.
pub(crate) fn answer_share(group: Group, peer: &[u8]) -> Result<(Vec<u8>, SharedSecret), Fatal> {
    let curve = PrivateKey::generate(group.curve()).map_err(refused)?;
    let public = curve.compute_public_key().map_err(refused)?;
    if group != Group::X25519MlKem768 {
        return Ok((public.as_ref().to_vec(), agree(group, &curve, peer)?));
    }
    let (key, point) = halves(peer, ENCAPSULATION_KEY_BYTES)?;
    let key = EncapsulationKey::new(&ML_KEM_768, key).map_err(bad_share)?;
    let (ciphertext, encapsulated) = key.encapsulate().map_err(bad_share)?;
    let agreed = agree(group, &curve, point)?;
    Ok(([ciphertext.as_ref(), public.as_ref()].concat(), Zeroizing::new([encapsulated.as_ref(), &agreed].concat())))
}

/// The two halves of a hybrid share, of which the first has `length` bytes.
fn halves(share: &[u8], length: usize) -> Result<(&[u8], &[u8]), Fatal> {
    share.split_at_checked(length).filter(|(_, point)| point.len() == X25519_BYTES).ok_or_else(|| bad_share(()))
}

fn agree(group: Group, ours: &PrivateKey, peer: &[u8]) -> Result<SharedSecret, Fatal> {
    // Compressed points are not for TLS (RFC 8446 §4.2.8.2), and the library would take them.
    if matches!(group, Group::P256 | Group::P384) && peer.first() != Some(&4) {
        return Err(bad_share(()));
    }
    let peer = UnparsedPublicKey::new(group.curve(), peer);
    agreement::agree(ours, peer, bad_share(()), |secret| Ok(Zeroizing::new(secret.to_vec())))
}

/// A point that is none of the group, or of the wrong length (RFC 8446 §4.2.8.2).
fn bad_share<E>(_: E) -> Fatal {
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
            for wrong in [&[4; 65][..], &[], &theirs[1..], &[0; 32], &[0; 1_120]] {
                assert_eq!(ours.complete(wrong).err().map(|fatal| fatal.alert), Some(Alert::ILLEGAL_PARAMETER));
                assert_eq!(answer_share(group, wrong).err().map(|fatal| fatal.alert), Some(Alert::ILLEGAL_PARAMETER));
            }
            assert_eq!(ours.complete(&theirs).unwrap(), secret, "{group:?}");
            assert_eq!(Group::from_number(group.number()), Some(group));
        }
        assert_eq!(Group::from_number(0x0100), None);
    }

    /// RFC 8446 §4.2.8.2: points are uncompressed. The library would take others.
    #[test]
    fn compressed_points_are_refused() {
        for group in [Group::P256, Group::P384] {
            let point = KeyShare::new(group).unwrap().public().to_vec();
            assert!(answer_share(group, &point).is_ok());
            let coordinate = (point.len() - 1) / 2;
            let compressed = [&[2 | point[2 * coordinate] & 1], &point[1..=coordinate]].concat();
            assert_eq!(answer_share(group, &compressed).unwrap_err().alert, Alert::ILLEGAL_PARAMETER);
        }
    }

    /// Against another implementation of the same exchange.
    #[test]
    fn the_hybrid_group_is_that_of_others() {
        use rustls::crypto::aws_lc_rs::kx_group;
        for (group, other) in [
            (Group::X25519MlKem768, kx_group::X25519MLKEM768),
            (Group::X25519, kx_group::X25519),
            (Group::P256, kx_group::SECP256R1),
            (Group::P384, kx_group::SECP384R1),
        ] {
            let theirs = other.start().unwrap();
            let (answer, secret) = answer_share(group, theirs.pub_key()).unwrap();
            assert_eq!(theirs.complete(&answer).unwrap().secret_bytes(), &secret[..]);
            let ours = KeyShare::new(group).unwrap();
            let completed = other.start_and_complete(ours.public()).unwrap();
            assert_eq!(completed.secret.secret_bytes(), &ours.complete(&completed.pub_key).unwrap()[..]);
        }
    }
}
