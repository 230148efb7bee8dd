//! Accounts, what identity providers say of people, one-time passwords, service accounts.

use ringfort_controller::core::{ByProvider, EventsAsked};
use ringfort_directory::totp::{SECRET_BYTES, Secret, Step};
use ringfort_directory::{Person, ProviderPolicy};

use super::*;

pub(crate) fn named(name: &str) -> api::Named {
    api::Named { name: name.into() }
}

/// What a provider says of somebody.
pub(crate) fn person(email: &str) -> Person {
    Person {
        subject: "subject-1".into(),
        email: Some(email.parse().unwrap()),
        groups: Vec::new(),
        authenticated_at: NOW,
        ends_at: Some(later(3_600)),
    }
}

impl World {
    pub(crate) async fn set_email(&self, user: &str, email: Option<&str>) -> Result<api::Pushed, Refused> {
        let request = api::UserEmail { name: user.into(), email: email.map(str::to_owned) };
        self.core.admin_set_email(&self.admin(), request, NOW).await
    }

    pub(crate) async fn by_provider(
        &self,
        client: &Client,
        person: &Person,
        now: UnixSeconds,
    ) -> Result<Bearer, Refused> {
        // It asks for a second factor itself.
        let policy = &ProviderPolicy { second_factor: true, ..ProviderPolicy::default() };
        let by = ByProvider { method: "sso", person, policy, otp: None, refresh: None };
        let response = self.core.login_by_provider(by, &client.id, client.thumbprint(), FROM, now).await?;
        self.core.bearer(&response.claims, &client.thumbprint(), now)
    }

    /// Gives a user one-time passwords.
    pub(crate) async fn totp(&self, user: &str) -> Secret {
        let made = self.core.admin_new_totp(&self.admin(), named(user), NOW).await.unwrap();
        assert!(made.url.starts_with(&format!("otpauth://totp/Ringfort:{user}?")), "{}", made.url);
        secret_of(&made.secret)
    }

    pub(crate) async fn login_with(&self, user: &str, otp: Option<&str>, now: UnixSeconds) -> Result<Bearer, Refused> {
        let client = Client::new("laptop");
        let mut request = client.credentials(user, &format!("{user} password"));
        // Another device each time, since each has another key.
        request.client_id = client.thumbprint().to_string();
        request.otp = otp.map(str::to_owned);
        let response = self.core.login(&request, client.thumbprint(), FROM, now).await?;
        self.core.bearer(&response.claims, &client.thumbprint(), now)
    }

    /// The newest event.
    pub(crate) async fn event(&self) -> api::AuditRow {
        self.core.events(&self.admin(), EventsAsked::default()).await.unwrap().remove(0)
    }
}

/// RFC 4648 §6, backwards.
fn secret_of(base32: &str) -> Secret {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in base32.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            _ => letter - b'2' + 26,
        };
        bits = bits << 5 | u32::from(value);
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 255).unwrap());
        }
    }
    Secret::new(<[u8; SECRET_BYTES]>::try_from(bytes).unwrap())
}

// Covers: R21 allow
// Covers: R22 allow
#[tokio::test]
async fn a_verified_address_is_a_users_and_the_login_ends_with_the_providers_session() {
    let world = World::new().await;
    world.set_email("alice", Some("Alice@Example.org")).await.unwrap();
    let laptop = Client::new("laptop");
    let bearer = world.by_provider(&laptop, &person("alice@example.org"), NOW).await.unwrap();
    let claims = bearer.claims();
    assert_eq!((claims.name.as_str(), claims.exp, claims.auth_time), ("alice", later(3_600), NOW));
    let event = world.event().await;
    assert_eq!((event.action.as_str(), event.actor.as_str()), ("login", "alice"));
    assert!(event.detail.contains("by sso as subject-1"), "{}", event.detail);
    // A provider whose session is longer than logins are here, and one that has none.
    for ends_at in [Some(later(100 * 3_600)), None] {
        let bearer = world.by_provider(&laptop, &Person { ends_at, ..person("alice@example.org") }, NOW).await.unwrap();
        assert_eq!(bearer.claims().exp, later(12 * 3_600));
    }
    // What was proved at the provider an hour ago is an hour old here.
    let old = Person { authenticated_at: UnixSeconds(NOW.0 - 3_600), ..person("alice@example.org") };
    assert_eq!(world.by_provider(&laptop, &old, NOW).await.unwrap().claims().auth_time, UnixSeconds(NOW.0 - 3_600));
}

