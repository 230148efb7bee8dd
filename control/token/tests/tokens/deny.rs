//! The deny list against a reference that keeps its entries in a plain list and reads all of them at every question.

use proptest::prelude::*;
use ringfort_identity::KeyThumbprint;
use ringfort_token::{
    DenyList, Effect, Entry, EntryScope, Expectation, Holder, ListError, RevocationList, Serial, Shown, Standing,
    Verified, audience,
};
use ringfort_types::UnixSeconds;

use crate::world::{NOW, ORGANISATION, SEED, entry, revocations, signing_key, verifier};

/// A list as it arrives from the Controller.
fn verified(epoch: u64, after: u64, entries: Vec<Entry>) -> Verified<RevocationList> {
    numbered(epoch, after, entries, vec![])
}

/// One whose entries have these numbers.
fn numbered(epoch: u64, after: u64, entries: Vec<Entry>, numbers: Vec<u64>) -> Verified<RevocationList> {
    let list = RevocationList { numbers, ..revocations(epoch, after, entries) };
    let signed = signing_key(SEED).sign(&list).unwrap();
    let gateways = audience::gateways(ORGANISATION);
    let deny = DenyList::default();
    let expectation = Expectation { audience: &gateways, holder: Holder::Nobody, now: UnixSeconds(NOW), deny: &deny };
    verifier().verify(&signed, &expectation).unwrap()
}

fn key(n: u8) -> KeyThumbprint {
    KeyThumbprint::of_canonical_jwk(&n.to_string())
}

fn token(id: &str, effect: Effect) -> Entry {
    entry(EntryScope::Token(id.into()), effect)
}

fn shown_token(id: &str) -> Shown<'_> {
    Shown { token: Some(id), ..Shown::default() }
}

fn renew_by(by: u64) -> Effect {
    Effect::RenewBy(UnixSeconds(by))
}

/// A copy of everything that can be asked of a list.
fn state(list: &DenyList) -> (Serial, Vec<(u64, Entry)>) {
    (list.serial(), list.entries().map(|(n, entry)| (n, entry.clone())).collect())
}

#[test]
fn a_later_renewal_never_softens_a_revocation() {
    let scopes = [
        EntryScope::Token("t".into()),
        EntryScope::Certificate("0a".into()),
        EntryScope::Key(key(1)),
        EntryScope::User { user: "u".into(), below: 5 },
    ];
    let shown = Shown { token: Some("t"), certificate: Some("0a"), key: Some(&key(1)), generation: Some(("u", 4)) };
    for first in &scopes {
        // About the same thing, and about another that is shown with it.
        for second in &scopes {
            for order in [[Effect::Revoke, renew_by(u64::MAX)], [renew_by(u64::MAX), Effect::Revoke]] {
                let mut list = DenyList::default();
                let entries = vec![entry(first.clone(), order[0]), entry(second.clone(), order[1])];
                assert_eq!(list.apply(&verified(1, 0, entries)), Ok(vec![1, 2]));
                let serial = if order[0] == Effect::Revoke { 1 } else { 2 };
                assert_eq!(list.standing(&shown), Standing::Revoked { serial, reason: "lost" });
            }
            for order in [[10, 20], [20, 10]] {
                let mut list = DenyList::default();
                let entries = vec![entry(first.clone(), renew_by(order[0])), entry(second.clone(), renew_by(order[1]))];
                list.apply(&verified(1, 0, entries)).unwrap();
                let serial = if order[0] == 10 { 1 } else { 2 };
                let by = UnixSeconds(10);
                assert_eq!(list.standing(&shown), Standing::RenewBy { by, serial, reason: "lost" });
            }
        }
    }
}

/// A wider entry about a user outlives a narrower one that comes later.
#[test]
fn a_later_lower_generation_takes_nothing_back() {
    let user = |below| EntryScope::User { user: "u".into(), below };
    let mut list = DenyList::default();
    let entries = vec![entry(user(9), Effect::Revoke), entry(user(3), Effect::Revoke), entry(user(4), renew_by(1))];
    list.apply(&verified(1, 0, entries)).unwrap();
    let standing = |generation| list.standing(&Shown { generation: Some(("u", generation)), ..Shown::default() });
    for generation in 0..=8 {
        assert!(matches!(standing(generation), Standing::Revoked { .. }), "{generation}");
    }
    assert_eq!(standing(9), Standing::Good);
    assert_eq!(standing(u64::MAX), Standing::Good);
}

