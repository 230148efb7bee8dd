//! Receipts over the network: Gateways' streams confirm, administrators wait.

use std::time::{Duration, Instant};

use ringfort_proto::api;
use ringfort_proto::v1::{Hello, Serial};

use crate::support::{Controller, Gateway, PASSWORD, Subscriber, User, code};

fn parse(text: &str) -> Serial {
    let (epoch, n) = text.split_once('/').unwrap();
    Serial { epoch: epoch.parse().unwrap(), n: n.parse().unwrap() }
}

async fn receipts(user: &mut User, serial: &str, wait: u32) -> api::Receipts {
    user.list(&format!("admin/receipts?serial={serial}&wait={wait}")).await.unwrap()
}

async fn subscribed(gateway: &Gateway) -> Subscriber {
    let mut subscriber = gateway.subscribe(Hello::default()).await.unwrap();
    subscriber.backlog().await;
    subscriber
}

/// Three Gateways with streams, and bob, who has logged in.
async fn scene(controller: &Controller) -> (User, Vec<Gateway>, Vec<Subscriber>) {
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    administrator.new_user("bob").await;
    let (mut gateways, mut subscribers) = (Vec::new(), Vec::new());
    for name in ["gw1", "gw2", "gw3"] {
        let gateway = administrator.new_gateway(name, "berlin", controller.place.path()).await;
        subscribers.push(subscribed(&gateway).await);
        gateways.push(gateway);
    }
    User::with_certificate(controller, "bob", PASSWORD).await;
    (administrator, gateways, subscribers)
}

async fn revoke_bob(administrator: &mut User) -> String {
    let scope = api::RevocationScope::User("bob".into());
    let revocation = api::NewRevocation { scope, reason: "left".into(), grace_seconds: None };
    administrator.ask::<_, api::Pushed>("admin/revocations", &revocation).await.unwrap().serial
}

// Covers: X6 allow
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_hears_when_the_last_gateway_has_confirmed() {
    let controller = Controller::start().await;
    let (mut administrator, gateways, subscribers) = scene(&controller).await;
    let serial = revoke_bob(&mut administrator).await;
    let at_once = receipts(&mut administrator, &serial, 0).await;
    assert!(at_once.gateways.iter().all(|receipt| !receipt.done && receipt.awaited), "{at_once:?}");
    let confirming = async {
        for subscriber in &subscribers {
            tokio::time::sleep(Duration::from_millis(50)).await;
            subscriber.applied(parse(&serial)).await;
        }
    };
    let begun = Instant::now();
    let ((), waited) = tokio::join!(confirming, receipts(&mut administrator, &serial, 20));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(waited.is_complete());
    assert_eq!(waited.gateways.iter().map(|receipt| receipt.name.as_str()).collect::<Vec<_>>(), ["gw1", "gw2", "gw3"]);
    assert!(waited.gateways.iter().all(|receipt| receipt.took_ms.is_some_and(|took| took < 20_000)), "{waited:?}");
    assert!(waited.gateways[2].took_ms >= Some(100), "it was the last to confirm: {waited:?}");

    // Any Controller on this database can tell of it: another process knows what is written, its milliseconds included.
    drop((subscribers, gateways));
    let controller = controller.restart().await;
    administrator.reconnect().await;
    assert_eq!(receipts(&mut administrator, &serial, 0).await, waited);
    controller.end().await;
}

// Covers: X6 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_gateway_is_named_with_the_end_of_its_sessions() {
    let controller = Controller::start().await;
    let (mut administrator, gateways, mut subscribers) = scene(&controller).await;
    subscribers.pop();
    let now = ringfort_enrol::wall_clock().0;
    let serial = revoke_bob(&mut administrator).await;
    for subscriber in &subscribers {
        subscriber.applied(parse(&serial)).await;
    }
    let begun = Instant::now();
    let waited = receipts(&mut administrator, &serial, 1).await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "it waits for the third");
    assert_eq!(waited.gateways.iter().map(|receipt| receipt.done).collect::<Vec<_>>(), [true, true, false]);
    let silent = &waited.gateways[2];
    let ends_in = silent.sessions_end.unwrap() - now;
    assert!((12 * 3_600 - 60..=12 * 3_600).contains(&ends_in), "bob's login: {ends_in} s");
    // It comes back and says with its first message where it stands.
    let hello = Hello { revocations: Some(parse(&serial)), ..Hello::default() };
    let back = gateways[2].subscribe(hello).await.unwrap();
    let waited = receipts(&mut administrator, &serial, 20).await;
    assert!(waited.is_complete());
    assert_eq!((waited.gateways[2].took_ms, waited.gateways[2].sessions_end), (None, None), "nobody measured that");
    drop(back);

    for wrong in ["", "?serial=1", "?serial=1/1", &format!("?serial={serial}&wait=21"), "?serial=x/1"] {
        let answer = administrator.list::<api::Receipts>(&format!("admin/receipts{wrong}")).await;
        assert_eq!(code(answer), "request_malformed", "{wrong}");
    }
    let mut bob = User::with_certificate(&controller, "bob", PASSWORD).await;
    let answer = bob.list::<api::Receipts>(&format!("admin/receipts?serial={serial}")).await;
    assert_eq!(code(answer), "not_administrator");
}

/// However many Gateways confirm at once, they are written together; none is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swarm_of_confirmations_is_written_in_few_transactions() {
    let controller = Controller::start().await;
    let (mut administrator, _gateways, subscribers) = scene(&controller).await;
    let mut last = String::new();
    const SERIALS: u64 = 100;
    for _ in 0..SERIALS {
        last = administrator.revoke_something().await.serial;
    }
    let before = controller.total("confirmations_written").await;
    let begun = Instant::now();
    let Serial { epoch, n } = parse(&last);
    for number in 1..=n {
        for subscriber in &subscribers {
            subscriber.applied(Serial { epoch, n: number }).await;
        }
    }
    assert!(receipts(&mut administrator, &last, 20).await.is_complete());
    let most = begun.elapsed().as_millis() as u64 / 20 + 2;
    let written = controller.total("confirmations_written").await - before;
    assert!(written <= most, "{written} transactions for {} confirmations, in a time for {most}", 3 * n);
}
