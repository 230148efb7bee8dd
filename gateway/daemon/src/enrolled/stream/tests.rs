//! A Gateway's link to a Controller that runs.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::mpsc as std_mpsc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfort_controller::core::{Administrator, Core, FirstAdministrator, Settings, action};
use ringfort_controller::{Options, Server};
use ringfort_enrol::tls::OwnCertificate;
use ringfort_enrol::{Kind, Secrecy, file};
use ringfort_identity::KeyThumbprint;
use ringfort_proto::api;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;

const PASSWORD: &str = "a long enough password";
/// How long anything may take that must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than a connect token lives.
const LONG: Duration = Duration::from_secs(600);

/// A Controller, and the folder of a Gateway that joined five days ago: its certificate is due.
struct World {
    place: TempDir,
    address: String,
    folder: Folder,
    _stop: watch::Sender<bool>,
    _serving: JoinHandle<Result<(), ringfort_controller::core::Out>>,
}

/// One process of the Gateway.
struct Process {
    link: Link,
    told: std_mpsc::Receiver<FromStream>,
}

impl World {
    async fn new() -> Self {
        Self::at("controller.example:443", "127.0.0.1:0").await
    }

    /// Its Controller listens at `listen`, and tells that it is at `known`.
    async fn at(known: &str, listen: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join("controller");
        let folder = joined(&state, &place.path().join("gateway"), known).await;
        let (stop, stopped) = watch::channel(false);
        let options = Options { listen: Some(listen.into()), ..Options::default() };
        let server = Server::open(&state, &options, stopped).await.unwrap();
        let address = server.address().to_string();
        let serving = tokio::spawn(async move { server.serve().await });
        Self { place, address, folder, _stop: stop, _serving: serving }
    }

    /// The Gateway's folder as it is now, on another machine.
    fn copy(&self) -> Folder {
        let copy = Folder::create(&self.place.path().join("copy")).unwrap();
        for entry in std::fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), copy.file(&entry.file_name().to_string_lossy())).unwrap();
        }
        copy
    }

    async fn client(&self, process: &Process) -> GatewayControlClient<Channel> {
        GatewayControlClient::new(connect(&process.link, &self.address).await.unwrap())
    }
}

impl Process {
    fn start(folder: &Folder) -> Self {
        folder.finish_next().unwrap();
        let own = OwnCertificate::new(&folder.credentials().unwrap()).unwrap();
        let (tell, told) = std_mpsc::channel();
        let link = Link {
            folder: folder.clone(),
            identity: Mutex::new(folder.identity().unwrap()),
            trust: LiveTrust::new(folder.trust().unwrap()),
            rotation: Rotation::new(folder.clone(), own),
            addresses: Arc::default(),
            standing: Arc::default(),
            tell: Box::new(move |from_stream| tell.send(from_stream).is_ok()),
        };
        Self { link, told }
    }

    /// The certificates that the control thread was told of.
    fn shown(&self) -> Vec<Credentials> {
        let certificate = |told| if let FromStream::Certificate(credentials) = told { Some(credentials) } else { None };
        self.told.try_iter().filter_map(certificate).collect()
    }
}

fn key(folder: &Folder) -> KeyThumbprint {
    folder.key().unwrap().thumbprint().unwrap()
}

fn code(error: &anyhow::Error) -> &str {
    &error.downcast_ref::<Refused>().unwrap_or_else(|| panic!("no refusal: {error:#}")).code
}

