//! What is around [`Core`]: the one TCP port with its doors, the Gateways' streams, and the local status.
//!
//! | door | by ALPN | who |
//! |--|--|--|
//! | joining | `ringfort-join/1` | whoever has an invitation |
//! | HTTP API | `h2`, `http/1.1` | whoever has a proof, a certificate, or both |
//! | `GatewayControl` | `h2` | Gateways |
//! | health, reflection | `h2` | anybody |
//!
//! TLS 1.3 throughout. A client certificate is asked for and may be absent; one that is shown must be good, or the handshake
//! fails (W9), and its standing is looked up with every request. Whatever is refused passes through [`Shell::refuse`], which
//! counts it and writes the audit event.
//!
//! [`identity`] asks identity providers; what they say goes to the core.
//!
//! What it deliberately does not do: decide anything that [`Core`] decides. It judges who is at the other end of a
//! connection, bounds what it reads and how long it waits ([`limits`]), and carries answers.
//!
//! Requirements: A1, A2, A23, I3–I8, R7, R18, W9, K5; the design is `docs/CONTROL.md`.

mod api;
mod audit;
mod begun;
mod caller;
mod clocks;
mod counters;
mod duplicates;
mod grpc;
mod health;
mod hosts;
mod http;
mod hub;
mod identity;
mod join;
mod limits;
mod listener;
mod metrics;
mod nonces;
mod openapi;
mod operate;
mod places;
mod rates;
mod receipts;
mod server;
mod settings;
mod stream;

pub use api::openapi;
pub use server::Server;
pub use settings::Options;
pub(crate) use settings::kept_settings;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use ringfort_enrol::wall_clock;
use ringfort_token::Refusal;
use ringfort_token::proof::ProofRefused;
use tokio::sync::{Semaphore, watch};

use crate::core::{Bearer, Core, Event, Refused};
use caller::Caller;
use clocks::Clocks;
use counters::Counters;
use duplicates::Duplicates;
use hub::Hub;
use identity::Identity;
use limits::{OPEN_OF_ONE_ADDRESS_MAX, RECEIPTS_WAITING_MAX};
use nonces::Nonces;
use places::Places;
use rates::Rates;

/// What is counted besides refusals.
mod counted {
    /// Connections taken.
    pub(super) const ACCEPTED: &str = "connections";
    /// Connections dropped at once because too many were open.
    pub(super) const OVER_LIMIT: &str = "connections_over_limit";
    /// Handshakes that took too long.
    pub(super) const HANDSHAKES_LATE: &str = "handshakes_late";
    /// Joiners who took too long.
    pub(super) const JOINS_LATE: &str = "joins_late";
    /// Who joined.
    pub(super) const JOINED: &str = "joined";
    /// Logins that succeeded.
    pub(super) const LOGINS: &str = "logins";
    /// Messages sent to Gateways.
    pub(super) const PUSHES: &str = "pushes";
    /// Gateways' streams begun.
    pub(super) const SUBSCRIBED: &str = "subscriptions";
    /// Streams ended because the Gateway did not keep up.
    pub(super) const LOST: &str = "subscribers_lost";
    /// Streams ended because the same Gateway began another.
    pub(super) const REPLACED: &str = "subscribers_replaced";
    /// Streams of a Gateway that took the place of one which was open and came from another address.
    pub(super) const GATEWAY_DUPLICATES: &str = "gateway_duplicates";
    /// Sessions that were live at two Gateways of a site for too long.
    pub(super) const SESSION_DUPLICATES: &str = "session_duplicates";
    /// Transactions in which confirmations of Gateways were written.
    pub(super) const CONFIRMATIONS: &str = "confirmations_written";
    /// Refusals that were counted and not written, because too many came.
    pub(super) const UNWRITTEN: &str = "audit_rows_left_out";

    pub(super) const ALL: [&str; 14] = [
        ACCEPTED,
        OVER_LIMIT,
        HANDSHAKES_LATE,
        JOINS_LATE,
        JOINED,
        LOGINS,
        PUSHES,
        SUBSCRIBED,
        LOST,
        REPLACED,
        GATEWAY_DUPLICATES,
        SESSION_DUPLICATES,
        CONFIRMATIONS,
        UNWRITTEN,
    ];
}

