//! What all requests of the HTTP API have in common: bounded bodies, proofs and claims, and the form of refusals.

use std::borrow::Cow;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, FromRequest, FromRequestParts, Path, Request, State};
use axum::http::header::{ALLOW, AUTHORIZATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use ringfort_identity::KeyThumbprint;
use ringfort_proto::api::{ErrorBody, NONCE_HEADER, PROOF_HEADER};
use ringfort_token::Refusal;
use ringfort_token::proof::{self, ProofRefused};
use ringfort_types::UnixSeconds;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::Shell;
use super::caller::Caller;
use super::limits::{BODY_TIME, HEADER_BYTES_MAX};
use super::rates::TooOften;
use crate::core::{Bearer, Refused};

/// A refusal on its way to [`finish`], with what was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    refused: Refused,
    target: String,
    /// Whether the same has just been written down.
    is_repeat: bool,
    /// The id of its event, where it was counted and written down already.
    event: Option<String>,
}

impl Failure {
    /// Refused, and of whom or what that was asked.
    pub(crate) fn about(target: &str, refused: Refused) -> Self {
        Self { refused, target: target.into(), is_repeat: false, event: None }
    }

    /// The same, counted and written down already as the event `event`.
    pub(crate) fn written(self, event: String) -> Self {
        Self { event: Some(event), ..self }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self { refused, target: String::new(), is_repeat: false, event: None }
    }
}

impl From<TooOften> for Failure {
    fn from(limited: TooOften) -> Self {
        let TooOften { retry_after, is_repeat } = limited;
        Self { is_repeat, ..Refused::rate_limited(retry_after).into() }
    }
}

impl IntoResponse for Failure {
    /// Only a carrier: [`finish`] makes the answer of it.
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Around every request: counts, writes down and answers refusals, and gives a nonce to whoever has no certificate.
pub(crate) async fn finish(
    State(shell): State<Arc<Shell>>,
    Extension(caller): Extension<Arc<Caller>>,
    request: Request,
    next: Next,
) -> Response {
    let action = action(request.method().as_str(), request.uri().path());
    // HTTP/1 reads on for as long as its buffer has room, which is more than the limit.
    let head = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    let mut response = if head > HEADER_BYTES_MAX {
        let message = format!("expected at most {HEADER_BYTES_MAX} bytes of header fields");
        Failure::from(Refused { status: 431, ..Refused::malformed(message) }).into_response()
    } else {
        next.run(request).await
    };
    if let Some(Failure { refused, target, is_repeat, event }) = response.extensions_mut().remove::<Failure>() {
        let event = match event {
            Some(event) => event,
            None if is_repeat => shell.refuse_unwritten(&refused),
            None => shell.refuse(&caller, &action, &target, &refused).await,
        };
        let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = ErrorBody { code: refused.code.into(), message: refused.message, event };
        let allowed = response.headers_mut().remove(ALLOW);
        response = (status, Json(body)).into_response();
        if let Some(allowed) = allowed {
            response.headers_mut().insert(ALLOW, allowed);
        }
        if let Some(seconds) = refused.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
    }
    if !caller.is_known() {
        let nonce = shell.nonces.give(Instant::now()).and_then(|nonce| HeaderValue::from_str(&nonce).ok());
        if let Some(nonce) = nonce {
            response.headers_mut().insert(NONCE_HEADER, nonce);
        }
    }
    response
}

/// What a request asks for, as the audit log has it.
fn action(method: &str, path: &str) -> String {
    format!("{method} {}", super::short(path))
}

/// What a request is about, before its body is read. The body, if there is to be one, is a `B`.
pub(crate) struct Asked<B = ()> {
    method: String,
    path: String,
    query: String,
    named: String,
    headers: HeaderMap,
    body: Body,
    expected: PhantomData<fn() -> B>,
}

impl<B, S: Send + Sync> FromRequest<S> for Asked<B> {
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Infallible> {
        let (mut parts, body) = request.into_parts();
        let named = Path::from_request_parts(&mut parts, state).await;
        Ok(Self {
            method: parts.method.as_str().to_owned(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            named: named.map(|Path(named)| named).unwrap_or_default(),
            headers: parts.headers,
            body,
            expected: PhantomData,
        })
    }
}

impl<B> Asked<B> {
    /// What the variable segment of the path says; empty where there is none, or none that is text.
    pub(crate) fn named(&self) -> &str {
        &self.named
    }

