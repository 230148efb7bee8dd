//! Receipts: which Gateways have applied what was taken back, in how many milliseconds, and when the sessions of a silent one
//! have ended by themselves (X6).
//!
//! A silent Gateway goes on with the sessions that it has until their tokens and certificates end, which is with the login
//! at the latest, and admits new ones until its lease ends; those end with the same logins. So the time that is told is the
//! end of the last login that is concerned, written down when something is taken from it. A Gateway is waited for while it is
//! alive, or while such a login lasts.

use std::collections::BTreeMap;

use ringfort_proto::api;
use ringfort_token::Serial;
use ringfort_types::UnixSeconds;

use super::issue::was_seen;
use super::refused::Refused;
use super::store::{self, AppliedRow};
use super::{Administrator, Core, action};

/// What a Gateway said that it applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// Its id.
    pub gateway: String,
    /// Revocations up to here.
    pub revocations: Serial,
    /// Milliseconds from the push of that serial to its saying so, where that was measured.
    pub took_ms: Option<u64>,
}

impl Core {
    /// Keeps what Gateways said that they applied, all in one transaction, so that every Controller can tell of it.
    ///
    /// # Errors
    /// `internal`.
    pub async fn confirmed(&self, confirmations: &[Confirmation], now: UnixSeconds) -> Result<(), Refused> {
        // Of several of one Gateway the last counts.
        let mut said = BTreeMap::new();
        for Confirmation { gateway, revocations, took_ms } in confirmations {
            said.insert(gateway.as_str(), AppliedRow { serial: *revocations, took_ms: *took_ms });
        }
        let mut tx = self.inner.store.begin().await?;
        store::set_applied(&mut tx, &said, now).await?;
        Ok(tx.commit().await?)
    }

    /// How the Gateways stand with everything that was taken back up to `serial`.
    ///
    /// # Errors
    /// `request_malformed` for a serial that there is not.
    pub async fn receipts(
        &self,
        _administrator: &Administrator<action::SeeReceipts>,
        serial: Serial,
        now: UnixSeconds,
    ) -> Result<api::Receipts, Refused> {
        let ours = self.serial();
        if serial.epoch != ours.epoch || serial.n > ours.n {
            return Err(Refused::malformed(format!(
                "expected a serial up to {}/{}, as the answer to a revocation names it",
                ours.epoch, ours.n
            )));
        }
        let rows = store::receipts(&mut *self.inner.store.read().await?, serial).await?;
        let receipt = |row: store::ReceiptRow| {
            let done = row.applied.is_some_and(|applied| applied.serial >= serial);
            let exact = row.applied.filter(|applied| applied.serial == serial);
            api::Receipt {
                done,
                awaited: done || was_seen(row.last_seen, now) || row.unheard_end > now,
                applied: row.applied.map(|applied| serial_text(applied.serial)).unwrap_or_default(),
                took_ms: exact.and_then(|applied| applied.took_ms),
                sessions_end: (!done && row.unheard_end.0 > 0).then_some(row.unheard_end.0),
                lease_until: row.lease_until.0,
                id: row.id,
                name: row.name,
                site: row.site,
            }
        };
        Ok(api::Receipts { serial: serial_text(serial), gateways: rows.into_iter().map(receipt).collect() })
    }
}

/// A serial as people and programs read it: `epoch/n`.
#[must_use]
pub fn serial_text(serial: Serial) -> String {
    format!("{}/{}", serial.epoch, serial.n)
}
