//! From a password or a program's certificate to a session: login, claims, device certificate, renewal. What providers say of
//! people comes from `provider.rs`.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfort_directory::oidc::TokenRefused;
use ringfort_directory::{Failed, PASSWORD};
use ringfort_identity::{KeyThumbprint, PeerIdentity, Role, SessionDn};
use ringfort_proto::api::{self, LOGIN_NAME_BYTES_MAX};
use ringfort_token::{ClaimsToken, Expectation, Holder, Shown, Signed, Standing, audience};
use ringfort_types::UnixSeconds;
use uuid::Uuid;

use super::ca::{RequestedKey, SERVICE_LIFE};
use super::failures::Account;
use super::password::Attempt;
use super::provider::AtProvider;
use super::refused::Refused;
use super::store::{self, Connection, Login, User};
use super::{Bearer, Core, Event, checked_otp, to_the_end};

/// Devices of one user: more than anybody has, and an end to what one password can fill.
const DEVICES_MAX: i64 = 256;

/// Who proved who they are, and what must still be so when they are logged in.
pub(super) struct Proven {
    pub(super) user: String,
    pub(super) by: By,
    /// What the audit log says of how.
    pub(super) how: String,
    pub(super) auth_time: UnixSeconds,
}

/// By what they proved it.
pub(super) enum By {
    /// A password, whose hash was this.
    Password(String),
    /// What a provider says.
    Provider(AtProvider),
    /// A service's certificate.
    Certificate,
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
        checked_otp(otp.as_deref())?;
        let known = store::user_by_name(&mut *self.inner.store.read().await?, name).await?;
        // Without a password there is nothing that could be right.
        let known = known.filter(|user| user.active && !user.password.is_empty());
        let hash = known.as_ref().map(|user| user.password.clone());
        let attempt =
            self.inner.passwords.check(&Account::new(PASSWORD, name), from, password, hash.clone(), now).await?;
        let user = known.ok_or_else(Refused::login)?.id;
        let logged_in = async {
            let second = self.check_otp(&user, otp.as_deref(), now).await?;
            let how = format!("from {from}, {second}");
            let by = By::Password(hash.unwrap_or_default());
            let proven = Proven { user: user.clone(), by, how, auth_time: now };
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
        let proven = Proven { user, by: By::Certificate, how, auth_time: now };
        self.log_in(proven, client, key, now).await
    }

    /// Starts the login of somebody who proved who they are.
    pub(super) async fn log_in(
        &self,
        proven: Proven,
        client_id: &str,
        key: KeyThumbprint,
        now: UnixSeconds,
    ) -> Result<api::LoginResponse, Refused> {
        let (core, client) = (self.clone(), client_id.to_owned());
        to_the_end(async move {
            let Proven { user, by, how, auth_time } = proven;
            let mut tx = core.inner.store.begin().await?;
            // Who they are was checked outside of this transaction.
            let user = match &by {
                By::Provider(at) => at.user(&mut tx).await.map(|now| Some(now).filter(|now| now.id == user))?,
                By::Password(_) | By::Certificate => store::user_by_id(&mut tx, &user).await?,
            };
            let is_so = |user: &User| match &by {
                By::Password(hash) => user.password == *hash,
                By::Provider(_) | By::Certificate => true,
            };
            let user = user.filter(|user| user.active && is_so(user)).ok_or_else(Refused::login)?;
            core.standing_of(&Shown { key: Some(&key), ..Shown::default() }, now)?;
            let jkt = key.to_string();
            register(&mut tx, &client, &user.id, &jkt, now).await?;
            let latest = now + Duration::from_secs(core.inner.settings.login_seconds);
            let ends_at = match &by {
                By::Provider(at) => at.ends_at,
                By::Password(_) | By::Certificate => None,
            };
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
            let session = match &by {
                By::Provider(at) => core.begin_session(&mut tx, &login, at, latest, now).await?,
                By::Password(_) | By::Certificate => None,
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
            Err(refused) if matches!(refused.code, "otp_refused" | "otp_unanswered" | "login_refused") => drop(self),
            Err(_) => self.untried(),
        }
        result
    }
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
