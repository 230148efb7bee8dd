//! Hosts that register themselves: two requests over mutual TLS, without tokens.
//!
//! Who the host is, whether it may, and for whom it speaks is settled before its body is read (W6, W7).

use std::borrow::Cow;
use std::time::Instant;

use axum::Json;
use axum::extract::{Extension, State};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfort_enrol::wall_clock;
use ringfort_identity::{Hostname, PeerIdentity};
use ringfort_proto::api;
use ringfort_types::UnixSeconds;

use super::Shell;
use super::api::{Answer, From, Shared, signing_request};
use super::caller::Caller;
use super::http::{Asked, Failure};
use super::limits::BODY_BYTES_MAX;
use super::openapi::{Form, Parameter};
use crate::core::{HOSTS_OF_A_PAGE_MAX, HostsAsked, Refused};

/// Where a host is to be found (W5).
pub(super) async fn register_host(
    State(shell): Shared,
    Extension(caller): From,
    asked: Asked<api::HostRegistration>,
) -> Answer<api::Registered> {
    let (now, hostname) = (wall_clock(), asked.named().to_owned());
    let about = |refused| Failure::about(&hostname, refused);
    let peer = shown(&shell, &caller, now)?;
    let host = shell.core.authorised_host(peer, now).await.map_err(about)?;
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
    let host = shell.core.authorised_host(shown(&shell, &caller, now)?, now).await?;
    let request = signing_request(asked).await?;
    let chain = shell.core.renew_host(&host, &request, now).await?;
    Ok(Json(api::CertificateResponse { chain: chain.iter().map(|der| URL_SAFE_NO_PAD.encode(der)).collect() }))
}

/// `GET admin/hosts?after=<name>&limit=<number>`, each of which may be left out.
pub(super) async fn list(State(shell): Shared, Extension(caller): From, asked: Asked) -> Answer<Vec<api::HostRow>> {
    let now = wall_clock();
    let bearer = asked.bearer_with_certificate(&shell, &caller, now)?;
    let administrator = shell.core.administrator(&bearer, now).await?;
    Ok(Json(shell.core.hosts(&administrator, page(asked.query())?, now).await?))
}

/// What the query may have.
pub(super) const QUERY: [Parameter; 2] = [
    Parameter {
        name: "after",
        is_required: false,
        form: Form::Text { pattern: api::HOSTNAME },
        about: "Only hosts whose names follow this one: that of the last one of the page before.",
    },
    Parameter {
        name: "limit",
        is_required: false,
        form: Form::Number { min: 1, max: HOSTS_OF_A_PAGE_MAX as u64 },
        about: "At most so many hosts.",
    },
];

/// # Errors
/// `request_malformed`.
fn page<'a>(query: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Result<HostsAsked, Refused> {
    let form = || Refused::malformed("expected ?after=<name of a host>, &limit=<number>");
    let mut asked = HostsAsked::default();
    for (name, value) in query {
        match &*name {
            "after" => asked.after = value.parse::<Hostname>().map_err(|_| form())?.to_string(),
            "limit" => asked.limit = value.parse().map_err(|_| form())?,
            _ => return Err(form()),
        }
    }
    Ok(asked)
}

/// The certificate at the other end of the connection. How it stands is asked once it is known whose it is: a host that is none any
/// more is told so (W6).
fn shown<'a>(shell: &Shell, caller: &'a Caller, now: UnixSeconds) -> Result<&'a PeerIdentity, Failure> {
    let peer = caller.shown(now)?.ok_or_else(Refused::certificate_required)?;
    shell.rates.take(peer.key(), None, Instant::now())?;
    Ok(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_named_in_the_query() {
        let asked = |query: &str| page(form_urlencoded::parse(query.as_bytes()));
        assert_eq!(asked("").unwrap(), HostsAsked::default());
        let expected = HostsAsked { after: "nas.example".into(), limit: 9 };
        assert_eq!(asked("limit=9&after=nas.example").unwrap(), expected);
        for wrong in ["after", "after=", "after=a%20b", "limit=x", "limit=-1", "offset=3"] {
            assert_eq!(asked(wrong).unwrap_err().code, "request_malformed", "{wrong}");
        }
    }
}
