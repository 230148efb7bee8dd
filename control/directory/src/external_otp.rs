//! One-time passwords that a system of the organisation's own checks: hardware tokens, a vendor's codes or pushes. It is asked over
//! HTTPS, one request for each code:
//!
//! ```text
//! POST /…                                       → 200
//! Authorization: Bearer <secret>
//! {"user", "email", "code", "request", "organisation"} → {"allow": true | false, "request": the same}
//! ```
//!
//! Only such an answer counts. Whatever else comes of it (nobody there, another certificate, a redirect, another status, something else
//! than the JSON, an answer to another request, too long, too late) is [`OtpUnavailable`], which lets nobody in.
//!
//! What it deliberately does not do: know which users it is for, count failures, or see to it that a code is good once, which is for the
//! system that knows the code.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secret::{random_text, same};
use crate::settings::{ExternalOtpSettings, SettingsError, read_secret};
use crate::web::{Ask, Bounds, Endpoint, ask};
use crate::{Failed, Reason};

/// Longest answer, in bytes: that of a system which says more than it has to.
const BODY_BYTES_MAX: usize = 4 << 10;
/// How long it may take, in seconds. The client waits for 30 s, of which a directory may have taken 10.
const SECONDS_ALLOWED: RangeInclusive<u64> = 1..=20;
/// Bytes of the secret: as long as a key of 96 bits, and no longer than a header field should be.
const SECRET_BYTES: RangeInclusive<usize> = 16..=512;
/// Bytes that a question takes at most times, so that it is not copied as it grows.
const QUESTION_BYTES: usize = 2 << 10;

/// The organisation's own system of one-time passwords, and us as who asks it.
pub struct ExternalOtp {
    endpoint: Endpoint,
    secret: Zeroizing<String>,
    tls: Arc<ClientConfig>,
    bounds: Bounds,
}

impl fmt::Debug for ExternalOtp {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalOtp").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// What it is asked: whether somebody who has shown a first factor has this one too.
pub struct OtpQuestion {
    /// Login name.
    pub user: String,
    /// The address by which identity providers know the user.
    pub email: Option<String>,
    /// What the user typed. How long it may be is for whoever takes it to see.
    pub code: Zeroizing<String>,
    /// The organisation's id.
    pub organisation: String,
}

impl fmt::Debug for OtpQuestion {
    /// Without the code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtpQuestion").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtpAnswer {
    /// The code is right.
    Allow,
    /// It is wrong, or was used before.
    Deny,
}

/// It gave no answer that counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtpUnavailable {
    /// It was not asked, or answered something else.
    #[error("the organisation's one-time password system gave no answer that counts: {0}")]
    NoAnswer(Reason),
    /// It was asked and said nothing in time: perhaps it has asked a person, whom nobody shall ask without end.
    #[error("the organisation's one-time password system has not answered: {0}")]
    Silent(Reason),
}

impl From<Failed> for OtpUnavailable {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Silent(reason) => Self::Silent(reason),
            Failed::Unreachable(reason) | Failed::Answer(reason) => Self::NoAnswer(reason),
            other => Self::NoAnswer(other.to_string().into()),
        }
    }
}

/// The question on the wire.
#[derive(Serialize)]
struct Asked<'a> {
    user: &'a str,
    email: Option<&'a str>,
    code: &'a str,
    request: &'a str,
    organisation: &'a str,
}

/// The answer. What else it has does not matter.
#[derive(Deserialize)]
struct Said {
    allow: bool,
    request: String,
}

