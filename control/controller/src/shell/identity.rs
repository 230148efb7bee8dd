//! Logins at identity providers: who is asked what, and the logins that wait for a browser to come back.
//!
//! Attempts are counted and bounded as those by password are ([`crate::core::Core::login`]); what a provider says of somebody goes to
//! the core, which knows users.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ringfort_directory::external_otp::{ExternalOtp, OtpAnswer, OtpQuestion, OtpUnavailable};
use ringfort_directory::ldap::Directory;
use ringfort_directory::oidc::{Freshness, Provider, RedirectUri, Returned};
use ringfort_directory::{Failed, PASSWORD, ProviderPolicy, Settings, SettingsError, random_text};
use ringfort_identity::KeyThumbprint;
use ringfort_proto::api;
use ringfort_types::UnixSeconds;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::begun::{Begun, Stage, Waiting};
use super::limits::{AT_ONE_PROVIDER_MAX, OIDC_LIFE};
use crate::core::{Account, Bearer, ByProvider, Core, GoesOn, Refused, checked_otp, network};

/// The identity providers of the organisation.
#[derive(Debug)]
pub(crate) struct Identity {
    oidc: Vec<Asked<Provider>>,
    ldap: Vec<Asked<Directory>>,
    external_otp: Option<Arc<OtpSystem>>,
    begun: Begun,
}

/// A provider, for whom it may speak, and a place for each attempt that may be under way there.
#[derive(Debug)]
struct Asked<T> {
    provider: T,
    policy: ProviderPolicy,
    places: Semaphore,
}

impl<T> Asked<T> {
    const fn new(provider: T, policy: ProviderPolicy) -> Self {
        Self { provider, policy, places: Semaphore::const_new(AT_ONE_PROVIDER_MAX) }
    }

    fn place(&self) -> Result<SemaphorePermit<'_>, Refused> {
        self.places.try_acquire().map_err(|_| Refused::login_busy())
    }
}

/// The organisation's own system of one-time passwords, and a place for each code that may be under way there.
#[derive(Debug)]
struct OtpSystem {
    system: ExternalOtp,
    places: Semaphore,
}

impl OtpSystem {
    /// # Errors
    /// `login_busy`, `otp_unavailable`, `otp_unanswered`.
    async fn check(&self, question: &OtpQuestion) -> Result<OtpAnswer, Refused> {
        let _place = self.places.try_acquire().map_err(|_| Refused::login_busy())?;
        self.system.check(question).await.map_err(|unavailable| {
            tracing::warn!(%unavailable, "a one-time password was not checked");
            match unavailable {
                OtpUnavailable::Silent(_) => Refused::otp_unanswered(unavailable),
                OtpUnavailable::NoAnswer(_) => Refused::otp_unavailable(unavailable),
            }
        })
    }
}

