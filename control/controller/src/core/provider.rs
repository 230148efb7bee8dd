//! What identity providers say of people, and what of it counts here.
//!
//! Who it is says the verified e-mail address (R21), as far as the organisation lets this provider speak: of addresses in its
//! domains, and of administrators only where that is said. At the first login by a method the user is bound to the provider's own
//! name for them, and nobody else of that provider is this user from then on, whatever address they have. An administrator who sets
//! the user's address anew unbinds them.
//!
//! A session that can be refreshed (R22) is asked about by one Controller at a time, which holds a lease in the database: a refresh
//! token may be good once, and is spent by nobody twice.

use std::net::IpAddr;
use std::time::Duration;

use ringfort_directory::{Email, Failed, Person, ProviderPolicy};
use ringfort_identity::{KeyThumbprint, SessionDn};
use ringfort_proto::api;
use ringfort_types::UnixSeconds;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::failures::Account;
use super::login::{By, Proven};
use super::otp::SecondFactor;
use super::password::Attempt;
use super::refused::Refused;
use super::store::{self, Connection, Login, ProviderSession, User};
use super::{Bearer, Core};

/// Longest name that a provider has for somebody, in bytes. OpenID Connect has 255 characters; distinguished names are longer.
const SUBJECT_BYTES_MAX: usize = 1_024;
/// How long a Controller may take to ask a provider, in seconds: five requests of 10 s, and what is between them. After that another
/// one takes over.
const LEASE_SECONDS: u64 = 90;

/// Somebody whom an identity provider has said who they are.
#[derive(Clone, Copy)]
pub struct ByProvider<'a> {
    /// Name of the method.
    pub method: &'a str,
    /// Who.
    pub person: &'a Person,
    /// For whom the provider may speak.
    pub policy: &'a ProviderPolicy,
    /// A one-time password of ours, if they gave one.
    pub otp: Option<&'a str>,
    /// With which to ask the provider whether their session goes on (R22).
    pub refresh: Option<&'a str>,
}

/// What is kept of it until they are logged in.
pub(super) struct AtProvider {
    method: String,
    subject: String,
    email: Email,
    policy: ProviderPolicy,
    /// When the provider's session ends.
    pub(super) ends_at: Option<UnixSeconds>,
    refresh: Option<Zeroizing<String>>,
}

impl AtProvider {
    /// # Errors
    /// `email_unverified`; `provider_answer` for a subject that is none.
    fn new(by: &ByProvider<'_>) -> Result<Self, Refused> {
        let Person { subject, email, ends_at, .. } = by.person;
        if !(1..=SUBJECT_BYTES_MAX).contains(&subject.len()) || subject.chars().any(char::is_control) {
            let why = format!("a subject that is not 1 to {SUBJECT_BYTES_MAX} bytes without control characters");
            return Err(Failed::Answer(why.into()).into());
        }
        Ok(Self {
            method: by.method.to_owned(),
            subject: subject.clone(),
            email: email.clone().ok_or_else(Refused::email_unverified)?,
            policy: by.policy.clone(),
            ends_at: *ends_at,
            refresh: by.refresh.map(|refresh| Zeroizing::new(refresh.to_owned())),
        })
    }

    /// The user whom the provider speaks of, if it may (R21).
    ///
    /// # Errors
    /// `email_domain_refused`, `user_unknown`, `user_inactive`, `administrator_refused`, `subject_refused`.
    pub(super) async fn user(&self, c: &mut Connection) -> Result<User, Refused> {
        let Self { method, subject, email, policy, .. } = self;
        if !policy.speaks_for(email) {
            return Err(Refused::email_domain(method, email.as_str()));
        }
        let user = store::user_by_email(c, email.as_str()).await?;
        let user = user.ok_or_else(|| Refused::user_unknown(email.as_str()))?;
        if !user.active {
            return Err(Refused::user_inactive());
        }
        if user.role.is_some() && !policy.administrators {
            return Err(Refused::administrator(method));
        }
        if !store::may_be_bound(c, &user.id, method, subject).await? {
            return Err(Refused::subject(method, &user.name));
        }
        Ok(user)
    }
}

/// A session at a provider that is to be asked about, by whoever has this.
pub struct RenewableSession {
    /// Name of the method.
    pub method: String,
    /// The provider's own name for the person.
    pub subject: String,
    /// With which to ask.
    pub refresh: Zeroizing<String>,
    /// That nobody else asks meanwhile.
    lease: String,
}

/// What the provider said of it.
pub struct GoesOn<'a> {
    /// When it ends now.
    pub ends_at: UnixSeconds,
    /// With which to ask next.
    pub refresh: &'a str,
    /// The person's address, where the provider names one again.
    pub email: Option<&'a Email>,
    /// For whom the provider may speak.
    pub policy: &'a ProviderPolicy,
}

