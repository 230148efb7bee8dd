//! One-time passwords beside whatever else shows who somebody is: given, taken, checked (PROTOCOLS "Step-up").

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ringfort_directory::external_otp::{OtpAnswer, OtpQuestion};
use ringfort_directory::totp::{SECRET_BYTES, Secret, Step};
use ringfort_proto::api::{self, OTP_BYTES_MAX, OtpKind};
use ringfort_types::UnixSeconds;
use serde_json::{Value, json};
use sqlx::{Any, Transaction};
use zeroize::Zeroizing;

use super::accounts::is_a_persons;
use super::decision::Decision;
use super::refused::Refused;
use super::store::{self, Connection};
use super::{Action, Administrator, Bearer, Core, Event, action, to_the_end};

/// Wrong codes after which nothing counts for a while; so many further ones lock again, for twice as long.
const FAILURES_MAX: u64 = 5;
/// For how long at first and at most, in seconds. That is 120 guesses a day, each right with 3 in a million.
const LOCK_SECONDS: (u64, u64) = (900, 3_600);
/// What authenticator apps show before the user's name.
const ISSUER: &str = "Ringfort";

/// Asks the organisation's own system whether a code is right. An error lets nobody in, and says nothing of the code.
pub(super) type AskExternalOtp = dyn Fn(OtpQuestion) -> BoxFuture<'static, Result<OtpAnswer, Refused>> + Send + Sync;

/// What stood beside a first factor.
#[derive(Clone, Copy)]
pub(super) enum SecondFactor {
    /// Nothing.
    None,
    /// A one-time password.
    Otp(OtpKind),
    /// What the identity provider asked for itself.
    Providers,
}

impl fmt::Display for SecondFactor {
    /// For the audit log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no second factor",
            Self::Otp(OtpKind::Totp) => "second factor totp",
            Self::Otp(OtpKind::External) => "second factor external",
            Self::Providers => "second factor the provider's",
        })
    }
}

impl Core {
    /// Whom logins ask about users whose one-time passwords another system checks. Once set it stays; without it they are refused.
    pub fn set_external_otp(
        &self,
        ask: impl Fn(OtpQuestion) -> BoxFuture<'static, Result<OtpAnswer, Refused>> + Send + Sync + 'static,
    ) {
        drop(self.inner.external_otp.set(Box::new(ask)));
    }

    /// # Errors
    /// `otp_unavailable` where nobody can be asked.
    fn external_otp(&self) -> Result<&AskExternalOtp, Refused> {
        let ask = self.inner.external_otp.get();
        ask.map(AsRef::as_ref).ok_or_else(|| Refused::otp_unavailable("this Controller has no [identity.external_otp]"))
    }

    /// Checks a user's one-time password, if they have any.
    ///
    /// # Errors
    /// `otp_required`, `otp_refused`, `otp_locked`; `otp_unavailable` and `login_busy` where another system could not be asked,
    /// `otp_unanswered` where it was and said nothing.
    pub(super) async fn check_otp(
        &self,
        user: &str,
        code: Option<&str>,
        now: UnixSeconds,
    ) -> Result<SecondFactor, Refused> {
        let mut tx = self.inner.store.begin().await?;
        let Some(otp) = store::otp(&mut tx, user).await? else { return Ok(SecondFactor::None) };
        if now < otp.locked_until {
            return Err(Refused::otp_locked(otp.locked_until.saturating_since(now).as_secs()));
        }
        let code = code.ok_or_else(|| Refused::otp_required(otp.kind()))?;
        match &otp.secret {
            Some(secret) => self.check_totp(tx, user, (secret, Step(otp.used_step)), code, now).await?,
            None => self.check_external(tx, user, code, now).await?,
        }
        Ok(SecondFactor::Otp(otp.kind()))
    }

    /// Each time step is good once, also when two logins race for it.
    async fn check_totp(
        &self,
        mut tx: Transaction<'static, Any>,
        user: &str,
        (secret, used): (&str, Step),
        code: &str,
        now: UnixSeconds,
    ) -> Result<(), Refused> {
        let secret = self.inner.sealing.unseal(&secret_name(user), secret)?;
        let secret: [u8; SECRET_BYTES] =
            secret.as_slice().try_into().map_err(|_| Refused::internal("a secret of another length"))?;
        let used = match Secret::new(secret).check(code, Some(used), now) {
            Some(step) => store::use_step(&mut tx, user, step.0).await?,
            None => false,
        };
        if !used {
            count_wrong(&mut tx, user, now).await?;
        }
        tx.commit().await?;
        if used { Ok(()) } else { Err(Refused::otp_refused(OtpKind::Totp)) }
    }

