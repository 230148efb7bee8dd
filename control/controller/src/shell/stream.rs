//! One Gateway's stream (R7, R12, R18, K5): what it missed, then what happens.
//!
//! The Gateway's place in the hub is taken **before** what it missed is read, so that nothing falls between the two; what was
//! already sent is left out when it comes again as news.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{Stream, stream};
use ringfort_enrol::wall_clock;
use ringfort_identity::Role;
use ringfort_proto::v1::push::What;
use ringfort_proto::v1::subscribe_request::Say;
use ringfort_proto::v1::{self, operation};
use ringfort_token::Serial;
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, interval_at, timeout};
use tonic::{Status, Streaming};

use super::caller::Caller;
use super::grpc::{refuse, wall_clock_ms};
use super::hub::{Applied, Asked, End, News, Subscription};
use super::limits::{CONFIGURATION_RENEWAL, HELLO_TIME, OPERATIONS_WAITING_MAX, PUSHES_WAITING_MAX};
use super::{Shell, counted, duplicates};
use crate::core::{Change, Refused};

/// What a Gateway gets.
pub(crate) type Pushes = Pin<Box<dyn Stream<Item = Result<v1::Push, Status>> + Send>>;

/// Waits for the Gateway's `Hello`, takes its place in the hub, and reads what it missed.
///
/// # Errors
/// `request_malformed` without `Hello`; and what [`crate::core::Core`] refuses.
pub(crate) async fn begin(
    shell: &Arc<Shell>,
    caller: &Arc<Caller>,
    mut said: Streaming<v1::SubscribeRequest>,
) -> Result<Pushes, Refused> {
    let late = |_| Refused { status: 408, ..Refused::malformed("expected Hello within 10 s") };
    let first = timeout(HELLO_TIME, said.message()).await.map_err(late)?;
    let Ok(Some(v1::SubscribeRequest { say: Some(Say::Hello(hello)) })) = first else {
        return Err(Refused::malformed("expected Hello as the first message of the stream"));
    };
    let now = wall_clock();
    let peer = caller.peer_as(Role::Gateway, &shell.core, now)?;
    let (gateway, site): (Arc<str>, _) = (peer.id().into(), shell.core.site_of(peer).await?);
    let (place, replaced) = shell.hub.subscribe(&gateway, &site, caller.address().ip().to_canonical(), now);
    shell.counters.count(counted::SUBSCRIBED);
    if let Some(before) = replaced {
        shell.counters.count(counted::REPLACED);
        duplicates::note_stream(shell, caller, &gateway, before).await;
    }
    let mut renewal = interval_at(tokio::time::Instant::now() + CONFIGURATION_RENEWAL, CONFIGURATION_RENEWAL);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut session = Session {
        shell: Arc::clone(shell),
        caller: Arc::clone(caller),
        gateway,
        said,
        place,
        renewal,
        ready: VecDeque::new(),
        sent: Sent::default(),
        told: VecDeque::new(),
        asked: BTreeMap::new(),
        over: false,
    };
    session.catch_up(&hello).await?;
    Ok(Box::pin(stream::unfold(session, |mut session| async move { Some((session.next().await?, session)) })))
}

/// The state of a stream between two pushes. It moves only as fast as the Gateway takes what it is sent.
struct Session {
    shell: Arc<Shell>,
    caller: Arc<Caller>,
    gateway: Arc<str>,
    said: Streaming<v1::SubscribeRequest>,
    place: Subscription,
    renewal: Interval,
    /// To be sent next, in order.
    ready: VecDeque<v1::Push>,
    sent: Sent,
    /// Revocations sent and not yet applied, and when they were told.
    told: VecDeque<(Serial, Instant)>,
    /// Operations that were sent and not answered, by id.
    asked: BTreeMap<String, oneshot::Sender<v1::OperationDone>>,
    over: bool,
}

/// How far the Gateway is with what was sent.
#[derive(Default)]
struct Sent {
    revocations: Serial,
    /// Sequence numbers by name of session, of what the Gateway had and of what it was sent to catch up.
    entitlements: BTreeMap<String, u64>,
}

