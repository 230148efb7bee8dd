//! Logins by an LDAP directory.

use ringfort_client::Login;
use ringfort_directory::totp::{SECRET_BYTES, Secret, Step};
use ringfort_proto::api::{self, PROOF_HEADER};

use crate::directory::{PERSON_PASSWORD, Slapd};
use crate::otp_system::{OtpSystem, RIGHT, Says};
use crate::support::{Answered, PASSWORD, User, code};
use crate::world::{Someone, World};

/// A method at `url`, with further lines.
fn method(slapd: &Slapd, name: &str, url: &str, more: &str) -> String {
    format!(
        "[[identity.ldap]]\nname = \"{name}\"\nurl = \"{url}\"\nbind_dn = \"cn=root,dc=example\"\n\
         bind_password_file = \"{}\"\nuser_base = \"ou=people,dc=example\"\n{more}\n",
        slapd.place.path().join("bind-password").display()
    )
}

async fn start() -> (Slapd, World) {
    let slapd = Slapd::start();
    let settings = method(&slapd, "corp", &format!("ldap://127.0.0.1:{}", slapd.ports.0), "");
    let mut world = World::start(&settings).await;
    world.add_user("bob", None).await;
    (slapd, world)
}

impl User {
    async fn by_directory(&mut self, method: &str, name: &str, password: &str, otp: Option<&str>) -> Answered<()> {
        let nonce = self.nonce().await;
        let proof = self.proof("login", &nonce, None);
        let mut body = self.login_request(name, password);
        (body.method, body.otp) = (Some(method.to_owned()), otp.map(str::to_owned));
        let answer: api::LoginResponse = self.send("login", &[(PROOF_HEADER, &proof)], Some(&body)).await?;
        self.claims = answer.claims;
        Ok(())
    }
}

fn password(name: &str) -> String {
    format!("{name}{PERSON_PASSWORD}")
}

// Covers: A3 allow
// Covers: R21 allow
pub(crate) async fn a_directorys_password_is_a_login() {
    let (slapd, world) = start().await;
    let mut alice = Someone::with_password(&password("alice"), None);
    let login = Login { user: Some("alice".into()), ..Login::default() };
    let by_corp = Login { method: Some("corp".into()), ..login.clone() };
    assert_eq!(world.log_in("laptop", by_corp, &mut alice).await.unwrap().name, "alice");
    assert_eq!(alice.used, None, "it was named");
    // Unless it is named, no password goes there, and it is said where it went.
    assert!(world.log_in("laptop", login.clone(), &mut alice).await.unwrap_err().to_string().contains("login_refused"));
    assert_eq!(alice.used.as_deref(), Some("password"));
    let mut alice = Someone::with_password(PASSWORD, None);
    assert_eq!(world.log_in("laptop", login, &mut alice).await.unwrap().name, "alice");
    // The password that the Controller keeps is another method's.
    let mut user = User::new(&world.controller).await;
    assert_eq!(code(user.by_directory("corp", "alice", PASSWORD, None).await), "login_refused");
    user.by_directory("password", "alice", PASSWORD, None).await.unwrap();
    assert_eq!(code(user.by_directory("other", "alice", PASSWORD, None).await), "method_unknown");
    // What else the directory says of her: by her own entry, and by a search.
    let settings = |more: &str| {
        let url = format!("ldap://127.0.0.1:{}", slapd.ports.0);
        let text = method(&slapd, "corp", &url, more).replace("[[identity.ldap]]", "[[ldap]]");
        toml::from_str::<ringfort_directory::Settings>(&text).unwrap().ldap.remove(0)
    };
    for more in ["", "group_base = \"ou=groups,dc=example\""] {
        let directory = ringfort_directory::ldap::Directory::new(&settings(more)).unwrap();
        let now = ringfort_enrol::wall_clock();
        let person = directory.check("alice", &password("alice"), now).await.unwrap();
        assert_eq!(
            (person.subject.as_str(), person.groups.as_slice()),
            ("uid=alice,ou=people,dc=example", &["staff".to_owned()][..]),
            "{more}"
        );
        assert_eq!(person.email.unwrap().as_str(), "alice@example.org");
    }
}

// Covers: A3 refuse
// Covers: R21 refuse
pub(crate) async fn wrong_and_empty_passwords_are_refused() {
    let (_slapd, mut world) = start().await;
    let mut user = User::new(&world.controller).await;
    for (name, password) in [
        ("alice", password("bob").as_str()),
        ("alice", ""),
        ("nobody", password("alice").as_str()),
        ("", password("alice").as_str()),
        // No filter: neither everybody nor alice.
        ("*", password("alice").as_str()),
        ("alice)(uid=*", password("alice").as_str()),
    ] {
        assert_eq!(code(user.by_directory("corp", name, password, None).await), "login_refused", "{name}");
    }
    assert_eq!(world.controller.total("refused_login_refused").await, 6);
    // The directory knows them, and here nobody has their address, or it names none.
    assert_eq!(code(user.by_directory("corp", "bob", &password("bob"), None).await), "user_unknown");
    assert_eq!(code(user.by_directory("corp", "carol", &password("carol"), None).await), "email_unverified");
    let email = api::UserEmail { name: "bob".into(), email: Some("bob@example.org".into()) };
    let _: api::Pushed = world.administrator.ask("admin/users/email", &email).await.unwrap();
    let named = api::Named { name: "bob".into() };
    let _: api::Pushed = world.administrator.ask("admin/users/disable", &named).await.unwrap();
    assert_eq!(code(user.by_directory("corp", "bob", &password("bob"), None).await), "user_inactive");
    let _: api::Pushed = world.administrator.ask("admin/users/enable", &named).await.unwrap();
    user.by_directory("corp", "bob", &password("bob"), None).await.unwrap();
    // Ten failures of one name in five minutes are enough, whoever checks.
    for _ in 0..10 {
        assert_eq!(code(user.by_directory("corp", "bob", "wrong", None).await), "login_refused");
    }
    assert_eq!(code(user.by_directory("corp", "bob", &password("bob"), None).await), "login_limited");
}

