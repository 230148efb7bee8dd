//! Other connection ids for other paths (RFC 9147 §9).

use ringfort_dtls::Event;
use ringfort_dtls::cid::ConnectionId;

use crate::world::{Ends, Pair};

fn id(byte: u8) -> ConnectionId {
    ConnectionId::new(&[byte; 8]).unwrap()
}

/// By which id the client's next record names the server.
fn named(pair: &mut Pair) -> u8 {
    let mut record = [0; 100];
    pair.client.seal(b"x", &mut record).unwrap();
    assert_eq!(record[1..9], [record[1]; 8]);
    record[1]
}

fn give(pair: &mut Pair, ids: &[u8]) {
    let now = pair.now;
    let ids: Vec<ConnectionId> = ids.iter().map(|byte| id(*byte)).collect();
    pair.server_end().give_connection_ids(&ids, now);
    pair.run();
}

#[test]
fn a_client_asks_for_ids_and_changes_to_them_one_by_one() {
    let mut pair = Pair::established(&Ends::usual());
    let now = pair.now;
    pair.client.request_connection_ids(2, now);
    // There is one request at a time.
    pair.client.request_connection_ids(2, now);
    pair.run();
    assert_eq!(pair.server_events, [Event::ConnectionIdsWanted(2)]);
    give(&mut pair, &[1, 2]);
    assert_eq!(named(&mut pair), 0xc1, "nothing changes by itself");
    pair.server_events.clear();
    for (expected, next) in [(1, 3), (2, 4), (3, 5)] {
        assert!(pair.client.change_connection_id(now));
        assert_eq!(named(&mut pair), expected);
        pair.run();
        pair.assert_alive();
        assert_eq!(std::mem::take(&mut pair.server_events), [Event::ConnectionIdsWanted(1)]);
        give(&mut pair, &[next]);
    }
    pair.pass(std::time::Duration::from_secs(60));
    pair.assert_alive();
}

#[test]
fn without_another_id_the_old_one_stays() {
    let mut pair = Pair::established(&Ends::usual());
    let now = pair.now;
    assert!(!pair.client.change_connection_id(now));
    assert_eq!(named(&mut pair), 0xc1);
    pair.run();
    assert_eq!(pair.server_events, [Event::ConnectionIdsWanted(1)], "it asks for one");
    give(&mut pair, &[]);
    assert!(!pair.client.change_connection_id(now), "and takes none for an answer");
    pair.assert_alive();
    // Ids of another length, or none, are not given.
    let other = [ConnectionId::new(&[7; 4]).unwrap(), ConnectionId::NONE];
    pair.server_end().give_connection_ids(&other, now);
    pair.run();
    assert!(!pair.client.change_connection_id(now));
    pair.assert_alive();
}

#[test]
fn records_by_ids_that_were_never_given_are_dropped_and_old_ones_age() {
    let mut pair = Pair::established(&Ends::usual());
    for round in 1..=7u8 {
        give(&mut pair, &[round]);
    }
    let now = pair.now;
    let mut by_first = vec![0; 60];
    let length = pair.client.seal(b"first", &mut by_first).unwrap();
    by_first.truncate(length);
    let mut forged = by_first.clone();
    forged[1..9].copy_from_slice(&[0x77; 8]);
    pair.delivered.clear();
    pair.reaches_server(&mut forged);
    assert!(pair.delivered.is_empty());
    pair.reaches_server(&mut by_first.clone());
    assert_eq!(pair.delivered.len(), 1, "eight are taken");
    let mut by_first = vec![0; 60];
    let length = pair.client.seal(b"first", &mut by_first).unwrap();
    by_first.truncate(length);
    give(&mut pair, &[8]);
    pair.assert_alive();
    // The one in use never goes. Once another is used, the first makes room for a ninth.
    assert!(pair.client.change_connection_id(now));
    pair.assert_alive();
    give(&mut pair, &[9]);
    pair.delivered.clear();
    pair.reaches_server(&mut by_first);
    assert!(pair.delivered.is_empty(), "a ninth ends the first");
    for _ in 0..3 {
        assert!(pair.client.change_connection_id(now));
        pair.assert_alive();
    }
}

/// Where one side has no id, the other has none to ask for.
#[test]
fn nobody_asks_who_has_nothing_to_name() {
    let mut pair = Pair::established(&Ends::usual());
    let now = pair.now;
    pair.server_end().request_connection_ids(2, now);
    pair.run();
    assert!(pair.client_events.is_empty() && pair.server_events.is_empty());
    let ends = Ends { server_cid: None, client_cid: None, ..Ends::usual() };
    let mut pair = Pair::established(&ends);
    pair.client.request_connection_ids(2, now);
    assert!(!pair.client.change_connection_id(now));
    pair.run();
    assert!(pair.client_events.is_empty() && pair.server_events.is_empty());
    pair.assert_alive();
}

/// RFC 9146 §6: an older record, late or held back by somebody, is a packet like any other and says nothing of where the peer is.
#[test]
fn only_the_newest_record_is_news() {
    let mut pair = Pair::established(&Ends::usual());
    let mut records: Vec<Vec<u8>> = Vec::new();
    for _ in 0..3 {
        let mut record = vec![0; 60];
        let length = pair.client.seal(b"x", &mut record).unwrap();
        record.truncate(length);
        records.push(record);
    }
    pair.server_end().take_news();
    for (which, is_news) in [(1, true), (0, false), (2, true)] {
        pair.delivered.clear();
        pair.reaches_server(&mut records[which].clone());
        assert_eq!((pair.delivered.len(), pair.server_end().take_news()), (1, is_news), "{which}");
        pair.reaches_server(&mut records[which].clone());
        assert!(pair.delivered.len() == 1 && !pair.server_end().take_news(), "a replay");
    }
}
