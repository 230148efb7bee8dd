//! Logins at identity providers: who is asked what, and the logins that wait for a browser to come back.
//!
//! Attempts are counted and bounded as those by password are ([`crate::core::Core::login`]); what a provider says of somebody goes to
//! the core, which knows users.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ringfort_directory::ldap::Directory;
use ringfort_directory::oidc::{Finished, Freshness, Pending, Provider, RedirectUri, Returned};
use ringfort_directory::{Failed, PASSWORD, ProviderPolicy, Settings, SettingsError, random_text};
use ringfort_identity::KeyThumbprint;
use ringfort_proto::api;
use ringfort_types::UnixSeconds;

use super::limits::{OIDC_BEGUN_MAX, OIDC_LIFE, OIDC_OF_ONE_ADDRESS_MAX};
use crate::core::{Account, Bearer, ByProvider, Core, GoesOn, Refused, network};

/// The identity providers of the organisation.
#[derive(Debug)]
pub(crate) struct Identity {
    oidc: Vec<(Provider, ProviderPolicy)>,
    ldap: Vec<(Directory, ProviderPolicy)>,
    begun: Begun,
}

impl Identity {
    /// The providers of these settings; none is asked anything yet.
    pub(crate) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        let oidc = settings.oidc.iter().map(|one| Ok((Provider::new(one)?, one.policy())));
        let ldap = settings.ldap.iter().map(|one| Ok((Directory::new(one)?, one.policy())));
        Ok(Self {
            oidc: oidc.collect::<Result<_, SettingsError>>()?,
            ldap: ldap.collect::<Result<_, SettingsError>>()?,
            begun: Begun::default(),
        })
    }

    /// Names of all methods, and where the providers are (R19). Those of a browser come first: whoever has one uses it.
    pub(crate) fn methods(&self) -> (Vec<String>, Vec<api::LoginProvider>) {
        let provider =
            |method: &str, kind, uri: &str| api::LoginProvider { method: method.into(), kind, uri: uri.into() };
        let oidc = self.oidc.iter().map(|(one, _)| provider(one.name(), api::ProviderKind::Oidc, one.issuer()));
        let ldap = self.ldap.iter().map(|(one, _)| provider(one.name(), api::ProviderKind::Ldap, one.url()));
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
        let directory = self.ldap.iter().find(|(directory, _)| directory.name() == method);
        let (directory, policy) = directory.ok_or_else(|| Refused::method_unknown(method))?;
        let api::LoginRequest { user, password, client_id, otp, .. } = request;
        core.checked_names(user, client_id)?;
        let attempt = core.attempt(Some(Account::new(method, user)), from, now)?;
        let logged_in = async {
            let person = directory.check(user, password, now).await.map_err(|failed| match failed {
                // In the words of every wrong password.
                Failed::Refused(_) => Refused::login(),
                other => other.into(),
            })?;
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
        let provider = self.oidc.iter().position(|(provider, _)| provider.name() == method.as_str());
        let provider = provider.ok_or_else(|| Refused::method_unknown(method))?;
        let redirect = RedirectUri::new(redirect_uri).ok_or_else(|| {
            Refused::malformed("expected a redirect_uri http://127.0.0.1:PORT/callback on the user's own machine")
        })?;
        let attempt = core.attempt(None, from, now)?;
        let freshness = if *fresh { Freshness::Anew } else { Freshness::Within(core.login_seconds()) };
        let begun = self.oidc[provider].0.begin(redirect, freshness, now).await;
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
        self.begun.insert(handle.clone(), waiting)?;
        Ok(api::OidcBegun { url, handle, state, expires_at: (now + OIDC_LIFE).0 })
    }

    /// Finishes it with what the browser brought. Where a one-time password is missing, or wrong, who they are is known, and the same
    /// login is finished with the next one.
    pub(crate) async fn finish(
        &self,
        core: &Core,
        request: api::OidcFinish,
        key: KeyThumbprint,
        from: IpAddr,
        now: UnixSeconds,
    ) -> Result<api::LoginResponse, Refused> {
        let api::OidcFinish { handle, code, state, issuer, otp } = request;
        let attempt = core.attempt(None, from, now)?;
        let waiting = self.begun.take(&handle, Instant::now()).filter(|waiting| waiting.key == key);
        // Not said to be none: whoever guesses handles is one who fails.
        let waiting = waiting.ok_or_else(Refused::login_unknown)?;
        let (provider, policy) = &self.oidc[waiting.provider];
        let finished = match waiting.stage {
            Stage::Begun(pending) => {
                let returned = Returned { code: &code, state: &state, issuer: issuer.as_deref() };
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
        let by = ByProvider {
            method: provider.name(),
            person: &finished.person,
            policy,
            otp: otp.as_deref(),
            refresh: finished.refresh.as_ref().map(|refresh| refresh.as_str()),
        };
        let logged_in = core.login_by_provider(by, &waiting.client_id, key, from, now).await;
        if logged_in.as_ref().is_err_and(|refused| refused.code.starts_with("otp_")) {
            // Without a place it is begun again, which is all that is lost.
            drop(self.begun.insert(handle, Waiting { stage: Stage::Known(finished), ..waiting }));
        }
        attempt.ended(logged_in)
    }

    /// Asks the provider of a login whether its session goes on, when it is time to (R22). A provider that cannot be reached
    /// leaves the login's end where it is.
    pub(crate) async fn ask_again(&self, core: &Core, bearer: &Bearer, now: UnixSeconds) -> Result<(), Refused> {
        let Some(session) = core.renewable_session(bearer, now).await? else { return Ok(()) };
        let provider = self.oidc.iter().find(|(provider, _)| provider.name() == session.method);
        let Some((provider, policy)) = provider else { return core.session_stays(bearer, &session).await };
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
            Failed::Unreachable(_) | Failed::Answer(_) => {
                tracing::warn!(method = session.method, error = %failed, "a login was not prolonged");
                Ok(())
            }
            refused => Err(refused.into()),
        }
    }
}

/// A login that waits for a browser.
#[derive(Debug)]
struct Waiting {
    key: KeyThumbprint,
    client_id: String,
    /// Which of the providers.
    provider: usize,
    stage: Stage,
    /// What counts as one address.
    from: IpAddr,
    begun_at: Instant,
}

/// How far it has come.
enum Stage {
    /// The browser is at the provider.
    Begun(Pending),
    /// The provider has said who they are; what is missing is a one-time password of ours.
    Known(Finished),
}

impl std::fmt::Debug for Stage {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Begun(_) => "Begun",
            Self::Known(_) => "Known",
        })
    }
}

