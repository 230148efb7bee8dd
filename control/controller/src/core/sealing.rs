//! What the database keeps and must not give away: sealed by a key that is not in it.
//!
//! AES-256-GCM with a random nonce of 96 bits; the name of what is sealed is authenticated with it, so that one row's secret is no
//! other's. The database has a digest of the key, so that every Controller of it seals and opens with the same one: one that comes
//! with another key, or with none, would lock out whom the others let in. With 2³² secrets under one key two nonces would be the same with a probability of 2⁻³²
//! (NIST SP 800-38D §8.3).

use anyhow::{Context, bail};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{digest, hkdf, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::folder::Folder;
use super::refused::Refused;

/// Name of the key's file.
const FILE: &str = "sealing.key";
/// Bytes of the key.
const KEY_BYTES: usize = 32;

/// Of what the digest of a key is one, beside the key.
const DIGEST_OF: &[u8] = b"ringfort sealing key\0";
/// For what further keys are derived from it.
const DERIVED: &[u8] = b"ringfort derived keys";

/// Seals and opens.
pub(crate) struct Sealing {
    key: RandomizedNonceKey,
    digest: String,
    derived: hkdf::Prk,
}

impl Sealing {
    /// The key in `folder`, made there if there is none and the database, whose key has the digest `expected`, knows none either.
    pub(crate) fn open(folder: &Folder, expected: &str) -> anyhow::Result<Self> {
        let remedy = || {
            format!(
                "expected in {} the key that this database is sealed by, with the digest {expected}: copy the file from another \
                 Controller of this database, or from a backup",
                folder.key_path(FILE).display()
            )
        };
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        match folder.read_key(FILE)? {
            Some(kept) => {
                let decoded = URL_SAFE_NO_PAD.decode_slice(kept.trim_ascii_end(), &mut bytes[..]);
                if !matches!(decoded, Ok(KEY_BYTES)) {
                    bail!("expected a key of {KEY_BYTES} bytes in base64url in {}", folder.key_path(FILE).display());
                }
            }
            None if !expected.is_empty() => bail!("{}; found none", remedy()),
            None => {
                aws_lc_rs::rand::fill(&mut bytes[..]).ok().context("no randomness")?;
                folder.write(FILE, Zeroizing::new(URL_SAFE_NO_PAD.encode(&bytes[..])).as_bytes())?;
            }
        }
        let mut digest = digest::Context::new(&digest::SHA256);
        digest.update(DIGEST_OF);
        digest.update(&bytes[..]);
        let digest = URL_SAFE_NO_PAD.encode(digest.finish());
        if !expected.is_empty() && expected != digest {
            bail!("{}; found one with the digest {digest}", remedy());
        }
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes[..]).ok().context("make the key that seals")?;
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, DERIVED).extract(&bytes[..]);
        Ok(Self { key, digest, derived })
    }

    /// A key for something else that all Controllers of this database have, and nobody else (HKDF, RFC 5869). `info` says for what.
    pub(crate) fn derive(&self, info: &[&[u8]]) -> Result<hmac::Key, Refused> {
        let key = self.derived.expand(info, hmac::HMAC_SHA256);
        key.map(hmac::Key::from).map_err(|_| Refused::internal("a key could not be derived"))
    }

    /// By which the key is known again; it tells nothing of the key.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// Seals `secret` as `name`.
    pub(crate) fn seal(&self, name: &str, secret: &[u8]) -> Result<String, Refused> {
        let mut sealed = secret.to_vec();
        let nonce = self.key.seal_in_place_append_tag(Aad::from(name), &mut sealed);
        let nonce = nonce.map_err(|_| Refused::internal("a secret could not be sealed"))?;
        Ok(URL_SAFE_NO_PAD.encode([&nonce.as_ref()[..], &sealed[..]].concat()))
    }

    /// Opens what was sealed as `name`.
    pub(crate) fn unseal(&self, name: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let opened = || {
            let mut sealed = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
            let nonce: [u8; NONCE_LEN] = sealed.get(..NONCE_LEN)?.try_into().ok()?;
            let nonce = Nonce::assume_unique_for_key(nonce);
            let secret = self.key.open_in_place(nonce, Aad::from(name), &mut sealed[NONCE_LEN..]).ok()?;
            Some(Zeroizing::new(secret.to_vec()))
        };
        opened().ok_or_else(|| {
            Refused::internal(format!(
                "{name} in the database was not sealed by {FILE}: restore both from the same backup"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_sealed_is_opened_under_its_name_and_by_its_key_only() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("state")).unwrap();
        let sealing = Sealing::open(&folder, "").unwrap();
        let sealed = sealing.seal("totp of alice", b"secret").unwrap();
        assert_ne!(sealed, sealing.seal("totp of alice", b"secret").unwrap(), "each has a nonce of its own");
        let again = Sealing::open(&folder, sealing.digest()).unwrap();
        assert_eq!(**again.unseal("totp of alice", &sealed).unwrap(), *b"secret");
        assert_eq!(again.unseal("totp of bob", &sealed).unwrap_err().code, "internal");
        let changed = format!("{}{}", if sealed.starts_with('A') { 'B' } else { 'A' }, &sealed[1..]);
        for bad in ["", "AAAA", &changed, &sealed[..sealed.len() - 2]] {
            assert!(again.unseal("totp of alice", bad).is_err(), "{bad}");
        }
        let other = Folder::open(&place.path().join("other")).unwrap();
        assert!(Sealing::open(&other, "").unwrap().unseal("totp of alice", &sealed).is_err());
        let mode = std::fs::metadata(folder.path(FILE)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        std::fs::write(folder.path(FILE), "short").unwrap();
        assert!(Sealing::open(&folder, "").is_err(), "a key that was cut is not replaced");
    }

    #[test]
    fn another_key_than_the_databases_is_refused_and_none_is_made() {
        let place = tempfile::tempdir().unwrap();
        let folder = |name: &str| Folder::open(&place.path().join(name)).unwrap();
        let (first, second) = (folder("first"), folder("second"));
        let digest = Sealing::open(&first, "").unwrap().digest().to_owned();
        let refused = |folder: &Folder| Sealing::open(folder, &digest).err().unwrap().to_string();
        let error = refused(&second);
        assert!(error.contains(&digest) && error.contains("copy the file") && error.contains("found none"), "{error}");
        assert!(!second.path(FILE).exists());
        let other = Sealing::open(&second, "").unwrap().digest().to_owned();
        let error = refused(&second);
        assert!(error.contains(&digest) && error.contains(&other), "{error}");
        std::fs::copy(first.path(FILE), second.path(FILE)).unwrap();
        assert_eq!(Sealing::open(&second, &digest).unwrap().digest(), digest);
    }
}
