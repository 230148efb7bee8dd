//! Whom a provider may speak for, who users are there, and who asks about their sessions.

use ringfort_controller::core::{ByProvider, GoesOn};
use ringfort_directory::{Email, Person, ProviderPolicy};
use ringfort_proto::api::AdministratorRole::Admin;

use super::identity::person;
use super::*;

fn policy() -> ProviderPolicy {
    ProviderPolicy::default()
}

async fn by(
    core: &Core,
    (method, policy): (&str, &ProviderPolicy),
    client: &Client,
    person: &Person,
    refresh: Option<&str>,
    now: UnixSeconds,
) -> Result<Bearer, Refused> {
    let by = ByProvider { method, person, policy, otp: None, refresh };
    let response = core.login_by_provider(by, &client.id, client.thumbprint(), FROM, now).await?;
    core.bearer(&response.claims, &client.thumbprint(), now)
}

impl World {
    async fn at(&self, method: &str, client: &Client, subject: &str, email: &str) -> Result<Bearer, Refused> {
        let person = Person { subject: subject.into(), ..person(email) };
        by(&self.core, (method, &policy()), client, &person, None, NOW).await
    }
}

// Covers: R21 allow
// Covers: R21 refuse
#[tokio::test]
async fn the_first_login_by_a_method_says_who_it_is_there() {
    let world = World::new().await;
    world.set_email("alice", Some("alice@example.org")).await.unwrap();
    world.set_email("bob", Some("bob@example.org")).await.unwrap();
    let laptop = Client::new("laptop");
    let first = world.at("sso", &laptop, "a-1", "alice@example.org").await.unwrap();
    world.at("sso", &laptop, "a-1", "alice@example.org").await.unwrap();
    // Another account that was given her address, and her own account with the address of somebody else.
    refused(world.at("sso", &laptop, "a-2", "alice@example.org").await, "subject_refused");
    refused(world.at("sso", &Client::new("phone"), "a-1", "bob@example.org").await, "subject_refused");
    world.at("sso", &Client::new("phone"), "b-1", "bob@example.org").await.unwrap();
    // Another method has its own names for people.
    world.at("corp", &laptop, "a-2", "alice@example.org").await.unwrap();
    // It stays so over a restart, until an administrator sets the address anew; then all of it begins anew.
    let world = world.restarted(NOW).await;
    refused(world.at("sso", &laptop, "a-2", "alice@example.org").await, "subject_refused");
    let pushed = world.set_email("alice", Some("alice@example.org")).await.unwrap();
    assert!(!pushed.serial.is_empty(), "her logins end");
    refused(world.core.renew(&first, NOW).await, "token_revoked");
    world.at("sso", &laptop, "a-2", "alice@example.org").await.unwrap();
    refused(world.at("sso", &laptop, "a-1", "alice@example.org").await, "subject_refused");
    for bad in ["", "a\0b", &"x".repeat(1_025)] {
        refused(world.at("sso", &laptop, bad, "alice@example.org").await, "provider_answer");
    }
}

// Covers: R21 refuse
#[tokio::test]
async fn logins_at_providers_end_with_the_address() {
    let world = World::new().await;
    world.grant("wiki", "alice", NOW).await;
    // Whoever never logged in by it loses nothing.
    let password = world.login("alice", &Client::new("phone"), NOW).await;
    assert!(world.set_email("alice", Some("alice@example.org")).await.unwrap().serial.is_empty());
    world.core.renew(&password, NOW).await.unwrap();
    for next in [Some("ada@example.org"), None] {
        world.set_email("alice", Some("alice@example.org")).await.unwrap();
        let laptop = Client::new("laptop");
        let mut request = person("alice@example.org");
        request.subject = "a-1".into();
        let laptop = Client { id: laptop.thumbprint().to_string(), ..laptop };
        let bearer = by(&world.core, ("sso", &policy()), &laptop, &request, Some("token"), NOW).await.unwrap();
        let pushed = world.set_email("alice", next).await.unwrap();
        assert!(!pushed.serial.is_empty());
        refused(world.core.entitlements(&bearer, NOW).await, "token_revoked");
        refused(by(&world.core, ("sso", &policy()), &laptop, &request, None, NOW).await, "user_unknown");
    }
}

// Covers: R21 refuse
#[tokio::test]
async fn a_provider_speaks_for_its_domains_and_for_administrators_only_where_that_is_said() {
    let world = World::new().await;
    world.set_email("alice", Some("alice@example.org")).await.unwrap();
    world.set_email("root", Some("root@example.org")).await.unwrap();
    let (laptop, phone) = (Client::new("laptop"), Client::new("phone"));
    let (alice, root) = (person("alice@example.org"), Person { subject: "r-1".into(), ..person("root@example.org") });
    let elsewhere = ProviderPolicy { email_domains: Some(vec!["example.com".into()]), ..policy() };
    let here = ProviderPolicy { email_domains: Some(vec!["example.org".into()]), ..policy() };
    let trusted = ProviderPolicy { administrators: true, ..policy() };
    let core = &world.core;
    refused(by(core, ("sso", &elsewhere), &laptop, &alice, None, NOW).await, "email_domain_refused");
    let bearer = by(core, ("sso", &here), &laptop, &alice, None, NOW).await.unwrap();
    refused(by(core, ("sso", &here), &phone, &root, None, NOW).await, "administrator_refused");
    let owner = by(core, ("sso", &trusted), &phone, &root, None, NOW).await.unwrap();
    core.administrator::<action::ChangeRole>(&owner, NOW).await.unwrap();
    // Who becomes one logs in again, so that this is asked.
    let role = |role| api::RoleChange { name: "alice".into(), role };
    core.admin_change_role(&world.admin(), role(Some(Admin)), NOW).await.unwrap();
    refused(core.administrator::<action::ListUsers>(&bearer, NOW).await, "token_revoked");
    refused(by(core, ("sso", &here), &laptop, &alice, None, NOW).await, "administrator_refused");
    by(core, ("sso", &trusted), &laptop, &alice, None, NOW).await.unwrap();
}

