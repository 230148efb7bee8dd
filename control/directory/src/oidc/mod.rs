//! OpenID Connect: the code flow with PKCE, state and nonce (OpenID Connect Core 1.0 §3.1, RFC 7636, RFC 9700), for a client on
//! the user's machine that listens on a loopback address (RFC 8252 §7.3).
//!
//! 1. [`Provider::begin`] → a URL for the user's browser, and a [`Pending`] login that is kept here.
//! 2. The provider sends the browser to the client's address with a code and our state.
//! 3. [`Provider::finish`] takes the pending login and the code, fetches the id_token and verifies it: a [`Person`].
//! 4. [`Provider::refresh`] with what [`Finished::refresh`] gave asks whether the provider's session goes on (R22).
//!
//! What the provider publishes (RFC 8414) is fetched when it is first needed, and again after an hour or when a token names a
//! key that is not known.

mod token;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfort_types::UnixSeconds;
use rustls::ClientConfig;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::secret::{random_text, same};
use crate::settings::{OidcSettings, SettingsError, read_secret};
use crate::web::{Answer, Ask, Bounds, Endpoint, ask, is_loopback};
use crate::{Email, Failed, Person};
use token::{Claims, Expected, Keys, LEEWAY_SECONDS};

pub use token::TokenRefused;

/// How long what a provider publishes is believed, in seconds.
const PUBLISHED_SECONDS: u64 = 3_600;
/// A provider that could not be asked is not asked again for so long: whoever waits is told at once.
const FAILED_PAUSE: Duration = Duration::from_secs(5);
/// Keys are not fetched more often than this because of an unknown one, in seconds.
const KEYS_SECONDS_MIN: u64 = 10;
/// Longest code (RFC 6749 leaves it open), state or issuer that a client may bring, in bytes.
const CODE_BYTES_MAX: usize = 4 << 10;
/// Groups of one person that are listened to, and the longest name, in bytes.
const GROUPS_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 256;
/// What a token endpoint says of a code or a refresh token that is good for nothing any more, or of somebody who must come in person
/// again (RFC 6749 §4.1.2.1, §5.2; OpenID Connect Core §3.1.2.6). All else is about us or the provider, and no word on the person.
const REFUSALS: [&str; 5] =
    ["invalid_grant", "access_denied", "login_required", "interaction_required", "consent_required"];
/// What it says when it cannot say anything for now.
const PAUSES: [&str; 3] = ["temporarily_unavailable", "server_error", "slow_down"];

/// The claims that say whose address it is, and whether it is theirs.
const EMAIL_CLAIMS: [&str; 2] = ["email", "email_verified"];

/// How recently somebody must have proved to the provider who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Not longer ago than this, in seconds.
    Within(u64),
    /// Since the login was begun (R2).
    Anew,
}

/// A client's address to which the provider may send the browser: `http://127.0.0.1:PORT` and a path, or likewise of `[::1]`
/// (RFC 8252 §7.3). The path is the provider's alone, so that no other can be told its code (RFC 9700 §4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectUri(String);

impl RedirectUri {
    /// Takes one with this path; `None` for anything that is not on the user's own machine.
    #[must_use]
    pub fn new(text: &str, path: &str) -> Option<Self> {
        let (host, port) = text.strip_prefix("http://")?.strip_suffix(path)?.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let has_port =
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0);
        (is_loopback(host) && has_port).then(|| Self(text.to_owned()))
    }
}

/// A login that was begun. It is good once.
pub struct Pending {
    state: String,
    nonce: String,
    verifier: Zeroizing<String>,
    redirect: RedirectUri,
    authenticated_after: UnixSeconds,
}

impl fmt::Debug for Pending {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("redirect", &self.redirect).finish_non_exhaustive()
    }
}

impl Pending {
    /// A login with secrets of its own; `None` when there is no randomness.
    #[must_use]
    pub fn new(redirect: RedirectUri, authenticated_after: UnixSeconds) -> Option<Self> {
        let verifier = Zeroizing::new(random_text()?);
        Some(Self { state: random_text()?, nonce: random_text()?, verifier, redirect, authenticated_after })
    }

