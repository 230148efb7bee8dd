//! What must be dropped is, and the next good record opens all the same.

use proptest::prelude::*;
use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::record::{ContentType, Dropped, KeyError, Open, RecordLayer, SealError, Suite, Version as Field};

use crate::pair::{CONNECTION_ID, Version, keys12, must_open, open_one, pair, secret};

/// A sealed record of `content` in a vector of its length.
fn sealed(tx: &mut RecordLayer, content: &[u8]) -> Vec<u8> {
    let mut record = vec![0; content.len() + tx.overhead()];
    let length = tx.seal(ContentType::ApplicationData, content, &mut record).unwrap();
    record.truncate(length);
    record
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any bit of any record: header, id, number, length, ciphertext and tag.
    #[test]
    fn a_flipped_bit_is_dropped(
        suite in prop::sample::select(&Suite::ALL[..]),
        version in prop::sample::select(&Version::BOTH[..]),
        with_id in any::<bool>(),
        position in any::<prop::sample::Index>(),
        size in 0..200_usize,
    ) {
        let (mut tx, mut rx) = pair(version, suite, if with_id { CONNECTION_ID } else { &[] });
        must_open(&mut rx, &mut sealed(&mut tx, b"first"));
        let good = sealed(&mut tx, &vec![7; size]);
        let bit = position.index(good.len() * 8);
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let mut offset = 0;
        loop {
            match rx.open(&mut bad, &mut offset) {
                Open::Dropped(_) => (),
                Open::End => break,
                // In DTLS 1.2 the flip may have made it a record of epoch 0, which is nobody's.
                Open::Plaintext(_) => prop_assert!(version == Version::V12 && !with_id),
                Open::Record(opened) => prop_assert!(false, "bit {} gave {:?}", bit, opened),
            }
        }
        let mut copy = good.clone();
        must_open(&mut rx, &mut copy);
        must_open(&mut rx, &mut sealed(&mut tx, b"next"));
        prop_assert_eq!(open_one(&mut rx, &mut good.clone()), Open::Dropped(Dropped::Replayed));
    }
}

#[test]
fn old_epochs_are_forgotten() {
    let suite = Suite::Aes128GcmSha256;
    let (mut tx, mut rx) = pair(Version::V13, suite, &[]);
    let (early, late) = (sealed(&mut tx, b"early"), sealed(&mut tx, b"late"));
    rx.update_rx().unwrap();
    must_open(&mut rx, &mut early.clone());
    rx.drop_rx(3);
    assert_eq!(open_one(&mut rx, &mut late.clone()), Open::Dropped(Dropped::UnknownEpoch));
    tx.update_tx().unwrap();
    must_open(&mut rx, &mut sealed(&mut tx, b"new"));
    assert_eq!(rx.install_rx(3, suite, &secret(suite, 3)), Err(KeyError::EpochUsed), "its window is gone");
    rx.drop_rx(4);
    assert_eq!(rx.rx_epoch(), 0);
    assert_eq!(open_one(&mut rx, &mut sealed(&mut tx, b"new")), Open::Dropped(Dropped::UnknownEpoch));
}

#[test]
fn at_most_four_read_epochs() {
    let (mut tx, mut rx) = pair(Version::V13, Suite::Aes128GcmSha256, &[]);
    let first = sealed(&mut tx, b"epoch 3");
    tx.update_tx().unwrap();
    let second = sealed(&mut tx, b"epoch 4");
    for _ in 0..3 {
        rx.update_rx().unwrap();
    }
    must_open(&mut rx, &mut first.clone());
    rx.update_rx().unwrap();
    // Epoch 7 has the bits of epoch 3, and only it is held.
    assert_eq!(open_one(&mut rx, &mut first.clone()), Open::Dropped(Dropped::NotAuthentic));
    must_open(&mut rx, &mut second.clone());
}

