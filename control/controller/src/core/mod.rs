//! What the Controller decides and signs: people, sites, Resources, entitlements, logins, certificates, invitations,
//! revocations.
//!
//! One [`Core`] is one organisation's state folder. Every change is one transaction, and what follows from it is sent on
//! [`Core::changes`] after the commit, in the order of the commits. Time is passed in.
//!
//! What it deliberately does not do: no sockets, no HTTP, no streams, no nonces, no counters (the shell's), no clock. It
//! writes the audit events of what was done; refusals are written by whoever answers them ([`Core::audit`]).
//!
//! Requirements: R1–R4, R7, R8, R18, A3–A9, A23, I6, I9, I10, C1, C14; the design is `docs/CONTROL.md`.

mod refused;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ringfort_identity::{KeyThumbprint, PeerIdentity, SessionDn, Trust};
use ringfort_proto::{api, v1};
use ringfort_token::{ClaimsToken, Serial, Verified, Verifier};
use ringfort_types::UnixSeconds;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

pub use refused::Refused;

/// Seconds that a login lasts unless the settings say otherwise (PROTOCOLS "Tokens": 12 h).
const LOGIN_SECONDS: u64 = 12 * 3_600;

/// What an organisation settles for its Controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `host:port` where everybody reaches the Controller; invitations name it.
    pub address: String,
    /// DNS names and IP addresses in the Controller's certificate.
    pub names: Vec<String>,
    /// Seconds from a login until it has to be repeated; everything issued for it ends then.
    #[serde(default = "login_seconds")]
    pub login_seconds: u64,
}

const fn login_seconds() -> u64 {
    LOGIN_SECONDS
}

/// The administrator of an organisation that has none yet.
pub struct FirstAdministrator {
    /// Login name.
    pub name: String,
    /// Password.
    pub password: zeroize::Zeroizing<String>,
}

/// What happened, for those who are to hear of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An entitlement token for the Gateways of a site.
    Entitlement {
        /// The site's id.
        site: String,
        /// rf-entitlement+jwt
        token: Arc<str>,
    },
    /// Revocations for all Gateways.
    Revocations {
        /// rf-revocations+jwt, following what was sent before.
        token: Arc<str>,
        /// Where the list stands with it.
        serial: Serial,
    },
    /// The Gateways of a site need their configuration anew: [`Core::configuration`].
    Configuration {
        /// The site's id.
        site: String,
    },
}

/// Proof that a claims token was verified for whoever shows it.
#[derive(Clone, Debug)]
pub struct Bearer {
    claims: Verified<ClaimsToken>,
    session: SessionDn,
}

impl Bearer {
    /// The session's distinguished name.
    #[must_use]
    pub const fn session(&self) -> &SessionDn {
        &self.session
    }

    /// The claims.
    #[must_use]
    pub const fn claims(&self) -> &Verified<ClaimsToken> {
        &self.claims
    }
}

/// Proof that a bearer is an administrator.
#[derive(Clone, Debug)]
pub struct Administrator {
    name: String,
    auth_time: UnixSeconds,
}

impl Administrator {
    /// Login name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When they last proved who they are.
    #[must_use]
    pub const fn auth_time(&self) -> UnixSeconds {
        self.auth_time
    }
}

/// An event for the audit log.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Who: a login name, a session, a Gateway or an address.
    pub actor: &'a str,
    /// What was asked for.
    pub action: &'a str,
    /// Of whom or what.
    pub target: &'a str,
    /// `ok`, or the code of the refusal.
    pub outcome: &'a str,
    /// What else is worth knowing; nothing secret.
    pub detail: &'a str,
}

/// One organisation's Controller. Clones are the same Controller.
#[derive(Clone)]
pub struct Core {}

fn unfinished<T>() -> Result<T, Refused> {
    Err(Refused::internal("not there yet"))
}

impl Core {
    /// Opens the state folder, and makes organisation, CA, keys, database and the first administrator in an empty one.
    /// The Controller's and the signer's certificate are renewed when a third of their life is left, or the names changed.
    ///
    /// # Errors
    /// When the folder is not private, incomplete or unreadable, or is empty and no administrator is given.
    pub async fn open(
        folder: &Path,
        settings: &Settings,
        first: Option<&FirstAdministrator>,
        now: UnixSeconds,
    ) -> anyhow::Result<Self> {
        anyhow::bail!("not there yet: {} {settings:?} {} {now}", folder.display(), first.is_some())
    }

    /// What everybody of the organisation trusts.
    #[must_use]
    pub fn trust(&self) -> Trust {
        unimplemented!()
    }

