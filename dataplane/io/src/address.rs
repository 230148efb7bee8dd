//! Socket addresses as the kernel lays them out, encoded and decoded byte by byte.
//!
//! A dual-stack socket speaks of IPv4 peers as mapped IPv6 addresses; callers see plain IPv4 in both directions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// The address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(crate) fn number(self) -> libc::c_int {
        match self {
            Self::V4 => libc::AF_INET,
            Self::V6 => libc::AF_INET6,
        }
    }

    /// The same address as a socket of this family says it; `None` for an IPv6 address on an IPv4 socket.
    pub(crate) fn express(self, address: SocketAddr) -> Option<SocketAddr> {
        match (self, address) {
            (Self::V6, SocketAddr::V4(v4)) => Some(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()),
            (Self::V4, SocketAddr::V6(_)) => match address.ip().to_canonical() {
                ip @ IpAddr::V4(_) => Some(SocketAddr::new(ip, address.port())),
                IpAddr::V6(_) => None,
            },
            _ => Some(address),
        }
    }
}

/// Room for `sockaddr_in6`, the larger of the two.
const NAME_BYTES: usize = 28;
const V4_BYTES: u32 = 16;
const V6_BYTES: u32 = 28;

/// `sockaddr_in` or `sockaddr_in6`: family (host order), port (network order), then IPv4 address, or flow info,
/// IPv6 address and scope.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct Name([u8; NAME_BYTES]);

impl Name {
    pub(crate) const CAPACITY: u32 = NAME_BYTES as u32;
    pub(crate) const EMPTY: Self = Self([0; NAME_BYTES]);

    pub(crate) fn encode(address: SocketAddr) -> Self {
        let mut name = Self::EMPTY;
        let bytes = &mut name.0;
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                bytes[4..8].copy_from_slice(&v4.ip().octets());
            }
            SocketAddr::V6(v6) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..].copy_from_slice(&v6.scope_id().to_ne_bytes());
            }
        }
        name
    }

    /// Bytes of the name of `address`; never above [`Name::CAPACITY`].
    pub(crate) fn length_of(address: SocketAddr) -> u32 {
        if address.is_ipv4() { V4_BYTES } else { V6_BYTES }
    }

    /// The address in a name that the kernel filled with `length` bytes, mapped IPv4 made plain. `None` for other
    /// families.
    pub(crate) fn decode(&self, length: u32) -> Option<SocketAddr> {
        let [f0, f1, p0, p1, rest @ ..] = self.0;
        let port = u16::from_be_bytes([p0, p1]);
        match libc::c_int::from(u16::from_ne_bytes([f0, f1])) {
            libc::AF_INET if length >= V4_BYTES => {
                let [a, b, c, d, ..] = rest;
                Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port))
            }
            libc::AF_INET6 if length >= V6_BYTES => {
                let [_, _, _, _, address @ .., s0, s1, s2, s3] = rest;
                let ip = Ipv6Addr::from_octets(address);
                Some(match ip.to_ipv4_mapped() {
                    Some(v4) => SocketAddr::new(v4.into(), port),
                    None => SocketAddrV6::new(ip, port, 0, u32::from_ne_bytes([s0, s1, s2, s3])).into(),
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_mapped_addresses_become_plain() {
        for text in ["192.0.2.7:4433", "[2001:db8::7]:1", "[fe80::1%9]:65535", "0.0.0.0:0", "[::]:0"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Name::encode(address).decode(Name::length_of(address)), Some(address));
        }
        let plain: SocketAddr = "192.0.2.7:4433".parse().unwrap();
        let mapped = Family::V6.express(plain).unwrap();
        assert_eq!(mapped.to_string(), "[::ffff:192.0.2.7]:4433");
        assert_eq!(Name::encode(mapped).decode(Name::CAPACITY), Some(plain));
        assert_eq!(Family::V4.express(mapped), Some(plain));
    }

    #[test]
    fn foreign_and_short_names_are_refused() {
        assert_eq!(Name::EMPTY.decode(Name::CAPACITY), None);
        assert_eq!(Name::encode("192.0.2.7:4433".parse().unwrap()).decode(8), None);
        assert_eq!(Family::V4.express("[2001:db8::7]:1".parse().unwrap()), None);
    }
}
