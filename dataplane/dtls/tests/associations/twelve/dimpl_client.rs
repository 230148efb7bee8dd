//! dimpl as the client of DTLS 1.2.

use ringfort_dtls::{Ended, Event, ProtocolVersion};

use crate::dimpl_peer::Other;
use crate::world::{Ca, Ends, Pair};

fn carry(pair: &mut Pair, other: &mut Other) {
    for _ in 0..20 {
        std::mem::take(&mut other.out).into_iter().for_each(|mut datagram| pair.reaches_server(&mut datagram));
        pair.server.transmits().iter().for_each(|datagram| other.handle(datagram));
        pair.take_events();
    }
}

fn connected() -> (Pair, Other) {
    let ca = Ca::root();
    let mut pair = Pair::new(&Ends::of(&ca, &ca.gateway(), &ca.device()));
    let mut other = Other::client_12(&ca.device());
    carry(&mut pair, &mut other);
    assert!(other.is_connected);
    assert_eq!(pair.server_peer(), Some("alice"));
    assert_eq!(pair.server_end().version(), Some(ProtocolVersion::Dtls12));
    pair.server_events.clear();
    (pair, other)
}

#[test]
fn packets_pass_both_ways_until_we_close() {
    let (mut pair, mut other) = connected();
    for round in 0..4u8 {
        other.send(&[round; 300]);
        let mut record = [0; 400];
        let length = pair.server_end().seal(&[round; 200], &mut record).unwrap();
        assert_eq!(length, 200 + pair.server_end().overhead());
        other.handle(&record[..length]);
        carry(&mut pair, &mut other);
        assert_eq!(pair.delivered.pop(), Some(vec![round; 300]));
        assert_eq!(other.received.pop(), Some(vec![round; 200]));
    }
    pair.server_end().close();
    carry(&mut pair, &mut other);
    assert!(other.is_closed);
}

#[test]
fn its_close_ends_ours_and_is_answered() {
    let (mut pair, mut other) = connected();
    other.close();
    std::mem::take(&mut other.out).into_iter().for_each(|mut datagram| pair.reaches_server(&mut datagram));
    pair.take_events();
    assert_eq!(pair.server_events, [Event::Ended(Ended::ClosedByPeer)]);
    assert_eq!(pair.server.transmits().len(), 1);
}
