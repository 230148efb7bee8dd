//! The HTTP API.

use hyper::Method;
use ringfort_enrol::tls::{self, ALPN_HTTP1, Expected};
use ringfort_enrol::{Https, HttpsError, PrivateKey};
use ringfort_proto::api::{self, NONCE_HEADER, PROOF_HEADER};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{ADMINISTRATOR, Controller, PASSWORD, User, code, connect, path};

// Covers: A1 allow
// Covers: A2 allow
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_fingerprint_to_mutual_tls() {
    let controller = Controller::start().await;
    let mut user = User::new(&controller).await;
    user.login(ADMINISTRATOR, PASSWORD).await.unwrap();
    let entitlements: api::EntitlementsResponse = user.proved::<(), _>("entitlements", None).await.unwrap();
    assert!(!entitlements.connect.is_empty());
    let own = user.certificate().await.unwrap();
    user.https = connect(&controller.address().to_string(), Some(&own), &user.trust).await.unwrap();
    let again: api::EntitlementsResponse = user.ask("entitlements", &()).await.unwrap();
    assert_eq!(again.entitlements.len(), entitlements.entitlements.len());
    let renewed: api::LoginResponse = user.ask("renew", &()).await.unwrap();
    assert_ne!(renewed.claims, user.claims);
    let users: Vec<api::UserRow> = user.list("admin/users").await.unwrap();
    assert_eq!(users.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), [ADMINISTRATOR]);
    assert_eq!(controller.total("logins").await, 1);
    drop(user);
    controller.end().await;
}

// Covers: A1 refuse
// Covers: A2 refuse
#[tokio::test]
async fn a_controller_with_another_root_gets_nothing() {
    let controller = Controller::start().await;
    let other = Controller::start().await;
    let address = controller.address().to_string();
    let (config, contact) = tls::first_contact(Some(other.fingerprint().await), ALPN_HTTP1).unwrap();
    assert!(matches!(Https::connect(&address, config).await, Err(HttpsError::Io { .. })));
    assert_eq!(contact.root_seen(), Some(controller.fingerprint().await), "for telling a person what came");
    assert!(connect(&address, None, &other.trust().await).await.is_err());
}

/// What comes, to the last byte, when `administrator` asks for an invitation: status line with headers, and body.
async fn asked_for_invitation(controller: &Controller, administrator: &User) -> (String, Value) {
    let invitee = api::Invitee::Gateway { name: "gw1".into(), site: "berlin".into() };
    let body = serde_json::to_string(&api::NewInvitation { invitee, expires_in: None }).unwrap();
    let request = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        path("admin/invitations"),
        administrator.claims,
        body.len()
    );
    let own = administrator.own.as_ref();
    let config = tls::client(own, &administrator.trust, Expected::controller(), ALPN_HTTP1).unwrap();
    let mut stream = tls::connect(&controller.address().to_string(), config).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), serde_json::from_str(body).unwrap())
}

/// Who logged in more than five minutes ago, as the database has it, is shown nothing to join with, though the login goes on.
// Covers: R2 refuse
#[tokio::test]
async fn whoever_logged_in_long_ago_is_shown_no_invitation() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let older = "UPDATE logins SET auth_time = auth_time - 301";
    assert_eq!(crate::database::attempt(&controller.folder(), older).await.unwrap(), 1);
    administrator.claims = administrator.ask::<_, api::LoginResponse>("renew", &()).await.unwrap().claims;
    let members = |body: &Value| body.as_object().unwrap().keys().cloned().collect::<Vec<_>>();

    let (head, body) = asked_for_invitation(&controller, &administrator).await;
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    assert_eq!(body["code"], "authentication_not_fresh");
    assert_eq!(members(&body), ["code", "event", "message"], "neither URL nor ticket");
    assert!(!body["message"].as_str().unwrap().contains(&controller.address().to_string()), "{body}");
    let rows: Vec<api::AuditRow> = administrator.list("admin/audit?limit=1").await.unwrap();
    assert_eq!((&body["event"], rows[0].outcome.as_str()), (&rows[0].id.clone().into(), "authentication_not_fresh"));
    assert_eq!(controller.total("refused_authentication_not_fresh").await, 1);

    let (head, body) = asked_for_invitation(&controller, &controller.administrator().await).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(members(&body), ["expires_at", "ticket", "url"]);
}

