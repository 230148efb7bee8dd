//! Removing a Gateway.
//!
//! Its keys are revoked, the one it has and the one that is to follow it, and its row goes in one decision, so that its stream ends, no request of its certificate is answered, no
//! connect token that is issued from then on names it, and it cannot join again by an invitation from before. Clients that
//! hold an older connect token are sent to it for as long as that lasts, ten minutes at most; a Gateway that hears that it
//! was removed ends their sessions at once.

use ringfort_proto::api;
use ringfort_token::InviteeKind;
use ringfort_types::UnixSeconds;
use serde_json::{Value, json};

use super::decision::{Decision, REMOVED};
use super::refused::Refused;
use super::store;
use super::{Administrator, Core, action, to_the_end};

impl Core {
    /// Removes a Gateway, or the invitations of one that has not joined yet.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn admin_remove_gateway(
        &self,
        administrator: &Administrator<action::RemoveGateway>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let invitations =
                store::void_invitations(&mut decision.tx, InviteeKind::Gateway, &request.name, now).await?;
            let found = store::gateway_named(&mut decision.tx, &request.name).await?;
            if found.is_none() && invitations == 0 {
                return Err(Refused::not_found("Gateway", &request.name));
            }
            let mut detail = format!("{invitations} invitations");
            let mut was = json!({ "name": request.name, "invitations": invitations });
            if let Some(id) = found {
                let gateway = store::gateway(&mut decision.tx, &id).await?;
                let gateway = gateway.ok_or_else(|| Refused::not_found("Gateway", &request.name))?;
                for jkt in gateway.keys() {
                    decision.deny_key(jkt, REMOVED).await?;
                }
                was["id"] = id.as_str().into();
                was["jkt"] = gateway.keys().collect::<Vec<_>>().into();
                was["site"] = gateway.site.into();
                was["addresses"] = gateway.addresses.into();
                store::delete_gateway(&mut decision.tx, &id).await?;
                detail = format!("{id}, {detail}");
            }
            decision.record(was, Value::Null);
            decision.close("remove-gateway", &request.name, &detail).await
        })
        .await
    }
}
