//! What is established, with everything that can be chosen.

use std::sync::Arc;

use rcgen::KeyPair;
use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::record::{ContentType, Suite};
use ringfort_dtls::{
    AddressValidation, Alert, ClientAuth, Ended, Event, Group, RECORD_OVERHEAD_BYTES_12, ServerConfig, Settings,
    Trusted,
};
use ringfort_identity::{Role, Side};

use super::client::{CERTIFICATE_REQUEST, HELLO, Offer, Said, fragment};
use super::meeting::Meeting;
use crate::world::{CLIENT, Ca, Ends, SERVER, name};

fn usual() -> (Ca, Ends) {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    (ca, ends)
}

fn with(ca: &Ca, settings: Settings) -> Ends {
    Ends::with(ca, &ca.gateway(), &ca.device(), settings, Settings::default())
}

// Covers: K4 allow, A10 allow
#[test]
fn every_suite_and_group_shakes_hands() {
    let (ca, _) = usual();
    for suite in Suite::ALL {
        for group in [Group::X25519, Group::P256, Group::P384] {
            let ends = with(&ca, Settings { suites: vec![suite], groups: vec![group], ..Settings::default() });
            let mut meeting = Meeting::established(&ends, Offer::default(), Some(&ca.device()));
            assert_eq!(meeting.pair.server_peer(), Some("alice"));
            assert_eq!(meeting.client.chosen.as_ref().unwrap().group, group.number());
            assert_eq!(meeting.client.change_cipher_specs, 1);
            meeting.assert_alive();
        }
    }
}

/// RFC 8422 §4.
#[test]
fn a_client_that_names_no_groups_gets_p256() {
    let (ca, ends) = usual();
    let mut offer = Offer::default();
    offer.extensions.remove(&10);
    let meeting = Meeting::established(&ends, offer, Some(&ca.device()));
    assert_eq!(meeting.client.chosen.unwrap().group, Group::P256.number());
}

/// Every kind of key on both sides. The client's RSA key signs as PKCS #1 has it, too.
// Covers: A8 allow
#[test]
fn certificates_of_every_kind_of_key_pass() {
    let ca = Ca::root();
    let rsa = include_bytes!("../rsa2048.pk8").to_vec();
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
    for (gateway, suite) in gateways.iter().zip([0xc02b, 0xc02b, 0xc02b, 0xc02f]) {
        for (device, schemes) in
            devices.iter().zip([&[0x0403][..], &[0x0503], &[0x0807], &[0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601]])
        {
            for scheme in schemes {
                let ends = Ends::of(&ca, gateway, device);
                let mut meeting = Meeting::greeted(&ends, Offer::default(), Some(device));
                meeting.client.scheme = Some(*scheme);
                let flight = meeting.client.second_flight();
                meeting.say(&flight);
                meeting.assert_established();
                assert_eq!(meeting.pair.server_peer(), Some("alice"));
                assert_eq!(meeting.client.chosen.as_ref().unwrap().suite, suite);
            }
        }
    }
    // A client that knows no RSA but PKCS #1 gets that.
    let mut offer = Offer::default();
    offer.schemes(&[0x0401]);
    let meeting = Meeting::established(&Ends::of(&ca, &gateways[3], &devices[0]), offer, Some(&devices[0]));
    assert_eq!(meeting.client.chosen.unwrap().scheme, 0x0401);
}

#[test]
fn an_intermediate_that_is_known_joins_leaf_and_root() {
    let ca = Ca::root();
    let (gateway, device) = (ca.intermediate().gateway(), ca.intermediate().device());
    Meeting::established(&Ends::of(&ca, &gateway, &device), Offer::default(), Some(&device));
}

/// RFC 8446 §4.1.3; nothing to resume is given out; extensions are answers only.
#[test]
fn the_server_says_that_it_speaks_1_3_and_resumes_nothing() {
    let (ca, ends) = usual();
    let offer = Offer { session_id: vec![9; 32], ..Offer::default() };
    let meeting = Meeting::established(&ends, offer, Some(&ca.device()));
    let chosen = meeting.client.chosen.unwrap();
    assert_eq!(&chosen.random[24..], b"DOWNGRD\x01");
    assert!(chosen.session_id.is_empty());
    assert_eq!(chosen.extensions.into_iter().collect::<Vec<_>>(), [(11, vec![1, 0]), (23, vec![]), (0xff01, vec![0])]);
    // Without the extensions nothing is said of them, except that the suite stands for one.
    for (suite, extensions) in [(0xc02f, 1), (0x00ff, 2)] {
        let mut offer = Offer::default();
        offer.extensions.retain(|number, _| ![11, 0xff01].contains(number));
        offer.suites.push(suite);
        let meeting = Meeting::established(&ends, offer, Some(&ca.device()));
        assert_eq!(meeting.client.chosen.unwrap().extensions.len(), extensions, "{suite:#06x}");
    }
}

