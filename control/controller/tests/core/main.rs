//! The Controller's core, as the shell uses it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accounts;
mod audit;
mod bindings;
mod certificates;
mod changes;
#[path = "../support/database.rs"]
mod database;
mod external_otp;
mod gateways;
mod hosts;
mod identity;
mod joining;
mod logins;
mod over;
mod policy;
mod receipts;
mod relays;
mod roles;
mod several;
mod starts;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use ringfort_controller::core::{Action, Administrator, Bearer, Core, FirstAdministrator, Refused, Settings, action};
use ringfort_identity::{KeyThumbprint, PeerIdentity, Role, Side};
use ringfort_proto::{api, v1};
use ringfort_token::{
    ConnectToken, DenyList, EntitlementToken, Expectation, Holder, Signed, Token, Verified, audience,
};
use ringfort_types::UnixSeconds;
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn later(seconds: u64) -> UnixSeconds {
    UnixSeconds(NOW.0 + seconds)
}

/// Those of an organisation in a temporary folder.
async fn settings(folder: &Path) -> Settings {
    let names = vec!["controller.example".into(), "192.0.2.10".into()];
    let database = database::of(&state(folder)).await;
    Settings { database, ..Settings::new("controller.example:8443".into(), names) }
}

/// The state folder in a temporary one, which others may enter.
fn state(folder: &Path) -> PathBuf {
    folder.join("state")
}

async fn open(folder: &Path, now: UnixSeconds) -> Core {
    let first = FirstAdministrator { name: "root".into(), password: "first password".to_owned().into() };
    Core::open(&state(folder), &settings(folder).await, Some(&first), now).await.unwrap()
}

/// An organisation with alice and bob, the sites east and west, and the Resources wiki (east), build (east) and db (west).
struct World {
    folder: TempDir,
    core: Core,
    /// The first administrator, who owns the organisation.
    owner: Administrator<action::ChangeRole>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let core = open(folder.path(), NOW).await;
        let bearer = Client::new("admin-device").login(&core, "root", "first password", NOW).await.unwrap();
        let owner = core.administrator(&bearer, NOW).await.unwrap();
        let world = Self { folder, core, owner };
        let core = &world.core;
        for (name, pool) in [("east", "10.97.0.1/24"), ("west", "10.96.0.1/24")] {
            let pools = vec![pool.to_owned(), "fd00:97::1/64".to_owned()];
            core.admin_new_site(&world.admin(), api::NewSite { name: name.into(), pools }, NOW).await.unwrap();
        }
        for name in ["alice", "bob"] {
            let user =
                api::NewUser { name: name.into(), password: format!("{name} password"), role: None, email: None };
            core.admin_new_user(&world.admin(), user, NOW).await.unwrap();
        }
        for (name, site, to) in
            [("wiki", "east", "10.1.0.1"), ("build", "east", "10.1.0.2"), ("db", "west", "10.2.0.1")]
        {
            core.admin_new_resource(&world.admin(), resource(name, site, to), NOW).await.unwrap();
        }
        world
    }

    /// The first administrator, about to do something.
    fn admin<A: Action>(&self) -> Administrator<A> {
        self.owner.also().unwrap()
    }

    /// The same, who has logged in again if that is long ago.
    async fn admin_at<A: Action>(&self, now: UnixSeconds) -> Administrator<A> {
        if now < later(11 * 3_600) {
            return self.admin();
        }
        let client = Client::new(&format!("admin-device-{}", now.0));
        let bearer = client.login(&self.core, "root", "first password", now).await.unwrap();
        self.core.administrator(&bearer, now).await.unwrap()
    }

    /// The same organisation after the Controller was started anew.
    async fn restarted(self, now: UnixSeconds) -> Self {
        let Self { folder, core, owner } = self;
        drop(core);
        let core = Core::open(&state(folder.path()), &settings(folder.path()).await, None, now).await.unwrap();
        Self { folder, core, owner }
    }

    async fn grant(&self, resource: &str, user: &str, now: UnixSeconds) -> api::Pushed {
        self.core.admin_grant(&self.admin_at(now).await, entitlement(resource, user), now).await.unwrap()
    }

    async fn take_back(&self, resource: &str, user: &str, now: UnixSeconds) -> api::Pushed {
        self.core.admin_take_back(&self.admin_at(now).await, entitlement(resource, user), now).await.unwrap()
    }

    async fn revoke(
        &self,
        scope: api::RevocationScope,
        grace_seconds: Option<u32>,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        let request = api::NewRevocation { scope, reason: "for a test".into(), grace_seconds };
        self.core.admin_revoke(&self.admin_at(now).await, request, now).await
    }

    async fn login(&self, user: &str, client: &Client, now: UnixSeconds) -> Bearer {
        client.login(&self.core, user, &format!("{user} password"), now).await.unwrap()
    }

    async fn invite(&self, invitee: api::Invitee) -> (Vec<u8>, String) {
        let request = api::NewInvitation { invitee, expires_in: None };
        let invitation = self.core.admin_invite(&self.admin(), request, NOW).await.unwrap();
        (cookie(&invitation.url), invitation.ticket)
    }

    /// A Gateway that joined at a site.
    async fn gateway(&self, name: &str, site: &str) -> (Client, v1::Joined) {
        let invitee = api::Invitee::Gateway { name: name.into(), site: site.into() };
        let (cookie, ticket) = self.invite(invitee).await;
        let client = Client::new(name);
        let joined = self.core.join(client.join(&cookie, &ticket), NOW).await.unwrap();
        (client, joined)
    }

    /// A Gateway at the door, with the certificate that it joined with.
    fn gateway_peer(&self, joined: &v1::Joined) -> PeerIdentity {
        self.peer(&joined.chain, Role::Gateway, NOW)
    }

    fn peer(&self, chain: &[impl AsRef<[u8]>], role: Role, now: UnixSeconds) -> PeerIdentity {
        let chain: Vec<_> = chain.iter().map(|one| CertificateDer::from(one.as_ref().to_vec())).collect();
        self.core.trust().verify(&chain[0], Side::Client, role, now).unwrap()
    }

    fn verify<T: Token>(&self, text: &str, audience: &str, holder: Holder<'_>, now: UnixSeconds) -> Verified<T> {
        let deny = DenyList::default();
        let expectation = Expectation { audience, holder, now, deny: &deny };
        self.core.verifier().verify(&Signed::from_text(text).unwrap(), &expectation).unwrap()
    }

    /// Entitlement tokens by the name of their site, and the connect token.
    async fn entitlements(
        &self,
        bearer: &Bearer,
        now: UnixSeconds,
    ) -> (Vec<Verified<EntitlementToken>>, Verified<ConnectToken>) {
        let response = self.core.entitlements(bearer, now).await.unwrap();
        let key = bearer.claims().cnf.jkt;
        let session = audience::session(&bearer.session().to_string());
        let connect: Verified<ConnectToken> = self.verify(&response.connect, &session, Holder::Key(&key), now);
        let tokens = response
            .entitlements
            .iter()
            .zip(&connect.sites)
            .map(|(text, site)| self.verify(text, &audience::site(&site.site), Holder::Key(&key), now));
        (tokens.collect(), connect)
    }
}