/// What every connection shares.
pub(crate) struct Shell {
    core: Core,
    identity: Identity,
    counters: Counters,
    nonces: Nonces,
    hub: Arc<Hub>,
    clocks: Clocks,
    duplicates: Duplicates,
    rates: Rates,
    noise: Noise,
    /// Whether this Controller can decide anything, as far as was seen.
    able: watch::Sender<bool>,
    /// Open requests for health and reflection, by address.
    open_requests: Arc<Places<IpAddr>>,
    /// Requests that wait for receipts.
    waiting: Semaphore,
    /// Connections that are open now.
    open: AtomicU64,
    /// Becomes true when the Controller is to stop.
    stop: watch::Receiver<bool>,
}

impl Shell {
    fn new(core: Core, identity: Identity, stop: watch::Receiver<bool>) -> Self {
        let codes = Refused::CODES.into_iter().chain(Refusal::CODES).chain(ProofRefused::CODES);
        let hub = Arc::<Hub>::default();
        let reach = Arc::clone(&hub);
        core.set_reach(move |sites| reach.open(sites));
        identity.answer_otp(&core);
        Self {
            core,
            identity,
            counters: Counters::new(&counted::ALL, codes),
            nonces: Nonces::default(),
            hub,
            clocks: Clocks::default(),
            duplicates: Duplicates::default(),
            noise: Noise::default(),
            able: watch::Sender::new(true),
            open_requests: Places::new(OPEN_OF_ONE_ADDRESS_MAX),
            rates: Rates::default(),
            waiting: Semaphore::new(RECEIPTS_WAITING_MAX),
            open: AtomicU64::new(0),
            stop,
        }
    }

    /// Whether the Controller is to stop.
    fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits until the Controller is to stop.
    async fn stopped(&self) {
        // An error is the end of whoever could stop us, which is a stop too.
        drop(self.stop.clone().wait_for(|stop| *stop).await);
    }

    /// Takes one request of a bearer.
    ///
    /// # Errors
    /// [`TooOften`](rates::TooOften).
    fn pace(&self, bearer: &Bearer) -> Result<(), rates::TooOften> {
        let claims = bearer.claims();
        self.rates.take(&claims.cnf.jkt, Some(&claims.user), Instant::now())
    }

    /// Counts a refusal that is not written down; gives the id of no event.
    fn refuse_unwritten(&self, refused: &Refused) -> String {
        self.counters.refused(refused.code);
        self.counters.count(counted::UNWRITTEN);
        String::new()
    }

    /// Counts a refusal and writes it down; gives the audit event's id, which is empty when too many are refused for each to
    /// be written.
    async fn refuse(&self, caller: &Caller, action: &str, target: &str, refused: &Refused) -> String {
        // What somebody who is nobody causes must not fill the disk. A failed login is bounded by its cost, and always written.
        if !matches!(refused.code, "login_refused" | "otp_refused") && !self.noise.take(caller, Instant::now()) {
            return self.refuse_unwritten(refused);
        }
        self.counters.refused(refused.code);
        let actor = caller.actor();
        let event =
            Event { actor: &actor, action, target: short(target), outcome: refused.code, detail: &refused.message };
        self.core.audit(event, wall_clock()).await
    }
}

/// The beginning of what somebody else wrote, for a log.
fn short(text: &str) -> &str {
    const BYTES_MAX: usize = 128;
    let end = (0..=BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

use noise::Noise;

/// How many refusals are written down.
mod noise {
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use super::caller::Caller;
    use super::limits::{KNOWN_ROWS_PER_SECOND, NOISE_ROWS_PER_SECOND};

    /// Rows written in the present second, of those without a certificate and of those with one.
    #[derive(Debug, Default)]
    pub(super) struct Noise(Mutex<[Option<(Instant, u32)>; 2]>);

    impl Noise {
        /// Whether a row may be written now.
        pub(super) fn take(&self, caller: &Caller, now: Instant) -> bool {
            let (slot, max) = if caller.is_known() { (1, KNOWN_ROWS_PER_SECOND) } else { (0, NOISE_ROWS_PER_SECOND) };
            let mut seconds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let second = &mut seconds[slot];
            let (since, rows) = second
                .filter(|(since, _)| now.saturating_duration_since(*since) < Duration::from_secs(1))
                .unwrap_or((now, 0));
            if rows >= max {
                return false;
            }
            *second = Some((since, rows + 1));
            true
        }
    }
}
