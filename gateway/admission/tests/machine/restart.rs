//! What survives a restart.

use std::time::Duration;

use ringfort_admission::{Action, NotAdmitting, Part, Persisted, Revocations};
use ringfort_token::{Effect, EntryScope, Serial};

use crate::world::*;

// Covers: X14 allow
#[test]
fn a_restart_keeps_revocations_configuration_and_sequences() {
    let mut world = World::new();
    world.machine.pushed_configuration(&sign(&configuration(4, everything())), world.now);
    world.admit(&ALICE, 0, 6);
    let list = revocations(0, vec![entry(EntryScope::Key(*BOB.peer.key()), Effect::Revoke)]);
    world.machine.pushed_revocations(&sign(&list), world.now);
    world.drain();

    let mut again = World::restored(settings(), world.machine.persisted());
    assert!(again.drain().is_empty());
    assert_eq!((again.machine.configuration_seq(), again.machine.serial()), (4, Serial { epoch: 1, n: 1 }));
    assert_eq!(again.machine.admitting(again.now), Ok(()), "without its Controller");
    let (channel, _) = again.open(&BOB);
    assert_eq!(refusal(&again.drain(), Some(channel)), "certificate_revoked");
    let (channel, _) = again.open(&ALICE);
    again.drain();
    again.present(channel, &ALICE.claims(), &ALICE.entitlement(5));
    assert_eq!(refusal(&again.drain(), Some(channel)), "sequence_old");
    again.machine.pushed_configuration(&sign(&configuration(3, everything())), again.now);
    assert_eq!(refusal(&again.drain(), None), "sequence_old");
    again.admit(&ALICE, 0, 6);
}

// Covers: X14 refuse
#[test]
fn a_configuration_that_is_over_is_forgotten_and_its_number_is_not() {
    let mut world = World::new();
    world.machine.pushed_configuration(&sign(&configuration(4, everything())), world.now);
    let persisted = world.machine.persisted();
    let late = ringfort_admission::Moment { boot: BOOT, wall: WALL + HOUR };
    let mut again = ringfort_admission::Admission::restore(settings(), persisted.clone(), late);
    assert_eq!((again.configuration_seq(), again.admitting(late)), (0, Err(NotAdmitting::NoConfiguration)));
    let text = sign(&ringfort_token::GatewayConfiguration { exp: WALL + 2 * HOUR, ..configuration(3, everything()) });
    again.pushed_configuration(&text, late);
    assert_eq!((again.configuration_seq(), again.refused()["sequence_old"]), (0, 1));
    let tampered = Persisted { configuration: Some("nonsense".into()), ..persisted };
    assert_eq!(World::restored(settings(), tampered).machine.configuration_seq(), 0);
}

#[test]
fn a_gateway_that_was_removed_knows_it_after_a_restart_until_it_is_let_in_again() {
    let mut world = World::new();
    let (channel, session) = world.admit(&ALICE, 0, 1);
    world.machine.removed(world.now);
    let actions = world.drain();
    assert_eq!((refusal(&actions, Some(channel)), removes(&actions)), ("stopping", vec![session]));
    assert!(actions.iter().any(|action| matches!(action, Action::Persist(Part::Revocations))));

    let kept = serde_json::to_string(&world.machine.persisted()).unwrap();
    let mut again = World::restored(settings(), serde_json::from_str(&kept).unwrap());
    assert_eq!(again.machine.admitting(again.now), Err(NotAdmitting::Removed), "without its Controller");
    again.machine.set_admitting(Ok(()));
    let (channel, _) = again.open(&ALICE);
    again.drain();
    again.present(channel, &ALICE.claims(), &ALICE.entitlement(1));
    assert_eq!(refusal(&again.drain(), Some(channel)), "not_admitting");

    again.machine.let_in_again();
    assert!(again.drain().iter().any(|action| matches!(action, Action::Persist(Part::Revocations))));
    assert!(!again.machine.persisted().revocations.removed);
    again.admit(&ALICE, 0, 1);
    // Files from before there was such a mark.
    let older = r#"{"serial":{"epoch":1,"n":1},"entries":[]}"#;
    assert!(!serde_json::from_str::<Revocations>(older).unwrap().removed);
}

#[test]
fn what_is_kept_reads_as_it_was_written() {
    let mut world = World::new();
    world.admit(&ALICE, 0, 6);
    let list = revocations(0, vec![entry(EntryScope::Key(*BOB.peer.key()), Effect::RenewBy(WALL))]);
    world.machine.pushed_revocations(&sign(&list), world.now);
    let persisted = world.machine.persisted();
    let written = serde_json::to_string(&persisted).unwrap();
    assert_eq!(serde_json::from_str::<Persisted>(&written).unwrap(), persisted);
    assert!(serde_json::from_str::<Revocations>(r#"{"serial":{"epoch":1,"n":1},"entries":[],"more":1}"#).is_err());
}

#[test]
fn sequences_are_written_at_once_and_then_at_most_once_a_second() {
    let mut world = World::new();
    world.step(Duration::from_secs(5));
    let writes =
        |actions: &[Action]| actions.iter().filter(|action| matches!(action, Action::Persist(Part::Sequences))).count();
    world.machine.pushed_entitlement(&sign(&ALICE.entitlement(1)), world.now);
    assert_eq!(writes(&world.drain()), 1);
    for seq in 2..10 {
        world.machine.pushed_entitlement(&sign(&ALICE.entitlement(seq)), world.now);
    }
    assert_eq!(writes(&world.drain()), 0);
    assert_eq!(writes(&world.pass(Duration::from_secs(1))), 1);
    assert_eq!(writes(&world.pass(Duration::from_secs(10))), 0);
}
