//! Operations on one Gateway: passed on to its stream, answered by what it says (K6).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use ringfort_enrol::wall_clock;
use ringfort_proto::api;
use ringfort_proto::v1::operation::What;
use ringfort_proto::v1::{self, OperationDone};
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use super::Shell;
use super::caller::Caller;
use super::http::{Asked, Failure};
use super::hub;
use super::limits::{ADMIN_BODY_BYTES_MAX, OPERATION_TIME};
use crate::core::Refused;

/// `POST admin/gateways/operations`.
pub(crate) async fn operate(
    State(shell): State<Arc<Shell>>,
    Extension(caller): Extension<Arc<Caller>>,
    asked: Asked<api::OperationRequest>,
) -> Result<Json<api::OperationAnswer>, Failure> {
    let now = wall_clock();
    let bearer = asked.bearer_with_certificate(&shell, &caller, now)?;
    let administrator = shell.core.administrator(&bearer, now).await?;
    let action = asked.action();
    let request = asked.json(ADMIN_BODY_BYTES_MAX).await?;
    let gateway = shell.core.operated(&administrator, &request, wall_clock()).await?;
    // What was asked of a Gateway is written down with what became of it, also when whoever asked has hung up.
    let carrying_out = tokio::spawn(async move {
        let id = Uuid::new_v4().to_string();
        match ask(&shell, &gateway, &request, &id).await {
            Ok(done) => {
                let event = shell.core.operation_done(&administrator, &request, &id, wall_clock()).await;
                Ok(Json(api::OperationAnswer { id, detail: done.detail, event }))
            }
            Err(refused) => {
                let event = shell.refuse(&caller, &action, &request.name, &refused).await;
                Err(Failure::about(&request.name, refused).written(event))
            }
        }
    });
    carrying_out.await.map_err(Refused::internal)?
}

/// # Errors
/// `gateway_unreachable`, `gateway_busy`, `operation_late`, `operation_failed`.
async fn ask(
    shell: &Shell,
    gateway: &str,
    request: &api::OperationRequest,
    id: &str,
) -> Result<OperationDone, Refused> {
    let what = match &request.operation {
        api::Operation::Reload => What::Reload(v1::Reload {}),
        api::Operation::LogLevel(filter) => What::SetLogLevel(v1::SetLogLevel { filter: filter.clone() }),
        api::Operation::EndSessions => What::EndSessions(v1::EndSessions {}),
        api::Operation::Upgrade { version, sha256 } => {
            let sha256 = api::parse_sha256(sha256).unwrap_or_default().to_vec().into();
            What::Upgrade(v1::Upgrade { version: version.clone(), sha256 })
        }
        api::Operation::Capture(api::CaptureLimits { seconds, packets, bytes, snap_bytes }) => {
            What::Capture(v1::Capture { seconds: *seconds, packets: *packets, bytes: *bytes, snap_bytes: *snap_bytes })
        }
    };
    let (answer, answered) = oneshot::channel();
    let operation = v1::Operation { id: id.into(), what: Some(what) };
    let name = &request.name;
    shell.hub.ask(gateway, name, hub::Asked { operation, answer })?;
    let done = timeout(OPERATION_TIME, answered).await.ok().and_then(Result::ok);
    let done = done.ok_or_else(|| Refused::operation_late(name))?;
    if done.code.is_empty() {
        Ok(done)
    } else {
        Err(Refused::operation_failed(name, super::short(&done.code), super::short(&done.detail)))
    }
}
