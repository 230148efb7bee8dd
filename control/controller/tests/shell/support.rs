//! A Controller in a folder of its own, and clients, administrators and Gateways of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Method;
use hyper_util::rt::TokioIo;
use ringfort_controller::core::{FirstAdministrator, Out};
use ringfort_controller::{Options, Server};
use ringfort_enrol::tls::{self, ALPN_HTTP1, ALPN_HTTP2, Expected, OwnCertificate};
use ringfort_enrol::{Folder, Https, HttpsError, Invitation, Joiner, PrivateKey, wall_clock};
use ringfort_identity::{Credentials, Trust};
use ringfort_proto::api::{self, NONCE_HEADER, PROOF_HEADER};
use ringfort_proto::v1::gateway_control_client::GatewayControlClient;
use ringfort_proto::v1::{self, SubscribeRequest, subscribe_request};
use ringfort_token::proof::Request;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};

pub(crate) const ADMINISTRATOR: &str = "ada";
pub(crate) const PASSWORD: &str = "a long enough password";
/// More than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running Controller.
pub(crate) struct Controller {
    pub(crate) place: Arc<TempDir>,
    pub(crate) server: Arc<Server>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), Out>>,
}

impl Controller {
    /// What a first start is told.
    pub(crate) fn options() -> Options {
        let password = PASSWORD.to_owned().into();
        let administrator = Some(FirstAdministrator { name: ADMINISTRATOR.into(), password });
        Options { listen: Some("127.0.0.1:0".into()), administrator, ..Options::default() }
    }

    pub(crate) async fn start() -> Self {
        Self::start_with(Self::options()).await
    }

    pub(crate) async fn start_with(options: Options) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), options).await
    }

    /// Starts one in a folder of `place` that is not called as usual.
    pub(crate) async fn start_in_folder(place: Arc<TempDir>, name: &'static str) -> Self {
        Self::start_at(place, name, Options::default()).await
    }

    async fn start_in(place: Arc<TempDir>, options: Options) -> Self {
        Self::start_at(place, "state", options).await
    }

    async fn start_at(place: Arc<TempDir>, name: &'static str, options: Options) -> Self {
        let folder = place.path().join(name);
        let options = Options { database: crate::database::of(&folder).await, ..options };
        let (stop, stopped) = watch::channel(false);
        let server = Arc::new(Server::open(&folder, &options, stopped).await.unwrap());
        let serving = Arc::clone(&server);
        let task = tokio::spawn(async move { serving.serve().await });
        Self { place, server, stop, task }
    }

    /// Stops it, and starts another one in the same folder with nothing but what is kept there.
    pub(crate) async fn restart(self) -> Self {
        let place = Arc::clone(&self.place);
        self.end().await;
        Self::start_in(place, Options::default()).await
    }

    /// Starts one in `place`, with nothing but what is kept there.
    pub(crate) async fn start_again_in(place: Arc<TempDir>) -> Self {
        Self::start_in(place, Options::default()).await
    }

    pub(crate) async fn end(self) {
        self.stop.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(5), self.task).await.expect("it ends in time").unwrap().unwrap();
        assert!(Arc::into_inner(self.server).is_some(), "nobody holds it any more");
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(self) -> Result<(), Out> {
        tokio::time::timeout(PATIENCE, self.task).await.expect("it ends").unwrap()
    }

    pub(crate) fn folder(&self) -> std::path::PathBuf {
        self.place.path().join("state")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub(crate) async fn status(&self) -> Value {
        self.server.status().await
    }

    /// One of the totals of the status.
    pub(crate) async fn total(&self, name: &str) -> u64 {
        let status = self.status().await;
        status["totals"][name].as_u64().unwrap_or_else(|| panic!("no counter {name} in {status}"))
    }

    pub(crate) async fn fingerprint(&self) -> [u8; 32] {
        let status = self.status().await;
        let text = status["ca_fingerprint"].as_str().unwrap().to_owned();
        let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }

    /// What somebody trusts who has nothing but the fingerprint (A1).
    pub(crate) async fn trust(&self) -> Trust {
        let fingerprint = self.fingerprint().await;
        let (config, _) = tls::first_contact(Some(fingerprint), ALPN_HTTP1).unwrap();
        let https = Https::connect(&self.address().to_string(), config).await.unwrap();
        let (root, intermediates) = tls::split_root(&https.certificates()[1..], &fingerprint).unwrap();
        Trust::new(root, intermediates.to_vec()).unwrap()
    }

    /// An administrator who has just logged in.
    pub(crate) async fn administrator(&self) -> User {
        User::with_certificate(self, ADMINISTRATOR, PASSWORD).await
    }
}

