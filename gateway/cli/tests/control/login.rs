//! From nothing to tokens: URL and fingerprint, password, and that everything issued is of one session.

use anyhow::{Context, Result, ensure};
use ringfort_enrol::Folder;
use ringfort_identity::{Role, Side};
use ringfort_stage::hostile;
use ringfort_token::{ClaimsToken, ConnectToken, EntitlementToken};

use crate::world::{ALICE, World};

// Covers: A1 allow
// Covers: A1 refuse
// Covers: A2 refuse
pub(crate) fn from_url_and_fingerprint_alone() -> Result<()> {
    World::without_tunnel("")?.play(|world| {
        let fingerprint = world.controller.status()?["ca_fingerprint"].as_str().context("no fingerprint")?.to_owned();
        let url = format!("https://{}", world.realm.controller_address());
        let lab = &world.realm.stage.lab;
        let log_in = |name: &str, fingerprint: Option<&str>| {
            let state = world.realm.state(name).display().to_string();
            let mut arguments = vec!["login", &url, "--user", ALICE, "--password-stdin", "--state", &state];
            if let Some(fingerprint) = fingerprint {
                arguments.extend(["--ca-fingerprint", fingerprint]);
            }
            world.realm.stage.command(lab.client(ALICE)?, &arguments, &ringfort_stage::Realm::password(ALICE))
        };
        let other = format!("{}{}", if fingerprint.starts_with('0') { "1" } else { "0" }, &fingerprint[1..]);
        let refused = log_in("other", Some(&other))?.refused()?;
        ensure!(refused.contains("fingerprint"), "{refused}");
        // Without one nothing is believed, and what was seen is told for comparing.
        let refused = log_in("none", None)?.refused()?;
        ensure!(refused.contains(&fingerprint), "{refused}");
        for name in ["other", "none"] {
            ensure!(!world.realm.state(name).join("claims.jwt").exists(), "a login that was refused left a token");
        }
        log_in("good", Some(&fingerprint))?.ok().map(drop)
    })
}

// Covers: A3 refuse
pub(crate) fn a_wrong_password_gives_nothing() -> Result<()> {
    World::without_tunnel("")?.play(|world| {
        world.join_user(ALICE)?;
        let state = world.realm.state(ALICE).display().to_string();
        let arguments = ["login", "--user", ALICE, "--password-stdin", "--state", &state];
        let lab = &world.realm.stage.lab;
        for (user, password) in [(ALICE, "alice-wrong\n"), (ALICE, "\n"), ("nobody", "alice-wrong\n")] {
            let mut arguments = arguments;
            arguments[2] = user;
            let refused = world.realm.stage.command(lab.client(ALICE)?, &arguments, password)?.refused()?;
            ensure!(password == "\n" || refused.contains("login_refused"), "{refused}");
        }
        ensure!(!world.realm.state(ALICE).join("claims.jwt").exists(), "a login that was refused left a token");
        world.login(ALICE)
    })
}

// Covers: A5 allow
// Covers: A6 allow
// Covers: A7 allow
// Covers: A9 allow
// Covers: C1 allow
pub(crate) fn tokens_and_certificate_are_of_one_session() -> Result<()> {
    World::start("")?.play(|world| {
        let folder = world.realm.state(ALICE);
        let read = |name: &str| std::fs::read_to_string(folder.join(name));
        let claims: ClaimsToken = hostile::said(&read("claims.jwt")?)?;
        let connect: ConnectToken = hostile::said(&read("connect.jwt")?)?;
        let site = connect.sites.first().context("no site")?;
        ensure!(connect.sites.len() == 1, "she is told of more sites than she may reach");
        let entitlement: EntitlementToken = hostile::said(&read(&format!("entitlement-{}.jwt", site.site))?)?;
        ensure!(entitlement.grants.len() == 1, "she is told of more Resources than she may reach");
        let (state, identity) = Folder::open_joined(&folder)?;
        let leaf = state.certificates(ringfort_enrol::file::CHAIN)?;
        let leaf = leaf.first().context("no certificate")?;
        let peer = state.trust()?.verify(leaf, Side::Client, Role::Device, ringfort_enrol::wall_clock())?;
        let session = peer.session().context("the certificate names no session")?.to_string();
        ensure!(session == claims.sub && session == entitlement.sub && session == connect.sub, "different sessions");
        ensure!(*peer.key() == claims.cnf.jkt && *peer.key() == entitlement.cnf.jkt, "different keys");
        ensure!(session.starts_with(&format!("UID={},", identity.id)), "the session has another client id");
        ensure!(claims.sub.contains(&claims.user) && !claims.sub.contains(ALICE), "a human name is in the subject");
        ensure!(entitlement.exp <= claims.exp && peer.not_after() <= claims.exp, "a child outlives its parent");
        Ok(())
    })
}
