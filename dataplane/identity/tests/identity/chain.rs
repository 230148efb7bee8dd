//! Chain, time, usage and role.

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use ringfort_identity::{ConfigError, Role, Side, Trust, VerifyError};
use ringfort_types::UnixSeconds;

use crate::world::{
    Ca, Certificate, FROM, NOW, UNTIL, World, ca_params, device, gateway, jwt, leaf_of, params, root, root_with, world,
};

const SIDES: [Side; 3] = [Side::Server, Side::Client, Side::Signer];

fn usage_of(side: Side) -> ExtendedKeyUsagePurpose {
    match side {
        Side::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Side::Client => ExtendedKeyUsagePurpose::ClientAuth,
        Side::Signer => jwt(),
    }
}

/// Every role of a certificate, with every usage, on every side, asked for every role.
#[test]
fn a_peer_is_taken_in_its_own_role_and_for_its_own_usage_only() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    let world = world();
    let usages = [
        vec![],
        vec![ServerAuth],
        vec![ClientAuth],
        vec![ServerAuth, ClientAuth],
        vec![jwt()],
        vec![Any],
        vec![CodeSigning],
        vec![CodeSigning, jwt(), ClientAuth],
    ];
    let mut taken = 0;
    for role in Role::ALL {
        for usages in &usages {
            let leaf = world.intermediate.leaf(&leaf_of(role, "id-1", usages));
            for side in SIDES {
                let right_usage = usages.contains(&usage_of(side));
                for asked in Role::ALL {
                    let found = world.verify(&leaf, side, asked);
                    let what = format!("{role} {usages:?} as {asked} {side:?}: {found:?}");
                    match (right_usage, asked == role) {
                        (true, true) => {
                            assert_eq!(found.unwrap().role(), role, "{what}");
                            taken += 1;
                        }
                        (true, false) => assert_eq!(found, Err(VerifyError::Role { expected: asked }), "{what}"),
                        (false, _) => {
                            let refused = matches!(found, Err(VerifyError::Certificate(_) | VerifyError::Usage { .. }));
                            assert!(refused, "{what}");
                        }
                    }
                }
                let any_role = world.trust.verify_any_role(&leaf, side, NOW);
                assert_eq!(any_role.ok().map(|peer| peer.role()), right_usage.then_some(role));
            }
        }
    }
    assert_eq!(taken, Role::ALL.len() * 7);
}

/// An intermediate that names usages bounds what stands under it.
#[test]
fn an_intermediate_passes_on_no_usage_that_it_has_not() {
    let root = root();
    for (usages, expected) in [
        (vec![], true),
        (vec![ExtendedKeyUsagePurpose::ClientAuth], true),
        (vec![ExtendedKeyUsagePurpose::ServerAuth], false),
    ] {
        let mut params = ca_params("intermediate");
        params.extended_key_usages = usages.clone();
        let intermediate = root.intermediate_with(params);
        let trust = Trust::new(&root.certificate, [intermediate.certificate.clone()]).unwrap();
        let found = trust.verify(&intermediate.leaf(&device()), Side::Client, Role::Device, NOW);
        assert_eq!(found.is_ok(), expected, "{usages:?}: {found:?}");
    }
}

#[test]
fn a_certificate_counts_from_its_first_second_to_its_last() {
    let world = world();
    let leaf = world.intermediate.leaf(&device());
    for (now, good) in [
        (UnixSeconds(0), false),
        (UnixSeconds(FROM.0 - 1), false),
        (FROM, true),
        (NOW, true),
        (UNTIL, true),
        (UnixSeconds(UNTIL.0 + 1), false),
        (UnixSeconds(u64::from(u32::MAX)), false),
        (UnixSeconds(u64::MAX), false),
    ] {
        let found = world.trust.verify(&leaf, Side::Client, Role::Device, now);
        assert_eq!(found.is_ok(), good, "{now}: {found:?}");
    }
    let mut expired = device();
    expired.not_before = rcgen::date_time_ymd(2026, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2027, 1, 1);
    let mut early = device();
    early.not_before = rcgen::date_time_ymd(2027, 1, 16);
    let mut reversed = device();
    reversed.not_before = rcgen::date_time_ymd(2027, 1, 20);
    reversed.not_after = rcgen::date_time_ymd(2027, 1, 10);
    for params in [expired, early, reversed] {
        let found = world.verify(&world.intermediate.leaf(&params), Side::Client, Role::Device);
        assert!(matches!(found, Err(VerifyError::Certificate(_))), "{found:?}");
    }
}

