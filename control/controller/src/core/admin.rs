//! What administrators change: people, and what is taken back.

use std::time::Duration;

use ringfort_identity::SessionDn;
use ringfort_proto::api;
use ringfort_proto::api::{AdministratorRole, GRACE_SECONDS_MAX, REASON_BYTES_MAX};
use ringfort_token::{Effect, Entry, EntryScope};
use ringfort_types::UnixSeconds;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{checked_name, taken};
use super::accounts::checked_email;
use super::decision::Decision;
use super::password::Passwords;
use super::refused::Refused;
use super::roles::role_text;
use super::store::{self, User};
use super::{Administrator, Core, LOGIN_SECONDS_ALLOWED, action, to_the_end};

/// Oldest authentication that counts as fresh, in seconds (R2).
const FRESH_SECONDS: u64 = 300;

impl Core {
    /// Whether an administrator has proved who they are in the last five minutes (R2).
    ///
    /// # Errors
    /// `authentication_not_fresh`.
    pub fn fresh<A>(&self, administrator: &Administrator<A>, now: UnixSeconds) -> Result<(), Refused> {
        check_fresh(administrator.auth_time(), now)
    }

    /// Adds a user; one with a role only whoever may change roles.
    ///
    /// # Errors
    /// `request_malformed`, `already_exists`, `login_busy`, `role_insufficient`.
    pub async fn admin_new_user(
        &self,
        administrator: &Administrator<action::NewUser>,
        request: api::NewUser,
        now: UnixSeconds,
    ) -> Result<api::Created, Refused> {
        let api::NewUser { name, password, role, email } = &request;
        if role.is_some() {
            administrator.also::<action::ChangeRole>()?;
        }
        let email = email.as_deref().map(checked_email).transpose()?;
        let user = match (password.as_str(), &email) {
            // Who logs in at an identity provider needs no password here.
            ("", Some(_)) => without_password(name, *role)?,
            (password, _) => new_user(&self.inner.passwords, name, password, *role).await?,
        };
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            if !store::insert_user(&mut decision.tx, &user).await? {
                return Err(taken("user", &user.name));
            }
            if let Some(email) = &email {
                decision.set_email(&user, Some(email.as_str())).await?;
            }
            let mut after = json!({ "name": user.name, "role": role_text(user.role) });
            if let Some(email) = &email {
                after["email"] = email.as_str().into();
            }
            decision.record(Value::Null, after);
            decision.close("new-user", &user.name, role_text(user.role)).await?;
            Ok(api::Created { id: user.id })
        })
        .await
    }

    /// Removes a user with all that the user has: tokens and keys are revoked at once.
    ///
    /// # Errors
    /// `not_found`; `request_malformed` for the last owner; `role_insufficient` for one with a role.
    pub async fn admin_remove_user(
        &self,
        administrator: &Administrator<action::RemoveUser>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let (mut decision, user) = Decision::about(&core, &administrator, &request.name, now).await?;
            decision.keep_an_owner(&user).await?;
            decision.shut_out(&user, "removed", now).await?;
            let groups = store::groups_of(&mut decision.tx, &user.id).await?;
            decision.record(json!({ "name": user.name, "role": role_text(user.role), "groups": groups }), Value::Null);
            store::delete_user(&mut decision.tx, &user.id).await?;
            decision.close("remove-user", &user.name, &user.id).await
        })
        .await
    }

    /// Revokes at once, or demands renewal within a grace time (A23); pushed at once. From other administrators only an owner takes,
    /// and so from everyone.
    ///
    /// # Errors
    /// `not_found`, also for the renewal of a device without a login; `request_malformed`, `role_insufficient`.
    pub async fn admin_revoke(
        &self,
        administrator: &Administrator<action::Revoke>,
        request: api::NewRevocation,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        let api::NewRevocation { scope, reason, grace_seconds } = request;
        if reason.is_empty() || reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
            let message = format!("expected a reason of 1 to {REASON_BYTES_MAX} bytes without control characters");
            return Err(Refused::malformed(message));
        }
        let effect = match grace_seconds {
            None => Effect::Revoke,
            Some(grace @ 1..=GRACE_SECONDS_MAX) => Effect::RenewBy(now + Duration::from_secs(u64::from(grace))),
            Some(_) => return Err(Refused::malformed(format!("expected `grace_seconds` of 1 to {GRACE_SECONDS_MAX}"))),
        };
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let keep_until = Core::tokens_end(now);
            let entry = |scope| Entry { scope, effect, reason: reason.clone(), keep_until };
            let target = match scope {
                api::RevocationScope::User(name) => {
                    let user = decision.user(&name).await?;
                    administrator.is_or_over(&user)?;
                    decision.revoke_user(user.id, entry).await?;
                    format!("user {name}")
                }
                api::RevocationScope::Group(name) => {
                    let group = decision.group(&name).await?;
                    for id in store::members_of(&mut decision.tx, &group).await? {
                        let user = store::user_by_id(&mut decision.tx, &id).await?;
                        user.map_or(Ok(()), |user| administrator.is_or_over(&user))?;
                        decision.revoke_user(id, entry).await?;
                    }
                    format!("group {name}")
                }
                api::RevocationScope::Everyone => {
                    administrator.also::<action::ChangeRole>()?;
                    for user in store::active_users(&mut decision.tx).await? {
                        decision.revoke_user(user, entry).await?;
                    }
                    "everyone".to_owned()
                }
                api::RevocationScope::Device(client) => {
                    let device = store::device(&mut decision.tx, &client).await?;
                    let (user, jkt) = device.ok_or_else(|| Refused::not_found("device", &client))?;
                    let owner = store::user_by_id(&mut decision.tx, &user).await?;
                    owner.map_or(Ok(()), |owner| administrator.is_or_over(&owner))?;
                    if effect == Effect::Revoke {
                        decision.deny_key(&jkt, &reason).await?;
                        store::end_logins_of_key(&mut decision.tx, &jkt).await?;
                    } else {
                        // A key is what renews, so what dies is what it holds: the claims, and all that hangs on them.
                        let dn = SessionDn::new(&client, &user, core.organisation())?.to_string();
                        let login = store::live_login(&mut decision.tx, &dn, now).await?;
                        let login =
                            login.ok_or_else(|| Refused::not_found("device whose user is logged in", &client))?;
                        decision.revoke(entry(EntryScope::Token(login.claims))).await?;
                    }
                    format!("device {client}")
                }
                api::RevocationScope::Token(id) => {
                    let id = Uuid::parse_str(&id).map_err(|_| Refused::malformed("expected the jti of a token"))?;
                    let id = id.to_string();
                    let owner = store::user_of_claims(&mut decision.tx, &id).await?;
                    owner.map_or(Ok(()), |owner| administrator.is_or_over(&owner))?;
                    decision.revoke(entry(EntryScope::Token(id.clone()))).await?;
                    if effect == Effect::Revoke {
                        store::end_login_of_claims(&mut decision.tx, &id).await?;
                    }
                    format!("token {id}")
                }
            };
            let action = if effect == Effect::Revoke { "revoke" } else { "renew" };
            let until = match effect {
                Effect::Revoke => Value::Null,
                Effect::RenewBy(by) => by.0.into(),
            };
            decision.record(Value::Null, json!({ "of": target, "good_until": until, "reason": reason }));
            decision.close(action, &target, &reason).await
        })
        .await
    }

    /// When every token that is issued until now has ended, by whichever Controller: another one may let logins last longer than
    /// this one, and this one may have done so before its settings were changed.
    pub(crate) fn tokens_end(now: UnixSeconds) -> UnixSeconds {
        let hour = 3_600;
        now + Duration::from_secs(LOGIN_SECONDS_ALLOWED.end() + hour)
    }
}

