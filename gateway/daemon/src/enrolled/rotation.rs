//! When a Gateway takes a new key with its certificate, and when it shows them.
//!
//! Clients take only certificates whose digests their connect tokens name (C12). So a new one is fetched early, kept beside the old
//! one, and shown once every connect token that does not name it is over. Each has a key of its own: whoever has a copy of the old
//! one has nothing any more once the Controller has heard from the new one.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringfort_enrol::tls::{self, OwnCertificate};
use ringfort_enrol::{Folder, PrivateKey, file};
use ringfort_identity::Credentials;
use ringfort_types::UnixSeconds;
use rustls_pki_types::CertificateDer;

/// How long a connect token lives.
const CONNECT_TOKEN_LIFE: Duration = Duration::from_secs(600);

/// From when to when a certificate is valid.
type Validity = (UnixSeconds, UnixSeconds);

/// What is to be done about our certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing yet.
    Wait,
    /// Ask for a new one, by a new key.
    Fetch,
    /// Show the one that was fetched.
    Use,
}

/// The step at `now`. `next` is the validity of the certificate that was fetched, and for how long this process has known it.
fn step(current: Validity, next: Option<(Validity, Duration)>, now: UnixSeconds) -> Step {
    let is_over = |(_, until): Validity| until <= now;
    let is_due = |validity| tls::is_renewal_due(validity, now);
    match next {
        // What is over serves nobody, and opens no stream by which another one could be fetched; what is not yet named serves some.
        Some((next, _)) if is_over(current) && !is_over(next) => Step::Use,
        // Of a Gateway that was off for long.
        Some((next, _)) if is_due(next) => Step::Fetch,
        Some((_, known)) if known >= CONNECT_TOKEN_LIFE => Step::Use,
        Some(_) => Step::Wait,
        None if is_due(current) => Step::Fetch,
        None => Step::Wait,
    }
}

/// Key and certificate of this Gateway, and those that follow them, as the folder has them.
#[derive(Debug)]
pub(super) struct Rotation {
    folder: Folder,
    own: OwnCertificate,
    /// Since when this process knows those that follow ours.
    known_since: Mutex<Option<Instant>>,
}

impl Rotation {
    /// Of a folder whose certificate connections show by `own`.
    pub(super) fn new(folder: Folder, own: OwnCertificate) -> Self {
        Self { folder, own, known_since: Mutex::default() }
    }

    /// What connections show.
    pub(super) const fn own(&self) -> &OwnCertificate {
        &self.own
    }

    /// Our certificate.
    pub(super) fn leaf(&self) -> Result<CertificateDer<'static>> {
        let chain = self.folder.certificates(file::CHAIN)?;
        chain.into_iter().next().context("our chain is empty")
    }

    /// What is to be done at `now`, which is `at` on the clock that nobody sets.
    pub(super) fn step(&self, now: UnixSeconds, at: Instant) -> Result<Step> {
        let current = tls::validity_of(&self.leaf()?).context("our certificate is unreadable")?;
        // One that cannot be read is fetched again.
        let next = self.folder.next().unwrap_or_else(|error| {
            tracing::warn!(%error, "the key and the certificate that were to follow ours are lost");
            None
        });
        let next = next.and_then(|next| tls::validity_of(next.leaf())).map(|validity| {
            let since = *self.known_since.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(at);
            (validity, at.saturating_duration_since(since))
        });
        Ok(step(current, next, now))
    }

    /// Keeps a new key with the chain that was fetched for it. What we cannot use, we do not keep.
    pub(super) fn keep(&self, key: &PrivateKey, chain: &[CertificateDer<'static>], at: Instant) -> Result<()> {
        self.folder.write_next(key, chain)?;
        *self.known_since.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
        Ok(())
    }

    /// Makes those that were kept ours, and has the next connections show them.
    pub(super) fn use_next(&self) -> Result<Credentials> {
        let credentials = self.folder.use_next()?;
        *self.known_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.own.replace(&credentials)?;
        Ok(credentials)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURRENT: Validity = (UnixSeconds(1_000), UnixSeconds(4_000));
    const NEXT: Validity = (UnixSeconds(3_000), UnixSeconds(6_000));

    fn at(now: u64, next: Option<(Validity, u64)>) -> Step {
        let next = next.map(|(validity, seconds)| (validity, Duration::from_secs(seconds)));
        step(CURRENT, next, UnixSeconds(now))
    }

    #[test]
    fn a_new_certificate_is_fetched_early_and_shown_late() {
        assert_eq!(at(2_999, None), Step::Wait);
        assert_eq!(at(3_000, None), Step::Fetch);
        assert_eq!(at(3_001, Some((NEXT, 0))), Step::Wait);
        assert_eq!(at(3_599, Some((NEXT, 599))), Step::Wait);
        assert_eq!(at(3_600, Some((NEXT, 600))), Step::Use);
    }

    #[test]
    fn a_certificate_that_is_over_is_replaced_at_once() {
        assert_eq!(at(4_000, Some((NEXT, 0))), Step::Use);
        assert_eq!(at(4_001, None), Step::Fetch);
        assert_eq!(
            at(5_500, Some((NEXT, 700))),
            Step::Use,
            "the fetched one grew old as well, and is the only way to a third"
        );
        assert_eq!(at(6_000, Some((NEXT, 700))), Step::Fetch, "both are over");
    }

    #[test]
    fn a_fetched_certificate_that_grew_old_is_fetched_again_while_there_is_another() {
        let long = (UnixSeconds(1_000), UnixSeconds(9_000));
        let next = Some((NEXT, Duration::from_secs(700)));
        assert_eq!(step(long, next, UnixSeconds(5_500)), Step::Fetch);
    }
}
