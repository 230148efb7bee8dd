//! Against a scripted provider on loopback, which says what no real one would.

use std::collections::BTreeMap;

use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::token::tests::{Signer, header};
use super::*;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const PATH: &str = "/callback/sso";

fn settings(issuer: &str) -> OidcSettings {
    OidcSettings {
        name: "sso".into(),
        issuer: issuer.into(),
        client_id: "ringfort".into(),
        client_secret_file: None,
        scopes: Vec::new(),
        groups_claim: "groups".into(),
        ca_file: None,
        email_domains: None,
        administrators: false,
        second_factor: false,
    }
}

fn redirect() -> RedirectUri {
    RedirectUri::new("http://127.0.0.1:1/callback/sso", PATH).unwrap()
}

/// Status and body by path.
type Pages = Arc<std::sync::Mutex<BTreeMap<&'static str, (u16, Value)>>>;

/// Answers one request, and ends.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, pages: Pages) {
    let mut asked = vec![0; 8_192];
    let count = stream.read(&mut asked).await.unwrap_or_default();
    let asked = String::from_utf8_lossy(&asked[..count]).into_owned();
    let path = asked.split(' ').nth(1).unwrap_or_default();
    let (status, body) = pages.lock().unwrap().get(path).cloned().unwrap_or((404, Value::Null));
    let body = body.to_string();
    let text = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    drop(stream.write_all(text.as_bytes()).await);
    drop(stream.shutdown().await);
}

/// A provider with a key, and what it answers.
struct World {
    provider: Provider,
    signer: Signer,
    pages: Pages,
}

impl World {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let (pages, signer) = (Pages::default(), Signer::new("k1"));
        let served = Arc::clone(&pages);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&served)));
            }
        });
        let world = Self { provider: Provider::new(&settings(&issuer)).unwrap(), signer, pages };
        world.says("/.well-known/openid-configuration", 200, document(&issuer));
        world.says("/keys", 200, json!({ "keys": [world.signer.jwk] }));
        world
    }

    fn says(&self, path: &'static str, status: u16, body: Value) {
        self.pages.lock().unwrap().insert(path, (status, body));
    }

    /// A login that is finished with an id_token that says `claims` as well.
    async fn finish(&self, freshness: Freshness, claims: Value) -> Result<Finished, Failed> {
        let (_, pending) = self.provider.begin(redirect(), freshness, NOW).await.unwrap();
        let mut all = json!({
            "iss": self.provider.issuer(), "sub": "s1", "aud": "ringfort", "exp": NOW.0 + 300, "iat": NOW.0,
            "nonce": pending.nonce, "auth_time": NOW.0,
        });
        for (name, value) in claims.as_object().unwrap() {
            all[name] = value.clone();
        }
        all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let id_token = self.signer.sign(&header(), &all);
        self.says("/token", 200, json!({ "access_token": "t", "id_token": id_token, "expires_in": 300 }));
        let state = pending.state().to_owned();
        self.provider.finish(pending, &Returned { code: "c", state: &state, issuer: None }, NOW).await
    }

    async fn email(&self, claims: Value, userinfo: Value) -> Option<String> {
        self.says("/userinfo", 200, userinfo);
        let finished = self.finish(Freshness::Within(3_600), claims).await.unwrap();
        finished.person.email.map(|email| email.to_string())
    }
}

fn document(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/auth"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
    })
}

// Covers: R21 allow
// Covers: R21 refuse
#[tokio::test]
async fn an_address_and_the_word_on_it_come_from_one_document() {
    let world = World::start().await;
    let (alice, mallory) = ("alice@example.org", "mallory@example.org");
    let both = |email: &str, verified: bool| json!({ "sub": "s1", "email": email, "email_verified": verified });
    for (claims, userinfo, expected) in [
        (both(alice, true), json!(null), Some(alice)),
        (json!({}), both(alice, true), Some(alice)),
        (json!({ "email": mallory }), both(alice, true), Some(alice)),
        // A word on an address that stands elsewhere.
        (json!({ "email_verified": true }), json!({ "sub": "s1", "email": mallory }), None),
        (json!({ "email": mallory }), json!({ "sub": "s1", "email_verified": true }), None),
        (json!({ "email_verified": true }), both(mallory, false), None),
        (both(mallory, false), both(mallory, true), None),
    ] {
        let found = world.email(claims.clone(), userinfo.clone()).await;
        assert_eq!(found.as_deref(), expected, "{claims} {userinfo}");
    }
    world.says("/userinfo", 200, json!({ "sub": "s2", "email": alice, "email_verified": true }));
    let refused = world.finish(Freshness::Anew, json!({})).await.err().unwrap();
    assert_eq!(refused, Failed::Token(TokenRefused::Subject), "another's");
}