    /// The code counts as wrong before it is asked about, so that those side by side count as well, and so does one whose answer nobody
    /// waits for. What could not be asked is taken back; what was asked and not answered is not.
    async fn check_external(
        &self,
        mut tx: Transaction<'static, Any>,
        user: &str,
        code: &str,
        now: UnixSeconds,
    ) -> Result<(), Refused> {
        let ask = self.external_otp()?;
        let name = store::user_by_id(&mut tx, user).await?.ok_or_else(Refused::login)?.name;
        let email = store::email_of(&mut tx, user).await?;
        count_wrong(&mut tx, user, now).await?;
        // Nothing in the database waits for somebody else.
        tx.commit().await?;
        let code = Zeroizing::new(code.to_owned());
        let answer = ask(OtpQuestion { user: name, email, code, organisation: self.organisation().to_owned() }).await;
        let mut tx = self.inner.store.begin().await?;
        let checked = match answer {
            Ok(OtpAnswer::Allow) => match store::allow_external(&mut tx, user).await? {
                true => Ok(()),
                // Whoever has had it set otherwise meanwhile is asked anew.
                false => Err(Refused::otp_required(OtpKind::External)),
            },
            Ok(OtpAnswer::Deny) => Err(Refused::otp_refused(OtpKind::External)),
            Err(refused) => {
                if refused.code != "otp_unanswered" {
                    store::uncount_external(&mut tx, user).await?;
                }
                Err(refused)
            }
        };
        tx.commit().await?;
        checked
    }

    /// Gives a user one-time passwords, in place of earlier ones; the answer is the only place where the secret stands.
    ///
    /// # Errors
    /// `authentication_not_fresh`, `not_found`, `request_malformed` for a service.
    pub async fn admin_new_totp(
        &self,
        administrator: &Administrator<action::NewTotp>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::TotpSecret, Refused> {
        self.fresh(administrator, now)?;
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let (mut decision, user) = Decision::about(&core, &administrator, &request.name, now).await?;
            is_a_persons(&mut decision.tx, &user).await?;
            let before = kind_of(&mut decision.tx, &user.id).await?;
            let made = core.new_secret(&mut decision.tx, &user).await?;
            decision.record(recorded(before), recorded(Some(OtpKind::Totp)));
            decision.close("new-totp", &user.name, "").await?;
            Ok(made)
        })
        .await
    }

    /// Has a user's one-time passwords checked by the organisation's own system, in place of any other; also again, which ends a lock.
    ///
    /// # Errors
    /// `authentication_not_fresh`, `not_found`, `request_malformed` for a service, and where this Controller knows no such
    /// system: nobody is shut out by a word.
    pub async fn admin_set_external_otp(
        &self,
        administrator: &Administrator<action::SetExternalOtp>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        self.fresh(administrator, now)?;
        self.external_otp().map_err(|_| {
            Refused::malformed("this Controller has no [identity.external_otp] in its controller.toml: add it first")
        })?;
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let (mut decision, user) = Decision::about(&core, &administrator, &request.name, now).await?;
            is_a_persons(&mut decision.tx, &user).await?;
            let before = kind_of(&mut decision.tx, &user.id).await?;
            store::put_otp(&mut decision.tx, &user.id, None).await?;
            decision.record(recorded(before), recorded(Some(OtpKind::External)));
            decision.close("set-external-otp", &user.name, "").await
        })
        .await
    }

    /// Takes a user's one-time passwords away: whatever they stood beside suffices again.
    ///
    /// # Errors
    /// `authentication_not_fresh`, `not_found`.
    pub async fn admin_remove_totp(
        &self,
        administrator: &Administrator<action::RemoveTotp>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        self.remove_otp(administrator, request, OtpKind::Totp, now).await
    }

    /// Has the organisation's own system not asked about a user any more: whatever it stood beside suffices again.
    ///
    /// # Errors
    /// `authentication_not_fresh`, `not_found`.
    pub async fn admin_remove_external_otp(
        &self,
        administrator: &Administrator<action::RemoveExternalOtp>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        self.remove_otp(administrator, request, OtpKind::External, now).await
    }

    async fn remove_otp<A: Action + 'static>(
        &self,
        administrator: &Administrator<A>,
        request: api::Named,
        kind: OtpKind,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        self.fresh(administrator, now)?;
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let (mut decision, user) = Decision::about(&core, &administrator, &request.name, now).await?;
            let before = kind_of(&mut decision.tx, &user.id).await?;
            if before != Some(kind) {
                return Err(Refused::not_found(with_otp(kind), &user.name));
            }
            store::delete_otp(&mut decision.tx, &user.id).await?;
            decision.record(recorded(before), Value::Null);
            decision.close(A::NAME, &user.name, "").await
        })
        .await
    }

    /// Gives whoever has just logged in one-time passwords.
    ///
    /// # Errors
    /// `authentication_not_fresh`, `token_revoked` when the login has ended, `request_malformed` for a service, `already_exists` where
    /// an administrator has those of another system asked for, which is not theirs to change.
    pub async fn new_totp(&self, bearer: &Bearer, now: UnixSeconds) -> Result<api::TotpSecret, Refused> {
        let (core, bearer) = (self.clone(), bearer.clone());
        to_the_end(async move {
            super::admin::check_fresh(bearer.claims.auth_time, now)?;
            let mut tx = core.inner.store.begin().await?;
            core.login_of(&mut tx, &bearer, now).await?;
            let user = store::user_by_id(&mut tx, &bearer.claims.user).await?.ok_or_else(Refused::login_ended)?;
            is_a_persons(&mut tx, &user).await?;
            if kind_of(&mut tx, &user.id).await? == Some(OtpKind::External) {
                return Err(Refused::already_exists(
                    "your organisation's own system checks your one-time passwords: ask an administrator for others",
                ));
            }
            let made = core.new_secret(&mut tx, &user).await?;
            let (actor, target) = (user.name.as_str(), user.name.as_str());
            let event = Event { actor, action: "new-totp", target, outcome: "ok", detail: "" };
            store::insert_event(&mut tx, &event.recorded(now)).await?;
            tx.commit().await?;
            Ok(made)
        })
        .await
    }

    async fn new_secret(&self, c: &mut Connection, user: &store::User) -> Result<api::TotpSecret, Refused> {
        let secret = Secret::generate().ok_or_else(|| Refused::internal("no randomness"))?;
        let sealed = self.inner.sealing.seal(&secret_name(&user.id), secret.as_bytes())?;
        store::put_otp(c, &user.id, Some(&sealed)).await?;
        Ok(api::TotpSecret { secret: secret.to_base32(), url: secret.url(ISSUER, &user.name) })
    }
}

