//! One-time passwords that the organisation's own system checks.

use ringfort_enrol::HttpsError;
use ringfort_proto::api::{self, OtpKind, PROOF_HEADER};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::otp_system::{OtpSystem, RIGHT, Says};
use crate::support::{Answered, Controller, PASSWORD, User, code};

/// A Controller with this in its file in place of what it had of the kind.
async fn restarted_with(controller: Controller, settings: &str) -> Controller {
    let file = controller.folder().join("controller.toml");
    let kept = std::fs::read_to_string(&file).unwrap();
    let kept = kept.split("\n[identity").next().unwrap();
    std::fs::write(&file, format!("{kept}\n{settings}")).unwrap();
    controller.restart().await
}

/// A Controller that asks `system`, its administrator, and bob, whose codes it checks.
async fn start(system: &OtpSystem) -> (Controller, User) {
    start_with(&system.settings()).await
}

async fn start_with(settings: &str) -> (Controller, User) {
    let controller = restarted_with(Controller::start().await, settings).await;
    let mut administrator = controller.administrator().await;
    administrator.new_user("bob").await;
    administrator.external_otp("bob").await.unwrap();
    (controller, administrator)
}

async fn log_in(controller: &Controller, name: &str, otp: Option<&str>) -> Answered<api::LoginResponse> {
    let mut user = User::new(controller).await;
    user.login_with(name, PASSWORD, otp).await
}

/// What the audit log says of a kind.
fn otp(kind: &str) -> Option<Value> {
    Some(json!({ "otp": kind }))
}

/// The code of the refusal, and its status.
async fn refusal(controller: &Controller, name: &str, otp: &str) -> (u16, String) {
    match log_in(controller, name, Some(otp)).await {
        Err(HttpsError::Refused { status, body, .. }) => (status, body.code),
        other => panic!("expected a refusal, found {other:?}"),
    }
}

impl User {
    async fn login_with(&mut self, name: &str, password: &str, otp: Option<&str>) -> Answered<api::LoginResponse> {
        let nonce = self.nonce().await;
        let proof = self.proof("login", &nonce, None);
        let mut body = self.login_request(name, password);
        body.otp = otp.map(str::to_owned);
        let answer: api::LoginResponse = self.send("login", &[(PROOF_HEADER, &proof)], Some(&body)).await?;
        self.claims.clone_from(&answer.claims);
        Ok(answer)
    }

    async fn external_otp(&mut self, name: &str) -> Answered<api::Pushed> {
        self.ask("admin/users/external-otp", &api::Named { name: name.into() }).await
    }

    async fn otp_of(&mut self, name: &str) -> Option<OtpKind> {
        let rows: Vec<api::UserRow> = self.list("admin/users").await.unwrap();
        rows.iter().find(|row| row.name == name).unwrap().otp
    }

    /// The newest event of this action.
    async fn event(&mut self, action: &str) -> api::AuditRow {
        let rows: Vec<api::AuditRow> = self.list("admin/audit").await.unwrap();
        rows.into_iter().find(|row| row.action == action).unwrap()
    }
}

// Covers: A3 allow
// Covers: A3 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_organisations_own_system_says_whether_a_code_is_right() {
    let system = OtpSystem::start().await;
    let (controller, mut administrator) = start(&system).await;
    let set = administrator.event("set-external-otp").await;
    assert_eq!((set.target.as_str(), set.before, set.after), ("bob", None, otp("external")));
    assert_eq!(administrator.otp_of("bob").await, Some(OtpKind::External));
    let email = api::UserEmail { name: "bob".into(), email: Some("bob@example.org".into()) };
    administrator.ask::<_, api::Pushed>("admin/users/email", &email).await.unwrap();

    assert_eq!(code(log_in(&controller, "bob", None).await), "otp_required");
    // Nobody hears of a code beside a wrong password, or of one that cannot be one.
    let mut wrong = User::new(&controller).await;
    assert_eq!(code(wrong.login_with("bob", "not that", Some(RIGHT)).await), "login_refused");
    for otp in ["", "1\n2", &"1".repeat(65)] {
        assert_eq!(refusal(&controller, "bob", otp).await, (400, "request_malformed".into()));
    }
    assert!(system.asked().is_empty());
    log_in(&controller, "bob", Some(RIGHT)).await.unwrap();
    assert_eq!(refusal(&controller, "bob", "wrong").await, (401, "otp_refused".into()));
    let asked = system.asked();
    let seen = ["user", "email", "code", "organisation", "path"].map(|name| asked[0][name].as_str().unwrap());
    let organisation = controller.status().await["organisation"].as_str().unwrap().to_owned();
    assert_eq!(seen, ["bob", "bob@example.org", RIGHT, &organisation, "/check"]);
    assert_ne!(asked[0]["request"], asked[1]["request"]);
    let login = administrator.event("login").await;
    assert_eq!(login.actor, "bob");
    assert!(login.detail.ends_with("second factor external"), "{}", login.detail);
    // Whoever has none is asked for none, and the system is not asked about them.
    administrator.new_user("carol").await;
    log_in(&controller, "carol", Some("wrong")).await.unwrap();
    assert_eq!(system.asked().len(), 2);
    let login = administrator.event("login").await;
    assert!(login.detail.ends_with("no second factor"), "{}", login.detail);
}

