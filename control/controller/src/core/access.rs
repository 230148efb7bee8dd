//! Who may reach what: sites, Resources, groups, entitlements.
//!
//! Every change is a [`PolicyStep`], taken by itself or as one of those of a whole policy ([`super::policy`]), so that its rules
//! stand in one place. A step notes whose tokens it touches; they are signed anew, once, when the decision is closed.

use std::collections::BTreeSet;

use ipnet::IpNet;
use ringfort_policy::RuleSpec;
use ringfort_proto::api::{self, NAME_BYTES_MAX, PolicyReach, PolicyStep, Principal};
use ringfort_token::Grant;
use ringfort_types::UnixSeconds;
use serde_json::{Value, json};
use uuid::Uuid;

use super::decision::{Decision, Done};
use super::refused::Refused;
use super::store::{self, Owner, Relay, Site, User};
use super::{Action, Administrator, Core, action, to_the_end};

/// Groups that one user is in, whose names stand in the claims token: 4 of its 16 KiB.
pub(super) const GROUPS_MAX: usize = 64;
/// Sites of an organisation, whose ids may all stand in one claims token: 6 of its 16 KiB.
pub(super) const SITES_MAX: usize = 128;
/// Longest pool prefixes: a pool has room for the Gateways and one client at least.
const POOL_PREFIX_MAX: (u8, u8) = (30, 126);

impl Core {
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
        let api::NewSite { name, pools } = request;
        let step = PolicyStep::NewSite { site: name, pools: pools.into_iter().collect() };
        self.take_step(administrator, step, now).await.map(|(id, _)| api::Created { id })
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
        let step = PolicyStep::RemoveSite { site: request.name };
        self.take_step(administrator, step, now).await.map(drop)
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
        let api::NewResource { name, site, to, services } = request;
        let (to, services) = (to.into_iter().collect(), services.into_iter().collect());
        let step = PolicyStep::NewResource { resource: name, site, to, services };
        self.take_step(administrator, step, now).await.map(|(id, _)| api::Created { id })
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
        let step = PolicyStep::RemoveResource { resource: request.name };
        self.take_step(administrator, step, now).await.map(|(_, pushed)| pushed)
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
        let step = PolicyStep::NewGroup { group: request.name };
        self.take_step(administrator, step, now).await.map(|(id, _)| api::Created { id })
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
        let step = PolicyStep::RemoveGroup { group: request.name };
        self.take_step(administrator, step, now).await.map(|(_, pushed)| pushed)
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
        let api::Membership { group, user } = request;
        let step = PolicyStep::AddMember { group, user };
        self.take_step(administrator, step, now).await.map(|(_, pushed)| pushed)
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
        let api::Membership { group, user } = request;
        let step = PolicyStep::RemoveMember { group, user };
        self.take_step(administrator, step, now).await.map(|(_, pushed)| pushed)
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
        let api::EntitlementChange { resource, principal } = request;
        let step = PolicyStep::Grant { resource, principal };
        self.take_step(administrator, step, now).await.map(|(_, pushed)| pushed)
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
        let api::EntitlementChange { resource, principal } = request;
        let step = PolicyStep::TakeBack { resource, principal };
        self.take_step(administrator, step, now).await.map(|(_, pushed)| pushed)
    }

    /// One step as a decision by itself; gives the id of what it is about.
    async fn take_step<A: Action + Send + 'static>(
        &self,
        administrator: &Administrator<A>,
        step: PolicyStep,
        now: UnixSeconds,
    ) -> Result<(String, api::Pushed), Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let done = decision.take(step).await?;
            let id = done.id.clone();
            Ok((id, decision.finish(done).await?))
        })
        .await
    }
}

impl Decision {
    /// Takes a step; says what is to stand in the audit log of it.
    ///
    /// # Errors
    /// `not_found`, `already_exists`, `request_malformed`.
    pub(super) async fn take(&mut self, step: PolicyStep) -> Result<Done, Refused> {
        match step {
            PolicyStep::NewSite { site, pools } => self.add_site(site, pools).await,
            PolicyStep::ChangeSite { site, pools, .. } => self.change_site(&site, pools).await,
            PolicyStep::RemoveSite { site } => self.remove_site(&site).await,
            PolicyStep::NewResource { resource, site, to, services } => {
                self.add_resource(&site, checked_grant(resource, to, services)?).await
            }
            PolicyStep::ChangeResource { resource, after: PolicyReach { to, services }, .. } => {
                self.change_resource(checked_grant(resource, to, services)?).await
            }
            PolicyStep::RemoveResource { resource } => self.remove_resource(&resource).await,
            PolicyStep::NewGroup { group } => self.add_group(group).await,
            PolicyStep::RemoveGroup { group } => self.remove_group(&group).await,
            PolicyStep::AddMember { group, user } => self.change_member(&group, &user, Gives::More).await,
            PolicyStep::RemoveMember { group, user } => self.change_member(&group, &user, Gives::Less).await,
            PolicyStep::Grant { resource, principal } => {
                self.change_entitlement(&resource, &principal, Gives::More).await
            }
            PolicyStep::TakeBack { resource, principal } => {
                self.change_entitlement(&resource, &principal, Gives::Less).await
            }
        }
    }

