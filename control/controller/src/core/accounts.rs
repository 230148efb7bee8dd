//! What administrators change of an account: its e-mail address, whether it is active; and accounts of programs (X12).

use ringfort_directory::Email;
use ringfort_proto::api;
use ringfort_token::{Effect, Entry};
use ringfort_types::UnixSeconds;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{checked_name, taken};
use super::decision::Decision;
use super::refused::Refused;
use super::store::{self, User};
use super::{Administrator, Core, action, to_the_end};

/// An address as users have it.
///
/// # Errors
/// `request_malformed`.
pub(crate) fn checked_email(text: &str) -> Result<Email, Refused> {
    text.parse().map_err(|error: ringfort_directory::EmailError| Refused::malformed(error.to_string()))
}

impl Core {
    /// Sets the address by which identity providers know a user (R21), or takes it away.
    ///
    /// # Errors
    /// `not_found`, `already_exists` for another's address, `request_malformed`.
    pub async fn admin_set_email(
        &self,
        administrator: &Administrator<action::SetEmail>,
        request: api::UserEmail,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        let email = request.email.as_deref().map(checked_email).transpose()?;
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let user = decision.user(&request.name).await?;
            administrator.over(&user)?;
            let before = store::accounts(&mut decision.tx).await?.remove(&user.id).and_then(|account| account.email);
            decision.set_email(&user.id, email.as_ref()).await?;
            decision.record(json!({ "email": before }), json!({ "email": email.as_ref().map(Email::as_str) }));
            decision.close("set-email", &user.name, email.as_ref().map_or("", Email::as_str)).await
        })
        .await
    }

    /// Lets a user log in no more; what they have is revoked at once.
    ///
    /// # Errors
    /// `not_found`; `request_malformed` for the last owner, `role_insufficient` for an administrator.
    pub async fn admin_disable_user(
        &self,
        administrator: &Administrator<action::DisableUser>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let user = decision.user(&request.name).await?;
            administrator.over(&user)?;
            if user.active {
                decision.keep_an_owner(&user).await?;
            }
            store::set_active(&mut decision.tx, &user.id, false).await?;
            decision.record(json!({ "active": user.active }), json!({ "active": false }));
            let keep_until = Core::tokens_end(now);
            let entry = |scope| Entry { scope, effect: Effect::Revoke, reason: "disabled".into(), keep_until };
            decision.revoke_user(user.id, entry).await?;
            decision.close("disable-user", &user.name, "").await
        })
        .await
    }

    /// Lets a user log in again.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn admin_enable_user(
        &self,
        administrator: &Administrator<action::EnableUser>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let user = decision.user(&request.name).await?;
            administrator.over(&user)?;
            store::set_active(&mut decision.tx, &user.id, true).await?;
            decision.record(json!({ "active": user.active }), json!({ "active": true }));
            decision.close("enable-user", &user.name, "").await
        })
        .await
    }

    /// Adds an account of a program: a user without a password, which nobody can log in as but by a certificate.
    ///
    /// # Errors
    /// `request_malformed`, `already_exists`.
    pub async fn admin_new_service(
        &self,
        administrator: &Administrator<action::NewService>,
        request: api::NewService,
        now: UnixSeconds,
    ) -> Result<api::Created, Refused> {
        let api::NewService { name } = request;
        checked_name("service", &name)?;
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let (id, password) = (Uuid::new_v4().to_string(), String::new());
            let user = User { id, name, password, role: None, active: true, generation: 1 };
            if !store::insert_user(&mut decision.tx, &user).await? {
                return Err(taken("user or service", &user.name));
            }
            store::make_service(&mut decision.tx, &user.id).await?;
            decision.record(Value::Null, json!({ "name": user.name, "service": true }));
            decision.close("new-service", &user.name, "").await?;
            Ok(api::Created { id: user.id })
        })
        .await
    }
}

impl Decision {
    /// Makes an address a user's.
    ///
    /// # Errors
    /// `already_exists` for another's, `request_malformed` for a service, which logs in at no provider.
    pub(super) async fn set_email(&mut self, user: &str, email: Option<&Email>) -> Result<(), Refused> {
        if email.is_some() && store::is_service(&mut self.tx, user).await? {
            return Err(Refused::malformed("a service logs in by its certificate alone and has no e-mail address"));
        }
        if !store::set_email(&mut self.tx, user, email.map(Email::as_str)).await? {
            return Err(Refused::already_exists("another user has this e-mail address"));
        }
        Ok(())
    }
}
