//! What an organisation says of its identity providers and its own one-time passwords: `[[identity.ldap]]`, `[[identity.oidc]]` and
//! `[identity.external_otp]` in `controller.toml`. Secrets are in files of their own, which only their owner may read.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::person::Email;

/// Longest file that is read: a bundle of some hundred certificates has 250 KB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Providers of one organisation.
const PROVIDERS_MAX: usize = 16;
/// The method that is always there: a password that the Controller keeps.
pub const PASSWORD: &str = "password";

/// The identity providers of an organisation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// OpenID providers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub oidc: Vec<OidcSettings>,
    /// LDAP directories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ldap: Vec<LdapSettings>,
    /// The organisation's own system of one-time passwords.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_otp: Option<ExternalOtpSettings>,
}

/// A system of the organisation's own that checks one-time passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalOtpSettings {
    /// Where it is asked: an `https` URL, or an `http` one whose host is a loopback address.
    pub url: String,
    /// File with the secret by which it knows us: 16 to 512 printable ASCII characters.
    pub secret_file: PathBuf,
    /// How long it may take, in seconds: 1 to 20. The client waits for 30.
    #[serde(default = "external_otp_seconds")]
    pub timeout_seconds: u64,
    /// PEM certificates of the system's CA; by default what this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// An OpenID provider (OpenID Connect Core 1.0).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcSettings {
    /// The method's name: `ringfort login --method NAME`.
    pub name: String,
    /// The issuer, exactly as its discovery document and its tokens have it.
    pub issuer: String,
    /// Our id there.
    pub client_id: String,
    /// File with our secret there; none for a public client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_file: Option<PathBuf>,
    /// Scopes that are asked for besides `openid` and `email`; `offline_access` where logins are to outlive the id_token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The claim with the names of a person's groups.
    #[serde(default = "groups_claim")]
    pub groups_claim: String,
    /// PEM certificates of the CA of the provider's own; by default what this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Domains of the e-mail addresses that it may speak for; by default any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_domains: Option<Vec<String>>,
    /// Whether it may log administrators in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub administrators: bool,
    /// Whether it asks for a second factor itself, so that one-time passwords of ours are not asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub second_factor: bool,
}

/// An LDAP directory (RFC 4511).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LdapSettings {
    /// The method's name: `ringfort login --method NAME`.
    pub name: String,
    /// `ldaps://host[:port]`, or `ldap://host[:port]`, which is secured by StartTLS unless the host is a loopback address.
    pub url: String,
    /// Distinguished name with which users are searched.
    pub bind_dn: String,
    /// File with its password.
    pub bind_password_file: PathBuf,
    /// Where users are.
    pub user_base: String,
    /// Which of the entries there is the user; `{}` is the login name, escaped (RFC 4515 §3).
    #[serde(default = "user_filter")]
    pub user_filter: String,
    /// The attribute with a user's e-mail address.
    #[serde(default = "mail")]
    pub email_attribute: String,
    /// Where groups are, if they are to be searched; by default a user's `memberOf` names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_base: Option<String>,
    /// Which of the entries there are the user's groups; `{}` is the user's distinguished name, escaped.
    #[serde(default = "group_filter")]
    pub group_filter: String,
    /// PEM certificates of the directory's CA; by default what this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Domains of the e-mail addresses that it may speak for; by default any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_domains: Option<Vec<String>>,
    /// Whether it may log administrators in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub administrators: bool,
    /// Whether it asks for a second factor itself, so that one-time passwords of ours are not asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub second_factor: bool,
}

/// For whom a provider may speak, and how much its word is worth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderPolicy {
    /// Domains of e-mail addresses; `None` for any.
    pub email_domains: Option<Vec<String>>,
    /// Whether it may log administrators in.
    pub administrators: bool,
    /// Whether it asks for a second factor itself.
    pub second_factor: bool,
}

impl ProviderPolicy {
    /// Whether the address is of one of its domains, not counting what is below one.
    #[must_use]
    pub fn speaks_for(&self, email: &Email) -> bool {
        let is = |domain: &String| domain.eq_ignore_ascii_case(email.domain());
        self.email_domains.as_ref().is_none_or(|domains| domains.iter().any(is))
    }
}

impl OidcSettings {
    /// For whom it may speak.
    #[must_use]
    pub fn policy(&self) -> ProviderPolicy {
        let Self { email_domains, administrators, second_factor, .. } = self.clone();
        ProviderPolicy { email_domains, administrators, second_factor }
    }
}

impl LdapSettings {
    /// For whom it may speak.
    #[must_use]
    pub fn policy(&self) -> ProviderPolicy {
        let Self { email_domains, administrators, second_factor, .. } = self.clone();
        ProviderPolicy { email_domains, administrators, second_factor }
    }
}

const fn external_otp_seconds() -> u64 {
    10
}

fn groups_claim() -> String {
    "groups".into()
}

fn user_filter() -> String {
    "(uid={})".into()
}

fn group_filter() -> String {
    "(member={})".into()
}

fn mail() -> String {
    "mail".into()
}

/// Settings that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A value.
    #[error("identity provider {name:?}: {why}")]
    Value {
        /// Of which provider.
        name: String,
        /// What was expected and what came.
        why: String,
    },
    /// A file.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What was expected and what came.
        why: String,
    },
    /// TLS cannot be had.
    #[error("TLS: {0}")]
    Tls(String),
}

