//! What somebody can do who sees the datagrams and sends others, without any key.

use std::time::Duration;

use ringfort_dtls::record::ContentType;
use ringfort_dtls::{Ended, Event};

use super::client::{Client, Offer, fragment, message, vec8};
use super::meeting::Meeting;
use crate::dimpl_peer::Other;
use crate::world::{Ca, Ends, Pair};

/// Records that anybody can write: alerts, changes of keys, messages of every kind and number, whole and in part, and records
/// that claim to be sealed.
fn forgeries() -> Vec<Vec<u8>> {
    let record = |content_type: u8, epoch: u8, content: &[u8]| {
        let mut record = vec![content_type, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 9, 9];
        record.extend_from_slice(&(content.len() as u16).to_be_bytes());
        record.extend_from_slice(content);
        record
    };
    let mut all = Vec::new();
    for (level, description) in [(2, 40), (2, 0), (1, 0), (1, 100), (2, 70), (9, 9)] {
        all.push(record(21, 0, &[level, description]));
    }
    for content in [&[1][..], &[2], &[1, 1], &[]] {
        all.push(record(20, 0, content));
    }
    let point = vec8(&[9; 32]);
    for kind in [0u8, 1, 2, 3, 11, 12, 14, 15, 16, 20] {
        for sequence in 0..7 {
            // A whole hello that is none is told so by whoever screens strangers.
            if kind > 1 || sequence > 1 {
                all.push(record(22, 0, &message(kind, sequence, &[0])));
                all.push(record(22, 0, &message(kind, sequence, &point)));
                all.push(record(22, 0, &message(kind, sequence, &[0, 0, 0])));
            }
            all.push(record(22, 0, &fragment(kind, sequence, &[7; 90], 1..60)));
            all.push(record(22, 0, &fragment(kind, sequence, &[7; 30_000], 29_000..30_000)));
        }
    }
    all.push(record(22, 0, &[1; 12]));
    all.push(record(22, 0, &[]));
    for content_type in [20, 21, 22, 23] {
        all.push(record(content_type, 1, &[0x55; 40]));
        all.push(record(content_type, 2, &[0x55; 40]));
    }
    let mut with_id = record(25, 1, &[]);
    with_id.truncate(11);
    with_id.extend_from_slice(&[&[0xc1; 8][..], &[0, 40], &[0x55; 40]].concat());
    all.push(with_id);
    all
}

/// One of them before each datagram of a client that believes its side of what is in the clear.
#[test]
fn nothing_in_the_clear_ends_a_handshake() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let device = ca.device();
    for one in forgeries() {
        let mut pair = Pair::new(&ends);
        let mut other = Other::client_12(&device);
        for step in 0..80u64 {
            let time = Duration::from_millis(100 * step);
            for mut datagram in std::mem::take(&mut other.out) {
                pair.reaches_server(&mut one.clone());
                pair.reaches_server(&mut datagram);
                pair.reaches_server(&mut one.clone());
            }
            for datagram in pair.server.transmits() {
                // What its own side makes of an alert is its own business; it gets none.
                assert_ne!(datagram[0], 21, "told of {one:02x?}");
                other.handle(&datagram);
            }
            pair.take_events();
            if other.is_connected {
                break;
            }
            pair.now = crate::world::START + time;
            pair.tick();
            other.pass(time).unwrap();
        }
        assert!(other.is_connected, "{one:02x?} {:?}", pair.server_events);
        assert_eq!(pair.server_peer(), Some("alice"), "{one:02x?}");
    }
}

/// The same between all records of the written-out client, of which each comes in a datagram of its own. What may stand in the
/// place of the client's own costs a repetition, which has the last word.
#[test]
fn nothing_between_the_records_of_a_flight_ends_a_handshake() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let mut offer = Offer::default();
    offer.cid(&[]);
    let mut repeated = 0;
    for one in forgeries() {
        let mut meeting = Meeting::greeted(&ends, offer.clone(), Some(&ca.device()));
        let flight = meeting.client.second_flight();
        for record in meeting.client.write(&flight) {
            meeting.up(&one);
            meeting.up(&record);
        }
        if !meeting.client.is_connected {
            repeated += 1;
            meeting.say(&flight);
        }
        assert!(meeting.client.is_connected, "{one:02x?}");
        meeting.assert_established();
        assert!(meeting.client.alerts.is_empty(), "{one:02x?}: {:?}", meeting.client.alerts);
        let now = meeting.pair.now;
        meeting.pair.server_end().handle_datagram(&mut one.clone(), now, |_| {});
        meeting.down();
        meeting.assert_established();
        assert!(meeting.client.sealed_alerts.is_empty());
    }
    // An empty Certificate; a signature and a public value of the right form.
    assert!(repeated <= 5, "{repeated}");
}

/// Public values without end: some of them are tried, and then no more.
#[test]
fn forged_keys_cost_a_bounded_number_of_exchanges() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    for (forged, is_established) in [(20u8, true), (60, false)] {
        let mut meeting = Meeting::greeted(&ends, Offer::default(), Some(&ca.device()));
        let flight = meeting.client.second_flight();
        meeting.say(&flight[..1]);
        for number in 1..=forged {
            let record = meeting.client.clear(ContentType::Handshake, &message(16, 3, &vec8(&[number; 32])));
            meeting.up(&record);
        }
        meeting.say(&flight[1..]);
        assert_eq!(meeting.client.is_connected, is_established, "{forged}");
    }
}

