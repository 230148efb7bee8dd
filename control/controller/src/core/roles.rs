//! Administrators, their roles, and the one table of what each role may do.
//!
//! An action is a type. Whoever carries it out asks for [`Administrator`] of that very type, and the only ways to one are
//! [`Core::administrator`] and [`Administrator::also`], which look into the table. So no action can be called unchecked.

use std::marker::PhantomData;
use std::sync::Arc;

use ringfort_proto::api;
use ringfort_proto::api::AdministratorRole;
use ringfort_token::{Effect, Entry};
use ringfort_types::UnixSeconds;
use serde_json::json;

use super::accounts::is_a_persons;
use super::decision::Decision;
use super::refused::Refused;
use super::{Bearer, Core, store, to_the_end};

/// Something that administrators do and nobody else.
pub trait Action: sealed::Sealed {
    /// As the audit log and refusals call it.
    const NAME: &'static str;
    /// The least role that may do it.
    const LEAST: AdministratorRole;
}

mod sealed {
    pub trait Sealed {}
}

/// The table.
macro_rules! actions {
    ($($action:ident, $name:literal => $least:ident;)*) => {
        /// The actions, a type each.
        pub mod action {
            /// The name of each, in the order of the table.
            pub const NAMES: &[&str] = &[$($name),*];

            $(
                #[doc = concat!("`", $name, "`")]
                #[derive(Debug)]
                pub enum $action {}
            )*
        }

        $(
            impl sealed::Sealed for action::$action {}

            impl Action for action::$action {
                const NAME: &'static str = $name;
                const LEAST: AdministratorRole = AdministratorRole::$least;
            }
        )*
    };
}

actions! {
    ListUsers, "list-users" => Auditor;
    ListGateways, "list-gateways" => Auditor;
    ListControllers, "list-controllers" => Auditor;
    ListHosts, "list-hosts" => Auditor;
    ListRelays, "list-relays" => Auditor;
    ListSessions, "list-sessions" => Auditor;
    ListAudit, "list-audit" => Auditor;
    SeeReceipts, "see-receipts" => Auditor;
    SeePolicy, "see-policy" => Auditor;
    NewUser, "new-user" => Admin;
    RemoveUser, "remove-user" => Admin;
    NewSite, "new-site" => Admin;
    RemoveSite, "remove-site" => Admin;
    NewResource, "new-resource" => Admin;
    RemoveResource, "remove-resource" => Admin;
    NewGroup, "new-group" => Admin;
    RemoveGroup, "remove-group" => Admin;
    AddMember, "add-member" => Admin;
    RemoveMember, "remove-member" => Admin;
    Grant, "grant" => Admin;
    TakeBack, "take-back" => Admin;
    ApplyPolicy, "apply-policy" => Admin;
    Invite, "invite" => Admin;
    Revoke, "revoke" => Admin;
    RemoveGateway, "remove-gateway" => Admin;
    RemoveRelay, "remove-relay" => Admin;
    AddHost, "add-host" => Admin;
    RemoveHost, "remove-host" => Admin;
    SetEmail, "set-email" => Admin;
    DisableUser, "disable-user" => Admin;
    EnableUser, "enable-user" => Admin;
    NewTotp, "new-totp" => Admin;
    RemoveTotp, "remove-totp" => Admin;
    SetExternalOtp, "set-external-otp" => Admin;
    RemoveExternalOtp, "remove-external-otp" => Admin;
    NewService, "new-service" => Admin;
    OperateGateway, "operate-gateway" => Admin;
    ChangeRole, "change-role" => Owner;
    InviteController, "invite-controller" => Owner;
    RemoveController, "remove-controller" => Owner;
}

/// Proof that a bearer was an administrator who may do `A` when it was asked; a decision asks again, in its own transaction.
#[derive(Debug)]
pub struct Administrator<A> {
    bearer: Arc<Bearer>,
    name: String,
    role: AdministratorRole,
    action: PhantomData<fn() -> A>,
}

impl<A> Administrator<A> {
    /// Login name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Their role.
    #[must_use]
    pub const fn role(&self) -> AdministratorRole {
        self.role
    }

    /// When they last proved who they are.
    #[must_use]
    pub fn auth_time(&self) -> UnixSeconds {
        self.bearer.claims.auth_time
    }

    /// Whether they may change how this user logs in: whoever can change that of an administrator can become one.
    ///
    /// # Errors
    /// `role_insufficient`.
    pub(crate) fn over(&self, user: &store::User) -> Result<(), Refused> {
        if user.role.is_some() {
            self.also::<action::ChangeRole>()?;
        }
        Ok(())
    }

    /// As [`Administrator::over`], where nobody needs leave to do it to themselves.
    ///
    /// # Errors
    /// `role_insufficient`.
    pub(crate) fn is_or_over(&self, user: &store::User) -> Result<(), Refused> {
        if user.name == self.name { Ok(()) } else { self.over(user) }
    }

