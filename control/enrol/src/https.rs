//! A client for the Controller's HTTP API over a TLS connection of our own.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use ringfort_proto::api::ErrorBody;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::tls;

/// Longest response body: all entitlements of a user, or a page of a list.
const BODY_BYTES_MAX: usize = 16 << 20;
/// How long a request may take: a login waits for the password to be hashed.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

/// One connection to a Controller, for one request after the other.
#[derive(Debug)]
pub struct Https {
    address: String,
    sender: SendRequest<Full<Bytes>>,
    certificates: Vec<CertificateDer<'static>>,
}

/// A successful response.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// Its body.
    pub body: T,
    /// The header asked for, if it is there.
    pub header: Option<String>,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpsError {
    /// The Controller could not be reached, or was lost.
    #[error("cannot talk to the Controller at {address}: {source}")]
    Io {
        /// Where.
        address: String,
        /// What the system or TLS said.
        source: io::Error,
    },
    /// The Controller refused.
    #[error("{} [{}{}{}]", body.message, body.code, if body.event.is_empty() { "" } else { ", event " }, body.event)]
    Refused {
        /// HTTP status.
        status: u16,
        /// Code, message and event.
        body: ErrorBody,
        /// The header asked for, if it is there.
        header: Option<String>,
    },
    /// The answer is none.
    #[error("expected an answer of the Controller at {address}, found something else: {why}")]
    Answer {
        /// Where.
        address: String,
        /// What came.
        why: String,
    },
}

impl HttpsError {
    /// The Controller's code, if it refused.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { body, .. } => Some(&body.code),
            _ => None,
        }
    }
}

impl Https {
    /// Connects to `address` (`host:port`). `config` decides who must answer there.
    ///
    /// # Errors
    /// [`HttpsError::Io`].
    pub async fn connect(address: &str, config: ClientConfig) -> Result<Self, HttpsError> {
        let failed = |source| HttpsError::Io { address: address.to_owned(), source };
        let stream = tls::connect(address, config).await.map_err(failed)?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificates = certificates.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| failed(io::Error::other(error)))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the Controller ended");
            }
        });
        Ok(Self { address: address.into(), sender, certificates })
    }

    /// The certificates that the server sent, the leaf first.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// Sends a request with `headers` and a JSON `body`, and takes a JSON answer. `header` names a header of the answer that is
    /// wanted.
    ///
    /// # Errors
    /// [`HttpsError`].
    pub async fn request<B: Serialize, T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Option<&B>,
        header: &str,
    ) -> Result<Answer<T>, HttpsError> {
        let address = self.address.clone();
        let failed = |source| HttpsError::Io { address: address.clone(), source };
        let odd = |why: String| HttpsError::Answer { address: address.clone(), why };
        let bytes = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| odd(error.to_string()))?,
            None => Vec::new(),
        };
        let mut request = Request::new(Full::new(Bytes::from(bytes)));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| odd(format!("the path {path:?}")))?;
        let fields = request.headers_mut();
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| odd("a header value".into()));
        fields.insert(HOST, value(&address)?);
        if body.is_some() {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, text) in headers {
            fields.insert(HeaderName::from_static(name), value(text)?);
        }
        let exchange = async {
            self.sender.ready().await.map_err(io::Error::other)?;
            let response = self.sender.send_request(request).await.map_err(io::Error::other)?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(io::Error::other)?;
            io::Result::Ok((parts, body.to_bytes()))
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {REQUEST_TIME_MAX:?}"));
        let exchanged = tokio::time::timeout(REQUEST_TIME_MAX, exchange).await.map_err(late).and_then(|done| done);
        let (parts, body) = exchanged.map_err(failed)?;
        let header = parts.headers.get(header).and_then(|value| value.to_str().ok()).map(str::to_owned);
        if !parts.status.is_success() {
            let body = serde_json::from_slice(&body).map_err(|_| odd(format!("status {}", parts.status)))?;
            return Err(HttpsError::Refused { status: parts.status.as_u16(), body, header });
        }
        let body = serde_json::from_slice(&body).map_err(|error| odd(error.to_string()))?;
        Ok(Answer { body, header })
    }
}
