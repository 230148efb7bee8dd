//! The HTTP API: the table of `docs/CONTROL.md`, a line each.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Extension, State};
use axum::{Json, Router, middleware};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfort_directory::PASSWORD;
use ringfort_enrol::wall_clock;
use ringfort_identity::{Role, SessionDn};
use ringfort_proto::api;
use ringfort_types::UnixSeconds;
use serde_json::Value;

use super::caller::Caller;
use super::hosts::{self, host_certificate, register_host};
use super::http::{Asked, Failure, finish};
use super::limits::{ADMIN_BODY_BYTES_MAX, BODY_BYTES_MAX};
use super::openapi::{Route, Routes, Who};
use super::{Shell, audit, counted, operate, receipts};
use crate::core::{Administrator, Refused, action};

pub(super) type Shared = State<Arc<Shell>>;
pub(super) type From = Extension<Arc<Caller>>;
pub(super) type Answer<T> = Result<Json<T>, Failure>;

/// A request of an administrator with a body, answered with what the core answers.
macro_rules! change {
    ($routes:ident: $path:literal, $action:ident, $method:ident: $body:ty, $refused:expr, $summary:literal) => {
        let who = Who::administrator::<action::$action>();
        $routes.add(
            Route::post($path, who, $summary).refuses(&$refused),
            |State(shell): Shared, Extension(caller): From, asked: Asked<$body>| async move {
                let now = wall_clock();
                let bearer = asked.bearer_with_certificate(&shell, &caller, now)?;
                let administrator: Administrator<action::$action> = shell.core.administrator(&bearer, now).await?;
                let body = asked.json(ADMIN_BODY_BYTES_MAX).await?;
                Ok(Json(shell.core.$method(&administrator, body, now).await?))
            },
        );
    };
}

/// A list for administrators.
macro_rules! list {
    ($routes:ident: $path:literal, $action:ident, $summary:literal, |$shell:ident, $administrator:ident, $now:ident| $list:expr) => {
        let who = Who::administrator::<action::$action>();
        $routes.add(
            Route::get($path, who, $summary),
            |State($shell): Shared, Extension(caller): From, asked: Asked| async move {
                let $now = wall_clock();
                let bearer = asked.bearer_with_certificate(&$shell, &caller, $now)?;
                let $administrator: Administrator<action::$action> = $shell.core.administrator(&bearer, $now).await?;
                Ok(Json($list.await?))
            },
        );
    };
}

