//! What one turn writes: the caller's view of its own buffers, in the form both backends can stage.

use std::net::SocketAddr;

/// Segments of one `UDP_SEGMENT` send: what every kernel with the option takes (newer ones take 128).
pub const SEGMENTS_MAX: usize = 64;

/// Bytes of one send: the largest UDP payload over IPv4 (65,535 − 20 − 8).
pub const SEND_BYTES_MAX: usize = 65_507;

/// What one turn writes; borrowed until the turn returns.
///
/// The counts are asked once per turn. The slices are read by the kernel while the turn runs, so a segment is
/// never copied in user space.
pub trait Departures {
    /// Number of UDP sends.
    fn sends(&self) -> usize;
    /// The `i`-th UDP send, `i < sends()`.
    fn send(&self, i: usize) -> Send<'_>;
    /// Number of TUN writes, each one frame: vnet header and packet.
    fn writes(&self) -> usize;
    /// Number of pieces of the frame `write < writes()`; at most 1,024, else the frame is dropped.
    fn pieces(&self, write: usize) -> usize;
    /// One piece of a frame; the frame is the pieces `0..pieces(write)` one after the other.
    fn piece(&self, write: usize, piece: usize) -> &[u8];
}

/// One or more datagrams of equal size to one address.
///
/// A batch may exceed [`SEGMENTS_MAX`] and [`SEND_BYTES_MAX`]: the turn cuts it into sends the kernel takes. Only
/// a single datagram above [`SEND_BYTES_MAX`] is dropped and counted.
#[derive(Clone, Copy, Debug)]
pub struct Send<'a> {
    /// The datagrams one after the other.
    pub bytes: &'a [u8],
    /// Bytes of each datagram; the last one may be shorter. `bytes.len()` for one datagram; 0 means the same.
    pub segment_bytes: usize,
    /// Where to; `None` on a connected socket.
    pub to: Option<SocketAddr>,
}

/// Nothing to write.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDepartures;

impl Departures for NoDepartures {
    fn sends(&self) -> usize {
        0
    }

    fn send(&self, _: usize) -> Send<'_> {
        Send { bytes: &[], segment_bytes: 0, to: None }
    }

    fn writes(&self) -> usize {
        0
    }

    fn pieces(&self, _: usize) -> usize {
        0
    }

    fn piece(&self, _: usize, _: usize) -> &[u8] {
        &[]
    }
}
