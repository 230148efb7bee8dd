//! Every role at every door.

use std::collections::BTreeMap;

use hyper::Method;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use ringfort_enrol::tls::{self, ALPN_JOIN, Expected, OwnCertificate};
use ringfort_enrol::{HttpsError, read_message, wall_clock, write_message};
use ringfort_identity::{Credentials, Role, Trust};
use ringfort_proto::api::{self, NONCE_HEADER};
use ringfort_proto::v1;
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::support::{Controller, connect, grpc, path, status_code};

/// What a certificate for the matrix is like.
struct Like {
    role: Role,
    usage: ExtendedKeyUsagePurpose,
    expired: bool,
}

impl Like {
    const fn good(role: Role) -> Self {
        Self { role, usage: ExtendedKeyUsagePurpose::ClientAuth, expired: false }
    }
}

/// A CA that issues whatever it is asked for: the Controller's own intermediate, or another.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    organisation: String,
}

impl Ca {
    async fn of(controller: &Controller) -> Self {
        let read = |name: &str| std::fs::read_to_string(controller.folder().join(name)).unwrap();
        let key = KeyPair::from_pem(&read("intermediate.key")).unwrap();
        let status = controller.status().await;
        let organisation = status["organisation"].as_str().unwrap().to_owned();
        let issuer = Issuer::from_ca_cert_pem(&read("intermediate.pem"), key).unwrap();
        Self { issuer, chain: Vec::new(), organisation }
    }

    /// One that calls itself by the same names, and is none of ours.
    fn foreign(ours: &Self) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::OrganizationName, &ours.organisation);
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.self_signed(&key).unwrap().der().clone()];
        Self { issuer: Issuer::new(params, key), chain, organisation: ours.organisation.clone() }
    }

    fn issue(&self, like: Like) -> OwnCertificate {
        let Like { role, usage, expired } = like;
        let (id, user) = ("0b9e9ee5-5d0b-4f5f-9a50-0d0f5d3c1a11", "4f2c0a63-9a0e-4b66-8a08-0a7b6cf2c222");
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, &self.organisation);
        if role == Role::Device {
            let uid = DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1]);
            params.distinguished_name.push(DnType::CommonName, user);
            params.distinguished_name.push(uid, id);
        } else {
            params.distinguished_name.push(DnType::CommonName, id);
        }
        let uri = format!("ringfort://{}/{role}/{id}", self.organisation);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![usage];
        if expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 1, 2);
        } else {
            let year = 1_970 + i32::try_from(wall_clock().0 / 31_556_952).unwrap();
            params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
            params.not_after = rcgen::date_time_ymd(year + 2, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let chain = std::iter::once(leaf.der().clone()).chain(self.chain.iter().cloned()).collect();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        OwnCertificate::new(&Credentials::new(chain, key).unwrap()).unwrap()
    }
}

const CLOSED: &str = "closed";
const OK: &str = "ok";
/// Where a host registers itself; none of this name is authorised.
const HOST_DOOR: &str = "/api/hosts/nas.example/client";

/// What comes of knocking at each door: joining, what is public, a user's, an administrator's, a Gateway's, a host's.
async fn knock(controller: &Controller, own: Option<&OwnCertificate>, trust: &Trust) -> [String; 6] {
    let address = controller.address().to_string();
    let get = async |at: &str| {
        let mut https = match connect(&address, own, trust).await {
            Ok(https) => https,
            Err(_) => return CLOSED.to_owned(),
        };
        let at = if at == HOST_DOOR { at.to_owned() } else { path(at) };
        let method = if at.ends_with("entitlements") || at == HOST_DOOR { Method::POST } else { Method::GET };
        let headers = [("authorization", "Bearer x")];
        match https.request::<(), serde_json::Value>(method, &at, &headers, None, NONCE_HEADER).await {
            Ok(_) => OK.to_owned(),
            Err(HttpsError::Refused { body, .. }) => {
                assert!(!body.event.is_empty(), "{}", body.code);
                body.code
            }
            Err(_) => CLOSED.to_owned(),
        }
    };
    let doors = [get("login").await, get("entitlements").await, get("admin/users").await];
    let [public, user, administrator] = doors;
    let host = get(HOST_DOOR).await;
    [join(&address, own, trust).await, public, user, administrator, report(&address, own, trust).await, host]
}

