//! Who hears of what: the queues between what happens and the Gateways' streams.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ringfort_proto::v1;
use ringfort_token::Serial;
use ringfort_types::UnixSeconds;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::limits::{OPERATIONS_WAITING_MAX, PUSHES_WAITING_MAX, SERIALS_MEASURED_MAX};
use crate::core::{Change, Confirmation, Refused};

/// All open streams, one per Gateway at most.
#[derive(Debug)]
pub(crate) struct Hub {
    streams: Mutex<Streams>,
    /// Something is to be written.
    confirmed: Notify,
    /// How often something was written.
    written: watch::Sender<u64>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { streams: Mutex::default(), confirmed: Notify::new(), written: watch::Sender::new(0) }
    }
}

#[derive(Debug, Default)]
struct Streams {
    /// By Gateway id.
    open: BTreeMap<String, Open>,
    /// What Gateways said they applied, of those whose streams have ended too.
    applied: BTreeMap<String, Applied>,
    /// What of it is not in the database yet, by Gateway: the newest.
    unwritten: BTreeMap<String, Confirmation>,
    /// Milliseconds from push to confirmation of the last serials, by Gateway.
    took: BTreeMap<Serial, BTreeMap<String, u64>>,
    /// Streams opened so far.
    opened: u64,
}

#[derive(Debug)]
struct Open {
    number: u64,
    site: String,
    from: IpAddr,
    since: UnixSeconds,
    queue: mpsc::Sender<News>,
    operations: mpsc::Sender<Asked>,
    end: watch::Sender<Option<End>>,
}

/// Something that happened, and when it was told.
#[derive(Clone, Debug)]
pub(crate) struct News {
    /// What.
    pub(crate) change: Arc<Change>,
    /// When.
    pub(crate) told: Instant,
}

/// Something that is asked of one Gateway, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Asked {
    /// What.
    pub(crate) operation: v1::Operation,
    /// Dropped where none comes.
    pub(crate) answer: oneshot::Sender<v1::OperationDone>,
}

/// Why a stream ends from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Something could not be queued for it.
    Lost,
    /// The same Gateway began another.
    Replaced,
    /// The Controller stops.
    Stopping,
}

/// What a Gateway said last of what it applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Revocations up to this.
    pub(crate) revocations: Option<Serial>,
    /// Its configuration.
    pub(crate) configuration_seq: u64,
    /// When it said so.
    pub(crate) at: UnixSeconds,
    /// Milliseconds from the push to its saying so; of the newest push that could be measured.
    pub(crate) took_ms: Option<u64>,
}

/// A Gateway's place in the hub; leaving is dropping it.
#[derive(Debug)]
pub(crate) struct Subscription {
    hub: Arc<Hub>,
    gateway: String,
    number: u64,
    /// What happens.
    pub(crate) news: mpsc::Receiver<News>,
    /// What is asked of it.
    pub(crate) operations: mpsc::Receiver<Asked>,
    /// Why it is over, once it is.
    pub(crate) end: watch::Receiver<Option<End>>,
}

