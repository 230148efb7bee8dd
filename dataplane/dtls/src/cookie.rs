//! Cookies by which a server knows that a peer receives what is sent to its address, without having kept anything of it
//! (RFC 9147 §5.1, RFC 6347 §4.2.1).
//!
//! A cookie says which generation of the secret made it and what the answer to it has to be known of: for DTLS 1.3 the
//! suite, the group that was asked for and the hash of the first ClientHello. A MAC over all that, the version and the
//! peer's address and port makes it ours. Secrets change every 30 s; a cookie counts until its secret is two generations
//! old, so for 30 to 60 s.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::{constant_time, hmac};
use ringfort_types::BootInstant;

use crate::crypto::Group;
use crate::record::Suite;
use crate::wire::{Reader, Writer};

/// How long one secret makes cookies.
const GENERATION_SECONDS: u64 = 30;
/// Bytes of the MAC that a cookie carries: 128 bits, within one minute.
const MAC_BYTES: usize = 16;

/// What a cookie of DTLS 1.3 remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) suite: Suite,
    /// The group that the client was asked for a share of; `None` if it was asked for nothing but the cookie.
    pub(crate) group: Option<Group>,
    /// Hash of the first ClientHello, by the suite's hash.
    pub(crate) hello_hash: Vec<u8>,
}

/// Makes and judges cookies.
pub(crate) struct Cookies {
    seed: hmac::Key,
    /// The newest generation and the one before, with their secrets.
    secrets: [(u64, hmac::Key); 2],
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookies")
    }
}

impl Cookies {
    /// Cookies of which the secrets come from `seed`, which all workers of a Gateway share: a datagram may come to another one.
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        let seed = hmac::Key::new(hmac::HMAC_SHA256, seed);
        let secrets = [(1, secret(&seed, 1)), (0, secret(&seed, 0))];
        Self { seed, secrets }
    }

    /// A cookie for a client at `from`.
    pub(crate) fn make(&mut self, remembered: &Remembered, from: SocketAddr, now: BootInstant) -> Vec<u8> {
        self.rotate(now);
        let (generation, secret) = &self.secrets[0];
        let mut w = Writer::default();
        w.u8(*generation as u8).u16(crate::handshake::suite_number(remembered.suite));
        w.u16(remembered.group.map_or(0, Group::number)).bytes(&remembered.hello_hash);
        let mac = mac(secret, &w.0, from);
        w.bytes(&mac.as_ref()[..MAC_BYTES]);
        w.0
    }

    /// What a cookie that came from `from` remembers, if it is one of ours for that address and young enough.
    pub(crate) fn judge(&mut self, cookie: &[u8], from: SocketAddr, now: BootInstant) -> Option<Remembered> {
        self.rotate(now);
        let (content, tag) = cookie.split_at_checked(cookie.len().checked_sub(MAC_BYTES)?)?;
        let (_, secret) = self
            .secrets
            .iter()
            .find(|(generation, _)| *generation as u8 == content.first().copied().unwrap_or_default())?;
        constant_time::verify_slices_are_equal(&mac(secret, content, from).as_ref()[..MAC_BYTES], tag).ok()?;
        let mut reader = Reader::new("a cookie", content.get(1..)?);
        let suite = crate::handshake::suite_from_number(reader.u16().ok()?)?;
        let group = match reader.u16().ok()? {
            0 => None,
            number => Some(Group::from_number(number)?),
        };
        let hello_hash = reader.take(suite.hash_bytes()).ok()?.to_vec();
        reader.end().ok()?;
        Some(Remembered { suite, group, hello_hash })
    }

    fn rotate(&mut self, now: BootInstant) {
        // The first generations are 0 and 1, so that there is always one before.
        let generation = now.as_nanos() / (GENERATION_SECONDS * 1_000_000_000) + 1;
        if self.secrets[0].0 < generation {
            self.secrets = [generation, generation - 1].map(|generation| (generation, secret(&self.seed, generation)));
        }
    }
}

fn secret(seed: &hmac::Key, generation: u64) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(seed, &generation.to_be_bytes()).as_ref())
}

fn mac(secret: &hmac::Key, content: &[u8], from: SocketAddr) -> hmac::Tag {
    let address = match from.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let mut mac = hmac::Context::with_key(secret);
    mac.update(&address.octets());
    mac.update(&from.port().to_be_bytes());
    mac.update(content);
    mac.sign()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START: BootInstant = BootInstant::from_nanos(1_000_000_000_000);

    fn remembered(suite: Suite, group: Option<Group>) -> Remembered {
        Remembered { suite, group, hello_hash: vec![9; suite.hash_bytes()] }
    }

    #[test]
    fn a_cookie_brings_back_what_it_remembers_to_the_same_address_only() {
        let mut cookies = Cookies::new(&[1; 32]);
        let from: SocketAddr = "192.0.2.7:4433".parse().unwrap();
        for suite in Suite::ALL {
            for group in [None, Some(Group::P256)] {
                let remembered = remembered(suite, group);
                let cookie = cookies.make(&remembered, from, START);
                assert_eq!(cookies.judge(&cookie, from, START), Some(remembered.clone()));
                for other in ["192.0.2.7:4434", "192.0.2.8:4433", "[2001:db8::1]:4433"] {
                    assert_eq!(cookies.judge(&cookie, other.parse().unwrap(), START), None);
                }
                for at in 0..cookie.len() {
                    let mut changed = cookie.clone();
                    changed[at] ^= 1;
                    assert_eq!(cookies.judge(&changed, from, START), None, "byte {at}");
                }
                assert_eq!(cookies.judge(&cookie[1..], from, START), None);
                // Another worker of the same Gateway, and another Gateway.
                assert!(Cookies::new(&[1; 32]).judge(&cookie, from, START).is_some());
                assert!(Cookies::new(&[2; 32]).judge(&cookie, from, START).is_none());
            }
        }
        assert_eq!(cookies.judge(&[], from, START), None);
    }

    #[test]
    fn a_cookie_grows_old() {
        let mut cookies = Cookies::new(&[1; 32]);
        let from: SocketAddr = "[2001:db8::1]:4433".parse().unwrap();
        let cookie = cookies.make(&remembered(Suite::Aes128GcmSha256, None), from, START);
        assert!(cookies.judge(&cookie, from, START + Duration::from_secs(30)).is_some());
        assert!(cookies.judge(&cookie, from, START + Duration::from_secs(61)).is_none());
        // Nor does the number of its generation, which is a byte, bring it back.
        assert!(cookies.judge(&cookie, from, START + Duration::from_secs(30 * 256)).is_none());
    }
}