async fn join(address: &str, own: Option<&OwnCertificate>, trust: &Trust) -> String {
    let config = tls::client(own, trust, Expected::controller(), ALPN_JOIN).unwrap();
    let Ok(mut stream) = tls::connect(address, config).await else { return CLOSED.into() };
    let request = v1::JoinRequest { cookie: vec![7; 18].into(), ..v1::JoinRequest::default() };
    if write_message(&mut stream, &request).await.is_err() {
        return CLOSED.into();
    }
    match read_message::<v1::JoinResponse>(&mut stream).await.map(|response| response.answer) {
        Ok(Some(v1::join_response::Answer::Refused(refused))) => refused.code,
        Ok(other) => panic!("{other:?}"),
        Err(_) => CLOSED.into(),
    }
}

async fn report(address: &str, own: Option<&OwnCertificate>, trust: &Trust) -> String {
    let Ok(mut client) = grpc(address, own, trust).await else { return CLOSED.into() };
    match client.report(v1::ReportRequest::default()).await {
        Ok(_) => OK.into(),
        Err(status) if status.metadata().contains_key("ringfort-code") => {
            assert!(!status.metadata().get("ringfort-event").unwrap().is_empty());
            let expected = match status_code(&status) {
                "wrong_role" => tonic::Code::PermissionDenied,
                "certificate_required" => tonic::Code::Unauthenticated,
                "not_found" => tonic::Code::NotFound,
                other => panic!("{other}"),
            };
            assert_eq!(status.code(), expected);
            status_code(&status).to_owned()
        }
        Err(_) => CLOSED.into(),
    }
}

// Covers: W9 allow
// Covers: W9 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_door_takes_its_roles_and_no_other() {
    let controller = Controller::start().await;
    let trust = controller.trust().await;
    let ca = Ca::of(&controller).await;
    let foreign = Ca::foreign(&ca);
    let unknown = "invitation_unknown";
    let mut rows: Vec<(String, Option<OwnCertificate>, [&str; 6])> = vec![(
        "none".into(),
        None,
        [unknown, OK, "proof_malformed", "certificate_required", "certificate_required", "certificate_required"],
    )];
    for role in Role::ALL {
        let own = Some(ca.issue(Like::good(role)));
        rows.push(match role {
            Role::Device => {
                (role.to_string(), own, [unknown, OK, "token_malformed", "token_malformed", "wrong_role", "wrong_role"])
            }
            Role::Gateway => {
                (role.to_string(), own, [unknown, OK, "wrong_role", "wrong_role", "not_found", "wrong_role"])
            }
            Role::Host => {
                (role.to_string(), own, [unknown, OK, "wrong_role", "wrong_role", "wrong_role", "host_unknown"])
            }
            _ => (role.to_string(), own, [unknown, OK, "wrong_role", "wrong_role", "wrong_role", "wrong_role"]),
        });
    }
    let bad = [
        ("expired", ca.issue(Like { expired: true, ..Like::good(Role::Gateway) })),
        ("a server's", ca.issue(Like { usage: ExtendedKeyUsagePurpose::ServerAuth, ..Like::good(Role::Gateway) })),
        ("foreign", foreign.issue(Like::good(Role::Gateway))),
        ("foreign device", foreign.issue(Like::good(Role::Device))),
    ];
    rows.extend(bad.into_iter().map(|(name, own)| (name.to_owned(), Some(own), [CLOSED; 6])));

    let mut expected_totals = BTreeMap::<String, u64>::new();
    for (name, own, expected) in &rows {
        assert_eq!(knock(&controller, own.as_ref(), &trust).await, *expected, "{name}");
        for code in expected.iter().filter(|code| **code != OK) {
            let counter = format!("refused_{}", if *code == CLOSED { "handshake_refused" } else { *code });
            *expected_totals.entry(counter).or_default() += 1;
        }
        // More rows a second than these are not written.
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    let status = controller.status().await;
    for (counter, total) in status["totals"].as_object().unwrap() {
        if counter.starts_with("refused_") {
            assert_eq!(total.as_u64(), Some(expected_totals.get(counter).copied().unwrap_or(0)), "{counter}");
        }
    }
}

#[tokio::test]
async fn a_revoked_device_is_refused_on_the_connection_it_has() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_user("bob").await;
    let mut bob = crate::support::User::with_certificate(&controller, "bob", crate::support::PASSWORD).await;
    bob.ask::<_, api::EntitlementsResponse>("entitlements", &()).await.unwrap();
    let scope = api::RevocationScope::Device(bob.client_id.clone());
    let revocation = api::NewRevocation { scope, reason: "lost".into(), grace_seconds: None };
    administrator.ask::<_, api::Pushed>("admin/revocations", &revocation).await.unwrap();
    let answer = bob.ask::<_, api::EntitlementsResponse>("entitlements", &()).await;
    assert_eq!(crate::support::code(answer), "certificate_revoked");
    assert_eq!(controller.total("refused_certificate_revoked").await, 1);
}
