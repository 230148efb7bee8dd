//! Who is refused, with which alert, and that nobody refused sees or sends data.

use std::time::Duration;

use rcgen::KeyPair;
use ringfort_dtls::record::ContentType;
use ringfort_dtls::{Alert, Ended, Group, ProtocolVersion, Reply, Screened, Settings};

use super::client::{CERTIFICATE_VERIFY, CLIENT_KEY_EXCHANGE, Client, Offer, Said, message, vec8};
use super::meeting::Meeting;
use crate::world::{CLIENT, Ca, Ends, SERVER, START, client_address, name};

fn usual() -> (Ca, Ends) {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    (ca, ends)
}

/// What the front does with a first hello.
fn screen(ends: &Ends, offer: &Offer) -> Screened {
    let hello = Client::new(offer.clone(), None).hello();
    let mut reply = vec![0; hello.len()];
    let mut front = ringfort_dtls::Front::new(&[7; 32]);
    front.screen(&ends.server, &hello, client_address(), START, &mut reply)
}

fn changed(change: impl FnOnce(&mut Offer)) -> Offer {
    let mut offer = Offer::default();
    change(&mut offer);
    offer
}

/// RFC 9325 §3 and §4, RFC 7627 §5.2, RFC 5746 §3.6, RFC 7507 §3, RFC 9155.
#[test]
fn a_hello_that_cannot_be_is_told_so_without_state() {
    let (ca, ends) = usual();
    let cases = [
        ("no extended master secret", Alert::HANDSHAKE_FAILURE, changed(|o| drop(o.extensions.remove(&23)))),
        ("CBC only", Alert::HANDSHAKE_FAILURE, changed(|o| o.suites = vec![0xc009, 0xc013, 0xc023, 0xc027])),
        ("RSA key transport only", Alert::HANDSHAKE_FAILURE, changed(|o| o.suites = vec![0x009c, 0x009d])),
        ("suites for RSA keys only", Alert::HANDSHAKE_FAILURE, changed(|o| o.suites = vec![0xc02f, 0xc030, 0xcca8])),
        ("suites of 1.3 only", Alert::HANDSHAKE_FAILURE, changed(|o| o.suites = vec![0x1301, 0x1302])),
        ("other groups", Alert::HANDSHAKE_FAILURE, changed(|o| o.groups(&[25, 30, 0x11ec]))),
        ("no signatures named", Alert::HANDSHAKE_FAILURE, changed(|o| drop(o.extensions.remove(&13)))),
        ("a renewal", Alert::HANDSHAKE_FAILURE, changed(|o| drop(o.extensions.insert(0xff01, vec![2, 1, 1])))),
        ("compressed points", Alert::ILLEGAL_PARAMETER, changed(|o| drop(o.extensions.insert(11, vec![1, 1])))),
        ("compression", Alert::ILLEGAL_PARAMETER, changed(|o| o.compression = vec![1])),
        ("a fallback", Alert::INAPPROPRIATE_FALLBACK, changed(|o| o.suites.push(0x5600))),
        ("DTLS 1.0", Alert::PROTOCOL_VERSION, changed(|o| o.version = 0xfeff)),
        ("TLS 1.2", Alert::PROTOCOL_VERSION, changed(|o| o.version = 0x0303)),
        (
            "another protocol inside",
            Alert::NO_APPLICATION_PROTOCOL,
            changed(|o| drop(o.extensions.insert(16, vec![0, 2, 1, b'x']))),
        ),
    ];
    for (case, alert, offer) in cases {
        let screened = screen(&ends, &offer);
        let Screened::Reply { bytes: 15, reply: Reply::Refusal(told) } = screened else {
            panic!("{case} {screened:?}")
        };
        assert_eq!(told, alert, "{case}");
        // The same where no cookie is asked for.
        let settings = Settings { address_validation: ringfort_dtls::AddressValidation::None, ..Settings::default() };
        let ends = Ends::with(&ca, &ca.gateway(), &ca.device(), settings, Settings::default());
        let mut meeting = Meeting::new(&ends, offer, None);
        meeting.greet();
        assert_eq!((&meeting.client.alerts[..], meeting.client.has_flight()), (&[alert.0][..], false), "{case}");
        meeting.pass(Duration::from_secs(5));
        assert!(matches!(meeting.ended(), Some(Ended::Failed(why)) if why.alert == alert), "{case}");
    }
    assert!(matches!(screen(&ends, &Offer::default()), Screened::Reply { reply: Reply::Cookie, .. }));
    // Nothing but SHA-1, which our key cannot be made to sign.
    let mut meeting = Meeting::new(&ends, changed(|o| o.schemes(&[0x0201, 0x0203])), None);
    meeting.greet();
    assert_eq!(meeting.client.alerts, [Alert::HANDSHAKE_FAILURE.0]);
}

