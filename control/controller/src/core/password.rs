//! Passwords: argon2id (RFC 9106), a few at a time, and not often wrong.
//!
//! A hash costs 19 MiB and some 30 ms, so [`RUNNING`] are computed at once, [`WAITING`] wait, and whoever comes then is sent
//! away. An unknown user costs what a known one does. Failures are counted before the hash is computed, so that attempts side by
//! side count as well.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use ringfort_proto::api::{PASSWORD_BYTES_MAX, PASSWORD_BYTES_MIN};
use ringfort_types::UnixSeconds;
use tokio::sync::{Semaphore, oneshot};
use zeroize::Zeroizing;

use super::failures::{Account, Failures, network};
use super::refused::Refused;

/// Hashes computed at once: two of 19 MiB, and never more than two cores.
const RUNNING: usize = 2;
/// Logins that wait for their turn: some 1 s at two at a time.
const WAITING: usize = 64;
/// Bytes of a password that is set; the longest bounds what hashing costs.
const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX;

/// Checks passwords.
pub(crate) struct Passwords {
    /// One permit for each hash that is computed or waited for.
    places: Semaphore,
    running: Arc<Semaphore>,
    /// Memory of those hashes that were computed at once so far, for the next ones.
    memories: Arc<Mutex<Vec<Memory>>>,
    /// The hash of no password, for users who do not exist.
    nobody: Arc<str>,
    failures: Mutex<Failures>,
}

impl Passwords {
    pub(crate) fn new() -> Result<Self, Refused> {
        Ok(Self {
            places: Semaphore::new(RUNNING + WAITING),
            running: Arc::new(Semaphore::new(RUNNING)),
            memories: Arc::default(),
            nobody: nobodys()?.to_string().into(),
            failures: Mutex::new(Failures::new()),
        })
    }

    /// The hash of a password that is set.
    ///
    /// # Errors
    /// `request_malformed` for one that is too short or too long, `login_busy`.
    pub(crate) async fn hash(&self, password: &str) -> Result<String, Refused> {
        if !PASSWORD_BYTES.contains(&password.len()) {
            let (min, max) = (PASSWORD_BYTES.start(), PASSWORD_BYTES.end());
            return Err(Refused::malformed(format!("expected a password of {min} to {max} bytes")));
        }
        let password = Zeroizing::new(password.to_owned());
        self.in_turn(move |memory| hash(memory, password.as_bytes())).await?
    }

    /// Begins an attempt of an account, or of somebody who has not said who they are, that a provider checks: it counts as
    /// a failure until it is said to be none. How many are under way at once is for the caller to bound.
    ///
    /// # Errors
    /// `login_limited`.
    pub(crate) fn attempt(
        &self,
        account: Option<Account>,
        from: IpAddr,
        now: UnixSeconds,
    ) -> Result<Attempt<'_>, Refused> {
        let from = network(from);
        self.failures().begin(account.as_ref(), from, now)?;
        Ok(Attempt { passwords: self, account, from })
    }

    /// Checks the password of an account, whose hash is `known`; `None` for a user who does not exist or may not log in. A
    /// right one is still an attempt: what else must be right is for the caller to see.
    ///
    /// # Errors
    /// `login_refused`, `login_limited`, `login_busy`.
    pub(crate) async fn check(
        &self,
        account: &Account,
        from: IpAddr,
        password: &str,
        known: Option<String>,
        now: UnixSeconds,
    ) -> Result<Attempt<'_>, Refused> {
        let from = network(from);
        self.failures().begin(Some(account), from, now)?;
        // An empty password is none, whatever a directory makes of it. It costs what a wrong one does: that bounds how many
        // failed logins are written down.
        let may_fit = !password.is_empty() && password.len() <= *PASSWORD_BYTES.end();
        let known = known.filter(|_| may_fit);
        let exists = known.is_some();
        let expected = known.unwrap_or_else(|| self.nobody.to_string());
        let password = Zeroizing::new(if may_fit { password.to_owned() } else { String::new() });
        let fits = self
            .in_turn(move |memory| fits(memory, password.as_bytes(), &expected))
            .await
            // Nobody looked at the password, so that it was not wrong either.
            .inspect_err(|_| self.failures().untried(Some(account), from))?;
        if !(fits && exists) {
            return Err(Refused::login());
        }
        Ok(Attempt { passwords: self, account: Some(account.clone()), from })
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let _place = self.places.try_acquire().map_err(|_| Refused::login_busy())?;
        let turn = Arc::clone(&self.running).acquire_owned().await.map_err(Refused::internal)?;
        let memories = Arc::clone(&self.memories);
        let (tell, told) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let kept = || memories.lock().unwrap_or_else(PoisonError::into_inner);
            let mut memory = kept().pop().unwrap_or_default();
            // The turn ends with the work, also when nobody waits for the result any more.
            drop(tell.send(work(&mut memory)));
            memory.clear();
            kept().push(memory);
            drop(turn);
        });
        told.await.map_err(Refused::internal)
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt to log in. Dropped, it was a failure.
pub(crate) struct Attempt<'a> {
    passwords: &'a Passwords,
    account: Option<Account>,
    from: IpAddr,
}