    async fn add_site(&mut self, name: String, pools: BTreeSet<String>) -> Result<Done, Refused> {
        checked_name("site", &name)?;
        checked_pools(&pools)?;
        if store::sites(&mut self.tx).await?.len() >= SITES_MAX {
            return Err(Refused::malformed(format!("expected at most {SITES_MAX} sites")));
        }
        let site = Site { id: Uuid::new_v4().to_string(), name, pools: pools.into_iter().collect() };
        if !store::insert_site(&mut self.tx, &site).await? {
            return Err(taken("site", &site.name));
        }
        let after = json!({ "name": site.name, "pools": site.pools });
        Ok(Done::new("new-site", &site.name, &site.pools.join(" ")).of(&site.id).changed(Value::Null, after))
    }

    async fn change_site(&mut self, name: &str, pools: BTreeSet<String>) -> Result<Done, Refused> {
        checked_pools(&pools)?;
        let site = self.site(name).await?;
        // Sessions have addresses in the pools, and Gateways have set up their interfaces by them.
        if store::gateways(&mut self.tx).await?.iter().any(|gateway| gateway.site == site.id) {
            return Err(Refused::malformed(format!(
                "expected the pools of {name:?}, which has Gateways, to stay as they are: make another site"
            )));
        }
        let pools: Vec<String> = pools.into_iter().collect();
        store::set_pools(&mut self.tx, &site.id, &pools).await?;
        let detail = pools.join(" ");
        let (before, after) = (json!({ "pools": site.pools }), json!({ "pools": pools }));
        Ok(Done::new("change-site", name, &detail).of(&site.id).changed(before, after))
    }

    async fn remove_site(&mut self, name: &str) -> Result<Done, Refused> {
        let site = self.site(name).await?;
        if store::things_at(&mut self.tx, &site.id).await? > 0 {
            return Err(Refused::malformed(format!(
                "expected a site without Resources and Gateways, found some at {name:?}: remove those first"
            )));
        }
        store::delete_site(&mut self.tx, &site.id).await?;
        let before = json!({ "name": site.name, "pools": site.pools });
        Ok(Done::new("remove-site", &site.name, &site.id).changed(before, Value::Null))
    }

    async fn add_resource(&mut self, site: &str, grant: Grant) -> Result<Done, Refused> {
        let (id, site) = (Uuid::new_v4().to_string(), self.site(site).await?);
        if !store::insert_resource(&mut self.tx, &id, &site.id, &grant).await? {
            return Err(taken("Resource", &grant.name));
        }
        self.reconfigure_whole(&site).await?;
        let detail = format!("{:?} {:?}", grant.to, grant.services);
        let after = resource_json(&grant, &site.name);
        Ok(Done::new("new-resource", &grant.name, &detail).of(&id).changed(Value::Null, after))
    }

    async fn change_resource(&mut self, grant: Grant) -> Result<Done, Refused> {
        let (id, site, was) = self.resource(&grant.name).await?;
        store::set_reach(&mut self.tx, &id, &grant).await?;
        for user in store::users_of_resource(&mut self.tx, &id).await? {
            self.touch(user, &site.id);
        }
        self.reconfigure_whole(&site).await?;
        let detail = format!("{:?} {:?}", grant.to, grant.services);
        let (before, after) = (resource_json(&was, &site.name), resource_json(&grant, &site.name));
        Ok(Done::new("change-resource", &grant.name, &detail).of(&id).changed(before, after))
    }

    async fn remove_resource(&mut self, name: &str) -> Result<Done, Refused> {
        let (id, site, was) = self.resource(name).await?;
        for user in store::users_of_resource(&mut self.tx, &id).await? {
            self.touch(user, &site.id);
        }
        store::delete_resource(&mut self.tx, &id).await?;
        self.reconfigure(&site.id);
        Ok(Done::new("remove-resource", name, &id).changed(resource_json(&was, &site.name), Value::Null))
    }

    async fn add_group(&mut self, name: String) -> Result<Done, Refused> {
        checked_name("group", &name)?;
        let id = Uuid::new_v4().to_string();
        if !store::insert_group(&mut self.tx, &id, &name).await? {
            return Err(taken("group", &name));
        }
        Ok(Done::new("new-group", &name, "").of(&id).changed(Value::Null, json!({ "name": name })))
    }

    async fn remove_group(&mut self, name: &str) -> Result<Done, Refused> {
        let group = self.group(name).await?;
        let users = store::members_of(&mut self.tx, &group).await?;
        for site in store::sites_of_group(&mut self.tx, &group).await? {
            users.iter().for_each(|user| self.touch(user.clone(), &site));
        }
        store::delete_group(&mut self.tx, &group).await?;
        Ok(Done::new("remove-group", name, &group).changed(json!({ "name": name, "members": users }), Value::Null))
    }

