//! From written rules to a compiled rule set.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use ringfort_rules::{CompileError, RULES_MAX, Rule, RuleSet};

use crate::bound::{Bound, restrict};
use crate::catalogue::{Catalogue, NAMES_MAX};
use crate::spec::RuleSpec;

/// Why a policy was refused. Nothing of it is in force then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Two rules with one name: a denial could not say which of them made it.
    #[error(
        "expected each rule of a policy under a name of its own, found two named \"{name}\": rename one, or merge them"
    )]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// The policy is larger than the data plane takes.
    #[error(transparent)]
    TooLarge(#[from] CompileError),
    /// The catalogue has no room for another name.
    #[error("expected at most {max} rule names in all policies of a Gateway, found one more: name rules of the same meaning alike, or restart the Gateway to forget unused names", max = NAMES_MAX)]
    CatalogueFull,
}

/// Compiles `rules`, of which the first match decides, and enters their names into `catalogue`.
///
/// `guarded` are the networks that only a host prefix can open, from [`crate::never_reachable`].
///
/// # Errors
/// When two rules have one name, or a limit of the data plane or of the catalogue is passed.
pub fn compile(rules: &[RuleSpec], catalogue: &mut Catalogue, guarded: &[IpNet]) -> Result<Arc<RuleSet>, PolicyError> {
    compile_within(rules, &[], catalogue, guarded)
}

/// As [`compile`], and the set allows nothing beyond any of `bounds`: what a rule allows beyond is cut off, and a rule that
/// lies beyond altogether allows nothing.
///
/// # Errors
/// As [`compile`]; the limits count what is left.
pub fn compile_within(
    rules: &[RuleSpec],
    bounds: &[Bound],
    catalogue: &mut Catalogue,
    guarded: &[IpNet],
) -> Result<Arc<RuleSet>, PolicyError> {
    if rules.len() > RULES_MAX {
        return Err(CompileError::TooManyRules { count: rules.len() }.into());
    }
    let mut names = BTreeSet::new();
    if let Some(again) = rules.iter().find(|rule| !names.insert(rule.name())) {
        return Err(PolicyError::DuplicateName { name: again.name().to_string() });
    }
    let mut compilable = Vec::with_capacity(rules.len());
    for rule in rules {
        let rule = Rule {
            id: catalogue.id(rule.name())?,
            action: rule.action(),
            direction: rule.direction(),
            networks: rule.networks().iter().map(|network| network.net()).collect(),
            services: rule.services().iter().map(|service| service.service()).collect(),
        };
        compilable.extend(restrict(rule, bounds, guarded));
        if compilable.len() > RULES_MAX {
            return Err(CompileError::TooManyRules { count: compilable.len() }.into());
        }
    }
    Ok(Arc::new(RuleSet::compile(&compilable, guarded)?))
}