    /// What is asked for, as the audit log has it.
    pub(crate) fn action(&self) -> String {
        action(&self.method, &self.path)
    }

    /// Names and values of the query.
    pub(crate) fn query(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form_urlencoded::parse(self.query.as_bytes())
    }

    /// The key whose holder proved to be the sender (RFC 9449): by a proof for this request, with a nonce of ours.
    ///
    /// # Errors
    /// `nonce_unknown`, `proof_…`.
    pub(crate) fn prover(
        &self,
        shell: &Shell,
        token: Option<&str>,
        now: UnixSeconds,
    ) -> Result<KeyThumbprint, Refused> {
        let text = self.one(PROOF_HEADER).ok_or(ProofRefused::Malformed)?;
        let nonce = proof::nonce(text)?;
        // Spent before anything else is checked: a nonce is good for one try, and a try without one is cheap.
        if !shell.nonces.spend(&nonce, Instant::now()) {
            return Err(Refused::nonce_unknown());
        }
        let request = proof::Request { method: &self.method, path: &self.path, nonce: &nonce, token };
        Ok(proof::verify(text, &request, now)?)
    }

    /// Who sends the claims token of this request: known by the certificate of the connection or, without one, by a proof.
    ///
    /// # Errors
    /// `token_…`, `nonce_unknown`, `proof_…`, `certificate_…`, `wrong_role`.
    pub(crate) fn bearer(&self, shell: &Shell, caller: &Caller, now: UnixSeconds) -> Result<Bearer, Refused> {
        match caller.peer(&shell.core, now)? {
            Some(peer) => shell.core.bearer_with_certificate(self.token()?, peer, now),
            None => {
                let token = self.token()?;
                let key = self.prover(shell, Some(token), now)?;
                shell.core.bearer(token, &key, now)
            }
        }
    }

    /// As [`Asked::bearer`], where only a certificate counts.
    ///
    /// # Errors
    /// `certificate_…`, `wrong_role`, `token_…`.
    pub(crate) fn bearer_with_certificate(
        &self,
        shell: &Shell,
        caller: &Caller,
        now: UnixSeconds,
    ) -> Result<Bearer, Refused> {
        let peer = caller.peer(&shell.core, now)?.ok_or_else(Refused::certificate_required)?;
        shell.core.bearer_with_certificate(self.token()?, peer, now)
    }

    /// The body, read only now that the sender is known, of at most `bytes_max`. It may hold a password or a code, so our copy of it is
    /// wiped; what the connection has read it into is overwritten by what follows, or freed.
    ///
    /// # Errors
    /// `request_malformed`.
    pub(crate) async fn json(self, bytes_max: usize) -> Result<B, Refused>
    where
        B: DeserializeOwned,
    {
        let body = Limited::new(self.body, bytes_max).collect();
        let body = timeout(BODY_TIME, body).await.map_err(|_| {
            let message = format!("expected the whole body within {} s", BODY_TIME.as_secs());
            Refused { status: 408, ..Refused::malformed(message) }
        })?;
        let body = body.map_err(|_| {
            let message = format!("expected a whole body of at most {bytes_max} bytes");
            Refused { status: 413, ..Refused::malformed(message) }
        })?;
        let body = Zeroizing::new(Vec::from(body.to_bytes()));
        serde_json::from_slice(&body)
            .map_err(|error| Refused::malformed(format!("expected the JSON body of this request: {error}")))
    }

    /// The claims token of `Authorization: Bearer`.
    fn token(&self) -> Result<&str, Refused> {
        let (scheme, token) =
            self.one(AUTHORIZATION.as_str()).and_then(|text| text.split_once(' ')).unwrap_or_default();
        if scheme.eq_ignore_ascii_case("bearer") { Ok(token) } else { Err(Refusal::Malformed.into()) }
    }

    /// A header field that is there exactly once.
    fn one(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    }
}
