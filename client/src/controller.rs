//! The Controller's HTTP API, from the side of a client.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Method;
use ringfort_enrol::tls::{self, ALPN_HTTP1, Expected, OwnCertificate};
use ringfort_enrol::{Https, HttpsError, PrivateKey, wall_clock};
use ringfort_identity::Trust;
use ringfort_proto::api::{
    BASE, CertificateRequest, CertificateResponse, EntitlementsResponse, LoginMethods, LoginRequest, LoginResponse,
    NONCE_HEADER, OidcBegin, OidcBegun, OidcFinish, PROOF_HEADER, TotpSecret,
};
use ringfort_token::proof::{ProofKey, ProofRefused, Request};
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::random::random_hex;

/// Nothing is sent in place of a body.
const NOTHING: Option<&()> = None;

/// Why a request to the Controller failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControllerError {
    /// The Controller refused, or could not be reached.
    #[error(transparent)]
    Https(#[from] HttpsError),
    /// Our own key made no proof.
    #[error(transparent)]
    Proof(#[from] ProofRefused),
    /// TLS could not be set up.
    #[error("TLS: {0}")]
    Tls(String),
    /// No address of a Controller is known.
    #[error("no address of a Controller is known; name one: ringfort login https://HOST")]
    NoAddress,
    /// The kernel gave no randomness.
    #[error("no randomness: {0}")]
    Random(#[from] std::io::Error),
    /// A text that should be base64url.
    #[error("expected certificates in base64url in the Controller's answer")]
    Base64,
}

impl ControllerError {
    /// The Controller's code, if it refused.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Https(error) => error.code(),
            _ => None,
        }
    }
}

/// A client of any Controller of the organisation: over mutual TLS where it has a certificate, with a proof of possession in each
/// request where it has none.
#[derive(Debug)]
pub struct ControllerClient {
    addresses: Vec<String>,
    trust: Trust,
    own: Option<OwnCertificate>,
    proof: ProofKey,
    nonce: Option<String>,
    connection: Option<Https>,
}

impl ControllerClient {
    /// For the Controllers at `addresses` (`host:port`), tried in order. Without `own` certificate requests carry proofs by
    /// `key`.
    ///
    /// # Errors
    /// [`ControllerError::Proof`]; a key of ours always can.
    pub fn new(
        addresses: Vec<String>,
        trust: Trust,
        own: Option<OwnCertificate>,
        key: &PrivateKey,
    ) -> Result<Self, ControllerError> {
        Ok(Self { addresses, trust, own, proof: key.proof_key()?, nonce: None, connection: None })
    }

    /// Of how many Controllers it knows.
    pub(crate) const fn controllers(&self) -> usize {
        self.addresses.len()
    }

    /// Asks the next Controller from now on.
    pub(crate) fn turn_to_next(&mut self) {
        if !self.addresses.is_empty() {
            self.addresses.rotate_left(1);
        }
        self.connection = None;
    }

    /// How to log in here (R19).
    ///
    /// # Errors
    /// [`ControllerError`], as for every request below.
    pub async fn login_methods(&mut self) -> Result<LoginMethods, ControllerError> {
        self.send(Method::GET, "login", None, None, NOTHING).await
    }

    /// Logs in with a password: a claims token for our key (A3–A5).
    ///
    /// # Errors
    /// `login_refused`, `login_busy`, `login_limited`, and as every request.
    pub async fn login(&mut self, request: &LoginRequest) -> Result<LoginResponse, ControllerError> {
        self.request(Method::POST, "login", None, Some(request)).await
    }

    /// Begins a login at an OpenID provider (R19, R20).
    ///
    /// # Errors
    /// `method_unknown`, `provider_…`, `login_busy`, and as every request.
    pub async fn oidc_begin(&mut self, request: &OidcBegin) -> Result<OidcBegun, ControllerError> {
        self.request(Method::POST, "login/oidc/begin", None, Some(request)).await
    }

    /// Finishes it: a claims token for our key.
    ///
    /// # Errors
    /// `login_unknown`, `provider_…`, `id_token_refused`, `email_unverified`, `user_…`, and as every request.
    pub async fn oidc_finish(&mut self, request: &OidcFinish) -> Result<LoginResponse, ControllerError> {
        self.request(Method::POST, "login/oidc/finish", None, Some(request)).await
    }

    /// Logs in by the certificate of a service account (X12).
    ///
    /// # Errors
    /// `service_unknown`, `certificate_…`, and as every request.
    pub async fn login_service(&mut self) -> Result<LoginResponse, ControllerError> {
        self.send(Method::POST, "login/service", None, None, NOTHING).await
    }

    /// One-time passwords for whoever has just logged in; over mutual TLS.
    ///
    /// # Errors
    /// `authentication_not_fresh`, and as every request.
    pub async fn totp(&mut self, claims: &str) -> Result<TotpSecret, ControllerError> {
        self.request(Method::POST, "totp", Some(claims), NOTHING).await
    }