impl Identity {
    /// The providers of these settings; none is asked anything yet.
    pub(crate) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        let oidc = settings.oidc.iter().map(|one| Ok(Asked::new(Provider::new(one)?, one.policy())));
        let ldap = settings.ldap.iter().map(|one| Ok(Asked::new(Directory::new(one)?, one.policy())));
        let external_otp = settings.external_otp.as_ref().map(|settings| {
            let places = Semaphore::new(AT_ONE_PROVIDER_MAX);
            Ok(Arc::new(OtpSystem { system: ExternalOtp::new(settings)?, places }))
        });
        Ok(Self {
            external_otp: external_otp.transpose()?,
            oidc: oidc.collect::<Result<_, SettingsError>>()?,
            ldap: ldap.collect::<Result<_, SettingsError>>()?,
            begun: Begun::default(),
        })
    }

    /// Has the core ask the organisation's own system of one-time passwords, where there is one.
    pub(crate) fn answer_otp(&self, core: &Core) {
        if let Some(system) = self.external_otp.clone() {
            core.set_external_otp(move |question| {
                let system = Arc::clone(&system);
                Box::pin(async move { system.check(&question).await })
            });
        }
    }

    /// Names of all methods, and where the providers are (R19). Those of a browser come first: whoever has one uses it.
    pub(crate) fn methods(&self) -> (Vec<String>, Vec<api::LoginProvider>) {
        let provider =
            |method: &str, kind, uri: &str| api::LoginProvider { method: method.into(), kind, uri: uri.into() };
        let oidc = self
            .oidc
            .iter()
            .map(|one| &one.provider)
            .map(|one| provider(one.name(), api::ProviderKind::Oidc, one.issuer()));
        let ldap = self
            .ldap
            .iter()
            .map(|one| &one.provider)
            .map(|one| provider(one.name(), api::ProviderKind::Ldap, one.url()));
        let providers: Vec<_> = oidc.chain(ldap).collect();
        let names = providers.iter().map(|provider| provider.method.clone());
        (names.chain([PASSWORD.to_owned()]).collect(), providers)
    }

    /// Lets a directory check a password (A3).
    pub(crate) async fn login(
        &self,
        core: &Core,
        method: &str,
        request: &api::LoginRequest,
        key: KeyThumbprint,
        from: IpAddr,
        now: UnixSeconds,
    ) -> Result<api::LoginResponse, Refused> {
        let directory = self.ldap.iter().find(|one| one.provider.name() == method);
        let directory = directory.ok_or_else(|| Refused::method_unknown(method))?;
        let policy = &directory.policy;
        let api::LoginRequest { user, password, client_id, otp, .. } = request;
        core.checked_names(user, client_id)?;
        checked_otp(otp.as_deref())?;
        let place = directory.place()?;
        let attempt = core.attempt(Some(Account::new(method, user)), from, now)?;
        let logged_in = async {
            let person = directory.provider.check(user, password, now).await.map_err(|failed| match failed {
                // In the words of every wrong password.
                Failed::Refused(_) => Refused::login(),
                other => other.into(),
            })?;
            // Whoever checks the one-time password may take its time without the directory.
            drop(place);
            let by = ByProvider { method, person: &person, policy, otp: otp.as_deref(), refresh: None };
            core.login_by_provider(by, client_id, key, from, now).await
        };
        attempt.ended(logged_in.await)
    }

    /// Begins a login at an OpenID provider: the URL for the browser of whoever holds `key`.
    pub(crate) async fn begin(
        &self,
        core: &Core,
        request: &api::OidcBegin,
        key: KeyThumbprint,
        from: IpAddr,
        now: UnixSeconds,
    ) -> Result<api::OidcBegun, Refused> {
        let api::OidcBegin { method, client_id, redirect_uri, fresh } = request;
        core.checked_names("", client_id)?;
        let provider = self.oidc.iter().position(|one| one.provider.name() == method.as_str());
        let provider = provider.ok_or_else(|| Refused::method_unknown(method))?;
        let path = api::callback_path(method);
        let redirect = path.and_then(|path| RedirectUri::new(redirect_uri, &path)).ok_or_else(|| {
            Refused::malformed(format!(
                "expected a redirect_uri http://127.0.0.1:PORT/callback/{method} on the user's own machine"
            ))
        })?;
        let _place = self.oidc[provider].place()?;
        let attempt = core.attempt(None, from, now)?;
        let freshness = if *fresh { Freshness::Anew } else { Freshness::Within(core.login_seconds()) };
        let begun = self.oidc[provider].provider.begin(redirect, freshness, now).await;
        attempt.untried();
        let (url, pending) = begun?;
        let handle = random_text().ok_or_else(|| Refused::internal("no randomness"))?;
        let state = pending.state().to_owned();
        let waiting = Waiting {
            key,
            client_id: client_id.clone(),
            provider,
            stage: Stage::Begun(pending),
            from: network(from),
            begun_at: Instant::now(),
        };
        self.begun.insert(handle.clone(), waiting);
        Ok(api::OidcBegun { url, handle, state, expires_at: (now + OIDC_LIFE).0 })
    }

    /// Finishes it with what the browser brought. Where a one-time password is missing, wrong or could not be checked, who they are is
    /// known, and the same login is finished with the next one.
    pub(crate) async fn finish(
        &self,
        core: &Core,
        request: &api::OidcFinish,
        key: KeyThumbprint,
        from: IpAddr,
        now: UnixSeconds,
    ) -> Result<api::LoginResponse, Refused> {
        let api::OidcFinish { handle, code, state, issuer, otp } = request;
        checked_otp(otp.as_deref())?;
        // While it is good still: whoever is sent away may come again with it.
        let place = self.begun.provider(handle).map(|provider| self.oidc[provider].place()).transpose()?;
        let attempt = core.attempt(None, from, now)?;
        let waiting = self.begun.take(handle, Instant::now()).filter(|waiting| waiting.key == key);
        // Not said to be none: whoever guesses handles is one who fails.
        let waiting = waiting.ok_or_else(Refused::login_unknown)?;
        let Asked { provider, policy, .. } = &self.oidc[waiting.provider];
        let finished = match waiting.stage {
            Stage::Begun(pending) => {
                let returned = Returned { code, state, issuer: issuer.as_deref() };
                match provider.finish(pending, &returned, now).await {
                    Ok(finished) => finished,
                    // A code that the provider does not know may have been guessed.
                    Err(failed @ Failed::Refused(_)) => return Err(failed.into()),
                    Err(failed) => {
                        attempt.untried();
                        return Err(failed.into());
                    }
                }
            }
            Stage::Known(finished) => finished,
        };
        drop(place);
        let by = ByProvider {
            method: provider.name(),
            person: &finished.person,
            policy,
            otp: otp.as_deref(),
            refresh: finished.refresh.as_ref().map(|refresh| refresh.as_str()),
        };
        let logged_in = core.login_by_provider(by, &waiting.client_id, key, from, now).await;
        let goes_on = |refused: &Refused| refused.code.starts_with("otp_") || refused.code == "login_busy";
        if logged_in.as_ref().is_err_and(goes_on) {
            // Without a place it is begun again, which is all that is lost.
            self.begun.insert(handle.clone(), Waiting { stage: Stage::Known(finished), ..waiting });
        }
        attempt.ended(logged_in)
    }

    /// Asks the provider of a login whether its session goes on, when it is time to (R22). A provider that cannot be reached
    /// leaves the login's end where it is.
    pub(crate) async fn ask_again(&self, core: &Core, bearer: &Bearer, now: UnixSeconds) -> Result<(), Refused> {
        let Some(session) = core.renewable_session(bearer, now).await? else { return Ok(()) };
        let provider = self.oidc.iter().find(|one| one.provider.name() == session.method);
        let Some(Asked { provider, policy, .. }) = provider else { return core.session_stays(bearer, &session).await };
        let failed = match provider.refresh(&session.refresh, &session.subject, now).await {
            Ok(refreshed) => {
                let refresh = refreshed.refresh.as_ref().unwrap_or(&session.refresh);
                let said = GoesOn { ends_at: refreshed.ends_at, refresh, email: refreshed.email.as_ref(), policy };
                return core.session_goes_on(bearer, &session, &said, now).await;
            }
            Err(failed) => failed,
        };
        core.session_stays(bearer, &session).await?;
        match failed {
            Failed::Unreachable(_) | Failed::Silent(_) | Failed::Answer(_) => {
                tracing::warn!(method = session.method, error = %failed, "a login was not prolonged");
                Ok(())
            }
            refused => Err(refused.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ringfort_directory::OidcSettings;

    use super::*;

    #[test]
    fn providers_come_before_our_own_passwords() {
        let oidc = OidcSettings {
            name: "sso".into(),
            issuer: "https://id.example".into(),
            client_id: "ringfort".into(),
            client_secret_file: None,
            scopes: Vec::new(),
            groups_claim: "groups".into(),
            ca_file: None,
            email_domains: None,
            administrators: false,
            second_factor: false,
        };
        let identity = Identity::new(&Settings { oidc: vec![oidc], ..Settings::default() }).unwrap();
        let (methods, providers) = identity.methods();
        assert_eq!(methods, ["sso", "password"]);
        assert_eq!((providers[0].uri.as_str(), providers.len()), ("https://id.example", 1));
    }
}
