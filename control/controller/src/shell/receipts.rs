//! Receipts on their way: from Gateways' confirmations to the database, and from there to whoever waits for them (X6).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use ringfort_enrol::wall_clock;
use ringfort_proto::api;
use ringfort_token::Serial;
use tokio::time::{Instant, sleep, sleep_until};

use super::caller::Caller;
use super::http::{Asked, Failure};
use super::limits::{CONFIRMATIONS_AGAIN, CONFIRMATIONS_EVERY, RECEIPTS_LOOK, RECEIPTS_TIME};
use super::openapi::{Form, Parameter};
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
    asked: Asked,
) -> Result<Json<api::Receipts>, Failure> {
    let bearer = asked.bearer_with_certificate(&shell, &caller, wall_clock())?;
    let administrator = shell.core.administrator(&bearer, wall_clock()).await?;
    let Question { serial, wait } = Question::of(asked.query())?;
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

/// What the query may have.
pub(super) const QUERY: [Parameter; 2] = [
    Parameter {
        name: "serial",
        is_required: true,
        form: Form::Text { pattern: "^[0-9]{1,19}/[0-9]{1,19}$" },
        about: "The serial of the revocation list, `epoch/n`.",
    },
    Parameter {
        name: "wait",
        is_required: false,
        form: Form::Number { min: 0, max: api::RECEIPTS_SECONDS_MAX },
        about: "Seconds to wait until every Gateway has confirmed that is waited for.",
    },
];

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    serial: Serial,
    wait: Duration,
}

impl Question {
    /// # Errors
    /// `request_malformed`.
    fn of<'a>(query: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Result<Self, Refused> {
        let form = || {
            let most = RECEIPTS_TIME.as_secs();
            Refused::malformed(format!("expected ?serial=<epoch>/<n>, and &wait=<seconds> of at most {most}"))
        };
        let (mut serial, mut wait) = (None, Duration::ZERO);
        for (name, value) in query {
            match &*name {
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

    fn of(query: &str) -> Result<Question, Refused> {
        Question::of(form_urlencoded::parse(query.as_bytes()))
    }

    #[test]
    fn a_question_names_a_serial_and_at_most_a_bounded_time() {
        let serial = Serial { epoch: 17, n: 4 };
        assert_eq!(of("serial=17/4").unwrap(), Question { serial, wait: Duration::ZERO });
        assert_eq!(of("wait=20&serial=17%2F4").unwrap(), Question { serial, wait: RECEIPTS_TIME });
        for wrong in
            ["", "wait=1", "serial=17", "serial=17/x", "serial=17/4&wait=21", "serial=17/4&wait=-1", "serial=1/1&x=1"]
        {
            assert_eq!(of(wrong).unwrap_err().code, "request_malformed", "{wrong}");
        }
    }
}