#[test]
fn it_may_be_switched_off() {
    let ca = Ca::root();
    let settings = Settings { min_version: ProtocolVersion::Dtls13, ..Settings::default() };
    let ends = Ends::with(&ca, &ca.gateway(), &ca.device(), settings, Settings::default());
    let refusal = Reply::Refusal(Alert::PROTOCOL_VERSION);
    assert!(matches!(screen(&ends, &Offer::default()), Screened::Reply { reply, .. } if reply == refusal));
    // Nor does a cookie of a server that speaks it open anything.
    let mut meeting = Meeting::new(&usual().1, Offer::default(), None);
    let hello = meeting.client.hello();
    meeting.up(&hello);
    let second = meeting.client.hello();
    let screened =
        meeting.pair.server.front.screen(&ends.server, &second, client_address(), START, &mut vec![0; second.len()]);
    assert!(matches!(screened, Screened::Reply { reply, .. } if reply == refusal), "{screened:?}");
    crate::world::Pair::established(&ends).assert_alive();
}

#[test]
fn no_answer_is_longer_than_its_question() {
    let (_, ends) = usual();
    let hello = Client::new(Offer::default(), None).hello();
    let mut front = ringfort_dtls::Front::new(&[7; 32]);
    let (mut asked, mut refused) = (0, 0);
    for at in 0..hello.len() {
        for flip in [1, 0x80, 0xff] {
            let mut changed = hello.clone();
            changed[at] ^= flip;
            let mut reply = vec![0; 1_000];
            if let Screened::Reply { bytes, reply } =
                front.screen(&ends.server, &changed, client_address(), START, &mut reply)
            {
                assert!(bytes <= changed.len());
                *if reply == Reply::Cookie { &mut asked } else { &mut refused } += 1;
            }
        }
    }
    assert!(asked > 0 && refused > 0);
    for length in 0..hello.len() {
        let screened = front.screen(&ends.server, &hello[..length], client_address(), START, &mut [0; 1_000]);
        assert!(matches!(screened, Screened::Dropped(_)), "{length} bytes: {screened:?}");
    }
}

/// RFC 6347 §4.2.1.
#[test]
fn a_cookie_is_for_one_address_and_one_hello() {
    let (_, ends) = usual();
    let mut meeting = Meeting::new(&ends, Offer::default(), None);
    let mut hello = meeting.client.hello();
    let mut front = ringfort_dtls::Front::new(&[7; 32]);
    let mut reply = vec![0; hello.len()];
    let screened = front.screen(&ends.server, &hello, client_address(), START, &mut reply);
    let Screened::Reply { bytes, reply: Reply::Cookie } = screened else { panic!("{screened:?}") };
    assert!(bytes < hello.len());
    assert_eq!(reply[3..11], hello[3..11], "the answer has the number of the question");
    assert_eq!((reply[13], &reply[17..19]), (3, &[0, 0][..]));
    meeting.client.handle(&reply[..bytes]);
    let offer = meeting.client.offer.clone();
    let second = |offer: Offer, cookie: &dyn Fn(&mut Vec<u8>)| {
        let mut client = Client::new(offer, None);
        client.cookie.clone_from(&meeting.client.cookie);
        cookie(&mut client.cookie);
        client.next_out = 1;
        client.hello()
    };
    hello = second(offer.clone(), &|_| {});
    // In 1.3 that field has nothing to say.
    let newer = changed(|offer| {
        offer.suites.push(0x1301);
        offer.extensions.extend([(43, vec![2, 0xfe, 0xfc]), (51, vec![0, 0])]);
    });
    let newer = second(newer, &|_| {});
    let mut screen = |hello: &[u8], from: &str, later: u64| {
        let now = START + Duration::from_secs(later);
        let mut reply = [0; 1_000];
        let screened = front.screen(&ends.server, hello, from.parse().unwrap(), now, &mut reply);
        (screened, reply[13])
    };
    let from = &client_address().to_string();
    assert!(matches!(screen(&hello, from, 0).0, Screened::Opening(_)));
    let refusal = Reply::Refusal(Alert::ILLEGAL_PARAMETER);
    assert!(matches!(screen(&newer, from, 0).0, Screened::Reply { reply, .. } if reply == refusal));
    for (hello, from, later) in [
        (&hello, "192.0.2.8:50000", 0),
        (&hello, "192.0.2.7:50001", 0),
        (&hello, from.as_str(), 61),
        (&second(offer.clone(), &|cookie| cookie[3] ^= 1), from, 0),
        (&second(offer.clone(), &|cookie| cookie.truncate(16)), from, 0),
        (&second(Offer { random: [1; 32], ..offer.clone() }, &|_| {}), from, 0),
        (&second(Offer { suites: vec![0xc02b], ..offer.clone() }, &|_| {}), from, 0),
        (&second(Offer { session_id: vec![1], ..offer.clone() }, &|_| {}), from, 0),
        (&second(Offer { compression: vec![0, 1], ..offer }, &|_| {}), from, 0),
    ] {
        // It begins nothing, and is answered like one without a cookie.
        let (screened, kind) = screen(hello, from, later);
        assert!(matches!(screened, Screened::Reply { reply: Reply::OtherCookie, .. }), "{screened:?}");
        assert_eq!(kind, 3, "a HelloVerifyRequest");
    }
}

