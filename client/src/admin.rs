//! What an administrator asks of the Controller: with the folder of somebody who is logged in as one.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hyper::Method;
use ringfort_enrol::{Folder, wall_clock};
use ringfort_proto::api::{
    Drain, EntitlementChange, InvitationResponse, Membership, Named, NewGroup, NewInvitation, NewResource,
    NewRevocation, NewService, NewSite, NewUser, OperationRequest, PolicyApplied, PolicyChange, PolicyPlan,
    PolicyState, PolicyWanted, Receipts, RoleChange, TotpSecret, UserEmail,
};
use ringfort_types::UnixSeconds;
use serde::Serialize;
use serde_json::Value;

use crate::controller::{ControllerClient, ControllerError};
use crate::login::authenticated;
use crate::tokens::{Judge, Tokens};

/// Seconds for which one request waits for receipts, as the Controller lets it.
const RECEIPTS_SECONDS_MAX: u128 = 20;

/// Events in one answer.
const EVENTS_MAX: usize = 1_000;
/// Hosts in one answer.
const HOSTS_MAX: usize = 256;

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Users.
    Users,
    /// Gateways.
    Gateways,
    /// Controllers.
    Controllers,
    /// Logins that have not ended.
    Sessions,
    /// Relays.
    Relays,
}

/// What can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A user, or a service.
    User,
    /// A site.
    Site,
    /// A Resource.
    Resource,
    /// A group.
    Group,
    /// Another Controller, by address or id.
    Controller,
    /// A Gateway.
    Gateway,
    /// A host.
    Host,
    /// A Relay, by its FQDN.
    Relay,
}

/// An administrator's connection.
#[derive(Debug)]
pub struct Admin {
    controller: ControllerClient,
    claims: String,
}

impl Admin {
    /// With the folder `state`, whose user is logged in.
    ///
    /// # Errors
    /// When nobody is logged in, or a file was changed.
    pub fn open(state: &Path) -> Result<Self> {
        let (folder, identity) = Folder::open_joined(state)?;
        let key = folder.key()?;
        let now = wall_clock();
        let judge = Judge::of_folder(&folder, &identity, key.thumbprint()?, now)?;
        let tokens = Tokens::load(&folder, &judge, now)?;
        let controller = authenticated(&folder, &identity, &key)?;
        Ok(Self { controller, claims: tokens.claims.text })
    }

    /// Makes a user.
    ///
    /// # Errors
    /// What the Controller refused, as for every request below.
    pub async fn add_user(&mut self, user: &NewUser) -> Result<Value> {
        self.post("users", user).await
    }

