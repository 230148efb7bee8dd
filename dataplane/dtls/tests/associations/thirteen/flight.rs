//! The client's second flight, when it is not as it should be (RFC 8446 §4.4, §5.1, §6.2), and in pieces (RFC 9147 §5.5).

use ringfort_dtls::record::ContentType;
use ringfort_dtls::{Alert, Event};

use super::client::{
    CERTIFICATE, CERTIFICATE_VERIFY, Client, FINISHED, HELLO, KEY_UPDATE, NEW_SESSION_TICKET, Offer, fragment, message,
    vec8, vec24,
};
use crate::world::{CLIENT, Ca, Ends};

type Act = Box<dyn Fn(&mut Client)>;

fn sends(messages: impl Fn(&mut Client) -> Vec<Vec<u8>> + 'static) -> Act {
    Box::new(move |client| {
        let messages = messages(client);
        client.send_messages(&messages);
    })
}

/// Certificate with this body and what belongs behind it.
fn with_certificate(body: impl Fn(&Client) -> Vec<u8> + 'static) -> Act {
    sends(move |client| {
        let body = body(client);
        let certificate = client.say(CERTIFICATE, &body);
        let body = client.verify_body(0x0403);
        vec![certificate, client.say(CERTIFICATE_VERIFY, &body)]
    })
}

fn with_verify(body: impl Fn(&Client) -> Vec<u8> + 'static) -> Act {
    sends(move |client| {
        let certificate = client.certificate_body();
        let certificate = client.say(CERTIFICATE, &certificate);
        let body = body(client);
        vec![certificate, client.say(CERTIFICATE_VERIFY, &body)]
    })
}

fn with_finished(body: impl Fn(&Client) -> Vec<u8> + 'static) -> Act {
    sends(move |client| {
        let mut flight = client.flight();
        let last = client.next_out - 1;
        let right = flight.pop().unwrap()[12..].to_vec();
        drop(right);
        let body = body(client);
        flight.push(message(FINISHED, last, &body));
        flight
    })
}

