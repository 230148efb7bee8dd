//! From the grants of all sites to the routes of each: a pure calculation.
//!
//! What is routed into a tunnel is what the entitlement token of its site grants and nothing else (C6). It deliberately does not
//! ask the system what routes there are, and solves no overlap between sites: the first site keeps what two claim (X15 will
//! translate).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use ringfort_policy::Network;
use ringfort_rules::InnerAddresses;
use ringfort_token::Grant;

/// Routes of one site at most; more would only fill the kernel's table.
const ROUTES_MAX: usize = 4_096;

/// What one site grants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SiteGrants<'a> {
    /// Its id.
    pub(crate) site: &'a str,
    /// Our addresses there.
    pub(crate) inner: InnerAddresses,
    /// What we may do there.
    pub(crate) grants: &'a [Grant],
}

/// The routes of all sites, and what was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// By site.
    pub(crate) routes: BTreeMap<String, BTreeSet<IpNet>>,
    /// What is not routed although it is granted.
    pub(crate) left_out: Vec<LeftOut>,
}

/// A network that is granted and not routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// Site that grants it.
    pub(crate) site: String,
    /// As the grant writes it.
    pub(crate) network: String,
    /// Why.
    pub(crate) why: Why,
}

/// Why a network is not routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The address of a Gateway or Controller lies in it: the tunnel would run through itself.
    OwnWay(IpAddr),
    /// An earlier site has it, or a part of it.
    Taken {
        /// That site.
        site: String,
        /// Its network.
        network: IpNet,
    },
    /// We have no inner address of its family.
    NoAddress,
    /// More than [`ROUTES_MAX`].
    TooMany,
    /// It is no network.
    Malformed,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, network, why } = self;
        write!(f, "{network} of site {site} is not routed: ")?;
        match why {
            Why::OwnWay(address) => {
                write!(f, "{address}, by which the tunnel itself runs, lies in it; grant smaller networks")
            }
            Why::Taken { site, network } => write!(f, "{network} of site {site} comes first"),
            Why::NoAddress => f.write_str("the site gives no inner address of its family"),
            Why::TooMany => write!(f, "expected at most {ROUTES_MAX} routes; grant larger networks"),
            Why::Malformed => f.write_str("expected an address or a network"),
        }
    }
}