/// Makes an organisation in `state`, whose Controller is at `known`, and a Gateway of it that joins with a folder at `path`, five days
/// ago.
async fn joined(state: &Path, path: &Path, known: &str) -> Folder {
    let then = UnixSeconds(wall_clock().0 - 5 * 86_400);
    let first = FirstAdministrator { name: "ada".into(), password: PASSWORD.to_owned().into() };
    let settings = Settings::new(known.into(), vec!["controller.example".into()]);
    let core = Core::open(state, &settings, Some(&first), then).await.unwrap();
    let login = api::LoginRequest {
        user: "ada".into(),
        password: PASSWORD.into(),
        client_id: "laptop".into(),
        method: None,
        otp: None,
    };
    let holder = PrivateKey::generate().unwrap().thumbprint().unwrap();
    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let claims = core.login(&login, holder, from, then).await.unwrap().claims;
    let bearer = core.bearer(&claims, &holder, then).unwrap();
    let site: Administrator<action::NewSite> = core.administrator(&bearer, then).await.unwrap();
    let new = api::NewSite { name: "berlin".into(), pools: vec!["10.97.0.1/16".into()] };
    core.admin_new_site(&site, new, then).await.unwrap();
    let invite: Administrator<action::Invite> = core.administrator(&bearer, then).await.unwrap();
    let invitee = api::Invitee::Gateway { name: "gw1".into(), site: "berlin".into() };
    let request = api::NewInvitation { invitee, expires_in: None };
    let invited = core.admin_invite(&invite, request, then).await.unwrap();
    let invitation: ringfort_enrol::Invitation = invited.url.parse().unwrap();
    let folder = Folder::create(path).unwrap();
    let request = v1::JoinRequest {
        cookie: invitation.cookie().to_vec().into(),
        ticket: invited.ticket,
        certificate_request: folder.key_or_new().unwrap().certificate_request().unwrap().into(),
        ..v1::JoinRequest::default()
    };
    let joined = core.join(request, then).await.unwrap();
    folder.write_ca(std::iter::once(&joined.root).chain(&joined.intermediates)).unwrap();
    folder.write_certificates(file::SIGNERS, &joined.signers).unwrap();
    folder.write_chain(&joined.chain).unwrap();
    let identity = Identity {
        organisation: joined.organisation,
        kind: Kind::Gateway,
        id: joined.id,
        site: joined.site,
        user: String::new(),
        controllers: joined.controllers,
    };
    folder.write_identity(&identity).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_changes_its_key_and_a_copy_of_the_old_one_is_worth_nothing() {
    let world = World::new().await;
    let (now, begun) = (wall_clock(), Instant::now());
    let copy = Process::start(&world.copy());
    let mut of_copy = world.client(&copy).await;
    let gateway = Process::start(&world.folder);
    let mut client = world.client(&gateway).await;
    gateway.link.report(&"controller".into(), &mut client).await.unwrap();
    // An answer that is lost: the next request is by another key.
    let lost = PrivateKey::generate().unwrap().certificate_request().unwrap();
    client.enroll(EnrollRequest { certificate_request: lost.into() }).await.unwrap();
    let old = key(&world.folder);
    assert_eq!(gateway.link.renew_if_due(&mut client, now, begun).await.unwrap(), Renewal::Nothing);
    let next = world.folder.next().unwrap().unwrap();
    assert_eq!(key(&world.folder), old, "the new one waits until clients know its certificate");
    // What was fetched is fetched once, and outlasts the process.
    assert_eq!(gateway.link.renew_if_due(&mut client, now, begun).await.unwrap(), Renewal::Nothing);
    let gateway = Process::start(&world.folder);
    assert_eq!(gateway.link.use_next_if_due(now, begun).unwrap(), Renewal::Nothing);
    assert_eq!(gateway.link.use_next_if_due(now, begun + LONG - Duration::from_secs(1)).unwrap(), Renewal::Nothing);
    assert!(gateway.shown().is_empty());
    // Until the Controller has heard from the new one.
    copy.link.report(&"controller".into(), &mut of_copy).await.unwrap();

    assert_eq!(gateway.link.use_next_if_due(now, begun + LONG).unwrap(), Renewal::InUse);
    let [shown] = &gateway.shown()[..] else { panic!("the control thread was not told once") };
    assert_eq!(
        (shown.leaf(), shown.private_key().secret_pkcs8_der()),
        (next.leaf(), next.private_key().secret_pkcs8_der())
    );
    assert_ne!(key(&world.folder), old);
    let mut client = world.client(&gateway).await;
    gateway.link.report(&"controller".into(), &mut client).await.unwrap();
    assert_eq!(gateway.link.renew_if_due(&mut client, now, begun + LONG).await.unwrap(), Renewal::Nothing);
    // The second machine, over the connection that it has and over a new one.
    assert_eq!(code(&copy.link.report(&"controller".into(), &mut of_copy).await.unwrap_err()), "key_mismatch");
    let mut of_copy = world.client(&copy).await;
    assert_eq!(code(&copy.link.report(&"controller".into(), &mut of_copy).await.unwrap_err()), "key_mismatch");
    let (_applied, mut applied) = mpsc::channel(1);
    let ended = run(&copy.link, &world.address, &mut applied, &mut false).await;
    assert_eq!(code(&ended.unwrap_err()), "key_mismatch");
    let request = PrivateKey::generate().unwrap().certificate_request().unwrap();
    let refused = of_copy.enroll(EnrollRequest { certificate_request: request.into() }).await.map_err(refused);
    assert_eq!(refused.unwrap_err().code, "key_mismatch");
}

/// A Gateway that stood in a corner: its certificate is over, so that no stream opens by it, and the next one is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_over_is_replaced_without_a_stream() {
    let world = World::new().await;
    let gateway = Process::start(&world.folder);
    let mut client = world.client(&gateway).await;
    gateway.link.renew_if_due(&mut client, wall_clock(), Instant::now()).await.unwrap();
    let gateway = Process::start(&world.folder);
    let over = UnixSeconds(wall_clock().0 + 2 * 86_400);
    assert_eq!(gateway.link.use_next_if_due(over, Instant::now()).unwrap(), Renewal::InUse);
    let mut client = world.client(&gateway).await;
    gateway.link.report(&"controller".into(), &mut client).await.unwrap();
}