/// Somebody who logs in.
pub(crate) struct User {
    pub(crate) key: PrivateKey,
    pub(crate) client_id: String,
    pub(crate) claims: String,
    pub(crate) trust: Trust,
    /// The connection, with a certificate once there is one.
    pub(crate) https: Https,
    pub(crate) own: Option<OwnCertificate>,
    address: String,
}

pub(crate) type Answered<T> = Result<T, HttpsError>;

impl User {
    /// With a key and nothing else.
    pub(crate) async fn new(controller: &Controller) -> Self {
        let trust = controller.trust().await;
        let key = PrivateKey::generate().unwrap();
        let address = controller.address().to_string();
        let https = connect(&address, None, &trust).await.unwrap();
        let client_id = uuid::Uuid::new_v4().to_string();
        Self { key, client_id, claims: String::new(), trust, https, own: None, address }
    }

    /// Logged in, and over mutual TLS.
    pub(crate) async fn with_certificate(controller: &Controller, user: &str, password: &str) -> Self {
        let mut this = Self::new(controller).await;
        this.login(user, password).await.unwrap();
        this.over_mutual_tls().await
    }

    /// Logged in, with a certificate and a connection that shows it.
    pub(crate) async fn over_mutual_tls(mut self) -> Self {
        self.own = Some(self.certificate().await.unwrap());
        self.reconnect().await;
        self
    }

    pub(crate) async fn reconnect(&mut self) {
        self.https = connect(&self.address, self.own.as_ref(), &self.trust).await.unwrap();
    }

    /// A fresh nonce.
    pub(crate) async fn nonce(&mut self) -> String {
        let answer = self
            .https
            .request::<(), api::LoginMethods>(Method::GET, &path("login"), &[], None, NONCE_HEADER)
            .await
            .unwrap();
        answer.header.unwrap()
    }

    /// A proof for `POST` to `at` with `nonce`.
    pub(crate) fn proof(&self, at: &str, nonce: &str, token: Option<&str>) -> String {
        let request = Request { method: "POST", path: &path(at), nonce, token };
        let id = uuid::Uuid::new_v4().to_string();
        self.key.proof_key().unwrap().prove(&request, &id, wall_clock()).unwrap()
    }

    pub(crate) fn login_request(&self, user: &str, password: &str) -> api::LoginRequest {
        api::LoginRequest {
            user: user.into(),
            password: password.into(),
            client_id: self.client_id.clone(),
            method: None,
            otp: None,
        }
    }

    pub(crate) async fn login(&mut self, user: &str, password: &str) -> Answered<api::LoginResponse> {
        let nonce = self.nonce().await;
        let proof = self.proof("login", &nonce, None);
        let body = self.login_request(user, password);
        let answer: api::LoginResponse = self.send("login", &[(PROOF_HEADER, &proof)], Some(&body)).await?;
        self.claims.clone_from(&answer.claims);
        Ok(answer)
    }

    /// A request with claims and proof.
    pub(crate) async fn proved<B: Serialize, T: DeserializeOwned>(
        &mut self,
        at: &str,
        body: Option<&B>,
    ) -> Answered<T> {
        let nonce = self.nonce().await;
        let proof = self.proof(at, &nonce, Some(&self.claims));
        let bearer = format!("Bearer {}", self.claims);
        self.send(at, &[(PROOF_HEADER, &proof), ("authorization", &bearer)], body).await
    }

    /// A request with claims over mutual TLS.
    pub(crate) async fn ask<B: Serialize, T: DeserializeOwned>(&mut self, at: &str, body: &B) -> Answered<T> {
        let bearer = format!("Bearer {}", self.claims);
        self.send(at, &[("authorization", &bearer)], Some(body)).await
    }

    /// The same, reading a list.
    pub(crate) async fn list<T: DeserializeOwned>(&mut self, at: &str) -> Answered<T> {
        let bearer = format!("Bearer {}", self.claims);
        let headers = [("authorization", bearer.as_str())];
        let answer = self.https.request::<(), T>(Method::GET, &path(at), &headers, None, NONCE_HEADER).await?;
        Ok(answer.body)
    }