/// The association is as strict as the front: a second hello that has changed behind the cookie's back is another's.
#[test]
fn a_hello_that_is_not_the_one_of_the_cookie_begins_nothing() {
    let (ca, ends) = usual();
    let mut meeting = Meeting::new(&ends, Offer::default(), Some(&ca.device()));
    let hello = meeting.client.hello();
    meeting.up(&hello);
    let right = meeting.client.hello();
    // The first fragment has the cookie and all that it is for; the rest makes a hello of 1.3 of it.
    let mut offer = Offer::default();
    offer.extensions.insert(43, vec![2, 0xfe, 0xfc]);
    let mut other = Client::new(offer, None);
    (other.cookie, other.next_out) = (meeting.client.cookie.clone(), 1);
    let body = other.hello_message()[12..].to_vec();
    for range in [0..80, 80..body.len()] {
        let record = meeting.client.clear(ContentType::Handshake, &super::client::fragment(1, 1, &body, range));
        meeting.up(&record);
    }
    assert!(!meeting.client.has_flight());
    assert_eq!(meeting.client.alerts, [Alert::PROTOCOL_VERSION.0]);
    // The right one still finds its way.
    meeting.up(&right);
    let flight = meeting.client.second_flight();
    meeting.say(&flight);
    meeting.assert_established();
}

// Covers: K4 refuse, A2 refuse, A10 refuse
#[test]
fn a_client_without_the_right_certificate_is_refused_before_any_data() {
    let (ca, other) = (Ca::root(), Ca::root());
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let old = KeyPair::generate().unwrap();
    let old = ca.issue(&old, old.serialize_der(), |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        name(params, "ringfort://example/device/old", CLIENT);
    });
    let cases = [
        ("foreign CA", other.leaf("ringfort://example/device/eve", CLIENT), Alert::UNKNOWN_CA),
        ("foreign intermediate", other.intermediate().device(), Alert::UNKNOWN_CA),
        ("expired", old, Alert::CERTIFICATE_EXPIRED),
        ("serverAuth only", ca.leaf("ringfort://example/device/eve", SERVER), Alert::UNSUPPORTED_CERTIFICATE),
        ("gateway role", ca.leaf("ringfort://example/gateway/g2", CLIENT), Alert::ACCESS_DENIED),
        ("no ringfort URI", ca.leaf("https://example.org/device/eve", CLIENT), Alert::BAD_CERTIFICATE),
    ];
    for (case, device, alert) in cases {
        let mut meeting = Meeting::greeted(&ends, Offer::default(), Some(&device));
        let flight = meeting.client.second_flight();
        meeting.say(&flight[..flight.len() - 1]);
        let mut last = meeting.client.write(&flight[flight.len() - 1..]);
        last.push(meeting.client.seal(ContentType::ApplicationData, b"let me in"));
        // Before the Finished, with it, and behind it.
        meeting.up(&last[1]);
        meeting.up(&last.concat());
        assert!(matches!(meeting.ended(), Some(Ended::PeerRefused(_))), "{case}: {:?}", meeting.pair.server_events);
        assert_eq!(meeting.client.alerts, [alert.0], "{case}");
        assert!(meeting.pair.server_end().seal(b"leak", &mut [0; 100]).is_none());
        assert!(meeting.pair.delivered.is_empty() && !meeting.client.is_connected, "{case}");
    }
    let mut meeting = Meeting::greeted(&ends, Offer::default(), None);
    let flight = meeting.client.second_flight();
    meeting.say(&flight);
    assert_eq!(meeting.client.alerts, [Alert::HANDSHAKE_FAILURE.0]);
    assert!(matches!(meeting.ended(), Some(Ended::Failed(_))));
}

