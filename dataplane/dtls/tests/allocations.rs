//! Sealing and opening allocate nothing, whatever becomes of the record.
//!
//! A binary of its own, since the counting allocator is the whole process's. It counts what Rust allocates; aws-lc allocates
//! with its keys, and once per thread for its error queue, not per record.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use allocation_counter::measure;
use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::record::{ContentType, Dropped, Keys12, Open, RecordLayer, Secret, Suite};

#[test]
fn no_record_allocates() {
    for suite in Suite::ALL {
        for dtls13 in [true, false] {
            let (mut tx, mut rx) = pair(suite, dtls13);
            let mut buffer = vec![0; 4_000];
            let mut opened = 0;
            let counted = measure(|| {
                for round in 0..1_000 {
                    opened += round_trip(&mut tx, &mut rx, &mut buffer, round);
                }
            });
            assert_eq!(opened, 1_000);
            assert_eq!(counted.count_total, 0, "{suite:?}, DTLS 1.3: {dtls13}");
        }
    }
}

/// One record that is opened, its replay, and a forgery. The forgeries come in pairs, so that searches are among them.
fn round_trip(tx: &mut RecordLayer, rx: &mut RecordLayer, buffer: &mut [u8], round: usize) -> usize {
    let length = tx.seal(ContentType::ApplicationData, &[0x45; 1_300], buffer).unwrap();
    let (record, rest) = buffer.split_at_mut(length);
    let copy = &mut rest[..length];
    if round.is_multiple_of(2) {
        for _ in 0..3 {
            copy.copy_from_slice(record);
            copy[length - 1] ^= 1;
            assert_eq!(rx.open(copy, &mut 0), Open::Dropped(Dropped::NotAuthentic));
        }
    }
    copy.copy_from_slice(record);
    let opened = usize::from(matches!(rx.open(copy, &mut 0), Open::Record(_)));
    copy.copy_from_slice(record);
    assert_eq!(rx.open(copy, &mut 0), Open::Dropped(Dropped::Replayed));
    assert!(matches!(rx.open(&mut [1, 2, 3], &mut 0), Open::Dropped(Dropped::Malformed)));
    opened
}

fn pair(suite: Suite, dtls13: bool) -> (RecordLayer, RecordLayer) {
    let (mut tx, mut rx) = (RecordLayer::new(), RecordLayer::new());
    let id = ConnectionId::new(&[1; 8]).unwrap();
    tx.set_peer_cid(id);
    rx.set_local_cid(id);
    if dtls13 {
        let secret = Secret::new(&[7; 48][..suite.hash_bytes()]).unwrap();
        tx.install_tx(3, suite, &secret).unwrap();
        rx.install_rx(3, suite, &secret).unwrap();
    } else {
        let keys = Keys12::new(suite, &[7; 32][..suite.key_bytes()], &[8; 12][..suite.fixed_iv_bytes_12()]).unwrap();
        tx.install_tx12(&keys).unwrap();
        rx.install_rx12(&keys).unwrap();
    }
    (tx, rx)
}
