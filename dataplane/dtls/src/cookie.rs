//! Cookies by which a server knows that a peer receives what is sent to its address, without having kept anything of it
//! (RFC 9147 §5.1, RFC 6347 §4.2.1).
//!
//! A cookie says which generation of the secret made it and what the answer to it has to be known of: for DTLS 1.3 the
//! suite, the group that was asked for and the hash of the first ClientHello. A cookie of DTLS 1.2 has nothing to remember, as
//! its handshake begins anew with the second ClientHello; it is bound to what that one must have in common with the first. A MAC
//! over all that, the version and the peer's address and port makes it ours. Secrets change every 30 s; a cookie counts until its
//! secret is two generations old, so for 30 to 60 s.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::{constant_time, digest, hmac};
use ringfort_types::BootInstant;

use crate::crypto::Group;
use crate::record::Suite;
use crate::wire::hello::{ClientHello, DTLS_1_2};
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

/// What the second ClientHello of DTLS 1.2 has in common with the first (RFC 6347 §4.2.1): version, random, session id, suites
/// and compression methods, as a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parameters([u8; 32]);

impl Parameters {
    pub(crate) fn of(hello: &ClientHello<'_>) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hello.around_cookie.iter().for_each(|part| hash.update(part));
        let mut parameters = [0; 32];
        parameters.copy_from_slice(hash.finish().as_ref());
        Self(parameters)
    }
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

    /// A cookie of DTLS 1.2 for a client at `from` whose hello has these `parameters`.
    pub(crate) fn make_12(&mut self, parameters: &Parameters, from: SocketAddr, now: BootInstant) -> Vec<u8> {
        self.rotate(now);
        let (generation, secret) = &self.secrets[0];
        let generation = *generation as u8;
        let mac = mac(secret, &content_12(generation, parameters), from);
        [&[generation], &mac.as_ref()[..MAC_BYTES]].concat()
    }

    /// Whether a cookie that came from `from` in a hello with these `parameters` is one of ours for both, and young enough.
    pub(crate) fn judge_12(
        &mut self,
        cookie: &[u8],
        parameters: &Parameters,
        from: SocketAddr,
        now: BootInstant,
    ) -> bool {
        self.rotate(now);
        let Some((generation, tag)) = cookie.split_first() else { return false };
        let Some(secret) = self.secret(*generation) else { return false };
        let mac = mac(secret, &content_12(*generation, parameters), from);
        constant_time::verify_slices_are_equal(&mac.as_ref()[..MAC_BYTES], tag).is_ok()
    }

    /// The secret of the generation of which the number ends so.
    fn secret(&self, generation: u8) -> Option<&hmac::Key> {
        self.secrets.iter().find(|(of, _)| *of as u8 == generation).map(|(_, secret)| secret)
    }

    /// What a cookie that came from `from` remembers, if it is one of ours for that address and young enough.
    pub(crate) fn judge(&mut self, cookie: &[u8], from: SocketAddr, now: BootInstant) -> Option<Remembered> {
        self.rotate(now);
        let (content, tag) = cookie.split_at_checked(cookie.len().checked_sub(MAC_BYTES)?)?;
        let secret = self.secret(content.first().copied().unwrap_or_default())?;
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

/// What the MAC of a cookie of DTLS 1.2 is over, beside the address. In DTLS 1.3 a suite stands where the version stands here.
fn content_12(generation: u8, parameters: &Parameters) -> Vec<u8> {
    let mut w = Writer::default();
    w.u8(generation).u16(DTLS_1_2).bytes(&parameters.0);
    w.0
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
    fn a_cookie_of_1_2_is_for_one_address_and_one_hello() {
        let mut cookies = Cookies::new(&[1; 32]);
        let from: SocketAddr = "192.0.2.7:4433".parse().unwrap();
        let parameters = Parameters([7; 32]);
        let cookie = cookies.make_12(&parameters, from, START);
        assert!(cookies.judge_12(&cookie, &parameters, from, START));
        assert!(!cookies.judge_12(&cookie, &Parameters([8; 32]), from, START));
        assert!(!cookies.judge_12(&cookie, &parameters, "192.0.2.7:4434".parse().unwrap(), START));
        assert!(!cookies.judge_12(&cookie, &parameters, from, START + Duration::from_secs(61)));
        assert!(!Cookies::new(&[2; 32]).judge_12(&cookie, &parameters, from, START));
        for at in 0..cookie.len() {
            let mut changed = cookie.clone();
            changed[at] ^= 1;
            assert!(!cookies.judge_12(&changed, &parameters, from, START), "byte {at}");
            assert!(!cookies.judge_12(&cookie[..at], &parameters, from, START));
        }
        // Neither version takes the other's.
        assert_eq!(cookies.judge(&cookie, from, START), None);
        let other = cookies.make(&remembered(Suite::Aes128GcmSha256, None), from, START);
        assert!(!cookies.judge_12(&other, &parameters, from, START));
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
