//! What the Controller decides and signs: people, sites, Resources, entitlements, logins, certificates, invitations,
//! revocations.
//!
//! One [`Core`] is one organisation's state folder. Every change is one transaction, and what follows from it is written
//! beside it. Every Controller of the database sends that on its [`Core::changes`], in the order of the commits
//! ([`Core::hear`]). Time is passed in.
//!
//! What it deliberately does not do: no sockets, no HTTP, no streams, no nonces, no counters (the shell's), no clock. It
//! writes the audit events of what was done; refusals are written by whoever answers them ([`Core::audit`]).
//!
//! Requirements: R1–R4, R7, R8, R18, A3–A9, A23, I6, I9, I10, C1, C14; the design is `docs/CONTROL.md`.

mod access;
mod accounts;
mod admin;
mod audit;
mod ca;
mod decision;
mod failures;
mod folder;
mod gateway;
mod hear;
mod host;
mod invite;
mod issue;
mod known;
mod last_seen;
mod lists;
mod login;
mod operate;
mod otp;
mod over;
mod password;
pub mod policy;
mod provider;
mod receipts;
mod refused;
mod relays;
mod removal;
mod restore;
mod roles;
mod sealing;
mod store;

use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use anyhow::{Context, bail};
use ringfort_identity::{SessionDn, Trust};
use ringfort_proto::api::AdministratorRole;
use ringfort_token::{ClaimsToken, DenyList, Serial, Verified, Verifier};
use ringfort_types::UnixSeconds;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use uuid::Uuid;

use ca::Authority;
pub(crate) use failures::network;
use folder::Folder;
use known::Known;
use last_seen::{LastSeen, Since};
use otp::AskExternalOtp;
use password::Passwords;
use sealing::Sealing;
use store::{Place, Presence, Store};

pub use audit::EventsAsked;
pub(crate) use failures::Account;
pub use gateway::RevocationLists;
pub use host::HostsAsked;
pub(crate) use host::PAGE_MAX as HOSTS_OF_A_PAGE_MAX;
pub(crate) use otp::checked_otp;
pub use over::Removed;
pub use provider::{ByProvider, GoesOn, RenewableSession};
pub use receipts::{Confirmation, serial_text};
pub use refused::Refused;
pub(crate) use restore::{FROM_BACKUP, RESTORING};
pub use roles::{Action, Administrator, action};
pub use store::PostgresUrl;
pub(crate) use store::copy_database;

/// Seconds that a login lasts unless the settings say otherwise (PROTOCOLS "Tokens": 12 h).
const LOGIN_SECONDS: u64 = 12 * 3_600;
/// Shortest and longest login that settings may ask for, in seconds.
const LOGIN_SECONDS_ALLOWED: std::ops::RangeInclusive<u64> = 60..=7 * 86_400;
/// Life of a Gateway's configuration and its lease unless the settings say otherwise, in seconds.
const LEASE_SECONDS: u64 = 900;
/// Shortest and longest lease that settings may ask for, in seconds. It is renewed every minute: what is shorter would end between two
/// renewals.
const LEASE_SECONDS_ALLOWED: std::ops::RangeInclusive<u64> = 120..=86_400;
/// Changes that a receiver may be behind: all logins of a large group at once, some 2 KiB each.
const CHANGES_MAX: usize = 16_384;
/// Longest text in an event, in bytes; what is longer is cut. Names in refusals are chosen by whoever is refused.
const EVENT_BYTES_MAX: usize = 1_024;

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
    /// Seconds for which a Gateway admits new sessions without having heard from a Controller (X14).
    #[serde(default = "lease_seconds")]
    pub lease_seconds: u64,
    /// A PostgreSQL database, which several Controllers may share; without it `database.sqlite` in the state folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<PostgresUrl>,
}

impl Settings {
    /// Settings of a Controller that is reached at `address`, with everything else as usual.
    #[must_use]
    pub const fn new(address: String, names: Vec<String>) -> Self {
        Self { address, names, login_seconds: LOGIN_SECONDS, lease_seconds: LEASE_SECONDS, database: None }
    }
}

const fn login_seconds() -> u64 {
    LOGIN_SECONDS
}

const fn lease_seconds() -> u64 {
    LEASE_SECONDS
}

/// The administrator of an organisation that has none yet.
pub struct FirstAdministrator {
    /// Login name.
    pub name: String,
    /// Password.
    pub password: zeroize::Zeroizing<String>,
}

