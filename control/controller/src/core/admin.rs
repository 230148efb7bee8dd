//! What administrators change: people, sites, Resources, entitlements, and what is taken back.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;
use ringfort_policy::RuleSpec;
use ringfort_proto::api;
use ringfort_proto::api::AdministratorRole;
use ringfort_token::{Effect, Entry, EntryScope, Grant};
use ringfort_types::UnixSeconds;
use serde_json::{Value, json};
use uuid::Uuid;

use super::accounts::checked_email;
use super::decision::Decision;
use super::password::Passwords;
use super::refused::Refused;
use super::roles::role_text;
use super::store::{self, Owner, Site, User};
use super::{Action, Administrator, Core, LOGIN_SECONDS_ALLOWED, action, to_the_end};

/// Longest name of a user, group, site or Gateway, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Groups that one user is in, whose names stand in the claims token: 4 of its 16 KiB.
const GROUPS_MAX: usize = 64;
/// Sites of an organisation, whose ids may all stand in one claims token: 6 of its 16 KiB.
const SITES_MAX: usize = 128;
/// Longest pool prefixes: a pool has room for the Gateways and one client at least.
const POOL_PREFIX_MAX: (u8, u8) = (30, 126);
/// Longest reason of a revocation, in bytes; it is shown to the user.
const REASON_BYTES_MAX: usize = 256;
/// Seconds of grace that a renewal may have: a day, which is longer than a login.
const GRACE_SECONDS: std::ops::RangeInclusive<u32> = 1..=86_400;
/// How long a revoked key stays revoked, in seconds: 10 years, the life of the root.
pub(super) const KEY_SECONDS: u64 = 3_652 * 86_400;

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

    /// Adds a site.
    ///
    /// # Errors
    /// `request_malformed`, `already_exists`.
    pub async fn admin_new_site(
        &self,
        administrator: &Administrator<action::NewSite>,
        request: api::NewSite,
        now: UnixSeconds,
    ) -> Result<api::Created, Refused> {
        checked_name("site", &request.name)?;
        checked_pools(&request.pools)?;
        let site = Site { id: Uuid::new_v4().to_string(), name: request.name, pools: request.pools };
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            if store::sites(&mut decision.tx).await?.len() >= SITES_MAX {
                return Err(Refused::malformed(format!("expected at most {SITES_MAX} sites")));
            }
            if !store::insert_site(&mut decision.tx, &site).await? {
                return Err(taken("site", &site.name));
            }
            decision.record(Value::Null, json!({ "name": site.name, "pools": site.pools }));
            decision.close("new-site", &site.name, &site.pools.join(" ")).await?;
            Ok(api::Created { id: site.id })
        })
        .await
    }

    /// Removes a site that has neither Resources nor Gateways.
    ///
    /// # Errors
    /// `not_found`, `request_malformed`.
    pub async fn admin_remove_site(
        &self,
        administrator: &Administrator<action::RemoveSite>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<(), Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let site = decision.site(&request.name).await?;
            if store::things_at(&mut decision.tx, &site.id).await? > 0 {
                return Err(Refused::malformed("expected a site without Resources and Gateways: remove those first"));
            }
            store::delete_site(&mut decision.tx, &site.id).await?;
            decision.record(json!({ "name": site.name, "pools": site.pools }), Value::Null);
            decision.close("remove-site", &site.name, &site.id).await.map(drop)
        })
        .await
    }

    /// Adds a Resource; the Gateways of its site hear of it.
    ///
    /// # Errors
    /// `request_malformed`, `not_found`, `already_exists`.
    pub async fn admin_new_resource(
        &self,
        administrator: &Administrator<action::NewResource>,
        request: api::NewResource,
        now: UnixSeconds,
    ) -> Result<api::Created, Refused> {
        let grant = checked_grant(request.name, request.to, request.services)?;
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let (id, site) = (Uuid::new_v4().to_string(), decision.site(&request.site).await?);
            if !store::insert_resource(&mut decision.tx, &id, &site.id, &grant).await? {
                return Err(taken("Resource", &grant.name));
            }
            // A Gateway must be able to hear of it.
            let allow = store::resources_at(&mut decision.tx, &site.id).await?;
            let whole = core.sign_configuration(&id, &site, allow, (u64::MAX, true), now);
            whole.map_err(|_| Refused::malformed("the Resources of this site would not fit into one configuration"))?;
            decision.reconfigure(&site.id);
            decision.record(Value::Null, resource_json(&grant, &site.name));
            decision.close("new-resource", &grant.name, &format!("{:?} {:?}", grant.to, grant.services)).await?;
            Ok(api::Created { id })
        })
        .await
    }

    /// Removes a Resource, and everybody's right to it.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn admin_remove_resource(
        &self,
        administrator: &Administrator<action::RemoveResource>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let found = store::resource(&mut decision.tx, &request.name).await?;
            let (id, site) = found.ok_or_else(|| Refused::not_found("Resource", &request.name))?;
            let users = store::users_of_resource(&mut decision.tx, &id).await?.into_iter().collect();
            let named = store::sites(&mut decision.tx).await?.remove(&site).map(|site| site.name).unwrap_or_default();
            let was = store::resources_at(&mut decision.tx, &site).await?;
            let was = was.iter().find(|grant| grant.name == request.name).map(|grant| resource_json(grant, &named));
            decision.record(was.unwrap_or_default(), Value::Null);
            store::delete_resource(&mut decision.tx, &id).await?;
            decision.push(&users, &BTreeSet::from([site.clone()])).await?;
            decision.reconfigure(&site);
            decision.close("remove-resource", &request.name, &id).await
        })
        .await
    }

    /// Adds a group.
    ///
    /// # Errors
    /// `request_malformed`, `already_exists`.
    pub async fn admin_new_group(
        &self,
        administrator: &Administrator<action::NewGroup>,
        request: api::NewGroup,
        now: UnixSeconds,
    ) -> Result<api::Created, Refused> {
        checked_name("group", &request.name)?;
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let id = Uuid::new_v4().to_string();
            if !store::insert_group(&mut decision.tx, &id, &request.name).await? {
                return Err(taken("group", &request.name));
            }
            decision.record(Value::Null, json!({ "name": request.name }));
            decision.close("new-group", &request.name, "").await?;
            Ok(api::Created { id })
        })
        .await
    }

    /// Removes a group, and what its members had by it.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn admin_remove_group(
        &self,
        administrator: &Administrator<action::RemoveGroup>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let group = decision.group(&request.name).await?;
            let users: BTreeSet<String> = store::members_of(&mut decision.tx, &group).await?.into_iter().collect();
            let sites = store::sites_of_group(&mut decision.tx, &group).await?.into_iter().collect();
            decision.record(json!({ "name": request.name, "members": users }), Value::Null);
            store::delete_group(&mut decision.tx, &group).await?;
            decision.push(&users, &sites).await?;
            decision.close("remove-group", &request.name, &group).await
        })
        .await
    }

    /// Adds a user to a group.
    ///
    /// # Errors
    /// `not_found`, `already_exists`, `request_malformed` for one group too many.
    pub async fn admin_add_member(
        &self,
        administrator: &Administrator<action::AddMember>,
        request: api::Membership,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        self.change_member(administrator, request, Gives::More, now).await
    }

    /// Removes a user from a group.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn admin_remove_member(
        &self,
        administrator: &Administrator<action::RemoveMember>,
        request: api::Membership,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        self.change_member(administrator, request, Gives::Less, now).await
    }

    async fn change_member<A: Action + Send + 'static>(
        &self,
        administrator: &Administrator<A>,
        request: api::Membership,
        gives: Gives,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let group = decision.group(&request.group).await?;
            let user = decision.user(&request.user).await?;
            let tx = &mut decision.tx;
            let before = store::groups_of(tx, &user.id).await?;
            let action = match gives {
                Gives::More => {
                    if before.len() >= GROUPS_MAX {
                        return Err(Refused::malformed(format!("expected at most {GROUPS_MAX} groups of one user")));
                    }
                    if !store::insert_member(tx, &group, &user.id).await? {
                        return Err(Refused::already_exists("the user is in this group"));
                    }
                    "add-member"
                }
                Gives::Less => {
                    if !store::delete_member(tx, &group, &user.id).await? {
                        return Err(Refused::not_found("member", &user.name));
                    }
                    "remove-member"
                }
            };
            let sites = store::sites_of_group(tx, &group).await?.into_iter().collect();
            let after = store::groups_of(tx, &user.id).await?;
            decision.record(json!({ "groups": before }), json!({ "groups": after }));
            decision.push(&BTreeSet::from([user.id]), &sites).await?;
            decision.close(action, &request.group, &user.name).await
        })
        .await
    }

    /// Entitles a user or a group to a Resource; pushed at once (K5).
    ///
    /// # Errors
    /// `not_found`, `already_exists`, `request_malformed` when somebody's token would be too long.
    pub async fn admin_grant(
        &self,
        administrator: &Administrator<action::Grant>,
        request: api::EntitlementChange,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        self.change_entitlement(administrator, request, Gives::More, now).await
    }

    /// Takes an entitlement back; pushed at once (K5).
    ///
    /// # Errors
    /// `not_found`.
    pub async fn admin_take_back(
        &self,
        administrator: &Administrator<action::TakeBack>,
        request: api::EntitlementChange,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        self.change_entitlement(administrator, request, Gives::Less, now).await
    }

    async fn change_entitlement<A: Action + Send + 'static>(
        &self,
        administrator: &Administrator<A>,
        request: api::EntitlementChange,
        gives: Gives,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let found = store::resource(&mut decision.tx, &request.resource).await?;
            let (resource, site) = found.ok_or_else(|| Refused::not_found("Resource", &request.resource))?;
            let (owner, users, whose) = match &request.principal {
                api::Principal::User(name) => {
                    let id = decision.user(name).await?.id;
                    (Owner::User(id.clone()), BTreeSet::from([id]), format!("user {name}"))
                }
                api::Principal::Group(name) => {
                    let id = decision.group(name).await?;
                    let members = store::members_of(&mut decision.tx, &id).await?.into_iter().collect();
                    (Owner::Group(id), members, format!("group {name}"))
                }
            };
            let action = match gives {
                Gives::More => {
                    if !store::insert_entitlement(&mut decision.tx, &resource, &owner).await? {
                        return Err(Refused::already_exists(format!("the {whose} is entitled to this Resource")));
                    }
                    "grant"
                }
                Gives::Less => {
                    if !store::delete_entitlement(&mut decision.tx, &resource, &owner).await? {
                        return Err(Refused::not_found("entitlement", &request.resource));
                    }
                    "take-back"
                }
            };
            let entitled = |entitled: bool| json!({ "resource": request.resource, "of": whose, "entitled": entitled });
            let given = matches!(gives, Gives::More);
            decision.record(entitled(!given), entitled(given));
            decision.push(&users, &BTreeSet::from([site])).await?;
            decision.close(action, &request.resource, &whose).await
        })
        .await
    }

    /// Revokes at once, or demands renewal within a grace time (A23); pushed at once. From other administrators only an owner takes,
    /// and so from everyone.
    ///
    /// # Errors
    /// `not_found`, `request_malformed`, `role_insufficient`.
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
            Some(grace) if GRACE_SECONDS.contains(&grace) => {
                Effect::RenewBy(now + Duration::from_secs(u64::from(grace)))
            }
            Some(_) => return Err(Refused::malformed("expected `grace_seconds` of 1 to 86400")),
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
                    if effect != Effect::Revoke {
                        return Err(Refused::malformed(
                            "a device's key cannot be renewed: revoke it at once, or demand renewal of its user",
                        ));
                    }
                    let device = store::device(&mut decision.tx, &client).await?;
                    let (owner, jkt) = device.ok_or_else(|| Refused::not_found("device", &client))?;
                    let owner = store::user_by_id(&mut decision.tx, &owner).await?;
                    owner.map_or(Ok(()), |owner| administrator.is_or_over(&owner))?;
                    let key = jkt.parse().map_err(Refused::internal)?;
                    // Unlike a token a key has no end.
                    let keep_until = now + Duration::from_secs(KEY_SECONDS);
                    decision.revoke(Entry { keep_until, ..entry(EntryScope::Key(key)) }).await?;
                    store::end_logins_of_key(&mut decision.tx, &jkt).await?;
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

