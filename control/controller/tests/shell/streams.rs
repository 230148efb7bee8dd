//! Gateways' streams.

use std::time::{Duration, Instant};

use ringfort_proto::api;
use ringfort_proto::v1::push::What;
use ringfort_proto::v1::{self, Hello, LiveSession, Serial, SubscribeRequest};
use ringfort_token::{Expectation, GatewayConfiguration, Holder, Signed, Verifier, audience};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::support::{Controller, Gateway, PASSWORD, Subscriber, User, payload, status_code};

/// Where a revocation list stands with `token`.
fn serial(token: &str) -> Serial {
    let list = payload(token);
    let number = |name: &str| list[name].as_u64().unwrap();
    Serial { epoch: number("epoch"), n: number("after") + list["entries"].as_array().unwrap().len() as u64 }
}

fn parse(text: &str) -> Serial {
    let (epoch, n) = text.split_once('/').unwrap();
    Serial { epoch: epoch.parse().unwrap(), n: n.parse().unwrap() }
}

fn revocations(what: What) -> String {
    match what {
        What::Revocations(token) => token,
        other => panic!("expected revocations, found {other:?}"),
    }
}

fn entitlement(what: What) -> String {
    match what {
        What::Entitlement(token) => token,
        other => panic!("expected an entitlement token, found {other:?}"),
    }
}

/// A site with a Gateway, a resource, and bob, who has logged in.
async fn scene(controller: &Controller) -> (User, Gateway, User) {
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    administrator.new_user("bob").await;
    administrator.new_resource("web", "berlin").await;
    let gateway = administrator.new_gateway("gw1", "berlin", controller.place.path()).await;
    let bob = User::with_certificate(controller, "bob", PASSWORD).await;
    (administrator, gateway, bob)
}

