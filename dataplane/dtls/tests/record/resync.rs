//! After a loss that 16 bits cannot tell, the peer is found again, and a forger cannot make that dear.

use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::record::{ContentType, Dropped, Header, Opener13, Sealer13, Suite};

use crate::pair::secret;

/// Records that are lost before a search begins.
const UNTIL_SEARCH: usize = 2;
const CREDITS_MAX: u64 = 16;
const STEPS: u64 = 4;
const FAILURES_PER_CREDIT: u64 = 64;

struct Pair {
    tx: Sealer13,
    rx: Opener13,
}

impl Pair {
    fn new() -> Self {
        let suite = Suite::Aes128GcmSha256;
        let secret = secret(suite, 3);
        Self { tx: Sealer13::new(suite, &secret, 3).unwrap(), rx: Opener13::new(suite, &secret, 3).unwrap() }
    }

    fn seal(&mut self) -> Vec<u8> {
        let mut record = vec![0; 30];
        let length = self.tx.seal(ContentType::ApplicationData, b"data", 0, &ConnectionId::NONE, &mut record).unwrap();
        record.truncate(length);
        record
    }

    fn lose(&mut self, records: usize) {
        for _ in 0..records {
            self.seal();
        }
    }

    fn open(&mut self, mut record: Vec<u8>) -> Result<u64, Dropped> {
        let Some(Header::Unified(header)) = Header::parse(&record, 0, 0) else { panic!("no unified header") };
        self.rx.open(&header, &mut record).map(|opened| {
            assert_eq!(&record[opened.content], b"data");
            opened.number.sequence
        })
    }

    fn open_next(&mut self) -> Result<u64, Dropped> {
        let record = self.seal();
        self.open(record)
    }

    /// A record that the peer never sealed.
    fn forge(&mut self, seed: u8) -> Dropped {
        let mut record = self.seal();
        for byte in &mut record[5..] {
            *byte = byte.wrapping_add(seed | 1);
        }
        self.open(record).unwrap_err()
    }
}

#[test]
fn the_peer_is_found_again_after_a_long_loss() {
    for lost in [32_000, 40_000, 65_536, 100_000, 300_000, 1_000_000] {
        let mut pair = Pair::new();
        for _ in 0..10 {
            pair.open_next().unwrap();
        }
        pair.lose(lost);
        let first_unread = pair.tx.next_number().sequence;
        let mut missed = 0;
        let found = loop {
            match pair.open_next() {
                Ok(sequence) => break sequence,
                Err(reason) => assert_eq!(reason, Dropped::NotAuthentic),
            }
            missed += 1;
        };
        assert_eq!(found, first_unread + missed);
        // Up to 300,000 the first search reaches.
        let searches = (lost / 65_536).div_ceil(STEPS as usize).max(1);
        let missed_max = if lost < 32_768 { 0 } else { UNTIL_SEARCH + searches - 1 };
        assert!(missed <= missed_max as u64, "{missed} records of {lost} + {missed}");
        for _ in 0..10 {
            pair.open_next().unwrap();
        }
    }
}

/// Forged records alone, in any number: what they cost beyond themselves is 16 searches and one more for each 64.
#[test]
fn a_flood_costs_little_more_than_itself() {
    let mut pair = Pair::new();
    pair.open_next().unwrap();
    let records = 3_000;
    for seed in 0..records {
        assert_eq!(pair.forge(seed as u8), Dropped::NotAuthentic);
    }
    let further = pair.rx.forgeries() - records;
    assert_eq!(further, STEPS * (CREDITS_MAX + records / FAILURES_PER_CREDIT));
    pair.open_next().unwrap();
}

/// Forged records among the peer's: one further search at most for each of the peer's.
#[test]
fn a_flood_beside_traffic_costs_one_search_per_record() {
    let mut pair = Pair::new();
    let (rounds, forged) = (300, 5);
    for _ in 0..rounds {
        for seed in 0..forged {
            pair.forge(seed as u8);
        }
        pair.open_next().unwrap();
    }
    let records = rounds * forged;
    let further = pair.rx.forgeries() - records;
    assert!(further <= STEPS * (CREDITS_MAX + rounds + records / FAILURES_PER_CREDIT), "{further}");
}

/// A flood has drained the credits when the loss happens: it delays finding the peer again, and does not prevent it.
#[test]
fn the_peer_is_found_even_under_a_flood() {
    let mut pair = Pair::new();
    pair.open_next().unwrap();
    for seed in 0..2_000 {
        pair.forge(seed as u8);
    }
    pair.lose(40_000);
    let found = (0..20_000_u32).any(|record| match record % 3 {
        0 => pair.open_next().is_ok(),
        seed => {
            pair.forge(seed as u8);
            false
        }
    });
    assert!(found);
}

/// Replays of a record from before the loss authenticate, but are no sign that all is well.
#[test]
fn replays_do_not_hide_a_loss() {
    let mut pair = Pair::new();
    let old = pair.seal();
    pair.open(old.clone()).unwrap();
    pair.lose(40_000);
    let found = (0..10).any(|_| {
        assert_eq!(pair.open(old.clone()), Err(Dropped::Replayed));
        pair.open_next().is_ok()
    });
    assert!(found);
}
