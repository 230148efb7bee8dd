//! From a password, a provider's word or a program's certificate to a session: login, claims, device certificate, renewal.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfort_directory::oidc::TokenRefused;
use ringfort_directory::{Failed, Person};
use ringfort_identity::{KeyThumbprint, PeerIdentity, Role, SessionDn};
use ringfort_proto::api::{self, LOGIN_NAME_BYTES_MAX};
use ringfort_token::{ClaimsToken, Expectation, Holder, Shown, Signed, Standing, audience};
use ringfort_types::UnixSeconds;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::ca::{RequestedKey, SERVICE_LIFE};
use super::password::Attempt;
use super::refused::Refused;
use super::store::{self, Connection, Login, ProviderSession};
use super::{Bearer, Core, Event, to_the_end};

/// Devices of one user: more than anybody has, and an end to what one password can fill.
const DEVICES_MAX: i64 = 256;

/// Somebody whom an identity provider has said who they are.
#[derive(Clone, Copy)]
pub struct ByProvider<'a> {
    /// Name of the method.
    pub method: &'a str,
    /// Who.
    pub person: &'a Person,
    /// What else they must show.
    pub second: SecondFactor<'a>,
    /// With which to ask the provider whether their session goes on (R22).
    pub refresh: Option<&'a str>,
}

/// What is asked for beside what a provider has checked.
#[derive(Clone, Copy)]
pub enum SecondFactor<'a> {
    /// A one-time password of ours, if the user has them; `None` when none was given.
    Ours(Option<&'a str>),
    /// Whatever the provider asks for is its business.
    Theirs,
}

/// A session at a provider that may be asked whether it goes on.
pub(crate) struct RenewableSession {
    pub(crate) method: String,
    pub(crate) subject: String,
    pub(crate) refresh: Zeroizing<String>,
}

/// Who proved who they are, and what must still be so when they are logged in.
struct Proven {
    user: String,
    /// The hash that their password was checked against.
    password: Option<String>,
    /// What the audit log says of how.
    how: String,
    auth_time: UnixSeconds,
    /// When the provider's session ends.
    ends_at: Option<UnixSeconds>,
    /// The session at the provider: method, subject, refresh token.
    session: Option<(String, String, Zeroizing<String>)>,
}

impl Core {
    /// Checks a password and issues claims (A3–A6) for the holder of `key`, who proved to hold it. Registers the device (A4).
    ///
    /// # Errors
    /// `login_refused`, `login_busy`, `login_limited`, `otp_…`, `already_exists` for a client id of another user or key,
    /// `certificate_revoked` for a revoked key, `request_malformed`.
    pub async fn login(
        &self,
        request: &api::LoginRequest,
        key: KeyThumbprint,
        from: IpAddr,
        now: UnixSeconds,
    ) -> Result<api::LoginResponse, Refused> {
        let api::LoginRequest { user: name, password, client_id, otp, .. } = request;
        self.checked_names(name, client_id)?;
        let known = store::user_by_name(&mut *self.inner.store.read().await?, name).await?;
        // Without a password there is nothing that could be right.
        let known = known.filter(|user| user.active && !user.password.is_empty());
        let hash = known.as_ref().map(|user| user.password.clone());
        let attempt = self.inner.passwords.check(name, from, password, hash.clone(), now).await?;
        let user = known.ok_or_else(Refused::login)?.id;
        let logged_in = async {
            self.check_otp(&user, otp.as_deref(), now).await?;
            let how = format!("from {from}");
            let proven =
                Proven { user: user.clone(), password: hash, how, auth_time: now, ends_at: None, session: None };
            self.log_in(proven, client_id, key, now).await
        };
        attempt.ended(logged_in.await)
    }

    /// Whether names can be names, before anything is counted or hashed for them: what costs nothing is none of the failed
    /// logins, which are all written down.
    pub(crate) fn checked_names(&self, name: &str, client_id: &str) -> Result<(), Refused> {
        // PostgreSQL takes no NUL, and nobody types the others.
        if name.len() > LOGIN_NAME_BYTES_MAX || name.chars().any(char::is_control) {
            let message =
                format!("expected a login name of at most {LOGIN_NAME_BYTES_MAX} bytes without control characters");
            return Err(Refused::malformed(message));
        }
        SessionDn::new(client_id, "user", self.organisation())?;
        Ok(())
    }