    /// Certificate chain of the Controller with the root, and its key.
    #[must_use]
    pub fn server_credentials(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        unimplemented!()
    }

    /// The first 18 bytes of SHA-256 over the SubjectPublicKeyInfo of the Controller's certificate (I2, I3).
    #[must_use]
    pub fn join_key_hash(&self) -> [u8; 18] {
        unimplemented!()
    }

    /// The organisation's id.
    #[must_use]
    pub fn organisation(&self) -> &str {
        unimplemented!()
    }

    /// Believes the tokens of this organisation.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        unimplemented!()
    }

    /// Certificates of the keys that sign tokens, DER.
    #[must_use]
    pub fn signers_der(&self) -> Vec<Vec<u8>> {
        unimplemented!()
    }

    /// The root, DER.
    #[must_use]
    pub fn root_der(&self) -> &[u8] {
        unimplemented!()
    }

    /// Intermediates, DER.
    #[must_use]
    pub fn intermediates_der(&self) -> Vec<Vec<u8>> {
        unimplemented!()
    }

    /// What happens from now on. A receiver that lagged has missed something: its Gateways begin their streams anew.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        unimplemented!()
    }

    /// Where the revocation list stands.
    #[must_use]
    pub fn serial(&self) -> Serial {
        Serial::default()
    }

    /// Whether a certificate is good: neither it nor its key was revoked.
    ///
    /// # Errors
    /// `certificate_revoked`.
    pub fn standing(&self, peer: &PeerIdentity) -> Result<(), Refused> {
        let _ = peer;
        unfinished()
    }

    /// Writes an event and gives its id. Where it cannot be written it is logged.
    pub async fn audit(&self, event: Event<'_>, now: UnixSeconds) -> String {
        format!("{event:?} {now}")
    }

    /// Checks a password and issues claims (A3–A6) for the holder of `key`, who proved to hold it. Registers the device (A4).
    ///
    /// # Errors
    /// `login_refused`, `login_busy`, `login_limited`, `already_exists` for a client id of another user or key,
    /// `certificate_revoked` for a revoked key, `request_malformed`.
    pub async fn login(
        &self,
        request: &api::LoginRequest,
        key: KeyThumbprint,
        from: IpAddr,
        now: UnixSeconds,
    ) -> Result<api::LoginResponse, Refused> {
        let _ = (request, key, from, now);
        unfinished()
    }

    /// Verifies the claims token of whoever proved to hold `holder`.
    ///
    /// # Errors
    /// `token_…`.
    pub fn bearer(&self, claims: &str, holder: &KeyThumbprint, now: UnixSeconds) -> Result<Bearer, Refused> {
        let _ = (claims, holder, now);
        unfinished()
    }

    /// Verifies the claims token of a peer with a certificate: a device's, in good standing, of the token's session.
    ///
    /// # Errors
    /// `wrong_role`, `certificate_revoked`, `certificate_mismatch`, `token_…`.
    pub fn bearer_with_certificate(
        &self,
        claims: &str,
        peer: &PeerIdentity,
        now: UnixSeconds,
    ) -> Result<Bearer, Refused> {
        let _ = (claims, peer, now);
        unfinished()
    }

    /// One entitlement token per site, and the connect token (A7, C1).
    ///
    /// # Errors
    /// `token_revoked` when the login has ended, `pool_exhausted`.
    pub async fn entitlements(&self, bearer: &Bearer, now: UnixSeconds) -> Result<api::EntitlementsResponse, Refused> {
        let _ = (bearer, now);
        unfinished()
    }

    /// A device certificate for the claims' session and key (A8, A9). `request` is PKCS#10, DER.
    ///
    /// # Errors
    /// `request_malformed`, `key_mismatch`, `token_revoked` when the login has ended.
    pub async fn certificate(
        &self,
        bearer: &Bearer,
        request: &[u8],
        now: UnixSeconds,
    ) -> Result<api::CertificateResponse, Refused> {
        let _ = (bearer, request, now);
        unfinished()
    }

    /// New claims within the same login, of the user's present generation.
    ///
    /// # Errors
    /// `token_revoked` when the login has ended.
    pub async fn renew(&self, bearer: &Bearer, now: UnixSeconds) -> Result<api::LoginResponse, Refused> {
        let _ = (bearer, now);
        unfinished()
    }

    /// Whether the bearer is an administrator.
    ///
    /// # Errors
    /// `not_administrator`, `token_revoked` when the login has ended.
    pub async fn administrator(&self, bearer: &Bearer, now: UnixSeconds) -> Result<Administrator, Refused> {
        let _ = (bearer, now);
        unfinished()
    }

    /// Lets a Gateway or a device join by its invitation, which is used up first (R3, R4, I6–I10).
    ///
    /// # Errors
    /// `request_malformed`, `invitation_unknown`, `invitation_used`, `invitation_expired`, `ticket_mismatch`, `token_…`,
    /// `already_exists`.
    pub async fn join(&self, request: v1::JoinRequest, now: UnixSeconds) -> Result<v1::Joined, Refused> {
        let _ = (request, now);
        unfinished()
    }

    /// A new configuration (rf-gateway+jwt) for a Gateway (R7, R8).
    ///
    /// # Errors
    /// `not_found`.
    pub async fn configuration(&self, gateway: &str, now: UnixSeconds) -> Result<String, Refused> {
        let _ = (gateway, now);
        unfinished()
    }

    /// The revocations after `after` (rf-revocations+jwt), in order; all, if its epoch is another.
    ///
    /// # Errors
    /// `internal`.
    pub async fn revocations_after(&self, after: Serial, now: UnixSeconds) -> Result<Vec<String>, Refused> {
        let _ = (after, now);
        unfinished()
    }

    /// Entitlement tokens of a Gateway's site that are newer than those named for its live sessions.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn entitlements_newer(
        &self,
        gateway: &str,
        sessions: &[v1::LiveSession],
        now: UnixSeconds,
    ) -> Result<Vec<String>, Refused> {
        let _ = (gateway, sessions, now);
        unfinished()
    }

    /// A new certificate for a Gateway and its key; the chain, DER. `request` is PKCS#10, DER.
    ///
    /// # Errors
    /// `wrong_role`, `certificate_revoked`, `key_mismatch`, `request_malformed`, `not_found`.
    pub async fn enroll(&self, peer: &PeerIdentity, request: &[u8], now: UnixSeconds) -> Result<Vec<Vec<u8>>, Refused> {
        let _ = (peer, request, now);
        unfinished()
    }

    /// Takes a Gateway's report (R16, R18) and says whether it is in the state that we believe it to be in.
    ///
    /// # Errors
    /// `not_found`, `request_malformed`.
    pub async fn report(
        &self,
        gateway: &str,
        report: &v1::ReportRequest,
        now: UnixSeconds,
    ) -> Result<bool, Refused> {
        let _ = (gateway, report, now);
        unfinished()
    }
}

