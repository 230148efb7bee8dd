//! Logins at an OpenID provider.

use std::time::Duration;

use ringfort_client::{Browser as Where, Login};
use ringfort_proto::api::{self, PROOF_HEADER};

use crate::browser::{Browser, parameter};
use crate::otp_system::{OtpSystem, RIGHT, Says};
use crate::provider::{Provider, SECRET};
use crate::support::{Answered, User, code, payload};
use crate::world::{Someone, World};

/// Where the browser is sent.
fn redirect(method: &str) -> String {
    format!("http://127.0.0.1:1/callback/{method}")
}

/// The provider's three clients: one with a secret, one whose tokens are short, one whose session can be prolonged.
fn settings(issuer: &str, place: &std::path::Path) -> String {
    use std::os::unix::fs::PermissionsExt;
    let secret = place.join("client-secret");
    std::fs::write(&secret, SECRET).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    format!(
        r#"
        [[identity.oidc]]
        name = "sso"
        issuer = "{issuer}"
        client_id = "ringfort"
        client_secret_file = "{}"
        scopes = ["groups"]
        [[identity.oidc]]
        name = "short"
        issuer = "{issuer}"
        client_id = "short"
        [[identity.oidc]]
        name = "lasting"
        issuer = "{issuer}"
        client_id = "lasting"
        scopes = ["offline_access"]
        "#,
        secret.display()
    )
}

struct Setting {
    provider: Provider,
    world: World,
    _place: tempfile::TempDir,
}

async fn start() -> Setting {
    let place = tempfile::tempdir().unwrap();
    let provider = Provider::start();
    let world = World::start(&settings(&provider.issuer, place.path())).await;
    Setting { provider, world, _place: place }
}

/// Requests by hand, for what the real client would not send.
impl User {
    async fn begin(&mut self, method: &str, fresh: bool) -> Answered<api::OidcBegun> {
        let (method, client_id, redirect_uri) = (method.to_owned(), self.client_id.clone(), redirect(method));
        self.post("login/oidc/begin", &api::OidcBegin { method, client_id, redirect_uri, fresh }).await
    }

    async fn finish(&mut self, begun: &api::OidcBegun, returned: &str) -> Answered<api::LoginResponse> {
        self.finish_with(begun, returned, None).await
    }

    async fn finish_with(
        &mut self,
        begun: &api::OidcBegun,
        returned: &str,
        otp: Option<&str>,
    ) -> Answered<api::LoginResponse> {
        let value = |name| {
            form_urlencoded::parse(format!("x={}", parameter(returned, name)).as_bytes()).next().unwrap().1.into_owned()
        };
        let finish = api::OidcFinish {
            handle: begun.handle.clone(),
            code: value("code"),
            state: value("state"),
            issuer: Some(value("iss")),
            otp: otp.map(str::to_owned),
        };
        let answer: api::LoginResponse = self.post("login/oidc/finish", &finish).await?;
        self.claims.clone_from(&answer.claims);
        Ok(answer)
    }

    async fn post<B: serde::Serialize, T: serde::de::DeserializeOwned>(&mut self, at: &str, body: &B) -> Answered<T> {
        let nonce = self.nonce().await;
        let proof = self.proof(at, &nonce, None);
        self.send(at, &[(PROOF_HEADER, &proof)], Some(body)).await
    }

    /// All of it, with a browser of `account`'s.
    async fn by(&mut self, method: &str, account: &str) -> Answered<api::LoginResponse> {
        let begun = self.begin(method, false).await?;
        let returned = Browser::of(account).follow(&begun.url).await;
        self.finish(&begun, &returned).await
    }
}

fn seconds(token: &str, claim: &str) -> u64 {
    payload(token)[claim].as_u64().unwrap()
}

fn now() -> u64 {
    ringfort_enrol::wall_clock().0
}

// Covers: A3 allow
// Covers: R20 allow
// Covers: R21 allow
// Covers: R22 allow
pub(crate) async fn from_a_browser_to_a_certificate() {
    let Setting { world, provider: _provider, _place } = start().await;
    let mut alice = Someone::with_browser(Where::Here, "alice");
    let done = world.log_in("laptop", Login::default(), &mut alice).await.unwrap();
    assert_eq!(done.name, "alice");
    // The access token lives for five minutes, and logins here for twelve hours.
    assert!((now() + 200..=now() + 300).contains(&done.ends_at), "{} ends at {}", now(), done.ends_at);
    let (folder, identity) = ringfort_enrol::Folder::open_joined(&world.state("laptop")).unwrap();
    assert_eq!(identity.user, "alice");
    let leaf = folder.credentials().unwrap();
    let (_, not_after) = ringfort_enrol::tls::validity_of(leaf.leaf()).unwrap();
    assert!(not_after.0 <= done.ends_at, "the certificate ends with the login");
    // She keeps her key and logs in again, with a password this time.
    let login = Login { method: Some("password".into()), user: Some("alice".into()), ..Login::default() };
    let mut typed = Someone::with_password(crate::support::PASSWORD, None);
    assert!(world.log_in("laptop", login, &mut typed).await.unwrap().ends_at > now() + 3_600);
}

