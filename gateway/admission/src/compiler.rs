//! From the grants of an entitlement token to a rule set within the Gateway's bounds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use aws_lc_rs::digest;
use ipnet::IpNet;
use ringfort_policy::{Bound, Catalogue, Network, Reach, RuleSpec, ServiceSpec, SpecError, compile_within};
use ringfort_rules::{Action, Direction, RuleSet};
use ringfort_token::{Grant, InnerAddresses};
use ringfort_types::RuleId;

use crate::refused::Refused;

/// Compiled sets that are looked for again before those that nobody uses any more are forgotten.
const CACHE_SWEEP_AT: usize = 1_024;

/// Compiles under what is in force: allowed = ceiling ∧ allow-list ∧ grants. Before the first configuration the allow-list
/// is empty, so that nothing is allowed.
#[derive(Debug)]
pub(crate) struct Compiler {
    catalogue: Catalogue,
    ceiling: Option<Bound>,
    allow: Bound,
    /// The sites' pools, each with the Gateway's own address in it.
    pools: Vec<IpNet>,
    guarded: Vec<IpNet>,
    /// By the digest of the grants: sessions with the same grants share one set.
    cache: BTreeMap<[u8; 32], Weak<RuleSet>>,
    sweep_at: usize,
}

/// What a configuration says of rules, read.
#[derive(Debug, PartialEq)]
pub(crate) struct SiteRules {
    allow: Bound,
    pools: Vec<IpNet>,
}

impl SiteRules {
    pub(crate) fn read(allow: &[Grant], pools: &[String]) -> Result<Self, Refused> {
        let allow: Vec<Reach> = allow
            .iter()
            .map(|grant| {
                let (networks, services) = parse(grant)?;
                Reach::new(&networks, &services)
            })
            .collect::<Result<_, SpecError>>()?;
        let pool = |text: &String| {
            let expected = || Refused::Policy("expected pools such as \"10.97.0.1/16\" in the configuration".into());
            text.parse::<IpNet>().map_err(|_| expected())
        };
        Ok(Self { allow: Bound::new(allow), pools: pools.iter().map(pool).collect::<Result<_, _>>()? })
    }
}

impl Compiler {
    pub(crate) fn new(ceiling: Option<Bound>, guarded: Vec<IpNet>) -> Self {
        Self {
            catalogue: Catalogue::default(),
            ceiling,
            allow: Bound::default(),
            pools: Vec::new(),
            guarded,
            cache: BTreeMap::new(),
            sweep_at: CACHE_SWEEP_AT,
        }
    }

    /// Takes what a new configuration says; tells whether that changes any rules.
    pub(crate) fn set_site(&mut self, site: SiteRules) -> bool {
        let changed = self.allow != site.allow || self.pools != site.pools;
        SiteRules { allow: self.allow, pools: self.pools } = site;
        self.changed(changed)
    }

    /// Takes other guarded networks; tells whether that changes any rules.
    pub(crate) fn set_guarded(&mut self, guarded: Vec<IpNet>) -> bool {
        let changed = self.guarded != guarded;
        self.guarded = guarded;
        self.changed(changed)
    }

    /// Takes another ceiling; tells whether that changes any rules.
    pub(crate) fn set_ceiling(&mut self, ceiling: Option<Bound>) -> bool {
        let changed = self.ceiling != ceiling;
        self.ceiling = ceiling;
        self.changed(changed)
    }

    fn changed(&mut self, changed: bool) -> bool {
        if changed {
            self.cache.clear();
        }
        changed
    }

    /// What the Gateway calls the rule.
    pub(crate) fn rule_name(&self, rule: Option<RuleId>) -> Option<&str> {
        self.catalogue.denied_by(rule)
    }

    /// The rules of `grants`.
    pub(crate) fn compile(&mut self, grants: &[Grant]) -> Result<Arc<RuleSet>, Refused> {
        let key = digest_of(grants);
        if let Some(rules) = self.cache.get(&key).and_then(Weak::upgrade) {
            return Ok(rules);
        }
        let specs = grants.iter().map(|grant| {
            let (networks, services) = parse(grant)?;
            RuleSpec::new(grant.name.parse()?, Action::Allow, Direction::ToSite, networks, services)
        });
        let specs = specs.collect::<Result<Vec<_>, SpecError>>()?;
        let bounds: Vec<Bound> = self.ceiling.iter().chain([&self.allow]).cloned().collect();
        let own = self.pools.iter().map(|pool| IpNet::from(pool.addr()));
        let guarded: Vec<IpNet> =
            self.guarded.iter().copied().chain(self.pools.iter().map(IpNet::trunc)).chain(own).collect();
        let rules = compile_within(&specs, &bounds, &mut self.catalogue, &guarded)?;
        if self.cache.len() >= self.sweep_at {
            self.cache.retain(|_, rules| rules.strong_count() > 0);
            self.sweep_at = CACHE_SWEEP_AT.max(2 * self.cache.len());
        }
        self.cache.insert(key, Arc::downgrade(&rules));
        Ok(rules)
    }

