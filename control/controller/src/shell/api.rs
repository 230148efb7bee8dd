//! The HTTP API: the table of `docs/CONTROL.md`, a line each.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfort_enrol::wall_clock;
use ringfort_proto::api;
use ringfort_types::UnixSeconds;

use super::caller::Caller;
use super::http::{Asked, Failure, finish};
use super::limits::{ADMIN_BODY_BYTES_MAX, BODY_BYTES_MAX};
use super::{Shell, audit, counted, operate, receipts};
use crate::core::{Administrator, Refused, action};

type Shared = State<Arc<Shell>>;
type From = Extension<Arc<Caller>>;
type Answer<T> = Result<Json<T>, Failure>;

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
        .route(&at("entitlements"), post(entitlements))
        .route(&at("certificate"), post(certificate))
        .route(&at("renew"), post(renew))
        .route(
            &at("admin/users"),
            change!(admin_new_user: api::NewUser)
                .get(list!(shell, administrator, _now => shell.core.users(&administrator))),
        )
        .route(&at("admin/users/role"), change!(admin_change_role: api::RoleChange))
        .route(&at("admin/users/remove"), change!(admin_remove_user: api::Named))
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
        .route(&at("admin/gateways"), get(list!(shell, administrator, now => gateways(&shell, &administrator, now))))
        .route(&at("admin/gateways/drain"), change!(admin_drain: api::Drain))
        .route(&at("admin/gateways/operations"), post(operate::operate))
        .route(&at("admin/gateways/remove"), change!(admin_remove_gateway: api::Named))
        .route(&at("admin/receipts"), get(receipts::receipts))
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
    Json(api::LoginMethods { organisation: shell.core.organisation().into(), methods: vec!["password".into()] })
}

/// Password and proof for claims (A3–A6).
async fn login(State(shell): Shared, Extension(caller): From, request: Request) -> Answer<api::LoginResponse> {
    let (now, asked) = (wall_clock(), Asked::from(request));
    let key = asked.prover(&shell, None, now)?;
    let body: api::LoginRequest = asked.json(BODY_BYTES_MAX).await?;
    let answer = shell.core.login(&body, key, caller.address().ip(), now).await;
    let answer = answer.map_err(|refused| Failure::about(&body.user, refused))?;
    shell.counters.count(counted::LOGINS);
    Ok(Json(answer))
}

/// Claims for entitlements (A6, A7).
async fn entitlements(
    State(shell): Shared,
    Extension(caller): From,
    request: Request,
) -> Answer<api::EntitlementsResponse> {
    let now = wall_clock();
    let bearer = Asked::from(request).bearer(&shell, &caller, now)?;
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
    let body: api::CertificateRequest = asked.json(BODY_BYTES_MAX).await?;
    let request = URL_SAFE_NO_PAD
        .decode(&body.certificate_request)
        .map_err(|_| Refused::malformed("expected certificate_request as base64url without padding"))?;
    Ok(Json(shell.core.certificate(&bearer, &request, now).await?))
}

/// New claims within the same login.
async fn renew(State(shell): Shared, Extension(caller): From, request: Request) -> Answer<api::LoginResponse> {
    let now = wall_clock();
    let bearer = Asked::from(request).bearer_with_certificate(&shell, &caller, now)?;
    Ok(Json(shell.core.renew(&bearer, now).await?))
}