/// C15: both ends derive the same values, of which nothing follows for another association.
// Covers: C15 allow, C15 refuse
#[test]
fn exported_values_are_of_one_association() {
    let (ca, ends) = usual();
    let mut one = Meeting::established(&ends, Offer::default(), Some(&ca.device()));
    let mut other = Meeting::established(&ends, Offer::default(), Some(&ca.device()));
    let mut values = Vec::new();
    for meeting in [&mut one, &mut other] {
        for context in [&b"session"[..], b"another", b""] {
            let value = meeting.pair.server_end().exporter().unwrap().export("EXPORTER-ringfort-c2g-v1", context);
            assert_eq!(meeting.client.export("EXPORTER-ringfort-c2g-v1", context), value);
            assert!(!values.contains(&value));
            values.push(value);
        }
    }
}

/// RFC 9146, both directions, and records without the id that was agreed on are dropped.
#[test]
fn connection_ids_are_as_agreed() {
    let (ca, ends) = usual();
    let id = |length: usize| ConnectionId::new(&[0xc1; 20][..length]);
    for (server_cid, client_cid, up, down) in [
        (id(8), Some(&[][..]), 8, 0),
        (id(8), Some(&[7; 3]), 8, 3),
        (id(8), Some(&[7; 8]), 8, 8),
        (id(20), Some(&[7; 20]), 20, 20),
        (id(8), Some(&[7; 21]), 0, 0),
        (id(8), None, 0, 0),
        (None, Some(&[7; 3]), 0, 0),
    ] {
        let mut offer = Offer::default();
        client_cid.into_iter().for_each(|id: &[u8]| offer.cid(id));
        let ends = Ends { server_cid, ..ends.clone() };
        let mut meeting = Meeting::established(&ends, offer, Some(&ca.device()));
        assert_eq!(meeting.pair.server_end().local_cid().len(), up);
        let overhead = |id: usize| 13 + 8 + 16 + if id == 0 { 0 } else { id + 1 };
        assert_eq!(meeting.pair.server_end().overhead(), overhead(down));
        assert_eq!(meeting.client.records.overhead(), overhead(up));
        if down == 8 {
            assert_eq!(meeting.pair.server_end().overhead(), RECORD_OVERHEAD_BYTES_12);
        }
        if up > 0 {
            let record = meeting.client.seal(ContentType::ApplicationData, b"x");
            assert_eq!((record[0], &record[11..11 + up]), (25, &[0xc1; 20][..up]));
            meeting.client.records.set_peer_cid(ConnectionId::NONE);
            let without = meeting.client.seal(ContentType::ApplicationData, b"x");
            meeting.client.records.set_peer_cid(ConnectionId::new(&[0xc2; 20][..up]).unwrap());
            let wrong = meeting.client.seal(ContentType::ApplicationData, b"x");
            meeting.pair.delivered.clear();
            meeting.up(&without);
            meeting.up(&wrong);
            assert!(meeting.pair.delivered.is_empty());
        }
    }
}

#[test]
fn the_protocol_inside_is_agreed() {
    let (ca, _) = usual();
    let ends = with(&ca, Settings { protocol: Some(b"a".to_vec()), ..Settings::default() });
    let mut offer = Offer::default();
    offer.extensions.insert(16, vec![0, 4, 1, b'b', 1, b'a']);
    let meeting = Meeting::established(&ends, offer, Some(&ca.device()));
    assert_eq!(meeting.client.chosen.unwrap().extensions.get(&16), Some(&vec![0, 2, 1, b'a']));
}

#[test]
fn a_client_that_may_be_nameless_is() {
    let (ca, ends) = usual();
    let device = ca.device();
    let policy = Arc::new(Trusted::new(ca.trust(&[]), Side::Client, Role::Device));
    for (clients, shown, is_asked, is_named) in [
        (ClientAuth::None, Some(&device), false, false),
        (ClientAuth::Requested(policy.clone()), Some(&device), true, true),
        (ClientAuth::Requested(policy), None, true, false),
    ] {
        let server = Arc::new(ServerConfig::with_settings(&ca.gateway(), clients, Settings::default()).unwrap());
        let meeting = Meeting::established(&Ends { server, ..ends.clone() }, Offer::default(), shown);
        assert_eq!(meeting.client.said(CERTIFICATE_REQUEST).is_some(), is_asked);
        let [Event::Established(peer)] = meeting.pair.server_events.as_slice() else { panic!() };
        assert_eq!(peer.is_some(), is_named);
    }
}

