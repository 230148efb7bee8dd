//! What administrators ask of one Gateway (K6): draining, which is kept, and operations, which are passed on at once.

use ringfort_proto::api;
use ringfort_types::UnixSeconds;
use serde_json::json;

use super::decision::Decision;
use super::refused::Refused;
use super::{Administrator, Core, Event, action, store, to_the_end};

/// Longest log filter, in bytes.
const FILTER_BYTES_MAX: usize = 256;
/// Longest version, in bytes.
const VERSION_BYTES_MAX: usize = 32;

impl Core {
    /// Drains a Gateway or ends that. Its configuration says so from then on, over every new stream and restart.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn admin_drain(
        &self,
        administrator: &Administrator<action::OperateGateway>,
        request: api::Drain,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let api::Drain { name, draining } = request;
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let id = store::gateway_named(&mut decision.tx, &name).await?.ok_or_else(|| unknown(&name))?;
            let gateway = store::gateway(&mut decision.tx, &id).await?.ok_or_else(|| unknown(&name))?;
            let before = store::draining(&mut decision.tx).await?.contains(&id);
            store::set_draining(&mut decision.tx, &id, draining).await?;
            decision.record(json!({ "draining": before }), json!({ "draining": draining }));
            decision.reconfigure(&gateway.site);
            decision.close("drain", &name, if draining { "on" } else { "off" }).await
        })
        .await
    }

    /// The id of the Gateway that is asked to do something, for whoever passes it on.
    ///
    /// # Errors
    /// `not_found`, `request_malformed`; `not_administrator`, `role_insufficient`, `token_revoked` for somebody who may not do
    /// so any more.
    pub async fn operated(
        &self,
        administrator: &Administrator<action::OperateGateway>,
        request: &api::OperationRequest,
        now: UnixSeconds,
    ) -> Result<String, Refused> {
        if let api::Operation::LogLevel(filter) = &request.operation
            && (filter.is_empty() || filter.len() > FILTER_BYTES_MAX || filter.chars().any(char::is_control))
        {
            return Err(Refused::malformed(format!("expected a log filter of 1 to {FILTER_BYTES_MAX} bytes")));
        }
        match &request.operation {
            api::Operation::Upgrade { version, sha256 } => {
                let is_version = |byte: u8| byte.is_ascii_digit() || byte == b'.';
                if version.is_empty() || version.len() > VERSION_BYTES_MAX || !version.bytes().all(is_version) {
                    return Err(Refused::malformed("expected a version of three numbers, such as 1.2.3".to_owned()));
                }
                if api::parse_sha256(sha256).is_none() {
                    return Err(Refused::malformed("expected a SHA-256 digest of 64 hexadecimal digits".to_owned()));
                }
            }
            api::Operation::Capture(limits) => limits.check().map_err(Refused::malformed)?,
            _ => {}
        }
        let mut c = self.inner.store.read().await?;
        administrator.still(self, &mut c, now).await?;
        store::gateway_named(&mut c, &request.name).await?.ok_or_else(|| unknown(&request.name))
    }

    /// Writes down what became of an operation; gives the event's id.
    pub async fn operation_done(
        &self,
        administrator: &Administrator<action::OperateGateway>,
        request: &api::OperationRequest,
        id: &str,
        now: UnixSeconds,
    ) -> String {
        let action = match &request.operation {
            api::Operation::Reload => "reload".to_owned(),
            api::Operation::LogLevel(filter) => format!("log-level {filter}"),
            api::Operation::EndSessions => "end-sessions".to_owned(),
            api::Operation::Upgrade { version, sha256 } => format!("upgrade {version} {sha256}"),
            api::Operation::Capture(api::CaptureLimits { seconds, packets, bytes, snap_bytes }) => {
                format!("capture {seconds} s, {packets} packets, {bytes} bytes, {snap_bytes} of each")
            }
        };
        let (actor, target) = (administrator.name(), request.name.as_str());
        self.audit(Event { actor, action: &action, target, outcome: "ok", detail: id }, now).await
    }
}

fn unknown(name: &str) -> Refused {
    Refused::not_found("Gateway", name)
}
