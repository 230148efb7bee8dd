//! What a server of DTLS 1.2 takes of a ClientHello's offers (RFC 5246 §7.4.1, RFC 8422 §5.1, RFC 9325 §4).
//!
//! Ephemeral keys, AEADs and the extended master secret, or nothing: clients that offer only CBC, RSA key transport, a master
//! secret that is not bound to the handshake, or a fallback from what we would have agreed on, are sent away.

use rustls::SignatureAlgorithm;

use super::server::choose_protocol;
use crate::alert::{Alert, Fatal, fail};
use crate::config::ServerConfig;
use crate::crypto::Group;
use crate::record::Suite;
use crate::wire::hello::{ClientHello, DTLS_1_2, DTLS_1_3};
use crate::wire::messages12::UNCOMPRESSED;

/// A suite that says that renegotiation is bound to what it renews (RFC 5746 §3.3).
const RENEGOTIATION_INFO_SCSV: u16 = 0x00ff;
/// A suite that says that the client would have liked a newer version (RFC 7507 §4).
const FALLBACK_SCSV: u16 = 0x5600;

/// What is chosen.
#[derive(Debug)]
pub(crate) struct Choice12<'a> {
    pub(crate) suite: Suite,
    /// Its number, which says the kind of our key too.
    pub(crate) suite_number: u16,
    pub(crate) group: Group,
    pub(crate) protocol: Option<&'a [u8]>,
    /// Whether the client has said something about renegotiation.
    pub(crate) renegotiation_info: bool,
}

impl<'a> Choice12<'a> {
    /// Chooses; the order is the server's.
    ///
    /// # Errors
    /// As the RFCs say for what is missing, not for us, or not allowed.
    pub(crate) fn make(hello: &ClientHello<'a>, config: &ServerConfig) -> Result<Self, Fatal> {
        if hello.offers(DTLS_1_3) || !hello.offers(DTLS_1_2) {
            return fail(Alert::PROTOCOL_VERSION, "expected a client of which DTLS 1.2 is the newest version");
        }
        if hello.suites.contains(FALLBACK_SCSV) {
            return fail(Alert::INAPPROPRIATE_FALLBACK, "the client fell back from a version that is spoken here");
        }
        if !hello.compression.contains(&0) {
            return fail(Alert::ILLEGAL_PARAMETER, "expected a client that can do without compression");
        }
        if hello.point_formats.is_some_and(|formats| !formats.contains(&UNCOMPRESSED)) {
            return fail(Alert::ILLEGAL_PARAMETER, "expected a client that can do without compressed points");
        }
        if hello.renegotiation_info.is_some_and(|info| !info.is_empty()) {
            return fail(Alert::HANDSHAKE_FAILURE, "a first handshake that renews another (RFC 5746 section 3.6)");
        }
        if !hello.extended_master_secret {
            return fail(Alert::HANDSHAKE_FAILURE, "expected extended_master_secret");
        }
        if hello.schemes.is_none() {
            return fail(Alert::HANDSHAKE_FAILURE, "the client takes no signatures but SHA-1's");
        }
        let settings = &config.settings;
        let is_rsa = config.own.key.algorithm() == SignatureAlgorithm::RSA;
        let suite = settings.suites.iter().find(|suite| hello.suites.contains(suite_number_12(**suite, is_rsa)));
        let Some(suite) = suite.copied() else {
            return fail(Alert::HANDSHAKE_FAILURE, "the client offers no cipher suite for our key");
        };
        let group = settings.groups.iter().copied().filter(|group| *group != Group::X25519MlKem768).find(|group| {
            match hello.groups {
                Some(groups) => groups.contains(group.number()),
                // Who says nothing can all curves of its time (RFC 8422 §4).
                None => *group == Group::P256,
            }
        });
        let Some(group) = group else {
            return fail(Alert::HANDSHAKE_FAILURE, "the client offers no group of ours");
        };
        Ok(Self {
            suite,
            suite_number: suite_number_12(suite, is_rsa),
            group,
            protocol: choose_protocol(hello, config)?,
            renegotiation_info: hello.renegotiation_info.is_some() || hello.suites.contains(RENEGOTIATION_INFO_SCSV),
        })
    }
}

/// The number of a suite with ECDHE and our kind of key (RFC 5289 §3.2, RFC 7905 §2). Ed25519 counts as ECDSA (RFC 8422 §2.2).
const fn suite_number_12(suite: Suite, is_rsa: bool) -> u16 {
    match (suite, is_rsa) {
        (Suite::Aes128GcmSha256, false) => 0xc02b,
        (Suite::Aes256GcmSha384, false) => 0xc02c,
        (Suite::ChaCha20Poly1305Sha256, false) => 0xcca9,
        (Suite::Aes128GcmSha256, true) => 0xc02f,
        (Suite::Aes256GcmSha384, true) => 0xc030,
        (Suite::ChaCha20Poly1305Sha256, true) => 0xcca8,
    }
}