/// Why a Controller cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Out {
    /// The organisation has removed it.
    #[error("this Controller was removed from its organisation, and ends")]
    Removed,
    /// The database began a new epoch. Started anew it has another key for its tokens.
    #[error("the database was restored from a backup: this Controller ends, and is to be started anew")]
    Restored,
    /// The database is not the one that it was, and no restore was run.
    #[error(
        "the database is older than it was: this Controller ends. Stop every Controller and run `ringfort restore` without \
         --from, or what was revoked since counts again"
    )]
    Older,
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
    /// Another set of Controllers, or of their certificates that everybody has to know.
    Authorities,
    /// Something was missed, and nobody knows what: every Gateway is to ask for all that it lacks.
    Missed,
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

/// An event for the audit log.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Who: a login name, a session, a Gateway or an address.
    pub actor: &'a str,
    /// What was asked for.
    pub action: &'a str,
    /// Of whom or what.
    pub target: &'a str,
    /// `ok`, `flagged` for what was let be and is to be looked at, or the code of the refusal.
    pub outcome: &'a str,
    /// What else is worth knowing; nothing secret.
    pub detail: &'a str,
}

impl Event<'_> {
    fn recorded(&self, now: UnixSeconds) -> store::Recorded {
        // PostgreSQL takes no NUL, and whoever is refused chooses what is written.
        let cut = |text: &str| text[..text.floor_char_boundary(EVENT_BYTES_MAX)].replace('\0', "\u{fffd}");
        store::Recorded {
            id: Uuid::new_v4().to_string(),
            at: now,
            actor: cut(self.actor),
            action: cut(self.action),
            target: cut(self.target),
            outcome: cut(self.outcome),
            detail: cut(self.detail),
            before: String::new(),
            after: String::new(),
        }
    }
}

/// One organisation's Controller. Clones are the same Controller.
#[derive(Clone)]
pub struct Core {
    inner: Arc<Inner>,
}

struct Inner {
    organisation: String,
    settings: Settings,
    authority: RwLock<Arc<Authority>>,
    /// What everybody has to know, as the database says.
    known: RwLock<Arc<Known>>,
    store: Store,
    /// The number of the newest news that was passed on; held while it is.
    heard: tokio::sync::Mutex<u64>,
    backlog: tokio::sync::Mutex<Option<gateway::Backlog>>,
    /// Why this Controller cannot go on, once it cannot.
    out: OnceLock<Out>,
    folder: Folder,
    passwords: Passwords,
    sealing: Sealing,
    /// What the table of revocations says, as far as it still matters.
    deny: RwLock<DenyList>,
    changes: broadcast::Sender<Change>,
    reach: OnceLock<Box<Reach>>,
    external_otp: OnceLock<Box<AskExternalOtp>>,
}

/// How many Gateways hear at once of what concerns these sites, or all.
type Reach = dyn Fn(Option<&BTreeSet<String>>) -> usize + Send + Sync;

impl Core {
    /// Opens the state folder, and makes organisation, CA, keys, database and the first administrator in an empty one.
    /// The Controller's and the signer's certificate are renewed when a third of their life is left, or the names changed.
    ///
    /// # Errors
    /// When the folder is not private, incomplete or unreadable, or is empty and no administrator is given; when a restore is
    /// under way or broke off, and when the database was put back from a backup without one.
    pub async fn open(
        folder: &Path,
        settings: &Settings,
        first: Option<&FirstAdministrator>,
        now: UnixSeconds,
    ) -> anyhow::Result<Self> {
        let opened = Folder::open(folder)?;
        if opened.path(RESTORING).exists() {
            bail!(
                "{}: expected a folder that is restored or was never, found one where a restore broke off: repeat `ringfort restore`",
                folder.display()
            );
        }
        Self::open_as(opened, settings, first, Presence::Shared, now).await
    }

