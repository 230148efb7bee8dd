//! What only a key near its limit shows, and what has become of keys.

use super::*;
use crate::record::{Keys12, Secret, Suite};

/// A key of DTLS 1.2 has no successor. When packets have used it up, or somebody has guessed too often, the peer hears of the
/// end, and nothing is sealed any more.
#[test]
fn a_key_that_is_used_up_ends_the_association_with_a_goodbye() {
    for is_ours in [true, false] {
        let suite = Suite::Aes128GcmSha256;
        let keys = Keys12::new(suite, &[1; 16], &[2; 4]).unwrap();
        let (mut records, mut peer) = (Box::new(RecordLayer::new()), RecordLayer::new());
        records.install_tx12(&keys).unwrap();
        records.install_rx12(&keys).unwrap();
        peer.install_rx12(&keys).unwrap();
        peer.install_tx12(&keys).unwrap();
        let secret = Secret::new(&[3; 32]).unwrap();
        let (exporter, post) = (ExporterSecret::new(suite, secret), Post::V12(PostHandshake12::default()));
        let mut association = Association {
            records,
            exchange: exchange(&Settings::default(), 0, InTheClear::SERVER),
            stage: Stage::Established(Established { peer: None, exporter, post }),
            unix_offset: Duration::ZERO,
            events: VecDeque::new(),
            newest: RecordNumber { epoch: 0, sequence: 0 },
            has_news: false,
        };
        let now = BootInstant::from_nanos(1);
        let mut record = [0; 100];
        assert!(association.seal(b"packet", &mut record).is_some());
        association.records.use_up_12(is_ours, !is_ours);
        if is_ours {
            assert!(association.seal(b"packet", &mut record).is_none());
        } else {
            let length = peer.seal(ContentType::ApplicationData, b"packet", &mut record).unwrap();
            association.handle_datagram(&mut record[..length], now, |received| {
                assert!(matches!(received, Received::Discarded(Discarded::Record(Dropped::ForgeryLimit))));
            });
        }
        assert_eq!(association.poll_event(), Some(Event::Ended(Ended::KeyLimit)));
        let mut goodbye = association.poll_transmit().unwrap();
        let Open::Record(opened) = peer.open(&mut goodbye, &mut 0) else { panic!() };
        assert_eq!((opened.content_type, &goodbye[opened.content]), (ContentType::Alert, &[1, 0][..]));
        assert!(association.seal(b"packet", &mut record).is_none());
        assert_eq!(association.poll_timeout(), None);
        assert_eq!((association.records.tx_epoch(), association.records.rx_epoch()), (0, 0), "the keys are gone");
    }
}

/// RFC 9147 §4.2.1, §8: write keys go as soon as nothing can have to be sent again under them.
#[test]
fn old_write_keys_go_with_the_ack_behind_them() {
    let (suite, secret) = (Suite::Aes128GcmSha256, Secret::new(&[3; 32]).unwrap());
    let (mut records, mut peer) = (Box::new(RecordLayer::new()), RecordLayer::new());
    for layer in [&mut *records, &mut peer] {
        for epoch in [2, 3] {
            layer.install_tx(epoch, suite, &secret).unwrap();
            layer.install_rx(epoch, suite, &secret).unwrap();
        }
    }
    let now = BootInstant::from_nanos(1);
    let post = Post::V13(PostHandshake::new(true, Duration::from_secs(10), now));
    let mut association = Association {
        records,
        exchange: exchange(&Settings::default(), 0, InTheClear::CLIENT),
        stage: Stage::Established(Established { peer: None, exporter: ExporterSecret::new(suite, secret), post }),
        unix_offset: Duration::ZERO,
        events: VecDeque::new(),
        newest: RecordNumber { epoch: 0, sequence: 0 },
        has_news: false,
    };
    assert!(association.records.next_number(2).is_some());
    association.update_keys(now);
    assert_eq!(association.records.next_number(2), None, "nothing of the handshake is under way");
    assert!(association.poll_transmit().is_some());
    assert_eq!(association.records.tx_epoch(), 3, "before the ACK");
    let mut ack = [0; 100];
    let content = [&[0, 16][..], &3_u64.to_be_bytes(), &0_u64.to_be_bytes()].concat();
    let length = peer.seal(ContentType::Ack, &content, &mut ack).unwrap();
    association.handle_datagram(&mut ack[..length], now, |_| ());
    assert_eq!((association.records.tx_epoch(), association.records.next_number(3)), (4, None));
}
