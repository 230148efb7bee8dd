//! Certificates: whose key, whose name, which use.

use std::io::Write;
use std::process::Command;

use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

/// Whether `openssl` is there for the test `name`, which is passed over where it is not; CI must have it.
fn has_openssl(name: &str) -> bool {
    let is_there = Command::new("openssl").arg("version").output().is_ok();
    if !is_there {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{name} needs openssl: install openssl");
        // What a test prints by `println!` is seen when it fails only.
        let mut seen = std::io::stdout();
        writeln!(seen, "SKIPPED {name}: install openssl").unwrap();
    }
    is_there
}

/// What `openssl req` makes with these arguments.
fn openssl_request(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let out = folder.join("request.der");
    let made = Command::new("openssl")
        .args(["req", "-new", "-nodes", "-subj", "/CN=mallory", "-outform", "DER", "-keyout", "/dev/null", "-out"])
        .arg(&out)
        .args(arguments)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::read(out).unwrap()
}

/// The public key in a request.
fn spki(request: &[u8]) -> Vec<u8> {
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(request).unwrap();
    request.certification_request_info.subject_pki.raw.to_vec()
}

/// alice's claims for a key.
async fn bearer_of(world: &World, spki: &[u8]) -> Result<Bearer, Refused> {
    let key = KeyThumbprint::of_spki(spki)?;
    let request = api::LoginRequest {
        user: "alice".into(),
        password: "alice password".into(),
        client_id: key.to_string(),
        method: None,
        otp: None,
    };
    let response = world.core.login(&request, key, FROM, NOW).await?;
    world.core.bearer(&response.claims, &key, NOW)
}

fn leaf(response: &api::CertificateResponse) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(&response.chain[0]).unwrap()
}

// Covers: A5 allow
// Covers: A8 allow
// Covers: A9 allow
#[tokio::test]
async fn the_certificate_names_the_session_of_the_claims() {
    let world = World::new().await;
    let device = Client::new("laptop");
    let bearer = world.login("alice", &device, NOW).await;
    let response = world.core.certificate(&bearer, &device.request(), NOW).await.unwrap();
    let chain: Vec<_> = response.chain.iter().map(|one| URL_SAFE_NO_PAD.decode(one).unwrap()).collect();
    let peer = world.peer(&chain, Role::Device, NOW);
    assert_eq!(peer.session().unwrap().to_string(), bearer.claims().sub);
    assert_eq!(peer.id(), "laptop");
    assert_eq!(*peer.key(), bearer.claims().cnf.jkt);
    assert_eq!(peer.not_after(), bearer.claims().exp);
    // A user's certificate is no server's.
    let leaf = CertificateDer::from(chain[0].clone());
    assert!(world.core.trust().verify(&leaf, Side::Server, Role::Device, NOW).is_err());
    // Over mutual TLS the same claims are the bearer's.
    let text = device_claims(&world, &device).await;
    let again = world.core.bearer_with_certificate(&text, &peer, NOW).unwrap();
    assert_eq!(again.session(), bearer.session());
}

/// New claims of alice's device as text.
async fn device_claims(world: &World, device: &Client) -> String {
    let request = device.credentials("alice", "alice password");
    world.core.login(&request, device.thumbprint(), FROM, NOW).await.unwrap().claims
}

// Covers: A8 refuse
// Covers: A9 refuse
#[tokio::test]
async fn a_request_by_another_key_gets_nothing() {
    let world = World::new().await;
    let device = Client::new("laptop");
    let bearer = world.login("alice", &device, NOW).await;
    refused(world.core.certificate(&bearer, &Client::new("laptop").request(), NOW).await, "key_mismatch");
    // Nor one that is signed by another key than the one in it, or is none.
    let mut tampered = device.request();
    let last = tampered.len() - 1;
    tampered[last] ^= 1;
    refused(world.core.certificate(&bearer, &tampered, NOW).await, "request_malformed");
    refused(world.core.certificate(&bearer, b"nothing", NOW).await, "request_malformed");
    refused(world.core.certificate(&bearer, &[0x30; 9 << 10], NOW).await, "request_malformed");
}

// Covers: A9 refuse
#[tokio::test]
async fn claims_do_not_go_with_the_certificate_of_another_session() {
    let world = World::new().await;
    let (one, other) = (Client::new("laptop"), Client { id: "phone".into(), key: KeyPair::generate().unwrap() });
    let bearer = world.login("alice", &other, NOW).await;
    let response = world.core.certificate(&bearer, &other.request(), NOW).await.unwrap();
    let chain: Vec<_> = response.chain.iter().map(|one| URL_SAFE_NO_PAD.decode(one).unwrap()).collect();
    let peer = world.peer(&chain, Role::Device, NOW);
    let text = device_claims(&world, &one).await;
    refused(world.core.bearer_with_certificate(&text, &peer, NOW), "token_wrong_holder");
    // The same key under another client id is another session.
    let twin = Client { id: "tablet".into(), key: other.key };
    let text = device_claims(&world, &twin).await;
    refused(world.core.bearer_with_certificate(&text, &peer, NOW), "certificate_mismatch");
    // And a Gateway is no device.
    let (_, joined) = world.gateway("east-1", "east").await;
    let gateway = world.peer(&joined.chain, Role::Gateway, NOW);
    refused(world.core.bearer_with_certificate(&text, &gateway, NOW), "wrong_role");
}

// Covers: A8 allow
// Covers: A8 refuse
#[tokio::test]
async fn of_a_request_only_the_key_is_taken() {
    if !has_openssl("of_a_request_only_the_key_is_taken") {
        return;
    }
    let world = World::new().await;
    let request = openssl_request(
        world.folder.path(),
        &[
            "-newkey",
            "rsa:2048",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=keyCertSign",
            "-addext",
            "extendedKeyUsage=serverAuth",
            "-addext",
            "subjectAltName=URI:ringfort://x/controller/y,DNS:controller.example",
        ],
    );
    let bearer = bearer_of(&world, &spki(&request)).await.unwrap();
    let der = leaf(&world.core.certificate(&bearer, &request, NOW).await.unwrap());
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(certificate.public_key().raw, spki(&request));
    assert!(!certificate.is_ca());
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    let uri = format!("ringfort://{}/device/{}", world.core.organisation(), bearer.session().client());
    assert_eq!(names.len(), 1);
    assert!(matches!(names[0], x509_parser::extensions::GeneralName::URI(found) if found == uri));
    assert!(!certificate.subject().to_string().contains("mallory"));
    assert_eq!(certificate.raw_serial().len(), 16);
}

// Covers: A8 refuse
#[tokio::test]
async fn keys_that_are_too_weak_or_too_strange_are_refused() {
    if !has_openssl("keys_that_are_too_weak_or_too_strange_are_refused") {
        return;
    }
    let world = World::new().await;
    let bearer = world.login("alice", &Client::new("laptop"), NOW).await;
    for key in [&["-newkey", "rsa:1024"][..], &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp521r1"]] {
        let request = openssl_request(world.folder.path(), key);
        refused(world.core.certificate(&bearer, &request, NOW).await, "request_malformed");
    }
    for key in [&["-newkey", "ed25519"][..], &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"]] {
        let request = openssl_request(world.folder.path(), key);
        let bearer = bearer_of(&world, &spki(&request)).await.unwrap();
        world.core.certificate(&bearer, &request, NOW).await.unwrap();
    }
}
