//! The addresses of the laboratory, as drawn in the crate's documentation.
//!
//! Sites are numbered from 0. Functions that take such a number panic where it is not below [`SITES_MAX`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::SITES_MAX;

/// The outer addresses of the first site's gateway, to which clients send.
pub const GATEWAY_V4: Ipv4Addr = gateway(0).0;
/// As [`GATEWAY_V4`].
pub const GATEWAY_V6: Ipv6Addr = gateway(0).1;
/// The controller's outer addresses.
pub const CONTROLLER_V4: Ipv4Addr = outer(40, 0x40).0;
/// As [`CONTROLLER_V4`].
pub const CONTROLLER_V6: Ipv6Addr = outer(40, 0x40).1;
/// Some host of the internet, which clients reach without a tunnel (C6).
pub const INTERNET_HOST_V4: Ipv4Addr = outer(80, 0x80).0;
/// As [`INTERNET_HOST_V4`].
pub const INTERNET_HOST_V6: Ipv6Addr = outer(80, 0x80).1;
/// The services of the first site.
pub const SITE_V4: [Ipv4Addr; SERVICES] = [site_host(0, 0).0, site_host(0, 1).0, site_host(0, 2).0];
/// As [`SITE_V4`].
pub const SITE_V6: [Ipv6Addr; SERVICES] = [site_host(0, 0).1, site_host(0, 1).1, site_host(0, 2).1];
/// The first site's gateway at its site, next hop of the site's hosts.
pub const GATEWAY_SITE_V4: Ipv4Addr = gateway_at_site(0).0;
/// As [`GATEWAY_SITE_V4`].
pub const GATEWAY_SITE_V6: Ipv6Addr = gateway_at_site(0).1;
/// The first site's pool of inner addresses of clients; the site routes it to its gateway.
pub const INNER_POOL_V4: (Ipv4Addr, u8) = pool(0).0;
/// As [`INNER_POOL_V4`].
pub const INNER_POOL_V6: (Ipv6Addr, u8) = pool(0).1;
/// Services of a site, each with an address of its own.
pub const SERVICES: usize = 3;

/// Prefixes of the networks, in bits.
pub(crate) const CLIENT_BITS: Bits = Bits { v4: 30, v6: 64 };
pub(crate) const SITE_BITS: Bits = Bits { v4: 24, v6: 64 };
/// Of an address that stands for itself.
pub(crate) const HOST_BITS: Bits = Bits { v4: 32, v6: 128 };

/// The internet's address towards gateways and the controller: their next hop.
pub(crate) const ROUTER: Pair = outer(1, 1);

/// An address of each family.
pub type Pair = (Ipv4Addr, Ipv6Addr);

/// Length of a prefix in each family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bits {
    pub(crate) v4: u8,
    pub(crate) v6: u8,
}

/// The outer addresses of the gateway of site number `site`: 203.0.113.10, .11 and so on, 2001:db8:2::10, ::11.
pub const fn gateway(site: usize) -> Pair {
    let site = checked(site);
    outer(10 + site, 0x10 + site)
}

/// The address of that gateway at its site, next hop of the site's hosts: 10.98.0.1, 10.99.0.1 and so on, fd98::1,
/// fd99::1, fd9a::1.
pub const fn gateway_at_site(site: usize) -> Pair {
    at_site(site, 1, 1)
}

/// The address of service number `service` (from 0, below [`SERVICES`], or it panics) of site number `site`: .10, .20
/// and .30 of its network.
pub const fn site_host(site: usize, service: usize) -> Pair {
    assert!(service < SERVICES, "no service of a site has this number");
    let tens = service as u8 + 1;
    at_site(site, tens * 10, tens * 0x10)
}

/// The pool of inner addresses of clients at site number `site`, which that site routes to its gateway: 10.97.0.0/16
/// and fd97::/64 at the first, then 10.121.0.0/16 and fdc1::/64, 10.122.0.0/16 and fdc2::/64. The networks of sites end
/// at 10.105.0.0/24 and fd9f::/64, short of the second pool.
pub const fn pool(site: usize) -> ((Ipv4Addr, u8), (Ipv6Addr, u8)) {
    let (second, first) = match checked(site) {
        0 => (97, 0xfd97),
        site => (120 + site, 0xfdc0 + site as u16),
    };
    ((Ipv4Addr::new(10, second, 0, 0), 16), (Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), 64))
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

