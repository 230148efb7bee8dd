//! The two standard services of a gRPC endpoint: `grpc.health.v1.Health` and `grpc.reflection.v1.ServerReflection`.
//!
//! Whoever completes TLS may ask both. Health says whether this Controller can decide anything: a probe needs no certificate of
//! ours for that. Reflection says what the .proto files in the repository say. Both answer from memory, so that asking makes the
//! database work for nobody, and a message of theirs is small. Requests that are open, watches above all, are bounded by address.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};
use tonic::Status;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{self, HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_server;
use tonic_reflection::server::{Builder, Error};

use super::caller::Caller;
use super::grpc::{self, refuse};
use super::limits::{HEALTH_EVERY, HEALTH_TIME, SMALL_MESSAGE_BYTES_MAX};
use super::{Shell, short};
use crate::core::{Refused, network};

/// Looks every [`HEALTH_EVERY`] whether this Controller can decide, for ever.
pub(crate) async fn keep(shell: &Shell) {
    loop {
        let is_able = timeout(HEALTH_TIME, shell.core.is_able()).await.unwrap_or(false);
        let changed = shell.able.send_if_modified(|was| std::mem::replace(was, is_able) != is_able);
        match (changed, is_able) {
            (true, false) => {
                tracing::error!("this Controller cannot decide anything: its database is away, or it was removed")
            }
            (true, true) => tracing::info!("this Controller can decide again"),
            (false, _) => {}
        }
        sleep(HEALTH_EVERY).await;
    }
}

/// Both services.
///
/// # Errors
/// When a set of descriptors is none.
pub(crate) fn services(shell: &Arc<Shell>) -> Result<Router, Error> {
    let health = HealthServer::new(Answerer(Arc::clone(shell))).max_decoding_message_size(SMALL_MESSAGE_BYTES_MAX);
    let reflection = Builder::configure()
        .register_encoded_file_descriptor_set(ringfort_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
        .build_v1()?
        .max_decoding_message_size(SMALL_MESSAGE_BYTES_MAX);
    let at = |name: &str| format!("/{name}/{{*method}}");
    Ok(Router::new()
        .route_service(&at(pb::health_server::SERVICE_NAME), health)
        .route_service(&at(server_reflection_server::SERVICE_NAME), reflection)
        .layer(from_fn_with_state(Arc::clone(shell), bounded)))
}

/// Lets only so many requests of one address be open; a request is open as long as its answer is.
async fn bounded(
    State(shell): State<Arc<Shell>>,
    Extension(caller): Extension<Arc<Caller>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(place) = shell.open_requests.place(network(caller.address().ip())) else {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        return refuse(&shell, &caller, short(method), Refused::requests_limited()).await.into_http();
    };
    next.run(request).await.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _ = &place;
            frame
        }))
    })
}

/// Answers from what [`keep`] has seen.
struct Answerer(Arc<Shell>);

impl Answerer {
    /// Whether this is a service of ours; the empty name is the whole of it.
    fn has(service: &str) -> bool {
        ["", grpc::NAME, pb::health_server::SERVICE_NAME, server_reflection_server::SERVICE_NAME].contains(&service)
    }
}

#[tonic::async_trait]
impl Health for Answerer {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        if !Self::has(&request.get_ref().service) {
            return Err(Status::not_found("expected the name of a service of this endpoint, or none"));
        }
        Ok(tonic::Response::new(said(status(&self.0))))
    }

    async fn watch(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let is_known = Self::has(&request.get_ref().service);
        let (shell, able) = (Arc::clone(&self.0), self.0.able.subscribe());
        let watch = unfold((shell, able, None), move |(shell, mut able, told)| async move {
            loop {
                able.borrow_and_update();
                let status = if is_known { status(&shell) } else { ServingStatus::ServiceUnknown };
                if told != Some(status) {
                    return Some((Ok(said(status)), (shell, able, Some(status))));
                }
                if shell.is_stopping() {
                    return None;
                }
                tokio::select! {
                    changed = able.changed() => changed.ok()?,
                    () = shell.stopped() => {}
                }
            }
        });
        Ok(tonic::Response::new(watch.boxed()))
    }
}

fn status(shell: &Shell) -> ServingStatus {
    if *shell.able.borrow() && !shell.is_stopping() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn said(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
