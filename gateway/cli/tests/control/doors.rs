//! Who is let in where: tunnels, session channels and the Controller's doors.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use ringfort_enrol::{Folder, Secrecy, file};
use ringfort_identity::Role;
use ringfort_netlab::http;
use ringfort_packet::build;
use ringfort_stage::Probe;
use ringfort_stage::hostile;

use crate::world::{ALICE, GATEWAY, MALLORY, PATIENCE, World, service};

/// A device with a good certificate and no channel: its tunnel comes up and carries nothing.
// Covers: C15 refuse
// Covers: A11 refuse
pub(crate) fn a_tunnel_without_its_channel_carries_nothing() -> Result<()> {
    World::start("")?.play(|world| {
        let credentials = world.realm.stage.folder().join("probe");
        static_names(&world.realm.state(ALICE), &credentials)?;
        let (lab, to) = (&world.realm.stage.lab, world.realm.gateway_address(0));
        let before = world.gateway.counter("packets_unbound")?;
        let packet = build::udp(SocketAddr::from(([10, 97, 0, 2], 4_000)), service(0), b"unbound");
        lab.run_in(lab.client(MALLORY)?, || {
            let mut probe = Probe::connect_unbound(&credentials, ALICE, to)?;
            probe.send(&packet)
        })??;
        world.gateway.wait_until(PATIENCE, |status| status["totals"]["packets_unbound"].as_u64() > Some(before))?;
        // alice's own session goes on.
        world.reaches(ALICE, 0)
    })
}

/// The folder of a client as the probe's static files are called.
fn static_names(state: &Path, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for (from, to) in [("chain.pem", "alice.pem"), ("key.pem", "alice.key"), ("ca.pem", "ca.pem")] {
        std::fs::copy(state.join(from), folder.join(to)).with_context(|| from.to_owned())?;
    }
    Ok(())
}

/// A Gateway's certificate at a session channel, a user's at the Controller's gRPC port, and none at either.
// Covers: A2 refuse
pub(crate) fn roles_open_their_own_doors_only() -> Result<()> {
    World::start("")?.play(|world| {
        let (lab, to) = (&world.realm.stage.lab, world.realm.gateway_address(0));
        let gateway = world.realm.state(GATEWAY);
        let before = world.gateway.counter("refused_wrong_role")?;
        let refused = lab.run_in(lab.client(MALLORY)?, || hostile::present(&gateway, to, "", ""))?;
        ensure!(refused.is_err(), "a Gateway's certificate opened a session channel");
        world
            .gateway
            .wait_until(PATIENCE, |status| status["totals"]["refused_wrong_role"].as_u64() == Some(before + 1))?;
        let controller = world.realm.controller_address();
        let refused =
            lab.run_in(lab.client(MALLORY)?, || hostile::subscribe(&world.realm.state(ALICE), controller))??;
        ensure!(refused.code == "wrong_role", "{refused:?}");
        // Whoever shows nothing gets nothing, in plain HTTP least of all.
        for port in [to, controller] {
            let plain = lab.run_in(lab.client(MALLORY)?, || http::get(port, PATIENCE))?;
            ensure!(plain.is_err(), "{port} answered a stranger: {plain:?}");
        }
        Ok(())
    })
}

/// A leaf of every role under the real CA, one of another CA, and one that has expired, each at the session channel and at the
/// tunnel's port: only a device's opens either.
// Covers: A10 refuse
pub(crate) fn each_role_at_a_gateways_listeners() -> Result<()> {
    World::start("")?.play(|world| {
        let own = Ca::of(&world.realm.state("controller"))?;
        let foreign = Ca::foreign()?;
        let mut rows: Vec<(String, &Ca, Role, Life)> =
            Role::ALL.into_iter().map(|role| (role.to_string(), &own, role, Life::Good)).collect();
        rows.push(("foreign".into(), &foreign, Role::Device, Life::Good));
        rows.push(("expired".into(), &own, Role::Device, Life::Over));
        let (lab, to) = (&world.realm.stage.lab, world.realm.gateway_address(0));
        let stranger = lab.client(MALLORY)?;
        for (name, ca, role, life) in rows {
            let folder = world.realm.stage.folder().join(format!("leaf-{name}"));
            ca.issue(&folder, &world.realm.state(ALICE), role, life)?;
            let opens = role == Role::Device && name == "device";
            let code = match (opens, name.as_str()) {
                (true, _) => "refused_token_malformed",
                (_, "foreign" | "expired") => "refused_certificate_refused",
                _ => "refused_wrong_role",
            };
            let before = world.gateway.counter(code)?;
            let channel = lab.run_in(stranger, || hostile::present(&folder, to, "", ""))?;
            // A device comes as far as its tokens, which are none.
            ensure!(channel.is_ok() == opens, "the session channel and {name}: {channel:?}");
            world.gateway.wait_until(PATIENCE, |status| status["totals"][code].as_u64() == Some(before + 1))?;

            let counter = if opens { "handshakes_finished" } else { "handshakes_failed" };
            let before = world.gateway.counter(counter)?;
            let credentials = folder.join("probe");
            static_names(&folder, &credentials)?;
            // The client's side of a handshake ends before the Gateway has looked at its certificate.
            let _probe = lab.run_in(stranger, || Probe::connect_unbound(&credentials, ALICE, to))?;
            world.gateway.wait_until(PATIENCE, |status| status["totals"][counter].as_u64() == Some(before + 1))?;
        }
        world.reaches(ALICE, 0)
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Good,
    Over,
}

/// Somebody who signs whatever certificate is asked for.
pub(crate) struct Ca(Issuer<'static, KeyPair>);

impl Ca {
    /// The organisation's own intermediate, out of the Controller's folder.
    pub(crate) fn of(state: &Path) -> Result<Self> {
        let key = KeyPair::from_pem(&std::fs::read_to_string(state.join("intermediate.key"))?)?;
        let certificate = Folder::open(state)?.certificates("intermediate.pem")?;
        Ok(Self(Issuer::from_ca_cert_der(certificate.first().context("no intermediate")?, key)?))
    }

    pub(crate) fn foreign() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(Issuer::new(params, KeyPair::generate()?)))
    }

    /// A certificate, PEM.
    pub(crate) fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Result<String> {
        Ok(params.signed_by(key, &self.0)?.pem())
    }

    /// A folder like `like`, with a leaf of `role`.
    fn issue(&self, folder: &Path, like: &Path, role: Role, life: Life) -> Result<()> {
        let (kept, identity) = Folder::open_joined(like)?;
        let folder = Folder::create(folder)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, identity.organisation.as_str());
        name.push(DnType::CommonName, "a-client");
        name.push(DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1]), "a-client");
        params.distinguished_name = name;
        let uri = format!("ringfort://{}/{role}/a-client", identity.organisation);
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if life == Life::Over {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let leaf = params.signed_by(&key, &self.0)?;
        folder.write(file::KEY, key.serialize_pem().as_bytes(), Secrecy::Secret)?;
        folder.write_certificates(file::CHAIN, [leaf.der()])?;
        folder.write_certificates(file::CA, kept.certificates(file::CA)?)?;
        Ok(folder.write_identity(&identity)?)
    }
}
