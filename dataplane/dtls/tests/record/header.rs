//! Headers: whatever the bytes, no panic, and no range that leaves the datagram.

use proptest::prelude::*;
use ringfort_dtls::record::{ContentType, Header, Open, RecordLayer, Version, write_plaintext};

/// Bytes that look like a record often enough.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![0x20..0x40_u8, 20..27_u8, any::<u8>()];
    let length = prop_oneof![Just(None), (0..80_u16).prop_map(Some)];
    (first, length, prop::collection::vec(any::<u8>(), 0..120)).prop_map(|(first, length, mut bytes)| {
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        // Where each form has its length field.
        for at in [3, 11, 13, 19] {
            if let (Some(length), Some(field)) = (length, bytes.get_mut(at..at + 2)) {
                field.copy_from_slice(&length.to_be_bytes());
            }
        }
        bytes
    })
}

proptest! {
    #[test]
    fn ranges_are_in_order_and_within(bytes in datagram(), offset in 0..4_usize, id in prop_oneof![Just(0), Just(8), 0..21_usize]) {
        let Some(header) = Header::parse(&bytes, offset, id) else { return Ok(()) };
        prop_assert!(header.end() <= bytes.len());
        prop_assert!(header.end() > offset);
        match header {
            Header::Plain(plain) => {
                prop_assert_eq!(plain.start, offset);
                prop_assert_eq!(plain.connection_id.start, offset + 11);
                let with_id = plain.content_type == ContentType::Tls12Cid;
                prop_assert_eq!(plain.connection_id.len(), if with_id { id } else { 0 });
                prop_assert_eq!(plain.fragment.start, plain.connection_id.end + 2);
                prop_assert!(plain.fragment.start <= plain.fragment.end);
            }
            Header::Unified(unified) => {
                prop_assert_eq!(unified.start, offset);
                prop_assert_eq!(unified.connection_id.start, offset + 1);
                prop_assert!([0, id].contains(&unified.connection_id.len()));
                prop_assert_eq!(unified.sequence.start, unified.connection_id.end);
                prop_assert!((1..=2).contains(&unified.sequence.len()));
                let field = unified.ciphertext.start - unified.sequence.end;
                prop_assert!(field == 0 && unified.ciphertext.end == bytes.len() || field == 2);
                prop_assert!(unified.ciphertext.len() >= 16);
            }
        }
    }

    #[test]
    fn a_datagram_is_walked_to_its_end(mut bytes in prop::collection::vec(datagram(), 1..5).prop_map(|all| all.concat())) {
        let (mut layer, mut offset) = (RecordLayer::new(), 0);
        loop {
            let before = offset;
            let open = layer.open(&mut bytes, &mut offset);
            if open == Open::End {
                break;
            }
            prop_assert!(offset > before && offset <= bytes.len());
        }
    }
}

#[test]
fn forms_that_are_refused() {
    let mut record = [0; 40];
    let length = write_plaintext(ContentType::Handshake, Version::DTLS_1_2, 5, b"hello", &mut record).unwrap();
    let whole = &record[..length];
    assert!(Header::parse(whole, 0, 0).is_some());
    assert!(Header::parse(&whole[..length - 1], 0, 0).is_none(), "cut off");
    assert!(Header::parse(&[], 0, 0).is_none());
    for first in [0, 19, 24, 27, 31, 64, 255] {
        let mut other = whole.to_vec();
        other[0] = first;
        assert!(Header::parse(&other, 0, 0).is_none(), "content type {first}");
    }
    let mut with_id = whole.to_vec();
    with_id[0] = 25;
    assert!(Header::parse(&with_id, 0, 0).is_none(), "a connection id where none was agreed on");
    // Unified: C, S, L and epoch bits, sequence number, length, ciphertext.
    let unified = |first: u8, rest: usize| Header::parse(&[&[first], &vec![0; rest][..]].concat(), 0, 0).is_some();
    assert!(unified(0b0010_0000, 1 + 16));
    assert!(!unified(0b0010_0000, 1 + 15), "too short for the mask");
    assert!(unified(0b0010_1011, 2 + 16));
    assert!(!unified(0b0010_1111, 2 + 2 + 40), "its length says 0");
    assert!(!unified(0b0011_1011, 40), "a connection id where none was agreed on");
    let over = 16_384 + 256;
    assert!(unified(0b0010_0000, 1 + over));
    assert!(!unified(0b0010_0000, 2 + over), "longer than any record");
}
