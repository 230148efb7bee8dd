//! The addresses of the laboratory, as drawn in the crate's documentation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The gateway's outer addresses, to which clients send.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// As [`GATEWAY_V4`].
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10);
/// Some host of the internet, which clients reach without a tunnel (C6).
pub const INTERNET_HOST_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// As [`INTERNET_HOST_V4`].
pub const INTERNET_HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x80);
/// The site's services.
pub const SITE_V4: [Ipv4Addr; 3] = [site_v4(10), site_v4(20), site_v4(30)];
/// As [`SITE_V4`].
pub const SITE_V6: [Ipv6Addr; 3] = [site_v6(0x10), site_v6(0x20), site_v6(0x30)];
/// The gateway's address at the site, next hop of the site's hosts.
pub const GATEWAY_SITE_V4: Ipv4Addr = site_v4(1);
/// As [`GATEWAY_SITE_V4`].
pub const GATEWAY_SITE_V6: Ipv6Addr = site_v6(1);
/// The pool of inner addresses of clients; the site routes it to the gateway.
pub const INNER_POOL_V4: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 97, 0, 0), 16);
/// As [`INNER_POOL_V4`].
pub const INNER_POOL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd97, 0, 0, 0, 0, 0, 0, 0), 64);

/// Prefixes of the networks, in bits.
pub(crate) const CLIENT_BITS: Bits = Bits { v4: 30, v6: 64 };
pub(crate) const WAN_BITS: Bits = Bits { v4: 24, v6: 64 };
pub(crate) const SITE_BITS: Bits = Bits { v4: 24, v6: 64 };

/// The internet's addresses on the gateway's network, next hop of the gateway.
pub(crate) const ROUTER: Pair = (Ipv4Addr::new(203, 0, 113, 1), Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1));

/// An address of each family.
pub(crate) type Pair = (Ipv4Addr, Ipv6Addr);

/// Length of a prefix in each family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bits {
    pub(crate) v4: u8,
    pub(crate) v6: u8,
}

/// The addresses of client number `client` (below [`crate::CLIENTS_MAX`]).
pub(crate) const fn client(client: u8) -> Pair {
    (Ipv4Addr::new(198, 51, 100, client * 4 + 2), client_v6(client, 2))
}

/// The internet's addresses on the network of client number `client`: the client's next hop.
pub(crate) const fn client_router(client: u8) -> Pair {
    (Ipv4Addr::new(198, 51, 100, client * 4 + 1), client_v6(client, 1))
}

/// Both addresses with their prefix lengths.
pub(crate) fn with_bits(pair: Pair, bits: Bits) -> [(IpAddr, u8); 2] {
    [(IpAddr::V4(pair.0), bits.v4), (IpAddr::V6(pair.1), bits.v6)]
}

const fn client_v6(client: u8, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, client as u16, 0, 0, 0, host)
}

const fn site_v4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 98, 0, host)
}

const fn site_v6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd98, 0, 0, 0, 0, 0, 0, host)
}