/// The routes of `sites`, earlier ones first. `outer` are the addresses that must stay reachable beside the tunnels.
pub(crate) fn plan(sites: &[SiteGrants<'_>], outer: &BTreeSet<IpAddr>) -> Plan {
    let mut plan = Plan::default();
    let mut taken: Vec<(IpNet, String)> = Vec::new();
    for SiteGrants { site, inner, grants } in sites {
        let mut routes = BTreeSet::new();
        let written: BTreeSet<&str> = grants.iter().flat_map(|grant| &grant.to).map(String::as_str).collect();
        for text in written {
            let judged = judge(text, *inner, outer, &taken).and_then(|net| {
                if routes.len() < ROUTES_MAX || routes.contains(&net) { Ok(net) } else { Err(Why::TooMany) }
            });
            match judged {
                Ok(net) => drop(routes.insert(net)),
                Err(why) => plan.left_out.push(LeftOut { site: (*site).into(), network: text.into(), why }),
            }
        }
        taken.extend(routes.iter().map(|net| (*net, (*site).to_owned())));
        plan.routes.insert((*site).into(), routes);
    }
    plan
}

fn judge(text: &str, inner: InnerAddresses, outer: &BTreeSet<IpAddr>, taken: &[(IpNet, String)]) -> Result<IpNet, Why> {
    let net = text.parse::<Network>().map_err(|_| Why::Malformed)?.net();
    let has_address = match net {
        IpNet::V4(_) => inner.ipv4.is_some(),
        IpNet::V6(_) => inner.ipv6.is_some(),
    };
    if !has_address {
        return Err(Why::NoAddress);
    }
    if let Some(address) = outer.iter().find(|address| net.contains(*address)) {
        return Err(Why::OwnWay(*address));
    }
    let overlaps = |other: &IpNet| other.contains(&net) || net.contains(other);
    match taken.iter().find(|(other, _)| overlaps(other)) {
        Some((network, site)) => Err(Why::Taken { site: site.clone(), network: *network }),
        None => Ok(net),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: InnerAddresses =
        InnerAddresses { ipv4: Some(std::net::Ipv4Addr::new(10, 97, 0, 2)), ipv6: Some(std::net::Ipv6Addr::LOCALHOST) };

    fn grants(to: &[&str]) -> Vec<Grant> {
        // Several grants name the same network: there is one route.
        let grant = |to: &str| Grant { name: "g".into(), to: vec![to.into()], services: vec!["any".into()] };
        to.iter().chain(to).map(|to| grant(to)).collect()
    }

    fn routes_of(sites: &[(&str, InnerAddresses, &[&str])], outer: &[&str]) -> (Vec<String>, Vec<String>) {
        let granted: Vec<_> = sites.iter().map(|(_, _, to)| grants(to)).collect();
        let sites: Vec<_> = sites
            .iter()
            .zip(&granted)
            .map(|((site, inner, _), grants)| SiteGrants { site, inner: *inner, grants })
            .collect();
        let plan = plan(&sites, &outer.iter().map(|address| address.parse().unwrap()).collect());
        let routes = plan.routes.iter().flat_map(|(site, nets)| nets.iter().map(move |net| format!("{site} {net}")));
        (routes.collect(), plan.left_out.iter().map(ToString::to_string).collect())
    }

    // Covers: C6 allow
    #[test]
    fn each_site_has_the_routes_of_its_grants() {
        let (routes, left_out) = routes_of(
            &[
                ("a", BOTH, &["10.98.0.0/24", "10.98.7.7", "fd98::/64"]),
                ("b", BOTH, &["10.99.0.0/24"]),
                ("c", BOTH, &[]),
            ],
            &["203.0.113.2"],
        );
        assert_eq!(routes, ["a 10.98.0.0/24", "a 10.98.7.7/32", "a fd98::/64", "b 10.99.0.0/24"]);
        assert_eq!(left_out, [""; 0]);
    }

    // Covers: C6 refuse
    #[test]
    fn what_cannot_be_routed_is_left_out_and_named() {
        let v4_only = InnerAddresses { ipv6: None, ..BOTH };
        let (routes, left_out) = routes_of(
            &[
                ("a", v4_only, &["10.98.0.0/24", "203.0.113.0/24", "0.0.0.0/0", "fd98::/64", "wiki.example"]),
                ("b", BOTH, &["10.98.0.10", "10.98.0.0/16", "10.99.0.0/24"]),
            ],
            &["203.0.113.2", "198.51.100.1"],
        );
        assert_eq!(routes, ["a 10.98.0.0/24", "b 10.99.0.0/24"]);
        let told = |what: &str, why: &str| {
            let found = left_out.iter().any(|text| text.starts_with(what) && text.contains(why));
            assert!(found, "{what} {why}: {left_out:?}");
        };
        told("203.0.113.0/24 of site a", "203.0.113.2");
        told("0.0.0.0/0 of site a", "198.51.100.1");
        told("fd98::/64 of site a", "family");
        told("wiki.example of site a", "expected an address");
        told("10.98.0.10 of site b", "10.98.0.0/24 of site a");
        told("10.98.0.0/16 of site b", "10.98.0.0/24 of site a");
        assert_eq!(left_out.len(), 6);
    }

    #[test]
    fn routes_are_bounded() {
        let many: Vec<String> = (0..=ROUTES_MAX).map(|n| format!("10.{}.{}.0/24", n >> 8, n & 255)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (routes, left_out) = routes_of(&[("a", BOTH, &many)], &[]);
        assert_eq!((routes.len(), left_out.len()), (ROUTES_MAX, 1));
    }
}
