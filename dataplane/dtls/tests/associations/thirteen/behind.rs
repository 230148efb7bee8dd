//! What a peer may say behind the handshake, and what it may not (RFC 8446 §4.6, §6.1, RFC 9147 §7–§9).

use std::time::Duration;

use ringfort_dtls::record::ContentType;
use ringfort_dtls::{Alert, Ended, Event};

use super::client::{
    CERTIFICATE, CERTIFICATE_REQUEST, Client, FINISHED, HELLO, KEY_UPDATE, NEW_SESSION_TICKET, Offer, message,
};
use crate::world::{Ca, Ends};

const REQUEST_CONNECTION_ID: u8 = 9;
const NEW_CONNECTION_ID: u8 = 10;

#[test]
fn what_may_not_come_behind_the_handshake_is_told_so() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let device = ca.device();
    let mut with_id = Offer::default();
    with_id.set(54, &[0]);
    let cases: Vec<(&str, Alert, Offer, u8, Vec<u8>)> = vec![
        ("a ticket for a server", Alert::UNEXPECTED_MESSAGE, Offer::default(), NEW_SESSION_TICKET, vec![0; 13]),
        ("a hello", Alert::UNEXPECTED_MESSAGE, Offer::default(), HELLO, Offer::default().body([3; 32])),
        ("a certificate", Alert::UNEXPECTED_MESSAGE, Offer::default(), CERTIFICATE, vec![0, 0, 0, 0]),
        ("a request for one", Alert::UNEXPECTED_MESSAGE, Offer::default(), CERTIFICATE_REQUEST, vec![0, 0, 0]),
        ("a Finished", Alert::UNEXPECTED_MESSAGE, Offer::default(), FINISHED, vec![0; 32]),
        ("a KeyUpdate of 2", Alert::ILLEGAL_PARAMETER, Offer::default(), KEY_UPDATE, vec![2]),
        ("an empty KeyUpdate", Alert::DECODE_ERROR, Offer::default(), KEY_UPDATE, vec![]),
        ("a long KeyUpdate", Alert::DECODE_ERROR, Offer::default(), KEY_UPDATE, vec![0, 0]),
        ("ids where none are", Alert::UNEXPECTED_MESSAGE, Offer::default(), NEW_CONNECTION_ID, vec![0, 2, 1, 7, 1]),
        ("a wish for ids where none are", Alert::UNEXPECTED_MESSAGE, Offer::default(), REQUEST_CONNECTION_ID, vec![1]),
        ("ids for who sends none", Alert::UNEXPECTED_MESSAGE, with_id.clone(), NEW_CONNECTION_ID, vec![0, 2, 1, 7, 1]),
        ("a wish too long", Alert::DECODE_ERROR, with_id.clone(), REQUEST_CONNECTION_ID, vec![1, 1]),
    ];
    let mut wrong = Vec::new();
    for (case, alert, offer, kind, body) in cases {
        let mut client = Client::established(&ends, offer, &device);
        let message = client.say(kind, &body);
        client.send_messages(&[message]);
        if client.alerts != [[2, alert.0]] || !matches!(client.events.as_slice(), [Event::Ended(_)]) {
            wrong.push(format!("{case}: {:?}, not {alert}; {:?}", client.alerts, client.events));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn records_that_may_not_come_behind_the_handshake_are_told_so() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let device = ca.device();
    let mut wrong = Vec::new();
    for (case, alert, epoch, content_type, content) in [
        ("an empty record of messages", Alert::UNEXPECTED_MESSAGE, 3, ContentType::Handshake, &[][..]),
        ("an empty alert", Alert::UNEXPECTED_MESSAGE, 3, ContentType::Alert, &[]),
        ("a ChangeCipherSpec", Alert::UNEXPECTED_MESSAGE, 3, ContentType::ChangeCipherSpec, &[1]),
        ("a broken ACK", Alert::DECODE_ERROR, 3, ContentType::Ack, &[0]),
        ("packets under the handshake's keys", Alert::UNEXPECTED_MESSAGE, 2, ContentType::ApplicationData, &[1]),
    ] {
        let mut client = Client::established(&ends, Offer::default(), &device);
        let record = client.seal_in(epoch, content_type, content);
        client.send(&record);
        if client.alerts != [[2, alert.0]] || !matches!(client.events.as_slice(), [Event::Ended(_)]) {
            wrong.push(format!("{case}: {:?}, not {alert}; {:?}", client.alerts, client.events));
        }
        assert!(client.delivered.is_empty());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// RFC 8446 §6.1: each side says goodbye before it goes, and nothing is taken behind the other's.
#[test]
fn a_goodbye_is_answered() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let mut client = Client::established(&ends, Offer::default(), &ca.device());
    let (goodbye, late) =
        (client.seal(ContentType::Alert, &[1, 0]), client.seal(ContentType::ApplicationData, b"late"));
    client.send(&goodbye);
    client.send(&late);
    assert_eq!(client.alerts, [[1, 0]]);
    assert_eq!(client.events, [Event::Ended(Ended::ClosedByPeer)]);
    assert!(client.delivered.is_empty());
}

/// A record with each message is acknowledged, and a repetition of it again; empty packets and unknown ACKs mean nothing.
#[test]
fn what_is_repeated_is_acknowledged_again() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let mut client = Client::established(&ends, Offer::default(), &ca.device());
    assert!(!client.acks.is_empty(), "the flight");
    client.acks.clear();
    let update = client.say(KEY_UPDATE, &[0]);
    for number in 0..3 {
        client.send_messages(std::slice::from_ref(&update));
        assert_eq!(client.acks, [vec![(3, number)]]);
        client.acks.clear();
    }
    for content in [&[0, 0][..], &[&[0, 16][..], &[0xff; 16]].concat()] {
        let record = client.seal(ContentType::Ack, content);
        client.send(&record);
    }
    let record = client.seal(ContentType::ApplicationData, b"");
    client.send(&record);
    client.pass(Duration::from_millis(200));
    assert!(client.events.is_empty() && client.alerts.is_empty());
    // The update has happened, once.
    client.records.update_tx().unwrap();
    client.assert_alive();
}

/// Updates one behind the other, more than there are epochs in a header (RFC 9147 §4.2.2, §8).
#[test]
fn many_updates_follow_each_other() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let mut client = Client::established(&ends, Offer::default(), &ca.device());
    for round in 0..100 {
        let update = client.say(KEY_UPDATE, &[0]);
        client.send_messages(&[update]);
        let old = client.records.tx_epoch();
        client.records.update_tx().unwrap();
        if round % 3 == 0 {
            client.assert_alive();
        }
        client.records.drop_tx(old);
    }
    client.assert_alive();
    assert!(client.events.is_empty() && client.alerts.is_empty());
}

