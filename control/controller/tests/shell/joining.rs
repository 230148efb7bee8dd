//! Joining, against the real door and against one of somebody else.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Method;
use ringfort_enrol::tls::{self, ALPN_JOIN, OwnCertificate};
use ringfort_enrol::{
    Folder, Https, Invitation, JoinError, Joiner, Kind, PrivateKey, Secrecy, key_hash, read_message, wall_clock,
    write_message,
};
use ringfort_identity::{Role, Side};
use ringfort_proto::{api, v1};
use rustls_pki_types::CertificateDer;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::support::{Answered, Controller, code, connect, path, payload, status_code};

fn joiner() -> Joiner {
    Joiner { addresses: vec!["192.0.2.1:443".into()], client_id: String::new() }
}

// Covers: I4 allow
// Covers: I5 allow
// Covers: I6 allow
// Covers: I6 refuse
// Covers: I7 allow
// Covers: I8 allow
// Covers: I8 refuse
// Covers: R4 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_joins_once() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let invited = administrator.invite("gw1", "berlin").await;
    let invitation: Invitation = invited.url.parse().unwrap();
    let folder = Folder::create(&controller.place.path().join("gw1")).unwrap();
    let identity = ringfort_enrol::join(&invitation, &invited.ticket, &joiner(), &folder).await.unwrap();
    assert_eq!(identity.kind, Kind::Gateway);
    let (trust, credentials) = (folder.trust().unwrap(), folder.credentials().unwrap());
    let chain = credentials.chain();
    let peer = trust.verify(&chain[0], Side::Client, Role::Gateway, wall_clock()).unwrap();
    assert_eq!(peer.id(), identity.id);
    assert_eq!(peer.key(), &folder.key().unwrap().thumbprint().unwrap(), "the permanent key is the joiner's");
    assert_eq!(controller.total("joined").await, 1);

    let second = Folder::create(&controller.place.path().join("gw2")).unwrap();
    let answer = ringfort_enrol::join(&invitation, &invited.ticket, &joiner(), &second).await;
    let Err(JoinError::Refused { code, event, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!(code, "invitation_used");
    let rows: Vec<api::AuditRow> = administrator.list("admin/audit?limit=1").await.unwrap();
    assert_eq!((&rows[0].id, rows[0].outcome.as_str()), (&event, "invitation_used"));
    let unknown = Invitation::new(invitation.address(), *invitation.key_hash(), [9; 18]).unwrap();
    let answer = ringfort_enrol::join(&unknown, &invited.ticket, &joiner(), &second).await;
    assert!(matches!(&answer, Err(JoinError::Refused { code, .. }) if code == "invitation_unknown"), "{answer:?}");
    assert!(!second.has(ringfort_enrol::file::IDENTITY), "who was refused has not joined");
    for code in ["invitation_used", "invitation_unknown"] {
        assert_eq!(controller.total(&format!("refused_{code}")).await, 1, "{code}");
    }
}

/// Each loser is told so; whoever is told of an event finds it in the audit log. Not every refusal has one: writing is paced.
// Covers: R4 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_join_by_one_invitation_at_once_one_does() {
    const AT_ONCE: usize = 16;
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let invited = administrator.invite("gw1", "berlin").await;
    let invitation: Invitation = invited.url.parse().unwrap();
    let mut joining = JoinSet::new();
    for n in 0..AT_ONCE {
        let folder = Folder::create(&controller.place.path().join(format!("gw-{n}"))).unwrap();
        let (invitation, ticket) = (invitation.clone(), invited.ticket.clone());
        joining.spawn(async move {
            let answer = ringfort_enrol::join(&invitation, &ticket, &joiner(), &folder).await;
            (folder.has(ringfort_enrol::file::IDENTITY), answer)
        });
    }
    let (mut joined, mut told) = (Vec::new(), BTreeSet::new());
    for (has_identity, answer) in joining.join_all().await {
        assert_eq!(has_identity, answer.is_ok(), "who was refused has not joined");
        match answer {
            Ok(identity) => joined.push(identity.id),
            Err(JoinError::Refused { code, event, .. }) => {
                assert_eq!(code, "invitation_used");
                assert!(event.is_empty() || told.insert(event), "an event is of one refusal");
            }
            Err(other) => panic!("{other}"),
        }
    }
    let rows: Vec<api::GatewayRow> = administrator.list("admin/gateways").await.unwrap();
    assert_eq!(rows.into_iter().map(|row| row.id).collect::<Vec<_>>(), joined);
    assert_eq!(joined.len(), 1);
    assert_eq!(controller.total("refused_invitation_used").await, AT_ONCE as u64 - 1);
    let rows: Vec<api::AuditRow> = administrator.list("admin/audit?limit=1000").await.unwrap();
    let written = rows.into_iter().filter(|row| row.outcome == "invitation_used").map(|row| row.id);
    assert_eq!(written.collect::<BTreeSet<_>>(), told);
    assert!(!told.is_empty());
}

