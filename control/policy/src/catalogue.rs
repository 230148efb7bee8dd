//! The names behind the rule ids of the data plane.

use std::collections::BTreeMap;

use ringfort_types::RuleId;

use crate::compile::PolicyError;
use crate::spec::RuleName;

/// What a denial is called that no rule made.
pub const DEFAULT_DENY: &str = "default-deny";

/// Names in one catalogue: all rules of one Gateway's policies, about 10 MB. At the limit policies with new names
/// are refused, those with known names go on.
pub const NAMES_MAX: usize = 65_536;

/// Gives every rule name its id, and the name back for an id.
///
/// One per Gateway: a name has the same id in every policy, and keeps it, so that a verdict of an earlier policy
/// can still be named.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    ids: BTreeMap<RuleName, RuleId>,
    names: Vec<RuleName>,
}

impl Catalogue {
    /// The id of `name`, the next free one if it has none yet.
    ///
    /// # Errors
    /// [`PolicyError::CatalogueFull`] if the name is new and there are [`NAMES_MAX`] already.
    pub fn id(&mut self, name: &RuleName) -> Result<RuleId, PolicyError> {
        if let Some(id) = self.ids.get(name) {
            return Ok(*id);
        }
        let next = u32::try_from(self.names.len()).ok().filter(|_| self.names.len() < NAMES_MAX);
        let id = RuleId(next.ok_or(PolicyError::CatalogueFull)?);
        self.names.push(name.clone());
        self.ids.insert(name.clone(), id);
        Ok(id)
    }

    /// The name of the rule with this id. `None` if this catalogue gave no such id.
    #[must_use]
    pub fn name(&self, id: RuleId) -> Option<&RuleName> {
        self.names.get(id.0 as usize)
    }

    /// How to call what denied a packet: the rule by its name, the absence of one [`DEFAULT_DENY`]. `None` if
    /// this catalogue gave no such id.
    #[must_use]
    pub fn denied_by(&self, rule: Option<RuleId>) -> Option<&str> {
        match rule {
            None => Some(DEFAULT_DENY),
            Some(id) => self.name(id).map(RuleName::as_str),
        }
    }
}