    pub(crate) async fn send<B: Serialize, T: DeserializeOwned>(
        &mut self,
        at: &str,
        headers: &[(&'static str, &str)],
        body: Option<&B>,
    ) -> Answered<T> {
        Ok(self.https.request(Method::POST, &path(at), headers, body, NONCE_HEADER).await?.body)
    }

    /// Gets a certificate for its key.
    pub(crate) async fn certificate(&mut self) -> Answered<OwnCertificate> {
        let certificate_request = URL_SAFE_NO_PAD.encode(self.key.certificate_request().unwrap());
        let body = api::CertificateRequest { certificate_request };
        let answer: api::CertificateResponse = match self.own {
            Some(_) => self.ask("certificate", &body).await?,
            None => self.proved("certificate", Some(&body)).await?,
        };
        let der = |text: &String| CertificateDer::from(URL_SAFE_NO_PAD.decode(text).unwrap());
        let chain = answer.chain.iter().map(der).collect();
        Ok(OwnCertificate::new(&Credentials::new(chain, self.key.to_pkcs8()).unwrap()).unwrap())
    }

    /// A new site with this name.
    pub(crate) async fn new_site(&mut self, name: &str) {
        let site = api::NewSite { name: name.into(), pools: vec!["10.97.0.1/16".into()] };
        self.ask::<_, api::Created>("admin/sites", &site).await.unwrap();
    }

    /// A new user with [`PASSWORD`].
    pub(crate) async fn new_user(&mut self, name: &str) {
        let user = api::NewUser { name: name.into(), password: PASSWORD.into(), role: None, email: None };
        self.ask::<_, api::Created>("admin/users", &user).await.unwrap();
    }

    /// A resource at `site` that `user` may use.
    pub(crate) async fn new_resource(&mut self, name: &str, site: &str) {
        let to = vec!["10.98.0.10".into()];
        let resource = api::NewResource { name: name.into(), site: site.into(), to, services: vec!["tcp/80".into()] };
        self.ask::<_, api::Created>("admin/resources", &resource).await.unwrap();
    }

    pub(crate) async fn grant(&mut self, resource: &str, user: &str) -> api::Pushed {
        let principal = api::Principal::User(user.into());
        let change = api::EntitlementChange { resource: resource.into(), principal };
        self.ask("admin/entitlements", &change).await.unwrap()
    }

    /// Takes back something that no one has: the list grows.
    pub(crate) async fn revoke_something(&mut self) -> api::Pushed {
        let scope = api::RevocationScope::Token(uuid::Uuid::new_v4().to_string());
        let revocation = api::NewRevocation { scope, reason: "a test".into(), grace_seconds: None };
        self.ask("admin/revocations", &revocation).await.unwrap()
    }

    pub(crate) async fn invite(&mut self, name: &str, site: &str) -> api::InvitationResponse {
        let invitee = api::Invitee::Gateway { name: name.into(), site: site.into() };
        self.ask("admin/invitations", &api::NewInvitation { invitee, expires_in: None }).await.unwrap()
    }

    /// A Gateway that has joined at `site`.
    pub(crate) async fn new_gateway(&mut self, name: &str, site: &str, place: &Path) -> Gateway {
        let invited = self.invite(name, site).await;
        let invitation: Invitation = invited.url.parse().unwrap();
        let folder = Folder::create(&place.join(name)).unwrap();
        let joiner = Joiner { addresses: vec!["192.0.2.1:443".into()], client_id: String::new() };
        let identity = ringfort_enrol::join(&invitation, &invited.ticket, &joiner, &folder).await.unwrap();
        Gateway { id: identity.id, folder, address: invitation.address().to_owned() }
    }
}

/// The path of a request.
pub(crate) fn path(at: &str) -> String {
    format!("{}/{at}", api::BASE)
}

pub(crate) async fn connect(address: &str, own: Option<&OwnCertificate>, trust: &Trust) -> Answered<Https> {
    Https::connect(address, tls::client(own, trust, Expected::controller(), ALPN_HTTP1).unwrap()).await
}

/// A gRPC client over one connection of ours, and no second one when that is lost.
pub(crate) async fn grpc(
    address: &str,
    own: Option<&OwnCertificate>,
    trust: &Trust,
) -> Result<GatewayControlClient<Channel>, tonic::transport::Error> {
    grpc_from(Ipv4Addr::LOCALHOST, address, own, trust).await
}

/// The same from an address of this machine.
async fn grpc_from(
    from: Ipv4Addr,
    address: &str,
    own: Option<&OwnCertificate>,
    trust: &Trust,
) -> Result<GatewayControlClient<Channel>, tonic::transport::Error> {
    let config = tls::client(own, trust, Expected::controller(), ALPN_HTTP2).unwrap();
    let mut once = Some((address.to_owned(), config));
    let connector = tower::service_fn(move |_: Uri| {
        let once = once.take();
        async move {
            let (address, config) = once.ok_or(std::io::ErrorKind::NotConnected)?;
            let socket = TcpSocket::new_v4()?;
            socket.bind((from, 0).into())?;
            let tcp = socket.connect(address.parse().map_err(std::io::Error::other)?).await?;
            // As `tls::connect` does, which has no say in where it comes from.
            let name = ServerName::try_from("ringfort.invalid").map_err(std::io::Error::other)?;
            TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map(TokioIo::new).map_err(tls::explained)
        }
    });
    let channel = Endpoint::from_static("http://controller").connect_with_connector(connector).await?;
    Ok(GatewayControlClient::new(channel))
}

/// A Gateway that has joined.
pub(crate) struct Gateway {
    pub(crate) id: String,
    pub(crate) folder: Folder,
    address: String,
}

impl Gateway {
    pub(crate) async fn client(&self) -> GatewayControlClient<Channel> {
        self.client_from(Ipv4Addr::LOCALHOST).await
    }

    /// On a machine that has this address.
    async fn client_from(&self, from: Ipv4Addr) -> GatewayControlClient<Channel> {
        let own = OwnCertificate::new(&self.folder.credentials().unwrap()).unwrap();
        grpc_from(from, &self.address, Some(&own), &self.folder.trust().unwrap()).await.unwrap()
    }

    /// Begins a stream.
    pub(crate) async fn subscribe(&self, hello: v1::Hello) -> Result<Subscriber, Status> {
        self.subscribe_from(Ipv4Addr::LOCALHOST, hello).await
    }

    /// Begins a stream on a machine that has this address.
    pub(crate) async fn subscribe_from(&self, from: Ipv4Addr, hello: v1::Hello) -> Result<Subscriber, Status> {
        let (say, said) = mpsc::channel(16);
        say.send(SubscribeRequest { say: Some(subscribe_request::Say::Hello(hello)) }).await.unwrap();
        let pushes = self.client_from(from).await.subscribe(ReceiverStream::new(said)).await?.into_inner();
        Ok(Subscriber { say, pushes })
    }

    /// What it reports, with these sessions live.
    pub(crate) fn report(&self, sessions: &[v1::LiveSession]) -> v1::ReportRequest {
        let digest = tls::fingerprint(self.folder.credentials().unwrap().leaf()).to_vec();
        v1::ReportRequest {
            certificate_digest: digest.into(),
            sessions: sessions.to_vec(),
            ..v1::ReportRequest::default()
        }
    }
}

/// A Gateway's stream.
pub(crate) struct Subscriber {
    pub(crate) say: mpsc::Sender<SubscribeRequest>,
    pub(crate) pushes: Streaming<v1::Push>,
}

impl Subscriber {
    pub(crate) async fn next(&mut self) -> Result<v1::push::What, Status> {
        let next = tokio::time::timeout(PATIENCE, self.pushes.message()).await.expect("a push in time");
        Ok(next?.expect("the stream goes on").what.unwrap())
    }

    /// Everything up to and without `CaughtUp`.
    pub(crate) async fn backlog(&mut self) -> Vec<v1::push::What> {
        let mut all = Vec::new();
        loop {
            match self.next().await.unwrap() {
                v1::push::What::CaughtUp(_) => return all,
                what => all.push(what),
            }
        }
    }

    pub(crate) async fn applied(&self, revocations: v1::Serial) {
        let applied = v1::Applied { revocations: Some(revocations), ..v1::Applied::default() };
        self.say.send(SubscribeRequest { say: Some(subscribe_request::Say::Applied(applied)) }).await.unwrap();
    }
}

/// What a token says, unverified.
pub(crate) fn payload(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// The code of a refusal over HTTP, and that it is one.
pub(crate) fn code<T: std::fmt::Debug>(answer: Answered<T>) -> String {
    let error = answer.unwrap_err();
    error.code().unwrap_or_else(|| panic!("no refusal: {error}")).to_owned()
}

/// The code of a refusal over gRPC.
pub(crate) fn status_code(status: &Status) -> &str {
    status.metadata().get("ringfort-code").unwrap_or_else(|| panic!("no refusal: {status}")).to_str().unwrap()
}