impl Settings {
    /// Whether there is nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.oidc.is_empty() && self.ldap.is_empty() && self.external_otp.is_none()
    }

    /// That names are names, each is one method's, and domains are some.
    ///
    /// # Errors
    /// [`SettingsError::Value`].
    pub fn check(&self) -> Result<(), SettingsError> {
        let oidc = self.oidc.iter().map(|oidc| (&oidc.name, &oidc.email_domains));
        let ldap = self.ldap.iter().map(|ldap| (&ldap.name, &ldap.email_domains));
        for (name, domains) in oidc.chain(ldap) {
            let is_domain = |domain: &String| format!("x@{domain}").parse::<Email>().is_ok();
            if domains.as_ref().is_some_and(|domains| domains.is_empty() || !domains.iter().all(is_domain)) {
                let why = "expected email_domains such as [\"example.org\"], or none for any".into();
                return Err(SettingsError::Value { name: name.clone(), why });
            }
        }
        self.check_names()
    }

    fn check_names(&self) -> Result<(), SettingsError> {
        let mut seen = BTreeSet::from([PASSWORD]);
        let names = self.oidc.iter().map(|oidc| &oidc.name).chain(self.ldap.iter().map(|ldap| &ldap.name));
        for name in names {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let bad = |why: &str| SettingsError::Value { name: name.clone(), why: why.into() };
            // It stands in the path of a URL, of which browsers leave out "." and "..".
            let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
            if !begins || name.len() > 64 || !name.bytes().all(plain) {
                return Err(bad(
                    "expected a name of 1 to 64 letters, digits, '-', '_' or '.', a letter or digit first",
                ));
            }
            if !seen.insert(name) {
                return Err(bad("expected a name that no other method has"));
            }
        }
        if seen.len() > PROVIDERS_MAX + 1 {
            let why = format!("expected at most {PROVIDERS_MAX} providers");
            return Err(SettingsError::Value { name: String::new(), why });
        }
        Ok(())
    }
}

/// All of a file, which must not be longer than any is.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SettingsError> {
    let bad = |why: String| SettingsError::File { path: path.into(), why };
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(|error| bad(error.to_string()))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| bad(error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(bad(format!("expected at most {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// The one line of a file that only its owner may read.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, SettingsError> {
    let bad = |why: String| SettingsError::File { path: path.into(), why };
    let mode = std::fs::metadata(path).map_err(|error| bad(error.to_string()))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(bad(format!(
            "expected a secret that only its owner may read, found mode {mode:03o}: chmod 600 it"
        )));
    }
    let bytes = read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| bad("expected UTF-8".into()))?;
    let line = text.trim_end_matches(['\r', '\n']);
    if line.is_empty() || line.contains('\n') {
        return Err(bad("expected one line with the secret".into()));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = r#"
        [[oidc]]
        name = "sso"
        issuer = "https://id.example"
        client_id = "ringfort"
        [[ldap]]
        name = "corp"
        url = "ldaps://ldap.example"
        bind_dn = "cn=ringfort,dc=example"
        bind_password_file = "/etc/ringfort/ldap-password"
        user_base = "ou=people,dc=example"
    "#;

    #[test]
    fn what_is_left_out_is_as_usual_and_what_is_misspelt_is_refused() {
        let settings: Settings = toml::from_str(BOTH).unwrap();
        settings.check().unwrap();
        assert_eq!(
            (settings.oidc[0].groups_claim.as_str(), settings.ldap[0].user_filter.as_str()),
            ("groups", "(uid={})")
        );
        assert_eq!(toml::from_str::<Settings>(&toml::to_string(&settings).unwrap()).unwrap(), settings);
        assert!(toml::from_str::<Settings>(&BOTH.replace("client_id", "clientid")).is_err());
    }

    #[test]
    fn a_provider_speaks_for_the_domains_that_are_said_and_for_no_administrator() {
        let settings = |more: &str| toml::from_str::<Settings>(&format!("{BOTH}{more}")).unwrap();
        let policy = |more: &str| settings(more).ldap[0].policy();
        let (alice, below): (Email, Email) =
            ("alice@example.org".parse().unwrap(), "alice@evil.example.org".parse().unwrap());
        assert_eq!(policy(""), ProviderPolicy::default());
        assert!(policy("").speaks_for(&alice) && !policy("").administrators && !policy("").second_factor);
        let own = policy("email_domains = [\"Example.org\"]\nadministrators = true\nsecond_factor = true");
        assert!(own.speaks_for(&alice) && own.administrators && own.second_factor);
        assert!(!own.speaks_for(&below), "what is below a domain is another's");
        assert!(!policy("email_domains = [\"ample.org\"]").speaks_for(&alice));
        for bad in ["[]", "[\"\"]", "[\"a@b\"]", "[\"exam ple\"]"] {
            let error = settings(&format!("email_domains = {bad}")).check().unwrap_err().to_string();
            assert!(error.contains("email_domains"), "{bad}: {error}");
        }
        assert_eq!(settings("").oidc[0].policy(), ProviderPolicy::default());
    }

    #[test]
    fn each_method_has_a_name_of_its_own() {
        let settings = |name: &str| toml::from_str::<Settings>(&BOTH.replace("\"corp\"", name)).unwrap();
        for (name, why) in [
            ("sso", "no other"),
            ("password", "no other"),
            ("a b", "letters"),
            ("", "letters"),
            ("..", "letters"),
            ("a/b", "letters"),
            ("ä", "letters"),
        ] {
            let name = &format!("{name:?}");
            let error = settings(name).check().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_secret_that_others_may_read_is_none() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("secret");
        let with_mode = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read_secret(&path)
        };
        assert_eq!(*with_mode("hush\n", 0o600).unwrap(), "hush");
        assert!(with_mode("hush\n", 0o640).unwrap_err().to_string().contains("chmod 600"));
        for bad in ["", "\n", "two\nlines\n"] {
            assert!(with_mode(bad, 0o600).unwrap_err().to_string().contains("one line"));
        }
    }
}