#[tokio::test]
async fn a_nonce_is_good_once() {
    let controller = Controller::start().await;
    let mut user = User::new(&controller).await;
    let nonce = user.nonce().await;
    let proof = user.proof("login", &nonce, None);
    let body = user.login_request(ADMINISTRATOR, PASSWORD);
    let headers = [(PROOF_HEADER, proof.as_str())];
    user.send::<_, api::LoginResponse>("login", &headers, Some(&body)).await.unwrap();
    let at = path("login");
    let again = user.https.request::<_, api::LoginResponse>(Method::POST, &at, &headers, Some(&body), NONCE_HEADER);
    let Err(HttpsError::Refused { status, body, header }) = again.await else { panic!("expected a refusal") };
    assert_eq!((status, body.code.as_str()), (401, "nonce_unknown"));
    assert!(!body.event.is_empty(), "it is in the audit log");
    assert_eq!(controller.total("refused_nonce_unknown").await, 1);
    // The nonce of the refusal is good for a second try.
    let proof = user.proof("login", &header.unwrap(), None);
    let body = user.login_request(ADMINISTRATOR, PASSWORD);
    user.send::<_, api::LoginResponse>("login", &[(PROOF_HEADER, &proof)], Some(&body)).await.unwrap();
}

#[tokio::test]
async fn a_proof_is_for_one_request_by_one_key() {
    let controller = Controller::start().await;
    let mut user = User::new(&controller).await;
    user.login(ADMINISTRATOR, PASSWORD).await.unwrap();
    let mut thief = User::new(&controller).await;
    thief.claims.clone_from(&user.claims);
    let stolen = thief.proved::<(), api::EntitlementsResponse>("entitlements", None).await;
    assert_eq!(code(stolen), "token_wrong_holder");

    let bearer = format!("Bearer {}", user.claims);
    let nonce = user.nonce().await;
    let elsewhere = user.proof("certificate", &nonce, Some(&user.claims));
    let headers = [(PROOF_HEADER, elsewhere.as_str()), ("authorization", &bearer)];
    let answer = user.send::<(), api::EntitlementsResponse>("entitlements", &headers, None).await;
    assert_eq!(code(answer), "proof_other_request");
    let proof = user.proof("entitlements", &nonce, Some(&user.claims));
    let headers = [(PROOF_HEADER, proof.as_str()), ("authorization", &bearer)];
    let answer = user.send::<(), api::EntitlementsResponse>("entitlements", &headers, None).await;
    assert_eq!(code(answer), "nonce_unknown", "the failed try has spent it");

    let without = [("authorization", bearer.as_str())];
    let answer = user.send::<(), api::EntitlementsResponse>("entitlements", &without, None).await;
    assert_eq!(code(answer), "proof_malformed");
    for code in ["token_wrong_holder", "proof_other_request", "nonce_unknown", "proof_malformed"] {
        assert_eq!(controller.total(&format!("refused_{code}")).await, 1, "{code}");
    }
}

#[tokio::test]
async fn claims_over_mutual_tls_are_those_of_the_certificate() {
    let controller = Controller::start().await;
    let mut user = User::with_certificate(&controller, ADMINISTRATOR, PASSWORD).await;
    let other = User::with_certificate(&controller, ADMINISTRATOR, PASSWORD).await;
    let own = std::mem::replace(&mut user.claims, other.claims.clone());
    let answer = user.ask::<_, api::EntitlementsResponse>("entitlements", &()).await;
    assert_eq!(code(answer), "token_wrong_holder", "another key's");
    user.claims.clone_from(&own);
    user.ask::<_, api::EntitlementsResponse>("entitlements", &()).await.unwrap();
    // The same key logs in under another client id, and shows the certificate of the first.
    let mut again = User::new(&controller).await;
    again.key = PrivateKey::from_pem(&user.key.to_pem()).unwrap();
    again.login(ADMINISTRATOR, PASSWORD).await.unwrap();
    user.claims = again.claims;
    let answer = user.ask::<_, api::EntitlementsResponse>("entitlements", &()).await;
    assert_eq!(code(answer), "certificate_mismatch");
}