#[test]
fn a_generation_of_the_largest_number_is_below_none() {
    let mut list = DenyList::default();
    list.insert(1, entry(EntryScope::User { user: "u".into(), below: u64::MAX }, Effect::Revoke));
    let standing = |generation| list.standing(&Shown { generation: Some(("u", generation)), ..Shown::default() });
    assert!(matches!(standing(u64::MAX - 1), Standing::Revoked { .. }));
    assert_eq!(standing(u64::MAX), Standing::Good);
}

#[test]
fn lists_must_follow_each_other() {
    let one = || token("a", Effect::Revoke);
    let mut list = DenyList::default();
    // A first list that does not begin at the beginning.
    let gap = |epoch, n, after| Err(ListError::Gap { ours: Serial { epoch, n }, after });
    assert_eq!(list.apply(&verified(1, 1, vec![one()])), gap(1, 0, 1));
    assert_eq!(list.apply(&verified(1, u64::MAX, vec![one()])), gap(1, 0, u64::MAX));
    assert_eq!(list.apply(&verified(0, 1, vec![])), gap(0, 0, 1));
    assert_eq!(state(&list), (Serial::default(), vec![]));

    assert_eq!(list.apply(&verified(1, 0, vec![one(), token("b", Effect::Revoke)])), Ok(vec![1, 2]));
    let before = state(&list);
    assert_eq!(before.0, Serial { epoch: 1, n: 2 });
    assert_eq!(list.apply(&verified(1, 3, vec![one()])), gap(1, 2, 3));
    // Repeats, whole and in part, and what is empty.
    assert_eq!(list.apply(&verified(1, 0, vec![one(), token("b", Effect::Revoke)])), Ok(vec![]));
    assert_eq!(list.apply(&verified(1, 0, vec![])), Ok(vec![]));
    assert_eq!(list.apply(&verified(1, 2, vec![])), Ok(vec![]));
    // A repeat with other contents changes nothing.
    assert_eq!(list.apply(&verified(1, 0, vec![token("c", renew_by(9))])), Ok(vec![]));
    assert_eq!(state(&list), before);
    let news = vec![token("b", Effect::Revoke), token("c", Effect::Revoke), token("d", Effect::Revoke)];
    assert_eq!(list.apply(&verified(1, 1, news)), Ok(vec![3, 4]));
    assert_eq!(list.serial(), Serial { epoch: 1, n: 4 });

    // An older epoch, whatever it says.
    let older = Err(ListError::OlderEpoch { ours: list.serial(), found: 0 });
    assert_eq!(list.apply(&verified(0, 4, vec![one()])), older);
    assert_eq!(list.apply(&verified(0, 0, vec![])), older);
    // A newer one starts afresh, and must begin at the beginning.
    let before = state(&list);
    assert_eq!(list.apply(&verified(2, 4, vec![one()])), gap(2, 0, 4));
    assert_eq!(state(&list), before);
    assert_eq!(list.apply(&verified(2, 0, vec![token("e", Effect::Revoke)])), Ok(vec![1]));
    assert_eq!(state(&list), (Serial { epoch: 2, n: 1 }, vec![(1, token("e", Effect::Revoke))]));
    for id in ["a", "b", "c", "d"] {
        assert_eq!(list.standing(&shown_token(id)), Standing::Good, "{id}");
    }
    assert_eq!(list.apply(&verified(5, 0, vec![])), Ok(vec![]));
    assert_eq!(state(&list), (Serial { epoch: 5, n: 0 }, vec![]));
}

