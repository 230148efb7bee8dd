//! Gateways and Controllers: lists, operations, receipts.

use serde::{Deserialize, Serialize};

/// Answer to `GET admin/receipts?serial=<epoch>/<n>&wait=<seconds>`: who has applied what was taken back (X6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Receipts {
    /// The serial that was asked for, `epoch/n`.
    pub serial: String,
    /// One for every Gateway that ever had a configuration, by name.
    pub gateways: Vec<Receipt>,
}

impl Receipts {
    /// Whether nobody is waited for any more.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.gateways.iter().all(|receipt| receipt.done || !receipt.awaited)
    }
}

/// How one Gateway stands with a serial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Receipt {
    /// The Gateway's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Name of its site.
    pub site: String,
    /// The serial that it said last to have applied; empty for none.
    pub applied: String,
    /// Whether that is the one asked for or a later one.
    pub done: bool,
    /// Whether it is waited for: it is alive, or sessions that it has not heard of may still run there.
    pub awaited: bool,
    /// Milliseconds from the push to its confirmation; absent where that was not measured, because it was away meanwhile.
    #[serde(default)]
    pub took_ms: Option<u64>,
    /// Of a silent one: when the last session ends there that it should have ended, in seconds since 1970; absent where there is
    /// none.
    #[serde(default)]
    pub sessions_end: Option<u64>,
    /// Until when it may admit new sessions without having heard from a Controller, in seconds since 1970; they end as those.
    pub lease_until: u64,
}

/// `POST admin/gateways/drain`: for maintenance no new session comes to a Gateway, until it is ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Name of the Gateway.
    pub name: String,
    /// Whether it is drained from now on.
    pub draining: bool,
}

/// `POST admin/gateways/operations`: passed on to the Gateway, whose answer is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OperationRequest {
    /// Name of the Gateway.
    pub name: String,
    /// What it is to do.
    pub operation: Operation,
}

/// What a Gateway can be asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Operation {
    /// Read its own file again.
    Reload,
    /// Log by this filter.
    LogLevel(String),
    /// End every session, while it is drained.
    EndSessions,
    /// Take the signed package of this version, for the installer of the Gateway's site.
    Upgrade {
        /// Three numbers: `1.2.3`.
        version: String,
        /// SHA-256 of the package, in hexadecimal.
        sha256: String,
    },
    /// Write packets of the tunnel interface to a file at the Gateway.
    Capture(CaptureLimits),
}

/// A SHA-256 digest as people write it: 64 hexadecimal digits.
#[must_use]
pub fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(digest)
}

/// Where a capture ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CaptureLimits {
    /// Time, in seconds.
    pub seconds: u32,
    /// Packets.
    pub packets: u32,
    /// Bytes of the file.
    pub bytes: u32,
    /// Bytes of each packet.
    pub snap_bytes: u32,
}

impl CaptureLimits {
    /// Whether it is bounded as every capture must be.
    ///
    /// # Errors
    /// What was expected and what came.
    pub fn check(&self) -> Result<(), String> {
        let Self { seconds, packets, bytes, snap_bytes } = *self;
        for (what, found, most) in [
            ("seconds", seconds, 300),
            ("packets", packets, 100_000),
            ("bytes", bytes, 64 << 20),
            ("bytes of each packet", snap_bytes, 65_535),
        ] {
            if !(1..=most).contains(&found) {
                return Err(format!("expected 1 to {most} {what} of a capture, found {found}"));
            }
        }
        Ok(())
    }
}

/// Answer to `POST admin/gateways/operations`: it was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OperationAnswer {
    /// The operation's id, as in the logs of both.
    pub id: String,
    /// What the Gateway says.
    pub detail: String,
    /// The Controller's audit event.
    pub event: String,
}

/// One of the answer to `GET admin/gateways`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GatewayRow {
    /// Its id, as in its certificate.
    pub id: String,
    /// Name.
    pub name: String,
    /// Name of its site.
    pub site: String,
    /// Where clients reach it.
    pub addresses: Vec<String>,
    /// SHA-256 of the certificate it shows, in hexadecimal.
    pub certificate_digest: String,
    /// When it reported last, in seconds since 1970; 0 for never.
    pub last_seen: u64,
    /// Whether clients are sent to it (R18).
    pub alive: bool,
    /// Whether its stream is open at the Controller that was asked.
    #[serde(default)]
    pub connected: bool,
    /// When its stream was last taken over from another address while it was open, at the Controller that was asked and since that one's
    /// start, in seconds since 1970: its key may be in two machines.
    #[serde(default)]
    pub duplicate_at: Option<u64>,
    /// Whether it is drained: it admits no new session.
    #[serde(default)]
    pub draining: bool,
    /// Serial of the revocations that it has applied, `epoch/n`; empty for none.
    #[serde(default)]
    pub applied: String,
}

/// One of the answer to `GET admin/controllers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ControllerRow {
    /// Its id: what its invitations name as key hash, in hexadecimal.
    pub id: String,
    /// `host:port` where everybody reaches it.
    pub address: String,
    /// When it started last, in seconds since 1970.
    pub started_at: u64,
}

/// One of the answer to `GET admin/relays`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RelayRow {
    /// Its FQDN.
    pub name: String,
    /// When it joined, in seconds since 1970.
    pub joined_at: u64,
    /// Names of the Gateways that said last to be connected to it (R15).
    pub gateways: Vec<String>,
}
