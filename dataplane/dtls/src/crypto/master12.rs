//! The master secret of DTLS 1.2 and what comes of it (RFC 7627 §4, RFC 5246 §6.3, §7.4.9).
//!
//! ```text
//! ECDHE ─"extended master secret", transcript up to ClientKeyExchange─▶ master ┬ "key expansion" ─▶ epoch 1
//!                                                                             ├ "client finished", "server finished"
//!                                                                             └ exporter
//! ```

use aws_lc_rs::constant_time;
use zeroize::Zeroizing;

use super::{Hash, Signed, prf, refused};
use crate::alert::{Alert, Fatal, fail};
use crate::record::{Keys12, Secret, Suite};

/// Length of the master secret (RFC 5246 §8.1).
const MASTER_BYTES: usize = 48;
/// Length of what a Finished carries (RFC 5246 §7.4.9).
const VERIFY_DATA_BYTES: usize = 12;

/// The master secret of one handshake; wiped when dropped.
#[derive(Clone, Debug)]
pub(crate) struct Master12 {
    suite: Suite,
    secret: Secret,
}

impl Master12 {
    /// The extended master secret, which depends on all that was said up to the ClientKeyExchange (RFC 7627 §4).
    pub(crate) fn new(suite: Suite, shared: &[u8], session_hash: &Hash) -> Result<Self, Fatal> {
        let mut master = Zeroizing::new([0; MASTER_BYTES]);
        prf(suite, shared, "extended master secret", &[session_hash.as_bytes()], &mut *master);
        Ok(Self { suite, secret: Secret::new(&*master).ok_or_else(|| refused(()))? })
    }

    pub(crate) const fn suite(&self) -> Suite {
        self.suite
    }

    pub(crate) const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The client's keys and the server's (RFC 5246 §6.3; AEADs have no MAC keys).
    pub(crate) fn keys(&self, client_random: &[u8; 32], server_random: &[u8; 32]) -> Result<(Keys12, Keys12), Fatal> {
        let (key_bytes, iv_bytes) = (self.suite.key_bytes(), self.suite.fixed_iv_bytes_12());
        let mut block = Zeroizing::new([0; 2 * (32 + 12)]);
        let block = &mut block[..2 * (key_bytes + iv_bytes)];
        prf(self.suite, self.secret.as_bytes(), "key expansion", &[server_random, client_random], block);
        let (keys, ivs) = block.split_at(2 * key_bytes);
        let of = |half: usize| {
            let key = &keys[half * key_bytes..(half + 1) * key_bytes];
            Keys12::new(self.suite, key, &ivs[half * iv_bytes..(half + 1) * iv_bytes]).map_err(refused)
        };
        Ok((of(0)?, of(1)?))
    }

    /// The content of a Finished by `by`.
    pub(crate) fn verify_data(&self, by: Signed, transcript: &Hash) -> [u8; VERIFY_DATA_BYTES] {
        let label = match by {
            Signed::ByClient => "client finished",
            Signed::ByServer => "server finished",
        };
        let mut data = [0; VERIFY_DATA_BYTES];
        prf(self.suite, self.secret.as_bytes(), label, &[transcript.as_bytes()], &mut data);
        data
    }

    /// Checks the content of the client's Finished.
    pub(crate) fn check_finished(&self, transcript: &Hash, body: &[u8]) -> Result<(), Fatal> {
        if body.len() != VERIFY_DATA_BYTES {
            return fail(Alert::DECODE_ERROR, "a Finished of another length than 12 bytes");
        }
        let expected = self.verify_data(Signed::ByClient, transcript);
        if constant_time::verify_slices_are_equal(&expected, body).is_err() {
            return fail(Alert::DECRYPT_ERROR, "a Finished that does not fit the handshake");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Transcript12;
    use crate::wire::messages::MessageType;

    #[test]
    fn a_master_secret_is_of_one_transcript() {
        for suite in Suite::ALL {
            let mut transcript = Transcript12::default();
            transcript.add(MessageType::CLIENT_HELLO, 1, b"hello");
            let one = Master12::new(suite, &[1; 32], &transcript.hash(suite)).unwrap();
            let hash = transcript.hash(suite);
            let finished = one.verify_data(Signed::ByClient, &hash);
            one.check_finished(&hash, &finished).unwrap();
            let mut changed = finished;
            changed[11] ^= 1;
            assert_eq!(one.check_finished(&hash, &changed).unwrap_err().alert, Alert::DECRYPT_ERROR);
            assert_eq!(one.check_finished(&hash, &finished[..11]).unwrap_err().alert, Alert::DECODE_ERROR);
            let server = one.verify_data(Signed::ByServer, &hash);
            assert!(one.check_finished(&hash, &server).is_err(), "the server's own");
            transcript.add(MessageType::CLIENT_HELLO, 2, b"");
            let other = Master12::new(suite, &[1; 32], &transcript.hash(suite)).unwrap();
            assert!(other.check_finished(&hash, &finished).is_err());
        }
    }
}