// Covers: A3 refuse
pub(crate) async fn a_directory_that_is_down_is_no_failure_of_the_users() {
    let (mut slapd, world) = start().await;
    slapd.stop();
    let mut user = User::new(&world.controller).await;
    for _ in 0..12 {
        let answer = user.by_directory("corp", "alice", &password("alice"), None).await;
        assert_eq!(code(answer), "provider_unreachable", "it does not count as a failure");
    }
}

pub(crate) async fn one_time_passwords_stand_beside_the_directorys() {
    let (_slapd, mut world) = start().await;
    let named = api::Named { name: "alice".into() };
    let made: api::TotpSecret = world.administrator.ask("admin/users/totp", &named).await.unwrap();
    let secret = secret_of(&made.secret);
    let now = || Step::at(ringfort_enrol::wall_clock());
    let mut user = User::new(&world.controller).await;
    assert_eq!(code(user.by_directory("corp", "alice", &password("alice"), None).await), "otp_required");
    let first = secret.code(now());
    // Whoever is asked types it; the real client asks.
    let mut alice = Someone::with_password(&password("alice"), Some(&first));
    let login = Login { user: Some("alice".into()), method: Some("corp".into()), ..Login::default() };
    world.log_in("laptop", login, &mut alice).await.unwrap();
    assert_eq!(
        code(user.by_directory("corp", "alice", &password("alice"), Some(&first)).await),
        "otp_refused",
        "replayed"
    );
    for _ in 0..4 {
        let answer = user.by_directory("corp", "alice", &password("alice"), Some("000000")).await;
        assert_eq!(code(answer), "otp_refused");
    }
    let next = secret.code(Step(now().0 + 1));
    let answer = user.by_directory("corp", "alice", &password("alice"), Some(&next)).await;
    assert_eq!(code(answer), "otp_locked");
}

// Covers: A3 allow
// Covers: A3 refuse
pub(crate) async fn the_organisations_own_system_is_asked_beside_the_directory() {
    let (slapd, system) = (Slapd::start(), OtpSystem::start().await);
    let settings = method(&slapd, "corp", &format!("ldap://127.0.0.1:{}", slapd.ports.0), "");
    let mut world = World::start(&format!("{settings}\n{}", system.settings())).await;
    let named = api::Named { name: "alice".into() };
    let _: api::Pushed = world.administrator.ask("admin/users/external-otp", &named).await.unwrap();
    let mut user = User::new(&world.controller).await;
    let mut by = async |password: &str, otp| user.by_directory("corp", "alice", password, otp).await;
    let right = password("alice");
    assert_eq!(code(by(&right, None).await), "otp_required");
    assert_eq!(code(by("wrong", Some(RIGHT)).await), "login_refused");
    assert!(system.asked().is_empty(), "nobody hears of a code beside a wrong password");
    assert_eq!(code(by(&right, Some("wrong")).await), "otp_refused");
    system.says(Says::This(500, String::new()));
    assert_eq!(code(by(&right, Some(RIGHT)).await), "otp_unavailable");
    system.says(Says::Truth);
    by(&right, Some(RIGHT)).await.unwrap();
}

// Covers: A3 refuse
pub(crate) async fn the_connection_is_secured_by_the_given_ca() {
    let slapd = Slapd::start();
    let ca = format!("ca_file = \"{}\"", slapd.files.ca.display());
    let (ldap, ldaps) = slapd.ports;
    let settings = [
        method(&slapd, "starttls", &format!("ldap://localhost:{ldap}"), &ca),
        method(&slapd, "tls", &format!("ldaps://127.0.0.1:{ldaps}"), &ca),
        method(&slapd, "starttls-untrusted", &format!("ldap://localhost:{ldap}"), ""),
        method(&slapd, "tls-untrusted", &format!("ldaps://127.0.0.1:{ldaps}"), ""),
    ];
    let world = World::start(&settings.concat()).await;
    let mut user = User::new(&world.controller).await;
    for method in ["starttls", "tls"] {
        user.by_directory(method, "alice", &password("alice"), None).await.unwrap();
    }
    for method in ["starttls-untrusted", "tls-untrusted"] {
        let answer = user.by_directory(method, "alice", &password("alice"), None).await;
        assert_eq!(code(answer), "provider_unreachable", "{method}");
    }
}

/// RFC 4648 §6, backwards.
pub(crate) fn secret_of(base32: &str) -> Secret {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in base32.bytes() {
        bits = bits << 5 | u32::from(if letter.is_ascii_uppercase() { letter - b'A' } else { letter - b'2' + 26 });
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 255).unwrap());
        }
    }
    Secret::new(<[u8; SECRET_BYTES]>::try_from(bytes).unwrap())
}