// Covers: A23 allow
// Covers: A23 refuse
#[test]
fn a_list_may_leave_out_what_is_over_and_opens_no_gap() {
    let entries = |ids: &[&str]| ids.iter().map(|id| token(id, Effect::Revoke)).collect::<Vec<_>>();
    let sparse = || numbered(1, 0, entries(&["c", "f"]), vec![3, 6]);
    // Somebody new, and somebody who has the first two.
    let mut new = DenyList::default();
    assert_eq!(new.apply(&sparse()), Ok(vec![3, 6]));
    let mut known = DenyList::default();
    known.apply(&verified(1, 0, entries(&["a", "b"]))).unwrap();
    assert_eq!(known.apply(&sparse()), Ok(vec![3, 6]));
    for list in [&new, &known] {
        assert_eq!(list.serial(), Serial { epoch: 1, n: 6 });
        assert!(matches!(list.standing(&shown_token("f")), Standing::Revoked { serial: 6, .. }));
    }
    assert!(matches!(known.standing(&shown_token("a")), Standing::Revoked { serial: 1, .. }), "what it had stays");
    // An older list that comes again neither brings what was left out nor leads back, and lets nobody pass over anything.
    let older = verified(1, 0, entries(&["a", "b", "c", "d"]));
    assert_eq!(new.apply(&older), Ok(vec![]));
    let mut late = DenyList::default();
    assert_eq!(late.apply(&older), Ok(vec![1, 2, 3, 4]));
    let gap = Err(ListError::Gap { ours: late.serial(), after: 6 });
    assert_eq!(late.apply(&verified(1, 6, entries(&["g"]))), gap);
    assert_eq!(late.apply(&sparse()), Ok(vec![6]));
    assert_eq!(late.apply(&verified(1, 6, entries(&["g"]))), Ok(vec![7]));
    // A list that begins beyond what one has is a gap, whatever its numbers are.
    let before = state(&new);
    let ours = new.serial();
    assert_eq!(new.apply(&numbered(1, 7, entries(&["h"]), vec![9])), Err(ListError::Gap { ours, after: 7 }));
    // Numbers that are none.
    for numbers in [vec![7], vec![7, 8, 9], vec![8, 7], vec![7, 7], vec![6, 7], vec![0, 9], vec![u64::MAX, u64::MAX]] {
        let list = numbered(1, 6, entries(&["x", "y"]), numbers.clone());
        assert_eq!(new.apply(&list), Err(ListError::Numbers { after: 6 }), "{numbers:?}");
    }
    assert_eq!(new.apply(&numbered(1, 6, vec![], vec![7])), Err(ListError::Numbers { after: 6 }));
    assert_eq!(state(&new), before);
}

#[test]
fn a_list_is_written_as_its_entries_are_numbered() {
    let entry = |id: &str| token(id, Effect::Revoke);
    let list = |after, entries: &[(u64, Entry)]| {
        let (entries, numbers) = RevocationList::columns(after, entries);
        RevocationList { numbers, ..revocations(1, after, entries) }
    };
    // Numbers are left out where they say nothing, which whoever knows none of them understands.
    let plain = list(4, &[(5, entry("a")), (6, entry("b"))]);
    assert_eq!((plain.numbers.len(), plain.upto()), (0, 6));
    assert!(!serde_json::to_string(&plain).unwrap().contains("numbers"));
    let sparse = list(4, &[(6, entry("b")), (9, entry("e"))]);
    assert_eq!((&sparse.numbers[..], sparse.upto()), (&[6, 9][..], 9));
    assert_eq!(sparse.numbered().unwrap(), [(6, &entry("b")), (9, &entry("e"))]);
    assert_eq!((list(4, &[]).upto(), list(4, &[]).numbered().unwrap().len()), (4, 0));
}