impl ExternalOtp {
    /// The system of these settings; it is not asked anything yet.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn new(settings: &ExternalOtpSettings) -> Result<Self, SettingsError> {
        let value = |why: String| SettingsError::Value { name: "external_otp".into(), why };
        let seconds = settings.timeout_seconds;
        if !SECONDS_ALLOWED.contains(&seconds) {
            let (min, max) = (SECONDS_ALLOWED.start(), SECONDS_ALLOWED.end());
            return Err(value(format!("expected timeout_seconds of {min} to {max}, found {seconds}")));
        }
        let secret = read_secret(&settings.secret_file)?;
        if !SECRET_BYTES.contains(&secret.len()) || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            let (min, max) = (SECRET_BYTES.start(), SECRET_BYTES.end());
            let why = format!("expected a secret of {min} to {max} printable ASCII characters without spaces");
            return Err(SettingsError::File { path: settings.secret_file.clone(), why });
        }
        Ok(Self {
            endpoint: Endpoint::new(&settings.url).map_err(value)?,
            secret,
            tls: crate::trust::tls(settings.ca_file.as_deref())?,
            bounds: Bounds { body_bytes_max: BODY_BYTES_MAX, time_max: Duration::from_secs(seconds) },
        })
    }

    /// Asks whether a code is right.
    ///
    /// # Errors
    /// [`OtpUnavailable`] for everything that is no answer to this very question.
    pub async fn check(&self, question: &OtpQuestion) -> Result<OtpAnswer, OtpUnavailable> {
        let OtpQuestion { user, email, code, organisation } = question;
        let request = random_text().ok_or_else(|| OtpUnavailable::NoAnswer("no randomness".into()))?;
        let asked = Asked { user, email: email.as_deref(), code, request: &request, organisation };
        let mut body = Zeroizing::new(Vec::with_capacity(QUESTION_BYTES));
        serde_json::to_writer(&mut *body, &asked)
            .map_err(|error| OtpUnavailable::NoAnswer(error.to_string().into()))?;
        let answer = ask(&self.tls, &self.endpoint, Ask::Json(body, &self.secret), self.bounds).await?;
        if answer.status != 200 {
            return Err(OtpUnavailable::NoAnswer(format!("expected status 200, found {}", answer.status).into()));
        }
        let said: Said = answer.json()?;
        // One that was kept from another login is none.
        if !same(&said.request, &request) {
            return Err(OtpUnavailable::NoAnswer("expected the answer with the request of the question".into()));
        }
        Ok(if said.allow { OtpAnswer::Allow } else { OtpAnswer::Deny })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn settings(place: &Path, url: &str, secret: &str) -> ExternalOtpSettings {
        let secret_file = place.join("secret");
        std::fs::write(&secret_file, secret).unwrap();
        std::fs::set_permissions(&secret_file, std::fs::Permissions::from_mode(0o600)).unwrap();
        ExternalOtpSettings { url: url.into(), secret_file, timeout_seconds: 10, ca_file: None }
    }

    #[test]
    fn settings_that_cannot_be_meant_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        let made = |settings: &ExternalOtpSettings| ExternalOtp::new(settings).map(drop).map_err(|why| why.to_string());
        let good = settings(place, "https://otp.example/check", SECRET);
        made(&good).unwrap();
        made(&settings(place, "http://127.0.0.1:8080/check", &format!("{SECRET}\n"))).unwrap();
        for (url, secret, why) in [
            ("http://otp.example/check", SECRET, "https"),
            ("http://localhost/check", SECRET, "https"),
            ("https://otp.example/check", &SECRET[1..], "16 to 512"),
            ("https://otp.example/check", "0123456789 abcdef", "16 to 512"),
            ("https://otp.example/check", &"x".repeat(513), "16 to 512"),
        ] {
            let error = made(&settings(place, url, secret)).unwrap_err();
            assert!(error.contains(why), "{url} {secret}: {error}");
        }
        for timeout_seconds in [0, 21] {
            let error = made(&ExternalOtpSettings { timeout_seconds, ..good.clone() }).unwrap_err();
            assert!(error.contains("timeout_seconds of 1 to 20"), "{error}");
        }
        let good = settings(place, "https://otp.example/check", SECRET);
        std::fs::set_permissions(&good.secret_file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(made(&good).unwrap_err().contains("chmod 600"));
        // What is misspelt is refused, and the usual time is 10 s.
        let text = "[external_otp]\nurl = \"https://otp.example\"\nsecret_file = \"/s\"";
        let read: crate::Settings = toml::from_str(text).unwrap();
        assert_eq!(read.external_otp.as_ref().unwrap().timeout_seconds, 10);
        assert!(!read.is_empty());
        assert_eq!(toml::from_str::<crate::Settings>(&toml::to_string(&read).unwrap()).unwrap(), read);
        assert!(toml::from_str::<crate::Settings>(&format!("{text}\ntimeout = 1")).is_err());
    }

    #[tokio::test]
    async fn the_question_is_as_documented() {
        let place = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/check?tenant=1", listener.local_addr().unwrap());
        let system = ExternalOtp::new(&settings(place.path(), &url, SECRET)).unwrap();
        let code = Zeroizing::new("12\"34".to_owned());
        let email = Some("alice@example.org".to_owned());
        let question = OtpQuestion { user: "alice".into(), email, code, organisation: "o1".into() };
        let answered = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            // The head and the body are sent together or apart; the body ends with the JSON.
            while !asked.ends_with(b"}") {
                assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0);
            }
            let asked = String::from_utf8(asked).unwrap();
            let (head, body) = asked.split_once("\r\n\r\n").unwrap();
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            let answer = serde_json::json!({ "request": body["request"], "allow": true, "more": 1 }).to_string();
            let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
            stream.write_all(text.as_bytes()).await.unwrap();
            (head.to_lowercase(), body)
        };
        let (answer, (head, mut body)) = tokio::join!(system.check(&question), answered);
        assert_eq!(answer, Ok(OtpAnswer::Allow));
        assert!(head.starts_with("post /check?tenant=1 http/1.1\r\n"), "{head}");
        for line in [&format!("authorization: bearer {SECRET}"), "content-type: application/json"] {
            assert!(head.lines().any(|found| found == line), "{line} in {head}");
        }
        assert_eq!(body["request"].take().as_str().unwrap().len(), 43);
        let rest = serde_json::json!({
            "user": "alice", "email": "alice@example.org", "code": "12\"34", "organisation": "o1", "request": null,
        });
        assert_eq!(body, rest);
        let shown = format!("{system:?} {question:?}");
        assert!(!shown.contains(SECRET) && !shown.contains("34"), "{shown}");
    }
}
