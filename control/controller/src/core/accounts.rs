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
use super::store::{self, Connection, User};
use super::{Action, Administrator, Core, action, to_the_end};

/// An address as users have it.
///
/// # Errors
/// `request_malformed`.
pub(crate) fn checked_email(text: &str) -> Result<Email, Refused> {
    text.parse().map_err(|error: ringfort_directory::EmailError| Refused::malformed(error.to_string()))
}

/// That an account is a person's. A program logs in by its certificate alone, and decides nothing.
///
/// # Errors
/// `request_malformed`.
pub(super) async fn is_a_persons(c: &mut Connection, user: &User) -> Result<(), Refused> {
    if store::is_service(c, &user.id).await? {
        return Err(Refused::malformed(format!(
            "{:?} is a service, which logs in by its certificate alone and has neither role nor e-mail address nor one-time passwords: name a person",
            user.name
        )));
    }
    Ok(())
}

impl Core {
    /// Sets the address by which identity providers know a user (R21), or takes it away. Who they were at each provider is forgotten
    /// with it, also if the address stays: whoever had logged in there is logged out.
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
            let (mut decision, user) = Decision::about(&core, &administrator, &request.name, now).await?;
            let email = email.as_ref().map(Email::as_str);
            let before = store::email_of(&mut decision.tx, &user.id).await?;
            decision.set_email(&user, email).await?;
            let forgotten = store::forget_subjects(&mut decision.tx, &user.id).await?;
            let had_another = before.is_some() && before.as_deref() != email;
            if had_another || !forgotten.is_empty() {
                let (reason, keep_until) = ("the e-mail address was set anew", Core::tokens_end(now));
                let entry = |scope| Entry { scope, effect: Effect::Revoke, reason: reason.into(), keep_until };
                decision.revoke_user(user.id.clone(), entry).await?;
            }
            decision.record(json!({ "email": before, "known_to": forgotten }), json!({ "email": email }));
            decision.close("set-email", &user.name, email.unwrap_or_default()).await
        })
        .await
    }

    /// Lets a user log in no more. What they have is revoked at once, the keys of their machines for good.
    ///
    /// # Errors
    /// `not_found`; `request_malformed` for the last owner, `role_insufficient` for an administrator.
    pub async fn admin_disable_user(
        &self,
        administrator: &Administrator<action::DisableUser>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        self.change_account(administrator, request, Account::Closed, now).await
    }

    /// Lets a user log in again, from machines that join or log in with new keys.
    ///
    /// # Errors
    /// `not_found`, `role_insufficient` for an administrator.
    pub async fn admin_enable_user(
        &self,
        administrator: &Administrator<action::EnableUser>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        self.change_account(administrator, request, Account::Open, now).await
    }

    async fn change_account<A: Action + 'static>(
        &self,
        administrator: &Administrator<A>,
        request: api::Named,
        account: Account,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let (mut decision, user) = Decision::about(&core, &administrator, &request.name, now).await?;
            let (is_active, action) = match account {
                Account::Open => (true, "enable-user"),
                Account::Closed => (false, "disable-user"),
            };
            if account == Account::Closed {
                decision.keep_an_owner(&user).await?;
                decision.shut_out(&user, "disabled", now).await?;
            }
            store::set_active(&mut decision.tx, &user.id, is_active).await?;
            decision.record(json!({ "active": user.active }), json!({ "active": is_active }));
            decision.close(action, &user.name, "").await
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

/// Whether somebody may log in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Account {
    Open,
    Closed,
}

impl Decision {
    /// Begins a decision about how the user `name` logs in, which only an owner takes about administrators.
    ///
    /// # Errors
    /// `not_found`, `role_insufficient`.
    pub(super) async fn about<A: Action>(
        core: &Core,
        administrator: &Administrator<A>,
        name: &str,
        now: UnixSeconds,
    ) -> Result<(Self, User), Refused> {
        let mut decision = Self::begin(core, administrator, now).await?;
        let user = decision.user(name).await?;
        administrator.over(&user)?;
        Ok((decision, user))
    }

    /// Makes an address a user's.
    ///
    /// # Errors
    /// `already_exists` for another's, `request_malformed` for a service, which logs in at no provider.
    pub(super) async fn set_email(&mut self, user: &User, email: Option<&str>) -> Result<(), Refused> {
        if email.is_some() {
            is_a_persons(&mut self.tx, user).await?;
        }
        if !store::set_email(&mut self.tx, &user.id, email).await? {
            return Err(Refused::already_exists("another user has this e-mail address"));
        }
        Ok(())
    }

    /// Takes everything from a user that they could go on with: tokens and logins, the keys of their machines, and invitations
    /// that were not used. The machines are forgotten, so that their names are free for other keys.
    pub(super) async fn shut_out(&mut self, user: &User, reason: &str, now: UnixSeconds) -> Result<(), Refused> {
        let entry = |scope, keep_until| Entry { scope, effect: Effect::Revoke, reason: reason.to_owned(), keep_until };
        for jkt in store::delete_devices(&mut self.tx, &user.id).await? {
            self.deny_key(&jkt, reason).await?;
        }
        store::void_invitations_of_user(&mut self.tx, &user.id, now).await?;
        self.revoke_user(user.id.clone(), |scope| entry(scope, Core::tokens_end(now))).await
    }
}
