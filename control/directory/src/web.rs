//! HTTP to a provider: one request, one connection, bounded in bytes and time; TLS but for loopback addresses; no redirects.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::Failed;

/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 2_048;

/// How much of an answer is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Longest body, in bytes.
    pub(crate) body_bytes_max: usize,
    /// How long one request may take, the connection included.
    pub(crate) time_max: Duration,
}

impl Bounds {
    /// An identity provider's: the keys of a large one have some 30 KB.
    pub(crate) const PROVIDER: Self = Self { body_bytes_max: 256 << 10, time_max: Duration::from_secs(10) };
}

/// Where a provider answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    uri: Uri,
    host: String,
    port: u16,
    is_tls: bool,
}

impl Endpoint {
    /// An `https` URL, or an `http` one whose host is a loopback address.
    pub(crate) fn new(url: &str) -> Result<Self, String> {
        let expected = || format!("expected an https URL in ASCII without user name and fragment, found {url:?}");
        // People are shown some of them.
        if url.len() > URL_BYTES_MAX || !url.bytes().all(|byte| byte.is_ascii_graphic()) || url.contains(['#', '@']) {
            return Err(expected());
        }
        let uri: Uri = url.parse().map_err(|_| expected())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(expected)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if is_loopback(&host) => false,
            _ => return Err(expected()),
        };
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { uri, host, port, is_tls })
    }

    /// An endpoint that the document of this issuer names. Whoever is reached by TLS sends nobody to what this machine offers in the
    /// clear.
    pub(crate) fn named(&self, url: &str) -> Result<Self, String> {
        let named = Self::new(url)?;
        if self.is_tls && !named.is_tls {
            return Err(format!("expected an https URL, as the issuer's is, found {url:?}"));
        }
        Ok(named)
    }
}

/// Whether `host` is an address of this machine and of no other. A name is none: somebody else may decide what it stands for.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What is asked.
pub(crate) enum Ask<'a> {
    /// With a bearer token or without.
    Get(Option<&'a str>),
    /// A form, with a user name and password or without.
    Post(&'a [(&'a str, &'a str)], Option<(&'a str, &'a str)>),
    /// A JSON document, with a bearer token.
    Json(Zeroizing<Vec<u8>>, &'a str),
}

/// An answer: status and body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// Its body as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Failed> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // Not what came: it may hold a token.
            let at = format!("line {} column {}", error.line(), error.column());
            Failed::Answer(format!("status {} with a body that is not the JSON expected ({at})", self.status).into())
        })
    }
}

/// Asks `endpoint`, and takes as much of an answer as `bounds` allow.
pub(crate) async fn ask(
    tls: &Arc<ClientConfig>,
    endpoint: &Endpoint,
    ask: Ask<'_>,
    bounds: Bounds,
) -> Result<Answer, Failed> {
    let named = |why: String| format!("{}:{}: {why}", endpoint.host, endpoint.port).into();
    let is_sent = AtomicBool::new(false);
    match tokio::time::timeout(bounds.time_max, exchange(tls, endpoint, ask, bounds, &is_sent)).await {
        Ok(exchanged) => exchanged.map_err(|why| Failed::Unreachable(named(why))),
        Err(_) => {
            let late = named(format!("no answer in {} s", bounds.time_max.as_secs()));
            Err(if is_sent.into_inner() { Failed::Silent(late) } else { Failed::Unreachable(late) })
        }
    }
}

async fn exchange(
    tls: &Arc<ClientConfig>,
    endpoint: &Endpoint,
    ask: Ask<'_>,
    Bounds { body_bytes_max, .. }: Bounds,
    is_sent: &AtomicBool,
) -> Result<Answer, String> {
    let request = request(endpoint, ask)?;
    let text = |error: std::io::Error| error.to_string();
    let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.map_err(text)?;
    if !endpoint.is_tls {
        is_sent.store(true, Ordering::Relaxed);
        return send(tcp, request, body_bytes_max).await;
    }
    let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await.map_err(text)?;
    is_sent.store(true, Ordering::Relaxed);
    send(stream, request, body_bytes_max).await
}