    /// Proof that they may do `B` as well.
    ///
    /// # Errors
    /// `role_insufficient`.
    pub fn also<B: Action>(&self) -> Result<Administrator<B>, Refused> {
        Administrator::checked(&self.bearer, &self.name, self.role)
    }
}

impl<A: Action> Administrator<A> {
    /// The check.
    fn checked(bearer: &Arc<Bearer>, name: &str, role: AdministratorRole) -> Result<Self, Refused> {
        if role < A::LEAST {
            return Err(Refused::role_insufficient(A::NAME, A::LEAST, role));
        }
        Ok(Self { bearer: Arc::clone(bearer), name: name.to_owned(), role, action: PhantomData })
    }

    /// Whether they are logged in, active and of this role still, in the transaction of a decision: others may have been taken
    /// since they asked, while their request was on its way and waited for its turn.
    ///
    /// # Errors
    /// `not_administrator`, `role_insufficient`, `token_revoked` when the login has ended.
    pub(crate) async fn still(&self, core: &Core, tx: &mut store::Connection, now: UnixSeconds) -> Result<(), Refused> {
        let (_, role) = core.administrator_in(tx, &self.bearer, now).await?;
        // What they may besides was looked up by the role that they had.
        if role < self.role {
            return Err(Refused::role_insufficient(A::NAME, self.role, role));
        }
        Ok(())
    }
}

impl<A> Clone for Administrator<A> {
    fn clone(&self) -> Self {
        let Self { bearer, name, role, action } = self;
        Self { bearer: Arc::clone(bearer), name: name.clone(), role: *role, action: *action }
    }
}

impl Core {
    /// Whether the bearer is an administrator who may do `A`, as the database has it now.
    ///
    /// # Errors
    /// `not_administrator`, `role_insufficient`, `token_revoked` when the login has ended.
    pub async fn administrator<A: Action>(
        &self,
        bearer: &Bearer,
        now: UnixSeconds,
    ) -> Result<Administrator<A>, Refused> {
        let (name, role) = self.administrator_in(&mut *self.inner.store.read().await?, bearer, now).await?;
        Administrator::checked(&Arc::new(bearer.clone()), &name, role)
    }

    /// Login name and role of a bearer who is an administrator.
    async fn administrator_in(
        &self,
        c: &mut store::Connection,
        bearer: &Bearer,
        now: UnixSeconds,
    ) -> Result<(String, AdministratorRole), Refused> {
        self.login_of(c, bearer, now).await?;
        let user = store::user_by_id(c, &bearer.claims.user).await?.filter(|user| user.active);
        let user = user.ok_or_else(Refused::not_administrator)?;
        let role = user.role.ok_or_else(Refused::not_administrator)?;
        Ok((user.name, role))
    }

    /// Gives a user a role as an administrator, another one, or none. It counts from the next request on; whoever has logged in at
    /// a provider and becomes an administrator logs in again.
    ///
    /// # Errors
    /// `not_found`; `request_malformed` for the last owner, and for a service.
    pub async fn admin_change_role(
        &self,
        administrator: &Administrator<action::ChangeRole>,
        request: api::RoleChange,
        now: UnixSeconds,
    ) -> Result<(), Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let user = decision.user(&request.name).await?;
            if request.role.is_some() {
                is_a_persons(&mut decision.tx, &user).await?;
            }
            if request.role != Some(AdministratorRole::Owner) {
                decision.keep_an_owner(&user).await?;
            }
            // Whether a provider may log administrators in is asked when they log in: whoever becomes one does so again.
            let becomes_one = user.role.is_none() && request.role.is_some();
            if becomes_one && store::has_subjects(&mut decision.tx, &user.id).await? {
                let (reason, keep_until) = ("now an administrator", Core::tokens_end(now));
                let entry = |scope| Entry { scope, effect: Effect::Revoke, reason: reason.into(), keep_until };
                decision.revoke_user(user.id.clone(), entry).await?;
            }
            store::set_role(&mut decision.tx, &user.id, request.role).await?;
            let role = |role| json!({ "role": role_text(role) });
            decision.record(role(user.role), role(request.role));
            let detail = format!("{} to {}", role_text(user.role), role_text(request.role));
            decision.close("change-role", &user.name, &detail).await.map(drop)
        })
        .await
    }
}

impl Decision {
    /// Whether an owner who may log in is left without this user. One who may not is none whose place must be taken.
    ///
    /// # Errors
    /// `request_malformed` for the last one.
    pub(crate) async fn keep_an_owner(&mut self, user: &store::User) -> Result<(), Refused> {
        let is_owner = user.active && user.role == Some(AdministratorRole::Owner);
        if is_owner && store::owners_besides(&mut self.tx, &user.id).await? == 0 {
            return Err(Refused::malformed("this is the last owner who may log in: make another one first"));
        }
        Ok(())
    }
}

/// A role for people.
pub(crate) const fn role_text(role: Option<AdministratorRole>) -> &'static str {
    match role {
        Some(role) => role.as_str(),
        None => "none",
    }
}