#[test]
fn what_is_forgotten_is_forgotten_alone_and_does_not_come_back() {
    let until = |id: &str, at: u64| Entry { keep_until: UnixSeconds(at), ..token(id, Effect::Revoke) };
    let all = || vec![until("a", 10), until("b", 20), until("a", 30), until("c", 10)];
    let mut list = DenyList::default();
    list.apply(&verified(1, 0, all())).unwrap();
    list.forget(UnixSeconds(10));
    assert_eq!(list.entries().count(), 4);
    list.forget(UnixSeconds(11));
    assert_eq!(state(&list), (Serial { epoch: 1, n: 4 }, vec![(2, until("b", 20)), (3, until("a", 30))]));
    assert_eq!(list.standing(&shown_token("a")), Standing::Revoked { serial: 3, reason: "lost" });
    assert_eq!(list.standing(&shown_token("c")), Standing::Good);
    assert_eq!(list.apply(&verified(1, 0, all())), Ok(vec![]));
    assert_eq!(list.entries().count(), 2);
    list.forget(UnixSeconds(u64::MAX));
    assert_eq!(state(&list), (Serial { epoch: 1, n: 4 }, vec![]));
}

/// A number is given once. Were an entry replaced, what it said about the first thing would be lost.
#[test]
fn an_entry_once_made_stays_as_it_is() {
    let mut list = DenyList::default();
    list.insert(1, token("a", Effect::Revoke));
    list.insert(1, token("a", renew_by(u64::MAX)));
    list.insert(1, token("b", renew_by(u64::MAX)));
    assert_eq!(list.standing(&shown_token("a")), Standing::Revoked { serial: 1, reason: "lost" });
    assert_eq!(state(&list), (Serial { epoch: 0, n: 1 }, vec![(1, token("a", Effect::Revoke))]));
}

/// The list as one would write it on paper.
#[derive(Clone, Debug, Default)]
struct Reference {
    serial: Serial,
    entries: Vec<(u64, Entry)>,
}

impl Reference {
    fn insert(&mut self, n: u64, entry: Entry) {
        if self.entries.iter().all(|(known, _)| *known != n) {
            self.entries.push((n, entry));
            self.entries.sort_by_key(|(n, _)| *n);
        }
        self.serial.n = self.serial.n.max(n);
    }

