//! An organisation's own system of one-time passwords: a real HTTPS server, with a CA of its own, which says what it is told to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// By which it knows the Controller.
const SECRET: &str = "a-secret-of-the-tests-own";
/// The code that is right.
pub(crate) const RIGHT: &str = "right 42";

/// What it answers.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// Whether the code is the right one, to whoever has the secret.
    Truth,
    /// This status, with this body, in which `REQUEST` is the question's; a redirect leads back to it.
    This(u16, String),
    /// Nothing until [`OtpSystem::ends_silence`], and no answer then.
    Nothing,
}

/// The system.
pub(crate) struct OtpSystem {
    pub(crate) address: SocketAddr,
    place: TempDir,
    shared: Arc<Shared>,
}

struct Shared {
    says: Mutex<Says>,
    /// Bodies of the questions, with the path that was asked.
    asked: Mutex<Vec<Value>>,
    silence: Notify,
}

impl OtpSystem {
    pub(crate) async fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(place.path().join("ca.pem"), certificate.pem()).unwrap();
        let secret = place.path().join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { says: Mutex::new(Says::Truth), asked: Mutex::default(), silence: Notify::new() });
        let served = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&served));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let answer = service_fn(|request| answer(Arc::clone(&shared), request.map(Body::new)));
                    drop(
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await,
                    );
                });
            }
        });
        Self { address, place, shared }
    }

    /// The table of `controller.toml`, with this CA and further lines.
    pub(crate) fn settings_under(&self, ca: &Self, more: &str) -> String {
        let (ca, secret) = (ca.place.path().join("ca.pem"), self.place.path().join("secret"));
        format!(
            "[identity.external_otp]\nurl = \"https://{}/check\"\nsecret_file = \"{}\"\nca_file = \"{}\"\n{more}\n",
            self.address,
            secret.display(),
            ca.display()
        )
    }

    pub(crate) fn settings(&self) -> String {
        self.settings_under(self, "")
    }

    pub(crate) fn says(&self, says: Says) {
        *self.shared.says.lock().unwrap() = says;
    }

    /// All that it has said nothing to so far are answered.
    pub(crate) fn ends_silence(&self) {
        self.shared.silence.notify_waiters();
    }

    /// What it has been asked so far.
    pub(crate) fn asked(&self) -> Vec<Value> {
        self.shared.asked.lock().unwrap().clone()
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let mut asked: Value = serde_json::from_slice(&to_bytes(body, 64 << 10).await.unwrap()).unwrap();
    let request = asked["request"].as_str().unwrap().to_owned();
    let is_right = asked["code"] == RIGHT;
    asked["path"] = head.uri.path().into();
    shared.asked.lock().unwrap().push(asked);
    let says = shared.says.lock().unwrap().clone();
    let knows = head.headers.get("authorization").is_some_and(|value| value == format!("Bearer {SECRET}").as_str());
    let (status, body) = match says {
        Says::Truth if !knows => (401, String::new()),
        Says::Truth => (200, json!({ "allow": is_right, "request": request }).to_string()),
        Says::This(status, body) => (status, body.replace("REQUEST", &request)),
        Says::Nothing => {
            shared.silence.notified().await;
            (500, String::new())
        }
    };
    Ok(Response::builder().status(status).header("location", "/elsewhere").body(Body::from(body)).unwrap())
}
