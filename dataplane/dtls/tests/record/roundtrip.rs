//! What is sealed is opened: every suite, version, connection id and size.

use ringfort_dtls::record::{ContentType, Open, RecordLayer, SealError, Suite};

use crate::pair::{CONNECTION_ID, Version, must_open, open_one, pair, secret};

#[test]
fn every_suite_version_and_size() {
    for (suite, version) in Suite::ALL.into_iter().flat_map(|suite| Version::BOTH.map(|version| (suite, version))) {
        for id in [&[][..], CONNECTION_ID, &[9], &[7; 20]] {
            let (mut tx, mut rx) = pair(version, suite, id);
            // A connection id of DTLS 1.2 takes one byte of the content for its type (RFC 9146 §4).
            let size_max = 16_384 - usize::from(version == Version::V12 && !id.is_empty());
            for (sequence, size) in [0, 1, 64, 1_300, size_max].into_iter().enumerate() {
                let content: Vec<u8> = (0..size).map(|at| at as u8).collect();
                let mut datagram = vec![0xee; size + tx.overhead()];
                let length = tx.seal(ContentType::ApplicationData, &content, &mut datagram).unwrap();
                assert_eq!(length, datagram.len(), "overhead() is exact");
                let opened = must_open(&mut rx, &mut datagram);
                assert_eq!(opened.content_type, ContentType::ApplicationData);
                assert_eq!(opened.number.sequence, sequence as u64);
                assert_eq!(&datagram[opened.content], content);
            }
            let refused = tx.seal(ContentType::ApplicationData, &vec![0; size_max + 1], &mut [0; 20_000]);
            assert_eq!(refused, Err(SealError::ContentTooLong));
        }
    }
}

#[test]
fn a_datagram_of_several_records() {
    let suite = Suite::Aes128GcmSha256;
    let (mut tx, mut rx) = (RecordLayer::new(), RecordLayer::new());
    let mut datagram = vec![0; 1_000];
    let mut end = tx.seal(ContentType::Handshake, b"hello", &mut datagram).unwrap();
    for epoch in [2, 3] {
        tx.install_tx(epoch, suite, &secret(suite, epoch)).unwrap();
        rx.install_rx(epoch, suite, &secret(suite, epoch)).unwrap();
        end += tx.seal(ContentType::Handshake, &[epoch as u8; 9], &mut datagram[end..]).unwrap();
    }
    end += tx.seal_in(2, ContentType::Ack, b"again", &mut datagram[end..]).unwrap();
    datagram.truncate(end);

    let mut offset = 0;
    let Open::Plaintext(first) = rx.open(&mut datagram, &mut offset) else { panic!("plaintext") };
    assert_eq!(&datagram[first.content], b"hello");
    for (epoch, sequence, content) in [(2, 0, &[2; 9][..]), (3, 0, &[3; 9]), (2, 1, b"again")] {
        let Open::Record(opened) = rx.open(&mut datagram, &mut offset) else { panic!("epoch {epoch}") };
        assert_eq!((opened.number.epoch, opened.number.sequence), (epoch, sequence));
        assert_eq!(&datagram[opened.content], content);
    }
    assert_eq!(rx.open(&mut datagram, &mut offset), Open::End);
}

#[test]
fn sealing_in_place_gives_the_same_record() {
    for (suite, version) in Suite::ALL.into_iter().flat_map(|suite| Version::BOTH.map(|version| (suite, version))) {
        for id in [&[][..], CONNECTION_ID] {
            let (mut copying, _) = pair(version, suite, id);
            let (mut placing, mut rx) = pair(version, suite, id);
            let mut apart = vec![0; 100 + copying.overhead()];
            copying.seal(ContentType::ApplicationData, &[5; 100], &mut apart).unwrap();
            let mut buffer = vec![5; 200];
            let record = placing.seal_in_place(ContentType::ApplicationData, 60..160, &mut buffer).unwrap();
            assert_eq!(&buffer[record], apart);
            must_open(&mut rx, &mut apart);
        }
    }
}

#[test]
fn padding_is_taken_off_again() {
    for (version, id) in [(Version::V13, &[][..]), (Version::V13, CONNECTION_ID), (Version::V12, CONNECTION_ID)] {
        let (mut tx, mut rx) = pair(version, Suite::Aes128GcmSha256, id);
        let mut datagram = vec![0; 2_000];
        let length = tx.seal_padded(ContentType::ApplicationData, b"short\0", 1_000, &mut datagram).unwrap();
        assert_eq!(length, 1_000 - 1 + tx.overhead());
        let opened = must_open(&mut rx, &mut datagram[..length]);
        assert_eq!(&datagram[opened.content], b"short\0");
    }
}

#[test]
fn a_batch_has_one_stride() {
    let (mut tx, mut rx) = pair(Version::V13, Suite::Aes128GcmSha256, CONNECTION_ID);
    let packets = [vec![1; 900], vec![2; 900], vec![3; 400], vec![4; 400]];
    let mut out = vec![0; 10_000];
    let batch = tx.seal_batch(ContentType::ApplicationData, packets.iter().map(Vec::as_slice), &mut out).unwrap();
    assert_eq!((batch.packets, batch.stride_bytes), (3, 900 + tx.overhead()));
    let mut seen = Vec::new();
    rx.open_batch(&mut out[..batch.bytes], batch.stride_bytes, |open, datagram| match open {
        Open::Record(opened) => seen.push(datagram[opened.content].to_vec()),
        other => panic!("{other:?}"),
    });
    assert_eq!(seen, packets[..3]);
}

#[test]
fn key_updates_on_both_sides() {
    let (mut tx, mut rx) = pair(Version::V13, Suite::Aes128GcmSha256, CONNECTION_ID);
    let mut datagram = [0; 100];
    for epoch in 4..40 {
        let mut late = [0; 100];
        let late_length = tx.seal(ContentType::ApplicationData, b"late", &mut late).unwrap();
        assert_eq!((rx.update_rx().unwrap(), tx.update_tx().unwrap()), (epoch, epoch));
        let length = tx.seal(ContentType::ApplicationData, b"new", &mut datagram).unwrap();
        let opened = must_open(&mut rx, &mut datagram[..length]);
        assert_eq!((opened.number.epoch, opened.number.sequence), (epoch, 0));
        assert_eq!(must_open(&mut rx, &mut late[..late_length]).number.epoch, epoch - 1);
    }
    assert!(matches!(open_one(&mut rx, &mut []), Open::End));
}
