//! `GatewayControl`: the door for Gateways and nobody else.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Extension, State};
use axum::middleware::Next;
use ringfort_enrol::wall_clock;
use ringfort_identity::{PeerIdentity, Role};
use ringfort_proto::v1;
use ringfort_proto::v1::gateway_control_server::{GatewayControl, GatewayControlServer};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status, Streaming};

use super::caller::Caller;
use super::limits::GRPC_BYTES_MAX;
use super::stream::{self, Pushes};
use super::{Shell, duplicates, short};
use crate::core::Refused;

/// Full name of the service, as in request paths.
pub(crate) const NAME: &str = v1::gateway_control_server::SERVICE_NAME;
/// When a Gateway is to report again. Three reports missed and clients are not sent to it any more (R18).
const REPORT_AGAIN_MS: u32 = 5_000;

/// The service.
pub(crate) fn service(shell: &Arc<Shell>) -> GatewayControlServer<Control> {
    GatewayControlServer::new(Control { shell: Arc::clone(shell) })
        .max_decoding_message_size(GRPC_BYTES_MAX)
        .max_encoding_message_size(usize::MAX)
}

/// Milliseconds since 1970.
pub(crate) fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Behind the door.
pub(crate) struct Control {
    shell: Arc<Shell>,
}

#[tonic::async_trait]
impl GatewayControl for Control {
    type SubscribeStream = Pushes;

    async fn enroll(&self, request: Request<v1::EnrollRequest>) -> Result<Response<v1::EnrollResponse>, Status> {
        let door = Door::new(&self.shell, "Enroll", &request)?;
        let chain = async {
            let request = &request.get_ref().certificate_request;
            self.shell.core.enroll(door.gateway()?, request, wall_clock()).await
        };
        let chain = door.answer(chain.await).await?;
        Ok(Response::new(v1::EnrollResponse { chain: chain.into_iter().map(Into::into).collect() }))
    }

    async fn subscribe(
        &self,
        request: Request<Streaming<v1::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let door = Door::new(&self.shell, "Subscribe", &request)?;
        door.answer(door.gateway().map(drop)).await?;
        let caller = door.caller;
        let begun = stream::begin(&self.shell, &caller, request.into_inner()).await;
        match begun {
            Ok(pushes) => Ok(Response::new(pushes)),
            Err(refused) => Err(refuse(&self.shell, &caller, "Subscribe", refused).await),
        }
    }

    async fn report(&self, request: Request<v1::ReportRequest>) -> Result<Response<v1::ReportResponse>, Status> {
        let door = Door::new(&self.shell, "Report", &request)?;
        let agrees = async { self.shell.core.report(door.gateway()?, request.get_ref(), wall_clock()).await };
        let state_agrees = door.answer(agrees.await).await?;
        let (gateway, theirs) = (door.answer(door.gateway()).await?.id(), request.get_ref().gateway_time_ms);
        self.shell.clocks.note(gateway, theirs, wall_clock_ms());
        duplicates::note_sessions(&self.shell, &door.caller, gateway, &request.get_ref().sessions).await;
        Ok(Response::new(v1::ReportResponse {
            controller_time_ms: wall_clock_ms(),
            report_again_ms: REPORT_AGAIN_MS,
            state_agrees,
        }))
    }
}

/// Before anything of a request's body is read: what others than Gateways send is not taken in.
pub(crate) async fn gateways_only(
    State(shell): State<Arc<Shell>>,
    Extension(caller): Extension<Arc<Caller>>,
    request: axum::extract::Request,
    next: Next,
) -> axum::response::Response {
    match caller.peer_as(Role::Gateway, &shell.core, wall_clock()) {
        Ok(_) => next.run(request).await,
        Err(refused) => {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default();
            refuse(&shell, &caller, short(method), refused).await.into_http()
        }
    }
}

/// One request at the door.
struct Door<'a> {
    shell: &'a Shell,
    method: &'static str,
    caller: Arc<Caller>,
}

impl<'a> Door<'a> {
    fn new<T>(shell: &'a Shell, method: &'static str, request: &Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get().cloned();
        // The listener puts it there, whatever comes.
        let caller = caller.ok_or_else(|| Status::internal("a request without a connection"))?;
        Ok(Self { shell, method, caller })
    }

    fn gateway(&self) -> Result<&PeerIdentity, Refused> {
        self.caller.peer_as(Role::Gateway, &self.shell.core, wall_clock())
    }

    async fn answer<T>(&self, answer: Result<T, Refused>) -> Result<T, Status> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(refused) => Err(refuse(self.shell, &self.caller, self.method, refused).await),
        }
    }
}

/// Counts and writes a refusal, and gives the form in which it is answered.
pub(crate) async fn refuse(shell: &Shell, caller: &Caller, method: &str, refused: Refused) -> Status {
    let event = shell.refuse(caller, method, "", &refused).await;
    let code = match refused.status {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::AlreadyExists,
        429 | 503 => Code::ResourceExhausted,
        408 => Code::DeadlineExceeded,
        500 => Code::Internal,
        _ => Code::InvalidArgument,
    };
    let mut status = Status::new(code, refused.message);
    let metadata = status.metadata_mut();
    metadata.insert("ringfort-code", MetadataValue::from_static(refused.code));
    if let Ok(event) = MetadataValue::try_from(event) {
        metadata.insert("ringfort-event", event);
    }
    status
}
