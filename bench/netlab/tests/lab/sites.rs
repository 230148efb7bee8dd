//! Several sites and a controller.

use std::{
    net::{IpAddr, TcpListener},
    thread,
};

use ringfort_link::Links;
use ringfort_netlab::{Lab, LabError, Namespace, Spec, address, http};

use crate::{LIMIT, SILENCE, expected_page, page_from, page_within, two_sites};

pub(crate) fn namespaces_are_named_and_counted() {
    let lab = Lab::build(&Spec::new(["alice"]).with_sites(3).with_controller()).unwrap();
    let names: Vec<&str> = lab.namespaces().map(Namespace::name).collect();
    let expected = ["alice", "internet", "gateway", "site", "gateway-1", "site-1", "gateway-2", "site-2", "controller"];
    assert_eq!(names, expected);
    assert_eq!(lab.gateway_at(0).unwrap().name(), lab.gateway().name());
    assert_eq!(lab.site_at(0).unwrap().name(), lab.site().name());
    assert_eq!(lab.gateway_at(2).unwrap().v4(), address::gateway(2).0);
    assert_eq!(lab.site_at(2).unwrap().v6(), address::site_host(2, 0).1);
    assert_eq!(lab.controller().unwrap().v4(), address::CONTROLLER_V4);
    assert!(matches!(lab.site_at(3), Err(LabError::UnknownSite { number: 3, sites: 3 })));

    let plain = Lab::build(&Spec::new(["alice"])).unwrap();
    assert_eq!(plain.namespaces().count(), 4);
    assert!(matches!(plain.controller(), Err(LabError::NoController)));
    assert!(matches!(plain.gateway_at(1), Err(LabError::UnknownSite { number: 1, sites: 1 })));
}

/// Clients, gateways, controller and the host of the internet: each reaches each of the others.
pub(crate) fn whoever_is_outside_reaches_each_other() {
    let lab = Lab::build(&two_sites()).unwrap();
    let outside = [
        lab.client("alice").unwrap(),
        lab.gateway(),
        lab.gateway_at(1).unwrap(),
        lab.controller().unwrap(),
        lab.internet(),
    ];
    for server in outside {
        for client in outside.into_iter().filter(|client| client.name() != server.name()) {
            for (address, own) in server.addresses().into_iter().zip(client.addresses()) {
                let page = page_from(&lab, server, client, address);
                let page = page.unwrap_or_else(|error| panic!("{} to {address}: {error}", client.name()));
                // The internet is a router, and takes the address that it has on the way.
                if client.name() != "internet" {
                    assert_eq!(page, expected_page(own), "{}", client.name());
                }
            }
        }
    }
}

pub(crate) fn a_site_is_reached_by_its_own_gateway_only() {
    let lab = Lab::build(&two_sites()).unwrap();
    for number in 0..2 {
        let (site, gateway) = (lab.site_at(number).unwrap(), lab.gateway_at(number).unwrap());
        let own = both(address::gateway_at_site(number));
        for service in 0..address::SERVICES {
            for (address, own) in both(address::site_host(number, service)).into_iter().zip(own) {
                assert_eq!(page_from(&lab, site, gateway, address).unwrap(), expected_page(own));
            }
        }
        // One service must do: a router says "unreachable" to the same host five times at once, then once a second.
        let others = ["alice", "controller", "internet", lab.gateway_at(1 - number).unwrap().name()];
        let others = lab.namespaces().filter(|namespace| others.contains(&namespace.name()));
        let attempts: Vec<_> = others.flat_map(|other| site.addresses().map(|at| (other, at))).collect();
        all_at_once(&attempts, |other, address| {
            let answer = page_from(&lab, site, other, address);
            assert!(matches!(answer, Err(http::HttpError::Unreachable(_))), "{}: {answer:?}", other.name());
        });
    }
}

/// The other way nothing comes back, since the internet knows no way to a site.
pub(crate) fn a_site_reaches_nothing_beyond_its_gateway() {
    let lab = Lab::build(&two_sites()).unwrap();
    for number in 0..2 {
        let (site, other) = (lab.site_at(number).unwrap(), 1 - number);
        let gateway = lab.gateway_at(number).unwrap();
        for (address, own) in both(address::gateway_at_site(number)).into_iter().zip(site.addresses()) {
            let page = page_from(&lab, gateway, site, address).unwrap();
            assert!(address.is_ipv6() || page == expected_page(own), "{page:?}");
        }
        let beyond = [lab.site_at(other).unwrap(), lab.gateway_at(other).unwrap(), lab.controller().unwrap()];
        let beyond: Vec<_> = beyond.into_iter().flat_map(|server| server.addresses().map(|at| (server, at))).collect();
        all_at_once(&beyond, |server, address| {
            let answer = page_within(&lab, server, site, address, SILENCE);
            assert!(matches!(answer, Err(http::HttpError::TimedOut)), "{} to {address}: {answer:?}", site.name());
        });
    }
}

/// Each gateway has given out an address of its own pool. The sites lose their default routes, which lead to the same
/// next hops and would hide that the routes to the pools are missing.
pub(crate) fn a_site_reaches_its_pool_through_its_own_gateway() {
    let lab = Lab::build(&two_sites()).unwrap();
    let inner = |site: usize| {
        let (v4, v6) = address::pool(site);
        [IpAddr::V4((v4.0.to_bits() + 0x0304).into()), IpAddr::V6((v6.0.to_bits() + 5).into())]
    };
    let mut servers = Vec::new();
    for number in 0..2 {
        let gateway = lab.gateway_at(number).unwrap();
        lab.run_in(gateway, || {
            let mut links = Links::open().unwrap();
            let loopback = links.index_of("lo").unwrap();
            for at in inner(number) {
                links.add_address(loopback, at, if at.is_ipv4() { 32 } else { 128 }).unwrap();
                servers.push(http::serve(TcpListener::bind((at, 80)).unwrap(), gateway.name()).unwrap());
            }
        })
        .unwrap();
    }
    for number in 0..2 {
        let name = lab.gateway_at(number).unwrap().name();
        lab.run_in(lab.site_at(number).unwrap(), || {
            let mut links = Links::open().unwrap();
            let lan = links.index_of("lan0").unwrap();
            let gateway = both(address::gateway_at_site(number));
            for (any, via) in ["0.0.0.0", "::"].into_iter().zip(gateway) {
                links.delete_route((any.parse().unwrap(), 0), Some(via), lan, None).unwrap();
            }
            for ((own, others), via) in inner(number).into_iter().zip(inner(1 - number)).zip(gateway) {
                assert_eq!(links.route_to(own).unwrap().gateway, Some(via));
                let page = http::get((own, 80).into(), LIMIT).unwrap();
                assert!(page.starts_with(&format!("This is {name}. ")), "{page:?}");
                let answer = http::get((others, 80).into(), LIMIT);
                assert!(matches!(answer, Err(http::HttpError::Unreachable(_))), "{name}, {others}: {answer:?}");
            }
        })
        .unwrap();
    }
}

fn both(pair: address::Pair) -> [IpAddr; 2] {
    [pair.0.into(), pair.1.into()]
}

/// Refusals and silences take their time; waited for one after the other they would take seconds.
fn all_at_once(attempts: &[(&Namespace, IpAddr)], attempt: impl Fn(&Namespace, IpAddr) + Sync) {
    assert!(!attempts.is_empty());
    thread::scope(|scope| {
        for (namespace, address) in attempts {
            scope.spawn(|| attempt(namespace, *address));
        }
    });
}
