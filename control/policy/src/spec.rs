//! One rule as it is written.

use std::fmt;
use std::str::FromStr;

use ringfort_rules::{Action, Direction};
use serde::Deserialize;

use crate::catalogue::DEFAULT_DENY;
use crate::text::{Network, ServiceSpec, SpecError, quoted};

/// Bytes in the name of a rule. Names are shown to users and stand in every report of a denial.
pub const NAME_BYTES_MAX: usize = 64;

/// Networks in one rule; more go into further rules, up to the limits of a rule set.
pub const NETWORKS_PER_RULE_MAX: usize = 1_024;

/// Services in one rule.
pub const SERVICES_PER_RULE_MAX: usize = 64;

/// The name of a rule: 1 to [`NAME_BYTES_MAX`] ASCII letters, digits, `-`, `_`, `.`, `/` or `:`, and not
/// [`DEFAULT_DENY`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct RuleName(String);

impl RuleName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RuleName {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
        if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(is_allowed) {
            return Err(SpecError::Name { found: quoted(text) });
        }
        if text == DEFAULT_DENY {
            return Err(SpecError::ReservedName);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for RuleName {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One rule of a policy, checked: it names at least one network and one service, and no more than the limits.
///
/// Deserialises from a table with `name`, `action` (`allow` or `deny`), `services`, and either `to` (networks at the
/// site that the client may reach) or, with `direction = "to-client"`, `from` (networks at the site that may open
/// flows to the client, X12). Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct RuleSpec {
    name: RuleName,
    action: Action,
    direction: Direction,
    networks: Vec<Network>,
    services: Vec<ServiceSpec>,
}

impl RuleSpec {
    /// A rule from its parts.
    ///
    /// # Errors
    /// When networks or services are missing or exceed [`NETWORKS_PER_RULE_MAX`] or [`SERVICES_PER_RULE_MAX`].
    pub fn new(
        name: RuleName,
        action: Action,
        direction: Direction,
        networks: Vec<Network>,
        services: Vec<ServiceSpec>,
    ) -> Result<Self, SpecError> {
        let bounded = |field, count, max| {
            if count == 0 || count > max {
                return Err(SpecError::Count { rule: name.to_string(), field, count, max });
            }
            Ok(())
        };
        bounded(networks_field(direction), networks.len(), NETWORKS_PER_RULE_MAX)?;
        bounded("services", services.len(), SERVICES_PER_RULE_MAX)?;
        Ok(Self { name, action, direction, networks, services })
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &RuleName {
        &self.name
    }

    /// Whether it allows or denies.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.action
    }

    /// Whose packets open the flows it is about.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// The networks at the site.
    #[must_use]
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// The services.
    #[must_use]
    pub fn services(&self) -> &[ServiceSpec] {
        &self.services
    }
}

const fn networks_field(direction: Direction) -> &'static str {
    match direction {
        Direction::ToSite => "to",
        Direction::ToClient => "from",
    }
}

/// The fields of a rule before they are checked together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: RuleName,
    action: WrittenAction,
    #[serde(default)]
    direction: WrittenDirection,
    #[serde(default)]
    to: Vec<Network>,
    #[serde(default)]
    from: Vec<Network>,
    services: Vec<ServiceSpec>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WrittenAction {
    Allow,
    Deny,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WrittenDirection {
    #[default]
    ToSite,
    ToClient,
}

impl TryFrom<Written> for RuleSpec {
    type Error = SpecError;

    fn try_from(written: Written) -> Result<Self, SpecError> {
        let Written { name, action, direction, to, from, services } = written;
        let action = match action {
            WrittenAction::Allow => Action::Allow,
            WrittenAction::Deny => Action::Deny,
        };
        let (direction, networks, other) = match direction {
            WrittenDirection::ToSite => (Direction::ToSite, to, from),
            WrittenDirection::ToClient => (Direction::ToClient, from, to),
        };
        if !other.is_empty() {
            return Err(SpecError::WrongEnd { rule: name.to_string() });
        }
        Self::new(name, action, direction, networks, services)
    }
}
