//! A policy in force: seen, planned, applied.

use std::collections::BTreeSet;

use aws_lc_rs::digest;
use ringfort_proto::api::{self, Policy, PolicyStep};
use ringfort_types::UnixSeconds;
use serde_json::json;

use super::super::decision::Decision;
use super::super::refused::Refused;
use super::super::{Administrator, Core, action, hex, store, to_the_end};
use super::{Severity, diff, lint};

/// Findings that one refusal tells of.
const FINDINGS_TOLD_MAX: usize = 10;

impl Core {
    /// What is in force.
    ///
    /// # Errors
    /// `internal`.
    pub async fn policy(&self, _administrator: &Administrator<action::SeePolicy>) -> Result<api::PolicyState, Refused> {
        let policy = store::policy(&mut *self.inner.store.snapshot().await?).await?;
        Ok(api::PolicyState { digest: digest_of(&policy)?, policy })
    }

    /// What would have to be done for a policy to be in force.
    ///
    /// # Errors
    /// `request_malformed` with what is wrong with it, `not_found` for users that there are not.
    pub async fn admin_plan_policy(
        &self,
        _administrator: &Administrator<action::SeePolicy>,
        request: api::PolicyWanted,
        _now: UnixSeconds,
    ) -> Result<api::PolicyPlan, Refused> {
        check(&request.policy)?;
        let mut tx = self.inner.store.snapshot().await?;
        check_users(&mut tx, &request.policy).await?;
        let current = store::policy(&mut tx).await?;
        Ok(api::PolicyPlan { steps: diff(&current, &request.policy), digest: digest_of(&current)? })
    }

    /// Puts a policy into force, all of it or nothing; pushed at once (K5).
    ///
    /// # Errors
    /// As [`Core::admin_plan_policy`]; `policy_changed` when another is in force than the one that the plan was made from;
    /// `request_malformed` where a site that is to go, or to have other pools, has Gateways.
    pub async fn admin_apply_policy(
        &self,
        administrator: &Administrator<action::ApplyPolicy>,
        request: api::PolicyChange,
        now: UnixSeconds,
    ) -> Result<api::PolicyApplied, Refused> {
        check(&request.policy)?;
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            check_users(&mut decision.tx, &request.policy).await?;
            let current = store::policy(&mut decision.tx).await?;
            let before = digest_of(&current)?;
            if before != request.digest {
                return Err(Refused::policy_changed(&request.digest, &before));
            }
            let steps: Vec<PolicyStep> = diff(&current, &request.policy);
            for step in &steps {
                let done = decision.take(step.clone()).await?;
                decision.note(done).await?;
            }
            let after = digest_of(&request.policy)?;
            decision.record(json!({ "digest": before }), json!({ "digest": after, "steps": steps.len() }));
            let pushed = decision.close("apply-policy", "policy", &format!("{} steps", steps.len())).await?;
            Ok(api::PolicyApplied { steps, pushed })
        })
        .await
    }
}

/// # Errors
/// `request_malformed` with what is wrong with it.
fn check(policy: &Policy) -> Result<(), Refused> {
    let found: Vec<String> = lint(policy)
        .into_iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| format!("{}: {}", finding.place, finding.message))
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    let told = found[..found.len().min(FINDINGS_TOLD_MAX)].join("; ");
    Err(Refused::malformed(format!("expected a policy without errors, found {}: {told}", found.len())))
}

/// # Errors
/// `not_found` for users that there are not.
async fn check_users(c: &mut store::Connection, policy: &Policy) -> Result<(), Refused> {
    let known = store::users(c).await?.into_iter().map(|user| user.name).collect::<BTreeSet<_>>();
    let members = policy.groups.values().flat_map(|group| &group.members);
    let named = members.chain(policy.resources.values().flat_map(|resource| &resource.users));
    let unknown: BTreeSet<_> = named.filter(|user| !known.contains(*user)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let told: Vec<_> = unknown.iter().take(FINDINGS_TOLD_MAX).map(|name| name.as_str()).collect();
    Err(Refused::not_found(if unknown.len() == 1 { "user" } else { "users" }, &told.join(", ")))
}

/// SHA-256 of a policy in hexadecimal. Its JSON has one form: names and sets are sorted.
fn digest_of(policy: &Policy) -> Result<String, Refused> {
    let json = serde_json::to_vec(policy).map_err(Refused::internal)?;
    Ok(hex(digest::digest(&digest::SHA256, &json).as_ref()))
}