#[test]
fn nothing_stands_under_an_intermediate_whose_time_is_over() {
    let root = root();
    for (from, until) in [((2026, 1, 1), (2027, 1, 1)), ((2027, 1, 20), (2028, 1, 1))] {
        let mut params = ca_params("intermediate");
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let intermediate = root.intermediate_with(params);
        let trust = Trust::new(&root.certificate, [intermediate.certificate.clone()]).unwrap();
        let leaf = intermediate.leaf(&device());
        let found = trust.verify(&leaf, Side::Client, Role::Device, NOW);
        assert!(matches!(found, Err(VerifyError::Certificate(_))), "{found:?}");
    }
}

#[test]
fn an_intermediate_is_known_beforehand() {
    let World { root, intermediate, trust: knows } = world();
    let leaf = intermediate.leaf(&device());
    let good = |trust: &Trust, leaf: &Certificate| trust.verify(leaf, Side::Client, Role::Device, NOW).is_ok();
    let under = |intermediates: Vec<Certificate>| Trust::new(&root.certificate, intermediates);
    let bare = under(Vec::new()).unwrap();
    assert!(good(&knows, &leaf) && !good(&bare, &leaf) && good(&bare, &root.leaf(&device())));
    let other = root.intermediate_with(ca_params("another"));
    let another = under(vec![other.certificate.clone()]).unwrap();
    assert!(!good(&another, &leaf) && good(&another, &other.leaf(&device())));
    assert!(!good(&under(vec![root.certificate.clone()]).unwrap(), &leaf));
    // As many as eight, among which one that cannot be read harms nobody.
    let others: Vec<_> = (0..8).map(|_| root.intermediate_with(ca_params("another")).certificate).collect();
    let behind = |n: usize| others[..n].iter().cloned().chain([intermediate.certificate.clone()]).collect::<Vec<_>>();
    assert!(good(&under(behind(7)).unwrap(), &leaf));
    assert!(matches!(under(behind(8)), Err(ConfigError::Intermediates { max: 8 })));
    let junk = Certificate::from(vec![0x30, 0]);
    assert!(good(&under(vec![junk.clone(), intermediate.certificate.clone()]).unwrap(), &leaf));
    assert!(matches!(Trust::new(&junk, []), Err(ConfigError::Certificate(_))));
}

#[test]
fn another_ca_is_not_ours_whatever_it_calls_itself() {
    let ours = world();
    // The same names, other keys.
    let theirs = world();
    let refused = |leaf: &Certificate| {
        let found = ours.verify(leaf, Side::Client, Role::Device);
        assert!(matches!(found, Err(VerifyError::Certificate(_))), "{found:?}");
    };
    refused(&theirs.intermediate.leaf(&device()));
    refused(&theirs.root.leaf(&device()));
    // By itself.
    let key = KeyPair::generate().unwrap();
    refused(device().self_signed(&key).unwrap().der());
    // Their leaf with a key of ours does not help, and ours is no issuer of theirs.
    assert!(ours.verify(&ours.intermediate.leaf(&device()), Side::Client, Role::Device).is_ok());
    assert!(theirs.verify(&ours.intermediate.leaf(&device()), Side::Client, Role::Device).is_err());
    // Not even told as an intermediate of ours.
    let told = [theirs.intermediate.certificate.clone(), theirs.root.certificate.clone()];
    let told = Trust::new(&ours.root.certificate, told).unwrap();
    assert!(told.verify(&theirs.intermediate.leaf(&device()), Side::Client, Role::Device, NOW).is_err());
}