#[tokio::test]
async fn refusals_say_why_and_are_counted_once() {
    let controller = Controller::start().await;
    let before = controller.status().await["totals"].clone();
    let names: Vec<&String> = before.as_object().unwrap().keys().collect();
    for code in ringfort_token::Refusal::CODES.iter().chain(&ringfort_controller::core::Refused::CODES) {
        assert!(names.contains(&&format!("refused_{code}")), "{code} is there before its first count");
    }
    let mut user = User::new(&controller).await;
    assert_eq!(code(user.login(ADMINISTRATOR, "not that").await), "login_refused");
    assert_eq!(code(user.login("nobody", PASSWORD).await), "login_refused");
    let answer = user.https.request::<(), ()>(Method::GET, "/elsewhere", &[], None, NONCE_HEADER).await;
    let Err(HttpsError::Refused { status, body, header }) = answer else { panic!("expected a refusal") };
    assert_eq!((status, body.code.as_str()), (404, "not_found"));
    assert!(header.is_some());
    let answer = user.https.request::<(), ()>(Method::DELETE, &path("login"), &[], None, NONCE_HEADER).await;
    assert_eq!(code(answer), "method_not_allowed");

    let mut administrator = controller.administrator().await;
    let audit: Vec<api::AuditRow> = administrator.list("admin/audit").await.unwrap();
    let row = audit.iter().find(|row| row.id == body.event).expect("the event that the refusal named");
    assert_eq!(
        (row.outcome.as_str(), row.action.as_str(), row.actor.as_str()),
        ("not_found", "GET /elsewhere", "127.0.0.1")
    );
    let refused: Vec<&str> =
        audit.iter().filter(|row| row.outcome == "login_refused").map(|row| row.target.as_str()).collect();
    assert_eq!(refused, ["nobody", ADMINISTRATOR]);
    let after = controller.status().await["totals"].clone();
    for (name, count) in after.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("refused_")) {
        let expected = match name.as_str() {
            "refused_login_refused" => 2,
            "refused_not_found" | "refused_method_not_allowed" => 1,
            _ => 0,
        };
        assert_eq!(count, expected, "{name}");
    }
}

#[tokio::test]
async fn noise_does_not_fill_the_disk() {
    let controller = Controller::start().await;
    let mut user = User::new(&controller).await;
    let mut unwritten = 0;
    for _ in 0..300 {
        let answer = user.https.request::<(), ()>(Method::GET, "/elsewhere", &[], None, NONCE_HEADER).await;
        let Err(HttpsError::Refused { body, .. }) = answer else { panic!("expected a refusal") };
        unwritten += u64::from(body.event.is_empty());
    }
    assert!(unwritten > 0);
    assert_eq!(controller.total("refused_not_found").await, 300, "every one is counted");
    assert_eq!(controller.total("audit_rows_left_out").await, unwritten);
}

// Covers: R1 refuse
#[tokio::test]
async fn administration_is_for_administrators() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_user("bob").await;
    let mut bob = User::with_certificate(&controller, "bob", PASSWORD).await;
    let invitee = api::Invitee::Gateway { name: "g".into(), site: "s".into() };
    let invitation = api::NewInvitation { invitee, expires_in: None };
    let answer = bob.ask::<_, api::InvitationResponse>("admin/invitations", &invitation).await;
    assert_eq!(code(answer), "not_administrator");
    let answer = bob.list::<Vec<api::UserRow>>("admin/users").await;
    assert_eq!(code(answer), "not_administrator");
    assert_eq!(controller.total("refused_not_administrator").await, 2);
    // With claims and a proof, and without a certificate.
    let mut without = User::new(&controller).await;
    without.login(ADMINISTRATOR, PASSWORD).await.unwrap();
    let answer = without.proved::<(), Vec<api::UserRow>>("admin/revocations", None).await;
    assert_eq!(code(answer), "certificate_required");
}

