//! What is bounded before anybody is known.

use std::time::{Duration, Instant};

use hyper::Method;
use ringfort_controller::Options;
use ringfort_enrol::HttpsError;
use ringfort_enrol::tls::{self, ALPN_HTTP1, ALPN_JOIN, Expected};
use ringfort_proto::api::{self, NONCE_HEADER, PROOF_HEADER};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{ADMINISTRATOR, Answered, Controller, PASSWORD, User, code, connect, path};

/// How long until the other side closes a connection on which nothing is said.
async fn closed_after(stream: &mut (impl AsyncRead + Unpin), start: Instant) -> Duration {
    let mut bytes = Vec::new();
    let limit = Duration::from_secs(30);
    // An error is an end too.
    drop(tokio::time::timeout(limit, stream.read_to_end(&mut bytes)).await.expect("it is closed"));
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_silent_are_let_go() {
    let controller = Controller::start().await;
    let address = controller.address().to_string();
    let trust = controller.trust().await;
    let config = |alpn| tls::client(None, &trust, Expected::controller(), alpn).unwrap();
    let start = Instant::now();
    let mut before_tls = TcpStream::connect(&address).await.unwrap();
    let mut http = tls::connect(&address, config(ALPN_HTTP1)).await.unwrap();
    let mut slow_http = tls::connect(&address, config(ALPN_HTTP1)).await.unwrap();
    slow_http.write_all(b"POST /api/v1/login HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut join = tls::connect(&address, config(ALPN_JOIN)).await.unwrap();
    join.write_all(&[0, 0, 0, 200, 1, 2, 3]).await.unwrap();
    let (before_tls, http, slow_http, join) = tokio::join!(
        closed_after(&mut before_tls, start),
        closed_after(&mut http, start),
        closed_after(&mut slow_http, start),
        closed_after(&mut join, start),
    );
    let within =
        |took: Duration, seconds: u64| (Duration::from_secs(seconds)..Duration::from_secs(seconds + 4)).contains(&took);
    assert!(within(before_tls, 5) && within(http, 5) && within(slow_http, 5), "{before_tls:?} {http:?} {slow_http:?}");
    assert!(within(join, 10), "{join:?}");
    assert_eq!(controller.total("handshakes_late").await, 1);
    assert_eq!(controller.total("joins_late").await, 1);
    assert_eq!(controller.status().await["connections"], 0);
}

#[tokio::test]
async fn beyond_the_limit_connections_are_dropped_at_once_and_those_with_certificates_do_not_count() {
    let options = Options { unauthenticated_max: Some(3), ..Controller::options() };
    let controller = Controller::start_with(options).await;
    let mut administrator = controller.administrator().await;
    let address = controller.address().to_string();
    // Whatever the first steps of the administrator needed is closed by now.
    while controller.status().await["connections"] != 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(&address).await.unwrap());
    }
    let start = Instant::now();
    let mut one_more = TcpStream::connect(&address).await.unwrap();
    assert!(closed_after(&mut one_more, start).await < Duration::from_secs(2));
    assert_eq!(controller.total("connections_over_limit").await, 1);
    administrator.list::<Vec<api::UserRow>>("admin/users").await.unwrap();
    drop(held);
    while controller.status().await["connections"] != 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    administrator = controller.administrator().await;
    administrator.list::<Vec<api::UserRow>>("admin/users").await.unwrap();
}

#[tokio::test]
async fn one_device_does_not_take_the_places_of_all() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_user("bob").await;
    let mut bob = User::new(&controller).await;
    bob.login("bob", PASSWORD).await.unwrap();
    let own = bob.certificate().await.unwrap();
    let (address, trust) = (controller.address().to_string(), controller.trust().await);
    let mut held = Vec::new();
    for _ in 0..40 {
        let Ok(mut https) = connect(&address, Some(&own), &trust).await else { continue };
        let answer = https.request::<(), api::LoginMethods>(Method::GET, &path("login"), &[], None, NONCE_HEADER).await;
        if answer.is_ok() {
            held.push(https);
        }
    }
    assert_eq!((held.len(), controller.total("connections_over_limit").await), (32, 8));
    administrator.reconnect().await;
    administrator.list::<Vec<api::UserRow>>("admin/users").await.unwrap();
    drop(held);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut https = connect(&address, Some(&own), &trust).await.unwrap();
    https.request::<(), api::LoginMethods>(Method::GET, &path("login"), &[], None, NONCE_HEADER).await.unwrap();
}

#[tokio::test]
async fn bodies_are_bounded() {
    let controller = Controller::start().await;
    let mut user = User::new(&controller).await;
    let nonce = user.nonce().await;
    let proof = user.proof("login", &nonce, None);
    let body = user.login_request(&"x".repeat(64 << 10), PASSWORD);
    let answer = user.send::<_, api::LoginResponse>("login", &[(PROOF_HEADER, &proof)], Some(&body)).await;
    match answer {
        Err(HttpsError::Refused { status, body, .. }) => {
            assert_eq!((status, body.code.as_str()), (413, "request_malformed"));
        }
        other => panic!("{other:?}"),
    }
    let mut administrator = controller.administrator().await;
    let group = |bytes| api::NewGroup { name: "x".repeat(bytes) };
    let answer = administrator.ask::<_, api::Created>("admin/groups", &group(100 << 10)).await;
    assert!(matches!(answer, Err(HttpsError::Refused { status: 400, .. })), "read, and then refused: {answer:?}");
    let answer = administrator.ask::<_, api::Created>("admin/groups", &group(1 << 20)).await;
    assert!(matches!(answer, Err(HttpsError::Refused { status: 413, .. })), "{answer:?}");
    assert_eq!(controller.total("refused_request_malformed").await, 3);
}