impl Waiting {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.begun_at) >= OIDC_LIFE
    }
}

/// Those that wait, by their handles: each good once, and not for long.
#[derive(Debug, Default)]
struct Begun(Mutex<BTreeMap<String, Waiting>>);

impl Begun {
    /// Keeps one more. Of one address the oldest makes room; when there are too many in all nobody begins.
    fn insert(&self, handle: String, waiting: Waiting) -> Result<(), Refused> {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = waiting.begun_at;
        begun.retain(|_, one| !one.is_over(now));
        let mut same: Vec<_> = begun.iter().filter(|(_, one)| one.from == waiting.from).collect();
        if same.len() >= OIDC_OF_ONE_ADDRESS_MAX {
            same.sort_by_key(|(_, one)| one.begun_at);
            let oldest = same[0].0.clone();
            begun.remove(&oldest);
        }
        if begun.len() >= OIDC_BEGUN_MAX {
            return Err(Refused::login_busy());
        }
        begun.insert(handle, waiting);
        Ok(())
    }

    fn take(&self, handle: &str, now: Instant) -> Option<Waiting> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(handle);
        taken.filter(|waiting| !waiting.is_over(now))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringfort_directory::OidcSettings;

    use super::*;

    fn key() -> KeyThumbprint {
        "A".repeat(43).parse().unwrap()
    }

    fn waiting(from: &str, begun_at: Instant) -> Waiting {
        let redirect = RedirectUri::new("http://127.0.0.1:1/callback").unwrap();
        let pending = Pending::new(redirect, UnixSeconds(0)).unwrap();
        let (from, stage) = (from.parse().unwrap(), Stage::Begun(pending));
        Waiting { key: key(), client_id: "c".into(), provider: 0, stage, from, begun_at }
    }

    #[test]
    fn a_login_is_finished_once_and_in_time() {
        let (begun, start) = (Begun::default(), Instant::now());
        begun.insert("a".into(), waiting("192.0.2.1", start)).unwrap();
        begun.insert("b".into(), waiting("192.0.2.1", start)).unwrap();
        let almost = start + OIDC_LIFE - Duration::from_secs(1);
        assert!(begun.take("c", almost).is_none() && begun.take("a", almost).is_some());
        assert!(begun.take("a", almost).is_none(), "once");
        assert!(begun.take("b", start + OIDC_LIFE).is_none(), "too late");
    }

    #[test]
    fn logins_that_wait_are_bounded() {
        let (begun, start) = (Begun::default(), Instant::now());
        for n in 0..=OIDC_OF_ONE_ADDRESS_MAX as u64 {
            begun.insert(n.to_string(), waiting("192.0.2.1", start + Duration::from_millis(n))).unwrap();
        }
        assert!(begun.take("0", start).is_none() && begun.take("1", start).is_some(), "the oldest of an address goes");
        for n in 0..OIDC_BEGUN_MAX {
            let from = format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
            drop(begun.insert(format!("x{n}"), waiting(&from, start)));
        }
        let refused = begun.insert("last".into(), waiting("198.51.100.1", start)).unwrap_err();
        assert_eq!(refused.code, "login_busy");
        begun.insert("later".into(), waiting("198.51.100.1", start + OIDC_LIFE * 2)).unwrap();
        assert_eq!(begun.0.lock().unwrap().len(), 1, "what is over takes no room");
    }

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
        let identity = Identity::new(&Settings { oidc: vec![oidc], ldap: Vec::new() }).unwrap();
        let (methods, providers) = identity.methods();
        assert_eq!(methods, ["sso", "password"]);
        assert_eq!((providers[0].uri.as_str(), providers.len()), ("https://id.example", 1));
    }
}
