//! Who has applied what was taken back, and what becomes of those that are silent.

use ringfort_controller::core::Confirmation;
use ringfort_token::Serial;

use super::*;

/// A Gateway that joined, was configured and reported at `now`.
async fn running(world: &World, name: &str, site: &str, now: UnixSeconds) -> v1::Joined {
    let (_, joined) = world.gateway(name, site).await;
    world.core.configuration(&joined.id, now).await.unwrap();
    alive(world, &joined, now).await;
    joined
}

async fn alive(world: &World, joined: &v1::Joined, now: UnixSeconds) {
    let leaf = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &joined.chain[0]);
    let report = v1::ReportRequest { certificate_digest: leaf.as_ref().to_vec().into(), ..Default::default() };
    world.core.report(&world.gateway_peer(joined), &report, now).await.unwrap();
}

async fn confirm(world: &World, joined: &v1::Joined, revocations: Serial, took_ms: Option<u64>, now: UnixSeconds) {
    let confirmation = Confirmation { gateway: joined.id.clone(), revocations, took_ms };
    world.core.confirmed(&[confirmation], now).await.unwrap();
}

async fn receipts(world: &World, serial: Serial, now: UnixSeconds) -> Vec<api::Receipt> {
    let receipts = world.core.receipts(&world.admin(), serial, now).await.unwrap();
    assert_eq!(receipts.serial, format!("{}/{}", serial.epoch, serial.n));
    receipts.gateways
}

// Covers: X6 allow
#[tokio::test]
async fn a_receipt_names_the_milliseconds_and_a_silent_gateway_the_end_of_its_sessions() {
    let world = World::new().await;
    let (quick, silent) = (running(&world, "east-1", "east", NOW).await, running(&world, "east-2", "east", NOW).await);
    // One that joined and never had a configuration can have no session.
    world.gateway("west-1", "west").await;
    world.login("alice", &Client::new("laptop"), later(10)).await;
    world.login("alice", &Client::new("phone"), later(50)).await;
    world.login("bob", &Client::new("other"), later(99)).await;

    world.revoke(api::RevocationScope::User("alice".into()), None, later(100)).await.unwrap();
    let serial = world.core.serial();
    confirm(&world, &quick, serial, Some(7), later(100)).await;
    let [first, second] = &receipts(&world, serial, later(120)).await[..] else { panic!("two Gateways") };
    assert_eq!((first.name.as_str(), first.done, first.awaited, first.took_ms), ("east-1", true, true, Some(7)));
    assert_eq!((first.sessions_end, first.applied.as_str()), (None, &*format!("{}/{}", serial.epoch, serial.n)));
    assert_eq!((second.name.as_str(), second.done, second.awaited, second.took_ms), ("east-2", false, true, None));
    // The later of alice's two logins; bob's is not concerned.
    assert_eq!((second.sessions_end, second.lease_until), (Some(later(50 + 12 * 3_600).0), later(900).0));

    // What it has not heard of before counts as well.
    world.revoke(api::RevocationScope::User("bob".into()), None, later(130)).await.unwrap();
    let both = world.core.serial();
    assert_eq!(receipts(&world, both, later(140)).await[1].sessions_end, Some(later(99 + 12 * 3_600).0));
    assert_eq!(receipts(&world, serial, later(140)).await[1].sessions_end, Some(later(50 + 12 * 3_600).0));
    let first = &receipts(&world, both, later(140)).await[0];
    assert_eq!((first.done, first.sessions_end), (false, Some(later(99 + 12 * 3_600).0)), "it heard of alice only");

    // A later confirmation is one of what came before, and its milliseconds are those of its own serial.
    confirm(&world, &silent, both, None, later(150)).await;
    confirm(&world, &quick, both, Some(3), later(150)).await;
    let rows = receipts(&world, serial, later(150)).await;
    assert!(rows.iter().all(|row| row.done && row.took_ms.is_none()), "{rows:?}");
    assert_eq!(receipts(&world, both, later(150)).await[0].took_ms, Some(3));
}

// Covers: X6 refuse
#[tokio::test]
async fn a_silent_gateway_is_waited_for_while_it_can_do_harm_and_no_longer() {
    let world = World::new().await;
    let gateway = running(&world, "east-1", "east", NOW).await;
    world.login("alice", &Client::new("laptop"), NOW).await;
    world.revoke(api::RevocationScope::User("alice".into()), None, later(100)).await.unwrap();
    let serial = world.core.serial();
    let awaited = async |now| receipts(&world, serial, now).await[0].awaited;
    assert!(awaited(later(3_600)).await, "alice's session may still run there, though it has been away for an hour");
    assert!(awaited(later(12 * 3_600 - 1)).await);
    assert!(!awaited(later(12 * 3_600)).await, "it has ended by itself");
    alive(&world, &gateway, later(13 * 3_600)).await;
    assert!(awaited(later(13 * 3_600)).await, "it is back, and will hear of it");
    let row = &receipts(&world, serial, later(13 * 3_600)).await[0];
    assert_eq!((row.done, row.sessions_end), (false, Some(later(12 * 3_600).0)));

    // A Gateway that says that it has less than before is believed: its disk was restored.
    confirm(&world, &gateway, serial, Some(1), later(13 * 3_600)).await;
    assert!(receipts(&world, serial, later(13 * 3_600)).await[0].done);
    confirm(&world, &gateway, Serial { n: serial.n - 1, ..serial }, None, later(13 * 3_600)).await;
    assert!(!receipts(&world, serial, later(13 * 3_600)).await[0].done);
    // Another epoch's numbers say nothing of this one's, and nothing is kept of a Gateway that there is not.
    confirm(&world, &gateway, Serial { epoch: serial.epoch - 1, n: 99 }, None, later(13 * 3_600)).await;
    assert!(!receipts(&world, serial, later(13 * 3_600)).await[0].done);
    let nobody = Confirmation { gateway: "nobody".into(), revocations: serial, took_ms: None };
    world.core.confirmed(&[nobody], NOW).await.unwrap();
    assert_eq!(receipts(&world, serial, NOW).await.len(), 1);

    for beyond in [Serial { n: serial.n + 1, ..serial }, Serial { epoch: serial.epoch + 1, n: 0 }, Serial::default()] {
        refused(world.core.receipts(&world.admin(), beyond, NOW).await, "request_malformed");
    }
}

