//! What administrators ask of a Gateway, and its answers.

use std::time::{Duration, Instant};

use ringfort_proto::api;
use ringfort_proto::v1::push::What;
use ringfort_proto::v1::{self, Hello, SubscribeRequest, operation, subscribe_request::Say};

use crate::support::{Answered, Controller, Subscriber, User, code};

fn request(operation: api::Operation) -> api::OperationRequest {
    api::OperationRequest { name: "gw1".into(), operation }
}

async fn operate(user: &mut User, operation: api::Operation) -> Answered<api::OperationAnswer> {
    user.ask("admin/gateways/operations", &request(operation)).await
}

async fn asked(subscriber: &mut Subscriber) -> v1::Operation {
    match subscriber.next().await.unwrap() {
        What::Operation(operation) => operation,
        other => panic!("expected an operation, found {other:?}"),
    }
}

async fn answer(subscriber: &Subscriber, id: &str, code: &str, detail: &str) {
    let done = v1::OperationDone { id: id.into(), code: code.into(), detail: detail.into() };
    subscriber.say.send(SubscribeRequest { say: Some(Say::OperationDone(done)) }).await.unwrap();
}

// Covers: K6 allow
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_is_passed_on_and_its_answer_comes_back() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let gateway = administrator.new_gateway("gw1", "berlin", controller.place.path()).await;
    let mut subscriber = gateway.subscribe(Hello::default()).await.unwrap();
    subscriber.backlog().await;
    let answering = async {
        let operation = asked(&mut subscriber).await;
        let Some(operation::What::SetLogLevel(level)) = &operation.what else { panic!("{operation:?}") };
        assert_eq!(level.filter, "debug");
        // An answer to nothing harms nobody.
        answer(&subscriber, "another", "reload_refused", "no").await;
        answer(&subscriber, &operation.id, "", "logs by debug").await;
        operation.id
    };
    let asking = operate(&mut administrator, api::Operation::LogLevel("debug".into()));
    let (id, done) = tokio::join!(answering, asking);
    let done = done.unwrap();
    assert_eq!((&done.id, done.detail.as_str()), (&id, "logs by debug"));
    let events: Vec<api::AuditRow> = administrator.list("admin/audit?limit=1").await.unwrap();
    let seen = [&events[0].id, &events[0].action, &events[0].target, &events[0].detail];
    assert_eq!(seen, [&done.event, "log-level debug", "gw1", &id]);
}

// Covers: K6 allow
// Covers: K6 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_and_captures_are_passed_on_with_their_bounds_and_name_no_place() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let gateway = administrator.new_gateway("gw1", "berlin", controller.place.path()).await;
    let mut subscriber = gateway.subscribe(Hello::default()).await.unwrap();
    subscriber.backlog().await;
    let sha256 = "ab".repeat(32);
    let upgrade =
        |version: &str, sha256: &str| api::Operation::Upgrade { version: version.into(), sha256: sha256.into() };
    let limits = api::CaptureLimits { seconds: 30, packets: 1_000, bytes: 1 << 20, snap_bytes: 64 };
    for (operation, expected, action) in [
        (
            upgrade("1.2.3", &sha256),
            operation::What::Upgrade(v1::Upgrade { version: "1.2.3".into(), sha256: vec![0xab; 32].into() }),
            format!("upgrade 1.2.3 {sha256}"),
        ),
        (
            api::Operation::Capture(limits),
            operation::What::Capture(v1::Capture { seconds: 30, packets: 1_000, bytes: 1 << 20, snap_bytes: 64 }),
            "capture 30 s, 1000 packets, 1048576 bytes, 64 of each".to_owned(),
        ),
    ] {
        let answering = async {
            let asked = asked(&mut subscriber).await;
            answer(&subscriber, &asked.id, "", "done").await;
            asked.what
        };
        let (what, done) = tokio::join!(answering, operate(&mut administrator, operation));
        done.unwrap();
        assert_eq!(what, Some(expected));
        let events: Vec<api::AuditRow> = administrator.list("admin/audit?limit=1").await.unwrap();
        assert_eq!((&events[0].action, events[0].outcome.as_str()), (&action, "ok"));
    }
    for wrong in [
        upgrade("", &sha256),
        upgrade("../1.2.3", &sha256),
        upgrade(&"1".repeat(33), &sha256),
        upgrade("1.2.3", &sha256[1..]),
        upgrade("1.2.3", &"xy".repeat(32)),
        api::Operation::Capture(api::CaptureLimits { seconds: 301, ..limits }),
        api::Operation::Capture(api::CaptureLimits { packets: 0, ..limits }),
        api::Operation::Capture(api::CaptureLimits { bytes: u32::MAX, ..limits }),
        api::Operation::Capture(api::CaptureLimits { snap_bytes: 65_536, ..limits }),
    ] {
        assert_eq!(code(operate(&mut administrator, wrong).await), "request_malformed");
    }
}