#[test]
fn without_cookies_a_hello_is_answered_at_once() {
    let (ca, _) = usual();
    let ends = with(&ca, Settings { address_validation: AddressValidation::None, ..Settings::default() });
    let mut meeting = Meeting::new(&ends, Offer::default(), Some(&ca.device()));
    let hello = meeting.client.hello();
    meeting.up(&hello);
    assert!(meeting.client.has_flight() && meeting.client.cookie.is_empty());
    let flight = meeting.client.second_flight();
    meeting.say(&flight);
    meeting.assert_established();
}

/// A hello that comes in pieces, as far as there may be pieces, and a flight of single bytes in the wrong order.
#[test]
fn messages_come_in_any_pieces_and_order() {
    let (ca, ends) = usual();
    let mut meeting = Meeting::new(&ends, Offer::default(), Some(&ca.device()));
    let hello = meeting.client.hello();
    meeting.up(&hello);
    let hello = meeting.client.hello_message();
    let body = hello[12..].to_vec();
    for range in [0..80, 60..81, 81..body.len()] {
        let record = meeting.client.clear(ContentType::Handshake, &fragment(HELLO, 1, &body, range));
        meeting.up(&record);
    }
    assert!(meeting.client.has_flight());
    let mut flight = meeting.client.second_flight();
    let finished = flight.pop().unwrap();
    for said in flight.iter().rev() {
        let Said::InTheClear(message) = said else { continue };
        let (sequence, body) = (u16::from_be_bytes([message[4], message[5]]), &message[12..]);
        for at in (0..body.len()).rev() {
            let piece = fragment(message[0], sequence, body, at..(at + 3).min(body.len()));
            let record = meeting.client.clear(ContentType::Handshake, &piece);
            meeting.up(&record);
        }
    }
    meeting.say(&[finished]);
    meeting.assert_established();
}

/// The Finished is the first to come, and waits for the others. What others send in its place, or too much, does not.
#[test]
fn a_flight_comes_in_the_wrong_order() {
    let (ca, ends) = usual();
    let mut offer = Offer::default();
    offer.cid(&[]);
    for longer_by in [0, 40, 120] {
        let mut meeting = Meeting::greeted(&ends, offer.clone(), Some(&ca.device()));
        let flight = meeting.client.second_flight();
        let mut records = meeting.client.write(&flight);
        records.reverse();
        let mut forged = [&records[0][..], &vec![0; longer_by]].concat();
        forged[21] ^= 1;
        let length = (forged.len() - 21) as u16;
        forged[19..21].copy_from_slice(&length.to_be_bytes());
        // A long one does not even take the place of what came before.
        let is_long = longer_by > 100;
        let (first, second) = if is_long { (&records[0], &forged) } else { (&forged, &records[0]) };
        meeting.up(first);
        meeting.up(second);
        records[1..].iter().for_each(|record| meeting.up(record));
        assert!(meeting.client.is_connected, "{longer_by}");
        meeting.assert_established();
    }
}