const fn outer(v4: u8, v6: u8) -> Pair {
    (Ipv4Addr::new(203, 0, 113, v4), Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, v6 as u16))
}

const fn at_site(site: usize, v4: u8, v6: u8) -> Pair {
    let site = checked(site);
    (Ipv4Addr::new(10, 98 + site, 0, v4), Ipv6Addr::new(0xfd98 + site as u16, 0, 0, 0, 0, 0, 0, v6 as u16))
}

const fn checked(site: usize) -> u8 {
    assert!(site < SITES_MAX, "no site of a laboratory has this number");
    site as u8
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, panic::catch_unwind};

    use super::*;

    #[test]
    fn the_first_site_keeps_its_addresses() {
        let text = format!("{GATEWAY_V4} {GATEWAY_V6} {GATEWAY_SITE_V4} {GATEWAY_SITE_V6} {SITE_V4:?} {SITE_V6:?}");
        assert_eq!(
            text,
            "203.0.113.10 2001:db8:2::10 10.98.0.1 fd98::1 [10.98.0.10, 10.98.0.20, 10.98.0.30] \
             [fd98::10, fd98::20, fd98::30]"
        );
        let text = format!("{INNER_POOL_V4:?} {INNER_POOL_V6:?} {CONTROLLER_V4} {CONTROLLER_V6}");
        assert_eq!(text, "(10.97.0.0, 16) (fd97::, 64) 203.0.113.40 2001:db8:2::40");
    }

    #[test]
    fn the_second_and_the_last_site_are_where_the_drawing_says() {
        let text = |site| format!("{:?} {:?} {:?}", gateway(site), site_host(site, 2), pool(site));
        assert_eq!(text(1), "(203.0.113.11, 2001:db8:2::11) (10.99.0.30, fd99::30) ((10.121.0.0, 16), (fdc1::, 64))");
        assert_eq!(
            text(SITES_MAX - 1),
            "(203.0.113.17, 2001:db8:2::17) (10.105.0.30, fd9f::30) ((10.127.0.0, 16), (fdc7::, 64))"
        );
    }

    /// No network is wider than 10.x.0.0/16 or has another network under its first group, so those tell them apart.
    #[test]
    fn no_network_and_no_outer_address_is_used_twice() {
        let pools = (0..SITES_MAX).map(|site| (pool(site).0.0, pool(site).1.0));
        let networks: Vec<Pair> = (0..SITES_MAX).map(gateway_at_site).chain(pools).collect();
        assert_eq!(networks.iter().map(|(v4, _)| v4.octets()[1]).collect::<BTreeSet<_>>().len(), networks.len());
        assert_eq!(networks.iter().map(|(_, v6)| v6.segments()[0]).collect::<BTreeSet<_>>().len(), networks.len());

        let others = [ROUTER, (CONTROLLER_V4, CONTROLLER_V6), (INTERNET_HOST_V4, INTERNET_HOST_V6)];
        let outer: Vec<Pair> = (0..SITES_MAX).map(gateway).chain(others).collect();
        assert_eq!(outer.iter().map(|(v4, _)| v4).collect::<BTreeSet<_>>().len(), outer.len());
        assert_eq!(outer.iter().map(|(_, v6)| v6).collect::<BTreeSet<_>>().len(), outer.len());
    }

    #[test]
    fn numbers_beyond_the_last_are_refused() {
        let beyond: [fn() -> Pair; 4] = [
            || gateway(SITES_MAX),
            || (pool(SITES_MAX).0.0, pool(SITES_MAX).1.0),
            || site_host(SITES_MAX, 0),
            || site_host(0, SERVICES),
        ];
        for (number, call) in beyond.into_iter().enumerate() {
            assert!(catch_unwind(call).is_err(), "call {number}");
        }
    }
}
