//! From a password to a session: login, claims, device certificate, renewal.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfort_identity::{KeyThumbprint, PeerIdentity, Role, SessionDn};
use ringfort_proto::api;
use ringfort_token::{ClaimsToken, Expectation, Holder, Shown, Signed, Standing, audience};
use ringfort_types::UnixSeconds;
use uuid::Uuid;

use super::ca::RequestedKey;
use super::refused::Refused;
use super::store::{self, Connection, Login};
use super::{Bearer, Core, Event, to_the_end};

/// Devices of one user: more than anybody has, and an end to what one password can fill.
const DEVICES_MAX: i64 = 256;
/// Longest login name, in bytes, that is looked up.
const NAME_BYTES_MAX: usize = 128;

impl Core {
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
        let api::LoginRequest { user: name, password, client_id } = request;
        if name.len() > NAME_BYTES_MAX {
            // Nothing was counted or hashed for it, so it is none of the failed logins, which are all written down.
            let message = format!("expected a login name of at most {NAME_BYTES_MAX} bytes");
            return Err(Refused::malformed(message));
        }
        // Before the password, which costs most: any id that is a name, with anybody's.
        SessionDn::new(client_id, "user", self.organisation())?;
        let known = store::user_by_name(&mut *self.inner.store.read().await?, name).await?;
        let hash = known.filter(|user| user.active).map(|user| user.password);
        self.inner.passwords.check(name, from, password, hash.clone(), now).await?;

        let (core, name, client) = (self.clone(), name.clone(), client_id.clone());
        to_the_end(async move {
            let mut tx = core.inner.store.begin().await?;
            // The password was checked outside of this transaction.
            let user = store::user_by_name(&mut tx, &name).await?;
            let user = user.filter(|user| user.active && Some(&user.password) == hash.as_ref());
            let user = user.ok_or_else(Refused::login)?;
            core.standing_of(&Shown { key: Some(&key), ..Shown::default() }, now)?;
            let jkt = key.to_string();
            register(&mut tx, &client, &user.id, &jkt, now).await?;
            let login = Login {
                dn: SessionDn::new(&client, &user.id, core.organisation())?.to_string(),
                user: user.id.clone(),
                client,
                jkt,
                generation: user.generation,
                claims: Uuid::new_v4().to_string(),
                auth_time: now,
                expires_at: now + Duration::from_secs(core.inner.settings.login_seconds),
            };
            store::put_login(&mut tx, &login).await?;
            let claims = core.claims(&mut tx, &login, &user, now).await?;
            let detail = format!("from {from}");
            let event = Event { actor: &name, action: "login", target: &login.dn, outcome: "ok", detail: &detail };
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
        self.login_of(&mut *self.inner.store.read().await?, bearer, now).await?;
        let leaf = self.authority().device(&bearer.session, &key, claims.exp, now)?;
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
