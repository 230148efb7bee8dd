//! What no policy reaches by accident.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The networks that a rule reaches only if it names an address in them as /32 or /128 (PROTOCOLS "One policy"):
/// loopback, link-local, multicast and metadata addresses, the Gateway's `own` addresses, the client `pools`; and
/// what else stands for "this host" or "everybody" instead of a place at the site.
#[must_use]
pub fn never_reachable(own: &[IpAddr], pools: &[IpNet]) -> Vec<IpNet> {
    let ipv4 = |a, b, c, d, prefix| Ipv4Net::new(Ipv4Addr::new(a, b, c, d), prefix).map(IpNet::V4);
    let ipv6 = |address: [u16; 8], prefix| Ipv6Net::new(Ipv6Addr::from(address), prefix).map(IpNet::V6);
    let fixed = [
        // "This host" (RFC 1122 §3.2.1.3): Linux takes 0.0.0.0 for itself.
        ipv4(0, 0, 0, 0, 8),
        ipv6([0; 8], 128),
        // Loopback.
        ipv4(127, 0, 0, 0, 8),
        ipv6([0, 0, 0, 0, 0, 0, 0, 1], 128),
        // IPv4 addresses mapped into IPv6, which would reach the others by another name (RFC 4291 §2.5.5.2).
        ipv6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96),
        // Link-local; the metadata address 169.254.169.254 of most clouds lies in it.
        ipv4(169, 254, 0, 0, 16),
        ipv6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
        // Metadata addresses outside link-local: EC2 and Google Cloud over IPv6, Azure, Alibaba Cloud, Oracle Cloud.
        ipv6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128),
        ipv6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
        ipv4(168, 63, 129, 16, 32),
        ipv4(100, 100, 100, 200, 32),
        ipv4(192, 0, 0, 192, 32),
        // Multicast and broadcast.
        ipv4(224, 0, 0, 0, 4),
        ipv4(255, 255, 255, 255, 32),
        ipv6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    ];
    let own = own.iter().map(|address| IpNet::from(*address));
    fixed.into_iter().flatten().chain(own).chain(pools.iter().copied()).collect()
}