/// A device is no CA, though its key could sign one.
#[test]
fn a_leaf_issues_nothing() {
    let world = world();
    for params in [device(), gateway()] {
        let false_ca = world.intermediate.intermediate_with(params);
        let leaf = false_ca.leaf(&leaf_of(Role::Controller, "controller-1", &[ExtendedKeyUsagePurpose::ServerAuth]));
        let told = [false_ca.certificate.clone(), world.intermediate.certificate.clone()];
        let told = Trust::new(&world.root.certificate, told).unwrap();
        for asked in Role::ALL {
            let found = told.verify(&leaf, Side::Server, asked, NOW);
            assert!(matches!(found, Err(VerifyError::Certificate(_))), "{found:?}");
        }
    }
}

#[test]
fn a_ca_is_no_peer() {
    let world = world();
    for constraints in [BasicConstraints::Unconstrained, BasicConstraints::Constrained(0)] {
        let mut params = gateway();
        params.is_ca = IsCa::Ca(constraints);
        let found = world.verify(&world.intermediate.leaf(&params), Side::Server, Role::Gateway);
        assert!(matches!(found, Err(VerifyError::Certificate(_))), "{found:?}");
    }
    let mut params = gateway();
    params.is_ca = IsCa::ExplicitNoCa;
    assert!(world.verify(&world.intermediate.leaf(&params), Side::Server, Role::Gateway).is_ok());
    for certificate in [&world.intermediate.certificate, &world.root.certificate] {
        assert!(world.trust.verify_any_role(certificate, Side::Server, NOW).is_err());
    }
}

#[test]
fn the_length_of_a_path_is_kept() {
    let root = root();
    let mut short = ca_params("intermediate");
    short.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    for (params, good) in [(short, false), (ca_params("intermediate"), true)] {
        let first = root.intermediate_with(params);
        let second = first.intermediate_with(ca_params("second"));
        let trust = Trust::new(&root.certificate, [first.certificate, second.certificate.clone()]).unwrap();
        let found = trust.verify(&second.leaf(&device()), Side::Client, Role::Device, NOW);
        assert_eq!(found.is_ok(), good, "{found:?}");
    }
}

/// The CA signs with ECDSA; what another algorithm signed is not looked into.
#[test]
fn the_ca_signs_by_its_own_algorithms_only() {
    let ca = |algorithm| -> Ca { root_with(KeyPair::generate_for(algorithm).unwrap()) };
    for (algorithm, good) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, true),
        (&rcgen::PKCS_ECDSA_P384_SHA384, true),
        (&rcgen::PKCS_ED25519, false),
        (&rcgen::PKCS_RSA_SHA256, false),
    ] {
        let root = ca(algorithm);
        let trust = Trust::new(&root.certificate, []).unwrap();
        let found = trust.verify(&root.leaf(&device()), Side::Client, Role::Device, NOW);
        assert_eq!(found.is_ok(), good, "{algorithm:?}: {found:?}");
    }
}

#[test]
fn a_changed_certificate_is_refused() {
    let world = world();
    let leaf = world.intermediate.leaf(&device());
    let refused = |bytes: Vec<u8>, what: &str| {
        let found = world.verify(&Certificate::from(bytes), Side::Client, Role::Device);
        assert!(found.is_err(), "{what}: {found:?}");
    };
    for at in 0..leaf.len() {
        refused(leaf[..at].to_vec(), &format!("the first {at} bytes"));
        for bit in [0, 6] {
            let mut changed = leaf.to_vec();
            changed[at] ^= 1 << bit;
            refused(changed, &format!("bit {bit} of byte {at}"));
        }
    }
    refused([&leaf[..], &[0]].concat(), "a byte more");
    refused([&leaf[..], &leaf[..]].concat(), "twice");
    // The intermediate is looked at with the same care.
    for at in 0..world.intermediate.certificate.len() {
        let mut changed = world.intermediate.certificate.to_vec();
        changed[at] ^= 1;
        let told = Trust::new(&world.root.certificate, [Certificate::from(changed)]).unwrap();
        assert!(told.verify(&leaf, Side::Client, Role::Device, NOW).is_err(), "byte {at} of the intermediate");
    }
}

/// What has no place in a chain: a certificate of ours that names nobody.
#[test]
fn a_certificate_without_role_is_nobodys() {
    let world = world();
    let mut nobody = params("client-1");
    nobody.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let found = world.verify(&world.intermediate.leaf(&nobody), Side::Client, Role::Device);
    assert_eq!(found, Err(VerifyError::NoSingleUri));
}