    fn apply(&mut self, epoch: u64, after: u64, entries: &[Entry]) -> Result<Vec<u64>, ListError> {
        let ours = self.serial;
        if epoch < ours.epoch {
            return Err(ListError::OlderEpoch { ours, found: epoch });
        }
        let mut next = self.clone();
        if epoch > ours.epoch {
            next = Self { serial: Serial { epoch, n: 0 }, entries: Vec::new() };
        }
        let start = next.serial;
        if after > start.n {
            return Err(ListError::Gap { ours: start, after });
        }
        let mut news = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            let n = after + 1 + at as u64;
            if n > start.n {
                next.insert(n, entry.clone());
                news.push(n);
            }
        }
        *self = next;
        Ok(news)
    }

    /// The entries about what is shown.
    fn about(&self, shown: &Shown<'_>) -> Vec<&(u64, Entry)> {
        let is_about = |scope: &EntryScope| match scope {
            EntryScope::Token(id) => shown.token == Some(id),
            EntryScope::Certificate(serial) => shown.certificate == Some(serial),
            EntryScope::Key(key) => shown.key == Some(key),
            EntryScope::User { user, below } => {
                shown.generation.is_some_and(|(shown, generation)| shown == user && generation < *below)
            }
        };
        self.entries.iter().filter(|(_, entry)| is_about(&entry.scope)).collect()
    }

    /// Whether `found` is the worst that is said about what is shown. Of two that are as bad, either may be named.
    fn agrees(&self, shown: &Shown<'_>, found: Standing<'_>) -> bool {
        let about = self.about(shown);
        let says = |serial: u64, reason: &str, effect: Effect| {
            about.iter().any(|(n, entry)| *n == serial && entry.reason == reason && entry.effect == effect)
        };
        let revoked = about.iter().any(|(_, entry)| entry.effect == Effect::Revoke);
        let earliest = about.iter().filter_map(|(_, entry)| match entry.effect {
            Effect::RenewBy(by) => Some(by),
            Effect::Revoke => None,
        });
        match (found, revoked, earliest.min()) {
            (Standing::Revoked { serial, reason }, true, _) => says(serial, reason, Effect::Revoke),
            (Standing::RenewBy { by, serial, reason }, false, Some(earliest)) => {
                by == earliest && says(serial, reason, Effect::RenewBy(by))
            }
            (Standing::Good, false, None) => true,
            _ => false,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Apply { epoch: u64, after: u64, entries: Vec<Entry> },
    Insert { n: u64, entry: Entry },
    Forget { now: u64 },
    Restart,
}

const TOKENS: [&str; 3] = ["t0", "t1", "t2"];
const CERTIFICATES: [&str; 2] = ["00", "t0"];
const USERS: [&str; 2] = ["u0", "u1"];
const GENERATIONS: [u64; 6] = [0, 1, 2, 3, u64::MAX - 1, u64::MAX];

fn any_entry() -> impl Strategy<Value = Entry> {
    let scope = prop_oneof![
        prop::sample::select(&TOKENS[..]).prop_map(|id| EntryScope::Token(id.into())),
        prop::sample::select(&CERTIFICATES[..]).prop_map(|serial| EntryScope::Certificate(serial.into())),
        (0..2_u8).prop_map(|n| EntryScope::Key(key(n))),
        (prop::sample::select(&USERS[..]), prop::sample::select(&GENERATIONS[..]))
            .prop_map(|(user, below)| EntryScope::User { user: user.into(), below }),
    ];
    let effect = prop_oneof![Just(Effect::Revoke), (0..4_u64).prop_map(renew_by), Just(renew_by(u64::MAX))];
    (scope, effect, "[ab]", 0..6_u64).prop_map(|(scope, effect, reason, keep_until)| Entry {
        scope,
        effect,
        reason,
        keep_until: UnixSeconds(keep_until),
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_u64, 0..8_u64, prop::collection::vec(any_entry(), 0..4))
            .prop_map(|(epoch, after, entries)| Step::Apply { epoch, after, entries }),
        3 => (1..12_u64, any_entry()).prop_map(|(n, entry)| Step::Insert { n, entry }),
        1 => (0..8_u64).prop_map(|now| Step::Forget { now }),
        1 => Just(Step::Restart),
    ]
}

fn maybe<T: Copy>(values: impl IntoIterator<Item = T>) -> Vec<Option<T>> {
    [None].into_iter().chain(values.into_iter().map(Some)).collect()
}

/// Everything that can be shown, of each sort one or none.
fn every_shown(mut each: impl FnMut(&Shown<'_>)) {
    let keys = [key(0), key(1), key(2)];
    let mut generations = maybe(USERS.iter().flat_map(|user| GENERATIONS.map(|generation| (*user, generation))));
    generations.push(Some(("u2", 0)));
    for token in maybe(TOKENS) {
        for certificate in maybe(CERTIFICATES) {
            for key in maybe(&keys) {
                for generation in &generations {
                    each(&Shown { token, certificate, key, generation: *generation });
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn the_list_agrees_with_the_reference(steps in prop::collection::vec(any_step(), 1..20)) {
        let mut list = DenyList::default();
        let mut reference = Reference::default();
        for step in steps {
            match step {
                Step::Apply { epoch, after, entries } => {
                    let expected = reference.apply(epoch, after, &entries);
                    prop_assert_eq!(list.apply(&verified(epoch, after, entries)), expected);
                }
                Step::Insert { n, entry } => {
                    list.insert(n, entry.clone());
                    reference.insert(n, entry);
                }
                Step::Forget { now } => {
                    list.forget(UnixSeconds(now));
                    reference.entries.retain(|(_, entry)| entry.keep_until.0 >= now);
                }
                Step::Restart => {
                    let (serial, entries) = state(&list);
                    list = DenyList::restore(serial, entries);
                }
            }
            prop_assert_eq!(state(&list), (reference.serial, reference.entries.clone()));
            let mut wrong = Vec::new();
            every_shown(|shown| {
                let found = list.standing(shown);
                if !reference.agrees(shown, found) {
                    wrong.push(format!("{shown:?}: {found:?}"));
                }
            });
            prop_assert!(wrong.is_empty(), "{wrong:?}");
        }
    }
}