#[test]
fn a_write_epoch_is_never_installed_twice() {
    let suite = Suite::Aes128GcmSha256;
    let (mut tx, _) = pair(Version::V13, suite, &[]);
    for epoch in [0, 2, 3] {
        assert_eq!(tx.install_tx(epoch, suite, &secret(suite, epoch)), Err(KeyError::EpochUsed));
    }
    tx.drop_tx(3);
    assert_eq!(tx.install_tx(3, suite, &secret(suite, 3)), Err(KeyError::EpochUsed));
    let mut out = [0; 100];
    assert_eq!(tx.seal_in(3, ContentType::Ack, &[], &mut out), Err(SealError::NoSuchEpoch));
    assert_eq!(tx.seal(ContentType::ApplicationData, b"in the clear", &mut out), Err(SealError::NoSuchEpoch));
    let (mut tx, mut rx) = pair(Version::V12, suite, &[]);
    assert_eq!(tx.install_tx12(&keys12(suite)), Err(KeyError::EpochUsed));
    assert_eq!(rx.install_rx12(&keys12(suite)), Err(KeyError::EpochUsed));
    assert_eq!((tx.update_tx(), rx.update_rx()), (Err(KeyError::NoFurtherEpoch), Err(KeyError::NoFurtherEpoch)));
    assert_eq!(rx.update_tx(), Err(KeyError::NothingInstalled));
}

#[test]
fn a_foreign_connection_id_takes_the_datagram_with_it() {
    for version in Version::BOTH {
        let suite = Suite::Aes128GcmSha256;
        let (mut tx, mut rx) = pair(version, suite, CONNECTION_ID);
        let (mut without, _) = pair(version, suite, &[]);
        tx.set_peer_cid(ConnectionId::new(&[9; 8]).unwrap());
        let foreign = sealed(&mut tx, b"foreign");
        tx.set_peer_cid(ConnectionId::new(CONNECTION_ID).unwrap());
        for bad in [foreign, sealed(&mut without, b"none")] {
            let mut datagram = [bad, sealed(&mut tx, b"good")].concat();
            let mut offset = 0;
            let expected = Open::Dropped(Dropped::ConnectionId);
            assert_eq!(rx.open(&mut datagram, &mut offset), expected, "{version:?}");
            assert_eq!(rx.open(&mut datagram, &mut offset), Open::End);
        }
        let (_, mut expects_none) = pair(version, suite, &[]);
        let got = open_one(&mut expects_none, &mut sealed(&mut tx, b"unasked for"));
        assert_eq!(got, Open::Dropped(Dropped::Malformed), "{version:?}");
    }
}

#[test]
fn only_some_things_may_be_in_the_clear() {
    let mut rx = RecordLayer::new();
    for (content_type, taken) in [(20, true), (21, true), (22, true), (23, false), (25, false), (26, true)] {
        let mut record = [content_type, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 5];
        let open = open_one(&mut rx, &mut record);
        assert_eq!(matches!(open, Open::Plaintext(_)), taken, "{content_type}");
        if let Open::Plaintext(plain) = open {
            assert_eq!((plain.number.epoch, plain.number.sequence), (0, 9));
            assert_eq!((plain.content, plain.version), (13..14, Field::DTLS_1_2));
        }
    }
    let mut protected = [22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 1, 5];
    assert_eq!(open_one(&mut rx, &mut protected), Open::Dropped(Dropped::UnknownEpoch));
}

#[test]
fn plaintext_numbers_can_be_mirrored() {
    let mut tx = RecordLayer::new();
    tx.set_plaintext_sequence(77);
    assert_eq!(tx.next_number(0).unwrap().sequence, 77);
    let mut out = [0; 20];
    tx.seal(ContentType::Handshake, b"hi", &mut out).unwrap();
    assert_eq!(out[..15], [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 77, 0, 2, b'h', b'i']);
    assert_eq!(tx.next_number(0).unwrap().sequence, 78);
}