fn resource(name: &str, site: &str, to: &str) -> api::NewResource {
    api::NewResource { name: name.into(), site: site.into(), to: vec![to.into()], services: vec!["tcp/80".into()] }
}

fn entitlement(resource: &str, user: &str) -> api::EntitlementChange {
    api::EntitlementChange { resource: resource.into(), principal: api::Principal::User(user.into()) }
}

/// The cookie in an invitation's URL.
fn cookie(url: &str) -> Vec<u8> {
    let (_, secret) = url.rsplit_once('/').unwrap();
    URL_SAFE_NO_PAD.decode(secret).unwrap()[18..].to_vec()
}

fn names(token: &EntitlementToken) -> Vec<&str> {
    token.grants.iter().map(|grant| grant.name.as_str()).collect()
}

/// Somebody with a key: a device, or a Gateway.
struct Client {
    id: String,
    key: KeyPair,
}

impl Client {
    fn new(id: &str) -> Self {
        Self { id: id.into(), key: KeyPair::generate().unwrap() }
    }

    fn thumbprint(&self) -> KeyThumbprint {
        KeyThumbprint::of_spki(&self.key.subject_public_key_info()).unwrap()
    }

    fn request(&self) -> Vec<u8> {
        CertificateParams::default().serialize_request(&self.key).unwrap().der().to_vec()
    }

    fn credentials(&self, user: &str, password: &str) -> api::LoginRequest {
        api::LoginRequest {
            user: user.into(),
            password: password.into(),
            client_id: self.id.clone(),
            method: None,
            otp: None,
        }
    }

    async fn login(&self, core: &Core, user: &str, password: &str, now: UnixSeconds) -> Result<Bearer, Refused> {
        let response = core.login(&self.credentials(user, password), self.thumbprint(), FROM, now).await?;
        core.bearer(&response.claims, &self.thumbprint(), now)
    }

    fn join(&self, cookie: &[u8], ticket: &str) -> v1::JoinRequest {
        v1::JoinRequest {
            cookie: cookie.to_vec().into(),
            ticket: ticket.into(),
            certificate_request: self.request().into(),
            addresses: vec!["203.0.113.10:443".into()],
            client_id: self.id.clone(),
            version: "test".into(),
        }
    }
}

#[track_caller]
fn refused<T>(result: Result<T, Refused>, code: &str) {
    let Err(refused) = result else { panic!("expected {code}, found success") };
    assert_eq!(refused.code, code, "{refused}");
}
