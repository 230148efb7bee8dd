//! One-time passwords beside whatever else shows who somebody is: given, taken, checked (PROTOCOLS "Step-up").

use std::time::Duration;

use ringfort_directory::totp::{SECRET_BYTES, Secret, Step};
use ringfort_proto::api;
use ringfort_types::UnixSeconds;

use super::accounts::is_a_persons;
use super::decision::Decision;
use super::refused::Refused;
use super::store::{self, Connection};
use super::{Administrator, Bearer, Core, Event, action, to_the_end};

/// Wrong codes after which nothing counts for a while; so many further ones lock again, for twice as long.
const FAILURES_MAX: u64 = 5;
/// For how long at first and at most, in seconds. That is 120 guesses a day, each right with 3 in a million.
const LOCK_SECONDS: (u64, u64) = (900, 3_600);
/// What authenticator apps show before the user's name.
const ISSUER: &str = "Ringfort";

impl Core {
    /// Checks a user's one-time password, if they have any. Each time step is good once, also when two logins race for it.
    ///
    /// # Errors
    /// `otp_required`, `otp_refused`, `otp_locked`.
    pub(crate) async fn check_otp(&self, user: &str, code: Option<&str>, now: UnixSeconds) -> Result<(), Refused> {
        let mut tx = self.inner.store.begin().await?;
        let Some(totp) = store::totp(&mut tx, user).await? else { return Ok(()) };
        if now < totp.locked_until {
            return Err(Refused::otp_locked(totp.locked_until.saturating_since(now).as_secs()));
        }
        let code = code.ok_or_else(Refused::otp_required)?;
        let secret = self.inner.sealing.unseal(&secret_name(user), &totp.secret)?;
        let secret: [u8; SECRET_BYTES] =
            secret.as_slice().try_into().map_err(|_| Refused::internal("a secret of another length"))?;
        let step = Secret::new(secret).check(code, Some(Step(totp.used_step)), now);
        let used = match step {
            Some(step) => store::use_step(&mut tx, user, step.0).await?,
            None => false,
        };
        if !used {
            let failures = store::count_totp_failure(&mut tx, user).await?;
            if let Some(seconds) = lock_seconds(failures) {
                store::lock_totp(&mut tx, user, now + Duration::from_secs(seconds)).await?;
            }
        }
        tx.commit().await?;
        if used { Ok(()) } else { Err(Refused::otp_refused()) }
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
            let made = core.new_secret(&mut decision.tx, &user).await?;
            decision.record(serde_json::Value::Null, serde_json::json!({ "totp": true }));
            decision.close("new-totp", &user.name, "").await?;
            Ok(made)
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
        self.fresh(administrator, now)?;
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let (mut decision, user) = Decision::about(&core, &administrator, &request.name, now).await?;
            if !store::delete_totp(&mut decision.tx, &user.id).await? {
                return Err(Refused::not_found("user with one-time passwords", &user.name));
            }
            decision.record(serde_json::json!({ "totp": true }), serde_json::Value::Null);
            decision.close("remove-totp", &user.name, "").await
        })
        .await
    }

    /// Gives whoever has just logged in one-time passwords.
    ///
    /// # Errors
    /// `authentication_not_fresh`, `token_revoked` when the login has ended, `request_malformed` for a service.
    pub async fn new_totp(&self, bearer: &Bearer, now: UnixSeconds) -> Result<api::TotpSecret, Refused> {
        let (core, bearer) = (self.clone(), bearer.clone());
        to_the_end(async move {
            super::admin::check_fresh(bearer.claims.auth_time, now)?;
            let mut tx = core.inner.store.begin().await?;
            core.login_of(&mut tx, &bearer, now).await?;
            let user = store::user_by_id(&mut tx, &bearer.claims.user).await?.ok_or_else(Refused::login_ended)?;
            is_a_persons(&mut tx, &user).await?;
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
        store::put_totp(c, &user.id, &sealed).await?;
        Ok(api::TotpSecret { secret: secret.to_base32(), url: secret.url(ISSUER, &user.name) })
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
    fn a_lock_doubles_up_to_an_hour() {
        for free in [0, 1, 4, 6, 9, 11] {
            assert_eq!(lock_seconds(free), None, "{free}");
        }
        let locks = [5, 10, 15, 20, 5_000].map(lock_seconds);
        assert_eq!(locks, [Some(900), Some(1_800), Some(3_600), Some(3_600), Some(3_600)]);
    }
}