// Covers: R22 refuse
#[tokio::test]
async fn nothing_outlives_the_providers_session() {
    let world = World::new().await;
    world.set_email("alice", Some("alice@example.org")).await.unwrap();
    world.grant("wiki", "alice", NOW).await;
    let laptop = Client::new("laptop");
    let bearer = world.by_provider(&laptop, &person("alice@example.org"), NOW).await.unwrap();
    let (tokens, connect) = world.entitlements(&bearer, later(3_500)).await;
    assert_eq!((tokens[0].exp, connect.exp), (later(3_600), later(3_600)));
    let renewed = world.core.renew(&bearer, later(3_500)).await.unwrap();
    let renewed = world.core.bearer(&renewed.claims, &laptop.thumbprint(), later(3_500)).unwrap();
    assert_eq!(renewed.claims().exp, later(3_600), "renewing does not prolong it");
    refused(world.core.renew(&renewed, later(3_600)).await, "token_revoked");
    let over = world.by_provider(&laptop, &person("alice@example.org"), later(3_600)).await;
    refused(over, "id_token_refused");
}

// Covers: R21 refuse
#[tokio::test]
async fn an_address_that_is_nobodys_or_an_inactive_users_is_refused() {
    let world = World::new().await;
    world.set_email("bob", Some("bob@example.org")).await.unwrap();
    world.core.admin_disable_user(&world.admin(), named("bob"), NOW).await.unwrap();
    let laptop = Client::new("laptop");
    refused(world.by_provider(&laptop, &person("bob@example.org"), NOW).await, "user_inactive");
    refused(world.by_provider(&laptop, &person("alice@example.org"), NOW).await, "user_unknown");
    let unverified = Person { email: None, ..person("bob@example.org") };
    refused(world.by_provider(&laptop, &unverified, NOW).await, "email_unverified");
    world.core.admin_enable_user(&world.admin(), named("bob"), NOW).await.unwrap();
    world.by_provider(&laptop, &person("bob@example.org"), NOW).await.unwrap();
    // Taken away, it is nobody's.
    world.set_email("bob", None).await.unwrap();
    refused(world.by_provider(&laptop, &person("bob@example.org"), NOW).await, "user_unknown");
}

#[tokio::test]
async fn an_address_is_one_users() {
    let world = World::new().await;
    world.set_email("alice", Some("a@example.org")).await.unwrap();
    refused(world.set_email("bob", Some("A@example.org")).await, "already_exists");
    world.set_email("alice", Some("a@example.org")).await.unwrap();
    refused(world.set_email("alice", Some("none")).await, "request_malformed");
    refused(world.set_email("nobody", Some("n@example.org")).await, "not_found");
    let user = |password: &str, email: Option<&str>| api::NewUser {
        name: "carol".into(),
        password: password.into(),
        role: None,
        email: email.map(str::to_owned),
    };
    let admin = world.admin();
    let add = |user| world.core.admin_new_user(&admin, user, NOW);
    refused(add(user("", None)).await, "request_malformed");
    refused(add(user("", Some("a@example.org"))).await, "already_exists");
    add(user("", Some("c@example.org"))).await.unwrap();
    // Nobody has her password, an empty one included.
    for password in ["", "carol password"] {
        refused(Client::new("x").login(&world.core, "carol", password, NOW).await, "login_refused");
    }
    world.by_provider(&Client::new("laptop"), &person("c@example.org"), NOW).await.unwrap();
    let rows = world.core.users(&world.admin()).await.unwrap();
    let carol = rows.iter().find(|row| row.name == "carol").unwrap();
    assert_eq!((carol.email.as_deref(), carol.service, carol.otp), (Some("c@example.org"), false, None));
}

