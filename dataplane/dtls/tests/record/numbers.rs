//! The replay window and the completing of numbers, against models that are too slow to be wrong.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ringfort_dtls::record::{ReplayWindow, reconstruct};

/// What a window of its size must say: new is what is above the highest, or near enough below it and not seen.
#[derive(Default)]
struct Model {
    seen: BTreeSet<u64>,
}

impl Model {
    fn check(&self, sequence: u64) -> bool {
        match self.seen.last() {
            Some(highest) if sequence <= *highest => {
                highest - sequence < ReplayWindow::NUMBERS && !self.seen.contains(&sequence)
            }
            _ => sequence != u64::MAX,
        }
    }
}

/// Where the next record's number lies, seen from the highest so far.
#[derive(Clone, Debug)]
enum Step {
    Ahead(u64),
    Behind(u64),
    At(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..70_u64).prop_map(Step::Ahead),
        1 => (0..3_000_u64).prop_map(Step::Ahead),
        1 => any::<u32>().prop_map(|ahead| Step::Ahead(ahead.into())),
        4 => (0..1_200_u64).prop_map(Step::Behind),
        1 => prop_oneof![0..3_000_u64, any::<u64>(), Just(u64::MAX), Just(u64::MAX - 1)].prop_map(Step::At),
    ]
}

proptest! {
    #[test]
    fn the_window_says_what_the_model_says(steps in prop::collection::vec(step(), 1..400)) {
        let (mut window, mut model) = (ReplayWindow::new(), Model::default());
        for step in steps {
            let highest = window.highest().unwrap_or(0);
            let sequence = match step {
                Step::Ahead(by) => highest.saturating_add(by),
                Step::Behind(by) => highest.saturating_sub(by),
                Step::At(sequence) => sequence,
            };
            let before = window.clone();
            let new = window.check(sequence);
            prop_assert_eq!(&window, &before, "checking changes nothing");
            prop_assert_eq!(new, model.check(sequence), "{}", sequence);
            window.commit(sequence);
            if new {
                model.seen.insert(sequence);
            } else {
                prop_assert_eq!(&window, &before, "what is not new changes nothing");
            }
            prop_assert_eq!(window.highest(), model.seen.last().copied());
            prop_assert!(!window.check(sequence));
        }
    }

    #[test]
    fn completed_numbers_are_the_nearest(
        expected in prop_oneof![
            0..200_000_u64,
            any::<u64>(),
            (0..200_000_u64).prop_map(|below| (1 << 48) - 100_000 + below),
            (0..200_000_u64).prop_map(|below| u64::MAX - below),
        ],
        low in any::<u16>(),
        bits in prop_oneof![Just(8_u32), Just(16)],
    ) {
        let period = 1_i128 << bits;
        let base = i128::from(expected) / period * period + i128::from(low) % period;
        let nearest = (-2..=2)
            .map(|periods| base + periods * period)
            .filter(|candidate| (0..=i128::from(u64::MAX)).contains(candidate))
            .min_by_key(|candidate| ((candidate - i128::from(expected)).abs(), -candidate))
            .unwrap();
        prop_assert_eq!(i128::from(reconstruct(low, bits, expected)), nearest);
    }
}

#[test]
fn the_window_is_as_large_as_it_says() {
    let mut window = ReplayWindow::new();
    assert_eq!((window.highest(), window.expected()), (None, 0));
    window.commit(5_000);
    assert_eq!((window.highest(), window.expected()), (Some(5_000), 5_001));
    assert!(window.check(5_001 - ReplayWindow::NUMBERS));
    assert!(!window.check(5_000 - ReplayWindow::NUMBERS));
    const { assert!(ReplayWindow::NUMBERS >= 1_024) };
}
