//! A set of prefixes, asked per packet whether it holds an address.

use std::net::IpAddr;

use ipnet::IpNet;

/// Disjoint ranges of addresses, ascending, per family. A look-up halves them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    ipv4: Vec<(u128, u128)>,
    ipv6: Vec<(u128, u128)>,
}

impl Prefixes {
    /// Whether one of the prefixes contains `address`.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ranges, address) = match address {
            IpAddr::V4(address) => (&self.ipv4, u128::from(u32::from(address))),
            IpAddr::V6(address) => (&self.ipv6, u128::from(address)),
        };
        let behind = ranges.partition_point(|(first, _)| *first <= address);
        behind.checked_sub(1).and_then(|index| ranges.get(index)).is_some_and(|(_, last)| address <= *last)
    }
}

impl FromIterator<IpNet> for Prefixes {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Self {
        let mut set = Self::default();
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => set.ipv4.push((u32::from(net.network()).into(), u32::from(net.broadcast()).into())),
                IpNet::V6(net) => set.ipv6.push((net.network().into(), net.broadcast().into())),
            }
        }
        for ranges in [&mut set.ipv4, &mut set.ipv6] {
            ranges.sort_unstable();
            ranges.dedup_by(|next, kept| {
                // Prefixes overlap only by containing each other, and the larger one comes first or ends later.
                let overlaps = next.0 <= kept.1;
                if overlaps {
                    kept.1 = kept.1.max(next.1);
                }
                overlaps
            });
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_exactly_its_prefixes() {
        let nets = ["10.98.0.0/24", "10.98.0.128/25", "10.98.1.0/24", "192.0.2.7/32", "10.98.0.0/23", "fd98::/64"];
        let set: Prefixes = nets.iter().map(|net| net.parse::<IpNet>().unwrap()).collect();
        for inside in ["10.98.0.0", "10.98.0.200", "10.98.1.255", "192.0.2.7", "fd98::", "fd98::ffff:ffff:ffff:ffff"] {
            assert!(set.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["10.97.255.255", "10.98.2.0", "192.0.2.6", "192.0.2.8", "fd98:0:0:1::", "::a62:1", "fd97::1"] {
            assert!(!set.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(!Prefixes::default().contains("10.0.0.1".parse().unwrap()));
        let all: Prefixes = ["0.0.0.0/0", "::/0"].iter().map(|net| net.parse::<IpNet>().unwrap()).collect();
        assert!(all.contains("255.255.255.255".parse().unwrap()) && all.contains("::".parse().unwrap()));
    }
}