    /// Gives a user a role as an administrator, or takes it away.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn change_role(&mut self, change: &RoleChange) -> Result<Value> {
        self.post("users/role", change).await
    }

    /// Sets the address by which identity providers know a user, or takes it away (R21).
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn set_email(&mut self, email: &UserEmail) -> Result<Value> {
        self.post("users/email", email).await
    }

    /// Lets a user log in no more, and takes back at once what they have.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn disable_user(&mut self, name: &str) -> Result<Value> {
        self.post("users/disable", &Named { name: name.into() }).await
    }

    /// Lets a user log in again.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn enable_user(&mut self, name: &str) -> Result<Value> {
        self.post("users/enable", &Named { name: name.into() }).await
    }

    /// Gives a user one-time passwords, in place of earlier ones.
    ///
    /// # Errors
    /// As [`Admin::invite`].
    pub async fn new_totp(&mut self, name: &str) -> Result<TotpSecret> {
        let answer = self.post("users/totp", &Named { name: name.into() }).await?;
        serde_json::from_value(answer).context("expected a secret in the Controller's answer")
    }

    /// Takes a user's one-time passwords away.
    ///
    /// # Errors
    /// As [`Admin::invite`].
    pub async fn remove_totp(&mut self, name: &str) -> Result<Value> {
        self.post("users/totp/remove", &Named { name: name.into() }).await
    }

    /// Has a user's one-time passwords checked by the organisation's own system, in place of any other.
    ///
    /// # Errors
    /// As [`Admin::invite`].
    pub async fn set_external_otp(&mut self, name: &str) -> Result<Value> {
        self.post("users/external-otp", &Named { name: name.into() }).await
    }

    /// Has that system not asked about a user any more.
    ///
    /// # Errors
    /// As [`Admin::invite`].
    pub async fn remove_external_otp(&mut self, name: &str) -> Result<Value> {
        self.post("users/external-otp/remove", &Named { name: name.into() }).await
    }

    /// Makes an account of a program (X12).
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn add_service(&mut self, service: &NewService) -> Result<Value> {
        self.post("services", service).await
    }

    /// Makes a site.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn add_site(&mut self, site: &NewSite) -> Result<Value> {
        self.post("sites", site).await
    }

    /// Makes a Resource.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn add_resource(&mut self, resource: &NewResource) -> Result<Value> {
        self.post("resources", resource).await
    }

    /// Makes a group.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn add_group(&mut self, group: &NewGroup) -> Result<Value> {
        self.post("groups", group).await
    }

    /// Authorises a host.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn add_host(&mut self, host: &Named) -> Result<Value> {
        self.post("hosts", host).await
    }

    /// Removes a user with all that they have, a site, a Resource, a group, a Gateway, a host, a Relay or another Controller.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn remove(&mut self, what: Removed, name: &str) -> Result<Value> {
        let path = match what {
            Removed::User => "users/remove",
            Removed::Site => "sites/remove",
            Removed::Resource => "resources/remove",
            Removed::Group => "groups/remove",
            Removed::Controller => "controllers/remove",
            Removed::Gateway => "gateways/remove",
            Removed::Host => "hosts/remove",
            Removed::Relay => "relays/remove",
        };
        self.post(path, &Named { name: name.into() }).await
    }

    /// Puts a user into a group.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn add_member(&mut self, membership: &Membership) -> Result<Value> {
        self.post("groups/members", membership).await
    }

    /// Takes a user out of a group.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn remove_member(&mut self, membership: &Membership) -> Result<Value> {
        self.post("groups/members/remove", membership).await
    }

    /// Entitles somebody to a Resource.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn entitle(&mut self, change: &EntitlementChange) -> Result<Value> {
        self.post("entitlements", change).await
    }

    /// Takes an entitlement back.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn unentitle(&mut self, change: &EntitlementChange) -> Result<Value> {
        self.post("entitlements/remove", change).await
    }

    /// Invites (R1–R3).
    ///
    /// # Errors
    /// As [`Admin::add_user`]; where the authentication is not fresh, the error says to log in again (R2).
    pub async fn invite(&mut self, invitation: &NewInvitation) -> Result<InvitationResponse> {
        let answer = self.post("invitations", invitation).await?;
        serde_json::from_value(answer).context("expected an invitation in the Controller's answer")
    }

    /// Revokes, or demands renewal (A23).
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn revoke(&mut self, revocation: &NewRevocation) -> Result<Value> {
        self.post("revocations", revocation).await
    }

    /// Drains a Gateway, or ends that.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn drain(&mut self, drain: &Drain) -> Result<Value> {
        self.post("gateways/drain", drain).await
    }

    /// Has a Gateway do something, and waits for its answer (K6).
    ///
    /// # Errors
    /// As [`Admin::add_user`]; `gateway_unreachable` where it is connected to none of the Controllers.
    pub async fn operate(&mut self, request: &OperationRequest) -> Result<Value> {
        let mut others = self.controller.controllers();
        loop {
            let path = "gateways/operations";
            let answer = self.controller.admin(&self.claims, Method::POST, path, Some(request)).await;
            others = others.saturating_sub(1);
            match answer {
                // It was asked nothing; its stream may be at another one.
                Err(error) if error.code() == Some("gateway_unreachable") && others > 0 => {
                    self.controller.turn_to_next()
                }
                answer => return answer.map_err(with_remedy),
            }
        }
    }

    /// How the Gateways stand with a serial, `epoch/n`, waiting until all that are to be waited for have confirmed it or `patience`
    /// is over (X6).
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn receipts(&mut self, serial: &str, patience: Duration) -> Result<Receipts> {
        let deadline = Instant::now() + patience;
        loop {
            // Rounded up: a second too long rather than a request for nothing.
            let left = deadline.saturating_duration_since(Instant::now()).as_millis().div_ceil(1_000);
            let wait = left.min(RECEIPTS_SECONDS_MAX);
            let path = format!("receipts?serial={serial}&wait={wait}");
            let answer = self.controller.admin::<()>(&self.claims, Method::GET, &path, None).await;
            let receipts: Receipts = serde_json::from_value(answer.map_err(with_remedy)?)
                .context("expected receipts in the Controller's answer")?;
            if receipts.is_complete() || Instant::now() >= deadline {
                return Ok(receipts);
            }
        }
    }

    /// The newest `limit` audit events since `since`, the newest first, read page by page.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn audit(&mut self, since: UnixSeconds, limit: u32) -> Result<Value> {
        let (mut events, mut below) = (Vec::new(), String::new());
        while events.len() < limit as usize {
            let page = (limit as usize - events.len()).min(EVENTS_MAX);
            let path = format!("audit?since={since}&limit={page}{below}");
            let answer = self.controller.admin::<()>(&self.claims, Method::GET, &path, None).await;
            let Value::Array(mut rows) = answer.map_err(with_remedy)? else {
                bail!("expected a list of events in the Controller's answer")
            };
            let (count, last) = (rows.len(), rows.last().and_then(|row| row["n"].as_u64()));
            events.append(&mut rows);
            match last {
                Some(n) if count == page => below = format!("&below={n}"),
                _ => break,
            }
        }
        Ok(Value::Array(events))
    }

    /// The hosts that may register themselves, read page by page.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn hosts(&mut self) -> Result<Value> {
        let (mut hosts, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("hosts?limit={HOSTS_MAX}{after}");
            let answer = self.controller.admin::<()>(&self.claims, Method::GET, &path, None).await;
            let Value::Array(mut rows) = answer.map_err(with_remedy)? else {
                bail!("expected a list of hosts in the Controller's answer")
            };
            let last = rows.last().and_then(|row| row["name"].as_str()).map(|name| format!("&after={name}"));
            let is_full = rows.len() >= HOSTS_MAX;
            hosts.append(&mut rows);
            match last {
                // Names grow, so that this ends whatever the Controller answers.
                Some(last) if is_full && last > after => after = last,
                _ => return Ok(Value::Array(hosts)),
            }
        }
    }

    /// Lists.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn list(&mut self, what: List) -> Result<Value> {
        let path = match what {
            List::Users => "users",
            List::Gateways => "gateways",
            List::Controllers => "controllers",
            List::Sessions => "sessions",
            List::Relays => "relays",
        };
        let answer = self.controller.admin::<()>(&self.claims, Method::GET, path, None).await;
        answer.map_err(with_remedy)
    }

    /// What is in force, declared as a whole.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn policy(&mut self) -> Result<PolicyState> {
        let answer = self.controller.admin::<()>(&self.claims, Method::GET, "policy", None).await;
        serde_json::from_value(answer.map_err(with_remedy)?).context("expected a policy in the Controller's answer")
    }

    /// What would have to be done for another policy to be in force.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn plan_policy(&mut self, wanted: &PolicyWanted) -> Result<PolicyPlan> {
        let answer = self.post("policy/plan", wanted).await?;
        serde_json::from_value(answer).context("expected a plan in the Controller's answer")
    }

    /// Puts a policy into force, all of it or nothing.
    ///
    /// # Errors
    /// As [`Admin::add_user`].
    pub async fn apply_policy(&mut self, change: &PolicyChange) -> Result<PolicyApplied> {
        let answer = self.post("policy", change).await?;
        serde_json::from_value(answer).context("expected the steps in the Controller's answer")
    }

    async fn post<B: Serialize>(&mut self, path: &str, body: &B) -> Result<Value> {
        self.controller.admin(&self.claims, Method::POST, path, Some(body)).await.map_err(with_remedy)
    }
}

fn with_remedy(error: ControllerError) -> anyhow::Error {
    let remedy = match error.code() {
        Some("authentication_not_fresh") => {
            "this needs a login of the last five minutes; run `ringfort login --fresh` again"
        }
        Some("role_insufficient") => "your role does not suffice; ask an owner",
        Some("not_administrator") => "log in as an administrator, with a state folder of its own",
        Some("certificate_required" | "certificate_revoked" | "token_expired" | "token_revoked") => {
            "run `ringfort login` again"
        }
        _ => return error.into(),
    };
    anyhow::Error::from(error).context(remedy)
}
