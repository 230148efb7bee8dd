//! Bodies of the Controller's HTTP API, `/api/v1/…`, as JSON. `docs/CONTROL.md` has the table of requests.
//!
//! Unknown members are refused in requests, so that a misspelt one is not silently left out, and ignored in responses, so that an
//! older client understands a newer Controller. Binary values are base64url without padding.

use serde::{Deserialize, Serialize};

/// Path of everything below, [`registration_path`] aside.
pub const BASE: &str = "/api/v1";
/// Header of a proof of possession (RFC 9449 §4).
pub const PROOF_HEADER: &str = "dpop";
/// Header in which the Controller gives the nonce for the next proof (RFC 9449 §8). Every response without a client
/// certificate has one.
pub const NONCE_HEADER: &str = "dpop-nonce";

/// The body of every response that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Stable: `invitation_used`, `token_expired`, `not_administrator`, …
    pub code: String,
    /// What was expected, what came, what to do.
    pub message: String,
    /// The Controller's audit event; empty where none is written.
    #[serde(default)]
    pub event: String,
}

/// Answer to `GET login`: how to log in here (R19).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginMethods {
    /// The organisation's id.
    pub organisation: String,
    /// Names of the methods: those of the identity providers, and `password`, which is the Controller's own.
    pub methods: Vec<String>,
    /// The identity providers among them, and the URI to go to.
    #[serde(default)]
    pub providers: Vec<LoginProvider>,
}

/// An identity provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginProvider {
    /// Name of the method.
    pub method: String,
    /// What it speaks.
    pub kind: ProviderKind,
    /// Where it is: an OpenID provider's issuer, a directory's URL.
    pub uri: String,
}

/// What an identity provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// OpenID Connect: `POST login/oidc/begin`.
    Oidc,
    /// LDAP: `POST login` with name and password.
    Ldap,
}

/// `POST login`, with a proof by the key that the tokens will belong to.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// Login name.
    pub user: String,
    /// Password.
    pub password: String,
    /// The client id that the client made (A4).
    pub client_id: String,
    /// A method that takes a password; `password` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A one-time password, for users who have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otp: Option<String>,
}

impl std::fmt::Debug for LoginRequest {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginRequest").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What everybody of the organisation has to know beforehand. It is the whole of it: what is no longer in it is no longer believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Certificates of the keys that sign tokens, DER.
    pub signers: Vec<String>,
    /// Intermediates, DER.
    pub intermediates: Vec<String>,
    /// `host:port` of each Controller, the one that answers first.
    pub controllers: Vec<String>,
}

/// `POST login/oidc/begin`, with a proof by the key that the tokens will belong to (R20).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcBegin {
    /// The method.
    pub method: String,
    /// The client id that the client made (A4).
    pub client_id: String,
    /// Where the client listens for the browser: `http://127.0.0.1:PORT/callback` (RFC 8252 §7.3).
    pub redirect_uri: String,
    /// Whether the provider is to ask anew who it is (R2).
    #[serde(default)]
    pub fresh: bool,
}

/// Answer to `POST login/oidc/begin`.
#[derive(Clone, Serialize, Deserialize)]
pub struct OidcBegun {
    /// For the user's browser.
    pub url: String,
    /// Names this login in `POST login/oidc/finish`; good once.
    pub handle: String,
    /// What must come back with the browser.
    pub state: String,
    /// Until when it may be finished, in seconds since 1970.
    pub expires_at: u64,
}

/// `POST login/oidc/finish`, with a proof by the same key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcFinish {
    /// From [`OidcBegun`].
    pub handle: String,
    /// What the browser brought.
    pub code: String,
    /// Likewise.
    pub state: String,
    /// Likewise, if it is there (RFC 9207).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
}

impl std::fmt::Debug for OidcBegun {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OidcBegun").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for OidcFinish {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OidcFinish").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// Answer to `POST totp` and `POST admin/users/totp`: a secret for an authenticator app. Shown once.
#[derive(Clone, Serialize, Deserialize)]
pub struct TotpSecret {
    /// base32.
    pub secret: String,
    /// `otpauth://totp/…`, most often shown as a picture.
    pub url: String,
}

impl std::fmt::Debug for TotpSecret {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TotpSecret").finish_non_exhaustive()
    }
}

/// Answer to `POST login`, `POST login/oidc/finish`, `POST login/service` and `POST renew`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginResponse {
    /// rf-claims+jwt
    pub claims: String,
    /// The root, DER.
    pub root: String,
    /// What else is to be known.
    #[serde(flatten)]
    pub known: Known,
}

