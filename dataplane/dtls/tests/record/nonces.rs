//! No two records are sealed under one key with one nonce, whatever is asked of the layer in whatever order.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ringfort_dtls::record::{ContentType, SealError, Suite};

use crate::pair::{Version, must_open, pair};

#[derive(Clone, Debug)]
enum Ask {
    Seal(usize),
    InPlace(usize),
    Padded(usize),
    Again(usize),
    TooSmall,
    TooLong,
    Batch(usize),
    Update,
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        4 => (0..300_usize).prop_map(Ask::Seal),
        2 => (0..300_usize).prop_map(Ask::InPlace),
        1 => (0..300_usize).prop_map(Ask::Padded),
        2 => (0..300_usize).prop_map(Ask::Again),
        1 => Just(Ask::TooSmall),
        1 => Just(Ask::TooLong),
        1 => (0..5_usize).prop_map(Ask::Batch),
        1 => Just(Ask::Update),
    ]
}

proptest! {
    /// The receiver says which number each record was sealed under: had it been another, the record would not open. Each
    /// epoch has its own key and IV, so numbers that differ are nonces that differ.
    #[test]
    fn every_number_is_used_once(version in prop::sample::select(&Version::BOTH[..]), asks in prop::collection::vec(ask(), 1..80)) {
        let (mut tx, mut rx) = pair(version, Suite::Aes128GcmSha256, &[4; 8]);
        let mut used = BTreeSet::new();
        for ask in asks {
            let epoch = tx.tx_epoch();
            let mut out = vec![0; 3_000];
            let mut records = Vec::new();
            match ask {
                Ask::Seal(size) => {
                    let length = tx.seal(ContentType::ApplicationData, &vec![1; size], &mut out).unwrap();
                    records.push(out[..length].to_vec());
                }
                Ask::Padded(size) => {
                    let length = tx.seal_padded(ContentType::ApplicationData, &[2; 9], size, &mut out).unwrap();
                    records.push(out[..length].to_vec());
                }
                Ask::InPlace(size) => {
                    let range = tx.seal_in_place(ContentType::ApplicationData, 60..60 + size, &mut out).unwrap();
                    records.push(out[range].to_vec());
                }
                Ask::Again(size) => match tx.seal_in(epoch - 1, ContentType::Handshake, &vec![3; size], &mut out) {
                    // Plaintext has neither key nor nonce.
                    Ok(_) if epoch == 1 => (),
                    Ok(length) => records.push(out[..length].to_vec()),
                    Err(error) => prop_assert_eq!(error, SealError::NoSuchEpoch),
                },
                Ask::TooSmall => {
                    let refused = tx.seal(ContentType::ApplicationData, &[4; 50], &mut out[..60]);
                    prop_assert_eq!(refused, Err(SealError::BufferTooSmall));
                }
                Ask::TooLong => {
                    let refused = tx.seal(ContentType::ApplicationData, &[0; 16_385], &mut out);
                    prop_assert_eq!(refused, Err(SealError::ContentTooLong));
                }
                Ask::Batch(packets) => {
                    let packets = vec![[5_u8; 100]; packets];
                    let batch = tx
                        .seal_batch(ContentType::ApplicationData, packets.iter().map(|packet| &packet[..]), &mut out)
                        .unwrap();
                    prop_assert_eq!(batch.packets, packets.len());
                    records.extend(out[..batch.bytes].chunks(batch.stride_bytes.max(1)).map(<[u8]>::to_vec));
                }
                Ask::Update if version == Version::V13 => {
                    prop_assert_eq!(rx.update_rx(), tx.update_tx());
                }
                Ask::Update => (),
            }
            for mut record in records {
                let explicit = (version == Version::V12).then(|| record[3..11].to_vec());
                if let Some(number) = &explicit {
                    prop_assert_eq!(&record[21..29], &number[..], "the explicit nonce is epoch and sequence number");
                }
                let number = must_open(&mut rx, &mut record).number;
                prop_assert!(used.insert(number), "{:?} twice", number);
            }
        }
    }
}
