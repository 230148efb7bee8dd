//! Connection ids (RFC 9146, RFC 9147 §9): what a record carries so that its association is found whatever address it came
//! from.

use std::fmt;

/// The longest connection id that an association takes or gives, in bytes. RFC 9146 §3 allows 255; none of the stacks we
/// know uses more than 20, and each association stores two.
pub const CONNECTION_ID_BYTES_MAX: usize = 20;

/// A connection id; empty for none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    length: u8,
    bytes: [u8; CONNECTION_ID_BYTES_MAX],
}

impl ConnectionId {
    /// No connection id.
    pub const NONE: Self = Self { length: 0, bytes: [0; CONNECTION_ID_BYTES_MAX] };

    /// A copy of `id`, unless it is longer than [`CONNECTION_ID_BYTES_MAX`].
    #[must_use]
    pub fn new(id: &[u8]) -> Option<Self> {
        let mut copy = Self::NONE;
        copy.bytes.get_mut(..id.len())?.copy_from_slice(id);
        copy.length = u8::try_from(id.len()).ok()?;
        Some(copy)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len()).unwrap_or_default()
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