    async fn change_member(&mut self, group: &str, user: &str, gives: Gives) -> Result<Done, Refused> {
        let (name, group) = (group, self.group(group).await?);
        let user: User = self.user(user).await?;
        let before = store::groups_of(&mut self.tx, &user.id).await?;
        let action = match gives {
            Gives::More => {
                if before.len() >= GROUPS_MAX {
                    return Err(Refused::malformed(format!("expected at most {GROUPS_MAX} groups of one user")));
                }
                if !store::insert_member(&mut self.tx, &group, &user.id).await? {
                    return Err(Refused::already_exists("the user is in this group"));
                }
                "add-member"
            }
            Gives::Less => {
                if !store::delete_member(&mut self.tx, &group, &user.id).await? {
                    return Err(Refused::not_found("member", &user.name));
                }
                "remove-member"
            }
        };
        for site in store::sites_of_group(&mut self.tx, &group).await? {
            self.touch(user.id.clone(), &site);
        }
        let after = store::groups_of(&mut self.tx, &user.id).await?;
        Ok(Done::new(action, name, &user.name).changed(json!({ "groups": before }), json!({ "groups": after })))
    }

    async fn change_entitlement(
        &mut self,
        resource: &str,
        principal: &Principal,
        gives: Gives,
    ) -> Result<Done, Refused> {
        let (name, (resource, site, _)) = (resource, self.resource(resource).await?);
        let (owner, users, whose) = match principal {
            Principal::User(name) => {
                let id = self.user(name).await?.id;
                (Owner::User(id.clone()), vec![id], format!("user {name}"))
            }
            Principal::Group(name) => {
                let id = self.group(name).await?;
                let members = store::members_of(&mut self.tx, &id).await?;
                (Owner::Group(id), members, format!("group {name}"))
            }
        };
        let action = match gives {
            Gives::More => {
                if !store::insert_entitlement(&mut self.tx, &resource, &owner).await? {
                    return Err(Refused::already_exists(format!("the {whose} is entitled to this Resource")));
                }
                "grant"
            }
            Gives::Less => {
                if !store::delete_entitlement(&mut self.tx, &resource, &owner).await? {
                    return Err(Refused::not_found("entitlement", name));
                }
                "take-back"
            }
        };
        users.into_iter().for_each(|user| self.touch(user, &site.id));
        let entitled = |entitled: bool| json!({ "resource": name, "of": whose, "entitled": entitled });
        let given = matches!(gives, Gives::More);
        Ok(Done::new(action, name, &whose).changed(entitled(!given), entitled(given)))
    }

    /// Id, site and reach of a Resource.
    async fn resource(&mut self, name: &str) -> Result<(String, Site, Grant), Refused> {
        let unknown = || Refused::not_found("Resource", name);
        let (id, site) = store::resource(&mut self.tx, name).await?.ok_or_else(unknown)?;
        let site = store::sites(&mut self.tx).await?.remove(&site).ok_or_else(unknown)?;
        let at = store::resources_at(&mut self.tx, &site.id).await?;
        let grant = at.into_iter().find(|grant| grant.name == name).ok_or_else(unknown)?;
        Ok((id, site, grant))
    }

    /// The Gateways of a site need their configuration anew, and must be able to hear of it.
    async fn reconfigure_whole(&mut self, site: &Site) -> Result<(), Refused> {
        let allow = store::resources_at(&mut self.tx, &site.id).await?;
        // As many Relays as there may ever be, by the longest names: one that joins later takes no site's configuration away.
        let relays = self.core.relays_for(&site.id, &Relay::most(), self.now)?;
        let whole = self.core.sign_configuration(&site.id, site, (allow, relays), (u64::MAX, true), self.now);
        whole.map_err(|_| Refused::malformed("the Resources of this site would not fit into one configuration"))?;
        self.reconfigure(&site.id);
        Ok(())
    }
}

/// Whether a change gives or takes.
#[derive(Clone, Copy)]
enum Gives {
    More,
    Less,
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
///
/// # Errors
/// `request_malformed`.
pub(super) fn checked_pools(pools: &BTreeSet<String>) -> Result<(), Refused> {
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
///
/// # Errors
/// `request_malformed`.
pub(super) fn checked_grant(
    name: String,
    to: impl IntoIterator<Item = String>,
    services: impl IntoIterator<Item = String>,
) -> Result<Grant, Refused> {
    let (to, services): (Vec<_>, Vec<_>) = (to.into_iter().collect(), services.into_iter().collect());
    let rule = json!({ "name": name, "action": "allow", "to": to, "services": services });
    serde_json::from_value::<RuleSpec>(rule).map_err(|error| Refused::malformed(error.to_string()))?;
    Ok(Grant { name, to, services })
}
