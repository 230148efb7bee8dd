//! New keys in an established association (RFC 9147 §8), and the end of old ones.

use std::time::Duration;

use ringfort_dtls::cid::ConnectionId;

use crate::world::{Ends, Pair};

/// The epoch's low bits in the header of the next record that each side seals.
fn epochs(pair: &mut Pair) -> (u8, u8) {
    let mut record = [0; 100];
    pair.client.seal(b"x", &mut record).unwrap();
    let up = record[0] & 3;
    pair.server_end().seal(b"x", &mut record).unwrap();
    (up, record[0] & 3)
}

#[test]
fn both_sides_move_to_new_keys_and_packets_pass_all_along() {
    let mut pair = Pair::established(&Ends::usual());
    assert_eq!(epochs(&mut pair), (3, 3));
    for round in 0..6u8 {
        let now = pair.now;
        if round % 2 == 0 {
            pair.client.update_keys(now)
        } else {
            pair.server_end().update_keys(now)
        }
        pair.assert_alive();
        pair.run();
        // Whoever is asked follows at once.
        assert_eq!(epochs(&mut pair), ((3 + round + 1) & 3, (3 + round + 1) & 3), "round {round}");
        pair.assert_alive();
        pair.pass(Duration::from_secs(5));
        pair.assert_alive();
    }
    assert!(pair.client_events.is_empty() && pair.server_events.is_empty());
}

#[test]
fn records_of_the_old_keys_are_taken_for_a_while() {
    let mut pair = Pair::established(&Ends::usual());
    let late = |pair: &mut Pair| {
        let mut record = vec![0; 60];
        let length = pair.client.seal(b"late", &mut record).unwrap();
        record.truncate(length);
        record
    };
    let (mut soon, mut too_late) = (late(&mut pair), late(&mut pair));
    let now = pair.now;
    pair.client.update_keys(now);
    pair.run();
    pair.assert_alive();
    pair.delivered.clear();
    pair.reaches_server(&mut soon);
    assert_eq!(pair.delivered, [b"late"]);
    pair.pass(Duration::from_secs(4));
    pair.delivered.clear();
    pair.reaches_server(&mut too_late);
    assert!(pair.delivered.is_empty());
}

#[test]
fn an_update_survives_lost_messages_and_acks() {
    let mut pair = Pair::established(&Ends::usual());
    let now = pair.now;
    pair.client.update_keys(now);
    // The message, then the ACK of its repetition.
    assert_eq!(pair.client_sends().len(), 1);
    pair.now = pair.now + Duration::from_millis(300);
    pair.tick();
    pair.client_sends().into_iter().for_each(|mut datagram| pair.reaches_server(&mut datagram));
    assert!(!pair.server.transmits().is_empty());
    pair.assert_alive();
    pair.pass(Duration::from_secs(3));
    assert_eq!(epochs(&mut pair), (0, 0));
    pair.assert_alive();
}

#[test]
fn an_association_stays_quiet() {
    let mut pair = Pair::established(&Ends::usual());
    pair.pass(Duration::from_secs(120));
    assert!(pair.client_events.is_empty() && pair.server_events.is_empty());
    assert_eq!((pair.client.poll_timeout(), pair.server_end().poll_timeout()), (None, None));
    pair.assert_alive();
}

/// Both sides update at once and both ACKs get lost: each still owes the other one for what it repeats, although it waits for
/// one itself (RFC 9147 §7.1, §8).
#[test]
fn crossing_updates_survive_the_loss_of_both_acks() {
    let mut pair = Pair::established(&Ends::usual());
    for _ in 0..3 {
        let now = pair.now;
        pair.client.update_keys(now);
        pair.server_end().update_keys(now);
        let (up, down) = (pair.client_sends(), pair.server.transmits());
        assert_eq!((up.len(), down.len()), (1, 1));
        up.into_iter().for_each(|mut datagram| pair.reaches_server(&mut datagram));
        down.into_iter().for_each(|mut datagram| pair.reaches_client(&mut datagram));
        // The ACKs, and whatever else comes with them.
        assert!(!pair.client_sends().is_empty() && !pair.server.transmits().is_empty());
        pair.pass(Duration::from_secs(12));
        assert!(pair.client_events.is_empty() && pair.server_events.is_empty(), "{:?}", pair.client_events);
        pair.assert_alive();
    }
}

/// Who has nothing to send still leaves the old keys: an ACK under the new ones is enough to know that they are in use.
#[test]
fn old_keys_go_even_if_no_packet_comes_under_the_new_ones() {
    let mut pair = Pair::established(&Ends { client_cid: ConnectionId::new(&[0xc2; 8]), ..Ends::usual() });
    let mut late = vec![0; 60];
    let length = pair.client.seal(b"late", &mut late).unwrap();
    late.truncate(length);
    let now = pair.now;
    pair.client.update_keys(now);
    pair.run();
    // Whatever the server says, the client acknowledges it under its new keys.
    let now = pair.now;
    pair.server_end().request_connection_ids(1, now);
    pair.run();
    pair.pass(Duration::from_secs(4));
    pair.reaches_server(&mut late);
    assert!(pair.delivered.is_empty());
}