// Covers: I10 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_under_a_name_that_is_taken_is_refused_and_written_down() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let invited = [administrator.invite("gw1", "berlin").await, administrator.invite("gw1", "berlin").await];
    let join = async |invited: &api::InvitationResponse, place: &str| {
        let invitation: Invitation = invited.url.parse().unwrap();
        let folder = Folder::create(&controller.place.path().join(place)).unwrap();
        let joined = ringfort_enrol::join(&invitation, &invited.ticket, &joiner(), &folder).await;
        (folder, joined)
    };
    let (_, first) = join(&invited[0], "first").await;
    let id = first.unwrap().id;
    let (folder, second) = join(&invited[1], "second").await;
    let Err(JoinError::Refused { code, event, .. }) = second else { panic!("{second:?}") };
    assert_eq!(code, "already_exists");
    assert!(!folder.has(ringfort_enrol::file::IDENTITY), "who was refused has not joined");
    let rows: Vec<api::AuditRow> = administrator.list("admin/audit?limit=1").await.unwrap();
    assert_eq!((&rows[0].id, rows[0].outcome.as_str()), (&event, "already_exists"));
    assert_eq!(controller.total("refused_already_exists").await, 1);
    let rows: Vec<api::GatewayRow> = administrator.list("admin/gateways").await.unwrap();
    assert_eq!(rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
}

// Covers: I8 allow
#[tokio::test]
async fn after_the_answer_the_connection_is_closed() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let invited = administrator.invite("gw1", "berlin").await;
    let invitation: Invitation = invited.url.parse().unwrap();
    let mut stream = tls::connect(invitation.address(), tls::invited(*invitation.key_hash()).unwrap()).await.unwrap();
    let request = v1::JoinRequest {
        cookie: invitation.cookie().to_vec().into(),
        ticket: invited.ticket,
        certificate_request: PrivateKey::generate().unwrap().certificate_request().unwrap().into(),
        addresses: vec!["192.0.2.1:443".into()],
        ..v1::JoinRequest::default()
    };
    write_message(&mut stream, &request).await.unwrap();
    let answer: v1::JoinResponse = read_message(&mut stream).await.unwrap();
    assert!(matches!(answer.answer, Some(v1::join_response::Answer::Joined(_))), "{answer:?}");
    let mut rest = Vec::new();
    assert_eq!(tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut rest)).await.unwrap().unwrap(), 0);
}

/// Nothing is said in the clear: a request without a key exchange before it is no request, and the invitation stays good.
// Covers: I4 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_the_clear_is_not_read() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let invited = administrator.invite("gw1", "berlin").await;
    let invitation: Invitation = invited.url.parse().unwrap();
    let request = v1::JoinRequest {
        cookie: invitation.cookie().to_vec().into(),
        ticket: invited.ticket.clone(),
        ..v1::JoinRequest::default()
    };
    let mut stream = tokio::net::TcpStream::connect(invitation.address()).await.unwrap();
    write_message(&mut stream, &request).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(10), read_message::<v1::JoinResponse>(&mut stream)).await;
    assert!(answer.unwrap().is_err(), "a request in the clear was answered");
    let folder = Folder::create(&controller.place.path().join("gw1")).unwrap();
    ringfort_enrol::join(&invitation, &invited.ticket, &joiner(), &folder).await.unwrap();
}

#[tokio::test]
async fn what_is_no_join_request_is_refused() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let invitation: Invitation = administrator.invite("gw1", "berlin").await.url.parse().unwrap();
    for bytes in [&[0xff_u8; 4][..], &[0, 1, 0, 1], &[0, 0, 0, 2, 0xff, 0xff]] {
        let config = tls::invited(*invitation.key_hash()).unwrap();
        let mut stream = tls::connect(invitation.address(), config).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, bytes).await.unwrap();
        let answer: v1::JoinResponse = read_message(&mut stream).await.unwrap();
        let Some(v1::join_response::Answer::Refused(refused)) = answer.answer else { panic!("{answer:?}") };
        assert_eq!(refused.code, "request_malformed");
    }
    assert_eq!(controller.total("refused_request_malformed").await, 3);
}

/// A server at the invitation's address that has another key than the invitation names.
async fn impostor() -> (String, tokio::task::JoinHandle<io::Result<usize>>) {
    let certified = rcgen::generate_simple_self_signed(["controller".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await?;
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(tcp).await?;
        let mut bytes = Vec::new();
        // How it ends does not matter, only what came.
        drop(stream.read_to_end(&mut bytes).await);
        Ok(bytes.len())
    });
    (address, task)
}

