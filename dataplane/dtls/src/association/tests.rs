//! What only a key near its limit shows.

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
    }
}