/// Sends `request` as it is, and reads what comes until the connection is closed.
async fn raw(controller: &Controller, request: &str) -> String {
    let config = tls::client(None, &controller.trust().await, Expected::controller(), ALPN_HTTP1).unwrap();
    let mut stream = tls::connect(&controller.address().to_string(), config).await.unwrap();
    // It may be closed before all is written.
    drop(stream.write_all(request.as_bytes()).await);
    let mut answer = Vec::new();
    drop(tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut answer)).await.unwrap());
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn headers_are_bounded() {
    let controller = Controller::start().await;
    let login = "GET /api/v1/login HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let answer = raw(&controller, &format!("{login}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("dpop-nonce: "), "{answer}");
    for bytes in [33 << 10, 200 << 10] {
        let answer = raw(&controller, &format!("{login}x-long: {}\r\n\r\n", "y".repeat(bytes))).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{bytes} {answer}");
    }
    let many: String = (0..100).map(|number| format!("x-{number}: y\r\n")).collect();
    let answer = raw(&controller, &format!("{login}{many}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_gateways_message_is_not_waited_for_from_somebody_else() {
    let controller = Controller::start().await;
    // The message that is announced never comes.
    let head = "POST /ringfort.v1.GatewayControl/Report HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let fields = "content-type: application/grpc\r\ncontent-length: 4000000\r\n\r\n";
    let answer = raw(&controller, &format!("{head}{fields}\0\0\x3d\x09\0")).await;
    assert!(answer.contains("ringfort-code: certificate_required"), "{answer}");
    assert_eq!(controller.total("refused_certificate_required").await, 1);
}

#[tokio::test]
async fn two_claims_tokens_are_none() {
    let controller = Controller::start().await;
    let head = "POST /api/v1/entitlements HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n";
    let twice = "authorization: Bearer a\r\nauthorization: Bearer b\r\n";
    let answer = raw(&controller, &format!("{head}{twice}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("token_malformed"), "{answer}");
    let answer = raw(&controller, &format!("{head}authorization: Basic YTpi\r\n\r\n")).await;
    assert!(answer.contains("token_malformed"), "{answer}");
    let mut user = User::new(&controller).await;
    user.login(ADMINISTRATOR, PASSWORD).await.unwrap();
    let answer = user.list::<Vec<api::UserRow>>("admin/users").await;
    assert_eq!(code(answer), "certificate_required");
}

async fn by_method(mut user: User, method: &str, name: &str) -> Answered<api::LoginResponse> {
    let nonce = user.nonce().await;
    let proof = user.proof("login", &nonce, None);
    let mut body = user.login_request(name, PASSWORD);
    body.method = Some(method.to_owned());
    user.send("login", &[(PROOF_HEADER, &proof)], Some(&body)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_hangs_keeps_nobody_from_another() {
    use std::os::unix::fs::PermissionsExt;
    let controller = Controller::start().await;
    let secret = controller.place.path().join("secret");
    std::fs::write(&secret, "hush").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let method = |name: &str, port: u16| {
        format!(
            "[[identity.ldap]]\nname = \"{name}\"\nurl = \"ldap://127.0.0.1:{port}\"\nbind_dn = \"cn=a\"\n\
             bind_password_file = \"{}\"\nuser_base = \"dc=example\"\n",
            secret.display()
        )
    };
    let file = controller.folder().join("controller.toml");
    let kept = std::fs::read_to_string(&file).unwrap();
    let methods = method("hangs", hanging.local_addr().unwrap().port()) + &method("is-gone", 1);
    std::fs::write(&file, format!("{kept}\n{methods}")).unwrap();
    let controller = controller.restart().await;
    let mut waiting = JoinSet::new();
    for n in 0..16 {
        let user = User::new(&controller).await;
        waiting.spawn(async move { by_method(user, "hangs", &format!("user{n}")).await });
    }
    let mut held = Vec::new();
    while held.len() < 16 {
        held.push(hanging.accept().await.unwrap());
    }
    assert_eq!(code(by_method(User::new(&controller).await, "hangs", "alice").await), "login_busy");
    assert_eq!(code(by_method(User::new(&controller).await, "is-gone", "alice").await), "provider_unreachable");
    User::new(&controller).await.login(ADMINISTRATOR, PASSWORD).await.unwrap();
    drop((held, hanging));
    while let Some(answer) = waiting.join_next().await {
        assert_eq!(code(answer.unwrap()), "provider_unreachable");
    }
    assert_eq!(code(by_method(User::new(&controller).await, "hangs", "alice").await), "provider_unreachable");
}