    /// Begins an attempt that a provider checks; its failures are counted as those by password are.
    ///
    /// # Errors
    /// `login_limited`.
    pub(crate) fn attempt(&self, name: Option<&str>, from: IpAddr, now: UnixSeconds) -> Result<Attempt<'_>, Refused> {
        self.inner.passwords.attempt(name, from, now)
    }

    /// Issues claims for somebody whom a provider has checked: the user with their verified e-mail address (R21), for as long
    /// as the provider's session lasts (R22).
    ///
    /// # Errors
    /// `email_unverified`, `user_unknown`, `user_inactive`, `otp_…`, `id_token_refused` when the session is over, and as
    /// [`Core::login`].
    pub async fn login_by_provider(
        &self,
        by: ByProvider<'_>,
        client_id: &str,
        key: KeyThumbprint,
        from: IpAddr,
        now: UnixSeconds,
    ) -> Result<api::LoginResponse, Refused> {
        let ByProvider { method, person, second, refresh } = by;
        SessionDn::new(client_id, "user", self.organisation())?;
        let email = person.email.as_ref().ok_or_else(Refused::email_unverified)?.as_str();
        let user = store::user_by_email(&mut *self.inner.store.read().await?, email).await?;
        let user = user.ok_or_else(|| Refused::user_unknown(email))?;
        if !user.active {
            return Err(Refused::user_inactive());
        }
        if let SecondFactor::Ours(code) = second {
            self.check_otp(&user.id, code, now).await?;
        }
        let proven = Proven {
            user: user.id,
            password: None,
            how: format!("by {method} as {} from {from}", person.subject),
            auth_time: person.authenticated_at.min(now),
            ends_at: person.ends_at,
            session: refresh
                .map(|refresh| (method.to_owned(), person.subject.clone(), Zeroizing::new(refresh.to_owned()))),
        };
        self.log_in(proven, client_id, key, now).await
    }

    /// Issues claims for a program's account, whose certificate is its login (X12). That the certificate is in good standing the
    /// caller has seen.
    ///
    /// # Errors
    /// `wrong_role`, `service_unknown` for anything that is no active service's device.
    pub async fn login_service(&self, peer: &PeerIdentity, now: UnixSeconds) -> Result<api::LoginResponse, Refused> {
        let session = peer.session().ok_or_else(|| Refused::wrong_role(Role::Device.as_str(), peer.role().as_str()))?;
        let (client, key) = (session.client(), *peer.key());
        let (user, device, is_service) = {
            let mut c = self.inner.store.read().await?;
            let user = store::user_by_id(&mut c, session.user()).await?;
            let device = store::device(&mut c, client).await?;
            (user, device, store::is_service(&mut c, session.user()).await?)
        };
        let is_its = device.is_some_and(|(owner, jkt)| owner == session.user() && jkt == key.to_string());
        let user = user.filter(|user| user.active && is_service && is_its);
        let user = user.ok_or_else(Refused::no_service)?.id;
        let how = "by certificate".to_owned();
        let proven = Proven { user, password: None, how, auth_time: now, ends_at: None, session: None };
        self.log_in(proven, client, key, now).await
    }

    /// Starts the login of somebody who proved who they are.
    async fn log_in(
        &self,
        proven: Proven,
        client_id: &str,
        key: KeyThumbprint,
        now: UnixSeconds,
    ) -> Result<api::LoginResponse, Refused> {
        let (core, client) = (self.clone(), client_id.to_owned());
        to_the_end(async move {
            let Proven { user, password, how, auth_time, ends_at, session } = proven;
            let mut tx = core.inner.store.begin().await?;
            // Who they are was checked outside of this transaction.
            let user = store::user_by_id(&mut tx, &user).await?;
            let user = user.filter(|user| user.active && password.is_none_or(|password| user.password == password));
            let user = user.ok_or_else(Refused::login)?;
            core.standing_of(&Shown { key: Some(&key), ..Shown::default() }, now)?;
            let jkt = key.to_string();
            register(&mut tx, &client, &user.id, &jkt, now).await?;
            let latest = now + Duration::from_secs(core.inner.settings.login_seconds);
            let login = Login {
                dn: SessionDn::new(&client, &user.id, core.organisation())?.to_string(),
                user: user.id.clone(),
                client,
                jkt,
                generation: user.generation,
                claims: Uuid::new_v4().to_string(),
                auth_time,
                expires_at: ends_at.map_or(latest, |ends_at| ends_at.min(latest)),
            };
            if login.expires_at <= now {
                return Err(Failed::Token(TokenRefused::Expired { at: login.expires_at, now }).into());
            }
            store::put_login(&mut tx, &login).await?;
            let session = match session {
                Some((method, subject, refresh)) => {
                    let refresh = core.inner.sealing.seal(&refresh_name(&login.dn), refresh.as_bytes())?;
                    Some(ProviderSession { method, subject, refresh, refreshed_at: now, latest })
                }
                None => None,
            };
            store::put_provider_session(&mut tx, &login.dn, session.as_ref()).await?;
            let claims = core.claims(&mut tx, &login, &user, now).await?;
            let event = Event { actor: &user.name, action: "login", target: &login.dn, outcome: "ok", detail: &how };
            store::insert_event(&mut tx, &event.recorded(now)).await?;
            tx.commit().await?;
            Ok(core.login_response(claims.as_str()))
        })
        .await
    }

    /// The provider's session of a login, if it is time to ask whether that goes on: half of what it last said is over, and the
    /// login itself may last longer.
    ///
    /// # Errors
    /// `token_revoked` when the login has ended.
    pub(crate) async fn renewable_session(
        &self,
        bearer: &Bearer,
        now: UnixSeconds,
    ) -> Result<Option<RenewableSession>, Refused> {
        let mut c = self.inner.store.snapshot().await?;
        let login = self.login_of(&mut c, bearer, now).await?;
        let Some(session) = store::provider_session(&mut c, &login.dn).await? else { return Ok(None) };
        let half = login.expires_at.saturating_since(session.refreshed_at) / 2;
        if login.expires_at >= session.latest || now < session.refreshed_at + half {
            return Ok(None);
        }
        let refresh = self.inner.sealing.unseal(&refresh_name(&login.dn), &session.refresh)?;
        let refresh = std::str::from_utf8(&refresh).map_err(Refused::internal)?.to_owned();
        let (method, subject) = (session.method, session.subject);
        Ok(Some(RenewableSession { method, subject, refresh: Zeroizing::new(refresh) }))
    }

    /// The provider's session of a login goes on until `ends_at`, and so does the login (R22), to be asked next with `refresh`.
    ///
    /// # Errors
    /// `token_revoked` when the login has ended.
    pub(crate) async fn session_goes_on(
        &self,
        bearer: &Bearer,
        ends_at: UnixSeconds,
        refresh: &str,
        now: UnixSeconds,
    ) -> Result<(), Refused> {
        let mut tx = self.inner.store.begin().await?;
        let mut login = self.login_of(&mut tx, bearer, now).await?;
        let session = store::provider_session(&mut tx, &login.dn).await?.ok_or_else(Refused::login_ended)?;
        login.expires_at = ends_at.min(session.latest);
        store::put_login(&mut tx, &login).await?;
        let refresh = self.inner.sealing.seal(&refresh_name(&login.dn), refresh.as_bytes())?;
        let session = ProviderSession { refresh, refreshed_at: now, ..session };
        store::put_provider_session(&mut tx, &login.dn, Some(&session)).await?;
        Ok(tx.commit().await?)
    }

    /// Verifies the claims token of whoever proved to hold `holder`.
    ///
    /// # Errors
    /// `token_…`.
    pub fn bearer(&self, claims: &str, holder: &KeyThumbprint, now: UnixSeconds) -> Result<Bearer, Refused> {
        let signed = Signed::<ClaimsToken>::from_text(claims).map_err(|error| Refused::malformed(error.to_string()))?;
        let audience = audience::controller(self.organisation());
        let deny = self.deny();
        let expectation = Expectation { audience: &audience, holder: Holder::Key(holder), now, deny: &deny };
        let claims = self.known().verifier.verify(&signed, &expectation)?;
        let session = claims.sub.parse()?;
        Ok(Bearer { claims, session })
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
        if peer.role() != Role::Device {
            return Err(Refused::wrong_role(Role::Device.as_str(), peer.role().as_str()));
        }
        self.standing(peer, now)?;
        let bearer = self.bearer(claims, peer.key(), now)?;
        if peer.session() != Some(&bearer.session) {
            return Err(Refused::certificate_mismatch());
        }
        Ok(bearer)
    }

    /// Whether a certificate is good at `now`: neither it nor its key was revoked.
    ///
    /// # Errors
    /// `certificate_revoked`.
    pub fn standing(&self, peer: &PeerIdentity, now: UnixSeconds) -> Result<(), Refused> {
        self.standing_of(&Shown { certificate: Some(peer.serial()), key: Some(peer.key()), ..Shown::default() }, now)
    }

    pub(crate) fn standing_of(&self, shown: &Shown<'_>, now: UnixSeconds) -> Result<(), Refused> {
        match self.deny().standing(shown) {
            Standing::Good => Ok(()),
            Standing::RenewBy { by, .. } if now < by => Ok(()),
            Standing::RenewBy { serial, reason, .. } | Standing::Revoked { serial, reason } => {
                Err(Refused::certificate_revoked(serial, reason))
            }
        }
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
        let key = RequestedKey::from_request(request)?;
        let claims = &bearer.claims;
        if *key.thumbprint() != claims.cnf.jkt {
            return Err(Refused::key_mismatch());
        }
        let mut c = self.inner.store.read().await?;
        self.login_of(&mut c, bearer, now).await?;
        // A program's certificate is what it logs in with, and must outlive the login.
        let is_service = store::is_service(&mut c, &claims.user).await?;
        let until = if is_service { now + Duration::from_secs(SERVICE_LIFE) } else { claims.exp };
        let leaf = self.authority().device(&bearer.session, &key, until, now)?;
        let chain = [&leaf, self.authority().intermediate()].map(|certificate| URL_SAFE_NO_PAD.encode(certificate));
        Ok(api::CertificateResponse { chain: chain.into() })
    }

    /// New claims within the same login, of the user's present generation.
    ///
    /// # Errors
    /// `token_revoked` when the login has ended.
    pub async fn renew(&self, bearer: &Bearer, now: UnixSeconds) -> Result<api::LoginResponse, Refused> {
        let mut tx = self.inner.store.begin().await?;
        let mut login = self.login_of(&mut tx, bearer, now).await?;
        let user = store::user_by_id(&mut tx, &login.user).await?.filter(|user| user.active);
        let user = user.ok_or_else(Refused::login_ended)?;
        login.generation = user.generation;
        login.claims = Uuid::new_v4().to_string();
        store::put_login(&mut tx, &login).await?;
        let claims = self.claims(&mut tx, &login, &user, now).await?;
        tx.commit().await?;
        Ok(self.login_response(claims.as_str()))
    }

    fn login_response(&self, claims: &str) -> api::LoginResponse {
        let authority = self.authority();
        api::LoginResponse {
            claims: claims.to_owned(),
            root: URL_SAFE_NO_PAD.encode(authority.root()),
            known: self.known_to_clients(),
        }
    }
}

