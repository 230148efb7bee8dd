//! What is established, with everything that can be chosen.

use std::sync::Arc;

use rcgen::KeyPair;
use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::record::Suite;
use ringfort_dtls::{
    AddressValidation, ClientAuth, Ended, Event, Group, RECORD_OVERHEAD_BYTES_13, Received, ServerConfig, Settings,
    Trusted,
};
use ringfort_identity::{Role, Side};

use crate::world::{CLIENT, Ca, Ends, Pair, SERVER, ended, name};

// Covers: K4 allow, A10 allow
#[test]
fn both_sides_learn_the_other_and_carry_packets() {
    let ends = Ends::usual();
    let mut pair = Pair::new(&ends);
    assert!(pair.client.seal(b"early", &mut [0; 100]).is_none(), "nothing may be sealed before the handshake");
    pair.run();
    assert_eq!((pair.server_peer(), pair.client_peer()), (Some("alice"), Some("g1")));
    for length in [1, 64, 1_400] {
        let packet: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let mut record = vec![0; length + RECORD_OVERHEAD_BYTES_13];
        let sealed = pair.client.seal(&packet, &mut record).unwrap();
        assert_eq!(sealed, record.len());
        let (mut again, now) = (record.clone(), pair.now);
        let mut places = Vec::new();
        pair.server_end().handle_datagram(&mut record, now, |received| {
            if let Received::Packet { at, bytes } = received {
                places.push((at, bytes.to_vec()));
            }
        });
        assert_eq!(places.len(), 1);
        let (at, opened) = places.remove(0);
        assert_eq!(opened, packet);
        assert_eq!(&record[at..at + length], &packet, "the plaintext lies in the datagram's own bytes");
        pair.delivered.clear();
        pair.reaches_server(&mut again);
        assert!(pair.delivered.is_empty(), "a replayed record was delivered");
    }
    let mut short = [0; 100 + RECORD_OVERHEAD_BYTES_13 - 1];
    assert!(pair.client.seal(&[0; 100], &mut short).is_none());
}

#[test]
fn every_suite_and_group_shakes_hands() {
    let ca = Ca::root();
    let (gateway, device) = (ca.gateway(), ca.device());
    for suite in Suite::ALL {
        for group in Group::ALL {
            let settings = Settings { suites: vec![suite], groups: vec![group], ..Settings::default() };
            let ends = Ends::with(&ca, &gateway, &device, Settings::default(), settings);
            Pair::established(&ends).assert_alive();
        }
    }
}

/// X16: what both can is taken, the hybrid first.
// Covers: X16 allow
#[test]
fn the_hybrid_group_is_preferred() {
    let ends = Ends::usual();
    let mut pair = Pair::new(&ends);
    let mut hello = pair.client_sends().remove(0);
    pair.reaches_server(&mut hello);
    let retry = pair.server.transmits().remove(0);
    let group = Group::X25519MlKem768.number().to_be_bytes();
    // key_share of a HelloRetryRequest: number, length 2, group.
    assert!(retry.windows(6).any(|bytes| bytes == [0, 51, 0, 2, group[0], group[1]]));
}

#[test]
fn without_cookies_a_hello_is_answered_at_once() {
    let ca = Ca::root();
    let settings = Settings { address_validation: AddressValidation::None, ..Settings::default() };
    Pair::established(&Ends::with(&ca, &ca.gateway(), &ca.device(), settings, Settings::default())).assert_alive();
}

/// Every kind of key on both sides, under a P-256 CA.
// Covers: A8 allow
#[test]
fn certificates_of_every_kind_of_key_pass() {
    let ca = Ca::root();
    let rsa = include_bytes!("rsa2048.pk8").to_vec();
    let rsa_key = KeyPair::from_pkcs8_der_and_sign_algo(&rsa.as_slice().into(), &rcgen::PKCS_RSA_SHA256).unwrap();
    let of = |uri: &str, usage: rcgen::ExtendedKeyUsagePurpose| {
        let mut all: Vec<_> = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
            .into_iter()
            .map(|algorithm| ca.leaf_with(algorithm, uri, usage.clone()))
            .collect();
        all.push(ca.issue(&rsa_key, rsa.clone(), |params| name(params, uri, usage)));
        all
    };
    let gateways = of("ringfort://example/gateway/g1", SERVER);
    let devices = of("ringfort://example/device/alice", CLIENT);
    for (number, (gateway, device)) in gateways.iter().zip(devices.iter().rev()).enumerate() {
        let mut pair = Pair::new(&Ends::of(&ca, gateway, device));
        pair.run();
        assert_eq!((pair.server_peer(), pair.client_peer()), (Some("alice"), Some("g1")), "pair {number}");
        pair.assert_alive();
    }
}

#[test]
fn an_intermediate_that_is_known_joins_leaf_and_root() {
    let ca = Ca::root();
    let (left, right) = (ca.intermediate(), ca.intermediate());
    Pair::established(&Ends::of(&ca, &left.gateway(), &right.device())).assert_alive();
}

