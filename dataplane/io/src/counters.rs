//! What one worker's turns did, in plain numbers: the worker's thread owns them and copies them out.

/// Totals since [`open`](crate::open). A datagram is one UDP payload, a frame one TUN read or write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// System calls made by turns.
    pub system_calls: u64,
    /// Calls of [`turn`](crate::PacketIo::turn).
    pub turns: u64,
    /// Datagrams received, each segment of a GRO batch counted.
    pub datagrams_in: u64,
    /// Receives that brought datagrams; one GRO batch is one.
    pub datagram_batches_in: u64,
    /// Datagrams given to the kernel, each segment counted.
    pub datagrams_out: u64,
    /// Sends the kernel took; one `UDP_SEGMENT` batch is one.
    pub sends_out: u64,
    /// Frames read from the TUN queue.
    pub frames_in: u64,
    /// Frames written to the TUN queue.
    pub frames_out: u64,
    /// Sends dropped because the socket's send buffer was full.
    pub send_would_block: u64,
    /// Sends dropped because a datagram was too big for the path (`EMSGSIZE`) or for UDP.
    pub send_too_big: u64,
    /// Sends dropped by any other error.
    pub send_errors: u64,
    /// Batches that were refused as such (no checksum offload, IPsec, segments beyond the interface's MTU) and which were
    /// sent segment by segment.
    pub send_segmentation_refused: u64,
    /// Errors that the network reported for an earlier datagram (`ECONNREFUSED` and its kin) on a send or a
    /// receive. Such a send is lost; receiving goes on.
    pub remote_errors: u64,
    /// Frames dropped because the TUN queue would have blocked.
    pub write_would_block: u64,
    /// Frames dropped by any other error: the interface is down, the frame is malformed or has too many pieces.
    pub write_errors: u64,
    /// Arrivals dropped because they did not fit a slot.
    pub truncated: u64,
    /// Operations that had not completed when the kernel returned and were cancelled. Zero on every kernel tried:
    /// each operation is non-blocking.
    pub cancelled: u64,
}

impl Counters {
    /// Calls `visit` with each counter's name and value.
    pub fn visit(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        let Self {
            system_calls,
            turns,
            datagrams_in,
            datagram_batches_in,
            datagrams_out,
            sends_out,
            frames_in,
            frames_out,
            send_would_block,
            send_too_big,
            send_errors,
            send_segmentation_refused,
            remote_errors,
            write_would_block,
            write_errors,
            truncated,
            cancelled,
        } = *self;
        for (name, count) in [
            ("system_calls", system_calls),
            ("turns", turns),
            ("datagrams_in", datagrams_in),
            ("datagram_batches_in", datagram_batches_in),
            ("datagrams_out", datagrams_out),
            ("sends_out", sends_out),
            ("frames_in", frames_in),
            ("frames_out", frames_out),
            ("send_would_block", send_would_block),
            ("send_too_big", send_too_big),
            ("send_errors", send_errors),
            ("send_segmentation_refused", send_segmentation_refused),
            ("remote_errors", remote_errors),
            ("write_would_block", write_would_block),
            ("write_errors", write_errors),
            ("truncated", truncated),
            ("cancelled", cancelled),
        ] {
            visit(name, count);
        }
    }
}
