//! Hosts that register themselves: two requests over mutual TLS, without tokens.
//!
//! Who the host is, whether it may, and for whom it speaks is settled before its body is read (W6, W7).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfort_enrol::wall_clock;
use ringfort_proto::api;
use ringfort_types::UnixSeconds;

use super::Shell;
use super::api::{Answer, From, Shared, signing_request};
use super::caller::Caller;
use super::http::{Asked, Failure};
use super::limits::BODY_BYTES_MAX;
use crate::core::{AuthorisedHost, Refused};

/// Where a host is to be found (W5).
pub(super) async fn register_host(
    State(shell): Shared,
    Extension(caller): From,
    asked: Asked<api::HostRegistration>,
) -> Answer<api::Registered> {
    let (now, hostname) = (wall_clock(), asked.named().to_owned());
    let about = |refused| Failure::about(&hostname, refused);
    let host = authorised(&shell, &caller, now).await.map_err(about)?;
    host.is_called(&hostname).map_err(about)?;
    let body = asked.json(BODY_BYTES_MAX).await.map_err(about)?;
    Ok(Json(shell.core.register_host(host, body, now).await.map_err(about)?))
}

/// A new certificate for a host's key.
pub(super) async fn host_certificate(
    State(shell): Shared,
    Extension(caller): From,
    asked: Asked<api::CertificateRequest>,
) -> Answer<api::CertificateResponse> {
    let now = wall_clock();
    let host = authorised(&shell, &caller, now).await?;
    let request = signing_request(asked).await?;
    let chain = shell.core.renew_host(&host, &request, now).await?;
    Ok(Json(api::CertificateResponse { chain: chain.iter().map(|der| URL_SAFE_NO_PAD.encode(der)).collect() }))
}

/// The host at the other end of the connection.
async fn authorised(shell: &Arc<Shell>, caller: &Caller, now: UnixSeconds) -> Result<AuthorisedHost, Refused> {
    let peer = caller.peer(&shell.core, now)?.ok_or_else(Refused::certificate_required)?;
    shell.core.authorised_host(peer, now).await
}
