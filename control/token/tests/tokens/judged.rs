//! Issuer, audience, time, holder and deny list, for every kind.

use ringfort_identity::KeyThumbprint;
use ringfort_token::{DenyList, Effect, EntryScope, Expectation, Holder, KeySet, LEEWAY_SECONDS, Refusal, Verifier};
use ringfort_types::UnixSeconds;

use crate::json::Json;
use crate::world::{
    GENERATION, Kind, LIFE, NOW, ORGANISATION, SEED, USER, all, claims, entry, holder, signing_key, verifier,
};

fn number(n: u64) -> Json {
    Json::leaf(&n.to_string())
}

/// The sample with these times.
fn timed(kind: &Kind, iat: u64, nbf: u64, exp: u64) -> String {
    let claims = kind.claims.clone().with("iat", number(iat)).with("nbf", number(nbf)).with("exp", number(exp));
    kind.signed(&claims)
}

// Covers: R12 refuse
#[test]
fn time_is_judged_to_the_second() {
    const SOON: Result<UnixSeconds, &str> = Err("token_not_yet_valid");
    const LATE: Result<UnixSeconds, &str> = Err("token_expired");
    let good = |exp: u64| Ok(UnixSeconds(exp));
    let exp = NOW + LIFE;
    let far = 1 << 60;
    assert_eq!(LEEWAY_SECONDS, 5);
    let table = [
        // iat, nbf, exp, and what comes of it at NOW.
        (NOW, NOW, exp, good(exp)),
        (NOW - 100, NOW - 100, exp, good(exp)),
        (0, 0, exp, good(exp)),
        // Issued in the future.
        (NOW + 5, NOW, exp, good(exp)),
        (NOW + 6, NOW, exp, SOON),
        (far, NOW, exp, SOON),
        (u64::MAX, NOW, exp, SOON),
        // Not yet valid.
        (NOW, NOW + 5, exp, good(exp)),
        (NOW, NOW + 6, exp, SOON),
        (NOW, u64::MAX, u64::MAX, SOON),
        // Expired.
        (NOW - 100, NOW - 100, NOW + 1, good(NOW + 1)),
        (NOW - 100, NOW - 100, NOW, good(NOW)),
        (NOW - 100, NOW - 100, NOW - 4, good(NOW - 4)),
        (NOW - 100, NOW - 100, NOW - 5, LATE),
        (NOW - 100, NOW - 100, 0, LATE),
        // Over before it begins, though each alone would do.
        (NOW - 3, NOW, NOW, LATE),
        (NOW - 3, NOW + 2, NOW + 1, LATE),
        (NOW + 2, NOW, NOW + 2, LATE),
        (NOW + 2, NOW, NOW + 1, LATE),
        // More than 2^53, where floating point ends.
        (NOW, NOW, (1 << 53) + 1, good((1 << 53) + 1)),
        (NOW, NOW, u64::MAX, good(u64::MAX)),
    ];
    for kind in all() {
        for (iat, nbf, exp, expected) in table {
            let found = kind.judge(&timed(&kind, iat, nbf, exp));
            assert_eq!(found, expected, "{} {iat} {nbf} {exp}", kind.typ);
        }
        let deny = DenyList::default();
        for (now, expected) in
            [(0, SOON), (NOW - 6, SOON), (NOW - 5, good(exp)), (exp + 4, good(exp)), (exp + 5, LATE), (u64::MAX, LATE)]
        {
            assert_eq!(kind.judge_at(&kind.text(), UnixSeconds(now), &deny), expected, "{} at {now}", kind.typ);
        }
        assert_eq!(kind.judge_at(&timed(&kind, 0, 0, u64::MAX), UnixSeconds(u64::MAX), &deny), LATE);
    }
}

// Covers: R12 refuse
// Covers: C14 refuse
#[test]
fn another_issuer_is_refused_though_the_key_is_known() {
    for kind in all() {
        for issuer in ["", "other", "Example", "example ", "example.", "example/"] {
            let claims = kind.claims.clone().with("iss", Json::leaf(&format!("{issuer:?}")));
            assert_eq!(kind.judge(&kind.signed(&claims)), Err("token_wrong_issuer"), "{issuer:?}");
        }
        // Ours in the eyes of another organisation that knows the key.
        let mut keys = KeySet::default();
        keys.add(signing_key(SEED).public_key()).unwrap();
        let key = holder();
        let holder = if kind.bound { Holder::Key(&key) } else { Holder::Nobody };
        let deny = DenyList::default();
        let expectation = Expectation { audience: &kind.audience, holder, now: UnixSeconds(NOW), deny: &deny };
        let other = Verifier::new("other", keys);
        assert_eq!((kind.verify)(&other, &kind.text(), &expectation), Err("token_wrong_issuer"));
    }
}

