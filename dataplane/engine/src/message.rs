//! Messages of the tunnel itself, which travel inside it beside IP packets (docs/TUNNEL.md).
//!
//! An IP packet starts with version 4 or 6 in its upper four bits. A plaintext whose upper four bits are 0 is a message: one byte
//! that says which, and seven more.

/// Length of a message.
pub const MESSAGE_BYTES: usize = 8;

/// What a peer is to send back to show that it receives where it is heard.
pub type Token = [u8; MESSAGE_BYTES - 1];

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Are you there? A client asks, to learn that the Gateway still knows it and to keep address translators on the way from
    /// forgetting the flow.
    Request,
    /// Yes.
    Reply,
    /// Send this back from where you are: the Gateway asks when a client's datagrams come from another address than before (X10).
    Challenge(Token),
    /// Here it is.
    Response(Token),
}

impl Message {
    /// The message as it is sealed.
    #[must_use]
    pub const fn encode(self) -> [u8; MESSAGE_BYTES] {
        let (kind, token) = match self {
            Self::Request => (0, [0; 7]),
            Self::Reply => (1, [0; 7]),
            Self::Challenge(token) => (2, token),
            Self::Response(token) => (3, token),
        };
        let [a, b, c, d, e, f, g] = token;
        [kind, a, b, c, d, e, f, g]
    }

    /// Whether a plaintext is a message of the tunnel rather than an IP packet.
    #[must_use]
    pub fn is_message(plaintext: &[u8]) -> bool {
        plaintext.first().is_some_and(|first| first >> 4 == 0)
    }

    /// Reads a message; `None` for what this version does not know.
    #[must_use]
    pub fn decode(plaintext: &[u8]) -> Option<Self> {
        let (kind, token) = plaintext.split_first()?;
        let token = Token::try_from(token).ok()?;
        match kind {
            0 if token == [0; 7] => Some(Self::Request),
            1 if token == [0; 7] => Some(Self::Reply),
            2 => Some(Self::Challenge(token)),
            3 => Some(Self::Response(token)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_packets_are_told_apart() {
        let token = [1, 2, 3, 4, 5, 6, 7];
        for message in [Message::Request, Message::Reply, Message::Challenge(token), Message::Response(token)] {
            assert!(Message::is_message(&message.encode()));
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        assert!(!Message::is_message(&[0x45, 0, 0, 20]));
        assert!(!Message::is_message(&[0x60]));
        assert!(!Message::is_message(&[]));
        for unknown in [&[4, 0, 0, 0, 0, 0, 0, 0][..], &[0], &[0, 0, 0, 0, 0, 0, 0, 1], &[2; 9], &[2; 7], &[]] {
            assert_eq!(Message::decode(unknown), None, "{unknown:?}");
        }
    }
}
