//! Records and keys as another implementation computes them.
//!
//! The expected values come from Python's `hmac` (HKDF-Expand written out, RFC 5869 §2.3) and `cryptography`'s AESGCM,
//! ChaCha20Poly1305, AES-ECB and ChaCha20, put together by the text of RFC 9147 §4 and §5.9, RFC 6347 §4.1.2, RFC 5288,
//! RFC 7905 and RFC 9146 §5.3. For DTLS 1.3 the secret is the bytes 0, 1, 2, … in the length of the hash, and the epoch 3:
//!
//! - `short`: sequence 0, no connection id, application data "ringfort";
//! - `long`: sequence 0x12fffe, connection id c0…c7, handshake, five bytes of 1 and three bytes of padding;
//! - `updated`: the first record after "traffic upd", an ACK of two zero bytes.
//!
//! - [`MINIMAL`]: AES-128 only; sequence 0x2ff in eight bits, no length, application data "ringfort".
//!
//! For DTLS 1.2 the key is the bytes 0, 1, 2, …, the fixed IV 0x40, 0x41, …, and the epoch 1:
//!
//! - `plain`: sequence 0, handshake "ringfort";
//! - `with_id`: sequence 0x123456789abc, connection id c0…c7, application data "ringfort" and four bytes of padding.

use super::header::Header;
use super::*;
use crate::cid::ConnectionId;

struct Vector {
    suite: Suite,
    key: &'static str,
    iv: &'static str,
    sequence_key: &'static str,
    updated_secret: &'static str,
    short: &'static str,
    long: &'static str,
    updated: &'static str,
    plain: &'static str,
    with_id: &'static str,
}

const LONG_SEQUENCE: u64 = 0x12_fffe;
const WITH_ID_SEQUENCE: u64 = 0x1234_5678_9abc;
const ID: [u8; 8] = [0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];

const MINIMAL: [u8; 27] =
    *b"\x23\xd2\x8a\x54\x41\x18\x22\xad\xee\x72\x56\x78\xbc\xde\x1c\x75\x04\xed\xc3\xb1\xfa\x2f\x35\xb1\xf7\x86\x75";

const VECTORS: [Vector; 3] = [
    Vector {
        suite: Suite::Aes128GcmSha256,
        key: "cc95abc258d309424ddbf7cba68bd77e",
        iv: "6d3299305dd209fc865cf8f1",
        sequence_key: "c5b1a0649ea4fdafbe7e256665068222",
        updated_secret: "ad8aa21a3d874bbebf9fdf442aafe175072af91c39af50b6ac26113e54981ae0",
        short: "2ff5c80019a9e60bf2023067fa5f7312f6900aae2d1fea2510bcb6f84113",
        long: "3fc0c1c2c3c4c5c6c773590019ec88c80781c8b70eecf69bd44c010769d8ff535a81c33ef48b",
        updated: "2c44af001317429c3c8b7a0cebfc1e95b66c0263237217d5",
        plain: "16fefd0001000000000000002000010000000000001c2c43f42ae84039bb8f70517740fa1d38a1c4cc4cb22e6b",
        with_id: "19fefd0001123456789abcc0c1c2c3c4c5c6c700250001123456789abc\
            02f74507feacad5177db2676da8af44018ccedb95172590e54f2b4d601",
    },
    Vector {
        suite: Suite::Aes256GcmSha384,
        key: "d6732c55efc102933ffe3af6922bdb7fe44d18f2b7307173758bfeb457a6f9bb",
        iv: "8ae6b315daa064c6dfa5f10a",
        sequence_key: "fc6f78156052e019518fb3ea0d77c796ca2da8796cc26b8e42c5b5395a72af1d",
        updated_secret: "86e8e99fe9f2aabdae282580b8ab4a546eca9c0d948c30e48be72e08a4d816fd08cc79f761c5055e83a90420ee1c4857",
        short: "2f7da20019bc0695b773ea69fb5a43121064f6725e5625775bbc853d8fdf",
        long: "3fc0c1c2c3c4c5c6c710f50019e3cab6c0a23f3d41a78436409748914766787bdb81166b73d7",
        updated: "2c809b00137ea559476c9c8925470369f831f1bd4e7b3537",
        plain: "16fefd0001000000000000002000010000000000008aa769a21634c3fcd2955607fe03693f83c77549ac74be71",
        with_id: "19fefd0001123456789abcc0c1c2c3c4c5c6c700250001123456789abc\
            9b7215849af7d9c57f8f01698768b520d23dc0d7ad01befb3ffb3a4dd6",
    },
    Vector {
        suite: Suite::ChaCha20Poly1305Sha256,
        key: "fa36130205a96cbeb292e37361db797a5292833e60912c992462e04b0eba0ecd",
        iv: "6d3299305dd209fc865cf8f1",
        sequence_key: "534890654f2b1ca72683f148cdbae6a98ffeaaad7e23fc9e693486e2a92b6892",
        updated_secret: "ad8aa21a3d874bbebf9fdf442aafe175072af91c39af50b6ac26113e54981ae0",
        short: "2faaeb0019dd92f56343b9cc4674593f86ccd139edbfe251ead28d23b8b2",
        long: "3fc0c1c2c3c4c5c6c7bf7d0019a85063c76b6bb681f36828b35344d0a6683d1bc618fdfa5e7c",
        updated: "2c59c00013c8b3831af760b668957adbcdb13557f38b6d62",
        plain: "16fefd000100000000000000186b1483de5d308ef3550a9473c4d3ba232362bd5231a5a5b3",
        with_id: "19fefd0001123456789abcc0c1c2c3c4c5c6c7001d\
            4e87c4a535b0632a3bb53b728ed59689bdf9d2b585db32c1c3924d2585",
    },
];