// Covers: R19 allow
// Covers: R19 refuse
pub(crate) async fn the_controller_names_its_providers() {
    let Setting { provider, world, _place } = start().await;
    let mut user = User::new(&world.controller).await;
    let methods: api::LoginMethods = user.list("login").await.unwrap();
    assert_eq!(methods.methods, ["sso", "short", "lasting", "password"]);
    assert!(methods.providers.iter().all(|one| one.uri == provider.issuer && one.kind == api::ProviderKind::Oidc));
    let begun = user.begin("sso", false).await.unwrap();
    assert!(begun.url.starts_with(&format!("{}/auth?", provider.issuer)), "{}", begun.url);
    assert_eq!(code(user.begin("other", false).await), "method_unknown");
    assert_eq!(code(user.begin("password", false).await), "method_unknown");
    // Elsewhere, and where another provider's browsers come.
    for redirect_uri in [
        "http://192.0.2.1:80/callback/sso",
        "http://127.0.0.1:1/callback/short",
        "http://127.0.0.1:1/callback",
        "http://127.0.0.1:1/callback/sso/",
    ] {
        let (method, client_id, redirect_uri) = ("sso".into(), user.client_id.clone(), redirect_uri.into());
        let begin = api::OidcBegin { method, client_id, redirect_uri, fresh: false };
        assert_eq!(code(user.post::<_, api::OidcBegun>("login/oidc/begin", &begin).await), "request_malformed");
    }
    // The provider is gone, and that is said.
    drop(provider);
    let world = World { controller: world.controller.restart().await, ..world };
    let mut user = User::new(&world.controller).await;
    assert_eq!(code(user.begin("sso", false).await), "provider_unreachable");
}

// Covers: R20 refuse
pub(crate) async fn another_logins_code_nonce_or_state_is_refused() {
    let Setting { mut world, provider: _provider, _place } = start().await;
    let mut user = User::new(&world.controller).await;
    // Somebody changes the nonce on its way: the id_token is of another login.
    let begun = user.begin("sso", false).await.unwrap();
    let url = begun.url.replace(parameter(&begun.url, "nonce"), &"A".repeat(43));
    let returned = Browser::of("alice").follow(&url).await;
    assert_eq!(code(user.finish(&begun, &returned).await), "id_token_refused");
    assert!(world.refusal().await.detail.contains("nonce"));
    // Another state than that of the login.
    let begun = user.begin("sso", false).await.unwrap();
    let returned = Browser::of("alice").follow(&begun.url).await;
    let other = returned.replace(parameter(&returned, "state"), &"A".repeat(43));
    assert_eq!(code(user.finish(&begun, &other).await), "provider_refused");
    // A code that was brought to another login: whoever stole it lacks the verifier (RFC 7636).
    let (stolen, mine) = (user.begin("sso", false).await.unwrap(), user.begin("sso", false).await.unwrap());
    let returned = Browser::of("alice").follow(&stolen.url).await;
    let injected = returned.replace(parameter(&returned, "state"), &mine.state);
    assert_eq!(code(user.finish(&mine, &injected).await), "provider_refused");
    assert!(world.refusal().await.detail.contains("invalid_grant"));
    // A code of another provider's.
    let begun = user.begin("sso", false).await.unwrap();
    let returned = Browser::of("alice").follow(&begun.url).await;
    let other = returned.replace(parameter(&returned, "iss"), "https%3A%2F%2Fother.example");
    assert_eq!(code(user.finish(&begun, &other).await), "provider_refused");
}

// Covers: R20 refuse
pub(crate) async fn a_login_is_finished_once_and_by_its_own_key() {
    let Setting { mut world, provider: _provider, _place } = start().await;
    let (mut user, mut thief) = (User::new(&world.controller).await, User::new(&world.controller).await);
    let begun = user.begin("sso", false).await.unwrap();
    let returned = Browser::of("alice").follow(&begun.url).await;
    user.finish(&begun, &returned).await.unwrap();
    assert_eq!(code(user.finish(&begun, &returned).await), "login_unknown", "replayed");
    // The same code with a login of its own: the provider takes it once, too.
    let again = user.begin("sso", false).await.unwrap();
    let replayed = returned.replace(parameter(&returned, "state"), &again.state);
    assert_eq!(code(user.finish(&again, &replayed).await), "provider_refused");
    let begun = user.begin("sso", false).await.unwrap();
    let returned = Browser::of("alice").follow(&begun.url).await;
    assert_eq!(code(thief.finish(&begun, &returned).await), "login_unknown");
    assert_eq!(world.refusal().await.outcome, "login_unknown");
    assert!(thief.claims.is_empty());
}