    /// What the provider gives back with the code, for the client to compare.
    #[must_use]
    pub fn state(&self) -> &str {
        &self.state
    }
}

/// What came back with the browser (RFC 6749 §4.1.2, RFC 9207).
#[derive(Clone, Copy, Debug)]
pub struct Returned<'a> {
    /// The code.
    pub code: &'a str,
    /// The state.
    pub state: &'a str,
    /// The issuer, if it was named.
    pub issuer: Option<&'a str>,
}

/// What a login at a provider brought.
pub struct Finished {
    /// Who it is.
    pub person: Person,
    /// With which to ask whether their session goes on.
    pub refresh: Option<Zeroizing<String>>,
}

/// A session at a provider that goes on.
pub struct Refreshed {
    /// When it ends now.
    pub ends_at: UnixSeconds,
    /// With which to ask next; `None` where the same stays good.
    pub refresh: Option<Zeroizing<String>>,
    /// The person's e-mail address, where the provider names one again.
    pub email: Option<Email>,
}

/// An OpenID provider, and us as its client.
pub struct Provider {
    settings: OidcSettings,
    issuer: Endpoint,
    secret: Option<Zeroizing<String>>,
    tls: Arc<ClientConfig>,
    /// Locked while it is fetched: once for all who wait.
    published: Mutex<Cache>,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("name", &self.settings.name).finish_non_exhaustive()
    }
}

/// What was fetched of a provider last.
#[derive(Default)]
struct Cache {
    published: Option<Arc<Published>>,
    failed: Option<(Instant, Failed)>,
}

/// What a provider publishes.
struct Published {
    fetched_at: UnixSeconds,
    authorization: String,
    token: Endpoint,
    userinfo: Option<Endpoint>,
    /// Whether it takes our secret in the form only (`client_secret_post`).
    secret_in_form: bool,
    /// Whether it names itself beside the code (RFC 9207).
    names_issuer: bool,
    keys: Keys,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    userinfo_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

#[derive(Deserialize)]
struct KeyDocument {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(deserialize_with = "secret")]
    access_token: Zeroizing<String>,
    #[serde(default, deserialize_with = "maybe_secret")]
    id_token: Option<Zeroizing<String>>,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default, deserialize_with = "maybe_secret")]
    refresh_token: Option<Zeroizing<String>>,
}

/// An error of the token endpoint (RFC 6749 §5.2).
#[derive(Deserialize)]
struct ErrorDocument {
    error: String,
}