    /// As [`Core::open`], beside other Controllers or alone.
    async fn open_as(
        folder: Folder,
        settings: &Settings,
        first: Option<&FirstAdministrator>,
        presence: Presence,
        now: UnixSeconds,
    ) -> anyhow::Result<Self> {
        for (name, allowed, found) in [
            ("login_seconds", LOGIN_SECONDS_ALLOWED, settings.login_seconds),
            ("lease_seconds", LEASE_SECONDS_ALLOWED, settings.lease_seconds),
        ] {
            if !allowed.contains(&found) {
                bail!("expected {name} of {} to {}, found {found}", allowed.start(), allowed.end());
            }
        }
        let store = Store::open(&place(&folder, settings), presence).await?;
        // Whoever else starts on this database waits here: it finds either nothing or the whole organisation.
        let mut founding = store.begin().await?;
        let known = store::organisation(&mut founding).await?;
        if known.is_none() && first.is_none() {
            bail!("expected the name and password of the first administrator: this organisation has none yet");
        }
        if known.is_some() && !folder.path("rootCA.pem").exists() {
            bail!(
                "expected rootCA.pem in the state folder, since the database has an organisation: restore it from a backup, or join another Controller first"
            );
        }
        let seen = LastSeen::of(&mut founding, known.as_ref().map_or(now.0, |(_, epoch)| *epoch)).await?;
        if seen.since(&folder)? == Since::Restored {
            ca::forget_signer(&folder)?;
        }
        let passwords = Passwords::new()?;
        // A password is hashed while keys are made and files are synced.
        let (first, authority) = tokio::join!(
            async {
                match first.filter(|_| known.is_none()) {
                    Some(first) => {
                        admin::new_user(&passwords, &first.name, &first.password, Some(AdministratorRole::Owner))
                            .await
                            .map(Some)
                    }
                    None => Ok(None),
                }
            },
            async { Authority::open(&folder, &settings.names, now) }
        );
        let (first, authority) = (first.context("make the first administrator")?, authority?);
        let (organisation, epoch) = match known {
            Some(known) => known,
            // A database that was lost and made anew is newer than the old one, whatever Gateways remember of that.
            None => (authority.organisation().to_owned(), now.0),
        };
        if organisation != authority.organisation() {
            bail!("expected a database of the organisation in rootCA.pem: restore both from the same backup");
        }
        if let Some(first) = &first {
            found(&mut founding, &organisation, epoch, first, now).await.context("make the organisation")?;
        }
        let sealing = Sealing::open(&folder, &store::sealing_digest(&mut founding).await?)?;
        store::set_sealing_digest(&mut founding, sealing.digest()).await?;
        founding.commit().await?;
        // All of one moment: what comes after it is news.
        let mut tx = store.snapshot().await?;
        let known_here = Known::read(&mut tx, &authority, &settings.address, now).await?;
        let heard = store::newest_news(&mut tx).await?;
        let entries = store::revocations_after(&mut tx, 0).await?;
        drop(tx);
        let n = entries.last().map_or(0, |(n, _)| *n);
        let mut deny = DenyList::restore(Serial { epoch, n }, entries);
        deny.forget(now);
        let core = Self {
            inner: Arc::new(Inner {
                organisation,
                settings: settings.clone(),
                known: RwLock::new(Arc::new(known_here)),
                authority: RwLock::new(Arc::new(authority)),
                store,
                passwords,
                sealing,
                deny: RwLock::new(deny),
                heard: tokio::sync::Mutex::new(heard),
                backlog: tokio::sync::Mutex::default(),
                out: OnceLock::new(),
                folder,
                changes: broadcast::Sender::new(CHANGES_MAX),
                reach: OnceLock::new(),
                external_otp: OnceLock::new(),
            }),
        };
        core.claim_names().await?;
        core.publish(&core.authority(), now).await?;
        core.hear(now).await?;
        core.keep_last_seen().await?;
        Ok(core)
    }

    /// Keeps how far the database is, so that the next start notices one that was put back from a backup.
    ///
    /// # Errors
    /// When the database does not answer, or the file cannot be written.
    pub async fn keep_last_seen(&self) -> anyhow::Result<()> {
        let mut tx = self.inner.store.snapshot().await?;
        let Some((_, epoch)) = store::organisation(&mut tx).await? else { return Ok(()) };
        match self.inner.out.get() {
            // Whoever starts it again without a restore would find a database that has gone on.
            Some(Out::Older) => return LastSeen::refuse(&self.inner.folder, self.serial().epoch),
            Some(_) => return Ok(()),
            // Of an epoch that this Controller does not know yet nothing is kept: the next start has to notice it.
            None if epoch != self.serial().epoch => return Ok(()),
            None => {}
        }
        LastSeen::of(&mut tx, epoch).await?.keep(&self.inner.folder)
    }

    fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.inner.authority.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What everybody of the organisation trusts.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.known().trust.clone()
    }

    /// Certificate chain of the Controller with the root, and its key.
    #[must_use]
    pub fn server_credentials(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        self.authority().server_credentials()
    }

    /// The first 18 bytes of SHA-256 over the SubjectPublicKeyInfo of the Controller's certificate (I2, I3).
    #[must_use]
    pub fn join_key_hash(&self) -> [u8; 18] {
        self.authority().join_key_hash()
    }

    /// Whether this Controller can decide anything: it was not removed, and its database answers.
    pub(crate) async fn is_able(&self) -> bool {
        let known = async { store::organisation(&mut *self.inner.store.read().await?).await };
        self.inner.out.get().is_none() && matches!(known.await, Ok(Some(_)))
    }

    /// The organisation's id.
    #[must_use]
    pub fn organisation(&self) -> &str {
        &self.inner.organisation
    }

    /// Believes the tokens of this organisation, as of now.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        self.known().verifier.clone()
    }

    /// Certificates of the keys that sign tokens, of all Controllers, DER.
    #[must_use]
    pub fn signers_der(&self) -> Vec<Vec<u8>> {
        self.known().signers.iter().map(|signer| signer.to_vec()).collect()
    }

    /// The root, DER.
    #[must_use]
    pub fn root_der(&self) -> Vec<u8> {
        self.authority().root().to_vec()
    }

    /// Intermediates of all Controllers, DER.
    #[must_use]
    pub fn intermediates_der(&self) -> Vec<Vec<u8>> {
        self.known().intermediates.iter().map(|intermediate| intermediate.to_vec()).collect()
    }

    /// `host:port` of all Controllers, this one first.
    #[must_use]
    pub fn controllers(&self) -> Vec<String> {
        self.known().controllers.clone()
    }

    /// What happens from now on. A receiver that lagged has missed something: its Gateways begin their streams anew.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.inner.changes.subscribe()
    }

    /// Whom answers to administrators ask how many Gateways hear of a change at once: of these sites, or all. Once set it stays.
    pub fn set_reach(&self, reach: impl Fn(Option<&BTreeSet<String>>) -> usize + Send + Sync + 'static) {
        drop(self.inner.reach.set(Box::new(reach)));
    }

    /// Seconds that a login lasts at most.
    #[must_use]
    pub fn login_seconds(&self) -> u64 {
        self.inner.settings.login_seconds
    }

    /// Where the revocation list stands.
    #[must_use]
    pub fn serial(&self) -> Serial {
        self.deny().serial()
    }

    /// How many Gateways hear at once of what concerns these sites, or all.
    fn reach(&self, sites: Option<&BTreeSet<String>>) -> usize {
        self.inner.reach.get().map_or(0, |reach| reach(sites))
    }

    /// Writes an event and gives its id. Where it cannot be written it is logged, with that id.
    pub async fn audit(&self, event: Event<'_>, now: UnixSeconds) -> String {
        let recorded = event.recorded(now);
        let written = async {
            let mut tx = self.inner.store.begin().await?;
            store::insert_event(&mut tx, &recorded).await?;
            tx.commit().await
        };
        if let Err(error) = written.await {
            let store::Recorded { id, actor, action, target, outcome, detail, .. } = &recorded;
            tracing::error!(%error, id, actor, action, target, outcome, detail, "an audit event was not written");
        }
        recorded.id
    }

    fn deny(&self) -> RwLockReadGuard<'_, DenyList> {
        self.inner.deny.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the database of a state folder is.
fn place(folder: &Folder, settings: &Settings) -> Place {
    match &settings.database {
        Some(url) => Place::Postgres(url.clone()),
        None => Place::File(folder.path("database.sqlite")),
    }
}

/// Writes the organisation and its first administrator into an empty database.
async fn found(
    c: &mut store::Connection,
    organisation: &str,
    epoch: u64,
    first: &store::User,
    now: UnixSeconds,
) -> Result<(), sqlx::Error> {
    store::insert_organisation(c, organisation, epoch).await?;
    store::insert_user(c, first).await?;
    let (actor, target) = ("controller", first.name.as_str());
    let event = Event { actor, action: "found", target, outcome: "ok", detail: organisation };
    store::insert_event(c, &event.recorded(now)).await
}

/// Runs a change to its end also when whoever asked for it does not wait: what was committed must be sent as well.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Refused>> + Send + 'static,
) -> Result<T, Refused> {
    tokio::spawn(change).await.map_err(Refused::internal)?
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