// Covers: R21 allow
// Covers: R21 refuse
pub(crate) async fn only_active_users_with_a_verified_address_come_in() {
    let Setting { mut world, provider: _provider, _place } = start().await;
    for name in ["unverified", "bob"] {
        world.add_user(name, Some(&format!("{name}@example.org"))).await;
    }
    let named = api::Named { name: "bob".into() };
    let _: api::Pushed = world.administrator.ask("admin/users/disable", &named).await.unwrap();
    for (account, expected) in
        [("unverified", "email_unverified"), ("bob", "user_inactive"), ("mallory", "user_unknown")]
    {
        let mut user = User::new(&world.controller).await;
        assert_eq!(code(user.by("sso", account).await), expected);
        assert_eq!(world.refusal().await.outcome, expected);
        assert_eq!(world.controller.total(&format!("refused_{expected}")).await, 1);
    }
    let _: api::Pushed = world.administrator.ask("admin/users/enable", &named).await.unwrap();
    User::new(&world.controller).await.by("sso", "bob").await.unwrap();
}

// Covers: R22 allow
// Covers: R22 refuse
pub(crate) async fn a_login_ends_with_the_providers_session() {
    let Setting { world, provider: _provider, _place } = start().await;
    let mut user = User::new(&world.controller).await;
    let answer = user.by("short", "alice").await.unwrap();
    let ends = seconds(&answer.claims, "exp");
    assert!(ends <= now() + 3, "the access token lives for three seconds");
    let _: api::EntitlementsResponse = user.proved::<(), _>("entitlements", None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(ends.saturating_sub(now()) + 1)).await;
    let over = code(user.proved::<(), api::EntitlementsResponse>("entitlements", None).await);
    assert!(["token_revoked", "token_expired"].contains(&over.as_str()), "{over}");
}

/// Waits for a renewal that does what is wanted: the Controller asks the provider when half of the time is over.
async fn renewed(user: &mut User) -> Answered<api::LoginResponse> {
    tokio::time::sleep(Duration::from_secs(4)).await;
    user.ask("renew", &()).await
}

// Covers: R22 allow
// Covers: R22 refuse
pub(crate) async fn a_session_that_goes_on_prolongs_the_login() {
    let Setting { provider, world, _place } = start().await;
    let mut user = User::new(&world.controller).await;
    let first = user.by("lasting", "alice").await.unwrap();
    let mut user = user.over_mutual_tls().await;
    let second = renewed(&mut user).await.unwrap();
    assert!(seconds(&second.claims, "exp") > seconds(&first.claims, "exp"), "the provider's session goes on");
    assert!(seconds(&second.claims, "exp") <= now() + 6);
    assert_eq!(seconds(&second.claims, "auth_time"), seconds(&first.claims, "auth_time"), "nobody authenticated");
    user.claims = second.claims;
    let mut user = user.over_mutual_tls().await;
    // A provider that has ended the session prolongs nothing, and what there is ends when it was to.
    let _provider = provider.restart();
    assert_eq!(code(renewed(&mut user).await), "provider_refused");
    let ends = seconds(&user.claims, "exp");
    tokio::time::sleep(Duration::from_secs(ends.saturating_sub(now()) + 1)).await;
    let over: Answered<api::EntitlementsResponse> = user.ask("entitlements", &()).await;
    assert!(over.is_err(), "a login outlives the provider's session");
}