/// Answer to `POST entitlements`: one token per site (A7), and where the sites are (C1, C8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntitlementsResponse {
    /// rf-entitlement+jwt, one per site where the user may do anything.
    pub entitlements: Vec<String>,
    /// rf-connect+jwt
    pub connect: String,
    /// What is to be known to believe these.
    #[serde(flatten)]
    pub known: Known,
}

/// `POST certificate`: a signing request (PKCS#10, DER) by the key of the claims token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// PKCS#10, DER. Only its public key is taken from it.
    pub certificate_request: String,
}

/// Answer to `POST certificate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateResponse {
    /// DER, the leaf first, the root not among them.
    pub chain: Vec<String>,
}

/// `POST admin/users`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Login name.
    pub name: String,
    /// First password; empty for a user who logs in at an identity provider only.
    #[serde(default)]
    pub password: String,
    /// The role as an administrator, if any.
    #[serde(default)]
    pub role: Option<AdministratorRole>,
    /// The address by which identity providers know the user (R21).
    #[serde(default)]
    pub email: Option<String>,
}

/// What an administrator may do; each may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdministratorRole {
    /// Sees lists, receipts and the audit log.
    Auditor,
    /// Changes everything but administrators.
    Admin,
    /// Makes and removes administrators and changes their roles.
    Owner,
}

impl AdministratorRole {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auditor, Self::Admin, Self::Owner];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

/// `POST admin/users/role`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleChange {
    /// Login name.
    pub name: String,
    /// The role from now on; `None` takes it away.
    pub role: Option<AdministratorRole>,
}

impl std::fmt::Debug for NewUser {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewUser").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `POST admin/users/email`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserEmail {
    /// Login name.
    pub name: String,
    /// The address by which identity providers know the user (R21); `None` for nobody.
    pub email: Option<String>,
}

/// `POST admin/services`: an account of a program, which logs in by its certificate alone (X12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewService {
    /// Name, unique among users.
    pub name: String,
}

/// `POST admin/sites`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSite {
    /// Name, unique.
    pub name: String,
    /// Pools of clients' inner addresses with the Gateways' own address: `10.97.0.1/16`; one per family at most.
    pub pools: Vec<String>,
}

/// `POST admin/resources`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewResource {
    /// Name, unique; denials name it.
    pub name: String,
    /// Name of the site it is at.
    pub site: String,
    /// Addresses and networks: `10.98.0.10`, `10.98.0.0/24`.
    pub to: Vec<String>,
    /// Services: `tcp/80`, `udp/5000-5100`, `icmp-echo`, `any`.
    pub services: Vec<String>,
}

/// `POST admin/groups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewGroup {
    /// Name, unique.
    pub name: String,
}

/// `POST admin/groups/members` and `POST admin/groups/members/remove`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Name of the group.
    pub group: String,
    /// Login name of the user.
    pub user: String,
}

/// Whom an entitlement is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Principal {
    /// One user, by login name.
    User(String),
    /// A group's members, by its name.
    Group(String),
}

/// `POST admin/entitlements` grants, `POST admin/entitlements/remove` takes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntitlementChange {
    /// Name of the resource.
    pub resource: String,
    /// Whose.
    pub principal: Principal,
}

/// Answer to a change that is pushed: what went out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// Entitlement tokens that were signed anew and pushed.
    pub entitlements: u32,
    /// Serial of the revocation list afterwards, `epoch/n`; empty where it did not change.
    #[serde(default)]
    pub serial: String,
    /// Gateways whose stream was open.
    pub gateways: u32,
}

/// Answer to `GET admin/receipts?serial=<epoch>/<n>&wait=<seconds>`: who has applied what was taken back (X6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipts {
    /// The serial that was asked for, `epoch/n`.
    pub serial: String,
    /// One for every Gateway that ever had a configuration, by name.
    pub gateways: Vec<Receipt>,
}

impl Receipts {
    /// Whether nobody is waited for any more.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.gateways.iter().all(|receipt| receipt.done || !receipt.awaited)
    }
}

/// How one Gateway stands with a serial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The Gateway's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Name of its site.
    pub site: String,
    /// The serial that it said last to have applied; empty for none.
    pub applied: String,
    /// Whether that is the one asked for or a later one.
    pub done: bool,
    /// Whether it is waited for: it is alive, or sessions that it has not heard of may still run there.
    pub awaited: bool,
    /// Milliseconds from the push to its confirmation; absent where that was not measured, because it was away meanwhile.
    #[serde(default)]
    pub took_ms: Option<u64>,
    /// Of a silent one: when the last session ends there that it should have ended, in seconds since 1970; absent where there is
    /// none.
    #[serde(default)]
    pub sessions_end: Option<u64>,
    /// Until when it may admit new sessions without having heard from a Controller, in seconds since 1970; they end as those.
    pub lease_until: u64,
}