impl Attempt<'_> {
    /// Says what became of it: a wrong one-time password is a failure, as a wrong password is; everything else that was refused
    /// says nothing of what was guessed.
    pub(crate) fn ended<T>(self, result: Result<T, Refused>) -> Result<T, Refused> {
        match &result {
            Ok(_) => self.succeeded(),
            Err(refused) if matches!(refused.code, "otp_refused" | "login_refused") => drop(self),
            Err(_) => self.untried(),
        }
        result
    }
}

/// What a refresh token is sealed as.
fn refresh_name(dn: &str) -> String {
    format!("refresh token of {dn}")
}

/// Makes `client` the id of this user's device with this key, if it is nobody else's (A4, I10).
///
/// # Errors
/// `already_exists`, `login_limited` for one device too many.
pub(crate) async fn register(
    c: &mut Connection,
    client: &str,
    user: &str,
    jkt: &str,
    now: UnixSeconds,
) -> Result<(), Refused> {
    match store::device(c, client).await? {
        Some((owner, key)) if owner == user && key == jkt => return Ok(()),
        Some(_) => {
            return Err(Refused::already_exists(
                "this client id belongs to another user or key, and is not overwritten: make a new one",
            ));
        }
        None => {}
    }
    if store::devices_of(c, user).await? >= DEVICES_MAX {
        return Err(Refused::too_many_devices(DEVICES_MAX));
    }
    Ok(store::insert_device(c, client, user, jkt, now).await?)
}
