//! Keep-alive messages, which travel inside the tunnel beside IP packets.
//!
//! An IP packet starts with version 4 or 6 in its upper four bits. A plaintext whose upper four bits are 0 is a message of
//! the tunnel itself: first byte 0 asks, first byte 1 answers, seven zero bytes follow. A client uses it to learn that the
//! Gateway is still there and to keep address translators on the way from forgetting the flow.

/// Length of a keep-alive message.
pub const KEEPALIVE_BYTES: usize = 8;

/// A keep-alive message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keepalive {
    /// Asks for an answer.
    Request,
    /// Answers.
    Reply,
}

impl Keepalive {
    /// The message as it is sealed.
    #[must_use]
    pub const fn encode(self) -> [u8; KEEPALIVE_BYTES] {
        let kind = match self {
            Self::Request => 0,
            Self::Reply => 1,
        };
        [kind, 0, 0, 0, 0, 0, 0, 0]
    }

    /// Whether a plaintext is a message of the tunnel rather than an IP packet.
    #[must_use]
    pub fn is_message(plaintext: &[u8]) -> bool {
        plaintext.first().is_some_and(|first| first >> 4 == 0)
    }

    /// Reads a message; `None` for what this version does not know.
    #[must_use]
    pub fn decode(plaintext: &[u8]) -> Option<Self> {
        match plaintext {
            [0, 0, 0, 0, 0, 0, 0, 0] => Some(Self::Request),
            [1, 0, 0, 0, 0, 0, 0, 0] => Some(Self::Reply),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_packets_are_told_apart() {
        for message in [Keepalive::Request, Keepalive::Reply] {
            assert!(Keepalive::is_message(&message.encode()));
            assert_eq!(Keepalive::decode(&message.encode()), Some(message));
        }
        assert!(!Keepalive::is_message(&[0x45, 0, 0, 20]));
        assert!(!Keepalive::is_message(&[0x60]));
        assert!(!Keepalive::is_message(&[]));
        assert_eq!(Keepalive::decode(&[2, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Keepalive::decode(&[0]), None);
    }
}
