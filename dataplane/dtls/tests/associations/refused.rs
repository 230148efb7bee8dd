//! Who is refused, and that nobody refused sees or sends data.

use rcgen::{CertificateParams, KeyPair};
use ringfort_dtls::{Alert, ClientConfig, Ended, Event, Settings, Trusted};
use ringfort_identity::{ConfigError, Credentials, Role, Side, VerifyError};
use rustls_pki_types::PrivatePkcs8KeyDer;
use std::sync::Arc;

use crate::world::{CLIENT, Ca, Ends, Pair, SERVER, ended, name};

fn expired(params: &mut CertificateParams) {
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
}

// Covers: K4 refuse, A2 refuse, A10 refuse
#[test]
fn a_client_without_the_right_certificate_is_refused_before_any_data() {
    let (ca, other) = (Ca::root(), Ca::root());
    let gateway = ca.gateway();
    let old = KeyPair::generate().unwrap();
    let old = ca.issue(&old, old.serialize_der(), |params| {
        expired(params);
        name(params, "ringfort://example/device/old", CLIENT);
    });
    let cases = [
        ("foreign CA", other.leaf("ringfort://example/device/eve", CLIENT), Alert::UNKNOWN_CA),
        ("foreign intermediate", other.intermediate().device(), Alert::UNKNOWN_CA),
        ("expired", old, Alert::CERTIFICATE_EXPIRED),
        ("serverAuth only", ca.leaf("ringfort://example/device/eve", SERVER), Alert::UNSUPPORTED_CERTIFICATE),
        ("gateway role", ca.leaf("ringfort://example/gateway/g2", CLIENT), Alert::ACCESS_DENIED),
        ("no ringfort URI", ca.leaf("https://example.org/device/eve", CLIENT), Alert::BAD_CERTIFICATE),
    ];
    for (case, device, alert) in cases {
        let mut pair = Pair::new(&Ends::of(&ca, &gateway, &device));
        let mut record = [0; 200];
        // The client is done before the server has looked at its certificate; what it sends then comes to nothing.
        for _ in 0..4 {
            pair.client_sends().into_iter().for_each(|mut datagram| pair.reaches_server(&mut datagram));
            let down = pair.server.transmits();
            down.into_iter().for_each(|mut datagram| pair.reaches_client(&mut datagram));
            pair.take_events();
            if let Some(length) = pair.client.seal(b"let me in", &mut record) {
                pair.reaches_server(&mut record[..length]);
            }
        }
        pair.run();
        assert!(matches!(ended(&pair.server_events), Some(Ended::PeerRefused(_))), "{case}: {:?}", pair.server_events);
        assert_eq!(ended(&pair.client_events), Some(&Ended::Alerted(alert)), "{case}");
        assert!(pair.server_end().seal(b"leak", &mut [0; 100]).is_none());
        assert!(pair.delivered.is_empty(), "{case}");
    }
}

#[test]
fn a_client_that_shows_nothing_is_refused() {
    let ca = Ca::root();
    let usual = Ends::of(&ca, &ca.gateway(), &ca.device());
    let gateways = Arc::new(Trusted::new(ca.trust(&[]), Side::Server, Role::Gateway));
    let client = Arc::new(ClientConfig::with_settings(None, gateways, Settings::default()).unwrap());
    let mut pair = Pair::new(&Ends { client, ..usual });
    pair.run();
    assert!(matches!(ended(&pair.server_events), Some(Ended::Failed(why)) if why.alert == Alert::CERTIFICATE_REQUIRED));
    assert_eq!(ended(&pair.client_events), Some(&Ended::Alerted(Alert::CERTIFICATE_REQUIRED)));
}

#[test]
fn a_gateway_without_the_right_certificate_is_refused_by_the_client() {
    let (ca, other) = (Ca::root(), Ca::root());
    let device = ca.device();
    for gateway in [other.gateway(), ca.leaf("ringfort://example/device/x", SERVER)] {
        let mut pair = Pair::new(&Ends::of(&ca, &gateway, &device));
        pair.run();
        assert!(matches!(pair.client_events.as_slice(), [Event::Ended(Ended::PeerRefused(_))]));
        assert!(matches!(ended(&pair.server_events), Some(Ended::Alerted(_))));
        assert!(pair.server_peer().is_none());
    }
}

/// A key of another pair than the certificate's, or of a kind that is not for signing here.
// Covers: A8 refuse
#[test]
fn a_key_that_is_not_the_certificates_is_refused() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    let with = |pkcs8: Vec<u8>| Credentials::new(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(pkcs8));
    assert!(with(key.serialize_der()).is_ok());
    for other in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let other = KeyPair::generate_for(other).unwrap().serialize_der();
        assert!(matches!(with(other), Err(ConfigError::KeyMismatch)));
    }
    assert!(matches!(with(vec![0x30, 0]), Err(ConfigError::PrivateKey)));
}

/// A Gateway of the right name under the right CA is not enough: the Controller has named its certificate.
// Covers: C12 allow, C12 refuse
#[test]
fn a_gateway_with_another_certificate_than_the_one_named_is_refused() {
    let ca = Ca::root();
    let (gateway, other, device) = (ca.gateway(), ca.gateway(), ca.device());
    let digest = |of: &Credentials| {
        let leaf = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &of.chain()[0]);
        <[u8; 32]>::try_from(leaf.as_ref()).unwrap()
    };
    let pinning = |pins: Vec<[u8; 32]>| {
        let client = Arc::new(ClientConfig::pinned(&device, ca.trust(&[]), pins).unwrap());
        Ends { client, ..Ends::of(&ca, &gateway, &device) }
    };
    for pins in [vec![digest(&gateway)], vec![digest(&other), digest(&gateway)]] {
        Pair::established(&pinning(pins)).assert_alive();
    }
    let mut pair = Pair::new(&pinning(vec![digest(&other)]));
    pair.run();
    assert_eq!(ended(&pair.client_events), Some(&Ended::PeerRefused(VerifyError::Pin)));
    assert_eq!(pair.server_peer(), None, "the client showed nothing of itself");
}