    /// Whether a session may have these addresses: at least one, each in a pool and none the Gateway's own.
    pub(crate) fn check_inner(&self, inner: &InnerAddresses) -> Result<(), Refused> {
        let (v4, v6) = (inner.ipv4.map(IpAddr::V4), inner.ipv6.map(IpAddr::V6));
        let fits = |address: &IpAddr| self.pools.iter().any(|pool| pool.contains(address) && pool.addr() != *address);
        let mut addresses = v4.into_iter().chain(v6).peekable();
        if addresses.peek().is_none() || !addresses.all(|address| fits(&address)) {
            let expected =
                "expected inner addresses from the site's pools in the entitlement token, found others or none";
            return Err(Refused::Policy(expected.into()));
        }
        Ok(())
    }
}

fn parse(grant: &Grant) -> Result<(Vec<Network>, Vec<ServiceSpec>), SpecError> {
    let networks = grant.to.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let services = grant.services.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    Ok((networks, services))
}

fn digest_of(grants: &[Grant]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    // Lengths before all parts, so that no two lists read alike.
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    for Grant { name, to, services } in grants {
        part(name.as_bytes());
        for list in [to, services] {
            part(&(list.len() as u64).to_be_bytes());
            list.iter().for_each(|text| part(text.as_bytes()));
        }
    }
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(name: &str, to: &[&str], services: &[&str]) -> Grant {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        Grant { name: name.into(), to: owned(to), services: owned(services) }
    }

    #[test]
    fn equal_grants_share_one_set_until_the_bounds_change() {
        let mut compiler = Compiler::new(None, Vec::new());
        let (wiki, mail) = (grant("wiki", &["10.98.0.10"], &["tcp/80"]), grant("mail", &["10.98.0.11"], &["tcp/25"]));
        let site = |allow: &[Grant]| SiteRules::read(allow, &["10.97.0.1/16".into()]).unwrap();
        assert!(compiler.set_site(site(std::slice::from_ref(&wiki))));
        let first = compiler.compile(&[wiki.clone(), mail.clone()]).unwrap();
        assert!(Arc::ptr_eq(&first, &compiler.compile(&[wiki.clone(), mail.clone()]).unwrap()));
        assert!(!Arc::ptr_eq(&first, &compiler.compile(&[mail.clone(), wiki.clone()]).unwrap()));
        assert!(!compiler.set_site(site(std::slice::from_ref(&wiki))), "the same again");
        assert!(Arc::ptr_eq(&first, &compiler.compile(&[wiki.clone(), mail.clone()]).unwrap()));
        assert!(compiler.set_site(site(&[wiki.clone(), mail.clone()])));
        assert!(!Arc::ptr_eq(&first, &compiler.compile(&[wiki, mail]).unwrap()));
    }

    #[test]
    fn inner_addresses_lie_in_a_pool() {
        let mut compiler = Compiler::new(None, Vec::new());
        compiler.set_site(SiteRules::read(&[], &["10.97.0.1/16".into(), "fd97::1/64".into()]).unwrap());
        let inner = |ipv4: Option<&str>, ipv6: Option<&str>| InnerAddresses {
            ipv4: ipv4.map(|text| text.parse().unwrap()),
            ipv6: ipv6.map(|text| text.parse().unwrap()),
        };
        let check = |ipv4, ipv6| compiler.check_inner(&inner(ipv4, ipv6)).is_ok();
        assert!(check(Some("10.97.0.10"), None) && check(Some("10.97.0.10"), Some("fd97::2")));
        assert!(!check(None, None), "none");
        assert!(!check(Some("10.98.0.10"), None), "another network");
        assert!(!check(Some("10.97.0.10"), Some("fd98::2")), "one of two in another network");
        assert!(!check(Some("10.97.0.1"), None), "the Gateway's own");
    }
}