// Covers: R21 refuse
#[tokio::test]
async fn who_is_disabled_loses_everything_at_once() {
    let world = World::new().await;
    world.grant("wiki", "alice", NOW).await;
    let bearer = world.login("alice", &Client::new("laptop"), NOW).await;
    let serial = world.core.serial();
    let pushed = world.core.admin_disable_user(&world.admin(), named("alice"), NOW).await.unwrap();
    assert_eq!(pushed.serial, format!("{}/{}", serial.epoch, serial.n + 2), "the key of her machine, and her tokens");
    refused(world.core.entitlements(&bearer, NOW).await, "token_revoked");
    refused(world.core.renew(&bearer, NOW).await, "token_revoked");
    refused(Client::new("phone").login(&world.core, "alice", "alice password", NOW).await, "login_refused");
    world.core.admin_enable_user(&world.admin(), named("alice"), NOW).await.unwrap();
    refused(world.core.entitlements(&bearer, NOW).await, "token_revoked");
    world.login("alice", &Client::new("tablet"), NOW).await;
    refused(world.core.admin_disable_user(&world.admin(), named("root"), NOW).await, "request_malformed");
    refused(world.core.admin_disable_user(&world.admin(), named("nobody"), NOW).await, "not_found");
}

#[tokio::test]
async fn a_one_time_password_is_asked_for_beside_the_password() {
    let world = World::new().await;
    let secret = world.totp("alice").await;
    let code = |now| secret.code(Step::at(now));
    refused(world.login_with("alice", None, NOW).await, "otp_required");
    world.login_with("alice", Some(&code(NOW)), NOW).await.unwrap();
    // Who has none is not asked, and those of others do not matter to them.
    world.login_with("bob", None, NOW).await.unwrap();
    world.login_with("bob", Some("000000"), NOW).await.unwrap();
    assert!(
        world
            .core
            .users(&world.admin())
            .await
            .unwrap()
            .iter()
            .any(|row| row.name == "alice" && row.otp == Some(api::OtpKind::Totp))
    );
    // It is asked for beside what a provider says as well, unless the provider asks for a second factor itself.
    world.set_email("alice", Some("alice@example.org")).await.unwrap();
    let (laptop, person) = (Client::new("laptop"), person("alice@example.org"));
    world.by_provider(&laptop, &person, NOW).await.unwrap();
    let at = later(60);
    let login = |code: Option<String>| {
        let (core, laptop, person) = (&world.core, &laptop, &person);
        async move {
            let (policy, otp) = (&ProviderPolicy::default(), code.as_deref());
            let by = ByProvider { method: "corp", person, policy, otp, refresh: None };
            core.login_by_provider(by, &laptop.id, laptop.thumbprint(), FROM, at).await
        }
    };
    refused(login(None).await, "otp_required");
    refused(login(Some("000000".into())).await, "otp_refused");
    login(Some(code(at))).await.unwrap();
    // Taken away, the password suffices.
    world.core.admin_remove_totp(&world.admin(), named("alice"), NOW).await.unwrap();
    world.login_with("alice", None, NOW).await.unwrap();
    refused(world.core.admin_remove_totp(&world.admin(), named("alice"), NOW).await, "not_found");
}

#[tokio::test]
async fn each_code_is_good_once_and_a_later_one_spends_the_earlier() {
    let world = World::new().await;
    let secret = world.totp("alice").await;
    let code = secret.code(Step::at(NOW));
    let (one, other) =
        tokio::join!(world.login_with("alice", Some(&code), NOW), world.login_with("alice", Some(&code), NOW));
    let refusal = [one, other].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert_eq!(refusal.iter().map(|refused| refused.code).collect::<Vec<_>>(), ["otp_refused"], "a race is won once");
    refused(world.login_with("alice", Some(&code), later(29)).await, "otp_refused");
    let next = secret.code(Step(Step::at(NOW).0 + 1));
    world.login_with("alice", Some(&next), later(20)).await.unwrap();
    refused(world.login_with("alice", Some(&code), later(20)).await, "otp_refused");
    // It is good over a restart neither, and the secret still is.
    let world = world.restarted(later(20)).await;
    refused(world.login_with("alice", Some(&next), later(21)).await, "otp_refused");
    let later_code = secret.code(Step::at(later(90)));
    world.login_with("alice", Some(&later_code), later(90)).await.unwrap();
    // A wrong password is refused as such, whatever the code.
    let client = Client::new("x");
    let mut request = client.credentials("alice", "bob password");
    request.otp = Some(secret.code(Step::at(later(200))));
    refused(world.core.login(&request, client.thumbprint(), FROM, later(200)).await, "login_refused");
}