#[tokio::test]
async fn each_scope_has_the_end_of_what_it_takes() {
    let world = World::new().await;
    running(&world, "east-1", "east", NOW).await;
    let (laptop, phone) = (Client::new("laptop"), Client::new("phone"));
    world.login("alice", &laptop, later(10)).await;
    let on_phone = world.login("alice", &phone, later(20)).await;
    world.login("bob", &Client::new("other"), later(30)).await;
    let end = |second: u64| Some(later(second + 12 * 3_600).0);
    let mut ends = Vec::new();
    let first = world.core.serial().n;
    for scope in [
        api::RevocationScope::Token(uuid::Uuid::new_v4().to_string()),
        api::RevocationScope::Device("laptop".into()),
        api::RevocationScope::Token(on_phone.claims().jti.clone()),
        api::RevocationScope::User("root".into()),
    ] {
        world.revoke(scope, None, later(40)).await.unwrap();
    }
    let epoch = world.core.serial().epoch;
    for n in first + 1..=world.core.serial().n {
        // As a Gateway sees it that has heard of all before.
        let heard = Serial { epoch, n: n - 1 };
        let id = receipts(&world, heard, later(41)).await[0].id.clone();
        world.core.confirmed(&[Confirmation { gateway: id, revocations: heard, took_ms: None }], NOW).await.unwrap();
        ends.push(receipts(&world, Serial { epoch, n }, later(41)).await[0].sessions_end);
    }
    // Whose token it is that nobody knows cannot be told: the last login of all.
    assert_eq!(ends, [end(30), end(10), end(20), end(0)]);
    let again = Client::new("again").login(&world.core, "root", "first password", later(50)).await.unwrap();
    let again: Administrator<action::Revoke> = world.core.administrator(&again, later(50)).await.unwrap();
    for _ in 0..2 {
        let scope = api::RevocationScope::User("bob".into());
        let request = api::NewRevocation { scope, reason: "for a test".into(), grace_seconds: None };
        world.core.admin_revoke(&again, request, later(50)).await.unwrap();
    }
    let serial = world.core.serial();
    let id = receipts(&world, serial, later(51)).await[0].id.clone();
    let heard = Serial { n: serial.n - 1, ..serial };
    world.core.confirmed(&[Confirmation { gateway: id, revocations: heard, took_ms: None }], NOW).await.unwrap();
    assert_eq!(receipts(&world, serial, later(51)).await[0].sessions_end, None, "there is no login left");
}

// Covers: X6 allow
#[tokio::test]
async fn a_shorter_second_login_hides_nothing_of_the_first() {
    let world = World::new().await;
    running(&world, "east-1", "east", NOW).await;
    world.set_email("alice", Some("alice@example.org")).await.unwrap();
    let laptop = Client::new("laptop");
    let first = world.login("alice", &laptop, NOW).await;
    let second = world.by_provider(&laptop, &identity::person("alice@example.org"), later(1)).await.unwrap();
    assert_eq!((first.claims().exp, second.claims().exp), (later(12 * 3_600), later(3_600)));
    world.revoke(api::RevocationScope::User("alice".into()), None, later(2)).await.unwrap();
    let told = receipts(&world, world.core.serial(), later(3)).await[0].sessions_end;
    assert_eq!(told, Some(later(12 * 3_600).0), "what the first login got still works there");
}

#[tokio::test]
async fn confirmations_of_many_are_kept_together_and_those_of_nobody_are_not() {
    let world = World::new().await;
    let (first, last) = (running(&world, "east-1", "east", NOW).await, running(&world, "west-1", "west", NOW).await);
    world.revoke(api::RevocationScope::User("alice".into()), None, NOW).await.unwrap();
    let serial = world.core.serial();
    let of = |gateway: &str, took_ms| Confirmation { gateway: gateway.into(), revocations: serial, took_ms };
    // More than one statement takes, with Gateways that were removed meanwhile between two that are there.
    let mut all = vec![of(&first.id, Some(3))];
    all.extend((0..600).map(|n| of(&format!("removed-{n}"), Some(9))));
    all.extend([of(&last.id, Some(5)), of(&first.id, Some(4))]);
    world.core.confirmed(&all, later(1)).await.unwrap();
    let took: Vec<_> = receipts(&world, serial, later(1)).await.iter().map(|one| (one.done, one.took_ms)).collect();
    assert_eq!(took, [(true, Some(4)), (true, Some(5))], "of two confirmations of one Gateway the later counts");
    world.core.confirmed(&[], later(2)).await.unwrap();
}