// Covers: A3 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_answer_lets_nobody_in_and_does_not_count() {
    let system = OtpSystem::start().await;
    let (controller, _administrator) = start(&system).await;
    let good = r#"{"allow":true,"request":"REQUEST"}"#;
    let long = format!(r#"{{"allow":true,"request":"REQUEST","more":"{}"}}"#, "x".repeat(4 << 10));
    let answers = [
        (500, good),
        (401, good),
        (201, good),
        // The way leads where it would be allowed.
        (302, good),
        (307, good),
        (200, ""),
        (200, "yes"),
        (200, r#"{"allow":true}"#),
        (200, r#"{"request":"REQUEST"}"#),
        (200, r#"{"allow":"true","request":"REQUEST"}"#),
        (200, r#"{"allow":1,"request":"REQUEST"}"#),
        (200, r#"{"allow":null,"request":"REQUEST"}"#),
        (200, r#"{"allow":false,"allow":true,"request":"REQUEST"}"#),
        (200, r#"[true,"REQUEST"]x"#),
        (200, r#"{"allow":true,"request":"REQUEST"}{"#),
        // Of another login.
        (200, r#"{"allow":true,"request":""}"#),
        (200, r#"{"allow":true,"request":"REQUESTx"}"#),
        (200, &long),
    ];
    for (n, (status, body)) in answers.iter().enumerate() {
        system.says(Says::This(*status, (*body).to_owned()));
        assert_eq!(refusal(&controller, "bob", RIGHT).await, (503, "otp_unavailable".into()), "{status} {body}");
        assert_eq!(system.asked().len(), n + 1, "a redirect is not followed");
    }
    assert_eq!(controller.total("refused_otp_unavailable").await, answers.len() as u64);
    system.says(Says::This(200, good.into()));
    log_in(&controller, "bob", Some(RIGHT)).await.unwrap();
}

// Covers: A3 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_wrong_codes_lock_whatever_was_not_answered_between() {
    let system = OtpSystem::start().await;
    let (controller, mut administrator) = start(&system).await;
    let wrong = ("otp_refused", Says::Truth);
    let unavailable = ("otp_unavailable", Says::This(500, String::new()));
    let expect = async |(expected, says): &(&str, Says), times: usize| {
        system.says(says.clone());
        for _ in 0..times {
            assert_eq!(refusal(&controller, "bob", "wrong").await.1, *expected);
        }
    };
    expect(&wrong, 4).await;
    expect(&unavailable, 6).await;
    // One that is right ends the count.
    system.says(Says::Truth);
    log_in(&controller, "bob", Some(RIGHT)).await.unwrap();
    expect(&wrong, 4).await;
    expect(&unavailable, 1).await;
    expect(&wrong, 1).await;
    let asked = system.asked().len();
    assert_eq!(refusal(&controller, "bob", RIGHT).await, (429, "otp_locked".into()));
    assert_eq!(system.asked().len(), asked, "nobody is asked meanwhile");
    // An administrator who sets it again lets him try.
    administrator.external_otp("bob").await.unwrap();
    log_in(&controller, "bob", Some(RIGHT)).await.unwrap();
}

// Covers: A3 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_that_is_not_the_one_or_not_there_lets_nobody_in() {
    let (system, other) = (OtpSystem::start().await, OtpSystem::start().await);
    let (mut controller, _administrator) = start(&system).await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let hangs = system.settings_under(&system, "timeout_seconds = 3");
    for (settings, says) in [
        // Under another CA, and under this machine's.
        (system.settings_under(&other, ""), Says::Truth),
        (system.settings().replace("ca_file", "# ca_file"), Says::Truth),
        // By another name than that of its certificate.
        (system.settings().replace("https://127.0.0.1", "https://localhost"), Says::Truth),
        (system.settings().replace(&system.address.to_string(), &gone), Says::Truth),
        (hangs, Says::Nothing),
        // A Controller that knows no system has users of one all the same.
        (String::new(), Says::Truth),
    ] {
        controller = restarted_with(controller, &settings).await;
        let asked = system.asked().len();
        let is_reached = matches!(says, Says::Nothing);
        system.says(says);
        for _ in 0..6 {
            let code = if is_reached { "otp_unanswered" } else { "otp_unavailable" };
            assert_eq!(refusal(&controller, "bob", RIGHT).await, (503, code.into()), "{settings}");
            if is_reached {
                break;
            }
        }
        assert_eq!(system.asked().len(), asked + usize::from(is_reached), "{settings}");
    }
    let mut administrator = controller.administrator().await;
    assert_eq!(code(administrator.external_otp("bob").await), "request_malformed", "nobody is shut out by a word");
    let controller = restarted_with(controller, &system.settings()).await;
    system.says(Says::Truth);
    log_in(&controller, "bob", Some(RIGHT)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_that_hangs_keeps_nobody_from_a_password() {
    let system = OtpSystem::start().await;
    let (controller, mut administrator) = start_with(&system.settings_under(&system, "timeout_seconds = 20")).await;
    // Those side by side count as well: each may have four without a lock.
    let names = ["u0", "u1", "u2", "u3"];
    for name in names {
        administrator.new_user(name).await;
        administrator.external_otp(name).await.unwrap();
    }
    system.says(Says::Nothing);
    let mut waiting = JoinSet::new();
    for name in names.into_iter().cycle().take(16) {
        let mut user = User::new(&controller).await;
        waiting.spawn(async move { user.login_with(name, PASSWORD, Some("x")).await });
    }
    while system.asked().len() < 16 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(refusal(&controller, "bob", RIGHT).await, (503, "login_busy".into()));
    administrator.new_user("carol").await;
    log_in(&controller, "carol", None).await.unwrap();
    system.ends_silence();
    while let Some(answer) = waiting.join_next().await {
        assert_eq!(code(answer.unwrap()), "otp_unavailable");
    }
    system.says(Says::Truth);
    log_in(&controller, "bob", Some(RIGHT)).await.unwrap();
}

// Covers: A3 allow
// Covers: A3 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_one_kind_of_one_time_passwords() {
    let system = OtpSystem::start().await;
    let (controller, mut administrator) = start(&system).await;
    let named = |name: &str| api::Named { name: name.into() };
    let totp: api::TotpSecret = administrator.ask("admin/users/totp", &named("bob")).await.unwrap();
    assert!(!totp.secret.is_empty());
    assert_eq!(administrator.otp_of("bob").await, Some(OtpKind::Totp));
    assert_eq!(refusal(&controller, "bob", RIGHT).await.1, "otp_refused", "it is an app's that is asked for now");
    assert!(system.asked().is_empty());
    let remove = "admin/users/external-otp/remove";
    assert_eq!(code(administrator.ask::<_, api::Pushed>(remove, &named("bob")).await), "not_found");

    administrator.external_otp("bob").await.unwrap();
    let set = administrator.event("set-external-otp").await;
    assert_eq!((set.before, set.after), (otp("totp"), otp("external")));
    let mut bob = User::new(&controller).await;
    bob.login_with("bob", PASSWORD, Some(RIGHT)).await.unwrap();
    let mut bob = bob.over_mutual_tls().await;
    let own = bob.ask::<_, api::TotpSecret>("totp", &()).await;
    assert_eq!(code(own), "already_exists", "which kind it is an administrator says");
    let answer = administrator.ask::<_, api::Pushed>("admin/users/totp/remove", &named("bob")).await;
    assert_eq!(code(answer), "not_found", "the secret is gone");
    administrator.ask::<_, api::Pushed>(remove, &named("bob")).await.unwrap();
    assert_eq!(administrator.otp_of("bob").await, None);
    let removed = administrator.event("remove-external-otp").await;
    assert_eq!((removed.before, removed.after), (otp("external"), None));
    log_in(&controller, "bob", None).await.unwrap();
    // Only administrators say so, of people, and who must exist.
    assert_eq!(code(bob.external_otp("bob").await), "not_administrator");
    assert_eq!(code(administrator.external_otp("nobody").await), "not_found");
    let service = api::NewService { name: "backup".into() };
    administrator.ask::<_, api::Created>("admin/services", &service).await.unwrap();
    assert_eq!(code(administrator.external_otp("backup").await), "request_malformed");
}