#[tokio::test]
async fn five_wrong_codes_lock() {
    let world = World::new().await;
    let secret = world.totp("alice").await;
    for _ in 0..4 {
        refused(world.login_with("alice", Some("000000"), NOW).await, "otp_refused");
    }
    // One that is right ends the count.
    world.login_with("alice", Some(&secret.code(Step::at(NOW))), NOW).await.unwrap();
    let at = later(60);
    for _ in 0..5 {
        refused(world.login_with("alice", Some("000000"), at).await, "otp_refused");
    }
    let right = secret.code(Step::at(at));
    refused(world.login_with("alice", Some(&right), at).await, "otp_locked");
    let almost = later(60 + 899);
    refused(world.login_with("alice", Some(&secret.code(Step::at(almost))), almost).await, "otp_locked");
    let over = later(60 + 900);
    world.login_with("alice", Some(&secret.code(Step::at(over))), over).await.unwrap();
}

#[tokio::test]
async fn further_wrong_codes_lock_for_longer() {
    let world = World::new().await;
    let secret = world.totp("alice").await;
    let mut at = NOW;
    for seconds in [900, 1_800, 3_600, 3_600] {
        for _ in 0..5 {
            refused(world.login_with("alice", Some("000000"), at).await, "otp_refused");
        }
        let almost = UnixSeconds(at.0 + seconds - 1);
        refused(world.login_with("alice", Some(&secret.code(Step::at(almost))), almost).await, "otp_locked");
        at = UnixSeconds(at.0 + seconds);
    }
    world.login_with("alice", Some(&secret.code(Step::at(at))), at).await.unwrap();
    // One that is right ends the count.
    let at = UnixSeconds(at.0 + 60);
    for _ in 0..5 {
        refused(world.login_with("alice", Some("000000"), at).await, "otp_refused");
    }
    let over = UnixSeconds(at.0 + 900);
    world.login_with("alice", Some(&secret.code(Step::at(over))), over).await.unwrap();
}

#[tokio::test]
async fn one_time_passwords_are_given_to_those_who_have_just_logged_in() {
    let world = World::new().await;
    let bearer = world.login("alice", &Client::new("laptop"), NOW).await;
    refused(world.core.new_totp(&bearer, later(301)).await, "authentication_not_fresh");
    let made = world.core.new_totp(&bearer, later(300)).await.unwrap();
    let code = secret_of(&made.secret).code(Step::at(later(300)));
    refused(world.login_with("alice", None, later(300)).await, "otp_required");
    world.login_with("alice", Some(&code), later(300)).await.unwrap();
    refused(world.core.admin_new_totp(&world.admin(), named("alice"), later(301)).await, "authentication_not_fresh");
    refused(world.core.admin_remove_totp(&world.admin(), named("alice"), later(301)).await, "authentication_not_fresh");
    // The database does not give the secret away; that of a server is in files of its own.
    if settings(world.folder.path()).await.database.is_some() {
        return;
    }
    let database = std::fs::read(state(world.folder.path()).join("database.sqlite")).unwrap();
    let wal = std::fs::read(state(world.folder.path()).join("database.sqlite-wal")).unwrap_or_default();
    let secret = *secret_of(&made.secret).as_bytes();
    for bytes in [database, wal] {
        assert!(!bytes.windows(SECRET_BYTES).any(|window| window == secret));
        assert!(!bytes.windows(made.secret.len()).any(|window| window == made.secret.as_bytes()));
    }
}

/// A service that has joined.
pub(crate) async fn service(world: &World, name: &str) -> (Client, v1::Joined) {
    let service = api::NewService { name: name.into() };
    world.core.admin_new_service(&world.admin(), service, NOW).await.unwrap();
    let (cookie, ticket) = world.invite(api::Invitee::Service { name: name.into() }).await;
    let client = Client::new("backup-host");
    let joined = world.core.join(client.join(&cookie, &ticket), NOW).await.unwrap();
    (client, joined)
}