/// `POST admin/invitations`; needs an authentication not older than five minutes (R2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewInvitation {
    /// What is invited.
    pub invitee: Invitee,
    /// Seconds until it expires; 7 days by default (I10).
    #[serde(default)]
    pub expires_in: Option<u64>,
}

/// What is invited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Invitee {
    /// A Gateway.
    Gateway {
        /// Its name, unique.
        name: String,
        /// Name of its site.
        site: String,
    },
    /// A user's machine.
    Device {
        /// Login name of the user.
        user: String,
    },
    /// Another Controller of the same database.
    Controller {},
    /// A host that registers itself.
    Host {
        /// Its name.
        name: String,
    },
    /// A machine of a service account (X12).
    Service {
        /// Its name.
        name: String,
    },
}

/// Answer to `POST admin/invitations`. Shown once: the Controller does not keep the cookie.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationResponse {
    /// `host:port/<key hash><cookie>` (I2).
    pub url: String,
    /// rf-enrol+jwt (R3).
    pub ticket: String,
    /// When it expires, in seconds since 1970.
    pub expires_at: u64,
}

impl std::fmt::Debug for InvitationResponse {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InvitationResponse").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// What a revocation is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum RevocationScope {
    /// All that a user has, by login name.
    User(String),
    /// All that the members of a group have, by its name.
    Group(String),
    /// One device, by its client id.
    Device(String),
    /// One token, by its `jti`.
    Token(String),
    /// All users.
    Everyone,
}

/// `POST admin/revocations`: takes back at once, or with a grace time demands renewal (A23).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRevocation {
    /// What it is about.
    pub scope: RevocationScope,
    /// Shown to the user.
    pub reason: String,
    /// Seconds in which whoever is meant renews unnoticed; `None` revokes at once.
    #[serde(default)]
    pub grace_seconds: Option<u32>,
}

/// `POST admin/gateways/drain`: for maintenance no new session comes to a Gateway, until it is ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Name of the Gateway.
    pub name: String,
    /// Whether it is drained from now on.
    pub draining: bool,
}

/// `POST admin/gateways/operations`: passed on to the Gateway, whose answer is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationRequest {
    /// Name of the Gateway.
    pub name: String,
    /// What it is to do.
    pub operation: Operation,
}

/// What a Gateway can be asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Operation {
    /// Read its own file again.
    Reload,
    /// Log by this filter.
    LogLevel(String),
    /// End every session, while it is drained.
    EndSessions,
    /// Take the signed package of this version, for the installer of the Gateway's site.
    Upgrade {
        /// Three numbers: `1.2.3`.
        version: String,
        /// SHA-256 of the package, in hexadecimal.
        sha256: String,
    },
    /// Write packets of the tunnel interface to a file at the Gateway.
    Capture(CaptureLimits),
}

/// A SHA-256 digest as people write it: 64 hexadecimal digits.
#[must_use]
pub fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(digest)
}

/// Where a capture ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureLimits {
    /// Time, in seconds.
    pub seconds: u32,
    /// Packets.
    pub packets: u32,
    /// Bytes of the file.
    pub bytes: u32,
    /// Bytes of each packet.
    pub snap_bytes: u32,
}

impl CaptureLimits {
    /// Whether it is bounded as every capture must be.
    ///
    /// # Errors
    /// What was expected and what came.
    pub fn check(&self) -> Result<(), String> {
        let Self { seconds, packets, bytes, snap_bytes } = *self;
        for (what, found, most) in [
            ("seconds", seconds, 300),
            ("packets", packets, 100_000),
            ("bytes", bytes, 64 << 20),
            ("bytes of each packet", snap_bytes, 65_535),
        ] {
            if !(1..=most).contains(&found) {
                return Err(format!("expected 1 to {most} {what} of a capture, found {found}"));
            }
        }
        Ok(())
    }
}

/// Answer to `POST admin/gateways/operations`: it was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationAnswer {
    /// The operation's id, as in the logs of both.
    pub id: String,
    /// What the Gateway says.
    pub detail: String,
    /// The Controller's audit event.
    pub event: String,
}

/// Answer to requests that make something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// Its id.
    pub id: String,
}

/// `POST admin/users/remove`, `admin/users/disable`, `admin/users/enable`, `admin/users/totp`, `admin/users/totp/remove`,
/// `admin/sites/remove`, `admin/resources/remove`, `admin/groups/remove`, `admin/gateways/remove`, `admin/hosts`,
/// `admin/hosts/remove` and `admin/controllers/remove`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Name of what is meant.
    pub name: String,
}

