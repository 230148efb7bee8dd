//! How a tunnel proves to be the one that a channel means (C15): values that only its two ends can derive.

use aws_lc_rs::constant_time;
use ringfort_dtls::{EXPORTED_BYTES, ExporterSecret};

/// Label of the value that names a tunnel; exported without context, of which the first 16 bytes count.
pub const EXPORTER_TUNNEL: &str = "EXPORTER-ringfort-tunnel-v1";
/// Label of the value that the client shows; its context is the channel's session id.
pub const EXPORTER_TO_GATEWAY: &str = "EXPORTER-ringfort-c2g-v1";
/// Label of the value that the Gateway shows; its context is the channel's session id.
pub const EXPORTER_TO_CLIENT: &str = "EXPORTER-ringfort-g2c-v1";

/// The name of the tunnel.
pub(crate) fn name_of(exporter: &ExporterSecret) -> [u8; 16] {
    let mut name = [0; 16];
    name.copy_from_slice(&exporter.export(EXPORTER_TUNNEL, b"")[..16]);
    name
}

/// Whether the client that shows `exported` on the channel `session_id` is the tunnel's other end.
pub(crate) fn is_by_client(exporter: &ExporterSecret, session_id: &[u8; 16], exported: &[u8; EXPORTED_BYTES]) -> bool {
    constant_time::verify_slices_are_equal(&exporter.export(EXPORTER_TO_GATEWAY, session_id), exported).is_ok()
}

/// What shows the client that the Gateway is the tunnel's other end.
pub(crate) fn by_gateway(exporter: &ExporterSecret, session_id: &[u8; 16]) -> [u8; EXPORTED_BYTES] {
    exporter.export(EXPORTER_TO_CLIENT, session_id)
}