/// As the version before left it: a chain beside, for the key that is in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_version_fetched_is_taken_into_use() {
    let world = World::new().await;
    let (now, begun) = (wall_clock(), Instant::now());
    let gateway = Process::start(&world.folder);
    let mut client = world.client(&gateway).await;
    let certificate_request = world.folder.key().unwrap().certificate_request().unwrap().into();
    let chain = client.enroll(EnrollRequest { certificate_request }).await.unwrap().into_inner().chain;
    let name = file::NEXT_CHAIN;
    let text = ringfort_enrol::to_pem(&chain);
    world.folder.write(name, text.as_bytes(), Secrecy::Public).unwrap();
    let gateway = Process::start(&world.folder);
    assert_eq!(gateway.link.renew_if_due(&mut client, now, begun).await.unwrap(), Renewal::Nothing);
    assert!(world.folder.has(name) && !world.folder.has(file::NEXT), "nothing else was fetched");
    assert_eq!(gateway.link.renew_if_due(&mut client, now, begun + LONG).await.unwrap(), Renewal::InUse);
    let mut client = world.client(&gateway).await;
    gateway.link.report(&"controller".into(), &mut client).await.unwrap();
}

/// What a token of the Controller's says.
fn said(token: &str) -> serde_json::Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// The first disagreement may be of a push that crossed the report, and is over when the next report agrees. Two in a row are not: the
/// stream begins anew, with a `Hello` that says where the Gateway stands, and catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_disagreements_in_a_row_begin_the_stream_anew_and_one_alone_does_not() {
    // On an address where nobody else is given the port before the Controller takes it.
    let free = std::net::TcpListener::bind("127.0.0.77:0").unwrap().local_addr().unwrap().to_string();
    let world = World::at(&free, &free).await;
    let Process { link, told } = Process::start(&world.folder);
    let standing = Arc::clone(&link.standing);
    let (_applied, applied) = mpsc::channel(1);
    let keeping = tokio::spawn(keep(link, applied, Arc::default()));
    let next = || tokio::task::block_in_place(|| told.recv_timeout(PATIENCE)).unwrap();
    // What it was sent, which it leaves aside for now.
    let mut sent = Standing::default();
    loop {
        match next() {
            FromStream::Configuration(text) => sent.configuration_seq = said(&text)["seq"].as_u64().unwrap(),
            FromStream::Revocations(text) => sent.revocations.epoch = said(&text)["epoch"].as_u64().unwrap(),
            FromStream::Connected(is) => break assert!(is),
            _ => {}
        }
    }
    assert!(sent.configuration_seq > 0 && sent.revocations.epoch > 0, "{sent:?}");
    let reports = || {
        let mut reports = 0;
        loop {
            match next() {
                // One comes with each answer to a report.
                FromStream::Time { .. } => reports += 1,
                FromStream::Connected(is) => break (reports, is),
                _ => continue,
            }
            // The second one agrees.
            *standing.lock().unwrap() = if reports == 1 { sent.clone() } else { Standing::default() };
        }
    };
    assert_eq!(reports(), (4, false), "the third and the fourth disagree");
    // Another stream, where the answers are those to the introduction and to what was missed.
    let again = reports();
    assert!(again.1 && again.0 > 0, "{again:?}");
    keeping.abort();
}