// Covers: A6 allow
// Covers: R7 allow
// Covers: R12 allow
// Covers: K5 allow
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_hears_what_it_missed_and_then_what_happens() {
    let controller = Controller::start().await;
    let (mut administrator, gateway, mut bob) = scene(&controller).await;
    let missed = administrator.revoke_something().await;
    assert_eq!(missed.gateways, 0);
    administrator.grant("web", "bob").await;
    let tokens: api::EntitlementsResponse = bob.ask("entitlements", &()).await.unwrap();
    let dn = payload(&tokens.entitlements[0])["sub"].as_str().unwrap().to_owned();

    // It says that it has an older token of bob's session.
    let hello = Hello { sessions: vec![LiveSession { dn: dn.clone(), seq: 0 }], ..Hello::default() };
    let mut subscriber = gateway.subscribe(hello).await.unwrap();
    let first = subscriber.pushes.message().await.unwrap().unwrap();
    assert!(first.controller_time_ms > 1_600_000_000_000);
    let Some(What::Configuration(configuration)) = first.what else { panic!("{first:?}") };
    verify_configuration(&gateway, &first.signers, &configuration);
    let backlog = subscriber.backlog().await;
    let [list, token] = backlog.as_slice() else { panic!("{backlog:?}") };
    assert_eq!(serial(&revocations(list.clone())), parse(&missed.serial));
    let token = entitlement(token.clone());
    assert_eq!(payload(&token)["sub"], dn.as_str());
    let seen = payload(&token)["seq"].as_u64().unwrap();

    let live = administrator.revoke_something().await;
    assert_eq!(live.gateways, 1);
    assert_eq!(serial(&revocations(subscriber.next().await.unwrap())), parse(&live.serial));
    administrator.new_resource("mail", "berlin").await;
    let pushed = administrator.grant("mail", "bob").await;
    assert_eq!((pushed.entitlements, pushed.gateways), (1, 1));
    let (mut newer, mut configured) = (None, None);
    while newer.is_none() || configured.is_none() {
        match subscriber.next().await.unwrap() {
            What::Entitlement(token) => newer = Some(token),
            What::Configuration(token) => configured = Some(token),
            other => panic!("{other:?}"),
        }
    }
    let newer = newer.unwrap();
    assert!(payload(&newer)["seq"].as_u64().unwrap() > seen);
    let allowed = configured.unwrap();
    assert!(payload(&allowed)["allow"].to_string().contains("mail"), "the site's new resource");
    assert!(payload(&allowed)["seq"].as_u64() > payload(&configuration)["seq"].as_u64());

    subscriber.applied(parse(&live.serial)).await;
    let row = loop {
        let status = controller.status().await;
        let row = status["gateways"][0].clone();
        if row["applied"] == live.serial {
            break row;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((row["name"].as_str(), row["connected"].as_bool()), (Some("gw1"), Some(true)));
    assert!(row["applied_after_ms"].as_u64().is_some_and(|took| took < 20_000), "{row}");
    assert_eq!(controller.status().await["subscribers"], 1);
    drop(subscriber);
    while controller.status().await["subscribers"] != 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// As a Gateway believes it: by signers under its CA, and by everything that a token is judged by.
fn verify_configuration(gateway: &Gateway, signers: &[impl AsRef<[u8]>], token: &str) {
    let trust = gateway.folder.trust().unwrap();
    let now = ringfort_enrol::wall_clock();
    let signers: Vec<_> =
        signers.iter().map(|der| rustls_pki_types::CertificateDer::from(der.as_ref().to_vec())).collect();
    let keys = ringfort_enrol::token_keys(&signers, &trust, now).unwrap();
    let organisation = gateway.folder.identity().unwrap().organisation;
    let audience = audience::gateway(&gateway.id);
    let expectation = Expectation { audience: &audience, holder: Holder::Nobody, now, deny: &Default::default() };
    let signed = Signed::<GatewayConfiguration>::from_text(token).unwrap();
    Verifier::new(&organisation, keys).verify(&signed, &expectation).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_between_what_was_missed_and_what_happens() {
    let controller = Controller::start().await;
    let (mut administrator, gateway, _) = scene(&controller).await;
    let start = parse(&administrator.revoke_something().await.serial);
    const MORE: u64 = 60;
    let revoking = async {
        for _ in 0..MORE {
            administrator.revoke_something().await;
        }
    };
    let listening = async {
        let mut heard = Vec::new();
        // Streams begun in the midst of it, each where the last one ended.
        let mut at = Serial { n: start.n, ..start };
        while at.n < start.n + MORE {
            let hello = Hello { revocations: Some(at), ..Hello::default() };
            let mut subscriber = gateway.subscribe(hello).await.unwrap();
            let mut live = 0;
            while at.n < start.n + MORE && live < 5 {
                let What::Revocations(token) = subscriber.next().await.unwrap() else { continue };
                let list = payload(&token);
                let after = list["after"].as_u64().unwrap();
                heard.extend((after + 1..).zip(list["entries"].as_array().unwrap()).map(|(n, _)| n));
                at = serial(&token);
                live += 1;
            }
        }
        heard
    };
    let ((), heard) = tokio::join!(revoking, listening);
    assert_eq!(heard, (start.n + 1..=start.n + MORE).collect::<Vec<u64>>(), "each once and in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newer_stream_of_a_gateway_replaces_the_older() {
    let controller = Controller::start().await;
    let (mut administrator, gateway, _) = scene(&controller).await;
    let mut older = gateway.subscribe(Hello::default()).await.unwrap();
    older.backlog().await;
    let mut newer = gateway.subscribe(Hello::default()).await.unwrap();
    newer.backlog().await;
    assert_eq!(older.next().await.unwrap_err().code(), Code::Aborted);
    assert_eq!(administrator.revoke_something().await.gateways, 1);
    revocations(newer.next().await.unwrap());
    assert_eq!(controller.total("subscribers_replaced").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_keep_up_begins_again_and_misses_nothing() {
    let controller = Controller::start().await;
    let (mut administrator, gateway, _) = scene(&controller).await;
    let mut slow = gateway.subscribe(Hello::default()).await.unwrap();
    slow.backlog().await;
    let mut revoked = 0_u64;
    while controller.total("subscribers_lost").await == 0 {
        for _ in 0..100 {
            administrator.revoke_something().await;
            revoked += 1;
        }
        assert!(revoked < 5_000, "it is dropped at some time");
    }
    let mut at = Serial::default();
    let status = loop {
        match slow.next().await {
            Ok(What::Revocations(token)) => at = serial(&token),
            Ok(other) => panic!("{other:?}"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(at.n < revoked, "it had not heard all");
    let mut again = gateway.subscribe(Hello { revocations: Some(at), ..Hello::default() }).await.unwrap();
    let missed = again.backlog().await.into_iter().filter_map(|what| match what {
        What::Revocations(token) => Some(serial(&token).n),
        _ => None,
    });
    assert_eq!(missed.max(), Some(revoked));
}

// Covers: A23 allow
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_reaches_every_gateway() {
    const GATEWAYS: usize = 50;
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    administrator.new_user("bob").await;
    let mut subscribers: Vec<Subscriber> = Vec::new();
    for number in 0..GATEWAYS {
        let name = format!("gw{number}");
        let gateway = administrator.new_gateway(&name, "berlin", controller.place.path()).await;
        let mut subscriber = gateway.subscribe(Hello::default()).await.unwrap();
        subscriber.backlog().await;
        subscribers.push(subscriber);
    }
    let scope = api::RevocationScope::User("bob".into());
    let revocation = api::NewRevocation { scope, reason: "left".into(), grace_seconds: None };
    let start = Instant::now();
    let pushed: api::Pushed = administrator.ask("admin/revocations", &revocation).await.unwrap();
    assert_eq!(pushed.gateways as usize, GATEWAYS);
    for subscriber in &mut subscribers {
        assert_eq!(serial(&revocations(subscriber.next().await.unwrap())), parse(&pushed.serial));
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(controller.status().await["subscribers"], GATEWAYS);
}

// Covers: A23 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_revoked_stays_so_over_a_restart_and_who_was_away_hears_of_it() {
    let controller = Controller::start().await;
    let (mut administrator, gateway, mut bob) = scene(&controller).await;
    let fingerprint = controller.fingerprint().await;
    let mut subscriber = gateway.subscribe(Hello::default()).await.unwrap();
    subscriber.backlog().await;
    let heard = parse(&administrator.revoke_something().await.serial);
    assert_eq!(serial(&revocations(subscriber.next().await.unwrap())), heard);
    drop(subscriber);
    let scope = api::RevocationScope::User("bob".into());
    let revocation = api::NewRevocation { scope, reason: "left".into(), grace_seconds: None };
    let missed: api::Pushed = administrator.ask("admin/revocations", &revocation).await.unwrap();
    let address = controller.address();

    let controller = controller.restart().await;
    assert_eq!((controller.address(), controller.fingerprint().await), (address, fingerprint));
    let hello = Hello { revocations: Some(heard), ..Hello::default() };
    let mut subscriber = gateway.subscribe(hello).await.unwrap();
    let backlog = subscriber.backlog().await;
    let lists: Vec<String> =
        backlog.into_iter().filter(|what| matches!(what, What::Revocations(_))).map(revocations).collect();
    assert_eq!(lists.iter().map(|token| serial(token)).collect::<Vec<_>>(), [parse(&missed.serial)]);
    assert_eq!(payload(&lists[0])["after"], heard.n, "what it had heard of is not sent again");
    bob.reconnect().await;
    let answer = bob.ask::<_, api::EntitlementsResponse>("entitlements", &()).await;
    assert_eq!(crate::support::code(answer), "token_revoked");
    administrator.reconnect().await;
    let gateways: Vec<api::GatewayRow> = administrator.list("admin/gateways").await.unwrap();
    assert_eq!(gateways.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["gw1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_begins_with_hello() {
    let controller = Controller::start().await;
    let (_, gateway, _) = scene(&controller).await;
    let applied = v1::subscribe_request::Say::Applied(v1::Applied::default());
    let (say, said) = mpsc::channel(1);
    say.send(SubscribeRequest { say: Some(applied) }).await.unwrap();
    let refused = gateway.client().await.subscribe(ReceiverStream::new(said)).await.unwrap_err();
    assert_eq!((refused.code(), status_code(&refused)), (Code::InvalidArgument, "request_malformed"));
    let (silent, said) = mpsc::channel(1);
    let start = Instant::now();
    let refused = gateway.client().await.subscribe(ReceiverStream::new(said)).await.unwrap_err();
    assert_eq!((refused.code(), status_code(&refused)), (Code::DeadlineExceeded, "request_malformed"));
    assert!(start.elapsed() >= Duration::from_secs(10));
    drop(silent);
    assert_eq!(controller.total("refused_request_malformed").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_stops_ends_its_streams() {
    let controller = Controller::start().await;
    let (administrator, gateway, bob) = scene(&controller).await;
    let mut subscriber = gateway.subscribe(Hello::default()).await.unwrap();
    subscriber.backlog().await;
    let start = Instant::now();
    controller.end().await;
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(subscriber.next().await.unwrap_err().code(), Code::Unavailable);
    drop((administrator, bob));
}
