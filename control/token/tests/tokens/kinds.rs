//! Every kind is signed, believed, and read back as it was.

use std::fmt::Debug;

use ringfort_identity::SessionDn;
use ringfort_token::{
    ClaimsToken, DenyList, Expectation, Holder, KeyRefused, KeySet, Refusal, Signed, SigningKey, Token, Verifier,
    audience,
};
use ringfort_types::UnixSeconds;

use crate::world::{
    GENERATION, LIFE, NOW, ORGANISATION, SEED, SITE, USER, all, claims, configuration, connect, entitlement, holder,
    pkcs8, raw_key, revocations, session, signing_key, ticket, verifier,
};

fn round_trip<T: Token + PartialEq + Debug>(token: &T) {
    let signed = signing_key(SEED).sign(token).unwrap();
    let arrived = Signed::<T>::from_text(signed.as_str()).unwrap();
    assert_eq!(arrived, signed);
    let key = holder();
    let registered = token.registered();
    let holders: &[Holder<'_>] =
        if registered.holder.is_some() { &[Holder::Key(&key), Holder::Pushed] } else { &[Holder::Nobody] };
    for holder in holders {
        let expectation = Expectation {
            audience: &registered.audiences[0],
            holder: *holder,
            now: UnixSeconds(NOW),
            deny: &DenyList::default(),
        };
        let verified = verifier().verify(&arrived, &expectation).unwrap();
        assert_eq!(&*verified, token);
        assert_eq!(verified.dies_at(), UnixSeconds(NOW + LIFE));
    }
}

// Covers: R12 allow
#[test]
fn every_kind_reads_back_equal() {
    round_trip(&ticket());
    round_trip(&claims());
    round_trip(&entitlement());
    round_trip(&connect());
    round_trip(&configuration());
    round_trip(&revocations(4, 9, Vec::new()));
}

/// The texts that the tables of this folder begin with are those that the crate itself writes.
#[test]
fn the_samples_of_the_tables_are_what_the_crate_writes() {
    for kind in all() {
        let text = (kind.sign)(&signing_key(SEED), &kind.claims.to_string()).unwrap();
        assert_eq!(kind.text(), text, "{}", kind.typ);
        assert_eq!(kind.judge(&text), Ok(UnixSeconds(NOW + LIFE)), "{}", kind.typ);
    }
}

/// The name is that of the session, and the signature covers it.
// Covers: A5 allow
// Covers: A5 refuse
#[test]
fn a_claims_token_names_one_session() {
    let token = claims();
    assert_eq!(token.sub.parse::<SessionDn>().unwrap(), session());
    let signed = signing_key(SEED).sign(&token).unwrap();
    let key = holder();
    let deny = DenyList::default();
    let holder = Holder::Key(&key);
    let expectation = Expectation { audience: &token.aud[0], holder, now: UnixSeconds(NOW), deny: &deny };
    assert_eq!(verifier().verify(&signed, &expectation).unwrap().sub, "UID=client-1,CN=user-1,O=example");
    for other in [("client-2", USER, ORGANISATION), ("client-1", "user-2", ORGANISATION), ("client-1", USER, "other")] {
        let sub = SessionDn::new(other.0, other.1, other.2).unwrap().to_string();
        let renamed = signing_key(SEED).sign(&ClaimsToken { sub, ..token.clone() }).unwrap();
        let parts: Vec<_> = signed.as_str().split('.').collect();
        let payload = renamed.as_str().split('.').nth(1).unwrap();
        let text = [parts[0], payload, parts[2]].join(".");
        let refusal = verifier().verify(&Signed::<ClaimsToken>::from_text(&text).unwrap(), &expectation).unwrap_err();
        assert_eq!(refusal, Refusal::BadSignature);
    }
}

// Covers: C13 allow
#[test]
fn an_entitlement_token_names_user_time_key_and_one_site() {
    let signed = signing_key(SEED).sign(&entitlement()).unwrap();
    let key = holder();
    let site = audience::site(SITE);
    let expectation =
        Expectation { audience: &site, holder: Holder::Key(&key), now: UnixSeconds(NOW), deny: &DenyList::default() };
    let token = verifier().verify(&signed, &expectation).unwrap();
    assert_eq!(token.aud, [site.as_str()]);
    assert_eq!(token.sub.parse::<SessionDn>().unwrap(), session());
    assert_eq!((token.user.as_str(), token.generation), (USER, GENERATION));
    assert_eq!(token.cnf.jkt, key);
    assert_eq!((token.nbf, token.exp), (UnixSeconds(NOW), UnixSeconds(NOW + LIFE)));
}

/// Several Controllers of an organisation are one issuer.
// Covers: C14 allow
#[test]
fn tokens_of_every_key_in_the_set_are_believed() {
    let mut keys = KeySet::default();
    assert!(keys.is_empty());
    for seed in 1..=4 {
        keys.add(signing_key(seed).public_key()).unwrap();
    }
    keys.add(signing_key(1).public_key()).unwrap();
    assert_eq!(keys.len(), 4);
    let verifier = Verifier::new(ORGANISATION, keys);
    assert_eq!(verifier.issuer(), ORGANISATION);
    let expectation = Expectation {
        audience: &audience::gateway("gateway-1"),
        holder: Holder::Nobody,
        now: UnixSeconds(NOW),
        deny: &DenyList::default(),
    };
    for seed in 1..=4 {
        let signed = signing_key(seed).sign(&configuration()).unwrap();
        assert_eq!(*verifier.verify(&signed, &expectation).unwrap(), configuration());
    }
    let signed = signing_key(5).sign(&configuration()).unwrap();
    assert_eq!(verifier.verify(&signed, &expectation).unwrap_err(), Refusal::UnknownKey);
    let nobody = Verifier::new(ORGANISATION, KeySet::default());
    let signed = signing_key(1).sign(&configuration()).unwrap();
    assert_eq!(nobody.verify(&signed, &expectation).unwrap_err(), Refusal::UnknownKey);
}

/// So another organisation's key cannot stand under the id of ours: nobody says what a key is called.
#[test]
fn a_key_is_called_by_its_thumbprint() {
    let key = signing_key(SEED);
    assert_eq!(key.id(), ringfort_identity::KeyThumbprint::of_spki(key.public_key()).unwrap().to_string());
    assert_ne!(key.id(), signing_key(2).id());
    let mut keys = KeySet::default();
    keys.add(signing_key(2).public_key()).unwrap();
    let expectation = Expectation {
        audience: &audience::gateway("gateway-1"),
        holder: Holder::Nobody,
        now: UnixSeconds(NOW),
        deny: &DenyList::default(),
    };
    let signed = key.sign(&configuration()).unwrap();
    assert_eq!(Verifier::new(ORGANISATION, keys).verify(&signed, &expectation).unwrap_err(), Refusal::UnknownKey);
}

#[test]
fn a_private_key_is_taken_in_both_versions_and_never_shown() {
    let version_2 = raw_key(SEED).to_pkcs8().unwrap();
    assert_ne!(version_2.as_ref(), pkcs8(SEED));
    let key = SigningKey::from_pkcs8(version_2.as_ref()).unwrap();
    assert_eq!(key.id(), signing_key(SEED).id());
    assert_eq!(key.sign(&ticket()).unwrap(), signing_key(SEED).sign(&ticket()).unwrap());
    assert_eq!(format!("{key:?}"), format!("SigningKey {{ id: {:?}, .. }}", key.id()));
    let signed = key.sign(&ticket()).unwrap();
    assert_eq!(format!("{signed:?}"), format!("Signed {{ type: \"rf-enrol+jwt\", bytes: {} }}", signed.as_str().len()));
}

#[test]
fn other_keys_are_none_for_tokens() {
    for bad in [&b""[..], b"nothing", &pkcs8(1)[..47]] {
        assert_eq!(SigningKey::from_pkcs8(bad).unwrap_err(), KeyRefused::Private, "{bad:?}");
    }
    let p256 = aws_lc_rs::signature::EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING);
    let p256 = p256.unwrap();
    let pkcs8 = p256.to_pkcs8v1().unwrap();
    assert_eq!(SigningKey::from_pkcs8(pkcs8.as_ref()).unwrap_err(), KeyRefused::Private);

    let mut keys = KeySet::default();
    let spki = aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(
        aws_lc_rs::signature::KeyPair::public_key(&p256),
    );
    let spki = spki.unwrap();
    let good = signing_key(1).public_key().to_vec();
    for bad in [spki.as_ref(), b"", &good[..43], &[good.clone(), vec![0]].concat(), &good[12..]] {
        assert!(matches!(keys.add(bad), Err(KeyRefused::Public(_))), "{bad:?}");
    }
    assert!(keys.is_empty());
}

#[test]
fn a_full_set_takes_no_further_key_and_keeps_those_it_has() {
    let mut keys = KeySet::default();
    for seed in 0..32 {
        keys.add(signing_key(seed).public_key()).unwrap();
    }
    assert_eq!(keys.add(signing_key(32).public_key()), Err(KeyRefused::TooMany));
    assert_eq!(keys.add(signing_key(0).public_key()), Ok(()));
    assert_eq!(keys.len(), 32);
}
