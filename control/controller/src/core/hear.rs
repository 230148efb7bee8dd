//! Passing on what was decided, here or by another Controller of the same database.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ringfort_token::{DenyList, Entry, Serial};
use ringfort_types::UnixSeconds;

use super::refused::Refused;
use super::store::{self, Consequence, Listener};
use super::{Change, Core, Out};

/// How often it is kept how far the database is, while it goes on.
const KEEP_EVERY: Duration = Duration::from_secs(1);

impl Core {
    /// Sends on [`Core::changes`] what was decided since the last time, in the order of the decisions. Who shows something that
    /// was taken back is refused from then on.
    ///
    /// # Errors
    /// `internal`; what was not sent yet is sent the next time.
    pub async fn hear(&self, now: UnixSeconds) -> Result<(), Refused> {
        let mut heard = self.inner.heard.lock().await;
        let mut tx = self.inner.store.snapshot().await?;
        let newest = store::newest_news(&mut tx).await?;
        let ours = self.serial();
        let epoch = store::organisation(&mut tx).await?.map_or(0, |(_, epoch)| epoch);
        if let Some(out) = stands(epoch, newest, ours.epoch, *heard) {
            let _ = self.inner.out.set(out);
            return Err(Refused::internal(out));
        }
        if newest == *heard {
            return Ok(());
        }
        let Some(news) = store::news_after(&mut tx, *heard).await? else {
            // Too long ago: nobody knows what was missed.
            let entries = store::revocations_after(&mut tx, 0).await?;
            let n = entries.last().map_or(0, |(n, _)| *n);
            let mut list = DenyList::restore(Serial { epoch, n }, entries);
            list.forget(now);
            *self.inner.deny.write().unwrap_or_else(PoisonError::into_inner) = list;
            self.learn(&mut tx, now).await?;
            tracing::warn!(heard = *heard, newest, "decisions were missed: all Gateways begin their streams anew");
            self.tell(Change::Missed);
            *heard = newest;
            return Ok(());
        };
        for (n, consequences) in news {
            for consequence in consequences {
                match consequence {
                    Consequence::Authorities => self.learn(&mut tx, now).await?,
                    Consequence::Revocations => {
                        let entries = store::revocations_after(&mut tx, self.serial().n).await?;
                        self.take_back(entries, now)?;
                    }
                    Consequence::Entitlement { site, token } => {
                        self.tell(Change::Entitlement { site, token: token.into() });
                    }
                    Consequence::Configuration { site } => self.tell(Change::Configuration { site }),
                }
            }
            *heard = n;
        }
        Ok(())
    }

    /// Hears of what other Controllers decide, until this one cannot go on: says why.
    pub async fn follow(&self, clock: impl Fn() -> UnixSeconds) -> Out {
        let mut listener = Listener::new(self.inner.settings.database.clone());
        let (mut kept, mut kept_at) = (*self.inner.heard.lock().await, Instant::now());
        loop {
            listener.wait().await;
            let heard = self.hear(clock()).await;
            // However it ends, the next start knows how far the database was a second before.
            let newest = *self.inner.heard.lock().await;
            if newest != kept && kept_at.elapsed() >= KEEP_EVERY && self.inner.out.get().is_none() {
                (kept, kept_at) = (newest, Instant::now());
                if let Err(error) = self.keep_last_seen().await {
                    tracing::warn!(error = format!("{error:#}"), "how far the database is could not be kept");
                }
            }
            if let Some(out) = self.inner.out.get() {
                tracing::error!("{out}");
                return *out;
            }
            if let Err(error) = heard {
                tracing::warn!(%error, "what was decided could not be heard of yet");
            }
        }
    }

    /// Puts entries that follow ours into the deny list and sends them.
    fn take_back(&self, entries: Vec<(u64, Entry)>, now: UnixSeconds) -> Result<(), Refused> {
        let after = self.serial().n;
        let lists = self.sign_revocations(after, &entries, now)?;
        {
            let mut deny = self.inner.deny.write().unwrap_or_else(PoisonError::into_inner);
            for (n, entry) in entries {
                deny.insert(n, entry);
            }
            deny.forget(now);
        }
        for (token, serial) in lists {
            self.tell(Change::Revocations { token: Arc::from(token.as_str()), serial });
        }
        Ok(())
    }

    pub(super) fn tell(&self, change: Change) {
        // Nobody listens while no Gateway is connected.
        let _ = self.inner.changes.send(change);
    }
}

/// Whether this Controller cannot go on, which is at `ours` and has heard of `heard`, with a database that is at `epoch` and `newest`.
fn stands(epoch: u64, newest: u64, ours: u64, heard: u64) -> Option<Out> {
    match epoch.cmp(&ours) {
        Less => Some(Out::Older),
        // The newest news is never removed.
        Equal => (newest < heard).then_some(Out::Older),
        Greater => Some(Out::Restored),
    }
}