#[test]
fn several_records_of_one_datagram_are_all_delivered() {
    let mut pair = Pair::established(&Ends::usual());
    let mut datagram = Vec::new();
    for byte in 1..=3u8 {
        let mut record = [0; 200];
        let length = pair.client.seal(&[byte; 50], &mut record).unwrap();
        datagram.extend_from_slice(&record[..length]);
    }
    pair.reaches_server(&mut datagram);
    assert_eq!(pair.delivered, [vec![1; 50], vec![2; 50], vec![3; 50]]);
}

#[test]
fn a_close_reaches_the_peer_and_ends_both() {
    let mut pair = Pair::established(&Ends::usual());
    pair.client.close();
    pair.run();
    assert_eq!(pair.client_events, [Event::Ended(Ended::Closed)]);
    assert_eq!(pair.server_events, [Event::Ended(Ended::ClosedByPeer)]);
    assert!(pair.server_end().seal(b"late", &mut [0; 100]).is_none());
    assert_eq!(pair.server_end().poll_timeout(), None);
}

/// C15: both ends derive the same values, of which nothing follows for another association.
// Covers: C15 allow, C15 refuse
#[test]
fn exported_values_are_of_one_association() {
    let ends = Ends::usual();
    let mut one = Pair::established(&ends);
    let mut other = Pair::established(&Ends { seed: 2, ..ends });
    let of = |pair: &mut Pair, label: &'static str, context: &[u8]| {
        let client = pair.client.exporter().unwrap().export(label, context);
        assert_eq!(pair.server_end().exporter().unwrap().export(label, context), client);
        client
    };
    let value = of(&mut one, "EXPORTER-ringfort-c2g-v1", b"session");
    assert_ne!(value, of(&mut one, "EXPORTER-ringfort-g2c-v1", b"session"));
    assert_ne!(value, of(&mut one, "EXPORTER-ringfort-c2g-v1", b"another"));
    assert_ne!(value, of(&mut other, "EXPORTER-ringfort-c2g-v1", b"session"));
}

#[test]
fn connection_ids_are_as_agreed() {
    let ends = Ends::usual();
    let id = |length: usize| ConnectionId::new(&[0xc1; 20][..length]);
    for (server_cid, client_cid, up, down) in [
        (id(8), Some(ConnectionId::NONE), 8, 0),
        (id(8), id(3), 8, 3),
        (id(20), id(20), 20, 20),
        (id(8), None, 0, 0),
        (None, id(3), 0, 0),
    ] {
        let ends = Ends { server_cid, client_cid, ..ends.clone() };
        let mut pair = Pair::established(&ends);
        assert_eq!(pair.server_end().local_cid().len(), up);
        assert_eq!((pair.client.overhead(), pair.server_end().overhead()), (22 + up, 22 + down));
        pair.assert_alive();
    }
}

#[test]
fn the_protocol_inside_is_agreed_or_refused() {
    let ca = Ca::root();
    let with = |ours: Option<&str>, theirs: Option<&str>| {
        let settings = |name: Option<&str>| Settings {
            protocol: name.map(|name| name.as_bytes().to_vec()),
            ..Settings::default()
        };
        let mut pair = Pair::new(&Ends::with(&ca, &ca.gateway(), &ca.device(), settings(ours), settings(theirs)));
        pair.run();
        pair.server_peer().is_some() && pair.client_peer().is_some()
    };
    assert!(with(Some("a"), Some("a")) && with(None, Some("a")) && with(Some("a"), None) && with(None, None));
    assert!(!with(Some("a"), Some("b")));
}

#[test]
fn a_client_that_may_be_nameless_is() {
    let ca = Ca::root();
    let policy = Arc::new(Trusted::new(ca.trust(&[]), Side::Client, Role::Device));
    let usual = Ends::of(&ca, &ca.gateway(), &ca.device());
    for (clients, named) in [(ClientAuth::None, false), (ClientAuth::Requested(policy), true)] {
        let server = Arc::new(ServerConfig::with_settings(&ca.gateway(), clients, Settings::default()).unwrap());
        let mut pair = Pair::new(&Ends { server, ..usual.clone() });
        pair.run();
        match pair.server_events.as_slice() {
            [Event::Established(peer)] => assert_eq!(peer.is_some(), named),
            other => panic!("{other:?} {:?}", ended(&pair.client_events)),
        }
        pair.assert_alive();
    }
}

#[test]
fn small_datagrams_are_enough() {
    let ca = Ca::root();
    for datagram_bytes_max in [200, 300, 576] {
        let settings = Settings { handshake_datagram_bytes_max: datagram_bytes_max, ..Settings::default() };
        let mut pair = Pair::new(&Ends::with(&ca, &ca.gateway(), &ca.device(), settings.clone(), settings));
        pair.run();
        assert_eq!((pair.server_peer(), pair.client_peer()), (Some("alice"), Some("g1")), "{datagram_bytes_max} bytes");
    }
}