/// Whether a change gives or takes.
#[derive(Clone, Copy)]
enum Gives {
    More,
    Less,
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

pub(super) fn taken(what: &str, name: &str) -> Refused {
    Refused::already_exists(format!("there is a {what} {name:?}: choose another name"))
}

/// Names are shown, logged and typed.
///
/// # Errors
/// `request_malformed`.
pub(crate) fn checked_name(what: &str, name: &str) -> Result<(), Refused> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@+".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        return Err(Refused::malformed(format!(
            "expected a name of a {what} of 1 to {NAME_BYTES_MAX} letters, digits, '-', '_', '.', '@' or '+'"
        )));
    }
    Ok(())
}

/// Pools with the Gateways' own address, one per family at most.
fn checked_pools(pools: &[String]) -> Result<(), Refused> {
    let form = || {
        Refused::malformed(
            "expected one pool per family at most, each with the Gateways' own address, such as 10.97.0.1/16 or fd00:97::1/64",
        )
    };
    let parsed: Vec<IpNet> = pools.iter().map(|pool| pool.parse().map_err(|_| form())).collect::<Result<_, _>>()?;
    let of_family = |is_v4: bool| parsed.iter().filter(|pool| pool.addr().is_ipv4() == is_v4).count();
    let has_host = |pool: &IpNet| {
        let longest = if pool.addr().is_ipv4() { POOL_PREFIX_MAX.0 } else { POOL_PREFIX_MAX.1 };
        pool.prefix_len() <= longest && pool.addr() != pool.network() && pool.addr() != pool.broadcast()
    };
    if parsed.is_empty() || of_family(true) > 1 || of_family(false) > 1 || !parsed.iter().all(has_host) {
        return Err(form());
    }
    Ok(())
}

/// A Resource for the audit log.
fn resource_json(grant: &Grant, site: &str) -> Value {
    json!({ "name": grant.name, "site": site, "to": grant.to, "services": grant.services })
}

/// A Resource as Gateways will read it.
fn checked_grant(name: String, to: Vec<String>, services: Vec<String>) -> Result<Grant, Refused> {
    let rule = serde_json::json!({ "name": name, "action": "allow", "to": to, "services": services });
    serde_json::from_value::<RuleSpec>(rule).map_err(|error| Refused::malformed(error.to_string()))?;
    Ok(Grant { name, to, services })
}