fn request(endpoint: &Endpoint, ask: Ask<'_>) -> Result<Request<Full<Bytes>>, String> {
    let bearer = |token: &str| format!("Bearer {token}");
    // It has a code or a secret in it, and is wiped when it was sent.
    let sent = |bytes: Vec<u8>| Bytes::from_owner(Zeroizing::new(bytes));
    let (method, body, authorization) = match ask {
        Ask::Get(token) => (Method::GET, None, token.map(bearer)),
        Ask::Post(form, user) => {
            let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
            let body = ("application/x-www-form-urlencoded", sent(body.into_bytes()));
            (Method::POST, Some(body), user.map(|(name, secret)| basic(name, secret)))
        }
        Ask::Json(body, token) => {
            (Method::POST, Some(("application/json", Bytes::from_owner(body))), Some(bearer(token)))
        }
    };
    let path = endpoint.uri.path_and_query().map_or("/", |path| path.as_str());
    let (content_type, body) = body.map_or((None, Bytes::new()), |(content_type, body)| (Some(content_type), body));
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| format!("the path {path:?}"))?;
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| "a header value".to_owned());
    let fields = request.headers_mut();
    fields.insert(HOST, value(endpoint.uri.authority().map_or("", |authority| authority.as_str()))?);
    fields.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(content_type) = content_type {
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    if let Some(authorization) = authorization {
        let mut authorization = value(&authorization)?;
        authorization.set_sensitive(true);
        fields.insert(AUTHORIZATION, authorization);
    }
    Ok(request)
}

/// `Authorization: Basic` with both parts encoded as form values (RFC 6749 §2.3.1).
fn basic(name: &str, secret: &str) -> String {
    use base64::Engine;
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encoded(name), encoded(secret)));
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()))
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    body_bytes_max: usize,
) -> Result<Answer, String> {
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let connection = tokio::spawn(connection);
    let exchanged = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), body_bytes_max).collect().await;
        let body =
            body.map_err(|error| format!("an answer of at most {body_bytes_max} bytes was expected: {error}"))?;
        Ok(Answer { status, body: Zeroizing::new(body.to_bytes().to_vec()) })
    };
    let answer = exchanged.await;
    connection.abort();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_asked_in_the_clear() {
        let endpoint = Endpoint::new("https://id.example/a?b=c").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port, endpoint.is_tls), ("id.example", 443, true));
        let endpoint = Endpoint::new("http://[::1]:8080/").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port, endpoint.is_tls), ("::1", 8_080, false));
        for bad in [
            "http://id.example/",
            "http://localhost/",
            "http://10.0.0.1/",
            "ftp://id.example/",
            "https://user@id.example/",
            "https://id.example/#x",
            "https://id.example/\u{e4}",
            "https://id.example/a b",
            "/relative",
            "",
        ] {
            assert!(Endpoint::new(bad).is_err(), "{bad}");
        }
    }

    // Covers: R20 refuse
    #[test]
    fn a_provider_elsewhere_names_nothing_on_this_machine() {
        let (elsewhere, here) = ("https://id.example", "http://127.0.0.1:8080");
        for (issuer, endpoint, is_good) in [
            (elsewhere, "https://id.example/token", true),
            (elsewhere, "https://other.example/token", true),
            (elsewhere, "http://127.0.0.1:8500/v1/kv", false),
            (elsewhere, "http://[::1]/token", false),
            (elsewhere, "http://id.example/token", false),
            (here, "http://127.0.0.1:8080/token", true),
            (here, "https://id.example/token", true),
            (here, "http://id.example/token", false),
        ] {
            assert_eq!(Endpoint::new(issuer).unwrap().named(endpoint).is_ok(), is_good, "{issuer} {endpoint}");
        }
    }

    #[test]
    fn both_parts_of_a_name_and_secret_are_encoded() {
        // RFC 6749 §2.3.1: a colon in either must not part them elsewhere.
        assert_eq!(basic("a:b", "c d"), "Basic YSUzQWI6Yytk");
    }

    #[tokio::test]
    async fn an_answer_is_bounded() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1_024];
            let _ = stream.read(&mut asked).await.unwrap();
            let bytes = Bounds::PROVIDER.body_bytes_max + 1;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            drop(stream.write_all(&vec![b' '; bytes]).await);
        });
        let tls = crate::trust::tls(None).unwrap();
        let endpoint = Endpoint::new(&url).unwrap();
        let Err(Failed::Unreachable(why)) = ask(&tls, &endpoint, Ask::Get(None), Bounds::PROVIDER).await else {
            panic!("an answer without an end was taken");
        };
        assert!(why.to_string().contains("at most"), "{why}");
    }
}