impl Attempt<'_> {
    /// Somebody is logged in.
    pub(crate) fn succeeded(self) {
        self.passwords.failures().succeeded(self.account.as_ref(), self.from);
    }

    /// It came to nothing, and not because of anything that can be guessed.
    pub(crate) fn untried(self) {
        self.passwords.failures().untried(self.account.as_ref(), self.from);
    }
}

/// A salt and an output at random, with the parameters of today: the hash of a password that nobody knows, which costs to be
/// checked what every other does, and nothing to be made.
fn nobodys() -> Result<PasswordHash, Refused> {
    let (mut salt, mut output) = ([0; Salt::RECOMMENDED_LENGTH], [0; Params::DEFAULT_OUTPUT_LEN]);
    for random in [&mut salt[..], &mut output] {
        aws_lc_rs::rand::fill(random).map_err(|_| Refused::internal("no randomness"))?;
    }
    Ok(PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&Params::DEFAULT).map_err(Refused::internal)?,
        salt: Some(Salt::new(&salt).map_err(Refused::internal)?),
        hash: Some(Output::new(&output).map_err(Refused::internal)?),
    })
}

fn hash(memory: &mut Memory, password: &[u8]) -> Result<String, Refused> {
    let mut made = nobodys()?;
    made.hash = Some(memory.output(password, &made).map_err(Refused::internal)?);
    Ok(made.to_string())
}

fn fits(memory: &mut Memory, password: &[u8], expected: &str) -> bool {
    let Ok(expected) = PasswordHash::new(expected) else { return false };
    // Outputs are compared in constant time.
    memory.output(password, &expected).is_ok_and(|output| expected.hash == Some(output))
}

/// What a hash is computed in. It is kept: to have 19 MiB from the kernel each time takes half as long again as to compute.
#[derive(Default)]
struct Memory(Vec<Block>);

impl Memory {
    /// Nothing of a password stays: what the last pass leaves can be computed backwards to where a guess costs next to nothing.
    fn clear(&mut self) {
        self.0.fill(Block::new());
    }