/// One of the answer to `GET admin/users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRow {
    /// Its id, which stands in names of sessions.
    pub id: String,
    /// Login name.
    pub name: String,
    /// The role as an administrator, if any.
    #[serde(default)]
    pub role: Option<AdministratorRole>,
    /// Whether the user may log in.
    pub active: bool,
    /// Names of the groups the user is in.
    pub groups: Vec<String>,
    /// The address by which identity providers know the user.
    #[serde(default)]
    pub email: Option<String>,
    /// Whether it is a program's account.
    #[serde(default)]
    pub service: bool,
    /// Whether a one-time password is asked for beside the password.
    #[serde(default)]
    pub totp: bool,
}

/// One of the answer to `GET admin/gateways`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayRow {
    /// Its id, as in its certificate.
    pub id: String,
    /// Name.
    pub name: String,
    /// Name of its site.
    pub site: String,
    /// Where clients reach it.
    pub addresses: Vec<String>,
    /// SHA-256 of the certificate it shows, in hexadecimal.
    pub certificate_digest: String,
    /// When it reported last, in seconds since 1970; 0 for never.
    pub last_seen: u64,
    /// Whether clients are sent to it (R18).
    pub alive: bool,
    /// Whether its stream is open at the Controller that was asked.
    #[serde(default)]
    pub connected: bool,
    /// Whether it is drained: it admits no new session.
    #[serde(default)]
    pub draining: bool,
    /// Serial of the revocations that it has applied, `epoch/n`; empty for none.
    #[serde(default)]
    pub applied: String,
}

/// One of the answer to `GET admin/controllers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerRow {
    /// Its id: what its invitations name as key hash, in hexadecimal.
    pub id: String,
    /// `host:port` where everybody reaches it.
    pub address: String,
    /// When it started last, in seconds since 1970.
    pub started_at: u64,
}

/// Path of the request by which a host registers itself (W5), which is not below [`BASE`]: other implementations know it as this.
#[must_use]
pub fn registration_path(hostname: &str) -> String {
    format!("/api/hosts/{hostname}/client")
}

/// Interfaces of one host that registers itself, and addresses of all of them.
pub const HOST_INTERFACES_MAX: usize = 64;
/// As [`HOST_INTERFACES_MAX`].
pub const HOST_ADDRESSES_MAX: usize = 256;

/// `POST /api/hosts/{hostname}/client` (W5): where a host can be reached, as it sees itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRegistration {
    /// Its network interfaces.
    pub interfaces: Vec<HostInterface>,
    /// Port on which it listens.
    pub port: u16,
    /// Its version.
    pub version: String,
}

/// A network interface of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostInterface {
    /// Its name on the host.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<std::net::IpAddr>,
}

/// Answer to a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// When it was recorded, by the Controller's clock, in seconds since 1970.
    pub last_seen: u64,
}

/// One of the answer to `GET admin/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRow {
    /// Its name.
    pub name: String,
    /// Whether it has a certificate, or joins by an invitation yet.
    pub joined: bool,
    /// When it registered last, in seconds since 1970; 0 for never.
    pub last_seen: u64,
    /// Seconds since then; none where it never did.
    pub age: Option<u64>,
    /// What it said then.
    pub interfaces: Vec<HostInterface>,
    /// Port on which it listens; 0 where it never registered.
    pub port: u16,
    /// Its version.
    pub version: String,
}

/// One of the answer to `GET admin/sessions`: a login that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The session's distinguished name (A5).
    pub dn: String,
    /// Login name of the user.
    pub user: String,
    /// The device's client id.
    pub client_id: String,
    /// `jti` of the newest claims token.
    pub claims: String,
    /// When the user logged in, in seconds since 1970.
    pub auth_time: u64,
    /// When the login ends, in seconds since 1970.
    pub expires_at: u64,
}

/// One of the answer to `GET admin/audit?since=<seconds since 1970>&below=<n>&limit=<at most 1,000>`, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Its number: `GET admin/audit?below=<n>` goes on behind it.
    #[serde(default)]
    pub n: u64,
    /// The event's id.
    pub id: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// Who: a login name, a session, a Gateway or an address.
    pub actor: String,
    /// What was asked for.
    pub action: String,
    /// Of whom or what.
    pub target: String,
    /// `ok`, or the code of the refusal.
    pub outcome: String,
    /// What else is worth knowing; nothing secret.
    pub detail: String,
    /// Of an administrator's action: what was there before; absent for nothing.
    #[serde(default)]
    pub before: Option<serde_json::Value>,
    /// What is there after it.
    #[serde(default)]
    pub after: Option<serde_json::Value>,
}
