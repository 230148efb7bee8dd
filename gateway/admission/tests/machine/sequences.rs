//! Sequence numbers under any sequence of pushes and presents.

use proptest::prelude::*;
use ringfort_token::EntitlementToken;

use crate::world::*;

#[derive(Clone, Debug)]
enum Step {
    Push { seq: u64, generation: u64, malformed: bool },
    Present { seq: u64 },
    Bind { tunnel: usize },
    Reopen,
    EndTunnel,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_u64, 0..=2_u64, prop::bool::weighted(0.1))
            .prop_map(|(seq, generation, malformed)| Step::Push { seq, generation, malformed }),
        4 => (0..12_u64).prop_map(|seq| Step::Present { seq }),
        2 => (0..3_usize).prop_map(|tunnel| Step::Bind { tunnel }),
        1 => Just(Step::Reopen),
        1 => Just(Step::EndTunnel),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The number that is remembered never falls, nor does that of a live session, which has what was pushed and is newer; and
    /// after each step exactly one event was written for each count.
    #[test]
    fn a_number_never_goes_down(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        let (mut channel, mut session_id) = world.open(&ALICE);
        let mut remembered = None;
        let mut bound = None;
        for step in steps {
            let before = world.refusals();
            let mut owed = None;
            let mut live = world.machine.live().next().map(|(_, seq)| seq);
            match step {
                Step::Push { seq, generation, malformed } => {
                    let mut token = EntitlementToken { generation, ..ALICE.entitlement(seq) };
                    if malformed {
                        token.grants[0].services.clear();
                    }
                    let fits = generation >= 1 && !malformed;
                    owed = live.filter(|live| fits && seq > *live).map(|_| seq);
                    world.machine.pushed_entitlement(&sign(&token), world.now);
                }
                Step::Present { seq } => world.present(channel, &ALICE.claims(), &ALICE.entitlement(seq)),
                Step::Bind { tunnel } => {
                    bound = Some(world.authenticated(&ALICE.tunnels[tunnel]));
                    world.say(channel, ALICE.tunnels[tunnel].bind(&session_id));
                }
                Step::Reopen => (channel, session_id) = world.open(&ALICE),
                Step::EndTunnel => bound.take().into_iter().for_each(|tunnel| world.ended(tunnel)),
                Step::Restart => {
                    let persisted = world.machine.persisted();
                    world = World::restored(settings(), persisted);
                    (channel, session_id) = world.open(&ALICE);
                    (bound, live) = (None, None);
                }
            }
            let counted_before = if world.refusals() < before { 0 } else { before };
            let actions = world.drain();
            let events = actions.iter().filter(|action| matches!(action, ringfort_admission::Action::Audit(_))).count();
            prop_assert_eq!(world.refusals() - counted_before, events as u64);
            let now = world.machine.persisted_sequences().entitlements.get(&ALICE.dn).map(|sequence| sequence.seq);
            prop_assert!(now >= remembered, "{:?} after {:?}", now, remembered);
            remembered = now;
            let lives = world.machine.live().next().map(|(_, seq)| seq);
            if let (Some(before), Some(after)) = (live, lives) {
                prop_assert!(after >= before);
            }
            prop_assert!(lives <= remembered);
            prop_assert!(owed.is_none() || lives == owed, "{:?} was pushed, {:?} is in force", owed, lives);
        }
    }
}
