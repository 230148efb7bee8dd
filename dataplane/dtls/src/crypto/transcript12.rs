//! All messages of a DTLS 1.2 handshake so far, with the headers that they would have unfragmented (RFC 6347 §4.2.6).
//!
//! They are kept, not only hashed: CertificateVerify signs them with a hash of the client's own choice (RFC 5246 §7.4.8), which
//! is known when all before it has gone by.

use aws_lc_rs::digest;

use super::Hash;
use crate::record::Suite;
use crate::wire::messages::{Fragment, MessageType};

/// The transcript of DTLS 1.2: from the ClientHello that was answered by a ServerHello; what was said about cookies before is
/// not in it (RFC 6347 §4.2.1).
#[derive(Clone, Debug, Default)]
pub(crate) struct Transcript12(Vec<u8>);

impl Transcript12 {
    /// Adds a message.
    pub(crate) fn add(&mut self, kind: MessageType, sequence: u16, body: &[u8]) {
        self.0.extend_from_slice(&Fragment::header(kind, body.len(), sequence, 0, body.len()));
        self.0.extend_from_slice(body);
    }

    /// The hash of all so far, by the suite's hash.
    pub(crate) fn hash(&self, suite: Suite) -> Hash {
        Hash::new(digest::digest(suite.digest(), &self.0))
    }

    /// All so far.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