/// A message too far ahead is not kept, so it is not acknowledged: its sender would never send it again (RFC 9147 §5.5, §7).
#[test]
fn what_is_not_kept_is_not_acknowledged() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let mut client = Client::established(&ends, Offer::default(), &ca.device());
    client.acks.clear();
    let next = client.next_out;
    for (ahead, acknowledged) in [(8, false), (100, false), (7, true)] {
        let ahead = message(KEY_UPDATE, next + ahead, &[0]);
        client.send_messages(&[ahead]);
        client.pass(Duration::from_millis(300));
        assert_eq!(!client.acks.is_empty(), acknowledged);
    }
}

/// Keys of the handshake are for a last flight whose ACK got lost, and go after 30 s (RFC 9147 §4.2.1).
#[test]
fn the_handshakes_keys_go_after_half_a_minute() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let mut client = Client::established(&ends, Offer::default(), &ca.device());
    let finished = message(FINISHED, client.next_out - 1, &[0; 32]);
    for (after, acknowledged) in [(29, true), (2, false)] {
        client.acks.clear();
        client.pass(Duration::from_secs(after));
        let record = client.seal_in(2, ContentType::Handshake, &finished);
        client.send(&record);
        assert_eq!(!client.acks.is_empty(), acknowledged);
    }
    client.assert_alive();
}

/// RFC 9147 §9: of ids there is no end of asking and giving, of what is kept of them there is.
#[test]
fn ids_are_taken_and_given_within_bounds() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let mut offer = Offer::default();
    offer.set(54, &[2, 0xc2, 0]);
    let mut client = Client::established(&ends, offer, &ca.device());
    let wish = client.say(REQUEST_CONNECTION_ID, &[200]);
    client.send_messages(&[wish]);
    assert_eq!(client.events, [Event::ConnectionIdsWanted(4)]);
    let ids: Vec<u8> = (1..=9).flat_map(|number| [2, 0xc2, number]).collect();
    for usage in [1, 1, 0] {
        let body = [&(ids.len() as u16).to_be_bytes()[..], &ids, &[usage]].concat();
        let given = client.say(NEW_CONNECTION_ID, &body);
        let record = client.seal(ContentType::Handshake, &given);
        client.server.handle(&mut record.clone(), client.now, |_| ());
        client.server.transmits();
    }
    let now = client.now;
    let server = client.server.association.as_mut().unwrap();
    let mut used = Vec::new();
    loop {
        let mut record = [0; 100];
        server.seal(b"x", &mut record).unwrap();
        used.push(record[2]);
        if !server.change_connection_id(now) {
            break;
        }
    }
    // One that is to be used at once, and four in reserve.
    assert_eq!(used, [1, 1, 2, 3, 4]);
    for (case, body) in [("empty", vec![0, 1, 0, 1]), ("of 21 bytes", [&[0, 22, 21][..], &[7; 21], &[1]].concat())] {
        let mut offer = Offer::default();
        offer.set(54, &[2, 0xc2, 0]);
        let mut client = Client::established(&ends, offer, &ca.device());
        let given = client.say(NEW_CONNECTION_ID, &body);
        client.send_messages(&[given]);
        assert_eq!(client.alerts, [[2, Alert::ILLEGAL_PARAMETER.0]], "{case}");
    }
}
