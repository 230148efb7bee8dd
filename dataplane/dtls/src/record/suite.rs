//! The three suites: an AEAD and a hash, and how much one key of each may do (RFC 9147 §4.5.3, RFC 8446 §5.5).

use aws_lc_rs::aead::{self, quic};
use aws_lc_rs::{digest, hkdf};

/// Records that one AES-GCM key may seal: 2^24.5, rounded down (RFC 8446 §5.5). At that many full-size records an attacker's
/// advantage over an ideal cipher is still about 2^-57.
const GCM_RECORDS_MAX: u64 = 23_726_566;
/// At this many a new key is wanted: a third of the limit. At 2 million records a second the update has 7 s to be
/// acknowledged, which is several retransmissions of it.
const GCM_RECORDS_SOFT: u64 = 1 << 23;
/// ChaCha20-Poly1305 has no limit below the sequence numbers' (RFC 8446 §5.5), which must not wrap.
const SEQUENCE_MAX: u64 = (1 << 48) - 1;
/// A quarter of them: no rate comes near.
const CHACHA_RECORDS_SOFT: u64 = 1 << 46;
/// Forgeries that a key bears, for each of our AEADs (RFC 9147 §4.5.3). At 5 million a second a flood takes 3.8 hours.
const FORGERIES_MAX: u64 = 1 << 36;

/// An AEAD and a hash. In DTLS 1.3 they are the cipher suite (RFC 8446 §B.4), in DTLS 1.2 the part of one that records need
/// (RFC 5289, RFC 7905).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// Preferred: the fastest by a factor of four where the processor has AES.
    Aes128GcmSha256,
    /// For those who ask for 256 bits.
    Aes256GcmSha384,
    /// For peers without AES in hardware.
    ChaCha20Poly1305Sha256,
}

impl Suite {
    /// All suites, in the order in which we prefer them.
    pub const ALL: [Self; 3] = [Self::Aes128GcmSha256, Self::Aes256GcmSha384, Self::ChaCha20Poly1305Sha256];

    /// Length of the AEAD's key and of the sequence number key, in bytes.
    #[must_use]
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::Aes128GcmSha256 => 16,
            Self::Aes256GcmSha384 | Self::ChaCha20Poly1305Sha256 => 32,
        }
    }

    /// Length of the hash, and so of a secret, in bytes.
    #[must_use]
    pub const fn hash_bytes(self) -> usize {
        match self {
            Self::Aes128GcmSha256 | Self::ChaCha20Poly1305Sha256 => 32,
            Self::Aes256GcmSha384 => 48,
        }
    }

    /// Length of the IV that DTLS 1.2 takes from the key block, in bytes (RFC 5288 §3, RFC 7905 §2).
    #[must_use]
    pub const fn fixed_iv_bytes_12(self) -> usize {
        match self {
            Self::Aes128GcmSha256 | Self::Aes256GcmSha384 => 4,
            Self::ChaCha20Poly1305Sha256 => 12,
        }
    }

    /// How many records one key may seal.
    #[must_use]
    pub const fn records_max(self) -> u64 {
        match self {
            Self::Aes128GcmSha256 | Self::Aes256GcmSha384 => GCM_RECORDS_MAX,
            Self::ChaCha20Poly1305Sha256 => SEQUENCE_MAX,
        }
    }

    /// After how many sealed records a new key is wanted.
    #[must_use]
    pub const fn records_soft(self) -> u64 {
        match self {
            Self::Aes128GcmSha256 | Self::Aes256GcmSha384 => GCM_RECORDS_SOFT,
            Self::ChaCha20Poly1305Sha256 => CHACHA_RECORDS_SOFT,
        }
    }

    /// How many records may fail to authenticate under one key.
    #[must_use]
    pub const fn forgeries_max(self) -> u64 {
        FORGERIES_MAX
    }

    /// The AEAD.
    pub(crate) fn aead(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128GcmSha256 => &aead::AES_128_GCM,
            Self::Aes256GcmSha384 => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305Sha256 => &aead::CHACHA20_POLY1305,
        }
    }

    /// What masks sequence numbers (RFC 9147 §4.2.3). It is QUIC's header protection (RFC 9001 §5.4.3, §5.4.4).
    pub(crate) fn mask(self) -> &'static quic::Algorithm {
        match self {
            Self::Aes128GcmSha256 => &quic::AES_128,
            Self::Aes256GcmSha384 => &quic::AES_256,
            Self::ChaCha20Poly1305Sha256 => &quic::CHACHA20,
        }
    }

    /// HKDF with the suite's hash.
    pub(crate) fn hkdf(self) -> hkdf::Algorithm {
        match self {
            Self::Aes128GcmSha256 | Self::ChaCha20Poly1305Sha256 => hkdf::HKDF_SHA256,
            Self::Aes256GcmSha384 => hkdf::HKDF_SHA384,
        }
    }

    /// The suite's hash.
    pub(crate) fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Aes128GcmSha256 | Self::ChaCha20Poly1305Sha256 => &digest::SHA256,
            Self::Aes256GcmSha384 => &digest::SHA384,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_algorithms() {
        for suite in Suite::ALL {
            assert_eq!(suite.key_bytes(), suite.aead().key_len());
            assert_eq!(suite.key_bytes(), suite.mask().key_len());
            assert_eq!(suite.hash_bytes(), suite.digest().output_len());
            assert_eq!(suite.aead().tag_len(), crate::record::TAG_BYTES);
            assert!(suite.records_soft() * 2 <= suite.records_max());
        }
        assert_eq!(GCM_RECORDS_MAX, 2_f64.powf(24.5) as u64);
    }
}
