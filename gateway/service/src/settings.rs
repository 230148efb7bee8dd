//! Settings that Gateway and client have in common in their files, checked where they are read.

use ringfort_io::BackendChoice;
use serde::Deserialize;

/// Smallest MTU of IPv6 (RFC 8200 §5), and what leaves room for many packets in one send.
const MTU_MIN: u32 = 1_280;
const MTU_MAX: u32 = 9_000;
/// With a record's 22 bytes and UDP over IPv6 (48) it stays below 1,500.
const MTU_DEFAULT: u32 = 1_400;

/// Largest packet inside the tunnel, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct Mtu(u32);

impl Mtu {
    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

impl Default for Mtu {
    fn default() -> Self {
        Self(MTU_DEFAULT)
    }
}

impl TryFrom<u32> for Mtu {
    type Error = String;

    fn try_from(bytes: u32) -> Result<Self, String> {
        if (MTU_MIN..=MTU_MAX).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(format!("expected an MTU of {MTU_MIN} to {MTU_MAX} bytes, found {bytes}"))
        }
    }
}

/// Name of a TUN interface.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct TunName(String);

impl TunName {
    /// The name. What is no interface name is refused when the interface is made.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TunName {
    fn default() -> Self {
        Self("ringfort0".into())
    }
}

/// How packets are read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Backend {
    /// io_uring, or epoll where the kernel refuses it.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// io_uring or an error.
    #[serde(rename = "io_uring")]
    IoUring,
    /// epoll.
    #[serde(rename = "epoll")]
    Epoll,
}

impl From<Backend> for BackendChoice {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Auto => Self::Auto,
            Backend::IoUring => Self::IoUring,
            Backend::Epoll => Self::Epoll,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct File {
        #[serde(default)]
        mtu: Mtu,
        #[serde(default)]
        backend: Backend,
        #[serde(default)]
        tun: TunName,
    }

    #[test]
    fn defaults_and_refusals() {
        let file: File = toml::from_str("").unwrap();
        assert_eq!((file.mtu.bytes(), file.backend, file.tun.as_str()), (1_400, Backend::Auto, "ringfort0"));
        let file: File = toml::from_str("mtu = 1280\nbackend = 'epoll'\ntun = 'x'").unwrap();
        assert_eq!((file.mtu.bytes(), file.backend, file.tun.as_str()), (1_280, Backend::Epoll, "x"));
        for (text, what) in
            [("mtu = 1279", "1280 to 9000"), ("mtu = 9001", "found 9001"), ("backend = 'dpdk'", "io_uring")]
        {
            let error = toml::from_str::<File>(text).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