/// What the text of an entitlement token of our own says, as far as its order goes.
#[derive(Deserialize)]
struct Numbers {
    sub: String,
    seq: u64,
}

impl Numbers {
    fn of(token: &str) -> Result<Self, Refused> {
        let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let numbers = payload.and_then(|payload| serde_json::from_slice(&payload).ok());
        numbers.ok_or_else(|| Refused::internal("a token of our own cannot be read"))
    }
}

impl Session {
    /// Puts everything that the Gateway missed in order (`docs/CONTROL.md`, "The stream").
    async fn catch_up(&mut self, hello: &v1::Hello) -> Result<(), Refused> {
        self.introduce().await?;
        let core = &self.shell.core;
        let now = wall_clock();
        let v1::Serial { epoch, n } = hello.revocations.unwrap_or_default();
        self.sent.revocations = Serial { epoch, n };
        let had = Applied {
            revocations: Some(self.sent.revocations),
            configuration_seq: hello.configuration_seq,
            at: now,
            took_ms: None,
        };
        self.place.note(had, &[]);
        for (token, serial) in core.revocations_after(self.sent.revocations, now).await?.iter() {
            self.sent.revocations = *serial;
            self.ready.push_back(push(What::Revocations(token.to_string())));
        }
        self.sent.entitlements = hello.sessions.iter().map(|live| (live.dn.clone(), live.seq)).collect();
        for token in core.entitlements_newer(&self.gateway, &hello.sessions, now).await? {
            let Numbers { sub, seq } = Numbers::of(&token)?;
            self.sent.entitlements.insert(sub, seq);
            self.ready.push_back(push(What::Entitlement(token)));
        }
        self.ready.push_back(push(What::CaughtUp(v1::CaughtUp {})));
        Ok(())
    }

    async fn next(&mut self) -> Option<Result<v1::Push, Status>> {
        if self.over {
            return None;
        }
        let next = match self.wait().await {
            Ok(Some(push)) => Ok(v1::Push { controller_time_ms: wall_clock_ms(), ..push }),
            Ok(None) => return None,
            Err(Ended::Status(status)) => Err(status),
            Err(Ended::Refused(refused)) => Err(refuse(&self.shell, &self.caller, "Subscribe", refused).await),
        };
        self.over = next.is_err();
        if next.is_ok() {
            self.shell.counters.count(counted::PUSHES);
        }
        Some(next)
    }

    /// The next push; `None` when the Gateway has nothing more to say, which is the end.
    async fn wait(&mut self) -> Result<Option<v1::Push>, Ended> {
        loop {
            let ended = *self.place.end.borrow();
            if let Some(end) = ended {
                return Err(Ended::Status(farewell(end)));
            }
            if let Some(push) = self.ready.pop_front() {
                return Ok(Some(push));
            }
            tokio::select! {
                biased;
                // Looked at above. An end without a reason is that of the hub, and so of the Controller.
                changed = self.place.end.changed() => if changed.is_err() {
                    return Err(Ended::Status(farewell(End::Stopping)));
                },
                said = self.said.message() => match said {
                    Ok(Some(v1::SubscribeRequest { say: Some(Say::Applied(applied)) })) => self.applied(&applied),
                    Ok(Some(v1::SubscribeRequest { say: Some(Say::OperationDone(done)) })) => {
                        // Whoever asked may have gone; an answer to nothing is none.
                        if let Some(answer) = self.asked.remove(&done.id) {
                            drop(answer.send(done));
                        }
                    }
                    Ok(None) | Err(_) => return Ok(None),
                    Ok(Some(_)) => return Err(Refused::malformed("expected Applied or OperationDone after Hello").into()),
                },
                Some(asked) = self.place.operations.recv() => self.ask(asked).await?,
                Some(news) = self.place.news.recv() => self.hear(&news).await?,
                _ = self.renewal.tick() => self.configure().await?,
            }
        }
    }

