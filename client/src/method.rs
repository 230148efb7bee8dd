//! Which of the Controller's methods somebody logs in by.

use anyhow::{Context, Result, bail};
use ringfort_proto::api::{LoginMethods, ProviderKind};

use crate::redirect::Browser;

/// The method that is always there: a password that the Controller keeps.
const OURS: &str = "password";

/// How somebody logs in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// At an OpenID provider.
    Browser(String, Browser),
    /// With a password, which the Controller or a directory knows.
    Password(String),
}

/// The method that was asked for, or the first that can be used. A password that nobody typed on being asked goes to the Controller unless
/// a method was named: it may be meant for one place only.
pub(crate) fn chosen(methods: &LoginMethods, asked: Option<&str>, browser: Option<Browser>) -> Result<Chosen> {
    let all = &methods.methods;
    let name = match (asked, browser) {
        (Some(asked), _) => all.iter().find(|name| *name == asked),
        (None, Some(_)) => all.first(),
        (None, None) => {
            all.iter().find(|name| *name == OURS).or_else(|| all.iter().find(|name| !is_oidc(methods, name)))
        }
    };
    let name = name.with_context(|| {
        let (all, found) = (all.join(", "), asked.unwrap_or("none that can be used"));
        format!("expected one of the Controller's methods as --method: {all}; found {found}")
    })?;
    match (is_oidc(methods, name), browser) {
        (false, _) => Ok(Chosen::Password(name.clone())),
        (true, Some(browser)) => Ok(Chosen::Browser(name.clone(), browser)),
        (true, None) => bail!("{name} asks in a browser, and not for a password: leave --password-stdin out"),
    }
}

/// Where else than by `method` the same password could have gone.
pub(crate) fn other_passwords(methods: &LoginMethods, method: &str) -> Vec<String> {
    methods.methods.iter().filter(|name| *name != method && !is_oidc(methods, name)).cloned().collect()
}

fn is_oidc(methods: &LoginMethods, name: &str) -> bool {
    methods.providers.iter().any(|provider| provider.method == name && provider.kind == ProviderKind::Oidc)
}

#[cfg(test)]
mod tests {
    use ringfort_proto::api::LoginProvider;

    use super::*;

    fn methods(names: &[&str]) -> LoginMethods {
        let provider = |method: &str, kind| LoginProvider { method: method.into(), kind, uri: String::new() };
        LoginMethods {
            organisation: "o".into(),
            methods: names.iter().map(|name| (*name).to_owned()).collect(),
            providers: vec![provider("sso", ProviderKind::Oidc), provider("corp", ProviderKind::Ldap)],
        }
    }

    #[test]
    fn the_first_method_that_can_be_used_is_chosen() {
        let methods = methods(&["sso", "corp", "password"]);
        let here = Some(Browser::Here);
        assert_eq!(chosen(&methods, None, here).unwrap(), Chosen::Browser("sso".into(), Browser::Here));
        assert_eq!(chosen(&methods, Some("password"), here).unwrap(), Chosen::Password("password".into()));
        assert!(chosen(&methods, Some("sso"), None).unwrap_err().to_string().contains("in a browser"));
        assert!(chosen(&methods, Some("other"), here).unwrap_err().to_string().contains("sso, corp, password"));
    }

    #[test]
    fn a_password_from_elsewhere_goes_to_the_controller_unless_a_method_is_named() {
        let all = methods(&["sso", "corp", "password"]);
        assert_eq!(chosen(&all, None, None).unwrap(), Chosen::Password("password".into()));
        assert_eq!(chosen(&all, Some("corp"), None).unwrap(), Chosen::Password("corp".into()));
        assert_eq!(chosen(&methods(&["sso", "corp"]), None, None).unwrap(), Chosen::Password("corp".into()));
        assert!(chosen(&methods(&["sso"]), None, None).unwrap_err().to_string().contains("none that can be used"));
        assert_eq!(other_passwords(&all, "password"), ["corp"]);
        assert!(other_passwords(&methods(&["sso", "password"]), "password").is_empty());
    }
}
