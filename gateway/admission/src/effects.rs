//! What was asked of the workers and is not confirmed yet, so that the Controller measures the effect.

use std::collections::{BTreeMap, VecDeque};

use ringfort_types::SessionId;

use crate::interface::Applied;

/// Changes waited for one by one; later ones are told together.
const EFFECTS_MAX: usize = 1_024;

/// Changes in the order in which they came. One is told when the workers have confirmed it and all before it.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    queue: VecDeque<Effect>,
}

#[derive(Debug)]
struct Effect {
    /// Tunnels, and which of their installations in order is meant.
    missing: BTreeMap<SessionId, u64>,
    applied: Applied,
}

impl Effects {
    /// Waits until each of the `missing` has confirmed the installation of that number.
    pub(crate) fn add(&mut self, missing: BTreeMap<SessionId, u64>, applied: Applied) {
        let is_full = self.queue.len() >= EFFECTS_MAX;
        match self.queue.back_mut().filter(|_| is_full) {
            Some(last) => {
                last.missing.extend(missing);
                merge(&mut last.applied, applied);
            }
            None => self.queue.push_back(Effect { missing, applied }),
        }
    }

    /// The worker confirmed so many installations of `tunnel`.
    pub(crate) fn confirmed(&mut self, tunnel: SessionId, count: u64) {
        for effect in &mut self.queue {
            if effect.missing.get(&tunnel).is_some_and(|number| *number <= count) {
                effect.missing.remove(&tunnel);
            }
        }
    }

    /// What is complete now, told together.
    pub(crate) fn poll(&mut self) -> Option<Applied> {
        let mut told = None;
        while let Some(effect) = self.queue.pop_front_if(|effect| effect.missing.is_empty()) {
            merge(told.get_or_insert_default(), effect.applied);
        }
        told
    }
}

fn merge(applied: &mut Applied, later: Applied) {
    applied.revocations = later.revocations.or(applied.revocations);
    applied.configuration_seq = later.configuration_seq.or(applied.configuration_seq);
    for (dn, seq) in later.entitlements {
        applied.entitlements.retain(|(other, _)| *other != dn);
        applied.entitlements.push((dn, seq));
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::WorkerIndex;

    use super::*;

    fn tunnel(count: u64) -> SessionId {
        SessionId::new(WorkerIndex(0), count)
    }

    fn configuration(seq: u64) -> Applied {
        Applied { configuration_seq: Some(seq), ..Applied::default() }
    }

    #[test]
    fn a_change_is_told_when_it_and_all_before_it_are_in_force() {
        let mut effects = Effects::default();
        effects.add(BTreeMap::from([(tunnel(1), 2), (tunnel(2), 1)]), configuration(1));
        effects.add(BTreeMap::new(), configuration(2));
        assert_eq!(effects.poll(), None);
        effects.confirmed(tunnel(1), 1);
        effects.confirmed(tunnel(2), 1);
        assert_eq!(effects.poll(), None, "an earlier installation is not the one that is meant");
        effects.confirmed(tunnel(1), 2);
        assert_eq!(effects.poll(), Some(configuration(2)));
        assert_eq!(effects.poll(), None);
    }

    #[test]
    fn a_worker_that_says_nothing_costs_no_more_than_the_limit() {
        let mut effects = Effects::default();
        effects.add(BTreeMap::from([(tunnel(1), 1)]), configuration(0));
        for seq in 1..=2 * EFFECTS_MAX as u64 {
            effects.add(BTreeMap::new(), configuration(seq));
        }
        assert_eq!(effects.queue.len(), EFFECTS_MAX);
        effects.confirmed(tunnel(1), u64::MAX);
        assert_eq!(effects.poll(), Some(configuration(2 * EFFECTS_MAX as u64)));
    }
}