macro_rules! unfinished_admin {
    ($($name:ident: $request:ty => $answer:ty;)*) => {
        impl Core {
            $(
                /// As its name says; audit-logged.
                ///
                /// # Errors
                /// `request_malformed`, `not_found`, `already_exists`.
                pub async fn $name(
                    &self,
                    administrator: &Administrator,
                    request: $request,
                    now: UnixSeconds,
                ) -> Result<$answer, Refused> {
                    let _ = (administrator, request, now);
                    unfinished()
                }
            )*
        }
    };
}

unfinished_admin! {
    admin_new_user: api::NewUser => api::Created;
    admin_remove_user: api::Named => api::Pushed;
    admin_new_site: api::NewSite => api::Created;
    admin_remove_site: api::Named => ();
    admin_new_resource: api::NewResource => api::Created;
    admin_remove_resource: api::Named => api::Pushed;
    admin_new_group: api::NewGroup => api::Created;
    admin_remove_group: api::Named => api::Pushed;
    admin_add_member: api::Membership => api::Pushed;
    admin_remove_member: api::Membership => api::Pushed;
    admin_grant: api::EntitlementChange => api::Pushed;
    admin_take_back: api::EntitlementChange => api::Pushed;
    admin_invite: api::NewInvitation => api::InvitationResponse;
    admin_revoke: api::NewRevocation => api::Pushed;
}

impl Core {
    /// All users.
    ///
    /// # Errors
    /// `internal`.
    pub async fn users(&self, _administrator: &Administrator) -> Result<Vec<api::UserRow>, Refused> {
        unfinished()
    }

    /// All Gateways.
    ///
    /// # Errors
    /// `internal`.
    pub async fn gateways(
        &self,
        _administrator: &Administrator,
        now: UnixSeconds,
    ) -> Result<Vec<api::GatewayRow>, Refused> {
        let _ = now;
        unfinished()
    }

    /// All logins that have not ended.
    ///
    /// # Errors
    /// `internal`.
    pub async fn sessions(
        &self,
        _administrator: &Administrator,
        now: UnixSeconds,
    ) -> Result<Vec<api::SessionRow>, Refused> {
        let _ = now;
        unfinished()
    }

    /// The newest events.
    ///
    /// # Errors
    /// `internal`.
    pub async fn events(&self, _administrator: &Administrator) -> Result<Vec<api::AuditRow>, Refused> {
        unfinished()
    }
}
