//! Who a leaf says that the peer is.

use aws_lc_rs::digest;
use rcgen::string::BmpString;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, KeyPair,
    PublicKeyData, SanType, SerialNumber,
};
use ringfort_identity::{KeyError, KeyThumbprint, Role, Side, VerifyError};

use crate::world::{Certificate, NOW, UNTIL, device, gateway, leaf_of, name, uri, world};

/// UID (RFC 4519 §2.39).
fn uid() -> DnType {
    DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1])
}

const O: DnType = DnType::OrganizationName;
const CN: DnType = DnType::CommonName;

/// A certificate whose subjectAltName has these bytes.
fn with_names(der: &[u8]) -> CertificateParams {
    let mut params = device();
    params.subject_alt_names.clear();
    let extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], der.to_vec());
    params.custom_extensions.push(extension);
    params
}

/// A URI name (RFC 5280 §4.2.1.6).
fn uri_name(bytes: &[u8]) -> Vec<u8> {
    [&[0x86, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn names(all: &[Vec<u8>]) -> Vec<u8> {
    let content = all.concat();
    [&[0x30, u8::try_from(content.len()).unwrap()], content.as_slice()].concat()
}

#[test]
fn a_certificate_names_exactly_one_uri() {
    let world = world();
    let verify = |params: &CertificateParams| {
        world.verify(&world.intermediate.leaf(params), Side::Client, Role::Device).map(|peer| peer.id().to_string())
    };
    let own = "ringfort://example/device/client-1";
    let with = |names: Vec<SanType>| {
        let mut params = device();
        params.subject_alt_names = names;
        params
    };
    let host = || SanType::DnsName("device.example".try_into().unwrap());
    assert_eq!(verify(&with(vec![uri(own)])), Ok("client-1".into()));
    assert_eq!(verify(&with(vec![host(), uri(own)])), Ok("client-1".into()));
    for names in [
        vec![],
        vec![host()],
        vec![uri(own), uri("ringfort://example/controller/controller-1")],
        vec![uri("ringfort://example/controller/controller-1"), uri(own)],
        vec![uri(own), uri(own)],
        vec![uri(own), uri("https://example.org/")],
        vec![uri("https://example.org/"), uri(own)],
        vec![uri(own), host(), uri("")],
    ] {
        assert_eq!(verify(&with(names.clone())), Err(VerifyError::NoSingleUri), "{names:?}");
    }
    for other in [
        "",
        "https://example.org/",
        "spiffe://example/device/client-1",
        "RINGFORT://example/device/client-1",
        "ringfort://example/devices/client-1",
        "ringfort://example/device/client-1/",
        "ringfort://example/device/client-1?x",
        "ringfort://example/device/client%2d1",
        "ringfort://example/device/",
        "ringfort:///device/client-1",
    ] {
        assert_eq!(verify(&with(vec![uri(other)])), Err(VerifyError::Uri), "{other:?}");
    }
    // The same bytes by hand, and then a second name that is no text.
    let own = uri_name(own.as_bytes());
    assert_eq!(verify(&with_names(&names_of(&[&own]))), Ok("client-1".into()));
    let broken = uri_name(b"ringfort://example/controller/\xff");
    for all in [vec![&own, &broken], vec![&broken, &own]] {
        let found = verify(&with_names(&names_of(&all)));
        assert!(matches!(found, Err(VerifyError::NoSingleUri | VerifyError::Form)), "{found:?}");
    }
    let cut = [0x86, 0x7f, b'r'].to_vec();
    assert!(verify(&with_names(&names_of(&[&own, &cut]))).is_err());
    assert!(verify(&with_names(b"")).is_err());
    assert!(verify(&with_names(&[0x30, 0])).is_err());
}

fn names_of(all: &[&Vec<u8>]) -> Vec<u8> {
    names(&all.iter().map(|name| (*name).clone()).collect::<Vec<_>>())
}

/// A9: the subject is the session's name, and says the same as the URI.
#[test]
fn a_devices_subject_is_its_sessions_name_or_none() {
    let world = world();
    let session = |subject: DistinguishedName| {
        let mut params = device();
        params.distinguished_name = subject;
        let peer = world.verify(&world.intermediate.leaf(&params), Side::Client, Role::Device)?;
        Ok::<_, VerifyError>(peer.session().map(ToString::to_string))
    };
    let own = [(O, "example"), (CN, "user-1"), (uid(), "client-1")];
    assert_eq!(session(name(&own)), Ok(Some("UID=client-1,CN=user-1,O=example".into())));
    // Subjects of another form name no session.
    for subject in [
        vec![],
        vec![(CN, "user-1")],
        vec![(CN, "client-1")],
        vec![(CN, "UID=client-1,CN=user-1,O=example")],
        vec![(O, "example"), (CN, "user-1")],
        vec![(CN, "user-1"), (uid(), "client-1")],
        vec![(uid(), "client-1"), (CN, "user-1"), (O, "example")],
        vec![(O, "example"), (CN, "user-1"), (uid(), "client-1"), (DnType::CountryName, "FR")],
        vec![(O, "example"), (DnType::OrganizationalUnitName, "user-1"), (uid(), "client-1")],
    ] {
        assert_eq!(session(name(&subject)), Ok(None), "{subject:?}");
    }
    // Of this form, but of somebody else, or of nobody.
    for (organisation, user, client) in [
        ("example", "user-1", "client-2"),
        ("example", "user-1", "Client-1"),
        ("example", "user-1", "client-1 "),
        ("example", "user-1", ""),
        ("other", "user-1", "client-1"),
        ("", "user-1", "client-1"),
        ("example", "", "client-1"),
        ("example", "user 1", "client-1"),
        ("example", "user-1,O=other", "client-1"),
        ("example", "user-1+x", "client-1"),
        ("example", "usér", "client-1"),
        ("example", &"u".repeat(129), "client-1"),
    ] {
        let subject = name(&[(O, organisation), (CN, user), (uid(), client)]);
        assert_eq!(session(subject), Err(VerifyError::Subject), "{organisation} {user} {client}");
    }
    let mut wide = name(&own[..2]);
    wide.push(uid(), DnValue::BmpString(BmpString::try_from("client-1").unwrap()));
    assert_eq!(session(wide), Err(VerifyError::Subject));
}

/// What is looked up is what the certificate says twice, and never one of two.
// Covers: W6 refuse
#[test]
fn a_hosts_common_name_is_the_hostname_of_its_uri() {
    let world = world();
    let verify = |id: &str, subject: DistinguishedName| {
        let mut params = leaf_of(Role::Host, id, &[ExtendedKeyUsagePurpose::ClientAuth]);
        params.distinguished_name = subject;
        world.verify(&world.intermediate.leaf(&params), Side::Client, Role::Host).map(|peer| peer.id().to_owned())
    };
    assert_eq!(verify("nas.example", name(&[(O, "example"), (CN, "nas.example")])), Ok("nas.example".into()));
    let mut twice = name(&[(CN, "nas")]);
    twice.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "other");
    for (id, subject) in [
        ("nas", name(&[])),
        ("nas", name(&[(O, "nas")])),
        ("nas", name(&[(CN, "other")])),
        ("nas", name(&[(CN, "nas ")])),
        ("nas", name(&[(CN, "NAS")])),
        ("NAS", name(&[(CN, "NAS")])),
        ("a_b", name(&[(CN, "a_b")])),
        ("nas", twice),
    ] {
        assert_eq!(verify(id, subject.clone()), Err(VerifyError::CommonName), "{id} {subject:?}");
    }
}

#[test]
fn only_devices_have_sessions() {
    let world = world();
    for role in Role::ALL {
        let mut params = leaf_of(role, "client-1", &[ExtendedKeyUsagePurpose::ClientAuth]);
        // A host's common name is its id.
        let common_name = if role == Role::Host { "client-1" } else { "user-1" };
        params.distinguished_name = name(&[(O, "example"), (CN, common_name), (uid(), "client-1")]);
        let peer = world.verify(&world.intermediate.leaf(&params), Side::Client, role).unwrap();
        assert_eq!(peer.session().is_some(), role == Role::Device, "{role}");
    }
}

#[test]
fn an_identity_says_what_the_leaf_says() {
    let world = world();
    let key = KeyPair::generate().unwrap();
    // In DER the number begins with a zero where its first bit is set; that byte is none of the number.
    for (serial, text) in [
        (vec![0x0a, 0x1b], "0a1b"),
        (vec![0x7f], "7f"),
        (vec![0x80], "80"),
        (vec![0xff; 16], "ffffffffffffffffffffffffffffffff"),
        (vec![0, 0x12], "12"),
        (vec![0, 0x92], "92"),
        (vec![1, 0, 0], "010000"),
    ] {
        let mut params = gateway();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let leaf: Certificate = world.intermediate.issue(&params, &key);
        let peer = world.verify(&leaf, Side::Server, Role::Gateway).unwrap();
        assert_eq!(peer.serial(), text);
        assert_eq!(peer.not_after(), UNTIL);
        assert_eq!(*peer.key(), KeyThumbprint::of_spki(&key.subject_public_key_info()).unwrap());
        assert_eq!((peer.organisation(), peer.id(), peer.role()), ("example", "gateway-1", Role::Gateway));
        assert_eq!(peer.session(), None);
        assert_eq!(peer.certificate_digest(), digest::digest(&digest::SHA256, &leaf).as_ref());
        assert_eq!(world.trust.verify_any_role(&leaf, Side::Client, NOW).unwrap(), peer);
    }
}

/// A8: which keys a peer may have.
#[test]
fn the_leafs_key_is_of_an_accepted_kind() {
    let world = world();
    for (algorithm, good) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, true),
        (&rcgen::PKCS_ECDSA_P384_SHA384, true),
        (&rcgen::PKCS_ED25519, true),
        (&rcgen::PKCS_RSA_SHA256, true),
        (&rcgen::PKCS_ECDSA_P521_SHA512, false),
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let found = world.verify(&world.intermediate.issue(&device(), &key), Side::Client, Role::Device);
        match found {
            Ok(peer) => {
                assert!(good, "{algorithm:?}");
                assert_eq!(*peer.key(), KeyThumbprint::of_spki(&key.subject_public_key_info()).unwrap());
            }
            Err(refused) => {
                assert!(!good, "{algorithm:?}: {refused}");
                assert!(matches!(refused, VerifyError::Key(KeyError::Kind { .. })), "{refused}");
            }
        }
    }
}