    async fn hear(&mut self, News { change, told }: &News) -> Result<(), Ended> {
        match &**change {
            Change::Configuration { .. } => self.configure().await?,
            Change::Authorities => {
                self.still_good()?;
                self.introduce().await?;
            }
            // The hub ends the stream instead of saying so.
            Change::Missed => {}
            Change::Entitlement { token, .. } => {
                let Numbers { sub, seq } = Numbers::of(token)?;
                if self.sent.entitlements.get(&sub).is_none_or(|sent| seq > *sent) {
                    // From here on what happens comes in order.
                    self.sent.entitlements.remove(&sub);
                    self.ready.push_back(push(What::Entitlement(token.to_string())));
                }
            }
            Change::Revocations { token, serial } => {
                // The Gateway itself may be what was revoked.
                self.still_good()?;
                if *serial > self.sent.revocations {
                    self.sent.revocations = *serial;
                    if self.told.len() >= PUSHES_WAITING_MAX {
                        self.told.pop_front();
                    }
                    self.told.push_back((*serial, *told));
                    self.ready.push_back(push(What::Revocations(token.to_string())));
                }
            }
        }
        Ok(())
    }

    /// Sends a configuration, and whom the Gateway is to believe.
    async fn introduce(&mut self) -> Result<(), Refused> {
        let core = self.shell.core.clone();
        let der = |certificates: Vec<Vec<u8>>| certificates.into_iter().map(Into::into).collect();
        let (signers, intermediates) = (der(core.signers_der()), der(core.intermediates_der()));
        let controllers = core.controllers();
        let configuration = core.configuration(&self.gateway, wall_clock()).await?;
        let what = push(What::Configuration(configuration));
        self.ready.push_back(v1::Push { signers, intermediates, controllers, ..what });
        Ok(())
    }

    async fn ask(&mut self, Asked { operation, answer }: Asked) -> Result<(), Refused> {
        // Nobody waits any more for those that took too long.
        self.asked.retain(|_, answer| !answer.is_closed());
        if answer.is_closed() || self.asked.len() >= OPERATIONS_WAITING_MAX {
            return Ok(());
        }
        if let Some(operation::What::EndSessions(_)) = operation.what {
            // That it is drained must be known there before: it may be news that is still on its way.
            self.configure().await?;
        }
        self.asked.insert(operation.id.clone(), answer);
        self.ready.push_back(push(What::Operation(operation)));
        Ok(())
    }

    async fn configure(&mut self) -> Result<(), Refused> {
        // Nor does a stream outlive its key, where the Gateway has another one by now.
        self.shell.core.site_of(self.caller.peer_as(Role::Gateway, &self.shell.core, wall_clock())?).await?;
        let configuration = self.shell.core.configuration(&self.gateway, wall_clock()).await?;
        self.ready.push_back(push(What::Configuration(configuration)));
        Ok(())
    }

    /// A stream may outlive its certificate.
    fn still_good(&self) -> Result<(), Refused> {
        self.caller.peer_as(Role::Gateway, &self.shell.core, wall_clock()).map(drop)
    }

    fn applied(&mut self, applied: &v1::Applied) {
        let v1::Applied { revocations, configuration_seq, entitlements: _ } = applied;
        let revocations = revocations.map(|v1::Serial { epoch, n }| Serial { epoch, n });
        let mut measured = Vec::new();
        while let Some((serial, told)) = self.told.front() {
            if revocations.is_none_or(|upto| *serial > upto) {
                break;
            }
            measured.push((*serial, u64::try_from(told.elapsed().as_millis()).unwrap_or(u64::MAX)));
            self.told.pop_front();
        }
        let configuration_seq = *configuration_seq;
        self.place.note(Applied { revocations, configuration_seq, at: wall_clock(), took_ms: None }, &measured);
    }
}

/// Why a stream ends with an error.
enum Ended {
    Status(Status),
    Refused(Refused),
}

impl From<Refused> for Ended {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

fn push(what: What) -> v1::Push {
    v1::Push { what: Some(what), ..v1::Push::default() }
}

fn farewell(end: End) -> Status {
    match end {
        End::Lost => Status::resource_exhausted("too many pushes were waiting for this Gateway: begin the stream anew"),
        End::Replaced => Status::aborted("this Gateway began another stream"),
        End::Stopping => Status::unavailable("the Controller stops: begin the stream anew"),
    }
}