/// The table.
#[rustfmt::skip]
fn table() -> Routes {
    let mut routes = Routes::new();
    let r = &mut routes;
    r.add(Route::get("login", Who::Anybody, "How to log in (R19)"), methods);
    r.add(Route::post("login", Who::Prover, "Logs in by password (A3)").refuses(&LOGIN), login);
    r.add(Route::post("login/oidc/begin", Who::Prover, "Begins a login at an OpenID provider (R20)").refuses(&LOGIN), oidc_begin);
    r.add(Route::post("login/oidc/finish", Who::Prover, "Finishes a login at an OpenID provider (R20–R22)").refuses(&LOGIN), oidc_finish);
    r.add(Route::post("login/service", Who::Certificate(Role::Device), "Logs in a service account (X12)").refuses(&PACED), login_service);
    r.add(Route::post("entitlements", Who::Holder, "Entitlement tokens, one per site, and the connect token (A7, C1)").refuses(&[429, 503]), entitlements);
    r.add(Route::post("certificate", Who::Holder, "A certificate for the key of the claims token (A8, A9)").refuses(&PACED), certificate);
    r.add(Route::post("renew", Who::HolderWithCertificate, "New claims within the same login (R22)").refuses(&[429, 502, 503]), renew);
    r.add(Route::post("totp", Who::HolderWithCertificate, "One-time passwords for oneself; authenticated in the last 5 minutes").refuses(&[409, 429]), totp);
    list!(r: "admin/users", ListUsers, "All users", |shell, administrator, _now| shell.core.users(&administrator));
    change!(r: "admin/users", NewUser, admin_new_user: api::NewUser, [409, 503], "A new user");
    change!(r: "admin/users/role", ChangeRole, admin_change_role: api::RoleChange, [404], "Gives or takes a role of administrators");
    change!(r: "admin/users/remove", RemoveUser, admin_remove_user: api::Named, [404], "Removes a user with all that the user has");
    change!(r: "admin/users/email", SetEmail, admin_set_email: api::UserEmail, [404, 409], "The address by which providers know a user (R21)");
    change!(r: "admin/users/disable", DisableUser, admin_disable_user: api::Named, [404], "A user may not log in and loses everything at once");
    change!(r: "admin/users/enable", EnableUser, admin_enable_user: api::Named, [404], "A user may log in again");
    change!(r: "admin/users/totp", NewTotp, admin_new_totp: api::Named, [404], "One-time passwords of a user; authenticated in the last 5 minutes");
    change!(r: "admin/users/totp/remove", RemoveTotp, admin_remove_totp: api::Named, [404], "No more one-time passwords of a user; authenticated in the last 5 minutes");
    change!(r: "admin/users/external-otp", SetExternalOtp, admin_set_external_otp: api::Named, [404, 503], "A user's one-time passwords are checked by the organisation's own system; authenticated in the last 5 minutes");
    change!(r: "admin/users/external-otp/remove", RemoveExternalOtp, admin_remove_external_otp: api::Named, [404], "That system is not asked about a user any more; authenticated in the last 5 minutes");
    change!(r: "admin/services", NewService, admin_new_service: api::NewService, [409], "A new service account (X12)");
    change!(r: "admin/sites", NewSite, admin_new_site: api::NewSite, [409], "A new site");
    change!(r: "admin/sites/remove", RemoveSite, admin_remove_site: api::Named, [404], "Removes a site that has neither Resources nor Gateways");
    change!(r: "admin/resources", NewResource, admin_new_resource: api::NewResource, [404, 409], "A new Resource");
    change!(r: "admin/resources/remove", RemoveResource, admin_remove_resource: api::Named, [404], "Removes a Resource, and everybody's right to it");
    change!(r: "admin/groups", NewGroup, admin_new_group: api::NewGroup, [409], "A new group");
    change!(r: "admin/groups/remove", RemoveGroup, admin_remove_group: api::Named, [404], "Removes a group, and what its members had by it");
    change!(r: "admin/groups/members", AddMember, admin_add_member: api::Membership, [404, 409], "Adds a user to a group");
    change!(r: "admin/groups/members/remove", RemoveMember, admin_remove_member: api::Membership, [404], "Removes a user from a group");
    change!(r: "admin/entitlements", Grant, admin_grant: api::EntitlementChange, [404, 409, 503], "Grants; pushed at once (K5)");
    change!(r: "admin/entitlements/remove", TakeBack, admin_take_back: api::EntitlementChange, [404], "Takes back; pushed at once (K5)");
    list!(r: "admin/policy", SeePolicy, "What is in force, declared as a whole", |shell, administrator, _now| shell.core.policy(&administrator));
    change!(r: "admin/policy", ApplyPolicy, admin_apply_policy: api::PolicyChange, [404, 409, 503], "Puts a policy into force, all of it or nothing; pushed at once (K5)");
    change!(r: "admin/policy/plan", SeePolicy, admin_plan_policy: api::PolicyWanted, [404], "What would have to be done for a policy to be in force");
    change!(r: "admin/invitations", Invite, admin_invite: api::NewInvitation, [404, 409, 503], "Invites; authenticated in the last 5 minutes (R1, R2), for a Controller an owner");
    change!(r: "admin/revocations", Revoke, admin_revoke: api::NewRevocation, [404], "Revokes at once, or demands renewal (A23)");
    list!(r: "admin/controllers", ListControllers, "All Controllers", |shell, administrator, _now| shell.core.controller_rows(&administrator));
    change!(r: "admin/controllers/remove", RemoveController, admin_remove_controller: api::Named, [404], "Removes another Controller, by address or id");
    list!(r: "admin/gateways", ListGateways, "All Gateways", |shell, administrator, now| gateways(&shell, &administrator, now));
    change!(r: "admin/gateways/drain", OperateGateway, admin_drain: api::Drain, [404], "Drains a Gateway, or ends that (K6)");
    r.add(Route::post("admin/gateways/operations", Who::administrator::<action::OperateGateway>(), "Asks something of a Gateway (K6)").refuses(&[404, 409, 503, 504]), operate::operate);
    change!(r: "admin/gateways/remove", RemoveGateway, admin_remove_gateway: api::Named, [404], "Revokes a Gateway's key and removes it");
    list!(r: "admin/relays", ListRelays, "All Relays", |shell, administrator, _now| shell.core.relays(&administrator));
    change!(r: "admin/relays/remove", RemoveRelay, admin_remove_relay: api::Named, [404], "Revokes a Relay's key and removes it");
    r.add(Route::get("admin/receipts", Who::administrator::<action::SeeReceipts>(), "Who has applied what was taken back (X6)").query(&receipts::QUERY), receipts::receipts);
    r.add(Route::get("admin/hosts", Who::administrator::<action::ListHosts>(), "A page of the hosts that register themselves").query(&hosts::QUERY), hosts::list);
    change!(r: "admin/hosts", AddHost, admin_add_host: api::Named, [409], "Authorises a host to register itself (W6)");
    change!(r: "admin/hosts/remove", RemoveHost, admin_remove_host: api::Named, [404], "A host may not register itself any more");
    r.add(Route::post("hosts/certificate", Who::Certificate(Role::Host), "A new certificate for a host's key").refuses(&PACED), host_certificate);
    r.add(Route::registration(Who::Certificate(Role::Host), "Where a host can be reached (W5)").refuses(&PACED), register_host);
    list!(r: "admin/sessions", ListSessions, "All logins that have not ended", |shell, administrator, now| shell.core.sessions(&administrator, now));
    r.add(Route::get("admin/audit", Who::administrator::<action::ListAudit>(), "A page of the audit log").query(&audit::QUERY), audit::events);
    routes
}