impl Provider {
    /// The provider of these settings; it is not asked anything yet.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn new(settings: &OidcSettings) -> Result<Self, SettingsError> {
        let value = |why: String| SettingsError::Value { name: settings.name.clone(), why };
        let issuer = Endpoint::new(&settings.issuer).map_err(value)?;
        if settings.client_id.is_empty() {
            return Err(value("expected a client_id".into()));
        }
        Ok(Self {
            issuer,
            secret: settings.client_secret_file.as_deref().map(read_secret).transpose()?,
            tls: crate::trust::tls(settings.ca_file.as_deref())?,
            settings: settings.clone(),
            published: Mutex::default(),
        })
    }

    /// The method's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// The issuer: the URI by which people know the provider (R19).
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// Begins a login: the URL for the user's browser, and what is needed when it comes back.
    ///
    /// # Errors
    /// [`Failed::Unreachable`], [`Failed::Answer`].
    pub async fn begin(
        &self,
        redirect: RedirectUri,
        freshness: Freshness,
        now: UnixSeconds,
    ) -> Result<(String, Pending), Failed> {
        let published = self.published(now).await?;
        let (authenticated_after, max_age) = match freshness {
            Freshness::Within(seconds) => (UnixSeconds(now.0.saturating_sub(seconds + LEEWAY_SECONDS)), seconds),
            Freshness::Anew => (now, 0),
        };
        let pending = Pending::new(redirect, authenticated_after);
        let pending = pending.ok_or_else(|| Failed::Unreachable("no randomness".into()))?;
        Ok((self.url(&published, &pending, max_age, freshness), pending))
    }

    /// The request of §3.1.2.1. `max_age` makes the provider say when the person authenticated.
    fn url(&self, published: &Published, pending: &Pending, max_age: u64, freshness: Freshness) -> String {
        let mut scopes = vec!["openid", "email"];
        scopes.extend(
            self.settings.scopes.iter().map(String::as_str).filter(|scope| !["openid", "email"].contains(scope)),
        );
        let challenge = digest::digest(&digest::SHA256, pending.verifier.as_bytes());
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", &pending.redirect.0)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("state", &pending.state)
            .append_pair("nonce", &pending.nonce)
            .append_pair("code_challenge", &URL_SAFE_NO_PAD.encode(challenge))
            .append_pair("code_challenge_method", "S256")
            .append_pair("max_age", &max_age.to_string());
        let prompts: Vec<&str> = [
            (freshness == Freshness::Anew).then_some("login"),
            // OpenID Connect Core §11: without consent there is no offline access.
            scopes.contains(&"offline_access").then_some("consent"),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !prompts.is_empty() {
            query.append_pair("prompt", &prompts.join(" "));
        }
        let joint = if published.authorization.contains('?') { '&' } else { '?' };
        format!("{}{joint}{}", published.authorization, query.finish())
    }

    /// Finishes a login: exchanges the code and says who it is. `pending` is used up whatever comes of it.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn finish(
        &self,
        pending: Pending,
        returned: &Returned<'_>,
        now: UnixSeconds,
    ) -> Result<Finished, Failed> {
        if !same(returned.state, &pending.state) {
            return Err(Failed::Refused("the state is not that of this login: begin again".into()));
        }
        if returned.code.is_empty() || returned.code.len() > CODE_BYTES_MAX {
            return Err(Failed::Refused(format!("expected a code of 1 to {CODE_BYTES_MAX} bytes").into()));
        }
        let published = self.published(now).await?;
        // Whose code it is, where several providers might have sent it (RFC 9207 §2.4).
        let other = match returned.issuer {
            Some(issuer) => issuer != self.settings.issuer,
            None => published.names_issuer,
        };
        if other {
            return Err(Failed::Refused("expected the code with the name of its issuer beside it".into()));
        }
        let tokens = self
            .tokens(
                &published,
                &[
                    ("grant_type", "authorization_code"),
                    ("code", returned.code),
                    ("redirect_uri", &pending.redirect.0),
                    ("code_verifier", &pending.verifier),
                ],
            )
            .await?;
        let text = tokens.id_token.as_deref().ok_or_else(|| Failed::Answer("there is no id_token".into()))?;
        let (nonce, after) = (Some(pending.nonce.as_str()), Some(pending.authenticated_after));
        let claims = self.verified(text, nonce, after, now).await?;
        let ends_at = ends_at(Some(&claims), &tokens, now)?;
        let Claims { sub: subject, auth_time, about, .. } = claims;
        // Asked for, and seen to be there.
        let authenticated_at = auth_time.ok_or(TokenRefused::AuthTimeMissing)?;
        // Both of one document: a word on one address is none on another.
        let says_all = EMAIL_CLAIMS.iter().all(|name| about.contains_key(*name));
        let further = if says_all { Map::new() } else { self.ask_further(&published, &subject, &tokens).await? };
        let email = if EMAIL_CLAIMS.iter().any(|name| further.contains_key(*name)) { &further } else { &about };
        let groups = &self.settings.groups_claim;
        let person = Person {
            email: verified_email(email),
            groups: names(about.get(groups).or_else(|| further.get(groups))),
            authenticated_at,
            subject,
            ends_at: Some(ends_at),
        };
        Ok(Finished { person, refresh: tokens.refresh_token })
    }

    /// Asks whether the session of `subject` goes on.
    ///
    /// # Errors
    /// [`Failed::Refused`] when it does not, and as [`Provider::finish`].
    pub async fn refresh(&self, refresh: &str, subject: &str, now: UnixSeconds) -> Result<Refreshed, Failed> {
        let published = self.published(now).await?;
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh)];
        let tokens = self.tokens(&published, &form).await?;
        let claims = match tokens.id_token.as_deref() {
            Some(text) => Some(self.verified(text, None, None, now).await?),
            None => None,
        };
        if claims.as_ref().is_some_and(|claims| claims.sub != subject) {
            return Err(TokenRefused::Subject.into());
        }
        let ends_at = ends_at(claims.as_ref(), &tokens, now)?;
        let about = claims.as_ref().map(|claims| &claims.about).filter(|about| about.contains_key("email"));
        let email = about.map(|about| verified_email(about).ok_or(TokenRefused::Email)).transpose()?;
        Ok(Refreshed { ends_at, refresh: tokens.refresh_token, email })
    }

    /// Asks the token endpoint (RFC 6749 §3.2).
    async fn tokens(&self, published: &Published, form: &[(&str, &str)]) -> Result<Tokens, Failed> {
        let mut form = form.to_vec();
        let id = self.settings.client_id.as_str();
        let mut user = None;
        match self.secret.as_deref() {
            Some(secret) if !published.secret_in_form => user = Some((id, secret.as_str())),
            Some(secret) => form.extend([("client_id", id), ("client_secret", secret.as_str())]),
            None => form.push(("client_id", id)),
        }
        let answer = ask(&self.tls, &published.token, Ask::Post(&form, user), Bounds::PROVIDER).await?;
        match answer.status {
            200 => answer.json(),
            status @ (400 | 401 | 403) => Err(token_error(status, answer.json()?)),
            status => Err(Failed::Answer(format!("status {status} of the token endpoint").into())),
        }
    }

    /// The claims of an id_token; keys are fetched anew if it names one that is not known.
    async fn verified(
        &self,
        text: &str,
        nonce: Option<&str>,
        authenticated_after: Option<UnixSeconds>,
        now: UnixSeconds,
    ) -> Result<Claims, Failed> {
        let mut published = self.published(now).await?;
        if !published.keys.knows(text) {
            published = self.published_within(KEYS_SECONDS_MIN, now).await?;
        }
        let Self { settings: OidcSettings { issuer, client_id, .. }, .. } = self;
        let expected = Expected { issuer, client_id, nonce, authenticated_after, now };
        Ok(token::verify(text, &published.keys, &expected)?)
    }

    /// What the userinfo endpoint says of the same person, where the id_token is silent (§5.3).
    async fn ask_further(
        &self,
        published: &Published,
        subject: &str,
        tokens: &Tokens,
    ) -> Result<Map<String, Value>, Failed> {
        let Some(userinfo) = &published.userinfo else { return Ok(Map::new()) };
        let answer = ask(&self.tls, userinfo, Ask::Get(Some(&tokens.access_token)), Bounds::PROVIDER).await?;
        let said: Map<String, Value> = ok(&answer, "the userinfo endpoint")?;
        // §5.3.2: another's claims must not be taken for theirs.
        if said.get("sub").and_then(Value::as_str) != Some(subject) {
            return Err(TokenRefused::Subject.into());
        }
        Ok(said)
    }

    /// What the provider publishes, fetched if need be.
    async fn published(&self, now: UnixSeconds) -> Result<Arc<Published>, Failed> {
        self.published_within(PUBLISHED_SECONDS, now).await
    }

    /// What the provider publishes, not older than so many seconds.
    async fn published_within(&self, seconds: u64, now: UnixSeconds) -> Result<Arc<Published>, Failed> {
        let mut cache = self.published.lock().await;
        let young = |known: &&Arc<Published>| now.0 < known.fetched_at.0.saturating_add(seconds);
        if let Some(known) = cache.published.as_ref().filter(young) {
            return Ok(Arc::clone(known));
        }
        if let Some((_, failed)) = cache.failed.as_ref().filter(|(at, _)| at.elapsed() < FAILED_PAUSE) {
            return Err(failed.clone());
        }
        match self.fetch(now).await {
            Ok(fetched) => {
                let fetched = Arc::new(fetched);
                *cache = Cache { published: Some(Arc::clone(&fetched)), failed: None };
                Ok(fetched)
            }
            Err(failed) => {
                cache.failed = Some((Instant::now(), failed.clone()));
                Err(failed)
            }
        }
    }

    async fn fetch(&self, now: UnixSeconds) -> Result<Published, Failed> {
        let issuer = &self.settings.issuer;
        let url = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
        let endpoint = |url: &str| self.issuer.named(url).map_err(|why| Failed::Answer(why.into()));
        let answer = ask(&self.tls, &endpoint(&url)?, Ask::Get(None), Bounds::PROVIDER).await?;
        let document: Document = ok(&answer, "the discovery document")?;
        // Discovery 1.0 §4.3: exactly, or somebody else answers.
        if document.issuer != *issuer {
            return Err(Failed::Answer("its discovery document names another issuer".into()));
        }
        // It is opened by a browser, which is not led away from TLS either.
        endpoint(&document.authorization_endpoint)?;
        let answer = ask(&self.tls, &endpoint(&document.jwks_uri)?, Ask::Get(None), Bounds::PROVIDER).await?;
        let keys: KeyDocument = ok(&answer, "the published keys")?;
        let methods = document.token_endpoint_auth_methods_supported;
        let takes = |method: &str| methods.as_ref().is_none_or(|all| all.iter().any(|one| one == method));
        Ok(Published {
            fetched_at: now,
            authorization: document.authorization_endpoint,
            token: endpoint(&document.token_endpoint)?,
            userinfo: document.userinfo_endpoint.as_deref().map(endpoint).transpose()?,
            secret_in_form: !takes("client_secret_basic"),
            names_issuer: document.authorization_response_iss_parameter_supported,
            keys: Keys::of_set(keys.keys),
        })
    }
}