// Covers: K6 allow
// Covers: K6 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_became_of_an_operation_is_written_down_also_when_whoever_asked_has_hung_up() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    let mut other = controller.administrator().await;
    administrator.new_site("berlin").await;
    let gateway = administrator.new_gateway("gw1", "berlin", controller.place.path()).await;
    let mut subscriber = gateway.subscribe(Hello::default()).await.unwrap();
    subscriber.backlog().await;
    let open = async || controller.status().await["connections"].as_u64().unwrap();
    for (code, action, outcome) in
        [("", "reload", "ok"), ("reload_refused", "POST /api/v1/admin/gateways/operations", "operation_failed")]
    {
        let before = open().await;
        let asking = operate(&mut administrator, api::Operation::Reload);
        let operation = tokio::select! {
            operation = asked(&mut subscriber) => operation,
            answered = asking => panic!("answered before the Gateway did: {answered:?}"),
        };
        // The new connection is one more, until the Controller has seen that the other is gone.
        administrator.reconnect().await;
        while open().await > before {
            tokio::task::yield_now().await;
        }
        answer(&subscriber, &operation.id, code, "as it is").await;
        let event = loop {
            let events: Vec<api::AuditRow> = other.list("admin/audit?limit=1").await.unwrap();
            if events[0].outcome == outcome && events[0].action == action {
                break events.into_iter().next().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!(event.target, "gw1");
        assert!(event.detail.contains(if code.is_empty() { &operation.id } else { code }), "{event:?}");
    }
    assert_eq!(controller.total("refused_operation_failed").await, 1, "counted once");
}

// Covers: K6 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gateway_does_not_do_is_told_with_its_reason() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    let gateway = administrator.new_gateway("gw1", "berlin", controller.place.path()).await;
    let begun = Instant::now();
    let answered = operate(&mut administrator, api::Operation::Reload).await;
    assert_eq!(code(answered), "gateway_unreachable");
    assert!(begun.elapsed() < Duration::from_secs(5), "at once: {:?}", begun.elapsed());

    let mut subscriber = gateway.subscribe(Hello::default()).await.unwrap();
    subscriber.backlog().await;
    let refusing = async {
        let operation = asked(&mut subscriber).await;
        answer(&subscriber, &operation.id, "reload_refused", "restart it").await;
    };
    let ((), answered) = tokio::join!(refusing, operate(&mut administrator, api::Operation::Reload));
    let error = answered.unwrap_err().to_string();
    assert!(error.contains("operation_failed") && error.contains("restart it (reload_refused)"), "{error}");

    // Lost before it answered: whether it did it is not known.
    let losing = async {
        asked(&mut subscriber).await;
        drop(subscriber);
    };
    let ((), answered) = tokio::join!(losing, operate(&mut administrator, api::Operation::Reload));
    assert_eq!(code(answered), "operation_late");

    for wrong in ["", "x\ny", &"x".repeat(257)] {
        let answered = operate(&mut administrator, api::Operation::LogLevel(wrong.into())).await;
        assert_eq!(code(answered), "request_malformed");
    }
    let nowhere = api::OperationRequest { name: "gw9".into(), operation: api::Operation::Reload };
    let answered = administrator.ask::<_, api::OperationAnswer>("admin/gateways/operations", &nowhere).await;
    assert_eq!(code(answered), "not_found");
    for refused in ["gateway_unreachable", "operation_failed", "operation_late"] {
        assert_eq!(controller.total(&format!("refused_{refused}")).await, 1, "{refused}");
    }
}