/// What is refused beyond a rate (X12).
const PACED: [u16; 1] = [429];
/// Refusals of a login besides a wrong proof: unknown methods and users, too many attempts, providers.
const LOGIN: [u16; 5] = [403, 404, 429, 502, 503];

/// The API, and everything else that is asked for over HTTP and is not there.
pub(crate) fn router(shell: &Arc<Shell>) -> Router {
    let (router, _) = table().finish();
    router
        .method_not_allowed_fallback(|| async { Failure::from(Refused::method_not_allowed()) })
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(Arc::clone(shell), finish))
        .with_state(Arc::clone(shell))
}

/// The OpenAPI 3.1 document of the HTTP API, as a Controller serves it at `GET /api/v1/openapi.json`.
#[must_use]
pub fn openapi() -> Value {
    table().finish().1
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
        row.duplicate_at = shell.duplicates.of(&row.id).map(|taken| taken.at.0);
    }
    Ok(rows)
}

/// How to log in (R19).
async fn methods(State(shell): Shared, _: From, _: Asked) -> Answer<api::LoginMethods> {
    let (methods, providers) = shell.identity.methods();
    Ok(Json(api::LoginMethods { organisation: shell.core.organisation().into(), methods, providers }))
}

/// Password and proof for claims (A3–A6): a password of ours, or one that a directory knows.
async fn login(
    State(shell): Shared,
    Extension(caller): From,
    asked: Asked<api::LoginRequest>,
) -> Answer<api::LoginResponse> {
    let now = wall_clock();
    let key = asked.prover(&shell, None, now)?;
    let body = asked.json(BODY_BYTES_MAX).await?;
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
async fn oidc_begin(
    State(shell): Shared,
    Extension(caller): From,
    asked: Asked<api::OidcBegin>,
) -> Answer<api::OidcBegun> {
    let now = wall_clock();
    let key = asked.prover(&shell, None, now)?;
    let body = asked.json(BODY_BYTES_MAX).await?;
    let begun = shell.identity.begin(&shell.core, &body, key, caller.address().ip(), now).await;
    Ok(Json(begun.map_err(|refused| Failure::about(&body.method, refused))?))
}

/// Its end: what the browser brought for claims (R20–R22).
async fn oidc_finish(
    State(shell): Shared,
    Extension(caller): From,
    asked: Asked<api::OidcFinish>,
) -> Answer<api::LoginResponse> {
    let now = wall_clock();
    let key = asked.prover(&shell, None, now)?;
    let body = asked.json(BODY_BYTES_MAX).await?;
    let answer = shell.identity.finish(&shell.core, &body, key, caller.address().ip(), now).await?;
    shell.counters.count(counted::LOGINS);
    Ok(Json(answer))
}

/// A program's certificate for claims (X12).
async fn login_service(State(shell): Shared, Extension(caller): From, _: Asked) -> Answer<api::LoginResponse> {
    let now = wall_clock();
    let peer = caller.peer_as(Role::Device, &shell.core, now)?;
    shell.rates.take(peer.key(), peer.session().map(SessionDn::user), Instant::now())?;
    let answer = shell.core.login_service(peer, now).await?;
    shell.counters.count(counted::LOGINS);
    Ok(Json(answer))
}

/// One-time passwords for whoever has just logged in.
async fn totp(State(shell): Shared, Extension(caller): From, asked: Asked) -> Answer<api::TotpSecret> {
    let now = wall_clock();
    let bearer = asked.bearer_with_certificate(&shell, &caller, now)?;
    shell.pace(&bearer)?;
    Ok(Json(shell.core.new_totp(&bearer, now).await?))
}

/// Claims for entitlements (A6, A7).
async fn entitlements(
    State(shell): Shared,
    Extension(caller): From,
    asked: Asked,
) -> Answer<api::EntitlementsResponse> {
    let now = wall_clock();
    let bearer = asked.bearer(&shell, &caller, now)?;
    shell.pace(&bearer)?;
    Ok(Json(shell.core.entitlements(&bearer, now).await?))
}

/// Claims and a signing request for a certificate (A8, A9).
async fn certificate(
    State(shell): Shared,
    Extension(caller): From,
    asked: Asked<api::CertificateRequest>,
) -> Answer<api::CertificateResponse> {
    let now = wall_clock();
    let bearer = asked.bearer(&shell, &caller, now)?;
    shell.pace(&bearer)?;
    let request = signing_request(asked).await?;
    Ok(Json(shell.core.certificate(&bearer, &request, now).await?))
}

/// The PKCS#10 request in the body of a request for a certificate.
pub(super) async fn signing_request(asked: Asked<api::CertificateRequest>) -> Result<Vec<u8>, Refused> {
    let body = asked.json(BODY_BYTES_MAX).await?;
    let decoded = URL_SAFE_NO_PAD.decode(&body.certificate_request);
    decoded.map_err(|_| Refused::malformed("expected certificate_request as base64url without padding"))
}

/// New claims within the same login, which lasts as long as the provider's session does (R22).
async fn renew(State(shell): Shared, Extension(caller): From, asked: Asked) -> Answer<api::LoginResponse> {
    let now = wall_clock();
    let bearer = asked.bearer_with_certificate(&shell, &caller, now)?;
    shell.pace(&bearer)?;
    let asking = {
        let (shell, bearer) = (Arc::clone(&shell), bearer.clone());
        async move { shell.identity.ask_again(&shell.core, &bearer, now).await }
    };
    // To its end also when whoever asked does not wait: a refresh token may be good once.
    tokio::spawn(asking).await.map_err(Refused::internal)??;
    Ok(Json(shell.core.renew(&bearer, now).await?))
}