/// What the client's own Finished proves to be its own is final at once.
#[test]
fn a_client_that_does_not_hold_its_certificates_key_is_refused() {
    let (ca, ends) = usual();
    let mut meeting = Meeting::greeted(&ends, Offer::default(), Some(&ca.device()));
    meeting.client.chain = ca.device().chain().to_vec();
    let flight = meeting.client.second_flight();
    meeting.say(&flight);
    assert_eq!(meeting.client.alerts, [Alert::DECRYPT_ERROR.0]);
    assert!(matches!(meeting.ended(), Some(Ended::Failed(_))));
    assert!(meeting.pair.delivered.is_empty() && !meeting.client.is_connected);
    // A scheme that was not offered, and one for another kind of key.
    for scheme in [0x0203u16, 0x0807] {
        let mut meeting = Meeting::greeted(&ends, Offer::default(), Some(&ca.device()));
        meeting.client.lies_about_scheme = Some(scheme);
        let flight = meeting.client.second_flight();
        meeting.say(&flight);
        assert_eq!(meeting.client.alerts, [Alert::ILLEGAL_PARAMETER.0], "{scheme:#06x}");
        assert!(matches!(meeting.ended(), Some(Ended::Failed(_))));
    }
}

/// A certificate without a signature, and a signature without a certificate: said by whoever sealed the Finished.
#[test]
fn a_certificate_and_a_signature_go_together() {
    let (ca, ends) = usual();
    let mut meeting = Meeting::greeted(&ends, Offer::default(), Some(&ca.device()));
    let mut flight = meeting.client.second_flight();
    flight.retain(|said| !matches!(said, Said::InTheClear(message) if message[0] == CERTIFICATE_VERIFY));
    flight.pop();
    flight.push(Said::Sealed(message(20, 4, &[0; 12])));
    meeting.say(&flight);
    assert_eq!(meeting.client.alerts, [Alert::UNEXPECTED_MESSAGE.0]);
    assert!(matches!(meeting.ended(), Some(Ended::Failed(_))));
    let mut meeting = Meeting::greeted(&ends, Offer::default(), Some(&ca.device()));
    meeting.client.chain.clear();
    let flight = meeting.client.second_flight();
    meeting.say(&flight);
    assert_eq!(meeting.client.alerts, [Alert::UNEXPECTED_MESSAGE.0]);
    assert!(matches!(meeting.ended(), Some(Ended::Failed(_))));
}

/// A Finished that fits nothing: without a signature that somebody else may have sent it is final, with one it waits for that
/// to come right, and in the end the client is told.
#[test]
fn a_finished_that_does_not_fit_is_refused() {
    let ca = Ca::root();
    let server =
        ringfort_dtls::ServerConfig::with_settings(&ca.gateway(), ringfort_dtls::ClientAuth::None, Settings::default());
    let (_, ends) = usual();
    for (ends, is_soon) in
        [(Ends { server: std::sync::Arc::new(server.unwrap()), ..ends.clone() }, true), (ends, false)]
    {
        for (body, alert) in [(vec![0; 12], Alert::DECRYPT_ERROR), (vec![0; 11], Alert::DECODE_ERROR)] {
            let mut meeting = Meeting::greeted(&ends, Offer::default(), Some(&ca.device()));
            let mut flight = meeting.client.second_flight();
            flight.pop();
            flight.push(Said::Sealed(message(20, meeting.client.next_out - 1, &body)));
            meeting.say(&flight);
            if !is_soon && body.len() == 12 {
                assert_eq!((meeting.ended(), meeting.client.alerts.len()), (None, 0));
                meeting.pass(Duration::from_millis(300));
                assert_eq!(meeting.client.alerts, [alert.0]);
                meeting.pass(Duration::from_secs(5));
            }
            assert_eq!(meeting.client.alerts, [alert.0]);
            assert!(matches!(meeting.ended(), Some(Ended::Failed(why)) if why.alert == alert));
        }
    }
}