/// Each door for administrators, with a body of no sense: whoever may not is refused before it is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_sees_and_changes_nothing() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    let role = Some(api::AdministratorRole::Auditor);
    let user = api::NewUser { name: "carol".into(), password: PASSWORD.into(), role, email: None };
    administrator.ask::<_, api::Created>("admin/users", &user).await.unwrap();
    let mut carol = User::with_certificate(&controller, "carol", PASSWORD).await;
    for list in ["users", "gateways", "sessions", "audit"] {
        carol.list::<serde_json::Value>(&format!("admin/{list}")).await.unwrap();
    }
    carol.list::<api::Receipts>(&format!("admin/receipts?serial={}", serial(&controller).await)).await.unwrap();
    let changes = [
        "users",
        "users/remove",
        "users/role",
        "sites",
        "sites/remove",
        "resources",
        "resources/remove",
        "groups",
        "groups/remove",
        "groups/members",
        "groups/members/remove",
        "entitlements",
        "entitlements/remove",
        "invitations",
        "revocations",
        "gateways/remove",
        "gateways/drain",
        "gateways/operations",
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let answer = carol.ask::<_, serde_json::Value>(&format!("admin/{change}"), &"nonsense").await;
        assert_eq!(code(answer), "role_insufficient", "{change}");
        assert_eq!(controller.total("refused_role_insufficient").await, n as u64 + 1, "{change}");
        let answer = administrator.ask::<_, serde_json::Value>(&format!("admin/{change}"), &"nonsense").await;
        assert_eq!(code(answer), "request_malformed", "{change} is there");
    }
}

async fn serial(controller: &Controller) -> String {
    controller.status().await["revocations"].as_str().unwrap().to_owned()
}

/// What Prometheus scrapes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_to_be_had_where_the_file_says() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let controller = Controller::start().await;
    let place = std::sync::Arc::clone(&controller.place);
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let gateway = administrator.new_gateway("gw1", "berlin", place.path()).await;
    controller.end().await;
    // A port that nobody had a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = place.path().join("state/controller.toml");
    let kept = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("metrics = \"{address}\"\n{kept}")).unwrap();
    let controller = Controller::start_again_in(place).await;
    let ask = async |request: &'static str| {
        let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let scrape = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let text = ask(scrape).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("text/plain; version=0.0.4"), "{text}");
    let of = "{gateway=\"gw1\",site=\"berlin\"}";
    for line in [
        format!("ringfort_controller_gateway_alive{of} 0"),
        "ringfort_controller_refused_total{code=\"not_found\"} 0".to_owned(),
        "ringfort_controller_revocations 0".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    // A Gateway whose clock is a minute behind.
    let digest = ringfort_enrol::tls::fingerprint(&gateway.folder.certificates("chain.pem").unwrap()[0]);
    let report = ringfort_proto::v1::ReportRequest {
        certificate_digest: digest.to_vec().into(),
        gateway_time_ms: (ringfort_enrol::wall_clock().0 - 60) * 1_000,
        ..ringfort_proto::v1::ReportRequest::default()
    };
    gateway.client().await.report(report).await.unwrap();
    let text = ask(scrape).await;
    let name = format!("ringfort_controller_gateway_clock_ahead_milliseconds{of} ");
    let ahead = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
    assert!((-70_000..=-59_000).contains(&ahead.parse::<i64>().unwrap()), "{ahead}");
    assert!(text.lines().any(|found| found == format!("ringfort_controller_gateway_alive{of} 1")));
    let text = ask("GET /api/v1/login HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 404"), "nothing else is there: {text}");
    drop(controller);
}
