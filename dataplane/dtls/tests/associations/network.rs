//! A network that loses, doubles, delays, reorders and damages datagrams, each as dice say.

use std::collections::BTreeMap;
use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

#[derive(Clone, Copy)]
pub(crate) enum To {
    Server,
    Client,
}

type Datagram = (To, Box<[u8]>);

/// What is under way, by arrival.
#[derive(Default)]
pub(crate) struct Network {
    under_way: BTreeMap<(Duration, u64), Datagram>,
    count: u64,
}

impl Network {
    /// Whatever has arrived by now, in its order.
    pub(crate) fn arrived(&mut self, now: Duration) -> Option<Datagram> {
        let ((due, number), _) = self.under_way.first_key_value()?;
        let key = (*due, *number);
        if key.0 > now { None } else { self.under_way.remove(&key) }
    }

    pub(crate) fn send(&mut self, to: To, datagram: Box<[u8]>, at: Duration, dice: &mut Dice) {
        self.send_over(to, datagram, at, dice, 2);
    }

    /// Damages so many of a hundred.
    pub(crate) fn send_over(&mut self, to: To, datagram: Box<[u8]>, at: Duration, dice: &mut Dice, damaged: u64) {
        let copies = match dice.roll(100) {
            0..20 => 0,
            20..30 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let mut datagram = datagram.clone();
            if dice.roll(100) < damaged {
                let at = dice.roll(datagram.len() as u64) as usize;
                datagram[at] ^= 1 << dice.roll(8);
            }
            let delay = 10 + if dice.roll(10) < 3 { 20 + dice.roll(60) } else { 0 };
            self.count += 1;
            self.under_way.insert((at + Duration::from_millis(delay), self.count), (to, datagram));
        }
    }
}