// Covers: I3 refuse
// Covers: I5 refuse
#[tokio::test]
async fn a_server_with_another_key_is_told_nothing() {
    let (address, received) = impostor().await;
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::create(&place.path().join("gw")).unwrap();
    let invitation = Invitation::new(&address, key_hash(b"another key"), [3; 18]).unwrap();
    let answer = ringfort_enrol::join(&invitation, "ticket", &joiner(), &folder).await;
    assert!(matches!(answer, Err(JoinError::KeyMismatch { .. })), "{answer:?}");
    let received = tokio::time::timeout(Duration::from_secs(10), received).await.unwrap().unwrap();
    assert!(!matches!(received, Ok(1..)), "not one byte of the invitation: {received:?}");
}

// Covers: I3 allow
#[tokio::test]
async fn the_key_of_the_invitation_is_that_of_the_listener() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let invitation: Invitation = administrator.invite("gw1", "berlin").await.url.parse().unwrap();
    let leaf = administrator.https.certificates()[0].clone();
    assert_eq!(*invitation.key_hash(), key_hash(&tls::public_key_of(&leaf).unwrap()));
}

#[tokio::test]
async fn a_gateway_renews_its_certificate_with_its_key() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let gateway = administrator.new_gateway("gw1", "berlin", controller.place.path()).await;
    let mut old = gateway.client().await;
    let mut stream = gateway.subscribe(v1::Hello::default()).await.unwrap();
    stream.backlog().await;
    let key = PrivateKey::generate().unwrap();
    let request =
        |key: &PrivateKey| v1::EnrollRequest { certificate_request: key.certificate_request().unwrap().into() };
    let report = |folder: &Folder| {
        let digest = tls::fingerprint(folder.credentials().unwrap().leaf()).to_vec();
        v1::ReportRequest { certificate_digest: digest.into(), ..v1::ReportRequest::default() }
    };
    let before = report(&gateway.folder);
    let chain = old.enroll(request(&key)).await.unwrap().into_inner().chain;
    let chain: Vec<_> = chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    gateway.folder.write_next(&key, &chain).unwrap();
    gateway.folder.use_next().unwrap();
    let mut new = gateway.client().await;
    let answer = new.report(report(&gateway.folder)).await.unwrap().into_inner();
    assert_eq!(answer.report_again_ms, 5_000);
    assert_eq!(controller.status().await["gateways"][0]["alive"], true);
    // What is connected by the old key, and whoever has a copy of it, is refused.
    let further = PrivateKey::generate().unwrap();
    for refused in [old.report(before).await.map(drop), old.enroll(request(&further)).await.map(drop)] {
        assert_eq!(status_code(&refused.unwrap_err()), "key_mismatch");
    }
    // So is a stream that it holds open, when the next configuration is due.
    administrator.new_resource("web", "berlin").await;
    assert_eq!(status_code(&stream.next().await.unwrap_err()), "key_mismatch");
    assert_eq!(controller.total("refused_key_mismatch").await, 3);
    new.enroll(request(&further)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_renews_its_certificate_with_its_key() {
    const NAME: &str = "nas.example";
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    let invitee = api::Invitee::Host { name: NAME.into() };
    let request = api::NewInvitation { invitee, expires_in: None };
    let invited: api::InvitationResponse = administrator.ask("admin/invitations", &request).await.unwrap();
    let folder = Folder::create(&controller.place.path().join("host")).unwrap().of_host(&NAME.parse().unwrap());
    ringfort_enrol::join(&invited.url.parse().unwrap(), &invited.ticket, &Joiner::default(), &folder).await.unwrap();
    let address = controller.address().to_string();
    let connection = async || {
        let own = OwnCertificate::new(&folder.credentials().unwrap()).unwrap();
        connect(&address, Some(&own), &folder.trust().unwrap()).await.unwrap()
    };
    async fn post<B: serde::Serialize, T: serde::de::DeserializeOwned>(
        https: &mut Https,
        path: &str,
        body: &B,
    ) -> Answered<T> {
        Ok(https.request(Method::POST, path, &[], Some(body), api::NONCE_HEADER).await?.body)
    }
    let register = async |https: &mut Https| {
        let body = api::HostRegistration { interfaces: Vec::new(), port: 443, version: "test".into() };
        post::<_, api::Registered>(https, &api::registration_path(NAME), &body).await
    };
    let renew = async |https: &mut Https, key: &PrivateKey| {
        let certificate_request = URL_SAFE_NO_PAD.encode(key.certificate_request().unwrap());
        let body = api::CertificateRequest { certificate_request };
        let answer: api::CertificateResponse = post(https, &path("hosts/certificate"), &body).await?;
        let der = |text: &String| CertificateDer::from(URL_SAFE_NO_PAD.decode(text).unwrap());
        Answered::Ok(answer.chain.iter().map(der).collect::<Vec<_>>())
    };
    let mut old = connection().await;
    register(&mut old).await.unwrap();
    // As another implementation may: the same key goes on.
    renew(&mut old, &folder.key().unwrap()).await.unwrap();
    // An answer that is lost, and the one that counts.
    renew(&mut old, &PrivateKey::generate().unwrap()).await.unwrap();
    let key = PrivateKey::generate().unwrap();
    let chain = renew(&mut old, &key).await.unwrap();
    folder.write_next(&key, &chain).unwrap();
    folder.use_next().unwrap();
    let mut new = connection().await;
    // Until the host has registered by the new key, both are its own; the next one follows only the first.
    register(&mut old).await.unwrap();
    assert_eq!(code(renew(&mut new, &PrivateKey::generate().unwrap()).await), "key_mismatch");
    register(&mut new).await.unwrap();
    for refused in [register(&mut old).await.map(drop), renew(&mut old, &key).await.map(drop)] {
        assert_eq!(code(refused), "host_unknown");
    }
    // Nor does it take a key of somebody else.
    administrator.new_site("berlin").await;
    let gateway = administrator.new_gateway("gw1", "berlin", controller.place.path()).await;
    assert_eq!(code(renew(&mut new, &gateway.folder.key().unwrap()).await), "key_mismatch");
    // Removed, it has neither.
    let further = PrivateKey::generate().unwrap();
    let chain = renew(&mut new, &further).await.unwrap();
    folder.write_next(&further, &chain).unwrap();
    let named = api::Named { name: NAME.into() };
    administrator.ask::<_, api::Pushed>("admin/hosts/remove", &named).await.unwrap();
    let invitee = api::Invitee::Host { name: NAME.into() };
    for key in [&key, &further] {
        let request = api::NewInvitation { invitee: invitee.clone(), expires_in: None };
        let invited: api::InvitationResponse = administrator.ask("admin/invitations", &request).await.unwrap();
        let again = Folder::create(&controller.place.path().join(key.thumbprint().unwrap().to_string())).unwrap();
        let again = again.of_host(&NAME.parse().unwrap());
        again.write(&format!("{NAME}_https.key"), key.to_pem().as_bytes(), Secrecy::Secret).unwrap();
        let url = invited.url.parse().unwrap();
        let answer = ringfort_enrol::join(&url, &invited.ticket, &Joiner::default(), &again).await;
        assert!(matches!(&answer, Err(JoinError::Refused { code, .. }) if code == "certificate_revoked"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_relay_joins_and_is_known_by_its_fqdn() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let gateway = administrator.new_gateway("gw1", "berlin", controller.place.path()).await;
    let name = "relay.example.com".to_owned();
    let request = api::NewInvitation { invitee: api::Invitee::Relay { name: name.clone() }, expires_in: None };
    let invited: api::InvitationResponse = administrator.ask("admin/invitations", &request).await.unwrap();
    let mut subscriber = gateway.subscribe(v1::Hello::default()).await.unwrap();
    subscriber.backlog().await;

    let folder = Folder::create(&controller.place.path().join("relay")).unwrap();
    let joiner = Joiner { addresses: Vec::new(), client_id: String::new() };
    let invitation: Invitation = invited.url.parse().unwrap();
    let identity = ringfort_enrol::join(&invitation, &invited.ticket, &joiner, &folder).await.unwrap();
    assert_eq!((identity.kind, &identity.id), (Kind::Relay, &name));
    let (trust, credentials) = (folder.trust().unwrap(), folder.credentials().unwrap());
    let peer = trust.verify(credentials.leaf(), Side::Server, Role::Relay, wall_clock()).unwrap();
    assert_eq!(peer.id(), name);
    // Gateways hear of it at once, and are not let in by its certificate.
    let v1::push::What::Configuration(configuration) = subscriber.next().await.unwrap() else { panic!() };
    assert_eq!(payload(&configuration)["relays"][0]["fqdn"], name.as_str());
    let rows: Vec<api::RelayRow> = administrator.list("admin/relays").await.unwrap();
    assert_eq!((rows.len(), &rows[0].name), (1, &name));
    let named = api::Named { name };
    let _: api::Pushed = administrator.ask("admin/relays/remove", &named).await.unwrap();
    assert_eq!(code(administrator.ask::<_, api::Pushed>("admin/relays/remove", &named).await), "not_found");
    assert!(administrator.list::<Vec<api::RelayRow>>("admin/relays").await.unwrap().is_empty());
}
