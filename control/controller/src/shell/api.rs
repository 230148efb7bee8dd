//! The HTTP API: the table of `docs/CONTROL.md`, a line each.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Extension, Request, State};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfort_directory::PASSWORD;
use ringfort_enrol::wall_clock;
use ringfort_identity::{Role, SessionDn};
use ringfort_proto::api;
use ringfort_types::UnixSeconds;

use super::caller::Caller;
use super::hosts::{self, host_certificate, register_host};
use super::http::{Asked, Failure, finish};
use super::limits::{ADMIN_BODY_BYTES_MAX, BODY_BYTES_MAX};
use super::{Shell, audit, counted, operate, receipts};
use crate::core::{Administrator, Refused, action};

pub(super) type Shared = State<Arc<Shell>>;
pub(super) type From = Extension<Arc<Caller>>;
pub(super) type Answer<T> = Result<Json<T>, Failure>;

/// A request of an administrator with a body, answered with what the core answers.
macro_rules! change {
    ($method:ident: $body:ty) => {
        post(|State(shell): Shared, Extension(caller): From, request: Request| async move {
            let (now, asked) = (wall_clock(), Asked::from(request));
            let bearer = asked.bearer_with_certificate(&shell, &caller, now)?;
            let administrator = shell.core.administrator(&bearer, now).await?;
            let body: $body = asked.json(ADMIN_BODY_BYTES_MAX).await?;
            Ok::<_, Failure>(Json(shell.core.$method(&administrator, body, now).await?))
        })
    };
}

/// A list for administrators.
macro_rules! list {
    ($shell:ident, $administrator:ident, $now:ident => $list:expr) => {
        |State($shell): Shared, Extension(caller): From, request: Request| async move {
            let $now = wall_clock();
            let bearer = Asked::from(request).bearer_with_certificate(&$shell, &caller, $now)?;
            let $administrator = $shell.core.administrator(&bearer, $now).await?;
            Ok::<_, Failure>(Json($list.await?))
        }
    };
}

