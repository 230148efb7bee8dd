//! Logins at identity providers: who is asked what, and the logins that wait for a browser to come back.
//!
//! Attempts are counted and bounded as those by password are ([`crate::core::Core::login`]); what a provider says of somebody goes to
//! the core, which knows users.

use std::net::IpAddr;
use std::time::Instant;

use ringfort_directory::ldap::Directory;
use ringfort_directory::oidc::{Freshness, Provider, RedirectUri, Returned};
use ringfort_directory::{Failed, PASSWORD, Settings, SettingsError, random_text};
use ringfort_identity::KeyThumbprint;
use ringfort_proto::api;
use ringfort_types::UnixSeconds;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::begun::{Begun, Waiting};
use super::limits::{AT_ONE_PROVIDER_MAX, OIDC_LIFE};
use crate::core::{Bearer, ByProvider, Core, Refused, SecondFactor, network};

/// The identity providers of the organisation.
#[derive(Debug)]
pub(crate) struct Identity {
    oidc: Vec<Asked<Provider>>,
    ldap: Vec<Asked<Directory>>,
    begun: Begun,
}

/// A provider, with a place for each attempt that may be under way there.
#[derive(Debug)]
struct Asked<T> {
    provider: T,
    places: Semaphore,
}

impl<T> Asked<T> {
    const fn new(provider: T) -> Self {
        Self { provider, places: Semaphore::const_new(AT_ONE_PROVIDER_MAX) }
    }

    fn place(&self) -> Result<SemaphorePermit<'_>, Refused> {
        self.places.try_acquire().map_err(|_| Refused::login_busy())
    }
}

impl Identity {
    /// The providers of these settings; none is asked anything yet.
    pub(crate) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        settings.check_names()?;
        Ok(Self {
            oidc: settings.oidc.iter().map(|one| Provider::new(one).map(Asked::new)).collect::<Result<_, _>>()?,
            ldap: settings.ldap.iter().map(|one| Directory::new(one).map(Asked::new)).collect::<Result<_, _>>()?,
            begun: Begun::default(),
        })
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
        let api::LoginRequest { user, password, client_id, otp, .. } = request;
        core.checked_names(user, client_id)?;
        let _place = directory.place()?;
        let attempt = core.attempt(Some(user), from, now)?;
        let logged_in = async {
            let person = directory.provider.check(user, password, now).await.map_err(|failed| match failed {
                // In the words of every wrong password.
                Failed::Refused(_) => Refused::login(),
                other => other.into(),
            })?;
            let second = SecondFactor::Ours(otp.as_deref());
            let by = ByProvider { method, person: &person, second, refresh: None };
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
            pending,
            from: network(from),
            begun_at: Instant::now(),
        };
        self.begun.insert(handle.clone(), waiting);
        Ok(api::OidcBegun { url, handle, state, expires_at: (now + OIDC_LIFE).0 })
    }

    /// Finishes it with what the browser brought.
    pub(crate) async fn finish(
        &self,
        core: &Core,
        request: &api::OidcFinish,
        key: KeyThumbprint,
        from: IpAddr,
        now: UnixSeconds,
    ) -> Result<api::LoginResponse, Refused> {
        let api::OidcFinish { handle, code, state, issuer } = request;
        // While it is good still: whoever is sent away may come again with it.
        let _place = self.begun.provider(handle).map(|provider| self.oidc[provider].place()).transpose()?;
        let attempt = core.attempt(None, from, now)?;
        let waiting = self.begun.take(handle, Instant::now()).filter(|waiting| waiting.key == key);
        // Not said to be none: whoever guesses handles is one who fails.
        let Waiting { client_id, provider, pending, .. } = waiting.ok_or_else(Refused::login_unknown)?;
        let provider = &self.oidc[provider].provider;
        let returned = Returned { code, state, issuer: issuer.as_deref() };
        let finished = provider.finish(pending, &returned, now).await;
        // A code that the provider does not know may have been guessed.
        if !matches!(finished, Err(Failed::Refused(_))) {
            attempt.untried();
        }
        let finished = finished?;
        let by = ByProvider {
            method: provider.name(),
            person: &finished.person,
            second: SecondFactor::Theirs,
            refresh: finished.refresh.as_ref().map(|refresh| refresh.as_str()),
        };
        core.login_by_provider(by, &client_id, key, from, now).await
    }

    /// Asks the provider of a login whether its session goes on, when it is time to (R22). A provider that cannot be reached
    /// leaves the login's end where it is.
    pub(crate) async fn ask_again(&self, core: &Core, bearer: &Bearer, now: UnixSeconds) -> Result<(), Refused> {
        let Some(session) = core.renewable_session(bearer, now).await? else { return Ok(()) };
        let mut providers = self.oidc.iter().map(|one| &one.provider);
        let Some(provider) = providers.find(|provider| provider.name() == session.method) else { return Ok(()) };
        match provider.refresh(&session.refresh, &session.subject, now).await {
            Ok(refreshed) => {
                let refresh = refreshed.refresh.as_ref().unwrap_or(&session.refresh);
                core.session_goes_on(bearer, refreshed.ends_at, refresh, now).await
            }
            Err(error @ (Failed::Unreachable(_) | Failed::Answer(_))) => {
                tracing::warn!(method = session.method, %error, "a login was not prolonged");
                Ok(())
            }
            Err(refused) => Err(refused.into()),
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
        };
        let identity = Identity::new(&Settings { oidc: vec![oidc], ldap: Vec::new() }).unwrap();
        let (methods, providers) = identity.methods();
        assert_eq!(methods, ["sso", "password"]);
        assert_eq!((providers[0].uri.as_str(), providers.len()), ("https://id.example", 1));
    }
}
