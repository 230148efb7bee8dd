//! One identity in two places.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ringfort_proto::api;
use ringfort_proto::v1::{Hello, LiveSession};
use tonic::Code;

use crate::support::{Controller, User};

const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Longer than a session may be at two Gateways, on a busy machine.
const LONG: Duration = Duration::from_secs(90);

async fn events(administrator: &mut User, action: &str) -> Vec<api::AuditRow> {
    let rows: Vec<api::AuditRow> = administrator.list("admin/audit?limit=100").await.unwrap();
    rows.into_iter().filter(|row| row.action == action).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateways_key_in_two_machines_is_flagged() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let gateway = administrator.new_gateway("gw1", "berlin", controller.place.path()).await;
    // The same machine begins another stream: that is nothing.
    let mut first = gateway.subscribe(Hello::default()).await.unwrap();
    first.backlog().await;
    let mut second = gateway.subscribe(Hello::default()).await.unwrap();
    second.backlog().await;
    assert_eq!(controller.total("subscribers_replaced").await, 1);
    assert_eq!(controller.total("gateway_duplicates").await, 0);
    assert!(controller.status().await["gateways"][0]["duplicate"].is_null());
    // Another machine: it is let in, and that is flagged.
    let mut third = gateway.subscribe_from(ELSEWHERE, Hello::default()).await.unwrap();
    third.backlog().await;
    assert_eq!(second.next().await.unwrap_err().code(), Code::Aborted);
    assert_eq!(controller.total("gateway_duplicates").await, 1);
    let [event] = &events(&mut administrator, "duplicate-gateway").await[..] else { panic!("expected one event") };
    assert_eq!((event.target.as_str(), event.outcome.as_str()), (gateway.id.as_str(), "flagged"));
    assert!(event.detail.contains("127.0.0.1 and 127.0.0.2"), "{}", event.detail);
    let status = controller.status().await;
    assert_eq!(status["gateways"][0]["duplicate"]["from"], serde_json::json!(["127.0.0.1", "127.0.0.2"]));
    let rows: Vec<api::GatewayRow> = administrator.list("admin/gateways").await.unwrap();
    assert!(rows[0].duplicate_at.is_some_and(|at| at > 1_600_000_000), "{rows:?}");
    // Back again: counted, and written down once a minute.
    let mut fourth = gateway.subscribe(Hello::default()).await.unwrap();
    fourth.backlog().await;
    assert_eq!(controller.total("gateway_duplicates").await, 2);
    assert_eq!(events(&mut administrator, "duplicate-gateway").await.len(), 1);
    // A Gateway that has ended its stream and comes from elsewhere has moved.
    drop((third, fourth));
    while controller.status().await["subscribers"] != 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    gateway.subscribe_from(ELSEWHERE, Hello::default()).await.unwrap().backlog().await;
    assert_eq!(controller.total("gateway_duplicates").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_at_two_gateways_of_a_site_is_flagged() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let place = controller.place.path();
    let (one, two) = (
        administrator.new_gateway("gw1", "berlin", place).await,
        administrator.new_gateway("gw2", "berlin", place).await,
    );
    let _streams = (one.subscribe(Hello::default()).await.unwrap(), two.subscribe(Hello::default()).await.unwrap());
    let (mut of_one, mut of_two) = (one.client().await, two.client().await);
    let live = |dn: &str| LiveSession { dn: dn.into(), seq: 1 };
    let (twice, alone) = (live("UID=laptop,CN=alice,O=example"), live("UID=phone,CN=bob,O=example"));
    let begun = Instant::now();
    while controller.total("session_duplicates").await == 0 {
        assert!(begun.elapsed() < LONG, "nothing was flagged");
        of_one.report(one.report(&[twice.clone(), alone.clone()])).await.unwrap();
        of_two.report(two.report(std::slice::from_ref(&twice))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // A connection that was silent for so long is closed.
    administrator.reconnect().await;
    assert!(begun.elapsed() > Duration::from_secs(30), "a client that moves has as long: {:?}", begun.elapsed());
    let [event] = &events(&mut administrator, "duplicate-session").await[..] else { panic!("expected one event") };
    assert_eq!((event.target.as_str(), event.outcome.as_str()), (twice.dn.as_str(), "flagged"));
    assert!(event.detail.contains(&one.id) && event.detail.contains(&two.id), "{}", event.detail);
}