/// That a one-time password can be one, before anything is counted or asked for it.
///
/// # Errors
/// `request_malformed`.
pub(crate) fn checked_otp(code: Option<&str>) -> Result<(), Refused> {
    let is_plain = |code: &str| code.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if code.is_none_or(|code| (1..=OTP_BYTES_MAX).contains(&code.len()) && is_plain(code)) {
        return Ok(());
    }
    let message = format!("expected a one-time password of 1 to {OTP_BYTES_MAX} printable ASCII characters");
    Err(Refused::malformed(message))
}

/// Counts a wrong code, and lets none count for a while after too many.
async fn count_wrong(c: &mut Connection, user: &str, now: UnixSeconds) -> Result<(), Refused> {
    let failures = store::count_otp_failure(c, user).await?;
    if let Some(seconds) = lock_seconds(failures) {
        store::lock_otp(c, user, now + Duration::from_secs(seconds)).await?;
    }
    Ok(())
}

async fn kind_of(c: &mut Connection, user: &str) -> Result<Option<OtpKind>, Refused> {
    Ok(store::otp(c, user).await?.map(|otp| otp.kind()))
}

/// As the audit log has it.
fn recorded(kind: Option<OtpKind>) -> Value {
    kind.map_or(Value::Null, |kind| json!({ "otp": kind }))
}

/// Who is meant where one-time passwords of a kind are.
const fn with_otp(kind: OtpKind) -> &'static str {
    match kind {
        OtpKind::Totp => "user with one-time passwords of an authenticator app",
        OtpKind::External => "user whose one-time passwords another system checks",
    }
}

/// For how long nothing counts after so many wrong codes in a row, if they are as many as lock.
const fn lock_seconds(failures: u64) -> Option<u64> {
    let (first, most) = LOCK_SECONDS;
    if failures == 0 || !failures.is_multiple_of(FAILURES_MAX) {
        return None;
    }
    let doublings = failures / FAILURES_MAX - 1;
    // Beyond the second it is the longest, which no shift has to reach.
    Some(if doublings >= 2 { most } else { first << doublings })
}

/// What a secret is sealed as.
fn secret_name(user: &str) -> String {
    format!("one-time password of {user}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_short_and_printable() {
        for good in [None, Some("0"), Some("123 456"), Some("~".repeat(64).as_str())] {
            checked_otp(good).unwrap();
        }
        for bad in ["", "~".repeat(65).as_str(), "12\n34", "\u{7f}", "\u{661}\u{662}", "1\0"] {
            assert_eq!(checked_otp(Some(bad)).unwrap_err().code, "request_malformed", "{bad:?}");
        }
    }

    #[test]
    fn a_lock_doubles_up_to_an_hour() {
        for free in [0, 1, 4, 6, 9, 11] {
            assert_eq!(lock_seconds(free), None, "{free}");
        }
        let locks = [5, 10, 15, 20, 5_000].map(lock_seconds);
        assert_eq!(locks, [Some(900), Some(1_800), Some(3_600), Some(3_600), Some(3_600)]);
    }
}
