//! What one session holds of the rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ringfort_types::{BootInstant, RuleEpoch, SessionId};

use crate::ruleset::RuleSet;

/// The addresses from which a session's packets come inside the tunnel (X8): one per family at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InnerAddresses {
    /// Its IPv4 address, if it has one.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address, if it has one.
    pub ipv6: Option<Ipv6Addr>,
}

impl InnerAddresses {
    /// Those there are, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let (v4, v6) = (self.ipv4.map(IpAddr::V4), self.ipv6.map(IpAddr::V6));
        v4.into_iter().chain(v6)
    }

    /// Whether `address` is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4 == Some(address),
            IpAddr::V6(address) => self.ipv6 == Some(address),
        }
    }
}

/// The rules of one session: which are in force, since which change, and until when.
///
/// Every change takes the next epoch, so that nothing judged before it counts after it.
#[derive(Clone, Debug)]
pub struct SessionRules {
    session: SessionId,
    inner: InnerAddresses,
    rules: Arc<RuleSet>,
    epoch: RuleEpoch,
    not_after: BootInstant,
}

impl SessionRules {
    /// A session without rules: everything is denied.
    #[must_use]
    pub fn new(session: SessionId, inner: InnerAddresses) -> Self {
        Self {
            session,
            inner,
            rules: Arc::new(RuleSet::deny_all()),
            epoch: RuleEpoch::default(),
            not_after: BootInstant::FAR_FUTURE,
        }
    }

    /// Puts `rules` in force from the next packet until `not_after` (exclusive). Gives the new epoch.
    pub fn install(&mut self, rules: Arc<RuleSet>, not_after: BootInstant) -> RuleEpoch {
        self.rules = rules;
        self.not_after = not_after;
        self.epoch = self.epoch.next();
        self.epoch
    }

    /// Takes everything away from the next packet on. Gives the new epoch.
    ///
    /// The empty set has no deadline: it goes on refusing with an answer, so that applications learn it at once.
    pub fn revoke(&mut self) -> RuleEpoch {
        self.install(Arc::new(RuleSet::deny_all()), BootInstant::FAR_FUTURE)
    }

    /// As [`SessionRules::install`], and gives the session other addresses: packets with the old ones are spoofed or
    /// foreign from the next one on.
    pub fn move_to(&mut self, inner: InnerAddresses, rules: Arc<RuleSet>, not_after: BootInstant) -> RuleEpoch {
        self.inner = inner;
        self.install(rules, not_after)
    }

    /// The session.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// Its addresses inside the tunnel.
    #[must_use]
    pub const fn inner(&self) -> InnerAddresses {
        self.inner
    }

    /// The rules in force, unless past [`SessionRules::not_after`].
    #[must_use]
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// The generation of the rules.
    #[must_use]
    pub const fn epoch(&self) -> RuleEpoch {
        self.epoch
    }

    /// From when on every packet is dropped.
    #[must_use]
    pub const fn not_after(&self) -> BootInstant {
        self.not_after
    }
}