// Covers: R22 allow
// Covers: R21 refuse
#[tokio::test]
async fn one_asks_about_a_session_at_a_time_and_another_takes_over_in_time() {
    let world = World::new().await;
    world.set_email("alice", Some("alice@example.org")).await.unwrap();
    let second = several::another(&world).await;
    let laptop = Client::new("laptop");
    let alice = person("alice@example.org");
    let bearer = by(&world.core, ("sso", &policy()), &laptop, &alice, Some("refresh-1"), NOW).await.unwrap();
    assert!(world.core.renewable_session(&bearer, later(1_799)).await.unwrap().is_none(), "half is not over");
    let now = later(1_800);
    let (one, other) = tokio::join!(world.core.renewable_session(&bearer, now), second.renewable_session(&bearer, now));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(one.is_some() != other.is_some(), "two Controllers spend one token");
    let asked = one.or(other).unwrap();
    assert_eq!((asked.refresh.as_str(), asked.subject.as_str()), ("refresh-1", "subject-1"));
    assert!(second.renewable_session(&bearer, later(1_889)).await.unwrap().is_none());
    let policy = policy();
    let said = |refresh, email| GoesOn { ends_at: later(7_200), refresh, email, policy: &policy };
    // Whoever has it never comes back: the next one takes over, and what the first brings later is not taken.
    let taken_over = second.renewable_session(&bearer, later(1_890)).await.unwrap().unwrap();
    assert_eq!(taken_over.refresh.as_str(), "refresh-1");
    world.core.session_goes_on(&bearer, &asked, &said("late", None), later(1_891)).await.unwrap();
    second.session_goes_on(&bearer, &taken_over, &said("refresh-2", None), later(1_892)).await.unwrap();
    let renewed = world.core.renew(&bearer, later(1_892)).await.unwrap();
    let renewed = world.core.bearer(&renewed.claims, &laptop.thumbprint(), later(1_892)).unwrap();
    assert_eq!(renewed.claims().exp, later(7_200));

    // Nothing came of asking: the next one may at once.
    let at = later(4_600);
    let asked = world.core.renewable_session(&renewed, at).await.unwrap().unwrap();
    assert_eq!(asked.refresh.as_str(), "refresh-2");
    world.core.session_stays(&renewed, &asked).await.unwrap();
    let asked = second.renewable_session(&renewed, at).await.unwrap().unwrap();
    // It is hers no more when it is asked about.
    let email: Email = "mallory@example.org".parse().unwrap();
    refused(second.session_goes_on(&renewed, &asked, &said("x", Some(&email)), at).await, "user_unknown");
    let elsewhere = ProviderPolicy { email_domains: Some(vec!["example.com".into()]), ..policy.clone() };
    let unsaid = GoesOn { ends_at: later(7_200), refresh: "x", email: None, policy: &elsewhere };
    refused(second.session_goes_on(&renewed, &asked, &unsaid, at).await, "email_domain_refused");
    world.set_email("alice", Some("ada@example.org")).await.unwrap();
    second.hear(NOW).await.unwrap();
    let own: Email = "alice@example.org".parse().unwrap();
    refused(second.session_goes_on(&renewed, &asked, &said("x", Some(&own)), at).await, "token_revoked");
    refused(second.renewable_session(&renewed, at).await.map(drop), "token_revoked");
}

#[tokio::test]
async fn one_time_passwords_are_asked_for_unless_the_provider_does() {
    let world = World::new().await;
    let core = &world.core;
    // Also of somebody who has no password here.
    let user = api::NewUser {
        name: "carol".into(),
        password: String::new(),
        role: None,
        email: Some("carol@example.org".into()),
    };
    core.admin_new_user(&world.admin(), user, NOW).await.unwrap();
    let (laptop, carol) = (Client::new("laptop"), person("carol@example.org"));
    by(core, ("sso", &policy()), &laptop, &carol, None, NOW).await.unwrap();
    world.totp("carol").await;
    refused(by(core, ("sso", &policy()), &laptop, &carol, None, NOW).await, "otp_required");
    // Another account of the provider does not come so far as to guess.
    let other = Person { subject: "other".into(), ..carol.clone() };
    refused(by(core, ("sso", &policy()), &laptop, &other, None, NOW).await, "subject_refused");
    let theirs = ProviderPolicy { second_factor: true, ..policy() };
    by(core, ("sso", &theirs), &laptop, &carol, None, NOW).await.unwrap();
}