fn ok<T: serde::de::DeserializeOwned>(answer: &Answer, of: &str) -> Result<T, Failed> {
    match answer.status {
        200 => answer.json(),
        status => Err(Failed::Answer(format!("status {status} of {of}").into())),
    }
}

/// What an error of the token endpoint means.
fn token_error(status: u16, ErrorDocument { error }: ErrorDocument) -> Failed {
    if REFUSALS.contains(&error.as_str()) {
        Failed::Refused(error.into())
    } else if PAUSES.contains(&error.as_str()) {
        Failed::Unreachable(format!("the token endpoint says {error}").into())
    } else {
        Failed::Answer(format!("status {status} of the token endpoint, which says {error:?}").into())
    }
}

/// When the provider's session ends: at the end of the id_token or of the access token, whichever is first (R22).
fn ends_at(claims: Option<&Claims>, tokens: &Tokens, now: UnixSeconds) -> Result<UnixSeconds, Failed> {
    let access = tokens.expires_in.map(|seconds| now + Duration::from_secs(seconds.min(u64::from(u32::MAX))));
    let ends = claims.map(|claims| claims.exp).into_iter().chain(access).min();
    ends.filter(|at| *at > now).ok_or_else(|| Failed::Answer("its tokens have no end, or one that is over".into()))
}

