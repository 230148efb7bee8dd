//! Receipts on their way: from Gateways' confirmations to the database, and from there to whoever waits for them (X6).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Request, State};
use ringfort_enrol::wall_clock;
use ringfort_proto::api;
use ringfort_token::Serial;
use tokio::time::{Instant, sleep, sleep_until};

use super::caller::Caller;
use super::http::{Asked, Failure};
use super::limits::{CONFIRMATIONS_AGAIN, CONFIRMATIONS_EVERY, RECEIPTS_LOOK, RECEIPTS_TIME};
use super::{Shell, counted};
use crate::core::Refused;

/// Writes what Gateways confirm, of all together at most once in [`CONFIRMATIONS_EVERY`]. It never ends.
pub(crate) async fn keep(shell: &Shell) {
    loop {
        let confirmations = shell.hub.unwritten().await;
        if shell.core.confirmed(&confirmations, wall_clock()).await.is_ok() {
            shell.counters.count(counted::CONFIRMATIONS);
            shell.hub.wrote();
            sleep(CONFIRMATIONS_EVERY).await;
        } else {
            // The log has said why.
            shell.hub.put_back(confirmations);
            sleep(CONFIRMATIONS_AGAIN).await;
        }
    }
}

/// `GET admin/receipts?serial=<epoch>/<n>&wait=<seconds>`: answered when every Gateway that is waited for has confirmed, or when
/// the time is over.
pub(crate) async fn receipts(
    State(shell): State<Arc<Shell>>,
    Extension(caller): Extension<Arc<Caller>>,
    request: Request,
) -> Result<Json<api::Receipts>, Failure> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let bearer = Asked::from(request).bearer_with_certificate(&shell, &caller, wall_clock())?;
    let administrator = shell.core.administrator(&bearer, wall_clock()).await?;
    let Question { serial, wait } = Question::of(&query)?;
    let place = shell.waiting.try_acquire();
    let deadline = Instant::now() + if place.is_ok() { wait } else { Duration::ZERO };
    let mut written = shell.hub.written();
    loop {
        written.mark_unchanged();
        let mut receipts = shell.core.receipts(&administrator, serial, wall_clock()).await?;
        let took = shell.hub.took(serial);
        for receipt in &mut receipts.gateways {
            receipt.took_ms = took.get(&receipt.id).copied().or(receipt.took_ms);
        }
        if receipts.is_complete() || Instant::now() >= deadline {
            return Ok(Json(receipts));
        }
        tokio::select! {
            // An error is the hub's end, and so the Controller's.
            changed = written.changed() => if changed.is_err() { return Ok(Json(receipts)) },
            () = sleep(RECEIPTS_LOOK) => {}
            () = sleep_until(deadline) => {}
            () = shell.stopped() => return Ok(Json(receipts)),
        }
    }
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    serial: Serial,
    wait: Duration,
}

impl Question {
    /// # Errors
    /// `request_malformed`.
    fn of(query: &str) -> Result<Self, Refused> {
        let form = || {
            let most = RECEIPTS_TIME.as_secs();
            Refused::malformed(format!("expected ?serial=<epoch>/<n>, and &wait=<seconds> of at most {most}"))
        };
        let (mut serial, mut wait) = (None, Duration::ZERO);
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "serial" => {
                    let (epoch, n) = value.split_once('/').ok_or_else(form)?;
                    let number = |text: &str| text.parse().map_err(|_| form());
                    serial = Some(Serial { epoch: number(epoch)?, n: number(n)? });
                }
                "wait" => wait = Duration::from_secs(value.parse().map_err(|_| form())?),
                _ => return Err(form()),
            }
        }
        match serial {
            Some(serial) if wait <= RECEIPTS_TIME => Ok(Self { serial, wait }),
            _ => Err(form()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_a_serial_and_at_most_a_bounded_time() {
        let serial = Serial { epoch: 17, n: 4 };
        assert_eq!(Question::of("serial=17/4").unwrap(), Question { serial, wait: Duration::ZERO });
        assert_eq!(Question::of("wait=20&serial=17/4").unwrap(), Question { serial, wait: RECEIPTS_TIME });
        for wrong in
            ["", "wait=1", "serial=17", "serial=17/x", "serial=17/4&wait=21", "serial=17/4&wait=-1", "serial=1/1&x=1"]
        {
            assert_eq!(Question::of(wrong).unwrap_err().code, "request_malformed", "{wrong}");
        }
    }
}