/// In the clear the right message may still come; if it does not, the client is told after a while.
#[test]
fn a_flight_that_cannot_be_is_told_so_after_a_while() {
    let (ca, ends) = usual();
    let point = vec8(&[4; 65]);
    for (kind, sequence, body, alert) in [
        (CLIENT_KEY_EXCHANGE, 3, point.as_slice(), Alert::ILLEGAL_PARAMETER),
        (CLIENT_KEY_EXCHANGE, 3, &[9], Alert::DECODE_ERROR),
        (CLIENT_KEY_EXCHANGE, 2, &[9], Alert::UNEXPECTED_MESSAGE),
        (super::client::CERTIFICATE, 2, &[0, 0, 9], Alert::DECODE_ERROR),
        (CERTIFICATE_VERIFY, 3, &[0], Alert::UNEXPECTED_MESSAGE),
        (super::client::FINISHED, 5, &[0; 12], Alert::UNEXPECTED_MESSAGE),
    ] {
        let mut meeting = Meeting::greeted(&ends, Offer::default(), Some(&ca.device()));
        let flight = meeting.client.second_flight();
        if kind == CLIENT_KEY_EXCHANGE && sequence == 3 {
            meeting.say(&flight[..1]);
        }
        meeting.say(&[Said::InTheClear(message(kind, sequence, body))]);
        assert!(meeting.client.alerts.is_empty());
        meeting.pass(Duration::from_millis(300));
        assert_eq!(meeting.client.alerts, [alert.0], "{kind}");
        meeting.pass(Duration::from_secs(5));
        assert_eq!(meeting.client.alerts, [alert.0], "{kind}: told once");
        assert!(matches!(meeting.ended(), Some(Ended::Failed(why)) if why.alert == alert), "{:?}", meeting.ended());
    }
}

/// RFC 9325 §3.5: neither a sealed hello nor a sealed HelloRequest disturbs anything; the first is answered, not too often.
#[test]
fn nothing_is_renegotiated() {
    let (ca, ends) = usual();
    let mut meeting = Meeting::established(&ends, Offer::default(), Some(&ca.device()));
    for (kind, sequence) in [(1, 0), (1, 6), (0, 0), (0, 6), (11, 7)] {
        for _ in 0..5 {
            let record = meeting.client.seal(ContentType::Handshake, &message(kind, sequence, &[0; 60]));
            meeting.up(&record);
        }
    }
    assert_eq!(meeting.client.sealed_alerts, [[1, Alert::NO_RENEGOTIATION.0]]);
    meeting.assert_established();
    // The same in the clear is nobody's.
    for record in [Client::new(Offer::default(), None).hello(), meeting.client.clear(ContentType::Handshake, &[0; 12])]
    {
        meeting.pair.server_end().handle_datagram(&mut record.clone(), START, |_| {});
        meeting.down();
    }
    assert_eq!(meeting.client.sealed_alerts.len(), 1);
    meeting.assert_alive();
}

/// With another version's key, or none: X25519 and P-256 only.
#[test]
fn the_hybrid_group_is_not_for_this_version() {
    let ca = Ca::root();
    let only = Settings { groups: vec![Group::X25519MlKem768], ..Settings::default() };
    let ends = Ends::with(&ca, &ca.gateway(), &ca.device(), only, Settings::default());
    let offer = changed(|offer| offer.groups(&[0x11ec, 29, 23]));
    assert!(matches!(screen(&ends, &offer), Screened::Reply { reply: Reply::Refusal(Alert::HANDSHAKE_FAILURE), .. }));
}