#[test]
fn keys_of_dtls_1_3() {
    for vector in VECTORS {
        let secret = secret(vector.suite);
        for (label, expected) in [("key", vector.key), ("iv", vector.iv), ("sn", vector.sequence_key)] {
            let mut out = vec![0; expected.len() / 2];
            expand_label(vector.suite, &secret, label, &[], &mut out).unwrap();
            assert_eq!(hex(&out), expected, "{:?} {label}", vector.suite);
        }
        let updated = derive_secret(vector.suite, &secret, "traffic upd", &[]).unwrap();
        assert_eq!(hex(updated.as_bytes()), vector.updated_secret);
    }
}

#[test]
fn records_of_dtls_1_3() {
    let id = ConnectionId::new(&ID).unwrap();
    for vector in VECTORS {
        let secret = secret(vector.suite);
        let mut tx = Sealer13::new(vector.suite, &secret, 3).unwrap();
        let mut rx = Opener13::new(vector.suite, &secret, 3).unwrap();
        let mut out = [0; 100];

        let length = tx.seal(ContentType::ApplicationData, b"ringfort", 0, &ConnectionId::NONE, &mut out).unwrap();
        assert_eq!(hex(&out[..length]), vector.short);
        assert_eq!(open13(&mut rx, &mut out[..length]), (ContentType::ApplicationData, b"ringfort".to_vec(), 0));

        tx.skip_to(LONG_SEQUENCE);
        rx.skip_to(LONG_SEQUENCE);
        let length = tx.seal(ContentType::Handshake, &[1; 5], 5 + 1 + 3, &id, &mut out).unwrap();
        assert_eq!(hex(&out[..length]), vector.long);
        assert_eq!(open13(&mut rx, &mut out[..length]), (ContentType::Handshake, vec![1; 5], LONG_SEQUENCE));

        let (mut tx, mut rx) = (tx.next_epoch().unwrap(), rx.next_epoch().unwrap());
        let length = tx.seal(ContentType::Ack, &[0; 2], 0, &ConnectionId::NONE, &mut out).unwrap();
        assert_eq!(hex(&out[..length]), vector.updated);
        assert_eq!(open13(&mut rx, &mut out[..length]), (ContentType::Ack, vec![0; 2], 0));
    }
}

/// The shortest header that a peer may write: it is read, though we write none.
#[test]
fn the_minimal_header_of_dtls_1_3() {
    let mut rx = Opener13::new(Suite::Aes128GcmSha256, &secret(Suite::Aes128GcmSha256), 3).unwrap();
    rx.skip_to(0x2f0);
    let mut record = MINIMAL;
    assert_eq!(open13(&mut rx, &mut record), (ContentType::ApplicationData, b"ringfort".to_vec(), 0x2ff));
}

#[test]
fn records_of_dtls_1_2() {
    let id = ConnectionId::new(&ID).unwrap();
    let key: Vec<u8> = (0..32).collect();
    let fixed_iv: Vec<u8> = (0x40..0x4c).collect();
    for vector in VECTORS {
        let suite = vector.suite;
        let keys = Keys12::new(suite, &key[..suite.key_bytes()], &fixed_iv[..suite.fixed_iv_bytes_12()]).unwrap();
        let (mut tx, mut rx) = (Sealer12::new(&keys, 1).unwrap(), Opener12::new(&keys, 1).unwrap());
        let mut out = [0; 100];

        let length = tx.seal(ContentType::Handshake, b"ringfort", 0, &ConnectionId::NONE, &mut out).unwrap();
        assert_eq!(hex(&out[..length]), vector.plain);
        assert_eq!(open12(&mut rx, &mut out[..length]), (ContentType::Handshake, b"ringfort".to_vec(), 0));

        tx.skip_to(WITH_ID_SEQUENCE);
        let length = tx.seal(ContentType::ApplicationData, b"ringfort", 8 + 1 + 4, &id, &mut out).unwrap();
        assert_eq!(hex(&out[..length]), vector.with_id);
        let expected = (ContentType::ApplicationData, b"ringfort".to_vec(), WITH_ID_SEQUENCE);
        assert_eq!(open12(&mut rx, &mut out[..length]), expected);
    }
}

fn secret(suite: Suite) -> Secret {
    let bytes: Vec<u8> = (0..48).collect();
    Secret::new(&bytes[..suite.hash_bytes()]).unwrap()
}

fn open13(rx: &mut Opener13, datagram: &mut [u8]) -> (ContentType, Vec<u8>, u64) {
    let Some(Header::Unified(header)) = Header::parse(datagram, 0, ID.len()) else { panic!("no unified header") };
    let opened = rx.open(&header, datagram).unwrap();
    (opened.content_type, datagram[opened.content].to_vec(), opened.number.sequence)
}

fn open12(rx: &mut Opener12, datagram: &mut [u8]) -> (ContentType, Vec<u8>, u64) {
    let Some(Header::Plain(header)) = Header::parse(datagram, 0, ID.len()) else { panic!("no plain header") };
    let opened = rx.open(&header, datagram).unwrap();
    (opened.content_type, datagram[opened.content].to_vec(), opened.number.sequence)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