impl Decision {
    /// Starts the next generation of a user's tokens. Revoked at once, the user's logins end with it; with grace they are
    /// what is renewed.
    pub(super) async fn revoke_user(
        &mut self,
        user: String,
        entry: impl Fn(EntryScope) -> Entry,
    ) -> Result<(), Refused> {
        let below = store::raise_generation(&mut self.tx, &user).await?;
        let entry = entry(EntryScope::User { user: user.clone(), below });
        let effect = entry.effect;
        self.revoke(entry).await?;
        if effect == Effect::Revoke {
            store::end_logins_of_user(&mut self.tx, &user).await?;
        }
        Ok(())
    }
}

/// A user that is not in the database yet.
///
/// # Errors
/// `request_malformed`, `login_busy`.
pub(super) async fn new_user(
    passwords: &Passwords,
    name: &str,
    password: &str,
    role: Option<AdministratorRole>,
) -> Result<User, Refused> {
    let user = without_password(name, role)?;
    Ok(User { password: passwords.hash(password).await?, ..user })
}

fn without_password(name: &str, role: Option<AdministratorRole>) -> Result<User, Refused> {
    checked_name("user", name)?;
    let (id, name, password) = (Uuid::new_v4().to_string(), name.to_owned(), String::new());
    Ok(User { id, name, password, role, active: true, generation: 1 })
}

/// Whether an authentication is of the last five minutes (R2).
///
/// # Errors
/// `authentication_not_fresh`.
pub(super) fn check_fresh(auth_time: UnixSeconds, now: UnixSeconds) -> Result<(), Refused> {
    match now.saturating_since(auth_time).as_secs() {
        0..=FRESH_SECONDS => Ok(()),
        age => Err(Refused::not_fresh(age, FRESH_SECONDS)),
    }
}