/// The e-mail address, if the provider says that it is the person's. Some say so by a text.
fn verified_email(about: &Map<String, Value>) -> Option<Email> {
    let is_verified = match about.get("email_verified") {
        Some(Value::Bool(verified)) => *verified,
        Some(Value::String(text)) => text == "true",
        _ => false,
    };
    about.get("email").and_then(Value::as_str).filter(|_| is_verified)?.parse().ok()
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

fn maybe_secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Zeroizing<String>>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Zeroizing::new))
}

/// A list of names, as far as it is one.
fn names(value: Option<&Value>) -> Vec<String> {
    let names = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    names.filter(|name| !name.is_empty() && name.len() <= GROUP_BYTES_MAX).take(GROUPS_MAX).map(str::to_owned).collect()
}

#[cfg(test)]
mod against;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn browsers_come_back_to_this_machine_only() {
        for good in ["http://127.0.0.1:1234/callback/sso", "http://[::1]:80/callback/sso"] {
            assert!(RedirectUri::new(good, "/callback/sso").is_some(), "{good}");
        }
        for bad in [
            "http://localhost:1234/callback/sso",
            "http://127.0.0.1:0/callback/sso",
            "http://127.0.0.1:+1/callback/sso",
            "http://127.0.0.1/callback/sso",
            "http://127.0.0.1:1234/callback",
            "http://127.0.0.1:1234/callback/",
            "http://127.0.0.1:1234/callback/other",
            "http://127.0.0.1:1234/callback/sso/",
            "http://127.0.0.1:1234/other/callback/sso",
            "http://127.0.0.1:1234/callback/sso?x",
            "https://127.0.0.1:1234/callback/sso",
            "http://192.0.2.1:1234/callback/sso",
            "http://user@127.0.0.1:1234/callback/sso",
            "http://127.0.0.1:1@evil.example:80/callback/sso",
        ] {
            assert!(RedirectUri::new(bad, "/callback/sso").is_none(), "{bad}");
        }
    }

    // Covers: R21 refuse
    #[test]
    fn an_address_that_nobody_verified_is_none() {
        let email = |about: Value| verified_email(about.as_object().unwrap());
        let alice: Email = "alice@example.org".parse().unwrap();
        for verified in [json!(true), json!("true")] {
            assert_eq!(email(json!({ "email": "Alice@example.org", "email_verified": verified })), Some(alice.clone()));
        }
        for verified in [json!(false), json!("false"), json!(1), json!(null)] {
            assert_eq!(email(json!({ "email": "alice@example.org", "email_verified": verified })), None);
        }
        assert_eq!(email(json!({ "email": "alice@example.org" })), None);
        assert_eq!(email(json!({ "email": "alice", "email_verified": true })), None);
    }

    // Covers: R22 allow
    #[test]
    fn a_session_ends_with_the_first_of_its_tokens() {
        let now = UnixSeconds(1_800_000_000);
        let claims = |exp: u64| -> Claims {
            serde_json::from_value(json!({ "iss": "i", "sub": "s", "aud": "a", "exp": exp, "iat": 0 })).unwrap()
        };
        let tokens =
            |expires_in| Tokens { access_token: String::new().into(), id_token: None, expires_in, refresh_token: None };
        assert_eq!(ends_at(Some(&claims(now.0 + 300)), &tokens(Some(600)), now).unwrap(), UnixSeconds(now.0 + 300));
        assert_eq!(ends_at(Some(&claims(now.0 + 300)), &tokens(Some(60)), now).unwrap(), UnixSeconds(now.0 + 60));
        assert_eq!(ends_at(Some(&claims(now.0 + 300)), &tokens(None), now).unwrap(), UnixSeconds(now.0 + 300));
        assert_eq!(ends_at(None, &tokens(Some(60)), now).unwrap(), UnixSeconds(now.0 + 60));
        assert!(ends_at(None, &tokens(None), now).is_err(), "a session without an end is none");
        assert!(ends_at(None, &tokens(Some(0)), now).is_err());
    }

    #[test]
    fn groups_are_names() {
        assert_eq!(names(Some(&json!(["a", 1, "", "b"]))), ["a", "b"]);
        assert!(names(Some(&json!("a"))).is_empty() && names(None).is_empty());
        let many: Vec<String> = (0..=GROUPS_MAX).map(|n| n.to_string()).collect();
        assert_eq!(names(Some(&json!(many))).len(), GROUPS_MAX);
    }
}
