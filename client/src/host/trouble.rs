//! What keeps a host from being registered, said once with what to do.

use std::time::Duration;

use ringfort_enrol::HttpsError;

/// Why a registration failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// No Controller could be reached, or its handshake failed.
    #[error("{0}")]
    Network(String),
    /// The Controller does not know the host (W6).
    #[error("{0}; this host is not authorised: have an administrator run `ringfort admin invite host`, and join anew")]
    NotAuthorised(String),
    /// The host speaks for another name than its certificate's (W7).
    #[error("{0}; set host.hostname to the name that this host joined with, or leave it out")]
    OtherName(String),
    /// The Controller refused for another reason, which it says.
    #[error("{what}")]
    Refused {
        /// The Controller's code.
        code: String,
        /// What it said.
        what: String,
    },
    /// The certificate is over, so that no handshake can succeed.
    #[error(
        "the certificate of this host has expired: check the clock, or have it invited again and join with a new folder"
    )]
    Expired,
    /// Something on this machine.
    #[error("{0}")]
    Own(String),
}

impl Trouble {
    /// A stable name.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Network(_) => "network",
            Self::NotAuthorised(_) => "not_authorised",
            Self::OtherName(_) => "other_name",
            Self::Refused { code, .. } => code,
            Self::Expired => "expired",
            Self::Own(_) => "own",
        }
    }
}

impl From<HttpsError> for Trouble {
    fn from(error: HttpsError) -> Self {
        match &error {
            HttpsError::Refused { status: 401, .. } => Self::NotAuthorised(error.to_string()),
            HttpsError::Refused { status: 403, body, .. } if body.code == "host_mismatch" => {
                Self::OtherName(error.to_string())
            }
            HttpsError::Refused { body, .. } => Self::Refused { code: body.code.clone(), what: error.to_string() },
            _ => Self::Network(error.to_string()),
        }
    }
}

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Told {
    trouble: Option<Trouble>,
    has_registered: bool,
}

impl Told {
    /// What is wrong at the moment.
    pub(super) const fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// The host is registered. The first time, and the first after a trouble, are worth a line.
    pub(super) fn success(&mut self) {
        if self.trouble.take().is_some() || !self.has_registered {
            tracing::info!("this host is registered");
        }
        self.has_registered = true;
    }

    /// It is not. Whether that is news: another trouble than the last one.
    pub(super) fn failure(&mut self, trouble: Trouble, interval: Duration) -> bool {
        let is_news = self.trouble.as_ref().is_none_or(|last| last.code() != trouble.code());
        if is_news {
            tracing::warn!(code = trouble.code(), every = ?interval, "this host is not registered, trying again: {trouble}");
        }
        self.trouble = Some(trouble);
        is_news
    }
}

#[cfg(test)]
mod tests {
    use ringfort_proto::api::ErrorBody;

    use super::*;

    fn refused(status: u16, code: &str) -> Trouble {
        let body = ErrorBody { code: code.into(), message: "no".into(), event: String::new() };
        HttpsError::Refused { status, body, header: None }.into()
    }

    // Covers: W6 refuse
    // Covers: W7 refuse
    #[test]
    fn what_to_do_depends_on_what_was_refused() {
        let (unknown, other) = (refused(401, "host_unknown"), refused(403, "host_mismatch"));
        assert_eq!((unknown.code(), other.code()), ("not_authorised", "other_name"));
        assert!(unknown.to_string().contains("admin invite host"), "{unknown}");
        assert!(other.to_string().contains("host.hostname"), "{other}");
        assert_eq!(refused(403, "certificate_revoked").code(), "certificate_revoked");
        assert_eq!(refused(500, "internal").code(), "internal");
    }

    // Covers: W10 allow
    #[test]
    fn each_trouble_is_said_once() {
        let mut told = Told::default();
        let network = |text: &str| Trouble::Network(text.into());
        let failed = |told: &mut Told, trouble| told.failure(trouble, Duration::from_secs(60));
        assert!(failed(&mut told, network("refused")));
        assert!(!failed(&mut told, network("timed out")));
        assert!(failed(&mut told, refused(401, "host_unknown")));
        assert!(!failed(&mut told, refused(401, "host_unknown")));
        assert!(failed(&mut told, network("refused")));
        told.success();
        assert!(told.trouble().is_none());
        assert!(failed(&mut told, network("refused")), "after it worked it is news again");
    }
}
