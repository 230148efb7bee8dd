//! What a stranger gets: at most one answer, no longer than what it answers, and no state.

use ringfort_dtls::{Alert, Front, Reply, Screened, Settings, Unwelcome};

use crate::world::{Ca, Ends, Pair, START, client_address};

fn first_hello(ends: &Ends) -> Box<[u8]> {
    Pair::new(ends).client_sends().remove(0)
}

#[test]
fn a_hello_is_asked_for_a_cookie_and_opens_with_it() {
    let ends = Ends::usual();
    let mut pair = Pair::new(&ends);
    let mut hello = pair.client_sends().remove(0);
    let mut front = Front::new(&[7; 32]);
    let mut reply = vec![0; hello.len()];
    let screened = front.screen(&ends.server, &hello, client_address(), START, &mut reply);
    let Screened::Reply { bytes, reply: Reply::Cookie } = screened else { panic!("{screened:?}") };
    assert!(bytes <= hello.len(), "{bytes} bytes answer {}", hello.len());
    assert_eq!(reply[5..11], hello[5..11], "the answer has the number of the question");

    pair.reaches_client(&mut reply[..bytes]);
    let second = pair.client_sends();
    let mut front_reply = vec![0; 2_000];
    let first_fragment = &second[0];
    let screened = front.screen(&ends.server, first_fragment, client_address(), START, &mut front_reply);
    assert!(matches!(screened, Screened::Opening(_)), "{screened:?}");
    // From elsewhere, with another secret, or later it opens nothing, and its sender may begin anew (RFC 9147 §5.1).
    let elsewhere = "192.0.2.8:50000".parse().unwrap();
    for (front, from, at) in [
        (&mut front, elsewhere, START),
        (&mut Front::new(&[8; 32]), client_address(), START),
        (&mut Front::new(&[7; 32]), client_address(), START + std::time::Duration::from_secs(61)),
    ] {
        let screened = front.screen(&ends.server, first_fragment, from, at, &mut front_reply);
        let Screened::Reply { bytes, reply: Reply::OtherCookie } = screened else { panic!("{screened:?}") };
        assert_eq!(front_reply[..bytes], [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 2, Alert::ILLEGAL_PARAMETER.0]);
    }
    // The hybrid share makes a second fragment, which nobody could judge by itself.
    assert_eq!(second.len(), 2);
    let screened = front.screen(&ends.server, &second[1], client_address(), START, &mut front_reply);
    assert!(matches!(screened, Screened::Dropped(Unwelcome::Fragment)), "{screened:?}");
    hello[0] = 0;
}

#[test]
fn no_answer_is_longer_than_its_question() {
    let ends = Ends::usual();
    let hello = first_hello(&ends);
    let mut front = Front::new(&[7; 32]);
    let mut answered = 0;
    for at in 0..hello.len() {
        for flip in [1, 0x80, 0xff] {
            let mut changed = hello.clone();
            changed[at] ^= flip;
            let mut reply = vec![0; 4_000];
            if let Screened::Reply { bytes, .. } =
                front.screen(&ends.server, &changed, client_address(), START, &mut reply)
            {
                assert!(bytes <= changed.len());
                answered += 1;
            }
        }
    }
    assert!(answered > 0);
    for length in 0..hello.len() {
        let screened = front.screen(&ends.server, &hello[..length], client_address(), START, &mut [0; 4_000]);
        assert!(matches!(screened, Screened::Dropped(_)), "{length} bytes: {screened:?}");
    }
}

#[test]
fn what_is_no_hello_is_not_answered() {
    let ends = Ends::usual();
    let hello = first_hello(&ends);
    let mut front = Front::new(&[7; 32]);
    let mut screen = |datagram: &[u8]| front.screen(&ends.server, datagram, client_address(), START, &mut [0; 4_000]);
    // Another record type, another epoch, lengths that do not fit, another message, a later message.
    for (at, byte) in [(0, 23), (0, 21), (4, 1), (11, 0xff), (12, hello[12] ^ 1), (13, 2), (18, 2), (22, 1)] {
        let mut changed = hello.clone();
        changed[at] = byte;
        let screened = screen(&changed);
        assert!(matches!(screened, Screened::Dropped(Unwelcome::NoHello | Unwelcome::Fragment)), "{at}: {screened:?}");
    }
    assert!(matches!(screen(&[0x2f; 100]), Screened::Dropped(Unwelcome::NoHello)));
    assert!(matches!(screen(&[]), Screened::Dropped(Unwelcome::NoHello)));
}

#[test]
fn a_hello_that_offers_nothing_of_ours_is_told_so() {
    let ca = Ca::root();
    let ours = Settings { groups: vec![ringfort_dtls::Group::P256], ..Settings::default() };
    let theirs = Settings { groups: vec![ringfort_dtls::Group::X25519], ..Settings::default() };
    let ends = Ends::with(&ca, &ca.gateway(), &ca.device(), ours, theirs);
    let hello = first_hello(&ends);
    let screened = Front::new(&[7; 32]).screen(&ends.server, &hello, client_address(), START, &mut [0; 4_000]);
    let Screened::Reply { bytes: 15, reply: Reply::Refusal(alert) } = screened else { panic!("{screened:?}") };
    assert_eq!(alert, Alert::HANDSHAKE_FAILURE);
}