    /// The entitlement tokens and the connect token (A6, A7, C1).
    ///
    /// # Errors
    /// [`ControllerError`].
    pub async fn entitlements(&mut self, claims: &str) -> Result<EntitlementsResponse, ControllerError> {
        self.request(Method::POST, "entitlements", Some(claims), NOTHING).await
    }

    /// A certificate for `key`, the leaf first (A8, A9).
    ///
    /// # Errors
    /// [`ControllerError`].
    pub async fn certificate(
        &mut self,
        claims: &str,
        certificate_request: &[u8],
    ) -> Result<Vec<CertificateDer<'static>>, ControllerError> {
        let request = CertificateRequest { certificate_request: URL_SAFE_NO_PAD.encode(certificate_request) };
        let answer: CertificateResponse =
            self.request(Method::POST, "certificate", Some(claims), Some(&request)).await?;
        decode_certificates(&answer.chain)
    }

    /// A new claims token within the same login; over mutual TLS.
    ///
    /// # Errors
    /// [`ControllerError`].
    pub async fn renew(&mut self, claims: &str) -> Result<LoginResponse, ControllerError> {
        self.request(Method::POST, "renew", Some(claims), NOTHING).await
    }

    /// Any request of an administrator: `path` is what follows `admin/`.
    ///
    /// # Errors
    /// `not_administrator`, `authentication_not_fresh`, and as every request.
    pub async fn admin<B: Serialize>(
        &mut self,
        claims: &str,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Value, ControllerError> {
        self.request(method, &format!("admin/{path}"), Some(claims), body).await
    }

    /// A request that says who we are. A nonce that is used up or unknown is replaced once.
    async fn request<B: Serialize, T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        claims: Option<&str>,
        body: Option<&B>,
    ) -> Result<T, ControllerError> {
        if self.own.is_some() && claims.is_some() {
            return self.send(method, path, claims, None, body).await;
        }
        if self.nonce.is_none() {
            self.login_methods().await?;
        }
        let nonce = self.nonce.take().unwrap_or_default();
        match self.send(method.clone(), path, claims, Some(&nonce), body).await {
            Err(error) if error.code() == Some("nonce_unknown") => {
                let nonce = self.nonce.take().unwrap_or_default();
                self.send(method, path, claims, Some(&nonce), body).await
            }
            done => done,
        }
    }

    async fn send<B: Serialize, T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        claims: Option<&str>,
        nonce: Option<&str>,
        body: Option<&B>,
    ) -> Result<T, ControllerError> {
        let path = format!("{BASE}/{path}");
        let bearer = claims.map(|claims| format!("Bearer {claims}"));
        let proof = match nonce {
            Some(nonce) => {
                let (query_less, _) = path.split_once('?').unwrap_or((&path, ""));
                let request = Request { method: method.as_str(), path: query_less, nonce, token: claims };
                Some(self.proof.prove(&request, &random_hex()?, wall_clock())?)
            }
            None => None,
        };
        let headers = [("authorization", bearer.as_deref()), (PROOF_HEADER, proof.as_deref())];
        let headers: Vec<_> = headers.into_iter().filter_map(|(name, text)| Some((name, text?))).collect();
        let (mut connection, reused) = match self.connection.take() {
            Some(connection) => (connection, true),
            None => (self.connect().await?, false),
        };
        let mut answer = connection.request(method.clone(), &path, &headers, body, NONCE_HEADER).await;
        if reused && matches!(answer, Err(HttpsError::Io { .. })) {
            // The Controller may have closed it while somebody typed a password.
            connection = self.connect().await?;
            answer = connection.request(method, &path, &headers, body, NONCE_HEADER).await;
        }
        let nonce = match &answer {
            Ok(answer) => answer.header.clone(),
            Err(HttpsError::Refused { header, .. }) => header.clone(),
            Err(_) => None,
        };
        // A connection that failed is not used again.
        if matches!(answer, Ok(_) | Err(HttpsError::Refused { .. })) {
            self.connection = Some(connection);
        }
        self.nonce = nonce.or(self.nonce.take());
        Ok(answer?.body)
    }

    async fn connect(&self) -> Result<Https, ControllerError> {
        let mut last = ControllerError::NoAddress;
        for address in &self.addresses {
            let config = tls::client(self.own.as_ref(), &self.trust, Expected::controller(), ALPN_HTTP1);
            let config = config.map_err(|error| ControllerError::Tls(error.to_string()))?;
            match Https::connect(address, config).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }
}

/// Certificates as answers carry them.
pub(crate) fn decode_certificates(texts: &[String]) -> Result<Vec<CertificateDer<'static>>, ControllerError> {
    texts.iter().map(|text| decode_certificate(text)).collect()
}

pub(crate) fn decode_certificate(text: &str) -> Result<CertificateDer<'static>, ControllerError> {
    URL_SAFE_NO_PAD.decode(text).map(CertificateDer::from).map_err(|_| ControllerError::Base64)
}
