//! What those who are known may do, and how often.

use std::path::Path;

use hyper::Method;
use ringfort_enrol::tls::OwnCertificate;
use ringfort_enrol::{Folder, Https, HttpsError, Invitation, Joiner};
use ringfort_proto::api;

use crate::support::{Answered, Controller, PASSWORD, User, code, connect};

const HOST: &str = "nas.example";

impl User {
    /// A host that has joined, in a folder of its own.
    async fn new_host(&mut self, name: &str, folder: &Path) -> Folder {
        let invitee = api::Invitee::Host { name: name.into() };
        let request = api::NewInvitation { invitee, expires_in: None };
        let invited: api::InvitationResponse = self.ask("admin/invitations", &request).await.unwrap();
        let invitation: Invitation = invited.url.parse().unwrap();
        let folder = Folder::create(folder).unwrap();
        ringfort_enrol::join(&invitation, &invited.ticket, &Joiner::default(), &folder).await.unwrap();
        folder
    }
}

async fn host_at(controller: &Controller, folder: &Folder) -> Https {
    let own = OwnCertificate::new(&folder.credentials().unwrap()).unwrap();
    connect(&controller.address().to_string(), Some(&own), &folder.trust().unwrap()).await.unwrap()
}

async fn register(https: &mut Https) -> Answered<api::Registered> {
    let body = api::HostRegistration { interfaces: Vec::new(), port: 443, version: "1".into() };
    let path = api::registration_path(HOST);
    Ok(https.request(Method::POST, &path, &[], Some(&body), "retry-after").await?.body)
}

// Covers: W6 allow
// Covers: W6 refuse
#[tokio::test]
async fn only_an_invitation_binds_a_name_to_a_key() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    let folder = administrator.new_host(HOST, &controller.place.path().join("host")).await;
    let mut https = host_at(&controller, &folder).await;
    register(&mut https).await.unwrap();
    let named = api::Named { name: HOST.into() };
    let pushed: api::Pushed = administrator.ask("admin/hosts/remove", &named).await.unwrap();
    assert!(pushed.serial.ends_with("/1"), "its key is denied: {}", pushed.serial);
    assert_eq!(code(register(&mut https).await), "host_unknown");
    // Authorised by its name the host has no key yet, and that of the old one is not it.
    let _: api::Created = administrator.ask("admin/hosts", &named).await.unwrap();
    let mut https = host_at(&controller, &folder).await;
    assert_eq!(code(register(&mut https).await), "host_unknown");
    let rows: Vec<api::HostRow> = administrator.list("admin/hosts?limit=1").await.unwrap();
    assert_eq!((rows[0].name.as_str(), rows[0].joined, rows[0].last_seen), (HOST, false, 0));
    assert_eq!(code(administrator.list::<Vec<api::HostRow>>("admin/hosts?limit=0").await), "request_malformed");
    let folder = administrator.new_host(HOST, &controller.place.path().join("successor")).await;
    register(&mut host_at(&controller, &folder).await).await.unwrap();
}

/// Sends a request until one is refused; gives how many were answered, and the refusal with its `Retry-After`.
async fn until_refused<T: std::fmt::Debug>(mut send: impl AsyncFnMut() -> Answered<T>) -> (usize, String, u64) {
    for answered in 0..200 {
        match send().await {
            Ok(_) => {}
            Err(HttpsError::Refused { status, body, header }) => {
                assert_eq!(status, 429);
                return (answered, body.code, header.unwrap().parse().unwrap());
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("nobody was refused")
}

// Covers: X12 allow
// Covers: X12 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_without_end_is_told_when_to_come_again() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_user("bob").await;
    let mut bob = User::with_certificate(&controller, "bob", PASSWORD).await;
    let bearer = format!("Bearer {}", bob.claims);
    let headers = [("authorization", bearer.as_str())];
    let path = crate::support::path("entitlements");
    let mut ask = async || -> Answered<api::EntitlementsResponse> {
        Ok(bob.https.request::<(), _>(Method::POST, &path, &headers, None, "retry-after").await?.body)
    };
    let (answered, code, seconds) = until_refused(&mut ask).await;
    assert!((59..100).contains(&answered), "{answered} were answered");
    assert_eq!((code.as_str(), seconds), ("rate_limited", 1));
    for _ in 0..50 {
        drop(ask().await);
    }
    assert!(controller.total("refused_rate_limited").await >= 45);
    let events: Vec<api::AuditRow> = administrator.list("admin/audit").await.unwrap();
    assert_eq!(events.iter().filter(|event| event.outcome == "rate_limited").count(), 1, "it is written down once");
    // Nobody else is slowed down, nor are his other devices; and he is answered again when it was said.
    let mut phone = User::with_certificate(&controller, "bob", PASSWORD).await;
    let _: api::LoginResponse = phone.ask("renew", &()).await.unwrap();
    let _: api::EntitlementsResponse = administrator.ask("entitlements", &()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
    ask().await.unwrap();

    let folder = administrator.new_host(HOST, &controller.place.path().join("host")).await;
    let mut https = host_at(&controller, &folder).await;
    let (answered, code, _) = until_refused(async || register(&mut https).await).await;
    assert_eq!(code, "rate_limited");
    assert!((59..100).contains(&answered), "{answered} were answered");
}
