//! The record layer, with a key oracle: records that its peer sealed, as they are and changed, among bytes of any kind.
//!
//! Held: what was not changed opens once and is what was sealed; what was changed does not open; nothing panics.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::record::{ContentType, Keys12, Open, RecordLayer, Secret, Suite};

const ID: [u8; 8] = [0xc1, 2, 3, 4, 5, 6, 7, 8];

fn pair(first: u8) -> (RecordLayer, RecordLayer) {
    let suite = Suite::ALL[usize::from(first >> 1) % 3];
    let (mut tx, mut rx) = (RecordLayer::new(), RecordLayer::new());
    if first & 8 != 0 {
        let id = ConnectionId::new(&ID).unwrap();
        tx.set_peer_cid(id);
        rx.set_local_cid(id);
    }
    if first & 1 == 0 {
        let secret = Secret::new(&[0x5a; 48][..suite.hash_bytes()]).unwrap();
        tx.install_tx(3, suite, &secret).unwrap();
        rx.install_rx(3, suite, &secret).unwrap();
    } else {
        let keys = Keys12::new(suite, &[0x42; 32][..suite.key_bytes()], &[0x17; 12][..suite.fixed_iv_bytes_12()]);
        let keys = keys.unwrap();
        tx.install_tx12(&keys).unwrap();
        rx.install_rx12(&keys).unwrap();
    }
    (tx, rx)
}

/// Opens all of a datagram; gives what was in the records that opened.
fn open(rx: &mut RecordLayer, datagram: &mut [u8]) -> Vec<(ContentType, Vec<u8>)> {
    let (mut offset, mut opened) = (0, Vec::new());
    for _ in 0..=datagram.len() {
        let before = offset;
        match rx.open(datagram, &mut offset) {
            Open::End => return opened,
            Open::Record(record) => opened.push((record.content_type, datagram[record.content].to_vec())),
            Open::Plaintext(record) => assert!(record.content.end <= datagram.len()),
            Open::Dropped(_) => {}
        }
        assert!(offset > before && offset <= datagram.len());
    }
    panic!("more records than bytes");
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, behind) = rest.split_at(length.min(rest.len()));
    *rest = behind;
    taken
}

fuzz_target!(|data: &[u8]| {
    let Some((first, mut rest)) = data.split_first() else { return };
    let (mut tx, mut rx) = pair(*first);
    for _ in 0..32 {
        let &[op, length, ..] = rest else { return };
        rest = &rest[2..];
        let length = usize::from(length);
        match op % 6 {
            0 => drop(open(&mut rx, &mut take(&mut rest, length).to_vec())),
            1 | 2 => {
                let content = take(&mut rest, length);
                let mut record = vec![0; content.len() + 64];
                let sealed = tx.seal(ContentType::ApplicationData, content, &mut record).unwrap();
                record.truncate(sealed);
                if op % 6 == 1 {
                    let again = record.clone();
                    assert_eq!(open(&mut rx, &mut record), [(ContentType::ApplicationData, content.to_vec())]);
                    assert!(open(&mut rx, &mut again.clone()).is_empty(), "a replay");
                    continue;
                }
                let &[at, bits, ..] = rest else { return };
                rest = &rest[2..];
                let at = usize::from(at) % record.len();
                let (before, untouched) = (record[at], record.clone());
                record[at] ^= bits;
                let opened = open(&mut rx, &mut record.clone());
                if before == record[at] {
                    assert_eq!(opened, [(ContentType::ApplicationData, content.to_vec())]);
                } else {
                    assert!(opened.is_empty(), "a changed record opened");
                    assert_eq!(open(&mut rx, &mut untouched.clone()).len(), 1, "and hurt the true one");
                }
            }
            // A burst of lost records.
            3 => {
                for _ in 0..length {
                    tx.seal(ContentType::ApplicationData, &[], &mut [0; 64]).unwrap();
                }
            }
            // Two records in one datagram, and something behind.
            4 => {
                let content = take(&mut rest, length);
                let mut datagram = Vec::new();
                for _ in 0..2 {
                    let mut record = vec![0; content.len() + 64];
                    let sealed = tx.seal(ContentType::Handshake, content, &mut record).unwrap();
                    datagram.extend_from_slice(&record[..sealed]);
                }
                let behind = usize::from(op / 6);
                datagram.extend_from_slice(take(&mut rest, behind));
                assert_eq!(
                    open(&mut rx, &mut datagram)[..2],
                    [(); 2].map(|()| (ContentType::Handshake, content.to_vec()))
                );
            }
            _ => {
                if tx.update_tx().is_ok() {
                    let old = rx.rx_epoch();
                    rx.update_rx().unwrap();
                    if length % 2 == 0 {
                        rx.drop_rx(old);
                    }
                }
            }
        }
    }
});
