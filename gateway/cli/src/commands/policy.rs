//! Policy as code: `ringfort admin apply`, `export` and `lint`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use ringfort_client::Admin;
use ringfort_controller::core::policy::{Severity, lint};
use ringfort_proto::api::{Policy, PolicyChange, PolicyReach, PolicyStep, PolicyWanted, Principal};
use serde_json::json;

/// Largest policy, in bytes: a request to the Controller has no more.
const POLICY_BYTES_MAX: u64 = 1 << 20;

#[derive(Args)]
pub(super) struct File {
    /// The policy, a TOML file.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

#[derive(Args)]
pub(super) struct Apply {
    #[command(flatten)]
    file: File,
    /// Do not ask before it is done.
    #[arg(long, conflicts_with = "plan")]
    yes: bool,
    /// Show what would be done, and do nothing.
    #[arg(long)]
    plan: bool,
}

/// Shows what is wrong with a policy, without asking anybody.
pub(super) fn check(file: &File, json: bool) -> Result<()> {
    let found = lint(&read(&file.file)?);
    match json {
        true => println!("{:#}", serde_json::to_value(&found)?),
        false => found.iter().for_each(|finding| println!("{finding}")),
    }
    let errors = found.iter().filter(|finding| finding.severity == Severity::Error).count();
    ensure!(errors == 0, "{}: expected a policy without errors, found {errors}", file.file.display());
    Ok(())
}

/// Prints what is in force.
pub(super) async fn export(admin: &mut Admin, json: bool) -> Result<()> {
    let state = admin.policy().await?;
    match json {
        true => println!("{:#}", serde_json::to_value(&state)?),
        false => print!("{}", toml::to_string_pretty(&state.policy)?),
    }
    Ok(())
}

/// Shows the difference and, once it is agreed to, does it.
pub(super) async fn apply(admin: &mut Admin, Apply { file, yes, plan }: Apply, json: bool) -> Result<()> {
    let policy = read(&file.file)?;
    let warnings = lint(&policy);
    let is_error = |severity| severity == Severity::Error;
    warnings.iter().for_each(|finding| eprintln!("{finding}"));
    ensure!(
        !warnings.iter().any(|finding| is_error(finding.severity)),
        "{}: nothing was done; correct the errors",
        file.file.display()
    );
    let planned = admin.plan_policy(&PolicyWanted { policy: policy.clone() }).await?;
    if planned.steps.is_empty() || plan {
        match json {
            true => println!("{:#}", json!({ "steps": planned.steps, "applied": false })),
            false => planned.steps.iter().for_each(|step| println!("{}", text(step))),
        }
        if planned.steps.is_empty() && !json {
            println!("this policy is in force");
        }
        return Ok(());
    }
    // The difference is shown first, whoever reads the answer.
    for step in &planned.steps {
        match json {
            true => eprintln!("{}", text(step)),
            false => println!("{}", text(step)),
        }
    }
    if !yes {
        agreed(planned.steps.len())?;
    }
    let applied = admin.apply_policy(&PolicyChange { policy, digest: planned.digest }).await?;
    match json {
        true => println!("{:#}", serde_json::to_value(&applied)?),
        false => println!(
            "{} steps done; pushed {} entitlement tokens to {} Gateways",
            applied.steps.len(),
            applied.pushed.entitlements,
            applied.pushed.gateways
        ),
    }
    Ok(())
}

fn read(path: &Path) -> Result<Policy> {
    let reading = || format!("cannot read {}", path.display());
    let bytes = std::fs::metadata(path).with_context(reading)?.len();
    ensure!(bytes <= POLICY_BYTES_MAX, "{}: expected at most {POLICY_BYTES_MAX} bytes, found {bytes}", path.display());
    let text = std::fs::read_to_string(path).with_context(reading)?;
    toml::from_str(&text).with_context(|| format!("{}: expected a policy", path.display()))
}

fn agreed(steps: usize) -> Result<()> {
    ensure!(std::io::stdin().is_terminal(), "expected --yes, or a terminal to ask at: nothing was done");
    eprint!("do these {steps} steps? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was done");
    }
    Ok(())
}

/// A step as people read it: `+` gives, `-` takes, `~` changes.
fn text(step: &PolicyStep) -> String {
    let list = |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
    let whose = |principal: &Principal| match principal {
        Principal::User(name) => format!("user {name}"),
        Principal::Group(name) => format!("group {name}"),
    };
    let reach = |PolicyReach { to, services }: &PolicyReach| format!("{}, {}", list(to), list(services));
    match step {
        PolicyStep::TakeBack { resource, principal } => format!("- resource {resource} for {}", whose(principal)),
        PolicyStep::RemoveMember { group, user } => format!("- user {user} of group {group}"),
        PolicyStep::RemoveGroup { group } => format!("- group {group}"),
        PolicyStep::RemoveResource { resource } => format!("- resource {resource}"),
        PolicyStep::RemoveSite { site } => format!("- site {site}"),
        PolicyStep::NewSite { site, pools } => format!("+ site {site}: {}", list(pools)),
        PolicyStep::ChangeSite { site, before, pools } => format!("~ site {site}: {} -> {}", list(before), list(pools)),
        PolicyStep::NewGroup { group } => format!("+ group {group}"),
        PolicyStep::AddMember { group, user } => format!("+ user {user} of group {group}"),
        PolicyStep::NewResource { resource, site, to, services } => {
            format!("+ resource {resource} at {site}: {}, {}", list(to), list(services))
        }
        PolicyStep::ChangeResource { resource, before, after } => {
            format!("~ resource {resource}: {} -> {}", reach(before), reach(after))
        }
        PolicyStep::Grant { resource, principal } => format!("+ resource {resource} for {}", whose(principal)),
    }
}
