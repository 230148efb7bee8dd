//! Two record layers that hold each other's keys.

use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::record::{Keys12, Open, Opened, RecordLayer, Secret, Suite};

/// Protocol version of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V12,
    V13,
}

impl Version {
    pub(crate) const BOTH: [Self; 2] = [Self::V12, Self::V13];
}

/// The connection id that the receiver of a pair gave out.
pub(crate) const CONNECTION_ID: &[u8] = &[0xc1, 2, 3, 4, 5, 6, 7, 8];

/// The secret of an epoch, as long as the suite's hash.
pub(crate) fn secret(suite: Suite, epoch: u64) -> Secret {
    let bytes = [epoch as u8 ^ 0x5a; 48];
    Secret::new(&bytes[..suite.hash_bytes()]).unwrap()
}

/// One direction's part of a key block.
pub(crate) fn keys12(suite: Suite) -> Keys12 {
    Keys12::new(suite, &[0x42; 32][..suite.key_bytes()], &[0x17; 12][..suite.fixed_iv_bytes_12()]).unwrap()
}

/// A sender in its first data epoch (1 or 3), and the receiver of what it seals.
pub(crate) fn pair(version: Version, suite: Suite, connection_id: &[u8]) -> (RecordLayer, RecordLayer) {
    let (mut tx, mut rx) = (RecordLayer::new(), RecordLayer::new());
    let id = ConnectionId::new(connection_id).unwrap();
    tx.set_peer_cid(id);
    rx.set_local_cid(id);
    match version {
        Version::V12 => {
            tx.install_tx12(&keys12(suite)).unwrap();
            rx.install_rx12(&keys12(suite)).unwrap();
        }
        Version::V13 => {
            tx.install_tx(3, suite, &secret(suite, 3)).unwrap();
            rx.install_rx(3, suite, &secret(suite, 3)).unwrap();
        }
    }
    (tx, rx)
}

/// Opens the one record of `datagram`.
pub(crate) fn open_one(rx: &mut RecordLayer, datagram: &mut [u8]) -> Open {
    let mut offset = 0;
    rx.open(datagram, &mut offset)
}

/// Opens the one record of `datagram`, which must be the peer's.
pub(crate) fn must_open(rx: &mut RecordLayer, datagram: &mut [u8]) -> Opened {
    match open_one(rx, datagram) {
        Open::Record(opened) => opened,
        other => panic!("{other:?}"),
    }
}