// Covers: R2 allow
// Covers: R2 refuse
pub(crate) async fn a_fresh_login_is_asked_for_anew() {
    let Setting { world, provider: _provider, _place } = start().await;
    let mut user = User::new(&world.controller).await;
    let mut browser = Browser::of("alice");
    let mut log_in = async |user: &mut User, fresh: bool| {
        let begun = user.begin("sso", fresh).await.unwrap();
        let returned = browser.follow(&begun.url).await;
        let answer = user.finish(&begun, &returned).await.unwrap();
        (browser.logins, seconds(&answer.claims, "auth_time"))
    };
    let (logins, first) = log_in(&mut user, false).await;
    assert_eq!(logins, 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (logins, again) = log_in(&mut user, false).await;
    assert_eq!((logins, again), (1, first), "the browser has a session there, and nobody is asked");
    let (logins, fresh) = log_in(&mut user, true).await;
    assert!(logins == 2 && fresh >= first + 2, "asked anew at {fresh}");
    // Whoever takes the demand out of the URL gets an id_token that does not meet it.
    let begun = user.begin("sso", true).await.unwrap();
    let url = begun.url.replace("&max_age=0", "").replace("&prompt=login", "");
    let returned = browser.follow(&url).await;
    assert_eq!(code(user.finish(&begun, &returned).await), "id_token_refused");
}

pub(crate) async fn a_url_is_brought_back_by_hand() {
    let Setting { world, provider: _provider, _place } = start().await;
    let mut alice = Someone::with_browser(Where::Elsewhere, "alice");
    let login = Login { method: Some("sso".into()), ..Login::default() };
    assert_eq!(world.log_in("server", login, &mut alice).await.unwrap().name, "alice");
}

pub(crate) async fn a_provider_under_a_ca_of_its_own() {
    let place = tempfile::tempdir().unwrap();
    let files = crate::directory::Files::new(place.path());
    let provider = Provider::start_with(&[&files.key, &files.certificate]);
    let settings = |name: &str, more: &str| {
        format!(
            "[[identity.oidc]]\nname = \"{name}\"\nissuer = \"{}\"\nclient_id = \"short\"\n{more}\n",
            provider.issuer
        )
    };
    let trusted = format!("ca_file = \"{}\"", files.ca.display());
    let world = World::start(&(settings("trusted", &trusted) + &settings("untrusted", ""))).await;
    let mut user = User::new(&world.controller).await;
    user.begin("trusted", false).await.unwrap();
    assert_eq!(code(user.begin("untrusted", false).await), "provider_unreachable");
}

// Covers: R20 allow
// Covers: R20 refuse
pub(crate) async fn one_time_passwords_stand_beside_the_providers() {
    let Setting { mut world, provider: _provider, _place } = start().await;
    let named = api::Named { name: "alice".into() };
    let made: api::TotpSecret = world.administrator.ask("admin/users/totp", &named).await.unwrap();
    let secret = crate::ldap::secret_of(&made.secret);
    let mut user = User::new(&world.controller).await;
    let begun = user.begin("sso", false).await.unwrap();
    let returned = Browser::of("alice").follow(&begun.url).await;
    assert_eq!(code(user.finish(&begun, &returned).await), "otp_required");
    assert_eq!(code(user.finish_with(&begun, &returned, Some("000000")).await), "otp_refused");
    // The provider has taken its code; what it said is kept, for this key.
    let now = ringfort_directory::totp::Step::at(ringfort_enrol::wall_clock());
    user.finish_with(&begun, &returned, Some(&secret.code(now))).await.unwrap();
    assert_eq!(code(user.finish_with(&begun, &returned, Some(&secret.code(now))).await), "login_unknown");
    // The real client asks for it, once.
    let next = secret.code(ringfort_directory::totp::Step(now.0 + 1));
    let mut alice = Someone::with_browser(Where::Elsewhere, "alice").and_otp(&next);
    let login = || Login { method: Some("sso".into()), ..Login::default() };
    assert_eq!(world.log_in("server", login(), &mut alice).await.unwrap().name, "alice");
    assert!(world.log_in("server", login(), &mut alice).await.is_err(), "replayed");
}

// Covers: A3 allow
// Covers: A3 refuse
pub(crate) async fn the_organisations_own_system_is_asked_beside_the_provider() {
    let (place, provider, system) = (tempfile::tempdir().unwrap(), Provider::start(), OtpSystem::start().await);
    let settings = settings(&provider.issuer, place.path());
    let mut world = World::start(&format!("{settings}\n{}", system.settings())).await;
    let named = api::Named { name: "alice".into() };
    let _: api::Pushed = world.administrator.ask("admin/users/external-otp", &named).await.unwrap();
    let mut user = User::new(&world.controller).await;
    let begun = user.begin("sso", false).await.unwrap();
    let returned = Browser::of("alice").follow(&begun.url).await;
    assert_eq!(code(user.finish(&begun, &returned).await), "otp_required");
    let long = "1".repeat(65);
    assert_eq!(code(user.finish_with(&begun, &returned, Some(&long)).await), "request_malformed");
    system.says(Says::This(500, String::new()));
    assert_eq!(code(user.finish_with(&begun, &returned, Some(RIGHT)).await), "otp_unavailable");
    system.says(Says::Truth);
    assert_eq!(code(user.finish_with(&begun, &returned, Some("wrong")).await), "otp_refused");
    // The provider has taken its code; what it said is kept meanwhile.
    user.finish_with(&begun, &returned, Some(RIGHT)).await.unwrap();
    assert_eq!(system.asked()[0]["email"], "alice@example.org");
    // The real client asks for it.
    let mut alice = Someone::with_browser(Where::Elsewhere, "alice").and_otp(RIGHT);
    let login = Login { method: Some("sso".into()), ..Login::default() };
    assert_eq!(world.log_in("server", login, &mut alice).await.unwrap().name, "alice");
}