#[test]
fn a_flight_fits_one_datagram_and_small_ones() {
    let (ca, ends) = usual();
    let mut meeting = Meeting::greeted(&ends, Offer::default(), Some(&ca.device()));
    let flight = meeting.client.second_flight();
    let datagram = meeting.client.write(&flight).concat();
    meeting.up(&datagram);
    meeting.assert_established();
    // All messages in one record.
    let mut meeting = Meeting::greeted(&ends, Offer::default(), Some(&ca.device()));
    let flight = meeting.client.second_flight();
    let clear: Vec<u8> = flight
        .iter()
        .filter_map(|said| match said {
            Said::InTheClear(message) => Some(message.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    let record = meeting.client.clear(ContentType::Handshake, &clear);
    meeting.up(&record);
    meeting.say(&flight[flight.len() - 2..]);
    meeting.assert_established();
    let small = with(&ca, Settings { handshake_datagram_bytes_max: 200, ..Settings::default() });
    Meeting::established(&small, Offer::default(), Some(&ca.device()));
}

/// RFC 6347 §4.2.4: whoever repeats its flight gets ours again, the last one too.
#[test]
fn flights_are_repeated() {
    let (ca, ends) = usual();
    let second = std::time::Duration::from_secs(1);
    let mut meeting = Meeting::new(&ends, Offer::default(), Some(&ca.device()));
    let hello = meeting.client.hello();
    meeting.up(&hello);
    let hello = meeting.client.hello();
    // Lost, and sent again by the clock.
    meeting.pair.reaches_server(&mut hello.clone());
    assert!(!meeting.pair.server.transmits().is_empty());
    meeting.pair.now = meeting.pair.now + second;
    meeting.pair.tick();
    assert!(!meeting.pair.server.transmits().is_empty());
    // Lost, and sent again for the client's sake.
    meeting.pair.now = meeting.pair.now + second / 5;
    meeting.up(&hello);
    assert!(meeting.client.has_flight());
    let flight = meeting.client.second_flight();
    for record in meeting.client.write(&flight) {
        meeting.pair.reaches_server(&mut record.clone());
    }
    assert!(!meeting.pair.server.transmits().is_empty());
    meeting.pair.take_events();
    // The last flight is not the clock's.
    meeting.pair.now = meeting.pair.now + second * 10;
    meeting.pair.tick();
    assert!(meeting.pair.server.transmits().is_empty() && meeting.pair.server_end().poll_timeout().is_none());
    meeting.say(&flight);
    meeting.assert_established();
    assert_eq!(meeting.client.change_cipher_specs, 1);
}

#[test]
fn closes_are_answered() {
    let (ca, ends) = usual();
    let mut meeting = Meeting::established(&ends, Offer::default(), Some(&ca.device()));
    let close = meeting.client.seal(ContentType::Alert, &[1, 0]);
    meeting.up(&close);
    assert_eq!(meeting.ended(), Some(&Ended::ClosedByPeer));
    assert_eq!(meeting.client.sealed_alerts, [[1, 0]]);
    assert!(meeting.pair.server_end().seal(b"late", &mut [0; 100]).is_none());
    let mut meeting = Meeting::established(&ends, Offer::default(), Some(&ca.device()));
    meeting.pair.server_end().close();
    meeting.down();
    assert_eq!((meeting.ended(), &meeting.client.sealed_alerts[..]), (Some(&Ended::Closed), &[[1, 0]][..]));
}

/// Whoever offers 1.3 gets it.
#[test]
fn the_newer_version_is_chosen() {
    let (ca, ends) = usual();
    crate::world::Pair::established(&ends);
    let mut meeting = Meeting::new(&ends, Offer::default(), Some(&ca.device()));
    meeting.client.offer.extensions.insert(43, vec![4, 0xfe, 0xfc, 0xfe, 0xfd]);
    meeting.client.offer.suites.push(0x1301);
    meeting.client.offer.extensions.insert(51, vec![0, 0]);
    let hello = meeting.client.hello();
    meeting.pair.reaches_server(&mut hello.clone());
    let reply = meeting.pair.server.transmits().remove(0);
    // A HelloRetryRequest, which is a ServerHello of 1.3.
    assert_eq!(reply[13], 2);
    assert!(reply.windows(6).any(|bytes| bytes == [0, 43, 0, 2, 0xfe, 0xfc]));
    // Only 1.2 in that extension is as good as none.
    let mut offer = Offer::default();
    offer.extensions.insert(43, vec![2, 0xfe, 0xfd]);
    offer.version = 0xfeff;
    Meeting::established(&ends, offer, Some(&ca.device()));
}

/// RFC 5246 §7.2: warnings are no end, fatal alerts are; records of other kinds than these break the protocol.
#[test]
fn sealed_alerts_are_believed_for_what_they_are() {
    let (ca, ends) = usual();
    let mut meeting = Meeting::established(&ends, Offer::default(), Some(&ca.device()));
    for warning in [90, 100, 112] {
        let record = meeting.client.seal(ContentType::Alert, &[1, warning]);
        meeting.up(&record);
    }
    meeting.assert_established();
    let record = meeting.client.seal(ContentType::Alert, &[2, 80]);
    meeting.up(&record);
    assert_eq!(meeting.ended(), Some(&Ended::Alerted(Alert::INTERNAL_ERROR)));
    for (content_type, content) in [(ContentType::Ack, &[0, 0][..]), (ContentType::ChangeCipherSpec, &[1])] {
        let mut meeting = Meeting::established(&ends, Offer::default(), Some(&ca.device()));
        let record = meeting.client.seal(content_type, content);
        meeting.up(&record);
        assert_eq!(meeting.client.sealed_alerts, [[2, Alert::UNEXPECTED_MESSAGE.0]]);
        assert!(matches!(meeting.ended(), Some(Ended::Failed(_))));
    }
}

/// Nothing of a handshake as it should be is counted as dropped.
#[test]
fn nothing_of_a_flight_is_discarded() {
    let (ca, ends) = usual();
    let mut meeting = Meeting::greeted(&ends, Offer::default(), Some(&ca.device()));
    let flight = meeting.client.second_flight();
    let (mut datagram, now) = (meeting.client.write(&flight).concat(), meeting.pair.now);
    meeting.pair.server_end().handle_datagram(&mut datagram, now, |received| panic!("{received:?}"));
    meeting.down();
    meeting.assert_established();
}