impl Core {
    /// Begins an attempt that a provider checks; its failures are counted as those by password are.
    ///
    /// # Errors
    /// `login_limited`.
    pub(crate) fn attempt(
        &self,
        account: Option<Account>,
        from: IpAddr,
        now: UnixSeconds,
    ) -> Result<Attempt<'_>, Refused> {
        self.inner.passwords.attempt(account, from, now)
    }

    /// Issues claims for somebody whom a provider has checked: the user with their verified e-mail address (R21), for as long
    /// as the provider's session lasts (R22).
    ///
    /// # Errors
    /// `email_unverified`, `email_domain_refused`, `user_unknown`, `user_inactive`, `administrator_refused`, `subject_refused`,
    /// `otp_…`, `id_token_refused` when the session is over, and as [`Core::login`].
    pub async fn login_by_provider(
        &self,
        by: ByProvider<'_>,
        client_id: &str,
        key: KeyThumbprint,
        from: IpAddr,
        now: UnixSeconds,
    ) -> Result<api::LoginResponse, Refused> {
        SessionDn::new(client_id, "user", self.organisation())?;
        let at = AtProvider::new(&by)?;
        let user = at.user(&mut *self.inner.store.snapshot().await?).await?;
        let second = match by.policy.second_factor {
            true => SecondFactor::Providers,
            false => self.check_otp(&user.id, by.otp, now).await?,
        };
        let proven = Proven {
            user: user.id,
            how: format!("by {} as {} from {from}, {second}", at.method, at.subject),
            by: By::Provider(at),
            auth_time: by.person.authenticated_at.min(now),
        };
        self.log_in(proven, client_id, key, now).await
    }

    /// Binds whoever logs in to who they are at the provider, and gives what is kept of the session there.
    pub(super) async fn begin_session(
        &self,
        c: &mut Connection,
        login: &Login,
        at: &AtProvider,
        latest: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<Option<ProviderSession>, Refused> {
        let (method, subject) = (at.method.clone(), at.subject.clone());
        store::bind_subject(c, &login.user, &method, &subject, now).await?;
        let Some(refresh) = &at.refresh else { return Ok(None) };
        let refresh = self.inner.sealing.seal(&refresh_name(&login.dn), refresh.as_bytes())?;
        Ok(Some(ProviderSession { method, subject, refresh, refreshed_at: now, latest, lease: String::new() }))
    }

    /// The provider's session of a login, if it is time to ask whether that goes on and nobody else asks: half of what it last said is
    /// over, and the login itself may last longer. Whoever gets it says what came of it, by [`Core::session_goes_on`] or
    /// [`Core::session_stays`]; without a word in time the next one gets it.
    ///
    /// # Errors
    /// `token_revoked` when the login has ended.
    pub async fn renewable_session(
        &self,
        bearer: &Bearer,
        now: UnixSeconds,
    ) -> Result<Option<RenewableSession>, Refused> {
        let (login, session) = {
            let mut c = self.inner.store.snapshot().await?;
            let login = self.login_of(&mut c, bearer, now).await?;
            let Some(session) = store::provider_session(&mut c, &login.dn).await? else { return Ok(None) };
            (login, session)
        };
        let half = login.expires_at.saturating_since(session.refreshed_at) / 2;
        if login.expires_at >= session.latest || now < session.refreshed_at + half {
            return Ok(None);
        }
        let lease = Uuid::new_v4().to_string();
        let until = now + Duration::from_secs(LEASE_SECONDS);
        let mut tx = self.inner.store.begin().await?;
        if !store::lease_session(&mut tx, &login.dn, (&session.refresh, &lease), until, now).await? {
            return Ok(None);
        }
        tx.commit().await?;
        let refresh = self.inner.sealing.unseal(&refresh_name(&login.dn), &session.refresh)?;
        let refresh = Zeroizing::new(std::str::from_utf8(&refresh).map_err(Refused::internal)?.to_owned());
        Ok(Some(RenewableSession { method: session.method, subject: session.subject, refresh, lease }))
    }

    /// The provider's session of a login goes on, and so does the login (R22), if it is still of the user with that address whom the
    /// provider may speak for (R21).
    ///
    /// # Errors
    /// `token_revoked` when the login has ended, and as [`Core::login_by_provider`].
    pub async fn session_goes_on(
        &self,
        bearer: &Bearer,
        asked: &RenewableSession,
        said: &GoesOn<'_>,
        now: UnixSeconds,
    ) -> Result<(), Refused> {
        let mut tx = self.inner.store.begin().await?;
        let mut login = self.login_of(&mut tx, bearer, now).await?;
        let session = store::provider_session(&mut tx, &login.dn).await?.ok_or_else(Refused::login_ended)?;
        if session.lease != asked.lease {
            tracing::warn!(method = asked.method, "a provider answered so late that somebody else asks it");
            return Ok(());
        }
        let email = match said.email {
            Some(email) => email.clone(),
            None => {
                let known = store::email_of(&mut tx, &login.user).await?;
                known.and_then(|known| known.parse().ok()).ok_or_else(Refused::login_ended)?
            }
        };
        let (method, subject, policy) = (session.method.clone(), session.subject.clone(), said.policy.clone());
        let at = AtProvider { method, subject, email, policy, ends_at: None, refresh: None };
        let user = at.user(&mut tx).await?;
        if user.id != login.user {
            return Err(Refused::subject(&at.method, &user.name));
        }
        login.expires_at = said.ends_at.min(session.latest);
        store::put_login(&mut tx, &login).await?;
        let refresh = self.inner.sealing.seal(&refresh_name(&login.dn), said.refresh.as_bytes())?;
        let session = ProviderSession { refresh, refreshed_at: now, ..session };
        store::put_provider_session(&mut tx, &login.dn, Some(&session)).await?;
        Ok(tx.commit().await?)
    }

    /// Nothing came of asking the provider, and the next one may.
    ///
    /// # Errors
    /// `internal`.
    pub async fn session_stays(&self, bearer: &Bearer, asked: &RenewableSession) -> Result<(), Refused> {
        let mut tx = self.inner.store.begin().await?;
        store::release_session(&mut tx, &bearer.session.to_string(), &asked.lease).await?;
        Ok(tx.commit().await?)
    }
}

/// What a refresh token is sealed as.
fn refresh_name(dn: &str) -> String {
    format!("refresh token of {dn}")
}