impl Hub {
    /// Opens a stream of a Gateway at `site` that comes `from` an address, in place of an older one; says where that came from, if there
    /// was one.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        gateway: &str,
        site: &str,
        from: IpAddr,
        now: UnixSeconds,
    ) -> (Subscription, Option<IpAddr>) {
        let (queue, news) = mpsc::channel(PUSHES_WAITING_MAX);
        let (ask, operations) = mpsc::channel(OPERATIONS_WAITING_MAX);
        let (ender, end) = watch::channel(None);
        let mut streams = self.lock();
        streams.opened += 1;
        let number = streams.opened;
        let open = Open { number, site: site.into(), from, since: now, queue, operations: ask, end: ender };
        let older = streams.open.insert(gateway.into(), open);
        if let Some(older) = &older {
            older.end.send_replace(Some(End::Replaced));
        }
        drop(streams);
        (
            Subscription { hub: Arc::clone(self), gateway: gateway.into(), number, news, operations, end },
            older.map(|older| older.from),
        )
    }

    /// Tells those whom it concerns; gives how many did not keep up and are out.
    pub(crate) fn tell(&self, change: Change, now: Instant) -> usize {
        let news = News { change: Arc::new(change), told: now };
        let concerned = match &*news.change {
            Change::Missed => return self.end_all(End::Lost),
            Change::Authorities | Change::Revocations { .. } => None,
            Change::Entitlement { site, .. } | Change::Configuration { site } => Some(site.as_str()),
        };
        let mut streams = self.lock();
        let before = streams.open.len();
        streams.open.retain(|_, open| {
            if concerned.is_some_and(|site| site != open.site) || open.queue.try_send(news.clone()).is_ok() {
                return true;
            }
            open.end.send_replace(Some(End::Lost));
            false
        });
        before - streams.open.len()
    }

    /// Ends every stream.
    pub(crate) fn end_all(&self, why: End) -> usize {
        let ended = std::mem::take(&mut self.lock().open);
        for open in ended.values() {
            open.end.send_replace(Some(why));
        }
        ended.len()
    }

    /// Open streams of Gateways at one of `sites`, or anywhere.
    pub(crate) fn open(&self, sites: Option<&BTreeSet<String>>) -> usize {
        let at = |open: &&Open| sites.is_none_or(|sites| sites.contains(&open.site));
        self.lock().open.values().filter(at).count()
    }

    /// Asks something of a Gateway, which is `name` for people.
    ///
    /// # Errors
    /// `gateway_unreachable`, `gateway_busy`.
    pub(crate) fn ask(&self, gateway: &str, name: &str, asked: Asked) -> Result<(), Refused> {
        let streams = self.lock();
        let open = streams.open.get(gateway).ok_or_else(|| Refused::gateway_unreachable(name))?;
        open.operations.try_send(asked).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::gateway_busy(name),
            mpsc::error::TrySendError::Closed(_) => Refused::gateway_unreachable(name),
        })
    }

    /// The site of a Gateway whose stream is open.
    pub(crate) fn site(&self, gateway: &str) -> Option<String> {
        self.lock().open.get(gateway).map(|open| open.site.clone())
    }

    /// Since when a Gateway's stream is open, if it is.
    pub(crate) fn open_since(&self, gateway: &str) -> Option<UnixSeconds> {
        self.lock().open.get(gateway).map(|open| open.since)
    }

    /// What a Gateway said last of what it applied.
    pub(crate) fn applied(&self, gateway: &str) -> Option<Applied> {
        self.lock().applied.get(gateway).copied()
    }

    /// Waits until Gateways have confirmed something, and takes it all to be written.
    pub(crate) async fn unwritten(&self) -> Vec<Confirmation> {
        loop {
            let unwritten = std::mem::take(&mut self.lock().unwritten);
            if !unwritten.is_empty() {
                return unwritten.into_values().collect();
            }
            self.confirmed.notified().await;
        }
    }

    /// What was taken could not be written; what came meanwhile is newer.
    pub(crate) fn put_back(&self, confirmations: Vec<Confirmation>) {
        let mut streams = self.lock();
        for confirmation in confirmations {
            streams.unwritten.entry(confirmation.gateway.clone()).or_insert(confirmation);
        }
        self.confirmed.notify_one();
    }

    /// What was taken is in the database.
    pub(crate) fn wrote(&self) {
        self.written.send_modify(|times| *times += 1);
    }

    /// Changes whenever confirmations have come to the database.
    pub(crate) fn written(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// Milliseconds from the push of `serial` to its confirmation, by Gateway, as far as this Controller measured them.
    pub(crate) fn took(&self, serial: Serial) -> BTreeMap<String, u64> {
        self.lock().took.get(&serial).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// Notes what the Gateway says that it applied, and in how many milliseconds since their push each of the serials that it
    /// confirms with it.
    pub(crate) fn note(&self, applied: Applied, measured: &[(Serial, u64)]) {
        let mut streams = self.hub.lock();
        for (serial, took_ms) in measured {
            streams.took.entry(*serial).or_default().insert(self.gateway.clone(), *took_ms);
        }
        while streams.took.len() > SERIALS_MEASURED_MAX {
            streams.took.pop_first();
        }
        let before = streams.applied.entry(self.gateway.clone()).or_default();
        let is_news = applied.revocations.is_some() && applied.revocations != before.revocations;
        let revocations = applied.revocations.or(before.revocations);
        let took_ms = measured.last().map(|(_, took_ms)| *took_ms);
        *before = Applied { took_ms: took_ms.or(before.took_ms), revocations, ..applied };
        if let Some(serial) = revocations.filter(|_| is_news) {
            let confirmation = Confirmation { gateway: self.gateway.clone(), revocations: serial, took_ms };
            streams.unwritten.insert(self.gateway.clone(), confirmation);
            self.hub.confirmed.notify_one();
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut streams = self.hub.lock();
        if streams.open.get(&self.gateway).is_some_and(|open| open.number == self.number) {
            streams.open.remove(&self.gateway);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1);
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn at(site: &str) -> Change {
        Change::Configuration { site: site.into() }
    }

    #[test]
    fn only_the_site_concerned_hears_of_it() {
        let hub = Arc::new(Hub::default());
        let (mut a, _) = hub.subscribe("a", "one", HERE, NOW);
        let (mut b, _) = hub.subscribe("b", "two", HERE, NOW);
        hub.tell(at("one"), Instant::now());
        assert_eq!(*a.news.try_recv().unwrap().change, at("one"));
        assert!(b.news.try_recv().is_err());
        let everywhere = Change::Revocations { token: "t".into(), serial: Serial { epoch: 1, n: 1 } };
        hub.tell(everywhere.clone(), Instant::now());
        for subscription in [&mut a, &mut b] {
            assert_eq!(*subscription.news.try_recv().unwrap().change, everywhere);
        }
        assert_eq!(
            (hub.open(None), hub.open(Some(&BTreeSet::from(["one".into()]))), hub.open(Some(&BTreeSet::new()))),
            (2, 1, 0)
        );
        drop(a);
        assert_eq!(hub.open(None), 1);
    }

    #[test]
    fn who_does_not_keep_up_is_out_and_nobody_else() {
        let hub = Arc::new(Hub::default());
        let (slow, _) = hub.subscribe("slow", "one", HERE, NOW);
        let (mut quick, _) = hub.subscribe("quick", "one", HERE, NOW);
        for told in 0..=PUSHES_WAITING_MAX {
            let lost = hub.tell(at("one"), Instant::now());
            assert_eq!(lost, usize::from(told == PUSHES_WAITING_MAX));
            quick.news.try_recv().unwrap();
        }
        assert_eq!(*slow.end.borrow(), Some(End::Lost));
        assert_eq!(*quick.end.borrow(), None);
        assert_eq!(hub.open(None), 1);
    }

    #[test]
    fn a_newer_stream_of_the_same_gateway_replaces_the_older() {
        let hub = Arc::new(Hub::default());
        let (older, replaced) = hub.subscribe("a", "one", HERE, NOW);
        assert_eq!(replaced, None);
        let (newer, replaced) = hub.subscribe("a", "one", ELSEWHERE, NOW);
        assert_eq!((replaced, hub.site("a"), hub.site("b")), (Some(HERE), Some("one".into()), None));
        assert_eq!((*older.end.borrow(), *newer.end.borrow()), (Some(End::Replaced), None));
        drop(older);
        assert_eq!(hub.open(None), 1, "the older one takes nothing with it");
        let serial = Serial { epoch: 1, n: 1 };
        newer.note(Applied { configuration_seq: 3, revocations: Some(serial), ..Applied::default() }, &[(serial, 7)]);
        newer.note(Applied { configuration_seq: 4, ..Applied::default() }, &[]);
        drop(newer);
        let applied = hub.applied("a").unwrap();
        assert_eq!((applied.configuration_seq, applied.took_ms, applied.revocations), (4, Some(7), Some(serial)));
    }

    #[tokio::test]
    async fn the_newest_confirmation_of_each_gateway_is_written_once() {
        let hub = Arc::new(Hub::default());
        let (a, _) = hub.subscribe("a", "one", HERE, NOW);
        let (b, _) = hub.subscribe("b", "one", HERE, NOW);
        let serial = |n| Serial { epoch: 1, n };
        let applied = |n| Applied { revocations: Some(serial(n)), ..Applied::default() };
        a.note(applied(1), &[(serial(1), 5)]);
        a.note(applied(3), &[(serial(2), 9), (serial(3), 4)]);
        b.note(applied(1), &[]);
        let confirmation =
            |gateway: &str, n, took_ms| Confirmation { gateway: gateway.into(), revocations: serial(n), took_ms };
        assert_eq!(hub.unwritten().await, [confirmation("a", 3, Some(4)), confirmation("b", 1, None)]);
        // What is known is no news; each serial has its own time.
        a.note(applied(3), &[]);
        a.note(Applied { configuration_seq: 7, ..Applied::default() }, &[]);
        assert!(hub.lock().unwritten.is_empty());
        assert_eq!([1, 2, 3].map(|n| hub.took(serial(n)).get("a").copied()), [Some(5), Some(9), Some(4)]);
        for n in 4..4 + SERIALS_MEASURED_MAX as u64 {
            a.note(applied(n), &[(serial(n), 1)]);
        }
        assert_eq!((hub.took(serial(3)).len(), hub.lock().took.len()), (0, SERIALS_MEASURED_MAX));
    }
}
