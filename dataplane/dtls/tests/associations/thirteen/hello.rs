//! ClientHellos that cannot be, and such as must be put up with (RFC 9147 §5.3, RFC 8446 §4.1.2, §4.2, §9.2).

use ringfort_dtls::record::ContentType;
use ringfort_dtls::{AddressValidation, Alert, Association, Event, Screened, Settings, Unwelcome};

use super::client::{Client, Offer, fragment, vec16};
use crate::world::{Ca, Ends, START, UNIX, client_address};

type Change = Box<dyn Fn(&mut Offer)>;

fn usual() -> (Ca, Ends) {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    (ca, ends)
}

/// What a first hello is told in the clear; 0 for a cookie.
fn told(ends: &Ends, change: impl FnOnce(&mut Offer)) -> Vec<u8> {
    let mut offer = Offer::default();
    change(&mut offer);
    let mut client = Client::new(ends, offer, None);
    let hello = client.hello();
    client.send(&hello);
    if client.said.len() == 1 { vec![0] } else { client.clear_alerts }
}

#[test]
fn a_first_hello_that_cannot_be_is_told_so() {
    let (_, ends) = usual();
    let cases: Vec<(&str, Alert, Change)> = vec![
        ("a legacy cookie", Alert::ILLEGAL_PARAMETER, Box::new(|o| o.legacy_cookie = vec![1; 8])),
        ("compression", Alert::ILLEGAL_PARAMETER, Box::new(|o| o.compression = vec![0, 1])),
        ("no compression at all", Alert::ILLEGAL_PARAMETER, Box::new(|o| o.compression = vec![])),
        ("other suites", Alert::HANDSHAKE_FAILURE, Box::new(|o| o.suites = vec![0xc02b, 0x1304])),
        ("no suites", Alert::DECODE_ERROR, Box::new(|o| o.suites = vec![])),
        ("no groups", Alert::MISSING_EXTENSION, Box::new(|o| o.remove(10))),
        ("no schemes", Alert::MISSING_EXTENSION, Box::new(|o| o.remove(13))),
        ("no shares", Alert::MISSING_EXTENSION, Box::new(|o| o.remove(51))),
        ("other groups", Alert::HANDSHAKE_FAILURE, Box::new(|o| o.set(10, &[0, 2, 0, 25]))),
        ("a share not offered", Alert::ILLEGAL_PARAMETER, Box::new(|o| o.set(51, &vec16(&[0, 23, 0, 1, 4])))),
        ("an empty share", Alert::DECODE_ERROR, Box::new(|o| o.set(51, &vec16(&[0, 29, 0, 0])))),
        (
            "two shares of a group",
            Alert::ILLEGAL_PARAMETER,
            Box::new(|o| o.set(51, &vec16(&[0, 29, 0, 1, 1, 0, 29, 0, 1, 1]))),
        ),
        ("an extension twice", Alert::ILLEGAL_PARAMETER, Box::new(|o| o.extensions.push((10, vec![0, 2, 0, 29])))),
        (
            "an unknown one twice",
            Alert::ILLEGAL_PARAMETER,
            Box::new(|o| o.extensions.extend([(999, vec![]), (999, vec![])])),
        ),
        ("pre_shared_key not last", Alert::ILLEGAL_PARAMETER, Box::new(|o| o.extensions.insert(0, (41, vec![1])))),
        ("pre_shared_key without modes", Alert::MISSING_EXTENSION, Box::new(|o| o.extensions.push((41, vec![1])))),
        ("no version of ours", Alert::PROTOCOL_VERSION, Box::new(|o| o.set(43, &[2, 0xfe, 0xff]))),
        ("an empty list of versions", Alert::DECODE_ERROR, Box::new(|o| o.set(43, &[0]))),
        ("half a version", Alert::DECODE_ERROR, Box::new(|o| o.set(43, &[3, 0xfe, 0xfc, 0]))),
        ("an empty list of groups", Alert::DECODE_ERROR, Box::new(|o| o.set(10, &[0, 0]))),
        ("an empty list of schemes", Alert::DECODE_ERROR, Box::new(|o| o.set(13, &[0, 0]))),
        ("trailing bytes in an extension", Alert::DECODE_ERROR, Box::new(|o| o.set(13, &[0, 2, 4, 3, 9]))),
        ("trailing bytes", Alert::DECODE_ERROR, Box::new(|o| o.trailing = vec![0])),
        ("an empty cookie", Alert::DECODE_ERROR, Box::new(|o| o.set(44, &[0, 0]))),
        ("a long session id", Alert::DECODE_ERROR, Box::new(|o| o.session_id = vec![1; 33])),
        ("a long connection id", Alert::DECODE_ERROR, Box::new(|o| o.set(54, &[3, 1]))),
        ("no protocol", Alert::DECODE_ERROR, Box::new(|o| o.set(16, &[0, 0]))),
        ("an empty protocol", Alert::DECODE_ERROR, Box::new(|o| o.set(16, &[0, 1, 0]))),
        ("another protocol", Alert::NO_APPLICATION_PROTOCOL, Box::new(|o| o.set(16, &[0, 2, 1, b'x']))),
    ];
    let mut wrong = Vec::new();
    for (case, alert, change) in cases {
        let told = told(&ends, change);
        if told != [alert.0] {
            wrong.push(format!("{case}: {told:?}, not {alert}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What means nothing to us, or what a client may say although it comes to nothing (RFC 8446 §4.1.2, §4.2.1, §4.2.8, §4.2.11;
/// RFC 8701).
#[test]
fn a_hello_with_what_means_nothing_here_is_answered() {
    let (ca, ends) = usual();
    let device = ca.device();
    let cases: Vec<(&str, Change)> = vec![
        ("a session id", Box::new(|o| o.session_id = vec![7; 32])),
        ("another legacy version", Box::new(|o| o.version = 0xfeff)),
        ("1.3 as a legacy version", Box::new(|o| o.version = 0xfefc)),
        (
            "GREASE",
            Box::new(|o| {
                o.suites.insert(0, 0x0a0a);
                o.set(43, &[6, 0x1a, 0x1a, 0xfe, 0xfc, 0xfe, 0xfd]);
                o.set(10, &[0, 4, 0x2a, 0x2a, 0, 29]);
                o.set(13, &[0, 4, 0x3a, 0x3a, 4, 3]);
                o.extensions.insert(0, (0x4a4a, vec![]));
                o.extensions.push((0x5a5a, vec![1]));
            }),
        ),
        (
            "a share of GREASE",
            Box::new(|o| {
                o.set(10, &[0, 4, 0x2a, 0x2a, 0, 29]);
                o.set(51, &vec16(&[0x2a, 0x2a, 0, 1, 0]));
            }),
        ),
        (
            "a ticket and early data",
            Box::new(|o| {
                o.extensions.push((42, vec![]));
                o.extensions.push((45, vec![1, 1]));
                o.extensions.push((41, vec![0, 38, 0, 32]));
            }),
        ),
        ("padding", Box::new(|o| o.set(21, &[0; 300]))),
        ("a server name", Box::new(|o| o.set(0, &[0, 4, 0, 0, 1, b'x']))),
        ("a record size limit", Box::new(|o| o.set(28, &[0x40, 1]))),
        ("signatures of certificates", Box::new(|o| o.set(50, &[0, 2, 4, 3]))),
        ("extended_master_secret", Box::new(|o| o.set(23, &[]))),
    ];
    for (case, change) in cases {
        let mut offer = Offer::default();
        change(&mut offer);
        let mut client = Client::new(&ends, offer, Some(&device));
        let hello = client.hello();
        client.send(&hello);
        assert_eq!((client.said.len(), &client.clear_alerts[..]), (1, &[][..]), "{case}");
        client.retry(|o| {
            // A PSK stays the last.
            if let Some(at) = o.extensions.iter().position(|(number, _)| *number == 41) {
                let psk = o.extensions.remove(at);
                o.extensions.push(psk);
            }
        });
        let hello = client.hello();
        client.send(&hello);
        assert_eq!(client.said.last().map(|(kind, _)| *kind), Some(20), "{case} {:?}", client.clear_alerts);
        assert_eq!(client.said[0].1[34], 0, "{case}: no session id is echoed");
        let flight = client.flight();
        client.send_messages(&flight);
        assert!(matches!(client.events.as_slice(), [Event::Established(Some(_))]), "{case} {:?}", client.events);
    }
}

/// RFC 8446 §4.1.2, §4.1.4, §4.2.8: what the second hello may not change.
#[test]
fn a_second_hello_is_as_it_was_asked_for() {
    let (_, ends) = usual();
    let point = |byte: u8| vec16(&[&[0, 29, 0, 32], &[byte; 32][..]].concat());
    let cases: Vec<(&str, Alert, Change)> = vec![
        ("without its suite", Alert::ILLEGAL_PARAMETER, Box::new(|o| o.suites = vec![0x1302])),
        ("without a share", Alert::ILLEGAL_PARAMETER, Box::new(|o| o.set(51, &[0, 0]))),
        ("without shares", Alert::MISSING_EXTENSION, Box::new(|o| o.remove(51))),
        (
            "a share of another group",
            Alert::ILLEGAL_PARAMETER,
            Box::new(|o| {
                o.set(10, &[0, 4, 0, 29, 0, 23]);
                o.set(51, &vec16(&[&[0, 23, 0, 65, 4], &[1; 64][..]].concat()));
            }),
        ),
        (
            "another share beside the one asked for",
            Alert::ILLEGAL_PARAMETER,
            Box::new(|o| {
                let (_, shares) = o.extensions.iter().find(|(number, _)| *number == 51).unwrap().clone();
                o.set(10, &[0, 4, 0, 29, 0, 30]);
                o.set(51, &vec16(&[&shares[2..], &[0, 30, 0, 1, 1]].concat()));
            }),
        ),
        ("a share too short", Alert::ILLEGAL_PARAMETER, Box::new(|o| o.set(51, &vec16(&[0, 29, 0, 2, 1, 1])))),
        ("a share of zeros", Alert::ILLEGAL_PARAMETER, Box::new(move |o| o.set(51, &point(0)))),
        ("no version", Alert::PROTOCOL_VERSION, Box::new(|o| o.set(43, &[2, 0xfe, 0xfd]))),
        ("a legacy cookie", Alert::ILLEGAL_PARAMETER, Box::new(|o| o.legacy_cookie = vec![1])),
    ];
    let mut wrong = Vec::new();
    for (case, alert, change) in cases {
        let mut client = Client::new(&ends, Offer::default(), None);
        client.greet(change);
        if client.clear_alerts != [alert.0] {
            wrong.push(format!("{case}: {:?}, not {alert}", client.clear_alerts));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The hello that opened an association is the one that counts: another one in its place has to have its cookie.
#[test]
fn an_association_that_a_cookie_opened_takes_no_hello_without_it() {
    let (_, ends) = usual();
    let mut client = Client::new(&ends, Offer::default(), None);
    let hello = client.hello();
    client.send(&hello);
    client.retry(|_| ());
    let hello = client.hello();
    let mut front = ringfort_dtls::Front::new(&[ends.seed; 32]);
    let screened = front.screen(&ends.server, &hello, client_address(), START, &mut [0; 300]);
    let Screened::Opening(opening) = screened else { panic!("{screened:?}") };
    let mut server = Association::server(&ends.server, &opening, None, [7; 32], START, UNIX);
    let mut told = Vec::new();
    for other in [None, Some([&[0, 65][..], &[1; 65]].concat())] {
        client.offer.remove(44);
        other.into_iter().for_each(|cookie| client.offer.set(44, &cookie));
        client.next_out = 1;
        let mut hello = client.hello();
        server.handle_datagram(&mut hello, START, |_| ());
        told.extend(std::iter::from_fn(|| server.poll_transmit()));
    }
    // Told once, and nothing else.
    let [told] = &told[..] else { panic!("{told:02x?}") };
    assert_eq!((told[0], told[14]), (21, Alert::ILLEGAL_PARAMETER.0));
}

/// RFC 9147 §5.1: the first answer has the number of what it answers, and what follows has higher ones, or a client that looks
/// for repetitions would not hear it.
#[test]
fn the_numbers_of_records_go_on_behind_the_first_answer() {
    let (_, ends) = usual();
    let mut client = Client::new(&ends, Offer::default(), None);
    let number = |record: &[u8]| u64::from_be_bytes(record[3..11].try_into().unwrap());
    for first in [0, 7] {
        client.records.set_plaintext_sequence(first);
        client.next_out = 0;
        let mut hello = client.hello();
        client.server.handle(&mut hello, client.now, |_| ());
        assert_eq!(number(&client.server.transmits()[0]), first);
    }
    let mut client = Client::new(&ends, Offer::default(), None);
    client.records.set_plaintext_sequence(7);
    let hello = client.hello();
    client.send(&hello);
    client.retry(|_| ());
    let mut hello = client.hello();
    client.server.handle(&mut hello, client.now, |_| ());
    assert_eq!(number(&client.server.transmits()[0]), 8);
}

/// Until something sealed has come, another hello is believed instead of the one before, but not for ever: each costs a key
/// exchange and a signature.
#[test]
fn hellos_that_change_cost_a_bounded_number_of_answers() {
    let (_, ends) = usual();
    let mut client = Client::new(&ends, Offer::default(), None);
    let hello = client.hello();
    client.send(&hello);
    client.retry(|_| ());
    let mut answers = 0;
    for number in 0..60 {
        // The same random, or the worker would take it for another attempt; another list of schemes.
        client.offer.set(13, &[0, 4, 4, 3, 0x2a, number]);
        client.next_out = 1;
        let mut hello = client.hello();
        client.server.handle(&mut hello, client.now, |_| ());
        answers += usize::from(!client.server.transmits().is_empty());
    }
    assert_eq!(answers, 1 + 16);
}

/// RFC 9147 §5.1: an answer would be longer than what it answers, however much room there is for it.
#[test]
fn a_hello_shorter_than_its_answer_draws_none() {
    let (_, ends) = usual();
    let mut offer = Offer::default();
    offer.remove(21);
    let hello = Client::new(&ends, offer, None).hello();
    let mut front = ringfort_dtls::Front::new(&[ends.seed; 32]);
    let screened = front.screen(&ends.server, &hello, client_address(), START, &mut [0; 2_000]);
    assert!(matches!(screened, Screened::Dropped(Unwelcome::Amplification)), "{screened:?}");
}

/// Where something else has made sure of the address, a hello may come in pieces of any size (RFC 9147 §5.5), and some of them twice.
#[test]
fn a_hello_in_single_bytes_is_put_together_where_no_cookie_is_asked_for() {
    let ca = Ca::root();
    let settings = Settings { address_validation: AddressValidation::None, ..Settings::default() };
    let ends = Ends::with(&ca, &ca.gateway(), &ca.device(), settings, Settings::default());
    let mut client = Client::new(&ends, Offer::default(), None);
    let body = client.hello_body();
    for at in 0..body.len() {
        let piece = client.clear(ContentType::Handshake, &fragment(1, 0, &body, at..at + 1));
        for _ in 0..=usize::from(at % 7 == 0) {
            assert!(client.said.is_empty(), "{at}");
            client.send(&piece);
        }
    }
    assert!(!client.said.is_empty() && client.clear_alerts.is_empty(), "{:?}", client.clear_alerts);
    // With cookies nothing is kept of such a hello.
    let mut client = Client::new(&usual().1, Offer::default(), None);
    let body = client.hello_body();
    for at in 0..body.len() {
        let piece = client.clear(ContentType::Handshake, &fragment(1, 0, &body, at..at + 1));
        client.send(&piece);
    }
    assert!(client.said.is_empty() && client.clear_alerts.is_empty());
}
