//! What a datagram begins with, as far as that says whose it is (RFC 9147 §4.1, RFC 9146 §4).

use ringfort_dtls::cid::OWN_CONNECTION_ID_BYTES as ID_BYTES;

/// The first three bits of a unified header, and what they are there (RFC 9147 §4).
const UNIFIED_MASK: u8 = 0b1110_0000;
const UNIFIED: u8 = 0b0010_0000;
/// The bit of it that says that a connection id follows.
const NAMED: u8 = 0b0001_0000;
/// The low bits of the epoch, and those of the handshake's epoch, 2.
const EPOCH_MASK: u8 = 0b0000_0011;
const HANDSHAKE_EPOCH: u8 = 2;
/// Content types of the older header: what a handshake sends, and records with a connection id.
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const TLS12_CID: u8 = 25;

/// The first record of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// In the clear: of a stranger, or of a handshake.
    Clear,
    /// Sealed, of the session that this connection id names.
    Named([u8; ID_BYTES]),
    /// Sealed, of a session that only its address names.
    Unnamed {
        /// Whether it is rather of a handshake under way there than of the session that stands.
        handshake: bool,
    },
}

impl Start {
    /// Looks at a datagram; `None` for one that is too short to say anything.
    pub(super) fn of(datagram: &[u8]) -> Option<Self> {
        let first = *datagram.first()?;
        let id = |at: usize| datagram.get(at..)?.first_chunk().copied().map(Self::Named);
        if first & UNIFIED_MASK == UNIFIED {
            return match first & NAMED {
                0 => Some(Self::Unnamed { handshake: first & EPOCH_MASK == HANDSHAKE_EPOCH }),
                _ => id(1),
            };
        }
        match (first, datagram.get(3..5)?) {
            // Type, version, epoch, sequence number; then the id.
            (TLS12_CID, _) => id(11),
            (_, [0, 0]) => Some(Self::Clear),
            (kind, _) => Some(Self::Unnamed { handshake: matches!(kind, HANDSHAKE | CHANGE_CIPHER_SPEC) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; ID_BYTES] = [1, 2, 3, 4, 5, 6, 7, 8];

    #[test]
    fn each_form_of_record_is_known() {
        let of = |parts: &[&[u8]]| Start::of(&parts.concat());
        // DTLS 1.3: with id, of epoch 3 and of epoch 2 without.
        assert_eq!(of(&[&[0x3f], &ID, &[0; 30]]), Some(Start::Named(ID)));
        assert_eq!(of(&[&[0x2f], &[0; 30]]), Some(Start::Unnamed { handshake: false }));
        assert_eq!(of(&[&[0x2e], &[0; 30]]), Some(Start::Unnamed { handshake: true }));
        // DTLS 1.2, and plaintext of both.
        let number = [0; 6];
        assert_eq!(of(&[&[25, 0xfe, 0xfd, 0, 1], &number, &ID, &[0; 30]]), Some(Start::Named(ID)));
        assert_eq!(of(&[&[23, 0xfe, 0xfd, 0, 1], &number, &[0; 30]]), Some(Start::Unnamed { handshake: false }));
        assert_eq!(of(&[&[22, 0xfe, 0xfd, 0, 1], &number, &[0; 30]]), Some(Start::Unnamed { handshake: true }));
        assert_eq!(of(&[&[22, 0xfe, 0xfd, 0, 0], &number, &[0; 30]]), Some(Start::Clear));
    }

    #[test]
    fn what_is_cut_off_says_nothing() {
        for short in [&[][..], &[22], &[22, 0xfe, 0xfd, 0], &[0x3f, 1, 2, 3, 4, 5, 6, 7], &[25, 0xfe, 0xfd, 0, 1, 0, 0]]
        {
            assert_eq!(Start::of(short), None, "{short:?}");
        }
    }
}
