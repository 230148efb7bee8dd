//! The hash of all messages so far (RFC 8446 §4.4.1; RFC 9147 §5.2: without what DTLS adds to their headers).

use aws_lc_rs::digest::{self, Digest};

use crate::record::Suite;
use crate::wire::messages::MessageType;

/// The type under which a first ClientHello's hash stands in the transcript (RFC 8446 §4.4.1).
const MESSAGE_HASH: MessageType = MessageType(254);

/// A hash of the transcript.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hash(Digest);

impl Hash {
    pub(super) const fn new(digest: Digest) -> Self {
        Self(digest)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_ref()
    }
}

/// The transcript of DTLS 1.3.
#[derive(Clone)]
pub(crate) struct Transcript(digest::Context);

impl std::fmt::Debug for Transcript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transcript")
    }
}

impl Transcript {
    /// An empty one.
    pub(crate) fn new(suite: Suite) -> Self {
        Self(digest::Context::new(suite.digest()))
    }

    /// One that begins with a ClientHello that was answered by a HelloRetryRequest: of it only `hash` counts.
    pub(crate) fn after_retry(suite: Suite, hash: &[u8]) -> Self {
        let mut transcript = Self::new(suite);
        transcript.add(MESSAGE_HASH, hash);
        transcript
    }

    /// Adds a message.
    pub(crate) fn add(&mut self, kind: MessageType, body: &[u8]) {
        self.0.update(&header(kind, body));
        self.0.update(body);
    }

    /// The hash of all so far.
    pub(crate) fn hash(&self) -> Hash {
        Hash(self.0.clone().finish())
    }

    /// The hash of one message alone.
    pub(crate) fn hash_of(suite: Suite, kind: MessageType, body: &[u8]) -> Hash {
        let mut transcript = Self::new(suite);
        transcript.add(kind, body);
        transcript.hash()
    }

    /// The hash of nothing.
    pub(crate) fn empty_hash(suite: Suite) -> Hash {
        Self::new(suite).hash()
    }
}

fn header(kind: MessageType, body: &[u8]) -> [u8; 4] {
    let [_, high, middle, low] = (body.len() as u32).to_be_bytes();
    [kind.0, high, middle, low]
}