/// The API, and everything else that is asked for over HTTP and is not there.
pub(crate) fn router(shell: &Arc<Shell>) -> Router {
    let at = |path: &str| format!("{}/{path}", api::BASE);
    Router::new()
        .route(&at("login"), get(methods).post(login))
        .route(&at("login/oidc/begin"), post(oidc_begin))
        .route(&at("login/oidc/finish"), post(oidc_finish))
        .route(&at("login/service"), post(login_service))
        .route(&at("entitlements"), post(entitlements))
        .route(&at("certificate"), post(certificate))
        .route(&at("renew"), post(renew))
        .route(&at("totp"), post(totp))
        .route(
            &at("admin/users"),
            change!(admin_new_user: api::NewUser)
                .get(list!(shell, administrator, _now => shell.core.users(&administrator))),
        )
        .route(&at("admin/users/role"), change!(admin_change_role: api::RoleChange))
        .route(&at("admin/users/remove"), change!(admin_remove_user: api::Named))
        .route(&at("admin/users/email"), change!(admin_set_email: api::UserEmail))
        .route(&at("admin/users/disable"), change!(admin_disable_user: api::Named))
        .route(&at("admin/users/enable"), change!(admin_enable_user: api::Named))
        .route(&at("admin/users/totp"), change!(admin_new_totp: api::Named))
        .route(&at("admin/users/totp/remove"), change!(admin_remove_totp: api::Named))
        .route(&at("admin/services"), change!(admin_new_service: api::NewService))
        .route(&at("admin/sites"), change!(admin_new_site: api::NewSite))
        .route(&at("admin/sites/remove"), change!(admin_remove_site: api::Named))
        .route(&at("admin/resources"), change!(admin_new_resource: api::NewResource))
        .route(&at("admin/resources/remove"), change!(admin_remove_resource: api::Named))
        .route(&at("admin/groups"), change!(admin_new_group: api::NewGroup))
        .route(&at("admin/groups/remove"), change!(admin_remove_group: api::Named))
        .route(&at("admin/groups/members"), change!(admin_add_member: api::Membership))
        .route(&at("admin/groups/members/remove"), change!(admin_remove_member: api::Membership))
        .route(&at("admin/entitlements"), change!(admin_grant: api::EntitlementChange))
        .route(&at("admin/entitlements/remove"), change!(admin_take_back: api::EntitlementChange))
        .route(&at("admin/invitations"), change!(admin_invite: api::NewInvitation))
        .route(&at("admin/revocations"), change!(admin_revoke: api::NewRevocation))
        .route(
            &at("admin/controllers"),
            get(list!(shell, administrator, _now => shell.core.controller_rows(&administrator))),
        )
        .route(&at("admin/controllers/remove"), change!(admin_remove_controller: api::Named))
        .route(&at("admin/gateways"), get(list!(shell, administrator, now => gateways(&shell, &administrator, now))))
        .route(&at("admin/gateways/drain"), change!(admin_drain: api::Drain))
        .route(&at("admin/gateways/operations"), post(operate::operate))
        .route(&at("admin/gateways/remove"), change!(admin_remove_gateway: api::Named))
        .route(&at("admin/receipts"), get(receipts::receipts))
        .route(&at("admin/hosts"), change!(admin_add_host: api::Named).get(hosts::list))
        .route(&at("admin/hosts/remove"), change!(admin_remove_host: api::Named))
        .route(&at("hosts/certificate"), post(host_certificate))
        .route(&api::registration_path("{hostname}"), post(register_host))
        .route(&at("admin/sessions"), get(list!(shell, administrator, now => shell.core.sessions(&administrator, now))))
        .route(&at("admin/audit"), get(audit::events))
        .method_not_allowed_fallback(unknown)
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(Arc::clone(shell), finish))
        .with_state(Arc::clone(shell))
}

async fn unknown() -> Failure {
    let message = format!("expected a request of {}: docs/CONTROL.md lists them", api::BASE);
    Refused { message, ..Refused::not_found("request", "") }.into()
}

/// All Gateways, and whose stream is open here.
async fn gateways(
    shell: &Shell,
    administrator: &Administrator<action::ListGateways>,
    now: UnixSeconds,
) -> Result<Vec<api::GatewayRow>, Refused> {
    let mut rows = shell.core.gateways(administrator, now).await?;
    for row in &mut rows {
        row.connected = shell.hub.open_since(&row.id).is_some();
    }
    Ok(rows)
}

/// How to log in (R19).
async fn methods(State(shell): Shared) -> Json<api::LoginMethods> {
    let (methods, providers) = shell.identity.methods();
    Json(api::LoginMethods { organisation: shell.core.organisation().into(), methods, providers })
}

/// Password and proof for claims (A3–A6): a password of ours, or one that a directory knows.
async fn login(State(shell): Shared, Extension(caller): From, request: Request) -> Answer<api::LoginResponse> {
    let (now, asked) = (wall_clock(), Asked::from(request));
    let key = asked.prover(&shell, None, now)?;
    let body: api::LoginRequest = asked.json(BODY_BYTES_MAX).await?;
    let from = caller.address().ip();
    let answer = match body.method.as_deref() {
        None | Some(PASSWORD) => shell.core.login(&body, key, from, now).await,
        Some(method) => shell.identity.login(&shell.core, method, &body, key, from, now).await,
    };
    let answer = answer.map_err(|refused| Failure::about(&body.user, refused))?;
    shell.counters.count(counted::LOGINS);
    Ok(Json(answer))
}

