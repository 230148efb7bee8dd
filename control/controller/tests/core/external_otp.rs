//! One-time passwords that another system checks, as the core counts them. What it is over HTTPS the tests of the shell show.

use std::sync::{Arc, Mutex};

use ringfort_controller::core::ByProvider;
use ringfort_directory::ProviderPolicy;
use ringfort_directory::external_otp::OtpAnswer;
use tokio::sync::Notify;

use super::identity::{named, person};
use super::*;

impl World {
    /// With a system that is asked about alice and allows the code "right"; about "hang" it says nothing until it is let.
    async fn with_system(self) -> (Self, System) {
        let system = System::default();
        let asked = system.clone();
        self.core.set_external_otp(move |question| {
            let system = asked.clone();
            Box::pin(async move {
                system.asked.lock().unwrap().push(question.user.clone());
                if question.code.starts_with("hang") {
                    system.go.notified().await;
                }
                Ok(if question.code.ends_with("right") { OtpAnswer::Allow } else { OtpAnswer::Deny })
            })
        });
        self.core.admin_set_external_otp(&self.admin(), named("alice"), NOW).await.unwrap();
        (self, system)
    }
}

#[derive(Clone, Default)]
struct System {
    asked: Arc<Mutex<Vec<String>>>,
    go: Arc<Notify>,
}

impl System {
    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Waits until it has been asked so often.
    async fn reached(&self, times: usize) {
        while self.asked() < times {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn wrong_codes_lock_for_longer_each_time() {
    let (world, system) = World::new().await.with_system().await;
    let mut at = NOW;
    for seconds in [900, 1_800, 3_600, 3_600] {
        for _ in 0..5 {
            refused(world.login_with("alice", Some("wrong"), at).await, "otp_refused");
        }
        let asked = system.asked();
        let almost = UnixSeconds(at.0 + seconds - 1);
        refused(world.login_with("alice", Some("right"), almost).await, "otp_locked");
        // That there is a lock is said before a code is asked for.
        refused(world.login_with("alice", None, almost).await, "otp_locked");
        assert_eq!(system.asked(), asked);
        at = UnixSeconds(at.0 + seconds);
    }
    world.login_with("alice", Some("right"), at).await.unwrap();
    for _ in 0..4 {
        refused(world.login_with("alice", Some("wrong"), at).await, "otp_refused");
    }
    world.login_with("alice", Some("right"), at).await.unwrap();
}

#[tokio::test]
async fn codes_side_by_side_count_before_they_are_answered() {
    let (world, system) = World::new().await.with_system().await;
    let five = || async {
        let login = |code: &'static str| world.login_with("alice", Some(code), NOW);
        tokio::join!(login("hang 1"), login("hang 2"), login("hang 3"), login("hang 4"), login("hang 5"))
    };
    let sixth = async {
        system.reached(5).await;
        refused(world.login_with("alice", Some("right"), NOW).await, "otp_locked");
        assert_eq!(system.asked(), 5);
        system.go.notify_waiters();
    };
    let ((one, two, three, four, five), ()) = tokio::join!(five(), sixth);
    for answer in [one, two, three, four, five] {
        refused(answer, "otp_refused");
    }
    refused(world.login_with("alice", Some("right"), later(899)).await, "otp_locked");
    world.login_with("alice", Some("right"), later(900)).await.unwrap();
}

#[tokio::test]
async fn a_code_whose_answer_nobody_waits_for_counts() {
    let (world, system) = World::new().await.with_system().await;
    for n in 1..=5 {
        // Whoever asks goes away once the code is under way.
        tokio::select! {
            biased;
            answer = world.login_with("alice", Some("hang"), NOW) => panic!("{:?}", answer.map(drop)),
            () = system.reached(n) => {}
        }
    }
    refused(world.login_with("alice", Some("right"), NOW).await, "otp_locked");
}

#[tokio::test]
async fn an_answer_about_what_was_set_otherwise_meanwhile_counts_for_nothing() {
    let (world, system) = World::new().await.with_system().await;
    let changed = async {
        system.reached(1).await;
        world.totp("alice").await;
        system.go.notify_waiters();
    };
    let (answer, ()) = tokio::join!(world.login_with("alice", Some("hang right"), NOW), changed);
    refused(answer, "otp_required");
}

#[tokio::test]
async fn it_is_asked_beside_what_a_provider_says() {
    let (world, system) = World::new().await.with_system().await;
    world.set_email("alice", Some("alice@example.org")).await.unwrap();
    let (laptop, person) = (Client::new("laptop"), person("alice@example.org"));
    let login = async |otp, second_factor| {
        let policy = &ProviderPolicy { second_factor, ..ProviderPolicy::default() };
        let by = ByProvider { method: "corp", person: &person, policy, otp, refresh: None };
        world.core.login_by_provider(by, &laptop.id, laptop.thumbprint(), FROM, NOW).await
    };
    refused(login(None, false).await, "otp_required");
    refused(login(Some("wrong"), false).await, "otp_refused");
    login(Some("right"), false).await.unwrap();
    let event = world.event().await;
    assert!(event.detail.contains("by corp as subject-1") && event.detail.ends_with("second factor external"));
    assert_eq!(system.asked(), 2);
    // Unless the provider asks for a second factor itself.
    login(None, true).await.unwrap();
    assert!(world.event().await.detail.ends_with("second factor the provider's"));
    assert_eq!(system.asked(), 2);
}

#[tokio::test]
async fn administrators_who_have_just_logged_in_say_for_whom() {
    let (world, _system) = World::new().await.with_system().await;
    let (admin, set) = (world.admin(), named("alice"));
    refused(world.core.admin_set_external_otp(&admin, set, later(301)).await, "authentication_not_fresh");
    let removed = world.core.admin_remove_external_otp(&world.admin(), named("alice"), later(301)).await;
    refused(removed, "authentication_not_fresh");
    // It holds over a restart, after which nobody has said yet whom to ask.
    let world = world.restarted(NOW).await;
    refused(world.login_with("alice", Some("right"), NOW).await, "otp_unavailable");
    refused(world.core.admin_set_external_otp(&world.admin(), named("bob"), NOW).await, "request_malformed");
}
