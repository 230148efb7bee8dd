//! The pseudorandom function of DTLS 1.2 (RFC 5246 §5).

use aws_lc_rs::hmac;

use super::hmac_of;
use crate::record::Suite;

/// Fills `out` with PRF(`secret`, `label`, `seed`), where the seed is the parts of `seed` one behind the other.
pub(crate) fn prf(suite: Suite, secret: &[u8], label: &str, seed: &[&[u8]], out: &mut [u8]) {
    let key = hmac::Key::new(hmac_of(suite), secret);
    let add_seed = |mac: &mut hmac::Context| {
        mac.update(label.as_bytes());
        seed.iter().for_each(|part| mac.update(part));
    };
    let mut mac = hmac::Context::with_key(&key);
    add_seed(&mut mac);
    let mut a = mac.sign();
    for chunk in out.chunks_mut(suite.hash_bytes()) {
        let mut mac = hmac::Context::with_key(&key);
        mac.update(a.as_ref());
        add_seed(&mut mac);
        let block = mac.sign();
        chunk.copy_from_slice(&block.as_ref()[..chunk.len()]);
        a = hmac::sign(&key, a.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// The vectors for P_SHA256 and P_SHA384 that were published on the TLS working group's list.
    #[test]
    fn known_answers() {
        for (suite, secret, seed, expected) in [
            (
                Suite::Aes128GcmSha256,
                "9bbe436ba940f017b17652849a71db35",
                "a0ba9f936cda311827a6f796ffd5198c",
                "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af0fa0\
                 22f7077def17abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff70187347b66",
            ),
            (
                Suite::Aes256GcmSha384,
                "b80b733d6ceefcdc71566ea48e5567df",
                "cd665cf6a8447dd6ff8b27555edb7465",
                "7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cde9ca0faa60be9fe34f82b1233c9146a0e534\
                 cb400fed2700884f9dc236f80edd8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad05d9184259b5bf8cd\
                 4d90fa0d31e2dec479e4f1a26066f2eea9a69236a3e52655c9e9aee691c8f3a26854308d5eaa3be85e0990703d73e56f",
            ),
        ] {
            let expected = bytes(expected);
            let mut out = vec![0; expected.len()];
            let seed = bytes(seed);
            prf(suite, &bytes(secret), "test label", &[&seed[..5], &seed[5..]], &mut out);
            assert_eq!(out, expected, "{suite:?}");
        }
    }

    /// Against another implementation, over lengths that do and do not fill blocks.
    #[test]
    fn it_is_that_of_the_library() {
        use aws_lc_rs::tls_prf;
        for (suite, theirs) in
            [(Suite::ChaCha20Poly1305Sha256, &tls_prf::P_SHA256), (Suite::Aes256GcmSha384, &tls_prf::P_SHA384)]
        {
            for length in [1, 12, 32, 48, 49, 200] {
                let expected = tls_prf::Secret::new(theirs, &[9; 48]).unwrap();
                let expected = expected.derive(b"label", b"seed", length).unwrap();
                let mut out = vec![0; length];
                prf(suite, &[9; 48], "label", &[b"seed"], &mut out);
                assert_eq!(out, expected.as_ref());
            }
        }
    }
}