/// The beginning of a login at an OpenID provider (R19, R20).
async fn oidc_begin(State(shell): Shared, Extension(caller): From, request: Request) -> Answer<api::OidcBegun> {
    let (now, asked) = (wall_clock(), Asked::from(request));
    let key = asked.prover(&shell, None, now)?;
    let body: api::OidcBegin = asked.json(BODY_BYTES_MAX).await?;
    let begun = shell.identity.begin(&shell.core, &body, key, caller.address().ip(), now).await;
    Ok(Json(begun.map_err(|refused| Failure::about(&body.method, refused))?))
}

/// Its end: what the browser brought for claims (R20–R22).
async fn oidc_finish(State(shell): Shared, Extension(caller): From, request: Request) -> Answer<api::LoginResponse> {
    let (now, asked) = (wall_clock(), Asked::from(request));
    let key = asked.prover(&shell, None, now)?;
    let body: api::OidcFinish = asked.json(BODY_BYTES_MAX).await?;
    let answer = shell.identity.finish(&shell.core, body, key, caller.address().ip(), now).await?;
    shell.counters.count(counted::LOGINS);
    Ok(Json(answer))
}

/// A program's certificate for claims (X12).
async fn login_service(State(shell): Shared, Extension(caller): From) -> Answer<api::LoginResponse> {
    let now = wall_clock();
    let peer = caller.peer_as(Role::Device, &shell.core, now)?;
    shell.rates.take(peer.key(), peer.session().map(SessionDn::user), Instant::now())?;
    let answer = shell.core.login_service(peer, now).await?;
    shell.counters.count(counted::LOGINS);
    Ok(Json(answer))
}

/// One-time passwords for whoever has just logged in.
async fn totp(State(shell): Shared, Extension(caller): From, request: Request) -> Answer<api::TotpSecret> {
    let now = wall_clock();
    let bearer = Asked::from(request).bearer_with_certificate(&shell, &caller, now)?;
    shell.pace(&bearer)?;
    Ok(Json(shell.core.new_totp(&bearer, now).await?))
}

/// Claims for entitlements (A6, A7).
async fn entitlements(
    State(shell): Shared,
    Extension(caller): From,
    request: Request,
) -> Answer<api::EntitlementsResponse> {
    let now = wall_clock();
    let bearer = Asked::from(request).bearer(&shell, &caller, now)?;
    shell.pace(&bearer)?;
    Ok(Json(shell.core.entitlements(&bearer, now).await?))
}

/// Claims and a signing request for a certificate (A8, A9).
async fn certificate(
    State(shell): Shared,
    Extension(caller): From,
    request: Request,
) -> Answer<api::CertificateResponse> {
    let (now, asked) = (wall_clock(), Asked::from(request));
    let bearer = asked.bearer(&shell, &caller, now)?;
    shell.pace(&bearer)?;
    let request = signing_request(asked).await?;
    Ok(Json(shell.core.certificate(&bearer, &request, now).await?))
}

/// The PKCS#10 request in the body of a request for a certificate.
pub(super) async fn signing_request(asked: Asked) -> Result<Vec<u8>, Refused> {
    let body: api::CertificateRequest = asked.json(BODY_BYTES_MAX).await?;
    let decoded = URL_SAFE_NO_PAD.decode(&body.certificate_request);
    decoded.map_err(|_| Refused::malformed("expected certificate_request as base64url without padding"))
}

/// New claims within the same login, which lasts as long as the provider's session does (R22).
async fn renew(State(shell): Shared, Extension(caller): From, request: Request) -> Answer<api::LoginResponse> {
    let now = wall_clock();
    let bearer = Asked::from(request).bearer_with_certificate(&shell, &caller, now)?;
    shell.pace(&bearer)?;
    let asking = {
        let (shell, bearer) = (Arc::clone(&shell), bearer.clone());
        async move { shell.identity.ask_again(&shell.core, &bearer, now).await }
    };
    // To its end also when whoever asked does not wait: a refresh token may be good once.
    tokio::spawn(asking).await.map_err(Refused::internal)??;
    Ok(Json(shell.core.renew(&bearer, now).await?))
}
