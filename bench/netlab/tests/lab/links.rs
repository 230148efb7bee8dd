//! `ringfort-link` in namespaces, where it may change what it likes.

use std::{
    net::{IpAddr, UdpSocket},
    os::fd::AsFd,
};

use ringfort_link::{Links, read_sysctl, sysctl};

use crate::{eventually, lab};

pub(crate) fn routes_are_added_replaced_and_deleted() {
    let lab = lab();
    lab.run_in(lab.gateway(), || {
        let mut links = Links::open().unwrap();
        let (wan, lan) = (links.index_of("wan0").unwrap(), links.index_of("lan0").unwrap());
        let cases: [(&str, u8, &str, &str); 2] =
            [("10.77.0.0", 16, "10.77.1.2", "203.0.113.1"), ("fd77::", 64, "fd77::9", "2001:db8:2::1")];
        for (network, bits, inside, via) in cases {
            let prefix = (network.parse().unwrap(), bits);
            let (inside, via): (IpAddr, IpAddr) = (inside.parse().unwrap(), via.parse().unwrap());
            links.add_route(prefix, None, lan, Some(50)).unwrap();
            let answer = links.route_to(inside).unwrap();
            assert_eq!((answer.output, answer.gateway), (lan, None));
            assert!(links.add_route(prefix, None, lan, Some(50)).unwrap_err().is_already_there());
            links.replace_route(prefix, Some(via), wan, Some(50)).unwrap();
            let answer = links.route_to(inside).unwrap();
            assert_eq!((answer.output, answer.gateway), (wan, Some(via)));
            links.delete_route(prefix, Some(via), wan, Some(50)).unwrap();
            let error = links.delete_route(prefix, Some(via), wan, Some(50)).unwrap_err();
            assert!(error.is_not_found(), "{error}");
            links.add_route(prefix, None, lan, None).unwrap();
            links.delete_route(prefix, None, lan, None).unwrap();
        }
        let unreachable = links.add_route(("10.78.0.0".parse().unwrap(), 16), Some([192, 0, 2, 1].into()), wan, None);
        let text = unreachable.unwrap_err().to_string();
        assert!(text.contains("through 192.0.2.1 by interface wan0 ("), "{text}");
        assert!(text.contains("gateway"), "the kernel's sentence is missing: {text}");
    })
    .unwrap();
}

pub(crate) fn links_are_moved_and_set() {
    let lab = lab();
    let mut here = lab.run_in(lab.internet(), || Links::open().unwrap()).unwrap();
    let mut there = lab.run_in(lab.site(), || Links::open().unwrap()).unwrap();
    let near = here.add_veth("near", "far", None).unwrap();
    assert!(here.add_veth("near", "other", None).unwrap_err().is_already_there());
    let far = here.index_of("far").unwrap();
    here.move_to_namespace(far, lab.site().as_fd()).unwrap();
    assert!(here.index_of("far").unwrap_err().is_not_found());
    let far = there.index_of("far").unwrap();
    assert_eq!(there.name_of(far).unwrap(), "far");
    assert!(!here.is_operational(near).unwrap());
    here.set_up(near).unwrap();
    there.set_up(far).unwrap();
    eventually("the pair carries packets", || here.is_operational(near).unwrap() && there.is_operational(far).unwrap());

    here.set_mtu(near, 1300).unwrap();
    here.set_tx_queue_length(near, 77).unwrap();
    let error = here.set_mtu(near, 7).unwrap_err();
    assert!(error.to_string().contains("set the MTU of interface near ("), "{error}");
    // The laboratory switches duplicate address detection off; here it is on, and must be left out for the address.
    lab.run_in(lab.internet(), || sysctl("net/ipv6/conf/near/accept_dad", "1").unwrap()).unwrap();
    let address: IpAddr = "fd55::1".parse().unwrap();
    here.add_address(near, address, 64).unwrap();
    assert!(here.add_address(near, address, 64).unwrap_err().is_already_there());
    let listed = here.addresses().unwrap();
    assert!(listed.iter().any(|entry| (entry.index, entry.address, entry.prefix_bits) == (near, address, 64)));
    // Usable at once: without duplicate address detection there is nothing to wait for.
    lab.run_in(lab.internet(), || UdpSocket::bind((address, 0)).unwrap()).unwrap();
    lab.run_in(lab.internet(), || {
        assert_eq!(read_sysctl("net/ipv4/ip_forward").unwrap(), "1");
        sysctl("net/ipv4/ip_forward", "0").unwrap();
        assert_eq!(read_sysctl("net/ipv4/ip_forward").unwrap(), "0");
    })
    .unwrap();
}
