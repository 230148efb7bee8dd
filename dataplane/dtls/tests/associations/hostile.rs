//! What somebody can do who sees the datagrams and sends others, without any key.

use std::time::Duration;

use ringfort_dtls::{Ended, Event};

use crate::world::{Ends, Pair, ended};

/// A plaintext record.
fn clear(content_type: u8, content: &[u8]) -> Vec<u8> {
    let mut record = vec![content_type, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 9, 9];
    record.extend_from_slice(&(content.len() as u16).to_be_bytes());
    record.extend_from_slice(content);
    record
}

/// Plaintext handshake messages of one byte, of many kinds and numbers.
fn messages() -> Vec<Vec<u8>> {
    let kinds = [1u8, 2, 4, 8, 11, 13, 15, 20, 24];
    let numbers = 0..4u8;
    numbers.flat_map(|number| kinds.map(|kind| clear(22, &[kind, 0, 0, 1, 0, number, 0, 0, 0, 0, 0, 1, 0]))).collect()
}

#[test]
fn noise_ends_nothing_that_is_established() {
    let mut pair = Pair::established(&Ends::usual());
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for length in (0..1_500).step_by(7) {
        let mut noise: Vec<u8> = (0..length)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .collect();
        if let Some(first) = noise.first_mut() {
            *first = 0x3c | (*first & 3);
        }
        if let Some(id) = noise.get_mut(1..9) {
            id.fill(0xc1);
        }
        pair.reaches_server(&mut noise);
    }
    pair.take_events();
    assert!(pair.server_events.is_empty() && pair.delivered.is_empty());
    pair.assert_alive();
}

#[test]
fn what_is_in_the_clear_ends_no_association_and_draws_nothing() {
    let mut pair = Pair::established(&Ends::usual());
    let alerts = [0u8, 10, 20, 40, 80].map(|alert| clear(21, &[2, alert]));
    for mut forged in messages().into_iter().chain(alerts).chain([clear(26, &[0, 0]), clear(20, &[1])]) {
        pair.reaches_server(&mut forged.clone());
        pair.reaches_client(&mut forged);
    }
    assert!(pair.server.transmits().iter().all(|reply| reply.len() <= 30) && pair.client_sends().is_empty());
    pair.take_events();
    assert!(pair.server_events.is_empty() && pair.client_events.is_empty() && pair.delivered.is_empty());
    pair.assert_alive();
}

/// Before every datagram of a handshake, forged ones come both ways.
#[test]
fn what_is_in_the_clear_ends_no_handshake() {
    let alert = clear(21, &[2, 40]);
    let mut forged: Vec<Vec<u8>> = messages();
    forged.extend([alert, clear(26, &[0, 0]), clear(20, &[1]), clear(22, &[1; 12])]);
    for one in forged {
        let mut pair = Pair::new(&Ends::usual());
        for _ in 0..40 {
            for mut datagram in pair.client_sends() {
                pair.reaches_server(&mut one.clone());
                pair.reaches_server(&mut datagram);
            }
            for mut datagram in pair.server.transmits() {
                pair.reaches_client(&mut one.clone());
                pair.reaches_client(&mut datagram);
            }
            pair.take_events();
            pair.now = pair.now + Duration::from_millis(100);
            pair.tick();
        }
        assert_eq!((pair.server_peer(), pair.client_peer()), (Some("alice"), Some("g1")), "{one:02x?}");
        pair.assert_alive();
    }
}

#[test]
fn a_handshake_without_answer_is_given_up() {
    let mut pair = Pair::new(&Ends::usual());
    let (mut sent, alert) = (0, clear(21, &[2, 40]));
    for _ in 0..240 {
        sent += pair.client_sends().len();
        pair.reaches_client(&mut alert.clone());
        pair.now = pair.now + Duration::from_millis(50);
        pair.tick();
    }
    assert!((4..=8).contains(&sent), "{sent} hellos");
    assert!(matches!(ended(&pair.client_events), Some(Ended::TimedOut(_, Some(_)))), "{:?}", pair.client_events);
    assert_eq!(pair.client.poll_timeout(), None);
}

/// One hello with a good cookie, and then nothing: what the server sends in all its tries is bounded.
#[test]
fn a_client_that_falls_silent_draws_little() {
    let mut pair = Pair::new(&Ends::usual());
    let mut hello = pair.client_sends().remove(0);
    pair.reaches_server(&mut hello);
    let mut retry = pair.server.transmits().remove(0);
    pair.reaches_client(&mut retry);
    let second = pair.client_sends();
    let cost: usize = second.iter().map(|datagram| datagram.len()).sum();
    second.into_iter().for_each(|mut datagram| pair.reaches_server(&mut datagram));
    let mut drawn = 0;
    for _ in 0..400 {
        drawn += pair.server.transmits().iter().map(|datagram| datagram.len()).sum::<usize>();
        pair.now = pair.now + Duration::from_millis(50);
        pair.tick();
    }
    assert!(drawn <= 10 * cost, "{cost} bytes draw {drawn}");
    assert!(matches!(pair.server_events.as_slice(), [Event::Ended(Ended::TimedOut(..))]));
}