// Covers: R12 refuse
#[test]
fn only_a_token_for_us_is_believed() {
    let list = |all: &[&str]| Json::Array(all.iter().map(|one| Json::leaf(&format!("{one:?}"))).collect());
    for kind in all() {
        let ours = kind.audience.as_str();
        for (audiences, good) in [
            (vec![ours], true),
            (vec!["site:other", ours], true),
            (vec![ours, "site:other", ours], true),
            (vec![], false),
            (vec![""], false),
            (vec!["site:other", "controller:example2"], false),
            (vec![&ours[..ours.len() - 1]], false),
            (vec![&ours.to_uppercase()], false),
            (vec![&format!("{ours} ")], false),
            (vec![&format!("{ours},{ours}")], false),
            (vec!["*"], false),
        ] {
            let claims = kind.claims.clone().with("aud", list(&audiences));
            let found = kind.judge(&kind.signed(&claims));
            let expected = if good { Ok(UnixSeconds(NOW + LIFE)) } else { Err("token_wrong_audience") };
            assert_eq!(found, expected, "{} {audiences:?}", kind.typ);
        }
        // RFC 7519 §4.1.3 allows a single string; we write none and read none.
        let claims = kind.claims.clone().with("aud", Json::leaf(&format!("{ours:?}")));
        assert_eq!(kind.judge(&kind.signed(&claims)), Err("token_claims"));
        // Whoever expects nothing gets nothing.
        let deny = DenyList::default();
        let expectation = Expectation { audience: "", holder: Holder::Pushed, now: UnixSeconds(NOW), deny: &deny };
        assert_eq!((kind.verify)(&verifier(), &kind.text(), &expectation), Err("token_wrong_audience"));
    }
}

// Covers: C13 refuse
#[test]
fn a_token_is_of_use_to_its_holder_only() {
    let key = holder();
    let other = KeyThumbprint::of_spki(signing_key(201).public_key()).unwrap();
    let deny = DenyList::default();
    for kind in all() {
        for (holder, good) in [
            (Holder::Key(&key), kind.bound),
            (Holder::Key(&other), false),
            (Holder::Pushed, kind.bound),
            (Holder::Nobody, !kind.bound),
        ] {
            let expectation = Expectation { audience: &kind.audience, holder, now: UnixSeconds(NOW), deny: &deny };
            let found = (kind.verify)(&verifier(), &kind.text(), &expectation);
            let expected = if good { Ok(UnixSeconds(NOW + LIFE)) } else { Err("token_wrong_holder") };
            assert_eq!(found, expected, "{} {holder:?}", kind.typ);
        }
    }
}

#[test]
fn what_was_taken_back_is_refused() {
    let about = |scopes: Vec<EntryScope>, effect: Effect| {
        let entries = (1..).zip(scopes.into_iter().map(|scope| entry(scope, effect)));
        DenyList::restore(ringfort_token::Serial { epoch: 1, n: 0 }, entries)
    };
    let user = |user: &str, below| EntryScope::User { user: user.into(), below };
    let token = || EntryScope::Token("token-1".into());
    for kind in all() {
        let bound = kind.bound;
        for (scope, meant) in [
            (token(), true),
            (EntryScope::Token("token-2".into()), false),
            (EntryScope::Key(holder()), bound),
            (EntryScope::Key(KeyThumbprint::of_canonical_jwk("{}")), false),
            (EntryScope::Certificate("token-1".into()), false),
            (user(USER, GENERATION + 1), bound),
            (user(USER, GENERATION), false),
            (user(USER, 0), false),
            (user(USER, u64::MAX), bound),
            (user("user-2", u64::MAX), false),
        ] {
            let what = format!("{} {scope:?}", kind.typ);
            let found = kind.judge_at(&kind.text(), UnixSeconds(NOW), &about(vec![scope.clone()], Effect::Revoke));
            assert_eq!(found, if meant { Err("token_revoked") } else { Ok(UnixSeconds(NOW + LIFE)) }, "{what}");
            // A renewal demanded by then shortens its life, and it is over at that second, without leeway.
            for (by, now, expected) in [
                (NOW + 30, NOW, Ok(UnixSeconds(NOW + 30))),
                (NOW + 30, NOW + 29, Ok(UnixSeconds(NOW + 30))),
                (NOW + 30, NOW + 30, Err("token_revoked")),
                (NOW + LIFE + 30, NOW, Ok(UnixSeconds(NOW + LIFE))),
                (0, NOW, Err("token_revoked")),
            ] {
                let deny = about(vec![scope.clone()], Effect::RenewBy(UnixSeconds(by)));
                let found = kind.judge_at(&kind.text(), UnixSeconds(now), &deny);
                assert_eq!(found, if meant { expected } else { Ok(UnixSeconds(NOW + LIFE)) }, "{what} {by} {now}");
            }
        }
        let earliest = DenyList::restore(
            ringfort_token::Serial::default(),
            [20, 10, 30]
                .into_iter()
                .zip(1..)
                .map(|(by, n)| (n, entry(token(), Effect::RenewBy(UnixSeconds(NOW + by))))),
        );
        assert_eq!(kind.judge_at(&kind.text(), UnixSeconds(NOW), &earliest), Ok(UnixSeconds(NOW + 10)));
    }
}

#[test]
fn a_refusal_by_the_list_names_entry_and_reason() {
    let scope = EntryScope::User { user: USER.into(), below: GENERATION + 1 };
    let deny = DenyList::restore(ringfort_token::Serial::default(), [(9, entry(scope, Effect::Revoke))]);
    let key = holder();
    let token = claims();
    let audience = &token.aud[0];
    let expectation = Expectation { audience, holder: Holder::Key(&key), now: UnixSeconds(NOW), deny: &deny };
    let refusal = verifier().verify(&signing_key(SEED).sign(&token).unwrap(), &expectation).unwrap_err();
    assert_eq!(refusal, Refusal::Revoked { serial: 9, reason: "lost".into() });
    assert_eq!(verifier().issuer(), ORGANISATION);
}