    /// The output for `password` with algorithm, parameters and salt of `like`.
    fn output(&mut self, password: &[u8], like: &PasswordHash) -> argon2::password_hash::Result<Output> {
        let salt = like.salt.as_ref().ok_or(argon2::password_hash::Error::SaltInvalid)?;
        let version = like.version.map(Version::try_from).transpose()?.unwrap_or_default();
        let params = Params::try_from(like)?;
        self.0.resize(params.block_count(), Block::new());
        let mut output = [0; Output::MAX_LENGTH];
        let output = &mut output[..params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN)];
        let argon2 = Argon2::new(like.algorithm.as_str().try_into()?, version, params);
        argon2.hash_password_into_with_memory(password, salt, output, &mut self.0)?;
        Ok(Output::new(output)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn address(text: &str) -> IpAddr {
        network(text.parse().unwrap())
    }

    fn account(name: &str) -> Account {
        Account::new("password", name)
    }

    #[tokio::test]
    async fn an_attempt_is_a_failure_until_it_is_none() {
        let (passwords, from) = (Passwords::new().unwrap(), address("192.0.2.1"));
        let attempt = |name: Option<&str>| passwords.attempt(name.map(account), from, NOW);
        for _ in 0..20 {
            attempt(Some("alice")).unwrap().untried();
        }
        for _ in 0..9 {
            drop(attempt(Some("alice")).unwrap());
        }
        attempt(Some("alice")).unwrap().succeeded();
        for _ in 0..10 {
            drop(attempt(Some("alice")).unwrap());
        }
        assert_eq!(attempt(Some("alice")).err().unwrap().code, "login_limited");
        // Who has not said who they are is counted by address.
        for _ in 0..31 {
            drop(attempt(None).unwrap());
        }
        assert_eq!(attempt(None).err().unwrap().code, "login_limited");
    }

    #[tokio::test]
    async fn more_than_may_wait_are_sent_away() {
        let passwords = Arc::new(Passwords::new().unwrap());
        let held = passwords.running.acquire_many(2).await.unwrap();
        let places = passwords.places.acquire_many(64 + 2).await.unwrap();
        let from = address("192.0.2.1");
        let refused = passwords.check(&account("alice"), from, "password", None, NOW).await.err().unwrap();
        assert_eq!((refused.code, refused.status), ("login_busy", 503));
        let failures = |passwords: &Passwords| passwords.failures().of(&account("alice"));
        assert_eq!(failures(&passwords), 0, "to be sent away is no failure");
        let empty = passwords.check(&account("alice"), from, "", None, NOW).await.err().unwrap();
        assert_eq!(empty.code, "login_busy", "no password is turned down without the work that bounds how often");
        drop((held, places));
        let refused = passwords.check(&account("alice"), from, "password", None, NOW).await.err().unwrap();
        assert_eq!(refused, Refused::login());
    }

    #[tokio::test]
    async fn passwords_of_every_wrong_kind_are_refused() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash("correct horse").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let from = address("192.0.2.1");
        passwords.check(&account("alice"), from, "correct horse", Some(hash.clone()), NOW).await.unwrap().succeeded();
        for wrong in ["correct hors", "", &"x".repeat(1_025)] {
            let refused = passwords.check(&account("alice"), from, wrong, Some(hash.clone()), NOW).await.err().unwrap();
            assert_eq!(refused, Refused::login(), "{wrong}");
        }
        for none in ["", "1234567", &"x".repeat(1_025)] {
            assert_eq!(passwords.hash(none).await.unwrap_err().code, "request_malformed");
        }
    }

    #[test]
    fn hashes_are_those_of_everybody_else() {
        use argon2::password_hash::PasswordHasher;
        let known = Argon2::default().hash_password_with_salt(b"password", b"somesaltsomesalt").unwrap().to_string();
        let known = known.as_str();
        let mut memory = Memory::default();
        for _ in 0..2 {
            assert!(fits(&mut memory, b"password", known));
            assert!(!fits(&mut memory, b"Password", known));
            memory.clear();
            assert!(memory.0.iter().all(|block| block.as_ref().iter().all(|word| *word == 0)), "nothing stays");
        }
        assert!(!fits(&mut memory, b"password", "none"));
        assert!(!fits(&mut memory, b"password", known.rsplit_once('$').unwrap().0));
    }

    #[test]
    fn nobodys_hash_costs_what_any_other_does() {
        let mut memory = Memory::default();
        let (nobody, other) = (nobodys().unwrap(), hash(&mut memory, b"correct horse").unwrap());
        let other = PasswordHash::new(&other).unwrap();
        assert_eq!((nobody.algorithm, nobody.version, &nobody.params), (other.algorithm, other.version, &other.params));
        assert_eq!(nobody.to_string().len(), other.to_string().len());
        assert!(nobody.salt != other.salt && nobody.hash != nobodys().unwrap().hash);
        assert!(memory.output(b"correct horse", &nobody).is_ok(), "it is computed, and refused only then");
    }
}