#[test]
fn a_flight_that_cannot_be_is_told_so() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let device = ca.leaf("ringfort://example/device/alice", CLIENT);
    let cases: Vec<(&str, Alert, Act)> = vec![
        (
            "a context",
            Alert::ILLEGAL_PARAMETER,
            with_certificate(|c| [vec8(&[1]), c.certificate_body()[1..].to_vec()].concat()),
        ),
        ("trailing bytes", Alert::DECODE_ERROR, with_certificate(|c| [c.certificate_body(), vec![0]].concat())),
        (
            "an empty certificate",
            Alert::DECODE_ERROR,
            with_certificate(|_| [vec8(&[]), vec24(&[0, 0, 0, 0, 0])].concat()),
        ),
        ("no certificate", Alert::CERTIFICATE_REQUIRED, with_certificate(|_| [vec8(&[]), vec24(&[])].concat())),
        (
            "garbage",
            Alert::BAD_CERTIFICATE,
            with_certificate(|_| [vec8(&[]), vec24(&[0, 0, 3, 1, 2, 3, 0, 0])].concat()),
        ),
        (
            "a certificate with bytes behind it",
            Alert::BAD_CERTIFICATE,
            with_certificate(|c| {
                let der = [&c.chain[0][..], &[0]].concat();
                [vec8(&[]), vec24(&[vec24(&der), vec![0, 0]].concat())].concat()
            }),
        ),
        (
            "an extension of a certificate",
            Alert::UNSUPPORTED_EXTENSION,
            with_certificate(|c| [vec8(&[]), vec24(&[vec24(&c.chain[0]), vec![0, 4, 0, 5, 0, 0]].concat())].concat()),
        ),
        (
            "eleven certificates",
            Alert::BAD_CERTIFICATE,
            with_certificate(|c| {
                let one = [vec24(&c.chain[0]), vec![0, 0]].concat();
                [vec8(&[]), vec24(&one.repeat(11))].concat()
            }),
        ),
        ("a scheme that was not offered", Alert::ILLEGAL_PARAMETER, with_verify(|c| c.verify_body(0x0203))),
        ("PKCS #1", Alert::ILLEGAL_PARAMETER, with_verify(|c| c.verify_body(0x0401))),
        ("another kind of key", Alert::ILLEGAL_PARAMETER, with_verify(|c| c.verify_body(0x0807))),
        (
            "a signature of something else",
            Alert::DECRYPT_ERROR,
            with_verify(|c| {
                let mut body = c.verify_body(0x0403);
                *body.last_mut().unwrap() ^= 1;
                body
            }),
        ),
        ("an empty signature", Alert::DECRYPT_ERROR, with_verify(|_| vec![4, 3, 0, 0])),
        ("bytes behind a signature", Alert::DECODE_ERROR, with_verify(|c| [c.verify_body(0x0403), vec![0]].concat())),
        ("half a signature", Alert::DECODE_ERROR, with_verify(|_| vec![4, 3, 0, 9, 1])),
        ("another Finished", Alert::DECRYPT_ERROR, with_finished(|_| vec![0; 32])),
        ("a short Finished", Alert::DECODE_ERROR, with_finished(|_| vec![0; 31])),
        ("a long Finished", Alert::DECODE_ERROR, with_finished(|_| vec![0; 48])),
        ("an empty Finished", Alert::DECODE_ERROR, with_finished(|_| vec![])),
        (
            "a Finished first",
            Alert::UNEXPECTED_MESSAGE,
            sends(|c| {
                let body = c.finished_body();
                vec![c.say(FINISHED, &body)]
            }),
        ),
        (
            "a signature first",
            Alert::UNEXPECTED_MESSAGE,
            sends(|c| {
                let body = c.verify_body(0x0403);
                vec![c.say(CERTIFICATE_VERIFY, &body)]
            }),
        ),
        (
            "no signature",
            Alert::UNEXPECTED_MESSAGE,
            sends(|c| {
                let body = c.certificate_body();
                let certificate = c.say(CERTIFICATE, &body);
                let body = c.finished_body();
                vec![certificate, c.say(FINISHED, &body)]
            }),
        ),
        (
            "two certificates",
            Alert::UNEXPECTED_MESSAGE,
            sends(|c| {
                let body = c.certificate_body();
                vec![c.say(CERTIFICATE, &body), c.say(CERTIFICATE, &body)]
            }),
        ),
        ("a KeyUpdate", Alert::UNEXPECTED_MESSAGE, sends(|c| vec![c.say(KEY_UPDATE, &[0])])),
        ("a ticket", Alert::UNEXPECTED_MESSAGE, sends(|c| vec![c.say(NEW_SESSION_TICKET, &[0; 13])])),
        (
            "a hello",
            Alert::UNEXPECTED_MESSAGE,
            sends(|c| {
                let body = c.offer.body([1; 32]);
                vec![c.say(HELLO, &body)]
            }),
        ),
        ("an unknown message", Alert::UNEXPECTED_MESSAGE, sends(|c| vec![c.say(99, &[0])])),
        ("end_of_early_data", Alert::UNEXPECTED_MESSAGE, sends(|c| vec![c.say(5, &[])])),
        (
            "packets",
            Alert::UNEXPECTED_MESSAGE,
            Box::new(|c| {
                let record = c.seal(ContentType::ApplicationData, b"too early");
                c.send(&record);
            }),
        ),
        (
            "an empty record of messages",
            Alert::UNEXPECTED_MESSAGE,
            Box::new(|c| {
                let record = c.seal(ContentType::Handshake, b"");
                c.send(&record);
            }),
        ),
        (
            "an empty alert",
            Alert::UNEXPECTED_MESSAGE,
            Box::new(|c| {
                let record = c.seal(ContentType::Alert, b"");
                c.send(&record);
            }),
        ),
        (
            "half an alert",
            Alert::DECODE_ERROR,
            Box::new(|c| {
                let record = c.seal(ContentType::Alert, &[2]);
                c.send(&record);
            }),
        ),
        (
            "a ChangeCipherSpec",
            Alert::UNEXPECTED_MESSAGE,
            Box::new(|c| {
                let record = c.seal(ContentType::ChangeCipherSpec, &[1]);
                c.send(&record);
            }),
        ),
        (
            "a broken ACK",
            Alert::DECODE_ERROR,
            Box::new(|c| {
                let record = c.seal(ContentType::Ack, &[0, 15, 0]);
                c.send(&record);
            }),
        ),
        (
            "a message behind the Finished",
            Alert::UNEXPECTED_MESSAGE,
            sends(|c| {
                let mut flight = c.flight();
                let behind = c.say(KEY_UPDATE, &[0]);
                let last = flight.pop().unwrap();
                flight.push([last, behind].concat());
                flight
            }),
        ),
        ("half a header", Alert::DECODE_ERROR, sends(|_| vec![vec![11, 0, 0, 1]])),
        (
            "a fragment beyond its message",
            Alert::DECODE_ERROR,
            sends(|c| {
                let mut one = message(CERTIFICATE, c.next_out, &[0; 10]);
                one[3] = 5;
                vec![one]
            }),
        ),
        (
            "fragments of two lengths",
            Alert::ILLEGAL_PARAMETER,
            sends(|c| {
                let number = c.next_out;
                vec![fragment(CERTIFICATE, number, &[0; 10], 0..4), fragment(CERTIFICATE, number, &[0; 11], 4..11)]
            }),
        ),
        (
            "fragments of two kinds",
            Alert::ILLEGAL_PARAMETER,
            sends(|c| {
                let number = c.next_out;
                vec![fragment(CERTIFICATE, number, &[0; 10], 0..4), fragment(FINISHED, number, &[0; 10], 4..10)]
            }),
        ),
        (
            "a message of 16 MiB",
            Alert::ILLEGAL_PARAMETER,
            sends(|c| {
                let mut one = message(CERTIFICATE, c.next_out, &[0; 10]);
                one[1] = 0xff;
                vec![one]
            }),
        ),
    ];
    let mut wrong = Vec::new();
    for (case, alert, act) in cases {
        let mut client = Client::new(&ends, Offer::default(), Some(&device));
        client.greet(|_| ());
        act(&mut client);
        if client.alerts != [[2, alert.0]] || !matches!(client.events.as_slice(), [Event::Ended(_)]) {
            wrong.push(format!("{case}: {:?}, not {alert}; {:?}", client.alerts, client.events));
        }
        assert!(client.delivered.is_empty() && client.clear_alerts.is_empty(), "{case}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pieces_of_any_size_and_order_make_a_flight() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let device = ca.device();
    for (case, size, backwards) in [("bytes", 1, false), ("bytes, the last first", 1, true), ("sevens", 7, true)] {
        let mut client = Client::new(&ends, Offer::default(), Some(&device));
        client.greet(|_| ());
        let mut pieces = Vec::new();
        for whole in client.flight() {
            let (kind, number, body) = (whole[0], u16::from_be_bytes([whole[4], whole[5]]), whole[12..].to_vec());
            for start in (0..body.len()).step_by(size) {
                // Each overlaps the one before, and comes twice.
                let piece = fragment(kind, number, &body, start.saturating_sub(1)..(start + size).min(body.len()));
                pieces.extend([piece.clone(), piece, fragment(kind, number, &body, start..start)]);
            }
        }
        if backwards {
            pieces.reverse();
        }
        for piece in pieces.chunks(10) {
            if matches!(client.events.as_slice(), [Event::Established(_)]) {
                client.install_application();
                break;
            }
            let record = client.seal(ContentType::Handshake, &piece.concat());
            client.send(&record);
        }
        assert!(
            matches!(client.events.as_slice(), [Event::Established(Some(_))]),
            "{case} {:?} {:?}",
            client.events,
            client.alerts
        );
    }
}