// Covers: X12 allow
#[tokio::test]
async fn a_service_logs_in_by_its_certificate() {
    let world = World::new().await;
    let (client, joined) = service(&world, "backup").await;
    assert_eq!((joined.kind.as_str(), joined.user.as_str(), joined.id.as_str()), ("service", "backup", "backup-host"));
    world.grant("wiki", "backup", NOW).await;
    let peer = world.peer(&joined.chain, Role::Device, NOW);
    assert_eq!(peer.not_after(), later(30 * 86_400));
    let response = world.core.login_service(&peer, NOW).await.unwrap();
    let bearer = world.core.bearer_with_certificate(&response.claims, &peer, NOW).unwrap();
    assert_eq!((bearer.claims().exp, bearer.claims().auth_time), (later(12 * 3_600), NOW));
    let (tokens, _) = world.entitlements(&bearer, NOW).await;
    assert_eq!(names(&tokens[0]), ["wiki"]);
    // Its certificate outlives the login, so that it can log in again after a day away.
    let renewed = world.core.certificate(&bearer, &client.request(), later(3_600)).await.unwrap();
    let chain: Vec<_> = renewed.chain.iter().map(|one| URL_SAFE_NO_PAD.decode(one).unwrap()).collect();
    let at = later(29 * 86_400);
    let peer = world.peer(&chain, Role::Device, at);
    let response = world.core.login_service(&peer, at).await.unwrap();
    world.core.bearer_with_certificate(&response.claims, &peer, at).unwrap();
}

// Covers: X12 refuse
#[tokio::test]
async fn a_service_has_no_other_login_and_nobody_else_has_this_one() {
    let world = World::new().await;
    let (client, joined) = service(&world, "backup").await;
    let peer = world.peer(&joined.chain, Role::Device, NOW);
    for password in ["", "backup password"] {
        refused(client.login(&world.core, "backup", password, NOW).await, "login_refused");
    }
    refused(world.set_email("backup", Some("backup@example.org")).await, "request_malformed");
    refused(world.core.admin_new_totp(&world.admin(), named("backup"), NOW).await, "request_malformed");
    let admin = world.admin();
    let invite = |invitee| {
        let request = api::NewInvitation { invitee, expires_in: None };
        world.core.admin_invite(&admin, request, NOW)
    };
    refused(invite(api::Invitee::Device { user: "backup".into() }).await, "not_found");
    refused(invite(api::Invitee::Service { name: "alice".into() }).await, "not_found");
    // A person's certificate is no login.
    let laptop = Client::new("laptop");
    let bearer = world.login("alice", &laptop, NOW).await;
    let response = world.core.certificate(&bearer, &laptop.request(), NOW).await.unwrap();
    let chain: Vec<_> = response.chain.iter().map(|one| URL_SAFE_NO_PAD.decode(one).unwrap()).collect();
    refused(world.core.login_service(&world.peer(&chain, Role::Device, NOW), NOW).await, "service_unknown");
    let (_, gateway) = world.gateway("gw", "east").await;
    refused(world.core.login_service(&world.peer(&gateway.chain, Role::Gateway, NOW), NOW).await, "wrong_role");
    // Disabled it is nobody, and its key stays dead: enabled again its machine joins anew, with another key.
    let bearer = world.core.login_service(&peer, NOW).await.unwrap();
    world.core.admin_disable_user(&world.admin(), named("backup"), NOW).await.unwrap();
    refused(world.core.login_service(&peer, NOW).await, "service_unknown");
    refused(world.core.bearer(&bearer.claims, &client.thumbprint(), NOW), "token_revoked");
    world.core.admin_enable_user(&world.admin(), named("backup"), NOW).await.unwrap();
    refused(world.core.login_service(&peer, NOW).await, "service_unknown");
    refused(world.core.standing(&peer, NOW), "certificate_revoked");
    let invited = || world.invite(api::Invitee::Service { name: "backup".into() });
    let (cookie, ticket) = invited().await;
    refused(world.core.join(client.join(&cookie, &ticket), NOW).await, "certificate_revoked");
    let (cookie, ticket) = invited().await;
    let joined = world.core.join(Client::new("backup-host").join(&cookie, &ticket), NOW).await.unwrap();
    let peer = world.peer(&joined.chain, Role::Device, NOW);
    world.core.login_service(&peer, NOW).await.unwrap();
    // Revoked and removed it is nobody either.
    world.revoke(api::RevocationScope::Device("backup-host".into()), None, NOW).await.unwrap();
    refused(world.core.login_service(&peer, NOW).await, "certificate_revoked");
    refused(world.core.standing(&peer, NOW), "certificate_revoked");
    world.core.admin_remove_user(&world.admin(), named("backup"), NOW).await.unwrap();
    refused(world.core.login_service(&peer, NOW).await, "service_unknown");
}
