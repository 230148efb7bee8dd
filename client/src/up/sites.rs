//! The sites of a running client: what the tokens say becomes interfaces, addresses, routes and Gateways.

use std::collections::BTreeSet;

use anyhow::Result;
use ipnet::IpNet;
use ringfort_engine::client::Command;
use ringfort_proto::v1::Present;
use ringfort_rules::InnerAddresses;
use ringfort_token::{ConnectGateway, ConnectSite, EntitlementToken};
use ringfort_worker::now;

use super::Control;
use super::lines::{Line, Next, Past};
use crate::login::parse_hex;
use crate::routes::{self, SiteGrants};
use crate::site::SiteGateway;
use crate::tunnel::{self, Interface};

/// Prefix of interface names; a number follows.
const INTERFACE_PREFIX: &str = "ringfort";

/// One site with what runs for it.
pub(super) struct SiteRun {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) interface: Interface,
    pub(super) inner: InnerAddresses,
    pub(super) routes: BTreeSet<IpNet>,
    /// The one that carries packets.
    pub(super) line: Line,
    /// The one that is to take its place.
    pub(super) next: Option<Next>,
    /// The one whose place it took.
    pub(super) past: Option<Past>,
}

impl Control<'_> {
    /// Makes sites, Gateways, tokens and routes what the tokens say.
    pub(super) fn apply(&mut self) -> Result<()> {
        let Some(connect) = self.tokens.connect.clone() else { return Ok(()) };
        let entitled = |site: &&ConnectSite| self.tokens.entitlements.contains_key(&site.site);
        let open: Vec<&ConnectSite> = connect.token.sites.iter().filter(entitled).collect();
        self.sites.retain(|run| open.iter().any(|site| site.site == run.id));
        for site in &open {
            let Some(held) = self.tokens.entitlements.get(&site.site) else { continue };
            let gateways = gateways(site);
            let present = present(&self.tokens.claims.text, &held.text);
            let inner = inner(&held.token);
            if gateways.is_empty() {
                tracing::warn!(site = site.name, "no Gateway of the site is alive; waiting for one");
            }
            if let Some(run) = self.sites.iter_mut().find(|run| run.id == site.site) {
                run.line.machine.set_gateways(gateways);
                run.line.machine.set_tokens(present.clone(), now().boot);
                if let Some(next) = &mut run.next {
                    next.line.machine.set_tokens(present, now().boot);
                }
                run.follow_request();
                continue;
            }
            let interface = Interface::open(&self.free_name(), self.mtu)?;
            tracing::info!(site = site.name, interface = interface.name(), "site open");
            let mut run = SiteRun {
                id: site.site.clone(),
                name: site.name.clone(),
                interface,
                inner: InnerAddresses::default(),
                routes: BTreeSet::new(),
                line: Line::new(gateways, present),
                next: None,
                past: None,
            };
            run.set_inner(inner)?;
            run.interface.set_up()?;
            self.sites.push(run);
        }
        let place = |run: &SiteRun| open.iter().position(|site| site.site == run.id);
        self.sites.sort_by_key(place);
        if self.sites.is_empty() {
            tracing::warn!("no site is open to this user");
        }
        self.route()
    }

    /// Makes addresses and routes what the entitlement tokens say: what goes first, then what comes.
    pub(super) fn route(&mut self) -> Result<()> {
        // What a host says of itself makes no hole in the routes.
        let gateways = self.tokens.connect.iter().flat_map(|connect| &connect.token.sites);
        let gateways = gateways.flat_map(|site| usable(site, |gateway| !gateway.reported));
        let mut outer = self.controllers.clone();
        outer.extend(gateways.map(|gateway| gateway.address.ip()));
        let granted: Vec<SiteGrants<'_>> = self
            .sites
            .iter()
            .filter_map(|run| {
                let token = &self.tokens.entitlements.get(&run.id)?.token;
                Some(SiteGrants { site: &run.id, inner: inner(token), grants: &token.grants })
            })
            .collect();
        let mut plan = routes::plan(&granted, &outer);
        for left_out in plan.left_out.iter().filter(|left_out| !self.left_out.contains(left_out)) {
            tracing::warn!("{left_out}");
        }
        self.left_out = plan.left_out;
        let wanted: Vec<BTreeSet<IpNet>> =
            self.sites.iter().map(|run| plan.routes.remove(&run.id).unwrap_or_default()).collect();
        for (run, wanted) in self.sites.iter_mut().zip(&wanted) {
            for net in run.routes.difference(wanted) {
                run.interface.delete_route(*net)?;
            }
        }
        for (run, wanted) in self.sites.iter_mut().zip(wanted) {
            let addresses = self.tokens.entitlements.get(&run.id).map(|held| inner(&held.token));
            let addresses = addresses.unwrap_or(run.inner);
            if wanted == run.routes && addresses == run.inner {
                continue;
            }
            run.set_inner(addresses)?;
            for net in wanted.difference(&run.routes) {
                run.interface.add_route(*net)?;
            }
            run.routes = wanted;
            run.line.command(&Command::Reach { inner: run.inner, routes: run.routes.iter().copied().collect() })?;
        }
        Ok(())
    }

    /// The first interface name that none of our sites has.
    fn free_name(&self) -> String {
        let is_free = |name: &String| self.sites.iter().all(|run| run.interface.name() != name);
        (0..).map(|n| format!("{INTERFACE_PREFIX}{n}")).find(is_free).unwrap_or_default()
    }
}

impl SiteRun {
    /// The interface keeps an address that is no longer ours until the end; the machine sends nothing from it.
    fn set_inner(&mut self, inner: InnerAddresses) -> Result<()> {
        for address in inner.iter() {
            self.interface.add_address(address)?;
        }
        self.inner = inner;
        Ok(())
    }
}

/// The Gateways of a site that can be used: with an address, and with digests to compare their certificates with (C12).
fn gateways(site: &ConnectSite) -> Vec<SiteGateway> {
    usable(site, |_| true).collect()
}

fn usable(site: &ConnectSite, is_wanted: impl Fn(&ConnectGateway) -> bool) -> impl Iterator<Item = SiteGateway> {
    site.gateways.iter().filter(move |gateway| is_wanted(gateway)).filter_map(|gateway| {
        let digests = site.digests_of(&gateway.id).iter().map(|text| parse_hex(text));
        let digests: Vec<[u8; 32]> = digests.collect::<Option<_>>().filter(|digests: &Vec<_>| !digests.is_empty())?;
        let address = gateway.address.parse().ok().or_else(|| tunnel::resolve(&gateway.address).ok()?.pop())?;
        Some(SiteGateway { id: gateway.id.as_str().into(), address, digests })
    })
}

fn inner(token: &EntitlementToken) -> InnerAddresses {
    InnerAddresses { ipv4: token.inner.ipv4, ipv6: token.inner.ipv6 }
}

/// What the Gateway is shown (A11). What the device says of itself nobody has signed.
fn present(claims: &str, entitlement: &str) -> Present {
    let device = [("os", std::env::consts::OS), ("client.version", env!("CARGO_PKG_VERSION"))];
    let device = device.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Present { claims: claims.into(), entitlement: entitlement.into(), device }
}