// Covers: R2 allow
// Covers: R2 refuse
#[tokio::test]
async fn a_fresh_authentication_is_not_older_than_its_login() {
    let world = World::start().await;
    let finish = async |freshness, auth_time: Value| {
        world.finish(freshness, json!({ "auth_time": auth_time, "email": "a@b", "email_verified": true })).await
    };
    let finished = finish(Freshness::Anew, json!(NOW.0)).await.unwrap();
    assert_eq!(finished.person.authenticated_at, NOW);
    for seconds in [1, 29] {
        let refused = finish(Freshness::Anew, json!(NOW.0 - seconds)).await.err().unwrap();
        assert!(matches!(refused, Failed::Token(TokenRefused::NotFresh { .. })), "{seconds}: {refused}");
    }
    finish(Freshness::Within(3_600), json!(NOW.0 - 3_600)).await.unwrap();
    assert!(finish(Freshness::Within(3_600), json!(NOW.0 - 3_631)).await.is_err());
    for freshness in [Freshness::Anew, Freshness::Within(3_600)] {
        let refused = finish(freshness, Value::Null).await.err().unwrap();
        assert_eq!(refused, Failed::Token(TokenRefused::AuthTimeMissing));
        assert!(refused.to_string().contains("set the provider up"));
    }
}

// Covers: R22 refuse
#[tokio::test]
async fn only_a_word_on_the_session_ends_it() {
    let world = World::start().await;
    let asked = async |status, body| {
        world.says("/token", status, body);
        world.provider.refresh("r", "s1", NOW).await.map(drop).unwrap_err()
    };
    for error in REFUSALS {
        assert_eq!(asked(400, json!({ "error": error })).await, Failed::Refused(error.into()));
    }
    assert!(matches!(asked(403, json!({ "error": "access_denied" })).await, Failed::Refused(_)));
    for (status, body) in [
        (401, json!({ "error": "invalid_client" })),
        (400, json!({ "error": "invalid_request" })),
        (400, json!({ "error": "unauthorized_client" })),
        (400, json!({ "error": "unsupported_grant_type" })),
        (400, json!({ "error": "Invalid_Grant" })),
        (400, json!({ "message": "no" })),
        (400, json!("no")),
        (500, json!({ "error": "invalid_grant" })),
        (302, json!({ "error": "invalid_grant" })),
    ] {
        let failed = asked(status, body.clone()).await;
        assert!(matches!(failed, Failed::Answer(_)), "{status} {body}: {failed}");
    }
    for error in PAUSES {
        assert!(matches!(asked(400, json!({ "error": error })).await, Failed::Unreachable(_)), "{error}");
    }
}

#[tokio::test]
async fn what_a_provider_says_of_its_failures_is_short_and_printable() {
    let world = World::start().await;
    world.says("/token", 400, json!({ "error": "\u{1b}[2J\r\n".repeat(10_000) }));
    let failed = world.provider.refresh("r", "s1", NOW).await.map(drop).unwrap_err().to_string();
    assert!(failed.len() < 300 && failed.chars().all(|letter| letter.is_ascii_graphic() || letter == ' '), "{failed}");
    let other = World::start().await;
    let mut changed = document(other.provider.issuer());
    changed["jwks_uri"] = json!(format!("gopher://\u{202e}{}", "x".repeat(10_000)));
    other.says("/.well-known/openid-configuration", 200, changed);
    let failed = other.provider.begin(redirect(), Freshness::Anew, NOW).await.unwrap_err();
    assert!(matches!(failed, Failed::Answer(_)) && failed.to_string().len() < 300, "{failed}");
}

/// A provider under TLS, whose document is `document` of its issuer.
async fn under_tls(place: &std::path::Path, document: impl FnOnce(&str) -> Value) -> Provider {
    let key = KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let ca_file = place.join("ca.pem");
    std::fs::write(&ca_file, certificate.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("https://{}", listener.local_addr().unwrap());
    let pages = Pages::default();
    pages.lock().unwrap().insert("/.well-known/openid-configuration", (200, document(&issuer)));
    pages.lock().unwrap().insert("/keys", (200, json!({ "keys": [] })));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                answer(stream, Arc::clone(&pages)).await;
            }
        }
    });
    Provider::new(&OidcSettings { ca_file: Some(ca_file), ..settings(&issuer) }).unwrap()
}

// Covers: R20 refuse
#[tokio::test]
async fn a_provider_under_tls_leads_nobody_to_this_machine() {
    let place = tempfile::tempdir().unwrap();
    let good = under_tls(place.path(), document).await;
    good.begin(redirect(), Freshness::Anew, NOW).await.unwrap();
    let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/secrets", inside.local_addr().unwrap());
    for name in ["authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"] {
        let provider = under_tls(place.path(), |issuer| {
            let mut document = document(issuer);
            document[name] = json!(url);
            document
        });
        let failed = provider.await.begin(redirect(), Freshness::Anew, NOW).await.unwrap_err();
        assert!(matches!(&failed, Failed::Answer(why) if why.to_string().contains("https")), "{name}: {failed}");
    }
    let knocked = tokio::time::timeout(Duration::from_millis(100), inside.accept()).await;
    assert!(knocked.is_err(), "somebody was led there");
}

#[tokio::test]
async fn a_provider_that_is_down_is_asked_once_for_all_who_wait() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = settings(&format!("http://{}", listener.local_addr().unwrap()));
    let asked = tokio::spawn(async move {
        let mut asked = 0;
        while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(1), listener.accept()).await {
            asked += 1;
        }
        asked
    });
    let provider = Provider::new(&settings).unwrap();
    let begin = || provider.begin(redirect(), Freshness::Anew, NOW);
    let (one, other) = tokio::join!(begin(), begin());
    assert!(matches!((one, other), (Err(Failed::Unreachable(_)), Err(Failed::Unreachable(_)))));
    assert!(begin().await.is_err());
    assert_eq!(asked.await.unwrap(), 1);
}