/// Each byte of the client's flight is damaged once, in a handshake of its own; the repetition comes through whole.
#[test]
fn a_damaged_flight_costs_a_repetition() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let device = ca.device();
    let mut at = 0;
    loop {
        let mut meeting = Meeting::greeted(&ends, Offer::default(), Some(&device));
        let flight = meeting.client.second_flight();
        let mut datagram = meeting.client.write(&flight).concat();
        let Some(byte) = datagram.get_mut(at) else { break };
        *byte ^= 1 << (at % 8);
        meeting.up(&datagram);
        if !meeting.client.is_connected {
            meeting.say(&flight);
        }
        assert!(meeting.client.is_connected, "byte {at}: {:?}", meeting.pair.server_events);
        meeting.assert_established();
        assert!(meeting.client.alerts.is_empty(), "byte {at}: {:?}", meeting.client.alerts);
        at += 1;
    }
    assert!(at > 500, "{at} bytes");
}

/// A whole second flight by somebody who has seen the first, before and behind each record of the client's.
#[test]
fn a_forged_flight_gives_way_to_the_clients() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let mut meeting = Meeting::greeted(&ends, Offer::default(), Some(&ca.device()));
    let mut eve = Client::new(Offer::default(), Some(&Ca::root().device()));
    eve.flight.clone_from(&meeting.client.flight);
    eve.next_out = 2;
    let forged = eve.second_flight();
    let forged = eve.write(&forged[..3]);
    let flight = meeting.client.second_flight();
    let mut rounds = 0;
    while !meeting.client.is_connected {
        rounds += 1;
        assert!(rounds < 4);
        for record in meeting.client.write(&flight) {
            for one in &forged {
                // The third time she is too late.
                if rounds < 3 {
                    meeting.up(one);
                }
            }
            meeting.up(&record);
        }
    }
    meeting.assert_established();
    assert_eq!(meeting.pair.server_peer(), Some("alice"));
    assert!(meeting.client.alerts.is_empty());
}

/// A hello that differs in what the cookie is not for, behind the client's own, keeps nobody out who repeats his.
#[test]
fn a_forged_hello_gives_way_to_the_clients() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let mut meeting = Meeting::new(&ends, Offer::default(), Some(&ca.device()));
    let hello = meeting.client.hello();
    meeting.up(&hello);
    let hello = meeting.client.hello();
    type Change = fn(&mut Client);
    let changes: [(Change, bool); 6] = [
        (|eve| eve.offer.groups(&[24, 23]), true),
        (|eve| eve.offer.groups(&[0x0100]), false),
        (|eve| eve.offer.random = [1; 32], false),
        (|eve| eve.offer.suites = vec![0xc02b], false),
        (|eve| eve.offer.session_id = vec![1], false),
        (|eve| eve.cookie[2] ^= 1, false),
    ];
    for (number, (change, is_taken)) in changes.into_iter().enumerate() {
        let mut eve = Client::new(Offer::default(), None);
        (eve.cookie, eve.next_out) = (meeting.client.cookie.clone(), 1);
        change(&mut eve);
        let forged = eve.hello();
        meeting.pair.reaches_server(&mut hello.clone());
        meeting.pair.server.transmits();
        let now = meeting.pair.now;
        meeting.pair.server_end().handle_datagram(&mut forged.clone(), now, |_| {});
        // A bad one changes nothing and is not answered.
        assert_eq!(!meeting.pair.server.transmits().is_empty(), is_taken, "{number}");
    }
    meeting.pair.now = meeting.pair.now + Duration::from_millis(200);
    meeting.up(&hello);
    let flight = meeting.client.second_flight();
    meeting.say(&flight);
    meeting.assert_established();
}

#[test]
fn noise_ends_nothing_that_is_established() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let mut offer = Offer::default();
    offer.cid(&[]);
    let mut meeting = Meeting::established(&ends, offer, Some(&ca.device()));
    let genuine = meeting.client.seal(ContentType::ApplicationData, &[0x45; 80]);
    for at in 0..genuine.len() {
        for flip in [1, 0x80] {
            let mut changed = genuine.clone();
            changed[at] ^= flip;
            meeting.up(&changed);
        }
        meeting.up(&genuine[..at]);
    }
    assert!(meeting.pair.delivered == [b"up".to_vec()], "{:?}", meeting.pair.delivered);
    meeting.up(&genuine);
    meeting.up(&genuine);
    assert_eq!(meeting.pair.delivered.len(), 2, "once, and not again");
    meeting.assert_established();
}

/// One hello with a good cookie, and then nothing: what the server sends in all its tries is bounded.
#[test]
fn a_client_that_falls_silent_draws_little() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let mut meeting = Meeting::new(&ends, Offer::default(), None);
    let hello = meeting.client.hello();
    meeting.up(&hello);
    let hello = meeting.client.hello();
    meeting.pair.reaches_server(&mut hello.clone());
    let mut drawn = 0;
    for _ in 0..400 {
        drawn += meeting.pair.server.transmits().len();
        meeting.pair.now = meeting.pair.now + Duration::from_millis(50);
        meeting.pair.tick();
    }
    assert!((4..=8).contains(&drawn), "{drawn} datagrams");
    assert!(matches!(meeting.pair.server_events.as_slice(), [Event::Ended(Ended::TimedOut(..))]));
}
